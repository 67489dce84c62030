"""The team as a whole: who waits for whom, who carries too much, who is best asked next. Pure.

An agent waits for another when it says so (``data.waits_for``: a name or several) or when it put a question to it
(``to`` and ``correlation``) that is not answered. It is blocked when it has done nothing since. Agents that are blocked
on each other in a ring are a deadlock: nobody in it can go on without help. Heartbeats are no doing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from nis_edge.limits import AGENTS_MAX, AGENTS_SHOWN_MAX, NAME_CHARS_MAX
from nis_edge.monitor.state import AgentState, MonitorState, Wait
from nis_edge.monitor.statistics import wilson
from nis_edge.monitor.verdict import Verdict
from nis_edge.wire.messages import AgentEvent, Assignee, Blocked, Coordination, Metric

WAITS_MAX: Final = 8
"""Open waits of one agent; the oldest is forgotten."""

BLOCKED_S: Final = 20.0
"""Nothing done for so long after asking: before, it is thinking."""

DEADLOCK_S: Final = 30.0
"""A ring must have stood so long: answers cross on the way."""

GONE_S: Final = 60.0
"""Waiting so long for one that took its leave is vain."""

LOAD_EVENTS_MIN: Final = 32
RESULTS_MIN: Final = 5
TOOLS_SHOWN: Final = 8
BLOCKED_SHOWN: Final = 16

OUTSIDERS: Final = frozenset({"user", "operator", "system", "environment", "monitor", "grader"})
"""Who gives work, or judges it, carries none."""


def waits_after(waits: Mapping[str, tuple[Wait, ...]], event: AgentEvent, t: float) -> Mapping[str, tuple[Wait, ...]]:
    """Who waits for whom once an event happened.

    Args:
        waits: waiter -> its open waits.
        event: not a heartbeat or lifecycle event.
        t: the monitor's own seconds.
    """
    before = waits
    answered = False
    for waiter in _asked_by(waits, event):
        left = tuple(wait for wait in waits[waiter] if not _is_answered(wait, event))
        answered = answered or len(left) != len(waits[waiter])
        waits = _with(waits, waiter, left)
    own = tuple(wait for wait in waits.get(event.agent, ()) if wait.correlation is not None)
    own += tuple(Wait(on, t, event.id) for on in _said_to_wait_for(event))
    if event.to is not None and event.correlation is not None and event.to != event.agent and not answered:
        own = tuple(wait for wait in own if wait.correlation != event.correlation)
        own += (Wait(event.to, t, event.id, event.correlation),)
    if own != before.get(event.agent, ()):
        waits = _with(waits, event.agent, own[-WAITS_MAX:])
    return waits


def blocked(state: MonitorState, t: float) -> dict[str, list[Wait]]:
    """Who has done nothing since it began to wait, with whom it waits for."""
    found: dict[str, list[Wait]] = {}
    for name, waits in state.waits.items():
        agent = state.agents.get(name)
        if agent is None or agent.ended:
            continue
        idle = [wait for wait in waits if agent.work_t <= wait.t and t - wait.t >= BLOCKED_S]
        if idle:
            found[name] = idle
    return found


def rings(edges: Mapping[str, list[Wait]]) -> list[tuple[str, ...]]:
    """Every ring of agents that wait for each other, each once, its first name first in the alphabet."""
    found: dict[tuple[str, ...], None] = {}
    finished: set[str] = set()
    for start in edges:
        path: list[str] = []
        places: dict[str, int] = {}
        stack: list[tuple[str, Iterator[str]]] = []
        node: str | None = start
        while True:
            if node is not None and node not in finished and node not in places:
                places[node] = len(path)
                path.append(node)
                stack.append((node, iter([wait.on for wait in edges.get(node, ())])))
            elif node is not None and node in places:
                ring = path[places[node] :]
                first = ring.index(min(ring))
                turned = tuple(ring[first:] + ring[:first])
                found[turned] = None
            if not stack:
                break
            node = next(stack[-1][1], None)
            if node is None:
                done, _ = stack.pop()
                finished.add(done)
                path.pop()
                del places[done]
    return list(found)


def team_verdicts(state: MonitorState, t: float) -> Iterator[Verdict]:
    """Deadlocks, and waits for one that is gone."""
    edges = blocked(state, t)
    for ring in rings(edges):
        waits = [next(wait for wait in edges[name] if wait.on == on) for name, on in _neighbours(ring)]
        youngest = min(t - wait.t for wait in waits)
        said = ", ".join(
            f"{name} waits for {wait.on} ({t - wait.t:.0f} s)" for name, wait in zip(ring, waits, strict=True)
        )
        yield Verdict(
            scope="team",
            label="stalled",
            rule="deadlock",
            subject=" ".join(ring),
            severity="high",
            text=f"deadlock: {said}",
            evidence=tuple(wait.id for wait in waits),
            agents=ring,
            standing="raise" if youngest >= DEADLOCK_S else "hold",
        )
    for name, waits_of in edges.items():
        for wait in waits_of:
            other = state.agents.get(wait.on)
            if other is not None and other.ended and t - wait.t >= GONE_S:
                yield Verdict(
                    scope="team",
                    label="stalled",
                    rule=f"waits for {wait.on}",
                    subject=name,
                    severity="medium",
                    text=f"waits for {wait.on}, which has left, for {t - wait.t:.0f} s",
                    evidence=(wait.id,),
                )


def coordination_of(state: MonitorState, t: float) -> Coordination:
    """The advice on the team: blocked agents, deadlocks, load, whom to ask next."""
    edges = blocked(state, t)
    load, busiest = _load(state)
    stuck = [Blocked(agent=name, on=wait.on, since_s=round(t - wait.t, 1), evidence=wait.id)
             for name, waits in edges.items() for wait in waits]  # fmt: skip
    return Coordination(
        blocked=tuple(sorted(stuck, key=lambda one: -one.since_s)[:BLOCKED_SHOWN]),
        deadlocks=tuple(rings(edges)),
        load=load,
        busiest=busiest,
        best_for=_assignees(state, set(edges)),
    )


def _asked_by(waits: Mapping[str, tuple[Wait, ...]], event: AgentEvent) -> list[str]:
    """Whose waits an event may answer: whom it is addressed to, or who gave it its correlation."""
    if event.to is not None:
        return [event.to] if event.to in waits else []
    if event.correlation is None:
        return []
    return [name for name, open_waits in waits.items() if any(_is_answered(wait, event) for wait in open_waits)]


def _is_answered(wait: Wait, event: AgentEvent) -> bool:
    return wait.on == event.agent and (
        wait.correlation is None or event.correlation is None or wait.correlation == event.correlation
    )


def _said_to_wait_for(event: AgentEvent) -> list[str]:
    said = event.data.get("waits_for") if event.data is not None else None
    names = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    strings = [name for name in names[:WAITS_MAX] if isinstance(name, str)]
    return [name for name in strings if 0 < len(name) <= NAME_CHARS_MAX and name != event.agent]


def _with(waits: Mapping[str, tuple[Wait, ...]], name: str, own: tuple[Wait, ...]) -> Mapping[str, tuple[Wait, ...]]:
    rest = {waiter: others for waiter, others in waits.items() if waiter != name}
    if own and len(rest) >= AGENTS_MAX:
        del rest[next(iter(rest))]
    return {**rest, name: own} if own else rest


def _neighbours(ring: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(ring, (*ring[1:], ring[0]), strict=True))


def _members(state: MonitorState) -> dict[str, AgentState]:
    return {name: agent for name, agent in state.agents.items() if name not in OUTSIDERS and not agent.ended}


def _load(state: MonitorState) -> tuple[Metric, str | None]:
    """The busiest agent's share of the newest work, in fair shares: 1 is even, 2 is twice its part."""
    members = _members(state)
    counted = Counter(name for name in state.workers if name in members)
    n = counted.total()
    if len(members) < 2 or n < LOAD_EVENTS_MIN:
        reason = f"needs two agents and {LOAD_EVENTS_MIN} pieces of work, has {len(members)} and {n}"
        return Metric(value=None, unit="fair shares", n=n, window_s=None, source="unavailable", reason=reason), None
    busiest, most = counted.most_common(1)[0]
    low, high = wilson(most, n)
    share, parts = most / n, len(members)
    metric = Metric(
        value=share * parts,
        unit="fair shares",
        n=n,
        window_s=None,
        source="derived",
        low=low * parts,
        high=high * parts,
    )
    return metric, busiest


def _assignees(state: MonitorState, held: set[str]) -> dict[str, Assignee]:
    """Who did best of late, over all work (``*``) and for each of the most used tools; the surest, not the luckiest."""
    accused = {name for found in state.findings if found.severity != "low" for name in found.agents}
    free = {name: agent for name, agent in _members(state).items() if name not in held and name not in accused}
    recent = dict(list(free.items())[-AGENTS_SHOWN_MAX:])
    done: dict[str, dict[str, tuple[int, int]]] = {}
    for name, agent in recent.items():
        known = [result.ok for result in agent.results if result.ok is not None]
        done.setdefault("*", {})[name] = (sum(known), len(known))
        for tool in {call.tool for call in agent.calls}:
            calls = [call.ok for call in agent.calls if call.tool == tool and call.ok is not None]
            done.setdefault(tool, {})[name] = (sum(calls), len(calls))
    tools = sorted(done, key=lambda tool: (tool != "*", -sum(n for _, n in done[tool].values()), tool))
    best: dict[str, Assignee] = {}
    for tool in tools[: TOOLS_SHOWN + 1]:
        judged = [(wilson(s, n), s, n, name) for name, (s, n) in done[tool].items() if n >= RESULTS_MIN]
        if judged:
            (low, high), succeeded, n, name = max(judged, key=lambda entry: (entry[0][0], entry[3]))
            best[tool] = Assignee(agent=name, success_rate=succeeded / n, low=low, high=high, n=n)
    return best
