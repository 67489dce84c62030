"""Figures of a report: observed percentiles, power from the seconds of the load, reasons for what is missing."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from nis_edge.bench_figures import Timed, latency_of, power_of, thermal_of, workload_of
from nis_edge.bench_workloads import Impossible, Task
from nis_edge.power.rails import Absence, Discovery
from nis_edge.power.throttle import ThrottleState
from nis_edge.sampling import Sampler
from tests.support.bench_doubles import SimulatedMeter, calm
from tests.support.clock import SteppedClock

TASK = Task("assessment", "what", lambda: 1, lambda: None)
IDLE = [(2.0, 10.0), (30.0, 38.0)]
LOAD = Timed(start_s=12.0, end_s=28.0, tokens=3200, durations_s=array("d", [0.05] * 320))


def sampler_over(watts) -> Sampler:
    meter = SimulatedMeter(watts)
    sampler = Sampler(meter, calm, dict, SteppedClock(), 10.0)
    sampler.readings = [meter.read(index * 0.1) for index in range(400)]
    return sampler


def busy(t_s: float) -> float:
    return 8.0 if 11.0 < t_s < 29.0 else 3.0


def test_percentiles_above_the_median_are_observed_values() -> None:
    latency = latency_of(np.array([1.0] * 98 + [50.0, 60.0]))
    assert (latency.p50_ms, latency.p99_ms, latency.max_ms) == (1.0, 60.0, 60.0)


def test_a_workload_has_throughput_and_the_spread_of_its_blocks() -> None:
    durations = array("d", [0.010] * 60 + [0.020] * 60)
    figures = workload_of(TASK, Timed(0.0, 2.0, 12_000, durations))
    assert figures.tokens_per_run == 100 and figures.tokens_per_s == pytest.approx(12_000 / 1.8)
    assert figures.spread is not None and figures.spread.relative == pytest.approx(10 / 15)


def test_a_workload_that_could_not_run_has_a_reason_and_no_figure() -> None:
    figures = workload_of(Impossible("assessment", "what", "no tokenizer"), None)
    assert (figures.latency, figures.n, figures.reason) == (None, 0, "no tokenizer")


def test_power_comes_from_the_seconds_of_the_load_and_net_energy_leaves_idle_out() -> None:
    sampler = sampler_over(busy)
    power = power_of(Discovery(), SimulatedMeter(busy), sampler, LOAD, IDLE, seed=1)
    assert power.load_w is not None and power.load_w.value == pytest.approx(8.0)
    assert power.net_w is not None and power.net_w.value == pytest.approx(5.0)
    assert power.drift_w is not None and power.drift_w.value == pytest.approx(0.0)
    per_assessment = power.energy_per_assessment
    assert per_assessment is not None and per_assessment.net_j is not None
    assert per_assessment.gross_j.value == pytest.approx(8.0 * 16 / 320)
    assert per_assessment.net_j.value == pytest.approx(5.0 * 16 / 320)


def test_a_sensor_that_vanishes_in_the_load_leaves_no_power_but_the_reason() -> None:
    def watts(t_s: float) -> float | None:
        return None if t_s > 20.0 else busy(t_s)

    power = power_of(Discovery(), SimulatedMeter(watts), sampler_over(watts), LOAD, IDLE, seed=1)
    assert power.load_w is None and "the simulated sensor is gone" in (power.reason or "")
    assert power.info is not None


def test_a_sensor_that_vanishes_while_idle_leaves_gross_energy_and_says_why_net_is_missing() -> None:
    def watts(t_s: float) -> float | None:
        return None if t_s > 29.0 else busy(t_s)

    power = power_of(Discovery(), SimulatedMeter(watts), sampler_over(watts), LOAD, IDLE, seed=1)
    assert power.load_w is not None and power.net_w is None
    assert power.energy_per_assessment is not None
    assert "idle: " in (power.energy_per_assessment.net_reason or "")


def test_a_converter_that_reads_the_same_idle_and_busy_gives_no_power() -> None:
    power = power_of(Discovery(), SimulatedMeter(busy), sampler_over(lambda _: 6.65), LOAD, IDLE, seed=1)
    assert power.load_w is None and "stuck" in (power.reason or "")


def test_no_source_names_what_was_looked_for() -> None:
    found = Discovery(absent=(Absence(source="x86-rapl/package", reason="no energy counter (RAPL)"),))
    power = power_of(found, None, sampler_over(busy), LOAD, [], seed=1)
    assert power.load_w is None and power.looked_for == found.absent
    assert "x86-rapl/package: no energy counter (RAPL)" in (power.reason or "")


def test_throttling_at_any_look_of_the_run_is_told() -> None:
    sampler = sampler_over(busy)
    sampler.looks = [calm(), ThrottleState(known=True, active=("throttled",)), calm()]
    sampler.temperatures = [(0.0, {"cpu": 40.0}), (9.0, {"cpu": 81.0})]
    thermal = thermal_of(sampler)
    assert thermal.throttled == ("throttled (active)",)
    assert (thermal.celsius_start, thermal.celsius_end) == ({"cpu": 40.0}, {"cpu": 81.0})
