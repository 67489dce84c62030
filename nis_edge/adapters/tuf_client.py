"""Trust in update metadata: python-tuf's client, made durable, bounded, and unable to forget what it has seen.

python-tuf verifies; this file keeps three rules around it that it does not keep itself. What it stores is flushed, and
only when it changed. The versions seen live in our journal too, so a truncated or missing cache cannot make an old
state acceptable again. The time that expiry is compared with is handed in.

`DurableUpdater` overrides private seams of python-tuf 7.0; `tests/unit/test_update_tuf_seams.py` fails when they drift.
Targets are not fetched with python-tuf (it would need the space twice and cannot resume): see `adapters.download`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import urllib3
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from nis_edge.errors import CloudUnreachableError, RollbackRefusedError, SlotWriteError, UntrustedMetadataError
from nis_edge.limits import KIB, UPDATE_KEYS_MAX, UPDATE_METADATA_SECONDS_MAX, UPDATE_STALL_SECONDS_MAX
from nis_edge.update.bundle import Bundle
from nis_edge.update.facts import OLD_MODEL_STAYS
from nis_edge.update.journal import RoleFloor
from nis_edge.update.offer import Target
from nis_edge.update.time_floor import ISSUED_FIELD

CHUNK_BYTES: Final = 16 * KIB

CONFIG: Final = UpdaterConfig(
    root_max_length=512_000, timestamp_max_length=16_384, snapshot_max_length=512_000, targets_max_length=2_000_000
)
"""Sizes at which a metadata file is refused (endless data); a whole real chain is under 8 KiB."""


RETRIES: Final = urllib3.Retry(
    total=2, connect=2, read=1, redirect=2, status=0, backoff_factor=0.2, respect_retry_after_header=False
)


class HttpFetcher(FetcherInterface):
    """Metadata over HTTP or HTTPS, bounded in time; every fault, also one in mid-stream, is a tuf DownloadError.

    Args:
        monotonic: seconds of a clock that never goes back.
        seconds_max: for one file, from the first byte to the last.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, seconds_max: float = UPDATE_METADATA_SECONDS_MAX
    ) -> None:
        self._monotonic = monotonic
        self._seconds_max = seconds_max
        self._pool = urllib3.PoolManager(headers={"User-Agent": "nis-edge", "Accept-Encoding": "identity"})
        self.forbidden: list[str] = []
        """Root versions answered with 403: read as "no newer root", so a misconfigured bucket could hide a new one."""

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes, held in memory and cut off at `max_length`."""
        data = bytearray()
        for chunk in self.fetch(url):
            data += chunk
            if len(data) > max_length:
                raise tuf_errors.DownloadLengthMismatchError(f"{url} is longer than {max_length} bytes")
        return bytes(data)

    def _fetch(self, url: str) -> Iterator[bytes]:
        timeout = urllib3.Timeout(connect=10, read=min(UPDATE_STALL_SECONDS_MAX, self._seconds_max))
        try:
            response = self._pool.request(
                "GET",
                url,
                preload_content=False,
                decode_content=False,
                timeout=timeout,
                retries=RETRIES,
            )
        except urllib3.exceptions.HTTPError as error:
            raise tuf_errors.DownloadError(f"{_host(url)} does not answer: {_cause(error)}") from error
        if response.status >= 400:
            if response.status == 403 and url.endswith(".root.json"):
                self.forbidden.append(url)
            response.close()
            raise tuf_errors.DownloadHTTPError(f"{url}: HTTP status {response.status}", response.status)
        return self._chunks(url, response)

    def _chunks(self, url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        deadline = self._monotonic() + self._seconds_max
        announced, received = response.headers.get("Content-Length", ""), 0
        try:
            while chunk := response.read1(CHUNK_BYTES):
                yield chunk
                received += len(chunk)
                if self._monotonic() > deadline:
                    raise tuf_errors.SlowRetrievalError(f"{url} took longer than {self._seconds_max:.0f} s")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise tuf_errors.DownloadError(f"{url} broke off: {_cause(error)}") from error
        finally:
            response.close()
        if announced.isdecimal() and received < int(announced):
            raise tuf_errors.DownloadError(f"{url} broke off after {received} of {announced} bytes")


class BundleFetcher(FetcherInterface):
    """Metadata out of a bundle (MQTT, USB); what the bundle lacks comes from `fallback`, when there is one.

    A newer root that neither carrier offers counts as absent even when the fallback cannot be reached: else a device
    that has only the broker could never refresh. The bundle itself is never believed.
    """

    def __init__(
        self, bundle: Bundle, metadata_url: str, fallback: FetcherInterface | None = None, *, targets_url: str
    ) -> None:
        self._files = bundle.files
        self._bases = (metadata_url.rstrip("/") + "/", targets_url.rstrip("/") + "/")
        self._fallback = fallback

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes, cut off at `max_length`."""
        text = self._files.get(self._name(url))
        if text is not None:
            data = text.encode()
            if len(data) > max_length:
                raise tuf_errors.DownloadLengthMismatchError(f"{self._name(url)} is longer than {max_length} bytes")
            return data
        try:
            if self._fallback is None:
                raise tuf_errors.DownloadHTTPError(f"{self._name(url)} is not in the bundle", 404)
            return self._fallback.download_bytes(url, max_length)
        except tuf_errors.DownloadHTTPError:
            raise
        except tuf_errors.DownloadError as error:
            if url.endswith(".root.json"):
                raise tuf_errors.DownloadHTTPError(f"{self._name(url)} is out of reach", 404) from error
            raise

    def _name(self, url: str) -> str:
        return next((url[len(base) :] for base in self._bases if url.startswith(base)), url)

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter((self.download_bytes(url, CONFIG.targets_max_length),))


class DurableUpdater(Updater):
    """python-tuf's Updater whose files are flushed, whose floors outlive its files, whose clock is handed in.

    Args:
        metadata_dir: the cache; made when absent.
        metadata_base_url: where the metadata lies.
        fetcher: how to get it.
        bootstrap: bytes of the root this device was given; the anchor of all trust.
        floors: versions below which nothing is accepted.
        reference_time: what expiry is compared with, seconds since the epoch.
        unfloored_time: the same without the journal's time floor; it counts once the floor is void.
    """

    def __init__(
        self,
        metadata_dir: str,
        metadata_base_url: str,
        fetcher: FetcherInterface,
        *,
        bootstrap: bytes,
        floors: Mapping[str, RoleFloor],
        reference_time: float,
        unfloored_time: float | None = None,
    ) -> None:
        self._floors = floors
        self._unfloored_time = unfloored_time
        self.time_floor_is_void = False
        """Whether a key that may have pushed the time floor ahead has left the root since."""
        self.seen: dict[str, RoleFloor] = dict(floors)
        """The floors after what this updater has verified; the caller journals them."""
        Path(metadata_dir).mkdir(parents=True, exist_ok=True)
        _sweep_temporary_files(Path(metadata_dir))
        super().__init__(metadata_dir, metadata_base_url, fetcher=fetcher, config=CONFIG, bootstrap=bootstrap)
        self._trusted_set.reference_time = _moment(reference_time)

    # --- floors: checked after python-tuf verified a role, before it is stored ----------------------------------------

    def _load_root(self) -> None:
        super()._load_root()
        self._hold_to_floor(Root.type)
        floor = self._floors.get(Timestamp.type)
        gone = floor is not None and not set(floor.keys) <= set(self._vouching_keys(Timestamp.type))
        if gone and self._unfloored_time is not None:
            self.time_floor_is_void = True
            self._trusted_set.reference_time = _moment(self._unfloored_time)

    def _load_timestamp(self) -> None:
        super()._load_timestamp()
        self._hold_to_floor(Timestamp.type)

    def _load_snapshot(self) -> None:
        super()._load_snapshot()
        self._hold_to_floor(Snapshot.type)

    def _load_targets(self, role: str, parent_role: str) -> Targets:
        targets = super()._load_targets(role, parent_role)
        self._hold_to_floor(role)
        return targets

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._hold_to_floor(rolename)
        super()._persist_metadata(rolename, data)

    def _hold_to_floor(self, role: str) -> None:
        version = self._trusted_set[role].version
        keys = self._vouching_keys(role)
        floor = self._floors.get(role)
        if floor is not None and set(floor.keys) <= set(keys) and version < floor.version:
            raise _BelowFloorError(
                f"{role} metadata is version {version}, this device has already seen version {floor.version}"
            )
        self.seen[role] = RoleFloor(version, keys)

    def _vouching_keys(self, role: str) -> tuple[str, ...]:
        """The keys whose removal from the root voids the role's floor (TUF specification 5.3.11, recovery).

        The root's own floor has none: a root only ever goes up. What snapshot lists is healed by rotating its keys.
        """
        if role == Root.type:
            return ()
        governing = Timestamp.type if role == Timestamp.type else Snapshot.type
        return tuple(sorted(keyid[:8] for keyid in self._trusted_set.root.roles[governing].keyids)[:UPDATE_KEYS_MAX])

    # --- durability ---------------------------------------------------------------------------------------------------

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        if path.is_file() and path.read_bytes() == data:
            return
        temporary = Path(self._dir, f"tmp-{hashlib.sha256(filename.encode()).hexdigest()[:16]}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        _flush_folder(path.parent)

    def _update_root_symlink(self) -> None:
        link = Path(self._dir, "root.json")
        current = f"root_history/{self._trusted_set.root.version}.root.json"
        if link.is_symlink() and str(link.readlink()) == current:
            return
        temporary = Path(self._dir, "tmp-root-link")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(current)
        temporary.replace(link)
        _flush_folder(Path(self._dir))


class _BelowFloorError(tuf_errors.RepositoryError):
    """Verified metadata older than what the journal remembers."""


class TrustedRepository:
    """One look at a repository through verified metadata only.

    Args:
        cache: folder of verified metadata.
        root: bytes of the root metadata this device trusts from the start.
        metadata_url: folder of the metadata.
        targets_url: folder of the targets, for small documents.
        fetcher: carrier of the bytes.
        floors: the journal's.
        reference_time: seconds since the epoch.
        unfloored_time: the same without the journal's time floor, which new timestamp keys make void.
    """

    def __init__(
        self,
        cache: str | Path,
        root: bytes,
        metadata_url: str,
        targets_url: str,
        fetcher: FetcherInterface,
        *,
        floors: Mapping[str, RoleFloor],
        reference_time: float,
        unfloored_time: float | None = None,
    ) -> None:
        self._targets_url = targets_url.rstrip("/") + "/"
        self._fetcher = fetcher
        with _Sill():
            self._updater = DurableUpdater(
                str(cache),
                metadata_url,
                fetcher,
                bootstrap=root,
                floors=floors,
                reference_time=reference_time,
                unfloored_time=unfloored_time,
            )

    @property
    def floors(self) -> dict[str, RoleFloor]:
        """Version floors including everything verified so far."""
        return dict(self._updater.seen)

    @property
    def consistent_snapshot(self) -> bool:
        """Whether files carry their hash in their name, as all of ours do."""
        return bool(self._updater._trusted_set.root.consistent_snapshot)

    def refresh(self) -> None:
        """Bring the top-level metadata up to date.

        Raises:
            UntrustedMetadataError: something did not verify; the publisher (or an attacker) acts.
            RollbackRefusedError: it verified, but is older than what this device has seen.
            CloudUnreachableError: time heals it.
            SlotWriteError: the cache cannot be written; the operator acts.
        """
        with _Sill():
            self._updater.refresh()

    def issued_at(self) -> float | None:
        """The signed date of the timestamp metadata, seconds since the epoch; None when it carries none.

        At most the moment at which what the offline keys signed expires: an online key must not push it further.
        """
        trusted = self._updater._trusted_set
        if Timestamp.type not in trusted or Targets.type not in trusted:
            return None
        issued = trusted.timestamp.unrecognized_fields.get(ISSUED_FIELD)
        if not isinstance(issued, (int, float)) or isinstance(issued, bool):
            return None
        return min(float(issued), trusted.root.expires.timestamp(), trusted.targets.expires.timestamp())

    @property
    def time_floor_is_void(self) -> bool:
        """Whether the journal's time floor no longer counts: a key that could push it ahead has left the root."""
        return self._updater.time_floor_is_void

    def look_up(self, path: str) -> Target | None:
        """What trusted metadata says of the target `path`, following delegations; None when nobody signed it.

        Raises:
            As `refresh`.
        """
        with _Sill():
            info = self._updater.get_targetinfo(path)
        return None if info is None else _as_target(info)

    def read_document(self, target: Target, bytes_max: int) -> bytes:
        """Fetch a small target and verify it.

        Raises:
            UntrustedMetadataError: longer than allowed, or not what was signed.
            CloudUnreachableError: time heals it.
        """
        if target.length > bytes_max:
            raise UntrustedMetadataError(
                f"{target.path} is signed with {target.length} bytes, at most {bytes_max} are read; {OLD_MODEL_STAYS}"
            )
        with _Sill():
            data = self._fetcher.download_bytes(target_url(self._targets_url, target), target.length)
        if len(data) != target.length or hashlib.sha256(data).hexdigest() != target.sha256:
            raise UntrustedMetadataError(f"{target.path} is not what was signed; {OLD_MODEL_STAYS}")
        return data


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def target_url(base_url: str, target: Target, *, quoted: bool = True) -> str:
    """Where the bytes of a target lie: the file name carries its hash, so the content at a URL never changes.

    `quoted` False gives a path in a folder.
    """
    folder, slash, name = target.path.rpartition("/")
    name = f"{folder}{slash}{target.sha256}.{name}"
    return f"{base_url.rstrip('/')}/{quote(name) if quoted else name}"


def _as_target(info: TargetFile) -> Target:
    custom: Any = info.custom
    return Target(
        path=info.path,
        length=info.length,
        sha256=info.hashes.get("sha256", ""),
        custom=custom if isinstance(custom, dict) else {},
        hashes=dict(info.hashes),
    )


class _Sill:
    """Translates python-tuf's errors and the cache's file errors; nothing above meets a foreign exception."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (_BelowFloorError, tuf_errors.BadVersionNumberError)):
            raise RollbackRefusedError(f"update metadata refused: {_line(error)}; {OLD_MODEL_STAYS}") from error
        if isinstance(error, tuf_errors.DownloadLengthMismatchError):
            raise UntrustedMetadataError(f"update metadata refused: {_line(error)}; {OLD_MODEL_STAYS}") from error
        if isinstance(error, tuf_errors.DownloadError):
            raise CloudUnreachableError(f"update server: {_line(error)}; {OLD_MODEL_STAYS}; retried later") from error
        if isinstance(error, (tuf_errors.RepositoryError, ValueError, TypeError, KeyError, RecursionError)):
            raise UntrustedMetadataError(f"update metadata refused: {_line(error)}; {OLD_MODEL_STAYS}") from error
        if isinstance(error, OSError):
            raise SlotWriteError(
                f"update metadata cache: {error.strerror or error}; check the disk; {OLD_MODEL_STAYS}"
            ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return _line(reason if isinstance(reason, BaseException) else error)


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _flush_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sweep_temporary_files(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob("tmp*"):
        if path.is_symlink() or path.is_file():
            path.unlink()
