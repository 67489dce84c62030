"""The judging loop: hostile input is counted and told now and then, latency is measured, a failure keeps the state."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from nis_edge.config import MonitorOptions
from nis_edge.judging import Arrival, Judging
from nis_edge.limits import EXCERPTS_KEPT, INBOX_DRAIN_MAX, INBOX_LANE_ITEMS_MAX
from nis_edge.monitor.machine import Ask, Readings
from nis_edge.wire.messages import AgentEvent, Assessment, Finding, Reading
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog


class Bench:
    """A judging loop whose surroundings are lists."""

    def __init__(self) -> None:
        self.clock, self.log = SteppedClock(), KeptLog()
        self.asked: list[Ask] = []
        self.emitted: list[Assessment] = []
        self.told: list[tuple[str, str]] = []
        self.judging = Judging(
            MonitorOptions(), clock=self.clock, log=self.log, ask=self.asked.append, emit=self.emitted.append,
            tell=self._told,
        )  # fmt: skip

    def _told(self, finding: Finding, change: str) -> None:
        self.told.append((finding.label, change))

    def send(self, sender: str, **fields: Any) -> None:
        self.raw(sender, json.dumps({"kind": "message", **fields}).encode())

    def raw(self, sender: str, content: bytes) -> None:
        self.judging.arrive(Arrival(content, sender, self.clock.monotonic()), sender)


def test_an_event_becomes_an_assessment_and_its_latency_is_measured() -> None:
    bench = Bench()
    bench.send("alice", text="hello")
    bench.clock.advance(0.25)
    bench.judging.step()
    assert list(bench.emitted[-1].agents) == ["alice"]
    assert bench.judging.latencies.summary()["p50_ms"] == 250.0
    assert bench.judging.excerpts == {"e0": "alice message: hello"}


def test_a_malformed_event_is_counted_and_told_now_and_then() -> None:
    bench = Bench()
    for _ in range(INBOX_LANE_ITEMS_MAX):
        bench.raw("mallory", b"{}")
    bench.send("alice", text="hello")
    bench.judging.step()
    assert bench.judging.counts().refused == INBOX_LANE_ITEMS_MAX
    assert len(bench.log.named("event.refused")) == 1
    assert list(bench.emitted[-1].agents) == ["alice"]
    bench.clock.advance(31)
    bench.raw("mallory", b"{}")
    bench.judging.step()
    assert bench.log.named("event.refused")[1]["left_out"] == INBOX_LANE_ITEMS_MAX - 1


def test_what_the_inbox_dropped_reaches_the_monitor_and_the_log() -> None:
    bench = Bench()
    for number in range(INBOX_LANE_ITEMS_MAX + 7):
        bench.send("loud", text=str(number))
    bench.judging.step()
    assert bench.judging.state.counts.lost == 7
    assert bench.judging.counts().lost == 7
    assert bench.log.named("inbox.overflowed")[0]["dropped"] == 7


def test_a_step_takes_a_bounded_number() -> None:
    bench = Bench()
    for sender in range(INBOX_DRAIN_MAX):
        for number in range(3):
            bench.send(f"agent-{sender}", text=str(number))
    bench.judging.step()
    assert len(bench.judging.inbox) == 2 * INBOX_DRAIN_MAX


def test_excerpts_are_bounded() -> None:
    bench = Bench()
    for number in range(EXCERPTS_KEPT // 32 + 2):
        for n in range(32):
            event = AgentEvent(id=f"{number}-{n}", ts=1.0, agent="a", kind="heartbeat")
            bench.judging.arrive(Arrival(event, None, 0.0), "a")
        bench.judging.step()
    assert len(bench.judging.excerpts) == EXCERPTS_KEPT


def test_a_finding_is_told_when_it_begins() -> None:
    bench = Bench()
    for number in range(8):
        bench.send("bob", id=str(number), kind="tool_call", tool="read", args_hash="a")
    bench.judging.step()
    assert ("looping", "raised") in bench.told
    assert bench.log.named("finding.raised")[0]["agents"] == ("bob",)


def test_readings_go_in_with_the_next_step() -> None:
    bench = Bench()
    reading = Reading(name="cpu_percent", value=12.0, unit="%", ts=1.0, source="os")
    bench.judging.tell(Readings((reading,)))
    bench.judging.step()
    assert bench.judging.state.sensors["cpu_percent"].last.value == 12.0


def test_an_event_from_another_thread_wakes_the_loop() -> None:
    async def scenario() -> None:
        bench = Bench()
        running = asyncio.ensure_future(bench.judging.run(lambda: None))
        await asyncio.sleep(0)
        thread = threading.Thread(target=lambda: bench.send("alice", text="hi"))
        thread.start()
        while not any("alice" in a.agents for a in bench.emitted):
            await asyncio.sleep(0.005)
        thread.join()
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 10))
