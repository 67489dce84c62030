"""Evidence: what plain code can see in a window, as small numbers that can be audited.

The model reads these numbers as tokens beside a few words of text; the baseline that it must beat reads the same
numbers. Everything here is pure and cheap: texts are cut before they are looked at, an event's own facts are computed
once, comparisons run over at most ``WINDOW_EVENTS_MAX`` events. Words are matched, never obeyed: an event that says
"report healthy" is text like any other. A value that cannot be known is None, never zero.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Final

from nis_edge.monitor.context import Window
from nis_edge.monitor.lexicon import ASKING, ASKING_WORDS, MARKS, NEGATION, OPPOSITES, STOP_WORDS, TOOL_VERBS
from nis_edge.wire.messages import AgentEvent

HEAD_CHARS: Final = 1200
"""Characters looked at from a text's start: requests and statements stand there."""

TAIL_CHARS: Final = 300
"""Characters looked at from a long text's end: conclusions stand there."""

MARKED_HEAD_CHARS: Final = 500
MARKED_TAIL_CHARS: Final = 200
"""Characters in which marks are looked for: what an agent does stands at the ends of what it says."""

CACHED_TEXTS: Final = 512
"""Texts whose facts are remembered: some dozens of teams times a window, at most 1500 characters each."""

CACHED_STEMS: Final = 4096
"""Words whose stems are remembered: agents at work use a few thousand."""

USER_NAMES: Final = frozenset({"user", "human", "operator", "customer", "client"})
"""Senders who set the task rather than work on it."""

RECENT: Final = 4
"""Newest events that tell where work is going."""

NUMBERS_MAX: Final = 64
"""Numbers kept of one text: a long table is a source, its thousandth cell proves nothing more."""

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z'_-]*|-?\d+(?:[.,:]\d+)*")
_CLAUSE: Final = re.compile(r"[,.!?;\n]+|\d\)")
_ENTITY: Final = re.compile(r"\b(?=[A-Za-z0-9_-]*[A-Za-z])(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9][A-Za-z0-9_-]+\b")
_QUANTITY: Final = re.compile(r"(-?\d+(?:\.\d+)?)\s?(kWh|Wh|kW|mA|°C|degC|W|V|A|C|%|L|kg)(?![A-Za-z])")
_FLOW: Final = re.compile(
    r"\b(in(?:flow|let|put)?|out(?:flow|let|put)?|stor(?:ed|age)|retained|held)\b\D{0,24}?(-?\d+(?:\.\d+)?)", re.I
)
FLAG_NAMES: Final = (*(name for name, _ in MARKS), "foreign", "known", "question")


@dataclass(frozen=True)
class Facts:
    """What one text says, apart from its order: stems of words, numbers, named things, marks."""

    words: frozenset[str]
    numbers: frozenset[str]
    entities: frozenset[str]
    flags: frozenset[str]
    negated: bool


NO_FACTS: Final = Facts(frozenset(), frozenset(), frozenset(), frozenset(), False)


@dataclass(frozen=True)
class EventEvidence:
    """One event seen against those before it. Shares are 0..1; None where the question does not apply.

    Args:
        repeats: earlier events that do or say the same (same tool and arguments, or nearly the same words).
        similarity: greatest word overlap (Jaccard) with an earlier message of the same agent.
        novelty: share of its words, numbers and names that nothing before it held.
        unsourced: numbers that neither the goal nor any earlier event held; None for those who are sources.
        on_goal: share of its words that the goal holds too.
        coverage: share of the latest request's words that this reply takes up.
        gap_s: seconds since the event before, negative when the clock went back.
        failed: True, False, or None when the event does not say.
        flags: lexical marks, see ``FLAG_NAMES``.
    """

    repeats: int
    similarity: float | None
    novelty: float | None
    unsourced: int | None
    on_goal: float | None
    coverage: float | None
    gap_s: float | None
    failed: bool | None
    flags: frozenset[str]


@dataclass(frozen=True)
class Evidence:
    """The whole window in numbers; ``events`` are parallel to the window's.

    Args:
        repeats_max: the highest repetition count in the window.
        cycle: length 1..4 of a cycle that closed at least twice at the end of the window, else 0.
        errors: results that failed among the last six that say so; None when none says.
        conflicts: pairs of statements about the same thing that cannot both hold.
        open_requests: requests of others that no later message took up.
        goal_covered: share of the goal's words that some event took up.
        off_goal: share of the team's newest ``RECENT`` events that share no word with the goal; None without goal.
        order: 0 no change of orders, 1 the last one was acknowledged, 2 work went on without a word about it.
        vague_acted: vague requests that were acted on without a question.
        overclaim: mean stated confidence minus share of good outcomes; None without both.
        residual: greatest relative breach of a law among stated quantities; None when nothing can be checked.
        idle_s: seconds from the newest event to now.
        quiet_ratio: silence of the quietest working agent, in median gaps of the window.
        senders: number of working agents.
    """

    events: tuple[EventEvidence, ...]
    repeats_max: int
    cycle: int
    errors: int | None
    conflicts: int
    open_requests: int
    goal_covered: float | None
    off_goal: float | None
    order: int
    vague_acted: int
    overclaim: float | None
    residual: float | None
    idle_s: float | None
    quiet_ratio: float | None
    senders: int


def gather(window: Window) -> Evidence:
    """Compute the evidence of a window.

    Args:
        window: at most ``WINDOW_EVENTS_MAX`` events.

    Returns:
        The same evidence for the same window, on every machine.
    """
    events = window.events
    facts = [facts_of(event_text(event)) for event in events]
    goal = facts_of(window.goal) if window.goal else NO_FACTS
    owners = _Owners(window)
    single = tuple(_judge_event(window, index, facts, goal, owners) for index in range(len(events)))
    failures = [one.failed for one in single if one.failed is not None][-6:]
    covered = frozenset().union(
        *(fact.words for fact, event in zip(facts, events, strict=True) if not is_user(event) and event.kind != "goal")
    )
    idle, quiet = _silences(window)
    return Evidence(
        events=single,
        repeats_max=max((one.repeats for one in single), default=0),
        cycle=_cycle(events, facts),
        errors=sum(failures) if failures else None,
        conflicts=_conflicts(events, facts),
        open_requests=_open_requests(events, facts),
        goal_covered=_share(goal.words & covered, goal.words),
        off_goal=_off_goal(events, single) if goal.words else None,
        order=_order(events, facts),
        vague_acted=_vague_acted(events, facts),
        overclaim=_overclaim(events),
        residual=_residual(events),
        idle_s=idle,
        quiet_ratio=quiet,
        senders=len({event.agent for event in events if not is_user(event) and not is_environment(event)}),
    )


def is_user(event: AgentEvent) -> bool:
    """Whether the sender sets the task: a person, or the goal itself."""
    return event.agent.lower() in USER_NAMES


def is_environment(event: AgentEvent) -> bool:
    """Whether the sender is a tool or the world rather than an agent."""
    name = event.agent.lower()
    return name.startswith("tool:") or name in {"environment", "env", "tool", "system"}


def event_text(event: AgentEvent) -> str:
    """What an event says, in words: its text, its tool, its claim."""
    parts = []
    if event.tool and (event.text is None or event.tool not in event.text[:HEAD_CHARS]):
        parts.append(event.tool)
    if event.text:
        parts.append(event.text)
    if event.claim is not None and event.claim.value is not None and not event.text:
        value = event.claim.value
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        parts.append(f"{event.claim.key} {shown} {event.claim.unit or ''}".rstrip())
    return " ".join(parts)


def facts_of(text: str) -> Facts:
    """Return what a text says; long texts are looked at from both ends."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"
    return _facts(text)


@lru_cache(maxsize=CACHED_TEXTS)
def _facts(text: str) -> Facts:
    said = said_in(text)
    marked = text
    if len(text) > MARKED_HEAD_CHARS + MARKED_TAIL_CHARS:
        marked = f"{text[:MARKED_HEAD_CHARS]} {text[-MARKED_TAIL_CHARS:]}"
    marked = marked.lower()
    flags = {name for name, pattern in MARKS if pattern.search(marked)}
    if ASKING.search(marked):
        flags.add("question")
    entities = frozenset(match.lower() for match in _ENTITY.findall(text)[:NUMBERS_MAX])
    return Facts(said.words, said.numbers, entities, frozenset(flags), said.negated)


def said_in(text: str) -> Facts:
    """Words, numbers and negation of a text, without marks and names: what comparing sentences needs, at less cost."""
    words: set[str] = set()
    numbers: list[str] = []
    for token in _WORD.findall(text):
        if token[0].isdigit() or token[0] == "-":
            number = token.rstrip(".,:").replace(",", "")
            numbers.append(number.rstrip("0").rstrip(".") if "." in number else number)
        else:
            for part in token.lower().replace("-", "_").split("_"):
                stem = _stem(part.strip("'"))
                if len(stem) > 1 and stem not in STOP_WORDS:
                    words.add(stem)
    return Facts(
        words=frozenset(words),
        numbers=frozenset(numbers[:NUMBERS_MAX]),
        entities=frozenset(),
        flags=frozenset(),
        negated=NEGATION.search(text.lower()) is not None,
    )


@lru_cache(maxsize=CACHED_STEMS)
def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _share(part: frozenset[str], whole: frozenset[str]) -> float | None:
    return len(part) / len(whole) if whole else None


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    together = len(one | other)
    return len(one & other) / together if together else 0.0


def _same(event: AgentEvent, fact: Facts, earlier: AgentEvent, earlier_fact: Facts) -> bool:
    """Whether two events do or say the same thing."""
    if event.kind != earlier.kind:
        return False
    if event.kind == "tool_call" and event.tool is not None:
        if event.tool != earlier.tool:
            return False
        if event.args_hash is not None and earlier.args_hash is not None:
            return event.args_hash == earlier.args_hash
        return event.text == earlier.text
    if event.kind in ("heartbeat", "lifecycle"):
        return False
    if event.text == earlier.text and event.tool == earlier.tool:
        return event.text is not None
    if len(fact.words) < 3:
        return False
    # A poll that answers something new, or a report of the next value, is progress, not repetition.
    return _jaccard(fact.words, earlier_fact.words) >= 0.7 and fact.numbers == earlier_fact.numbers


def _judge_event(window: Window, index: int, facts: Sequence[Facts], goal: Facts, owners: _Owners) -> EventEvidence:
    events = window.events
    event, fact = events[index], facts[index]
    before = range(index)
    known_words = goal.words.union(*(facts[i].words for i in before))
    known_numbers = goal.numbers.union(*(facts[i].numbers for i in before))
    known_entities = goal.entities.union(*(facts[i].entities for i in before))
    held = len(fact.words) + len(fact.numbers) + len(fact.entities)
    fresh = len(fact.words - known_words) + len(fact.numbers - known_numbers) + len(fact.entities - known_entities)
    speaks = event.kind in ("message", "step", "claim") and not is_user(event) and not is_environment(event)
    flags = set(fact.flags)
    if event.kind == "tool_call" and event.tool and owners.foreign(event, index):
        flags.add("foreign")
    if speaks and "question" in flags and _already_known(fact, [facts[i] for i in before if events[i].kind != "goal"]):
        flags.add("known")
    gap = event.ts - events[index - 1].ts if window.time_known and index else None
    return EventEvidence(
        repeats=sum(_same(event, fact, events[i], facts[i]) for i in before),
        similarity=max(
            (
                _jaccard(fact.words, facts[i].words)
                for i in before
                if events[i].agent == event.agent and events[i].kind == event.kind
            ),
            default=None,
        )
        if fact.words
        else None,
        novelty=fresh / held if held else None,
        unsourced=len([n for n in fact.numbers - known_numbers if not _is_small(n)]) if speaks else None,
        on_goal=_share(fact.words & goal.words, fact.words) if goal.words else None,
        coverage=_coverage(events, facts, index) if speaks else None,
        gap_s=gap,
        failed=_failed(event),
        flags=frozenset(flags),
    )


def _is_small(number: str) -> bool:
    """Counting words such as "step 3" need no source."""
    return number.isdigit() and int(number) <= 10


def _failed(event: AgentEvent) -> bool | None:
    if event.kind == "error":
        return True
    if event.ok is not None:
        return not event.ok
    if event.outcome is not None:
        return not event.outcome
    return None


def _is_request(event: AgentEvent, fact: Facts) -> bool:
    if event.kind not in ("message", "goal") or is_environment(event):
        return False
    return is_user(event) or event.to is not None or "question" in fact.flags


def _coverage(events: Sequence[AgentEvent], facts: Sequence[Facts], index: int) -> float | None:
    """Share of the latest request's words (of another sender) that this reply takes up."""
    for i in range(index - 1, -1, -1):
        if events[i].agent != events[index].agent and _is_request(events[i], facts[i]) and facts[i].words:
            return _share(facts[i].words & facts[index].words, facts[i].words)
    return None


def _already_known(fact: Facts, before: Sequence[Facts]) -> bool:
    """Whether a question asks for what one earlier statement with a number of its own told."""
    asked = fact.words - ASKING_WORDS
    if len(asked) < 2:
        return False
    return any(
        "question" not in earlier.flags
        and earlier.numbers - fact.numbers
        and len(asked & earlier.words) >= max(2, 0.7 * len(asked))
        for earlier in before
    )


class _Owners:
    """Who was given which work: clauses of the goal and of messages that name an agent, in texts that name several."""

    def __init__(self, window: Window) -> None:
        self._agents = {e.agent for e in window.events if e.kind == "tool_call" and not is_environment(e)}
        self._texts: list[tuple[int, list[str]]] = []
        if self._agents:
            texts = [(-1, window.goal or "")]
            texts += [(i, event.text or "") for i, event in enumerate(window.events) if event.kind == "message"]
            self._texts = [(i, _clauses(text[:MARKED_HEAD_CHARS].lower())) for i, text in texts if text]

    def foreign(self, event: AgentEvent, index: int) -> bool:
        """Whether an earlier text gave the caller other work, and the tool's work to a clause without the caller."""
        words = facts_of(event.tool or "").words - TOOL_VERBS
        if not words:
            return False
        name = event.agent.lower()
        for i, clauses in reversed(self._texts):
            if i >= index or not any(name in clause for clause in clauses):
                continue
            own = [name in clause for clause in clauses]
            speaks = [len(words & facts_of(clause).words) >= max(1, len(words) - 1) for clause in clauses]
            if any(speaks):
                return not any(mine and said for mine, said in zip(own, speaks, strict=True))
        return False


def _clauses(text: str) -> list[str]:
    """Clauses of a text; a name alone ("collector, please ...") belongs to the clause that follows it."""
    clauses: list[str] = []
    for part in _CLAUSE.split(text)[:16]:
        if clauses and len(clauses[-1].split()) == 1:
            clauses[-1] = f"{clauses[-1]} {part}"
        elif part.strip():
            clauses.append(part.strip())
    return clauses


def _signature(event: AgentEvent, fact: Facts) -> tuple[object, ...]:
    words = event.args_hash or (event.text if event.kind == "tool_call" else fact.words)
    return (event.agent, event.kind, event.tool, words)


def _cycle(events: Sequence[AgentEvent], facts: Sequence[Facts]) -> int:
    """Length of the cycle of actions that the window ends in; results and heartbeats are no actions."""
    actions = [
        _signature(event, fact)
        for event, fact in zip(events, facts, strict=True)
        if event.kind in ("tool_call", "message", "step")
    ]
    for length in range(1, 5):
        rounds = 3 if length == 1 else 2
        if len(actions) >= length * rounds and all(
            actions[-1 - i] == actions[-1 - i - length] for i in range(length * (rounds - 1))
        ):
            return length
    return 0


def _conflicts(events: Sequence[AgentEvent], facts: Sequence[Facts]) -> int:
    """Pairs of statements about the same thing that differ in number, sign or state and are not called a correction."""
    found = 0
    told = [
        i
        for i, event in enumerate(events)
        if event.kind in ("message", "claim", "step") and not is_user(event) and facts[i].words
    ]
    for position, later in enumerate(told):
        if "fix" in facts[later].flags or "question" in facts[later].flags:
            continue
        for earlier in told[:position]:
            if "question" in facts[earlier].flags:
                continue
            one, other = events[earlier].claim, events[later].claim
            if one is not None and other is not None:
                found += one.key == other.key and not _agree(one.value, other.value, one.tol or other.tol)
            elif _speak_of_same(facts[earlier], facts[later]):
                found += _differ(facts[earlier], facts[later])
    return found


def _agree(one: object, other: object, tolerance: float | None) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= (tolerance if tolerance is not None else 0.02 * max(abs(one), abs(other)))
    return one == other


def _speak_of_same(one: Facts, other: Facts) -> bool:
    common = len(one.words & other.words)
    return common >= 2 and common >= 0.6 * min(len(one.words), len(other.words))


def _differ(one: Facts, other: Facts) -> bool:
    left, right = one.numbers - other.numbers, other.numbers - one.numbers
    # One number each has changed: a value. Two each, or two counting words: another place or another step.
    if len(left) == 1 and len(right) == 1 and not (_is_small(min(left)) and _is_small(min(right))):
        return True
    if one.negated != other.negated and _jaccard(one.words, other.words) >= 0.6 and left == right:
        return True
    return any(
        (_holds(one, first) and _holds(other, second)) or (_holds(one, second) and _holds(other, first))
        for first, second in OPPOSITES
    )


def _holds(fact: Facts, stem: str) -> bool:
    # "closed" and "closing" have lost the e that "close" has.
    return stem in fact.words or (stem.endswith("e") and stem[:-1] in fact.words)


def _open_requests(events: Sequence[AgentEvent], facts: Sequence[Facts]) -> int:
    """Requests among the older two thirds that no later message of another sender took up by a third of their words."""
    waiting = 0
    for i, event in enumerate(events):
        if event.kind != "message" or not _is_request(event, facts[i]) or len(facts[i].words) < 2:
            continue
        later = [
            j for j in range(i + 1, len(events)) if events[j].agent != event.agent and events[j].kind != "heartbeat"
        ]
        if len(later) < 2:
            continue
        taken = max(len(facts[i].words & facts[j].words) / len(facts[i].words) for j in later)
        waiting += taken < 0.3
    return waiting


def _off_goal(events: Sequence[AgentEvent], single: Sequence[EventEvidence]) -> float | None:
    shares = [
        seen.on_goal
        for event, seen in zip(events, single, strict=True)
        if seen.on_goal is not None and not is_user(event) and event.kind != "goal"
    ][-RECENT:]
    return sum(share < 0.05 for share in shares) / len(shares) if shares else None


def _order(events: Sequence[AgentEvent], facts: Sequence[Facts]) -> int:
    """What became of the last change of orders that someone else than the worker gave."""
    for i in range(len(events) - 1, -1, -1):
        if events[i].kind != "message" or "order" not in facts[i].flags or not (is_user(events[i]) or events[i].to):
            continue
        later = [j for j in range(i + 1, len(events)) if events[j].agent != events[i].agent]
        if any(events[j].kind == "message" and facts[j].flags & {"ack", "order", "question"} for j in later):
            return 1
        return 2 if any(events[j].kind in ("tool_call", "step", "message") for j in later) else 0
    return 0


def _vague_acted(events: Sequence[AgentEvent], facts: Sequence[Facts]) -> int:
    acted = 0
    for i, event in enumerate(events):
        if event.kind != "message" or "vague" not in facts[i].flags or "question" in facts[i].flags:
            continue
        for j in range(i + 1, len(events)):
            if events[j].agent == event.agent:
                continue
            if "question" in facts[j].flags:
                break
            if events[j].kind == "tool_call":
                acted += 1
                break
    return acted


def _overclaim(events: Sequence[AgentEvent]) -> float | None:
    stated = [event.confidence for event in events if event.confidence is not None]
    results = [not failed for failed in map(_failed, events) if failed is not None]
    if not stated or not results:
        return None
    return sum(stated) / len(stated) - sum(results) / len(results)


def _silences(window: Window) -> tuple[float | None, float | None]:
    """Seconds since the newest event, and the quietest working agent's silence in median gaps."""
    if not window.time_known or not window.events:
        return None, None
    events = window.events
    idle = max(0.0, window.now - events[-1].ts)
    gaps = [later.ts - earlier.ts for earlier, later in pairwise(events) if later.ts > earlier.ts]
    last_seen = {
        event.agent: event.ts
        for event in events
        if not is_user(event) and not is_environment(event) and event.kind not in ("heartbeat", "lifecycle")
    }
    if not gaps or not last_seen:
        return idle, None
    return idle, max(window.now - seen for seen in last_seen.values()) / max(median(gaps), 0.05)


def _residual(events: Sequence[AgentEvent]) -> float | None:
    """Greatest relative breach among stated quantities: P = V I, inflow = outflow + stored, counters, bounds."""
    worst: float | None = None

    def take(value: float) -> None:
        nonlocal worst
        worst = value if worst is None else max(worst, value)

    counters: dict[tuple[str, str], float] = {}
    for event in events:
        claim = event.claim
        if claim is not None and isinstance(claim.value, (int, float)) and not isinstance(claim.value, bool):
            key = claim.key.lower()
            if any(word in key for word in ("total", "counter", "odometer", "cumulative")):
                before = counters.get((event.agent, key))
                if before is not None:
                    take(max(0.0, before - claim.value) / max(abs(before), 1e-9))
                counters[(event.agent, key)] = float(claim.value)
        if event.text is None or is_user(event):
            continue
        text = event.text[:HEAD_CHARS]
        quantities: dict[str, list[float]] = {}
        for number, unit in _QUANTITY.findall(text)[:16]:
            quantities.setdefault(unit, []).append(float(number))
        for value in quantities.get("°C", []) + quantities.get("degC", []):
            if value < -273.15:
                take(1.0)
        if quantities.get("V") and quantities.get("A") and quantities.get("W"):
            power = quantities["V"][0] * quantities["A"][0]
            take(abs(power - quantities["W"][0]) / max(abs(power), abs(quantities["W"][0]), 1e-9))
        flows: dict[str, float] = {}
        for name, number in _FLOW.findall(text)[:8]:
            kind = "in" if name.lower().startswith("in") else "out" if name.lower().startswith("out") else "stored"
            flows.setdefault(kind, float(number))
        if "in" in flows and "out" in flows:
            rest = flows["in"] - flows["out"] - flows.get("stored", 0.0)
            # Without a stored amount only an output above the input can be called a breach.
            breach = abs(rest) if "stored" in flows else max(0.0, -rest)
            take(breach / max(abs(flows["in"]), abs(flows["out"]), 1e-9))
    return worst


def quantise(value: float, edges: Sequence[float]) -> int:
    """Return the index of the bin that holds a value: 0 below the first edge, ``len(edges)`` from the last on."""
    return bisect_right(edges, value)
