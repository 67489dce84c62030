"""The few statistics the monitor judges by: each small enough to be checked by hand. Pure."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

Z_95: Final = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

MAD_TO_SIGMA: Final = 1.4826
"""A normal sample's median absolute deviation times this estimates its standard deviation."""

TREND_VALUES_MIN: Final = 8
"""Fewer values show no trend that chance would not."""

SKETCH_SIZE: Final = 24
"""Hashes kept of a text. Two texts of at most this many word pairs are compared exactly, longer ones by sample."""

SKETCH_WORDS_MAX: Final = 400
"""Words of a text that enter its sketch: repeats show in the first page."""

_WORD: Final = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion: honest for small samples and near 0 or 1.

    Args:
        successes: 0..trials.
        trials: at least 1.
        z: normal quantile.
    """
    share = successes / trials
    z2 = z * z
    centre = share + z2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of an ascending, non-empty sample, by linear interpolation."""
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(sample: Sequence[float]) -> float:
    """The median of a non-empty sample."""
    return quantile(sorted(sample), 0.5)


def robust_z(value: float, reference: Sequence[float], floor: float) -> float:
    """How many robust standard deviations ``value`` lies from the median of ``reference``.

    Args:
        value: the new number.
        reference: earlier ones, not empty.
        floor: the least standard deviation believed in, greater than 0: a flat past must not make noise an alarm.
    """
    centre = median(reference)
    spread = MAD_TO_SIGMA * median([abs(number - centre) for number in reference])
    return (value - centre) / max(spread, floor)


class Trend(NamedTuple):
    """A straight trend: slope for each step with its 95 % interval, and the probability of such a rise by chance."""

    slope: float
    low: float
    high: float
    p: float


def trend_of(values: Sequence[float]) -> Trend | None:
    """Theil and Sen's slope, Sen's interval and Mann and Kendall's test (two-sided, ties corrected).

    Args:
        values: in order, equally spaced; at least 8, or there is no answer. The work grows with the square of their
            number: callers bound it.
    """
    n = len(values)
    if n < TREND_VALUES_MIN:
        return None
    slopes = sorted((values[j] - values[i]) / (j - i) for i in range(n - 1) for j in range(i + 1, n))
    rises = sum((slope > 0) - (slope < 0) for slope in slopes)
    ties = math.fsum(count * (count - 1) * (2 * count + 5) for count in Counter(values).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18.0
    if variance <= 0.0:
        return Trend(0.0, 0.0, 0.0, 1.0)
    z = (rises - (rises > 0) + (rises < 0)) / math.sqrt(variance)
    reach = Z_95 * math.sqrt(variance)
    low = slopes[max(0, math.floor((len(slopes) - reach) / 2.0))]
    high = slopes[min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2.0))]
    return Trend(quantile(slopes, 0.5), low, high, math.erfc(abs(z) / math.sqrt(2.0)))


def calibration_error(pairs: Sequence[tuple[float, bool]], bins: int = 15, least: int = 10) -> float:
    """Expected calibration error over bins of equal mass.

    Args:
        pairs: stated probability and what happened; not empty.
        bins: at most so many.
        least: pairs a bin needs to mean anything; fewer bins are taken where there are few pairs.
    """
    ordered = sorted(pairs, key=lambda pair: pair[0])
    count = max(1, min(bins, len(ordered) // least))
    error = 0.0
    for index in range(count):
        part = ordered[index * len(ordered) // count : (index + 1) * len(ordered) // count]
        error += abs(math.fsum(stated for stated, _ in part) - sum(happened for _, happened in part))
    return error / len(ordered)


def sketch_of(text: str) -> tuple[tuple[int, ...], int, int]:
    """What is remembered of a text to recognise its like.

    Returns:
        The sketch (ascending hashes of word pairs), a hash of its numbers in order, and its count of words.
    """
    words = [match[0].lower() for match, _ in zip(_WORD.finditer(text), range(SKETCH_WORDS_MAX), strict=False)]
    letters = [word for word in words if not word[0].isdigit()]
    pairs = {zlib.crc32(f"{left} {right}".encode()) for left, right in zip(letters, letters[1:] or [""], strict=False)}
    numbers = zlib.crc32(" ".join(word for word in words if word[0].isdigit()).encode())
    return tuple(sorted(pairs)[:SKETCH_SIZE]), numbers, len(words)


def likeness(left: Sequence[int], right: Sequence[int]) -> float:
    """Estimated share of word pairs two texts have in common (Jaccard), 0..1, from their sketches.

    Both sketches hold the smallest hashes, so the smallest of their union are a fair sample of the union.
    """
    union = sorted(set(left) | set(right))[:SKETCH_SIZE]
    if not union:
        return 1.0
    common = set(left) & set(right)
    return sum(1 for number in union if number in common) / len(union)


def cycle_length(keys: Sequence[str], longest: int, repeats: int) -> int | None:
    """The shortest period in which the newest keys repeat themselves at least ``repeats`` times in a row, or None.

    Args:
        keys: oldest first.
        longest: the longest period looked for.
        repeats: full rounds required, at least 2.
    """
    for period in range(1, longest + 1):
        needed = period * repeats
        if len(keys) < needed:
            return None
        tail = keys[-needed:]
        if all(tail[index] == tail[index - period] for index in range(period, needed)):
            return period
    return None
