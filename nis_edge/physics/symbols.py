"""The two laws on symbols: both sides of an equation have one dimension; a reaction keeps its atoms. Exact. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from nis_edge.errors import EventFormatError

FORMULA_CHARS_MAX: Final = 64
COUNT_MAX: Final = 10_000
GROUPS_DEEP_MAX: Final = 4

_PIECE: Final = re.compile(r"([A-Z][a-z]?)(\d{0,4})|(\()|\)(\d{0,4})")
_SUBSCRIPTS: Final = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def atoms_of(formula: str) -> Counter[str]:
    """The atoms of a formula such as ``Ca(OH)2``.

    Raises:
        EventFormatError: it is no formula (whoever wrote it acts).
    """
    text = formula.strip().translate(_SUBSCRIPTS)
    if not 0 < len(text) <= FORMULA_CHARS_MAX:
        raise EventFormatError(f"formula of {len(text)} characters is none")
    groups: list[Counter[str]] = [Counter()]
    at = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise EventFormatError(f"formula {formula!r} can't be read at {text[at : at + 8]!r}")
        at = match.end()
        if match[1]:
            groups[-1][match[1]] += int(match[2] or 1)
        elif match[3]:
            groups.append(Counter())
            if len(groups) > GROUPS_DEEP_MAX:
                raise EventFormatError(f"formula {formula!r} nests too deep")
        else:
            if len(groups) == 1:
                raise EventFormatError(f"formula {formula!r} closes a bracket that was not opened")
            inner, times = groups.pop(), int(match[4] or 1)
            for atom, count in inner.items():
                groups[-1][atom] += count * times
    if len(groups) != 1 or not groups[0]:
        raise EventFormatError(f"formula {formula!r} leaves a bracket open")
    return groups[0]


def unbalanced(reactants: Sequence[tuple[int, str]], products: Sequence[tuple[int, str]]) -> Mapping[str, int]:
    """What of each atom goes in more than comes out, by symbol; empty when the reaction is balanced.

    Args:
        reactants, products: coefficient and formula of each.

    Raises:
        EventFormatError: a formula can't be read, or a coefficient is no count.
    """
    left: Counter[str] = Counter()
    for sign, side in ((1, reactants), (-1, products)):
        for coefficient, formula in side:
            if not 0 < coefficient <= COUNT_MAX:
                raise EventFormatError(f"coefficient {coefficient} is no count")
            for atom, count in atoms_of(formula).items():
                left[atom] += sign * coefficient * count
    return {atom: count for atom, count in sorted(left.items()) if count}
