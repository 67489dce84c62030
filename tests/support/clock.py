"""A clock that moves only when told, so that a test decides what time it is."""

from __future__ import annotations


class SteppedClock:
    """A ``nis_edge.clock.Clock`` under a test's hand.

    Args:
        wall: seconds since the epoch to begin with.
        monotonic: seconds to begin with.
    """

    def __init__(self, wall: float = 1_700_000_000.0, monotonic: float = 100.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._wall += seconds
        self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock to another time; no time passes."""
        self._wall += seconds


class TickingClock(SteppedClock):
    """Moves by a millisecond at each look, so that work takes time without any machine's speed in it."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, a millisecond later than at the last look."""
        self.advance(0.001)
        return super().monotonic()
