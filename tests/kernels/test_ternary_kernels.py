"""Ternary products are exact integers on every instruction set, for every shape, tail and extreme."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nis_edge.pack.ternary import pack_ternary
from tests.kernels import probe

SHAPES = [(1, 1), (7, 63), (8, 64), (9, 65), (16, 512), (24, 513), (33, 575), (40, 1024), (13, 6912), (3, 16384 + 1)]


def exact(weights: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Counted in 64 bits by numpy."""
    return activations.astype(np.int64) @ weights.astype(np.int64).T


@pytest.mark.parametrize("isa", probe.ISAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 8, 15, 17])
def test_product_is_exact(isa: str, shape: tuple[int, int], tokens: int) -> None:
    random = np.random.default_rng(shape[1] + tokens)
    weights = random.integers(-1, 2, shape, dtype=np.int8)
    activations = random.integers(-128, 128, (tokens, shape[1]), dtype=np.int8)
    truth = exact(weights, activations)
    assert (probe.matmul(isa, weights, activations) == truth).all()
    assert (probe.matmul(isa, weights, activations, "nis_probe_gemm") == truth).all()


@pytest.mark.parametrize("isa", probe.ISAS)
@pytest.mark.parametrize("weight", [-1, 0, 1])
@pytest.mark.parametrize("activation", [-128, -127, 0, 127])
@pytest.mark.parametrize("columns", [512, 4096, 16384, 70_000])
def test_largest_sums_do_not_overflow(isa: str, weight: int, activation: int, columns: int) -> None:
    # 16-bit sums widened too late give -8192 for the true 520,192 of 4096 columns of +1 times 127.
    weights = np.full((9, columns), weight, dtype=np.int8)
    activations = np.full((3, columns), activation, dtype=np.int8)
    for tokens in (1, 3):
        assert (probe.matmul(isa, weights, activations[:tokens]) == weight * activation * columns).all()


@pytest.mark.parametrize("isa", probe.ISAS)
def test_the_longest_row_is_exact(isa: str) -> None:
    columns = 1 << 20
    weights = np.ones((1, columns), dtype=np.int8)
    activations = np.full((2, columns), -128, dtype=np.int8)
    assert (probe.matmul(isa, weights, activations) == -128 * columns).all()


@pytest.mark.parametrize("isa", probe.ISAS)
@pytest.mark.parametrize("activation", [-128, 127])
def test_a_code_no_packer_writes_counts_the_same_everywhere(isa: str, activation: int) -> None:
    columns = 4096
    packed = np.full_like(pack_ternary(np.zeros((8, columns), dtype=np.int8)), 0xFF)
    activations = np.full((2, columns), activation, dtype=np.int8)
    assert (probe.packed_matmul(isa, packed, 8, columns, activations) == 2 * activation * columns).all()


@pytest.mark.parametrize("isa", probe.ISAS)
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 1500), tokens=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_any_shape_is_exact(isa: str, rows: int, columns: int, tokens: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(-1, 2, (rows, columns), dtype=np.int8)
    # Few distinct values, the extremes among them: sums go as far as they can.
    activations = random.choice(np.array([-128, -1, 0, 127], dtype=np.int8), (tokens, columns))
    assert (probe.matmul(isa, weights, activations) == exact(weights, activations)).all()


def test_something_other_than_scalar_is_offered_where_the_cpu_has_it() -> None:
    assert probe.ISAS[-1] == "scalar"
    print(f"instruction sets compared: {', '.join(probe.ISAS)}")
