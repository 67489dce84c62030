"""The courier: never more under way than allowed, nothing forgotten when the link breaks, told once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nis_edge import courier as module
from nis_edge.adapters.mqtt import Acknowledgement, Backoff, BrokerOptions, Message, Subscription
from nis_edge.adapters.spool import Record, Spool
from nis_edge.config import SpoolOptions
from nis_edge.courier import Courier
from nis_edge.errors import BrokerLostError
from nis_edge.outbox import Outbox
from nis_edge.telemetry import Identity, Telemetry
from nis_edge.waiting import within
from nis_edge.wire.topics import Topics
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog

OPTIONS = BrokerOptions("b", 1, "dut", Message("will", b""))


class FakeConnection:
    """What the courier uses of a connection; the real one is held to the same by test_broker_link."""

    session_present = False

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.window = broker.window
        self.under_way: list[tuple[int, Message]] = []
        self.lost: str | None = None
        self.closed_with: list[Message] | None = None
        self.woken = asyncio.Event()

    def fits(self, message: Message) -> bool:
        return len(message.payload) <= self.broker.packet_bytes_max

    def publish_nowait(self, message: Message) -> int:
        if self.lost:
            raise BrokerLostError(self.lost)
        self.broker.ids += 1
        self.broker.published.append(message)
        if message.qos:
            self.under_way.append((self.broker.ids, message))
            self.broker.most_under_way = max(self.broker.most_under_way, len(self.under_way))
        return self.broker.ids

    def subscribe_nowait(self, subscription: Subscription) -> None:
        self.broker.subscribed.append(subscription.topic_filter)

    def refused_subscriptions(self) -> list[str]:
        return []

    async def wait_acknowledgements(self, timeout_s: float) -> list[Acknowledgement]:
        if self.broker.mute or not self.under_way:
            # Not asyncio.wait_for: before Python 3.12 it could swallow the cancellation that ends the test.
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self.woken.wait(), min(timeout_s, 0.02))
            self.woken.clear()
        if self.lost:
            raise BrokerLostError(self.lost)
        if self.broker.mute:
            return []
        answers, self.under_way = [self.broker.answer(i, m) for i, m in self.under_way], []
        return answers

    def wake(self) -> None:
        self.woken.set()

    async def close(self, farewell: list[Message]) -> None:
        self.closed_with = farewell

    async def abandon(self) -> None:
        pass


class FakeBroker:
    """Takes every message, except as told."""

    def __init__(self, window: int = 4) -> None:
        self.window = window
        self.packet_bytes_max = 10_000
        self.ids = 0
        self.published: list[Message] = []
        self.subscribed: list[str] = []
        self.most_under_way = 0
        self.mute = False
        self.refusals: dict[bytes, Acknowledgement] = {}
        self.out_of_reach: str | None = None
        self.connections: list[FakeConnection] = []
        self.attempts = 0

    async def connect(self, options: BrokerOptions, on_message: Any) -> FakeConnection:
        self.attempts += 1
        if self.out_of_reach:
            raise BrokerLostError(self.out_of_reach)
        self.connections.append(FakeConnection(self))
        return self.connections[-1]

    def answer(self, message_id: int, message: Message) -> Acknowledgement:
        refusal = self.refusals.get(message.payload)
        return Acknowledgement(message_id, refusal.reason if refusal else None, bool(refusal and refusal.passes))

    def payloads(self, topic: str = "t") -> list[bytes]:
        return [m.payload for m in self.published if m.topic == topic]


Scenario = Callable[[FakeBroker, Outbox, Courier, KeptLog], Awaitable[None]]


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: FakeBroker, scenario: Scenario) -> None:
    async def body() -> None:
        monkeypatch.setattr(module, "connect", broker.connect)
        log, clock = KeptLog(), SteppedClock()
        telemetry = Telemetry(Identity(Topics("s", "d"), "b1"), SpoolOptions())
        with ThreadPoolExecutor(1) as thread:
            outbox = Outbox(
                lambda: Spool.open(tmp_path / "spool.db", bytes_max=1 << 20), thread, commit_s=0.0,
                memory_bytes_max=1 << 20, clock=clock, log=log,
            )  # fmt: skip
            courier = Courier(
                OPTIONS, outbox=outbox, telemetry=telemetry, greet=lambda n: [telemetry.online(n, None)],
                subscriptions=lambda: [Subscription("in/#")], on_message=lambda *_: None,
                backoff=Backoff(1, 120, lambda low, high: low), clock=clock, log=log,
            )  # fmt: skip
            outbox.has_news = courier.wake
            tasks = [asyncio.ensure_future(part.run(lambda: None)) for part in (outbox, courier)]
            try:
                await asyncio.wait_for(scenario(broker, outbox, courier, log), 10)
                assert not any(task.done() for task in tasks)
            finally:
                for task in reversed(tasks):
                    task.cancel()
                    await asyncio.wait({task})

    asyncio.run(body())


def put(outbox: Outbox, *payloads: bytes) -> None:
    for payload in payloads:
        outbox.put(Record("assessment", "t", "nis.test/1", payload, "b1", 1.0, 1e12))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_records_go_out_in_order_and_leave_when_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        payloads = [b"%03d" % n for n in range(40)]
        put(outbox, *payloads)
        await until(lambda: outbox.counts().delivered == 40)
        assert broker.payloads() == payloads
        assert broker.most_under_way <= broker.window
        assert broker.subscribed == ["in/#"]
        await until(lambda: outbox.counts().on_disk["assessment"] == 0)
        seqs = [dict(m.properties)["seq"] for m in broker.published if m.topic == "t"]
        assert seqs == [str(n) for n in range(1, 41)]

    run(tmp_path, monkeypatch, FakeBroker(), scenario)


def test_a_window_of_one_is_kept_even_by_the_greeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        courier.show(Message("state/x", b"", 1, True))
        put(outbox, b"1", b"2", b"3")
        await until(lambda: outbox.counts().delivered == 3)
        assert broker.most_under_way == 1

    run(tmp_path, monkeypatch, FakeBroker(window=1), scenario)


def test_what_was_under_way_when_the_link_broke_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        broker.mute = True
        put(outbox, *(b"%d" % n for n in range(9)))
        # One place of the window is the greeting's.
        await until(lambda: len(broker.payloads()) == broker.window - 1)
        broker.mute = False
        broker.connections[0].lost = "cut"
        await until(lambda: outbox.counts().delivered == 9)
        assert set(broker.payloads()) == {b"%d" % n for n in range(9)}
        assert courier.state.sessions == 2
        assert len(log.named("broker.lost")) == 1

    run(tmp_path, monkeypatch, FakeBroker(), scenario)


def test_a_refused_record_is_parked_told_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        broker.refusals = {
            b"bad": Acknowledgement(0, "Not authorized (0x87)"),
            b"worse": Acknowledgement(0, "Not authorized (0x87)"),
        }
        put(outbox, b"bad", b"good", b"worse")
        await until(lambda: outbox.counts().parked == 2)
        await until(lambda: outbox.counts().delivered == 1)
        assert len(log.named("record.parked")) == 1

    run(tmp_path, monkeypatch, FakeBroker(), scenario)


def test_a_quota_that_is_exceeded_ends_the_connection_but_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        broker.refusals = {b"x": Acknowledgement(0, "Quota exceeded (0x97)", passes=True)}
        put(outbox, b"x")
        await until(lambda: courier.state.sessions >= 2)
        broker.refusals = {}
        await until(lambda: outbox.counts().delivered == 1)
        assert outbox.counts().parked == 0

    run(tmp_path, monkeypatch, FakeBroker(), scenario)


def test_a_record_larger_than_the_broker_takes_is_parked_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        put(outbox, b"x" * 20_000, b"small")
        await until(lambda: outbox.counts().delivered == 1 and outbox.counts().parked == 1)
        assert broker.payloads() == [b"small"]

    run(tmp_path, monkeypatch, FakeBroker(), scenario)


def test_a_broker_that_stays_away_is_told_once_for_each_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        await until(lambda: broker.attempts > 5)
        assert courier.state.reason == "refused"
        broker.out_of_reach = "away"
        attempts = broker.attempts
        await until(lambda: broker.attempts > attempts + 5)
        assert [e["reason"] for e in log.named("broker.lost")] == ["refused", "away"]

    broker = FakeBroker()
    broker.out_of_reach = "refused"
    run(tmp_path, monkeypatch, broker, scenario)


def test_retained_states_are_published_again_at_each_connection_newest_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        courier.show(Message("state/x", b"old", 0, True))
        courier.show(Message("state/x", b"new", 0, True))
        await until(lambda: broker.payloads("state/x"))
        broker.connections[0].lost = "cut"
        await until(lambda: len(broker.payloads("state/x")) == 2)
        assert broker.payloads("state/x") == [b"new", b"new"]

    run(tmp_path, monkeypatch, FakeBroker(), scenario)


def test_another_configuration_leaves_politely_and_dials_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(broker: FakeBroker, outbox: Outbox, courier: Courier, log: KeptLog) -> None:
        await until(lambda: courier.state.connected)
        courier.reconfigure(OPTIONS)
        await until(lambda: courier.state.sessions == 2)
        assert b"reconfigured" in (broker.connections[0].closed_with or [Message("", b"")])[0].payload
        courier.reconfigure(None)
        await until(lambda: courier.state.reason == "no broker is configured")
        courier.reconfigure(OPTIONS)
        await until(lambda: courier.state.connected)

    run(tmp_path, monkeypatch, FakeBroker(), scenario)
