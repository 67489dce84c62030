"""Evaluation: every judge scaled on the tune split, scored on the test split, side by side.

Test windows speak of trades and in wordings that no training window did, and real runs in it come from groups that no
training window came from. The shipped model is judged as it is packed, through the device's engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nis_edge.monitor.feedback import shifted
from nis_edge.monitor.labels import FAILURE, HEAD_OUTPUTS, LABELS
from nis_models import measures
from nis_models.judges import Judge
from nis_models.measures import Scaling
from nis_models.scenarios import Item, targets_of

Array = np.ndarray[Any, Any]

CLEAN_SHARE: Final = 0.94
HARD_SHARE: Final = 0.9
"""Thresholds are moved together to the lowest place at which at least so many clean and hard-negative tune windows are
called none: an operator who is cried wolf at stops listening."""

UNSEEN: Final = 0.5
"""Threshold of ``failure``, which raises no finding."""


@dataclass(frozen=True)
class Calibration:
    """From logits to probabilities to findings, in the order of the head's outputs."""

    scalings: tuple[Scaling, ...]
    thresholds: tuple[float, ...]

    def probabilities(self, z: Array) -> Array:
        """Calibrated probabilities [n, outputs]."""
        return np.stack([scaling.apply(z[:, i]) for i, scaling in enumerate(self.scalings)], axis=1)


def calibrate(z: Array, items: Sequence[Item]) -> Calibration:
    """Fit a judge's scaling and thresholds.

    Args:
        z: its logits on the tune split.
        items: the tune split.
    """
    targets, counted = _targets(items)
    scalings = []
    for i in range(len(HEAD_OUTPUTS)):
        use = counted[:, i] > 0
        scalings.append(measures.fit_scaling(z[use, i], targets[use, i]))
    p = Calibration(tuple(scalings), ()).probabilities(z)
    labels = len(LABELS)
    thresholds = np.array(
        [measures.best_threshold(p[counted[:, i] > 0, i], targets[counted[:, i] > 0, i]) for i in range(labels)]
    )
    clean = np.array([_is_clean(item) for item in items])
    hard = np.array([item.hard_negative_for is not None for item in items])
    logits = np.log(thresholds / (1 - thresholds))
    for raised in np.arange(-2.0, 3.01, 0.1):
        thresholds = measures.sigmoid(logits + raised)
        silent = measures.verdicts(p[:, :labels], thresholds) == -1
        if silent[clean].mean() >= CLEAN_SHARE and (not hard.any() or silent[hard].mean() >= HARD_SHARE):
            break
    return Calibration(tuple(scalings), (*(float(t) for t in np.clip(thresholds, 0.02, 0.98)), UNSEEN))


def where_expected(calibration: Calibration, rates: Mapping[str, float], share: float) -> Calibration:
    """The calibration with thresholds moved as far as the monitor moves probabilities (``monitor.judge.at_share``).

    Args:
        calibration: of a package.
        rates: label -> share of the windows it was calibrated on in which the finding held.
        share: of windows in which a given finding is expected to hold.
    """
    moved = [
        shifted(threshold, _logit(rates[label]) - _logit(share)) if label in rates else threshold
        for label, threshold in zip(LABELS, calibration.thresholds, strict=False)
    ]
    return Calibration(calibration.scalings, (*moved, UNSEEN))


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


def score(z: Array, items: Sequence[Item], calibration: Calibration) -> dict[str, Any]:
    """All figures of one judge on one set of items.

    Args:
        z: its logits.
        items: what it judged.
        calibration: fitted elsewhere.
    """
    targets, counted = _targets(items)
    p = calibration.probabilities(z)
    labels = len(LABELS)
    thresholds = np.array(calibration.thresholds[:labels])
    groups = [item.group for item in items]
    truth = np.array([_truth(item) for item in items])
    said = measures.verdicts(p[:, :labels], thresholds)
    single = np.flatnonzero(truth > -2)
    clean = np.flatnonzero([_is_clean(item) for item in items])
    hard = np.flatnonzero([item.hard_negative_for is not None for item in items])
    return {
        "n": len(items),
        "groups": len(set(groups)),
        "balanced_accuracy": _with_interval(
            single, groups, lambda rows: np.nanmean(measures.class_recalls(truth[rows], said[rows], labels))
        ),
        "macro_f1": _with_interval(
            single, groups, lambda rows: np.nanmean(measures.class_f1(truth[rows], said[rows], labels))
        ),
        "injected_recall_mean": _with_interval(
            single, groups, lambda rows: np.nanmean(measures.class_recalls(truth[rows], said[rows], labels)[:-1])
        ),
        "clean_called_none": _with_interval(clean, groups, lambda rows: (said[rows] == -1).mean()),
        "hard_negatives_called_none": _with_interval(hard, groups, lambda rows: (said[rows] == -1).mean()),
        "labels": measures.per_label(p[:, :labels], thresholds, targets[:, :labels], counted[:, :labels], LABELS),
        "class_recall": _named(measures.class_recalls(truth[single], said[single], labels)),
        "calibration": _calibration_figures(p, targets, counted),
        "failure": _failure(z, items),
    }


def compare(
    judged: Mapping[str, Judge],
    tune: Sequence[Item],
    test: Sequence[Item],
    fixed: Mapping[str, Calibration] | None = None,
) -> dict[str, Any]:
    """Score several judges on the test split, whole and by source.

    Args:
        judged: name -> judge.
        tune: where scalings and thresholds are fitted.
        test: what they are scored on.
        fixed: calibrations that are part of a judge (a package's own) and not to be fitted.
    """
    report: dict[str, Any] = {}
    said: dict[str, Array] = {}
    sources = sorted({item.source for item in test})
    for name, judge in judged.items():
        calibration = (fixed or {}).get(name) or calibrate(judge(tune), tune)
        z = judge(test)
        report[name] = {"all": score(z, test, calibration), "by_source": {}}
        said[name] = measures.verdicts(
            calibration.probabilities(z)[:, : len(LABELS)], np.array(calibration.thresholds[: len(LABELS)])
        )
        for source in sources:
            rows = [i for i, item in enumerate(test) if item.source == source]
            report[name]["by_source"][source] = score(z[rows], [test[i] for i in rows], calibration)
    if "model" in said:
        for name in report:
            report[name]["all"]["model_gains"] = _gain(said["model"], said[name], test)
    if "alone" in said and "float_twin" in said:
        report["float_twin"]["all"]["ternary_gains"] = _gain(said["alone"], said["float_twin"], test)
    return report


def _gain(mine: Array, other: Array, items: Sequence[Item]) -> dict[str, Any]:
    """How much more balanced accuracy one judge's verdicts reach than another's on the same windows, paired."""
    truth = np.array([_truth(item) for item in items])
    single = np.flatnonzero(truth > -2)
    labels = len(LABELS)

    def difference(rows: Array) -> float:
        a, b = (np.nanmean(measures.class_recalls(truth[rows], said[rows], labels)) for said in (mine, other))
        return float(a - b)

    groups = [items[i].group for i in single]
    return {
        "value": round(difference(single), 4),
        "ci95": measures.bootstrap(groups, lambda drawn: difference(single[drawn])),
    }


def _targets(items: Sequence[Item]) -> tuple[Array, Array]:
    pairs = [targets_of(item) for item in items]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def _is_clean(item: Item) -> bool:
    return not item.labels and item.known is None


def _truth(item: Item) -> int:
    """Index of the one finding, -1 for none, -2 where a single class can't be named."""
    if item.known is not None or len(item.labels) > 1:
        return -2
    return LABELS.index(item.labels[0]) if item.labels else -1


def _with_interval(rows: Array, groups: Sequence[str], figure: Any) -> dict[str, Any] | None:
    if len(rows) == 0:
        return None
    names = [groups[i] for i in rows]
    interval = measures.bootstrap(names, lambda drawn: float(figure(rows[drawn])))
    value = float(figure(rows))
    return None if math.isnan(value) else {"value": round(value, 4), "ci95": interval, "n": len(rows)}


def _named(recalls: Array) -> dict[str, float | None]:
    return {
        name: None if np.isnan(v) else round(float(v), 4)
        for name, v in zip((*LABELS, measures.NONE), recalls, strict=True)
    }


def _calibration_figures(p: Array, targets: Array, counted: Array) -> dict[str, Any]:
    use = counted[:, : len(LABELS)] > 0
    pooled_p, pooled_y = p[:, : len(LABELS)][use], targets[:, : len(LABELS)][use]
    all_known = use.all(axis=1)
    top = p[all_known, : len(LABELS)].max(axis=1) if all_known.any() else np.array([])
    rows = np.flatnonzero(all_known)
    right = targets[rows, p[rows, : len(LABELS)].argmax(axis=1)] if len(rows) else np.array([])
    return {
        "ece_all_labels": round(measures.expected_calibration_error(pooled_p, pooled_y), 4) if len(pooled_p) else None,
        "ece_top_label": round(measures.expected_calibration_error(top, right), 4) if len(top) else None,
        "brier": round(float(((pooled_p - pooled_y) ** 2).mean()), 4) if len(pooled_p) else None,
        "bins": measures.BINS,
    }


def _failure(z: Array, items: Sequence[Item]) -> dict[str, Any] | None:
    rows = np.flatnonzero([item.failure is not None for item in items])
    if len(rows) == 0:
        return None
    y = np.array([float(bool(items[i].failure)) for i in rows])
    scores = z[rows, HEAD_OUTPUTS.index(FAILURE)]
    value = measures.area_under_roc(scores, y)
    interval = measures.bootstrap(
        [items[i].group for i in rows], lambda drawn: measures.area_under_roc(scores[drawn], y[drawn])
    )
    return {
        "auroc": None if value is None else round(value, 4),
        "ci95": interval,
        "n": len(rows),
        "failed": int(y.sum()),
    }
