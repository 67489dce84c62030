"""The model's part of a judgement: from raw outputs to an answer, from an answer to findings. Pure.

A finding of the model is raised where its probability passes the calibrated threshold of the package, twice in a row or
clearly at once; it holds until the probability falls clearly below, twice in a row. What the model says weighs one step
less than what a rule has shown: it can be wrong, and it has read hostile text. A model whose package doesn't say that
it earned the right to decide gives hints (severity low), which move no status (record 0034).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from nis_edge.errors import ModelError
from nis_edge.monitor.feedback import corrected, shifted
from nis_edge.monitor.labels import FAILURE, HEAD_NAME, LABELS, SEVERITY_ORDER, TABLE
from nis_edge.monitor.state import Judge, MonitorState, OpenFinding, Pending, Streak, key_of
from nis_edge.pack.layout import Manifest
from nis_edge.wire.messages import ModelAnswer, Severity

MODEL_RULE: Final = "model"
MODEL_SUBJECT: Final = "team"

STANDING: Final = "standing"
DECIDES: Final = "decides"
"""Entry of the package's calibration details by which its builder says that the model beat the rules' own evidence on
systems it never saw. Absent or anything else: advisory."""

RATES: Final = "rates"
"""Entry of the calibration details: label -> share of the windows it was calibrated on in which the finding held."""

STREAK: Final = 2
"""Answers in a row that raise or withdraw a finding: one odd window moves nothing."""

CLEAR_SHARE: Final = 0.5
"""Part of the way from the threshold to certainty from which one answer is enough."""

HOLD_SHARE: Final = 0.7
"""A finding holds above this share of its threshold."""


def judge_of(manifest: Manifest) -> Judge:
    """What the monitor has to know of a package's model.

    Raises:
        ModelError: the package has no task head for findings (the builder acts).
    """
    outputs_of(manifest)
    calibration = manifest.calibration
    return Judge(
        model=f"{manifest.model.id} {manifest.model.version}",
        thresholds=dict(calibration.thresholds) if calibration else {},
        temperatures=dict(calibration.temperature) if calibration else {},
        decides=calibration is not None and calibration.details.get(STANDING) == DECIDES,
        rates=_rates(calibration.details.get(RATES)) if calibration else {},
    )


def _rates(said: Any) -> dict[str, float]:
    """Rates that can be reckoned with; a package is a stranger's file, and its details are free."""
    if not isinstance(said, dict):
        return {}
    return {
        label: float(rate)
        for label, rate in said.items()
        if label in TABLE and isinstance(rate, (int, float)) and 0.0 < rate < 1.0
    }


def outputs_of(manifest: Manifest) -> tuple[str, ...]:
    """The names of the task head's outputs, in order.

    Raises:
        ModelError: the package has no task head for findings (the builder acts).
    """
    head = manifest.architecture.task_heads.get(HEAD_NAME)
    if head is None:
        raise ModelError(
            f"model {manifest.model.id} {manifest.model.version} has no task head {HEAD_NAME!r}: it can't judge agents"
        )
    return head.outputs


def answer_of(
    judge: Judge, outputs: Sequence[str], raw: Sequence[float], *, tokens: int, latency_ms: float | None
) -> ModelAnswer:
    """Turn a task head's raw outputs into probabilities, each by its calibrated temperature.

    Args:
        judge: from ``judge_of``.
        outputs: names of the outputs, from ``outputs_of``.
        raw: logits, one for each output.
        tokens: length of the prompt.
        latency_ms: what the answer took, or None where that must not show.

    Raises:
        ModelError: an output is not finite, or there are too few (the builder acts).
    """
    if len(raw) != len(outputs) or not all(math.isfinite(value) for value in raw):
        raise ModelError(f"model {judge.model} gave no finite value for each of its {len(outputs)} outputs")
    by_name = {
        name: _sigmoid(float(value) / judge.temperatures.get(name, 1.0))
        for name, value in zip(outputs, raw, strict=True)
    }
    return ModelAnswer(
        model=judge.model,
        probabilities={label: round(by_name[label], 6) for label in LABELS if label in by_name},
        failure_probability=round(by_name[FAILURE], 6) if FAILURE in by_name else None,
        tokens=tokens,
        latency_ms=latency_ms,
    )


def at_share(judge: Judge, answer: ModelAnswer, share: float | None) -> ModelAnswer:
    """The answer as it reads where findings are as frequent as the operator expects.

    A package is calibrated on windows of which many hold a finding; in a team that works, few do, and the same evidence
    makes it less probable there. Bayes' rule with other odds beforehand: the logit moves by their logarithm.

    Args:
        judge: with the rates of its calibration; a label without one stays as it is.
        answer: as the package was calibrated.
        share: of windows in which a given finding is expected to hold; None leaves the answer as it is.
    """
    if share is None or not judge.rates:
        return answer
    expected = math.log(share / (1.0 - share))
    moved = {
        label: round(shifted(said, expected - math.log(judge.rates[label] / (1.0 - judge.rates[label]))), 6)
        if label in judge.rates
        else said
        for label, said in answer.probabilities.items()
    }
    return replace(answer, probabilities=moved)


def weigh(state: MonitorState, judge: Judge, answer: ModelAnswer, asked: Pending, t: float, now: float) -> MonitorState:
    """Let the model's answer raise, keep or withdraw its findings.

    Args:
        state: the state before.
        judge: whose answer it is.
        answer: probabilities by label.
        asked: the question it answers: who acted last, which events were shown.
        t: the monitor's own seconds.
        now: seconds since the epoch.
    """
    open_now = dict(state.open)
    streaks = dict(state.streaks)
    for label, threshold in judge.thresholds.items():
        said = answer.probabilities.get(label)
        if said is None or label not in TABLE:
            continue
        probability = corrected(said, state.feedback.get(label))
        key = key_of(label, MODEL_RULE, MODEL_SUBJECT)
        streak = _streak(streaks.get(label), probability, threshold)
        streaks[label] = streak
        known = open_now.get(key)
        if known is not None and streak.count <= -STREAK:
            del open_now[key]
        elif known is not None or streak.count >= STREAK or _is_clear(probability, threshold):
            open_now[key] = _finding(label, probability, threshold, judge, asked, known, t, now)
    failure = answer.failure_probability
    if failure is not None:
        answer = replace(answer, failure_probability=round(corrected(failure, state.feedback.get(FAILURE)), 6))
    return replace(state, open=open_now, streaks=streaks, answer=answer)


def _finding(
    label: str,
    probability: float,
    threshold: float,
    judge: Judge,
    asked: Pending,
    known: OpenFinding | None,
    t: float,
    now: float,
) -> OpenFinding:
    above = probability >= threshold
    if known is not None and not above:
        # Between the two thresholds the finding stands as it was raised; only the number moves on.
        return replace(known, probability=probability)
    return OpenFinding(
        scope="model",
        label=label,
        rule=MODEL_RULE,
        subject=MODEL_SUBJECT,
        agents=known.agents if known else (asked.agent,),
        severity=_one_step_less(TABLE[label].severity) if judge.decides else "low",
        text=f"the model gives {probability:.0%} (threshold {threshold:.0%}): {TABLE[label].meaning}",
        evidence=asked.evidence,
        since=known.since if known else now,
        opened_t=known.opened_t if known else t,
        probability=probability,
        confidence=probability if label in judge.temperatures else None,
    )


def _streak(before: Streak | None, probability: float, threshold: float) -> Streak:
    count = before.count if before else 0
    if probability >= threshold:
        count = max(count, 0) + 1
    elif probability < HOLD_SHARE * threshold:
        count = min(count, 0) - 1
    else:
        count = 0
    return Streak(max(-STREAK, min(STREAK, count)), probability)


def _is_clear(probability: float, threshold: float) -> bool:
    return probability >= threshold + CLEAR_SHARE * (1.0 - threshold)


def _one_step_less(severity: Severity) -> Severity:
    # Never below medium: what the calibration lets through is worth a look.
    return SEVERITY_ORDER[max(1, SEVERITY_ORDER.index(severity) - 1)]


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))
