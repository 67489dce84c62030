"""The float parts: the same bits on every instruction set, and right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import probe

VECTOR_ISAS = [isa for isa in probe.ISAS if isa != "scalar"]
LENGTHS = [1, 2, 7, 8, 9, 16, 63, 64, 65, 255, 1000]

needs_vectors = pytest.mark.skipif(not VECTOR_ISAS, reason="not run: this CPU offers scalar only")


def same_bits(a: np.ndarray | float, b: np.ndarray | float) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def stored_rows(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16 if dtype == "f16" else np.float32)


def as_float(rows: np.ndarray) -> np.ndarray:
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


@needs_vectors
@pytest.mark.parametrize("isa", VECTOR_ISAS)
@settings(max_examples=80, deadline=None)
@given(length=st.integers(1, 300), exponent=st.integers(-30, 15), seed=st.integers(0, 2**32 - 1))
def test_every_reduction_has_the_same_bits(isa: str, length: int, exponent: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = (random.standard_normal(length) * 10.0**exponent).astype(np.float32)
    rows = random.standard_normal((11, length)).astype(np.float32)
    assert same_bits(probe.sum_of_squares(isa, x), probe.sum_of_squares("scalar", x))
    for one, other in zip(probe.quantise(isa, x), probe.quantise("scalar", x), strict=True):
        assert same_bits(one, other)
    for dtype in ("f32", "f16", "bf16"):
        stored = stored_rows(rows, dtype)
        assert same_bits(probe.dot_rows(isa, x, stored), probe.dot_rows("scalar", x, stored))
        weights = x[:11] if length >= 11 else np.resize(x, 11)
        assert same_bits(probe.weighted_sum(isa, weights, stored), probe.weighted_sum("scalar", weights, stored))
    for one, other in zip(probe.exponentials(isa, x, 1.0), probe.exponentials("scalar", x, 1.0), strict=True):
        assert same_bits(one, other)
    assert same_bits(probe.silu_times(isa, x, rows[0]), probe.silu_times("scalar", x, rows[0]))


@pytest.mark.parametrize("isa", probe.ISAS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_sums_are_right(isa: str, length: int, dtype: str) -> None:
    random = np.random.default_rng(length)
    x = random.standard_normal(length).astype(np.float32)
    rows = stored_rows(random.standard_normal((10, length)).astype(np.float32), dtype)
    exact = as_float(rows).astype(np.float64)
    np.testing.assert_allclose(probe.dot_rows(isa, x, rows), exact @ x.astype(np.float64), rtol=0, atol=2e-5)
    weights = random.standard_normal(10).astype(np.float32)
    np.testing.assert_allclose(probe.weighted_sum(isa, weights, rows), weights @ exact, rtol=0, atol=1e-5)
    assert probe.sum_of_squares(isa, x) == pytest.approx(float(x.astype(np.float64) @ x), rel=1e-6)


def test_the_order_of_a_reduction_is_the_documented_one() -> None:
    # Restated here one addition at a time: lane i mod 8, ascending, then ((0+4)+(2+6)) + ((1+5)+(3+7)).
    x = np.random.default_rng(5).standard_normal(77).astype(np.float32)
    lanes = np.zeros(8, dtype=np.float32)
    for i, value in enumerate(x):
        # One rounding: the exact product and sum fit in a double's 53 bits unless they differ by 2**29.
        lanes[i % 8] = np.float32(np.float64(value) * np.float64(value) + np.float64(lanes[i % 8]))
    total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
    for isa in probe.ISAS:
        assert same_bits(np.float32(probe.sum_of_squares(isa, x)), total)


@pytest.mark.parametrize("isa", probe.ISAS)
def test_exponential_is_within_one_and_a_half_ulp(isa: str) -> None:
    x = np.concatenate([np.linspace(-86.9, 0, 400_001), -np.logspace(-30, 0, 1000)]).astype(np.float32)
    values, _ = probe.exponentials(isa, x, 0.0)
    truth = np.exp(x.astype(np.float64))
    ulp = np.spacing(truth.astype(np.float32)).astype(np.float64)
    assert (np.abs(values - truth) / ulp).max() < 1.5


@pytest.mark.parametrize("isa", probe.ISAS)
def test_exponential_far_below_is_zero_and_of_zero_is_one(isa: str) -> None:
    values, total = probe.exponentials(isa, np.array([0.0, -87.5, -1e30, -3.4e38], dtype=np.float32), 0.0)
    assert values.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert total == 1.0


@pytest.mark.parametrize("isa", probe.ISAS)
@pytest.mark.parametrize("length", LENGTHS)
def test_quantisation_rounds_half_to_even(isa: str, length: int) -> None:
    # With 127 as the largest magnitude the scale is 1, so that halves stay halves.
    x = (np.arange(length) % 253 - 126.5).astype(np.float32)
    x[-1] = -127.0
    values, scale, total = probe.quantise(isa, x)
    assert scale == 1.0
    assert values.tolist() == np.rint(x).astype(int).tolist()
    assert total == int(values.astype(np.int64).sum())


@pytest.mark.parametrize("isa", probe.ISAS)
def test_quantisation_of_nothing_is_nothing(isa: str) -> None:
    values, scale, total = probe.quantise(isa, np.zeros(9, dtype=np.float32))
    assert not values.any() and total == 0
    assert scale == np.float32(127) / np.float32(1e-5)


@pytest.mark.parametrize("isa", probe.ISAS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", [0, 8, 10])
def test_what_is_not_finite_is_refused(isa: str, bad: float, where: int) -> None:
    x = np.ones(11, dtype=np.float32)
    x[where] = bad
    with pytest.raises(AssertionError, match="not finite"):
        probe.quantise(isa, x)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [2, 64, 128])
@pytest.mark.parametrize("position", [0, 1, 17, 4095, 131_071, (1 << 20) - 1])
def test_rotary_angles_are_those_of_transformers(theta: float, head_dim: int, position: int) -> None:
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    power = np.float64(theta) ** exponents.astype(np.float64)
    frequencies = np.float32(1) / power.astype(np.float32)
    angles = (np.float32(position) * frequencies).astype(np.float64)
    cosines, sines = probe.rope(theta, head_dim, position)
    np.testing.assert_allclose(cosines, np.cos(angles), rtol=0, atol=3.1e-8)
    np.testing.assert_allclose(sines, np.sin(angles), rtol=0, atol=3.1e-8)
