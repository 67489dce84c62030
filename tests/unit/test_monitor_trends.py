"""Trends and calibration of stated confidence, against values worked out by hand or by another's code."""

from __future__ import annotations

import random

import pytest

from nis_edge.monitor.machine import AgentEvents, Readings, Tick, step
from nis_edge.monitor.signals import metrics_of
from nis_edge.monitor.state import MonitorState
from nis_edge.monitor.statistics import calibration_error, trend_of
from nis_edge.wire.messages import AgentEvent, Metric, Reading

SAMPLE = (1.2, 2.9, 2.5, 4.1, 5.3, 4.9, 7.0, 6.4, 8.8, 9.1)


def test_slope_interval_and_chance_agree_with_hand_worked_values() -> None:
    trend = trend_of(SAMPLE)
    assert trend is not None
    slopes = sorted((SAMPLE[j] - SAMPLE[i]) / (j - i) for i in range(9) for j in range(i + 1, 10))
    assert trend.slope == slopes[22]  # the middle of 45
    # 42 pairs rise, 3 fall: S = 39, var = 10*9*25/18 = 125, z = 38/sqrt(125) = 3.3988, p = 0.000677
    assert trend.p == pytest.approx(0.000677, abs=2e-6)
    assert trend.low < trend.slope < trend.high and trend.low > 0.5 and trend.high < 1.2
    assert trend_of(SAMPLE[:7]) is None
    flat = trend_of([3.0] * 12)
    assert flat is not None and (flat.slope, flat.p) == (0.0, 1.0)


def test_drift_is_found_and_chance_is_called_a_trend_no_more_often_than_promised() -> None:
    r = random.Random(8)
    alarms = found = 0
    for _ in range(400):
        noise = [r.gauss(0.0, 1.0) for _ in range(32)]
        trend, drift = trend_of(noise), trend_of([value + 0.15 * index for index, value in enumerate(noise)])
        assert trend is not None and drift is not None
        alarms += trend.p < 0.05
        found += drift.p < 0.05 and drift.low <= 0.15 <= drift.high
    assert alarms <= 0.075 * 400 and found >= 0.9 * 400


def test_calibration_error_is_zero_for_honest_and_the_gap_for_boastful_statements() -> None:
    # Fifteen bins of ten, each as right as it says.
    honest = [(0.8, index % 5 != 0) for index in range(100)] + [(0.3, index % 10 < 3) for index in range(50)]
    assert calibration_error(honest) == pytest.approx(0.0, abs=1e-9)
    boastful = [(0.9, index % 2 == 0) for index in range(100)]
    assert calibration_error(boastful) == pytest.approx(0.4, abs=1e-9)
    assert calibration_error([(1.0, False)]) == 1.0


def metrics(events: list[AgentEvent], deadline_ms: float | None = None) -> dict[str, Metric]:
    state = MonitorState()
    for event in events:
        state, _ = step(state, (AgentEvents((event,)),), event.ts)
    return metrics_of(state, events[-1].ts, time_known=True, deadline_ms=deadline_ms)


def test_calibration_of_a_team_needs_thirty_outcomes_and_then_tells_its_error() -> None:
    def stream(count: int) -> list[AgentEvent]:
        events = []
        for index in range(count):
            stated = AgentEvent(id=f"s{index}", ts=index, agent="a", kind="step", confidence=0.9, text=f"w {index}")
            outcome = AgentEvent(
                id=f"o{index}", ts=index, agent="g", kind="outcome", outcome_of=f"s{index}", outcome=index % 2 == 0
            )
            events += [stated, outcome]
        return events

    few, many = metrics(stream(29)), metrics(stream(60))
    assert few["ece"].value is None and "29" in (few["ece"].reason or "")
    assert many["ece"].value == pytest.approx(0.4) and many["ece"].n == 60
    assert many["brier"].value == pytest.approx((0.81 + 0.01) / 2)


def test_missed_deadlines_are_a_share_with_its_interval_or_unavailable() -> None:
    events = [
        AgentEvent(id=f"{index}", ts=index, agent="a", kind="step", ok=True, latency_ms=100.0 if index % 4 else 900.0)
        for index in range(40)
    ]
    assert metrics(events)["deadlines_missed"].value is None
    missed = metrics(events, 500.0)["deadlines_missed"]
    assert (missed.value, missed.n) == (0.25, 40) and missed.low is not None and missed.low < 0.25


def test_latency_and_temperature_trends_carry_unit_and_interval() -> None:
    state = MonitorState()
    for index in range(60):
        now = 1000.0 + 2.0 * index
        board = Reading(name="temperature_c", value=40.0 + 0.1 * index, unit="Cel", ts=now, source="t")
        step_event = AgentEvent(id=f"{index}", ts=now, agent="a", kind="step", ok=True, latency_ms=100.0 + 2.0 * index)
        state, _ = step(state, (Readings((board,)), AgentEvents((step_event,)), Tick()), now)
    found = metrics_of(state, now, time_known=True)
    warming = found["temperature_trend_c_per_min"]
    assert warming.value == pytest.approx(3.0) and warming.unit == "Cel/min" and warming.n == 32
    assert warming.window_s == pytest.approx(62.0)
    assert found["latency_trend_ms_per_call"].value == pytest.approx(2.0)


def test_every_number_of_an_assessment_says_how_it_came_about() -> None:
    for name, metric in metrics([AgentEvent(id="1", ts=1.0, agent="a", kind="message", text="hello")]).items():
        assert metric.source in ("measured", "derived", "modelled", "unavailable"), name
        assert (metric.value is None) == (metric.source == "unavailable") == (metric.reason is not None), name
        assert metric.n >= 0 and metric.unit, name
