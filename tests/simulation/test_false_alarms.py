"""Fewer than one false alarm a device-day: a simulated healthy week of ten agents, sampled here, whole when asked for.

``NIS_HEALTHY_DAYS=7`` runs the whole week (about two minutes on one core); the days simulated are printed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.monitor.false_alarms import LIMIT_PER_DAY, Count, plain, recorded, simulated, true_alarms
from bench.monitor.healthy_week import DAY_S, HealthyTeam
from nis_edge.judgement import PromptJudge, shipped_package
from nis_edge.wire.messages import AgentEvent, Finding

RUNS = Path(__file__).parents[1] / "data" / "healthy_runs.jsonl.gz"


def test_an_hour_of_a_healthy_team_raises_no_alarm() -> None:
    counted = simulated(seed=3, days=1 / 24)
    assert counted.events > 1500 and counted.first == []


@pytest.mark.slow
def test_healthy_days_raise_fewer_than_one_alarm_each() -> None:
    days = float(os.environ.get("NIS_HEALTHY_DAYS", "1"))
    counted = simulated(seed=1, days=days)
    print(f"{counted.alarms} alarms in {days:g} simulated days, {counted.events} events")
    assert counted.per_day < LIMIT_PER_DAY, counted.first


@pytest.mark.slow
def test_the_shipped_model_raises_no_alarm_on_a_healthy_team_either() -> None:
    package = shipped_package()
    assert package is not None
    model = PromptJudge(package)
    try:
        counted = simulated(seed=2, days=float(os.environ.get("NIS_HEALTHY_MODEL_DAYS", "0.05")), model=model)
    finally:
        model.close()
    print(f"{counted.alarms} alarms, {counted.hints} hints on {counted.questions} windows")
    assert counted.questions > 1000 and counted.alarms == 0, counted.first


def test_the_healthy_week_holds_what_may_be_mistaken_for_faults() -> None:
    events, last = [], 0.0
    absent = 0
    for at, what in HealthyTeam(seed=5, seconds=DAY_S / 4).moments():
        assert at >= last
        last = at
        events += [one for one in what if isinstance(one, AgentEvent)]
        absent += sum(one.value is None for one in what if not isinstance(one, AgentEvent))
    assert absent > 5
    assert any(one.kind == "lifecycle" for one in events)
    assert sum(one.tool == "job_status" and one.kind == "tool_call" for one in events) > 300
    assert sum(one.ok is False for one in events) > 100
    assert any(one.outcome is False for one in events)


def test_a_count_tells_alarms_from_hints_and_bounds_what_it_did_not_see() -> None:
    def finding(severity: str) -> Finding:
        return Finding(
            label="looping", severity=severity, agents=("a",), evidence=(), source="rule", text="", action="", since=0.0
        )  # type: ignore[arg-type]

    counted = Count("test", days=3.0)
    assert counted.per_day == 0.0 and counted.per_day_high == pytest.approx(3.6889 / 3.0, abs=1e-3)
    for severity in ("low", "medium", "critical"):
        counted.add(finding(severity), "here")
    assert (counted.alarms, counted.hints) == (2, 1)
    assert counted.per_day_high == pytest.approx(7.2247 / 3.0, abs=1e-3)


def test_an_alarm_that_was_read_and_holds_is_counted_apart() -> None:
    run, label = min(true_alarms())
    finding = Finding(
        label=label, severity="medium", agents=("a",), evidence=(), source="rule", text="", action="", since=0.0
    )
    counted = Count("test", days=2.0)
    counted.add(finding, run)
    counted.add(finding, "another run")
    assert (counted.true_alarms, counted.alarms) == (1, 1)
    told = plain(counted)
    assert told["false_alarms_per_day"] == {"value": 0.5, "ci95": [0.0127, 2.7858]}
    assert plain(Count("nothing watched"))["false_alarms_per_day"]["value"] is None


def test_recorded_runs_that_succeeded_raise_no_alarm_by_rule() -> None:
    counted = recorded(RUNS, events_per_day=57_000.0)
    assert counted.events > 600 and counted.first == []


@pytest.mark.slow
def test_recorded_runs_that_succeeded_raise_no_alarm_with_the_shipped_model() -> None:
    package = shipped_package()
    assert package is not None
    model = PromptJudge(package)
    try:
        counted = recorded(RUNS, events_per_day=57_000.0, model=model)
    finally:
        model.close()
    print(f"{counted.alarms} alarms, {counted.hints} hints on {counted.questions} windows")
    assert counted.questions > 600 and counted.per_day < LIMIT_PER_DAY, counted.first
