"""The workloads of a benchmark, each one call that is timed: assessment, incremental assessment, decode, prefill.

An assessment is the daemon's own code from a window to an answer (``judgement.WindowReader``): evidence, prompt,
tokens, trunk and task head, the package's tables where it has some, probabilities. The events are made up, differ from
run to run, and always fill the window. A workload that this package can't do is a reason, not a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from nis_edge.bench_models import Model
from nis_edge.errors import ModelError
from nis_edge.judgement import WindowReader
from nis_edge.limits import WINDOW_EVENTS_MAX
from nis_edge.monitor.context import DeviceView, Window, window_of
from nis_edge.monitor.judge import answer_of, judge_of
from nis_edge.wire.messages import AgentEvent, Kind

PREFILL_TOKENS: Final = 128
"""The prompt length that engines are compared at (engine design, section 5)."""

DECODE_START_TOKENS: Final = 32

REASON_CHARS_MAX: Final = 240
"""A reason is a line of a table; what the engine says may list a whole vocabulary."""

WINDOWS: Final = 40
"""Different windows the assessment goes through in turn."""


@dataclass(frozen=True)
class Task:
    """One workload ready to run.

    ``run`` does it once and returns the tokens that went through the model; ``prepare`` comes before each run and is
    not timed.
    """

    name: str
    what: str
    run: Callable[[], int]
    prepare: Callable[[], None]


@dataclass(frozen=True)
class Impossible:
    """A workload that this package can't do."""

    name: str
    what: str
    reason: str


ASSESSMENT_WHAT: Final = "a full window: evidence, whole prompt, task head, the package's tables, probabilities"
INCREMENTAL_WHAT: Final = "one more event on a window already in the cache: the model computes only what changed"
DECODE_WHAT: Final = "one token after another, greedy"
PREFILL_WHAT: Final = "a prompt of 128 tokens at once, or of the whole context where that is shorter"


def tasks(model: Model) -> list[Task | Impossible]:
    """The four workloads for a model, in the order they run."""
    return [*_assessments(model), _decode(model), _prefill(model)]


def _assessments(model: Model) -> list[Task | Impossible]:
    names = (("assessment", ASSESSMENT_WHAT), ("incremental assessment", INCREMENTAL_WHAT))
    try:
        judge = judge_of(model.manifest)
        full, growing = WindowReader(model), WindowReader(model)
    except ModelError as error:
        return [Impossible(name, what, str(error)[:REASON_CHARS_MAX]) for name, what in names]

    def assess(reader: WindowReader, window: Window) -> int:
        raw, count = reader.raw_of(window)
        answer_of(judge, reader.outputs, raw, tokens=count, latency_ms=None)
        return reader.computed

    windows = [_window(start) for start in range(WINDOWS)]
    grown = [_window(start, events=WINDOW_EVENTS_MAX // 2 + 1) for start in range(WINDOWS)]
    turn = -1

    def next_turn() -> int:
        nonlocal turn
        turn = (turn + 1) % WINDOWS
        return turn

    def prepare_full() -> None:
        next_turn()
        full.forget()

    def run_full() -> int:
        return assess(full, windows[turn])

    def prepare_growing() -> None:
        growing.forget()
        assess(growing, _window(next_turn(), events=WINDOW_EVENTS_MAX // 2))

    def run_growing() -> int:
        return assess(growing, grown[turn])

    return [
        Task("assessment", ASSESSMENT_WHAT, run_full, prepare_full),
        Task("incremental assessment", INCREMENTAL_WHAT, run_growing, prepare_growing),
    ]


def _decode(model: Model) -> Task:
    session = model.session()
    context = model.manifest.architecture.context
    start = _random_tokens(model, min(DECODE_START_TOKENS, max(1, context // 2)))
    token = 0

    def prepare() -> None:
        nonlocal token
        if session.position == 0 or session.position >= context:
            session.rewind(0)
            token = int(np.argmax(session.forward(start)))

    def run() -> int:
        nonlocal token
        token = int(np.argmax(session.forward([token])))
        return 1

    return Task("decode", DECODE_WHAT, run, prepare)


def _prefill(model: Model) -> Task:
    session = model.session()
    prompt = _random_tokens(model, min(PREFILL_TOKENS, model.manifest.architecture.context))

    def prepare() -> None:
        session.rewind(0)

    def run() -> int:
        session.feed(prompt)
        return len(prompt)

    return Task("prefill", PREFILL_WHAT, run, prepare)


def _random_tokens(model: Model, count: int) -> list[int]:
    drawn = np.random.default_rng(0).integers(0, model.manifest.architecture.vocab, count)
    return [int(token) for token in drawn]


GOAL: Final = "Inspect the north field, log soil moisture at every mast and send the station summary before dusk."

# What a small team says in one round; the numbers in it move on from window to window.
SCRIPT: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("planner", "message", "Collector, please read the soil moisture at mast {n} and report the value with its time."),
    ("collector", "tool_call", '{{"sensor": "soil_moisture", "mast": {n}, "average_s": 30}}'),
    ("collector", "tool_result", "mast {n}: volumetric water content 0.2{n} at 14.{n} degrees, battery 11.4 V"),
    ("collector", "message", "Mast {n} reads 0.2{n}, which is within what we saw yesterday; moving to the next one."),
    ("analyst", "claim", "The field is drier in the east: mast {n} lost about {n} percent against the weekly mean."),
    ("analyst", "message", "I compared mast {n} with its neighbours and see no jump; the trend is slow and steady."),
    ("reporter", "step", "Draft of the summary, part {n}: masts visited so far, values, and what is still missing."),
    ("reporter", "message", "Do we have the air temperature at the ridge for section {n}, or shall I leave it open?"),
    ("planner", "message", "Leave it open for now; the ridge mast answers again after {n} minutes by its own timer."),
    ("collector", "error", "timeout after 5000 ms while waiting for mast {n}; the radio link shows 3 lost frames"),
    ("collector", "tool_call", '{{"sensor": "soil_moisture", "mast": {n}, "retry": true}}'),
    ("collector", "tool_result", "mast {n}: volumetric water content 0.1{n}, quality flag good after one retry"),
    ("analyst", "outcome", "Value of mast {n} confirmed by the second reading; it goes into the table as it stands."),
)


def _window(start: int, events: int = WINDOW_EVENTS_MAX) -> Window:
    """A window of ``events`` made-up events that begins at event number ``start``."""
    first_ts = 1_700_000_000.0
    numbers = range(start, start + events)
    made = [_event(number, first_ts + 2.5 * number) for number in numbers]
    device = DeviceView(cpu_percent=35.0, memory_percent=48.0, temperature_c=56.0, throttled=False, z=0.4, trend=0)
    return window_of(GOAL, made, device, made[-1].ts + 1.0, time_known=True)


def _event(number: int, ts: float) -> AgentEvent:
    agent, kind, text = SCRIPT[number % len(SCRIPT)]
    return AgentEvent(id=f"bench-{number}", ts=ts, agent=agent, kind=kind, text=text.format(n=number % 9 + 1))
