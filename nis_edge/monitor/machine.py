"""The monitor as one pure function: ``step(state, inputs, now) -> (state, effects)``.

Theory of operation
-------------------
The roof gathers what came in since last time (agent events, device readings, the model's answers, the tick of a clock)
and hands it over with the time. The machine

1. *settles the time*. Its own seconds ``t`` follow ``now`` but never run backwards, and a leap forward of more than
   ``UNWATCHED_S`` counts as one second: silence in a time nobody watched proves nothing. So neither a clock that is set
   nor a machine that slept raises an alarm.
2. *absorbs* the inputs (``absorb``, ``device``): an event touches its agent's record and the team's.
3. *judges*: the agents that were touched by their rules at once; silence, stale feeds and findings that may have run
   out in a scan of all, at most once a second. A rule opens a finding, holds it, or withdraws it by saying nothing.
4. *asks the model* when events came: at most one question is under way; while it is, the newest window waits, older
   ones are dropped. An answer that doesn't come within ``ask_timeout_s`` is given up. Without a model, or under load
   (``Load``), the rules go on alone and every assessment says so.
5. *speaks*: an assessment for each step that brought events, an answer or a change of state, else every
   ``assessment_every_s``; and each finding once when it is raised and once when it is cleared.

            AgentEvents   Readings   ModelAnswers   JudgeChanged   Tick
                  \\___________|____________|_____________|__________/
                                          |
      state ---------------------->  step(now)  ----------------------> state
                                          |
                    Ask(window)   Emit(assessment)   Raised / Cleared   Refused

The state is a value; the same state, inputs and times give the same effects, to the byte. Everything kept is bounded
(limits.py). Events are data: no text of an event is ever read as an instruction, by a rule or by this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from nis_edge.limits import FINDINGS_OPEN_MAX
from nis_edge.monitor.absorb import absorb_event
from nis_edge.monitor.assess import assess, has_changed, is_alert, name_of
from nis_edge.monitor.context import Window, window_of
from nis_edge.monitor.coordination import coordination_of, team_verdicts
from nis_edge.monitor.device import absorb_reading, device_verdicts, feeds_of, residual_verdicts, view_of
from nis_edge.monitor.feedback import learned
from nis_edge.monitor.judge import at_share, weigh
from nis_edge.monitor.labels import FAILURE, SEVERITY_ORDER
from nis_edge.monitor.rules import (
    RuleOptions,
    agent_verdicts,
    agreement,
    conflicting_claims,
    silence,
    stale_device,
)
from nis_edge.monitor.series_judge import SeriesJudge
from nis_edge.monitor.signals import trends_of
from nis_edge.monitor.state import Judge, Key, MonitorState, OpenFinding, Pending, key_of
from nis_edge.monitor.verdict import Scope, Verdict
from nis_edge.wire.messages import AgentEvent, Assessment, Finding, ModelAnswer, Reading

SCAN_EVERY_S: Final = 1.0
"""How often all agents are looked over: silence is counted in seconds."""

FLAP_TIMES: Final = 3
FLAP_S: Final = 600.0
LATCH_S: Final = 120.0
"""A finding raised three times within ten minutes comes and goes: it then stays until it was away for two minutes, so
that an operator is told once and not each time."""

ADVICE_EVERY_S: Final = 10.0
"""How often trends and the advice on the team are worked out anew: both move in minutes."""

CLAIMS_EVERY_S: Final = 10.0
"""How often claims are looked over without a new one: they only grow old, and that takes minutes."""

UNWATCHED_S: Final = 60.0
"""A leap of the clock beyond this was no watching: the machine slept, or its clock was set."""

EVIDENCE_OF_ANSWER: Final = 3
"""Newest events of a window that stand as evidence for the model's answer on it."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set.

    Args:
        rules: thresholds that depend on the site.
        assessment_every_s: an assessment at least so often.
        fresh_s: how old a feed may be and still count as evidence for the level.
        ask_timeout_s: after so long an answer of the model is given up.
        expected_share: of windows in which a given finding is expected to hold, by which the model's probabilities are
            corrected; None leaves them as its package was calibrated.
        series: names the faults of sensors' series; None leaves that to thresholds. No option of the operator's: it
            travels beside the shipped model.
    """

    rules: RuleOptions = RuleOptions()
    assessment_every_s: float = 30.0
    fresh_s: float = 60.0
    ask_timeout_s: float = 10.0
    expected_share: float | None = None
    series: SeriesJudge | None = None


class AgentEvents(msgspec.Struct, frozen=True):
    """Agent events in order of arrival."""

    events: tuple[AgentEvent, ...]


class Readings(msgspec.Struct, frozen=True):
    """Readings of the device's sensors."""

    readings: tuple[Reading, ...]


class ModelAnswers(msgspec.Struct, frozen=True):
    """The answer to ``Ask`` number ``id``; ``answer`` is None when the model could give none, for ``reason``."""

    id: int
    answer: ModelAnswer | None
    reason: str | None = None


class JudgeChanged(msgspec.Struct, frozen=True):
    """Another model is in service, or none (``judge`` None, for ``reason``). Questions under way are forgotten."""

    judge: Judge | None
    reason: str = "no model was loaded"


class Lost(msgspec.Struct, frozen=True):
    """So many agent events never reached the monitor: its inbox was full."""

    count: int


class Load(msgspec.Struct, frozen=True):
    """The roof is overloaded, for ``reason``, or no longer (None). While it is, the model is not asked; rules go on."""

    reason: str | None


class OperatorVerdict(msgspec.Struct, frozen=True):
    """The operator says whether the open findings of this label are right; of these ``agents``, or of all when empty.

    It comes by a way that agents can't write to: an agent event never becomes one.
    """

    label: str
    right: bool
    agents: tuple[str, ...] = ()


class ForgetFeedback(msgspec.Struct, frozen=True):
    """The operator takes back every verdict: corrections and muted findings are forgotten."""


class Tick(msgspec.Struct, frozen=True):
    """Nothing came; time went by."""


class Ask(msgspec.Struct, frozen=True):
    """Put this window to the model and answer with ``ModelAnswers(id, ...)``."""

    id: int
    window: Window


class Emit(msgspec.Struct, frozen=True):
    """Publish this assessment."""

    assessment: Assessment


class Raised(msgspec.Struct, frozen=True):
    """A finding began."""

    finding: Finding


class Cleared(msgspec.Struct, frozen=True):
    """A finding ended."""

    finding: Finding


class Refused(msgspec.Struct, frozen=True):
    """So many inputs of this step were not taken in, and why."""

    count: int
    reason: str


Input = AgentEvents | Readings | ModelAnswers | JudgeChanged | OperatorVerdict | ForgetFeedback | Lost | Load | Tick
Effect = Ask | Emit | Raised | Cleared | Refused

DEFAULT_OPTIONS: Final = Options()


def step(
    state: MonitorState, inputs: Iterable[Input], now: float, options: Options = DEFAULT_OPTIONS
) -> tuple[MonitorState, tuple[Effect, ...]]:
    """Take in what came, judge, and say what is to be done.

    Args:
        state: from the step before; ``MonitorState()`` at the start.
        inputs: what came in, in order.
        now: seconds since the epoch; may jump.
        options: what the operator set.

    Returns:
        The new state, and effects for the roof to perform in order.
    """
    state, t = _settle_time(state, now)
    before = state
    touched: dict[str, None] = {}
    has_news = False
    for received in inputs:
        if isinstance(received, AgentEvents):
            for event in received.events:
                taken = state.counts.events
                state = _learn_of_run(state, event)
                state = absorb_event(state, event, t, now, time_known=options.rules.time_known)
                touched[event.agent] = None
                if event.data is not None and state.counts.events > taken:
                    for reading in feeds_of(event):
                        state = absorb_reading(state, reading, t, options.series)
        elif isinstance(received, Readings):
            for reading in received.readings:
                state = absorb_reading(state, reading, t, options.series)
        elif isinstance(received, ModelAnswers):
            state, is_answer = _take_answer(state, received, t, now, options)
            has_news = has_news or is_answer
        elif isinstance(received, JudgeChanged):
            state = _change_judge(state, received)
        elif isinstance(received, Lost):
            state = replace(state, counts=replace(state.counts, lost=state.counts.lost + received.count))
        elif isinstance(received, OperatorVerdict):
            state = _learn_of_finding(state, received)
        elif isinstance(received, ForgetFeedback):
            state = replace(state, feedback={}, muted={})
        elif isinstance(received, Load):
            state = replace(state, shedding=received.reason)
    has_news = has_news or state.counts.events > before.counts.events
    state = _judge(state, before, touched, t, now, options)
    state, asked = _ask(state, before, t, now, options)
    state, spoken = _speak(state, t, now, has_news=has_news, options=options)
    refused = state.counts.refused - before.counts.refused
    effects: list[Effect] = [Refused(refused, "more agents or sensors than the monitor remembers")] if refused else []
    return state, (*effects, *asked, *spoken)


def _settle_time(state: MonitorState, now: float) -> tuple[MonitorState, float]:
    if not state.started:
        return replace(state, started=True, last_now=now), now
    passed = now - state.last_now
    if 0.0 <= passed <= UNWATCHED_S:
        return replace(state, last_now=now), now + state.offset
    believed = 0.0 if passed < 0.0 else SCAN_EVERY_S
    counts = replace(state.counts, clock_steps=state.counts.clock_steps + 1)
    offset = state.offset + believed - passed
    return replace(state, last_now=now, offset=offset, counts=counts), now + offset


def _judge(
    state: MonitorState, before: MonitorState, touched: dict[str, None], t: float, now: float, options: Options
) -> MonitorState:
    """Let the rules speak: on what was touched at once, on everything at most once a second."""
    is_scan = _is_due(state.scanned_t, t, SCAN_EVERY_S)
    examined: set[Scope] = set()
    verdicts: list[Verdict] = []
    if is_scan:
        examined |= {"silence", "physics", "team"}
        verdicts += team_verdicts(state, t) if state.waits else ()
        verdicts += residual_verdicts(state)
        touched = {**touched, **{found.subject: None for found in state.open.values() if found.scope == "agent"}}
        verdicts += silence(state, t, options.rules)
        stale = stale_device(state, t, options.rules)
        verdicts += [stale] if stale else []
        state = replace(state, scanned_t=t)
    if _is_due(state.advised_t, t, ADVICE_EVERY_S):
        state = replace(state, advised_t=t, coordination=coordination_of(state, t), trends=trends_of(state))
    if is_scan or state.sensors is not before.sensors:
        examined.add("device")
        verdicts += device_verdicts(state)
        state = replace(state, device=view_of(state, t))
    if state.claims and (state.claims is not before.claims or _is_due(state.claims_t, t, CLAIMS_EVERY_S)):
        examined.add("claims")
        verdicts += conflicting_claims(state.claims, t)
        state = replace(state, claims_t=t, agreement=agreement(state.claims, t))
    for name in touched:
        if name in state.agents:
            verdicts += agent_verdicts(state.agents[name], t, options.rules)
    said = {key_of(verdict.label, verdict.rule, verdict.subject): verdict for verdict in verdicts}
    if not said and not state.open:
        return replace(state, muted={}) if state.muted else state
    open_now: dict[Key, OpenFinding] = {}
    openings = state.openings
    for key, found in state.open.items():
        spoken = said.pop(key, None)
        if spoken is not None:
            open_now[key] = replace(_renewed(found, spoken), last_t=t)
        elif (options.rules.time_known and _comes_and_goes(state, key, found, t)) or (
            found.scope not in examined and not (found.scope == "agent" and found.subject in touched)
        ):
            open_now[key] = found
    for key, verdict in said.items():
        if verdict.standing == "raise" and len(open_now) < FINDINGS_OPEN_MAX:
            open_now[key] = _opened(verdict, t, now)
            openings = _with_opening(openings, key, t)
    muted = state.muted
    if muted:
        muted = {key: severity for key, severity in muted.items() if key in open_now}
    return replace(state, open=open_now, openings=openings, muted=muted)


def _with_opening(openings: Mapping[Key, tuple[float, ...]], key: Key, t: float) -> Mapping[Key, tuple[float, ...]]:
    rest = {known: times for known, times in openings.items() if known != key and t - times[-1] <= FLAP_S}
    if len(rest) >= FINDINGS_OPEN_MAX:
        del rest[next(iter(rest))]
    return {**rest, key: (*openings.get(key, ())[-(FLAP_TIMES - 1) :], t)}


def _comes_and_goes(state: MonitorState, key: Key, found: OpenFinding, t: float) -> bool:
    """Whether a finding that its rule no longer holds is kept all the same: it was raised too often of late."""
    times = state.openings.get(key, ())
    flaps = len(times) == FLAP_TIMES and t - times[0] <= FLAP_S + LATCH_S
    return flaps and t - found.last_t <= LATCH_S


def _is_due(last_t: float | None, t: float, every_s: float) -> bool:
    return last_t is None or t - last_t >= every_s


def _opened(verdict: Verdict, t: float, now: float) -> OpenFinding:
    return OpenFinding(
        scope=verdict.scope,
        label=verdict.label,
        rule=verdict.rule,
        subject=verdict.subject,
        agents=verdict.agents or (verdict.subject,),
        severity=verdict.severity,
        text=verdict.text,
        evidence=verdict.evidence,
        since=now,
        opened_t=t,
        last_t=t,
    )


def _renewed(found: OpenFinding, verdict: Verdict) -> OpenFinding:
    """The finding with the rule's newest numbers; its beginning and whom it names stay, its severity only rises.

    Between the rule's two thresholds it keeps the words it was raised with: they are what the operator has to go by.
    """
    if verdict.standing == "hold":
        return found
    worst = max(found.severity, verdict.severity, key=SEVERITY_ORDER.index)
    return replace(
        found,
        severity=worst,
        text=verdict.text,
        evidence=verdict.evidence,
    )


def _take_answer(
    state: MonitorState, received: ModelAnswers, t: float, now: float, options: Options
) -> tuple[MonitorState, bool]:
    asked, judge, counts = state.pending, state.judge, state.counts
    if asked is None or judge is None or received.id != asked.id:
        return replace(state, counts=replace(counts, stale_answers=counts.stale_answers + 1)), False
    state = replace(state, pending=None)
    if received.answer is None:
        reason = received.reason or "the model gave no answer"
        return replace(
            state, answer=None, answer_reason=reason, counts=replace(counts, unanswered=counts.unanswered + 1)
        ), True
    raw = received.answer.failure_probability
    counts = replace(counts, answered=counts.answered + 1)
    state = replace(state, answer_reason=None, raw_failure=raw, counts=counts)
    return weigh(state, judge, at_share(judge, received.answer, options.expected_share), asked, t, now), True


def _change_judge(state: MonitorState, received: JudgeChanged) -> MonitorState:
    """Another model starts with a clean slate: what the one before raised is withdrawn with it."""
    return replace(
        state,
        judge=received.judge,
        judge_reason=received.reason,
        answer=None,
        answer_reason=None,
        streaks={},
        feedback={},
        muted={
            key: severity
            for key, severity in state.muted.items()
            if key in state.open and state.open[key].scope != "model"
        },
        raw_failure=None,
        pending=None,
        wanted=bool(state.window),
        open={key: found for key, found in state.open.items() if found.scope != "model"},
    )


def _learn_of_finding(state: MonitorState, said: OperatorVerdict) -> MonitorState:
    """Take an operator's verdict: the model's probability is corrected, a false alarm becomes a hint until it ends."""
    feedback, muted = dict(state.feedback), dict(state.muted)
    for key, found in state.open.items():
        if found.label != said.label or (said.agents and not set(said.agents) & set(found.agents)):
            continue
        raw = state.answer.probabilities.get(found.label) if state.answer is not None else None
        feedback[found.label] = learned(feedback.get(found.label), raw if found.scope == "model" else None, said.right)
        if said.right:
            muted.pop(key, None)
        else:
            muted[key] = found.severity
    return replace(state, feedback=feedback, muted=muted)


def _learn_of_run(state: MonitorState, event: AgentEvent) -> MonitorState:
    """The outcome of the run (of its goal) corrects the probability of failure, once for each goal."""
    if event.kind != "outcome" or event.outcome is None or state.goal_id is None or event.outcome_of != state.goal_id:
        return state
    raw = state.raw_failure
    if raw is None:
        return replace(state, goal_id=None)
    after = learned(state.feedback.get(FAILURE), raw, not event.outcome)
    return replace(state, goal_id=None, feedback={**state.feedback, FAILURE: after})


def _ask(
    state: MonitorState, before: MonitorState, t: float, now: float, options: Options
) -> tuple[MonitorState, tuple[Ask, ...]]:
    if state.judge is None or not state.window:
        return state, ()
    is_new = state.window is not before.window
    wanted = state.wanted or is_new
    if state.pending is not None:
        if t - state.pending.t <= options.ask_timeout_s:
            if is_new and state.wanted:
                counts = replace(state.counts, overtaken=state.counts.overtaken + 1)
                return replace(state, counts=counts), ()
            return (state if wanted == state.wanted else replace(state, wanted=wanted)), ()
        reason = f"the model did not answer within {options.ask_timeout_s:g} s"
        counts = replace(state.counts, unanswered=state.counts.unanswered + 1)
        state = replace(state, pending=None, answer=None, answer_reason=reason, counts=counts)
    if not wanted:
        return state, ()
    if state.shedding is not None:
        # The model is what can wait: the newest window is put to it when there is room again.
        counts = replace(state.counts, shed=state.counts.shed + is_new)
        return replace(state, wanted=True, counts=counts), ()
    window = window_of(state.goal, state.window, view_of(state, t), now, time_known=options.rules.time_known)
    shown = state.window[-EVIDENCE_OF_ANSWER:]
    pending = Pending(state.next_ask, t, shown[-1].agent, tuple(event.id for event in shown))
    ask = Ask(state.next_ask, window)
    counts = replace(state.counts, asked=state.counts.asked + 1)
    return replace(state, pending=pending, wanted=False, next_ask=state.next_ask + 1, counts=counts), (ask,)


def _speak(
    state: MonitorState, t: float, now: float, *, has_news: bool, options: Options
) -> tuple[MonitorState, tuple[Effect, ...]]:
    is_due = _is_due(state.emitted_t, t, options.assessment_every_s)
    time_known, fresh_s = options.rules.time_known, options.fresh_s
    if not (has_news or is_due) and not has_changed(state, t, time_known=time_known, fresh_s=fresh_s):
        return state, ()
    assessment = assess(
        state, t, now, time_known=time_known, fresh_s=fresh_s, deadline_ms=options.rules.latency_deadline_ms
    )
    # A hint that a rule confirms is told anew: it has become an alert.
    known = {(name_of(finding), is_alert(finding)) for finding in state.findings}
    current = {(name_of(finding), is_alert(finding)) for finding in assessment.findings}
    raised = [Raised(found) for found in assessment.findings if (name_of(found), is_alert(found)) not in known]
    cleared = [Cleared(found) for found in state.findings if (name_of(found), is_alert(found)) not in current]
    state = replace(
        state,
        emitted_t=t,
        status=assessment.status,
        level=assessment.level,
        findings=assessment.findings,
    )
    return state, (*raised, *cleared, Emit(assessment))
