"""Logits recorded once, bit for bit: a change of these hashes is a change of every package's golden self-test."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from nis_edge.engine import golden, library
from nis_edge.engine.model import Model
from nis_edge.pack.layout import tensor_table
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, write_tiny_package

TOKENS = [(7919 * i + 3) % 320 for i in range(90)]

# SHA-256 of float32 little-endian logits [90, 320], then of the head's 18 outputs.
RECORDED = {
    "bitnet": (
        {},
        "b0e5095b9323db0695d12dd229505dfa89f74e463e3496d19a0cc428b9a2c479",
        "9f96ebbc07bc0e0c3dc25308fafae7b1308162cfe891df6870da4f1beaf197fb",
    ),
    "llama": (
        {"activation": "silu", "sub_norms": False, "tied_head": False, "embed": "F16"},
        "505a7da8b230b8eb3a8fed169135bab80af8d32fe1fca0555d4cecf1ab728f97",
        "5ee1145bc58bbcea02eb9173a057d6a3821ba2f1eb19dce72eda2731cf88e1bf",
    ),
}


class SplitMix64:
    """Random numbers by integers alone (S. Vigna's splitmix64), so that no version of numpy can change the weights."""

    def __init__(self, seed: int) -> None:
        self._drawn = seed

    def bits(self, shape: tuple[int, ...]) -> np.ndarray:
        """uint64 of a shape."""
        count = int(np.prod(shape))
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(self._drawn)) * np.uint64(0x9E3779B97F4A7C15)
        self._drawn += count
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))).reshape(shape)

    def floats(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32 in -1 .. 1, in steps of 2**-23: exact."""
        return ((self.bits(shape) >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) * np.float32(
            2**-23
        )


def write_fixed_package(path: Path, **shape: object) -> Path:
    """A package whose every bit follows from integers."""
    manifest = tiny_manifest(tokenizer=False, **shape)
    random = SplitMix64(2026)
    tensors: dict[str, np.ndarray | TernaryMatrix] = {}
    for spec in tensor_table(manifest):
        if spec.matrix is not None:
            codes = (random.bits(spec.matrix) % np.uint64(3)).astype(np.int8) - np.int8(1)
            tensors[spec.name] = TernaryMatrix.from_codes(codes, 0.125)
        elif not spec.name.endswith(".scale"):
            middle = np.float32(1 if spec.name.endswith("norm") else 0)
            values = middle + np.float32(0.5) * random.floats(spec.shape)
            tensors[spec.name] = values.astype(np.float16) if spec.dtype == "F16" else values
    write_package(path, manifest, tensors)
    return path


@pytest.mark.parametrize("name", RECORDED)
def test_logits_are_the_recorded_ones(tmp_path: Path, name: str) -> None:
    shape, logits_sha256, head_sha256 = RECORDED[name]
    path = write_fixed_package(tmp_path / "m.nis", **shape)
    for isa in library.offered_isas():
        with Model.open(path, isa=isa, threads=2) as model:
            session = model.session()
            logits = session.forward(TOKENS, all_positions=True)
            assert hashlib.sha256(logits.tobytes()).hexdigest() == logits_sha256, isa
            assert hashlib.sha256(session.head("consciousness").tobytes()).hexdigest() == head_sha256, isa


def test_a_recorded_self_test_passes_here_and_notices_a_changed_weight(tmp_path: Path) -> None:
    with Model.open(write_tiny_package(tmp_path / "a.nis", seed=1)) as model:
        recorded = golden.record(model)
    with Model.open(write_tiny_package(tmp_path / "b.nis", seed=1, golden=(recorded,))) as model:
        assert golden.differences(model) == []
    with Model.open(write_tiny_package(tmp_path / "c.nis", seed=2, golden=(recorded,))) as model:
        assert len(golden.differences(model)) == 2
