"""The demonstration's team: a recorded script of agents with injected faults, replayed live and again from the start.

The script is `nis_edge/demo/team.jsonl`: agent events with ``t``, seconds from its beginning. Each round gets new event
ids, so that a repetition of the script is no repetition by an agent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from nis_edge.clock import Clock
from nis_edge.errors import ConfigError, EventFormatError
from nis_edge.limits import DEMO_LINE_BYTES_MAX
from nis_edge.supervisor import Beat
from nis_edge.wire.codec import event_of
from nis_edge.wire.messages import AgentEvent

BETWEEN_ROUNDS_S: Final = 5.0

SPEED: Final = 2.0
"""Script seconds in a second: a run of twenty seconds then shows the first fault."""

REFERENCES: Final = ("id", "outcome_of")
"""Fields that hold event ids."""


@dataclass(frozen=True)
class Line:
    """One event of the script and its second."""

    t: float
    fields: dict[str, Any]


def shipped_script() -> list[Line]:
    """The script that ships.

    Raises:
        ConfigError: it is missing from the installation, or broken.
    """
    path = resources.files("nis_edge") / "demo" / "team.jsonl"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the demonstration's script {path} can't be read; install nis-edge again") from error
    return read_script(text.splitlines(), str(path))


def read_script(lines: Iterable[str], where: str) -> list[Line]:
    """Read a script: one JSON object a line, ``t`` rising.

    Raises:
        ConfigError: a line is no event with a time.
    """
    script: list[Line] = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line[:DEMO_LINE_BYTES_MAX])
            t = float(fields.pop("t"))
            event_of(fields, now=0.0, number=number)
        except (ValueError, KeyError, AttributeError, TypeError, EventFormatError) as error:
            raise ConfigError(f"{where}:{number}: no event with a time t: {error}") from error
        script.append(Line(t, fields))
    if not script:
        raise ConfigError(f"{where}: holds no event")
    return sorted(script, key=lambda line: line.t)


class DemoTeam:
    """The team at work.

    Args:
        script: what it does.
        put: takes each event as it happens.
        clock: the time.
    """

    def __init__(self, script: list[Line], put: Callable[[AgentEvent], None], clock: Clock) -> None:
        self._script = script
        self._put = put
        self._clock = clock
        self.agents = sorted({str(line.fields["agent"]) for line in script})
        self.rounds = 0

    async def run(self, beat: Beat) -> None:
        """Replay at ``SPEED`` times the script's pace, round after round, until cancelled."""
        while True:
            self.rounds += 1
            started = self._clock.monotonic()
            for line in self._script:
                while (left := started + line.t / SPEED - self._clock.monotonic()) > 0.0:
                    beat()
                    await asyncio.sleep(min(left, 5.0))
                self._put(self.event(line))
            beat()
            await asyncio.sleep(BETWEEN_ROUNDS_S)

    def event(self, line: Line) -> AgentEvent:
        """One line as an event of this round, happening now."""
        fields = {**line.fields, "ts": self._clock.wall()}
        for name in REFERENCES:
            if fields.get(name) is not None:
                fields[name] = f"r{self.rounds}-{fields[name]}"
        return event_of(fields, now=self._clock.wall(), number=0)
