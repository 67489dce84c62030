"""A thousand agents cost bounded memory, and an event costs no more among them than among two hundred."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from nis_edge.limits import AGENTS_MAX
from nis_edge.monitor.machine import AgentEvents, step
from nis_edge.monitor.state import MonitorState
from nis_edge.wire.codec import encode
from nis_edge.wire.messages import AgentEvent, Claim

START = 1_800_000_000.0
AGENT_BYTES_MAX = 40_000
"""Of one agent's record as JSON: a thousand of them stay under 40 MB."""


def busy(agent: str, index: int) -> tuple[AgentEvent, ...]:
    """Everything an agent can leave behind."""
    name, ts = f"{agent}-{index}", START + index
    words = f"some words of {agent} about thing {index} and others {index * 7}"
    return (
        AgentEvent(id=f"{name}c", ts=ts, agent=agent, kind="tool_call", tool=f"tool {index}", args_hash=f"{index}"),
        AgentEvent(id=f"{name}r", ts=ts, agent=agent, kind="tool_result", ok=index % 5 > 0, text=words, latency_ms=5.0),
        AgentEvent(id=f"{name}s", ts=ts, agent=agent, kind="step", text=words, confidence=0.7, latency_ms=3.0 + index),
        AgentEvent(id=f"{name}o", ts=ts, agent=agent, kind="outcome", outcome_of=f"{name}s", outcome=index % 2 == 0),
        AgentEvent(id=f"{name}m", ts=ts, agent=agent, kind="message", text=words, to=f"peer {index}", correlation=name),
        AgentEvent(id=f"{name}k", ts=ts, agent=agent, kind="claim", claim=Claim(key=f"k{index}", value=float(index))),
        AgentEvent(id=f"{name}h", ts=ts, agent=agent, kind="heartbeat", data={"readings": {f"x{index}": index}}),
    )


def test_one_agents_record_stops_growing() -> None:
    state, sizes = MonitorState(), []
    for index in range(400):
        state, _ = step(state, (AgentEvents(busy("agent", index)),), START + index)
        if index in (199, 399):
            sizes.append((len(encode(state.agents["agent"])), len(encode(state))))
    (agent_half, half), (agent, whole) = sizes
    assert agent < 1.05 * agent_half and agent < AGENT_BYTES_MAX
    assert whole < 1.1 * half


def calls_of_one_event(agents: int) -> int:
    """Python functions called while one agent's event is taken in and judged, between two scans."""
    state = MonitorState()
    for number in range(agents):
        state, _ = step(state, (AgentEvents(busy(f"agent {number}", 1)),), START)
    for index in range(2, 40):
        state, _ = step(state, (AgentEvents(busy("agent 1", index)),), START)
    count = 0

    def counted(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    event = busy("agent 1", 99)[:2]
    sys.setprofile(counted)
    try:
        step(state, (AgentEvents(event),), START)
    finally:
        sys.setprofile(None)
    return count


def test_an_event_among_a_thousand_agents_costs_what_it_costs_among_two_hundred() -> None:
    # From two hundred on the record of the team itself is full.
    few, many = calls_of_one_event(200), calls_of_one_event(AGENTS_MAX)
    assert few > 100 and many <= 1.1 * few
