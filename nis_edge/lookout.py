"""One look at what is offered: carrier, verified metadata, this cohort's rollout document, the model it points at.

Blocking; the update loop calls it in a worker thread. Whatever verified is remembered as version floors at once, also
when a later step of the same look fails. Nothing here decides: `update.offer.judge` does. python-tuf and urllib3
(16 MB) are imported by the first look, so that a device without updates does not carry them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from nis_edge.clock import Clock
from nis_edge.errors import UntrustedMetadataError, UpdateError
from nis_edge.limits import UPDATE_BUNDLE_BYTES_MAX, UPDATE_DOCUMENT_BYTES_MAX
from nis_edge.update.bundle import Bundle, decode_bundle
from nis_edge.update.divergence import Carrier
from nis_edge.update.facts import OLD_MODEL_STAYS, check_path
from nis_edge.update.journal import Floors
from nis_edge.update.machine import bounded_roles
from nis_edge.update.offer import Target
from nis_edge.update.rollout import Rollout, override_name, override_path, read_rollout, rollout_path
from nis_edge.update.time_floor import TrustedTime, raised_floor

if TYPE_CHECKING:
    from nis_edge.adapters.download import Sink
    from nis_edge.adapters.tuf_client import BundleFetcher, HttpFetcher, TrustedRepository

NOWHERE: Final = "bundle:"
"""The base of names where there is no server: a bundle holds them all."""


class Source(Protocol):
    """Where a model's bytes come from."""

    def fill(self, where: str, sink: Sink, should_stop: Callable[[], bool]) -> None:
        """Bring the sink to its full length."""
        ...


@dataclass(frozen=True)
class Look:
    """What was found; `rollout` and `target` are None together when nothing is offered to this cohort."""

    rollout: Rollout | None = None
    target: Target | None = None
    source: Source | None = None
    where: str = ""
    """What `source` calls the model's bytes."""
    targets: str = ""
    """The folder or URL below which targets lie."""
    folder: Path | None = None
    warning: str | None = None
    carrier: Carrier | None = None
    """Who brought the metadata; None: a stick."""
    version: int = 0
    """Of the timestamp metadata."""


class Lookout:
    """Looks for this device.

    Args:
        cache: folder of verified metadata.
        cohort: this device's.
        device: its id.
        repository: URL of the published folder, or None.
        root: file of the root metadata this device was given, or None.
        clock: time.
        rate_bytes_per_s: bound of a download's speed; None: as it comes.
    """

    def __init__(
        self,
        cache: Path,
        cohort: str,
        device: str,
        repository: str | None,
        root: Path | None,
        clock: Clock,
        rate_bytes_per_s: float | None = None,
    ) -> None:
        self._rate = rate_bytes_per_s
        self._cache = cache
        self._cohort = cohort
        self._device = device
        self._base = repository.rstrip("/") if repository is not None else None
        self._root = root
        self._clock = clock

    @property
    def has_server(self) -> bool:
        """Whether there is a repository to poll."""
        return self._base is not None

    def look(
        self,
        bundle: bytes | None,
        folder: Path | None,
        *,
        floors: Floors,
        now: TrustedTime,
        unfloored: TrustedTime,
        remember: Callable[[Floors], None],
    ) -> Look:
        """Look once.

        Args:
            bundle: an untrusted bundle to take metadata from first.
            folder: a published folder, instead of the network.
            floors: the journal's.
            now: the time to judge expiry by.
            unfloored: the same without the journal's time floor, for when the keys behind that floor were replaced.
            remember: journals raised floors.

        Raises:
            UntrustedMetadataError, RollbackRefusedError: what was found did not verify; the publisher acts.
            CloudUnreachableError: time heals it.
            UpdateError: this device is not configured for updates; the operator acts.
            SlotWriteError: cache or journal cannot be written.
        """
        if self._root is None:
            raise UpdateError(f"no root metadata is configured (update.root), so nothing is trusted; {OLD_MODEL_STAYS}")
        from nis_edge.adapters.download import FolderSource, HttpSource
        from nis_edge.adapters.tuf_client import BundleFetcher, HttpFetcher, TrustedRepository, target_url

        base, http = self._base or NOWHERE, HttpFetcher(self._clock.monotonic)
        carried = self._read_bundle(bundle, folder)
        if carried is None and self._base is None:
            raise UpdateError(f"no repository is configured (update.repository), nor a bundle given; {OLD_MODEL_STAYS}")
        if folder is not None:
            base = NOWHERE
        fetcher: HttpFetcher | BundleFetcher = http
        if carried is not None:
            fallback = http if base != NOWHERE else None
            fetcher = BundleFetcher(carried, f"{base}/metadata", fallback, targets_url=f"{base}/targets")
        repository = TrustedRepository(
            self._cache,
            _read_root(self._root),
            f"{base}/metadata",
            f"{base}/targets",
            fetcher,
            floors=floors.roles,
            reference_time=now.reference_s,
            unfloored_time=unfloored.reference_s,
        )
        verified = False
        try:
            repository.refresh()
            verified = True
            rollout, target = self._find(repository)
        finally:
            remember(_raised(floors, repository, now, unfloored, verified=verified))
        targets = str(folder / "targets") if folder else f"{base}/targets"
        where = "" if target is None else target_url(targets, target, quoted=folder is None)
        source: Source | None = FolderSource() if folder is not None else None
        if base != NOWHERE:
            source = HttpSource(self._clock.monotonic, rate_bytes_per_s=self._rate)
        carrier: Carrier | None = None if folder is not None else "server" if carried is None else "broker"
        stamp = repository.floors.get("timestamp")
        version = stamp.version if stamp is not None else 0
        return Look(rollout, target, source, where, targets, folder, _warning(http), carrier, version)

    def _read_bundle(self, data: bytes | None, folder: Path | None) -> Bundle | None:
        if folder is not None:
            data = _bundle_of_folder(folder, self._cohort, self._device)
        if data is None:
            return None
        bundle = decode_bundle(data)
        if bundle.device not in (None, self._device):
            raise UntrustedMetadataError(
                f"update notice is for device {bundle.device!r}, this is {self._device!r}; {OLD_MODEL_STAYS}"
            )
        if bundle.device is None and bundle.cohort != self._cohort:
            raise UntrustedMetadataError(
                f"update notice is for cohort {bundle.cohort!r}, this device is in {self._cohort!r}; {OLD_MODEL_STAYS}"
            )
        return bundle

    def _find(self, repository: TrustedRepository) -> tuple[Rollout | None, Target | None]:
        document, device = repository.look_up(override_path(self._device)), self._device or None
        if document is None:
            document, device = repository.look_up(rollout_path(self._cohort)), None
        if document is None:
            return None, None
        rollout = read_rollout(repository.read_document(document, UPDATE_DOCUMENT_BYTES_MAX), self._cohort, device)
        target = repository.look_up(check_path(rollout.target))
        if target is None:
            raise UntrustedMetadataError(
                f"rollout points at {rollout.target}, which is not signed offline; {OLD_MODEL_STAYS}"
            )
        return rollout, target


def _raised(
    floors: Floors, repository: TrustedRepository, now: TrustedTime, unfloored: TrustedTime, *, verified: bool
) -> Floors:
    """The floors after a look. Time rises only when all verified: a clock that lies makes metadata look expired."""
    time_s = floors.time_s
    if repository.time_floor_is_void:
        time_s, now = 0.0, unfloored
    if verified:
        time_s = raised_floor(time_s, now, repository.issued_at())
    return msgspec.structs.replace(floors, roles=bounded_roles(repository.floors), time_s=time_s)


def _warning(http: HttpFetcher) -> str | None:
    if not http.forbidden:
        return None
    return (
        f"{http.forbidden[-1]} is forbidden (403), which counts as absent: if the server hides files from devices, "
        "it hides new keys too; make it answer 404 for what is absent"
    )


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UpdateError(f"root metadata {path} cannot be read: {error.strerror}; check update.root") from error


def _bundle_of_folder(folder: Path, cohort: str, device: str) -> bytes:
    from nis_edge.adapters.download import open_on_stick

    own = folder / "bundles" / f"{override_name(device)}.json"  # what is for one device goes before its cohort's
    path = own if device and own.exists() else folder / "bundles" / f"{cohort}.json"
    try:
        with open_on_stick(path) as file:
            return file.read(UPDATE_BUNDLE_BYTES_MAX + 1)  # one too many is refused as too long, however long it is
    except OSError as error:
        raise UpdateError(
            f"{path}: {error.strerror}; name a folder made by nis-ota publish, for cohort {cohort}"
        ) from error
