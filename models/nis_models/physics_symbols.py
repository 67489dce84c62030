"""Reactions and equations between units in words: the two laws on symbols. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from nis_edge.errors import EventFormatError
from nis_edge.physics.checks import Check, check_dimensions, check_reaction
from nis_edge.physics.units import unit_of

_ARROW: Final = re.compile(r"\s*(?:<?[-=]+>|→|⟶|⇌|\byields?\b|\bgives?\b|\bproduces?\b|\bforms?\b|\bto form\b|=)\s*")
_TERM: Final = re.compile(r"(?:(\d{1,3})\s*\*?\s*)?((?:\(?[A-Z][a-z]?\d*\)?\d*){1,12})(?:\((?:s|l|g|aq)\))?\Z")


def symbolic(line: str) -> Iterator[Check]:
    """Check a reaction, or a statement on dimensions, where the text holds one."""
    reaction = _reaction(line)
    if reaction is not None:
        yield check_reaction(*reaction)
        return
    sides = _sides_of_units(line)
    if sides is not None:
        yield check_dimensions(*sides)


def _reaction(line: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]] | None:
    text = re.sub(r"([A-Z][a-z]?)\s*[_]\{?(\d+)\}?", r"\1\2", line).translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))
    for match in _ARROW.finditer(text):
        left = _terms(re.split(r"[:,;]|(?<=\w)\.\s", text[: match.start()])[-1], last=True)
        right = _terms(re.split(r"[:,;]|\.(?:\s|\Z)", text[match.end() :])[0], last=False)
        if left and right:
            return left, right
    return None


def _terms(side: str, *, last: bool) -> list[tuple[int, str]]:
    """Coefficients and formulas of one side; only the terms that stand at the arrow count."""
    terms: list[tuple[int, str]] = []
    parts = [part.strip().strip("\"'`$.") for part in re.split(r"\s\+\s|\+| and ", side)]
    for part in reversed(parts) if last else parts:
        words = part.split()
        # Words of the sentence may stand before the first term, or after the last.
        for width in range(min(2, len(words)), 0, -1):
            piece = " ".join(words[-width:] if last else words[:width])
            match = _TERM.match(re.sub(r"(\d) (?=[A-Z(])", r"\1", piece))
            if match is not None and any(letter.isupper() for letter in match[2]):
                terms.append((int(match[1] or 1), match[2]))
                break
        else:
            break
        if len(words) > width:
            break
    return terms[::-1] if last else terms


_KINDS: Final[Mapping[str, str]] = {
    "force": "N", "weight": "N", "mass": "kg", "acceleration": "m/s^2", "velocity": "m/s", "speed": "m/s", "time": "s",
    "duration": "s", "distance": "m", "length": "m", "height": "m", "displacement": "m", "area": "m^2",
    "volume": "m^3", "energy": "J", "work": "J", "heat": "J", "power": "W", "pressure": "Pa", "momentum": "kg m/s",
    "impulse": "N s", "charge": "C", "current": "A", "voltage": "V", "resistance": "ohm", "density": "kg/m^3",
    "frequency": "Hz", "temperature": "K", "torque": "N m", "angular momentum": "kg m^2/s",
}  # fmt: skip
_EQUATION: Final = re.compile(
    r"(?:\bis\b|\bequals?\b|=|\bmatches\b|\bequal to\b|\bsame (?:as|dimensions? as)\b|\bexpressed in\b|\bmeasured in\b"
    r"|\byou take\b|\bgives?\b|\byields?\b|\bhas (?:the )?units?(?: of)?\b|\bin units of\b|\bgiven in\b"
    r"|\bcomes out in\b|\bcarries\b)"
)


def _sides_of_units(line: str) -> tuple[str, str] | None:
    """Both sides of a statement on dimensions, as units; None where it is none."""
    if re.search(r"\d(?:\.\d+)? ?(?:[A-Za-z%]{1,4}\b)", line) and not re.search(
        r"\b(?:units?|dimension)", line.lower()
    ):
        return None
    for sentence in re.split(r"(?<=[\w)])[.;:?](?:\s|\Z)", line):
        for match in _EQUATION.finditer(sentence):
            left, right = (
                _units_in(sentence[: match.start()], last=True),
                _units_in(sentence[match.end() :], last=False),
            )
            if left and right:
                return left, right
    return None


def _units_in(side: str, *, last: bool) -> str | None:
    """The unit of a product of named quantities and units, such as ``mass times acceleration`` or ``kg*m/s^2``."""
    text = re.sub(r"[\"'`(),]", " ", side)
    text = re.sub(r"\bmultiplied by\b|\btimes\b|×", " * ", re.sub(r"\bdivided by\b|\bover\b|\bper\b", " / ", text))
    text = re.sub(r"\bthe square of (?:the )?([\w ]+?)(?= [*/]|\Z)", r"\1^2", text)
    text = re.sub(r"\s*\bsquared\b", "^2", re.sub(r"\s*\bcubed\b", "^3", text))
    pieces = re.split(r"\s*([*/])\s*", text)
    parsed: list[str] = []
    found = 0
    order = range(0, len(pieces), 2)
    for at in reversed(order) if last else order:
        unit = _unit_of_piece(pieces[at], last=last)
        if unit is None:
            break
        found += 1
        sign = pieces[at - 1] if at else "*"
        parsed.append(_raised(unit, -1 if sign == "/" else 1))
    return " ".join(parsed) if found else None


def _unit_of_piece(piece: str, *, last: bool) -> str | None:
    """The named quantity or unit of a piece that stands nearest to the operator, or to the equation's sign."""
    words = piece.strip().rstrip(".").split()
    for at in range(len(words) - 1, -1, -1) if last else range(len(words)):
        for name in (" ".join(words[max(0, at - 1) : at + 1]), " ".join(words[at : at + 2]), words[at]):
            kind = _KINDS.get(re.sub(r"\^\d", "", name.lower()))
            if kind is not None:
                raised = re.search(r"\^(\d)", name)
                return _raised(kind, int(raised[1]) if raised else 1)
        word = words[at]
        # "A" is the ampere only where it ends what is said.
        if not re.fullmatch(r"a|in|at|as|[\d.]+", word) and (word != "A" or at == len(words) - 1):
            try:
                unit_of(word)
            except EventFormatError:
                continue
            return word
    return None


def _raised(unit: str, power: int) -> str:
    """A unit to a power, written out in factors that ``unit_of`` reads."""
    above, _, below = unit.partition("/")
    factors = []
    for sign, part in ((1, above), (-1, below)):
        for word in part.replace("*", " ").strip("() ").split():
            match = re.fullmatch(r"([^\d^-]+)\^?(-?\d+)?", word)
            if match is not None:
                factors.append(f"{match[1]}^{sign * power * int(match[2] or 1)}")
    return " ".join(factors)
