"""Latencies as they happen, and their percentiles over the newest ones."""

from __future__ import annotations

from array import array
from typing import Any

from nis_edge.limits import LATENCIES_KEPT


class Latencies:
    """The newest ``LATENCIES_KEPT`` latencies of one kind, each with when it was taken."""

    def __init__(self) -> None:
        self._taken = array("d")
        self._values = array("d")
        self.count = 0
        self.sum_ms = 0.0

    def add(self, latency_ms: float, at: float) -> None:
        """Take one.

        Args:
            latency_ms: milliseconds.
            at: seconds on the monotonic clock.
        """
        if len(self._taken) < LATENCIES_KEPT:
            self._taken.append(at)
            self._values.append(latency_ms)
        else:
            oldest = self.count % LATENCIES_KEPT
            self._taken[oldest], self._values[oldest] = at, latency_ms
        self.count += 1
        self.sum_ms += latency_ms

    def summary(self) -> dict[str, Any]:
        """p50, p90, p99 and largest in milliseconds, of ``n`` taken within ``window_s``; None where there is none."""
        values = sorted(self._values)
        if not values:
            return {"p50_ms": None, "p90_ms": None, "p99_ms": None, "max_ms": None, "n": 0, "window_s": None}
        # Where all places are taken, the next one to be overwritten is the oldest.
        window_s = self._taken[(self.count - 1) % LATENCIES_KEPT] - self._taken[self.count % len(values)]
        picked = {f"p{p}_ms": round(values[_rank(len(values), p)], 3) for p in (50, 90, 99)}
        return {**picked, "max_ms": round(values[-1], 3), "n": len(values), "window_s": round(window_s, 1)}


def _rank(count: int, percent: int) -> int:
    """Nearest rank: the smallest value that at least ``percent`` of all do not exceed."""
    return max(0, -(-count * percent // 100) - 1)
