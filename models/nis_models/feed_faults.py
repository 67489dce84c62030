"""Faults put into real series, at three strengths: what a feed looks like when its sensor is stuck, drifts, jumps.

Every strength is in units of the series' own spread, of values or of steps, so that "medium" means the same for a
processor's load and for a thermometer. A window whose own past makes a fault invisible (a flat line that is stuck) is
not used. Series of one file stay in one split.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from nis_edge.errors import ConfigError
from nis_edge.monitor.feeds import LABELS, RECENT, WINDOW
from nis_models.domains import Split

Array = np.ndarray[Any, Any]
Strength = Literal["weak", "medium", "strong"]
STRENGTHS: Final[tuple[Strength, ...]] = ("weak", "medium", "strong")
NONE_SHARE: Final = 0.2
TRIES: Final = 60


@dataclass(frozen=True)
class Feed:
    """One window of a series.

    Args:
        values: float64 [WINDOW], NaN where a reading is missing.
        label: one of ``feeds.LABELS``, or None for the series as it is.
        strength: None for the series as it is.
        file: where it comes from.
        proof: what was done to it.
    """

    values: Array
    label: str | None
    strength: Strength | None
    file: str
    proof: str


def load(folder: Path) -> dict[str, Array]:
    """Read the series; readings within a labelled anomaly are cut out, for nobody knows what they are.

    Raises:
        ConfigError: there is none; the operator names the folder of the development data.
    """
    files = sorted((folder / "nab").glob("*.csv"))
    if not files:
        raise ConfigError(f"{folder}/nab holds no series; --data must name the folder of the development data")
    known = json.loads((folder / "nab" / "windows.json").read_text(encoding="utf-8"))
    series = {}
    for path in files:
        rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        spans = next((spans for name, spans in known.items() if name.replace("/", "__") == path.name), [])
        kept = [float(value) for time, value in rows if not any(a[:19] <= time <= b[:19] for a, b in spans)]
        if len(kept) > 2 * WINDOW:
            series[path.name] = np.array(kept)
    return series


def split_of(name: str) -> Split:
    """Of a file: a fifth tests, a seventh tunes."""
    byte = hashlib.sha256(name.encode()).digest()[0]
    return "test" if byte < 60 else "tune" if byte < 95 else "train"


def draw(series: dict[str, Array], split: Split, count: int, seed: int = 0) -> Iterator[Feed]:
    """Windows of a split, the same for the same seed."""
    names = [name for name in sorted(series) if split_of(name) == split]
    for number in range(count):
        rng = random.Random(f"series:{split}:{seed + number}")  # noqa: S311 - chance of a simulation, not of a secret
        for _ in range(TRIES):
            name = rng.choice(names)
            values = series[name]
            start = rng.randrange(len(values) - WINDOW)
            window = values[start : start + WINDOW].copy()
            label = None if rng.random() < NONE_SHARE else rng.choice(LABELS)
            if label is None:
                yield Feed(window, None, None, name, "the series as it was recorded")
                break
            strength = rng.choice(STRENGTHS)
            proof = _put(rng, window, label, STRENGTHS.index(strength))
            if proof is not None:
                yield Feed(window, label, strength, name, proof)
                break


def _put(rng: random.Random, window: Array, label: str, strength: int) -> str | None:
    """Put a fault into the newest part of a window, in place; None where it could not be seen."""
    past = window[:-RECENT]
    spread = max(float(past.std()), 1e-9)
    step = float(np.abs(np.diff(past)).mean())
    if step < 1e-9 * max(1.0, float(np.abs(past).max())) or float((np.diff(window[-RECENT:]) == 0).mean()) > 0.5:
        return None
    length = rng.randint(RECENT // 3, RECENT)
    at = len(window) - length
    sign = rng.choice((-1.0, 1.0))
    noise = np.random.default_rng(rng.randrange(2**32))
    if label == "stuck":
        length = (8, 16, 32)[strength] + rng.randint(0, 6)
        window[-length:] = window[-length]
        return f"the last {length} readings are one value"
    if label == "drift":
        size = (1.5, 3.0, 6.0)[strength] * spread
        window[at:] += sign * size * np.linspace(0, 1, length)
        return f"a ramp of {size / spread:g} spreads over {length} readings"
    if label == "spike":
        size = (4.0, 8.0, 16.0)[strength] * max(step, 0.25 * spread)
        places = rng.sample(range(len(window) - RECENT + 1, len(window) - 1), rng.randint(1, 3))
        for place in places:
            window[place] += rng.choice((-1.0, 1.0)) * size
        return f"{len(places)} single readings off by {size / spread:.2g} spreads"
    if label == "dropout":
        share = (0.08, 0.2, 0.5)[strength]
        places = rng.sample(range(len(window) - RECENT, len(window)), max(3, round(share * RECENT)))
        window[places] = np.nan
        return f"{len(places)} of the last {RECENT} readings are missing"
    if label == "saturation":
        limit = float(np.quantile(window[at:], (0.8, 0.6, 0.35)[strength]))
        clipped = (
            np.minimum(window[at:], limit) if sign > 0 else np.maximum(window[at:], 2 * window[at:].mean() - limit)
        )
        if float(np.abs(clipped - window[at:]).max()) < 0.2 * spread:
            return None
        window[at:] = clipped
        return f"{length} readings clipped"
    if label == "noise":
        size = (1.0, 2.5, 6.0)[strength] * max(step, 0.1 * spread)
        window[at:] += noise.normal(0.0, size, length)
        return f"noise of {size / spread:.2g} spreads on {length} readings"
    size = (1.5, 3.0, 6.0)[strength] * spread
    window[at:] += sign * size
    return f"a step of {size / spread:g} spreads, {length} readings ago"
