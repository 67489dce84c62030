"""Judging files from outside: each line through exactly the daemon's monitor, scored for what the line has labels for.

A line is a recorded run (``events[{agent, kind, text}]`` with ``outcome``, ``findings``, ``step_labels``) or a window
(``goal``, ``events[{t, agent, kind, text}]``, ``label`` or ``labels``, ``locus``, ``hard_negative_for``). What is said
of a line is what the fused monitor said: rules and model together, at the package's thresholds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from nis_edge.errors import ConfigError, EventFormatError
from nis_edge.judgement import PromptJudge
from nis_edge.limits import RUN_BYTES_MAX
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.machine import Options
from nis_edge.monitor.rules import RuleOptions
from nis_edge.replay import Replay
from nis_edge.wire.messages import ModelAnswer
from nis_edge.wire.traces import canonical_events, decode_run
from nis_models import measures

RULE_SCORE: Final = 0.9
"""What a finding that only a rule raised counts when findings are ranked: rules have no probability."""


@dataclass
class Judged:
    """One line and what was said of it."""

    id: str
    source: str
    group: str
    probabilities: dict[str, float]
    found: list[str]
    first: str
    confidence: float | None
    failure: float | None
    locus: list[int]
    status: str
    level: str | None
    truth: set[str] | None
    locus_true: list[int]
    hard_negative_for: str | None
    outcome: int | None
    steps_true: list[tuple[int, str]] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    length: int = 0


def judge_file(path: Path, package: Path) -> tuple[list[Judged], int]:
    """Judge every line of a file.

    Args:
        path: JSON lines, plain or gzip.
        package: the model.

    Returns:
        The lines judged, and how many could not be read.
    """
    judge = PromptJudge(package)
    try:
        judged, bad = [], 0
        for number, raw in _lines(path):
            try:
                judged.append(_judge(raw, number, judge))
            except (EventFormatError, ValueError, TypeError, KeyError):
                bad += 1
        return judged, bad
    finally:
        judge.close()


def report(judged: list[Judged], bad: int) -> dict[str, Any]:
    """Figures of everything the lines have labels for, whole and by source."""
    by_source = {
        source: [line for line in judged if line.source == source]
        for source in sorted({line.source for line in judged})
    }
    return {
        "lines": len(judged),
        "unreadable": bad,
        "all": _figures(judged),
        "by_source": {name: _figures(rows) for name, rows in by_source.items()},
    }


def write_predictions(judged: list[Judged], path: Path) -> None:
    """Write one line per judged line."""
    with path.open("w", encoding="utf-8") as out:
        for line in judged:
            out.write(
                json.dumps(
                    {
                        "id": line.id,
                        "probabilities": line.probabilities,
                        "findings": line.found,
                        "label": line.first,
                        "confidence": line.confidence,
                        "failure_probability": line.failure,
                        "locus": line.locus,
                        "assessment": {"status": line.status, "level": line.level},
                    }
                )
                + "\n"
            )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                if raw.strip() and len(raw) <= RUN_BYTES_MAX:
                    yield number, raw
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}; nothing was judged") from error


def _judge(raw: bytes, number: int, judge: PromptJudge) -> Judged:
    fields: dict[str, Any] = json.loads(raw)
    # Lines of windows name neither themselves nor a system.
    run = decode_run(
        json.dumps({"id": f"line {number}", **{k: v for k, v in fields.items() if k in _RUN_FIELDS}}).encode()
    )
    replay = Replay(Options(rules=RuleOptions(time_known=run.is_timed)), judge, "")
    answers: list[ModelAnswer] = []
    events = canonical_events(run)
    for event in events:
        answers += [spoken.model for spoken in replay.feed(event) if spoken.model is not None]
    probabilities = dict.fromkeys(LABELS, 0.0)
    for answer in answers if not _is_window(fields) else answers[-1:]:
        for label, probability in answer.probabilities.items():
            probabilities[label] = max(probabilities[label], probability)
    thresholds = judge.judge.thresholds
    scores = {}
    for episode in replay.episodes:
        label = episode.finding.label
        if label not in LABELS:
            continue
        shown = RULE_SCORE if "rule" in episode.finding.source else 0.0
        scores[label] = max(scores.get(label, 0.0), shown, _margin(probabilities[label], thresholds.get(label, 0.5)))
    first = max(scores, key=lambda label: scores[label]) if scores else measures.NONE
    place = {event.id: i - (run.goal is not None) for i, event in enumerate(events)}
    locus = sorted(
        {
            place[key]
            for episode in replay.episodes
            if episode.finding.label == first
            for key in episode.finding.evidence
            if place.get(key, -1) >= 0
        }
    )
    last = replay.last
    return Judged(
        id=run.id,
        source=str(fields.get("source") or run.system or "unnamed"),
        group=str(fields.get("group") or run.id),
        probabilities=probabilities,
        found=sorted(scores, key=LABELS.index),
        first=first,
        confidence=probabilities[first] if first in LABELS else 1.0 - max(probabilities.values()),
        failure=answers[-1].failure_probability if answers else None,
        locus=locus,
        status=replay.worst,
        level=last.level if last else None,
        truth=_truth(fields),
        locus_true=[int(i) for i in fields.get("locus") or []],
        hard_negative_for=fields.get("hard_negative_for"),
        outcome=run.outcome,
        steps_true=[(int(step["step"]), str(step.get("agent", ""))) for step in run.step_labels if "step" in step],
        agents=[line.agent for line in run.events],
        length=len(run.events),
    )


_RUN_FIELDS: Final = (
    "id",
    "events",
    "source",
    "system",
    "model",
    "group",
    "goal",
    "outcome",
    "findings",
    "step_labels",
)


def _is_window(fields: dict[str, Any]) -> bool:
    return "label" in fields or "labels" in fields


def _truth(fields: dict[str, Any]) -> set[str] | None:
    named = fields.get("labels") if fields.get("labels") is not None else fields.get("label")
    if named is None:
        return None
    return {str(label) for label in ([named] if isinstance(named, str) else named)} - {measures.NONE}


def _margin(probability: float, threshold: float) -> float:
    """0.5 at the threshold, 1 at certainty: so that labels with different thresholds can be ranked."""
    return (
        0.5 * probability / threshold
        if probability < threshold
        else 0.5 + 0.5 * (probability - threshold) / max(1 - threshold, 1e-9)
    )


def _figures(rows: list[Judged]) -> dict[str, Any]:
    figures: dict[str, Any] = {"n": len(rows)}
    windows = [row for row in rows if row.truth is not None]
    if windows:
        figures["findings"] = _findings(windows)
    runs = [row for row in rows if row.outcome in (0, 1)]
    if runs:
        figures["outcome"] = _outcome(runs)
    labelled = [row for row in rows if row.steps_true]
    if labelled:
        hits = [any(abs(i - step) <= 1 for i in row.locus for step, _ in row.steps_true) for row in labelled]
        named = [
            any(row.agents[i] == agent for i in row.locus if i < len(row.agents) for _, agent in row.steps_true)
            for row in labelled
        ]
        figures["steps"] = {
            "n": len(labelled),
            "step_within_one": round(float(np.mean(hits)), 4),
            "agent_named": round(float(np.mean(named)), 4),
        }
    return figures


def _findings(rows: list[Judged]) -> dict[str, Any]:
    single = [row for row in rows if row.truth is not None and len(row.truth) <= 1]
    names = sorted({next(iter(row.truth)) if row.truth else measures.NONE for row in single})
    codes = {name: i for i, name in enumerate(n for n in names if n != measures.NONE)}
    truth = np.array([codes[next(iter(row.truth))] if row.truth else -1 for row in single])
    said = np.array([codes.get(row.first, -1 if row.first == measures.NONE else -3) for row in single])
    groups = [row.group for row in single]
    everything = np.arange(len(single))
    recalls = measures.class_recalls(truth, said, len(codes))
    hard = [row for row in rows if row.hard_negative_for]
    located = [row for row in single if row.truth and row.first in row.truth and row.locus_true]
    pooled_p = np.array([row.probabilities[label] for row in rows for label in LABELS])
    pooled_y = np.array([float(label in (row.truth or ())) for row in rows for label in LABELS])
    return {
        "n": len(rows),
        "recall": {
            name: None if np.isnan(r) else round(float(r), 4)
            for name, r in zip((*codes, measures.NONE), recalls, strict=True)
        },
        "balanced_accuracy": round(float(np.nanmean(recalls)), 4),
        "balanced_accuracy_ci95": measures.bootstrap(
            groups,
            lambda i: float(np.nanmean(measures.class_recalls(truth[everything[i]], said[everything[i]], len(codes)))),
        ),
        "macro_f1": round(float(np.nanmean(measures.class_f1(truth, said, len(codes)))), 4),
        "hard_negatives_called_none": round(float(np.mean([row.first == measures.NONE for row in hard])), 4)
        if hard
        else None,
        "locus_within_one": round(
            float(np.mean([any(abs(i - j) <= 1 for i in row.locus for j in row.locus_true) for row in located])), 4
        )
        if located
        else None,
        "ece": round(measures.expected_calibration_error(pooled_p, pooled_y), 4),
    }


def _outcome(rows: list[Judged]) -> dict[str, Any]:
    known = [row for row in rows if row.failure is not None]
    if not known:
        return {"n": len(rows), "reason": "the model gave no answer"}
    y = np.array([1.0 - float(row.outcome or 0) for row in known])
    groups = [row.group for row in known]
    result: dict[str, Any] = {
        "n": len(known),
        "failed": int(y.sum()),
        "majority": round(float(max(y.mean(), 1 - y.mean())), 4),
    }
    for name, score in (
        ("model", np.array([row.failure for row in known], dtype=float)),
        ("length_only", np.array([float(row.length) for row in known])),
        ("findings_count", np.array([float(len(row.found)) for row in known])),
    ):
        result[f"auroc_{name}"] = measures.area_under_roc(score, y)
        result[f"auroc_{name}_ci95"] = measures.bootstrap(
            groups, lambda i, score=score: measures.area_under_roc(score[i], y[i])
        )
    p = np.array([row.failure for row in known], dtype=float)
    result["ece"] = round(measures.expected_calibration_error(p, y), 4)
    order = np.argsort(np.maximum(p, 1 - p))[::-1]
    wrong = ((p >= 0.5) != (y > 0.5))[order]
    result["risk_coverage_area"] = round(float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean()), 4)
    return result
