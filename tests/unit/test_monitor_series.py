"""Series against themselves: each kind of fault is named where it was put in, and a healthy series is left alone."""

from __future__ import annotations

import math
import random

import pytest

from nis_edge.monitor.device import LEARNED_READINGS, SOFT_KINDS, absorb_reading, device_verdicts, feeds_of
from nis_edge.monitor.series import PRESENT_MIN, WINDOW, Kind, look_at
from nis_edge.monitor.state import MonitorState
from nis_edge.wire.messages import AgentEvent, Reading

ONSET = 40


def healthy(seed: int, count: int = WINDOW) -> list[float]:
    """A slow wave with noise: a temperature, a voltage."""
    r = random.Random(seed)
    phase = r.uniform(0, 6)
    return [50.0 + 0.8 * math.sin(phase + index / 40.0) + r.gauss(0.0, 0.5) for index in range(count)]


def faulty(kind: Kind, values: list[float], onset: int, strength: float, seed: int = 0) -> list[float | None]:
    """The same series with a fault from ``onset`` on; strength in standard deviations of its noise."""
    r, size = random.Random(seed), 0.5 * strength
    broken: list[float | None] = list(values)
    for index in range(onset, len(values)):
        at = values[index]
        if kind == "stuck":
            broken[index] = values[onset]
        elif kind == "drift":
            broken[index] = at + size * (index - onset) / (WINDOW - ONSET)
        elif kind == "dropout":
            broken[index] = 0.0 if index % 3 == 0 else at
        elif kind == "noise":
            broken[index] = at + r.gauss(0.0, size)
        elif kind == "level_shift":
            broken[index] = at + size
    if kind == "spike":
        broken[onset] = values[onset] + size
    if kind == "saturation":
        wall = sorted(values)[int(0.7 * len(values))]
        broken = [min(value, wall) for value in values]
    return broken


KINDS: tuple[tuple[Kind, float], ...] = (
    ("stuck", 0.0), ("drift", 12.0), ("spike", 15.0), ("dropout", 0.0), ("saturation", 0.0), ("noise", 8.0),
    ("level_shift", 10.0),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "strength"), KINDS)
def test_each_kind_is_named_in_most_windows_and_near_where_it_began(kind: Kind, strength: float) -> None:
    found = [look_at(faulty(kind, healthy(seed), ONSET, strength, seed)) for seed in range(40)]
    right = [one for one in found if one is not None and one.kind == kind]
    assert len(right) >= 32
    if kind not in ("saturation", "drift"):
        assert sum(abs(one.onset - ONSET) <= 10 for one in right) >= 0.8 * len(right)


def test_a_healthy_series_shows_nothing() -> None:
    found = [look_at(healthy(seed)) for seed in range(100)]
    assert sum(one is not None for one in found) <= 3


def test_missing_values_are_a_dropout_and_too_few_values_say_nothing() -> None:
    values: list[float | None] = list(healthy(1))
    values[20:26] = [None] * 6
    found = look_at(values)
    assert found is not None and (found.kind, found.onset) == ("dropout", 20)
    assert look_at(healthy(1, PRESENT_MIN - 1)) is None
    assert look_at([7.0] * WINDOW) is None
    assert look_at([]) is None


def live(values: list[float | None], name: str = "voltage_v") -> list[tuple[int, str, str]]:
    """What the monitor says while a series comes in: at which reading, how grave, in words."""
    state, said, before = MonitorState(), [], None
    for index, value in enumerate(values):
        reading = Reading(name=name, value=value, unit="V", ts=0.0, source="test", reason=None if value else "none")
        state = absorb_reading(state, reading, index * 2.0)
        now = next((v for v in device_verdicts(state) if v.rule == f"series {name}"), None)
        if now is not None and (before is None or before.text.split(" since")[0] != now.text.split(" since")[0]):
            said.append((index, now.severity, now.text))
        before = now
    return said


@pytest.mark.parametrize(("kind", "strength"), [known for known in KINDS if known[0] != "saturation"])
def test_a_live_feed_that_breaks_is_told_within_a_window(kind: Kind, strength: float) -> None:
    onset = 2 * LEARNED_READINGS
    values = faulty(kind, healthy(4, onset + 80), onset, 3 * strength, 4)
    said = live(values)
    assert said and onset <= said[0][0] <= onset + WINDOW, said
    assert any(kind.replace("_", " ") in text for _, _, text in said)
    assert kind in SOFT_KINDS or "medium" in {severity for _, severity, _ in said}


def test_what_a_feed_always_does_is_its_habit() -> None:
    r = random.Random(3)
    spiky = [value + (12.0 if r.random() < 0.03 else 0.0) for value in healthy(9, 3000)]
    assert len(live(list(spiky))) <= 2
    assert live(list(healthy(5, 3000))) == []


def test_activity_of_the_machine_is_no_fault_of_a_sensor() -> None:
    values = faulty("level_shift", healthy(4, 700), 500, 60.0)
    assert live(values, "cpu_percent") == [] and live(values, "psi_io_percent") == []
    assert live(values, "voltage_v") != []


def event(readings: object) -> AgentEvent:
    return AgentEvent(id="1", ts=5.0, agent="rover", kind="step", data={"readings": readings})


def test_agents_send_feeds_along_and_what_is_no_number_is_passed_over() -> None:
    listed = [
        {"name": "battery_v", "value": 12.5, "unit": "V"}, {"name": "pose", "value": "left"}, {"name": "a/b"},
        {"name": "x\u202e", "value": 1}, {"value": 3}, "seven", {"name": "flag", "value": True},
    ]  # fmt: skip
    found = [(one.name, one.value, one.unit) for one in feeds_of(event(listed))]
    assert found == [("rover/battery_v", 12.5, "V"), ("rover/pose", None, "1"), ("rover/flag", None, "1")]
    assert [one.value for one in feeds_of(event({"depth_m": 3, "b": 2.5}))] == [3.0, 2.5]
    assert list(feeds_of(event("none"))) == list(feeds_of(event(None))) == []
    assert len(list(feeds_of(event({f"n{index}": index for index in range(500)})))) == 32
