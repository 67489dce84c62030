"""The device: what its readings add to the state, when it is under pressure, when a sensor is at fault. Pure.

A reading that is absent stays absent: it neither presses nor relieves. A sensor that never gave a value is hardware
that isn't there; one that gave values and stopped is a fault, and then its last value presses no longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec
from msgspec.structs import replace

from nis_edge.limits import SENSORS_MAX
from nis_edge.monitor import state as kept
from nis_edge.monitor.context import DeviceView
from nis_edge.monitor.residuals import owner_of, residuals
from nis_edge.monitor.series import KINDS, WINDOW, Anomaly, faults_in, onset_of
from nis_edge.monitor.series_judge import SeriesJudge
from nis_edge.monitor.state import MonitorState, SensorState
from nis_edge.monitor.statistics import median, quantile, robust_z
from nis_edge.monitor.verdict import Verdict
from nis_edge.wire.codec import is_deceiving
from nis_edge.wire.messages import AgentEvent, Reading, Severity

DEVICE: Final = "device"
"""Whom findings about the machine itself name."""

CPU: Final = "cpu_percent"
MEMORY: Final = "memory_percent"
DISK: Final = "disk_percent"
TEMPERATURE: Final = "temperature_c"
THROTTLED: Final = "throttled"


class PressureLimit(msgspec.Struct, frozen=True, kw_only=True):
    """From where, and for how long, a reading means that the device runs short; it is over when it falls below ``low``.

    Args:
        high: pressure from this value on.
        low: relief below this value; lower than ``high``, so that a value at the limit doesn't flap.
        hold_s: how long it must last.
        severity: how grave.
        what: for the operator.
    """

    high: float
    low: float
    hold_s: float
    severity: Severity
    what: str


# Temperature: a Raspberry Pi slows down from 80 degrees Celsius (documentation, "frequency management"), later than
# which a warning is no warning. CPU and memory: what leaves the monitor itself no room. The throttle bit is the board's
# own word for it.
PRESSURE_LIMITS: Final[Mapping[str, PressureLimit]] = {
    CPU: PressureLimit(high=95.0, low=85.0, hold_s=60.0, severity="medium", what="CPU busy at {value:.0f} %"),
    MEMORY: PressureLimit(high=92.0, low=87.0, hold_s=10.0, severity="high", what="memory used to {value:.0f} %"),
    DISK: PressureLimit(high=95.0, low=92.0, hold_s=0.0, severity="high", what="disk filled to {value:.0f} %"),
    TEMPERATURE: PressureLimit(high=80.0, low=75.0, hold_s=10.0, severity="high", what="temperature at {value:.1f} °C"),
    THROTTLED: PressureLimit(high=1.0, low=0.5, hold_s=0.0, severity="high", what="the board slows itself down"),
}

# Outside these a number is no measurement, by what the quantity is (shares) or what silicon survives (temperature).
PLAUSIBLE: Final[Mapping[str, tuple[float, float]]] = {
    CPU: (0.0, 100.5),
    MEMORY: (0.0, 100.5),
    DISK: (0.0, 100.5),
    TEMPERATURE: (-60.0, 150.0),
}

ABSENT_READINGS: Final = 3
"""So many readings in a row without a value make a fault: one or two are a busy bus."""

ACTIVITY: Final = (CPU, MEMORY, DISK, THROTTLED, "load_", "psi_")
"""Readings that follow what the machine is given to do: a leap of theirs is work, not a fault of the sensor."""

LOOK_EVERY: Final = 4
LEARNED_READINGS: Final = 256
"""A series is looked at each fourth reading, and learned for so many before anything is said of it."""

HABIT_MARGIN: Final = 2.0
HABIT_FADES: Final = 0.9999
"""News must be so much stronger than the threshold, and than what the series showed before; a habit is half forgotten
after 28,000 readings."""

NAMED_SURE: Final = 0.6
"""As probable must another kind be than the one whose threshold was passed, to be named in its place."""

SOFT_KINDS: Final = frozenset({"drift", "level_shift", "noise"})
SOFT_STRONG: Final = 2.5
"""Kinds that a healthy quantity shows too when the world around it changes: hints, unless they are strong."""

AGENT_SENSORS_MAX: Final = SENSORS_MAX * 3 // 4
FEEDS_PER_EVENT_MAX: Final = 32
FEED_NAME_CHARS_MAX: Final = 64
"""Agents' feeds never take the places of the device's own sensors."""

VIEW_STALE_S: Final = 300.0
"""A value older than this is no longer shown as the device's state."""

TREND_READINGS: Final = 12
TREND_C: Final = 2.0
"""Degrees between the first and the last third of ``TREND_READINGS`` readings from which a trend is named."""

Z_READINGS: Final = 8
Z_PAST: Final = 32
"""Earlier readings a robust z needs, and looks at."""

# Least standard deviation believed in, by quantity: below it a change is the instrument's grain.
Z_FLOOR: Final[Mapping[str, float]] = {CPU: 5.0, MEMORY: 2.0, TEMPERATURE: 1.0}


def absorb_reading(state: MonitorState, reading: Reading, t: float, judge: SeriesJudge | None = None) -> MonitorState:
    """Take in one reading; beyond ``SENSORS_MAX`` names a new one is counted as refused.

    Args:
        state: the state before.
        reading: a value or its absence with a reason.
        t: the monitor's own seconds.
        judge: trees that name the faults of a series; None leaves that to thresholds.
    """
    sensor = state.sensors.get(reading.name)
    of_agent = bool(owner_of(reading.name))
    if sensor is None and len(state.sensors) >= (AGENT_SENSORS_MAX if of_agent else SENSORS_MAX):
        return replace(state, counts=replace(state.counts, refused=state.counts.refused + 1))
    reading = _checked(reading)
    if reading.value is None:
        values = () if sensor is None else sensor.values
        absent = 1 if sensor is None else sensor.absent + 1
        after = SensorState(
            last=reading,
            t=t,
            values=values,
            times=() if sensor is None else sensor.times,
            seen=0 if sensor is None else sensor.seen,
            habits={} if sensor is None else sensor.habits,
            absent=absent,
            over_t=sensor.over_t if sensor else None,
            over_n=sensor.over_n if sensor else 0,
            pressing=sensor is not None and sensor.pressing and absent < ABSENT_READINGS,
        )
        return replace(state, sensors={**state.sensors, reading.name: after})
    past = () if sensor is None else sensor.values
    values = (*past[-(kept.READINGS_KEPT - 1) :], reading.value)
    over_t, over_n, pressing = _pressure(sensor, reading.name, values, t)
    after = SensorState(
        last=reading,
        t=t,
        values=values,
        times=(*(() if sensor is None else sensor.times[-(kept.READINGS_KEPT - 1) :]), t),
        seen=1 if sensor is None else sensor.seen + 1,
        over_t=over_t,
        over_n=over_n,
        pressing=pressing,
        anomaly=None if sensor is None else sensor.anomaly,
        habits={} if sensor is None else sensor.habits,
    )
    after = _looked_at(after, reading.name, judge)
    return replace(state, sensors={**state.sensors, reading.name: after}, device_t=state.device_t if of_agent else t)


def feeds_of(event: AgentEvent) -> Iterator[Reading]:
    """The readings an agent sends along: ``data.readings``, a list of ``{name, value, unit}`` or an object of numbers.

    They are called ``agent/name``. What isn't a name with a number is passed over; at most ``FEEDS_PER_EVENT_MAX``.
    """
    told = event.data.get("readings") if event.data is not None else None
    if isinstance(told, dict):
        told = [{"name": name, "value": value} for name, value in islice(told.items(), FEEDS_PER_EVENT_MAX)]
    if not isinstance(told, list):
        return
    for one in told[:FEEDS_PER_EVENT_MAX]:
        if not isinstance(one, dict):
            continue
        name, value, unit = one.get("name"), one.get("value"), one.get("unit")
        if not isinstance(name, str) or not 0 < len(name) <= FEED_NAME_CHARS_MAX or is_deceiving(name) or "/" in name:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        yield Reading(
            name=f"{event.agent}/{name}",
            value=float(value) if is_number and abs(value) < 1e300 else None,  # type: ignore[arg-type]
            unit=unit if isinstance(unit, str) and len(unit) <= FEED_NAME_CHARS_MAX else "1",
            ts=event.ts,
            source="agent",
            reason=None if is_number else "no number was sent",
        )


def view_of(state: MonitorState, t: float) -> DeviceView:
    """The device as a window shows it at ``t``."""
    temperature = state.sensors.get(TEMPERATURE)
    throttled = _fresh_value(state, THROTTLED, t)
    return DeviceView(
        cpu_percent=_fresh_value(state, CPU, t),
        memory_percent=_fresh_value(state, MEMORY, t),
        temperature_c=_fresh_value(state, TEMPERATURE, t),
        throttled=None if throttled is None else throttled >= 0.5,
        z=_farthest_z(state),
        trend=None if temperature is None else _trend(temperature.values),
        stale_s=None if state.device_t is None else t - state.device_t,
    )


def device_verdicts(state: MonitorState) -> Iterator[Verdict]:
    """What the rules say of the device now."""
    for name, sensor in state.sensors.items():
        limit = PRESSURE_LIMITS.get(name)
        if limit is not None and sensor.pressing and sensor.values:
            value = sensor.values[-1]
            yield Verdict(
                scope="device",
                label="resource_starvation",
                rule=f"pressure {name}",
                subject=DEVICE,
                severity=limit.severity,
                text=f"{limit.what.format(value=value)} (limit {limit.high:g}, over below {limit.low:g})",
                evidence=(name,),
            )
        subject = owner_of(name) or DEVICE
        if sensor.anomaly is not None and sensor.absent < ABSENT_READINGS:
            yield _series_verdict(name, subject, sensor, sensor.anomaly)
        if sensor.absent >= ABSENT_READINGS and sensor.values:
            yield Verdict(
                scope="device",
                label="sensor_fault",
                rule=f"sensor {name}",
                subject=subject,
                severity="medium",
                text=f"sensor {name} gave no value {sensor.absent} times in a row: {sensor.last.reason}",
                evidence=(name,),
            )


def residual_verdicts(state: MonitorState) -> Iterator[Verdict]:
    """What the laws of physics say of the sensors' numbers."""
    for found in residuals(state.sensors):
        yield Verdict(
            scope="physics",
            label="physics_violation",
            rule=f"{found.law} {found.sensors[0]}",
            subject=found.owner or DEVICE,
            severity=found.severity,
            text=found.text,
            evidence=found.sensors,
        )


def _series_verdict(name: str, subject: str, sensor: SensorState, found: Anomaly) -> Verdict:
    is_sharp = found.kind not in SOFT_KINDS
    is_strong = found.score >= SOFT_STRONG and not name.endswith(TEMPERATURE)
    kind = (found.named or found.kind).replace("_", " ")
    value = sensor.values[min(found.onset, len(sensor.values) - 1)]
    return Verdict(
        scope="device",
        label="sensor_fault",
        rule=f"series {name}",
        subject=subject,
        severity="medium" if is_sharp or is_strong else "low",
        text=f"{name}: {kind} since {len(sensor.values) - found.onset} readings, at {value:.4g}"
        f" {sensor.last.unit} ({found.score:.1f} times the threshold)",
        evidence=(name,),
    )


def _looked_at(sensor: SensorState, name: str, judge: SeriesJudge | None) -> SensorState:
    """Hold a series against its own past, every few readings: what it did while it was learned is its habit."""
    if sensor.seen % LOOK_EVERY or len(sensor.values) < WINDOW or name.startswith(ACTIVITY):
        return sensor
    found = {one.kind: one for one in faults_in(sensor.values)}
    habits = {kind: strength * HABIT_FADES for kind, strength in sensor.habits.items()}
    if sensor.seen < LEARNED_READINGS:
        for kind, one in found.items():
            habits[kind] = max(habits.get(kind, 0.0), one.score)
        return replace(sensor, habits=habits)
    unusual = [one for kind, one in found.items() if one.score >= HABIT_MARGIN * max(habits.get(kind, 0.0), 1.0)]
    worst = max(unusual, key=lambda one: one.score, default=None)
    before = sensor.anomaly
    if worst is not None and judge is not None:
        named = _named(sensor.values, worst, judge)
        # What was told once is not taken back while it stands: a finding that comes and goes tires its reader.
        worst = worst if named is None and before is not None else named
    if before is not None and (worst is None or worst.kind != before.kind):
        # It is over, or has become the rule: the next of its kind must be stronger to be news.
        habits[before.kind] = max(habits.get(before.kind, 0.0), before.score)
    return replace(sensor, anomaly=worst, habits=habits)


def _named(values: tuple[float, ...], found: Anomaly, judge: SeriesJudge) -> Anomaly | None:
    """What the judge makes of news: a soft kind may be healthy after all, any kind may be another than it seemed.

    It is asked only where thresholds were passed, so it never raises an alarm by itself; an exact standstill is one.
    """
    probable = judge.probabilities(values)
    if probable is None or found.kind == "stuck":
        return found
    if found.kind in SOFT_KINDS and probable["none"] > max(share for kind, share in probable.items() if kind != "none"):
        return None
    kind = max(KINDS, key=lambda one: probable[one])
    if kind == found.kind or probable[kind] < NAMED_SURE:
        return found
    return replace(found, named=kind, onset=onset_of(values, kind))


def _checked(reading: Reading) -> Reading:
    """A value that can't be a measurement is an absence with that reason."""
    value = reading.value
    if value is None:
        return reading
    if not math.isfinite(value):
        return replace(reading, value=None, reason="value is not finite")
    low, high = PLAUSIBLE.get(reading.name, (-math.inf, math.inf))
    if not low <= value <= high:
        return replace(reading, value=None, reason=f"{value:g} {reading.unit} is implausible")
    return reading


def _pressure(
    sensor: SensorState | None, name: str, values: tuple[float, ...], t: float
) -> tuple[float | None, int, bool]:
    """Since when the value lies about its limit, for how many readings, and whether that is pressure.

    Pressure begins when it has lasted and three quarters of those readings lie beyond the limit: a processor that works
    in bursts touches its limit now and then, and that is no want.
    """
    limit, value = PRESSURE_LIMITS.get(name), values[-1]
    if limit is None or value < limit.low:
        return None, 0, False
    over_t, over_n = (sensor.over_t, sensor.over_n) if sensor else (None, 0)
    if value >= limit.high and over_t is None:
        over_t, over_n = t, 0
    over_n = 0 if over_t is None else min(over_n + 1, kept.READINGS_KEPT)
    pressing = sensor is not None and sensor.pressing
    if not pressing and over_t is not None and value >= limit.high and t - over_t >= limit.hold_s:
        pressing = quantile(sorted(values[-over_n:]), 0.25) >= limit.high
    return over_t, over_n, pressing


def _fresh_value(state: MonitorState, name: str, t: float) -> float | None:
    sensor = state.sensors.get(name)
    if sensor is None or sensor.last.value is None or t - sensor.t > VIEW_STALE_S:
        return None
    return sensor.last.value


def _farthest_z(state: MonitorState) -> float | None:
    scores = [
        robust_z(sensor.values[-1], sensor.values[-Z_PAST:-1], floor)
        for name, floor in Z_FLOOR.items()
        if (sensor := state.sensors.get(name)) is not None and len(sensor.values) > Z_READINGS
    ]
    return max(scores, key=abs, default=None)


def _trend(values: tuple[float, ...]) -> int | None:
    if len(values) < TREND_READINGS:
        return None
    recent, third = values[-TREND_READINGS:], TREND_READINGS // 3
    change = median(recent[-third:]) - median(recent[:third])
    return 0 if abs(change) < TREND_C else 1 if change > 0 else -1
