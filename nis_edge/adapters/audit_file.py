"""The audit trail on the disk: appended and flushed line by line, in segments of bounded size, the oldest let go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nis_edge.limits import UPDATE_AUDIT_BYTES_MAX, UPDATE_AUDIT_SEGMENTS
from nis_edge.update.audit import Entry, encode_entry, make_entry, read_entry

NAME: Final = "audit.jsonl"


class AuditFile:
    """One device's trail. One writer; readers may come at any time.

    Args:
        folder: where it lies.
        bytes_max: of one segment.
    """

    def __init__(self, folder: Path, bytes_max: int = UPDATE_AUDIT_BYTES_MAX) -> None:
        self._path = folder / NAME
        self._bytes_max = bytes_max
        self._last: Entry | None = None
        self._opened = False

    @property
    def last(self) -> Entry | None:
        """The newest entry."""
        self._open()
        return self._last

    def append(self, event: str, facts: dict[str, Any], at: float) -> Entry:
        """Add an entry; on return it survives a power cut.

        Raises:
            OSError: it could not be written; the trail is as before.
        """
        self._open()
        entry = make_entry(self._last, event, facts, at)
        line = encode_entry(entry)
        if self._path.is_file() and self._path.stat().st_size + len(line) > self._bytes_max:
            self._rotate()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            size = os.fstat(fd).st_size
            try:
                if os.write(fd, line) != len(line):
                    raise OSError("the line was cut short")
                os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._last = entry
        return entry

    def lines(self) -> Iterator[bytes]:
        """Every kept line, the oldest first."""
        for path in [*self._older(), self._path]:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                yield from file

    def _open(self) -> None:
        """Find the newest whole entry; a line that a power cut tore is cut off."""
        if self._opened:
            return
        self._opened = True
        for path in [self._path, *reversed(self._older())]:
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                whole = data[: data.rfind(b"\n") + 1]
                if path == self._path and len(whole) < len(data):
                    os.truncate(path, len(whole))
                if whole:
                    self._last = read_entry(whole.splitlines()[-1])
                    return

    def _older(self) -> list[Path]:
        return [self._path.with_name(f"{NAME}.{n}") for n in range(UPDATE_AUDIT_SEGMENTS, 0, -1)]

    def _rotate(self) -> None:
        older = self._older()
        older[0].unlink(missing_ok=True)
        for path, newer in zip(older, [*older[1:], self._path], strict=True):
            if newer.exists():
                newer.replace(path)
