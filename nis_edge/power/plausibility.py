"""Faults that one reading alone can't show: a converter that is stuck, an energy counter that wrapped or was reset."""

from __future__ import annotations

import msgspec

from nis_edge.errors import SensorUnavailableError


class StuckWatch(msgspec.Struct, frozen=True):
    """What is remembered between readings: the last raw numbers and when they were first seen."""

    raw: tuple[float | None, ...] = ()
    since_s: float = 0.0


def watch_stuck(
    watch: StuckWatch, raw: tuple[float | None, ...], now: float, stuck_after_s: float
) -> tuple[StuckWatch, str | None]:
    """Take one reading into account.

    Args:
        watch: what was remembered.
        raw: every raw number of this reading, in a fixed order.
        now: seconds on the monotonic clock.
        stuck_after_s: s; a live converter changes its last digit somewhere within this time.

    Returns:
        What to remember, and the fault, or None. A stuck converter is reported until a number changes.
    """
    if raw != watch.raw:
        return StuckWatch(raw=raw, since_s=now), None
    stood_s = now - watch.since_s
    if stood_s < stuck_after_s:
        return watch, None
    return watch, f"every number stood still for {stood_s:.0f} s: the converter is taken to be stuck"


def counted_joules(
    previous_j: float, current_j: float, *, span_j: float | None, elapsed_s: float, watts_max: float
) -> float:
    """The energy between two looks at a counter that wraps to zero at ``span_j``.

    Args:
        previous_j: J at the first look.
        current_j: J at the second.
        span_j: J at which the counter starts again, or None for one that never wraps in practice.
        elapsed_s: s between the looks, above zero.
        watts_max: W the board can draw at most.

    Raises:
        SensorUnavailableError: so much time passed that it may have wrapped more than once, or the step is more than
            the board can draw (the counter was reset): the energy between the looks is not known.
    """
    if elapsed_s <= 0:
        raise SensorUnavailableError("two looks at the energy counter at the same time give no power")
    most_j = watts_max * elapsed_s
    if span_j is not None and most_j >= span_j:
        raise SensorUnavailableError(
            f"the energy counter may have wrapped more than once in {elapsed_s:.0f} s; it must be read more often"
        )
    step_j = current_j - previous_j
    if step_j < 0:
        if span_j is None:
            raise SensorUnavailableError("the energy counter went backwards: it was reset")
        step_j += span_j
    if not 0 <= step_j <= most_j:
        raise SensorUnavailableError(
            f"the energy counter moved by {step_j:.1f} J in {elapsed_s:.2f} s, more than the board draws: it was reset"
        )
    return step_j
