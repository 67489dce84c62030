"""Latencies as they happen, and their percentiles over the newest ones."""

from __future__ import annotations

from collections import deque
from typing import Any

from nis_edge.limits import LATENCIES_KEPT


class Latencies:
    """The newest ``LATENCIES_KEPT`` latencies of one kind, each with when it was taken."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, float]] = deque(maxlen=LATENCIES_KEPT)
        self.count = 0
        self.sum_ms = 0.0

    def add(self, latency_ms: float, at: float) -> None:
        """Take one.

        Args:
            latency_ms: milliseconds.
            at: seconds on the monotonic clock.
        """
        self._kept.append((at, latency_ms))
        self.count += 1
        self.sum_ms += latency_ms

    def summary(self) -> dict[str, Any]:
        """p50, p90, p99 and largest in milliseconds, of ``n`` taken within ``window_s``; None where there is none."""
        values = sorted(latency for _, latency in self._kept)
        if not values:
            return {"p50_ms": None, "p90_ms": None, "p99_ms": None, "max_ms": None, "n": 0, "window_s": None}
        window_s = self._kept[-1][0] - self._kept[0][0]
        picked = {f"p{p}_ms": round(values[_rank(len(values), p)], 3) for p in (50, 90, 99)}
        return {**picked, "max_ms": round(values[-1], 3), "n": len(values), "window_s": round(window_s, 1)}


def _rank(count: int, percent: int) -> int:
    """Nearest rank: the smallest value that at least ``percent`` of all do not exceed."""
    return max(0, -(-count * percent // 100) - 1)
