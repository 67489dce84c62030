"""Windows of 64 values with a fault in them: real series and drawn ones, several mechanisms for each kind of fault.

A mechanism changes a window from its onset on, at one of three strengths. Sizes are in units of a scale drawn anew
each time (of the window, of the whole series), so that "medium" is no single definition. A change that can't be seen is
drawn again. A part of the mechanisms is held out where a judge is to be tried on mechanisms it never saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from nis_edge.errors import ConfigError
from nis_edge.monitor.series import KINDS
from nis_edge.monitor.shapes import WINDOW

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Strength = Literal["weak", "medium", "strong"]
STRENGTHS: Final[tuple[Strength, ...]] = ("weak", "medium", "strong")
LABELS: Final = ("none", *KINDS)

TRIES: Final = 40
SEEN_LEAST: Final = 10
"""Values at the end that show a lasting fault."""

FLAT_SHARE: Final = 0.1
"""Of windows without any movement so many are kept as healthy: a flat line is a flat line, and teaches little."""

SEGMENT_LEAST: Final = 2 * WINDOW


@dataclass(frozen=True)
class Series:
    """One healthy series in pieces without gaps.

    Args:
        name: the file, or how it was drawn.
        family: what kind of thing it measures; the unit that is left out in evaluation.
        pieces: float64, each longer than a window.
        scale: standard deviation of the whole.
    """

    name: str
    family: str
    pieces: tuple[Array, ...]
    scale: float


@dataclass(frozen=True)
class Made:
    """One window.

    Args:
        values: float64 [WINDOW], NaN where a value is missing.
        label: one of ``LABELS``.
        onset: index of the first value that was changed; None for a healthy window.
        strength: None for a healthy window.
        mechanism: how the fault was made; "" for a healthy window.
        series, family: where it comes from.
    """

    values: Array
    label: str
    onset: int | None
    strength: Strength | None
    mechanism: str
    series: str
    family: str


def load(folder: Path) -> list[Series]:
    """Read the real series without the spans that are labelled as anomalies, for nobody knows what those are.

    Raises:
        ConfigError: there is none; the operator names the folder of the development data.
    """
    files = sorted((folder / "nab").glob("*.csv"))
    if not files:
        raise ConfigError(f"{folder}/nab holds no series; --data must name the folder of the development data")
    spans_of = json.loads((folder / "nab" / "windows.json").read_text(encoding="utf-8"))
    found = []
    for path in files:
        rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        spans = next((spans for name, spans in spans_of.items() if name.replace("/", "__") == path.name), [])
        healthy = np.array([not any(a[:19] <= time <= b[:19] for a, b in spans) for time, _ in rows])
        values = np.array([float(value) for _, value in rows])
        cuts = np.flatnonzero(np.diff(healthy.astype(int))) + 1
        parts = zip(np.split(values, cuts), np.split(healthy, cuts), strict=True)
        pieces = tuple(part for part, well in parts if well[0] and len(part) >= SEGMENT_LEAST)
        family = path.name.split("__")[0]
        if pieces:
            family = "artificial" if family.startswith("artificial") else family
            found.append(Series(path.name, family, pieces, float(np.concatenate(pieces).std())))
    return found


def draw_series(count: int, seed: int) -> list[Series]:
    """Healthy series of sensors that the real ones lack: slow, seasonal, bursty, quantised, walking, switching."""
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, number, 77])
        kind = list(DRAWN)[number % len(DRAWN)]
        values = DRAWN[kind](rng, 600)
        if rng.random() < 0.4:
            grain = values.std() * rng.choice((0.05, 0.15, 0.4))
            values = np.round(values / grain) * grain if grain > 0 else values
        values = values * 10 ** rng.uniform(-2, 4) + (rng.random() < 0.7) * rng.normal() * 10 ** rng.uniform(-1, 4)
        found.append(Series(f"drawn {kind} {number}", "drawn", (values,), float(values.std())))
    return found


def _smooth(rng: Rng, n: int, keep: float) -> Array:
    out, at = np.empty(n), 0.0
    for place, push in enumerate(rng.normal(size=n)):
        at = keep * at + push
        out[place] = at
    return out


def _seasonal(rng: Rng, n: int) -> Array:
    place = np.arange(n)
    period = rng.choice((12, 24, 48, 96, 144, 288, 500))
    wave = np.sin(2 * np.pi * place / period + rng.uniform(0, 6))
    wave = wave + rng.uniform(0, 0.6) * np.sin(4 * np.pi * place / period + rng.uniform(0, 6))
    return np.asarray(wave + rng.choice((0.03, 0.1, 0.3, 0.8)) * _smooth(rng, n, rng.choice((0.0, 0.5, 0.9))))


def _bursty(rng: Rng, n: int) -> Array:
    rate = np.exp(0.5 * _smooth(rng, n, 0.9) / 2) * rng.choice((0.5, 3.0, 20.0))
    counts = rng.poisson(rate * rng.gamma(2.0, 0.5, n)).astype(float)
    busy = rng.random(n) < rng.choice((0.01, 0.04, 0.1))
    return np.where(busy, counts * rng.uniform(2, 8) + 1, counts)


def _switching(rng: Rng, n: int) -> Array:
    on = np.cumsum(rng.random(n) < rng.choice((0.02, 0.05, 0.12))) % 2
    return np.asarray(on * rng.uniform(2, 10) + _smooth(rng, n, rng.choice((0.0, 0.7))) * rng.choice((0.05, 0.3, 1.0)))


DRAWN: Final[Mapping[str, Callable[[Rng, int], Array]]] = {
    "white": lambda rng, n: rng.normal(size=n),
    "smooth": lambda rng, n: _smooth(rng, n, rng.choice((0.5, 0.8, 0.9, 0.97))),
    "walk": lambda rng, n: np.cumsum(rng.normal(size=n)) + rng.choice((0.0, 2.0, 6.0)) * rng.normal(size=n),
    "seasonal": _seasonal,
    "seasonal quick": lambda rng, n: _seasonal(rng, n) + 0.5 * np.sin(2 * np.pi * np.arange(n) / rng.integers(4, 16)),
    "bursty": _bursty,
    "switching": _switching,
    "heavy": lambda rng, n: rng.standard_t(3.0, n) + 0.7 * _smooth(rng, n, 0.6),
    "skewed": lambda rng, n: rng.gamma(rng.choice((1.0, 3.0)), 1.0, n) + 0.3 * np.abs(_smooth(rng, n, 0.9)),
    "sawtooth": lambda rng, n: (np.arange(n) / rng.integers(8, 120)) % 1.0 + 0.03 * rng.normal(size=n),
}  # fmt: skip


def draw(
    series: Sequence[Series],
    count: int,
    seed: int,
    *,
    weak: float = 1 / 3,
    none_share: float = 1 / len(LABELS),
    without: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> Iterator[Made]:
    """Windows of these series, the same for the same seed: kinds in equal shares, series in equal shares.

    Args:
        series: healthy ones.
        count: how many windows.
        seed: of the chance.
        weak: share of weak faults; the others are medium and strong in equal parts.
        none_share: share of healthy windows.
        without: mechanisms not to use.
        only: mechanisms to use; None for all.
    """
    ways = {
        kind: [way for way in MECHANISMS[kind] if way not in without and (only is None or way in only)]
        for kind in KINDS
    }
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        for _ in range(TRIES):
            one = series[rng.integers(len(series))]
            piece = one.pieces[rng.integers(len(one.pieces))]
            stride = int(rng.choice((1, 1, 1, 2, 3)))
            stride = stride if len(piece) > stride * WINDOW else 1
            start = rng.integers(len(piece) - stride * (WINDOW - 1))
            x = piece[start : start + stride * WINDOW : stride].copy()
            made = _healthy(rng, one, x) if rng.random() < none_share else _faulty(rng, one, x, ways, weak)
            if made is not None:
                yield made
                break


def _healthy(rng: Rng, series: Series, x: Array) -> Made | None:
    if np.ptp(x) == 0 and rng.random() > FLAT_SHARE:
        return None
    if rng.random() < 0.02:
        x[rng.integers(WINDOW)] = np.nan
    return Made(x, "none", None, None, "", series.name, series.family)


def _faulty(rng: Rng, series: Series, x: Array, ways: Mapping[str, list[str]], weak: float) -> Made | None:
    kind = KINDS[rng.integers(len(KINDS))]
    way = ways[kind][rng.integers(len(ways[kind]))]
    strength = 0 if rng.random() < weak else int(rng.integers(1, 3))
    onset = int(rng.integers(8, WINDOW - SEEN_LEAST + 1))
    scale = _scale(rng, series, x)
    y = MECHANISMS[kind][way](rng, x, onset, strength, scale)
    if y is None:
        return None
    # A sensor's numbers come in its own grain, whatever is wrong with it; other injectors leave it out.
    grain = _grain(x)
    if grain > 0 and rng.random() < 0.4:
        y = np.round(y / grain) * grain
    moved = ~(np.abs(y - x) <= 1e-9 * max(np.ptp(x), abs(float(x.mean())), 1e-12))
    if not moved.any():
        return None
    return Made(y, kind, int(moved.argmax()), STRENGTHS[strength], way, series.name, series.family)


def _grain(x: Array) -> float:
    """The step all values are multiples of; 0 where there is none."""
    steps = np.diff(np.unique(x))
    if not len(steps):
        return 0.0
    grain = float(steps.min())
    return grain if bool(np.all(np.abs(x / grain - np.round(x / grain)) < 1e-3)) and np.ptp(x) / grain < 5000 else 0.0


def _scale(rng: Rng, series: Series, x: Array) -> float:
    """One of the scales by which somebody might call a fault medium."""
    std = float(x.std())
    quarter = float(np.subtract(*np.quantile(x, (0.75, 0.25)))) / 1.35
    choices = [std, std, max(quarter, 0.3 * std), float(np.clip(series.scale, 0.7 * std, 4 * std))]
    scale = choices[rng.integers(len(choices))]
    return scale if scale > 0 else (0.02 * abs(float(x[0])) or 1.0) * rng.uniform(0.5, 2.0)


def _end(rng: Rng, onset: int, least: int = SEEN_LEAST) -> int:
    """Most faults last; some are over before the window is."""
    return WINDOW if rng.random() < 0.75 else int(rng.integers(min(onset + least, WINDOW), WINDOW + 1))


def _sign(rng: Rng) -> float:
    return -1.0 if rng.random() < 0.5 else 1.0


def _visible_stuck(x: Array, onset: int, end: int) -> bool:
    """Where a series rests by itself, one that is stuck can't be told."""
    part, rest = x[onset:end], np.concatenate((x[:onset], x[end:]))
    steps = np.abs(np.diff(rest))
    return bool(len(steps) and (steps > 0).mean() > 0.35 and (np.abs(np.diff(part)) > 0).mean() > 0.35)


def _stuck(level: str, noise: float) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
        length = int(rng.integers(*((8, 13), (12, 25), (20, 49))[strength]))
        onset = min(onset, WINDOW - length)
        end = WINDOW if rng.random() < 0.75 else onset + length
        if not _visible_stuck(x, onset, end):
            return None
        y = x.copy()
        value = {"last": x[onset], "random": rng.uniform(x.min(), x.max()), "mean": x[:onset].mean()}[level]
        y[onset:end] = value + noise * scale * rng.normal(size=end - onset)
        return y

    return way


def _ramp(power: float, saw: bool = False) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
        onset = min(onset, WINDOW - 16)
        size = _sign(rng) * scale * rng.uniform(*((1.0, 2.0), (2.5, 4.5), (5.0, 9.0))[strength])
        y = x.copy()
        ramp = np.linspace(0, 1, WINDOW - onset) ** power
        if saw:
            ramp = np.minimum(ramp * 1.3, 1.0)
        y[onset:] += size * ramp
        return y

    return way


def _wander(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
    onset = min(onset, WINDOW - 16)
    size = scale * rng.uniform(*((1.0, 2.0), (2.5, 4.5), (5.0, 9.0))[strength])
    steps = np.abs(rng.normal(1.0, 0.8, WINDOW - onset))
    y = x.copy()
    y[onset:] += _sign(rng) * size * np.cumsum(steps) / steps.sum()
    return y


def _scaled(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
    """The gain drifts, not the offset."""
    onset = min(onset, WINDOW - 16)
    level = float(np.median(x))
    size = scale * rng.uniform(*((1.0, 2.0), (2.5, 4.5), (5.0, 9.0))[strength])
    if abs(level) < 3 * scale:
        return None
    y = x.copy()
    y[onset:] *= 1.0 + _sign(rng) * size / abs(level) * np.linspace(0, 1, WINDOW - onset)
    return y


def _spikes(count: tuple[int, int], width: int, signs: str) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, _onset: int, strength: int, scale: float) -> Array | None:
        n = int(rng.integers(count[0], count[1] + 1))
        usual = float(np.quantile(np.abs(np.diff(x)), 0.95))
        size = max(scale * ((3.0, 5.5, 9.0)[strength] + rng.uniform(0, 2)), usual * (1.0, 1.8, 3.0)[strength])
        places = rng.choice(np.arange(2, WINDOW - width), size=n, replace=False)
        y, sign = x.copy(), _sign(rng)
        for place in places:
            if signs == "both":
                sign = _sign(rng)
            height = sign * size * rng.uniform(0.8, 1.25)
            for step in range(width):
                y[place + step] += height * (1.0 if step == 0 else rng.uniform(0.4, 1.0))
        return y

    return way


def _spike_times(rng: Rng, x: Array, _onset: int, strength: int, scale: float) -> Array | None:
    """A few values are read as a multiple of themselves."""
    y = x.copy()
    for place in rng.choice(np.arange(2, WINDOW - 1), size=int(rng.integers(1, 4)), replace=False):
        y[place] *= (2.5, 5.0, 10.0)[strength] * rng.uniform(0.8, 1.3)
        if abs(y[place] - x[place]) < scale * (2.5, 5.0, 8.0)[strength]:
            return None
    return y


def _dropouts(level: str, pattern: str) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
        shape = pattern
        if shape == "block":
            length = int(rng.integers(*((3, 6), (5, 14), (10, 30))[strength]))
            onset = min(onset, WINDOW - length)
            places = np.arange(onset, onset + length)
        elif shape == "blocks":
            places = np.concatenate(
                [at + np.arange(rng.integers(2, (4, 6, 9)[strength])) for at in rng.integers(4, WINDOW - 9, size=3)]
            )
        else:
            share = (0.1, 0.25, 0.5)[strength]
            places = np.arange(onset, WINDOW)[rng.random(WINDOW - onset) < share]
            if len(places) < 3:
                return None
        value = {
            "zero": 0.0,
            "missing": np.nan,
            "low": x.min() - rng.choice((0.0, 0.5, 2.0)) * scale,
            "code": rng.choice((-1.0, -999.0, -127.0, 0.0, 65535.0)),
            "far": x.mean() - (3.0 + 3.0 * strength) * scale,
        }[level]
        # Zero is no fault where the series goes there by itself.
        if np.isfinite(value) and level != "low":
            near = np.abs(x - value)
            if near.min() < 0.25 * scale or np.median(near) < (1.0, 2.0, 2.5)[strength] * scale:
                return None
        if level == "low" and np.median(np.abs(x - value)) < (0.8, 1.2, 1.5)[strength] * scale:
            return None
        y = x.copy()
        y[places] = value
        if level in ("zero", "far") and rng.random() < 0.25:
            y[places] += 0.01 * scale * rng.normal(size=len(places))
        return y

    return way


def _clip(side: str, whole: bool, soft: bool = False) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
        start = 0 if whole else min(onset, WINDOW - 20)
        q = rng.uniform(*((0.8, 0.92), (0.62, 0.8), (0.35, 0.62))[strength])
        part = x[start:] if rng.random() < 0.5 else x
        y = x.copy()
        if side in ("high", "both"):
            y[start:] = np.minimum(y[start:], np.quantile(part, q if side == "high" else 0.5 + q / 2))
        if side in ("low", "both"):
            y[start:] = np.maximum(y[start:], np.quantile(part, 1 - q if side == "low" else 0.5 - q / 2))
        if soft:
            y[start:] += 0.01 * scale * rng.normal(size=WINDOW - start) * (y[start:] != x[start:])
        cut = np.abs(y - x)
        if (cut > 0.1 * scale).sum() < (4, 6, 9)[strength]:
            return None
        return y

    return way


def _gain(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
    """The signal is driven into the rail: it grows, and the rail cuts it."""
    start = min(onset, WINDOW - 20)
    y = x.copy()
    middle = float(np.median(x))
    rail = middle + _sign(rng) * scale * rng.uniform(*((1.2, 1.8), (0.8, 1.4), (0.4, 1.0))[strength])
    grown = middle + (y[start:] - middle) * rng.uniform(1.2, 2.5)
    y[start:] = np.minimum(grown, rail) if rail > middle else np.maximum(grown, rail)
    if (np.abs(y - rail) < 1e-12 + 1e-9 * abs(rail)).sum() < (5, 8, 11)[strength]:
        return None
    return y


def _noisy(shape: str) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
        end = _end(rng, onset, 16)
        size = scale * rng.uniform(*((0.5, 0.9), (1.1, 2.0), (2.4, 4.5))[strength])
        steps = np.abs(np.diff(x))
        if size < (0.8, 1.3, 2.0)[strength] * float(np.mean(steps)):
            return None
        n = end - onset
        noise = {
            "normal": rng.normal(size=n),
            "uniform": rng.uniform(-1.7, 1.7, n),
            "heavy": np.clip(rng.standard_t(4.0, n), -5, 5) / 1.3,
            "growing": rng.normal(size=n) * np.linspace(0.4, 1.5, n),
            "jitter": np.where(rng.random(n) < 0.5, rng.normal(size=n) * 1.4, 0.0),
            "hum": np.sin(np.pi * np.arange(n) * rng.uniform(0.6, 0.95) + rng.uniform(0, 6)) * 1.3
            + 0.3 * rng.normal(size=n),
        }[shape]
        y = x.copy()
        y[onset:end] += size * noise
        return y

    return way


def _noise_times(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
    """The noise is in proportion to the value."""
    level = float(np.abs(x[onset:]).mean())
    size = scale * rng.uniform(*((0.5, 0.9), (1.1, 2.0), (2.4, 4.5))[strength])
    if level <= 0 or size < (0.8, 1.3, 2.0)[strength] * float(np.mean(np.abs(np.diff(x)))):
        return None
    y = x.copy()
    y[onset:] *= 1.0 + size / level * rng.normal(size=WINDOW - onset)
    return y


def _shift(
    length: int, back: bool = False, way_of: str = "add"
) -> Callable[[Rng, Array, int, int, float], Array | None]:
    def way(rng: Rng, x: Array, onset: int, strength: int, scale: float) -> Array | None:
        size = _sign(rng) * scale * rng.uniform(*((1.0, 1.8), (2.2, 4.0), (4.5, 8.0))[strength])
        end = int(rng.integers(min(onset + 12, WINDOW), WINDOW + 1)) if back else WINDOW
        y = x.copy()
        if way_of == "times":
            level = float(np.median(x))
            if abs(level) < 2 * scale:
                return None
            y[onset:end] *= 1.0 + size / abs(level)
            return y
        ramp = np.clip((np.arange(WINDOW) - onset + 1) / max(length, 1), 0.0, 1.0)
        ramp[end:] = 0.0
        y += size * ramp
        return y

    return way


Mechanism = Callable[[Rng, Array, int, int, float], "Array | None"]

MECHANISMS: Final[Mapping[str, Mapping[str, Mechanism]]] = {
    "stuck": {
        "at the last value": _stuck("last", 0.0),
        "at a random value": _stuck("random", 0.0),
        "at the mean": _stuck("mean", 0.0),
        "with tiny noise": _stuck("last", 0.003),
        "with a little noise": _stuck("random", 0.01),
    },
    "drift": {
        "linear": _ramp(1.0),
        "quadratic": _ramp(2.0),
        "root": _ramp(0.6),
        "to a limit": _ramp(1.0, saw=True),
        "wandering": _wander,
        "of the gain": _scaled,
    },
    "spike": {
        "one": _spikes((1, 1), 1, "same"),
        "few of one sign": _spikes((2, 4), 1, "same"),
        "few of both signs": _spikes((2, 5), 1, "both"),
        "two wide": _spikes((1, 2), 2, "same"),
        "a multiple": _spike_times,
    },
    "dropout": {
        "zeros in a block": _dropouts("zero", "block"),
        "zeros now and then": _dropouts("zero", "scattered"),
        "missing in a block": _dropouts("missing", "block"),
        "missing now and then": _dropouts("missing", "scattered"),
        "lowest value in a block": _dropouts("low", "block"),
        "lowest value now and then": _dropouts("low", "scattered"),
        "error code": _dropouts("code", "scattered"),
        "error code in blocks": _dropouts("code", "blocks"),
        "far below in blocks": _dropouts("far", "blocks"),
    },
    "saturation": {
        "above": _clip("high", whole=True),
        "below": _clip("low", whole=True),
        "above since": _clip("high", whole=False),
        "below since": _clip("low", whole=False),
        "both": _clip("both", whole=False),
        "soft": _clip("high", whole=False, soft=True),
        "driven": _gain,
    },
    "noise": {
        "normal": _noisy("normal"),
        "uniform": _noisy("uniform"),
        "heavy": _noisy("heavy"),
        "growing": _noisy("growing"),
        "jitter": _noisy("jitter"),
        "hum": _noisy("hum"),
        "in proportion": _noise_times,
    },
    "level_shift": {
        "at once": _shift(1),
        "within three": _shift(3),
        "within six": _shift(6),
        "and back": _shift(1, back=True),
        "a multiple": _shift(1, way_of="times"),
    },
}

HELD_OUT: Final = frozenset(
    {"at a random value", "with a little noise", "quadratic", "of the gain", "few of both signs", "two wide",
     "lowest value now and then", "error code in blocks", "far below in blocks", "both", "driven", "heavy", "growing",
     "within three", "a multiple"}
)  # fmt: skip
"""Kept from training where a judge is tried on mechanisms it never saw."""
