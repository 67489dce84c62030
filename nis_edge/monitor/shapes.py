"""The shape of a short series in numbers that a judge of faults can learn from. Pure.

All are free of the series' unit and offset but those that ask for zero itself. Rows are taken together, so that
training on many thousand windows takes seconds; one window costs a device a few milliseconds.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

WINDOW: Final = 64
"""Values of a window (interfaces: device windows)."""

PRESENT_MIN: Final = 24
"""Fewer known values tell no shape."""

MAD_TO_SIGMA: Final = 1.4826
TINY: Final = 1e-9
HUGE: Final = 1e9
LARGEST: Final = 1e300
LOG_MIN, LOG_MAX = -6.0, 6.0
"""Ratios are logarithms to base ten within these."""

SPLIT_MIN: Final = 6
PULSES: Final = (8, 14, 22, 32)
WAVES: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 8.0, 12.0)
"""Periods in a window of the waves a healthy series is held against."""

TIED: Final = 1e-7
"""Values nearer than this share of the range are one value."""

Array = np.ndarray[Any, Any]


def numbers(windows: Array) -> Array:
    """The numbers of each window.

    Args:
        windows: float64 [n, WINDOW], oldest value first, NaN (or infinite) where one is missing; at least
            ``PRESENT_MIN`` known in each row.

    Returns:
        float32 [n, len(names())].
    """
    return np.stack(list(_numbers(windows).values()), axis=1).astype(np.float32)


@cache
def names() -> tuple[str, ...]:
    """Names of the numbers, in order."""
    return tuple(_numbers(np.sin(np.arange(float(WINDOW)))[None, :]))


def _numbers(windows: Array) -> dict[str, Array]:
    known = np.isfinite(windows)
    # Beyond this a difference is no number any more, and no sensor measures it.
    x = _filled(np.clip(np.where(known, windows, 0.0), -LARGEST, LARGEST), known)
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    span = high - low
    constant = span <= 1e-12 * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-290)
    # Offset and unit go here once for all; only zero is remembered, as a place within the range.
    zero = np.where(constant, 0.0, -low / np.where(constant, 1.0, span))
    x = np.where(constant, 0.0, (x - low) / np.where(constant, 1.0, span))
    ordered = np.sort(x, axis=1)
    steps = np.diff(x, axis=1)
    sizes = np.abs(steps)
    moves = _typical_move(sizes)
    middle = _at(ordered, 0.5)
    off = np.sort(np.abs(x - middle[:, None]), axis=1)
    sigma = np.maximum(MAD_TO_SIGMA * _at(off, 0.5), TINY)
    deviation = np.maximum(x.std(axis=1), TINY)
    return {
        **_missing(known),
        **_spread(ordered, sizes, sigma, deviation, moves, zero[:, 0]),
        **_runs(x, sizes, moves),
        **_clusters(x, ordered, zero[:, 0]),
        **_walls(x, ordered),
        **_points(x, steps),
        **_breaks(x, moves),
        **_roughness(steps),
        **_echoes(x, steps),
    }


def _filled(x: Array, known: Array) -> Array:
    """Missing values take the last known one, those at the beginning the first."""
    if known.all():
        return x
    place = np.where(known, np.arange(x.shape[1]), -1)
    place = np.maximum.accumulate(place, axis=1)
    first = known.argmax(axis=1)[:, None]
    return np.take_along_axis(x, np.where(place < 0, first, place), axis=1)


def _at(ordered: Array, q: float) -> Array:
    """The q-quantile of each ascending row."""
    place = q * (ordered.shape[1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[1] - 1)
    return np.asarray(ordered[:, below] + (ordered[:, above] - ordered[:, below]) * (place - below))


def _middle(values: Array, count: Array) -> Array:
    """The lower median of ``count`` values of each row; the others are infinite."""
    return np.asarray(np.sort(values, axis=1)[np.arange(len(values)), np.maximum(count - 1, 0) // 2])


def _ratio(one: Array, other: Array) -> Array:
    """Logarithm of a ratio of sizes, bounded."""
    ratio = np.clip(one, TINY, HUGE) / np.clip(other, TINY, HUGE)
    return np.asarray(np.clip(np.log10(ratio), LOG_MIN, LOG_MAX))


def _typical_move(sizes: Array) -> Array:
    """The median step of those that are steps at all."""
    moving = sizes > TIED
    count = moving.sum(axis=1)
    ordered = np.sort(np.where(moving, sizes, np.inf), axis=1)
    typical = ordered[np.arange(len(sizes)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, np.where(np.isfinite(typical), typical, TINY), TINY)


def _lengths(holds: Array) -> Array:
    """How many truths in a row end at each place."""
    places = np.arange(1, holds.shape[1] + 1)
    return places - np.maximum.accumulate(np.where(holds, 0, places), axis=1)


def _missing(known: Array) -> dict[str, Array]:
    gone = ~known
    lengths = _lengths(gone)
    return {
        "missing": gone.sum(axis=1),
        "missing_run": lengths.max(axis=1),
        "missing_runs": (lengths == 1).sum(axis=1),
    }


def _spread(
    ordered: Array, sizes: Array, sigma: Array, deviation: Array, moves: Array, zero: Array
) -> dict[str, Array]:
    quarter = _at(ordered, 0.75) - _at(ordered, 0.25)
    fresh = np.diff(ordered, axis=1) > TIED
    moving = np.where(sizes > TIED, sizes, np.inf).min(axis=1)
    return {
        "sigma": sigma,
        "deviation": deviation,
        "tail": _ratio(deviation, sigma),
        "quarter": quarter,
        "middle": _at(ordered, 0.5),
        "lean": np.abs(_at(ordered, 0.5) - 0.5),
        "outer": _at(ordered, 0.95) - _at(ordered, 0.05),
        "distinct": fresh.sum(axis=1) + 1,
        "resting": (sizes <= TIED).mean(axis=1),
        "move": _ratio(moves, deviation),
        "grain": np.where(np.isfinite(moving), moving, 1.0),
        "zero": np.clip(zero, -5.0, 5.0),
        "zero_inside": np.minimum(np.abs(zero), np.abs(zero - 1.0)).clip(0.0, 5.0),
    }  # fmt: skip


def _runs(x: Array, sizes: Array, moves: Array) -> dict[str, Array]:
    """Values that stay: exactly, and within a small part of the usual step."""
    found: dict[str, Array] = {}
    rows = np.arange(len(x))
    for name, reach in (("run", np.full(len(x), TIED)), ("near_run", 0.08 * moves), ("calm_run", 0.25 * moves)):
        lengths = _lengths(sizes <= np.maximum(reach, TIED)[:, None])
        end = lengths.argmax(axis=1)
        longest = lengths[rows, end]
        places = np.arange(sizes.shape[1])
        outside = (places > end[:, None] + 1) | (places < (end - longest)[:, None])
        second = np.where(outside, lengths, 0).max(axis=1)
        resting = (outside & (sizes <= np.maximum(reach, TIED)[:, None])).sum(axis=1)
        found |= {
            name: longest,
            f"{name}_second": second,
            f"{name}_alone": longest / (second + 1.0),
            f"{name}_end": end + 1,
            f"{name}_rest": resting / np.maximum(outside.sum(axis=1), 1),
            f"{name}_count": ((lengths == 3).sum(axis=1)),
        }
        if name == "run":
            value = x[rows, end]
            found |= {
                "run_extreme": np.minimum(value, 1.0 - value),
                "run_beyond": np.abs(value - _at(np.sort(x, axis=1), 0.5)),
                "run_entry": sizes[rows, np.maximum(end - longest, 0)],
            }
    # The calmest stretch of each length against the whole.
    total = np.cumsum(np.concatenate((np.zeros((len(x), 1)), sizes), axis=1), axis=1)
    usual = np.maximum(total[:, -1] / sizes.shape[1], TINY)
    for length in (6, 12, 20):
        parts = (total[:, length:] - total[:, :-length]) / length
        found[f"calmest_{length}"] = _ratio(parts.min(axis=1), usual)
        found[f"wildest_{length}"] = _ratio(parts.max(axis=1), usual)
    return found


def _clusters(x: Array, ordered: Array, zero: Array) -> dict[str, Array]:
    """A far value, or a few together, taken while the rest stays where it was: below, above, and at zero."""
    found: dict[str, Array] = {}
    gaps = np.diff(ordered, axis=1)
    n, half = x.shape[1], x.shape[1] // 2
    rows = np.arange(len(x))
    sides = {}
    for side in ("low", "high"):
        part = gaps[:, :half] if side == "low" else gaps[:, ::-1][:, :half]
        at = part.argmax(axis=1)
        gap = part[rows, at]
        count = at + 1
        edge = ordered[rows, at] if side == "low" else ordered[rows, n - 1 - at]
        inside = x <= edge[:, None] if side == "low" else x >= edge[:, None]
        own = edge if side == "low" else 1.0 - edge
        lengths = _lengths(inside)
        rest_middle = ordered[rows, (count + n) // 2] if side == "low" else ordered[rows, (n - count) // 2]
        rest = np.sort(np.where(inside, np.inf, np.abs(x - rest_middle[:, None])), axis=1)
        rest_sigma = MAD_TO_SIGMA * rest[rows, (n - count) // 2]
        rest_move = _outside_move(x, inside)
        sides[side] = (gap, count, own, lengths, rest_sigma, rest_move, inside)
    lower = sides["low"][0] >= sides["high"][0]
    for place, name in enumerate(("gap", "count", "own", "lengths", "rest_sigma", "rest_move", "inside")):
        low, high = sides["low"][place], sides["high"][place]
        picked = np.where(lower if low.ndim == 1 else lower[:, None], low, high)
        found[name] = picked
    lengths, inside = found.pop("lengths"), found.pop("inside")
    gap = found["gap"]
    return {
        "far_gap": gap,
        "far_count": found["count"],
        "far_spread": _ratio(found["own"], gap),
        "far_sigmas": _ratio(gap, found["rest_sigma"]),
        "far_moves": _ratio(gap, found["rest_move"]),
        "far_run": lengths.max(axis=1),
        "far_runs": (lengths == 1).sum(axis=1),
        "far_at_end": inside[:, -1],
        "far_at_start": inside[:, 0],
        "far_low": lower,
        "far_zero": np.abs(np.where(lower, 0.0, 1.0) - zero) <= 1e-6,
        "far_ties": (inside[:, 1:] & inside[:, :-1] & (np.diff(x, axis=1) == 0)).sum(axis=1),
        "other_gap": np.where(lower, sides["high"][0], sides["low"][0]),
        **_zeros(x, zero),
    }


def _outside_move(x: Array, inside: Array) -> Array:
    """The mean step between neighbours that are both outside the cluster."""
    both = ~inside[:, 1:] & ~inside[:, :-1]
    sizes = np.abs(np.diff(x, axis=1))
    return np.asarray(np.where(both, sizes, 0.0).sum(axis=1) / np.maximum(both.sum(axis=1), 1))


def _zeros(x: Array, zero: Array) -> dict[str, Array]:
    at_zero = np.abs(x - zero[:, None]) <= 1e-9
    lengths = _lengths(at_zero)
    nearest = np.where(at_zero, np.inf, np.abs(x - zero[:, None])).min(axis=1)
    return {
        "zeros": at_zero.sum(axis=1),
        "zero_runs": (lengths == 1).sum(axis=1),
        "zero_gap": np.where(np.isfinite(nearest), nearest, 0.0),
    }


def _walls(x: Array, ordered: Array) -> dict[str, Array]:
    """Leaning against a wall: an extreme taken again and again, near which the others lie too."""
    found: dict[str, Array] = {}
    n = x.shape[1]
    fresh = np.concatenate((np.ones((len(x), 1), dtype=bool), np.diff(ordered, axis=1) > TIED), axis=1)
    distinct = fresh.sum(axis=1)
    ties = {}
    for side in ("low", "high"):
        y = x if side == "high" else 1.0 - x
        at = y >= 1.0 - TIED
        lengths = _lengths(at)
        count = at.sum(axis=1)
        inner = n - count
        below = np.where(at, -np.inf, y).max(axis=1)
        # Since it first leaned on the wall: the share of the newer part that does.
        first = at.argmax(axis=1)
        last = n - 1 - at[:, ::-1].argmax(axis=1)
        ties[side] = {
            "wall_ties": count,
            "wall_run": lengths.max(axis=1),
            "wall_runs": (lengths == 2).sum(axis=1),
            "wall_touches": (lengths == 1).sum(axis=1),
            "wall_crowd": count / np.maximum(inner / np.maximum(distinct - 1, 1), 1.0),
            "wall_near": (y > 0.95).sum(axis=1) - count,
            "wall_close": (y > 0.8).sum(axis=1) - count,
            "wall_gap": np.where(np.isfinite(below), 1.0 - below, 0.0),
            "wall_reach": last - first + 1,
            "wall_dense": count / (last - first + 1),
        }
        # Values before a wall came up may lie beyond it: the same of the newer parts alone.
        for start in (16, 32, 44):
            part = y[:, start:]
            wall = part.max(axis=1)
            on = part >= wall[:, None] - TIED
            ties[side][f"wall_ties_{start}"] = on.sum(axis=1)
            ties[side][f"wall_run_{start}"] = _lengths(on).max(axis=1)
            ties[side][f"wall_beyond_{start}"] = (y[:, :start] > wall[:, None] + TIED).mean(axis=1)
    for start in (0, 16, 32):
        part = np.sort(x[:, start:], axis=1)
        body = np.maximum(_at(part, 0.75) - _at(part, 0.25), TINY)
        above, below = (_at(part, 1.0) - _at(part, 0.8)) / body, (_at(part, 0.2) - _at(part, 0.0)) / body
        sharp = (_at(part, 1.0) - _at(part, 0.92)) / body, (_at(part, 0.08) - _at(part, 0.0)) / body
        found |= {
            f"flat_end_{start}": np.minimum(above, below).clip(0.0, 20.0),
            f"long_end_{start}": np.maximum(above, below).clip(0.0, 20.0),
            f"sharp_end_{start}": np.minimum(*sharp).clip(0.0, 20.0),
        }
    upper = ties["high"]["wall_ties"] >= ties["low"]["wall_ties"]
    newer_upper = ties["high"]["wall_ties_32"] >= ties["low"]["wall_ties_32"]
    for name in ties["low"]:
        by = newer_upper if name[-1].isdigit() else upper
        found[name] = np.where(by, ties["high"][name], ties["low"][name])
        if name in ("wall_ties", "wall_run"):
            found[f"{name}_other"] = np.where(by, ties["low"][name], ties["high"][name])
    # The value that stands most often, wherever it lies, and how much passes it once it has come.
    places = np.arange(n)
    begins = np.maximum.accumulate(np.where(fresh, places, 0), axis=1)
    tied = places - begins + 1
    end = tied.argmax(axis=1)
    rows = np.arange(len(x))
    value = ordered[rows, end]
    on = np.abs(x - value[:, None]) <= 2 * TIED
    first = on.argmax(axis=1)
    since = places[None, :] >= first[:, None]
    after = np.maximum(since.sum(axis=1), 1)
    passed = np.minimum(
        (since & (x > value[:, None] + 2 * TIED)).sum(axis=1), (since & (x < value[:, None] - 2 * TIED)).sum(axis=1)
    )
    left = (~since).sum(axis=1)
    beyond = np.minimum((~since & (x > value[:, None])).sum(axis=1), (~since & (x < value[:, None])).sum(axis=1))
    tied_after = np.where(on, 0, tied.max(axis=1)[:, None])
    found |= {
        "often": tied.max(axis=1),
        "often_first": first,
        "often_passed": passed / after,
        "often_before": beyond / np.maximum(left, 1),
        "often_share": on.sum(axis=1) / after,
        "often_runs": (_lengths(on) == 1).sum(axis=1),
        "often_place": np.minimum(value, 1 - value),
        "often_others": np.sort(np.where(tied == tied_after, 0, tied), axis=1)[:, -2],
    }
    return found


def _points(x: Array, steps: Array) -> dict[str, Array]:
    """Single values far from their neighbours."""
    n = x.shape[1]
    padded = np.concatenate((x[:, 3:0:-1], x, x[:, -2:-5:-1]), axis=1)
    around = np.sort(np.lib.stride_tricks.sliding_window_view(padded, 7, axis=1), axis=2)[:, :, 3]
    rest = x - around
    off = np.abs(rest)
    far = np.sort(off, axis=1)[:, ::-1]
    sigma = np.maximum(MAD_TO_SIGMA * far[:, n // 2], TINY)
    usual = np.maximum(far[:, 12:].mean(axis=1), TINY)
    order = np.argsort(-off, axis=1, kind="stable")
    rows = np.arange(len(x))[:, None]
    signs = np.sign(rest[rows, order[:, :3]]).sum(axis=1)
    found = {
        "point_sigmas": _ratio(far[:, 0], sigma),
        "point_usual": _ratio(far[:, 0], usual),
        "point_second": _ratio(far[:, 1], far[:, 0]),
        "point_third": _ratio(far[:, 2], far[:, 0]),
        "point_fourth": _ratio(far[:, 3], far[:, 0]),
        "point_sixth": _ratio(far[:, 5], far[:, 0]),
        "point_tenth": _ratio(far[:, 9], far[:, 0]),
        "point_range": far[:, 0],
        "point_many": (off > 5 * sigma[:, None]).sum(axis=1),
        "point_place": order[:, 0],
        "point_apart": np.abs(order[:, 0] - order[:, 1]),
        "point_signs": np.abs(signs),
        "point_kept": sigma,
    }
    for drop in (1, 2, 3, 5):
        kept = x.copy()
        np.put_along_axis(kept, order[:, :drop], around[rows, order[:, :drop]], axis=1)
        found[f"range_less_{drop}"] = kept.max(axis=1) - kept.min(axis=1)
        found[f"steps_less_{drop}"] = _ratio(np.diff(kept, axis=1).std(axis=1), steps.std(axis=1))
    there_and_back = np.minimum(np.abs(steps[:, :-1]), np.abs(steps[:, 1:])) * (steps[:, :-1] * steps[:, 1:] < 0)
    best = np.sort(there_and_back, axis=1)[:, ::-1]
    typical = np.maximum(best[:, 8:].mean(axis=1), TINY)
    found |= {
        "back": best[:, 0],
        "back_usual": _ratio(best[:, 0], typical),
        "back_second": _ratio(best[:, 1], best[:, 0]),
        "back_fourth": _ratio(best[:, 3], best[:, 0]),
        "back_move": _ratio(best[:, 0], np.median(np.abs(steps), axis=1)),
        "peaked": np.log10(
            1.0 + ((steps**4).mean(axis=1) / np.maximum((steps**2).mean(axis=1) ** 2, 1e-30)).clip(0, 1e4)
        ),
    }
    return found


@cache
def _bases() -> dict[str, Array]:
    """Unit shapes that a series is laid against, each free of its mean: [shapes, WINDOW]."""
    n = WINDOW
    place = np.arange(float(n))
    wave = [part(2 * np.pi * f * place / n) for f in WAVES for part in (np.sin, np.cos)]
    shapes = {
        "step": [place >= k for k in range(SPLIT_MIN, n - SPLIT_MIN + 1)],
        "late": [place >= k for k in range(n - SPLIT_MIN + 1, n - 1)],
        "soft": [np.clip((place - k) / 6.0, 0.0, 1.0) for k in range(4, n - 10, 2)],
        "hinge": [np.maximum(place - k, 0.0) for k in range(0, n - 6, 2)],
        "curve": [np.maximum(place - k, 0.0) ** 2 for k in range(0, n - 10, 4)],
        "root": [np.sqrt(np.maximum(place - k, 0.0)) for k in range(0, n - 10, 4)],
        "pulse": [(place >= k) & (place < k + w) for w in PULSES for k in range(2, n - w - 2, 2)],
        "tent": [np.maximum(0.0, 1.0 - np.abs(place - k) / w) for w in (10, 20, 32) for k in range(8, n - 8, 4)],
        "line": [place],
        "wave": wave,
    }  # fmt: skip
    units = {}
    for name, rows in shapes.items():
        one = np.array(rows, dtype=np.float64)
        one = one - one.mean(axis=1, keepdims=True)
        units[name] = one / np.sqrt((one * one).sum(axis=1, keepdims=True))
    return units


@cache
def _tilted() -> dict[str, Array]:
    """The same shapes free of a straight line as well."""
    line = _bases()["line"][0]
    units = {}
    for name in ("step", "hinge", "pulse"):
        one = _bases()[name]
        one = one - (one @ line)[:, None] * line
        norm = np.sqrt((one * one).sum(axis=1, keepdims=True))
        units[name] = np.where(norm > 1e-6, one / np.maximum(norm, 1e-6), 0.0)
    return units


def _breaks(x: Array, moves: Array) -> dict[str, Array]:
    """Which shape explains the series best: a step, a ramp, a pulse, a wave; of it and of it without its outliers."""
    found: dict[str, Array] = {}
    rows = np.arange(len(x))
    middle = np.median(x, axis=1, keepdims=True)
    padded = np.concatenate((x[:, 2:0:-1], x, x[:, -2:-4:-1]), axis=1)
    calm = np.sort(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=1), axis=2)[:, :, 2]
    for tag, y in (("", x), ("_calm", calm)):
        y = y - y.mean(axis=1, keepdims=True)
        total = np.maximum((y * y).sum(axis=1), TINY)
        explained = {}
        for name, basis in _bases().items():
            laid = y @ basis.T
            if name == "wave":
                pairs = (laid**2).reshape(len(x), -1, 2).sum(axis=2)
                explained[name] = pairs.max(axis=1) / total
                continue
            at = (laid**2).argmax(axis=1)
            explained[name] = laid[rows, at] ** 2 / total
            if name in ("step", "hinge"):
                found[f"{name}_at{tag}"] = at
        found |= {f"{name}{tag}": share for name, share in explained.items()}
        found[f"step_or_hinge{tag}"] = explained["step"] - np.maximum(explained["hinge"], explained["line"])
        found[f"step_or_pulse{tag}"] = explained["step"] - explained["pulse"]
        found[f"soft_or_hinge{tag}"] = explained["soft"] - np.maximum(explained["hinge"], explained["curve"])
        found[f"break_or_wave{tag}"] = np.maximum(explained["step"], explained["hinge"]) - explained["wave"]
        line = _bases()["line"][0]
        flat = y - (y @ line)[:, None] * line
        left = np.maximum((flat * flat).sum(axis=1), TINY)
        for name, basis in _tilted().items():
            found[f"{name}_tilted{tag}"] = ((flat @ basis.T) ** 2).max(axis=1) / left
        found[f"line_left{tag}"] = _ratio(np.sqrt(left / WINDOW), moves)
        if not tag:
            found |= _around_step(x, found["step_at"] + SPLIT_MIN, moves)
            found |= _around_hinge(y, found["hinge_at"] * 2)
    blocks = np.median(calm.reshape(len(x), 8, 8), axis=2) - middle
    rise = np.diff(blocks, axis=1)
    found |= {
        "rises": np.abs(np.sign(rise).sum(axis=1)),
        "path": np.abs(rise.sum(axis=1)) / np.maximum(np.abs(rise).sum(axis=1), TINY),
        "largest_rise": np.abs(rise).max(axis=1) / np.maximum(np.abs(rise).sum(axis=1), TINY),
        "block_spread": blocks.std(axis=1),
        "end_off": np.abs(blocks[:, -1] - np.median(blocks[:, :4], axis=1)),
        "start_off": np.abs(blocks[:, 0] - np.median(blocks[:, 4:], axis=1)),
    }
    return found


def _around_step(x: Array, at: Array, moves: Array) -> dict[str, Array]:
    """What lies before and after the best place to break the series in two."""
    places = np.arange(x.shape[1])[None, :]
    before, after = places < at[:, None], places >= at[:, None]

    def of(part: Array) -> tuple[Array, Array, Array]:
        count = part.sum(axis=1)
        centre = _middle(np.where(part, x, np.inf), count)
        off = np.abs(x - centre[:, None])
        spread = MAD_TO_SIGMA * _middle(np.where(part, off, np.inf), count)
        return centre, spread, np.sqrt(np.where(part, off * off, 0.0).sum(axis=1) / count)

    (one, one_sigma, one_std), (other, other_sigma, other_std) = of(before), of(after)
    jump = np.abs(other - one)
    low = np.where(before, x, np.inf).min(axis=1), np.where(after, x, np.inf).min(axis=1)
    high = np.where(before, x, -np.inf).max(axis=1), np.where(after, x, -np.inf).max(axis=1)
    apart = np.maximum(low[1] - high[0], low[0] - high[1])
    nearest = at[:, None] + np.arange(-4, 4)[None, :]
    around = np.take_along_axis(x, nearest, axis=1)
    local = np.abs(around[:, 4:].mean(axis=1) - around[:, :4].mean(axis=1))
    direct = np.abs(around[:, 4] - around[:, 3])
    sizes = np.abs(np.diff(x, axis=1))
    sigma = np.maximum(np.maximum(one_sigma, other_sigma), 0.2 * np.maximum(one_std, other_std))
    return {
        "jump_sigmas": _ratio(jump, sigma),
        "jump_moves": _ratio(jump, moves),
        "jump_local": local / np.maximum(jump, TINY),
        "jump_direct": direct / np.maximum(jump, TINY),
        "jump_rank": (sizes >= direct[:, None]).sum(axis=1),
        "jump_apart": np.clip(apart / np.maximum(jump, TINY), -5.0, 1.0),
        "sides": np.abs(_ratio(one_std, other_std)),
        "calmer_after": _ratio(other_std, one_std),
    }  # fmt: skip


def _around_hinge(y: Array, at: Array) -> dict[str, Array]:
    """How far the best ramp rises against what it leaves, and how much steeper it is than what was before."""
    basis = _bases()["hinge"][at // 2]
    laid = (y * basis).sum(axis=1)
    fit = laid[:, None] * basis
    rest = y - fit
    rise = np.abs(fit[:, -1] - fit[:, 0])
    sigma = MAD_TO_SIGMA * np.median(np.abs(rest), axis=1)
    return {
        "ramp_sigmas": _ratio(rise, sigma),
        "ramp_rest": _ratio(rest.std(axis=1), np.abs(np.diff(rest, axis=1)).mean(axis=1)),
        "ramp_rise": rise,
    }


def _roughness(steps: Array) -> dict[str, Array]:
    """Where the series became rougher or calmer: of its steps, of their bends, with large ones held down."""
    found: dict[str, Array] = {}
    bends = np.diff(steps, axis=1)
    for name, taken in (("rough", steps), ("bends", bends)):
        size = np.abs(taken)
        cap = 4.0 * np.maximum(np.median(size, axis=1, keepdims=True), size.mean(axis=1, keepdims=True))
        held = np.minimum(size, cap)
        m = held.shape[1]
        total = np.cumsum(held, axis=1)
        splits = np.arange(8, m - 7)
        older = total[:, splits - 1] / splits
        newer = (total[:, -1:] - total[:, splits - 1]) / (m - splits)
        floor = 1e-3 * held.mean(axis=1, keepdims=True) + TINY
        change = np.log10((newer + floor) / (older + floor))
        # A change counts by its size and by how many values tell of it.
        weight = np.sqrt(splits * (m - splits) / (m * m / 4.0))
        at = np.abs(change * weight).argmax(axis=1)
        rows = np.arange(len(steps))
        found[f"{name}_change"] = change[rows, at]
        found[f"{name}_at"] = splits[at]
        found[f"{name}_weight"] = (change * weight)[rows, at]
        roots = np.cumsum(np.sqrt(held), axis=1)
        root_older = roots[:, splits - 1] / splits
        root_newer = (roots[:, -1:] - roots[:, splits - 1]) / (m - splits)
        root_floor = 1e-2 * roots[:, -1:] / m + TINY
        found[f"{name}_root"] = (np.log10((root_newer + root_floor) / (root_older + root_floor)) * weight)[rows, at]
        if name == "rough":
            quarters = np.stack([part.mean(axis=1) for part in np.array_split(held, 4, axis=1)], axis=1)
            medians = np.stack([np.median(part, axis=1) for part in np.array_split(size, 4, axis=1)], axis=1)
            found |= {
                "quarters": _ratio(quarters.max(axis=1), quarters.min(axis=1)),
                "quarter_medians": _ratio(medians.max(axis=1), medians.min(axis=1)),
                "halves": _ratio(quarters[:, 2:].mean(axis=1), quarters[:, :2].mean(axis=1)),
                "last_quarter": _ratio(quarters[:, 3], quarters[:, :3].mean(axis=1)),
                "middle_rough": _ratio(quarters[:, 1:3].mean(axis=1), quarters[:, ::3].mean(axis=1)),
            }
            split = splits[at][:, None]
            places = np.arange(m)[None, :]
            for side, part in (("calm", places < split), ("wild", places >= split)):
                one = np.where(part, taken, 0.0)
                both = part[:, 1:] & part[:, :-1]
                power = (one * one).sum(axis=1)
                found[f"{side}_echo"] = np.where(both, taken[:, 1:] * taken[:, :-1], 0.0).sum(axis=1) / np.maximum(
                    power, TINY
                )
    return found


def _echoes(x: Array, steps: Array) -> dict[str, Array]:
    """How a value tells of the next."""
    found: dict[str, Array] = {}
    for name, taken, lags in (("echo", x, (1, 2, 4, 8)), ("step_echo", steps, (1, 2, 3))):
        centred = taken - taken.mean(axis=1, keepdims=True)
        power = np.maximum((centred * centred).sum(axis=1), TINY)
        for lag in lags:
            found[f"{name}_{lag}"] = (centred[:, lag:] * centred[:, :-lag]).sum(axis=1) / power
    found["turns"] = (steps[:, 1:] * steps[:, :-1] < 0).mean(axis=1)
    return found
