"""Reactions and equations between units in words: the two laws on symbols. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from nis_edge.errors import EventFormatError
from nis_edge.physics.checks import Check, check_dimensions, check_reaction
from nis_edge.physics.symbols import atoms_of
from nis_edge.physics.units import unit_of

_ARROW: Final = re.compile(r"\s*(?:<?[-=]+>|→|⟶|⇌|\byields?\b|\bgives?\b|\bproduces?\b|\bforms?\b|\bto form\b|=)\s*")
_TERM: Final = re.compile(r"(?:(\d{1,3})\s*\*?\s*)?((?:\(?[A-Z][a-z]?\d*\)?\d*){1,12})(?:\((?:s|l|g|aq)\))?\Z")


def symbolic(line: str) -> Iterator[Check]:
    """Check a reaction, or a statement on dimensions, where the text holds one."""
    reaction = _reaction(line)
    if reaction is not None:
        yield check_reaction(*reaction)
        return
    formula = _formula(line)
    sides = formula or _sides_of_units(line)
    if sides is not None:
        yield check_dimensions(*sides)


_SYMBOLS: Final[Mapping[str, str]] = {
    "F": "N", "m": "kg", "a": "m/s^2", "g": "m/s^2", "v": "m/s", "u": "m/s", "c": "m/s", "t": "s", "E": "J", "W": "J",
    "P": "W", "p": "kg m/s", "V": "V", "U": "V", "I": "A", "R": "ohm", "Q": "C", "q": "C", "h": "m", "d": "m", "s": "m",
    "x": "m", "r": "m", "A": "m^2",
}  # fmt: skip
"""Letters as physics books use them."""

_FORMULA: Final = re.compile(
    r"(?<![\w.])([A-Za-z])\s*=\s*(?:\(?(?:1/2|0\.5|½)\)?\s*[*·]?\s*)?"
    r"([A-Za-z](?:\^\d|²)?(?:\s*[*·/×]\s*(?:[A-Za-z](?:\^\d|²)?|\d(?![\d.]))(?!\w)){0,4})(?!\s*[\w.])?"
)


def _formula(line: str) -> tuple[str, str] | None:
    """Both sides of a formula in the letters of physics books, as units."""
    match = _FORMULA.search(line)
    if match is None or match[1] not in _SYMBOLS or re.match(r"\s*\w", line[match.end() : match.end() + 1]):
        return None
    factors, sign = [], 1
    for piece in re.split(r"\s*([*·/×])\s*", match[2].replace("²", "^2")):
        if piece in ("*", "·", "×", "/"):
            sign = -1 if piece == "/" else 1
            continue
        name, _, power = piece.partition("^")
        if name.isdigit():
            continue
        if name not in _SYMBOLS:
            return None
        factors.append(_raised(_SYMBOLS[name], sign * int(power or 1)))
    return _SYMBOLS[match[1]], " ".join(factors)


def _reaction(line: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]] | None:
    text = re.sub(r"([A-Z][a-z]?)\s*[_]\{?(\d+)\}?", r"\1\2", line).translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789"))
    for match in _ARROW.finditer(text):
        left = _terms(re.split(r"[:,;]|(?<=\w)\.\s", text[: match.start()])[-1], last=True)
        right = _terms(re.split(r"[:,;]|\.(?:\s|\Z)", text[match.end() :])[0], last=False)
        if left and right and (match[0].strip() != "=" or (_is_chemical(left) and _is_chemical(right))):
            return left, right
    return None


def _is_chemical(side: list[tuple[int, str]]) -> bool:
    """Whether a side can't be a product of symbols: some formula of it has more than one atom."""
    try:
        return any(sum(atoms_of(formula).values()) > 1 for _, formula in side)
    except EventFormatError:
        return False


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
