"""Laws on numbers with units: exact items hold, broken ones break, and what the digits can't tell stays open."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from nis_edge.errors import EventFormatError
from nis_edge.physics import units
from nis_edge.physics.checks import (
    Check,
    Given,
    Quantity,
    band_of,
    check,
    check_dimensions,
    check_reaction,
    displayed,
)
from nis_edge.physics.intervals import Interval
from nis_edge.physics.laws import LAWS, STANDARD_GRAVITY
from nis_edge.physics.units import unit_of

Item = tuple[str, dict[str, list[tuple[float, str]]], str]


def momentum(r: random.Random) -> Item:
    m, n, u, v, w = r.uniform(1, 9), r.uniform(1, 9), r.uniform(2, 9), r.uniform(-9, -2), r.uniform(-4, 4)
    after = (m * u + n * v - m * w) / n
    roles = {
        "mass": [(m, "kg"), (n, "kg")],
        "velocity_before": [(u, "m/s"), (v, "m/s")],
        "velocity_after": [(w, "m/s"), (after, "m/s")],
    }
    return "momentum_1d", roles, "velocity_before"


def energy(r: random.Random) -> Item:
    m, h, u = r.uniform(1, 9), r.uniform(5, 40), r.uniform(1, 5)
    w = math.sqrt(u * u + 2 * STANDARD_GRAVITY * h)
    roles = {
        "mass": [(m, "kg")],
        "speed_before": [(u, "m/s")],
        "speed_after": [(w, "m/s")],
        "height_before": [(h, "m")],
        "height_after": [(0.0, "m")],
    }
    return "mechanical_energy", roles, "speed_after"


def node(r: random.Random) -> Item:
    a, b, c = (r.uniform(0.5, 4) for _ in range(3))
    roles = {"current_in": [(1e3 * (a + b + c), "mA")], "current_out": [(a, "A"), (b, "A"), (c, "A")]}
    return "charge", roles, "current_in"


def battery(r: random.Random) -> Item:
    before, amps, hours = r.uniform(3000, 5000), r.uniform(1, 3), r.uniform(0.5, 1.5)
    roles = {
        "charge_before": [(before, "mAh")],
        "charge_after": [(before - 1000 * amps * hours, "mAh")],
        "current": [(amps, "A")],
        "duration": [(60 * hours, "min")],
    }
    return "coulomb_count", roles, "current"


def consumption(r: random.Random) -> Item:
    p, t, q, s = r.uniform(2, 9), r.uniform(1, 5), r.uniform(2, 9), r.uniform(1, 5)
    roles = {
        "energy": [(p * t + q * s, "Wh")],
        "power": [(p, "W"), (q, "W")],
        "duration": [(t, "h"), (s, "h")],
    }
    return "power_time", roles, "energy"


def ohm(r: random.Random) -> Item:
    v, i = r.uniform(3, 20), r.uniform(0.5, 4)
    return "power_vi", {"power": [(v * i, "W")], "voltage": [(v, "V")], "current": [(1e3 * i, "mA")]}, "power"


def mixing(r: random.Random) -> Item:
    m, n, a, b = r.uniform(1, 4), r.uniform(1, 4), r.uniform(5, 20), r.uniform(60, 90)
    roles = {
        "mass": [(m, "kg"), (n, "kg")],
        "heat_capacity": [(4186.0, "J/(kg K)")] * 2,
        "temperature_before": [(a, "degC"), (b, "degC")],
        "temperature_after": [((m * a + n * b) / (m + n), "degC")],
    }
    return "heat_balance", roles, "temperature_before"


def first_law(r: random.Random) -> Item:
    q, w = r.uniform(400, 900), r.uniform(50, 300)
    roles = {"internal_energy_change": [(q - w, "J")], "heat_in": [(q, "J")], "work_by_system": [(w, "J")]}
    return "first_law", roles, "heat_in"


def tank(r: random.Random) -> Item:
    a, b, c = r.uniform(10, 90), r.uniform(10, 90), r.uniform(1, 9)
    roles = {"mass_in": [(a, "kg"), (b, "kg")], "mass_out": [(a + b - c, "kg")], "accumulated": [(c, "kg")]}
    return "mass_balance", roles, "mass_out"


def skater(r: random.Random) -> Item:
    i, w, j = r.uniform(3, 6), r.uniform(60, 120), r.uniform(1, 2.5)
    roles = {
        "inertia_before": [(i, "kg m^2")],
        "rate_before": [(w, "rpm")],
        "inertia_after": [(j, "kg·m²")],
        "rate_after": [(i * w * 2 * math.pi / 60 / j, "rad/s")],
    }
    return "angular_momentum", roles, "rate_after"


def drive(r: random.Random) -> Item:
    u, a, t = r.uniform(1, 9), r.uniform(0.5, 3), r.uniform(2, 9)
    roles = {
        "distance": [(u * t + a * t * t / 2, "m")],
        "speed_before": [(3.6 * u, "km/h")],
        "acceleration": [(a, "m/s²")],
        "duration": [(t, "s")],
    }
    return "kinematics_distance", roles, "distance"


def brake(r: random.Random) -> Item:
    u, a, t = r.uniform(10, 20), r.uniform(-3, -0.5), r.uniform(1, 3)
    roles = {
        "speed_before": [(u, "m/s")],
        "speed_after": [(u + a * t, "m/s")],
        "acceleration": [(a, "m s-2")],
        "duration": [(t, "s")],
    }
    return "kinematics_velocity", roles, "speed_after"


MAKERS: tuple[Callable[[random.Random], Item], ...] = (
    momentum, energy, node, battery, consumption, ohm, mixing, first_law, tank, skater, drive, brake,
)  # fmt: skip


def printed(item: dict[str, list[tuple[float, str]]], digits: int = 4) -> Given:
    """What a reader sees: so many significant digits."""

    def shown(value: float, unit: str) -> Quantity:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else digits
        return displayed(f"{value:.{decimals}f}", unit)

    return {role: [shown(value, unit) for value, unit in values] for role, values in item.items()}


def items(maker: Callable[[random.Random], Item], count: int = 40) -> Iterator[tuple[str, Item, random.Random]]:
    r = random.Random(maker.__name__)
    for _ in range(count):
        law, roles, slot = maker(r)
        yield law, (law, roles, slot), r


@pytest.mark.parametrize("maker", MAKERS)
def test_what_was_solved_exactly_and_printed_is_never_called_a_violation(
    maker: Callable[[random.Random], Item],
) -> None:
    decisions = [check(law, printed(roles)).decision for law, (_, roles, _), _ in items(maker)]
    assert set(decisions) == {"consistent"}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_number_that_was_changed_by_a_quarter_or_more_is_a_violation(
    maker: Callable[[random.Random], Item],
) -> None:
    for law, (_, roles, slot), r in items(maker):
        broken = dict(roles)
        first, *rest = roles[slot]
        broken[slot] = [(first[0] * (1 + r.choice((-1, 1)) * r.uniform(0.25, 0.6)), first[1]), *rest]
        found = check(law, printed(broken))
        assert found.decision == "violation", (law, broken, found)
        assert found.severity is not None and found.bound is not None and abs(found.residual or 0) >= 3 * found.bound


def test_every_law_on_numbers_is_tested() -> None:
    assert {maker(random.Random(0))[0] for maker in MAKERS} | {"carnot_bound"} == set(LAWS)


def test_between_one_and_three_bounds_nothing_is_decided() -> None:
    def at(power: float) -> Check:
        return check("power_vi", {"power": Quantity(power, "W", 0.1), "voltage": Quantity(5, "V"),
                                  "current": Quantity(2, "A")})  # fmt: skip

    assert [at(p).decision for p in (10.0, 10.09, 10.2, 10.29, 10.31, 9.69)] == [
        "consistent", "consistent", "undecidable", "undecidable", "violation", "violation",
    ]  # fmt: skip
    assert "2.0 times" in (at(10.2).reason or "")


def test_digits_too_coarse_to_tell_prove_nothing() -> None:
    found = check(
        "power_vi", {"power": displayed("8", "W"), "voltage": displayed("2", "V"), "current": displayed("4", "A")}
    )
    assert found.decision == "undecidable" and "coarse" in (found.reason or "")


def test_an_engine_below_carnot_is_no_violation_and_one_above_is() -> None:
    def engine(efficiency: str) -> str:
        return check(
            "carnot_bound",
            {
                "efficiency": displayed(efficiency, "%"),
                "temperature_hot": displayed("500.0", "K"),
                "temperature_cold": displayed("26.85", "degC"),
            },
        ).decision

    assert [engine(e) for e in ("12.0", "39.9", "40.1", "41.0", "70.0")] == [
        "consistent", "consistent", "undecidable", "violation", "violation",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("law", "given", "reason"),
    [
        ("phlogiston", {}, "no law"),
        ("power_vi", {"power": Quantity(1, "W"), "voltage": Quantity(1, "V")}, "no current is given"),
        ("power_vi", {"power": Quantity(1, "J"), "voltage": Quantity(1, "V"), "current": Quantity(1, "A")}, "kind"),
        ("power_vi", {"power": Quantity(1, "X"), "voltage": Quantity(1, "V"), "current": Quantity(1, "A")}, "known"),
        ("charge", {"current_in": Quantity(math.nan, "A"), "current_out": Quantity(1, "A")}, "finite"),
        ("charge", {"current_in": Quantity(1, "A"), "current_out": []}, "takes"),
        ("charge", {"current_in": Quantity(1, "A"), "current_out": Quantity(1, "A"), "x": Quantity(1)}, "no role"),
        ("power_time", {"energy": Quantity(1, "J"), "power": [Quantity(1, "W")] * 2, "duration": Quantity(1, "s")},
         "equally many"),
        ("carnot_bound", {"efficiency": Quantity(0.5), "temperature_hot": Quantity(0, "K"),
                          "temperature_cold": Quantity(3, "K")}, "unbounded"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_against_a_law_is_undecidable_with_the_reason(law: str, given: Given, reason: str) -> None:
    found = check(law, given)
    assert (found.decision, found.severity) == ("undecidable", None) and reason in (found.reason or "")


@pytest.mark.parametrize(
    ("written", "dimension", "factor"),
    [
        ("kg*m/s^2", units.FORCE, 1.0), ("kg m s-2", units.FORCE, 1.0), ("m/s²", units.ACCELERATION, 1.0),
        ("kWh", units.ENERGY, 3.6e6), ("mAh", units.CHARGE, 3.6), ("km/h", units.VELOCITY, 1 / 3.6),
        ("J/(kg·K)", units.HEAT_CAPACITY_SPECIFIC, 1.0), ("ms", units.TIME, 1e-3), ("min", units.TIME, 60.0),
        ("%", units.DIMENSIONLESS, 0.01), ("1/s", units.ANGULAR_VELOCITY, 1.0), ("V*A", units.POWER, 1.0),
        ("N m", units.ENERGY, 1.0), ("", units.DIMENSIONLESS, 1.0), ("W h", units.ENERGY, 3600.0),
    ],
)  # fmt: skip
def test_units_are_read_as_people_write_them(written: str, dimension: units.Dimension, factor: float) -> None:
    unit = unit_of(written)
    assert unit.dimension == dimension and unit.factor == pytest.approx(factor)


@pytest.mark.parametrize("written", ["furlong", "10/s", "m^99", "m^", "k", "x" * 99, "kg+m", "TWh12 TWh12 TWh12"])
def test_a_unit_that_is_not_known_is_refused_not_guessed(written: str) -> None:
    with pytest.raises(EventFormatError):
        unit_of(written)


def test_sides_of_different_kinds_break_dimensions() -> None:
    assert check_dimensions("N*m", "kg m^2/s^2").decision == "consistent"
    assert check_dimensions("N*s", "J").decision == "violation"
    assert check_dimensions("N*s", "smoots").decision == "undecidable"


def test_a_reaction_keeps_its_atoms_or_is_told_which_it_loses() -> None:
    assert check_reaction([(2, "H2"), (1, "O2")], [(2, "H2O")]).decision == "consistent"
    assert check_reaction([(1, "Ca(OH)2"), (2, "HCl")], [(1, "CaCl2"), (2, "H2O")]).decision == "consistent"
    found = check_reaction([(1, "CH₄"), (1, "O2")], [(1, "CO2"), (2, "H2O")])
    assert (found.decision, found.residual, found.reason) == ("violation", 2.0, "O -2")
    for bad in ("", "h2", "H2)", "(H2", "H2O!", "((((((H))))))"):
        assert check_reaction([(1, bad)], [(1, "H2")]).decision == "undecidable"
    assert check_reaction([(0, "H2")], [(1, "H2")]).decision == "undecidable"


def test_a_printed_number_knows_its_last_digit() -> None:
    assert displayed("3.20", "V") == Quantity(3.2, "V", pytest.approx(0.005))
    assert displayed("−1.5e3").half_width == pytest.approx(50.0)
    assert displayed("12", exact=True).half_width == 0.0
    for bad in ("", "1.2.3", "nan", "1e999", "0x10"):
        with pytest.raises(EventFormatError):
            displayed(bad)


def test_intervals_never_lose_the_truth() -> None:
    r = random.Random(5)
    for _ in range(500):
        a, b = r.uniform(-5, 5), r.uniform(-5, 5)
        x, y = Interval(a - r.random(), a + r.random()), Interval(b - r.random(), b + r.random())
        for result, truth in (
            (x.plus(y), a + b), (x.minus(y), a - b), (x.times(y), a * b), (x.squared(), a * a), (x.over(y), a / b),
        ):  # fmt: skip
            assert result.low <= truth <= result.high
    assert Interval(0.1, 0.1).plus(Interval(0.2, 0.2)).minus(Interval(0.3, 0.3)).low <= 0.0


def test_bands_are_the_protocols() -> None:
    assert [band_of(s) for s in (0.0, 0.049, 0.05, 0.2, 0.5, 9.0)] == [
        "low", "low", "medium", "high", "critical", "critical",
    ]  # fmt: skip
