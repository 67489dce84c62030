"""The device's readings: what they add up to, what can't be a measurement, and when they press."""

from __future__ import annotations

import pytest

from nis_edge import limits
from nis_edge.monitor.context import DeviceView
from nis_edge.monitor.device import VIEW_STALE_S, absorb_reading, device_verdicts, view_of
from nis_edge.monitor.state import MonitorState
from nis_edge.wire.messages import Reading


def after(name: str, *values: float | None, every_s: float = 5.0) -> MonitorState:
    state = MonitorState()
    for index, value in enumerate(values):
        reading = Reading(name=name, value=value, unit="1", ts=0.0, source="test", reason=None if value else "absent")
        state = absorb_reading(state, reading, index * every_s)
    return state


def pressed(state: MonitorState) -> list[str]:
    return [verdict.label for verdict in device_verdicts(state)]


def test_without_readings_nothing_is_known() -> None:
    assert view_of(MonitorState(), 0.0) == DeviceView()


def test_the_view_shows_fresh_values_and_forgets_old_ones() -> None:
    state = after("cpu_percent", 20.0, 30.0)
    assert view_of(state, 6.0).cpu_percent == 30.0
    assert view_of(state, 6.0).stale_s == 1.0
    assert view_of(state, 6.0 + VIEW_STALE_S).cpu_percent is None


def test_trend_and_z_need_a_past_and_tell_a_rise_from_noise() -> None:
    assert view_of(after("temperature_c", 50.0, 60.0), 10.0).trend is None
    rising = after("temperature_c", *[50.0 + index for index in range(12)])
    assert view_of(rising, 60.0).trend == 1
    level = after("temperature_c", *[50.0 + 0.5 * (index % 2) for index in range(12)])
    assert view_of(level, 60.0).trend == 0
    spike = view_of(after("memory_percent", *[40.0] * 10, 80.0), 60.0)
    assert spike.z == pytest.approx(20.0)
    assert view_of(level, 60.0).z == pytest.approx(0.5)


def test_pressure_needs_to_last_and_is_over_only_below_the_lower_limit() -> None:
    assert pressed(after("cpu_percent", 99.0, 99.0, 99.0)) == []
    busy = [99.0] * 14
    assert pressed(after("cpu_percent", *busy)) == ["resource_starvation"]
    assert pressed(after("cpu_percent", *busy, 90.0)) == ["resource_starvation"]
    # A processor that works in bursts touches its limit now and then.
    assert pressed(after("cpu_percent", *[99.0, 99.0, 90.0] * 8, 99.0)) == []
    assert pressed(after("cpu_percent", *[99.0, 98.0, 96.0, 99.0, 94.0] * 4, 99.0)) == ["resource_starvation"]
    assert pressed(after("cpu_percent", *busy, 80.0)) == []
    assert pressed(after("throttled", 1.0)) == ["resource_starvation"]
    assert pressed(after("disk_percent", 96.0)) == ["resource_starvation"]


@pytest.mark.parametrize(
    ("name", "value"), [("cpu_percent", 400.0), ("temperature_c", 1e6), ("any", float("nan")), ("any", float("inf"))]
)
def test_what_cannot_be_a_measurement_is_an_absence_with_that_reason(name: str, value: float) -> None:
    state = after(name, value)
    assert state.sensors[name].last.value is None and state.sensors[name].last.reason
    assert state.device_t is None


def test_a_sensor_that_fails_presses_no_longer_and_is_a_fault_after_three_absences() -> None:
    hot = [90.0] * 4
    assert pressed(after("temperature_c", *hot, None)) == ["resource_starvation"]
    assert pressed(after("temperature_c", *hot, None, None, None)) == ["sensor_fault"]
    assert pressed(after("temperature_c", None, None, None, None)) == []
    assert pressed(after("temperature_c", *hot, None, None, None, 60.0)) == []


def test_more_sensors_than_can_be_remembered_are_counted() -> None:
    state = MonitorState()
    for index in range(limits.SENSORS_MAX + 7):
        reading = Reading(name=f"s{index}", value=1.0, unit="1", ts=0.0, source="test")
        state = absorb_reading(state, reading, 0.0)
    assert len(state.sensors) == limits.SENSORS_MAX and state.counts.refused == 7
