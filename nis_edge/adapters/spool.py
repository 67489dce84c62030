"""Records on disk until the broker has them: one SQLite file, written in batches, deleted on acknowledgement.

Theory of operation. A record gets its sequence number, is written (WAL, synchronous FULL: a committed record survives a
power cut), is read by the sender, and its row is deleted when the broker has acknowledged it. A record that the broker
refuses for good is parked for a person to look at. When the bytes reach the cap, the oldest record of the lowest class
makes room, and every drop is counted by class; the counts survive a restart. Records past their time are dropped and
counted in the same way. On a full disk even deleting needs room, for the log: a reserve is held back for that, so that
what the broker has always leaves, and makes the room that new records need. A damaged file is set aside under another
name and a new one begun: the agent never stops for its spool.

Blocking: every method may wait for the disk. The roof calls all of them from one thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from nis_edge.errors import DeviceError
from nis_edge.limits import KIB, SPOOL_DAMAGED_KEPT_MAX, SPOOL_PARKED_MAX, SPOOL_READ_BYTES_MAX

Class = Literal["telemetry", "assessment", "event"]
CLASSES: Final[tuple[Class, ...]] = get_args(Class)
"""Lowest first: the order in which records make room."""

_RANK: Final[Mapping[Class, int]] = {kind: rank for rank, kind in enumerate(CLASSES)}

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE record (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    class INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    schema TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX record_by_class ON record (class, seq);
CREATE TABLE parked (
    seq INTEGER PRIMARY KEY, class INTEGER NOT NULL, boot_id TEXT NOT NULL, topic TEXT NOT NULL, schema TEXT NOT NULL,
    created REAL NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE dropped (class INTEGER PRIMARY KEY, records INTEGER NOT NULL);
"""

# Beside its payload a row costs its columns, its index entry and its share of half-empty pages. Counting this for each
# row keeps the file near the cap instead of twice as large when records are small.
ROW_OVERHEAD_BYTES: Final = 256


COMMIT_BYTES_MAX: Final = 192 * KIB
"""Of rows added by one transaction; with the log's own bound it bounds what the file may have to grow by."""

_LOG_PAGES: Final = 64
"""A checkpoint each 256 KiB keeps the log small on a small card."""

_RESERVE_BYTES: Final = 768 * KIB
"""Folding the log into the file may need ``_LOG_PAGES`` of 4 KiB, the last transaction beside them, and the index."""

_SHRINK_ROWS: Final = 64


@dataclass(frozen=True)
class Record:
    """One message to be delivered at least once.

    Args:
        kind: its class, which decides what makes room first.
        topic: where it goes.
        schema: name and version of the payload's form, e.g. ``nis.assessment/1``.
        payload: the bytes to send.
        boot_id: the run of the daemon that made it; with ``seq`` it identifies the record for ever.
        created: seconds since the epoch.
        expires: seconds since the epoch after which it is not worth sending.
        seq: given by the spool; 0 before.
    """

    kind: Class
    topic: str
    schema: str
    payload: bytes
    boot_id: str
    created: float
    expires: float
    seq: int = 0


@dataclass(frozen=True)
class SpoolCounts:
    """What the spool holds and what it let go, by class."""

    records: dict[Class, int]
    bytes_used: int
    dropped: dict[Class, int]
    parked: int
    last_seq: int


@dataclass
class _Tally:
    """Kept in memory so that no count needs a scan; read from the file once, at opening."""

    records: dict[Class, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    dropped: dict[Class, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    bytes_used: int = 0
    parked: int = 0
    last_seq: int = 0


class Spool:
    """The file. Open with ``Spool.open``.

    Raises:
        DeviceError: any method, when the disk refuses (full, read-only, failing). What was committed before is safe;
            the transaction that failed changed nothing and may be tried again.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, bytes_max: int) -> None:
        self._path = path
        self._db = connection
        self._bytes_max = bytes_max
        self._tally = _read_tally(connection)
        self._reserve = _Reserve(path.with_name(f"{path.name}.reserve"))
        self._reserve.hold()

    @staticmethod
    def open(path: Path, *, bytes_max: int) -> tuple[Spool, str | None]:
        """Open the file or begin a new one.

        Args:
            path: of the database; its folder exists.
            bytes_max: cap on payloads with their overhead.

        Returns:
            The spool, and None or what was wrong with an earlier file that is now set aside.
        """
        complaint = None
        try:
            connection = _connect(path)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise _refused("opened", path, error) from error
            complaint = f"{error}; set aside as {_set_aside(path).name}"
            try:
                connection = _connect(path)
            except sqlite3.Error as again:
                raise _refused("opened", path, again) from again
        return Spool(path, connection, bytes_max), complaint

    def commit(
        self,
        add: Sequence[Record] = (),
        delivered: Iterable[int] = (),
        refused: Iterable[tuple[int, str]] = (),
        lost: Mapping[Class, int] | None = None,
    ) -> list[Record]:
        """Write new records and forget delivered ones in one transaction: one fsync for all.

        Args:
            add: records without a number, in order.
            delivered: numbers that the broker acknowledged.
            refused: numbers that the broker refused for good, each with its reason.
            lost: records dropped before they came here, to be counted with the rest.

        Returns:
            The records of ``add`` that were kept, numbered. Those missing were dropped for want of room, and counted.
        """
        gone, parted = list(delivered), list(refused)
        try:
            return self._commit(add, gone, parted, lost or {})
        except sqlite3.Error as error:
            if _is_full(error) and (gone or parted):
                self._shrink(gone, parted)
            raise self._translated("written", error) from error

    def _commit(
        self, add: Sequence[Record], delivered: list[int], refused: list[tuple[int, str]], lost: Mapping[Class, int]
    ) -> list[Record]:
        before = _copy(self._tally)
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._delete_runs(delivered)
                for seq, reason in refused:
                    self._park(seq, reason)
                for kind, records in lost.items():
                    self._tally.dropped[kind] += records
                kept = self._insert_all(add)
                self._write_drops(before)
        except sqlite3.Error:
            self._tally = before
            raise
        return kept

    def _shrink(self, delivered: list[int], refused: list[tuple[int, str]]) -> None:
        """Let go of what is done with, on the reserve; the records to be added then find the room at the next try."""
        self._reserve.release()
        # The log first: folding it into the file is what the reserve is large enough for, and empties the log.
        self._fold()
        for first in range(0, len(delivered) + 1, _SHRINK_ROWS):
            last = first + _SHRINK_ROWS > len(delivered)
            with contextlib.suppress(sqlite3.Error):
                self._commit((), delivered[first : first + _SHRINK_ROWS], refused if last else [], {})
            self._fold()
        self._reserve.hold()

    def _fold(self) -> None:
        """Write the log into the file and cut it to nothing, as far as the disk allows."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def expire(self, now: float) -> int:
        """Drop what is past its time, and count it.

        Args:
            now: seconds since the epoch.

        Returns:
            How many were dropped.
        """
        before = _copy(self._tally)
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                stale = [seq for (seq,) in self._db.execute("SELECT seq FROM record WHERE expires <= ?", (now,))]
                self._delete(stale, dropped=True)
                self._write_drops(before)
        except sqlite3.Error as error:
            self._tally = before
            raise self._translated("written", error) from error
        return len(stale)

    def read(self, after: int, limit: int) -> list[Record]:
        """The oldest records behind a number, in order.

        Args:
            after: a sequence number; 0 begins at the oldest.
            limit: at most so many; reading also ends at the record that makes ``SPOOL_READ_BYTES_MAX``.
        """
        query = (
            "SELECT class, topic, schema, payload, boot_id, created, expires, seq FROM record "
            "WHERE seq > ? ORDER BY seq LIMIT ?"
        )
        found: list[Record] = []
        size = 0
        try:
            for row in self._db.execute(query, (after, limit)):
                found.append(Record(CLASSES[row[0]], *row[1:]))
                size += len(row[3])
                if size >= SPOOL_READ_BYTES_MAX:
                    break
        except sqlite3.Error as error:
            raise self._translated("read", error) from error
        return found

    def counts(self) -> SpoolCounts:
        """What is held and what was dropped, without touching the disk."""
        tally = self._tally
        return SpoolCounts(dict(tally.records), tally.bytes_used, dict(tally.dropped), tally.parked, tally.last_seq)

    def parked(self) -> list[tuple[Record, str]]:
        """What the broker refused for good, with its reasons, oldest first."""
        query = "SELECT class, topic, schema, payload, boot_id, created, seq, reason FROM parked ORDER BY seq"
        try:
            rows = self._db.execute(query).fetchall()
        except sqlite3.Error as error:
            raise self._translated("read", error) from error
        return [(Record(CLASSES[r[0]], r[1], r[2], r[3], r[4], r[5], r[5], r[6]), r[7]) for r in rows]

    def close(self) -> None:
        """Fold the log into the file and close. Never raises: what is committed is safe without it."""
        self._fold()
        self._db.close()
        self._reserve.release()

    def _insert_all(self, records: Sequence[Record]) -> list[Record]:
        size = sum(_size(record) for record in records)
        if self._tally.bytes_used + size <= self._bytes_max:
            return self._insert(records)
        # One by one: an early record of these may have to make room for a later one of a higher class.
        return [kept for record in records if self._make_room(record) for kept in self._insert([record])]

    def _insert(self, records: Sequence[Record]) -> list[Record]:
        first = self._tally.last_seq + 1
        numbered = [
            Record(r.kind, r.topic, r.schema, r.payload, r.boot_id, r.created, r.expires, seq)
            for seq, r in enumerate(records, first)
        ]
        self._db.executemany(
            "INSERT INTO record (seq, class, boot_id, topic, schema, created, expires, payload) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(r.seq, _RANK[r.kind], r.boot_id, r.topic, r.schema, r.created, r.expires, r.payload) for r in numbered],
        )
        for record in numbered:
            self._tally.records[record.kind] += 1
            self._tally.bytes_used += _size(record)
        self._tally.last_seq += len(numbered)
        return numbered

    def _make_room(self, record: Record) -> bool:
        """Drop what must go for this record; False, and counted, when only higher classes could."""
        while self._tally.bytes_used + _size(record) > self._bytes_max:
            if not self._drop_oldest(up_to_rank=_RANK[record.kind]):
                self._tally.dropped[record.kind] += 1
                return False
        return True

    def _drop_oldest(self, up_to_rank: int) -> bool:
        found = self._db.execute(
            "SELECT seq FROM record WHERE class <= ? ORDER BY class, seq LIMIT 1", (up_to_rank,)
        ).fetchone()
        if found is None:
            return False
        self._delete([found[0]], dropped=True)
        return True

    def _delete_runs(self, seqs: Iterable[int]) -> None:
        """Delete many at once: delivered records mostly follow one another."""
        for first, last in _runs(seqs):
            for rank, records, size in self._db.execute(
                "SELECT class, count(*), sum(length(payload)) FROM record WHERE seq BETWEEN ? AND ? GROUP BY class",
                (first, last),
            ).fetchall():
                self._tally.records[CLASSES[rank]] -= records
                self._tally.bytes_used -= size + records * ROW_OVERHEAD_BYTES
            self._db.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (first, last))

    def _delete(self, seqs: Iterable[int], *, dropped: bool = False) -> None:
        for seq in seqs:
            row = self._db.execute(
                "DELETE FROM record WHERE seq = ? RETURNING class, length(payload)", (seq,)
            ).fetchone()
            if row is None:
                continue
            kind = CLASSES[row[0]]
            self._tally.records[kind] -= 1
            self._tally.bytes_used -= row[1] + ROW_OVERHEAD_BYTES
            self._tally.dropped[kind] += dropped

    def _park(self, seq: int, reason: str) -> None:
        moved = self._db.execute(
            "INSERT OR REPLACE INTO parked "
            "SELECT seq, class, boot_id, topic, schema, created, payload, ? FROM record WHERE seq = ?",
            (reason[:500], seq),
        ).rowcount
        self._delete([seq])
        self._tally.parked += moved
        if self._tally.parked > SPOOL_PARKED_MAX:
            (rank,) = self._db.execute(
                "DELETE FROM parked WHERE seq = (SELECT min(seq) FROM parked) RETURNING class"
            ).fetchone()
            self._tally.parked -= 1
            self._tally.dropped[_class_of(rank)] += 1

    def _write_drops(self, before: _Tally) -> None:
        for kind, records in self._tally.dropped.items():
            if records != before.dropped[kind]:
                self._db.execute("INSERT OR REPLACE INTO dropped VALUES (?, ?)", (CLASSES.index(kind), records))

    def _translated(self, done: str, error: sqlite3.Error) -> DeviceError:
        return _refused(done, self._path, error)


class _Reserve:
    """Bytes of the disk that are held back for the moment when it is full."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self) -> None:
        """Take them, where the disk has room for twice as much; a disk that refuses is left as it is."""
        try:
            space = os.statvfs(self._path.parent)
            if self._path.exists() or space.f_bavail * space.f_frsize < 2 * _RESERVE_BYTES:
                return
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()

    def release(self) -> None:
        """Give them back."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class SpoolDamagedError(DeviceError):
    """The file's content is damaged: close it and open again, which sets it aside."""


def _refused(done: str, path: Path, error: sqlite3.Error) -> DeviceError:
    kind = SpoolDamagedError if _is_damage(error) else DeviceError
    return kind(f"spool {path} can't be {done}: {error}; records already in it are safe")


def _is_full(error: sqlite3.Error) -> bool:
    return "full" in str(error)


def _size(record: Record) -> int:
    return len(record.payload) + ROW_OVERHEAD_BYTES


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers without a gap."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def _is_damage(error: sqlite3.Error) -> bool:
    # SQLite calls a damaged file a plain DatabaseError, and what the disk refuses an operational one; but a file with
    # other tables than ours is operational too.
    return not isinstance(error, sqlite3.OperationalError) or str(error).startswith(
        ("no such ", "table record already")
    )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {4 * _LOG_PAGES * KIB}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"written by another version of nis-edge (form {version})")
        elif (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"damaged: {verdict}")
        _read_tally(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_tally(connection: sqlite3.Connection) -> _Tally:
    tally = _Tally()
    for rank, records, size in connection.execute(
        "SELECT class, count(*), sum(length(payload)) FROM record GROUP BY class"
    ):
        tally.records[_class_of(rank)] = records
        tally.bytes_used += size + records * ROW_OVERHEAD_BYTES
    for rank, records in connection.execute("SELECT class, records FROM dropped"):
        tally.dropped[_class_of(rank)] = records
    tally.parked = connection.execute("SELECT count(*) FROM parked").fetchone()[0]
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    tally.last_seq = found[0] if found else 0
    return tally


def _class_of(rank: int) -> Class:
    if not 0 <= rank < len(CLASSES):
        raise sqlite3.DatabaseError(f"damaged: no class of records has the number {rank}")
    return CLASSES[rank]


def _copy(tally: _Tally) -> _Tally:
    return _Tally(dict(tally.records), dict(tally.dropped), tally.bytes_used, tally.parked, tally.last_seq)


def _set_aside(path: Path) -> Path:
    """Rename the database with its log, so that a person can look at them; the oldest of several makes room."""
    kept = [path.with_name(f"{path.name}.damaged-{number}") for number in range(1, SPOOL_DAMAGED_KEPT_MAX + 1)]
    for older, newer in zip(reversed(kept), reversed(kept[:-1]), strict=False):
        _rename_with_log(newer, older)
    _rename_with_log(path, kept[0])
    return kept[0]


def _rename_with_log(source: Path, target: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        end = target.with_name(target.name + suffix)
        end.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            source.with_name(source.name + suffix).rename(end)
