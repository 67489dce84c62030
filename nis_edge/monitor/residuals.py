"""Sensors against each other: where several tell of one quantity, a law of physics must hold between them. Pure.

Looked for by name, at the device and at each agent that sends readings: with any stem before them, ``voltage_v``,
``current_a`` and ``power_w`` (P = V I), ``power_w`` and the counter ``energy_j`` or ``energy_wh`` (E = P t),
``battery_current_a`` and ``battery_charge_ah`` (coulomb count; current out of the battery is positive), ``position_m``
and ``velocity_mps``, ``temperature_c`` and ``throttled``; and whatever counts (``energy_``, ``..._total``) never falls.
A violation must show in the newer half of the window as in the whole: samples that missed each other once are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

from nis_edge.monitor.state import SensorState
from nis_edge.monitor.statistics import median
from nis_edge.physics.checks import Check, Quantity, check
from nis_edge.wire.messages import Severity

SENSOR_ERROR: Final = 0.03
"""Relative error granted to a sensor without a data sheet: INA3221 and PMIC rails lie within 1 to 3 %."""

SAMPLES: Final = 8
"""Readings whose median stands for "now"."""

SPAN_S: Final = 30.0
"""Least time over which a rate is integrated."""

COOL_C: Final = 60.0
"""No board slows down for heat below this: Raspberry Pi from 80, Jetson from 97 degrees Celsius."""

RESET_SHARE: Final = 0.1
"""A counter that falls to a tenth or less began anew: its source restarted."""

_SEVERITY: Final[Mapping[str, Severity]] = {"low": "low", "medium": "medium", "high": "high", "critical": "high"}


class Residual(NamedTuple):
    """A law that doesn't hold between sensors: which, how grave, in words, and who tells."""

    law: str
    owner: str
    severity: Severity
    text: str
    sensors: tuple[str, ...]


def residuals(sensors: Mapping[str, SensorState]) -> Iterator[Residual]:
    """Every law that is broken between the sensors of one owner just now."""
    for name in sensors:
        for suffix, checks in _CHECKS.items():
            if name.endswith(suffix):
                stem = name[: len(name) - len(suffix)]
                for function in checks:
                    yield from function(stem, sensors)
        if _counts(name):
            yield from _monotone(name, sensors[name])


def owner_of(name: str) -> str:
    """Whose sensor it is: the agent before the slash, or nobody's but the device's."""
    return name.rpartition("/")[0]


def _power_vi(stem: str, sensors: Mapping[str, SensorState]) -> Iterator[Residual]:
    names = (f"{stem}power_w", f"{stem}voltage_v", f"{stem}current_a")
    if not all(name in sensors and len(sensors[name].values) >= 2 * SAMPLES for name in names):
        return
    looks = []
    for half in (slice(-SAMPLES, None), slice(-2 * SAMPLES, -SAMPLES)):
        power, voltage, current = (median(sensors[name].values[half]) for name in names)
        given = {"power": _measured(power, "W"), "voltage": _measured(voltage, "V"), "current": _measured(current, "A")}
        looks.append((check("power_vi", given), power, voltage, current))
    now, power, voltage, current = looks[0]
    if all(look[0].decision == "violation" for look in looks):
        text = f"{power:.3g} W is told, but {voltage:.3g} V x {current:.3g} A = {voltage * current:.3g} W"
        yield _broken("power_vi", stem, now, text, names)


def _energy(stem: str, sensors: Mapping[str, SensorState]) -> Iterator[Residual]:
    power = sensors.get(f"{stem}power_w")
    for suffix, joules in (("energy_j", 1.0), ("energy_wh", 3600.0)):
        counter = sensors.get(stem + suffix)
        if counter is None or power is None:
            continue
        looks = [_integral(counter, power, share) for share in (1.0, 0.5)]
        checked = [
            check(
                "power_time",
                {
                    "energy": _measured(look.change * joules, "J", look.grain * joules),
                    "power": _measured(look.mean_rate, "W", look.rate_error),
                    "duration": Quantity(look.seconds, "s"),
                },
            )
            for look in looks
            if look is not None
        ]
        whole = looks[0]
        if len(checked) == 2 and whole and all(one.decision == "violation" for one in checked):
            told, used = whole.change * joules, whole.mean_rate * whole.seconds
            text = f"the energy counter moved {told:.4g} J in {whole.seconds:.0f} s, the power adds up to {used:.4g} J"
            yield _broken("power_time", stem, checked[0], text, (stem + suffix, f"{stem}power_w"))


def _coulombs(stem: str, sensors: Mapping[str, SensorState]) -> Iterator[Residual]:
    charge, current = sensors.get(f"{stem}battery_charge_ah"), sensors.get(f"{stem}battery_current_a")
    if charge is None or current is None:
        return
    looks = [_integral(charge, current, share) for share in (1.0, 0.5)]
    # Positive current leaves the battery: the charge falls by it.
    checked = [
        check(
            "coulomb_count",
            {
                "charge_before": Quantity(0.0, "Ah"),
                "charge_after": _measured(look.change, "Ah", look.grain),
                "current": _measured(look.mean_rate, "A", look.rate_error),
                "duration": Quantity(look.seconds, "s"),
            },
        )
        for look in looks
        if look is not None
    ]
    whole = looks[0]
    if len(checked) == 2 and whole and all(one.decision == "violation" for one in checked):
        flowed = whole.mean_rate * whole.seconds / 3600.0
        text = f"the battery's charge moved {whole.change:+.4g} Ah in {whole.seconds:.0f} s, {flowed:.4g} Ah flowed out"
        yield _broken("coulomb_count", stem, checked[0], text, (f"{stem}battery_charge_ah", f"{stem}battery_current_a"))


def _position(stem: str, sensors: Mapping[str, SensorState]) -> Iterator[Residual]:
    place, speed = sensors.get(f"{stem}position_m"), sensors.get(f"{stem}velocity_mps")
    if place is None or speed is None:
        return
    looks = [_integral(place, speed, share) for share in (1.0, 0.5)]
    checked = [
        check(
            "kinematics_distance",
            {
                "distance": _measured(look.change, "m", look.grain),
                "speed_before": _measured(look.mean_rate, "m/s", look.rate_error),
                "duration": Quantity(look.seconds, "s"),
            },
        )
        for look in looks
        if look is not None
    ]
    whole = looks[0]
    if len(checked) == 2 and whole and all(one.decision == "violation" for one in checked):
        way = whole.mean_rate * whole.seconds
        text = f"the position moved {whole.change:.4g} m in {whole.seconds:.0f} s, the velocity adds up to {way:.4g} m"
        yield _broken("kinematics_distance", stem, checked[0], text, (f"{stem}position_m", f"{stem}velocity_mps"))


def _heat(stem: str, sensors: Mapping[str, SensorState]) -> Iterator[Residual]:
    throttled, temperature = sensors[f"{stem}throttled"], sensors.get(f"{stem}temperature_c")
    if temperature is None or min(len(throttled.values), len(temperature.values)) < SAMPLES:
        return
    hottest = max(temperature.values[-SAMPLES:])
    if min(throttled.values[-SAMPLES:]) >= 0.5 and hottest < COOL_C:
        # Too little voltage slows a board down too: this is for a person to look at, not yet an alarm.
        text = (
            f"the board slows itself down at no more than {hottest:.0f} °C: undervoltage, or the temperature is wrong"
        )
        names = (f"{stem}throttled", f"{stem}temperature_c")
        yield Residual("heat_throttling", owner_of(names[0]), "low", text, names)


def _monotone(name: str, sensor: SensorState) -> Iterator[Residual]:
    for before, after in pairwise(sensor.values[-SAMPLES:]):
        if after < before and abs(after) > RESET_SHARE * abs(before):
            text = f"{name.rpartition('/')[2]} counts, but fell from {before:.6g} to {after:.6g}"
            yield Residual("monotone_counter", owner_of(name), "medium", text, (name,))
            return


def _counts(name: str) -> bool:
    tail = name.rpartition("/")[2]
    return tail.endswith(("_total", "energy_j", "energy_wh"))


class _Integral(NamedTuple):
    """What a counter moved in a time, beside the mean of its rate over the same time, each with its error."""

    change: float
    grain: float
    mean_rate: float
    rate_error: float
    seconds: float


def _integral(counter: SensorState, rate: SensorState, share: float) -> _Integral | None:
    """The newest part of the time that both were read in; None where that is too short or the counter began anew."""
    if min(len(counter.times), len(rate.times)) < SAMPLES:
        return None
    end = min(counter.times[-1], rate.times[-1])
    start = max(counter.times[0], rate.times[0])
    start = end - share * (end - start)
    inside = [(t, v) for t, v in zip(rate.times, rate.values, strict=True) if start <= t <= end]
    if end - start < share * SPAN_S or len(inside) < SAMPLES // 2 or inside[-1][0] <= inside[0][0]:
        return None
    area = bend = 0.0
    for (t0, v0), (t1, v1) in pairwise(inside):
        area += (v0 + v1) / 2.0 * (t1 - t0)
        # Between two readings the rate may have been anything between them.
        bend += abs(v1 - v0) / 2.0 * (t1 - t0)
    begun, ended = inside[0][0], inside[-1][0]
    seconds = ended - begun
    first, last = _at(counter, begun), _at(counter, ended)
    steps = [abs(after - before) for before, after in pairwise(counter.values)]
    grain = min((step for step in steps if step > 0.0), default=0.0)
    return _Integral(last - first, grain, area / seconds, bend / seconds, seconds)


def _at(sensor: SensorState, t: float) -> float:
    """The value at a time, on the straight line between the readings around it."""
    pairs = list(zip(sensor.times, sensor.values, strict=True))
    for (t0, v0), (t1, v1) in pairwise(pairs):
        if t0 <= t <= t1 and t1 > t0:
            return v0 + (v1 - v0) * (t - t0) / (t1 - t0)
    return sensor.values[0] if t <= sensor.times[0] else sensor.values[-1]


def _measured(value: float, unit: str, more: float = 0.0) -> Quantity:
    return Quantity(value, unit, SENSOR_ERROR * abs(value) + more)


def _broken(law: str, stem: str, found: Check, text: str, names: tuple[str, ...]) -> Residual:
    explained = f"the sensors' errors explain {found.bound:.2g} {found.unit} of {abs(found.residual or 0.0):.2g}"
    return Residual(law, owner_of(stem), _SEVERITY[found.severity or "low"], f"{text}; {explained}", names)


_CHECKS: Final = {
    "power_w": (_power_vi, _energy),
    "battery_current_a": (_coulombs,),
    "velocity_mps": (_position,),
    "throttled": (_heat,),
}
