"""What time it is, as far as trust may rely on it: three clock states and one reference time. Pure.

Metadata expires, and a device without a battery clock starts in 1970, or in 2099 after a bad one. So the operating
system's clock counts only while it is synchronised; else the reference is the floor: the latest moment that has
certainly passed. A bogus clock is never written down, so it cannot poison the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ClockState = Literal["synced", "bounded", "unknown"]

ISSUED_FIELD: Final = "x-nis-issued"
"""Field of the timestamp role, signed like the rest: seconds since the epoch at which it was made."""

RELEASED_AT_S: Final = 1_793_491_200.0
"""2026-11-01T00:00:00Z, before the first release: no honest device runs this code earlier. Raised with each release."""

FLOOR_STEP_S: Final = 6 * 3600.0
"""The floor is worth a journal write when it rises by this much: four writes a day at most."""

LATEST_PLAUSIBLE_S: Final = 4_102_444_800.0
"""2100-01-01T00:00:00Z: a synchronised clock or a signed date beyond it is refused as an error of its sender."""


@dataclass(frozen=True)
class TrustedTime:
    """`reference_s` is what expiry is compared with; `state` says how good that is."""

    reference_s: float
    state: ClockState


def trusted_time(wall_s: float, *, synced: bool, floor_s: float) -> TrustedTime:
    """The time to judge expiry by.

    Args:
        wall_s: the operating system's clock, seconds since the epoch.
        synced: whether the kernel says it is disciplined by a time source.
        floor_s: the journal's time floor, seconds; 0 when none was ever recorded.
    """
    floor = max(floor_s, RELEASED_AT_S)
    if synced and wall_s < LATEST_PLAUSIBLE_S:
        return TrustedTime(reference_s=max(wall_s, floor), state="synced")
    return TrustedTime(reference_s=floor, state="bounded" if floor_s > RELEASED_AT_S else "unknown")


def raised_floor(floor_s: float, now: TrustedTime, issued_at_s: float | None) -> float:
    """The time floor after a refresh that verified; unchanged when it would rise by less than a step.

    Args:
        floor_s: the floor so far, seconds.
        now: the time of the refresh; counts only when synced.
        issued_at_s: the signed date of the timestamp metadata, seconds; None when it carries none.
    """
    known = [floor_s]
    if now.state == "synced":
        known.append(now.reference_s)
    if issued_at_s is not None and issued_at_s < LATEST_PLAUSIBLE_S:
        known.append(issued_at_s)
    raised = max(known)
    return raised if raised >= floor_s + FLOOR_STEP_S else floor_s
