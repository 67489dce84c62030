"""The laws: what each one balances, written once, over intervals. Pure.

A law takes its quantities by role, in SI, and returns the residual (what should be zero) and the scale it is to be seen
against: the largest term of the balance. Each quantity stands in the formula as few times as algebra allows, so that
the intervals stay as narrow as the digits permit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from nis_edge.physics import units
from nis_edge.physics.intervals import Interval, total
from nis_edge.physics.units import Dimension

STANDARD_GRAVITY: Final = 9.80665
"""m/s^2, exact by definition (3rd CGPM, 1901); used where an item states no value of its own."""

Values = Mapping[str, Sequence[Interval]]
"""Role -> its values in SI: one, or several where the role takes many."""


class Role(NamedTuple):
    """A slot of a law: the dimension it takes, whether it takes many values, and its value where it may be left out."""

    dimension: Dimension
    many: bool = False
    default: float | None = None


class Balance(NamedTuple):
    """What should be zero, and the largest term it is to be seen against."""

    residual: Interval
    scale: float


class Law(NamedTuple):
    """One law.

    Args:
        roles: its slots.
        balance: role -> values, to residual and scale.
        unit: of the residual, for people.
        is_bound: True where only a positive residual breaks the law (an efficiency may lie below Carnot's).
        same_length: groups of roles that must hold equally many values.
        said: in words.
    """

    roles: Mapping[str, Role]
    balance: Callable[[Values], Balance]
    unit: str
    said: str
    is_bound: bool = False
    same_length: tuple[tuple[str, ...], ...] = ()


def _largest(*terms: Interval) -> float:
    return max((abs(term.middle) for term in terms), default=0.0)


def _momentum(v: Values) -> Balance:
    parts = list(zip(v["mass"], v["velocity_before"], v["velocity_after"], strict=True))
    residual = total(mass.times(before.minus(after)) for mass, before, after in parts)
    return Balance(residual, _largest(*(mass.times(u) for mass, *both in parts for u in both)))


def _mechanical_energy(v: Values) -> Balance:
    (mass,), (g,) = v["mass"], v["gravity"]
    (u,), (w), (a), (b) = v["speed_before"], v["speed_after"][0], v["height_before"][0], v["height_after"][0]
    kinetic = u.squared().minus(w.squared()).scaled(0.5)
    per_mass = kinetic.plus(g.times(a.minus(b)))
    done = total(v["work_on_body"])
    residual = mass.times(per_mass).plus(done)
    scale = _largest(
        mass.times(u.squared()).scaled(0.5), mass.times(w.squared()).scaled(0.5), mass.times(g).times(a.minus(b)), done
    )
    return Balance(residual, scale)


def _charge(v: Values) -> Balance:
    return _in_minus_out(v["current_in"], v["current_out"])


def _mass_balance(v: Values) -> Balance:
    into, out = total(v["mass_in"]), total(v["mass_out"])
    kept = total(v["accumulated"])
    return Balance(into.minus(out).minus(kept), _largest(into, out, kept))


def _in_minus_out(into: Sequence[Interval], out: Sequence[Interval]) -> Balance:
    return Balance(total(into).minus(total(out)), _largest(total(into), total(out)))


def _coulomb_count(v: Values) -> Balance:
    (start,), (end,) = v["charge_before"], v["charge_after"]
    moved = total(i.times(t) for i, t in zip(v["current"], v["duration"], strict=True))
    # Positive current discharges the battery.
    return Balance(start.minus(end).minus(moved), _largest(start.minus(end), moved))


def _power_time(v: Values) -> Balance:
    (energy,) = v["energy"]
    used = total(p.times(t) for p, t in zip(v["power"], v["duration"], strict=True))
    return Balance(energy.minus(used), _largest(energy, used))


def _power_vi(v: Values) -> Balance:
    (power,), (voltage,), (current,) = v["power"], v["voltage"], v["current"]
    product = voltage.times(current)
    return Balance(power.minus(product), _largest(power, product))


def _heat_balance(v: Values) -> Balance:
    bodies = list(zip(v["mass"], v["heat_capacity"], v["temperature_before"], strict=True))
    (final,) = v["temperature_after"]
    heats = [mass.times(c).times(final.minus(before)) for mass, c, before in bodies]
    supplied = total(v["heat_supplied"])
    return Balance(total(heats).minus(supplied), _largest(*heats, supplied))


def _first_law(v: Values) -> Balance:
    (change,), (heat,), (work,) = v["internal_energy_change"], v["heat_in"], v["work_by_system"]
    return Balance(change.minus(heat).plus(work), _largest(change, heat, work))


def _angular_momentum(v: Values) -> Balance:
    before = total(i.times(w) for i, w in zip(v["inertia_before"], v["rate_before"], strict=True))
    after = total(i.times(w) for i, w in zip(v["inertia_after"], v["rate_after"], strict=True))
    return Balance(before.minus(after), _largest(before, after))


def _carnot(v: Values) -> Balance:
    (efficiency,), (hot,), (cold,) = v["efficiency"], v["temperature_hot"], v["temperature_cold"]
    best = Interval(1.0, 1.0).minus(cold.over(hot))
    return Balance(efficiency.minus(best), max(abs(best.middle), abs(efficiency.middle)))


def _kinematics(v: Values) -> Balance:
    (s,), (u,), (a,), (t,) = v["distance"], v["speed_before"], v["acceleration"], v["duration"]
    moved = t.times(u.plus(a.times(t).scaled(0.5)))
    return Balance(s.minus(moved), _largest(s, moved))


def _velocity(v: Values) -> Balance:
    (u,), (w,), (a,), (t,) = v["speed_before"], v["speed_after"], v["acceleration"], v["duration"]
    return Balance(w.minus(u).minus(a.times(t)), _largest(u, w, a.times(t)))


LAWS: Final[Mapping[str, Law]] = {
    "momentum_1d": Law(
        {
            "mass": Role(units.MASS, many=True),
            "velocity_before": Role(units.VELOCITY, many=True),
            "velocity_after": Role(units.VELOCITY, many=True),
        },
        _momentum,
        "kg m/s",
        "momentum before equals momentum after",
        same_length=(("mass", "velocity_before", "velocity_after"),),
    ),
    "mechanical_energy": Law(
        {
            "mass": Role(units.MASS),
            "speed_before": Role(units.VELOCITY),
            "speed_after": Role(units.VELOCITY),
            "height_before": Role(units.LENGTH),
            "height_after": Role(units.LENGTH),
            "gravity": Role(units.ACCELERATION, default=STANDARD_GRAVITY),
            "work_on_body": Role(units.ENERGY, many=True, default=0.0),
        },
        _mechanical_energy,
        "J",
        "kinetic and potential energy change by the work done",
    ),
    "charge": Law(
        {"current_in": Role(units.CURRENT, many=True), "current_out": Role(units.CURRENT, many=True)},
        _charge,
        "A",
        "currents into a node equal those out of it",
    ),
    "coulomb_count": Law(
        {
            "charge_before": Role(units.CHARGE),
            "charge_after": Role(units.CHARGE),
            "current": Role(units.CURRENT, many=True),
            "duration": Role(units.TIME, many=True),
        },
        _coulomb_count,
        "C",
        "a battery loses the charge that flowed out of it",
        same_length=(("current", "duration"),),
    ),
    "power_time": Law(
        {
            "energy": Role(units.ENERGY),
            "power": Role(units.POWER, many=True),
            "duration": Role(units.TIME, many=True),
        },
        _power_time,
        "J",
        "energy is power times time",
        same_length=(("power", "duration"),),
    ),
    "power_vi": Law(
        {"power": Role(units.POWER), "voltage": Role(units.VOLTAGE), "current": Role(units.CURRENT)},
        _power_vi,
        "W",
        "power is voltage times current",
    ),
    "heat_balance": Law(
        {
            "mass": Role(units.MASS, many=True),
            "heat_capacity": Role(units.HEAT_CAPACITY_SPECIFIC, many=True),
            "temperature_before": Role(units.TEMPERATURE, many=True),
            "temperature_after": Role(units.TEMPERATURE),
            "heat_supplied": Role(units.ENERGY, many=True, default=0.0),
        },
        _heat_balance,
        "J",
        "heat taken up equals heat given off",
        same_length=(("mass", "heat_capacity", "temperature_before"),),
    ),
    "first_law": Law(
        {
            "internal_energy_change": Role(units.ENERGY),
            "heat_in": Role(units.ENERGY),
            "work_by_system": Role(units.ENERGY),
        },
        _first_law,
        "J",
        "inner energy changes by heat taken in less work done",
    ),
    "mass_balance": Law(
        {
            "mass_in": Role(units.MASS, many=True),
            "mass_out": Role(units.MASS, many=True),
            "accumulated": Role(units.MASS, many=True, default=0.0),
        },
        _mass_balance,
        "kg",
        "mass in equals mass out and what stays",
    ),
    "angular_momentum": Law(
        {
            "inertia_before": Role(units.MOMENT_OF_INERTIA, many=True),
            "rate_before": Role(units.ANGULAR_VELOCITY, many=True),
            "inertia_after": Role(units.MOMENT_OF_INERTIA, many=True),
            "rate_after": Role(units.ANGULAR_VELOCITY, many=True),
        },
        _angular_momentum,
        "kg m^2/s",
        "angular momentum before equals angular momentum after",
        same_length=(("inertia_before", "rate_before"), ("inertia_after", "rate_after")),
    ),
    "carnot_bound": Law(
        {
            "efficiency": Role(units.DIMENSIONLESS),
            "temperature_hot": Role(units.TEMPERATURE),
            "temperature_cold": Role(units.TEMPERATURE),
        },
        _carnot,
        "1",
        "no engine between two temperatures beats Carnot's",
        is_bound=True,
    ),
    "kinematics_distance": Law(
        {
            "distance": Role(units.LENGTH),
            "speed_before": Role(units.VELOCITY),
            "acceleration": Role(units.ACCELERATION, default=0.0),
            "duration": Role(units.TIME),
        },
        _kinematics,
        "m",
        "distance under constant acceleration",
    ),
    "kinematics_velocity": Law(
        {
            "speed_before": Role(units.VELOCITY),
            "speed_after": Role(units.VELOCITY),
            "acceleration": Role(units.ACCELERATION),
            "duration": Role(units.TIME),
        },
        _velocity,
        "m/s",
        "speed under constant acceleration",
    ),
}
"""Every law on numbers, by name. Those on symbols (``dimensions``, ``stoichiometry``) stand in ``symbols``."""
