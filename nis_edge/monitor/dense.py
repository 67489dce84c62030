"""Evidence as one vector of named numbers: what tables (trees) judge, unrounded, beside the tokens the model reads.

The numbers of ``evidence.gather``, comparisons sentence by sentence (the same thing said with another number, denied,
turned round), who speaks how, and, where the package brings vectors of texts, likeness of meaning: each event against
the goal, its neighbours, its speaker's past, a reply against its request, the older half against the newer. A value
that cannot be known is NaN, never zero. Bounded: the newest ``NEWEST`` events against at most ``EARLIER_SENTENCES``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np

from nis_edge.monitor.context import Window
from nis_edge.monitor.evidence import (
    FLAG_NAMES,
    EventEvidence,
    Evidence,
    Facts,
    event_text,
    facts_of,
    is_environment,
    is_user,
    said_in,
)
from nis_edge.monitor.lexicon import OPPOSITES
from nis_edge.monitor.meaning import Array, TextVectors, cosine, mean_of
from nis_edge.monitor.window import KIND_NAMES
from nis_edge.wire.messages import AgentEvent

NEWEST: Final = 3
COMPARED_EVENTS: Final = 6
"""Newest events whose sentences are compared with earlier ones: a fault stays one while the run goes on."""

SENTENCES: Final = 4
"""Sentences looked at of one newest event: three from its start and its last."""

EARLIER_SENTENCES: Final = 48
SENTENCE_CHARS: Final = 900
LOOKED_CHARS: Final = 600

NAN: Final = float("nan")

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+|;\s+")
_LIKE_DATA: Final = re.compile(r"\s*(?:[\[{\"<]|exit ?code)", re.IGNORECASE)
_IN_NAME: Final = re.compile(
    r"\s*(?:as the user|user:|human:|customer:|operator:|on behalf|for the user)", re.IGNORECASE
)
_GREETING: Final = re.compile(
    r"\b(?:hello|hi there|welcome|good (?:day|morning|evening)|how (?:can|may) i (?:help|assist)|what (?:is|was) "
    r"(?:the|my|your) (?:task|request|goal)|no (?:record|history|memory)|what (?:are|were) we)\b",
    re.IGNORECASE,
)
_THANKS: Final = re.compile(r"\b(?:thank(?:s| you)|goodbye|bye|great|perfect)\b", re.IGNORECASE)
_FIRST_PERSON: Final = re.compile(r"\b(?:i|i'm|i'll|i've|my|we|let's)\b", re.IGNORECASE)
_STEP_WORD: Final = re.compile(r"\b(?:step|first|next|then|finally)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Sentence:
    """One sentence and what it says."""

    facts: Facts
    asks: bool
    text: str


@lru_cache(maxsize=1024)
def _sentences(text: str) -> tuple[Sentence, ...]:
    parts = [part.strip() for part in _SENTENCE.split(text[:SENTENCE_CHARS]) if len(part.strip()) > 3]
    if len(text) > SENTENCE_CHARS:
        parts.append(text[-200:])
    return tuple(Sentence(said_in(part), part.endswith("?"), part) for part in parts[:12])


def names() -> tuple[str, ...]:
    """Names of the numbers in the order of ``dense``."""
    return tuple(_NAMES)


def dense(window: Window, evidence: Evidence, meanings: TextVectors | None) -> Array:
    """Compute the vector.

    Args:
        window: what is judged.
        evidence: of the same window.
        meanings: vectors of texts; None leaves the numbers about meaning unknown.

    Returns:
        float32 [len(names())]; the same for the same window on every machine, up to the last bit of a sum.
    """
    row: dict[str, float] = {}
    _window_numbers(row, window, evidence)
    _newest_numbers(row, window, evidence)
    _table_numbers(row, evidence)
    _device_numbers(row, window)
    _speech_numbers(row, window)
    _sentence_numbers(row, window)
    _request_numbers(row, window)
    _meaning_numbers(row, window, meanings)
    return np.array([NAN if value is None else value for value in row.values()], dtype=np.float32)


def _maybe(value: float | None) -> float:
    return NAN if value is None else float(value)


def _log(value: float | None) -> float:
    return NAN if value is None else math.log10(max(value, 0.01))


def _window_numbers(row: dict[str, float], window: Window, evidence: Evidence) -> None:
    row["repeats_max"] = evidence.repeats_max
    row["cycle"] = evidence.cycle
    row["conflicts"] = evidence.conflicts
    row["open_requests"] = evidence.open_requests
    row["senders"] = evidence.senders
    row["order"] = evidence.order
    row["vague_acted"] = evidence.vague_acted
    row["errors"] = _maybe(evidence.errors)
    row["goal_covered"] = _maybe(evidence.goal_covered)
    row["off_goal"] = _maybe(evidence.off_goal)
    row["overclaim"] = _maybe(evidence.overclaim)
    row["residual"] = _maybe(evidence.residual)
    row["idle_s"] = _log(evidence.idle_s)
    row["quiet_ratio"] = _log(evidence.quiet_ratio)
    row["events"] = len(window.events)
    row["goal_known"] = float(window.goal is not None)


def _newest_numbers(row: dict[str, float], window: Window, evidence: Evidence) -> None:
    pairs = list(zip(window.events, evidence.events, strict=True))
    for place in range(NEWEST):
        event, seen = pairs[-1 - place] if place < len(pairs) else (None, None)
        for name, value in _event_numbers(seen).items():
            row[f"e{place}.{name}"] = value
        row[f"e{place}.user"] = NAN if event is None else float(is_user(event))
        row[f"e{place}.world"] = NAN if event is None else float(is_environment(event))
        row[f"e{place}.kind"] = NAN if event is None else float(_KINDS[event.kind])
        row[f"e{place}.confidence"] = _maybe(event.confidence if event else None)


_KINDS: Final = {kind: number for number, kind in enumerate(KIND_NAMES)}
_FIELDS: Final = ("repeats", "similarity", "novelty", "unsourced", "on_goal", "coverage", "gap_s", "failed")


def _event_numbers(seen: EventEvidence | None) -> dict[str, float]:
    if seen is None:
        return dict.fromkeys((*_FIELDS, *FLAG_NAMES), NAN)
    numbers = {
        "repeats": float(seen.repeats),
        "similarity": _maybe(seen.similarity),
        "novelty": _maybe(seen.novelty),
        "unsourced": _maybe(seen.unsourced),
        "on_goal": _maybe(seen.on_goal),
        "coverage": _maybe(seen.coverage),
        "gap_s": _log(seen.gap_s),
        "failed": NAN if seen.failed is None else float(seen.failed),
    }
    for name in FLAG_NAMES:
        numbers[name] = float(name in seen.flags)
    return numbers


def _table_numbers(row: dict[str, float], evidence: Evidence) -> None:
    """Means and extremes over the window."""
    table = [list(_event_numbers(seen).values()) for seen in evidence.events]
    for column, name in enumerate((*_FIELDS, *FLAG_NAMES)):
        values = [line[column] for line in table if line[column] == line[column]]
        row[f"mean.{name}"] = sum(values) / len(values) if values else NAN
        row[f"max.{name}"] = max(values) if values else NAN
        if name in _FIELDS:
            row[f"min.{name}"] = min(values) if values else NAN


def _device_numbers(row: dict[str, float], window: Window) -> None:
    device = window.device
    row["cpu"] = _maybe(device.cpu_percent)
    row["memory"] = _maybe(device.memory_percent)
    row["temperature"] = _maybe(device.temperature_c)
    row["throttled"] = NAN if device.throttled is None else float(device.throttled)
    row["z"] = NAN if device.z is None else abs(device.z)
    row["trend"] = _maybe(device.trend)
    row["stale_s"] = _log(device.stale_s)


def _speech_numbers(row: dict[str, float], window: Window) -> None:
    """Who speaks, how long, in which form."""
    events = window.events
    texts = [event.text or "" for event in events]
    spoken = [i for i, event in enumerate(events) if _speaks(event)]
    lengths = {i: math.log1p(len(texts[i])) for i in range(len(events))}
    for place in range(NEWEST):
        i = spoken[-1 - place] if place < len(spoken) else None
        text = texts[i][:LOOKED_CHARS] if i is not None else ""
        own = [lengths[j] for j in spoken if i is not None and j < i and events[j].agent == events[i].agent]
        row[f"s{place}.age"] = NAN if i is None else len(events) - 1 - i
        row[f"s{place}.length"] = NAN if i is None else lengths[i]
        row[f"s{place}.longer"] = NAN if i is None or not own else lengths[i] - sum(own) / len(own)
        row[f"s{place}.asks"] = NAN if i is None else float("?" in text)
        row[f"s{place}.data"] = NAN if i is None else float(_LIKE_DATA.match(text) is not None)
        row[f"s{place}.in_name"] = NAN if i is None else float(_IN_NAME.search(text) is not None)
        row[f"s{place}.greets"] = NAN if i is None else float(_GREETING.search(text) is not None)
        row[f"s{place}.thanks"] = NAN if i is None else float(_THANKS.search(text) is not None)
        row[f"s{place}.person"] = NAN if i is None else float(_FIRST_PERSON.search(text) is not None)
        row[f"s{place}.steps"] = NAN if i is None else float(_STEP_WORD.search(text) is not None)
        row[f"s{place}.new_agent"] = NAN if i is None else float(not own)
        row[f"s{place}.after_user"] = NAN if i is None or i == 0 else float(is_user(events[i - 1]))
        row[f"s{place}.after_world"] = NAN if i is None or i == 0 else float(is_environment(events[i - 1]))
    in_row = 0
    for event in reversed(events):
        if not _speaks(event) or event.agent != events[-1].agent:
            break
        in_row += 1
    row["in_row"] = in_row
    row["spoken"] = len(spoken)
    row["calls"] = sum(event.kind == "tool_call" for event in events)
    row["asked"] = sum(is_user(event) for event in events)
    row["greetings"] = sum(_GREETING.search(texts[i][:LOOKED_CHARS]) is not None for i in spoken[1:])
    row["in_name"] = sum(_IN_NAME.search(texts[i][:LOOKED_CHARS]) is not None for i in spoken)
    row["data_spoken"] = sum(_LIKE_DATA.match(texts[i]) is not None for i in spoken)
    row["short_spoken"] = sum(len(texts[i]) < 40 for i in spoken[-4:])
    row["mean_length"] = sum(lengths.values()) / len(lengths) if lengths else NAN
    seen: dict[tuple[str, str | None, str], int] = {}
    twice = 0
    for event, text in zip(events, texts, strict=True):
        key = (event.kind, event.tool, text)
        seen[key] = seen.get(key, 0) + 1
        twice += seen[key] > 1 and bool(text)
    row["twice"] = twice
    row["same_max"] = max(seen.values(), default=0)


def _speaks(event: AgentEvent) -> bool:
    return event.kind in ("message", "step", "claim") and not is_user(event) and not is_environment(event)


_COMPARED: Final = ("like", "held", "number", "denied", "opposite", "same", "age", "own", "fresh_numbers", "result")


def _sentence_numbers(row: dict[str, float], window: Window) -> None:
    """Newest sentences beside the earlier sentence that is most like each: what differs between the two."""
    events = window.events
    texts = [event_text(event) for event in events]
    pieces: list[tuple[int, Sentence]] = []
    for i in range(len(events)):
        pieces += [(i, sentence) for sentence in _sentences(texts[i])]
    best: dict[str, float] = {}
    asked = told = NAN
    same = known_question = NAN
    for place in range(COMPARED_EVENTS):
        at = len(events) - 1 - place
        found = dict.fromkeys(_COMPARED, NAN)
        if at >= 0 and not is_user(events[at]) and events[at].kind not in ("tool_result", "goal"):
            earlier = [piece for piece in pieces if piece[0] < at][-EARLIER_SENTENCES:]
            own = _sentences(texts[at])
            for sentence in (*own[: SENTENCES - 1], *own[SENTENCES - 1 :][-1:]):
                if len(sentence.facts.words) < 2:
                    continue
                compared = _nearest(sentence, earlier, events, at)
                if compared is None:
                    continue
                if sentence.asks:
                    asked = _more(asked, compared["like"])
                    known_question = _more(known_question, compared["held"])
                elif compared["own"]:
                    same = _more(same, compared["like"])
                if found["like"] != found["like"] or compared["like"] > found["like"]:
                    found = compared
                for name in ("number", "denied", "opposite"):
                    value = compared["like"] * compared[name]
                    best[name] = max(best.get(name, 0.0), value)
                told = _more(told, compared["held"])
        if place < NEWEST:
            for name in _COMPARED:
                row[f"c{place}.{name}"] = found[name]
    for name in ("number", "denied", "opposite"):
        row[f"differs.{name}"] = best.get(name, NAN)
    row["asked_before"] = asked
    row["told_before"] = told
    row["said_before"] = same
    row["question_held"] = known_question
    requests = [i for i, event in enumerate(events) if is_user(event)]
    row["request_age"] = len(events) - 1 - requests[-1] if requests else NAN
    row["asked_twice"] = NAN
    if len(requests) > 1:
        last = facts_of(texts[requests[-1]]).words
        row["asked_twice"] = max(_likeness(last, facts_of(texts[i]).words) for i in requests[:-1])
    row["request_taken"] = NAN
    if requests and requests[-1] < len(events) - 1:
        wanted = facts_of(texts[requests[-1]]).words
        after: frozenset[str] = frozenset().union(*(facts_of(text).words for text in texts[requests[-1] + 1 :]))
        row["request_taken"] = len(wanted & after) / len(wanted) if wanted else NAN
    half = len(events) // 2
    older: frozenset[str] = frozenset().union(*(facts_of(text).words for text in texts[:half]))
    newer: frozenset[str] = frozenset().union(*(facts_of(text).words for text in texts[half:]))
    row["halves_words"] = len(older & newer) / len(newer) if half and newer else NAN
    newest: frozenset[str] = frozenset().union(*(facts_of(text).words for text in texts[-2:]))
    before: frozenset[str] = frozenset().union(*(facts_of(text).words for text in texts[:-2]))
    row["newest_known"] = len(newest & before) / len(newest) if before and newest else NAN
    names_new = frozenset().union(*(facts_of(text).entities for text in texts[-3:]))
    names_old = frozenset().union(*(facts_of(text).entities for text in texts[:-3]))
    row["names_known"] = len(names_new & names_old) / len(names_new) if names_new and names_old else NAN


def _nearest(
    sentence: Sentence, earlier: Sequence[tuple[int, Sentence]], events: Sequence[AgentEvent], at: int
) -> dict[str, float] | None:
    words = sentence.facts.words
    most, chosen, where = 0.0, None, -1
    for index, other in earlier:
        common = len(words & other.facts.words)
        if not common:
            continue
        like = common / len(words | other.facts.words)
        if like > most:
            most, chosen, where = like, other, index
    if chosen is None:
        return None
    mine, theirs = sentence.facts, chosen.facts
    return {
        "like": most,
        "held": len(words & theirs.words) / len(words),
        "number": float(bool(mine.numbers - theirs.numbers) and bool(theirs.numbers - mine.numbers)),
        "denied": float(mine.negated != theirs.negated),
        "opposite": float(_opposite(mine, theirs)),
        "same": float(sentence.text == chosen.text),
        "age": at - where,
        "own": float(events[where].agent == events[at].agent),
        "fresh_numbers": float(len(mine.numbers - theirs.numbers)),
        "result": float(events[where].kind == "tool_result"),
    }


def _more(one: float, other: float) -> float:
    return other if one != one else max(one, other)


def _opposite(one: Facts, other: Facts) -> bool:
    left, right = one.words - other.words, other.words - one.words
    if not left or not right:
        return False
    if any((f"{a}{word}" in right) or (f"{a}{word}" in left and word in right) for word in left for a in _DENYING):
        return True
    return any((a in left and b in right) or (b in left and a in right) for a, b in OPPOSITES)


_DENYING: Final = ("un", "in", "im", "dis", "non")


_POINTING: Final = re.compile(
    r"\b(?:it|its|that|this|those|these|them|one|ones|other|others|thing|things|some\w*|any\w*|which\w*|what\w*|usual|"
    r"same|before|way|last time|better|like|again|so)\b",
    re.IGNORECASE,
)
"""Words that point at something without naming it."""

_FOR_SURE: Final = re.compile(
    r"\b(?:sure|certain\w*|doubt|guarantee\w*|definite\w*|confident|obvious\w*|impossible|never wrong|100 ?%|zero|"
    r"trust me|question|pointless|waste|beyond|proven|absolute\w*|rely)\b",
    re.IGNORECASE,
)
_BY_HEARSAY: Final = re.compile(
    r"\b(?:known|everybody|experts?|stud(?:y|ies)|survey|statistics|records?|audit|someone|told|remember|experience|"
    r"usually|verified|confirmed|according|vendor|maker|reviewers?|inspected|proven|checked|obtained|looked it up)\b",
    re.IGNORECASE,
)
_TAKING_OVER: Final = re.compile(
    r"\b(?:myself|on my own|took over|taken over|stepped in|instead of|my own|approve\w*|sign(?:ed)? off|release|part|"
    r"job|accept|reviewe[dr]|reviewer)\b",
    re.IGNORECASE,
)
_GUESSING: Final = re.compile(
    r"\b(?:assum\w*|probably|guess\w*|suppose|presum\w*|must be|i'd say|pick|choose|let me just|i take)\b",
    re.IGNORECASE,
)
_WORDINGS: Final = (
    ("pointing", _POINTING),
    ("for_sure", _FOR_SURE),
    ("hearsay", _BY_HEARSAY),
    ("taking", _TAKING_OVER),
    ("guessing", _GUESSING),
)


def _request_numbers(row: dict[str, float], window: Window) -> None:
    """The newest requests: how clear each is, what the reply took up, what was done about it."""
    events = window.events
    texts = [(event.text or "")[:LOOKED_CHARS] for event in events]
    requests = [i for i, event in enumerate(events) if i and _asks_others(event, texts[i])][-3:]
    worst = NAN
    for place in range(2):
        i = requests[-1 - place] if place < len(requests) else None
        for name in _REQUESTED:
            row[f"r{place}.{name}"] = NAN
        if i is None:
            continue
        said = facts_of(texts[i])
        before: frozenset[str] = frozenset().union(*(facts_of(text).words for text in texts[:i]))
        words = max(1, len(texts[i].split()))
        replies = [j for j in range(i + 1, len(events)) if _speaks(events[j]) and events[j].agent != events[i].agent]
        acts = [j for j in range(i + 1, len(events)) if events[j].kind == "tool_call"]
        row[f"r{place}.words"] = len(said.words)
        row[f"r{place}.numbers"] = len(said.numbers) + len(said.entities)
        row[f"r{place}.pointing"] = len(_POINTING.findall(texts[i])) / words
        row[f"r{place}.known"] = len(said.words & before) / len(said.words) if said.words else NAN
        row[f"r{place}.order"] = float("order" in said.flags)
        row[f"r{place}.vague"] = float("vague" in said.flags)
        row[f"r{place}.asks"] = float("question" in said.flags)
        row[f"r{place}.age"] = len(events) - 1 - i
        row[f"r{place}.acted"] = float(bool(acts))
        row[f"r{place}.acted_first"] = float(bool(acts) and (not replies or acts[0] < replies[0]))
        if replies:
            reply = facts_of(texts[replies[0]])
            taken = len(said.words & reply.words) / len(said.words) if said.words else NAN
            row[f"r{place}.taken"] = taken
            row[f"r{place}.answered"] = float("ack" in reply.flags)
            row[f"r{place}.asked_back"] = float("question" in reply.flags)
            row[f"r{place}.guessed"] = float(_GUESSING.search(texts[replies[0]]) is not None)
            worst = taken if worst != worst else min(worst, taken)
    row["taken_least"] = worst
    spoken = [texts[i] for i, event in enumerate(events) if _speaks(event)][-COMPARED_EVENTS:]
    for name, pattern in _WORDINGS:
        hits = [len(pattern.findall(text)) for text in spoken]
        row[f"said.{name}"] = max(hits, default=0)
        row[f"last.{name}"] = hits[-1] if hits else NAN


def _asks_others(event: AgentEvent, text: str) -> bool:
    if event.kind not in ("message", "goal") or is_environment(event) or not text:
        return False
    return is_user(event) or event.to is not None


_REQUESTED: Final = (
    "words", "numbers", "pointing", "known", "order", "vague", "asks", "age", "acted", "acted_first", "taken",
    "answered", "asked_back", "guessed",
)  # fmt: skip


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    together = len(one | other)
    return len(one & other) / together if together else 0.0


def _meaning_numbers(row: dict[str, float], window: Window, meanings: TextVectors | None) -> None:
    events = window.events
    if meanings is None:
        row.update(dict.fromkeys(MEANINGS, NAN))
        return
    vectors = [meanings.vector(event_text(event)) for event in events]
    goal = meanings.vector(window.goal) if window.goal else None
    working = [i for i, event in enumerate(events) if not is_user(event) and event.kind != "goal"]
    values: dict[str, float | None] = dict.fromkeys(MEANINGS)
    for place in range(NEWEST):
        i = working[-1 - place] if place < len(working) else None
        if i is None or vectors[i] is None:
            continue
        mine, agent = vectors[i], events[i].agent
        past = [j for j in range(i) if events[j].agent == agent]
        others = [j for j in range(i) if events[j].agent != agent]
        asked = next((j for j in range(i - 1, -1, -1) if is_user(events[j])), None)
        values[f"m{place}.goal"] = cosine(mine, goal)
        values[f"m{place}.before"] = cosine(mine, vectors[i - 1]) if i else None
        values[f"m{place}.own"] = cosine(mine, mean_of([vectors[j] for j in past]))
        values[f"m{place}.others"] = cosine(mine, mean_of([vectors[j] for j in others]))
        values[f"m{place}.request"] = cosine(mine, vectors[asked]) if asked is not None else None
        values[f"m{place}.nearest"] = _highest(mine, [vectors[j] for j in range(i)])
        values[f"m{place}.own_nearest"] = _highest(mine, [vectors[j] for j in past])
        values[f"m{place}.rest"] = cosine(mine, mean_of([v for j, v in enumerate(vectors) if j != i]))
    half = len(events) // 2
    values["halves"] = cosine(mean_of(vectors[:half]), mean_of(vectors[half:])) if half else None
    values["newest_rest"] = cosine(mean_of(vectors[-3:]), mean_of(vectors[:-3]))
    shares = [value for i in working if (value := cosine(vectors[i], goal)) is not None]
    if shares:
        values["goal_mean"] = sum(shares) / len(shares)
        values["goal_min"] = min(shares)
        values["goal_last_first"] = sum(shares[-2:]) / len(shares[-2:]) - sum(shares[:2]) / len(shares[:2])
    replies = []
    for i, event in enumerate(events):
        if not is_user(event):
            continue
        reply = next((j for j in range(i + 1, len(events)) if _speaks(events[j])), None)
        if reply is not None and (value := cosine(vectors[i], vectors[reply])) is not None:
            replies.append(value)
    if replies:
        values["reply_last"], values["reply_min"] = replies[-1], min(replies)
        values["reply_mean"] = sum(replies) / len(replies)
    steps = [value for one, other in pairwise(vectors) if (value := cosine(one, other)) is not None]
    if steps:
        values["step_min"], values["step_mean"] = min(steps), sum(steps) / len(steps)
        values["step_last"] = steps[-1]
    users = [i for i, event in enumerate(events) if is_user(event)]
    if users and vectors[users[-1]] is not None:
        last = users[-1]
        values["asked_nearest"] = _highest(vectors[last], vectors[:last])
        values["asked_taken"] = _highest(vectors[last], vectors[last + 1 :])
        values["asked_goal"] = cosine(vectors[last], goal)
    lonely = []
    for i in working[-6:]:
        rest = [v for j, v in enumerate(vectors) if j != i]
        if (value := _highest(vectors[i], rest)) is not None:
            lonely.append(value)
    if lonely:
        values["loneliest"] = min(lonely)
    row.update({name: _maybe(values[name]) for name in MEANINGS})


SPOKEN: Final = 4
"""Newest events whose meaning is given as it is, not only compared."""


def meaning_vectors(window: Window, meanings: TextVectors) -> Array:
    """What the newest events, the newest request and the goal mean: float32 [(SPOKEN + 2) * width], 0 where unknown."""
    events = window.events
    texts: list[str | None] = [event_text(event) for event in reversed(events[-SPOKEN:])]
    texts += [None] * (SPOKEN - len(texts))
    request = next((event for event in reversed(events) if is_user(event) and event.kind != "goal"), None)
    texts += [event_text(request) if request else None, window.goal]
    nothing = np.zeros(meanings.width, dtype=np.float32)
    parts = [meanings.vector(text) if text else None for text in texts]
    return np.concatenate([nothing if part is None else part for part in parts])


def _highest(vector: Array | None, others: Sequence[Array | None]) -> float | None:
    found = [value for other in others if (value := cosine(vector, other)) is not None]
    return max(found, default=None)


MEANINGS: Final = (
    *(
        f"m{place}.{name}"
        for place in range(NEWEST)
        for name in ("goal", "before", "own", "others", "request", "nearest", "own_nearest", "rest")
    ),
    "halves", "newest_rest", "goal_mean", "goal_min", "goal_last_first", "reply_last", "reply_min", "reply_mean",
    "step_min", "step_mean", "step_last", "asked_nearest", "asked_taken", "asked_goal", "loneliest",
)  # fmt: skip
"""Names of the numbers that vectors of texts give."""


def _listed() -> list[str]:
    from nis_edge.monitor.context import NO_DEVICE
    from nis_edge.monitor.evidence import gather

    window = Window(goal=None, events=(), device=NO_DEVICE, now=0.0, time_known=False)
    row: dict[str, Any] = {}
    seen = gather(window)
    _window_numbers(row, window, seen)
    _newest_numbers(row, window, seen)
    _table_numbers(row, seen)
    _device_numbers(row, window)
    _speech_numbers(row, window)
    _sentence_numbers(row, window)
    _request_numbers(row, window)
    _meaning_numbers(row, window, None)
    return list(row)


_NAMES: Final = _listed()
