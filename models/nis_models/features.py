"""The window as one vector of numbers: what the baseline that the package must beat is given.

It is the same evidence that the model reads as tokens and the package's tables as numbers (``nis_edge.monitor.dense``),
without word vectors: whatever they add, they add beyond this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nis_edge.monitor.context import Window
from nis_edge.monitor.dense import MEANINGS, dense, names
from nis_edge.monitor.evidence import event_text, gather


def vectors(windows: Iterable[Window], *, flags: bool = True) -> np.ndarray[Any, Any]:
    """Evidence of windows: float32 [n, features].

    Args:
        windows: what is judged.
        flags: put 0 where a number is unknown, with an indicator beside it, for judges that know no NaN.
    """
    rows = np.array([dense(window, gather(window), None) for window in windows], dtype=np.float32)
    return of_numbers(rows.reshape(-1, len(names())), flags=flags)


def of_numbers(numbers: np.ndarray[Any, Any], *, flags: bool) -> np.ndarray[Any, Any]:
    """What ``vectors`` makes of numbers that are known already; what word vectors added is left out."""
    rows = numbers[:, ~np.isin(names(), MEANINGS)].astype(np.float32)
    if not flags:
        return rows
    unknown = np.isnan(rows)
    return np.concatenate((np.where(unknown, np.float32(0.0), rows), unknown), axis=1, dtype=np.float32)


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
