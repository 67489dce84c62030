"""The same package through ONNX Runtime: graphs, sessions, commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from nis_models.cli import main as models

from nis_edge import onnx_backend
from nis_edge.cli import main as edge
from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from nis_edge.onnx_backend import OnnxModel
from nis_edge.onnx_graph import EXACT_COLUMNS_MAX, WEIGHTS, Weights, build_graph, graph_names, write_graph
from nis_edge.pack.layout import TaskHead
from nis_edge.pack.reader import open_package
from tests.support.tiny_models import CONSCIOUSNESS_OUTPUTS, write_tiny_package

TOKENS = [5, 7, 300, 12, 12, 9, 250, 31, 8, 4]

TWO_BITS_RUN = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 24)

SHAPES = {
    "BitNet": {},
    "Llama-like": {"activation": "silu", "sub_norms": False},
    "untied head in half precision": {"tied_head": False, "embed": "F16"},
    "three heads to a group, sizes off the blocks": {
        "hidden": 72, "ffn": 200, "heads": 9, "kv_heads": 3, "head_dim": 10, "layers": 3,
    },
    "a head that is only a projection": {
        "task_heads": {"plain": TaskHead(layers=0, outputs=CONSCIOUSNESS_OUTPUTS[:3]),
                       "deep": TaskHead(layers=2, outputs=CONSCIOUSNESS_OUTPUTS[:5])},
    },
}  # fmt: skip


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_onnx_runtime_computes_the_engines_logits_and_heads(tmp_path: Path, shape: dict, weights: Weights) -> None:
    path = write_tiny_package(tmp_path / "tiny.nis", **shape)
    with Model.open(path) as native, OnnxModel(path, weights=weights) as through_onnx:
        if weights == "2bit" and not TWO_BITS_RUN:
            with pytest.raises(ModelError, match="ONNX Runtime can't run graph trunk"):
                through_onnx.session().forward(TOKENS)
            return
        ours, theirs = native.session(), through_onnx.session()
        wanted = ours.forward(TOKENS, all_positions=True)
        np.testing.assert_allclose(theirs.forward(TOKENS, all_positions=True), wanted, atol=1e-4 * wanted.std())
        for name in native.manifest.architecture.task_heads:
            np.testing.assert_allclose(theirs.head(name), ours.head(name), rtol=1e-4, atol=1e-4)


def test_a_prompt_in_pieces_gives_what_the_whole_prompt_gives(tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path / "tiny.nis")
    with OnnxModel(path) as model:
        whole, pieces = model.session(), model.session()
        wanted = whole.forward(TOKENS)
        pieces.feed(TOKENS[:3])
        pieces.head("consciousness")
        pieces.feed(TOKENS[3:9])
        np.testing.assert_allclose(pieces.forward(TOKENS[9:]), wanted, atol=1e-4)
        np.testing.assert_allclose(pieces.head("consciousness"), whole.head("consciousness"), atol=1e-4)


def test_a_rewound_session_answers_as_if_the_rest_was_never_read(tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path / "tiny.nis")
    with OnnxModel(path) as model:
        straight, rewound = model.session(), model.session()
        straight.feed(TOKENS)
        rewound.feed([*TOKENS, 1, 2, 3])
        rewound.head("consciousness")
        rewound.rewind(len(TOKENS))
        assert rewound.position == len(TOKENS)
        np.testing.assert_allclose(rewound.head("consciousness"), straight.head("consciousness"), atol=1e-4)
        np.testing.assert_allclose(rewound.forward([6]), straight.forward([6]), atol=1e-4)


def test_a_session_refuses_what_it_can_not_read_and_stays_where_it_was(tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path / "tiny.nis")
    with OnnxModel(path) as model:
        session = model.session()
        with pytest.raises(ModelError, match="read nothing"):
            session.head("consciousness")
        for tokens in ([], [320], [-1], [1] * 129):
            with pytest.raises(ModelError):
                session.feed(tokens)
        with pytest.raises(ModelError, match="no task head"):
            session.head("physics")
        with pytest.raises(ModelError, match="rewind"):
            session.rewind(1)
        assert session.position == 0


def test_rows_too_long_for_exact_float_sums_are_refused_in_two_bits_only(tmp_path: Path) -> None:
    columns = EXACT_COLUMNS_MAX + 64
    path = write_tiny_package(
        tmp_path / "wide.nis", hidden=16, heads=1, kv_heads=1, layers=1, ffn=columns, task_heads={}
    )
    with open_package(path) as package:
        build_graph(package, "trunk", "int8")
        with pytest.raises(ModelError, match="Take int8 weights"):
            build_graph(package, "trunk", "2bit")


def test_a_large_graph_keeps_its_weights_in_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nis_edge.onnx_graph.INLINE_BYTES_MAX", 1000)
    monkeypatch.setattr(onnx_backend, "INLINE_BYTES_MAX", 1000)
    path = write_tiny_package(tmp_path / "tiny.nis")
    with open_package(path) as package:
        write_graph(build_graph(package, "trunk", "int8"), tmp_path / "trunk.onnx")
    assert (tmp_path / "trunk.onnx.data").stat().st_size > (tmp_path / "trunk.onnx").stat().st_size
    with Model.open(path) as native, OnnxModel(path) as model:
        np.testing.assert_allclose(model.session().forward(TOKENS), native.session().forward(TOKENS), atol=1e-3)


def test_the_onnx_backend_writes_nearly_the_same_logits(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "tiny.nis")
    for backend in ("native", "onnx"):
        words = ["logits", "-m", str(package), "--tokens", "7,8,9", "-o", str(tmp_path / backend)]
        assert edge([*words, "--backend", backend, "--threads", "2"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "native"), np.load(tmp_path / "onnx"), atol=1e-3)
    assert edge([*words, "--backend", "onnx", "--isa", "scalar"]) == 2


def test_export_writes_graphs_that_say_which_package_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    package = write_tiny_package(tmp_path / "tiny.nis")
    folder = tmp_path / "graphs"
    assert models(["export-onnx", str(package), "-o", str(folder)]) == 0
    assert "same most likely token at 100%" in capsys.readouterr().out
    with open_package(package) as opened:
        names, sha256 = graph_names(opened), opened.sha256()
    assert sorted(path.name for path in folder.iterdir()) == sorted(["agreement.json", *(f"{n}.onnx" for n in names)])
    assert json.loads((folder / "agreement.json").read_text())["top1"] == 1.0
    for name in names:
        facts = {entry.key: entry.value for entry in onnx.load(folder / f"{name}.onnx").metadata_props}
        assert facts["nis.package_sha256"] == sha256
    assert models(["export-onnx", str(package), "-o", str(folder)]) == 2
    assert "already there" in capsys.readouterr().err


def test_a_graph_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    package = write_tiny_package(tmp_path / "tiny.nis")
    monkeypatch.setattr("nis_edge.onnx_graph._Graph._rotate", lambda self, x, cos, sin: x)
    assert models(["export-onnx", str(package), "-o", str(tmp_path / "graphs")]) == 1
    assert "something else than the engine" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.nis"]
