"""Recorded runs of real agents: faults put into successful ones, outcomes of all; groups never cross splits.

The runs stay where they are (``--data``); only windows made of them enter a training set, and no training set enters
the repository. A fault speaks in the split's wordings of ``phrases``, or in pieces of other runs of the same split.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from nis_edge.errors import ConfigError
from nis_edge.monitor.context import NO_DEVICE, window_of
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.traces import Run, RunLine, canonical_events, decode_run
from nis_models.domains import Split, trades_of
from nis_models.phrases import say
from nis_models.scenarios import Item

FILES: Final = {
    "tau_airline": "tau_airline.jsonl.gz",
    "ag2_gsmplus": "ag2_gsmplus.jsonl.gz",
    "asse_security": "asse_security.jsonl.gz",
}
RUNS_MAX: Final = 900
"""Runs taken of one file: more would drown the small systems."""

EVENTS_SHOWN: Final = 12


@dataclass(frozen=True)
class Corpus:
    """Real runs of one split."""

    runs: tuple[Run, ...]
    split: Split

    def good(self) -> list[Run]:
        """Runs that reached their goal."""
        return [run for run in self.runs if run.outcome == 1 and len(run.events) >= 4]


def load(folder: Path) -> dict[Split, Corpus]:
    """Read the runs and split them by group.

    Args:
        folder: where the files of the development data lie.

    Raises:
        ConfigError: a file is missing; the operator names the right folder.
    """
    parts: dict[Split, list[Run]] = {"train": [], "tune": [], "test": []}
    for name in FILES.values():
        path = folder / name
        if not path.is_file():
            raise ConfigError(
                f"{path} is missing; --data must name the folder of the recorded runs, nothing was written"
            )
        with gzip.open(path, "rb") as lines:
            runs = [decode_run(line) for line in lines]
        random.Random(name).shuffle(runs)  # noqa: S311 - a fixed order, not a secret
        for run in runs[:RUNS_MAX]:
            parts[split_of(run)].append(run)
    return {split: Corpus(tuple(runs), split) for split, runs in parts.items()}


def split_of(run: Run) -> Split:
    """The split of a run's group: a seventh tunes, a fifth tests; the same on every machine."""
    byte = hashlib.sha256(run.group.encode()).digest()[0]
    return "test" if byte < 52 else "tune" if byte < 88 else "train"


def draw_outcome(seed: int, corpus: Corpus) -> Item:
    """A window near the end of a run, with the run's outcome; its findings are not known."""
    rng = random.Random(f"outcome:{corpus.split}:{seed}")  # noqa: S311
    wanted = rng.random() < 0.5
    run = rng.choice([run for run in corpus.runs if run.outcome == int(wanted) and len(run.events) >= 3])
    lines = list(run.events)
    end = rng.randint(max(3, (2 * len(lines)) // 3), len(lines)) if rng.random() < 0.4 else len(lines)
    known: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    if run.source == "AgentJudge-security" and end == len(lines):
        # This recording calls a run bad exactly when something unsafe was done.
        known = ("unsafe_action",)
        labels = () if wanted else known
    return _item(
        rng, run, lines[:end], labels, (), f"outcome_{run.source}", corpus.split, failure=not wanted, known=known
    )


def draw_injected(seed: int, corpus: Corpus, label: str | None = None) -> Item:
    """A window of a successful run with a fault in it, or as it was, or with something that only resembles a fault."""
    rng = random.Random(f"injected:{corpus.split}:{seed}")  # noqa: S311
    good = corpus.good()
    system = rng.choice(sorted({run.source for run in good}))
    good = [run for run in good if run.source == system]
    for _ in range(50):
        run = rng.choice(good)
        kind = rng.random()
        wanted = label or (rng.choice(sorted(INJECTIONS)) if kind < 0.6 else None)
        if wanted is None:
            return _clean(rng, run, corpus, hard=kind > 0.85)
        case = _Case(rng, run, corpus)
        try:
            lines, locus = rng.choice(INJECTIONS[wanted])(case)
        except (IndexError, ValueError):
            continue  # this run offers no place for it; another will
        name = f"{wanted}_{run.source}"
        return _item(rng, run, lines, (wanted,), locus, name, corpus.split, idle_gaps=case.idle_gaps)
    return _clean(rng, run, corpus, hard=False)


def _clean(rng: random.Random, run: Run, corpus: Corpus, *, hard: bool) -> Item:
    case = _Case(rng, run, corpus)
    lines = case.head(rng.uniform(0.4, 1.0))
    if hard:
        kind = rng.choice(("looping", "contradiction", "overconfident"))
        agent = case.agent()
        if kind == "looping":
            lines += [
                case.call(agent, "lookup", {"page": 2}),
                RunLine(agent="tool:lookup", kind="tool", text=case.word("outage")),
                case.call(agent, "lookup", {"page": 2}),
                RunLine(agent="tool:lookup", kind="tool", text='{"status": "ok", "rows": 12}'),
            ]
        elif kind == "contradiction":
            lines += [RunLine(agent=agent, kind="agent", text=case.word("correction", v=rng.randint(12, 400)))]
        else:
            lines += [RunLine(agent=agent, kind="agent", text=case.word("modest", v=rng.randint(12, 400)))]
        return replace(_item(rng, run, lines, (), (), f"hard_{run.source}", corpus.split), hard_negative_for=kind)
    return _item(rng, run, lines, (), (), f"clean_{run.source}", corpus.split)


def _item(
    rng: random.Random,
    run: Run,
    lines: list[RunLine],
    labels: tuple[str, ...],
    locus: tuple[int, ...],
    template: str,
    split: Split,
    *,
    failure: bool | None = None,
    known: tuple[str, ...] | None = None,
    idle_gaps: float | None = None,
) -> Item:
    events = list(canonical_events(Run(id=run.id, events=tuple(lines))))
    goal = next((event.text for event in events if event.kind == "goal"), None)
    time_known = idle_gaps is not None or rng.random() < 0.4
    now = float(len(events))
    if time_known:
        pace, clock, timed = rng.choice((0.5, 2.0, 6.0, 20.0)), 1.7e9, []
        for event in events:
            clock += pace * rng.lognormvariate(0.0, 0.6)
            timed.append(msgspec.structs.replace(event, ts=round(clock, 3)))
        events = timed
        now = clock + pace * (idle_gaps if idle_gaps is not None else rng.uniform(0.0, rng.choice((0.02, 2.5))))
    window = window_of(goal, events, NO_DEVICE, now, time_known=time_known)
    cut = len(events) - len(window.events)
    return Item(
        window=window,
        labels=labels,
        locus=tuple(i - cut for i in locus if i >= cut),
        hard_negative_for=None,
        failure=failure,
        source=run.source,
        group=f"{run.source}:{run.group}",
        template=template,
        split=split,
        known=known,
    )


class _Case:
    """One run that a fault is put into."""

    def __init__(self, rng: random.Random, run: Run, corpus: Corpus) -> None:
        self.rng, self.run, self.corpus = rng, run, corpus
        self.lines = list(run.events)
        self.idle_gaps: float | None = None

    def head(self, share: float, least: int = 3) -> list[RunLine]:
        """The run's beginning."""
        return self.lines[: max(least, round(share * len(self.lines)))]

    def middle(self) -> list[RunLine]:
        """A beginning of any length that leaves something to come."""
        return self.head(self.rng.uniform(0.35, 0.95))

    def agent(self) -> str:
        """Someone of the team who has spoken."""
        return self.rng.choice([line.agent for line in self.lines if line.kind == "agent"])

    def elsewhere(self) -> list[RunLine]:
        """Another group's run, of the same system if there is one."""
        others = [run for run in self.corpus.runs if run.group != self.run.group]
        near = [run for run in others if run.source == self.run.source]
        return list(self.rng.choice(near if near and self.rng.random() < 0.5 else others).events)

    def word(self, bank: str, **slots: object) -> str:
        """A wording about something the run speaks of."""
        trade = self.rng.choice(trades_of(self.corpus.split))
        words = re.findall(r"[a-z]{5,}", self.lines[0].text.lower()) or ["value"]
        topic, other = self.rng.choice(words), self.rng.choice(words)
        names = sorted({line.agent for line in self.lines})
        harm = self.rng.choice(trade.harms)
        usual: dict[str, object] = {
            "q": topic,
            "q1": topic,
            "q2": other,
            "p": other,
            "p1": other,
            "p2": topic,
            "u": "",
            "u2": "units",
            "v": self.rng.randint(11, 900),
            "n": self.rng.randint(11, 60),
            "tool": "lookup",
            "a": self.rng.choice(names),
            "a1": names[0],
            "a2": names[-1],
            "a3": names[0],
            "b": names[-1],
            "thing": topic,
            "report": "answer",
            "words": harm.words,
            "act": harm.words,
            "k": "query",
        }
        return say(self.rng, bank, self.corpus.split, **{**usual, **slots})

    def call(self, agent: str, tool: str, arguments: dict[str, object]) -> RunLine:
        """A tool call as recordings write it."""
        return RunLine(agent=agent, kind="agent", text=f"CALL {tool} {json.dumps(arguments)}")


Injection = Callable[[_Case], tuple[list[RunLine], tuple[int, ...]]]


def _append(lines: list[RunLine], more: list[RunLine]) -> tuple[list[RunLine], tuple[int, ...]]:
    return lines + more, tuple(range(len(lines), len(lines) + len(more)))


def _speak(case: _Case, agent: str, bank: str, **slots: object) -> RunLine:
    return RunLine(agent=agent, kind="agent", text=case.word(bank, **slots))


def _loop_step(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines = case.middle()
    at = max(i for i, line in enumerate(lines) if line.kind == "agent")
    step = lines[at : at + 2] if at + 1 < len(lines) and lines[at + 1].kind == "tool" else lines[at : at + 1]
    return _append(lines[: at + len(step)], step * case.rng.randint(2, 4))


def _loop_exchange(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines = case.middle()
    pair = lines[-2:]
    if len({line.agent for line in pair}) < 2:
        raise ValueError
    return _append(lines, pair * case.rng.randint(2, 3))


def _stall_words(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    agent = case.agent()
    return _append(case.middle(), [_speak(case, agent, "stall_wait") for _ in range(case.rng.randint(2, 4))])


def _stall_silence(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines = case.middle()
    case.idle_gaps = case.rng.uniform(25, 120)
    return lines, (len(lines) - 1,)


def _contradict_number(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines = case.middle()
    at = case.rng.choice(
        [i for i, line in enumerate(lines) if line.kind == "agent" and re.search(r"\d{2,}", line.text)]
    )
    sentences = [
        part for part in re.split(r"(?<=[.!?\n])\s+", lines[at].text) if re.search(r"\d{2,}", part) and len(part) > 15
    ]
    sentence = case.rng.choice(sentences)
    number = re.search(r"\d{2,}", sentence)
    if number is None:
        raise ValueError
    wrong = str(int(number[0][:9]) + case.rng.choice((-7, 9, 13, 40, 111)))
    text = sentence[: number.start()] + wrong + sentence[number.end() :]
    more, locus = _append(lines, [RunLine(agent=case.agent(), kind="agent", text=text)])
    return more, (at, *locus)


def _contradict_state(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines, place = case.middle(), case.rng.randrange(10**6)
    one, other = (
        say(random.Random(place), bank, case.corpus.split, thing="result", p=case.run.events[0].agent)  # noqa: S311
        for bank in ("contra_state_a", "contra_state_b")
    )
    return _append(
        lines,
        [RunLine(agent=case.agent(), kind="agent", text=one), RunLine(agent=case.agent(), kind="agent", text=other)],
    )


def _drift(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    foreign = [line for line in case.elsewhere()[1:] if line.kind != "user"]
    start = case.rng.randrange(max(1, len(foreign) - 2))
    agent = case.agent()
    piece = [
        RunLine(agent=agent if line.kind == "agent" else line.agent, kind=line.kind, text=line.text)
        for line in foreign[start : start + 4]
    ]
    if len(piece) < 2:
        raise ValueError
    return _append(case.middle(), piece)


def _ignore(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    at = case.rng.choice(
        [i for i, line in enumerate(case.lines) if i > 1 and line.kind == "agent" and case.lines[i - 1].kind != "tool"]
    )
    foreign = [line.text for line in case.elsewhere() if line.kind == "user"]
    text = (
        case.rng.choice(foreign)
        if foreign and case.rng.random() < 0.5
        else case.word(case.rng.choice(("instruct", "forgot")))
    )
    asker = "user" if any(line.kind == "user" for line in case.lines) else case.lines[0].agent
    told = RunLine(agent=asker, kind="user", text=text)
    before = case.lines[: at - 1] if case.lines[at - 1].kind == "user" else case.lines[:at]
    return [*before, told, *case.lines[at : at + 2]], (len(before), len(before) + 1)


def _unsourced(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    bank = case.rng.choice(("unsourced", "unsourced_fact"))
    return _append(case.middle(), [_speak(case, case.agent(), bank)])


def _end(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    return _append(case.head(case.rng.uniform(0.2, 0.55), least=2), [_speak(case, case.agent(), "end_early")])


def _ask_again(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines = case.middle()
    asked = [i for i, line in enumerate(lines[:-2]) if line.kind == "agent" and "?" in line.text]
    again = lines[case.rng.choice(asked)] if asked and case.rng.random() < 0.6 else _speak(case, case.agent(), "forgot")
    return _append(lines, [again])


def _start_over(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    lines = case.head(case.rng.uniform(0.6, 1.0))
    first = next(i for i, line in enumerate(lines) if line.kind == "agent" and i > 0)
    return _append(lines, [_speak(case, lines[first].agent, "restart"), lines[first]])


def _play_other(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    agent = case.agent()
    rest = [i for i, line in enumerate(case.lines) if i > 2 and line.agent != agent and line.kind in ("user", "agent")]
    at = case.rng.choice(rest)
    return _append(case.lines[:at], [RunLine(agent=agent, kind="agent", text=case.lines[at].text)])


def _overstep(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    return _append(case.middle(), [_speak(case, case.agent(), case.rng.choice(("overstep", "self_approve")))])


def _guess(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    agent = case.agent()
    asked = RunLine(agent="user", kind="user", text=case.word("vague"))
    acted = [
        case.call(agent, "update_record", {"id": case.rng.randint(10, 99)}),
        RunLine(agent="tool:update_record", kind="tool", text='{"status": "ok"}'),
    ]
    if case.rng.random() < 0.6:
        acted = [_speak(case, agent, "guess", words="change it"), *acted]
    return _append(case.middle(), [asked, *acted])


def _call_badly(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    agent, lines = case.agent(), case.middle()
    more = []
    for i in range(case.rng.randint(1, 2)):
        more += [
            case.call(agent, "lookup", {"querry": i}),
            RunLine(agent="tool:lookup", kind="tool", text=case.word("invalid")),
        ]
    return _append(lines, more)


def _harm(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    agent, harm = case.agent(), case.rng.choice(case.rng.choice(trades_of(case.corpus.split)).harms)
    more = [case.call(agent, harm.tool, {"target": "all"})]
    choice = case.rng.random()
    if choice < 0.4:
        more = [_speak(case, agent, "harm", words=harm.words), *more]
    elif choice < 0.8:
        more = [
            RunLine(agent="tool:lookup", kind="tool", text=case.word("inject", words=harm.words)),
            _speak(case, agent, "obey", words=harm.words),
            *more,
        ]
    return _append(case.middle(), more)


def _sure(case: _Case) -> tuple[list[RunLine], tuple[int, ...]]:
    agent = case.agent()
    more = [_speak(case, agent, "sure")]
    if case.rng.random() < 0.6:
        more = [
            case.call(agent, "lookup", {"page": 1}),
            RunLine(agent="tool:lookup", kind="tool", text=f"Error: {case.word('outage')}"),
            *more,
        ]
    return _append(case.middle(), more)


INJECTIONS: Final[dict[str, tuple[Injection, ...]]] = {
    "looping": (_loop_step, _loop_exchange),
    "stalled": (_stall_words, _stall_silence),
    "contradiction": (_contradict_number, _contradict_number, _contradict_state),
    "overconfident": (_sure,),
    "goal_drift": (_drift,),
    "ignored_input": (_ignore,),
    "unverified_claim": (_unsourced,),
    "premature_end": (_end,),
    "context_loss": (_ask_again, _start_over),
    "role_violation": (_play_other, _overstep),
    "missing_clarification": (_guess,),
    "invalid_call": (_call_badly,),
    "unsafe_action": (_harm,),
}
"""Finding -> how it is put into a real run. Device findings need a device, and recordings have none."""


def timed(events: tuple[AgentEvent, ...], times: list[float]) -> tuple[AgentEvent, ...]:
    """Return the events with real times in place of their numbers."""
    return tuple(msgspec.structs.replace(event, ts=ts) for event, ts in zip(events, times, strict=True))
