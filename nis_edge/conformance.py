"""The client of the public TUF conformance suite: our trust in metadata, callable from outside.

Commands and options are those of the suite's client interface (tuf-conformance, CLIENT-CLI.md): `init`, `refresh`,
`download`, over one metadata folder. What runs is what devices run: `TrustedRepository` with its durable cache, the
root that `init` was given as the anchor each time, and version floors in a journal of their own (METADATA_DIR/floors).
Two things differ, because the suite asks for them: any target name may be downloaded, and the system clock is believed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from nis_edge.adapters.download import HttpSource
from nis_edge.adapters.slot_store import SlotStore
from nis_edge.adapters.tuf_client import HttpFetcher, TrustedRepository
from nis_edge.errors import CloudUnreachableError, ConfigError, NisEdgeError, UntrustedMetadataError
from nis_edge.limits import UPDATE_MODEL_BYTES_MAX
from nis_edge.update.journal import Journal
from nis_edge.update.machine import bounded_roles
from nis_edge.update.offer import Target

T = TypeVar("T")

HASHES: Final = ("sha256", "sha512")
"""Algorithms a target may be signed with here; devices insist on SHA-256."""

ATTEMPTS: Final = 2


@dataclass
class FileSink:
    """A download into one file."""

    path: Path
    length: int
    offset: int = 0

    @property
    def end(self) -> int:
        """All of it is one gap."""
        return self.length

    def write(self, data: bytes) -> None:
        """Append."""
        if self.offset + len(data) > self.length:
            raise UntrustedMetadataError(f"server sent more than the signed {self.length} bytes; nothing was kept")
        with self.path.open("ab") as file:
            file.write(data)
        self.offset += len(data)

    def restart(self) -> None:
        """Drop everything."""
        self.path.unlink(missing_ok=True)
        self.offset = 0


class Client:
    """One client over one metadata folder.

    Args:
        metadata: the folder.
    """

    def __init__(self, metadata: Path) -> None:
        self._metadata = metadata
        self._anchor = metadata / "floors" / "anchor"
        self._store = SlotStore(metadata / "floors")

    def init(self, trusted_root: Path) -> None:
        """Take the first root on trust; ask nobody."""
        root = trusted_root.read_bytes()
        self._metadata.mkdir(parents=True, exist_ok=True)
        (self._metadata / "root.json").write_bytes(root)
        self._store.prepare()
        self._anchor.write_bytes(root)

    def refresh(self, metadata_url: str) -> TrustedRepository:
        """Bring the top-level metadata up to date.

        Raises:
            NisEdgeError: some part of it failed.
        """
        repository = self._open(metadata_url, "")
        self._remembering(repository, repository.refresh)
        return repository

    def download(self, metadata_url: str, names: list[str], targets_url: str, folder: Path) -> None:
        """Download targets in order with one client; the first that fails ends it.

        Raises:
            NisEdgeError: metadata or a target failed.
        """
        repository = self._open(metadata_url, targets_url)

        def get_all() -> None:
            for name in names:
                target = repository.look_up(name)
                if target is None:
                    raise UntrustedMetadataError(f"{name!r} is not a signed target")
                self._get(repository, target, targets_url, folder)

        self._remembering(repository, get_all)

    def _open(self, metadata_url: str, targets_url: str) -> TrustedRepository:
        if not self._anchor.is_file():
            raise ConfigError(f"{self._metadata} was not initialised; run init with the trusted root first")
        journal = self._store.read_journal() or Journal()
        return TrustedRepository(
            self._metadata,
            self._anchor.read_bytes(),
            metadata_url,
            targets_url,
            HttpFetcher(),
            floors=journal.floors.roles,
            reference_time=time.time(),
        )

    def _remembering(self, repository: TrustedRepository, work: Callable[[], None]) -> None:
        """Do the work; journal whatever was verified, also when it failed."""
        try:
            work()
        finally:
            journal = self._store.read_journal() or Journal()
            floors = msgspec.structs.replace(journal.floors, roles=bounded_roles(repository.floors))
            if floors != journal.floors:
                self._store.write_journal(
                    msgspec.structs.replace(journal, generation=journal.generation + 1, floors=floors)
                )

    def _get(self, repository: TrustedRepository, target: Target, targets_url: str, folder: Path) -> None:
        if target.length > UPDATE_MODEL_BYTES_MAX:
            raise UntrustedMetadataError(f"{target.path!r} is signed with {target.length} bytes, too many")
        final = folder / quote(target.path, safe="")
        if final.is_file() and _matches(final, target):
            return
        temporary = folder.with_name(f"{folder.name}.partial")
        sink = FileSink(temporary, target.length)
        sink.restart()
        temporary.touch()
        try:
            for attempt in range(ATTEMPTS):
                try:
                    HttpSource().fill(_url(repository, target, targets_url), sink)
                    break
                except CloudUnreachableError:
                    if attempt + 1 == ATTEMPTS:
                        raise
            if not _matches(temporary, target):
                raise UntrustedMetadataError(f"{target.path!r} is not what was signed; nothing was kept")
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def _url(repository: TrustedRepository, target: Target, base: str) -> str:
    folder, slash, name = target.path.rpartition("/")
    prefix = f"{next(iter(target.hashes.values()))}." if repository.consistent_snapshot else ""
    return f"{base.rstrip('/')}/{folder}{slash}{prefix}{name}"


def _matches(path: Path, target: Target) -> bool:
    known = {name: value for name, value in target.hashes.items() if name in HASHES}
    if not known or path.stat().st_size != target.length:
        return False
    for name, value in known.items():
        with path.open("rb") as file:
            digest = hashlib.new(name)
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != value:
            return False
    return True


def run(
    do: str,
    *,
    metadata_dir: Path,
    trusted_root: Path | None,
    metadata_url: str | None,
    target_names: list[str],
    target_dir: Path | None,
    target_base_url: str | None,
) -> int:
    """Run one command of the suite's interface; 0 done, 1 failed.

    Raises:
        ConfigError: an option that the command needs is missing.
    """
    client = Client(metadata_dir)
    try:
        if do == "init":
            client.init(_needed(trusted_root, "the trusted root"))
        elif do == "refresh":
            client.refresh(_needed(metadata_url, "--metadata-url"))
        else:
            folder = _needed(target_dir, "--target-dir")
            client.download(
                _needed(metadata_url, "--metadata-url"),
                target_names,
                _needed(target_base_url, "--target-base-url"),
                folder,
            )
    except ConfigError:
        raise
    except NisEdgeError as error:
        print(f"nis-edge: {error}")
        return 1
    return 0


def _needed(value: T | None, name: str) -> T:
    if value is None:
        raise ConfigError(f"{name} is needed")
    return value
