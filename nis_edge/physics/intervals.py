"""Numbers known only within bounds, and the arithmetic that never loses the truth between them. Pure.

Each operation's bounds are widened by one unit in the last place, so that rounding inside the machine can't make a
consistent statement look wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """Every number from ``low`` to ``high``."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The number halfway."""
        return self.low + (self.high - self.low) / 2.0

    @property
    def half_width(self) -> float:
        """How far the ends lie from the middle."""
        return (self.high - self.low) / 2.0

    def plus(self, other: Interval) -> Interval:
        """The sum."""
        return _out(self.low + other.low, self.high + other.high)

    def minus(self, other: Interval) -> Interval:
        """The difference; both are taken for independent."""
        return _out(self.low - other.high, self.high - other.low)

    def times(self, other: Interval) -> Interval:
        """The product; both are taken for independent."""
        ends = [one * two for one in self for two in other]
        return _out(min(ends), max(ends))

    def over(self, other: Interval) -> Interval:
        """The quotient; unbounded where the divisor may be zero."""
        if other.low <= 0.0 <= other.high:
            return Interval(-math.inf, math.inf)
        return self.times(_out(1.0 / other.high, 1.0 / other.low))

    def squared(self) -> Interval:
        """The square: tighter than the product with itself."""
        ends = (self.low * self.low, self.high * self.high)
        return _out(0.0 if self.low <= 0.0 <= self.high else min(ends), max(ends))

    def scaled(self, factor: float) -> Interval:
        """The product with an exact number."""
        ends = (self.low * factor, self.high * factor)
        return _out(min(ends), max(ends))

    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


ZERO = Interval(0.0, 0.0)


def total(intervals: Iterable[Interval]) -> Interval:
    """The sum of any number of them."""
    result = ZERO
    for interval in intervals:
        result = result.plus(interval)
    return result


def _out(low: float, high: float) -> Interval:
    if math.isnan(low) or math.isnan(high):
        return Interval(-math.inf, math.inf)
    return Interval(_nudged(low, -math.inf), _nudged(high, math.inf))


def _nudged(value: float, towards: float) -> float:
    # Exact zeros stay: a sum of nothing has no rounding.
    return value if value == 0.0 else _next_after(value, towards)


def _next_after(value: float, towards: float) -> float:
    return math.nextafter(value, towards)
