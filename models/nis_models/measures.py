"""Measures of judgement on labelled windows: thresholds, recall, precision, calibration, intervals over groups.

Every figure of a report comes from here. Intervals are percentile bootstraps over groups, never over windows: windows
of one run are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

BINS: Final = 15
RESAMPLES: Final = 400
GROUPS_MIN: Final = 5
"""With fewer groups a bootstrap over them says nothing: no interval is better than one of width zero."""
NONE: Final = "none"


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) without overflow."""
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))


@dataclass(frozen=True)
class Scaling:
    """Logit z becomes probability sigmoid((z + shift) / temperature)."""

    temperature: float
    shift: float

    def apply(self, z: Array) -> Array:
        """Probabilities of logits."""
        return sigmoid((z + self.shift) / self.temperature)


def fit_scaling(z: Array, y: Array) -> Scaling:
    """Fit temperature and shift by Newton's method on the cross-entropy, lightly held to 1 and 0."""
    slope, offset = 1.0, 0.0
    for _ in range(50):
        p = sigmoid(slope * z + offset)
        weight = np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([np.sum((p - y) * z) + 0.1 * (slope - 1), np.sum(p - y) + 0.01 * offset])
        hessian = np.array(
            [[np.sum(weight * z * z) + 0.1, np.sum(weight * z)], [np.sum(weight * z), np.sum(weight) + 0.01]]
        )
        step = np.clip(np.linalg.solve(hessian, gradient), -1.0, 1.0)
        slope, offset = max(slope - step[0], 0.05), offset - step[1]
        if np.abs(step).max() < 1e-7:
            break
    return Scaling(temperature=float(1.0 / slope), shift=float(offset / slope))


def best_threshold(p: Array, y: Array) -> float:
    """The probability from which calling it a finding gives the best F1; 0.5 where there is nothing to learn from."""
    if not y.any():
        return 0.5
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + y.sum())
    # Only between two different probabilities a threshold can stand.
    sorted_p = p[order]
    last_of_value = np.append(sorted_p[1:] != sorted_p[:-1], True)
    place = int(np.argmax(np.where(last_of_value, f1, -1)))
    below = sorted_p[place + 1] if place + 1 < len(sorted_p) else 0.0
    return float(np.clip((sorted_p[place] + below) / 2, 0.02, 0.98))


def verdicts(p: Array, thresholds: Array) -> Array:
    """One answer per window: the label farthest above its threshold in log odds, or -1 for none."""
    margin = np.log(np.clip(p, 1e-6, 1 - 1e-6) / (1 - np.clip(p, 1e-6, 1 - 1e-6))) - np.log(
        thresholds / (1 - thresholds)
    )
    best = margin.argmax(axis=1)
    return np.where(margin.max(axis=1) >= 0, best, -1)


def expected_calibration_error(p: Array, y: Array) -> float:
    """Mean gap between probability and frequency over ``BINS`` bins of equal mass."""
    order = np.argsort(p, kind="stable")
    gaps = [abs(p[part].mean() - y[part].mean()) * len(part) for part in np.array_split(order, BINS) if len(part)]
    return float(sum(gaps) / max(len(p), 1))


def reliability(p: Array, y: Array) -> list[dict[str, float]]:
    """Points of a reliability diagram: mean probability, frequency and size of each bin of equal mass."""
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return [
        {"said": round(float(p[part].mean()), 4), "true": round(float(y[part].mean()), 4), "n": len(part)}
        for part in parts
    ]


def log_loss(p: Array, y: Array) -> float:
    """Mean negative log likelihood in nats; certainty is held to 1e-6, so that one sure error stays finite."""
    q = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-(y * np.log(q) + (1 - y) * np.log(1 - q)).mean())


def risk_coverage_area(sure: Array, right: Array) -> float:
    """Mean share of errors among the surest 1, 2, ... n answers: 0 is best. Ties count as the mean of their orders."""
    return float(np.mean(risk_by_coverage(sure, right)))


def risk_by_coverage(sure: Array, right: Array) -> Array:
    """Share of errors among the surest k answers, for k = 1 .. n; equally sure ones are taken in proportion."""
    order = np.argsort(-sure, kind="stable")
    _, inverse, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    errors = np.bincount(inverse, weights=1.0 - right) / counts
    return np.cumsum(errors[inverse][order]) / np.arange(1, len(order) + 1)


def accuracy_at_coverage(sure: Array, right: Array, coverage: float) -> float:
    """Share of right answers among the surest ``coverage`` of all."""
    count = max(1, round(coverage * len(sure)))
    return float(1.0 - risk_by_coverage(sure, right)[count - 1])


def area_under_roc(score: Array, y: Array) -> float | None:
    """Probability that a positive scores above a negative; None without both."""
    positives, negatives = int(y.sum()), int(len(y) - y.sum())
    if positives == 0 or negatives == 0:
        return None
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=ranks, minlength=len(values))
    ranks = (sums / counts)[inverse]
    return float((ranks[y.astype(bool)].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(score: Array, y: Array) -> float | None:
    """Area under precision over recall, stepwise; None without positives."""
    if not y.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(y[order])
    return float((hits / np.arange(1, len(y) + 1))[y[order].astype(bool)].mean())


def bootstrap(groups: Sequence[str], figure: Callable[[Array], float | None], seed: int = 0) -> list[float] | None:
    """95 % interval of a figure of window indices, resampling groups; None when it can't be computed.

    A draw in which the figure is None or NaN (no window of a class) counts for nothing.
    """
    names, codes = np.unique(np.array(groups), return_inverse=True)
    if len(names) < GROUPS_MIN:
        return None
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(names), size=len(names))
        value = figure(np.concatenate([members[i] for i in drawn]))
        if value is not None and not np.isnan(value):
            values.append(value)
    if len(values) < RESAMPLES // 2:
        return None
    return [round(float(v), 4) for v in np.percentile(values, [2.5, 97.5])]


def per_label(
    p: Array, thresholds: Array, y: Array, counted: Array, labels: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """Recall, precision, F1, average precision of each label as a detector of its own."""
    table: dict[str, dict[str, float | int | None]] = {}
    for i, label in enumerate(labels):
        use = counted[:, i] > 0
        truth, said = y[use, i] > 0, p[use, i] >= thresholds[i]
        hits, n_true, n_said = int((truth & said).sum()), int(truth.sum()), int(said.sum())
        recall = hits / n_true if n_true else None
        precision = hits / n_said if n_said else None
        f1 = 2 * hits / (n_true + n_said) if n_true + n_said else None
        area = average_precision(p[use, i], truth)
        table[label] = {
            "n": n_true,
            "recall": _round(recall),
            "precision": _round(precision),
            "f1": _round(f1),
            "average_precision": _round(area),
        }
    return table


def class_recalls(truth: Array, said: Array, classes: int) -> Array:
    """Recall of each class 0..classes-1 and, last, of none (-1); NaN where a class has no window."""
    return np.array([(said[truth == c] == c).mean() if (truth == c).any() else np.nan for c in (*range(classes), -1)])


def class_f1(truth: Array, said: Array, classes: int) -> Array:
    """F1 of each class and, last, of none; NaN where a class has no window."""
    result = []
    for c in (*range(classes), -1):
        n_true, n_said = int((truth == c).sum()), int((said == c).sum())
        result.append(2 * int(((truth == c) & (said == c)).sum()) / (n_true + n_said) if n_true else np.nan)
    return np.array(result)


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
