"""The rules that always run: what is certain enough to be said without a model. Pure.

Each rule looks at one agent's recent past (or at the claims, or at the feeds) and returns its verdict or nothing. Each
has two thresholds, one to raise and a milder one to hold, and a least sample below which it is silent. Its hard
negatives stand beside it: what looks alike and is none of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final

import msgspec

from nis_edge.monitor.state import AgentState, Call, ClaimEntry, Message, MonitorState, Result
from nis_edge.monitor.statistics import MAD_TO_SIGMA, cycle_length, likeness, median, quantile, robust_z, wilson
from nis_edge.monitor.verdict import Verdict
from nis_edge.wire.messages import Severity

# --- looping ----------------------------------------------------------------------------------------------------------

NOVELTY_WINDOW: Final = 20
NOVELTY_CALLS_MIN: Final = 10
NOVELTY_RAISE: Final = 0.1
NOVELTY_HOLD: Final = 0.25
"""Share of calls that were new: the design's formula, new unique (tool, arguments) / calls < 0.1 over >= 10 calls."""

CYCLE_LONGEST: Final = 8
CYCLE_ROUNDS: Final = 3
SAME_CALL_ROUNDS: Final = 4
"""Rounds of a cycle: one call repeated needs one round more, because trying again is what careful agents do."""

RETRY_ROUNDS: Final = 6
"""The same call after a failure is a retry; common retry policies stop after five tries."""

POLL_ROUNDS: Final = 30
"""Asking the state of something long is polling; thirty equal answers are too many even for that."""

POLLING_WORDS: Final = ("status", "poll", "wait", "check", "health", "ping", "sleep", "progress", "heartbeat")

LIKENESS_SAME: Final = 0.9
MESSAGES_RAISE: Final = 3
MESSAGES_HOLD: Final = 2
SHORT_WORDS: Final = 6
SHORT_MESSAGES_RAISE: Final = 5
"""Near-identical messages among the last eight; shorter ones (yes, ok, done) repeat without meaning anything."""

PROMPTS_RAISE: Final = RETRY_ROUNDS
"""The same words, each time answered by another agent with other words and more of them, are a driver's (*continue*):
as with retries, five times is what working teams do."""

# --- errors -----------------------------------------------------------------------------------------------------------

ERRORS_MIN: Final = 3
ERRORS_RAISE: Final = 0.3
ERRORS_HOLD: Final = 0.15
ERRORS_GRAVE: Final = 0.6
"""Lower Wilson bound of the share of failures: three of three, four of six, six of ten raise; healthy teams fail in 6 %
of calls (measured on 200 recorded service runs)."""

FAILURE_ALIKE: Final = 0.5
"""Failures that share half of their word pairs are one trouble: the rest is names, lines and values. Whoever fails
otherwise each time is trying something else each time (until ``RETRY_ROUNDS``)."""

ERRORS_WINDOW_S: Final = 900.0
"""Older failures are history."""

# --- latency ----------------------------------------------------------------------------------------------------------

LATENCY_RECENT: Final = 8
LATENCY_REFERENCE_MIN: Final = 16
LATENCY_Z_RAISE: Final = 6.0
LATENCY_Z_HOLD: Final = 3.0
LATENCY_RATIO: Final = 3.0
LATENCY_FLOOR: Final = 0.1
"""The newest median against the earlier ones: at least six robust deviations (never believed below 10 % of the median)
and three times as slow."""

DEADLINE_SAMPLES_MIN: Final = 20

# --- overconfidence ---------------------------------------------------------------------------------------------------

OUTCOMES_MIN: Final = 16
OVERCONFIDENCE_GAP: Final = 0.1
OVERCONFIDENCE_Z: Final = 4.0
"""Mean stated confidence must exceed the accuracy by the gap, and what the outcomes allow: the upper Wilson bound,
wider than 95 % because it is looked at anew with every outcome."""

# --- liveness ---------------------------------------------------------------------------------------------------------

SILENT_INTERVALS: Final = 3.0
"""The design's formula: now - last_seen > 3 intervals."""

BEATS_STRAY: Final = 3.0
"""Deviations by which the third beat may be late: a beat that comes with its jitter isn't missing."""

BEATS_MIN: Final = 3
GAPS_MIN: Final = 8
"""Intervals seen before an agent's own rhythm is believed."""

FEED_QUIET_S: Final = 10.0
"""Nobody heard for so long: an agent's silence may be the feed's."""

CLAIM_FRESH_S: Final = 300.0
CLAIM_TOLERANCE: Final = 0.01
"""Claims older than this are not compared; without a stated tolerance 1 % counts as agreement."""

EVIDENCE_SHOWN: Final = 6


class RuleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set.

    Args:
        time_known: False in a recorded run without times: whatever needs time is silent.
        silence_floor_s: an agent without heartbeats is never called silent before.
        heartbeat_floor_s: nor one with heartbeats, however fast it beats.
        device_interval_s: how often the device is read.
        latency_deadline_ms: None when no deadline was promised.
    """

    time_known: bool = True
    silence_floor_s: float = 120.0
    heartbeat_floor_s: float = 5.0
    device_interval_s: float = 5.0
    latency_deadline_ms: float | None = None


def agent_verdicts(agent: AgentState, t: float, options: RuleOptions) -> list[Verdict]:
    """What the rules say of one agent's doings at ``t``."""
    said = (
        repeated_calls(agent),
        little_novelty(agent),
        repeated_messages(agent),
        failing_calls(agent, t, options),
        slow_answers(agent, options),
        overconfident(agent),
    )
    return [verdict for verdict in said if verdict is not None]


def repeated_calls(agent: AgentState) -> Verdict | None:
    """Calls that go in a circle, answered alike each time.

    Not raised: a retry after a failure (until ``RETRY_ROUNDS``), polling (until ``POLL_ROUNDS``), a repeated call whose
    answer changes: that is news.
    """
    # A call under way has no answer yet: what it repeats shows when it is answered.
    answered = any(call.result is not None for call in agent.calls)
    calls = agent.calls[:-1] if answered and agent.calls[-1].result is None else agent.calls
    keys = [f"{call.key} {call.result}" for call in calls]
    period = cycle_length(keys, CYCLE_LONGEST, CYCLE_ROUNDS)
    if period is None:
        return None
    rounds = _rounds(keys, period)
    newest = calls[-period:]
    needed = _rounds_allowed(newest)
    if rounds < needed - 1:
        return None
    what = f"{newest[0].tool} with the same arguments" if period == 1 else f"the same {period} calls"
    answer = "fails each time" if all(call.ok is False for call in newest) else "is answered alike"
    return Verdict(
        scope="agent",
        label="looping",
        rule="repeated calls",
        subject=agent.name,
        severity="high",
        text=f"calls {what} {rounds} times in a row ({answer})",
        evidence=_shown([call.id for call in calls[-min(len(calls), rounds * period) :]]),
        standing="raise" if rounds >= needed else "hold",
    )


def little_novelty(agent: AgentState) -> Verdict | None:
    """Hardly any call is new, though no strict circle shows. Polling is left out."""
    calls = [call for call in agent.calls if not _is_polling(call)][-NOVELTY_WINDOW:]
    if len(calls) < NOVELTY_CALLS_MIN:
        return None
    new = sum(call.new for call in calls)
    share = new / len(calls)
    if share >= NOVELTY_HOLD:
        return None
    return Verdict(
        scope="agent",
        label="looping",
        rule="little novelty",
        subject=agent.name,
        severity="high",
        text=f"only {new} of its last {len(calls)} calls were new ({share:.0%}; looping below {NOVELTY_RAISE:.0%})",
        evidence=_shown([call.id for call in calls if not call.new]),
        standing="raise" if share < NOVELTY_RAISE else "hold",
    )


def repeated_messages(agent: AgentState) -> Verdict | None:
    """The newest message says what earlier ones said, with the same numbers.

    Not raised: a count that moves on, which is progress; a prompt that another agent answers at length with something
    else each time (until ``PROMPTS_RAISE``).
    """
    if len(agent.messages) < MESSAGES_HOLD:
        return None
    newest = agent.messages[-1]
    alike = [
        message
        for message in agent.messages
        if message.numbers == newest.numbers and likeness(message.sketch, newest.sketch) >= LIKENESS_SAME
    ]
    needed = SHORT_MESSAGES_RAISE if newest.words < SHORT_WORDS else MESSAGES_RAISE
    if len(alike) >= needed and _are_prompts(alike):
        needed = max(needed, PROMPTS_RAISE)
    if len(alike) < min(MESSAGES_HOLD, needed):
        return None
    return Verdict(
        scope="agent",
        label="looping",
        rule="repeated messages",
        subject=agent.name,
        severity="medium",
        text=f"said nearly the same thing {len(alike)} times in its last {len(agent.messages)} messages",
        evidence=_shown([message.id for message in alike]),
        standing="raise" if len(alike) >= needed else "hold",
    )


def failing_calls(agent: AgentState, t: float, options: RuleOptions) -> Verdict | None:
    """More of an agent's calls fail than chance explains. A result that shows neither counts as no failure.

    Not raised: failures that differ from each other, as of code that is being mended (until ``RETRY_ROUNDS``).
    """
    results = [result for result in agent.results if not options.time_known or t - result.t <= ERRORS_WINDOW_S]
    failed = [result for result in results if result.ok is False]
    if len(failed) < ERRORS_MIN:
        return None
    low, high = wilson(len(failed), len(results))
    if low < ERRORS_HOLD:
        return None
    severity: Severity = "high" if low >= ERRORS_GRAVE else "medium"
    return Verdict(
        scope="agent",
        label="invalid_call",
        rule="failing calls",
        subject=agent.name,
        severity=severity,
        text=(
            f"{len(failed)} of the last {len(results)} calls failed "
            f"({len(failed) / len(results):.0%}, 95 % interval {low:.0%} to {high:.0%})"
        ),
        evidence=_shown([result.id for result in failed]),
        standing="raise" if low >= ERRORS_RAISE and _fail_alike(failed) else "hold",
    )


def slow_answers(agent: AgentState, options: RuleOptions) -> Verdict | None:
    """The agent misses its deadline, or has become much slower than it was."""
    latencies = agent.latencies
    deadline = options.latency_deadline_ms
    if deadline is not None and len(latencies) >= DEADLINE_SAMPLES_MIN:
        p95 = quantile(sorted(latencies), 0.95)
        if p95 > 0.8 * deadline:
            return _slow(agent, p95 > deadline, f"p95 latency {p95:.0f} ms against a deadline of {deadline:.0f} ms")
    if len(latencies) < LATENCY_RECENT + LATENCY_REFERENCE_MIN:
        return None
    reference, recent = latencies[:-LATENCY_RECENT], median(latencies[-LATENCY_RECENT:])
    usual = median(reference)
    z = robust_z(recent, reference, max(LATENCY_FLOOR * usual, 1e-9))
    if z < LATENCY_Z_HOLD or recent < LATENCY_RATIO * usual:
        return None
    text = f"median latency {recent:.0f} ms over the last {LATENCY_RECENT}, usually {usual:.0f} ms (robust z {z:.0f})"
    return _slow(agent, z >= LATENCY_Z_RAISE, text)


def overconfident(agent: AgentState) -> Verdict | None:
    """States more confidence than its resolved outcomes allow."""
    outcomes = agent.outcomes
    if len(outcomes) < OUTCOMES_MIN:
        return None
    right = sum(outcome.right for outcome in outcomes)
    accuracy = right / len(outcomes)
    stated = sum(outcome.confidence for outcome in outcomes) / len(outcomes)
    _, high = wilson(right, len(outcomes), OVERCONFIDENCE_Z)
    if stated - accuracy < OVERCONFIDENCE_GAP:
        return None
    return Verdict(
        scope="agent",
        label="overconfident",
        rule="outcomes",
        subject=agent.name,
        severity="medium",
        text=f"states {stated:.0%} confidence on average, was right {right} of {len(outcomes)} times ({accuracy:.0%})",
        evidence=_shown([outcome.id for outcome in outcomes if not outcome.right]),
        standing="raise" if stated > high else "hold",
    )


def silence(state: MonitorState, t: float, options: RuleOptions) -> Iterator[Verdict]:
    """Agents that fell silent; when all of several did, it is the feed rather than each of them.

    Not raised: an agent that took its leave, an agent whose rhythm isn't known yet.
    """
    if not options.time_known:
        return
    limits = {agent.name: silence_limit_s(agent, options) for agent in state.agents.values() if not agent.ended}
    silent = [
        state.agents[name]
        for name, limit in limits.items()
        if limit is not None and t - state.agents[name].last_t > limit
    ]
    if len(silent) >= 2 and len(silent) == len(limits):
        since = max(agent.last_t for agent in silent)
        yield Verdict(
            scope="silence",
            label="stale_feed",
            rule="events",
            subject="events",
            severity="high",
            text=f"no event from any of {len(silent)} agents for {t - since:.0f} s",
            evidence=_shown([agent.ids[-1] for agent in silent if agent.ids]),
        )
        return
    # While nobody at all is heard it may be the feed: a finding on one agent then waits, or stays as it is.
    heard = max((agent.last_t for agent in state.agents.values()), default=t)
    is_quiet = len(limits) >= 2 and t - heard > FEED_QUIET_S
    for agent in silent:
        limit = limits[agent.name]
        beats = agent.beat_t is not None
        yield Verdict(
            scope="silence",
            label="stalled",
            rule="silence",
            subject=agent.name,
            severity="high" if beats else "medium",
            text=f"silent for {t - agent.last_t:.0f} s; its {'heartbeat' if beats else 'rhythm'} allows {limit:.0f} s",
            evidence=agent.ids[-1:],
            standing="hold" if is_quiet else "raise",
        )


def silence_limit_s(agent: AgentState, options: RuleOptions) -> float | None:
    """How long an agent may be silent, seconds; None while its rhythm isn't known."""
    if agent.beat_t is not None:
        if len(agent.beat_gaps) < BEATS_MIN:
            return None
        return max(_beats_late_s(agent.beat_gaps), options.heartbeat_floor_s)
    if len(agent.gaps) < GAPS_MIN:
        return None
    # Without heartbeats work comes in bursts: the longest pause of late is what the agent has shown to be normal.
    return max(SILENT_INTERVALS * max(agent.gaps), options.silence_floor_s)


def _beats_late_s(gaps: Sequence[float]) -> float:
    """When the third beat is missing rather than late: three intervals, and what the sum of three may stray by.

    The deviation of a sum grows with the root of its length. However much an agent's beats stray, a fourth is too many.
    """
    usual = median(gaps)
    stray = MAD_TO_SIGMA * median([abs(gap - usual) for gap in gaps])
    return SILENT_INTERVALS * usual + min(BEATS_STRAY * math.sqrt(SILENT_INTERVALS) * stray, usual)


def stale_device(state: MonitorState, t: float, options: RuleOptions) -> Verdict | None:
    """The device's own readings stopped."""
    if not options.time_known or state.device_t is None:
        return None
    age = t - state.device_t
    if age <= SILENT_INTERVALS * options.device_interval_s:
        return None
    return Verdict(
        scope="silence",
        label="stale_feed",
        rule="device",
        subject="device",
        severity="medium",
        text=f"no device reading for {age:.0f} s; one is due every {options.device_interval_s:g} s",
        evidence=(),
    )


def conflicting_claims(claims: Mapping[str, tuple[ClaimEntry, ...]], t: float) -> Iterator[Verdict]:
    """Agents that claim different values for the same thing at the same time."""
    for key, entries in claims.items():
        fresh = [entry for entry in entries if t - entry.t <= CLAIM_FRESH_S]
        against = [
            [other for other in fresh if other is not entry and agrees(entry, other) is False] for entry in fresh
        ]
        most = max((len(others) for others in against), default=0)
        if most == 0:
            continue
        # One against all is the odd one out; otherwise it is the first pair that disagrees.
        odd = next(index for index, others in enumerate(against) if len(others) == most)
        entry, other = fresh[odd], against[odd][-1]
        named = (entry,) if most >= 2 and most == len(fresh) - 1 else (entry, other)
        yield Verdict(
            scope="claims",
            label="contradiction",
            rule="claims",
            subject=key,
            severity="medium",
            text=(
                f"{entry.agent} says {key} is {_said(entry)}, "
                f"{other.agent if most == 1 else f'{most} others, such as {other.agent},'} {_say(most)} {_said(other)}"
            ),
            evidence=(entry.id, other.id),
            agents=tuple(sorted({claim.agent for claim in named})),
        )


def agreement(claims: Mapping[str, tuple[ClaimEntry, ...]], t: float) -> tuple[int, int]:
    """How many pairs of fresh claims on the same thing agree, and how many can be compared at all."""
    agreeing = comparable = 0
    for entries in claims.values():
        fresh = [entry for entry in entries if t - entry.t <= CLAIM_FRESH_S]
        for index, left in enumerate(fresh):
            for right in fresh[index + 1 :]:
                agreed = agrees(left, right)
                agreeing += agreed is True
                comparable += agreed is not None
    return agreeing, comparable


def agrees(left: ClaimEntry, right: ClaimEntry) -> bool | None:
    """Whether two claims agree within their tolerance; None when they can't be compared (other unit, other type)."""
    if left.unit != right.unit or left.value is None or right.value is None:
        return None
    if _is_number(left.value) and _is_number(right.value):
        first, second = float(left.value), float(right.value)
        allowed = max(left.tol or 0.0, right.tol or 0.0)
        if left.tol is None and right.tol is None:
            allowed = CLAIM_TOLERANCE * max(abs(first), abs(second))
        return abs(first - second) <= allowed
    if type(left.value) is not type(right.value):
        return None
    return left.value == right.value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _say(count: int) -> str:
    return "says" if count == 1 else "say"


def _said(entry: ClaimEntry) -> str:
    value = f"{entry.value:g}" if isinstance(entry.value, float) else str(entry.value)[:40]
    return f"{value} {entry.unit}" if entry.unit else value


def _slow(agent: AgentState, raised: bool, text: str) -> Verdict:
    return Verdict(
        scope="agent",
        label="stalled",
        rule="latency",
        subject=agent.name,
        severity="medium",
        text=text,
        evidence=agent.ids[-1:],
        standing="raise" if raised else "hold",
    )


def _are_prompts(alike: Sequence[Message]) -> bool:
    """Whether another agent said something else, at length, before each repetition."""
    heard = [message.heard for message in alike[1:] if message.heard is not None]
    return len(heard) == len(alike) - 1 and _differ(heard, LIKENESS_SAME)


def _fail_alike(failed: Sequence[Result]) -> bool:
    """Whether a trouble comes back rather than each passing, or there are too many failures for either."""
    return len(failed) >= RETRY_ROUNDS or not _differ([result.failure for result in failed], FAILURE_ALIKE)


def _differ(sketches: Sequence[tuple[int, ...]], alike: float) -> bool:
    """Whether no two are as much alike as that."""
    return all(likeness(one, other) < alike for one, other in combinations(sketches, 2))


def _rounds(keys: list[str], period: int) -> int:
    """How many full rounds of ``period`` end the list."""
    matching = period
    while matching < len(keys) and keys[-matching - 1] == keys[-matching - 1 + period]:
        matching += 1
    return matching // period


def _rounds_allowed(calls: tuple[Call, ...]) -> int:
    if all(_is_polling(call) for call in calls):
        return POLL_ROUNDS
    if all(call.ok is False for call in calls):
        return RETRY_ROUNDS
    return SAME_CALL_ROUNDS if len(calls) == 1 else CYCLE_ROUNDS


def _is_polling(call: Call) -> bool:
    return _polls(call.tool)


@lru_cache(maxsize=1024)
def _polls(tool: str) -> bool:
    name = tool.lower()
    return any(word in name for word in POLLING_WORDS)


def _shown(ids: list[str]) -> tuple[str, ...]:
    return tuple(ids[-EVIDENCE_SHOWN:])
