"""Suites *injected* and *outcome*: every judge and ablation on the same labelled windows, with all figures.

Ablations: rules alone; regression and boosted trees on the evidence; the model on text only, with evidence, and fused
with the package's tables. Baselines: majority, length, words (TF-IDF). All but the package as it ships are scaled on
the tune split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nis_edge.judgement import WindowReader
from nis_edge.monitor.evidence import EventEvidence, Evidence, gather
from nis_edge.monitor.labels import FAILURE, HEAD_OUTPUTS, LABELS
from nis_edge.monitor.machine import Options
from nis_edge.monitor.rules import RuleOptions
from nis_edge.monitor.window import render_with
from nis_edge.replay import Replay
from nis_edge.wire.messages import Reading
from nis_models import evaluate, judges, measures
from nis_models.evaluate import Calibration
from nis_models.scenarios import Item

if TYPE_CHECKING:
    from nis_edge.engine.model import Model

Array = np.ndarray[Any, Any]

RULE_LOGIT: Final = 3.0
MODEL: Final = "fused"
"""The package as it ships: rules aside, what the daemon asks."""

ABLATIONS: Final = ("rules", "evidence", "trees", "text_only", "model", MODEL)
BASELINES: Final = ("majority", "length", "words")


def judge_all(
    model: Model,
    train: Sequence[Item],
    tune: Sequence[Item],
    test: Sequence[Item],
    tell: Callable[[str], None],
    wanted: Sequence[str] = (*BASELINES, *ABLATIONS),
) -> dict[str, Array]:
    """Calibrated probabilities and thresholds of every judge on the test windows: name -> [n + 1, outputs].

    The last row holds the thresholds.
    """
    known: dict[str, Callable[[], judges.Judge]] = {
        "majority": lambda: judges.baseline("majority", train),
        "length": lambda: judges.baseline("length", train),
        "words": lambda: judges.baseline("words", train),
        "evidence": lambda: judges.baseline("evidence", train),
        "trees": lambda: judges.baseline("evidence", train, trees=True),
        "rules": lambda: rules_alone,
        "text_only": lambda: text_only(model),
        "model": lambda: judges.alone(model),
        MODEL: lambda: judges.packed(model),
    }
    said: dict[str, Array] = {}
    for name in wanted:
        tell(f"{name} ...")
        judge = known[name]()
        calibration = packaged(model) if name == MODEL else evaluate.calibrate(judge(tune), tune)
        p = calibration.probabilities(judge(test))
        said[name] = np.concatenate([p, np.array(calibration.thresholds)[None]], axis=0)
    return said


def injected(said: dict[str, Array], items: Sequence[Item]) -> dict[str, Any]:
    """Findings: every judge, whole and by system."""
    sources = sorted({item.source for item in items})
    report: dict[str, Any] = {}
    for name, table in said.items():
        report[name] = {"all": _findings(table, items, range(len(items))), "by_system": {}}
        for source in sources:
            rows = [i for i, item in enumerate(items) if item.source == source]
            report[name]["by_system"][source] = _findings(table, items, rows)
    return report


def outcome(said: dict[str, Array], items: Sequence[Item]) -> dict[str, Any]:
    """Whether the run fails: every judge, whole and by system; None where no window has an outcome."""
    from nis_models.outside_figures import binary_figures

    at = HEAD_OUTPUTS.index(FAILURE)
    rows = [i for i, item in enumerate(items) if item.failure is not None]
    sources = sorted({items[i].source for i in rows})
    report: dict[str, Any] = {}
    for name, table in said.items():
        if name == "rules":
            continue
        parts = {"all": rows, **{source: [i for i in rows if items[i].source == source] for source in sources}}
        figures: dict[str, Any] = {}
        for part, chosen in parts.items():
            if not chosen:
                continue
            p = table[:-1][chosen, at]
            y = np.array([float(bool(items[i].failure)) for i in chosen])
            figures[part] = {
                "n": len(chosen),
                "failed": int(y.sum()),
                **binary_figures(p, y, [items[i].group for i in chosen]),
                "reliability": measures.reliability(p, y),
            }
        systems = [figures[s]["auroc"] for s in sources if s in figures and figures[s]["auroc"] is not None]
        report[name] = {
            "all": figures.pop("all", None), "by_system": figures,
            "auroc_mean_of_systems": round(float(np.mean(systems)), 4) if systems else None,
        }  # fmt: skip
    return report


def _findings(table: Array, items: Sequence[Item], rows: Sequence[int]) -> dict[str, Any]:
    part = [items[i] for i in rows]
    p, thresholds = table[:-1][list(rows)], table[-1]
    shaped = Calibration(tuple(measures.Scaling(1.0, 0.0) for _ in HEAD_OUTPUTS), tuple(float(t) for t in thresholds))
    q = np.clip(p, 1e-9, 1 - 1e-9)
    figures = evaluate.score(np.log(q / (1 - q)), part, shaped)
    figures.pop("failure", None)
    single = [i for i, item in enumerate(part) if item.known is None and len(item.labels) <= 1]
    if single:
        labels = len(LABELS)
        said = measures.verdicts(p[single][:, :labels], thresholds[:labels])
        truth = np.array([LABELS.index(part[i].labels[0]) if part[i].labels else -1 for i in single])
        sure = confidence_of(p[single][:, :labels], said)
        right = (said == truth).astype(float)
        groups = [part[i].group for i in single]
        figures["confidence"] = {
            "ece": _round(measures.expected_calibration_error(sure, right)),
            "ece_ci95": measures.bootstrap(groups, lambda i: measures.expected_calibration_error(sure[i], right[i])),
            "brier": _round(((sure - right) ** 2).mean()),
            "nll": _round(measures.log_loss(sure, right)),
            "risk_coverage_area": _round(measures.risk_coverage_area(sure, right)),
            "accuracy_at_80_coverage": _round(measures.accuracy_at_coverage(sure, right, 0.8)),
            "metacognitive_auroc": _round(measures.area_under_roc(sure, right)),
            "metacognitive_auroc_ci95": measures.bootstrap(
                groups, lambda i: measures.area_under_roc(sure[i], right[i])
            ),
            "reliability": measures.reliability(sure, right),
            "risk_by_coverage": _thinned(measures.risk_by_coverage(sure, right)),
        }
        figures["auprc_macro"] = _mean_of(figures["labels"], "average_precision")
    return figures


def confidence_of(p: Array, said: Array) -> Array:
    """Confidence in the answer: the finding's probability; for none, that no finding holds."""
    none = np.prod(1.0 - p, axis=1)
    return np.where(said >= 0, p[np.arange(len(p)), np.maximum(said, 0)], none)


def rules_alone(items: Sequence[Item]) -> Array:
    """The rules through the daemon's machine, as logits of two values."""
    z = np.full((len(items), len(HEAD_OUTPUTS)), -RULE_LOGIT)
    for row, item in enumerate(items):
        replay = replay_of(item, None)
        for episode in replay.episodes:
            if episode.finding.label in LABELS and episode.cleared_at is None:
                z[row, LABELS.index(episode.finding.label)] = RULE_LOGIT
    return z


def replay_of(item: Item, judge: Any) -> Replay:
    """Put an item's events through the daemon's monitor, its device's readings first."""
    window = item.window
    replay = Replay(Options(rules=RuleOptions(time_known=window.time_known)), judge, "" if judge else "rules alone")
    readings = readings_of(item)
    for place, event in enumerate(window.events):
        if place == len(window.events) - 1 and readings:
            replay.sense(readings, event.ts)
        replay.feed(event)
    return replay


def readings_of(item: Item) -> tuple[Reading, ...]:
    """What of the device's view can be put back into readings."""
    device, ts = item.window.device, item.window.now
    values = (
        ("cpu_percent", device.cpu_percent, "%"), ("memory_percent", device.memory_percent, "%"),
        ("temperature_c", device.temperature_c, "degC"),
        ("throttled", None if device.throttled is None else float(device.throttled), "1"),
    )  # fmt: skip
    return tuple(
        Reading(name=name, value=value, unit=unit, ts=ts, source="test")
        for name, value, unit in values
        if value is not None
    )


def text_only(model: Model) -> judges.Judge:
    """The packed model shown the words without the evidence in its prompt (it was trained with it: a lower bound)."""

    def judge(items: Sequence[Item]) -> Array:
        reader = WindowReader(model)
        try:
            return np.array([reader.raw(render_with(item.window, bare(gather(item.window))))[0] for item in items])
        finally:
            reader.close()

    return judge


def bare(evidence: Evidence) -> Evidence:
    """Evidence that says nothing."""
    nothing = EventEvidence(
        repeats=0, similarity=None, novelty=None, unsourced=None, on_goal=None, coverage=None, gap_s=None, failed=None,
        flags=frozenset(),
    )  # fmt: skip
    return replace(
        evidence, events=tuple(nothing for _ in evidence.events), repeats_max=0, cycle=0, errors=None, conflicts=0,
        open_requests=0, goal_covered=None, off_goal=None, order=0, vague_acted=0, overclaim=None, residual=None,
        idle_s=None, quiet_ratio=None,
    )  # fmt: skip


def packaged(model: Model) -> Calibration:
    """The calibration that the package carries."""
    packed = model.manifest.calibration
    temperatures = packed.temperature if packed else {}
    thresholds = packed.thresholds if packed else {}
    return Calibration(
        tuple(measures.Scaling(temperatures.get(name, 1.0), 0.0) for name in HEAD_OUTPUTS),
        (*(thresholds.get(name, 0.5) for name in LABELS), 0.5),
    )


def _thinned(curve: Array) -> list[float]:
    """At most 50 points of a curve, evenly over coverage."""
    places = np.unique(np.linspace(0, len(curve) - 1, min(50, len(curve))).astype(int))
    return [round(float(curve[i]), 4) for i in places]


def _mean_of(table: dict[str, dict[str, Any]], name: str) -> float | None:
    values = [entry[name] for entry in table.values() if entry[name] is not None]
    return _round(np.mean(values)) if values else None


def _round(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)
