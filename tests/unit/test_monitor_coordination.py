"""The team as a whole: rings of agents that wait for each other, waits in vain, uneven load, whom to ask next."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nis_edge.limits import AGENTS_MAX
from nis_edge.monitor.coordination import (
    DEADLOCK_S,
    GONE_S,
    LOAD_EVENTS_MIN,
    WAITS_MAX,
    coordination_of,
    rings,
    waits_after,
)
from nis_edge.monitor.explain import coordination_lines
from nis_edge.monitor.machine import Tick
from nis_edge.monitor.state import Wait
from nis_edge.wire.messages import AgentEvent, Coordination
from tests.support.desk import Desk


class TeamDesk(Desk):
    """Events one by one, a tick a second."""

    def say(self, agent: str, kind: str = "message", **fields: Any) -> None:
        self.put_event(agent, kind, **{"text": f"words number {self.count + 1} of {agent}", **fields})

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 1.0
            self.put(Tick())

    @property
    def advice(self) -> Coordination:
        return coordination_of(self.state, self.now)


def test_agents_that_ask_each_other_and_do_nothing_since_are_a_deadlock_with_its_evidence() -> None:
    desk = TeamDesk()
    desk.say("a", to="b", correlation="1")
    desk.say("b", to="c", correlation="2")
    desk.say("c", to="a", correlation="3")
    desk.say("d")
    desk.wait(DEADLOCK_S + 3)
    (finding,) = [found for found in desk.raised if found.label == "stalled"]
    assert finding.agents == ("a", "b", "c") and finding.severity == "high"
    assert finding.evidence == ("e1", "e2", "e3")
    assert finding.text.startswith("deadlock: a waits for b (3")
    assert desk.advice.deadlocks == (("a", "b", "c"),)
    desk.say("b", to="a", correlation="1")
    desk.wait(2)
    assert [found.label for found in desk.cleared] == ["stalled"] and desk.advice.deadlocks == ()


def test_agents_that_say_whom_they_wait_for_are_believed_until_they_do_something_else() -> None:
    desk = TeamDesk()
    desk.say("a", data={"waits_for": "b"})
    desk.say("b", data={"waits_for": ["c", "a"]})
    desk.wait(DEADLOCK_S + 2)
    assert [found.agents for found in desk.raised] == [("a", "b")]
    assert {(one.agent, one.on) for one in desk.advice.blocked} == {("a", "b"), ("b", "c"), ("b", "a")}
    desk.say("a", text="never mind, I go on")
    desk.wait(2)
    assert desk.advice.deadlocks == () and len(desk.cleared) == 1


@pytest.mark.parametrize("answer", ["by correlation", "to the asker", "the asker works on", "still young"])
def test_what_looks_like_a_deadlock_and_is_none(answer: str) -> None:
    desk = TeamDesk()
    desk.say("a", to="b", correlation="1")
    desk.say("b", to="a", correlation="2")
    desk.wait(5)
    if answer == "by correlation":
        desk.say("b", correlation="1")
    elif answer == "to the asker":
        desk.say("b", to="a")
    elif answer == "the asker works on":
        desk.say("a", "tool_call", tool="look")
    desk.wait(10 if answer == "still young" else 60)
    assert desk.raised == []


def test_heartbeats_of_a_blocked_agent_are_no_doing() -> None:
    desk = TeamDesk()
    desk.say("a", to="b", correlation="1")
    desk.say("b", to="a", correlation="2")
    for _ in range(4):
        desk.wait(10)
        desk.say("a", "heartbeat", text=None)
        desk.say("b", "heartbeat", text=None)
    assert [found.agents for found in desk.raised] == [("a", "b")]


def test_waiting_for_one_that_left_is_told() -> None:
    desk = TeamDesk()
    desk.say("b")
    desk.say("a", to="b", correlation="1")
    desk.say("b", "lifecycle", text="stopped")
    desk.wait(GONE_S + 2)
    assert [(found.agents, found.severity) for found in desk.raised] == [(("a",), "medium")]
    assert "b, which has left" in desk.raised[0].text


def test_every_ring_of_random_graphs_is_found_once_and_nothing_else() -> None:
    r = random.Random(2)
    for _ in range(60):
        names = [f"n{index}" for index in range(r.randrange(2, 7))]
        edges = {name: [Wait(r.choice(names), 0.0, "x")] for name in names if r.random() < 0.8}
        expected = set()
        for start in edges:
            path = [start]
            while path[-1] in edges and edges[path[-1]][0].on not in path:
                path.append(edges[path[-1]][0].on)
            if path[-1] in edges and edges[path[-1]][0].on == start:
                first = path.index(min(path))
                expected.add((*path[first:], *path[:first]))
        found = rings(edges)
        assert set(found) == expected and len(found) == len(expected)


def test_load_is_told_in_fair_shares_with_its_interval_or_not_at_all() -> None:
    desk = TeamDesk()
    for index in range(LOAD_EVENTS_MIN - 1):
        desk.say("a" if index % 4 else "b")
    assert desk.advice.load.value is None and "needs two agents" in (desk.advice.load.reason or "")
    for index in range(40):
        desk.say("a" if index % 4 else "b")
        desk.say("user")
    load = desk.advice.load
    assert desk.advice.busiest == "a" and load.value == pytest.approx(1.5, abs=0.06)
    assert load.low is not None and load.high is not None and load.low < load.value < load.high and load.n >= 70


def test_the_next_task_goes_to_the_surest_free_agent_by_tool() -> None:
    desk = TeamDesk()

    def works(agent: str, tool: str, good: int, bad: int) -> None:
        for index in range(good + bad):
            desk.say(agent, "tool_call", tool=tool, args_hash=f"{agent}{index}")
            desk.say(agent, "tool_result", tool=tool, ok=index < good, text=f"result {desk.count}")

    works("a", "drill", 6, 0)
    works("b", "drill", 9, 3)
    works("c", "lift", 9, 1)
    works("a", "lift", 2, 0)
    best = desk.advice.best_for
    assert best["drill"].agent == "a" and best["lift"].agent == "c"
    assert (best["drill"].n, best["drill"].success_rate) == (6, 1.0) and best["drill"].low < 0.9
    desk.say("a", to="b", correlation="1")
    desk.wait(25)
    assert desk.advice.best_for["drill"].agent == "b"
    desk.wait(6)
    assert desk.last is not None and desk.last.coordination is not None
    assert [one.agent for one in desk.last.coordination.blocked] == ["a"]


def test_waits_are_bounded_and_hostile_ones_are_passed_over() -> None:
    waits: Any = {}
    for index in range(50):
        event = AgentEvent(id=f"{index}", ts=0.0, agent="a", kind="message", to=f"t{index}", correlation=f"c{index}")
        waits = waits_after(waits, event, float(index))
    assert len(waits["a"]) == WAITS_MAX
    for index in range(AGENTS_MAX + 50):
        event = AgentEvent(id="x", ts=0.0, agent=f"g{index}", kind="message", data={"waits_for": "a"})
        waits = waits_after(waits, event, 99.0)
    assert len(waits) <= AGENTS_MAX
    for said in (7, None, ["", "x" * 999, 3, ["b"]], {"b": 1}, "a"):
        event = AgentEvent(id="x", ts=0.0, agent="a", kind="message", data={"waits_for": said})
        assert waits_after({}, event, 0.0) == {}


def test_the_advice_is_told_in_lines_that_cannot_control_a_terminal() -> None:
    desk = TeamDesk()
    evil = "b\x1b[2J"
    desk.say("a", to=evil, correlation="1")
    desk.say(evil, to="a", correlation="2")
    for index in range(40):
        desk.say("c", "tool_call", tool="drill", args_hash=f"{index}")
        desk.say("c", "tool_result", tool="drill", ok=True, text=f"result {index}")
    desk.wait(40)
    lines = coordination_lines(desk.advice)
    assert lines[0].startswith("deadlock") and "a -> b\\u001b[2J -> a" in lines[0]
    assert any(line.startswith("busiest") and "c: " in line for line in lines)
    assert "ask next for drill: c (100% of 32, at least 89%)" in lines
    assert not any("\x1b" in line for line in lines)
