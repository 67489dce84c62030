"""The way out of the daemon: records wait in memory for one shared write, then on disk for the broker.

The spool (SQLite) blocks, so it lives in a thread of its own; this is its face on the asyncio side. ``put`` never
waits. Records that arrive within ``commit_s`` share one transaction, and so do the acknowledgements of that time. While
the disk refuses (full, read-only, damaged), records wait in memory up to a bound; beyond it the
oldest of the lowest class is dropped and counted. The agent goes on in every case.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from nis_edge.adapters.spool import (
    CLASSES,
    COMMIT_BYTES_MAX,
    ROW_OVERHEAD_BYTES,
    Class,
    Record,
    Spool,
    SpoolCounts,
    SpoolDamagedError,
)
from nis_edge.clock import Clock
from nis_edge.errors import DeviceError
from nis_edge.limits import SPOOL_RECORD_BYTES_MAX
from nis_edge.supervisor import Beat
from nis_edge.waiting import within

T = TypeVar("T")

RETRY_S: Final = 2.0
"""Between two attempts while the disk refuses."""

HEART_S: Final = 5.0
"""Between two beats while nothing comes: an idle device is not woken more than it must."""

EXPIRE_EVERY_S: Final = 60.0
TELL_DROPS_EVERY_S: Final = 60.0

OpenSpool = Callable[[], tuple[Spool, str | None]]


@dataclass(frozen=True)
class OutboxCounts:
    """What waits, what was kept and what was let go since the spool began, by class."""

    on_disk: dict[Class, int]
    bytes_on_disk: int
    in_memory: int
    dropped: dict[Class, int]
    parked: int
    last_seq: int
    kept: dict[Class, int]
    delivered: int
    failing: str | None


class _Waiting:
    """Records in memory, in order, from which the oldest of the lowest class can be taken at once."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._tickets: dict[Class, deque[int]] = {kind: deque() for kind in CLASSES}
        self._next = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def fills_a_commit(self) -> bool:
        """Whether waiting longer would bring no more into the next transaction."""
        return self.size + len(self._records) * ROW_OVERHEAD_BYTES >= COMMIT_BYTES_MAX

    def put(self, record: Record) -> None:
        self._records[self._next] = record
        self._tickets[record.kind].append(self._next)
        self._next += 1
        self.size += len(record.payload)

    def take(self, bytes_max: float = float("inf")) -> list[Record]:
        """The oldest, at least one, until their rows fill so many bytes."""
        taken: list[Record] = []
        size = 0
        while self._records and size < bytes_max:
            ticket = next(iter(self._records))
            record = self._records.pop(ticket)
            self._tickets[record.kind].popleft()  # the oldest of all is the oldest of its class
            self.size -= len(record.payload)
            size += len(record.payload) + ROW_OVERHEAD_BYTES
            taken.append(record)
        return taken

    def put_back(self, taken: list[Record]) -> None:
        later = self.take()
        for record in (*taken, *later):
            self.put(record)

    def drop_oldest(self) -> Class:
        """Drop the oldest record of the lowest class; its class."""
        kind = next(kind for kind in CLASSES if self._tickets[kind])
        self.size -= len(self._records.pop(self._tickets[kind].popleft()).payload)
        return kind


class Outbox:
    """Records on their way out.

    Args:
        open_spool: opens the file; blocking, called in ``thread``.
        thread: an executor of exactly one thread.
        memory_bytes_max: records that wait for the disk; more is dropped by class.
        commit_s: how long a record may wait for others to share its write; an ``event`` does not wait, nor do as many
            as fill one.
        clock: the time.
        log: a structlog logger.
        has_news: called when records have become ready to be sent.
    """

    def __init__(
        self,
        open_spool: OpenSpool,
        thread: Executor,
        *,
        commit_s: float,
        memory_bytes_max: int,
        clock: Clock,
        log: Any,
        has_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_spool = open_spool
        self._thread = thread
        self._commit_s = commit_s
        self._memory_bytes_max = memory_bytes_max
        self._clock = clock
        self._log = log
        self.has_news = has_news
        self._spool: Spool | None = None
        self._held: SpoolCounts | None = None  # what it held when last asked
        self._waiting = _Waiting()
        self._writing: asyncio.Task[bool] | None = None
        self._delivered: set[int] = set()
        self._refused: dict[int, str] = {}
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._lost: dict[Class, int] = dict.fromkeys(CLASSES, 0)
        self._kept: dict[Class, int] = dict.fromkeys(CLASSES, 0)
        self._delivered_count = 0
        self._failing: str | None = None
        self._told = dict.fromkeys(CLASSES, 0)
        self._told_at = float("-inf")
        self._expired_at = clock.monotonic()

    def put(self, record: Record) -> None:
        """Take one record; never waits, never fails."""
        if len(record.payload) > SPOOL_RECORD_BYTES_MAX:
            self._lost[record.kind] += 1
            return
        self._waiting.put(record)
        self._keep_bound()
        self._wake.set()
        if record.kind == "event" or self._waiting.fills_a_commit:
            self._urgent.set()

    def delivered(self, seq: int) -> None:
        """The broker has this one."""
        self._delivered.add(seq)
        self._delivered_count += 1
        self._wake.set()

    def refused(self, seq: int, reason: str) -> None:
        """The broker will never take this one."""
        self._refused[seq] = reason
        self._wake.set()

    async def read(self, after: int, limit: int) -> list[Record]:
        """The oldest records on disk behind a number that are neither delivered nor refused; empty while it refuses.

        Args:
            after: a sequence number; 0 begins at the oldest.
            limit: at most so many; fewer where they are large.
        """
        while self._spool is not None:
            try:
                found = await self._call(self._spool.read, after, limit)
            except DeviceError as error:
                self._fail(error)
                return []
            wanted = [r for r in found if r.seq not in self._delivered and r.seq not in self._refused]
            if wanted or not found:
                return wanted
            after = found[-1].seq
        return []

    def counts(self) -> OutboxCounts:
        """What waits and what was let go."""
        if self._spool is not None:
            self._held = self._spool.counts()
        held = self._held
        dropped = {kind: self._lost[kind] + (held.dropped[kind] if held else 0) for kind in CLASSES}
        return OutboxCounts(
            on_disk=held.records if held else dict.fromkeys(CLASSES, 0),
            bytes_on_disk=held.bytes_used if held else 0,
            in_memory=len(self._waiting),
            dropped=dropped,
            parked=held.parked if held else 0,
            last_seq=held.last_seq if held else 0,
            kept=dict(self._kept),
            delivered=self._delivered_count,
            failing=self._failing,
        )

    async def run(self, beat: Beat) -> None:
        """Write what comes until cancelled, then write the rest and close the file."""
        try:
            while True:
                beat()
                if self._spool is None:
                    await self._open()
                await self._wait(HEART_S)
                if self._wake.is_set() and not self._urgent.is_set() and self._commit_s > 0.0:
                    await self._wait_urgent()
                if self._spool is not None:
                    # A write under way is finished even when this loop is cancelled.
                    self._writing = asyncio.ensure_future(self._write(self._spool))
                    if not await asyncio.shield(self._writing):
                        await asyncio.sleep(RETRY_S)
                await self._expire()
                self._tell_drops()
        finally:
            await self._finish()

    async def _wait(self, seconds: float) -> None:
        try:
            await within(self._wake.wait(), seconds)
        except asyncio.TimeoutError:
            return

    async def _wait_urgent(self) -> None:
        try:
            await within(self._urgent.wait(), self._commit_s)
        except asyncio.TimeoutError:
            return

    async def _open(self) -> None:
        try:
            self._spool, complaint = await self._call(self._open_spool)
        except DeviceError as error:
            self._fail(error)
            await asyncio.sleep(RETRY_S)
            return
        if complaint is not None:
            self._log.error("spool.set_aside", reason=complaint, unharmed="a new spool was begun; the agent goes on")
        self._recover()
        self._told = self.counts().dropped  # what an earlier run told is not told again
        self.has_news()

    async def _write(self, spool: Spool) -> bool:
        """Put what waits on disk; False when the disk refused, and then everything still waits."""
        self._wake.clear()
        self._urgent.clear()
        if not (len(self._waiting) or self._delivered or self._refused or any(self._lost.values())):
            return True
        add, delivered, refused = self._waiting.take(COMMIT_BYTES_MAX), set(self._delivered), dict(self._refused)
        if len(self._waiting):
            self._wake.set()
        if self._waiting.fills_a_commit:
            self._urgent.set()
        lost = dict(self._lost)
        try:
            kept = await self._call(spool.commit, add, delivered, list(refused.items()), lost)
        except DeviceError as error:
            self._waiting.put_back(add)
            self._keep_bound()
            self._wake.set()
            self._fail(error)
            if isinstance(error, SpoolDamagedError):
                self._spool = None
                self._held = None
                await self._call(spool.close)
            return False
        for kind, records in lost.items():
            self._lost[kind] -= records  # the file remembers them now
        self._delivered -= delivered
        for seq in refused:
            self._refused.pop(seq, None)
        for record in kept:
            self._kept[record.kind] += 1
        self._recover()
        if kept:
            self.has_news()
        return True

    async def _expire(self) -> None:
        now = self._clock.monotonic()
        if self._spool is None or now - self._expired_at < EXPIRE_EVERY_S:
            return
        self._expired_at = now
        try:
            await self._call(self._spool.expire, self._clock.wall())
        except DeviceError as error:
            self._fail(error)

    async def _finish(self) -> None:
        if self._writing is not None and not self._writing.done():
            await self._writing
        if self._spool is None and len(self._waiting):
            try:
                self._spool, _ = await self._call(self._open_spool)
            except DeviceError as error:
                self._fail(error)
        while self._spool is not None and await self._write(self._spool) and len(self._waiting):
            pass
        if self._spool is not None:
            self.counts()
            await self._call(self._spool.close)
            self._spool = None
        if len(self._waiting):
            self._log.error(
                "spool.failed",
                reason=f"{len(self._waiting)} records could not be written before the end: {self._failing}",
                unharmed="records already on disk",
            )

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _fail(self, error: DeviceError) -> None:
        reason = str(error)
        if self._failing is None:
            self._log.error(
                "spool.failed",
                reason=reason,
                unharmed=f"judging; {self._memory_bytes_max >> 20} MiB can wait in memory, drops are counted",
            )
        self._failing = reason

    def _recover(self) -> None:
        if self._failing is not None:
            self._log.info("spool.recovered", waiting=len(self._waiting))
        self._failing = None

    def _keep_bound(self) -> None:
        while self._waiting.size > self._memory_bytes_max:
            self._lost[self._waiting.drop_oldest()] += 1

    def _tell_drops(self) -> None:
        now, dropped = self._clock.monotonic(), self.counts().dropped
        if dropped == self._told or now - self._told_at < TELL_DROPS_EVERY_S:
            return
        new = {kind: dropped[kind] - self._told[kind] for kind in CLASSES if dropped[kind] != self._told[kind]}
        self._log.warning("spool.overflowed", dropped=new, unharmed="newer records and higher classes are kept")
        self._told, self._told_at = dropped, now
