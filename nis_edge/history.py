"""The last minutes in numbers, for whoever wants to see a line instead of a figure: latency, watts, heat, verdict.

Kept in memory, bounded, and lost at the end: records for keeping go through the spool. A figure that was unknown at a
moment is null there, so that a picture shows a gap.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

STEP_S: Final = 5.0
POINTS_MAX: Final = 180
"""A quarter of an hour."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """How things stood at ``ts`` (seconds since the epoch)."""

    ts: float
    status: str
    assessment_ms_p50: float | None
    assessment_ms_p99: float | None
    model_ms_p50: float | None
    watts: float | None
    temperature_c: float | None
    events: int


class History:
    """The newest points."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)

    def add(self, view: dict[str, Any], now: float) -> None:
        """Take the overview as it stands at ``now``, seconds since the epoch."""
        celsius = view["device_readings"].get("temperature_c")
        self._points.append(
            Point(
                ts=now,
                status=view["verdict"]["status"] if view["verdict"] else "unknown",
                assessment_ms_p50=view["latency"]["assessment"].get("p50_ms"),
                assessment_ms_p99=view["latency"]["assessment"].get("p99_ms"),
                model_ms_p50=view["latency"]["model"].get("p50_ms"),
                watts=view["power"]["watts"],
                temperature_c=celsius if isinstance(celsius, (int, float)) else None,
                events=view["events"]["seen"],
            )
        )

    def encoded(self) -> bytes:
        """The points as JSON, the newest last, with the seconds between them."""
        return msgspec.json.encode({"step_s": STEP_S, "points": list(self._points)})
