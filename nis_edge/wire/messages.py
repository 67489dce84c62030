"""The records that cross floors: what came in, what was judged, what goes out. Frozen; no behaviour.

Times are seconds since the Unix epoch (float); durations name their unit. A number that is unknown is ``None`` with a
reason, never a default.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal[
    "message", "step", "tool_call", "tool_result", "claim", "outcome", "heartbeat", "error", "goal", "lifecycle"
]
Priority = Literal["low", "normal", "high", "critical"]
Severity = Literal["low", "medium", "high", "critical"]
Status = Literal["healthy", "degraded", "critical", "unknown"]
Level = Literal["basic", "enhanced", "integrated", "transcendent"]
Source = Literal["measured", "derived", "modelled", "unavailable"]
FindingSource = Literal["rule", "model", "rule+model"]


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A statement of an agent that others can be compared with: ``key`` has ``value`` (in ``unit``, within ``tol``)."""

    key: str
    value: float | str | bool | None
    unit: str | None = None
    tol: float | None = None


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One agent event in canonical form (v1). Fields a sender added beyond these are kept in ``extra``."""

    v: Literal[1] = 1
    id: str
    ts: float
    agent: str
    kind: Kind
    topic: str | None = None
    to: str | None = None
    correlation: str | None = None
    priority: Priority | None = None
    step: int | None = None
    text: str | None = None
    tool: str | None = None
    args_hash: str | None = None
    ok: bool | None = None
    latency_ms: float | None = None
    confidence: float | None = None
    claim: Claim | None = None
    outcome_of: str | None = None
    outcome: bool | None = None
    data: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One number a sensor gave, or its absence: ``value`` is None exactly when ``reason`` says why."""

    name: str
    value: float | None
    unit: str
    ts: float
    source: str
    reason: str | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A number that carries its evidence: ``n`` samples over ``window_s`` seconds; None is unavailable, with reason.

    ``low`` and ``high`` bound it with 95 % confidence where that can be computed.
    """

    value: float | None
    unit: str
    n: int
    window_s: float | None
    source: Source
    reason: str | None = None
    low: float | None = None
    high: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: what, who, since when, on which events, by which judge, what to do.

    ``probability`` is the judge's score in 0..1 or None for a rule that only fires; ``confidence`` is calibrated or
    None.
    """

    label: str
    severity: Severity
    agents: tuple[str, ...]
    evidence: tuple[str, ...]
    source: FindingSource
    text: str
    action: str
    since: float
    probability: float | None = None
    confidence: float | None = None


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said of one window: label -> probability, and what the answer cost."""

    model: str
    probabilities: dict[str, float]
    failure_probability: float | None
    tokens: int
    latency_ms: float | None


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that waits for another and has done nothing since; ``evidence`` is the event it began to wait with."""

    agent: str
    on: str
    since_s: float
    evidence: str


class Assignee(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask next: recent success with its 95 % interval over ``n`` known results."""

    agent: str
    success_rate: float
    low: float
    high: float
    n: int


class Coordination(msgspec.Struct, frozen=True, kw_only=True):
    """Advice on the team: who is blocked on whom, rings of them, how uneven the load is, whom to ask next by tool."""

    blocked: tuple[Blocked, ...]
    deadlocks: tuple[tuple[str, ...], ...]
    load: Metric
    busiest: str | None
    best_for: dict[str, Assignee]


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a team of agents and its device at ``ts``: what the daemon publishes and an operator reads."""

    v: Literal[1] = 1
    ts: float
    status: Status
    level: Level | None
    level_reason: str
    findings: tuple[Finding, ...]
    metrics: dict[str, Metric]
    agents: dict[str, Status]
    model: ModelAnswer | None
    model_reason: str | None
    changed: tuple[str, ...]
    action: str
    events_seen: int
    coordination: Coordination | None = None
