"""A healthy team on a healthy device, by seed, on a simulated clock: everything a monitor may mistake for a fault.

Ten agents with shifts and pauses; calls with retries, polling and the odd failure; heartbeats that jitter and now and
then get lost; agents that leave and come back; claims with noise within their tolerance; confidences that are as right
as they say; a processor with bursts, a temperature that follows day and load, a disk that fills and is tidied, sensors
that fail once or twice in a row; a clock that is corrected. None of it is a fault, so every alarm is false.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from nis_edge.wire.messages import AgentEvent, Claim, Reading

DAY_S: Final = 86_400.0
HEARTBEAT_S: Final = 30.0
READING_S: Final = 5.0
WORK_EVERY_S: Final = 40.0
"""Mean pause between two pieces of work of one agent on shift: about what agents on language models take."""

LOST_BEATS: Final = 0.01
CALL_FAILS: Final = 0.05
READING_FAILS: Final = 0.001
LEAVES_A_DAY: Final = 2

TOOLS: Final = (
    "read_level",
    "move_to",
    "plan_route",
    "query_map",
    "upload",
    "take_picture",
    "open_valve",
    "job_status",
)
NOUNS: Final = (
    "pump",
    "valve",
    "battery",
    "fence",
    "route",
    "camera",
    "tank",
    "drone",
    "weather",
    "crop",
    "gate",
    "soil",
)
VERBS: Final = ("checked", "measured", "planned", "moved", "compared", "calibrated", "found", "cleaned", "noted")
UNITS: Final = ("%", "V", "m", "kPa")

Moment = tuple[float, "tuple[AgentEvent, ...] | tuple[Reading, ...]"]


@dataclass
class HealthyTeam:
    """The stream of one seed.

    Args:
        seed: the only source of chance.
        agents: how many.
        start: seconds since the epoch.
        seconds: how long.
    """

    seed: int
    agents: int = 10
    start: float = 1_800_000_000.0
    seconds: float = 7 * DAY_S
    count: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._away: dict[str, float] = {}
        self._temperature, self._disk, self._memory = 48.0, 40.0, 35.0
        self._truth = {name: self.random.uniform(20.0, 80.0) for name in NOUNS}

    def moments(self) -> Iterator[Moment]:
        """Events and readings in order of time."""
        r = self.random
        # By time; what happens at one moment keeps its order by a running number.
        queue: list[tuple[float, int, str, int, tuple[AgentEvent, ...]]] = []
        pushed = itertools.count()

        def put(at: float, what: str, number: int = -1, events: tuple[AgentEvent, ...] = ()) -> None:
            heapq.heappush(queue, (at, next(pushed), what, number, events))

        names = [f"{NOUNS[index % len(NOUNS)]}-{index}" for index in range(self.agents)]
        for number in range(self.agents):
            put(self.start + r.uniform(0, HEARTBEAT_S), "beat", number)
            put(self.start + r.uniform(0, WORK_EVERY_S), "work", number)
        put(self.start, "read")
        while queue[0][0] < self.start + self.seconds:
            now, _, what, number, events = heapq.heappop(queue)
            if what == "event":
                yield now, events
            elif what == "read":
                yield now, self._readings(now)
                put(now + READING_S, what)
            elif what == "beat":
                if now >= self._away.get(names[number], 0.0) and r.random() >= LOST_BEATS:
                    yield now, (self._event(names[number], now, "heartbeat"),)
                put(now + HEARTBEAT_S + r.gauss(0, 1.0), what, number)
            else:
                done = now
                for at, event in self._work(names[number], now) if now >= self._away.get(names[number], 0.0) else ():
                    put(at, "event", events=(event,))
                    done = at
                put(done + self._pause(now, number), what, number)

    def _pause(self, now: float, number: int) -> float:
        # A shift of 16 hours, each agent's at another time; off shift there is a little work all the same.
        hour = ((now - self.start) / 3600.0 + 2.4 * number) % 24.0
        return 2.0 + self.random.expovariate(1.0 / (WORK_EVERY_S if hour < 16.0 else 8 * WORK_EVERY_S))

    def _work(self, name: str, now: float) -> Iterator[tuple[float, AgentEvent]]:
        r = self.random
        if r.random() < LEAVES_A_DAY * WORK_EVERY_S / DAY_S:
            self._away[name] = now + r.uniform(600, 7200)
            yield now, self._event(name, now, "lifecycle", text="stopped for maintenance")
            return
        choice = r.random()
        if choice < 0.5:
            yield from self._calls(name, now)
        elif choice < 0.78:
            yield now, self._event(name, now, "message", text=self._sentence(), to=None)
        elif choice < 0.92:
            confidence = r.uniform(0.55, 0.99)
            said = self._event(name, now, "step", text=self._sentence(), confidence=confidence)
            yield now, said
            yield (
                now + 0.5,
                self._event(name, now + 0.5, "outcome", outcome_of=said.id, outcome=r.random() < confidence),
            )
        else:
            key = r.choice(NOUNS)
            value = self._truth[key] + r.gauss(0.0, 0.3)
            yield now, self._event(name, now, "claim", claim=Claim(key=key, value=value, unit="%", tol=3.0))

    def _calls(self, name: str, now: float) -> Iterator[tuple[float, AgentEvent]]:
        r = self.random
        tool = r.choice(TOOLS)
        arguments = f"{r.randrange(1 << 48):x}"
        is_polling = tool == "job_status"
        rounds = r.randrange(2, 12) if is_polling else 1
        for number in range(rounds):
            ok = r.random() >= CALL_FAILS
            latency = r.lognormvariate(5.5, 0.5)
            yield now, self._event(name, now, "tool_call", tool=tool, args_hash=arguments)
            now += latency / 1e3
            text = "Error: timed out" if not ok else "pending" if number < rounds - 1 else self._sentence()
            yield now, self._event(name, now, "tool_result", tool=tool, ok=ok, text=text, latency_ms=latency)
            now += 1.0
            if not ok and not is_polling:
                # A careful agent tries again, with the same arguments.
                yield now, self._event(name, now, "tool_call", tool=tool, args_hash=arguments)
                now += latency / 1e3
                yield (
                    now,
                    self._event(
                        name, now, "tool_result", tool=tool, ok=True, text=self._sentence(), latency_ms=latency
                    ),
                )

    def _readings(self, now: float) -> tuple[Reading, ...]:
        r = self.random
        day = math.sin(2.0 * math.pi * (now - self.start) / DAY_S)
        busy = 90.0 if (now // 600.0) % 13 == 0 else 25.0
        cpu = min(100.0, max(0.0, r.gauss(busy, 8.0)))
        self._temperature += 0.05 * (38.0 + 6.0 * day + 0.3 * cpu - self._temperature) + r.gauss(0.0, 0.15)
        self._memory = min(80.0, max(20.0, self._memory + r.gauss(0.0, 0.2)))
        self._disk = 40.0 if self._disk > 75.0 else self._disk + 0.0005
        values = {
            "cpu_percent": (cpu, "%"),
            "memory_percent": (self._memory, "%"),
            "disk_percent": (self._disk, "%"),
            "temperature_c": (round(self._temperature, 1), "Cel"),
            "throttled": (0.0, "1"),
        }
        return tuple(
            Reading(name=name, value=None, unit=unit, ts=now, source="simulated", reason="the bus was busy")
            if r.random() < READING_FAILS
            else Reading(name=name, value=value, unit=unit, ts=now, source="simulated")
            for name, (value, unit) in values.items()
        )

    def _sentence(self) -> str:
        r = self.random
        words = " ".join(r.choice((*NOUNS, *VERBS)) for _ in range(r.randrange(5, 14)))
        return f"{r.choice(VERBS)} {words} at {r.randrange(100_000)}"

    def _event(self, agent: str, ts: float, kind: str, **fields: object) -> AgentEvent:
        self.count += 1
        return AgentEvent(id=f"h{self.count}", ts=ts, agent=agent, kind=kind, **fields)  # type: ignore[arg-type]
