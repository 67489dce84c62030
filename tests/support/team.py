"""A simulated team of agents: seeded, with faults put in on purpose and look-alikes that are none.

Events come as the monitor gets them, with times; the same seed gives the same stream.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from nis_edge.wire.messages import AgentEvent, Claim, Reading

TOPICS = ("route", "battery", "soil", "camera", "weather", "fence", "pump", "drone", "valve", "crop")
VERBS = ("checked", "measured", "planned", "moved", "compared", "reported", "calibrated", "found", "cleaned")


class Team:
    """Agents that work: calls with new arguments, results, messages, claims, heartbeats, outcomes."""

    def __init__(self, size: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = [f"agent-{index}" for index in range(size)]
        self.count = 0

    def event(self, agent: str, ts: float, kind: str, **fields: object) -> AgentEvent:
        self.count += 1
        return AgentEvent(id=f"n{self.count}", ts=ts, agent=agent, kind=kind, **fields)  # type: ignore[arg-type]

    def sentence(self) -> str:
        r = self.random
        words = " ".join(r.choice((*TOPICS, *VERBS)) for _ in range(r.randrange(6, 14)))
        return f"{r.choice(VERBS)} {words} at {r.randrange(10_000)}"

    def work(self, agent: str, ts: float) -> Iterator[AgentEvent]:
        """One piece of healthy work: one to three events within a second."""
        r = self.random
        choice = r.random()
        if choice < 0.45:
            tool = r.choice(TOPICS)
            yield self.event(agent, ts, "tool_call", tool=tool, args_hash=f"{r.randrange(1 << 40):x}", text="call")
            yield self.event(
                agent, ts + 0.4, "tool_result", tool=tool, ok=r.random() > 0.06, text=self.sentence(),
                latency_ms=r.lognormvariate(5.0, 0.4),
            )  # fmt: skip
        elif choice < 0.75:
            yield self.event(agent, ts, "message", text=self.sentence(), to=r.choice(self.names))
        elif choice < 0.9:
            confidence = r.uniform(0.6, 1.0)
            stated = self.event(agent, ts, "step", text=self.sentence(), confidence=confidence)
            yield stated
            yield self.event(agent, ts + 0.2, "outcome", outcome_of=stated.id, outcome=r.random() < confidence)
        else:
            claim = Claim(key="tank level", value=50.0 + r.gauss(0, 0.1), unit="%", tol=2.0)
            yield self.event(agent, ts, "claim", claim=claim)

    def stream(self, start: float, seconds: int, rate_per_agent: float = 0.2) -> Iterator[AgentEvent]:
        """Healthy work of the whole team, with heartbeats every 30 s."""
        for second in range(seconds):
            ts = start + second
            for index, name in enumerate(self.names):
                if (second + index) % 30 == 0:
                    yield self.event(name, ts, "heartbeat")
                if self.random.random() < rate_per_agent:
                    yield from self.work(name, ts + self.random.random() * 0.5)


def readings(ts: float, *, cpu: float = 30.0, memory: float = 40.0, temperature: float = 50.0) -> tuple[Reading, ...]:
    """One round of a device's sensors."""
    return (
        Reading(name="cpu_percent", value=cpu, unit="%", ts=ts, source="simulated"),
        Reading(name="memory_percent", value=memory, unit="%", ts=ts, source="simulated"),
        Reading(name="temperature_c", value=temperature, unit="degC", ts=ts, source="simulated"),
    )
