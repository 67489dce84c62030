"""Commands on their way: late ones refused, no more at once than allowed, nothing done that can't be remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nis_edge.adapters.ledger import CUT_OFF, Entry, Ledger
from nis_edge.adapters.mqtt import Incoming, Message
from nis_edge.adapters.spool import Record
from nis_edge.commanding import Commanding
from nis_edge.config import SpoolOptions
from nis_edge.errors import DeviceError, UpdateError
from nis_edge.limits import COMMAND_KEYS_MAX, COMMANDS_AT_ONCE_MAX, COMMANDS_BURST
from nis_edge.telemetry import Identity, Telemetry
from nis_edge.wire.topics import Topics
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog


class Desk:
    """Commands in, answers out."""

    def __init__(self, folder: Path, thread: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.answers: list[dict[str, Any]] = []
        self.posts: list[Message] = []
        self.clock, self.log = SteppedClock(), KeptLog()
        self.running = self.most = 0
        self.gate = asyncio.Event()
        self.disk: DeviceError | None = None
        self.commanding = Commanding(
            {"slow": self.slow, "fail": self.fail, "crash": self.crash}, open_ledger=self.open_ledger, thread=thread,
            telemetry=Telemetry(Identity(Topics("s", "d"), "b1"), SpoolOptions()), keep=self.keep,
            post=self.posts.append, clock=self.clock, log=self.log,
        )  # fmt: skip

    def open_ledger(self) -> Ledger:
        if self.disk is not None:
            raise self.disk
        return Ledger(self.folder / "commands.db")

    def keep(self, record: Record) -> None:
        self.answers.append(json.loads(record.payload))

    async def slow(self, args: dict[str, Any]) -> dict[str, Any]:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return {"got": args}

    async def fail(self, args: dict[str, Any]) -> dict[str, Any]:
        raise UpdateError("no; the old model stays")

    async def crash(self, args: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError("oops")

    def send(self, name: str, payload: bytes = b"", **more: Any) -> None:
        self.commanding.arrive(name, Incoming(f"nis/v1/s/d/cmd/{name}", payload, **more))

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0.002)

    def states(self, key: str) -> list[str]:
        return [a["state"] for a in self.answers if a["id"] == key]


def run(tmp_path: Path, scenario: Callable[[Desk], Awaitable[None]]) -> None:
    async def body() -> None:
        with ThreadPoolExecutor(1) as thread:
            desk = Desk(tmp_path, thread)
            task = asyncio.ensure_future(desk.commanding.run(lambda: None))
            try:
                await asyncio.wait_for(scenario(desk), 20)
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.wait({task})

    asyncio.run(body())


def test_one_that_waited_past_its_expiry_is_refused(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.send("slow", b'{"id":"a"}', expiry_s=30)
        desk.clock.advance(31.0)
        await desk.until(lambda: desk.answers)
        assert "expired 1 s ago" in desk.answers[0]["reason"]

    run(tmp_path, scenario)


def test_a_few_are_under_way_at_once_the_rest_waits_its_turn(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        for number in range(COMMANDS_AT_ONCE_MAX + 3):
            desk.send("slow", b'{"id":"k%d"}' % number)
        await desk.until(lambda: desk.running == COMMANDS_AT_ONCE_MAX)
        desk.gate.set()
        await desk.until(lambda: sum(a["state"] == "done" for a in desk.answers) == COMMANDS_AT_ONCE_MAX + 3)
        assert desk.most == COMMANDS_AT_ONCE_MAX

    run(tmp_path, scenario)


def test_the_same_key_under_way_is_not_begun_again_and_afterwards_has_its_answer(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.send("slow", b'{"id":"a","x":1}')
        await desk.until(lambda: desk.running == 1)
        desk.send("slow", b'{"id":"a","x":1}')
        await desk.until(lambda: desk.states("a") == ["accepted", "accepted"])
        assert desk.running == 1
        desk.gate.set()
        await desk.until(lambda: "done" in desk.states("a"))
        desk.send("slow", b'{"id":"a","x":1}')
        await desk.until(lambda: desk.states("a").count("done") == 2)
        assert desk.answers[-1]["repeated"]
        assert desk.answers[-1]["result"] == {"got": {"x": 1}}
        desk.send("fail", b'{"id":"a"}')  # the same key of another command is another command
        await desk.until(lambda: desk.answers[-1]["state"] == "failed")

    run(tmp_path, scenario)


def test_a_handler_that_fails_or_crashes_is_an_answer_not_an_end(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.send("fail")
        desk.send("crash", correlation=b"\x01", response_topic="me")
        await desk.until(lambda: sum(a["state"] == "failed" for a in desk.answers) == 2)
        assert [a["reason"] for a in desk.answers if a["state"] == "failed"] == [
            "no; the old model stays", "ZeroDivisionError: oops"
        ]  # fmt: skip
        assert [m.correlation for m in desk.posts] == [b"\x01", b"\x01"]

    run(tmp_path, scenario)


def test_what_cannot_be_remembered_is_not_carried_out(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.disk = DeviceError("disk full")
        desk.gate.set()
        desk.send("slow", b'{"id":"a"}')
        await desk.until(lambda: desk.answers)
        assert "might be carried out twice: disk full" in desk.answers[0]["reason"]
        assert desk.most == 0
        desk.disk = None
        desk.send("slow", b'{"id":"a"}')
        await desk.until(lambda: desk.states("a")[-1] == "done")

    run(tmp_path, scenario)


def test_more_than_a_burst_gets_no_answer_until_time_passes(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.gate.set()
        for number in range(COMMANDS_BURST + 20):
            desk.send("nope", b'{"id":"k%d"}' % number)
            await asyncio.sleep(0)
            await desk.until(lambda: not desk.commanding._arrived)
        await desk.until(lambda: len(desk.answers) == COMMANDS_BURST)
        desk.clock.advance(1.0)
        desk.send("nope", b'{"id":"later"}')
        await desk.until(lambda: desk.states("later"))
        assert len(desk.answers) == COMMANDS_BURST + 1

    run(tmp_path, scenario)


def test_a_command_that_was_cut_off_is_closed_as_failed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "commands.db")
    assert ledger.begin("update", "a", 1.0) is None
    ledger.close()
    assert Ledger(tmp_path / "commands.db").begin("update", "a", 2.0) == Entry("failed", None, CUT_OFF)


def test_the_ledger_is_bounded_and_a_damaged_one_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nis_edge.adapters.ledger.COMMAND_KEYS_MAX", 10)
    assert COMMAND_KEYS_MAX > 10
    path = tmp_path / "commands.db"
    ledger = Ledger(path)
    for number in range(30):
        ledger.begin("x", str(number), float(number))
    assert ledger._db.execute("SELECT count(*), min(taken) FROM command").fetchone() == (10, 20.0)
    ledger.begin("x", "week-later", 30 * 86400.0)
    assert ledger._db.execute("SELECT count(*) FROM command").fetchone() == (1,)
    ledger.close()
    path.write_bytes(b"rubbish" * 5000)
    assert Ledger(path).begin("x", "a", 1.0) is None
