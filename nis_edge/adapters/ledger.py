"""Which commands were taken and what came of them: one small SQLite file, so that none is carried out twice.

A command is written down before it is carried out and its end is written after. One that has a beginning and no end
when the file is opened was cut off by the end of the process: it is closed as failed, never carried out again by
itself.

Blocking: every method may wait for the disk. The roof calls all of them from one thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nis_edge.errors import DeviceError
from nis_edge.limits import COMMAND_KEY_SECONDS_MAX, COMMAND_KEYS_MAX

CUT_OFF: Final = (
    "the daemon ended while it carried this out; look at its status, then send the command again under another id"
)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS command (
    name TEXT NOT NULL, key TEXT NOT NULL, taken REAL NOT NULL, state TEXT NOT NULL, result BLOB, reason TEXT,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """What is known of a command that was taken before; ``result`` is JSON or None."""

    state: Literal["accepted", "done", "failed"]
    result: bytes | None
    reason: str | None


class Ledger:
    """The file; a damaged one is begun anew, since what it held was worth a week at most.

    Raises:
        DeviceError: any method, when the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            try:
                self._db = _connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # damaged
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                self._db = _connect(path)
        except (sqlite3.Error, OSError) as error:
            raise DeviceError(f"ledger of commands {path} can't be opened: {error}") from error

    def begin(self, name: str, key: str, now: float) -> Entry | None:
        """Write a command down as taken; an entry instead when it was taken before.

        Args:
            name, key: what it is known by.
            now: seconds since the epoch.
        """
        with self._translated(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            found = self._db.execute(
                "SELECT state, result, reason FROM command WHERE name = ? AND key = ?", (name, key)
            ).fetchone()
            if found is not None:
                return Entry(*found)
            self._db.execute("INSERT INTO command VALUES (?, ?, ?, 'accepted', NULL, NULL)", (name, key, now))
            self._db.execute("DELETE FROM command WHERE taken < ?", (now - COMMAND_KEY_SECONDS_MAX,))
            self._db.execute(
                "DELETE FROM command WHERE (name, key) IN "
                "(SELECT name, key FROM command ORDER BY taken DESC LIMIT -1 OFFSET ?)",
                (COMMAND_KEYS_MAX,),
            )
        return None

    def end(self, name: str, key: str, entry: Entry) -> None:
        """Write down what came of it."""
        with self._translated(), self._db:
            self._db.execute(
                "UPDATE command SET state = ?, result = ?, reason = ? WHERE name = ? AND key = ?",
                (entry.state, entry.result, entry.reason, name, key),
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DeviceError(f"ledger of commands {self._path} can't be written: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(_SCHEMA)
        db.execute("UPDATE command SET state = 'failed', reason = ? WHERE state = 'accepted'", (CUT_OFF,))
    except BaseException:
        db.close()
        raise
    return db
