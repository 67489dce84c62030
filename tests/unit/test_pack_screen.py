"""A package with the output head's screen: written where it pays, mapped by the engine, and never believed unseen."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nis_edge import limits, selftest
from nis_edge.cli import main
from nis_edge.engine import head_screen
from nis_edge.engine.model import Model
from nis_edge.errors import ModelError, PackFormatError
from nis_edge.pack import layout
from nis_edge.pack.layout import ScreenInfo
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors, write_tiny_package

VOCAB = 640
BARE: dict[str, Any] = {"vocab": VOCAB, "tokenizer": False}
NAMES = [f"screen.{name}" for name in ("scales", "norms", "errors", "nibbles", "ones", "halves")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face layout whose head has just the size from which the engine screens: 8 MiB."""
    from safetensors.numpy import save_file

    hidden, ffn, vocab = 64, 64, 65_536
    random = np.random.default_rng(1)
    tensors = {
        "model.embed_tokens.weight": random.standard_normal((vocab, hidden)).astype(np.float16),
        "model.norm.weight": np.ones(hidden, np.float32),
    }
    prefix = "model.layers.0."
    for name in ("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm"):
        tensors[f"{prefix}{name}.weight"] = np.ones(hidden, np.float32)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                 "mlp.up_proj", "mlp.down_proj"):  # fmt: skip
        tensors[f"{prefix}{name}.weight"] = random.standard_normal((hidden, hidden)).astype(np.float32)
    config = {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2", "hidden_size": hidden,
        "intermediate_size": ffn, "max_position_embeddings": 64, "num_attention_heads": 1, "num_hidden_layers": 1,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True,
        "vocab_size": vocab, "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("source")
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def pack(source: Path, path: Path, *flags: str) -> bytes:
    assert main(["pack", str(source), "-o", str(path), "--json", *flags]) == 0
    return path.read_bytes()


def test_pack_writes_the_screen_where_the_engine_would_use_one(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pack(source, tmp_path / "a.nis")
    assert json.loads(capsys.readouterr().out)["screen"] is True
    assert pack(source, tmp_path / "a.nis") == first
    assert not [entry for entry in tmp_path.iterdir() if entry.name != "a.nis"]
    with open_package(tmp_path / "a.nis") as package:
        assert package.manifest.screen == ScreenInfo("planes-4-1-1")
        assert [name for name in package.specs if name.startswith("screen.")] == NAMES
        assert all(package.offset(name) % 64 == 0 for name in NAMES)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "a.nis")]) == 0
    assert "made again from the head, is the package's" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "a.nis")]) == 0
    assert f"of the output head, {65_536 * (20 + 192):,} bytes" in capsys.readouterr().out


def test_the_first_token_is_read_through_a_packed_screen(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "a.nis", "--no-golden")
    with Model.open(tmp_path / "a.nis", threads=2) as model:
        session, plain = model.session(), model.session()
        assert session.greedy(1, 1) == [int(plain.forward([1]).argmax())]
        assert model.head_statistics()["rows_screened"] == 65_536


def test_no_screen_leaves_it_out_and_gives_the_same_tokens(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(source, tmp_path / "with.nis")
    capsys.readouterr()
    pack(source, tmp_path / "without.nis", "--no-screen")
    assert json.loads(capsys.readouterr().out)["screen"] is False
    tokens = []
    for name in ("with.nis", "without.nis"):
        with Model.open(tmp_path / name) as model:
            assert (model.manifest.screen is msgspec.UNSET) is (name == "without.nis")
            tokens.append(model.session().greedy(1, 30))
            goldens = model.manifest.golden
    assert tokens[0] == tokens[1]
    with open_package(tmp_path / "with.nis") as package:
        assert package.manifest.golden == goldens


def test_a_small_head_gets_none(tmp_path: Path) -> None:
    manifest = tiny_manifest()
    assert not head_screen.pays(manifest)
    with open_package("models/nis-nano/nis-nano.nis") as shipped:
        assert not head_screen.pays(shipped.manifest)


def test_a_package_without_a_screen_says_nothing_of_it(tmp_path: Path) -> None:
    assert "screen" not in json.loads(layout.encode_manifest(tiny_manifest()))


def test_the_untied_head_is_screened_and_not_the_embedding(tmp_path: Path) -> None:
    path = write_tiny_package(tmp_path / "a.nis", screen=True, tied_head=False, embed="BF16", **BARE)
    with open_package(path) as package:
        made = head_screen.make(package.tensors["head"], "BF16")
        assert np.array_equal(package.tensors["screen.nibbles"], made.planes[0])
        assert not np.array_equal(package.tensors["head"], package.tensors["embed"])
        head_screen.check(package)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], **shape: Any) -> Path:
    """A package with a screen, written again with changed tensors, so that every hash is right."""
    write_tiny_package(path, screen=True, **{**BARE, **shape})
    with open_package(path) as package:
        tensors: dict[str, Any] = {name: array.copy() for name, array in package.tensors.items()}
        change(tensors)
        write_package(path, package.manifest, tensors)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_verify_and_the_trial_refuse_a_screen_that_is_not_the_heads(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(tensors: dict[str, Any]) -> None:
        flat = tensors[name].reshape(-1)
        flat[flat.size // 2 + 1] += 1  # of a row that opening does not try

    path = rewritten(tmp_path / "a.nis", change)
    Model.open(path).close()
    assert main(["verify", str(path)]) != 0
    assert "screen of the output head is not what the head gives" in capsys.readouterr().err
    report = selftest.examine(path, None, Model.open)
    assert not report.passed
    assert "screen of the output head" in report.reason


def test_the_engine_refuses_the_screen_of_another_head(tmp_path: Path) -> None:
    def another(tensors: dict[str, Any]) -> None:
        tensors["embed"] = np.random.default_rng(9).standard_normal(tensors["embed"].shape).astype(np.float32)

    with pytest.raises(ModelError, match="screen: is that of another head"):
        Model.open(rewritten(tmp_path / "a.nis", another))


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, -0.0])
def test_bounds_that_are_none_are_not_written(tmp_path: Path, name: str, value: float) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name].reshape(-1)[7] = value

    with pytest.raises(PackFormatError, match=f"{name} (holds NaN or infinity|must not be below zero)"):
        rewritten(tmp_path / "a.nis", change)


def test_a_head_that_is_not_finite_is_refused_at_packing(tmp_path: Path) -> None:
    manifest = tiny_manifest(**BARE)
    tensors: dict[str, Any] = dict(tiny_tensors(manifest))
    tensors["embed"][500, 3] = np.nan
    manifest, tensors = head_screen.with_screen(manifest, tensors)
    with pytest.raises(PackFormatError, match="row 500 of the output head holds NaN or infinity"):
        write_package(tmp_path / "a.nis", manifest, tensors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hidden", [6, 65_538])
def test_a_head_too_narrow_or_too_wide_has_no_screen(hidden: int) -> None:
    manifest = tiny_manifest(hidden=hidden, heads=1, kv_heads=1, head_dim=2, tokenizer=False)
    with pytest.raises(PackFormatError, match=r"screen: architecture\.hidden must be 8 to 65536"):
        layout.check_manifest(msgspec.structs.replace(manifest, screen=ScreenInfo("planes-4-1-1")), "m")
    assert not head_screen.pays(manifest)


def test_the_format_before_screens_refuses_the_field_by_name(tmp_path: Path) -> None:
    """What a reader that does not know this field does with a package that has it: unknown fields are refused."""
    fields = json.loads(
        layout.encode_manifest(msgspec.structs.replace(tiny_manifest(), screen=ScreenInfo("planes-4-1-1")))
    )
    fields["screens"] = fields.pop("screen")
    with pytest.raises(PackFormatError, match="unknown field `screens`"):
        layout.decode_manifest(fields, "m")
    fields["screen"] = {"kind": "planes-8"}
    del fields["screens"]
    with pytest.raises(PackFormatError, match="planes-8"):
        layout.decode_manifest(fields, "m")


def test_packing_a_screen_takes_a_few_megabytes_whatever_the_head(tmp_path: Path) -> None:
    vocab, hidden = 40_000, 512
    manifest = tiny_manifest(vocab=vocab, hidden=hidden, embed="F16", tokenizer=False)
    row = np.random.default_rng(2).standard_normal((1000, hidden)).astype(np.float16)
    tensors: dict[str, Any] = dict(tiny_tensors(tiny_manifest(vocab=8, hidden=hidden, embed="F16", tokenizer=False)))
    tensors["embed"] = lambda: (row for _ in range(vocab // 1000))
    manifest, tensors = head_screen.with_screen(manifest, tensors)
    tracemalloc.start()
    try:
        write_package(tmp_path / "a.nis", manifest, tensors)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * limits.PACK_CHUNK_BYTES
    assert peak_bytes < vocab * hidden
    with open_package(tmp_path / "a.nis", check_content=True) as package:
        head_screen.check(package)


def test_a_head_that_never_ends_is_refused(tmp_path: Path) -> None:
    manifest = tiny_manifest(**BARE)
    tensors: dict[str, Any] = dict(tiny_tensors(manifest))

    def endless() -> Any:
        while True:
            yield np.ones((100, 64), np.float32)

    manifest, tensors = head_screen.with_screen(manifest, {**tensors, "embed": endless})
    with pytest.raises(PackFormatError, match="demands"):
        write_package(tmp_path / "a.nis", manifest, tensors)


def test_the_same_package_is_written_whoever_packs(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.nis", "b.nis"):
        write_tiny_package(tmp_path / name, screen=True, **BARE)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
