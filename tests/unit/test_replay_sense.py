"""A replayed device: readings between events go through the daemon's path, in their time."""

from __future__ import annotations

from nis_edge.monitor.machine import Options
from nis_edge.replay import Replay
from nis_edge.wire.messages import AgentEvent, Reading

START = 1_800_000_000.0


def board(ts: float, **values: float) -> tuple[Reading, ...]:
    return tuple(Reading(name=name, value=value, unit="?", ts=ts, source="test") for name, value in values.items())


def test_readings_move_the_level_and_raise_what_they_show() -> None:
    replay = Replay(Options(), None, "rules alone")
    for index in range(60):
        now = START + 2.0 * index
        replay.sense(board(now, temperature_c=50.0, power_w=12.0, voltage_v=12.0, current_a=0.2), now)
    replay.feed(AgentEvent(id="1", ts=START + 121.0, agent="a", kind="message", text="hello"))
    assert replay.last is not None and replay.last.level == "enhanced"
    assert [(e.finding.label, e.finding.agents) for e in replay.episodes] == [("physics_violation", ("device",))]
    assert replay.worst == "degraded"


def test_silence_of_the_device_is_noticed_between_readings() -> None:
    replay = Replay(Options(), None, "rules alone")
    for index in range(10):
        replay.sense(board(START + 2.0 * index, temperature_c=50.0), START + 2.0 * index)
    replay.sense(board(START + 90.0, temperature_c=50.0), START + 90.0)
    assert [episode.finding.label for episode in replay.episodes] == ["stale_feed"]
