"""The disk under updates: content-addressed models, downloads in progress, and the two-record journal.

Rules this file keeps. A model is `store/<sha256>/model.nis` and is never changed in place. Bytes become a model in one
order only: written, flushed, re-read from the medium and re-hashed, flushed, renamed, folders flushed; only then may
the journal name it. The journal's records are written alternately. An error of a flush fails the update and is never
retried as if it had succeeded, because the kernel may already have dropped the pages.

All access goes through a `Disk`, so that tests can put a simulated one in its place and cut the power at every call.
What the journal says is decided by `update.machine`; this file only stores it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from nis_edge.errors import SlotWriteError
from nis_edge.limits import MIB, UPDATE_BLOCK_BYTES_MAX, UPDATE_RESERVE_BYTES
from nis_edge.update.bitmap import Bitmap
from nis_edge.update.facts import OLD_MODEL_STAYS
from nis_edge.update.journal import JOURNAL_BYTES, RECORD_BYTES, Journal, encode_record, newest, record_offset

MODEL_NAME: Final = "model.nis"
MAP_ENDING: Final = ".map"
"""Of the file beside a download that says which blocks of it are durable."""

FLUSH_EVERY_BYTES: Final = 4 * MIB
"""Downloaded bytes between flushes: a cut costs at most this much of a download."""

READ_BYTES: Final = MIB


class Disk(Protocol):
    """What the store needs of an operating system; each call may raise OSError."""

    def open(self, path: str, *, write: bool, create: bool = False) -> int:
        """A descriptor for reading, or for reading and writing."""
        ...

    def close(self, fd: int) -> None:
        """Give the descriptor back; says nothing about durability."""
        ...

    def size(self, fd: int) -> int:
        """Bytes in the file."""
        ...

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes at `offset`."""
        ...

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; not durable before a flush."""
        ...

    def truncate(self, fd: int, length: int) -> None:
        """Cut the file to `length` bytes."""
        ...

    def allocate(self, fd: int, length: int) -> None:
        """Take the room for `length` bytes now; the file is at least that long afterwards, zeros where it grew."""
        ...

    def flush(self, fd: int) -> None:
        """Make the file's data and size durable."""
        ...

    def forget_cached(self, fd: int) -> None:
        """Drop the file's clean pages from memory, so that the next read comes from the medium."""
        ...

    def flush_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        ...

    def make_folder(self, path: str) -> None:
        """Create a folder; one that exists is fine."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, atomically; an existing `new` is replaced."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; one that is absent is fine."""
        ...

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder; one that is absent is fine."""
        ...

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; none when it is absent."""
        ...

    def free_bytes(self, path: str) -> int:
        """Bytes an unprivileged process may still write."""
        ...


class OsDisk:
    """The operating system's files."""

    def open(self, path: str, *, write: bool, create: bool = False) -> int:
        """A descriptor that no child inherits and that follows no symbolic link."""
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o640)

    def close(self, fd: int) -> None:
        """close(2)."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """fstat(2)."""
        return os.fstat(fd).st_size

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """pread(2)."""
        return os.pread(fd, length, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        """pwrite(2), repeated until all is written."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

    def truncate(self, fd: int, length: int) -> None:
        """ftruncate(2)."""
        os.ftruncate(fd, length)

    def allocate(self, fd: int, length: int) -> None:
        """posix_fallocate(3)."""
        os.posix_fallocate(fd, 0, length)

    def flush(self, fd: int) -> None:
        """fsync(2): data, size and whatever else is needed to read the file back."""
        os.fsync(fd)

    def forget_cached(self, fd: int) -> None:
        """posix_fadvise(2) DONTNEED."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def flush_folder(self, path: str) -> None:
        """fsync(2) of the folder."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        """mkdir(2)."""
        Path(path).mkdir(mode=0o750, exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        """rename(2)."""
        Path(old).replace(new)

    def remove(self, path: str) -> None:
        """unlink(2)."""
        Path(path).unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        """rmdir(2)."""
        if Path(path).exists():
            Path(path).rmdir()

    def names(self, path: str) -> list[str]:
        """readdir(3)."""
        return sorted(entry.name for entry in Path(path).iterdir()) if Path(path).is_dir() else []

    def free_bytes(self, path: str) -> int:
        """statvfs(3)."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize


class DamagedDownloadError(SlotWriteError):
    """What was downloaded is not what was signed; it was dropped."""


class SlotStore:
    """Models, downloads and the journal of one device, under one folder.

    Args:
        folder: e.g. /var/lib/nis-edge/update; its parent exists.
        disk: the operating system's, or a simulated one.
    """

    def __init__(self, folder: str | Path, disk: Disk | None = None) -> None:
        self._folder = str(folder)
        self._disk: Disk = disk if disk is not None else OsDisk()
        self._store = f"{self._folder}/store"
        self._partial = f"{self._folder}/partial"
        self.journal_path = f"{self._folder}/journal"

    def prepare(self) -> None:
        """Make the folders durable; costs nothing when they stand.

        Raises:
            SlotWriteError: they cannot be made; the operator acts (read-only or full disk, wrong owner).
        """
        with _as_slot_error(f"update store {self._folder}"):
            parent = self._folder.rpartition("/")[0] or "."
            if not self._disk.names(self._folder):
                self._disk.make_folder(self._folder)
                self._disk.make_folder(self._store)
                self._disk.make_folder(self._partial)
                self._disk.flush_folder(self._folder)
                self._disk.flush_folder(parent)
            else:
                self._disk.make_folder(self._store)
                self._disk.make_folder(self._partial)

    # --- journal ------------------------------------------------------------------------------------------------------

    def read_journal(self) -> Journal | None:
        """The newest good record; None when there is no journal or no record of it is readable."""
        try:
            fd = self._disk.open(self.journal_path, write=False)
        except OSError:
            return None
        try:
            return newest(self._disk.pread(fd, JOURNAL_BYTES, 0))
        except OSError:
            return None
        finally:
            self._disk.close(fd)

    def has_journal(self) -> bool:
        """Whether a journal file exists, readable or not: absent means a new device, unreadable means damage."""
        return "journal" in self._disk.names(self._folder)

    def write_journal(self, journal: Journal) -> None:
        """Make `journal` the newest record; on return it survives a power cut.

        Raises:
            SlotWriteError: it could not be made durable; the older record stands.
        """
        record = encode_record(journal)
        with _as_slot_error(f"update journal {self.journal_path}"):
            if not self.has_journal():
                self._create_journal()
            fd = self._disk.open(self.journal_path, write=True)
            try:
                self._disk.pwrite(fd, record, record_offset(journal.generation))
                self._disk.flush(fd)
            finally:
                self._disk.close(fd)

    def _create_journal(self) -> None:
        """Allocate both records under a temporary name, so that a later write changes no file size and no folder."""
        temporary = f"{self._folder}/journal.new"
        fd = self._disk.open(temporary, write=True, create=True)
        try:
            self._disk.pwrite(fd, bytes(RECORD_BYTES), 0)
            self._disk.pwrite(fd, bytes(RECORD_BYTES), RECORD_BYTES)
            self._disk.flush(fd)
        finally:
            self._disk.close(fd)
        self._disk.rename(temporary, self.journal_path)
        self._disk.flush_folder(self._folder)

    # --- download -> model --------------------------------------------------------------------------------------------

    def begin(self, sha256: str, length: int, block_bytes: int = UPDATE_BLOCK_BYTES_MAX) -> Partial:
        """Open or continue the download of a model; its room on the disk is taken at once.

        Args:
            sha256: signed hash of the whole file, 64 hex digits.
            length: signed length, bytes.
            block_bytes: what arrives is remembered in blocks of this size.

        Raises:
            SlotWriteError: no room (the message says how much is missing) or the disk fails.
        """
        path = f"{self._partial}/{sha256}"
        with _as_slot_error(f"download {path}"):
            fd = self._disk.open(path, write=True, create=True)
            try:
                have = self._disk.size(fd)
                if have > length:
                    self._disk.truncate(fd, 0)
                    have = 0
                free = self._disk.free_bytes(self._folder)
                needed = length - have + UPDATE_RESERVE_BYTES
                if needed > free:
                    raise SlotWriteError(
                        f"no room for the update: {needed} bytes needed (reserve included), {free} free in "
                        f"{self._folder}; free some space; {OLD_MODEL_STAYS}"
                    )
                if have < length:
                    self._disk.allocate(fd, length)
                    self._disk.flush(fd)
                map_fd = self._disk.open(f"{path}{MAP_ENDING}", write=True, create=True)
                held = Bitmap(length, block_bytes)
                found = self._disk.pread(map_fd, held.encoded_bytes + 1, 0) if have == length else b""
                if not found:
                    self._disk.flush_folder(self._partial)  # else a cut loses the names, and with them what arrived
            except BaseException:
                self._disk.close(fd)
                raise
        return Partial(self._disk, fd, map_fd, path, sha256, Bitmap(length, block_bytes, found))

    def verify(self, partial: Partial) -> None:
        """Compare a complete download with what was signed, reading it back from the medium.

        Raises:
            DamagedDownloadError: it is something else; the download was dropped.
            SlotWriteError: the disk fails.
        """
        partial.flush()
        self._disk.forget_cached(partial.fd)
        found = self._hash(partial.fd, partial.length)
        if found != partial.sha256:
            partial.drop()
            raise DamagedDownloadError(
                f"downloaded bytes hash to {found[:12]}, signed is {partial.sha256[:12]}: tampered with or "
                f"damaged; the download was dropped; {OLD_MODEL_STAYS}"
            )

    def discard(self, partial: Partial) -> None:
        """Close a download and remove it.

        Raises:
            SlotWriteError: the disk fails.
        """
        partial.close()
        with _as_slot_error(f"download {partial.path}"):
            self._disk.remove(f"{partial.path}{MAP_ENDING}")
            self._disk.remove(partial.path)

    def seal(self, partial: Partial) -> None:
        """Turn a complete download into a model: flush, re-read, re-hash, flush, rename, flush the folders.

        Raises:
            DamagedDownloadError: the bytes on the medium are not the signed ones; the download is dropped.
            SlotWriteError: the disk fails; either way no model of this name exists.
        """
        folder = f"{self._store}/{partial.sha256}"
        with _as_slot_error(f"update {partial.sha256[:12]}"):
            try:
                self.verify(partial)
                self._disk.flush(partial.fd)
            finally:
                partial.close()
            self._disk.make_folder(folder)
            self._disk.rename(partial.path, f"{folder}/{MODEL_NAME}")
            self._disk.flush_folder(folder)
            self._disk.flush_folder(self._store)
            self._disk.remove(f"{partial.path}{MAP_ENDING}")
            self._disk.flush_folder(self._partial)

    def holds(self, sha256: str) -> bool:
        """Whether a sealed model of this name is in the store; says nothing about its bytes."""
        return MODEL_NAME in self._disk.names(f"{self._store}/{sha256}")

    def open_verified(self, sha256: str, length: int | None = None) -> int | None:
        """A read-only descriptor whose content was just hashed, or None when it is absent or damaged.

        The caller loads through this descriptor (`/proc/self/fd/N`), so that nobody can swap the file in between, and
        closes it with `close`.
        """
        try:
            fd = self._disk.open(f"{self._store}/{sha256}/{MODEL_NAME}", write=False)
        except OSError:
            return None
        if self._is_intact(fd, sha256, length):
            return fd
        self._disk.close(fd)
        return None

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes of an open file of the store; fewer only at its end.

        Raises:
            SlotWriteError: the medium fails.
        """
        with _as_slot_error(f"update store {self._store}"):
            data = self._disk.pread(fd, length, offset)
            while (
                data and len(data) < length and (more := self._disk.pread(fd, length - len(data), offset + len(data)))
            ):
                data += more
        return data

    def close(self, fd: int) -> None:
        """Close a descriptor of `open_verified`."""
        self._disk.close(fd)

    def collect_garbage(self, keep: Iterable[str]) -> list[str]:
        """Remove every model and every download whose SHA-256 is not in `keep`; return what went.

        Raises:
            SlotWriteError: the disk fails; what was to be kept is untouched.
        """
        kept, gone = frozenset(keep), []
        with _as_slot_error(f"update store {self._store}"):
            for name in self._disk.names(self._store):
                if name not in kept:
                    self._disk.remove(f"{self._store}/{name}/{MODEL_NAME}")
                    self._disk.remove_folder(f"{self._store}/{name}")
                    gone.append(name)
            for name in self._disk.names(self._partial):
                if name.removesuffix(MAP_ENDING) not in kept:
                    self._disk.remove(f"{self._partial}/{name}")
                    gone.append(name)
        return gone

    def _is_intact(self, fd: int, sha256: str, length: int | None) -> bool:
        try:
            size = self._disk.size(fd)
            return length in (None, size) and self._hash(fd, size) == sha256
        except OSError:
            return False  # an unreadable model is a damaged one: the caller falls back

    def _hash(self, fd: int, length: int) -> str:
        digest, offset = hashlib.sha256(), 0
        while offset < length:
            data = self._disk.pread(fd, min(READ_BYTES, length - offset), offset)
            if not data:
                break
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()


class Partial:
    """A download in progress: filled in order or block by block, never beyond the signed length.

    What a map on the disk says is held was flushed before it was written into the map.
    """

    def __init__(self, disk: Disk, fd: int, map_fd: int, path: str, sha256: str, held: Bitmap) -> None:
        self._disk = disk
        self.fd = fd
        self._map_fd = map_fd
        self.path = path
        self.sha256 = sha256
        self.length = held.length
        self.block_bytes = held.block_bytes
        self._held = held
        self.resumed = held.held_bytes() > 0
        """Whether it goes on with bytes of an earlier run, which the medium may have damaged."""
        self._unflushed = 0
        self._open = True
        self.offset, self.end = held.gap(0)
        """The next missing bytes: from `offset` up to `end`; `offset` is `length` when nothing is missing."""

    @property
    def done(self) -> int:
        """Bytes held, whole blocks and what was begun of the next."""
        return self._held.held_bytes() + self.offset % self.block_bytes if self.offset < self.length else self.length

    def missing(self) -> Iterator[int]:
        """Numbers of the blocks that are missing, in order."""
        return self._held.missing()

    def write(self, data: bytes) -> None:
        """Put `data` at `offset` and move on.

        Raises:
            SlotWriteError: more bytes than were signed or asked for, no room, or the disk fails.
        """
        if self.offset + len(data) > self.end:
            raise SlotWriteError(f"server sent more than the signed {self.length} bytes; {OLD_MODEL_STAYS}")
        first = self.offset // self.block_bytes
        self._put(data, self.offset)
        self.offset += len(data)
        whole = self._held.count if self.offset == self.length else self.offset // self.block_bytes
        for block in range(first, whole):
            self._held.add(block)
        if self.offset == self.end:
            self.offset, self.end = self._held.gap(self.offset)
        self._flush_if_due()

    def write_block(self, block: int, data: bytes) -> None:
        """Put one whole block in its place; whether it is the right one was checked by the caller.

        Raises:
            SlotWriteError: no room, or the disk fails.
        """
        self._put(data, block * self.block_bytes)
        self._held.add(block)
        self.offset, self.end = self._held.gap(0)
        self._flush_if_due()

    def restart(self) -> None:
        """Hold nothing; the next byte is the first. The room on the disk stays taken."""
        self._held.clear()
        self.offset, self.end = self._held.gap(0)
        self._write_map()

    def drop(self) -> None:
        """Hold nothing and give the room back."""
        with _as_slot_error(f"download {self.path}"):
            self._disk.truncate(self.fd, 0)
            self._disk.truncate(self._map_fd, 0)
        self._held.clear()
        self.offset, self.end = self._held.gap(0)

    def flush(self) -> None:
        """Make what was written so far durable, then the map that says so."""
        with _as_slot_error(f"download {self.path}"):
            self._disk.flush(self.fd)
            self._unflushed = 0
        self._write_map()
        with _as_slot_error(f"download {self.path}"):
            self._disk.flush(self._map_fd)

    def pause(self) -> None:
        """Close for now: what was written is made durable where that is possible, so that a later try goes on."""
        with contextlib.suppress(SlotWriteError):
            if self._unflushed:
                self.flush()
        self.close()

    def close(self) -> None:
        """Give the descriptors back."""
        if self._open:
            self._open = False
            self._disk.close(self._map_fd)
            self._disk.close(self.fd)

    def _put(self, data: bytes, at: int) -> None:
        with _as_slot_error(f"download {self.path}"):
            self._disk.pwrite(self.fd, data, at)
        self._unflushed += len(data)

    def _flush_if_due(self) -> None:
        if self._unflushed >= FLUSH_EVERY_BYTES:
            self.flush()

    def _write_map(self) -> None:
        with _as_slot_error(f"download {self.path}"):
            self._disk.pwrite(self._map_fd, self._held.encode(), 0)


@contextlib.contextmanager
def _as_slot_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; raise it",
            errno.EROFS: "the file system is read-only; check the medium",
            errno.EACCES: "permission is missing; check the owner of the state folder",
            errno.EIO: "the medium failed; replace it",
        }.get(error.errno or 0, "check the medium")
        raise SlotWriteError(f"{what}: {error.strerror or error}: {hint}; {OLD_MODEL_STAYS}") from error
