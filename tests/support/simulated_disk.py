"""A disk that forgets: what was not flushed is lost, kept or torn when the power is cut, as the seed decides.

The rules are those of POSIX at its nastiest, not those of a friendly file system. Written bytes are durable after a
flush of the file; before that each 512-byte sector of them may or may not have arrived. Names are durable after a flush
of their folder; before that each change may or may not have arrived, except that a rename never loses the file: its old
name goes only if its new one came. A flushed file under a name that was not flushed is lost.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field

SECTOR = 512


class PowerCut(BaseException):
    """The power is gone: an event that nobody may handle; nothing of the running program survives."""


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    """Writes (offset, data) and truncations (length) since the last flush."""


@dataclass
class _NameChange:
    folder: str
    name: str
    file: _File | None
    """The file now under the name; None: the name goes."""
    only_after: _NameChange | None = None


class SimulatedDisk:
    """Implements the slot store's `Disk`.

    Args:
        capacity: bytes that fit.
        cut_at: number of the call (from 1) during which the power goes; None: never.
        fail_at: number of a call -> errno it fails with.

    Attributes:
        garbles: what the medium changes silently: the next flush of a file that holds this turns its last byte over.
        calls: names of the calls that change something, in order; their position is what `cut_at` counts.
    """

    def __init__(
        self, capacity: int = 1 << 40, cut_at: int | None = None, fail_at: dict[int, int] | None = None
    ) -> None:
        self.capacity = capacity
        self.cut_at = cut_at
        self.fail_at = fail_at or {}
        self.calls: list[str] = []
        self.garbles: bytes | None = None
        self._folders: dict[str, dict[str, _File]] = {}
        self._durable_folders: dict[str, dict[str, _File]] = {}
        self._changes: list[_NameChange] = []
        self._open: dict[int, tuple[_File, bool]] = {}
        self._next_fd = 1000

    # --- after the cut ------------------------------------------------------------------------------------------------

    def after_cut(self, mode: str, seed: int = 0) -> SimulatedDisk:
        """The disk as the next start finds it. `mode`: lost, kept, or torn (as the seed decides)."""
        chance = random.Random(seed)

        def arrives() -> bool:
            return mode == "kept" or (mode == "torn" and chance.random() < 0.5)

        fresh = SimulatedDisk(self.capacity)
        names: dict[str, dict[str, _File]] = {folder: dict(files) for folder, files in self._durable_folders.items()}
        arrived: set[int] = set()
        for change in self._changes:
            if change.only_after is not None and id(change.only_after) not in arrived:
                continue
            if not arrives():
                continue
            arrived.add(id(change))
            files = names.setdefault(change.folder, {})
            if change.file is not None:
                files[change.name] = change.file
            else:
                files.pop(change.name, None)
        survivors: dict[int, _File] = {}
        for folder in self._folders:
            kept = names.get(folder, {})
            fresh._folders[folder] = {}
            for name, file in kept.items():
                if id(file) not in survivors:
                    content = _settle(file, arrives)
                    survivors[id(file)] = _File(bytearray(content), bytearray(content))
                fresh._folders[folder][name] = survivors[id(file)]
            fresh._durable_folders[folder] = dict(fresh._folders[folder])
        return fresh

    # --- Disk ---------------------------------------------------------------------------------------------------------

    def open(self, path: str, *, write: bool, create: bool = False) -> int:
        folder, name = _split(path)
        files = self._folders.get(folder, {})
        if name not in files:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._call("create")
            files = self._folders.setdefault(folder, {})
            files[name] = _File()
            self._changes.append(_NameChange(folder, name, files[name]))
            self._cut_if_due()
        self._next_fd += 1
        self._open[self._next_fd] = (files[name], write)
        return self._next_fd

    def close(self, fd: int) -> None:
        del self._open[fd]

    def size(self, fd: int) -> int:
        return len(self._open[fd][0].seen)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return bytes(self._open[fd][0].seen[offset : offset + length])

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._call("pwrite")
        file, writable = self._open[fd]
        assert writable
        grown = max(0, offset + len(data) - len(file.seen))
        if grown > self._free():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _write(file.seen, offset, data)
        file.pending.append((offset, bytes(data)))
        self._cut_if_due()

    def truncate(self, fd: int, length: int) -> None:
        self._call("truncate")
        file = self._open[fd][0]
        del file.seen[length:]
        file.pending.append(length)
        self._cut_if_due()

    def allocate(self, fd: int, length: int) -> None:
        self._call("allocate")
        file = self._open[fd][0]
        grown = max(0, length - len(file.seen))
        if grown > self._free():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if grown:
            file.pending.append((len(file.seen), bytes(grown)))
            file.seen.extend(bytes(grown))
        self._cut_if_due()

    def flush(self, fd: int) -> None:
        self._call("flush")
        self._cut_if_due()
        file = self._open[fd][0]
        file.durable = bytearray(file.seen)
        file.pending.clear()
        if self.garbles is not None and self.garbles in file.durable:
            file.durable[file.durable.index(self.garbles) + len(self.garbles) - 1] ^= 255
            self.garbles = None

    def forget_cached(self, fd: int) -> None:
        file = self._open[fd][0]
        if not file.pending:  # what is not flushed cannot be dropped from memory
            file.seen = bytearray(file.durable)

    def flush_folder(self, path: str) -> None:
        self._call("flush_folder")
        self._cut_if_due()
        kept = []
        for change in self._changes:
            if change.folder != path:
                kept.append(change)
                continue
            files = self._durable_folders.setdefault(path, {})
            if change.file is not None:
                files[change.name] = change.file
            else:
                files.pop(change.name, None)
            for other in self._changes:
                if other.only_after is change:
                    other.only_after = None
        self._changes = kept

    def make_folder(self, path: str) -> None:
        self._folders.setdefault(path, {})

    def rename(self, old: str, new: str) -> None:
        self._call("rename")
        (old_folder, old_name), (new_folder, new_name) = _split(old), _split(new)
        file = self._folders[old_folder].pop(old_name)
        self._folders[new_folder][new_name] = file
        came = _NameChange(new_folder, new_name, file)
        self._changes += [came, _NameChange(old_folder, old_name, None, only_after=came)]
        self._cut_if_due()

    def remove(self, path: str) -> None:
        folder, name = _split(path)
        if name in self._folders.get(folder, {}):
            self._call("remove")
            del self._folders[folder][name]
            self._changes.append(_NameChange(folder, name, None))
            self._cut_if_due()

    def remove_folder(self, path: str) -> None:
        if path in self._folders and not self._folders[path]:
            self._call("remove_folder")
            del self._folders[path]
            self._cut_if_due()

    def names(self, path: str) -> list[str]:
        children = {folder[len(path) + 1 :].split("/")[0] for folder in self._folders if folder.startswith(path + "/")}
        return sorted(children | set(self._folders.get(path, {})))

    def free_bytes(self, path: str) -> int:
        return self._free()

    # --- for tests ----------------------------------------------------------------------------------------------------

    def content(self, path: str) -> bytearray:
        """The bytes of a file, to be read or damaged; what is changed here is changed on the medium."""
        folder, name = _split(path)
        return self._folders[folder][name].seen

    def _free(self) -> int:
        return self.capacity - sum(len(file.seen) for files in self._folders.values() for file in files.values())

    def _call(self, name: str) -> None:
        self.calls.append(name)
        code = self.fail_at.get(len(self.calls))
        if code is not None:
            raise OSError(code, os.strerror(code))

    def _cut_if_due(self) -> None:
        if self.cut_at is not None and len(self.calls) >= self.cut_at:
            raise PowerCut


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _settle(file: _File, arrives: object) -> bytearray:
    content = bytearray(file.durable)
    for change in file.pending:
        if isinstance(change, int):
            if arrives():  # type: ignore[operator]
                del content[change:]
            continue
        offset, data = change
        for start in range(0, len(data), SECTOR):
            if arrives():  # type: ignore[operator]
                _write(content, offset + start, data[start : start + SECTOR])
    return content
