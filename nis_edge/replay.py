"""Recorded agent events put through exactly the daemon's monitor on a simulated clock.

The clock is the recording's: an event happens at its own time, and between events the clock ticks as the daemon's does.
A recording without times gets a clock that counts events, and the monitor is told that times are unknown. The same
recording, package and options give the same assessments, to the byte.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Protocol

from nis_edge.errors import ModelError
from nis_edge.limits import EXCERPTS_KEPT
from nis_edge.monitor.assess import is_alert
from nis_edge.monitor.context import Window
from nis_edge.monitor.explain import excerpt
from nis_edge.monitor.machine import (
    AgentEvents,
    Ask,
    Cleared,
    Effect,
    Emit,
    Input,
    JudgeChanged,
    ModelAnswers,
    Options,
    Raised,
    Readings,
    Tick,
    step,
)
from nis_edge.monitor.state import Judge, MonitorState
from nis_edge.wire.messages import AgentEvent, Assessment, Finding, ModelAnswer, Reading, Status

TICK_S: Final = 1.0
"""The daemon's tick."""

TICKS_PER_GAP_MAX: Final = 600
"""A longer silence in a recording is passed over: after ten minutes every rule has said what it has to say."""

STATUS_ORDER: Final[tuple[Status, ...]] = ("unknown", "healthy", "degraded", "critical")


class Answering(Protocol):
    """A model as the replay needs it (``judgement.PromptJudge``)."""

    judge: Judge

    def answer_window(self, window: Window) -> ModelAnswer:
        """Put one window to the model."""
        ...


@dataclass
class Episode:
    """One finding from its rise to its end (counted in events, and by the clock), with its evidence in words."""

    finding: Finding
    raised_at: int
    cleared_at: int | None = None
    cleared_ts: float | None = None
    excerpts: dict[str, str] = field(default_factory=dict)


class Replay:
    """One recording under way: a fresh monitor, fed event by event.

    Args:
        options: the monitor's; ``options.rules.time_known`` says whether the events' times are real.
        model: the second judge, or None.
        model_reason: why there is none.
    """

    def __init__(self, options: Options, model: Answering | None, model_reason: str) -> None:
        self._options = options
        self.is_timed = options.rules.time_known
        self._model = model
        self._state = MonitorState()
        self._now: float | None = None
        self._excerpts: OrderedDict[str, str] = OrderedDict()
        self._first: Input | None = JudgeChanged(model.judge if model else None, model_reason)
        self.events = 0
        self.episodes: list[Episode] = []
        self.worst: Status = "unknown"
        self.last: Assessment | None = None
        self.asked = 0
        self.unanswered = 0

    def feed(self, event: AgentEvent) -> list[Assessment]:
        """Let one event happen; returns the assessments it and the time before it gave rise to."""
        spoken: list[Assessment] = []
        if self._options.rules.time_known and self._now is not None:
            spoken += self._pass_time(event.ts)
        self._now = event.ts
        self.events += 1
        self._remember(event)
        inputs: list[Input] = [AgentEvents((event,))]
        if self._first is not None:
            inputs.insert(0, self._first)
            self._first = None
        return spoken + self._step(inputs, event.ts)

    def sense(self, readings: tuple[Reading, ...], now: float) -> list[Assessment]:
        """Let the device be read at a time, as the daemon reads it between events.

        Args:
            readings: one round of the sensors.
            now: seconds since the epoch, not before what was fed last.
        """
        spoken = self._pass_time(now) if self._options.rules.time_known and self._now is not None else []
        self._now = now
        inputs: list[Input] = [Readings(readings)]
        if self._first is not None:
            inputs.insert(0, self._first)
            self._first = None
        return spoken + self._step(inputs, now)

    def _pass_time(self, until: float) -> list[Assessment]:
        assert self._now is not None
        spoken: list[Assessment] = []
        start, ticks = self._now, 1
        while start + ticks * TICK_S < until and ticks <= TICKS_PER_GAP_MAX:
            spoken += self._step([Tick()], start + ticks * TICK_S)
            ticks += 1
        return spoken

    def _step(self, inputs: list[Input], now: float) -> list[Assessment]:
        self._state, effects = step(self._state, inputs, now, self._options)
        spoken: list[Assessment] = []
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            if isinstance(effect, Ask):
                self._state, more = step(self._state, [self._put(effect)], now, self._options)
                waiting += more
            else:
                spoken += self._note(effect, now)
        return spoken

    def _put(self, ask: Ask) -> ModelAnswers:
        assert self._model is not None
        self.asked += 1
        try:
            return ModelAnswers(ask.id, self._model.answer_window(ask.window))
        except ModelError as error:
            self.unanswered += 1
            return ModelAnswers(ask.id, None, str(error))

    def _note(self, effect: Effect, now: float) -> list[Assessment]:
        if isinstance(effect, Raised):
            known = {key: self._excerpts[key] for key in effect.finding.evidence if key in self._excerpts}
            self.episodes.append(Episode(effect.finding, self.events, excerpts=known))
        elif isinstance(effect, Cleared):
            for episode in reversed(self.episodes):
                if _same(episode.finding, effect.finding) and episode.cleared_at is None:
                    episode.cleared_at, episode.cleared_ts = self.events, now
                    break
        elif isinstance(effect, Emit):
            self.last = effect.assessment
            self.worst = max(self.worst, effect.assessment.status, key=STATUS_ORDER.index)
            self._follow(effect.assessment)
            return [effect.assessment]
        return []

    def _follow(self, assessment: Assessment) -> None:
        """Keep each episode at its finding's gravest and newest words."""
        for finding in assessment.findings:
            for episode in reversed(self.episodes):
                if _same(episode.finding, finding) and episode.cleared_at is None:
                    episode.finding = finding
                    for key in finding.evidence:
                        if key in self._excerpts:
                            episode.excerpts[key] = self._excerpts[key]
                    break

    def _remember(self, event: AgentEvent) -> None:
        self._excerpts[event.id] = excerpt(event)
        if len(self._excerpts) > EXCERPTS_KEPT:
            self._excerpts.popitem(last=False)


def _same(left: Finding, right: Finding) -> bool:
    return left.label == right.label and left.agents == right.agents and is_alert(left) == is_alert(right)
