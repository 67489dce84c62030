"""The window as one vector of numbers: what the baseline that the model must beat is given.

It is the same evidence that the model reads as tokens, unrounded: window counts, the newest three events one by one,
means and extremes over the window, marks, the device. An unknown number is 0 with an indicator beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from nis_edge.monitor.context import Window
from nis_edge.monitor.evidence import FLAG_NAMES, EventEvidence, event_text, gather, is_user
from nis_edge.monitor.window import KIND_NAMES

NEWEST: Final = 3


def vectors(windows: Iterable[Window]) -> np.ndarray[Any, Any]:
    """Evidence of windows: float32 [n, features]."""
    return np.array([list(_numbers(window)) for window in windows], dtype=np.float32)


def lengths(windows: Iterable[Window]) -> np.ndarray[Any, Any]:
    """Only how much was said: float32 [n, 3] events, characters, characters of the newest event."""
    rows = []
    for window in windows:
        sizes = [len(event.text or "") for event in window.events]
        rows.append([len(sizes), np.log1p(sum(sizes)), np.log1p(sizes[-1] if sizes else 0)])
    return np.array(rows, dtype=np.float32)


def texts(windows: Iterable[Window]) -> list[str]:
    """All words of windows, with kinds: for a bag of words."""
    return [
        " ".join([window.goal or "", *(f"{event.kind} {event_text(event)[:600]}" for event in window.events)])
        for window in windows
    ]


def _numbers(window: Window) -> Iterator[float]:
    evidence = gather(window)
    yield from (
        evidence.repeats_max,
        evidence.cycle,
        evidence.conflicts,
        evidence.open_requests,
        evidence.senders,
        evidence.order == 1,
        evidence.order == 2,
        evidence.vague_acted,
    )
    for value in (
        evidence.errors,
        evidence.goal_covered,
        evidence.off_goal,
        evidence.overclaim,
        evidence.residual,
        _log(evidence.idle_s),
        _log(evidence.quiet_ratio),
    ):
        yield from _maybe(value)
    yield len(window.events)
    newest = list(zip(window.events, evidence.events, strict=True))[-NEWEST:]
    for place in range(NEWEST):
        event, seen = newest[-1 - place] if place < len(newest) else (None, None)
        yield from _event_numbers(seen)
        yield float(event is not None and is_user(event))
        yield from (float(event is not None and event.kind == kind) for kind in KIND_NAMES)
    table = np.array([list(_event_numbers(seen)) for seen in evidence.events] or [list(_event_numbers(None))])
    yield from table.mean(axis=0)
    yield from table.max(axis=0)
    device = window.device
    for reading in (
        device.cpu_percent,
        device.memory_percent,
        device.temperature_c,
        device.throttled,
        device.z,
        device.trend,
        _log(device.stale_s),
    ):
        yield from _maybe(None if reading is None else float(reading))
    yield abs(device.z or 0.0)
    yield max(device.cpu_percent or 0.0, 80.0)
    yield max(device.memory_percent or 0.0, 85.0)


def _event_numbers(seen: EventEvidence | None) -> Iterator[float]:
    if seen is None:
        yield from [0.0] * (1 + 2 * 7 + len(FLAG_NAMES))
        return
    yield float(seen.repeats)
    for value in (
        seen.similarity,
        seen.novelty,
        seen.unsourced,
        seen.on_goal,
        seen.coverage,
        _log(seen.gap_s),
        None if seen.failed is None else float(seen.failed),
    ):
        yield from _maybe(value)
    yield from (float(name in seen.flags) for name in FLAG_NAMES)


def _maybe(value: float | None) -> tuple[float, float]:
    return (0.0, 1.0) if value is None else (float(value), 0.0)


def _log(value: float | None) -> float | None:
    return None if value is None else float(np.log10(max(value, 0.01)))
