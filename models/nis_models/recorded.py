"""Recorded runs of real agents: faults put into successful ones, outcomes of all; groups never cross splits.

The runs stay where they are (``--data``); only windows made of them enter a training set, and no training set enters
the repository. A fault speaks in the split's wordings of ``phrases``, or in pieces of other runs of the same split.
"""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import msgspec

from nis_edge.errors import ConfigError
from nis_edge.monitor.context import DeviceView, window_of
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.traces import Run, RunLine, canonical_events, decode_run
from nis_models.domains import Split
from nis_models.injections import INJECTIONS, LAST, Case, Injection, hard_negatives, injections
from nis_models.scenarios import Item
from nis_models.simulate import healthy_device, mad_device, silent_device, starved_device

FILES: Final = {
    "tau_airline": "tau_airline.jsonl.gz",
    "ag2_gsmplus": "ag2_gsmplus.jsonl.gz",
    "asse_security": "asse_security.jsonl.gz",
}
UNSEEN: Final = frozenset({"masft_ag2"})
"""Systems that no weights, tables or thresholds are made from: only tested on. Their licence stays with them, too."""

ANSWERS: Final = "halueval_general.jsonl"
ANSWERS_SOURCE: Final = "halueval_chat"
SPEAKERS: Final = (("user", "assistant"), ("user", "agent"), ("user", "helper"), ("planner", "writer"))
OUTCOMES: Final = frozenset({"tau_airline", "masft_ag2", "AgentJudge-security", "ag2_gsmplus", "asse_security"})
"""Sources that say how a run ended."""

SALTS: Final = {"AgentJudge-security": "c"}
"""Put before a group's name where it is hashed: eight groups need luck to leave each split runs of both outcomes."""

FAULTY_SHARE: Final = 0.58
TWIN_SHARE: Final = 0.12
HARD_SHARE: Final = 0.17
"""The rest are beginnings of runs as they were."""

CONTINUED_SHARE: Final = 0.35
"""Of faults after which the run goes on for one to three lines."""

RUNS_MAX: Final = 900
"""Runs taken of one file: more would drown the small systems."""

DEVICE_FAULTS: Final[dict[str, Callable[[random.Random], tuple[DeviceView, str]]]] = {
    "resource_starvation": starved_device,
    "sensor_fault": mad_device,
    "stale_feed": silent_device,
}
"""Findings that a device shows beside any run."""

INJECTABLE: Final = frozenset(INJECTIONS) | frozenset(DEVICE_FAULTS)


@dataclass(frozen=True)
class Corpus:
    """Real runs of one split, and questions with the answers they got."""

    runs: tuple[Run, ...]
    split: Split
    pairs: tuple[tuple[str, str], ...]

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
        with gzip.open(_present(folder / name), "rb") as lines:
            runs = [decode_run(line) for line in lines]
        random.Random(name).shuffle(runs)  # noqa: S311 - a fixed order, not a secret
        for run in runs[:RUNS_MAX]:
            split = split_of(run)
            if run.source not in UNSEEN or split == "test":
                parts[split].append(run)
    pairs = _pairs(_present(folder / ANSWERS))
    for split, known in pairs.items():
        parts[split] += _conversations(known, split)
    return {split: Corpus(tuple(runs), split, tuple(pairs[split])) for split, runs in parts.items()}


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} is missing; --data must name the folder of the recorded runs, nothing was written")
    return path


def _pairs(path: Path) -> dict[Split, list[tuple[str, str]]]:
    """Questions with answers that were not found to be made up, by split."""
    pairs: dict[Split, list[tuple[str, str]]] = {"train": [], "tune": [], "test": []}
    for line in path.read_bytes().splitlines():
        row = msgspec.json.decode(line)
        question, answer = row["user_query"].strip(), row["chatgpt_response"].strip()
        if row["hallucination"] == "no" and 12 < len(question) < 400 and 20 < len(answer) < 900:
            pairs[_split_of_name(question)].append((question, answer))
    return pairs


def _conversations(pairs: list[tuple[str, str]], split: Split) -> list[Run]:
    """Questions and answers as the run of an assistant, some in a row; nothing is made up but the order."""
    rng = random.Random(f"conversations:{split}")  # noqa: S311
    runs, at = [], 0
    while at + 6 < len(pairs):
        count = rng.randint(2, 6)
        asker, helper = rng.choice(
            (("user", "assistant"), ("user", "agent"), ("user", "helper"), ("planner", "writer"))
        )
        kind: Literal["user", "agent"] = "user" if asker == "user" else "agent"
        lines: list[RunLine] = []
        for question, answer in pairs[at : at + count]:
            lines += [RunLine(asker, kind, question), RunLine(helper, "agent", answer)]
        name = f"{split}-{at}"
        runs.append(
            Run(id=name, events=tuple(lines), source=ANSWERS_SOURCE, system=ANSWERS_SOURCE, group=name, outcome=1)
        )
        at += count
    return runs


def split_of(run: Run) -> Split:
    """The split of a run's group: a seventh tunes, a fifth tests; the same on every machine."""
    return _split_of_name(SALTS.get(run.source, "") + run.group)


def _split_of_name(name: str) -> Split:
    byte = hashlib.sha256(name.encode()).digest()[0]
    return "test" if byte < 52 else "tune" if byte < 88 else "train"


def draw_outcome(seed: int, corpus: Corpus) -> Item:
    """A window near the end of a run, with the run's outcome; its findings are not known."""
    rng = random.Random(f"outcome:{corpus.split}:{seed}")  # noqa: S311
    wanted = rng.random() < 0.5
    systems = sorted({run.source for run in corpus.runs if run.source in OUTCOMES})
    system = rng.choice(systems)
    run = rng.choice(
        [r for r in corpus.runs if r.source == system and r.outcome == int(wanted) and len(r.events) >= 3]
        or [r for r in corpus.runs if r.source == system and len(r.events) >= 3]
    )
    wanted = run.outcome == 1
    lines = list(run.events)
    end = rng.randint(max(3, (2 * len(lines)) // 3), len(lines)) if rng.random() < 0.4 else len(lines)
    known: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    if run.source == "AgentJudge-security" and end == len(lines):
        # This recording calls a run bad exactly when something unsafe was done.
        known = ("unsafe_action",)
        labels = () if wanted else known
    case = Case(rng, run, corpus.runs, corpus.pairs, corpus.split)
    return _item(
        case, lines[:end], labels, (), f"outcome_{run.source}",
        proof="the outcome that the recording states", failure=not wanted, known=known,
    )  # fmt: skip


def draw_injected(seed: int, corpus: Corpus, label: str | None = None) -> Item:
    """A window of a successful run: with a fault in it, as it was (the fault's clean twin), or with what only resembles
    a fault. A fault and its twin share run, cut and device.
    """
    rng = random.Random(f"injected:{corpus.split}:{seed}")  # noqa: S311
    good = corpus.good()
    system = rng.choice(sorted({run.source for run in good}))
    good = [run for run in good if run.source == system]
    kind = 0.0 if label else rng.random()
    wanted = label or rng.choice(sorted(INJECTABLE))
    for _ in range(80):
        run = rng.choice(good)
        case = Case(rng, run, corpus.runs, corpus.pairs, corpus.split)
        if rng.random() < 0.35:
            case.device = healthy_device(rng)
        try:
            if kind < FAULTY_SHARE:
                return _faulty(case, wanted)
            if kind < FAULTY_SHARE + TWIN_SHARE:
                return _twin(case)
            if kind < FAULTY_SHARE + TWIN_SHARE + HARD_SHARE:
                return _hard(case)
            lines = case.head(rng.uniform(0.3, 1.0))
            return _item(case, lines, (), (), f"clean_{run.source}", proof="the run as it was recorded; it succeeded")
        except (IndexError, ValueError):
            continue  # this run offers no place for it; another will
    lines = case.head(rng.uniform(0.4, 1.0))
    return _item(case, lines, (), (), f"clean_{run.source}", proof="the run as it was recorded; it succeeded")


def _faulty(case: Case, label: str) -> Item:
    if label in DEVICE_FAULTS:
        lines = case.head(case.rng.uniform(0.3, 1.0))
        case.device, proof = DEVICE_FAULTS[label](case.rng)
        return _item(case, lines, (label,), (), f"{label}_{case.run.source}", proof=proof)
    mechanism = case.rng.choice(injections(case.split)[label])
    lines, locus = mechanism(case)
    if label not in LAST and case.rng.random() < CONTINUED_SHARE:
        # A fault stays one while the run goes on.
        lines = [*lines, *case.run.events[case.start : case.start + case.rng.randint(1, 3)]]
    return _item(
        case, lines, (label,), locus, f"{mechanism.__name__}_{case.run.source}",
        proof=_proof(mechanism), idle_gaps=case.idle_gaps,
    )  # fmt: skip


def _twin(case: Case) -> Item:
    """The run up to where a fault would stand, and a little on."""
    mechanism = case.rng.choice(injections(case.split)[case.rng.choice(sorted(INJECTIONS))])
    mechanism(case)
    lines = case.run.events[: max(3, case.start + case.rng.randint(0, 3))]
    return _item(
        case, list(lines), (), (), f"twin_{mechanism.__name__}_{case.run.source}",
        proof=f"clean twin of {mechanism.__name__}: the run as it was recorded; it succeeded",
    )  # fmt: skip


def _hard(case: Case) -> Item:
    table = hard_negatives(case.split)
    kind = case.rng.choice(sorted(table))
    mechanism = case.rng.choice(table[kind])
    lines, _ = mechanism(case)
    name = f"{mechanism.__name__}_{case.run.source}"
    return replace(_item(case, lines, (), (), name, proof=_proof(mechanism)), hard_negative_for=kind)


def _proof(mechanism: Injection) -> str:
    return (mechanism.__doc__ or "").splitlines()[0]


def _item(
    case: Case,
    lines: Sequence[RunLine],
    labels: tuple[str, ...],
    locus: tuple[int, ...],
    template: str,
    *,
    proof: str,
    failure: bool | None = None,
    known: tuple[str, ...] | None = None,
    idle_gaps: float | None = None,
) -> Item:
    rng, run = case.rng, case.run
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
    window = window_of(goal, events, case.device, now, time_known=time_known)
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
        split=case.split,
        known=known,
        proof=proof,
    )


def timed(events: tuple[AgentEvent, ...], times: list[float]) -> tuple[AgentEvent, ...]:
    """Return the events with real times in place of their numbers."""
    return tuple(msgspec.structs.replace(event, ts=ts) for event, ts in zip(events, times, strict=True))
