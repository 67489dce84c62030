"""The judging loop: what came in goes through the monitor on our own tick, and what it wants done is done.

Events wait in the fair inbox, readings and answers beside it. A step begins as soon as something is there, but never
sooner than ``pace_s`` after the last, and at the latest each ``tick_s``. Nothing else touches the monitor's state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nis_edge.clock import Clock
from nis_edge.config import MonitorOptions
from nis_edge.errors import EventFormatError, ModelError
from nis_edge.inbox import Inbox
from nis_edge.judgement import series_judge
from nis_edge.latency import Latencies
from nis_edge.limits import EVENT_BYTES_MAX, EXCERPTS_KEPT, INBOX_DRAIN_MAX, SHED_AGE_SECONDS, SHED_WAITING
from nis_edge.logs import Occasional
from nis_edge.monitor.assess import is_alert
from nis_edge.monitor.explain import excerpt
from nis_edge.monitor.machine import (
    AgentEvents,
    Ask,
    Cleared,
    Effect,
    Emit,
    ForgetFeedback,
    Input,
    JudgeChanged,
    Load,
    Lost,
    ModelAnswers,
    OperatorVerdict,
    Options,
    Raised,
    Readings,
    Refused,
    Tick,
    step,
)
from nis_edge.monitor.rules import RuleOptions
from nis_edge.monitor.series_judge import SeriesJudge
from nis_edge.monitor.state import MonitorState
from nis_edge.supervisor import Beat
from nis_edge.waiting import within
from nis_edge.wire.codec import decode_event
from nis_edge.wire.messages import AgentEvent, Assessment, Finding


@dataclass(frozen=True)
class Arrival:
    """One event as it waits: decoded already, or as bytes with the sender that the transport knows.

    ``at`` is when it came, seconds on the monotonic clock.
    """

    content: AgentEvent | bytes
    sender: str | None
    at: float


@dataclass(frozen=True)
class JudgingCounts:
    """What came in and what was not taken."""

    events: int
    refused: int
    lost: int
    assessments: int
    steps: int


class Judging:
    """The monitor with its surroundings.

    Args:
        options: how often to judge.
        clock: the time.
        log: a structlog logger.
        ask: puts a question to the model.
        emit: takes an assessment.
        tell: takes a finding and whether it was ``raised`` or ``cleared``.
        hear: takes the events of each step, as they were judged.
    """

    def __init__(
        self,
        options: MonitorOptions,
        *,
        clock: Clock,
        log: Any,
        ask: Callable[[Ask], None],
        emit: Callable[[Assessment], None],
        tell: Callable[[Finding, str], None],
        hear: Callable[[tuple[AgentEvent, ...]], None] = lambda _: None,
    ) -> None:
        self.inbox: Inbox[Arrival] = Inbox(self._wake_from_thread)
        self.latencies = Latencies()
        self.state = MonitorState()
        self.excerpts: OrderedDict[str, str] = OrderedDict()
        self._clock = clock
        self._log = log
        self._occasional = Occasional(log, clock.monotonic)
        self._ask, self._emit, self._tell, self._hear = ask, emit, tell, hear
        self._inputs: deque[Input] = deque(maxlen=64)  # readings come each few seconds, answers one at a time
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events = self._refused = self._lost = self._assessments = self._steps = 0
        self._series = self._open_series_judge()
        self.reconfigure(options)

    def _open_series_judge(self) -> SeriesJudge | None:
        """The shipped judge of sensors' series; thresholds go on alone where it can't be read."""
        try:
            return series_judge()
        except (ModelError, OSError) as error:
            self._log.warning("model.refused", path="series.bin", reason=str(error), unharmed="thresholds judge series")
            return None

    def reconfigure(self, options: MonitorOptions) -> None:
        """Take other options from the next step on."""
        self._tick_s, self._pace_s = options.tick_s, options.pace_s
        self._options = Options(
            rules=RuleOptions(device_interval_s=options.metrics_s, latency_deadline_ms=options.latency_deadline_ms),
            series=self._series,
            expected_share=options.expected_share,
        )

    def arrive(self, arrival: Arrival, lane: str) -> None:
        """Take one event, from any thread; a full lane drops its oldest, counted."""
        size = len(arrival.content) if isinstance(arrival.content, bytes) else _size_of(arrival.content)
        self.inbox.put(lane, arrival, size)

    def tell(self, received: Readings | ModelAnswers | JudgeChanged | OperatorVerdict | ForgetFeedback) -> None:
        """Take readings, an answer, a change of model or the operator's word, from the asyncio thread."""
        self._inputs.append(received)
        self._wake.set()

    def counts(self) -> JudgingCounts:
        """What came in and what was not taken."""
        return JudgingCounts(self._events, self._refused, self._lost, self._assessments, self._steps)

    async def run(self, beat: Beat) -> None:
        """Judge until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            beat()
            with contextlib.suppress(asyncio.TimeoutError):  # then it is the tick
                await within(self._wake.wait(), self._tick_s)
            self._wake.clear()
            self.step()
            if len(self.inbox):
                self._wake.set()
            await asyncio.sleep(self._pace_s)

    def step(self) -> None:
        """Put what waits through the monitor once, and do what it says."""
        now = self._clock.wall()
        arrivals = self.inbox.take(INBOX_DRAIN_MAX)
        inputs: list[Input] = list(self._inputs)
        self._inputs.clear()
        events = tuple(event for arrival in arrivals if (event := self._decoded(arrival, now)) is not None)
        if events:
            inputs.append(AgentEvents(events))
        inputs += self._losses()
        inputs += self._load(arrivals)
        self._events += len(events)
        self._remember(events)
        if events:
            self._hear(events)
        self._steps += 1
        self.state, effects = step(self.state, inputs or [Tick()], now, self._options)
        for effect in effects:
            self._perform(effect)
        done = self._clock.monotonic()
        for arrival in arrivals:
            self.latencies.add((done - arrival.at) * 1e3, done)

    def _remember(self, events: tuple[AgentEvent, ...]) -> None:
        """Keep the newest events in few words, so that evidence can be shown as what was said."""
        for event in events:
            self.excerpts[event.id] = excerpt(event)
        while len(self.excerpts) > EXCERPTS_KEPT:
            self.excerpts.popitem(last=False)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Emit):
            self._assessments += 1
            self._emit(effect.assessment)
        elif isinstance(effect, Ask):
            self._ask(effect)
        elif isinstance(effect, Raised):
            found = effect.finding
            if is_alert(found):
                self._log.warning("finding.raised", label=found.label, severity=found.severity, agents=found.agents)
                self._tell(found, "raised")
        elif isinstance(effect, Cleared):
            if is_alert(effect.finding):
                self._log.info("finding.cleared", label=effect.finding.label, agents=effect.finding.agents)
                self._tell(effect.finding, "cleared")
        elif isinstance(effect, Refused):
            self._refused += effect.count
            self._occasional.warning("event.refused", "state", reason=effect.reason, unharmed="what is known already")

    def _decoded(self, arrival: Arrival, now: float) -> AgentEvent | None:
        if isinstance(arrival.content, AgentEvent):
            return arrival.content
        try:
            return decode_event(arrival.content, now=now, number=self._events, sender=arrival.sender)
        except EventFormatError as error:
            self.refuse(str(error), arrival.sender or "")
            return None

    def refuse(self, reason: str, sender: str = "") -> None:
        """Count one refused event, and say so now and then."""
        self._refused += 1
        self._occasional.warning("event.refused", sender, reason=reason, sender=sender, unharmed="the stream goes on")

    def _losses(self) -> list[Input]:
        dropped = self.inbox.drain_drops()
        for agent, count in dropped.items():
            self._lost += count
            unharmed = "its newest events, and those of all others"
            self._occasional.warning("inbox.overflowed", agent, agent=agent, dropped=count, unharmed=unharmed)
        return [Lost(sum(dropped.values()))] if dropped else []

    def _load(self, arrivals: list[Arrival]) -> list[Input]:
        """Overload, when it begins and when it ends: many events wait beyond a step's fill, or one waited for long."""
        waiting, is_shedding = len(self.inbox), self.state.shedding is not None
        begun = self._clock.monotonic()
        age_s = max((begun - arrival.at for arrival in arrivals), default=0.0)
        if not is_shedding and (waiting >= SHED_WAITING or age_s > SHED_AGE_SECONDS):
            reason = f"{waiting} events wait, the oldest waited {age_s * 1e3:.0f} ms"
            self._occasional.warning("model.shed", "load", reason=reason, unharmed="the rules judge every event")
            return [Load(reason)]
        is_over = waiting == 0 and age_s <= SHED_AGE_SECONDS / 2
        return [Load(None)] if is_shedding and is_over else []

    def _wake_from_thread(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)


def _size_of(event: AgentEvent) -> int:
    """About the bytes of a decoded event: what its sender can make long."""
    if event.data is None and event.extra is None:
        return 512 + len(event.text or "")
    return EVENT_BYTES_MAX
