"""Time as an argument: the one Protocol through which anything in nis-edge learns what time it is.

Floors 0 to 3 never read a clock; they are handed seconds. The roof and the adapters are handed a ``Clock``, so that a
simulation can drive them. ``SystemClock`` is the only place that asks the operating system.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, both in seconds."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; may jump when the clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes backwards. Durations are differences of this."""
        ...


class SystemClock:
    """The operating system's clocks."""

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()
