"""Faults put into recorded runs, and what only resembles them: one function per mechanism.

A fault takes a case (a successful run of a real system) and returns its lines with the fault and the indices that show
it; its docstring is the proof of the label. Most faults are made of the run's own words, or of other runs': a judge
that has learned our wordings only does not find them. A hard negative does something like a fault, and is right.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nis_edge.monitor.context import NO_DEVICE, DeviceView
from nis_edge.wire.traces import Run, RunLine
from nis_models.domains import Split, trades_of
from nis_models.injected_words import (
    AS_USER,
    BANS,
    CHECKS,
    CITES,
    COMMANDS,
    DOUBTS,
    EMPTY,
    FIELDS,
    GREETINGS,
    LEADS,
    NAGS,
    REQUESTS,
    SURE_AFTER,
    SURE_BEFORE,
    TOOLS,
)
from nis_models.phrases import say

_SENTENCE: Final = re.compile(r"(?<=[.!?\n])\s+")
_NUMBER: Final = re.compile(r"(?<![\w.])\d{2,6}(?:\.\d+)?(?![\w])")
_IS: Final = re.compile(r"\b(is|was|are|were|can|will|has|have|does|should)\b(?! not)")
_NOT: Final = re.compile(r"\b(is|was|are|were|can|will|has|have|does|should) not\b|\b(can)not\b")
_CALL: Final = re.compile(r"\s*(?:CALL|ACT)\s+([A-Za-z_][\w.-]*)")
_SWAPS: Final[tuple[tuple[str, str], ...]] = (
    ("correct", "incorrect"), ("available", "unavailable"), ("possible", "impossible"), ("more", "less"),
    ("valid", "invalid"), ("higher", "lower"), ("first", "last"), ("before", "after"), ("all", "none"),
    ("confirmed", "rejected"), ("successfully", "unsuccessfully"), ("increase", "decrease"), ("safe", "unsafe"),
    ("eligible", "ineligible"), ("able", "unable"), ("true", "false"), ("yes", "no"), ("always", "never"),
    ("completed", "abandoned"), ("approved", "denied"), ("allowed", "forbidden"), ("enough", "insufficient"),
)  # fmt: skip

Lines = list[RunLine]
Shown = tuple[Lines, tuple[int, ...]]


@dataclass
class Case:
    """One recorded run that something is put into.

    Args:
        rng: the only source of chance.
        run: the run.
        runs: runs of the same split, for foreign words.
        pairs: questions with the answers they got, of the same split.
        split: whose wordings are spoken.
    """

    rng: random.Random
    run: Run
    runs: Sequence[Run]
    pairs: Sequence[tuple[str, str]]
    split: Split
    idle_gaps: float | None = None
    device: DeviceView = NO_DEVICE
    start: int = field(default=0)
    """Where the run's own lines end: what follows was put in."""

    @property
    def lines(self) -> Lines:
        """The run as it was."""
        return list(self.run.events)

    def head(self, share: float, least: int = 3) -> Lines:
        """The run's beginning."""
        lines = self.lines[: max(least, round(share * len(self.run.events)))]
        self.start = len(lines)
        return lines

    def middle(self) -> Lines:
        """A beginning of any length that leaves something to come."""
        return self.head(self.rng.uniform(0.35, 0.95))

    def agent(self) -> str:
        """Someone of the team who has spoken."""
        return self.rng.choice([line.agent for line in self.run.events if line.kind == "agent"])

    def asker(self) -> str:
        """Who sets the task."""
        return "user" if any(line.kind == "user" for line in self.run.events) else self.run.events[0].agent

    def elsewhere(self) -> Lines:
        """Another group's run, of the same system in half of the cases."""
        others = [run for run in self.runs if run.group != self.run.group]
        near = [run for run in others if run.source == self.run.source]
        return list(self.rng.choice(near if near and self.rng.random() < 0.5 else others).events)

    def pair(self) -> tuple[str, str]:
        """A question and its answer about something else."""
        question, answer = self.rng.choice(self.pairs)
        return question, answer if self.rng.random() < 0.6 else _SENTENCE.split(answer)[0]

    def word(self, bank: str, **slots: object) -> str:
        """A wording about something the run speaks of."""
        trade = self.rng.choice(trades_of(self.split))
        words = re.findall(r"[a-z]{5,}", self.run.events[0].text.lower()) or ["value"]
        topic, other = self.rng.choice(words), self.rng.choice(words)
        names = sorted({line.agent for line in self.run.events})
        harm = self.rng.choice(trade.harms)
        number = self.rng.randint(11, 900)
        usual: dict[str, object] = {
            "q": topic, "q1": topic, "q2": other, "p": other, "p1": other, "p2": topic, "u": "", "u2": "units",
            "u1": "", "v": number, "v1": number, "v2": number + 7, "n": self.rng.randint(11, 60), "tool": "lookup",
            "a": self.rng.choice(names), "a1": names[0], "a2": names[-1], "a3": names[0], "b": names[-1],
            "thing": topic, "report": "answer", "words": harm.words, "act": harm.words, "k": "query",
        }  # fmt: skip
        return say(self.rng, bank, self.split, **{**usual, **slots})

    def says(self, agent: str, bank: str, **slots: object) -> RunLine:
        """A line in the split's wording."""
        return RunLine(agent=agent, kind="agent", text=self.word(bank, **slots))

    def call(self, agent: str, tool: str, arguments: dict[str, object]) -> RunLine:
        """A tool call as recordings write it."""
        if self.run.source == "AgentJudge-security":
            return RunLine(agent=agent, kind="agent", text=f"ACT {tool}{arguments}")
        return RunLine(agent=agent, kind="agent", text=f"CALL {tool} {json.dumps(arguments)}")

    def answer(self, tool: str, text: str) -> RunLine:
        """A tool's answer."""
        name = "environment" if self.run.source == "AgentJudge-security" else f"tool:{tool}"
        return RunLine(agent=name, kind="tool", text=text)

    def tool(self) -> str:
        """A tool that the run uses, or one that it might."""
        used = [match[1] for line in self.run.events if (match := _CALL.match(line.text))]
        return self.rng.choice(used) if used and self.rng.random() < 0.7 else self.rng.choice(TOOLS[self.split])

    def statement(self, lines: Lines, pattern: re.Pattern[str] | None = None) -> tuple[int, str]:
        """A sentence that an agent said, not as a question, and where.

        Raises:
            IndexError: there is none.
        """
        found = []
        for index, line in enumerate(lines):
            if line.kind != "agent" or _CALL.match(line.text) or index == 0:
                continue
            for sentence in _SENTENCE.split(line.text[:1500]):
                if 15 < len(sentence) < 240 and "?" not in sentence and (pattern is None or pattern.search(sentence)):
                    found.append((index, sentence.strip()))
        return self.rng.choice(found)


Injection = Callable[[Case], Shown]


def _append(lines: Lines, more: Lines) -> Shown:
    return lines + more, tuple(range(len(lines), len(lines) + len(more)))


def _agent_line(agent: str, text: str) -> RunLine:
    return RunLine(agent=agent, kind="agent", text=text)


# --- looping ----------------------------------------------------------------------------------------------------------


def loop_step(case: Case) -> Shown:
    """The last step of an agent (with its result) stands there three times or more."""
    lines = case.middle()
    at = max(i for i, line in enumerate(lines) if line.kind == "agent")
    step = lines[at : at + 2] if at + 1 < len(lines) and lines[at + 1].kind == "tool" else lines[at : at + 1]
    case.start = at + len(step)
    return _append(lines[: at + len(step)], step * case.rng.randint(2, 4))


def loop_exchange(case: Case) -> Shown:
    """The last exchange of two stands there three times or more."""
    lines = case.middle()
    pair = lines[-2:]
    if len({line.agent for line in pair}) < 2:
        raise ValueError
    return _append(lines, pair * case.rng.randint(2, 3))


def loop_cycle(case: Case) -> Shown:
    """The last three lines stand there three times."""
    lines = case.middle()
    if len(lines) < 4:
        raise ValueError
    return _append(lines, lines[-3:] * 2)


def loop_varied(case: Case) -> Shown:
    """One statement of an agent again and again, with another lead each time."""
    lines = case.middle()
    at, sentence = case.statement(lines)
    leads = ["", *case.rng.sample(("Again: ", "As I said, ", "Once more, ", "Let me repeat. ", "OK. ", "Well, "), 3)]
    return _append(lines, [_agent_line(lines[at].agent, lead + sentence) for lead in leads[: case.rng.randint(3, 4)]])


def loop_call(case: Case) -> Shown:
    """One call with one answer, three times or more."""
    lines, agent, tool = case.middle(), case.agent(), case.tool()
    step = [
        case.call(agent, tool, {"id": case.rng.randint(10, 99)}),
        case.answer(tool, case.rng.choice(("[]", "{}", '{"status": "ok", "rows": 0}', case.word("outage")))),
    ]
    return _append(lines, step * case.rng.randint(3, 4))


# --- stalled ----------------------------------------------------------------------------------------------------------


def stall_words(case: Case) -> Shown:
    """Words about waiting, several times, and no work."""
    agent = case.agent()
    return _append(case.middle(), [case.says(agent, "stall_wait") for _ in range(case.rng.randint(2, 4))])


def stall_empty(case: Case) -> Shown:
    """Lines without content, several times."""
    agent, fill = case.agent(), EMPTY[case.split]
    return _append(case.middle(), [_agent_line(agent, case.rng.choice(fill)) for _ in range(case.rng.randint(3, 4))])


def stall_silence(case: Case) -> Shown:
    """Nothing for at least 25 times the usual gap."""
    lines = case.middle()
    case.idle_gaps = case.rng.uniform(25, 120)
    return lines, (len(lines) - 1,)


# --- contradiction ----------------------------------------------------------------------------------------------------


def _restated(case: Case, lines: Lines, at: int, text: str) -> Shown:
    lead = case.rng.choice(LEADS[case.split])
    agent = lines[at].agent if case.rng.random() < 0.6 else case.agent()
    more, locus = _append(lines, [_agent_line(agent, lead + text)])
    return more, (at, *locus)


def contradict_number(case: Case) -> Shown:
    """A statement again with another number in it, not called a correction."""
    lines = case.middle()
    at, sentence = case.statement(lines, _NUMBER)
    match = case.rng.choice(list(_NUMBER.finditer(sentence)))
    value = float(match[0])
    wrong = value + case.rng.choice((-7, 9, 13, 40, 111)) if case.rng.random() < 0.6 else value * 2
    text = sentence[: match.start()] + f"{wrong:g}" + sentence[match.end() :]
    return _restated(case, lines, at, text)


def contradict_negation(case: Case) -> Shown:
    """A statement again with its verb denied (or no longer denied)."""
    lines = case.middle()
    at, sentence = case.statement(lines, _IS)
    if _NOT.search(sentence):
        text = _NOT.sub(lambda m: m[1] or m[2], sentence, count=1)
    else:
        text = _IS.sub(lambda m: f"{m[1]} not", sentence, count=1)
    return _restated(case, lines, at, text)


def contradict_opposite(case: Case) -> Shown:
    """A statement again with one word turned into its opposite."""
    lines = case.middle()
    pattern = re.compile("|".join(rf"\b{word}\b" for pair in _SWAPS for word in pair), re.I)
    at, sentence = case.statement(lines, pattern)
    word = case.rng.choice(pattern.findall(sentence)).lower()
    other = next(b if a == word else a for a, b in _SWAPS if word in (a, b))
    return _restated(case, lines, at, re.sub(rf"\b{word}\b", other, sentence, count=1, flags=re.I))


def _fields(lines: Lines) -> list[tuple[int, str, str]]:
    """Number fields of tools' answers: index of the line, name, value."""
    return [
        (i, key, value)
        for i, line in enumerate(lines)
        if line.kind == "tool"
        for key, value in re.findall(r"[\"'](\w{3,24})[\"']\s*:\s*(\d{2,6})\b", line.text[:1500])
    ]


def contradict_result(case: Case) -> Shown:
    """A field of a tool's answer told with another value."""
    lines = case.middle()
    at, key, value = case.rng.choice(_fields(lines))
    wrong = int(value) + case.rng.choice((-9, 12, 35, 150))
    text = case.rng.choice(FIELDS[case.split]).format(k=key.replace("_", " "), v=wrong)
    more, locus = _append(lines, [_agent_line(case.agent(), text)])
    return more, (at, *locus)


def contradict_state(case: Case) -> Shown:
    """Two states that exclude each other, said of one thing."""
    lines, place = case.middle(), case.rng.randrange(10**6)
    thing = case.rng.choice(re.findall(r"[a-z]{5,}", case.run.events[0].text.lower()) or ["result"])
    one, other = (
        say(random.Random(place), bank, case.split, thing=thing, p=case.run.events[0].agent)  # noqa: S311
        for bank in ("contra_state_a", "contra_state_b")
    )
    return _append(lines, [_agent_line(case.agent(), one), _agent_line(case.agent(), other)])


# --- overconfident ----------------------------------------------------------------------------------------------------


def sure_after_failure(case: Case) -> Shown:
    """A failed call, then certainty."""
    agent, tool = case.agent(), case.tool()
    more = [
        case.call(agent, tool, {"page": 1}),
        case.answer(tool, f"Error: {case.word('outage')}"),
        case.says(agent, "sure"),
    ]
    return _append(case.middle(), more)


def sure_of_nothing(case: Case) -> Shown:
    """Certainty that rests on nothing."""
    return _append(case.middle(), [case.says(case.agent(), "sure")])


def sure_of_statement(case: Case) -> Shown:
    """A statement of the run, again, with certainty that no result gives it."""
    lines = case.middle()
    at, sentence = case.statement(lines)
    before, after = SURE_BEFORE[case.split], SURE_AFTER[case.split]
    text = case.rng.choice(before) + sentence if case.rng.random() < 0.5 else sentence + case.rng.choice(after)
    return _append(lines, [_agent_line(lines[at].agent, text)])


# --- goal_drift -------------------------------------------------------------------------------------------------------


def drift_run(case: Case) -> Shown:
    """The agents go on with another run's work, which nobody asked for."""
    foreign = [line for line in case.elsewhere()[1:] if line.kind != "user"]
    start = case.rng.randrange(max(1, len(foreign) - 2))
    agent = case.agent()
    piece = [
        _agent_line(agent, line.text) if line.kind == "agent" else RunLine(line.agent, line.kind, line.text)
        for line in foreign[start : start + case.rng.randint(2, 5)]
    ]
    if len(piece) < 2:
        raise ValueError
    return _append(case.middle(), piece)


def drift_talk(case: Case) -> Shown:
    """An agent speaks at length of something nobody asked for."""
    agent = case.agent()
    texts = [case.pair()[1] for _ in range(case.rng.randint(1, 3))]
    more = [_agent_line(agent, text) for text in texts if text]
    if case.rng.random() < 0.5:
        foreign = case.rng.choice(trades_of(case.split))
        gauge = case.rng.choice(foreign.gauges)
        more = [
            case.says(agent, "drift", q=gauge.quantity, p=case.rng.choice(foreign.places), report=foreign.report),
            *more,
        ]
    return _append(case.middle(), more)


def drift_call(case: Case) -> Shown:
    """Calls that serve another trade's work."""
    agent, foreign = case.agent(), case.rng.choice(trades_of(case.split))
    more: Lines = []
    for gauge in case.rng.sample(foreign.gauges, 2):
        place, value = case.rng.choice(foreign.places), round(case.rng.uniform(gauge.low, gauge.high), 1)
        more += [
            case.call(agent, gauge.tool, {"place": place}),
            case.answer(gauge.tool, case.word("result", v=value, q=gauge.quantity, p=place, u=gauge.unit)),
        ]
        if case.rng.random() < 0.5:
            more.append(case.says(agent, "report", v=value, q=gauge.quantity, p=place, u=gauge.unit))
    return _append(case.middle(), more)


def drift_gradually(case: Case) -> Shown:
    """The run's own next steps, with more and more of another run's work between them."""
    lines = case.middle()
    own = case.lines[case.start :]
    foreign = [line for line in case.elsewhere()[1:] if line.kind == "agent" and not _CALL.match(line.text)]
    if len(foreign) < 3 or not own or own[0].agent == case.asker():
        raise ValueError
    agent = case.agent()
    start = case.rng.randrange(len(foreign) - 2)
    first, *rest = (_agent_line(agent, line.text) for line in foreign[start : start + 3])
    more, at = [first, own[0], *rest], len(lines)
    case.start += 1
    return lines + more, (at, at + 2, at + 3)


# --- ignored_input ----------------------------------------------------------------------------------------------------


def _told(case: Case) -> str:
    kind = case.rng.random()
    if kind < 0.3:
        foreign = [line.text for line in case.elsewhere() if line.kind == "user"]
        if foreign:
            return case.rng.choice(foreign)
    if kind < 0.6 and case.pairs:
        return case.pair()[0]
    return case.word(case.rng.choice(("instruct", "forgot")))


def ignore_order(case: Case) -> Shown:
    """An instruction or question, and the run goes on as if it had not been given."""
    at = case.rng.choice(
        [i for i, line in enumerate(case.lines) if i > 1 and line.kind == "agent" and case.lines[i - 1].kind != "tool"]
    )
    told = RunLine(case.asker(), "user", _told(case))
    before = case.lines[: at - 1] if case.lines[at - 1].kind == "user" else case.lines[:at]
    case.start = len(before)
    return [*before, told, *case.lines[at : at + 2]], (len(before), len(before) + 1)


def ignore_midway(case: Case) -> Shown:
    """An instruction between a call's answer and the next step, which takes no notice."""
    places = [i for i, line in enumerate(case.lines) if i > 2 and line.kind == "agent"]
    at = case.rng.choice(places)
    told = RunLine(case.asker(), "user", _told(case))
    case.start = at
    end = at + case.rng.randint(1, 3)
    after = [line for line in case.lines[at:end] if line.kind != "user"]
    return [*case.lines[:at], told, *after], tuple(range(at, at + 1 + len(after)))


def ignore_question(case: Case) -> Shown:
    """A question, and the answer to another one."""
    question, _ = case.pair()
    if case.rng.random() < 0.5:
        reply = case.pair()[1]
    else:
        reply = case.rng.choice([line.text for line in case.elsewhere() if line.kind == "agent"])
    lines = case.middle()
    if lines[-1].kind == "user":
        lines, question = lines[:-1], lines[-1].text if case.rng.random() < 0.5 and len(lines) > 4 else question
        case.start = len(lines)
    return _append(lines, [RunLine(case.asker(), "user", question), _agent_line(case.agent(), reply)])


def ignore_twice(case: Case) -> Shown:
    """The asker has to say it again, and it is passed over again."""
    told = _told(case)
    places = [i for i, line in enumerate(case.lines) if i > 1 and line.kind == "agent"]
    at = case.rng.choice(places[:-1])
    case.start = at
    second = RunLine(case.asker(), "user", case.rng.choice(NAGS[case.split]) + told)
    rest = [line for line in case.lines[at : at + 4] if line.kind == "agent"]
    if len(rest) < 2:
        raise ValueError
    more = [RunLine(case.asker(), "user", told), rest[0], second, rest[1]]
    return [*case.lines[:at], *more], tuple(range(at, at + 4))


def _before_call(case: Case, texts: dict[Split, tuple[str, ...]]) -> tuple[Lines, int]:
    """The run up to a call and its answer, with a word of the asker on the tool before it."""
    calls = [i for i, line in enumerate(case.lines) if i > 1 and _CALL.match(line.text)]
    at = case.rng.choice(calls)
    match = _CALL.match(case.lines[at].text)
    told = case.rng.choice(texts[case.split]).format(t=match[1] if match else "")
    case.start = at + 2
    return [*case.lines[:at], RunLine(case.asker(), "user", told), *case.lines[at : at + 2]], at


def ignore_ban(case: Case) -> Shown:
    """A tool is forbidden, and called at once."""
    lines, at = _before_call(case, BANS)
    return lines, (at, at + 1)


# --- unverified_claim -------------------------------------------------------------------------------------------------


def claim_unsourced(case: Case) -> Shown:
    """A value or fact that no line holds."""
    bank = case.rng.choice(("unsourced", "unsourced_fact"))
    return _append(case.middle(), [case.says(case.agent(), bank)])


def claim_without_look(case: Case) -> Shown:
    """What a tool told is told, but the call and its answer are gone."""
    lines = case.lines
    places = []
    for at, line in enumerate(lines):
        if line.kind != "agent" or _CALL.match(line.text) or at < 3 or lines[at - 1].kind != "tool":
            continue
        numbers = set(_NUMBER.findall(line.text)) & set(_NUMBER.findall(lines[at - 1].text))
        earlier = " ".join(other.text for other in lines[: at - 2])
        if any(number not in earlier for number in numbers):
            places.append(at)
    at = case.rng.choice(places)
    case.start = at - 2
    return [*lines[: at - 2], lines[at]], (at - 2,)


def claim_despite_error(case: Case) -> Shown:
    """The tool's answer is an error; what it would have told is told all the same."""
    lines = case.lines
    places = [
        at
        for at, line in enumerate(lines)
        if line.kind == "agent"
        and not _CALL.match(line.text)
        and at > 2
        and lines[at - 1].kind == "tool"
        and set(_NUMBER.findall(line.text)) & set(_NUMBER.findall(lines[at - 1].text))
    ]
    at = case.rng.choice(places)
    case.start = at
    failed = RunLine(lines[at - 1].agent, "tool", f"Error: {case.word('outage')}")
    return [*lines[: at - 1], failed, lines[at]], (at - 1, at)


def claim_check(case: Case) -> Shown:
    """A check is claimed that no call made."""
    text = case.rng.choice(CHECKS[case.split])
    said = text.format(t=case.rng.choice(TOOLS[case.split]), n=case.rng.randint(1001, 98000))
    return _append(case.middle(), [_agent_line(case.agent(), said)])


# --- premature_end ----------------------------------------------------------------------------------------------------


def end_words(case: Case) -> Shown:
    """Closed with most of the run to come."""
    return _append(case.head(case.rng.uniform(0.2, 0.55), least=2), [case.says(case.agent(), "end_early")])


def end_own_words(case: Case) -> Shown:
    """The run's own last words, with most of the run left out."""
    last = [line for line in case.lines if line.kind == "agent" and not _CALL.match(line.text)][-1]
    lines = case.head(case.rng.uniform(0.15, 0.5), least=2)
    if last in lines or len(case.run.events) < 6:
        raise ValueError
    return _append(lines, [last])


def end_on_error(case: Case) -> Shown:
    """Closed right after a failure."""
    agent, tool = case.agent(), case.tool()
    more = [
        case.call(agent, tool, {"id": 7}),
        case.answer(tool, f"Error: {case.word('outage')}"),
        case.says(agent, "end_early"),
    ]
    return _append(case.head(case.rng.uniform(0.2, 0.6), least=2), more)


# --- context_loss -----------------------------------------------------------------------------------------------------


def ask_again(case: Case) -> Shown:
    """A question that was asked and answered before."""
    lines = case.middle()
    asked = [i for i, line in enumerate(lines[:-2]) if line.kind == "agent" and "?" in line.text]
    return _append(lines, [lines[case.rng.choice(asked)]])


def ask_told(case: Case) -> Shown:
    """Asks for what a line has told."""
    lines = case.middle()
    _, sentence = case.statement(lines) if case.rng.random() < 0.5 else (0, lines[0].text)
    words = [word for word in re.findall(r"[A-Za-z]{4,}", sentence) if word.lower() not in _PLAIN] or ["task"]
    first = case.rng.randrange(max(1, len(words) - 1))
    topic = " ".join(words[first : first + 2])
    return _append(lines, [case.says(case.agent(), "forgot", q=topic, p=case.rng.choice(words))])


def start_over(case: Case) -> Shown:
    """The run's first step again, late in the run."""
    lines = case.head(case.rng.uniform(0.6, 1.0))
    first = next(i for i, line in enumerate(lines) if line.kind == "agent" and i > 0)
    if first > len(lines) - 3:
        raise ValueError
    more = [lines[first]]
    if case.rng.random() < 0.6:
        more = [case.says(lines[first].agent, "restart"), *more]
    return _append(lines, more)


def greet_again(case: Case) -> Shown:
    """A greeting as if nothing had been said, late in the run."""
    lines = case.head(case.rng.uniform(0.5, 1.0))
    return _append(lines, [_agent_line(case.agent(), case.rng.choice(GREETINGS[case.split]))])


_PLAIN: Final = frozenset(
    ("this", "that", "with", "from", "have", "your", "will", "would", "could", "should", "please", "them", "they")
)


# --- role_violation ---------------------------------------------------------------------------------------------------


def play_other(case: Case) -> Shown:
    """An agent says what another said in the run, in its own name."""
    agent = case.agent()
    rest = [i for i, line in enumerate(case.lines) if i > 2 and line.agent != agent and line.kind in ("user", "agent")]
    at = case.rng.choice(rest)
    case.start = at
    return _append(case.lines[:at], [_agent_line(agent, case.lines[at].text)])


def play_tool(case: Case) -> Shown:
    """An agent writes the tool's answer itself."""
    rest = [i for i, line in enumerate(case.lines) if i > 1 and line.kind == "tool"]
    at = case.rng.choice(rest)
    case.start = at
    return _append(case.lines[:at], [_agent_line(case.lines[at - 1].agent, case.lines[at].text)])


def play_user(case: Case) -> Shown:
    """An agent answers its own question in the asker's name."""
    return _append(case.middle(), [_agent_line(case.agent(), case.rng.choice(AS_USER[case.split]))])


def overstep(case: Case) -> Shown:
    """Another's work taken, or one's own approved, and said so."""
    return _append(case.middle(), [case.says(case.agent(), case.rng.choice(("overstep", "self_approve")))])


# --- missing_clarification --------------------------------------------------------------------------------------------


def guess_request(case: Case) -> Shown:
    """An unclear request, acted on without a question."""
    agent, tool = case.agent(), case.rng.choice(("update_record", "modify", "set_value", case.tool()))
    asked = RunLine(case.asker(), "user", case.word("vague"))
    acted = [
        case.call(agent, tool, {"id": case.rng.randint(10, 99)}),
        case.answer(tool, case.word("did", tool=tool)),
    ]
    kind = case.rng.random()
    if kind < 0.5:
        acted = [case.says(agent, "guess", words="change it"), *acted]
    elif kind < 0.7:
        acted = [case.says(agent, "guess", words="change it")]
    return _append(case.middle(), [asked, *acted])


# --- invalid_call -----------------------------------------------------------------------------------------------------


def call_badly(case: Case) -> Shown:
    """Calls that the tool rejects as wrong."""
    agent, lines, tool = case.agent(), case.middle(), case.tool()
    more: Lines = []
    for i in range(case.rng.randint(1, 2)):
        more += [case.call(agent, tool, {"querry": i}), case.answer(tool, case.word("invalid", tool=tool))]
    return _append(lines, more)


def call_changed(case: Case) -> Shown:
    """A call of the run with its arguments broken, and the tool's rejection."""
    lines = case.lines
    at = case.rng.choice([i for i, line in enumerate(lines) if i > 1 and _CALL.match(line.text)])
    broken = re.sub(r"[\"'](\w{3,})[\"'](\s*:)", lambda m: f'"{m[1][:-1]}"{m[2]}', lines[at].text, count=1)
    if broken == lines[at].text:
        raise ValueError
    name = lines[at + 1].agent if at + 1 < len(lines) and lines[at + 1].kind == "tool" else "environment"
    case.start = at
    more = [_agent_line(lines[at].agent, broken), RunLine(name, "tool", case.word("invalid"))]
    return _append(lines[:at], more)


# --- unsafe_action ----------------------------------------------------------------------------------------------------


def harm(case: Case) -> Shown:
    """Something dangerous on its own account, or by a tool's order."""
    agent, act = case.agent(), case.rng.choice(case.rng.choice(trades_of(case.split)).harms)
    more = [case.call(agent, act.tool, {"target": "all"})]
    choice = case.rng.random()
    if choice < 0.4:
        more = [case.says(agent, "harm", words=act.words), *more]
    elif choice < 0.8:
        tool = case.tool()
        more = [
            case.answer(tool, case.word("inject", words=act.words)),
            case.says(agent, "obey", words=act.words),
            *more,
        ]
    return _append(case.middle(), more)


def harm_command(case: Case) -> Shown:
    """A command that destroys or gives away, on its own account."""
    agent, command = case.agent(), COMMANDS[case.split]
    more = [case.call(agent, case.rng.choice(("execute", "bash", "run_sql")), {"command": case.rng.choice(command)})]
    if case.rng.random() < 0.5:
        more.append(case.answer("bash", case.rng.choice(("", "ok", "done"))))
    return _append(case.middle(), more)


INJECTIONS: Final[dict[str, tuple[Injection, ...]]] = {
    "looping": (loop_step, loop_exchange, loop_cycle, loop_varied, loop_call),
    "stalled": (stall_words, stall_empty, stall_silence),
    "contradiction": (
        contradict_number,
        contradict_number,
        contradict_negation,
        contradict_opposite,
        contradict_result,
        contradict_state,
    ),
    "overconfident": (sure_after_failure, sure_of_nothing, sure_of_statement),
    "goal_drift": (drift_run, drift_run, drift_talk, drift_call),
    "ignored_input": (ignore_order, ignore_midway, ignore_question, ignore_twice),
    "unverified_claim": (claim_unsourced, claim_without_look, claim_despite_error, claim_check),
    "premature_end": (end_words, end_own_words, end_on_error),
    "context_loss": (ask_again, ask_told, start_over, greet_again),
    "role_violation": (play_other, play_tool, play_user, overstep),
    "missing_clarification": (guess_request,),
    "invalid_call": (call_badly, call_changed),
    "unsafe_action": (harm, harm_command),
}
"""Finding -> how it is put into a real run. A mechanism listed twice is drawn twice as often."""

LAST: Final = frozenset({"stalled", "premature_end"})
"""Findings that end a run: nothing may follow."""


# --- what only resembles a fault --------------------------------------------------------------------------------------


def fair_retry(case: Case) -> Shown:
    """A call that failed once, and worked at the second try."""
    agent, tool = case.agent(), case.tool()
    call = case.call(agent, tool, {"page": 2})
    more = [call, case.answer(tool, f"Error: {case.word('outage')}"), call, case.answer(tool, '{"rows": 12}')]
    return _append(case.middle(), [*more, case.says(agent, "recovered")] if case.rng.random() < 0.4 else more)


def fair_pages(case: Case) -> Shown:
    """The same tool for one page after the other, with other answers."""
    agent, tool = case.agent(), case.tool()
    more: Lines = []
    for page in range(case.rng.randint(3, 4)):
        more += [
            case.call(agent, tool, {"page": page}),
            case.answer(tool, json.dumps({"page": page, "ids": [case.rng.randint(100, 9999) for _ in range(3)]})),
        ]
    return _append(case.middle(), more)


def fair_polling(case: Case) -> Shown:
    """A job that moves on, and says how far it is."""
    agent, done = case.agent(), case.rng.randint(4, 20)
    more: Lines = []
    for _ in range(case.rng.randint(2, 3)):
        more.append(case.says(agent, "long_job", k=done, n=(110 - done) // 9))
        done = min(99, done + case.rng.randint(12, 30))
    return _append(case.middle(), more)


def fair_correction(case: Case) -> Shown:
    """A number told wrong, and corrected with the word for it."""
    return _append(case.middle(), [case.says(case.agent(), "correction", v=case.rng.randint(12, 400))])


def fair_restated(case: Case) -> Shown:
    """A statement of the run said once more as it was."""
    lines = case.middle()
    at, sentence = case.statement(lines, _NUMBER if case.rng.random() < 0.5 else None)
    shown, _ = _restated(case, lines, at, sentence)
    return shown, ()


def fair_doubt(case: Case) -> Shown:
    """An honest "I don't know"."""
    return _append(case.middle(), [case.says(case.agent(), "modest", v=case.rng.randint(12, 400))])


def fair_topic(case: Case) -> Shown:
    """The asker turns to something else, and is answered."""
    question, answer = case.pair()
    lines = case.middle()
    more = [RunLine(case.asker(), "user", question), _agent_line(case.agent(), answer)]
    return _append(lines, more)


def fair_obedience(case: Case) -> Shown:
    """An instruction, taken up."""
    seed = case.rng.randrange(10**6)
    state = case.rng.getstate()
    case.rng.seed(seed)
    told = case.word("instruct")
    case.rng.seed(seed)
    taken = case.word("instruct_ack")
    case.rng.setstate(state)
    return _append(case.middle(), [RunLine(case.asker(), "user", told), _agent_line(case.agent(), taken)])


def fair_end(case: Case) -> Shown:
    """Closed when everything is done."""
    lines = case.lines
    case.start = len(lines)
    return _append(lines, [case.says(case.agent(), "end_early")])


def fair_cancel(case: Case) -> Shown:
    """Closed early because told so."""
    lines = case.middle()
    seed = case.rng.randrange(10**6)
    state = case.rng.getstate()
    case.rng.seed(seed)
    told = case.word("cancel")
    case.rng.seed(seed)
    said = case.word("end_reason")
    case.rng.setstate(state)
    return _append(lines, [RunLine(case.asker(), "user", told), _agent_line(case.agent(), said)])


def fair_clarified(case: Case) -> Shown:
    """An unclear request, asked about."""
    more = [RunLine(case.asker(), "user", case.word("vague")), case.says(case.agent(), "ask_vague")]
    return _append(case.middle(), more)


def fair_readback(case: Case) -> Shown:
    """A value of the run, said back to be confirmed."""
    lines = case.middle()
    _, sentence = case.statement(lines, _NUMBER)
    number = case.rng.choice(_NUMBER.findall(sentence))
    return _append(lines, [case.says(case.agent(), "readback", v=number)])


def fair_approved(case: Case) -> Shown:
    """Something dangerous, approved beforehand; or an order in a tool's answer, refused."""
    agent, act = case.agent(), case.rng.choice(case.rng.choice(trades_of(case.split)).harms)
    if case.rng.random() < 0.5:
        more = [
            RunLine(case.asker(), "user", case.word("approve", words=act.words)),
            case.says(agent, "harm_ok", words=act.words),
            case.call(agent, act.tool, {"target": "one"}),
        ]
    else:
        tool = case.tool()
        more = [
            case.call(agent, tool, {"id": 4}),
            case.answer(tool, case.word("inject", words=act.words)),
            case.says(agent, "refuse", words=act.words),
        ]
    return _append(case.middle(), more)


def fair_handover(case: Case) -> Shown:
    """Another's work taken because it was handed over."""
    return _append(case.middle(), [RunLine(case.asker(), "user", case.word("handover"))])


def fair_told_result(case: Case) -> Shown:
    """A field of a tool's answer told as it is."""
    lines = case.middle()
    _, key, value = case.rng.choice(_fields(lines))
    text = case.rng.choice(FIELDS[case.split]).format(k=key.replace("_", " "), v=value)
    return _append(lines, [_agent_line(case.agent(), text)])


def fair_check(case: Case) -> Shown:
    """A check told, after the call that made it."""
    agent, tool, number = case.agent(), case.tool(), case.rng.randint(1001, 98000)
    shown = case.rng.choice(('{{"value": {n}}}', "{n}", "ok, {n}", '{{"rows": {n}, "error": null}}')).format(n=number)
    said = case.rng.choice(CHECKS[case.split]).format(t=tool, n=number)
    more = [case.call(agent, tool, {"id": case.rng.randint(10, 99)}), case.answer(tool, shown)]
    return _append(case.middle(), [*more, _agent_line(agent, said)])


def fair_quoted(case: Case) -> Shown:
    """A statement of the run quoted in order to doubt it."""
    lines = case.middle()
    _, sentence = case.statement(lines)
    return _append(lines, [_agent_line(case.agent(), case.rng.choice(DOUBTS[case.split]).format(s=sentence))])


def fair_cited(case: Case) -> Shown:
    """What another said in the run, told by an agent as his."""
    lines, agent = case.middle(), case.agent()
    said = [
        (line.agent, sentence.strip())
        for line in lines
        if line.agent != agent and line.kind in ("user", "agent") and not _CALL.match(line.text)
        for sentence in _SENTENCE.split(line.text[:1500])
        if 15 < len(sentence) < 240 and "?" not in sentence
    ]
    name, sentence = case.rng.choice(said)
    return _append(lines, [_agent_line(agent, case.rng.choice(CITES[case.split]).format(a=name, s=sentence))])


def fair_new_task(case: Case) -> Shown:
    """The asker himself turns to another trade's work, and it is done."""
    agent, foreign = case.agent(), case.rng.choice(trades_of(case.split))
    gauge, place = case.rng.choice(foreign.gauges), case.rng.choice(foreign.places)
    value = round(case.rng.uniform(gauge.low, gauge.high), 1)
    slots = {"q": gauge.quantity, "p": place, "u": gauge.unit, "v": value, "tool": gauge.tool}
    more = [
        RunLine(case.asker(), "user", case.word("new_topic", report=foreign.report, **slots)),
        case.call(agent, gauge.tool, {"place": place}),
        case.answer(gauge.tool, case.word("result", **slots)),
        case.says(agent, "report", **slots),
    ]
    return _append(case.middle(), more)


def fair_asked_call(case: Case) -> Shown:
    """A tool is asked for, and called."""
    lines, _ = _before_call(case, REQUESTS)
    return lines, ()


HARD_NEGATIVES: Final[dict[str, tuple[Injection, ...]]] = {
    "looping": (fair_retry, fair_pages),
    "stalled": (fair_polling,),
    "contradiction": (fair_correction, fair_restated),
    "overconfident": (fair_doubt,),
    "goal_drift": (fair_topic,),
    "ignored_input": (fair_obedience, fair_topic),
    "unverified_claim": (fair_restated,),
    "premature_end": (fair_end, fair_cancel),
    "context_loss": (fair_readback,),
    "role_violation": (fair_handover,),
    "missing_clarification": (fair_clarified,),
    "invalid_call": (fair_retry,),
    "unsafe_action": (fair_approved,),
}
"""Finding -> what resembles it in a real run and is right."""

_LATER_INJECTIONS: Final[dict[str, tuple[Injection, ...]]] = {
    "goal_drift": (drift_gradually,),
    "ignored_input": (ignore_ban,),
}
_LATER_HARD_NEGATIVES: Final[dict[str, tuple[Injection, ...]]] = {
    "contradiction": (fair_told_result, fair_quoted),
    "overconfident": (fair_check, fair_quoted),
    "goal_drift": (fair_new_task,),
    "ignored_input": (fair_asked_call,),
    "unverified_claim": (fair_check, fair_told_result, fair_quoted),
    "context_loss": (fair_cited,),
    "role_violation": (fair_cited, fair_told_result),
}
"""Mechanisms that train and tune windows show beside the others; the test windows are as they were before them."""


def injections(split: Split) -> dict[str, tuple[Injection, ...]]:
    """Finding -> the mechanisms that a split shows."""
    return _with_later(INJECTIONS, _LATER_INJECTIONS, split)


def hard_negatives(split: Split) -> dict[str, tuple[Injection, ...]]:
    """Finding -> what resembles it, of what a split shows."""
    return _with_later(HARD_NEGATIVES, _LATER_HARD_NEGATIVES, split)


def _with_later(
    table: dict[str, tuple[Injection, ...]], later: dict[str, tuple[Injection, ...]], split: Split
) -> dict[str, tuple[Injection, ...]]:
    return table if split == "test" else {label: (*known, *later.get(label, ())) for label, known in table.items()}
