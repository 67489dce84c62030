"""The demonstration's team: the shipped script is sound, and each round is new."""

from __future__ import annotations

import asyncio

import pytest

from nis_edge.demo_replay import DemoTeam, read_script, shipped_script
from nis_edge.errors import ConfigError
from nis_edge.wire.messages import AgentEvent
from tests.support.clock import SteppedClock


def test_the_shipped_script_is_a_team_with_a_goal() -> None:
    script = shipped_script()
    team = DemoTeam(script, lambda event: None, SteppedClock())
    assert len(team.agents) >= 3
    assert any(line.fields["kind"] == "goal" for line in script)
    assert [line.t for line in script] == sorted(line.t for line in script)


def test_each_round_has_new_ids_and_the_present_time() -> None:
    script = read_script(['{"t": 1, "id": "a", "agent": "x", "kind": "outcome", "outcome_of": "b", "ts": 5}'], "s")
    clock = SteppedClock()
    team = DemoTeam(script, lambda event: None, clock)
    team.rounds = 2
    event = team.event(script[0])
    assert (event.id, event.outcome_of, event.ts) == ("r2-a", "r2-b", clock.wall())


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"t": "x"}', '{"t": 1, "agent": "a"}', "nonsense", '{"t": null}'])
def test_a_broken_script_names_the_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"demo:2: no event"):
        read_script(['{"t": 1, "agent": "x", "kind": "message"}', line], "demo")


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no event"):
        read_script([], "demo")


def test_events_come_in_their_time() -> None:
    async def scenario() -> None:
        script = read_script([f'{{"t": {t}, "id": "{t}", "agent": "x", "kind": "heartbeat"}}' for t in (0, 0, 60)], "s")
        seen: list[AgentEvent] = []
        team = DemoTeam(script, seen.append, SteppedClock())
        running = asyncio.ensure_future(team.run(lambda: None))
        await asyncio.sleep(0)
        assert [event.id for event in seen] == ["r1-0", "r1-0"]
        running.cancel()

    asyncio.run(scenario())
