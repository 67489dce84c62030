"""What the monitor remembers: one immutable value of bounded size.

An update builds new records only for what an event touches and shares the rest; the earlier state stays valid, so a
state can be kept, compared or replayed. Times (``t``) are the monitor's own seconds, which never go backwards (see
machine); ``ts`` are the senders'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from nis_edge.monitor.context import DeviceView
from nis_edge.monitor.feedback import Feedback
from nis_edge.monitor.series import Anomaly
from nis_edge.monitor.verdict import Scope
from nis_edge.wire.messages import (
    AgentEvent,
    Coordination,
    Finding,
    Level,
    Metric,
    ModelAnswer,
    Reading,
    Severity,
    Status,
)

# How much of an agent's past is kept: enough for the rules that look at it (see rules), and about 12 KB an agent.
CALLS_KEPT: Final = 32
CALL_KEYS_KEPT: Final = 128
MESSAGES_KEPT: Final = 8
RESULTS_KEPT: Final = 20
LATENCIES_KEPT: Final = 64
OUTCOMES_KEPT: Final = 50
GAPS_KEPT: Final = 16
IDS_KEPT: Final = 32
# How much of the team's past is kept: for metrics with n and an interval.
TEAM_RESULTS_KEPT: Final = 200
TEAM_LATENCIES_KEPT: Final = 256
TEAM_OUTCOMES_KEPT: Final = 200
TEAM_TIMES_KEPT: Final = 256
TEAM_WORK_KEPT: Final = 256
READINGS_KEPT: Final = 64


class Call(msgspec.Struct, frozen=True):
    """One tool call: ``key`` stands for tool and arguments, ``result`` for what came back, None while unknown."""

    id: str
    key: str
    tool: str
    t: float
    new: bool
    result: int | None = None
    ok: bool | None = None


class Message(msgspec.Struct, frozen=True):
    """What is remembered of one message to recognise its like.

    ``heard`` is the sketch of what another agent said at length since the message before; None where none did.
    """

    id: str
    sketch: tuple[int, ...]
    numbers: int
    words: int
    heard: tuple[int, ...] | None = None


class Result(msgspec.Struct, frozen=True):
    """How one call or step went; ``failure`` is the sketch of the line a failure ended with."""

    id: str
    ok: bool | None
    t: float
    failure: tuple[int, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """A statement made with ``confidence`` that turned out right or wrong."""

    confidence: float
    right: bool
    t: float
    id: str


class Wait(msgspec.Struct, frozen=True):
    """An agent waits for ``on`` since ``t``, by event ``id``; ``correlation`` when it asked rather than said so."""

    on: str
    t: float
    id: str
    correlation: str | None = None


class AgentState(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's recent past."""

    name: str
    first_t: float
    last_t: float
    last_ts: float
    work_t: float = 0.0
    events: int = 0
    ended: bool = False
    beat_t: float | None = None
    beat_gaps: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()
    ids: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    call_keys: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    results: tuple[Result, ...] = ()
    latencies: tuple[float, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


class SensorState(msgspec.Struct, frozen=True, kw_only=True):
    """One sensor's recent past.

    Args:
        last, t: the newest reading, with a value or without, and when it came.
        values, times: the newest values.
        seen: values so far.
        absent: readings in a row without a value.
        over_t, over_n, pressing: since when and for how many readings it lies about its limit; whether that presses.
        anomaly: what its series shows against its own past.
        habits: the strongest score of each kind that it has shown before.
    """

    last: Reading
    t: float
    values: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    seen: int = 0
    absent: int = 0
    over_t: float | None = None
    over_n: int = 0
    pressing: bool = False
    anomaly: Anomaly | None = None
    habits: Mapping[str, float] = {}


class ClaimEntry(msgspec.Struct, frozen=True):
    """The newest claim of one agent on one quantity."""

    agent: str
    value: float | str | bool | None
    unit: str | None
    tol: float | None
    id: str
    t: float


class OpenFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of one judge that holds until its judge withdraws it."""

    scope: Scope
    label: str
    rule: str
    subject: str
    agents: tuple[str, ...]
    severity: Severity
    text: str
    evidence: tuple[str, ...]
    since: float
    opened_t: float
    last_t: float = 0.0
    probability: float | None = None
    confidence: float | None = None


Key = str
"""By what an open finding is known: see ``key_of``."""


def key_of(label: str, rule: str, subject: str) -> Key:
    """Label, rule and subject as one key: who may withdraw a finding is who raised it."""
    return f"{label}/{rule}/{subject}"


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of a model to use its answers: its name and its calibration.

    Args:
        model: id and version.
        thresholds: label -> probability from which the finding is believed; a label without one is never raised.
        temperatures: label -> divisor of the logit; a label that has one gives calibrated probabilities.
        decides: whether what it alone says may move the status; an advisory model's word is a hint (record 0034).
        rates: label -> share of the windows it was calibrated on in which the finding held.
    """

    model: str
    thresholds: Mapping[str, float]
    temperatures: Mapping[str, float]
    decides: bool = False
    rates: Mapping[str, float] = {}


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken in and what was not."""

    events: int = 0
    duplicates: int = 0
    late: int = 0
    skewed: int = 0
    unknown_kinds: int = 0
    look_alikes: int = 0
    refused: int = 0
    lost: int = 0
    asked: int = 0
    answered: int = 0
    unanswered: int = 0
    overtaken: int = 0
    shed: int = 0
    stale_answers: int = 0
    clock_steps: int = 0


class Pending(msgspec.Struct, frozen=True):
    """A question to the model that is on its way: who acted last in its window, and the ids it showed."""

    id: int
    t: float
    agent: str
    evidence: tuple[str, ...]


class Streak(msgspec.Struct, frozen=True):
    """How often in a row a label's probability was above its threshold (positive) or clearly below it (negative)."""

    count: int
    probability: float


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the monitor knows. ``MonitorState()`` knows nothing. Of ``agents`` the one heard last stands last."""

    started: bool = False
    last_now: float = 0.0
    offset: float = 0.0
    agents: dict[str, AgentState] = {}
    sensors: dict[str, SensorState] = {}
    device: DeviceView = DeviceView()
    device_t: float | None = None
    event_t: float | None = None
    goal: str | None = None
    window: tuple[AgentEvent, ...] = ()
    results: tuple[bool | None, ...] = ()
    result_times: tuple[float, ...] = ()
    latencies: tuple[float, ...] = ()
    confidence_gaps: tuple[float, ...] = ()
    brier_terms: tuple[float, ...] = ()
    event_times: tuple[float, ...] = ()
    claims: dict[str, tuple[ClaimEntry, ...]] = {}
    claims_t: float | None = None
    agreement: tuple[int, int] = (0, 0)
    confidences: dict[str, tuple[str, float]] = {}
    open: dict[Key, OpenFinding] = {}
    waits: Mapping[str, tuple[Wait, ...]] = {}
    workers: tuple[str, ...] = ()
    coordination: Coordination | None = None
    trends: Mapping[str, Metric] = {}
    advised_t: float | None = None
    scanned_t: float | None = None
    emitted_t: float | None = None
    status: Status = "unknown"
    level: Level | None = None
    findings: tuple[Finding, ...] = ()
    counts: Counts = Counts()
    judge: Judge | None = None
    judge_reason: str = "no model was loaded"
    answer: ModelAnswer | None = None
    answer_reason: str | None = None
    raw_failure: float | None = None
    streaks: dict[str, Streak] = {}
    feedback: Mapping[str, Feedback] = {}
    muted: Mapping[Key, Severity] = {}
    goal_id: str | None = None
    openings: Mapping[Key, tuple[float, ...]] = {}
    pending: Pending | None = None
    wanted: bool = False
    next_ask: int = 1
    shedding: str | None = None
