"""A model opens over the mapped file, refuses what it can't run, and closes clean."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nis_edge.engine import library
from nis_edge.engine.model import Model
from nis_edge.engine.reference import reference_head, reference_logits
from nis_edge.errors import DeviceError, KernelUnavailableError, ModelError
from nis_edge.pack.layout import TaskHead
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors, write_tiny_package

TOKENS = [1, 5, 300, 17, 33, 2, 8, 90, 91, 7, 7, 7, 200]

SHAPES = {
    "bitnet": {},
    "llama": {"activation": "silu", "sub_norms": False, "tied_head": False, "embed": "F16"},
    "odd": {"hidden": 72, "ffn": 88, "heads": 3, "kv_heads": 1, "head_dim": 6, "vocab": 317, "embed": "BF16"},
    "one head": {"hidden": 64, "heads": 1, "kv_heads": 1, "head_dim": 128, "layers": 1, "task_heads": {}},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("model") / "tiny.nis")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_and_heads_agree_with_the_numpy_reference(tmp_path: Path, shape: str) -> None:
    path = write_tiny_package(tmp_path / "m.nis", seed=3, tokenizer=False, **SHAPES[shape])
    with Model.open(path) as model, open_package(path) as package:
        session = model.session()
        logits = session.forward(TOKENS, all_positions=True)
        truth = reference_logits(package, TOKENS, all_positions=True)
        # Both are float32; only the order of summation differs.
        np.testing.assert_allclose(logits, truth, rtol=0, atol=1e-4 * np.abs(truth).max())
        for name in model.manifest.architecture.task_heads:
            expected = reference_head(package, TOKENS, name)
            np.testing.assert_allclose(session.head(name), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(tmp_path: Path, shape: str) -> None:
    path = write_tiny_package(tmp_path / "m.nis", seed=4, tokenizer=False, **SHAPES[shape])
    for kv in ("F32", "F16"):
        results = set()
        for isa in library.offered_isas():
            for threads in (1, 2, 3):
                with Model.open(path, threads=threads, isa=isa) as model:
                    assert model.isa == isa
                    results.add(model.session(kv=kv).forward(TOKENS, all_positions=True).tobytes())
        assert len(results) == 1


def test_the_best_instruction_set_is_the_default(tiny: Path) -> None:
    with Model.open(tiny) as model:
        assert model.isa == library.offered_isas()[0]


def test_an_absent_instruction_set_is_named_with_those_that_are_here(tiny: Path) -> None:
    with pytest.raises(KernelUnavailableError, match=r"mmx.*this CPU offers .*scalar"):
        Model.open(tiny, isa="mmx")


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_thread_counts_out_of_range_are_refused(tiny: Path, threads: int) -> None:
    with pytest.raises(ModelError, match="threads"):
        Model.open(tiny, threads=threads)


def test_weights_are_not_copied(tmp_path: Path) -> None:
    # 64 MiB of embedding; reading three rows of it must not bring the rest into memory.
    path = write_tiny_package(tmp_path / "big.nis", tokenizer=False, vocab=1 << 18, task_heads={}, embed="F32")
    code = (
        "import sys; from nis_edge.engine.model import Model\n"
        "import resource\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "from nis_edge.engine import library; library.load()\n"
        "before = peak(); model = Model.open(sys.argv[1]); session = model.session()\n"
        "session.feed([1, 2, 3]); print(peak() - before)"
    )
    grown_kib = int(
        subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True, text=True).stdout
    )
    assert path.stat().st_size > 64 << 20
    assert grown_kib < 16 << 10


def test_a_model_beyond_the_engine_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path / "m.nis", tokenizer=False, heads=1, kv_heads=1, head_dim=2048)
    with pytest.raises(ModelError, match=r"head_dim is 2048, must be 1 to 1024"):
        Model.open(path)


def test_numbers_that_overflow_are_an_error_and_never_a_result(tmp_path: Path) -> None:
    manifest = tiny_manifest(tokenizer=False)
    tensors = tiny_tensors(manifest)
    tensors["trunk.1.ffn_norm"] = np.full(64, 3e38, dtype=np.float32)
    write_package(tmp_path / "m.nis", manifest, tensors)
    with Model.open(tmp_path / "m.nis") as model:
        session = model.session()
        with pytest.raises(ModelError, match="not finite"):
            session.forward(TOKENS)
        assert session.position == 0


def test_a_closed_model_and_its_sessions_refuse_work(tiny: Path) -> None:
    model = Model.open(tiny)
    session = model.session()
    model.close()
    model.close()
    with pytest.raises(ModelError, match="session is closed"):
        session.forward(TOKENS)
    with pytest.raises(ModelError, match="model is closed"):
        model.session()


def test_a_dropped_model_lives_as_long_as_its_session(tiny: Path) -> None:
    session = Model.open(tiny).session()
    assert np.isfinite(session.forward(TOKENS)).all()


class WatchedFrees:
    """The library, with a list of what was freed and the status."""

    def __init__(self) -> None:
        self.freed: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(library.load(), name)
        if not name.endswith("_free"):
            return function

        def call(pointer: Any) -> Any:
            status = function(pointer)
            self.freed.append((name, status))
            return status

        return call


@pytest.mark.parametrize("model_first", [True, False])
def test_a_model_in_a_cycle_with_open_sessions_is_freed_whole_and_in_silence(
    tiny: Path, model_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    watched = WatchedFrees()
    model = Model.open(tiny)
    model._library = watched  # type: ignore[assignment]
    cycle: list[object] = [model] if model_first else []
    cycle += [model.session(), model.session(), cycle]
    cycle += [] if model_first else [model]
    del model, cycle
    gc.collect()
    assert watched.freed == [("nis_session_free", None)] * 2 + [("nis_model_free", library.OK)]
    assert not unraisable


def test_the_end_of_the_interpreter_finds_a_model_with_an_open_session_and_is_silent(tiny: Path) -> None:
    code = (
        "from nis_edge.engine.model import Model\n"
        f"model = Model.open({str(tiny)!r}, threads=2)\n"
        "session = model.session(); session.feed([1, 2, 3]); model.itself = [model, session]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("positions", [0, 129, -3])
def test_sessions_beyond_the_context_are_refused(tiny: Path, positions: int) -> None:
    with Model.open(tiny) as model, pytest.raises(ModelError, match=f"{positions} positions"):
        model.session(max_positions=positions)


def test_a_forked_child_is_told_to_open_its_own_model(tiny: Path) -> None:
    with Model.open(tiny, threads=2) as model:
        session = model.session()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                session.forward(TOKENS)
            except ModelError as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert "fork" in pipe.read()
        os.waitpid(child, 0)


def test_task_heads_have_their_own_layers(tmp_path: Path) -> None:
    heads = {"consciousness": TaskHead(3, ("a", "b")), "physics": TaskHead(0, ("c",))}
    path = write_tiny_package(tmp_path / "m.nis", tokenizer=False, task_heads=heads)
    with Model.open(path) as model, open_package(path) as package:
        session = model.session()
        session.feed(TOKENS)
        for name in heads:
            expected = reference_head(package, TOKENS, name)
            np.testing.assert_allclose(session.head(name), expected, rtol=0, atol=1e-4)


def test_a_stale_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    library.load.cache_clear()
    monkeypatch.setattr(library, "ABI", 999)
    with pytest.raises(DeviceError, match="rebuild"):
        library.load()


def test_a_missing_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.load.cache_clear()
    monkeypatch.setattr(library, "PATH", tmp_path / "libnis_engine.so")
    with pytest.raises(DeviceError, match="pip install"):
        library.load()


def test_importing_the_engine_loads_neither_tokenizers_nor_the_library() -> None:
    code = "import sys, nis_edge.engine.model; print('tokenizers' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


@pytest.fixture(autouse=True)
def _reload_library() -> object:
    yield
    library.load.cache_clear()


def test_the_manifest_is_the_packages(tiny: Path) -> None:
    with Model.open(tiny) as model, open_package(tiny) as package:
        assert msgspec.to_builtins(model.manifest) == msgspec.to_builtins(package.manifest)
