"""The demonstration: three minutes of a field station's four agents, with four faults at known times.

Written once by ``nis-models data demo`` and committed as ``nis_edge/demo/team.jsonl`` (canonical events with ``t``,
seconds from the start, in place of ``ts``); ``team.faults.json`` beside it says what was injected when, for tests.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from nis_edge.wire.messages import Claim
from nis_models.domains import TRADES
from nis_models.simulate import Team

LENGTH_S = 180.0
HEARTBEAT_S = 10.0
SEED = 20


def write(folder: Path) -> tuple[int, int]:
    """Write ``team.jsonl`` and ``team.faults.json``.

    Returns:
        The number of events and of injected faults.
    """
    events, faults = build()
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(event, ensure_ascii=False) for event in events]
    (folder / "team.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "team.faults.json").write_text(json.dumps(faults, indent=2) + "\n", encoding="utf-8")
    return len(events), len(faults)


def build() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return the events and the faults of the demonstration; always the same."""
    rng = random.Random(SEED)  # noqa: S311 - chance of a simulation, not of a secret
    trade = next(trade for trade in TRADES if trade.name == "field_station")
    planner, collector, analyst, reporter = trade.roles
    team = Team(rng=rng, split="train", trade=trade, agents=list(trade.roles), pace_s=1.2, clock=0.0, first_only=True)
    team.g1, team.g2, team.g3 = trade.gauges[0], trade.gauges[1], trade.gauges[3]
    team.p1, team.p2, team.p3 = "north plot", "ridge mast", "creek probe"
    team.goal = "Measure soil moisture at north plot and air temperature at ridge mast, then send the station summary."
    faults: list[dict[str, object]] = []

    def injected(label: str, agents: list[str], act: Callable[[], object], note: str) -> None:
        first = len(team.events)
        act()
        shown = [event for event in team.events[first:] if event.agent in agents]
        faults.append(
            {
                "label": label,
                "agents": agents,
                "from_t": shown[0].ts,
                "to_t": shown[-1].ts,
                "events": [f"ev-{e.id}" for e in shown],
                "what": note,
            }
        )

    round_number = 0

    def until(t: float) -> None:
        """Ordinary work, nobody in a hurry, until a time."""
        nonlocal round_number
        while team.clock < t - 6:
            round_number += 1
            gauge, place = rng.choice(((team.g2, team.p2), (team.g3, team.p3), (trade.gauges[2], team.p2)))
            # The world moves on between two readings.
            team.values[(gauge.tool, place)] = min(
                gauge.high, max(gauge.low, team.value(gauge, place) * rng.uniform(0.97, 1.03))
            )
            team.call(analyst, gauge.tool, {"place": place, "round": round_number})
            value = team.value(gauge, place)
            team.result(analyst, gauge.tool, json.dumps({"value": value, "unit": gauge.unit, "at": place}))
            team.emit(analyst, "message", f"New reading: {gauge.quantity} at {place} is now {value} {gauge.unit}.")
            team.clock += rng.uniform(1.0, 3.0)
        team.clock = max(team.clock, t)

    def loop() -> None:
        for _ in range(6):
            team.call(collector, "read_soil_moisture", {"place": "north plot"}, latency_ms=None)
            team.result(collector, "read_soil_moisture", '{"value": 21.4, "unit": "%", "at": "north plot"}')
            team.clock += 1.0

    def error_burst() -> None:
        for i in range(5):
            team.call(reporter, "upload_samples", {"batch": i + 1, "attempt": i})
            team.result(reporter, "upload_samples", f"503 service unavailable (request {4100 + 7 * i})", ok=False)
        team.emit(reporter, "error", "upload of the samples failed five times, giving up for now")

    def contradiction() -> None:
        key = "water level creek probe"
        team.emit(
            analyst,
            "claim",
            "The water level at creek probe is 42.0 cm.",
            claim=Claim(key=key, value=42.0, unit="cm", tol=1.0),
            confidence=0.8,
        )
        team.emit(planner, "message", "Noted for the summary.")
        team.emit(
            reporter,
            "claim",
            "The water level at creek probe is 71.5 cm.",
            claim=Claim(key=key, value=71.5, unit="cm", tol=1.0),
            confidence=0.9,
        )

    team.emit("operator", "goal", team.goal)
    team.emit(
        planner,
        "message",
        "Plan: collector reads soil moisture, analyst takes air temperature, reporter writes the station summary.",
    )
    for agent, quantity, place in (
        (collector, "soil moisture", "north plot"),
        (analyst, "air temperature", "ridge mast"),
    ):
        team.emit(planner, "message", f"{agent}, please read {quantity} at {place}.", to=agent)
        team.emit(agent, "message", f"On it: {quantity} at {place}.")
    team.values[("read_air_temp", "ridge mast")] = 11.3
    team.values[("read_rain_gauge", "creek probe")] = 14.2
    until(10.0)
    injected("looping", [collector], loop, "the same call with the same answer, six times")
    team.emit(
        planner, "message", "collector, the value is in, 21.4 % at north plot. Go on with the camera.", to=collector
    )
    team.perform(collector, trade.acts[1], "ridge mast", spoken=False)
    until(48.0)
    injected("error_burst", [reporter], error_burst, "five uploads fail one after the other")
    team.emit(planner, "message", "Keep the samples on the device, we upload later.")
    until(82.0)
    injected("contradiction", [analyst, reporter], contradiction, "two claims about one water level, 42.0 and 71.5 cm")
    team.emit(planner, "message", "collector, please read soil moisture at south plot too.", to=collector)
    stalled = len(team.events)
    team.emit(collector, "message", "Will do, soil moisture for south plot coming up.")
    silent_from = team.clock
    until(LENGTH_S - 4)
    faults.append(
        {
            "label": "stalled",
            "agents": [collector],
            "from_t": team.events[stalled].ts,
            "to_t": LENGTH_S,
            "events": [f"ev-{team.events[stalled].id}"],
            "what": "takes a task, then no event and no heartbeat until the end",
        }
    )
    events = [event for event in team.events if event.ts <= LENGTH_S]
    beats = _heartbeats(trade.roles, silent=collector, silent_from=silent_from)
    rows = [_row(event.ts, msgspec.to_builtins(event)) for event in events] + beats
    rows.sort(key=lambda row: (row["t"], str(row["id"])))
    return rows, faults


def _heartbeats(agents: tuple[str, ...], *, silent: str, silent_from: float) -> list[dict[str, object]]:
    rows = []
    for number, agent in enumerate(agents):
        t = 1.0 + number * 0.4
        while t < LENGTH_S:
            if agent != silent or t < silent_from:
                rows.append(
                    {"v": 1, "id": f"hb-{agent}-{t:.0f}", "t": round(t, 3), "agent": agent, "kind": "heartbeat"}
                )
            t += HEARTBEAT_S
    return rows


def _row(t: float, fields: dict[str, object]) -> dict[str, object]:
    # msgspec leaves defaults out; the wire form names its version.
    return {
        "v": 1,
        "id": f"ev-{fields['id']}",
        "t": t,
        **{k: v for k, v in fields.items() if k not in ("v", "id", "ts")},
    }
