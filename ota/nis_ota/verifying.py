"""Look at a published folder as a device would: the same client, the same judgement, every byte hashed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from nis_edge.adapters.tuf_client import TrustedRepository
from nis_edge.errors import NisEdgeError
from nis_edge.limits import UPDATE_DOCUMENT_BYTES_MAX
from nis_edge.update.bundle import decode_bundle
from nis_edge.update.offer import SignedFacts, read_rollout, rollout_path
from nis_ota.errors import PublisherError
from nis_ota.publishing import BUNDLES


@dataclass(frozen=True)
class Seen:
    """What one cohort is offered."""

    cohort: str
    serial: int
    state: str
    target: str
    version: str
    release_counter: int
    bytes: int


class FolderFetcher(FetcherInterface):
    """Files below a folder, as a web server would give them; `file:` URLs only."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise DownloadHTTPError(f"{path} is missing", 404)
        try:
            return iter((path.read_bytes(),))
        except OSError as error:
            raise DownloadError(f"{path}: {error}") from error


def verify(folder: Path, root: bytes, now_s: float) -> list[Seen]:
    """Check a published folder for every cohort that has a bundle.

    Args:
        folder: as `publish` made it.
        root: the root metadata devices were given.
        now_s: the time to judge expiry by, seconds since the epoch.

    Raises:
        PublisherError: what a device would refuse, and why.
    """
    base = f"file://{folder.resolve()}"
    bundles = sorted((folder / BUNDLES).glob("*.json"))
    if not bundles:
        raise PublisherError(f"{folder} offers nothing to any cohort; publish first: nis-ota publish")
    try:
        with tempfile.TemporaryDirectory() as cache:
            repository = TrustedRepository(
                cache, root, f"{base}/metadata", f"{base}/targets", FolderFetcher(), floors={}, reference_time=now_s
            )
            repository.refresh()
            return [_verify_cohort(repository, folder, bundle) for bundle in bundles]
    except PublisherError:
        raise
    except NisEdgeError as error:
        raise PublisherError(f"a device would refuse {folder}: {error}") from error


def _verify_cohort(repository: TrustedRepository, folder: Path, bundle: Path) -> Seen:
    cohort = bundle.stem
    carried = decode_bundle(bundle.read_bytes()).files
    newest = (folder / "metadata" / "timestamp.json").read_text(encoding="utf-8")
    if carried.get("timestamp.json") != newest:
        raise PublisherError(f"{bundle} is older than the metadata beside it; publish again")
    document = repository.look_up(rollout_path(cohort))
    if document is None:
        raise PublisherError(f"no signed rollout document for cohort {cohort}; publish again")
    rollout = read_rollout(repository.read_document(document, UPDATE_DOCUMENT_BYTES_MAX), cohort)
    target = repository.look_up(rollout.target)
    if target is None or target.sha256 != rollout.sha256:
        raise PublisherError(f"cohort {cohort} is offered {rollout.target}, which is not signed offline like that")
    try:
        facts: Any = msgspec.convert(target.custom, SignedFacts)
    except msgspec.ValidationError as error:
        raise PublisherError(f"signed facts of {target.path} are malformed: {error}") from error
    name_folder, _, name = target.path.rpartition("/")
    file = folder / "targets" / name_folder / f"{target.sha256}.{name}"
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise PublisherError(f"{file} cannot be read: {error.strerror}; publish again") from error
    if digest.hexdigest() != target.sha256:
        raise PublisherError(f"{file} is not what was signed; remove it and publish again")
    return Seen(
        cohort=cohort,
        serial=rollout.serial,
        state=rollout.state,
        target=target.path,
        version=facts.version,
        release_counter=facts.release_counter,
        bytes=target.length,
    )
