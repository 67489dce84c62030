"""Taking in: what one agent event adds to what the monitor remembers. Pure.

Nothing is judged here. An event touches its agent's record and the team's; everything else is shared with the state
before. The work for one event does not depend on how many agents or events there were.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final, TypeVar

from msgspec.structs import replace

from nis_edge.limits import (
    AGENTS_MAX,
    CLAIM_KEYS_MAX,
    CLAIMANTS_MAX,
    OPEN_CONFIDENCES_MAX,
    WINDOW_EVENTS_MAX,
    WINDOW_TEXT_CHARS_MAX,
)
from nis_edge.monitor import state as kept
from nis_edge.monitor.appearance import appearance_of
from nis_edge.monitor.context import clip
from nis_edge.monitor.coordination import waits_after
from nis_edge.monitor.evidence import is_environment, is_user
from nis_edge.monitor.state import AgentState, Call, ClaimEntry, Message, MonitorState, Outcome, Result
from nis_edge.monitor.statistics import sketch_of
from nis_edge.wire.messages import AgentEvent

SKEW_S: Final = 300.0
"""A sender's clock this far from ours is counted as skewed: five minutes, the tolerance Kerberos made customary."""

LATE_S: Final = 1.0
"""An event stamped this much before its agent's newest came late: less is jitter between threads."""

FORGET_AGENT_S: Final = 600.0
"""An agent silent for so long may give its place to a new one when all places are taken."""

CONTROL_KINDS: Final = frozenset({"heartbeat", "lifecycle"})
"""Events that say that an agent lives, not what it does: they enter no window."""

SPEAKING_KINDS: Final = frozenset({"message", "step"})
"""Events by which an agent says something to others."""

AT_LENGTH: Final = 2
"""An answer of twice the words gives more than its prompt; thanks and hand-overs are as short as what they answer."""

ENDED_WORDS: Final = frozenset(
    {"stop", "stopped", "end", "ended", "exit", "exited", "offline", "finished", "done", "completed", "shutdown"}
)
"""First words of a lifecycle event by which an agent takes its leave: its silence afterwards means nothing."""

FLOOD_EVENTS: Final = 12
FLOOD_S: Final = 1.0
"""So many events of one agent within a second fill a window before anyone else is heard: no agent that thinks does."""

T = TypeVar("T")


def absorb_event(state: MonitorState, event: AgentEvent, t: float, now: float, *, time_known: bool) -> MonitorState:
    """Take in one event.

    Args:
        state: the state before.
        event: canonical, as the codec made it.
        t: the monitor's own seconds.
        now: seconds since the epoch.
        time_known: whether the events' times are real.
    """
    agents = _with_place_for(state.agents, event.agent, t)
    if agents is None:
        return replace(state, counts=replace(state.counts, refused=state.counts.refused + 1))
    before = agents.get(event.agent)
    if before is not None and event.id in before.ids:
        return replace(state, counts=replace(state.counts, duplicates=state.counts.duplicates + 1))
    # The agent heard last stands last: who was silent longest, and who was active of late, is then no search.
    agents = dict(agents)
    agents.pop(event.agent, None)
    agents[event.agent] = _absorb_into_agent(before, event, t, state)
    gap = None
    stated = state.confidences.get(event.outcome_of) if event.kind == "outcome" and event.outcome_of else None
    if stated is not None and event.outcome is not None:
        by, confidence = stated
        gap = confidence - event.outcome
        if by in agents:
            outcome = Outcome(confidence=confidence, right=event.outcome, t=t, id=event.id)
            agents[by] = replace(agents[by], outcomes=_push(agents[by].outcomes, outcome, kept.OUTCOMES_KEPT))
    result = _result_of(event, t)
    is_control = event.kind in CONTROL_KINDS
    return replace(
        state,
        agents=agents,
        counts=_count(state, before, event, now, time_known=time_known),
        goal=(event.text or "")[:WINDOW_TEXT_CHARS_MAX] if event.kind == "goal" else state.goal,
        goal_id=event.id if event.kind == "goal" else state.goal_id,
        window=state.window if is_control else _with_room_in(state.window, clip(event), agents),
        results=(*state.results[-kept.TEAM_RESULTS_KEPT + 1 :], result.ok) if result else state.results,
        result_times=_push(state.result_times, t if result else None, kept.TEAM_RESULTS_KEPT),
        latencies=_push(state.latencies, event.latency_ms, kept.TEAM_LATENCIES_KEPT),
        confidence_gaps=_push(state.confidence_gaps, gap, kept.TEAM_OUTCOMES_KEPT),
        brier_terms=_push(state.brier_terms, None if gap is None else gap * gap, kept.TEAM_OUTCOMES_KEPT),
        event_times=_push(state.event_times, t, kept.TEAM_TIMES_KEPT),
        event_t=state.event_t if is_control else t,
        claims=_absorb_claim(state.claims, event, t),
        waits=state.waits if is_control else waits_after(state.waits, event, t),
        workers=state.workers if is_control else _push(state.workers, event.agent, kept.TEAM_WORK_KEPT),
        confidences=_absorb_confidence(state.confidences, event),
    )


def _with_place_for(agents: dict[str, AgentState], name: str, t: float) -> dict[str, AgentState] | None:
    """The agents with room for one more called ``name``, or None when every place is taken by a living one."""
    if name in agents or len(agents) < AGENTS_MAX:
        return agents
    oldest = next(iter(agents.values()))
    if t - oldest.last_t < FORGET_AGENT_S:
        return None
    return {known: agent for known, agent in agents.items() if known != oldest.name}


def _with_room_in(
    window: tuple[AgentEvent, ...], event: AgentEvent, agents: dict[str, AgentState]
) -> tuple[AgentEvent, ...]:
    """The window with one more event. An agent that floods makes room before anyone else."""
    if len(window) >= WINDOW_EVENTS_MAX:
        names = [known.agent for known in window]
        floods = [name for name in dict.fromkeys(names) if names.count(name) > 1 and _floods(agents.get(name))]
        if floods:
            first = names.index(max(floods, key=names.count))
            return (*window[:first], *window[first + 1 :], event)
    return _push(window, event, WINDOW_EVENTS_MAX)


def _floods(agent: AgentState | None) -> bool:
    gaps = agent.gaps[-FLOOD_EVENTS:] if agent else ()
    return len(gaps) == FLOOD_EVENTS and sum(gaps) < FLOOD_S


def _count(
    state: MonitorState, before: AgentState | None, event: AgentEvent, now: float, *, time_known: bool
) -> kept.Counts:
    counts = state.counts
    return replace(
        counts,
        events=counts.events + 1,
        late=counts.late + (before is not None and event.ts < before.last_ts - LATE_S),
        skewed=counts.skewed + (time_known and abs(event.ts - now) > SKEW_S),
        unknown_kinds=counts.unknown_kinds + (event.extra is not None and "kind" in event.extra),
        look_alikes=counts.look_alikes + (before is None and _looks_like_another(event.agent, state.agents)),
    )


def _looks_like_another(name: str, agents: dict[str, AgentState]) -> bool:
    """Whether a new name is drawn like that of a known agent: only then is its owner to be asked who he is."""
    drawn = appearance_of(name)
    return any(appearance_of(known) == drawn for known in agents if known != name)


def _heard(state: MonitorState, event: AgentEvent, words: int) -> tuple[int, ...] | None:
    """Sketch of what another agent (no person, no tool) said last since this one spoke, if it was said at length."""
    for earlier in reversed(state.window):
        if earlier.kind not in SPEAKING_KINDS:
            continue
        if earlier.agent == event.agent:
            return None
        speaker = state.agents.get(earlier.agent)
        if speaker and speaker.messages and not is_user(earlier) and not is_environment(earlier):
            said = speaker.messages[-1]
            return said.sketch if said.words >= AT_LENGTH * words else None
    return None


def _absorb_into_agent(agent: AgentState | None, event: AgentEvent, t: float, state: MonitorState) -> AgentState:
    if agent is None:
        agent = AgentState(name=event.agent, first_t=t, last_t=t, last_ts=event.ts)
    beat_t, beat_gaps = agent.beat_t, agent.beat_gaps
    if event.kind == "heartbeat":
        if beat_t is not None:
            beat_gaps = _push(beat_gaps, t - beat_t, kept.GAPS_KEPT)
        beat_t = t
    calls, call_keys = agent.calls, agent.call_keys
    if event.kind == "tool_call":
        calls, call_keys = _absorb_call(agent, event, t)
    elif event.kind == "tool_result":
        calls = _absorb_answer(agent.calls, event)
    messages = agent.messages
    if event.kind in SPEAKING_KINDS and event.text:
        sketch, numbers, words = sketch_of(event.text)
        said = Message(event.id, sketch, numbers, words, _heard(state, event, words))
        messages = _push(messages, said, kept.MESSAGES_KEPT)
    return replace(
        agent,
        last_t=t,
        last_ts=max(agent.last_ts, event.ts),
        work_t=agent.work_t if event.kind in CONTROL_KINDS else t,
        events=agent.events + 1,
        ended=_takes_leave(event),
        beat_t=beat_t,
        beat_gaps=beat_gaps,
        gaps=_push(agent.gaps, t - agent.last_t, kept.GAPS_KEPT) if agent.events else agent.gaps,
        ids=_push(agent.ids, event.id, kept.IDS_KEPT),
        calls=calls,
        call_keys=call_keys,
        messages=messages,
        results=_push(agent.results, _result_of(event, t), kept.RESULTS_KEPT),
        latencies=_push(agent.latencies, event.latency_ms, kept.LATENCIES_KEPT),
    )


def _absorb_call(agent: AgentState, event: AgentEvent, t: float) -> tuple[tuple[Call, ...], tuple[str, ...]]:
    tool = event.tool or "unnamed tool"
    if event.args_hash is not None:
        arguments = event.args_hash
    elif event.text:
        arguments = f"text {zlib.crc32(event.text.encode('utf-8', 'replace')):08x}"
    else:
        # Without arguments nobody can tell whether the call repeats another: it is taken for a new one.
        arguments = f"event {event.id}"
    # A fixed-size key: names and hashes that senders choose may be long, and many of them are kept.
    key = hashlib.blake2b(f"{tool} {arguments}".encode("utf-8", "replace"), digest_size=8).hexdigest()
    call = Call(id=event.id, key=key, tool=tool, t=t, new=key not in agent.call_keys, ok=event.ok)
    keys = agent.call_keys if not call.new else _push(agent.call_keys, key, kept.CALL_KEYS_KEPT)
    return _push(agent.calls, call, kept.CALLS_KEPT), keys


def _absorb_answer(calls: tuple[Call, ...], event: AgentEvent) -> tuple[Call, ...]:
    """Give the newest open call of that tool its result; a result that differs from the last one is news."""
    for index in range(len(calls) - 1, -1, -1):
        call = calls[index]
        if call.result is not None or (event.tool is not None and event.tool != call.tool):
            continue
        result = zlib.crc32((event.text or "").encode("utf-8", "replace"))
        last = next((past for past in reversed(calls[:index]) if past.key == call.key), None)
        is_news = last is not None and last.result is not None and last.result != result
        answered = replace(call, result=result, ok=event.ok, new=call.new or is_news)
        return (*calls[:index], answered, *calls[index + 1 :])
    return calls


def _result_of(event: AgentEvent, t: float) -> Result | None:
    if event.kind == "error":
        ok: bool | None = False
    elif event.kind == "tool_result" or (event.kind in ("tool_call", "step") and event.ok is not None):
        ok = event.ok
    else:
        return None
    return Result(event.id, ok, t, _failure_of(event) if ok is False else ())


def _failure_of(event: AgentEvent) -> tuple[int, ...]:
    # A trace of calls ends with what went wrong; what stands above is where.
    last = (event.text or "").rstrip().rpartition("\n")[2]
    return sketch_of(last)[0] if last else ()


def _absorb_claim(
    claims: dict[str, tuple[ClaimEntry, ...]], event: AgentEvent, t: float
) -> dict[str, tuple[ClaimEntry, ...]]:
    claim = event.claim
    if claim is None:
        return claims
    entry = ClaimEntry(event.agent, claim.value, claim.unit, claim.tol, event.id, t)
    others = tuple(known for known in claims.get(claim.key, ()) if known.agent != event.agent)
    if claim.key not in claims and len(claims) >= CLAIM_KEYS_MAX:
        stalest = min(claims, key=lambda key: claims[key][-1].t)
        claims = {key: entries for key, entries in claims.items() if key != stalest}
    return {**claims, claim.key: _push(others, entry, CLAIMANTS_MAX)}


def _absorb_confidence(confidences: dict[str, tuple[str, float]], event: AgentEvent) -> dict[str, tuple[str, float]]:
    if event.kind == "outcome":
        if event.outcome_of not in confidences:
            return confidences
        return {key: stated for key, stated in confidences.items() if key != event.outcome_of}
    if event.confidence is None or event.id in confidences:
        return confidences
    if len(confidences) >= OPEN_CONFIDENCES_MAX:
        oldest = next(iter(confidences))
        confidences = {key: stated for key, stated in confidences.items() if key != oldest}
    return {**confidences, event.id: (event.agent, event.confidence)}


def _takes_leave(event: AgentEvent) -> bool:
    if event.kind != "lifecycle" or not event.text:
        return False
    words = event.text.lower().split(maxsplit=1)
    return bool(words) and words[0].strip(".,:;!") in ENDED_WORDS


def _push(past: tuple[T, ...], item: T | None, most: int) -> tuple[T, ...]:
    """The past with one more item, the oldest dropped beyond ``most``; None adds nothing."""
    if item is None:
        return past
    return (*past[-(most - 1) :], item)
