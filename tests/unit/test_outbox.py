"""The outbox: what is put comes out once, whatever the disk does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nis_edge import outbox as module
from nis_edge.adapters.spool import (
    COMMIT_BYTES_MAX,
    ROW_OVERHEAD_BYTES,
    Class,
    Record,
    Spool,
    SpoolDamagedError,
)
from nis_edge.errors import DeviceError
from nis_edge.limits import MIB, SPOOL_RECORD_BYTES_MAX
from nis_edge.outbox import Outbox
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog

MEMORY_BYTES_MAX = 4 * MIB


def record(kind: Class = "assessment", payload: bytes = b"{}", expires: float = 1e12) -> Record:
    return Record(kind, "t", "nis.test/1", payload, "b1", 1.0, expires)


class Disk:
    """Opens a real spool whose commits fail while ``refusal`` is set."""

    def __init__(self, folder: Path, bytes_max: int = 1 << 20) -> None:
        self.path = folder / "spool.db"
        self.bytes_max = bytes_max
        self.refusal: DeviceError | None = None
        self.garbage_at_open = False
        self.commits = 0

    def open(self) -> tuple[Spool, str | None]:
        if self.refusal is not None and not isinstance(self.refusal, SpoolDamagedError):
            raise self.refusal
        if self.garbage_at_open:
            # Now, while no SQLite holds the file: one that closes would write its own pages over the damage.
            self.garbage_at_open = False
            self.path.write_bytes(b"garbage" * 999)
            self.path.with_name("spool.db-wal").unlink(missing_ok=True)
        spool, complaint = Spool.open(self.path, bytes_max=self.bytes_max)
        commit = spool.commit

        def guarded(*args: Any) -> list[Record]:
            self.commits += 1
            if self.refusal is not None:
                raise self.refusal
            return commit(*args)

        spool.commit = guarded  # type: ignore[method-assign]
        return spool, complaint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)


def run(
    disk: Disk, scenario: Callable[[Outbox, KeptLog, SteppedClock], Awaitable[None]], commit_s: float = 0.0
) -> KeptLog:
    async def body() -> KeptLog:
        log, clock = KeptLog(), SteppedClock()
        with ThreadPoolExecutor(1) as thread:
            outbox = Outbox(
                disk.open, thread, commit_s=commit_s, memory_bytes_max=MEMORY_BYTES_MAX, clock=clock, log=log
            )
            task = asyncio.ensure_future(outbox.run(lambda: None))
            try:
                await asyncio.wait_for(scenario(outbox, log, clock), 10)
            finally:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        return log

    return asyncio.run(body())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_what_is_put_can_be_read_until_it_is_delivered(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        news: list[int] = []
        outbox.has_news = lambda: news.append(1)
        for payload in (b"1", b"2", b"3"):
            outbox.put(record(payload=payload))
        await until(lambda: outbox.counts().last_seq == 3)
        assert news
        assert [r.payload for r in await outbox.read(0, 2)] == [b"1", b"2"]
        outbox.delivered(1)
        outbox.refused(2, "no")
        assert [r.payload for r in await outbox.read(0, 9)] == [b"3"]
        await until(lambda: outbox.counts().on_disk["assessment"] == 1)
        assert outbox.counts().parked == 1

    run(Disk(tmp_path), scenario)


def test_records_that_come_together_share_one_write(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        for _ in range(50):
            outbox.put(record())
        await until(lambda: outbox.counts().last_seq == 50)
        assert disk.commits == 1

    run(disk, scenario, commit_s=0.05)


def test_an_event_does_not_wait_for_company(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        outbox.put(record("event"))
        await until(lambda: outbox.counts().last_seq == 1)

    run(Disk(tmp_path), scenario, commit_s=3600.0)


def test_as_many_records_as_fill_a_write_do_not_wait_either(tmp_path: Path) -> None:
    full = COMMIT_BYTES_MAX // (ROW_OVERHEAD_BYTES + 100) + 1

    async def scenario(outbox: Outbox, _log: KeptLog, _clock: SteppedClock) -> None:
        for _ in range(3 * full + 5):
            outbox.put(record(payload=b"x" * 100))
        await until(lambda: outbox.counts().kept["assessment"] >= 3 * full)
        assert outbox.counts().in_memory == 5, "what fills no write waits for company"

    run(Disk(tmp_path, bytes_max=64 * MIB), scenario, commit_s=60.0)


def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        await until(disk.path.exists)
        outbox.put(record(payload=b"last"))

    run(disk, scenario, commit_s=3600.0)
    assert [r.payload for r in disk.open()[0].read(0, 9)] == [b"last"]


def test_a_disk_that_refuses_loses_nothing_and_is_told_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        await until(disk.path.exists)
        disk.refusal = DeviceError("disk is full")
        for number in range(5):
            outbox.put(record(payload=b"%d" % number))
        await until(lambda: disk.commits > 3)
        assert outbox.counts().failing == "disk is full"
        assert outbox.counts().in_memory == 5
        disk.refusal = None
        await until(lambda: outbox.counts().last_seq == 5)
        assert [r.payload for r in await outbox.read(0, 9)] == [b"0", b"1", b"2", b"3", b"4"]
        assert outbox.counts().failing is None

    log = run(disk, scenario)
    assert len(log.named("spool.failed")) == 1
    assert len(log.named("spool.recovered")) == 1


def test_a_disk_that_refuses_from_the_start_is_tried_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.refusal = DeviceError("read-only")

    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        outbox.put(record())
        await until(lambda: log.named("spool.failed"))
        assert await outbox.read(0, 9) == []
        disk.refusal = None
        await until(lambda: outbox.counts().last_seq == 1)

    run(disk, scenario)


def test_memory_is_bounded_while_the_disk_refuses_and_the_lowest_class_goes_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.refusal = DeviceError("full")
    body = b"x" * (SPOOL_RECORD_BYTES_MAX // 2)
    fitting = MEMORY_BYTES_MAX // len(body)

    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        outbox.put(record("telemetry", body))
        outbox.put(record("event", b"keep me"))
        for _ in range(fitting + 3):
            outbox.put(record("assessment", body))
        dropped = outbox.counts().dropped
        assert dropped["telemetry"] == 1
        assert dropped["assessment"] >= 3
        assert dropped["event"] == 0
        await until(lambda: log.named("spool.overflowed"))
        disk.refusal = None
        await until(lambda: outbox.counts().kept["event"] == 1)

    run(disk, scenario)


def test_a_record_too_large_for_any_broker_is_dropped_and_counted(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        outbox.put(record(payload=b"x" * (SPOOL_RECORD_BYTES_MAX + 1)))
        assert outbox.counts().dropped["assessment"] == 1

    run(Disk(tmp_path), scenario)


def test_damage_met_while_running_sets_the_file_aside_and_keeps_what_waits(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        await until(disk.path.exists)
        disk.refusal = SpoolDamagedError("malformed")
        outbox.put(record(payload=b"survives"))
        await until(lambda: outbox.counts().failing)
        disk.garbage_at_open = True
        await until(lambda: log.named("spool.set_aside"))
        disk.refusal = None
        await until(lambda: outbox.counts().last_seq == 1)
        assert [r.payload for r in await outbox.read(0, 9)] == [b"survives"]

    run(disk, scenario)


def test_what_is_past_its_time_goes_by_itself(tmp_path: Path) -> None:
    async def scenario(outbox: Outbox, log: KeptLog, clock: SteppedClock) -> None:
        outbox.put(record(expires=clock.wall() + 10))
        await until(lambda: outbox.counts().last_seq == 1)
        clock.advance(module.EXPIRE_EVERY_S + 1)
        outbox.put(record("event"))
        await until(lambda: outbox.counts().dropped["assessment"] == 1)

    run(Disk(tmp_path), scenario)
