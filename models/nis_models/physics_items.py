"""Physics items: a law solved exactly, rounded for display, broken by a known share or not, put into words. By seed.

An item's label comes from how it was made, never from the validator. It is then decided again from its displayed digits
by interval arithmetic; where the digits leave it open it is dropped, and where the validator says the opposite that is
an error of the validator and is counted. Two sets of wordings: ``dev`` is what the reader of texts was written on,
``held_out`` is what it is measured on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nis_edge.physics.checks import Check, Quantity, check, check_dimensions, check_reaction, displayed
from nis_edge.physics.laws import STANDARD_GRAVITY
from nis_models.physics_wordings import DEV, HELD_OUT

Size = Literal["none", "small", "medium", "large"]
SIZES: Final[Mapping[str, tuple[float, float]]] = {
    "large": (0.25, 0.60),
    "medium": (0.06, 0.20),
    "small": (0.015, 0.05),
}
"""By what share the wrong number is off."""

LEVELS: Final = ("1", "2")
"""1: two terms and one system of units. 2: three terms, signs, or mixed units."""

TRIES: Final = 200

Number = tuple[float, str]
Problem = tuple[dict[str, Number], dict[str, list[str]], str]
"""Numbers by name, with unit; role -> names of its numbers; the number that is made wrong."""


@dataclass(frozen=True)
class Item:
    """One item. ``given`` holds the law's roles as displayed: role -> [number, unit]s; symbols for laws on symbols."""

    law: str
    level: str
    size: Size
    text: str
    label: str
    given: dict[str, Any]
    wording: str


def draw(seed: int, wordings: Literal["dev", "held_out"], law: str | None = None) -> Item:
    """Draw one item whose digits decide it; the same seed gives the same item.

    Args:
        seed: chance.
        wordings: which set speaks.
        law: a name of ``LAWS``; None draws one.
    """
    rng = random.Random(f"physics:{wordings}:{seed}")  # noqa: S311 - chance of a simulation, not of a secret
    law = law or rng.choice(sorted(LAWS))
    for _ in range(TRIES):
        item = LAWS[law](rng, wordings)
        if decided(item).decision != "undecidable":
            return item
    raise ValueError(f"no item of {law} was decidable in {TRIES} tries")


def draw_many(count: int, wordings: Literal["dev", "held_out"], seed: int = 0) -> Iterator[Item]:
    """Items of all laws in turn."""
    names = sorted(LAWS)
    for number in range(count):
        yield draw(seed + number, wordings, names[number % len(names)])


def decided(item: Item) -> Check:
    """What the validator says of the item's structured form."""
    if item.law == "stoichiometry":
        return check_reaction(item.given["reactants"], item.given["products"])
    if item.law == "dimensions":
        return check_dimensions(item.given["left"], item.given["right"])
    given: dict[str, Quantity | Sequence[Quantity]] = {
        role: [displayed(number, unit) for number, unit in numbers] for role, numbers in item.given.items()
    }
    return check(item.law, given)


# --- laws on numbers: each solved exactly -----------------------------------------------------------------------------


def _momentum(rng: random.Random, level: str) -> Problem:
    m, n, u, w = rng.uniform(1, 9), rng.uniform(1, 9), rng.uniform(3, 9), rng.uniform(0.5, 2.5)
    v = rng.uniform(0.5, 2.5) if level == "1" else -rng.uniform(1, 4)
    return (
        {"m1": (m, "kg"), "m2": (n, "kg"), "u1": (u, "m/s"), "u2": (v, "m/s"), "w1": (w, "m/s"),
         "w2": ((m * u + n * v - m * w) / n, "m/s")},
        {"mass": ["m1", "m2"], "velocity_before": ["u1", "u2"], "velocity_after": ["w1", "w2"]}, "u1",
    )  # fmt: skip


def _energy(rng: random.Random, level: str) -> Problem:
    m, h = rng.uniform(0.5, 9), rng.uniform(4, 40)
    u = 0.0 if level == "1" else rng.uniform(1, 6)
    w = math.sqrt(u * u + 2 * STANDARD_GRAVITY * h)
    numbers = {"m": (m, "kg"), "h": (h, "m"), "w": (w, "m/s"), "u": (u, "m/s"), "zero": (0.0, "m")}
    roles = {
        "mass": ["m"], "speed_before": ["u"], "speed_after": ["w"], "height_before": ["h"], "height_after": ["zero"],
    }  # fmt: skip
    return numbers, roles, "w"


def _node(rng: random.Random, level: str) -> Problem:
    a, b, c = rng.uniform(0.5, 4), rng.uniform(0.5, 4), rng.uniform(0.5, 4)
    if level == "1":
        return {"a": (a + b, "A"), "b": (a, "A"), "c": (b, "A")}, {"current_in": ["a"], "current_out": ["b", "c"]}, "a"
    numbers = {"a": (1e3 * (a + b + c), "mA"), "b": (a, "A"), "c": (b, "A"), "d": (c, "A")}
    return numbers, {"current_in": ["a"], "current_out": ["b", "c", "d"]}, "a"


def _battery(rng: random.Random, level: str) -> Problem:
    before, amps, hours = rng.uniform(3, 5), rng.uniform(1, 3), rng.uniform(0.4, 0.9)
    scale, unit = (1.0, "Ah") if level == "1" else (1e3, "mAh")
    time = (hours, "h") if level == "1" else (60 * hours, "min")
    numbers = {"q": (scale * before, unit), "r": (scale * (before - amps * hours), unit), "i": (amps, "A"), "t": time}
    return numbers, {"charge_before": ["q"], "charge_after": ["r"], "current": ["i"], "duration": ["t"]}, "i"


def _consumption(rng: random.Random, level: str) -> Problem:
    p, t, q, s = rng.uniform(2, 90), rng.uniform(1, 9), rng.uniform(2, 90), rng.uniform(1, 9)
    if level == "1":
        numbers = {"e": (p * t, "Wh"), "p": (p, "W"), "t": (t, "h")}
        return numbers, {"energy": ["e"], "power": ["p"], "duration": ["t"]}, "e"
    numbers = {"e": (3.6 * (p * t + q * s), "kJ"), "p": (p, "W"), "t": (t, "h"), "q": (q, "W"), "s": (60 * s, "min")}
    return numbers, {"energy": ["e"], "power": ["p", "q"], "duration": ["t", "s"]}, "e"


def _watts(rng: random.Random, level: str) -> Problem:
    v, i = rng.uniform(3, 48), rng.uniform(0.2, 6)
    current = (i, "A") if level == "1" else (1e3 * i, "mA")
    return {"p": (v * i, "W"), "v": (v, "V"), "i": current}, {"power": ["p"], "voltage": ["v"], "current": ["i"]}, "p"


def _heat(rng: random.Random, level: str) -> Problem:
    m, n, hot, cold = rng.uniform(0.2, 2), rng.uniform(0.2, 2), rng.uniform(60, 95), rng.uniform(5, 30)
    c, d = (4186.0, 4186.0) if level == "1" else (rng.uniform(350, 950), 4186.0)
    final = (m * c * hot + n * d * cold) / (m * c + n * d)
    numbers = {
        "m1": (m, "kg"), "m2": (n, "kg"), "c1": (c, "J/(kg K)"), "c2": (d, "J/(kg K)"), "hot": (hot, "degC"),
        "cold": (cold, "degC"), "end": (final, "degC"),
    }  # fmt: skip
    roles = {
        "mass": ["m1", "m2"], "heat_capacity": ["c1", "c2"], "temperature_before": ["hot", "cold"],
        "temperature_after": ["end"],
    }  # fmt: skip
    return numbers, roles, "hot"


def _first_law(rng: random.Random, level: str) -> Problem:
    heat, work = rng.uniform(300, 900), rng.uniform(50, 250)
    unit, scale = ("J", 1.0) if level == "1" else ("kJ", 1e-3)
    numbers = {"u": (heat - work, "J"), "q": (heat * scale, unit), "w": (work, "J")}
    return numbers, {"internal_energy_change": ["u"], "heat_in": ["q"], "work_by_system": ["w"]}, "u"


def _mass_balance(rng: random.Random, level: str) -> Problem:
    a, b, kept = rng.uniform(2, 40), rng.uniform(2, 40), rng.uniform(1, 9)
    if level == "1":
        return {"a": (a + b, "kg"), "b": (a, "kg"), "c": (b, "kg")}, {"mass_in": ["a"], "mass_out": ["b", "c"]}, "a"
    numbers = {"a": (a + b + kept, "kg"), "b": (a, "kg"), "c": (b, "kg"), "k": (1e3 * kept, "g")}
    return numbers, {"mass_in": ["a"], "mass_out": ["b", "c"], "accumulated": ["k"]}, "a"


def _spin(rng: random.Random, level: str) -> Problem:
    i, j, w = rng.uniform(2, 6), rng.uniform(0.5, 1.8), rng.uniform(1, 5)
    rate, unit = (w, "rad/s") if level == "1" else (w * 60 / (2 * math.pi), "rpm")
    numbers = {"i1": (i, "kg m^2"), "i2": (j, "kg m^2"), "w1": (rate, unit), "w2": (w * i / j, "rad/s")}
    roles = {"inertia_before": ["i1"], "rate_before": ["w1"], "inertia_after": ["i2"], "rate_after": ["w2"]}
    return numbers, roles, "w2"


def _carnot(rng: random.Random, level: str) -> Problem:
    hot, cold = rng.uniform(500, 900), rng.uniform(280, 360)
    best = 1 - cold / hot
    numbers = {"hot": (hot, "K"), "cold": (cold, "K"), "eta": (100 * best, "%")}
    if level == "2":
        numbers |= {"hot": (hot - 273.15, "degC"), "cold": (cold - 273.15, "degC")}
    return numbers, {"efficiency": ["eta"], "temperature_hot": ["hot"], "temperature_cold": ["cold"]}, "eta"


def _distance(rng: random.Random, level: str) -> Problem:
    u, a, t = rng.uniform(2, 9), rng.uniform(0.5, 3), rng.uniform(2, 9)
    speed = (u, "m/s") if level == "1" else (3.6 * u, "km/h")
    numbers = {"s": (u * t + a * t * t / 2, "m"), "u": speed, "a": (a, "m/s^2"), "t": (t, "s")}
    return numbers, {"distance": ["s"], "speed_before": ["u"], "acceleration": ["a"], "duration": ["t"]}, "s"


def _speeds(rng: random.Random, level: str) -> Problem:
    u, a, t = rng.uniform(2, 9), rng.uniform(0.5, 3), rng.uniform(2, 9)
    after = (u + a * t, "m/s") if level == "1" else (3.6 * (u + a * t), "km/h")
    numbers = {"u": (u, "m/s"), "w": after, "a": (a, "m/s^2"), "t": (t, "s")}
    return numbers, {"speed_before": ["u"], "speed_after": ["w"], "acceleration": ["a"], "duration": ["t"]}, "w"


_NUMERIC: Final[Mapping[str, Callable[[random.Random, str], Problem]]] = {
    "momentum_1d": _momentum, "mechanical_energy": _energy, "charge": _node, "coulomb_count": _battery,
    "power_time": _consumption, "power_vi": _watts, "heat_balance": _heat, "first_law": _first_law,
    "mass_balance": _mass_balance, "angular_momentum": _spin, "carnot_bound": _carnot,
    "kinematics_distance": _distance, "kinematics_velocity": _speeds,
}  # fmt: skip


def shown(value: float, digits: int) -> str:
    """A number with so many significant digits, none of them behind the point cut to a power of ten."""
    if value == 0.0:
        return "0." + "0" * digits
    decimals = max(1, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def _numeric(law: str) -> Callable[[random.Random, str], Item]:
    def item(rng: random.Random, wordings: str) -> Item:
        level = rng.choice(LEVELS)
        numbers, roles, wrong = _NUMERIC[law](rng, level)
        size: Size = "none" if rng.random() < 0.5 else rng.choice(("small", "medium", "large"))
        sign = rng.choice((-1.0, 1.0))
        if law == "carnot_bound":
            # A bound: an engine may be worse than Carnot's, and is when nothing is wrong.
            value, unit = numbers[wrong]
            numbers[wrong] = (value * (1.0 if size != "none" else rng.uniform(0.45, 0.9)), unit)
            sign = 1.0
        if size != "none":
            value, unit = numbers[wrong]
            numbers[wrong] = (value * (1.0 + sign * rng.uniform(*SIZES[size])), unit)
        digits = rng.choice((3, 4))
        said = {name: (shown(value, digits), unit) for name, (value, unit) in numbers.items()}
        given = {role: [said[name] for name in names] for role, names in roles.items()}
        if law == "mechanical_energy":
            given["height_after"] = [("0.0000000", "m")]
            if level == "1":
                given["speed_before"] = [("0.0000000", "m/s")]
        if law == "heat_balance" and level == "1":
            # Water and water: no digits of a heat capacity are shown, and none are needed.
            given["heat_capacity"] = [("4186.0000000", "J/(kg K)")] * 2
        words = (DEV if wordings == "dev" else HELD_OUT)[law][level]
        text = rng.choice(words).format(**{name: f"{number} {unit}" for name, (number, unit) in said.items()})
        label = "consistent" if size == "none" else "violation"
        return Item(law, level, size, text.replace(" %", " %"), label, given, wordings)

    return item


# --- laws on symbols --------------------------------------------------------------------------------------------------

REACTIONS: Final[tuple[tuple[tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]], ...]] = (
    (((2, "H2"), (1, "O2")), ((2, "H2O"),)),
    (((1, "CH4"), (2, "O2")), ((1, "CO2"), (2, "H2O"))),
    (((1, "N2"), (3, "H2")), ((2, "NH3"),)),
    (((4, "Fe"), (3, "O2")), ((2, "Fe2O3"),)),
    (((1, "C3H8"), (5, "O2")), ((3, "CO2"), (4, "H2O"))),
    (((2, "Al"), (3, "Cl2")), ((2, "AlCl3"),)),
    (((1, "Ca(OH)2"), (2, "HCl")), ((1, "CaCl2"), (2, "H2O"))),
    (((2, "KClO3"),), ((2, "KCl"), (3, "O2"))),
    (((2, "Na"), (2, "H2O")), ((2, "NaOH"), (1, "H2"))),
    (((6, "CO2"), (6, "H2O")), ((1, "C6H12O6"), (6, "O2"))),
)

EQUATIONS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("force", "mass times acceleration", "N", "kg*m/s^2"),
    ("energy", "mass times velocity squared", "J", "kg*m^2/s^2"),
    ("power", "voltage times current", "W", "V*A"),
    ("power", "energy divided by time", "W", "J/s"),
    ("momentum", "mass times velocity", "kg*m/s", "kg*m/s"),
    ("pressure", "force divided by area", "Pa", "N/m^2"),
    ("charge", "current times time", "C", "A*s"),
    ("work", "force times distance", "J", "N*m"),
    ("voltage", "current times resistance", "V", "A*ohm"),
    ("distance", "speed times time", "m", "m"),
)


def _reaction(rng: random.Random, wordings: str) -> Item:
    left, right = rng.choice(REACTIONS)
    wrong = rng.random() < 0.5
    sides = [list(left), list(right)]
    if wrong:
        side = rng.choice(sides)
        at = rng.randrange(len(side))
        count, formula = side[at]
        side[at] = (count + rng.choice((1, 2)) if count == 1 or rng.random() < 0.5 else count - 1, formula)
    text = [" + ".join(f"{'' if n == 1 else f'{n} '}{f}" for n, f in side) for side in sides]
    words = rng.choice((DEV if wordings == "dev" else HELD_OUT)["stoichiometry"]["1"])
    return Item(
        "stoichiometry", "1" if len(left) + len(right) < 4 else "2", "large" if wrong else "none",
        words.format(left=text[0], right=text[1]), "violation" if wrong else "consistent",
        {"reactants": sides[0], "products": sides[1]}, wordings,
    )  # fmt: skip


def _dimensions(rng: random.Random, wordings: str) -> Item:
    name, words, unit, units = rng.choice(EQUATIONS)
    wrong = rng.random() < 0.5
    if wrong:
        # By construction: two quantities of the list whose units are not the same thing.
        other = rng.choice([entry for entry in EQUATIONS if entry[0] not in (name, _TWIN.get(name))])
        words, units = other[1], other[3]
    said = rng.choice((DEV if wordings == "dev" else HELD_OUT)["dimensions"]["1"])
    return Item(
        "dimensions", "1", "large" if wrong else "none", said.format(name=name, words=words, unit=unit, units=units),
        "violation" if wrong else "consistent", {"left": unit, "right": units}, wordings,
    )  # fmt: skip


_TWIN: Final = {"work": "energy", "energy": "work"}

LAWS: Final[Mapping[str, Callable[[random.Random, str], Item]]] = {
    **{law: _numeric(law) for law in _NUMERIC},
    "stoichiometry": _reaction,
    "dimensions": _dimensions,
}
"""Every law that items are made of."""
