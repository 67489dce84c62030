"""The monitor on a desk: a test puts inputs before it and sees what it raised, cleared and last assessed."""

from __future__ import annotations

from typing import Any

from nis_edge.monitor.machine import AgentEvents, Cleared, Emit, Raised, step
from nis_edge.monitor.state import MonitorState
from nis_edge.wire.messages import AgentEvent, Assessment, Finding

START = 1_800_000_000.0


class Desk:
    """A monitor whose time the test moves."""

    def __init__(self) -> None:
        self.state, self.now, self.count = MonitorState(), START, 0
        self.raised: list[Finding] = []
        self.cleared: list[Finding] = []
        self.last: Assessment | None = None

    def put(self, *inputs: Any) -> None:
        """One step, now."""
        self.state, effects = step(self.state, inputs, self.now)
        for effect in effects:
            if isinstance(effect, Raised):
                self.raised.append(effect.finding)
            elif isinstance(effect, Cleared):
                self.cleared.append(effect.finding)
            elif isinstance(effect, Emit):
                self.last = effect.assessment

    def put_event(self, agent: str, kind: str, **fields: Any) -> str:
        """One event, now; its id."""
        self.count += 1
        event = AgentEvent(id=f"e{self.count}", ts=self.now, agent=agent, kind=kind, **fields)  # type: ignore[arg-type]
        self.put(AgentEvents((event,)))
        return event.id
