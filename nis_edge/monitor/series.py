"""A sensor's series against itself: stuck, drift, spike, dropout, saturation, noise, level shift. Pure.

One window of at most ``WINDOW`` values is looked at as a whole: what kind of fault explains it best, since which value,
and how strongly (``score``: 1 is the threshold). Everything is robust: medians, median deviations, runs, and the
best place to break the window in two. A live feed is held against its own past as well (``device``): what a series
always does is no fault of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, cast

import msgspec

from nis_edge.monitor.series_judge import SeriesJudge
from nis_edge.monitor.shapes import WINDOW as WINDOW
from nis_edge.monitor.statistics import MAD_TO_SIGMA, median

Kind = Literal["stuck", "drift", "spike", "dropout", "saturation", "noise", "level_shift"]

KINDS: Final[tuple[Kind, ...]] = ("stuck", "drift", "spike", "dropout", "saturation", "noise", "level_shift")

# The thresholds below were searched on healthy windows of half of the NAB series with faults put in; on the other half
# they name the right one of eight classes in 69 % of windows (balanced; medium and strong faults, 40 windows each).

PRESENT_MIN: Final = 24
"""Fewer values say nothing about a series."""

SEGMENT_MIN: Final = 8
"""Values on either side of a break."""

RUN_STUCK: Final = 12
"""Equal values in a row at the end that a varying series doesn't give by itself."""

CLIPPED_MIN: Final = 9
"""Values at one extreme that a continuous quantity doesn't take by chance."""

SPIKE_SIGMAS: Final = 6.5
SPIKE_LONGEST: Final = 3
SPIKE_RATIO: Final = 2.2
DROPOUT_SIGMAS: Final = 4.0
SHIFT_SIGMAS: Final = 2.6
DRIFT_SIGMAS: Final = 2.0
NOISE_RATIO: Final = 2.8

EXPLAINED: Final = 0.52
"""Share of the variance a break or a ramp must explain: a wave is neither."""


class Anomaly(msgspec.Struct, frozen=True):
    """What a window shows: the kind, its first value's index, how strongly (1 is the threshold).

    ``named`` is set where a judge names another kind than the one whose threshold was passed.
    """

    kind: Kind
    onset: int
    score: float
    named: Kind | None = None


def look_at(values: Sequence[float | None], judge: SeriesJudge | None = None) -> Anomaly | None:
    """The fault that explains a window best, or None.

    Args:
        values: oldest first; None where a value is missing. Only the newest ``WINDOW`` are looked at.
        judge: trees that know the faults by their shapes (the roof has them: ``judgement.series_judge``); a window they
            can't judge, and every window without them, is left to the thresholds here.
    """
    probable = judge.probabilities(values) if judge is not None else None
    if probable is None:
        found = faults_in(values)
        return max(found, key=lambda anomaly: anomaly.score, default=None)
    kind = max(probable, key=lambda label: probable[label])
    if kind == "none":
        return None
    return Anomaly(
        cast("Kind", kind), onset_of(values, cast("Kind", kind)), round(probable[kind] / probable["none"], 3)
    )


def onset_of(values: Sequence[float | None], kind: Kind) -> int:
    """Since which value of a window this fault is likeliest to stand in it."""
    window = list(values)[-WINDOW:]
    found = _missing(window) if kind == "dropout" else []
    if found:
        return found[0].onset
    places = [index for index, value in enumerate(window) if value is not None and math.isfinite(value)]
    present = [float(value) for value in window if value is not None and math.isfinite(value)]
    if len(present) < PRESENT_MIN:
        return 0
    return places[min(_onset(present, kind), len(places) - 1)]


def _onset(values: Sequence[float], kind: Kind) -> int:
    mean = math.fsum(values) / len(values)
    total = math.fsum((value - mean) ** 2 for value in values)
    sharp = {"stuck": _stuck, "dropout": _dropout, "noise": _noise}
    known = sharp[kind](values) if kind in sharp else []
    if known:
        return known[0].onset
    if kind == "drift":
        return _best_ramp(values, total)[0]
    if kind == "level_shift":
        return _best_step(values, total)[0]
    if kind == "stuck":
        small = 0.25 * (median([abs(after - before) for before, after in pairwise(values) if after != before] or [0.0]))
        calm = [abs(after - before) <= small for before, after in pairwise(values)]
        return max(_stretches(calm), key=lambda run: run[1], default=(0, 0))[0]
    if kind == "saturation":
        # The wall is the value that stands most often; what came before it may lie beyond.
        return values.index(Counter(values).most_common(1)[0][0])
    if kind == "spike":
        usual = [median(values[max(0, index - 3) : index + 4]) for index in range(len(values))]
        off = [abs(value - level) for value, level in zip(values, usual, strict=True)]
        return next(index for index, size in enumerate(off) if size >= 0.6 * max(off))
    if kind == "noise":
        steps = [abs(after - before) for before, after in pairwise(values)]
        return _best_step(steps, math.fsum(step * step for step in steps))[0]
    centre = median(values)
    return max(range(len(values)), key=lambda index: abs(values[index] - centre))


def _stretches(holds: Sequence[bool]) -> list[tuple[int, int]]:
    """Start and length of each run of truths."""
    return [(start, length) for start, length in _runs([float(one) for one in holds]) if holds[start]]


def faults_in(values: Sequence[float | None]) -> list[Anomaly]:
    """Every fault at or beyond its threshold; those that only look like another one are left out."""
    window = list(values)[-WINDOW:]
    places = [index for index, value in enumerate(window) if value is not None and math.isfinite(value)]
    missing = _missing(window)
    if len(places) < PRESENT_MIN:
        return missing
    present = [float(value) for value in window if value is not None and math.isfinite(value)]
    if max(present) == min(present):
        # A constant that never moved may be what it is: a limit, a full disk.
        return missing
    found: list[Anomaly] = [*missing]
    sharp = [*_dropout(present), *_stuck(present), *_saturation(present)]
    found += sharp
    if not found:
        # A break hides a spike and a spike no break: the window is judged by what explains most of it.
        found = _breaks(present) or [*_spike(present), *_noise(present)]
    return [
        anomaly
        if anomaly in missing
        else Anomaly(anomaly.kind, places[min(anomaly.onset, len(places) - 1)], round(anomaly.score, 3))
        for anomaly in found
        if anomaly.score >= 1.0
    ]


def _missing(window: Sequence[float | None]) -> list[Anomaly]:
    gone = [index for index, value in enumerate(window) if value is None or not math.isfinite(value)]
    if len(gone) < 3 or len(gone) == len(window):
        return []
    return [Anomaly("dropout", gone[0], 1.0 + len(gone) / len(window))]


def _dropout(values: Sequence[float]) -> list[Anomaly]:
    """One far value, often zero, taken again and again or for a while, while the rest stays where it was."""
    rare = min(values) if abs(min(values) - median(values)) > abs(max(values) - median(values)) else max(values)
    candidates = {0.0, rare}
    best: list[Anomaly] = []
    for level in candidates:
        places = [index for index, value in enumerate(values) if value == level]
        rest = [value for value in values if value != level]
        if len(places) < 2 or len(rest) < PRESENT_MIN // 2 or len(places) > len(values) // 2:
            continue
        sigma = max(_sigma(rest), 1e-12 * max(abs(value) for value in values))
        gap = min(abs(value - level) for value in rest)
        distance = abs(median(rest) - level)
        # Nothing lies between: a quantity that falls to zero by itself passes through.
        if gap < 0.3 * distance or distance < DROPOUT_SIGMAS * sigma:
            continue
        best.append(Anomaly("dropout", places[0], 1.0 + min(4.0, distance / (DROPOUT_SIGMAS * sigma) - 1.0)))
    return best[:1]


def _stuck(values: Sequence[float]) -> list[Anomaly]:
    runs = _runs(values)
    start, length = max(runs, key=lambda run: run[1])
    others = [run for run in runs if run[0] != start]
    longest_else = max((run[1] for run in others), default=1)
    moving = sum(1 for run in others if run[1] <= 2)
    if length < RUN_STUCK or length < 4 * longest_else or moving < 0.6 * (len(values) - length):
        return []
    if values[start] in (max(values), min(values)) and length < len(values) // 4:
        return []
    return [Anomaly("stuck", start, 1.0 + min(2.0, length / RUN_STUCK - 1.0))]


def _saturation(values: Sequence[float]) -> list[Anomaly]:
    """The series leans against a wall: its extreme is taken again and again, and nothing lies beyond."""
    best: list[Anomaly] = []
    distinct = len(set(values))
    for wall in (max(values), min(values)):
        places = [index for index, value in enumerate(values) if value == wall]
        runs = [run for run in _runs(values) if values[run[0]] == wall]
        inside = [value for value in values if value != wall]
        if len(places) < CLIPPED_MIN or len(inside) < SEGMENT_MIN or distinct < len(inside) // 2:
            continue
        # Values inside come near the wall: a dropout to a far value doesn't.
        sigma = max(_sigma(inside), 1e-12)
        if min(abs(value - wall) for value in inside) > sigma or max(run[1] for run in runs) < 2:
            continue
        best.append(Anomaly("saturation", places[0], 1.0 + min(2.0, len(places) / CLIPPED_MIN - 1.0)))
    return sorted(best, key=lambda anomaly: -anomaly.score)[:1]


def _spike(values: Sequence[float]) -> list[Anomaly]:
    # A spike is over by the end: what has only begun to rise may be anything.
    smooth = [median(values[max(0, index - 3) : index + 4]) for index in range(len(values) - SPIKE_LONGEST)]
    residual = [value - level for value, level in zip(values, smooth, strict=False)]
    sigma = max(_sigma(residual), _step_sigma(values), 0.02 * _spread(values), 1e-12)
    far = [index for index, value in enumerate(residual) if abs(value) > SPIKE_SIGMAS * sigma]
    if not far:
        return []
    largest = max(far, key=lambda index: abs(residual[index]))
    # A series that spikes all the time does so by nature: the spike must stand out from the others' crowd.
    others = sorted(abs(value) for index, value in enumerate(residual) if abs(index - largest) >= SPIKE_LONGEST)
    usual = others[-3]
    if abs(residual[largest]) < SPIKE_RATIO * usual:
        return []
    return [Anomaly("spike", largest, abs(residual[largest]) / (SPIKE_SIGMAS * sigma))]


def _breaks(values: Sequence[float]) -> list[Anomaly]:
    """A step or a ramp: whichever explains the window better, if either explains most of it."""
    n = len(values)
    mean = math.fsum(values) / n
    total = math.fsum((value - mean) ** 2 for value in values)
    if total <= 0.0:
        return []
    step_at, step_left = _best_step(values, total)
    ramp_at, ramp_left, rise = _best_ramp(values, total)
    found: list[Anomaly] = []
    if step_left <= ramp_left:
        before, after = values[:step_at], values[step_at:]
        sigma = max(_sigma(before), _sigma(after), _step_sigma(values), 1e-12)
        score = abs(median(after) - median(before)) / (SHIFT_SIGMAS * sigma)
        if 1.0 - step_left / total >= EXPLAINED and score >= 1.0:
            found.append(Anomaly("level_shift", step_at, score))
    else:
        sigma = max(math.sqrt(ramp_left / n), _step_sigma(values), 1e-12)
        score = abs(rise) / (DRIFT_SIGMAS * sigma)
        if 1.0 - ramp_left / total >= EXPLAINED and score >= 1.0:
            found.append(Anomaly("drift", ramp_at, score))
    return found


def _best_step(values: Sequence[float], total: float) -> tuple[int, float]:
    """Where a step fits best, and the squares it leaves."""
    n, whole = len(values), math.fsum(values)
    best, at, left_sum = total, SEGMENT_MIN, math.fsum(values[: SEGMENT_MIN - 1])
    for index in range(SEGMENT_MIN, n - SEGMENT_MIN + 1):
        left_sum += values[index - 1]
        gain = left_sum * left_sum / index + (whole - left_sum) ** 2 / (n - index) - whole * whole / n
        if total - gain < best:
            best, at = total - gain, index
    return at, max(best, 0.0)


def _best_ramp(values: Sequence[float], total: float) -> tuple[int, float, float]:
    """Where a level turns into a ramp to the end, the squares that leaves, and how far the ramp rises."""
    n = len(values)
    best, at, rise = total, 0, 0.0
    mean = math.fsum(values) / n
    for start in range(0, n - SEGMENT_MIN, 2):
        # Least squares on one regressor: 0 before the start, counting after it.
        length = n - start
        x_sum = length * (length - 1) / 2.0
        xx = (length - 1) * length * (2 * length - 1) / 6.0 - x_sum * x_sum / n
        xy = math.fsum((index - start) * values[index] for index in range(start, n)) - x_sum * mean
        if xx <= 0.0:
            continue
        left = total - xy * xy / xx
        if left < best:
            best, at, rise = left, start, (xy / xx) * (length - 1)
    return at, max(best, 0.0), rise


def _noise(values: Sequence[float]) -> list[Anomaly]:
    """The series became much rougher than it was."""
    steps = [abs(after - before) for before, after in pairwise(values)]
    best: list[Anomaly] = []
    for split in range(2 * SEGMENT_MIN, len(steps) - SEGMENT_MIN, 4):
        calm, rough = steps[:split], steps[split:]
        usual = max(median(calm), 0.1 * math.fsum(calm) / len(calm), 1e-12)
        ratio = median(rough) / usual
        if ratio >= NOISE_RATIO and (not best or ratio / NOISE_RATIO > best[0].score):
            best = [Anomaly("noise", split + 1, ratio / NOISE_RATIO)]
    return best


def _runs(values: Sequence[float]) -> list[tuple[int, int]]:
    """Start and length of each run of equal values."""
    runs: list[tuple[int, int]] = []
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[start]:
            runs.append((start, index - start))
            start = index
    return runs


def _sigma(values: Sequence[float]) -> float:
    """A robust standard deviation."""
    if not values:
        return 0.0
    centre = median(values)
    return MAD_TO_SIGMA * median([abs(value - centre) for value in values])


def _step_sigma(values: Sequence[float]) -> float:
    """The standard deviation that steps from one value to the next tell of."""
    steps = [after - before for before, after in pairwise(values)]
    return _sigma(steps) / math.sqrt(2.0)


def _spread(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[(9 * len(ordered)) // 10] - ordered[len(ordered) // 10]
