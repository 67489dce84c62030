"""A TUF repository in a folder: who signs what, what is offered, and nothing published before it is whole.

    DIR/keys/            private keys; the offline ones belong on other media
    DIR/metadata/        every version ever signed: 1.root.json, 4.targets.json, 7.models.json, ..., timestamp.json
    DIR/targets/         files by hash-prefixed name: models/NAME/<sha256>.VERSION.nis, rollout/<sha256>.COHORT.json

Roles. `root` and `targets` are offline, each m of n. `targets` delegates `models/*/*` to `models` (offline: what bytes
exist) and `rollout/*` to `rollout` (online: which of them a cohort shall run). Both end the search, so the online key
can never sign a model. `snapshot` and `timestamp` are online.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from nis_edge.errors import NisEdgeError
from nis_edge.update.offer import COHORT, Rollout, SignedFacts, check_path, rollout_path
from nis_ota import keys
from nis_ota.errors import PublisherError

SPECIFICATION: Final = "1.0.31"
ISSUED_FIELD: Final = "x-nis-issued"
MODELS: Final = "models"
ROLLOUT: Final = "rollout"
ONLINE_ROLES: Final = ("snapshot", "timestamp", ROLLOUT)

LIFE: Final = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    MODELS: timedelta(days=90),
    ROLLOUT: timedelta(days=30),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(days=3),
}
"""How long a role's signature counts (design: ota section 4); `targets` bounds how long a freeze can go unnoticed."""

SERIALIZER: Final = JSONSerializer(compact=True)

S = TypeVar("S", bound=Signed)


@dataclass(frozen=True)
class Quorum:
    """`threshold` of `count` keys must sign."""

    threshold: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Quorum:
        """Read `2/3`.

        Raises:
            ValueError: not M/N with 1 <= M <= N <= 9.
        """
        threshold, _, count = text.partition("/")
        quorum = cls(int(threshold), int(count))
        if not 1 <= quorum.threshold <= quorum.count <= 9:
            raise ValueError(text)
        return quorum


class Repository:
    """The repository in `folder`.

    Args:
        folder: as made by `create`.
        ring: where the private keys are found.
        now: the moment to sign with; UTC.
    """

    def __init__(self, folder: Path, ring: keys.KeyRing, now: datetime | None = None) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self._ring = ring
        self._now = (now or datetime.now(timezone.utc)).replace(microsecond=0)
        if not (self.metadata / "1.root.json").is_file():
            raise PublisherError(f"{folder} holds no repository; make one: nis-ota init-repo {folder}")

    # --- making -------------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        root: Quorum,
        targets: Quorum,
        passphrase: bytes | None,
        now: datetime | None = None,
    ) -> Repository:
        """Make keys and first metadata.

        Args:
            folder: new or empty.
            root: m of n for the root role.
            targets: m of n for the targets role and, with the same keys, the models role.
            passphrase: encrypts the offline keys; None leaves them plain. Online keys are always plain: a timer signs
                with them.

        Raises:
            PublisherError: the folder is not empty.
        """
        if folder.exists() and any(folder.iterdir()):
            raise PublisherError(f"{folder} is not empty; choose a new folder")
        for name in ("metadata", "targets"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        offline, online = folder / "keys", folder / "keys" / keys.ONLINE_FOLDER
        root_keys = [keys.generate(offline, f"root-{n + 1}", passphrase) for n in range(root.count)]
        target_keys = [keys.generate(offline, f"targets-{n + 1}", passphrase) for n in range(targets.count)]
        online_keys = {role: keys.generate(online, role, None) for role in ONLINE_ROLES}

        moment = (now or datetime.now(timezone.utc)).replace(microsecond=0)
        top = Root(spec_version=SPECIFICATION, expires=moment + LIFE["root"], consistent_snapshot=True)
        for role, role_keys, threshold in (
            ("root", root_keys, root.threshold),
            ("targets", target_keys, targets.threshold),
            ("snapshot", [online_keys["snapshot"]], 1),
            ("timestamp", [online_keys["timestamp"]], 1),
        ):
            for key in role_keys:
                top.add_key(key, role)
            top.roles[role].threshold = threshold

        delegations = Delegations(keys={}, roles={})
        named = Targets(spec_version=SPECIFICATION, expires=moment + LIFE["targets"], delegations=delegations)
        for name, pattern, role_keys, threshold in (
            (MODELS, "models/*/*", target_keys, targets.threshold),
            (ROLLOUT, "rollout/*", [online_keys[ROLLOUT]], 1),
        ):
            assert delegations.roles is not None
            delegations.roles[name] = DelegatedRole(name, [], threshold, True, [pattern])
            for key in role_keys:
                named.add_key(key, name)

        ring = keys.KeyRing([offline])
        ring._passphrase = passphrase
        made = cls._unchecked(folder, ring, moment)
        made._sign_and_store("root", Metadata(top))
        made._sign_and_store("targets", Metadata(named))
        for role in (MODELS, ROLLOUT):
            made._sign_and_store(role, Metadata(Targets(spec_version=SPECIFICATION, expires=moment + LIFE[role])))
        made.sign_online()
        return made

    @classmethod
    def _unchecked(cls, folder: Path, ring: keys.KeyRing, now: datetime) -> Repository:
        """A repository whose first metadata is being made."""
        made = cls.__new__(cls)
        made.folder, made.metadata, made.targets = folder, folder / "metadata", folder / "targets"
        made._ring, made._now = ring, now
        return made

    # --- changing -----------------------------------------------------------------------------------------------------

    def add_model(self, package: Path, name: str, facts: SignedFacts) -> str:
        """List a package under models/NAME/VERSION.nis; return that target name. Signed offline.

        Raises:
            PublisherError: the name is listed with other bytes, the counter is not above the listed ones of this
                model, or keys are missing.
        """
        try:
            path = check_path(f"models/{name}/{facts.version}.nis")
        except NisEdgeError as error:
            raise PublisherError(
                f"model name {name!r} or version {facts.version!r} cannot be used: lower-case letters, digits and "
                "hyphens for the name; letters, digits and ._+- for the version"
            ) from error
        info = TargetFile.from_file(path, str(package), ["sha256"])
        info.unrecognized_fields["custom"] = msgspec.to_builtins(facts)
        listed = self._load(MODELS, Targets)
        present = listed.signed.targets.get(path)
        if present is not None and present.hashes != info.hashes:
            raise PublisherError(f"{path} is listed with other bytes; a version never changes: raise --version")
        for other, target in listed.signed.targets.items():
            counter = (target.custom or {}).get("release_counter", 0)
            if other != path and other.startswith(f"models/{name}/") and counter >= facts.release_counter:
                raise PublisherError(
                    f"{other} has release counter {counter}, and devices that ran it refuse a lower one; it rises with "
                    f"every release: use --release-counter {counter + 1}"
                )
        self._store_package(path, info.hashes["sha256"], package)
        listed.signed.targets[path] = info
        self._sign_next(MODELS, listed)
        return path

    def offer(self, cohort: str, path: str, *, open_bp: int = 10_000, state: str = "open") -> Rollout:
        """Point a cohort at a listed model. Signed online.

        Raises:
            PublisherError: nothing of that name is listed, or the cohort's name cannot be used.
        """
        if COHORT.fullmatch(cohort) is None:
            raise PublisherError(f"cohort {cohort!r} cannot be used: 1 to 64 of a-z, 0-9 and inner hyphens")
        target = self._load(MODELS, Targets).signed.targets.get(path)
        if target is None:
            raise PublisherError(f"{path} is not listed; add it first: nis-ota add-target")
        document = rollout_path(cohort)
        role = self._load(ROLLOUT, Targets)
        rollout = Rollout(
            cohort=cohort,
            serial=self._serial_of(role.signed.targets.get(document)) + 1,
            target=path,
            sha256=target.hashes["sha256"],
            length=target.length,
            state=cast("Any", state),
            open_bp=open_bp,
        )
        data = msgspec.json.encode(rollout)
        info = TargetFile.from_data(document, data, ["sha256"])
        info.unrecognized_fields["custom"] = {"serial": rollout.serial}
        self._store_target(document, info.hashes["sha256"], data)
        role.signed.targets[document] = info
        self._sign_next(ROLLOUT, role)
        return rollout

    def sign_online(self) -> None:
        """Make a new snapshot when a role changed or the old one is half through its life; always a new timestamp."""
        versions = {
            "targets.json": self._newest("targets"),
            f"{MODELS}.json": self._newest(MODELS),
            f"{ROLLOUT}.json": self._newest(ROLLOUT),
        }
        if self._newest("snapshot") == 0:
            meta = {name: MetaFile(version) for name, version in versions.items()}
            first = Snapshot(spec_version=SPECIFICATION, expires=self._now + LIFE["snapshot"], meta=meta)
            self._sign_and_store("snapshot", Metadata(first))
        else:
            snapshot = self._load("snapshot", Snapshot)
            stale = snapshot.signed.expires - self._now < LIFE["snapshot"] / 2
            if stale or {name: file.version for name, file in snapshot.signed.meta.items()} != versions:
                snapshot.signed.meta = {name: MetaFile(version) for name, version in versions.items()}
                self._sign_next("snapshot", snapshot)
        path = self.metadata / "timestamp.json"
        if path.is_file():
            timestamp = Metadata[Timestamp].from_file(str(path))
            timestamp.signed.version += 1
        else:
            timestamp = Metadata(Timestamp(spec_version=SPECIFICATION))
        timestamp.signed.expires = self._now + LIFE["timestamp"]
        timestamp.signed.snapshot_meta = MetaFile(self._newest("snapshot"))
        timestamp.signed.unrecognized_fields[ISSUED_FIELD] = int(self._now.timestamp())
        self._sign_and_store("timestamp", timestamp)

    # --- reading ------------------------------------------------------------------------------------------------------

    def current_files(self) -> list[Path]:
        """The metadata a device needs now, in the order it must be published in: roots, ..., timestamp last."""
        roots = [self.metadata / f"{n}.root.json" for n in range(1, self._newest("root") + 1)]
        others = [
            self.metadata / f"{self._newest(role)}.{role}.json" for role in (MODELS, ROLLOUT, "targets", "snapshot")
        ]
        return [*roots, *others, self.metadata / "timestamp.json"]

    def listed_models(self) -> dict[str, TargetFile]:
        """Every model on the list, by target name."""
        return dict(self._load(MODELS, Targets).signed.targets)

    def cohorts(self) -> dict[str, Path]:
        """The rollout document's file of every cohort."""
        found = {}
        for path, info in self._load(ROLLOUT, Targets).signed.targets.items():
            if not path.startswith("rollout/"):
                continue
            cohort = path.removeprefix("rollout/").removesuffix(".json")
            found[cohort] = self.target_file(path, info.hashes["sha256"])
        return found

    def target_file(self, path: str, sha256: str) -> Path:
        """Where a target's bytes lie."""
        folder, _, name = path.rpartition("/")
        return self.targets / folder / f"{sha256}.{name}"

    # --- below the surface --------------------------------------------------------------------------------------------

    def _newest(self, role: str) -> int:
        versions = [
            int(path.name.split(".", 1)[0])
            for path in self.metadata.glob(f"*.{role}.json")
            if path.name.split(".", 1)[0].isdecimal()
        ]
        return max(versions, default=0)

    def _load(self, role: str, kind: type[S]) -> Metadata[S]:
        path = self.metadata / f"{self._newest(role)}.{role}.json"
        try:
            return cast("Metadata[S]", Metadata[kind].from_file(str(path)))  # type: ignore[valid-type]
        except (RepositoryError, OSError) as error:
            raise PublisherError(f"{path} cannot be read: {error}; restore it from a backup") from error

    def _serial_of(self, info: TargetFile | None) -> int:
        return int((info.custom or {}).get("serial", 0)) if info is not None else 0

    def _sign_next(self, role: str, metadata: Metadata[Any]) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = self._now + LIFE[role]
        self._sign_and_store(role, metadata)

    def _sign_and_store(self, role: str, metadata: Metadata[Any]) -> None:
        public_keys, threshold = self._signers_of(role, metadata)
        metadata.signatures.clear()
        for key in public_keys:
            signer = self._ring.signer(key)
            if signer is not None:
                metadata.sign(signer, append=True)
        if len(metadata.signatures) < threshold:
            names = ", ".join(str(key.unrecognized_fields.get(keys.NAME_FIELD, key.keyid)) for key in public_keys)
            raise PublisherError(
                f"role {role} needs {threshold} signatures, {len(metadata.signatures)} of its keys are here ({names}); "
                "bring the key files and name their folder with --keys"
            )
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        write_durably(self.metadata / name, metadata.to_bytes(SERIALIZER))

    def _signers_of(self, role: str, metadata: Metadata[Any]) -> tuple[Sequence[Key], int]:
        if role in (MODELS, ROLLOUT):
            delegations = self._load("targets", Targets).signed.delegations
            assert delegations is not None and delegations.roles is not None
            delegated = delegations.roles[role]
            return [delegations.keys[keyid] for keyid in delegated.keyids], delegated.threshold
        root = metadata.signed if isinstance(metadata.signed, Root) else self._load("root", Root).signed
        return [root.keys[keyid] for keyid in root.roles[role].keyids], root.roles[role].threshold

    def _store_package(self, path: str, sha256: str, package: Path) -> None:
        file = self.target_file(path, sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        copy_durably(package, file)
        if _file_hash(file) != sha256:
            file.unlink()
            raise PublisherError(f"{package} changed while it was read; nothing was listed; try again")

    def _store_target(self, path: str, sha256: str, data: bytes) -> None:
        file = self.target_file(path, sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            write_durably(file, data)


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file at once and for good: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_folder(path.parent)


def copy_durably(source: Path, path: Path) -> None:
    """As `write_durably`, for a large file."""
    temporary = path.with_name(f".{path.name}.new")
    shutil.copyfile(source, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
