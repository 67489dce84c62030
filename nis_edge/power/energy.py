"""Power samples to joules with an interval that holds: trapezoid or counter, gaps left out, gross and net of idle.

Theory of operation. A window of time is cut into equal blocks; each block has the energy that was seen and the time
for which it was seen. A gap (a missing reading, or too long between two) belongs to no block's time: it is never
bridged with the last value. Noise, and whatever made the load vary, shows as differences between blocks: the blocks are
drawn again with replacement (block bootstrap), widened for their small number by Student's t. What repeating can't show
is added to each draw as a rectangular error: one step of the converter, the offset bound, the gain bound (propagation
of distributions, JCGM 101). The middle 95 % of the draws is the interval. Offsets are the same before, during and
after, so they cancel in a difference; steps don't.

Seeds come in as arguments: the same samples and seed give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from nis_edge.errors import SensorUnavailableError
from nis_edge.power.rails import Z_95, PowerReading

BLOCKS_MIN: Final = 10
"""Fewer blocks say too little about the spread (edge.md 2.4, point 5)."""

DRAWS: Final = 2000
"""Bootstrap draws: the ends of a 95 % interval are then steady to about 2 % of its width."""

COVERED_SHARE_MIN: Final = 0.9
"""Of a window that must have been seen; with less, the mean of what was seen may not be the mean."""

GAP_PERIODS: Final = 3.0
"""More than this many sampling periods between two readings is a gap."""

Floats = NDArray[np.float64]


class Interval(msgspec.Struct, frozen=True):
    """A figure and its 95 % interval, in the unit that its name says."""

    value: float
    low: float
    high: float


class EnergyBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """A window of power samples, cut into blocks.

    ``joules`` and ``seconds`` per block are what was seen; ``window_s`` is the whole window, ``gaps`` counts the
    stretches that were not seen. ``step_w``, ``offset_w``, ``gain`` are the largest of the readings used.
    """

    joules: tuple[float, ...]
    seconds: tuple[float, ...]
    window_s: float
    samples: int
    distinct: int
    gaps: int
    counter: bool
    step_w: float
    offset_w: float
    gain: float

    @property
    def seen_s(self) -> float:
        """Seconds of the window that readings cover."""
        return math.fsum(self.seconds)

    @property
    def mean_w(self) -> float:
        """Mean power in W over the time that was seen."""
        return math.fsum(self.joules) / self.seen_s


def energy_blocks(
    readings: Sequence[PowerReading], start_s: float, end_s: float, *, period_s: float, blocks: int = 12
) -> EnergyBlocks:
    """Cut the power readings of a window into blocks.

    Args:
        readings: oldest first; absent ones make gaps.
        start_s: s on the monotonic clock, where the window begins.
        end_s: s, where it ends.
        period_s: s between readings as they were meant to come.
        blocks: how many, at least BLOCKS_MIN.

    Raises:
        SensorUnavailableError: too little of the window was seen, or in too few blocks: no honest figure can be given.
    """
    if blocks < BLOCKS_MIN or end_s <= start_s or period_s <= 0:
        raise ValueError(f"{blocks} blocks over {end_s - start_s} s every {period_s} s: a window needs all three")
    window_s = end_s - start_s
    joules = [0.0] * blocks
    seconds = [0.0] * blocks
    used: list[PowerReading] = []
    gaps = 0
    counter = True
    for earlier, later in _pairs(readings, start_s, end_s):
        spacing_s = later.t_s - earlier.t_s
        if earlier.watts is None or later.watts is None or spacing_s > GAP_PERIODS * period_s:
            gaps += 1
            continue
        used += [later] if used and used[-1] is earlier else [earlier, later]
        pair_j, counted = _pair_joules(earlier, later)
        counter = counter and counted
        for index, seen_s, share in _shares(earlier.t_s, later.t_s, start_s, window_s / blocks, blocks):
            joules[index] += pair_j * share
            seconds[index] += seen_s
    seen_s = math.fsum(seconds)
    if seen_s < COVERED_SHARE_MIN * window_s:
        why = next((reading.reason for reading in readings if reading.reason), "too few readings")
        raise SensorUnavailableError(f"only {seen_s:.1f} s of {window_s:.1f} s were seen ({why})")
    filled = [index for index in range(blocks) if seconds[index] > 0.5 * window_s / blocks]
    if len(filled) < BLOCKS_MIN:
        raise SensorUnavailableError(f"only {len(filled)} of {blocks} blocks were seen, {BLOCKS_MIN} are needed")
    return EnergyBlocks(
        joules=tuple(joules[index] for index in filled),
        seconds=tuple(seconds[index] for index in filled),
        window_s=window_s,
        samples=len(used),
        distinct=len({reading.watts for reading in used}),
        gaps=gaps,
        counter=counter,
        step_w=max(reading.step_w for reading in used),
        offset_w=max(reading.offset_w for reading in used),
        gain=max(reading.gain for reading in used),
    )


def mean_power(window: EnergyBlocks, seed: int) -> Interval:
    """Mean power of a window in W with its 95 % interval."""
    rng = np.random.default_rng(seed)
    mean_w = window.mean_w
    draws = mean_w + _noise(window, rng) + _steps(window, rng)
    draws += _rectangular(window.offset_w, rng) + mean_w * _rectangular(window.gain, rng)
    return _interval(mean_w, draws)


def net_power(load: EnergyBlocks, idle: EnergyBlocks, seed: int) -> Interval:
    """Power of a load above idle in W: the same meter saw both, so its offset cancels, its gain and steps do not."""
    rng = np.random.default_rng(seed)
    net_w = load.mean_w - idle.mean_w
    draws = net_w + _noise(load, rng) + _noise(idle, rng) + _steps(load, rng) + _steps(idle, rng)
    draws += net_w * _rectangular(max(load.gain, idle.gain), rng)
    return _interval(net_w, draws)


def energy_per_unit(power_w: Interval, window_s: float, units: int) -> Interval:
    """Joules for each of ``units`` things done one after the other in ``window_s`` seconds at ``power_w``."""
    factor = window_s / units
    return Interval(power_w.value * factor, power_w.low * factor, power_w.high * factor)


def joined(first: EnergyBlocks, second: EnergyBlocks) -> EnergyBlocks:
    """Two windows as one, such as idle before and idle after."""
    return EnergyBlocks(
        joules=first.joules + second.joules,
        seconds=first.seconds + second.seconds,
        window_s=first.window_s + second.window_s,
        samples=first.samples + second.samples,
        distinct=max(first.distinct, second.distinct),
        gaps=first.gaps + second.gaps,
        counter=first.counter and second.counter,
        step_w=max(first.step_w, second.step_w),
        offset_w=max(first.offset_w, second.offset_w),
        gain=max(first.gain, second.gain),
    )


def student_t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: an expansion (Abramowitz & Stegun 26.7.5) good to 0.2 % from 5 up."""
    if degrees < 5:
        raise ValueError(f"{degrees} degrees of freedom: the expansion holds from 5")
    z = Z_95
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def _pairs(
    readings: Sequence[PowerReading], start_s: float, end_s: float
) -> Iterator[tuple[PowerReading, PowerReading]]:
    """Neighbours whose span of time touches the window; a reading that is not later than the one before is dropped."""
    earlier: PowerReading | None = None
    for later in readings:
        if earlier is not None:
            if later.t_s <= earlier.t_s:
                continue
            if later.t_s > start_s and earlier.t_s < end_s:
                yield earlier, later
        earlier = later


def _pair_joules(earlier: PowerReading, later: PowerReading) -> tuple[float, bool]:
    """Energy between two readings in J, and whether a counter gave it (else the trapezoid)."""
    if earlier.joules is not None and later.joules is not None and later.joules >= earlier.joules:
        return later.joules - earlier.joules, True
    assert earlier.watts is not None and later.watts is not None
    return (earlier.watts + later.watts) / 2 * (later.t_s - earlier.t_s), False


def _shares(
    from_s: float, to_s: float, start_s: float, block_s: float, blocks: int
) -> Iterator[tuple[int, float, float]]:
    """Split a span over the blocks it touches: block index, seconds in it, share of the span."""
    first = max(0, math.floor((from_s - start_s) / block_s))
    last = min(blocks - 1, math.floor((to_s - start_s) / block_s))
    for index in range(first, last + 1):
        low_s = max(from_s, start_s + index * block_s)
        high_s = min(to_s, start_s + (index + 1) * block_s)
        if high_s > low_s:
            yield index, high_s - low_s, (high_s - low_s) / (to_s - from_s)


def _noise(window: EnergyBlocks, rng: np.random.Generator) -> Floats:
    """What drawing the blocks again changes in the mean, in W, widened for the small number of blocks."""
    joules = np.asarray(window.joules, dtype=np.float64)
    seconds = np.asarray(window.seconds, dtype=np.float64)
    count = len(joules)
    drawn = rng.integers(0, count, size=(DRAWS, count))
    means = joules[drawn].sum(axis=1) / seconds[drawn].sum(axis=1)
    widening = student_t_975(count - 1) / Z_95 * math.sqrt(count / (count - 1))
    widened: Floats = (means - window.mean_w) * widening
    return widened


def _steps(window: EnergyBlocks, rng: np.random.Generator) -> Floats:
    return _rectangular(window.step_w / 2, rng)


def _rectangular(bound: float, rng: np.random.Generator) -> Floats:
    return rng.uniform(-bound, bound, size=DRAWS)


def _interval(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value, float(low), float(high))
