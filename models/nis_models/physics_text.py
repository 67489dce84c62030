"""From a physics item in words to a law and its slots, by dimensions and cue words; the validator then decides.

This is a parser, no reasoning: which law is meant follows from the units that occur and a few key words, which slot a
number fills from its unit and the nearest cue. Where several laws could be meant each is tried, and the item counts as
consistent when one of them holds. What can't be read is said to be unread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from nis_edge.physics.checks import Check, Quantity, check
from nis_models.physics_quantities import plain, quantities
from nis_models.physics_slots import Slots, readers
from nis_models.physics_symbols import symbolic

READINGS_MAX: Final = 16
LEAN: Final = 1.75
"""An undecided residual of more than so many bounds is nearer to a violation (which has three) than to agreement."""

SURE, LEANING, BLIND = 0.97, 0.7, 0.5


@dataclass(frozen=True)
class Reading:
    """What was made of an item.

    Args:
        label: consistent or violation: what is answered.
        violation: how sure, as P(violation).
        decision: the validator's: consistent, violation, undecidable; ``unread`` where no law's slots could be filled.
        law: the law that was read, or None.
        reason: why it is not decided.
    """

    label: str
    violation: float
    decision: str
    law: str | None
    reason: str | None
    check: Check | None


def decide(text: str) -> Reading:
    """Read an item and decide it."""
    line = plain(text)
    checks = [found for found in (*symbolic(line), *_numeric(line)) if found is not None]
    if not checks:
        return Reading("consistent", BLIND, "unread", None, "no law's slots could be filled from the words", None)
    for found in checks:
        if found.decision == "consistent":
            return Reading("consistent", 1.0 - SURE, "consistent", found.law, None, found)
    for found in checks:
        if found.decision == "violation":
            return Reading("violation", SURE, "violation", found.law, None, found)
    best = checks[0]
    residual, bound = best.residual, best.bound
    leans = residual is not None and bound is not None and bound > 0.0 and abs(residual) > LEAN * bound
    label = "violation" if leans else "consistent"
    return Reading(label, LEANING if leans else 1.0 - LEANING, "undecidable", best.law, best.reason, best)


def _numeric(line: str) -> Iterator[Check | None]:
    found = quantities(line)
    for law, reader in readers(line.lower(), found):
        any_read = False
        for slots in islice(reader(line.lower(), found), READINGS_MAX):
            any_read = True
            first = check(law, slots)
            if first.decision == "undecidable" and first.reason and "coarse" in first.reason:
                # Whole numbers in a text are mostly meant as they stand.
                first = check(law, _whole_as_exact(slots))
            yield first
        if any_read:
            return


def _whole_as_exact(slots: Slots) -> Slots:
    def exact(one: Quantity) -> Quantity:
        return Quantity(one.value, one.unit, 0.0) if one.half_width == 0.5 else one

    return {
        role: exact(given) if isinstance(given, Quantity) else [exact(one) for one in given]
        for role, given in slots.items()
    }
