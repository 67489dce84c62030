"""Judging files from outside: each line through exactly the daemon's monitor.

A run or a window is fed to the monitor event by event (``nis_edge.replay``: rules, model, calibration, the daemon's
clock); a device window is looked at by the signals that the daemon holds against each sensor; a physics item is read
into a law's slots and checked by the validator. What the line says is true is never shown to a judge.

What is said of a run is all the monitor raised in it; of a window, what holds at its end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nis_edge.judgement import PromptJudge, series_judge
from nis_edge.monitor import series
from nis_edge.monitor.assess import is_alert
from nis_edge.monitor.feeds import LABELS as FEED_LABELS
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.machine import Options
from nis_edge.monitor.rules import RuleOptions
from nis_edge.replay import Episode, Replay
from nis_edge.wire.messages import ModelAnswer
from nis_models import physics_text
from nis_models.outside_lines import NONE, DeviceWindow, Line, PhysicsItem, Refused, Trace, read

RULE_SCORE: Final = 0.75
"""Where a finding that a rule shows stands among others, on the scale of ``margin``: rules have no probability."""

RULE_CONFIDENCE: Final = 0.77
"""Share of windows that rules alone named right, of those of the tune split that they named (41 of 53)."""


@dataclass(frozen=True)
class Judged:
    """A run or a window and what was said of it.

    Args:
        probabilities: label -> the model's calibrated probability; of a run the highest it gave in it.
        found: every finding that was said, hints of an advisory model among them.
        alerts: those of them that move the status.
        first: the one that stands out, or ``none``.
        confidence: in ``first``.
        failure: P(run fails), of the newest answer.
        locus: indices of the events that stand as evidence for ``first``.
        named: agents that the findings name.
        suspect: index of the event after which the model came nearest to a finding, or passed furthest beyond one:
            where to look first, even when nothing was said.
    """

    line: Trace
    probabilities: dict[str, float]
    found: tuple[str, ...]
    alerts: tuple[str, ...]
    first: str
    confidence: float | None
    failure: float | None
    locus: tuple[int, ...]
    named: tuple[str, ...]
    assessment: dict[str, Any]
    suspect: int | None = None


@dataclass(frozen=True)
class JudgedDevice:
    """A device window and what was said of it.

    ``scores`` are calibrated probabilities of ``none`` and each fault where the judge of series could judge, else the
    signals' scores (1 is the threshold).
    """

    line: DeviceWindow
    first: str
    onset: int | None
    scores: dict[str, float]
    is_calibrated: bool = False


@dataclass(frozen=True)
class JudgedPhysics:
    """A physics item and what was said of it."""

    line: PhysicsItem
    said: physics_text.Reading


Result = Judged | JudgedDevice | JudgedPhysics | Refused


def judge_files(paths: Iterable[Path], package: Path) -> Iterator[Result]:
    """Judge every line of files, in order.

    Args:
        paths: JSON lines, plain or gzip.
        package: the model.
    """
    judge = PromptJudge(package)
    try:
        for line in read(list(paths)):
            yield judge_line(line, judge)
    finally:
        judge.close()


def judge_line(line: Line, judge: PromptJudge | None) -> Result:
    """Judge one line.

    Args:
        line: from ``outside_lines``.
        judge: the model; None judges by rules alone.
    """
    if isinstance(line, Refused):
        return line
    if isinstance(line, DeviceWindow):
        return _device(line)
    if isinstance(line, PhysicsItem):
        return JudgedPhysics(line, physics_text.decide(line.text))
    return _trace(line, judge)


def _trace(line: Trace, judge: PromptJudge | None) -> Judged:
    replay = Replay(
        Options(rules=RuleOptions(time_known=line.is_timed), series=series_judge()),
        judge,
        "" if judge else "rules alone",
    )
    answers: list[ModelAnswer] = []
    thresholds = judge.judge.thresholds if judge else {}
    suspect: tuple[float, int] | None = None
    for event in line.events:
        for spoken in replay.feed(event):
            if spoken.model is not None and (not answers or answers[-1] is not spoken.model):
                answers.append(spoken.model)
                known = (item for item in spoken.model.probabilities.items() if item[0] in thresholds)
                nearest = max((margin(p, thresholds[label]) for label, p in known), default=0.0)
                if event.id in line.places and (suspect is None or nearest > suspect[0]):
                    suspect = (nearest, line.places[event.id])
    is_run = line.kind == "run"
    probabilities = dict.fromkeys(LABELS, 0.0) if judge else {}
    for answer in answers if is_run else answers[-1:]:
        for label, probability in answer.probabilities.items():
            probabilities[label] = max(probabilities.get(label, 0.0), probability)
    episodes = [e for e in replay.episodes if e.finding.label in LABELS and (is_run or _holds(e))]
    scores: dict[str, float] = {}
    for episode in episodes:
        if "rule" in episode.finding.source:
            scores[episode.finding.label] = RULE_SCORE
    for label, probability in probabilities.items():
        threshold = thresholds.get(label)
        if threshold is not None and probability >= threshold:
            scores[label] = max(scores.get(label, 0.0), margin(probability, threshold))
    first = max(scores, key=lambda label: scores[label]) if scores else NONE
    evidence = {key for e in episodes if e.finding.label == first for key in e.finding.evidence}
    if not evidence and first != NONE and line.events:
        # The model's answer alone, too new to be raised: it speaks of the newest events.
        evidence = {event.id for event in line.events[-1:]}
    named = dict.fromkeys(name for e in episodes for name in e.finding.agents)
    confidence = None
    if first in probabilities:
        by_rule = any(e.finding.label == first and "rule" in e.finding.source for e in episodes)
        confidence = max(probabilities[first], RULE_CONFIDENCE if by_rule else 0.0)
    elif probabilities:
        # Nothing is wrong where no finding holds; they are taken for independent.
        confidence = round(math.prod(1.0 - probability for probability in probabilities.values()), 6)
    last = replay.last
    return Judged(
        line=line,
        probabilities=probabilities,
        found=tuple(sorted(scores, key=LABELS.index)),
        alerts=tuple(sorted({e.finding.label for e in episodes if is_alert(e.finding)}, key=LABELS.index)),
        first=first,
        confidence=confidence,
        failure=answers[-1].failure_probability if answers else None,
        locus=tuple(sorted({line.places[key] for key in evidence if key in line.places})),
        named=tuple(named),
        assessment={
            "status": replay.worst,
            "level": last.level if last else None,
            "action": last.action if last else None,
            "findings": [
                {
                    "label": e.finding.label,
                    "severity": e.finding.severity,
                    "agents": list(e.finding.agents),
                    "source": e.finding.source,
                    "text": e.finding.text,
                }
                for e in episodes
            ],
        },
        suspect=suspect[1] if suspect else None,
    )


def _holds(episode: Episode) -> bool:
    return episode.cleared_at is None


def margin(probability: float, threshold: float) -> float:
    """0.5 at the threshold, 1 at certainty: so that labels with different thresholds can be ranked."""
    if probability < threshold:
        return 0.5 * probability / threshold
    return 0.5 + 0.5 * (probability - threshold) / max(1.0 - threshold, 1e-9)


def _device(line: DeviceWindow) -> JudgedDevice:
    judge = series_judge()
    best = series.look_at(line.values, judge)
    probable = judge.probabilities(line.values) if judge is not None else None
    scores = probable or dict.fromkeys(FEED_LABELS, 0.0)
    if probable is None:
        for anomaly in series.faults_in(line.values):
            scores[anomaly.kind] = max(scores[anomaly.kind], anomaly.score)
    # The signals look at the newest values; an onset is told by its place in the whole line.
    skipped = max(0, len(line.values) - series.WINDOW)
    onset = best.onset + skipped if best else None
    return JudgedDevice(line, best.kind if best else NONE, onset, scores, is_calibrated=probable is not None)


def write_predictions(results: Iterable[Result], path: Path) -> None:
    """Write one line per line judged or refused, in their order."""
    with path.open("w", encoding="utf-8") as out:
        for result in results:
            out.write(json.dumps(prediction(result)) + "\n")


def prediction(result: Result) -> dict[str, Any]:
    """What was said of a line, as JSON."""
    if isinstance(result, Refused):
        return {"kind": "refused", "file": result.file, "line": result.line, "reason": result.reason}
    if isinstance(result, JudgedPhysics):
        said = result.said
        return {
            "kind": "physics",
            "id": result.line.id,
            "probabilities": {"violation": said.violation, "consistent": round(1.0 - said.violation, 6)},
            "label": said.label,
            "confidence": max(said.violation, 1.0 - said.violation),
            "locus": None,
            "assessment": {
                "decision": said.decision,
                "law": said.law,
                "reason": said.reason,
                "check": None
                if said.check is None
                else {k: getattr(said.check, k) for k in said.check.__struct_fields__},
            },
        }
    if isinstance(result, JudgedDevice):
        if result.is_calibrated:
            return {
                "kind": "device",
                "id": result.line.id,
                "probabilities": {kind: round(share, 6) for kind, share in result.scores.items()},
                "label": result.first,
                "confidence": round(result.scores[result.first], 6),
                "locus": None if result.onset is None else [result.onset],
                "assessment": {},
            }
        # Shares of the signals' scores, with the threshold as the weight of none: a ranking, not calibrated.
        weight = {NONE: 1.0, **{kind: score for kind, score in result.scores.items() if score > 0.0}}
        whole = sum(weight.values())
        return {
            "kind": "device",
            "id": result.line.id,
            "probabilities": {kind: round(weight.get(kind, 0.0) / whole, 6) for kind in (NONE, *FEED_LABELS)},
            "label": result.first,
            "confidence": None,
            "locus": None if result.onset is None else [result.onset],
            "assessment": {"scores": result.scores, "confidence_reason": "a rule's score is no probability"},
        }
    line = result.line
    return {
        "kind": line.kind,
        "id": line.id,
        "probabilities": result.probabilities,
        "label": result.first,
        "findings": list(result.found),
        "confidence": result.confidence,
        "failure_probability": result.failure,
        "locus": list(result.locus),
        "agents": list(result.named),
        "suspect": result.suspect,
        "assessment": {**result.assessment, "alerts": list(result.alerts)},
    }
