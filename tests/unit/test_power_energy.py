"""Joules and intervals: right on known energy, honest about gaps, and 95 % means 95 %."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nis_edge.errors import SensorUnavailableError
from nis_edge.power.energy import (
    EnergyBlocks,
    Interval,
    energy_blocks,
    energy_per_unit,
    joined,
    mean_power,
    net_power,
    student_t_975,
)
from nis_edge.power.rails import PowerReading, SourceInfo

INFO = SourceInfo(
    source="sim", board="sim", kind="hwmon", scope="input", grade="A", complete=True, counted=("IN",), covers="all",
    misses="", rate_hz=10.0,
)  # fmt: skip
PERIOD_S = 0.1


def reading(t_s: float, watts: float | None, joules: float | None = None, **accuracy: float) -> PowerReading:
    reason = None if watts is not None else "the sensor was gone"
    return PowerReading(t_s=t_s, watts=watts, info=INFO, rails=(), joules=joules, reason=reason, **accuracy)


def sampled(power: Callable[[float], float], seconds: float = 12.0) -> list[PowerReading]:
    return [reading(index * PERIOD_S, power(index * PERIOD_S)) for index in range(int(seconds / PERIOD_S) + 1)]


def cut(readings: Sequence[PowerReading], start_s: float = 0.0, end_s: float = 12.0) -> EnergyBlocks:
    return energy_blocks(readings, start_s, end_s, period_s=PERIOD_S)


def test_the_trapezoid_of_a_ramp_is_exact() -> None:
    window = cut(sampled(lambda t: 2.0 + 0.5 * t))
    assert sum(window.joules) == pytest.approx(2.0 * 12 + 0.25 * 144)
    assert (window.gaps, window.counter, window.samples) == (0, False, 121)


def test_a_window_between_two_readings_takes_its_share() -> None:
    window = cut(sampled(lambda _: 5.0), 1.03, 10.97)
    assert window.seen_s == pytest.approx(9.94)
    assert window.mean_w == pytest.approx(5.0)


def test_counters_are_preferred_to_the_trapezoid() -> None:
    readings = [reading(index * 0.1, 99.0, joules=index * 0.1 * 7.0) for index in range(121)]
    window = cut(readings)
    assert window.counter and window.mean_w == pytest.approx(7.0)


def test_a_gap_is_left_out_and_counted_never_bridged() -> None:
    readings = sampled(lambda _: 4.0)
    readings[50] = reading(5.0, None)
    window = cut(readings)
    assert window.gaps == 2  # the span before the missing reading and the span after it
    assert window.seen_s == pytest.approx(11.8)
    assert window.mean_w == pytest.approx(4.0)


def test_a_pause_longer_than_three_periods_is_a_gap() -> None:
    readings = [entry for entry in sampled(lambda _: 4.0) if not 5.0 < entry.t_s < 5.9]
    assert cut(readings).gaps == 1


def test_a_spike_during_a_gap_is_not_guessed() -> None:
    spiked = [reading(entry.t_s, None if 5.0 < entry.t_s < 5.3 else 4.0) for entry in sampled(lambda _: 4.0)]
    assert cut(spiked).mean_w == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("readings", "told"),
    [
        ([], "too few readings"),
        ([reading(0.0, 5.0)], "too few readings"),
        ([reading(index * 0.1, None) for index in range(121)], "the sensor was gone"),
        ([reading(index * 0.1, 5.0 if index < 60 else None) for index in range(121)], "only 5.9 s of 12.0 s"),
    ],
)
def test_too_little_seen_gives_no_figure(readings, told) -> None:
    with pytest.raises(SensorUnavailableError, match=told):
        cut(readings)


def test_readings_that_go_back_in_time_are_dropped() -> None:
    readings = sampled(lambda _: 4.0)
    readings.insert(60, reading(1.0, 4000.0))
    assert cut(readings).mean_w == pytest.approx(4.0)


def test_a_repeated_value_of_the_converter_is_counted_as_one_distinct_value() -> None:
    window = cut(sampled(lambda t: float(int(t))))
    assert window.samples == 121 and window.distinct == 13


def test_student_t_agrees_with_the_tables() -> None:
    for degrees, tabled in ((5, 2.571), (9, 2.262), (11, 2.201), (29, 2.045), (1000, 1.962)):
        assert student_t_975(degrees) == pytest.approx(tabled, rel=2e-3)


def test_the_interval_of_a_seed_is_always_the_same() -> None:
    rng = np.random.default_rng(1)
    window = cut(sampled(lambda _: 5.0 + rng.normal(0, 0.1)))
    assert mean_power(window, seed=7) == mean_power(window, seed=7)
    assert mean_power(window, seed=7) != mean_power(window, seed=8)


def test_an_offset_widens_a_mean_and_cancels_in_a_difference() -> None:
    load = cut([reading(index * 0.1, 8.0, offset_w=1.0) for index in range(121)])
    idle = cut([reading(index * 0.1, 5.0, offset_w=1.0) for index in range(121)])
    wide = mean_power(load, seed=1)
    assert (wide.low, wide.high) == pytest.approx((7.05, 8.95), abs=0.02)
    net = net_power(load, idle, seed=1)
    assert (net.value, net.low, net.high) == pytest.approx((3.0, 3.0, 3.0), abs=1e-9)


def test_energy_per_unit_is_power_times_time_over_count() -> None:
    joules = energy_per_unit(Interval(5.0, 4.0, 6.0), 10.0, 200)
    assert (joules.value, joules.low, joules.high) == pytest.approx((0.25, 0.2, 0.3))


def test_idle_before_and_after_are_joined() -> None:
    before, after = cut(sampled(lambda _: 2.0)), cut(sampled(lambda _: 4.0))
    assert joined(before, after).mean_w == pytest.approx(3.0)


RUNS = 1000


def simulated_meter(
    rng: np.random.Generator,
    truth_w: np.ndarray,
    *,
    noise_w: float,
    offset_w: float,
    gain: float,
    step_w: float,
) -> list[PowerReading]:
    """A meter with one offset and one gain of its own for the whole run, noise and a converter's step."""
    shown = truth_w * (1 + rng.uniform(-gain, gain)) + rng.uniform(-offset_w, offset_w)
    shown = shown + rng.normal(0, noise_w, len(truth_w))
    shown = np.round(shown / step_w) * step_w
    return [
        reading(index * PERIOD_S, float(watts), step_w=step_w, offset_w=offset_w, gain=gain)
        for index, watts in enumerate(shown)
    ]


@pytest.mark.parametrize(
    ("noise_w", "offset_w", "gain", "step_w"),
    [
        pytest.param(0.5, 0.0, 0.0, 1e-4, id="noise leads"),
        pytest.param(0.3, 0.05, 0.005, 0.04, id="as an INA3221"),
        pytest.param(0.05, 0.2, 0.0, 0.01, id="offset leads"),
    ],
)
def test_the_true_energy_lies_inside_the_interval_in_95_percent_of_runs(noise_w, offset_w, gain, step_w) -> None:
    rng = np.random.default_rng(20)
    truth_w = np.full(121, 5.0)
    inside = 0
    for run in range(RUNS):
        meter = simulated_meter(rng, truth_w, noise_w=noise_w, offset_w=offset_w, gain=gain, step_w=step_w)
        interval = mean_power(cut(meter), seed=run)
        inside += interval.low <= 5.0 <= interval.high
    assert 0.93 <= inside / RUNS <= 0.97, inside / RUNS


def test_the_long_run_mean_of_a_varying_load_lies_inside_in_95_percent_of_runs() -> None:
    rng = np.random.default_rng(21)
    inside = 0
    for run in range(RUNS):
        truth_w = rng.choice((3.0, 9.0), size=121)  # each tenth of a second busy or not; mean 6 W
        meter = simulated_meter(rng, truth_w, noise_w=0.05, offset_w=0.02, gain=0.002, step_w=0.01)
        interval = mean_power(cut(meter), seed=run)
        inside += interval.low <= 6.0 <= interval.high
    assert 0.93 <= inside / RUNS <= 0.97, inside / RUNS
