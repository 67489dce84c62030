"""A simulated team at work: agents with roles, tools with true values, messages in a split's wordings.

``Team`` only knows how to do things right; ``faults`` makes it do things wrong.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field, replace

from nis_edge.monitor.context import NO_DEVICE, DeviceView
from nis_edge.wire.messages import AgentEvent, Claim
from nis_models.domains import Act, Gauge, Split, Trade, trades_of
from nis_models.phrases import say

OPERATOR = "operator"

TEAM_SIZES = (2, 4, 4, 5, 5, 10, 20)
"""A lone assistant and a pair are teams too."""


@dataclass
class Team:
    """A team in the middle of a mission; every method appends events.

    Args:
        rng: the only source of chance.
        split: which wordings it speaks.
        trade: what it works on.
        agents: names; the first three have the roles of the plan.
        pace_s: typical seconds between events.
    """

    rng: random.Random
    split: Split
    trade: Trade
    agents: list[str]
    pace_s: float
    clock: float
    events: list[AgentEvent] = field(default_factory=list)
    device: DeviceView = NO_DEVICE
    goal: str | None = None
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    idle_s: float | None = None
    first_only: bool = False
    """Whether it leaves out ``phrases.LEARNED``; the committed demonstration does."""

    def __post_init__(self) -> None:
        places = self.rng.sample(self.trade.places, 3)
        self.p1, self.p2, self.p3 = places
        gauges = self.rng.sample(self.trade.gauges, min(3, len(self.trade.gauges)))
        self.g1, self.g2, self.g3 = gauges
        self.act = self.rng.choice(self.trade.acts)

    @classmethod
    def draw(cls, rng: random.Random, split: Split) -> Team:
        """Draw a team of a split's trades."""
        trade = rng.choice(trades_of(split))
        style = rng.random()
        names = list(trade.roles)
        if style < 0.25:
            names = [f"agent-{i + 1}" for i in range(len(names))]
        elif style < 0.4:
            names = [f"{name}-{rng.randint(1, 9)}" for name in names]
        names += [f"{names[extra % 4]}-{extra + 2}" for extra in range(16)]
        names = names[: rng.choice(TEAM_SIZES)]
        while len(names) < 3:
            names.append(names[0])
        team = cls(
            rng=rng,
            split=split,
            trade=trade,
            agents=names,
            pace_s=rng.choice((0.3, 1.0, 2.0, 5.0, 12.0)),
            clock=1.7e9 + rng.randrange(10**6),
        )
        if rng.random() < 0.6:
            team.device = healthy_device(rng)
        return team

    # --- plain events -------------------------------------------------------------------------------------------------

    def emit(self, agent: str, kind: str, text: str | None = None, *, wait: float = 1.0, **fields: object) -> int:
        """Append one event and return its index; ``wait`` scales the time since the event before."""
        self.clock += self.pace_s * wait * self.rng.lognormvariate(0.0, 0.5)
        event = AgentEvent(
            id=str(len(self.events) + 1),
            ts=round(self.clock, 3),
            agent=agent,
            kind=kind,
            text=text,
            **fields,  # type: ignore[arg-type]
        )
        self.events.append(event)
        return len(self.events) - 1

    def says(self, agent: str, bank: str, **slots: object) -> int:
        """Append a message in this split's wording."""
        return self.emit(agent, "message", self.word(bank, **slots))

    def word(self, bank: str, **slots: object) -> str:
        """Return a wording with the usual slots filled in; given slots win."""
        usual: dict[str, object] = {
            "p": self.p1,
            "p1": self.p1,
            "p2": self.p2,
            "q1": self.g1.quantity,
            "q2": self.g2.quantity,
            "q": self.g1.quantity,
            "u": self.g1.unit,
            "u2": self.g2.unit,
            "act": self.act.words,
            "words": self.act.words,
            "tool": self.g1.tool,
            "report": self.trade.report,
            "thing": self.trade.thing,
            "n": self.rng.randint(11, 48),
            "a1": self.agents[0],
            "a2": self.agents[1],
            "a3": self.agents[2],
            "a": self.agents[1],
            "b": self.agents[2],
        }
        return say(self.rng, bank, self.split, first_only=self.first_only, **{**usual, **slots})

    def call(self, agent: str, tool: str, arguments: dict[str, object], **fields: object) -> int:
        """Append a tool call."""
        text = json.dumps(arguments)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.emit(agent, "tool_call", text, tool=tool, args_hash=digest, **fields)  # type: ignore[arg-type]

    def result(self, agent: str, tool: str, text: str, *, ok: bool | None = True, wait: float = 0.5) -> int:
        """Append a tool's answer."""
        return self.emit(
            agent,
            "tool_result",
            text,
            tool=tool,
            ok=ok,
            wait=wait,
            latency_ms=round(self.pace_s * 1000 * self.rng.uniform(0.05, 0.6), 1),
        )

    # --- work done right ----------------------------------------------------------------------------------------------

    def start(self, *, plan: bool) -> None:
        """Give the goal, sometimes the plan."""
        self.goal = self.word("goal")
        self.emit(OPERATOR, "goal", self.goal)
        if plan:
            self.says(self.agents[-1] if self.agents[-1] not in self.agents[:3] else self.agents[2], "plan")

    def value(self, gauge: Gauge, place: str) -> float:
        """The true value of a quantity at a place; the same whenever it is read."""
        key = (gauge.tool, place)
        if key not in self.values:
            self.values[key] = self.rng.uniform(gauge.low, gauge.high)
        return round_like(self.values[key])

    def measure(self, agent: str, gauge: Gauge, place: str, *, asked: bool | None = None, told: bool = True) -> int:
        """Ask for a value, read it, tell it. Returns the index of the last event."""
        rng = self.rng
        slots = {"q": gauge.quantity, "p": place, "u": gauge.unit, "tool": gauge.tool}
        value = self.value(gauge, place)
        if asked if asked is not None else rng.random() < 0.4:
            boss = self.other(agent)
            self.emit(boss, "message", self.word("assign", a=agent, **slots), to=agent if rng.random() < 0.5 else None)
            if rng.random() < 0.5:
                self.says(agent, "ack", **slots)
        self.call(agent, gauge.tool, {"place": place})
        last = self.result(agent, gauge.tool, self.word("result", v=value, **slots))
        if told:
            if rng.random() < 0.25:
                last = self.emit(
                    agent,
                    "claim",
                    None if rng.random() < 0.5 else self.word("report", v=value, **slots),
                    claim=Claim(key=f"{gauge.quantity} {place}", value=value, unit=gauge.unit),
                    confidence=self.doubt(0.6, 0.9),
                )
            else:
                last = self.says(agent, "report", v=value, **slots)
                if rng.random() < 0.15:
                    last = self.says(self.other(agent), "check", v=value, **slots)
        if rng.random() < 0.1:
            last = self.emit(agent, "outcome", None, outcome_of=self.events[last].id, outcome=True)
        return last

    def doubt(self, low: float, high: float) -> float | None:
        """A stated confidence, or none."""
        return round(self.rng.uniform(low, high), 2) if self.rng.random() < 0.5 else None

    def perform(self, agent: str, act: Act, place: str, *, spoken: bool = True) -> int:
        """Change the world as planned."""
        if spoken:
            self.says(agent, "acted", words=act.words, p=place, tool=act.tool)
        self.call(agent, act.tool, {"target": place})
        return self.result(agent, act.tool, self.word("did", tool=act.tool))

    def finish(self, agent: str) -> int:
        """Hand in the report with both values."""
        return self.says(
            agent,
            "final",
            v1=self.value(self.g1, self.p1),
            u1=self.g1.unit,
            v2=self.value(self.g2, self.p2),
            u2=self.g2.unit,
        )

    def chatter(self) -> None:
        """Something harmless and short."""
        agent = self.rng.choice(self.agents)
        choice = self.rng.random()
        if choice < 0.4:
            self.emit(agent, "heartbeat")
        elif choice < 0.8:
            self.says(agent, "chat", a=self.other(agent))
        else:
            self.emit(agent, "step", f"step {self.rng.randint(1, 9)}")

    def other(self, agent: str) -> str:
        """Some other agent, or the operator for a lone one."""
        rest = [name for name in self.agents if name != agent]
        return self.rng.choice(rest) if rest else OPERATOR


def round_like(value: float) -> float:
    """Round as instruments show: three or so digits."""
    return round(value, 2) if abs(value) < 10 else round(value, 1) if abs(value) < 200 else float(round(value))


def healthy_device(rng: random.Random) -> DeviceView:
    """Draw a device that is well; single readings may be missing."""

    def maybe(value: float) -> float | None:
        return None if rng.random() < 0.12 else value

    return DeviceView(
        cpu_percent=maybe(rng.uniform(2, 84)),
        memory_percent=maybe(rng.uniform(15, 86)),
        temperature_c=maybe(rng.uniform(25, 71)),
        throttled=rng.choice((False, False, False, None)),
        z=maybe(rng.gauss(0, 1.1)),
        trend=rng.choice((-1, 0, 0, 1, None)),
        stale_s=maybe(rng.uniform(0, 9)),
    )


def starved_device(rng: random.Random) -> tuple[DeviceView, str]:
    """Draw a device at its end, and say how it shows."""
    device = replace(healthy_device(rng), stale_s=rng.uniform(0, 9))
    kind = rng.random()
    if kind < 0.4:
        return (
            replace(device, cpu_percent=rng.uniform(91, 100), memory_percent=rng.uniform(88, 100)),
            "processor above 91 % and memory above 88 %",
        )
    if kind < 0.7:
        return replace(device, memory_percent=rng.uniform(93, 100)), "memory above 93 %"
    return (
        replace(device, temperature_c=rng.uniform(80, 96), throttled=True, cpu_percent=rng.uniform(70, 100)),
        "above 80 degrees Celsius and throttled",
    )


def mad_device(rng: random.Random) -> tuple[DeviceView, str]:
    """Draw a device one of whose readings is far off its own past."""
    device = replace(healthy_device(rng), z=rng.choice((-1, 1)) * rng.uniform(6, 30), stale_s=rng.uniform(0, 9))
    return device, "a reading at least 6 robust deviations off its past"


def silent_device(rng: random.Random) -> tuple[DeviceView, str]:
    """Draw a device whose readings are old."""
    return replace(healthy_device(rng), stale_s=rng.uniform(70, 4000)), "readings older than 70 seconds"
