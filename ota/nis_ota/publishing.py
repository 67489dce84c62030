"""From the repository to where devices look, in the order that makes every moment a consistent one.

First the targets, then metadata from the root upwards, the timestamp last; then the bundles, which are hints. Files are
immutable by name, except timestamp.json and the bundles. `nis_ota.destinations` knows the places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from nis_edge.update.bundle import Bundle, encode_bundle
from nis_edge.update.rollout import Rollout, device_of
from nis_ota.destinations import CACHE_BRIEFLY, CACHE_FOR_EVER, Destination, Folder
from nis_ota.errors import PublisherError
from nis_ota.repository import Repository

BUNDLES: Final = "bundles"

CHECK_BYTES_MAX: Final = 8192
"""What one look may cost a device that knows the newest root (design: ota, goal line)."""

Report = Callable[[str], None]
Put = tuple[str, Path | bytes, str]


def publish(
    repository: Repository, to: Destination | Path, report: Report = lambda _line: None, *, online_only: bool = False
) -> list[str]:
    """Bring a destination up to date with the repository; return the names written, in the order they were.

    Args:
        repository: with its online roles signed.
        to: a destination, or a folder, made when absent: FOLDER/metadata, FOLDER/targets, FOLDER/bundles.
        report: called with one line for each file written.
        online_only: only what `refresh-online` renews; everything else was published before.

    Raises:
        PublisherError: a file of the repository is missing, or the destination refuses; what was there is whole.
    """
    place = Folder(to) if isinstance(to, Path) else to
    written = []
    for step in _steps(repository, online_only=online_only):
        for name, content, cache in step:
            if place.put(name, content, cache):
                written.append(name)
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                report(f"wrote {name} ({size} bytes)")
        place.flush()
    for name in repository.withdrawn():
        place.remove(f"{BUNDLES}/{name}.json")
    return written


def _steps(repository: Repository, *, online_only: bool) -> Iterator[list[Put]]:
    """What must lie there before the next step may begin."""
    *versioned, timestamp = repository.current_files()
    if online_only:
        versioned = [path for path in versioned if path.name.endswith((".snapshot.json", ".rollout.json"))]
    else:
        files = repository.model_files() | repository.agent_files()
        missing = next((path for name, path in files.items() if name.endswith(".nis") and not path.is_file()), None)
        if missing is not None:
            raise PublisherError(f"{missing} is missing; restore it, or list the package again with nis-ota add-target")
        yield [(f"targets/{name}", path, CACHE_FOR_EVER) for name, path in files.items() if path.is_file()]
    yield [
        (f"targets/{path.relative_to(repository.targets)}", path, CACHE_FOR_EVER)
        for path in repository.documents().values()
    ]
    yield [(f"metadata/{path.name}", path, CACHE_FOR_EVER) for path in versioned]
    yield [(f"metadata/{timestamp.name}", timestamp, CACHE_BRIEFLY)]
    yield [(f"{BUNDLES}/{name}.json", bundle_bytes(repository, name), CACHE_BRIEFLY) for name in repository.documents()]


def check_bytes(repository: Repository) -> int:
    """Bytes of metadata that a device reads to look once, when it knows the newest root."""
    files = [path for path in repository.current_files() if not path.name.endswith((".root.json", ".agent.json"))]
    documents = [path.stat().st_size for path in repository.documents().values()]
    return sum(path.stat().st_size for path in files) + max(documents, default=0)


def export(repository: Repository, name: str, folder: Path, report: Report = lambda _line: None) -> list[str]:
    """Write to a folder (a stick) what the devices of one cohort, or one device, need; what is there already stays.

    Raises:
        PublisherError: nothing is offered under that name.
    """
    bundle = bundle_bytes(repository, name)
    rollout = repository.rollouts()[name]
    model = repository.target_file(rollout.target, rollout.sha256)
    document = repository.documents()[name]
    files = [("targets", repository.targets, path) for path in (model, document)]
    files += [("metadata", repository.metadata, path) for path in repository.current_files()]
    place, written = Folder(folder), []
    puts: list[tuple[str, Path | bytes]] = [
        *((f"{kind}/{path.relative_to(base)}", path) for kind, base, path in files),
        (f"{BUNDLES}/{name}.json", bundle),
    ]
    for to, content in puts:
        if place.put(to, content, CACHE_FOR_EVER):
            written.append(to)
            report(f"wrote {to}")
    return written


def bundle_bytes(repository: Repository, name: str) -> bytes:
    """Everything a device needs to decide, in one message: the metadata chain and its rollout document.

    Args:
        repository: with its online roles signed.
        name: a cohort, or `dev.ID` for one device.

    Raises:
        PublisherError: nothing was offered to it yet, or the chain outgrew what devices read.
    """
    document = repository.documents().get(name)
    if document is None:
        raise PublisherError(f"nothing is offered to {name!r}; offer a model: nis-ota rollout start")
    device = device_of(name)
    cohort = name if device is None else msgspec.json.decode(document.read_bytes(), type=Rollout).cohort
    files = {path.name: path.read_text(encoding="utf-8") for path in repository.current_files()}
    del files["1.root.json"]  # every device has the first root: it was given it
    files = {name: text for name, text in files.items() if not name.endswith(".agent.json")}  # devices ask for it then
    files[f"rollout/{document.name}"] = document.read_text(encoding="utf-8")
    try:
        return encode_bundle(Bundle(cohort=cohort, device=device, files=files))
    except ValueError as error:
        raise PublisherError(f"{name}: {error}; publish by HTTP only, or shorten the root chain") from error
