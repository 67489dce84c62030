"""Units of measure: from a written unit to its dimension and its factor in SI. Pure.

Written as ``kg*m/s^2``, ``kg m s-2``, ``m/s²``, ``kWh``, ``mAh``, ``degC`` or ``Cel`` (a point on the Celsius scale),
``%``. What isn't known is refused, never guessed.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final, NamedTuple

from nis_edge.errors import EventFormatError

UNIT_CHARS_MAX: Final = 64
"""A longer unit is no unit."""

EXPONENT_MAX: Final = 12
"""Beyond any unit in use."""

Dimension = tuple[int, int, int, int, int, int, int]
"""Exponents of metre, kilogram, second, ampere, kelvin, mole, candela (SI brochure, 9th edition, table 2)."""

DIMENSIONLESS: Final[Dimension] = (0, 0, 0, 0, 0, 0, 0)
LENGTH: Final[Dimension] = (1, 0, 0, 0, 0, 0, 0)
MASS: Final[Dimension] = (0, 1, 0, 0, 0, 0, 0)
TIME: Final[Dimension] = (0, 0, 1, 0, 0, 0, 0)
CURRENT: Final[Dimension] = (0, 0, 0, 1, 0, 0, 0)
TEMPERATURE: Final[Dimension] = (0, 0, 0, 0, 1, 0, 0)
AMOUNT: Final[Dimension] = (0, 0, 0, 0, 0, 1, 0)
VELOCITY: Final[Dimension] = (1, 0, -1, 0, 0, 0, 0)
ACCELERATION: Final[Dimension] = (1, 0, -2, 0, 0, 0, 0)
FORCE: Final[Dimension] = (1, 1, -2, 0, 0, 0, 0)
ENERGY: Final[Dimension] = (2, 1, -2, 0, 0, 0, 0)
POWER: Final[Dimension] = (2, 1, -3, 0, 0, 0, 0)
CHARGE: Final[Dimension] = (0, 0, 1, 1, 0, 0, 0)
VOLTAGE: Final[Dimension] = (2, 1, -3, -1, 0, 0, 0)
HEAT_CAPACITY_SPECIFIC: Final[Dimension] = (2, 0, -2, 0, -1, 0, 0)
MOMENT_OF_INERTIA: Final[Dimension] = (2, 1, 0, 0, 0, 0, 0)
ANGULAR_VELOCITY: Final[Dimension] = (0, 0, -1, 0, 0, 0, 0)
ANGULAR_MOMENTUM: Final[Dimension] = (2, 1, -1, 0, 0, 0, 0)

ZERO_CELSIUS_K: Final = 273.15


class Unit(NamedTuple):
    """A value in this unit times ``factor`` plus ``offset`` is the value in SI."""

    dimension: Dimension
    factor: float
    offset: float = 0.0


_PREFIXES: Final = {
    "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1, "h": 1e2,
    "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
}  # fmt: skip

_PREFIXED: Final[dict[str, Unit]] = {
    "m": Unit(LENGTH, 1.0), "g": Unit(MASS, 1e-3), "s": Unit(TIME, 1.0), "A": Unit(CURRENT, 1.0),
    "K": Unit(TEMPERATURE, 1.0), "mol": Unit(AMOUNT, 1.0), "cd": Unit((0, 0, 0, 0, 0, 0, 1), 1.0),
    "N": Unit(FORCE, 1.0), "J": Unit(ENERGY, 1.0), "W": Unit(POWER, 1.0), "C": Unit(CHARGE, 1.0),
    "V": Unit(VOLTAGE, 1.0), "Hz": Unit((0, 0, -1, 0, 0, 0, 0), 1.0), "Pa": Unit((-1, 1, -2, 0, 0, 0, 0), 1.0),
    "ohm": Unit((2, 1, -3, -2, 0, 0, 0), 1.0), "Ω": Unit((2, 1, -3, -2, 0, 0, 0), 1.0),
    "F": Unit((-2, -1, 4, 2, 0, 0, 0), 1.0), "T": Unit((0, 1, -2, -1, 0, 0, 0), 1.0),
    "Wh": Unit(ENERGY, 3600.0), "Ah": Unit(CHARGE, 3600.0), "L": Unit((3, 0, 0, 0, 0, 0, 0), 1e-3),
    "l": Unit((3, 0, 0, 0, 0, 0, 0), 1e-3), "eV": Unit(ENERGY, 1.602176634e-19), "cal": Unit(ENERGY, 4.184),
    "bar": Unit((-1, 1, -2, 0, 0, 0, 0), 1e5),
}  # fmt: skip

_PLAIN: Final[dict[str, Unit]] = {
    "1": Unit(DIMENSIONLESS, 1.0), "%": Unit(DIMENSIONLESS, 0.01), "rad": Unit(DIMENSIONLESS, 1.0),
    "deg": Unit(DIMENSIONLESS, math.pi / 180.0), "min": Unit(TIME, 60.0), "h": Unit(TIME, 3600.0),
    "d": Unit(TIME, 86400.0), "t": Unit(MASS, 1000.0), "rev": Unit(DIMENSIONLESS, 2.0 * math.pi),
    "rpm": Unit(ANGULAR_VELOCITY, 2.0 * math.pi / 60.0),
}  # fmt: skip

_CELSIUS: Final = frozenset({"degC", "Cel", "°C", "℃"})

_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_FACTOR: Final = re.compile(r"([A-Za-zµμΩ%°℃]+|1(?![\d^+-]))(?:\^?\(?([+-]?\d{1,2})\)?)?\Z")


@lru_cache(maxsize=512)
def unit_of(written: str) -> Unit:
    """Read a unit.

    Raises:
        EventFormatError: it isn't known (whoever wrote it acts).
    """
    text = written.strip()
    if len(text) > UNIT_CHARS_MAX:
        raise EventFormatError(f"unit of {len(text)} characters is none")
    if text in _CELSIUS:
        return Unit(TEMPERATURE, 1.0, ZERO_CELSIUS_K)
    if not text:
        return Unit(DIMENSIONLESS, 1.0)
    plain = text.translate(_SUPERSCRIPTS).replace("·", "*").replace("⋅", "*").replace("**", "^")
    dimension, factor = [0] * 7, 1.0
    # One division bar: everything behind it divides, as in kg/(m s2).
    above, *below = plain.split("/")
    for sign, part in ((1, above), *((-1, piece) for piece in below)):
        for word in part.strip().strip("()").replace("*", " ").split():
            unit, exponent = _factor(word, written)
            factor *= unit.factor ** (sign * exponent)
            for index, of_base in enumerate(unit.dimension):
                dimension[index] += sign * exponent * of_base
    if not (math.isfinite(factor) and factor > 0.0):
        raise EventFormatError(f"unit {written!r} is out of all proportion")
    return Unit(tuple(dimension), factor)  # type: ignore[arg-type]


def _factor(word: str, written: str) -> tuple[Unit, int]:
    match = _FACTOR.match(word)
    exponent = int(match[2]) if match and match[2] else 1
    if match is None or abs(exponent) > EXPONENT_MAX:
        raise EventFormatError(f"unit {written!r} is not known: {word!r}")
    name = match[1]
    if name in _PLAIN:
        return _PLAIN[name], exponent
    if name in _CELSIUS:
        # Within a product a degree is a difference: J/(kg degC) is J/(kg K).
        return Unit(TEMPERATURE, 1.0), exponent
    if name in _PREFIXED:
        return _PREFIXED[name], exponent
    prefix, rest = name[:1], name[1:]
    if prefix in _PREFIXES and rest in _PREFIXED:
        unit = _PREFIXED[rest]
        return Unit(unit.dimension, unit.factor * _PREFIXES[prefix]), exponent
    raise EventFormatError(f"unit {written!r} is not known: {word!r}")
