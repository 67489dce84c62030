"""Throttle evidence: what a board says about slowing itself down or lacking voltage, and what a series of looks proves.

A run during which the board throttled measures the throttling, not the software: ``during`` decides that. The sticky
bits catch what happened between two looks, unless they were set before the first; so looks are taken all along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

PI_BITS: Final[Mapping[int, str]] = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bits of the Pi firmware's throttle word; bit + 16 says the same of any time since boot (edge.md 2.1)."""

PI_SINCE_BOOT_SHIFT: Final = 16


class ThrottleState(msgspec.Struct, frozen=True, kw_only=True):
    """One look: ``active`` now, ``since_boot`` (sticky) and event counters, each from the named source.

    ``known`` is False where the machine tells nothing about throttling; then the rest is empty, and ``reason`` says so.
    """

    known: bool
    active: tuple[str, ...] = ()
    since_boot: tuple[str, ...] = ()
    counters: Mapping[str, int] = {}
    reason: str | None = None


UNKNOWN: Final = ThrottleState(known=False, reason="this machine has no throttle flags or counters that can be read")


def pi_state(word: int) -> ThrottleState:
    """Read the Pi firmware's throttle word, e.g. 0x50005."""
    return ThrottleState(
        known=True,
        active=tuple(name for bit, name in PI_BITS.items() if word >> bit & 1),
        since_boot=tuple(name for bit, name in PI_BITS.items() if word >> (bit + PI_SINCE_BOOT_SHIFT) & 1),
    )


def merged(states: tuple[ThrottleState, ...]) -> ThrottleState:
    """One state from several sources of the same moment."""
    known = [state for state in states if state.known]
    if not known:
        return UNKNOWN
    return ThrottleState(
        known=True,
        active=tuple(dict.fromkeys(flag for state in known for flag in state.active)),
        since_boot=tuple(dict.fromkeys(flag for state in known for flag in state.since_boot)),
        counters={name: count for state in known for name, count in state.counters.items()},
    )


def during(looks: Sequence[ThrottleState]) -> tuple[str, ...]:
    """What throttled over a series of looks, oldest first; empty when nothing did, as far as the board tells."""
    known = [look for look in looks if look.known]
    if not known:
        return ()
    first, last = known[0], known[-1]
    found = [f"{flag} (active)" for flag in dict.fromkeys(flag for look in known for flag in look.active)]
    found += [f"{flag} (occurred)" for flag in last.since_boot if flag not in first.since_boot]
    for name, count in last.counters.items():
        grown = count - first.counters.get(name, count)
        if grown > 0:
            found.append(f"{name} grew by {grown}")
    return tuple(found)
