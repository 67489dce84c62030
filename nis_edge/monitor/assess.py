"""From what is open to what is published: findings fused, status by the worst, level by coverage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from msgspec.structs import replace

from nis_edge.limits import AGENTS_SHOWN_MAX
from nis_edge.monitor.labels import LABELS, SEVERITY_ORDER, STATUS_OF_SEVERITY, TABLE
from nis_edge.monitor.signals import coverage_of, metrics_of
from nis_edge.monitor.state import Key, MonitorState, OpenFinding
from nis_edge.wire.messages import Assessment, Finding, Level, Severity, Status

LEVELS: Final[tuple[Level | None, ...]] = (None, "basic", "enhanced", "integrated", "transcendent")
"""By coverage of evidence (design, monitor section 1): the protocol's words, with a meaning that can be checked."""

STATUS_ORDER: Final[tuple[Status, ...]] = ("unknown", "healthy", "degraded", "critical")

NOTHING_TO_DO: Final = "none"
EVIDENCE_MAX: Final = 8


def assess(
    state: MonitorState, t: float, now: float, *, time_known: bool, fresh_s: float, deadline_ms: float | None = None
) -> Assessment:
    """Build the assessment of a state.

    Args:
        state: what the monitor knows; its ``status``, ``level`` and ``findings`` are those last published.
        t: the monitor's own seconds.
        now: seconds since the epoch.
        time_known: False for recorded runs without times.
        fresh_s: how old a feed may be and still count as evidence.
        deadline_ms: what was promised for a call or step, or None.
    """
    findings = fuse(open_of(state))
    status = status_of(state, findings)
    level, level_reason = level_of(state, t, time_known=time_known, fresh_s=fresh_s)
    changed = changes(state, status, level, findings)
    return Assessment(
        ts=now,
        status=status,
        level=level,
        level_reason=level_reason,
        findings=findings,
        metrics=metrics_of(state, t, time_known=time_known, deadline_ms=deadline_ms),
        agents=_agents(state, findings),
        model=state.answer,
        model_reason=_model_reason(state),
        changed=changed,
        action=findings[0].action if findings and is_alert(findings[0]) else NOTHING_TO_DO,
        events_seen=state.counts.events,
        coordination=state.coordination,
    )


def open_of(state: MonitorState) -> Mapping[Key, OpenFinding]:
    """What is open, with what the operator called a false alarm as hints, unless it has become graver since."""
    if not state.muted:
        return state.open
    return {
        key: replace(found, severity="low", text=f"{found.text} (called a false alarm by the operator)")
        if key in state.muted and _is_no_graver(found.severity, state.muted[key])
        else found
        for key, found in state.open.items()
    }


def _is_no_graver(severity: Severity, than: Severity) -> bool:
    return SEVERITY_ORDER.index(severity) <= SEVERITY_ORDER.index(than)


def fuse(open_findings: Mapping[Key, OpenFinding]) -> tuple[Finding, ...]:
    """Merge what rules and model say of the same label and agents into one finding each, the gravest first.

    The model names one agent, a rule may name another: where a rule holds the label, the model's word joins it.
    """
    merged: dict[tuple[str, tuple[str, ...]], list[OpenFinding]] = {}
    by_model = {found.label: found for found in open_findings.values() if found.scope == "model"}
    for found in open_findings.values():
        if found.scope != "model":
            merged.setdefault((found.label, found.agents), []).append(found)
    ruled = {label for label, _ in merged}
    findings = [_merged(parts, by_model.get(label)) for (label, _), parts in merged.items()]
    findings += [_merged([found], None) for label, found in by_model.items() if label not in ruled]
    findings.sort(key=lambda f: (-SEVERITY_ORDER.index(f.severity), f.since, LABELS.index(f.label), f.agents))
    return tuple(findings)


def status_of(state: MonitorState, findings: tuple[Finding, ...]) -> Status:
    """The worst component's status; unknown while there is nothing to judge."""
    if findings:
        return STATUS_OF_SEVERITY[findings[0].severity]
    return "healthy" if state.counts.events or state.device_t is not None else "unknown"


def level_of(state: MonitorState, t: float, *, time_known: bool, fresh_s: float) -> tuple[Level | None, str]:
    """How much the monitor can know just now, by coverage of evidence."""
    if not time_known:
        return None, "recorded without times or device readings"
    covered, reason = coverage_of(state, t, fresh_s)
    return LEVELS[covered], reason


def has_changed(state: MonitorState, t: float, *, time_known: bool, fresh_s: float) -> bool:
    """Whether an assessment made now would differ in status, level or findings from the one published last."""
    findings = fuse(open_of(state))
    level, _ = level_of(state, t, time_known=time_known, fresh_s=fresh_s)
    return bool(changes(state, status_of(state, findings), level, findings))


def is_alert(finding: Finding) -> bool:
    """Whether a finding moves the status and is told to the operator; one of severity low is a hint to look at."""
    return finding.severity != "low"


def name_of(finding: Finding) -> str:
    """By what a finding is known from one assessment to the next: its label and whom it names."""
    return f"{finding.label} ({', '.join(finding.agents)})"


def changes(state: MonitorState, status: Status, level: Level | None, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What differs from the assessment published last, in words that hold no number that moves."""
    before = {name_of(finding): finding for finding in state.findings}
    after = {name_of(finding): finding for finding in findings}
    changed: list[str] = []
    if status != state.status:
        changed.append(f"status: {state.status} -> {status}")
    if level != state.level:
        changed.append(f"level: {state.level or 'none'} -> {level or 'none'}")
    changed += [f"raised: {name}" for name in after if name not in before]
    changed += [f"cleared: {name}" for name in before if name not in after]
    changed += [
        f"{name}: {before[name].severity} -> {finding.severity}"
        for name, finding in after.items()
        if name in before and before[name].severity != finding.severity
    ]
    return tuple(changed)


def _merged(parts: list[OpenFinding], model: OpenFinding | None) -> Finding:
    worst = max(parts, key=lambda part: SEVERITY_ORDER.index(part.severity))
    is_model = worst.scope == "model"
    texts = [worst.text, *(part.text for part in parts if part is not worst)]
    if model is not None:
        texts.append(model.text)
    judged = worst if is_model else model
    evidence = dict.fromkeys(identity for part in parts for identity in part.evidence)
    return Finding(
        label=worst.label,
        severity=worst.severity,
        agents=worst.agents,
        evidence=tuple(evidence)[-EVIDENCE_MAX:],
        source="model" if is_model else "rule+model" if model is not None else "rule",
        text="; ".join(texts),
        action=TABLE[worst.label].action,
        since=min(part.since for part in parts),
        probability=judged.probability if judged else None,
        confidence=judged.confidence if judged else None,
    )


def _agents(state: MonitorState, findings: tuple[Finding, ...]) -> dict[str, Status]:
    """Each agent's status by the worst finding that names it: the named ones first, then the latest active."""
    worst: dict[str, Status] = {}
    for finding in findings:
        for name in finding.agents:
            if name in state.agents:
                worst.setdefault(name, STATUS_OF_SEVERITY[finding.severity])
    shown = dict(list(worst.items())[:AGENTS_SHOWN_MAX])
    for name in sorted(islice(reversed(state.agents), AGENTS_SHOWN_MAX)):
        if len(shown) < AGENTS_SHOWN_MAX:
            shown.setdefault(name, "healthy")
    return shown


def _model_reason(state: MonitorState) -> str | None:
    """Why there is no answer of the model, or what limits the one there is."""
    if state.judge is None:
        return state.judge_reason
    if state.shedding is not None:
        return f"the model is not asked under load ({state.shedding}); the rules go on"
    if state.answer is None:
        return state.answer_reason or "the model has not answered yet"
    if state.judge.thresholds and not state.judge.decides:
        return "the model is advisory: what it alone says is a hint and moves no status"
    if not state.judge.thresholds:
        return "the package holds no calibrated thresholds: the model's answer is shown and raises nothing"
    return None
