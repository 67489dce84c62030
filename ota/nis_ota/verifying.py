"""Look at what is published as a device would: the same client, the same judgement, every byte hashed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from nis_edge.adapters.tuf_client import HttpFetcher, TrustedRepository
from nis_edge.errors import NisEdgeError
from nis_edge.limits import UPDATE_BUNDLE_BYTES_MAX, UPDATE_DOCUMENT_BYTES_MAX
from nis_edge.update.bundle import decode_bundle
from nis_edge.update.facts import published_name, read_facts
from nis_edge.update.rollout import device_of, read_rollout, rollout_path
from nis_ota.errors import PublisherError
from nis_ota.publishing import BUNDLES

MODEL_SECONDS_MAX: Final = 4 * 3600.0


@dataclass(frozen=True)
class Seen:
    """What one cohort, or one device with a rollout of its own, is offered."""

    name: str
    serial: int
    state: str
    open_bp: int
    target: str
    version: str
    release_counter: int
    bytes: int
    metadata_bytes: int
    """What a device that knows nothing fetches before it decides."""


class PlaceFetcher(FetcherInterface):
    """Files below a folder as a web server would give them (`file:` URLs), or over HTTP."""

    def __init__(self) -> None:
        self._http = HttpFetcher(seconds_max=MODEL_SECONDS_MAX)

    def _fetch(self, url: str) -> Iterator[bytes]:
        if not url.startswith("file://"):
            return self._http.fetch(url)
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise DownloadHTTPError(f"{path} is missing", 404)
        return self._read(path)

    @staticmethod
    def _read(path: Path) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk
        except OSError as error:
            raise DownloadError(f"{path}: {error}") from error


def verify(place: str, root: bytes, now_s: float, names: Sequence[str] = ()) -> list[Seen]:
    """Check a published folder or URL.

    Args:
        place: a folder as `publish` made it, or the URL that devices use.
        root: the root metadata devices were given.
        now_s: the time to judge expiry by, seconds since the epoch.
        names: cohorts, or `dev.ID`; none: every one that has a bundle (a folder only).

    Raises:
        PublisherError: what a device would refuse, and why.
    """
    remote = place.startswith(("http://", "https://"))
    base = place.rstrip("/") if remote else f"file://{Path(place).resolve()}"
    if not names:
        if remote:
            raise PublisherError(f"{place} cannot be listed; name what to check: --cohort stable")
        names = sorted(path.name.removesuffix(".json") for path in (Path(place) / BUNDLES).glob("*.json"))
    if not names:
        raise PublisherError(f"{place} offers nothing to any cohort; publish first: nis-ota publish")
    return [_verify(place, base, root, now_s, name) for name in names]


def metadata_bytes(seen: Sequence[Seen]) -> int:
    """The most that a first check costs one device."""
    return max((one.metadata_bytes for one in seen), default=0)


def _verify(place: str, base: str, root: bytes, now_s: float, name: str) -> Seen:
    fetcher = PlaceFetcher()
    try:
        with tempfile.TemporaryDirectory() as cache:
            repository = TrustedRepository(
                cache, root, f"{base}/metadata", f"{base}/targets", fetcher, floors={}, reference_time=now_s
            )
            repository.refresh()
            return _look(repository, fetcher, base, name)
    except PublisherError:
        raise
    except (NisEdgeError, DownloadError) as error:
        raise PublisherError(f"a device would refuse {place}: {error}") from error


def _look(repository: TrustedRepository, fetcher: PlaceFetcher, base: str, name: str) -> Seen:
    bundle = decode_bundle(fetcher.download_bytes(f"{base}/{BUNDLES}/{name}.json", UPDATE_BUNDLE_BYTES_MAX))
    newest = fetcher.download_bytes(f"{base}/metadata/timestamp.json", UPDATE_DOCUMENT_BYTES_MAX)
    if bundle.files.get("timestamp.json", "").encode() != newest:
        raise PublisherError(f"bundle of {name} is older than the metadata beside it; publish again")
    document = repository.look_up(rollout_path(name))
    if document is None:
        raise PublisherError(f"no signed rollout document for {name}; publish again")
    rollout = read_rollout(repository.read_document(document, UPDATE_DOCUMENT_BYTES_MAX), name, device_of(name))
    target = repository.look_up(rollout.target)
    if target is None or target.sha256 != rollout.sha256:
        raise PublisherError(f"{name} is offered {rollout.target}, which is not signed offline like that")
    try:
        facts = read_facts(target.custom)
    except msgspec.ValidationError as error:
        raise PublisherError(f"signed facts of {target.path} are malformed: {error}") from error
    _check_file(fetcher, base, published_name(target.path, target.sha256), target.sha256)
    if facts.blocks is not None:
        _check_file(fetcher, base, published_name(target.path, facts.blocks.sha256, "blocks"), facts.blocks.sha256)
    for delta in facts.deltas:
        _check_file(fetcher, base, published_name(target.path, delta.sha256, "delta"), delta.sha256)
    return Seen(
        name=name,
        serial=rollout.serial,
        state=rollout.state,
        open_bp=rollout.open_bp,
        target=target.path,
        version=facts.version,
        release_counter=facts.release_counter,
        bytes=target.length,
        metadata_bytes=sum(len(text) for text in bundle.files.values()),
    )


def _check_file(fetcher: PlaceFetcher, base: str, name: str, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        for chunk in fetcher.fetch(f"{base}/targets/{name}"):
            digest.update(chunk)
    except (DownloadError, OSError) as error:
        raise PublisherError(f"targets/{name} cannot be read: {error}; publish again") from error
    if digest.hexdigest() != sha256:
        raise PublisherError(f"targets/{name} is not what was signed; remove it and publish again")
