"""What is wrong with a numeric feed, by the shape of its newest readings: names and values of the numbers tables judge.

The older part of a window says what is usual, the newest part is judged against it: runs of one value, missing
readings, shift, slope, jumps that return, clipping, spread of the steps. Every number is relative to the feed's own
past, so that one judge serves any unit. Pure; a window of ``WINDOW`` readings costs well under a millisecond.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

WINDOW: Final = 144
"""Readings in a full window ..."""
RECENT: Final = 48
"""... of which so many newest are judged against the others."""

LEAST: Final = 72
"""Fewer readings give no judgement."""

LABELS: Final = ("stuck", "drift", "spike", "dropout", "saturation", "noise", "level_shift")

Array = np.ndarray[Any, Any]


def numbers(values: Array) -> Array | None:
    """The numbers of a feed.

    Args:
        values: float [n], oldest first, NaN where a reading is missing; only the newest ``WINDOW`` are looked at.

    Returns:
        float32 [len(names())], or None with fewer than ``LEAST`` readings or no known one in either part.
    """
    window = np.asarray(values, dtype=np.float64)[-WINDOW:]
    window = np.where(np.isfinite(window), window, np.nan)
    if len(window) < LEAST:
        return None
    past, recent = window[:-RECENT], window[-RECENT:]
    old, new = past[~np.isnan(past)], recent[~np.isnan(recent)]
    if len(old) < 8 or len(new) < 4:
        return None
    return np.array(list(_numbers(past, recent, old, new).values()), dtype=np.float32)


def names() -> tuple[str, ...]:
    """Names of the numbers, in order."""
    ramp = np.arange(float(RECENT))
    return tuple(_numbers(ramp, ramp, ramp, ramp))


def _numbers(past: Array, recent: Array, old: Array, new: Array) -> dict[str, float]:
    middle = float(np.median(old))
    floor = 1e-6 * max(1.0, abs(middle), float(np.abs(new).max()))
    scale = max(1.4826 * float(np.median(np.abs(old - middle))), 0.3 * float(old.std()), floor)
    old_steps, new_steps = np.diff(old), np.diff(new)
    step = max(1.4826 * float(np.median(np.abs(old_steps))), 0.3 * float(old_steps.std()), floor)
    big = max(float(np.quantile(np.abs(old_steps), 0.98)), step)
    z = (new - middle) / scale

    def against(one: float, other: float) -> float:
        return float(np.log10(max(one, floor) / max(other, floor)))

    third = max(2, len(new) // 3)
    place = np.arange(len(new)) / max(1, len(new) - 1)
    slope, rest = _line(place, z)
    low, high = float(old.min()), float(old.max())
    top, bottom = float(new.max()), float(new.min())
    at_top = np.abs(new - top) <= floor
    at_bottom = np.abs(new - bottom) <= floor
    centred = np.cumsum(z - z.mean())
    split = int(np.abs(centred).argmax())
    before, after = z[: split + 1], z[split + 1 :]
    jumps = np.abs(new_steps) / big
    returns = np.minimum(np.abs(new_steps[:-1]), np.abs(new_steps[1:])) * (new_steps[:-1] * new_steps[1:] < 0) / big
    return {
        "missing": float(np.isnan(recent).mean()),
        "missing_past": float(np.isnan(past).mean()),
        "missing_run": _longest(np.isnan(recent)) / len(recent),
        "zeros": float((new == 0).mean()),
        "zeros_past": float((old == 0).mean()),
        "run": _longest(np.abs(new_steps) <= floor) / len(recent),
        "run_past": _longest(np.abs(old_steps) <= floor) / len(past),
        "run_last": _newest_run(np.abs(new_steps) <= floor) / len(recent),
        "same": float((np.abs(new_steps) <= floor).mean()),
        "same_past": float((np.abs(old_steps) <= floor).mean()),
        "unique": len(np.unique(new)) / len(new),
        "unique_past": len(np.unique(old)) / len(old),
        "common": _most_common(new),
        "common_past": _most_common(old),
        "last": float(z[-1]),
        "shift": float(np.median(z)),
        "mean_shift": float(z.mean()),
        "shift_size": abs(float(np.median(z))),
        "start": float(np.median(z[:third])),
        "centre": float(np.median(z[third:-third])) if len(z) > 2 * third else float(np.median(z)),
        "end": float(np.median(z[-third:])),
        "rise": float(np.median(z[-third:]) - np.median(z[:third])),
        "slope": slope,
        "slope_size": abs(slope),
        "beside_line": rest,
        "straight": abs(slope) / (rest + 0.1),
        "cusum": float(np.abs(centred).max()) / len(z),
        "parts": abs(float(before.mean() - after.mean())) if len(after) else 0.0,
        "parts_spread": float(before.std() + after.std()) / 2 if len(after) else float(before.std()),
        "spread": against(float(new.std()), float(old.std())),
        "steps": against(float(np.median(np.abs(new_steps))), float(np.median(np.abs(old_steps)))),
        "steps_std": against(float(new_steps.std()), float(old_steps.std())),
        "jump": float(jumps.max()),
        "jump_second": float(np.sort(jumps)[-2]),
        "jump_median": float(np.median(jumps)),
        "jumps": float((jumps > 1.5).mean()),
        "returns": float(returns.max(initial=0.0)),
        "returns_many": float((returns > 1.0).mean()) if len(returns) else 0.0,
        "tail": float(np.abs(z).max() / (np.median(np.abs(z - np.median(z))) + 0.2)),
        "highest": float(z.max()),
        "lowest": float(z.min()),
        "above_past": (top - high) / scale,
        "below_past": (low - bottom) / scale,
        "at_top": float(at_top.mean()),
        "at_bottom": float(at_bottom.mean()),
        "top_run": _longest(at_top) / len(recent),
        "bottom_run": _longest(at_bottom) / len(recent),
        "top_rank": float((old <= top).mean()),
        "bottom_rank": float((old >= bottom).mean()),
        "echo": _echo(new_steps),
        "echo_past": _echo(old_steps),
        "smooth_past": float(old_steps.std()) / scale,
        "line_past": abs(_line(np.arange(len(old)) / max(1, len(old) - 1), (old - middle) / scale)[0]),
        "rises": float((np.diff(np.array([part.mean() for part in np.array_split(z, 6)])) > 0).mean()),
    }  # fmt: skip


def _line(place: Array, z: Array) -> tuple[float, float]:
    """Slope of the best line over 0..1, and the spread beside it."""
    centred = place - place.mean()
    slope = float((centred * z).sum() / max(float((centred * centred).sum()), 1e-12))
    return slope, float((z - z.mean() - slope * centred).std())


def _longest(holds: Array) -> int:
    """The longest run of truths."""
    best = run = 0
    for one in holds.tolist():
        run = run + 1 if one else 0
        best = max(best, run)
    return best


def _most_common(values: Array) -> float:
    """Share of the value that stands there most often."""
    return float(np.unique(values, return_counts=True)[1].max()) / len(values)


def _newest_run(holds: Array) -> int:
    run = 0
    for one in holds[::-1].tolist():
        if not one:
            break
        run += 1
    return run


def _echo(steps: Array) -> float:
    """Correlation of each step with the next."""
    if len(steps) < 4:
        return 0.0
    one, other = steps[:-1] - steps[:-1].mean(), steps[1:] - steps[1:].mean()
    size = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / size if size > 0 else 0.0
