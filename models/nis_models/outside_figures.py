"""Figures of lines from outside: everything the lines have labels for, whole and by system, with intervals.

Intervals are bootstraps over ``group``. Beside each stand two judges that know nothing: the most frequent answer, and
one that sees only how long a line is, fitted on the other groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from nis_edge.monitor.feeds import LABELS as FEED_LABELS
from nis_edge.monitor.labels import LABELS
from nis_models import measures
from nis_models.measures import NONE
from nis_models.outside import Judged, JudgedDevice, JudgedPhysics, Result
from nis_models.outside_lines import Refused

Array = np.ndarray[Any, Any]

REFUSED_NAMED_MAX: Final = 50
FOLDS: Final = 5
ONSET_WITHIN: Final = 4


def report(results: Iterable[Result]) -> dict[str, Any]:
    """All figures of the lines that were judged."""
    rows = list(results)
    refused = [row for row in rows if isinstance(row, Refused)]
    traces = [row for row in rows if isinstance(row, Judged)]
    runs = [row for row in traces if row.line.kind == "run"]
    windows = [row for row in traces if row.line.kind == "window"]
    devices = [row for row in rows if isinstance(row, JudgedDevice)]
    items = [row for row in rows if isinstance(row, JudgedPhysics)]
    unknown = Counter(name for row in traces for name in row.line.unknown)
    result: dict[str, Any] = {
        "lines": len(rows),
        "judged": len(rows) - len(refused),
        "refused": len(refused),
        "refused_lines": [vars(row) for row in refused[:REFUSED_NAMED_MAX]],
        "names_not_in_vocabulary": dict(unknown.most_common(40)),
    }
    if runs:
        result["runs"] = _by(runs, lambda row: row.line.system, of_runs)
    if windows:
        result["windows"] = _by(windows, lambda row: row.line.source, of_windows)
    if devices:
        result["device"] = of_devices(devices)
    if items:
        result["physics"] = of_physics(items)
    return result


def _by(rows: list[Any], key: Callable[[Any], str], figures: Callable[[list[Any]], dict[str, Any]]) -> dict[str, Any]:
    names = sorted({key(row) for row in rows})
    by = {name: figures([row for row in rows if key(row) == name]) for name in names}
    return {"all": figures(rows), "by_system": by}


# --- runs -------------------------------------------------------------------------------------------------------------


def of_runs(rows: list[Judged]) -> dict[str, Any]:
    """Outcome, findings, steps of runs."""
    figures: dict[str, Any] = {"n": len(rows), "groups": len({row.line.group for row in rows})}
    known = [row for row in rows if row.line.outcome is not None]
    if known:
        figures["outcome"] = of_outcomes(known)
    labelled = [row for row in rows if row.line.findings is not None]
    if any(row.line.findings for row in labelled):
        figures["findings"] = _of_findings(labelled)
    stepped = [row for row in rows if row.line.steps]
    if stepped:
        figures["steps"] = _of_steps(stepped)
    return figures


def of_outcomes(rows: list[Judged]) -> dict[str, Any]:
    """How well P(run fails) tells failed runs from others, and whether it means what it says."""
    answered = [row for row in rows if row.failure is not None]
    if not answered:
        return {"n": len(rows), "reason": "no model answered"}
    y = np.array([1.0 - float(row.line.outcome or 0) for row in answered])
    groups = [row.line.group for row in answered]
    p = np.array([row.failure for row in answered], dtype=float)
    length = np.array([len(row.line.agents) for row in answered], dtype=float)
    share = float(y.mean())
    judges = {
        "model": p,
        "majority": np.full(len(y), share),
        "length_only": across_groups(np.log1p(length), y, groups),
        "findings_count": across_groups(np.array([float(len(row.found)) for row in answered]), y, groups),
    }
    return {
        "n": len(answered),
        "unanswered": len(rows) - len(answered),
        "failed": int(y.sum()),
        "judges": {name: binary_figures(score, y, groups) for name, score in judges.items()},
        "reliability": measures.reliability(p, y),
    }


def binary_figures(p: Array, y: Array, groups: Sequence[str]) -> dict[str, Any]:
    """Ranking and calibration of probabilities of a yes."""
    right = ((p >= 0.5) == (y > 0.5)).astype(float)
    sure = np.maximum(p, 1 - p)
    auroc = measures.area_under_roc(p, y)
    return {
        "auroc": _round(auroc),
        "auroc_ci95": measures.bootstrap(groups, lambda i: measures.area_under_roc(p[i], y[i])),
        "accuracy": _round(right.mean()),
        "ece": _round(measures.expected_calibration_error(p, y)),
        "ece_ci95": measures.bootstrap(groups, lambda i: measures.expected_calibration_error(p[i], y[i])),
        "brier": _round(((p - y) ** 2).mean()),
        "nll": _round(measures.log_loss(p, y)),
        "risk_coverage_area": _round(measures.risk_coverage_area(sure, right)),
        "accuracy_at_80_coverage": _round(measures.accuracy_at_coverage(sure, right, 0.8)),
    }


def across_groups(x: Array, y: Array, groups: Sequence[str]) -> Array:
    """Probabilities of a yes by one number, each from a fit on the other groups."""
    names, codes = np.unique(np.array(groups), return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[codes] % FOLDS
    p = np.full(len(y), float(y.mean()))
    for part in range(FOLDS):
        rest, own = fold != part, fold == part
        if not own.any() or len(set(y[rest].tolist())) < 2 or float(x[rest].std()) == 0.0:
            continue
        z = (x - x[rest].mean()) / x[rest].std()
        area = measures.area_under_roc(z[rest], y[rest])
        z = -z if area is not None and area < 0.5 else z
        p[own] = measures.fit_scaling(z[rest], y[rest]).apply(z[own])
    return p


def _of_findings(rows: list[Judged]) -> dict[str, Any]:
    """Each finding as a detector of its own over runs: was it said in those that have it, and not in the others."""
    labels: dict[str, Any] = {}
    for label in LABELS:
        truth = np.array([label in (row.line.findings or ()) for row in rows])
        if not truth.any() or truth.all():
            continue
        said = np.array([label in row.found for row in rows])
        score = np.array([row.probabilities.get(label, 0.0) for row in rows])
        labels[label] = {
            "n": int(truth.sum()),
            "recall": _round(said[truth].mean()),
            "specificity": _round((~said[~truth]).mean()),
            "balanced_accuracy": _round((said[truth].mean() + (~said[~truth]).mean()) / 2),
            "auroc": _round(measures.area_under_roc(score, truth.astype(float))),
        }
    any_true = np.array([bool(row.line.findings) for row in rows])
    any_said = np.array([bool(row.found) for row in rows])
    groups = [row.line.group for row in rows]

    def mean(i: Array) -> float | None:
        per = []
        for label in labels:
            truth = np.array([label in (rows[k].line.findings or ()) for k in i])
            said = np.array([label in rows[k].found for k in i])
            if truth.any() and not truth.all():
                per.append((said[truth].mean() + (~said[~truth]).mean()) / 2)
        return float(np.mean(per)) if per else None

    everything = np.arange(len(rows))
    return {
        "n": len(rows),
        "labels": labels,
        "balanced_accuracy": _round(mean(everything)),
        "balanced_accuracy_ci95": measures.bootstrap(groups, mean),
        "any_finding": {
            "recall": _round(any_said[any_true].mean()) if any_true.any() else None,
            "specificity": _round((~any_said[~any_true]).mean()) if (~any_true).any() else None,
        },
        "majority": 0.5,
    }


def _of_steps(rows: list[Judged]) -> dict[str, Any]:
    groups = [row.line.group for row in rows]
    truth = [{step for step, _ in row.line.steps if step is not None} for row in rows]
    names = [{agent for _, agent in row.line.steps if agent} for row in rows]
    near = np.array([any(abs(i - s) <= 1 for i in row.locus for s in t) for row, t in zip(rows, truth, strict=True)])
    exact = np.array([bool(set(row.locus) & t) for row, t in zip(rows, truth, strict=True)])
    said = [set(row.named) | {row.line.agents[i] for i in row.locus if i < len(row.line.agents)} for row in rows]
    agent = np.array([bool(s & n) for s, n in zip(said, names, strict=True)])
    first = np.array([bool(row.named) and row.named[0] in n for row, n in zip(rows, names, strict=True)])
    with_step = np.array([bool(t) for t in truth])
    with_agent = np.array([bool(n) for n in names])
    guess = [row.suspect if row.suspect is not None and row.suspect < len(row.line.agents) else None for row in rows]
    looked = [g is not None and any(abs(g - s) <= 1 for s in t) for g, t in zip(guess, truth, strict=True)]
    asked = [g is not None and row.line.agents[g] in n for g, row, n in zip(guess, rows, names, strict=True)]
    chance = [
        np.mean([any(abs(i - s) <= 1 for s in t) for i in range(len(row.line.agents))]) if row.line.agents else 0.0
        for row, t in zip(rows, truth, strict=True)
    ]
    last = [any(abs(len(row.line.agents) - 1 - s) <= 1 for s in t) for row, t in zip(rows, truth, strict=True)]
    busiest = [
        bool(row.line.agents) and Counter(row.line.agents).most_common(1)[0][0] in n
        for row, n in zip(rows, names, strict=True)
    ]

    def rate(hits: Any, use: Array) -> dict[str, Any]:
        hits = np.asarray(hits, dtype=float)[use]
        kept = [group for group, is_used in zip(groups, use, strict=True) if is_used]
        if not len(hits):
            return {"value": None, "ci95": None, "n": 0}
        interval = measures.bootstrap(kept, lambda i: float(hits[i].mean()))
        return {"value": _round(hits.mean()), "ci95": interval, "n": len(hits)}

    return {
        "n": len(rows),
        "step_exact": rate(exact, with_step),
        "step_within_one": rate(near, with_step),
        "agent": rate(agent, with_agent),
        "agent_named_first": rate(first, with_agent),
        "suspect_step_within_one": rate(looked, with_step),
        "suspect_agent": rate(asked, with_agent),
        "silent": int(sum(not row.found for row in rows)),
        "baselines": {
            "one_random_step_within_one": rate(chance, with_step),
            "last_step_within_one": rate(last, with_step),
            "busiest_agent": rate(busiest, with_agent),
        },
    }


# --- windows ----------------------------------------------------------------------------------------------------------


def of_windows(rows: list[Judged]) -> dict[str, Any]:
    """One answer per window against its label; the labels as detectors; hard negatives; where; how sure."""
    figures: dict[str, Any] = {"n": len(rows), "groups": len({row.line.group for row in rows})}
    labelled = [row for row in rows if row.line.truth is not None]
    hard = [row for row in rows if row.line.hard_negative_for]
    if hard:
        figures["hard_negatives_called_none"] = _share([float(row.first == NONE) for row in hard], hard)
    if not labelled:
        return figures
    single = [row for row in labelled if len(row.line.truth or ()) <= 1]
    if single:
        truth = _codes([next(iter(row.line.truth or ()), NONE) for row in single])
        groups = [row.line.group for row in single]
        judges = {
            "monitor": _codes([row.first for row in single]),
            "majority": np.full(len(single), Counter(truth.tolist()).most_common(1)[0][0]),
            "length_only": _by_length(single, truth, groups),
        }
        figures["judges"] = {name: _class_figures(truth, said, groups) for name, said in judges.items()}
        figures["recall"] = _recalls(truth, judges["monitor"])
        right = [
            float(row.first in (row.line.truth or ()) or (row.first == NONE and not row.line.truth)) for row in single
        ]
        sure = [(row.confidence, r) for row, r in zip(single, right, strict=True) if row.confidence is not None]
        if sure:
            p, y = np.array([c for c, _ in sure]), np.array([r for _, r in sure])
            figures["confidence"] = {
                "n": len(sure),
                "ece": _round(measures.expected_calibration_error(p, y)),
                "brier": _round(((p - y) ** 2).mean()),
                "nll": _round(measures.log_loss(p, y)),
                "auroc_for_correctness": _round(measures.area_under_roc(p, y)),
                "risk_coverage_area": _round(measures.risk_coverage_area(p, y)),
                "accuracy_at_80_coverage": _round(measures.accuracy_at_coverage(p, y, 0.8)),
                "reliability": measures.reliability(p, y),
            }
    figures.update(_label_figures(labelled))
    located = [row for row in labelled if row.line.truth and row.line.locus]
    if located:
        hits = [float(any(abs(i - j) <= 1 for i in row.locus for j in row.line.locus)) for row in located]
        figures["locus_within_one"] = _share(hits, located)
        named = [row for row in located if row.first in (row.line.truth or ())]
        figures["locus_within_one_where_named"] = _share(
            [float(any(abs(i - j) <= 1 for i in row.locus for j in row.line.locus)) for row in named], named
        )
    return figures


def _label_figures(rows: list[Judged]) -> dict[str, Any]:
    """Each finding as a detector of its own, and the calibration of all probabilities together."""
    asked = [row for row in rows if row.probabilities]
    table: dict[str, Any] = {}
    for label in LABELS:
        truth = np.array([label in (row.line.truth or ()) for row in rows])
        if not truth.any():
            continue
        said = np.array([label in row.found for row in rows])
        score = np.array([max(row.probabilities.get(label, 0.0), float(label in row.alerts)) for row in rows])
        table[label] = {
            "n": int(truth.sum()),
            "recall": _round(said[truth].mean()),
            "precision": _round(truth[said].mean()) if said.any() else None,
            "auprc": _round(measures.average_precision(score, truth.astype(float))),
            "auroc": _round(measures.area_under_roc(score, truth.astype(float))),
        }
    areas = [entry["auprc"] for entry in table.values() if entry["auprc"] is not None]
    result: dict[str, Any] = {"labels": table, "auprc_macro": _round(np.mean(areas)) if areas else None}
    if asked:
        p = np.array([row.probabilities[label] for row in asked for label in LABELS])
        y = np.array([float(label in (row.line.truth or ())) for row in asked for label in LABELS])
        result["ece_all_labels"] = _round(measures.expected_calibration_error(p, y))
        result["brier_all_labels"] = _round(((p - y) ** 2).mean())
    return result


def _codes(names: Iterable[str]) -> Array:
    return np.array([LABELS.index(name) if name in LABELS else -1 for name in names])


def _recalls(truth: Array, said: Array) -> dict[str, float | None]:
    recalls = measures.class_recalls(truth, said, len(LABELS))
    return {name: _round(v) for name, v in zip((*LABELS, NONE), recalls, strict=True) if not np.isnan(v)}


def _class_figures(truth: Array, said: Array, groups: Sequence[str]) -> dict[str, Any]:
    def balanced(i: Array) -> float:
        return float(np.nanmean(measures.class_recalls(truth[i], said[i], len(LABELS))))

    def injected(i: Array) -> float | None:
        recalls = measures.class_recalls(truth[i], said[i], len(LABELS))[:-1]
        return None if np.isnan(recalls).all() else float(np.nanmean(recalls))

    def f1(i: Array) -> float:
        return float(np.nanmean(measures.class_f1(truth[i], said[i], len(LABELS))))

    whole = np.arange(len(truth))
    return {
        "n": len(truth),
        "balanced_accuracy": _round(balanced(whole)),
        "balanced_accuracy_ci95": measures.bootstrap(groups, balanced),
        "injected_recall_mean": _round(injected(whole)),
        "injected_recall_mean_ci95": measures.bootstrap(groups, injected),
        "macro_f1": _round(f1(whole)),
        "macro_f1_ci95": measures.bootstrap(groups, f1),
        "accuracy": _round((truth == said).mean()),
    }


def _by_length(rows: list[Judged], truth: Array, groups: Sequence[str]) -> Array:
    """The class whose windows are as long, of those of other groups: Gaussian, all classes equally likely."""
    sizes = [[len(event.text or "") for event in row.line.events] for row in rows]
    x = np.array([[np.log1p(len(s)), np.log1p(sum(s)), np.log1p(s[-1] if s else 0)] for s in sizes])
    names, codes = np.unique(np.array(groups), return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[codes] % FOLDS
    said = np.full(len(rows), -1)
    for part in range(FOLDS):
        own, rest = fold == part, fold != part
        classes = [c for c in np.unique(truth[rest]) if (truth[rest] == c).sum() >= 2] if rest.any() else []
        if not own.any() or not classes:
            continue
        scores = []
        for c in classes:
            seen = x[rest][truth[rest] == c]
            centre, spread = seen.mean(axis=0), seen.std(axis=0) + 0.1
            scores.append(-0.5 * (((x[own] - centre) / spread) ** 2).sum(axis=1) - np.log(spread).sum())
        said[own] = np.array(classes)[np.array(scores).argmax(axis=0)]
    return said


# --- device windows and physics items ---------------------------------------------------------------------------------


def of_devices(rows: list[JudgedDevice]) -> dict[str, Any]:
    """Balanced accuracy over the eight answers, whole and by strength; healthy windows stand in every strength."""
    labelled = [row for row in rows if row.line.label is not None]
    if not labelled:
        return {"n": len(rows), "reason": "no line has a label"}
    strengths = sorted({row.line.strength for row in labelled if row.line.label != NONE})
    calm = [row for row in labelled if row.line.label == NONE]
    return {
        "n": len(rows),
        "groups": len({row.line.group for row in rows}),
        "all": _feed_figures(labelled),
        "by_strength": {
            s: _feed_figures([*calm, *(r for r in labelled if r.line.label != NONE and r.line.strength == s)])
            for s in strengths
        },
    }


def _feed_figures(rows: list[JudgedDevice]) -> dict[str, Any]:
    truth = np.array([FEED_LABELS.index(r.line.label) if r.line.label in FEED_LABELS else -1 for r in rows])
    said = np.array([FEED_LABELS.index(r.first) if r.first in FEED_LABELS else -1 for r in rows])
    groups = [row.line.group for row in rows]
    recalls = measures.class_recalls(truth, said, len(FEED_LABELS))

    def balanced(i: Array) -> float:
        return float(np.nanmean(measures.class_recalls(truth[i], said[i], len(FEED_LABELS))))

    placed = [r for r in rows if r.line.onset is not None and r.first == r.line.label != NONE and r.onset is not None]
    return {
        "n": len(rows),
        "balanced_accuracy": _round(balanced(np.arange(len(rows)))),
        "balanced_accuracy_ci95": measures.bootstrap(groups, balanced),
        "recall": {n: _round(v) for n, v in zip((*FEED_LABELS, NONE), recalls, strict=True) if not np.isnan(v)},
        "onset_within_4": _round(
            np.mean([abs((r.onset or 0) - (r.line.onset or 0)) <= ONSET_WITHIN for r in placed])
        ) if placed else None,
        "majority": _round(1.0 / max(1, len(set(truth.tolist())))),
    }  # fmt: skip


def of_physics(rows: list[JudgedPhysics]) -> dict[str, Any]:
    """Accuracy by law and by level, and what could not be read."""
    labelled = [row for row in rows if row.line.label is not None]
    if not labelled:
        return {"n": len(rows), "reason": "no line has a label"}

    def figures(part: list[JudgedPhysics]) -> dict[str, Any]:
        right = np.array([float(row.said.label == row.line.label) for row in part])
        truth = [row.line.label for row in part]
        groups = [row.line.group for row in part]
        sides = [right[[t == side for t in truth]].mean() for side in set(truth)]
        return {
            "n": len(part),
            "accuracy": _round(right.mean()),
            "accuracy_ci95": measures.bootstrap(groups, lambda i: float(right[i].mean())),
            "balanced_accuracy": _round(np.mean(sides)),
            "majority": _round(Counter(truth).most_common(1)[0][1] / len(part)),
            "unread": sum(row.said.decision == "unread" for row in part),
            "undecided": sum(row.said.decision == "undecidable" for row in part),
        }

    laws, levels = ({row.line.law for row in labelled}, {row.line.level for row in labelled})
    return {
        "all": figures(labelled),
        "by_law": {law: figures([r for r in labelled if r.line.law == law]) for law in sorted(laws)},
        "by_level": {level: figures([r for r in labelled if r.line.level == level]) for level in sorted(levels)},
        "note": "words are read by a parser, numbers are decided by the validator; this measures the parser",
    }


def _share(hits: list[float], rows: Sequence[Judged]) -> dict[str, Any] | None:
    if not hits:
        return None
    values = np.array(hits)
    groups = [row.line.group for row in rows]
    interval = measures.bootstrap(groups, lambda i: float(values[i].mean()))
    return {"value": _round(values.mean()), "ci95": interval, "n": len(hits)}


def _round(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)
