"""Numbers about a feed: bounded, unit-free, and silent where nothing can be known."""

from __future__ import annotations

import numpy as np
import pytest

from nis_edge.monitor import feeds


def _feed(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(20.0, 1.0, feeds.WINDOW)


def _numbers(values: np.ndarray) -> dict[str, float]:
    found = feeds.numbers(values)
    assert found is not None
    return dict(zip(feeds.names(), found.tolist(), strict=True))


@pytest.mark.parametrize(
    "values", [[], [1.0] * (feeds.LEAST - 1), [np.nan] * 200, [np.inf] * 200, [1.0] * 100 + [np.nan] * 48]
)
def test_too_little_is_no_judgement(values: list[float]) -> None:
    assert feeds.numbers(np.array(values)) is None


def test_the_unit_of_a_feed_does_not_matter() -> None:
    one, other = _numbers(_feed()), _numbers(_feed() * 1000.0 - 5000.0)
    for name in feeds.names():
        if not name.startswith("zeros"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-3), name


def test_each_fault_moves_the_number_that_is_about_it() -> None:
    plain = _numbers(_feed())
    stuck, shifted, ragged, jumped, holed, clipped, ramp = (_feed() for _ in range(7))
    stuck[-20:] = stuck[-20]
    shifted[-30:] += 8.0
    ragged[-40:] += np.random.default_rng(2).normal(0, 9.0, 40)
    jumped[-10] += 30.0
    holed[-20:-8] = np.nan
    clipped[-40:] = np.minimum(clipped[-40:], 19.8)
    ramp[-48:] += np.linspace(0, 8, 48)
    assert _numbers(stuck)["run_last"] > 0.3 > plain["run_last"]
    assert _numbers(shifted)["parts"] > 4 > plain["parts"]
    assert _numbers(ragged)["steps_std"] > 0.5 > plain["steps_std"]
    assert _numbers(jumped)["returns"] > 3 > plain["returns"]
    assert _numbers(holed)["missing"] == 0.25
    assert _numbers(clipped)["common"] > 0.3 > plain["common"]
    assert _numbers(ramp)["slope"] > 5 > abs(plain["slope"])


def test_values_of_any_size_give_finite_numbers() -> None:
    for values in (_feed() * 1e300, _feed() * 1e-300, np.zeros(144), np.full(144, -1e308)):
        with np.errstate(all="ignore"):
            found = feeds.numbers(values)
        assert found is None or found.shape == (len(feeds.names()),)
