"""Numbers with units in plain English, with the words around them: what a reader of physics items starts from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nis_edge.errors import EventFormatError
from nis_edge.physics.checks import Quantity, displayed
from nis_edge.physics.units import Dimension, unit_of

TEXT_CHARS_MAX: Final = 4000
QUANTITIES_MAX: Final = 40

_WORDS: Final[tuple[tuple[str, str], ...]] = (
    (r"met(?:er|re)s? per second (?:squared|per second)", "m/s^2"), (r"met(?:er|re)s? per second", "m/s"),
    (r"kilomet(?:er|re)s? per hour|km per hour|kph|kmh", "km/h"), (r"radians? per second", "rad/s"),
    (r"revolutions? per minute", "rpm"), (r"kilograms? square met(?:er|re)s?", "kg m^2"),
    (r"joules? per kilogram(?: per)? (?:kelvin|degree(?: celsius)?)", "J/(kg K)"),
    (r"kilowatt[- ]?hours?", "kWh"), (r"watt[- ]?hours?", "Wh"), (r"milliamp(?:ere)?[- ]?hours?", "mAh"),
    (r"amp(?:ere)?[- ]?hours?", "Ah"), (r"milliamp(?:ere)?s?", "mA"), (r"amp(?:ere)?s?", "A"), (r"coulombs?", "C"),
    (r"kilojoules?", "kJ"), (r"megajoules?", "MJ"), (r"joules?", "J"), (r"kilowatts?", "kW"), (r"watts?", "W"),
    (r"millivolts?", "mV"), (r"volts?", "V"), (r"newtons?", "N"), (r"kelvins?", "K"),
    (r"degrees? (?:celsius|c)\b|deg c\b|° ?c\b|celsius", "degC"), (r"per ?cent", "%"), (r"kilograms?|kgs|kilos?", "kg"),
    (r"grams?", "g"), (r"tonnes?", "t"), (r"kilomet(?:er|re)s?", "km"), (r"centimet(?:er|re)s?", "cm"),
    (r"met(?:er|re)s?", "m"), (r"milliseconds?", "ms"), (r"seconds?|secs?", "s"), (r"minutes?|mins", "min"),
    (r"hours?|hrs?", "h"), (r"lit(?:er|re)s?", "L"),
)  # fmt: skip
_SPELLED: Final = tuple((re.compile(rf"(?<=\d)[ -]?(?:{words})\b", re.IGNORECASE), unit) for words, unit in _WORDS)

_SUPERSCRIPT: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_NUMBER: Final = re.compile(
    r"(?<![\w.^])([-+−–]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+−–]?\d+(?:\.\d+)?)"
    r"(?:[eE]([-+]?\d{1,3})|\s?[x×*·]\s?10\^?\(?([-−]?\d{1,3})\)?)?"
)
_UNIT: Final = re.compile(
    r"\s?(kg[ *·]?m(?:(?:\^2|²)(?:\s?/\s?s)?|\s?/\s?s(?!\w|\^))"
    r"|[A-Za-zµμΩ°%℃]+(?:\^?-?\d|[²³])?(?:\s?/\s?\(?[A-Za-z°]+(?:\^?\d|[²³])?"
    r"(?:[ *·]?[A-Za-z°]+(?:\^?\d)?)?\)?|[·*](?:[A-Za-z°]+(?:\^?-?\d|[²³])?)){0,2}|%)"
)
_BARE_C: Final = re.compile(r"(\d)\s?C\b(?!\s*[*/=])")
_ELECTRIC: Final = re.compile(r"\d\s?(?:[munµ]?A|[mu]?Ah|[mk]?V)\b|\bcharge|\bcurrent|coulomb", re.IGNORECASE)
"""Where nothing is electric, a number of C is one of degrees."""

_REST: Final = re.compile(
    r"\b(?:at rest|stationary|motionless|not moving|standing still|is still|was still|from rest|to rest"
    r"|comes? to a (?:stop|halt)|stops|halts|parked|unmoving)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Found:
    """One number of a text.

    Args:
        quantity: value, unit, half a step of its last digit.
        dimension: of its unit; None for a bare number.
        before, after: the words between it and its neighbours, lower case.
        start, end: where it stands.
        sentence: number of the sentence.
    """

    quantity: Quantity
    dimension: Dimension | None
    before: str
    after: str
    start: int
    end: int
    sentence: int
    is_whole: bool


def plain(text: str) -> str:
    """The text with units spelled as symbols, in one line."""
    line = " ".join(text[:TEXT_CHARS_MAX].translate(_SUPERSCRIPT).split())
    for pattern, unit in _SPELLED:
        line = pattern.sub(" " + unit, line)
    if not _ELECTRIC.search(line):
        line = _BARE_C.sub(r"\1 degC", line)
    return line


def quantities(line: str) -> list[Found]:
    """Every number with a unit that is known, in order, and every word for rest as an exact 0 m/s.

    Args:
        line: from ``plain``.
    """
    spans: list[tuple[int, int, Quantity, Dimension | None, bool]] = []
    for match in _NUMBER.finditer(line):
        power = (match[2] or match[3] or "").replace("−", "-")
        number = match[1].replace(",", "").replace("−", "-").replace("–", "-")
        unit, end = _unit_at(line, match.end())
        try:
            quantity = displayed(number + (f"e{power}" if power else ""), unit or "1")
        except EventFormatError:
            continue
        dimension = unit_of(unit).dimension if unit else None
        spans.append((match.start(), end, quantity, dimension, "." not in number and not power))
    taken = [(start, end) for start, end, *_ in spans]
    for match in _REST.finditer(line):
        if not any(start <= match.start() < end for start, end in taken):
            spans.append((match.start(), match.end(), Quantity(0.0, "m/s", 0.0), unit_of("m/s").dimension, False))
    spans.sort(key=lambda span: span[0])
    spans = spans[:QUANTITIES_MAX]
    stops = [match.end() for match in re.finditer(r"[.;!?](?=\s|$)", line)]
    found = []
    for place, (start, end, quantity, dimension, whole) in enumerate(spans):
        left = spans[place - 1][1] if place else 0
        right = spans[place + 1][0] if place + 1 < len(spans) else len(line)
        found.append(
            Found(
                quantity,
                dimension,
                line[left:start].lower(),
                line[end:right].lower(),
                start,
                end,
                sum(1 for stop in stops if stop <= start),
                whole,
            )
        )
    return found


def of(found: Iterable[Found], *dimensions: Dimension) -> list[Found]:
    """Those of some dimensions."""
    return [one for one in found if one.dimension in dimensions]


_WORDS: Final = frozenset({"d", "1", "a", "in"})
"""Units of physics/units.py that stand for words, or for nothing, in a sentence."""


def _is_unit(written: str) -> bool:
    try:
        unit_of(written)
    except EventFormatError:
        return False
    return True


def _unit_at(line: str, at: int) -> tuple[str | None, int]:
    """The longest known unit that stands at a place, and where it ends."""
    match = _UNIT.match(line, at)
    written = match[1] if match else ""
    while written:
        # "A" as an article, "a", "s" of a plural: what a word goes on from is no unit.
        tail = line[at + (match.start(1) - at if match else 0) + len(written) :]
        if not tail[:1].isalpha() and written not in _WORDS and _is_unit(written):
            return written, (match.start(1) if match else at) + len(written)
        shorter = re.sub(r"(?:[\s/·*(]+[^\s/·*(]*|[^\s/·*(]*)\Z", "", written)
        if shorter == written:
            break
        written = shorter
    return None, at
