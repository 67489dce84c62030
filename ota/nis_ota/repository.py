"""A TUF repository in a folder: who signs what, what is offered, and nothing published before it is whole.

    DIR/keys/            private keys; the offline ones belong on other media
    DIR/metadata/        every version ever signed: 1.root.json, 4.targets.json, 7.models.json, ..., timestamp.json
    DIR/staged/          metadata that still waits for offline signatures
    DIR/targets/         files by hash-prefixed name: models/NAME/<sha256>.VERSION.nis, rollout/<sha256>.COHORT.json

Roles. `root` and `targets` are offline, each m of n. `targets` delegates `models/*/*` to `models` (offline: what bytes
exist), `agent/*` to `agent` (offline, other keys: the runtime itself) and `rollout/*` to `rollout` (online: which model
a cohort shall run). All end the search, so the online key can never sign a model. `snapshot` and `timestamp` are online
too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from nis_edge.errors import NisEdgeError
from nis_edge.limits import UPDATE_DELTAS_MAX
from nis_edge.update.facts import (
    COHORT,
    BlockList,
    DeltaFrom,
    SignedFacts,
    check_path,
    encode_facts,
    published_name,
    read_facts,
)
from nis_edge.update.rollout import (
    ROLLOUT_PARTS,
    Rollout,
    device_of,
    encode_rollout,
    override_path,
    read_rollout,
    rollout_path,
)
from nis_edge.update.time_floor import ISSUED_FIELD
from nis_ota import ceremony, keys
from nis_ota.ceremony import SERIALIZER, Staged, Wanted
from nis_ota.errors import PublisherError, StagedError
from nis_ota.files import copy_durably, file_hash, write_durably
from nis_ota.roles import AGENT, DELEGATED, LIFE, MODELS, ONLINE_ROLES, ROLLOUT, SPECIFICATION, Quorum

S = TypeVar("S", bound=Root | Snapshot | Targets)

REMEMBERED: Final = 50
"""How many versions back withdrawn rollouts are looked for."""

AGENT_FILE: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,127}")


class Repository:
    """The repository in `folder`.

    Args:
        folder: as made by `create`.
        ring: where the private keys are found.
        now: the moment to sign with; UTC.
        stage: metadata that lacks signatures is left in `staged/` instead of being refused.
    """

    def __init__(self, folder: Path, ring: keys.KeyRing, now: datetime | None = None, *, stage: bool = False) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.staged = folder / "staged"
        self._ring = ring
        self._now = moment(now)
        self._stage = stage

    @classmethod
    def open(cls, folder: Path, ring: keys.KeyRing, *, stage: bool = False) -> Repository:
        """The repository that lies in `folder`.

        Raises:
            PublisherError: there is none.
        """
        found = cls(folder, ring, stage=stage)
        if not (found.metadata / "1.root.json").is_file() and not (found.staged / "1.root.json").is_file():
            raise PublisherError(f"{folder} holds no repository; make one: nis-ota init-repo {folder}")
        return found

    @classmethod
    def create(
        cls, folder: Path, *, root: Quorum, targets: Quorum, passphrase: bytes | None, now: datetime | None = None
    ) -> Repository:
        """Make keys and first metadata in one place; see `founding.found` for the whole choice."""
        from nis_ota import founding

        return founding.found(folder, founding.Plan(root=root, targets=targets), passphrase, now)

    @property
    def now(self) -> datetime:
        """The moment it signs with."""
        return self._now

    # --- changing -----------------------------------------------------------------------------------------------------

    def add_model(self, package: Path, name: str, facts: SignedFacts, delta_from: Sequence[str] = ()) -> str:
        """List a package under models/NAME/VERSION.nis, with its block list; return that target name. Signed offline.

        Args:
            package: its file.
            name: of the model.
            facts: what is signed of it; block list and deltas are added here.
            delta_from: listed models that get a delta to this one.

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
        self.store_file(path, info.hashes["sha256"], package)
        blocks = self._store_blocks(path, package)
        deltas = tuple(self._store_delta(path, package, self.listed(base)) for base in delta_from)
        facts = msgspec.structs.replace(facts, blocks=blocks, deltas=(*facts.deltas, *deltas))
        info.unrecognized_fields["custom"] = encode_facts(facts)
        listed.signed.targets[path] = info
        self._sign_next(MODELS, listed)
        return path

    def add_delta(self, path: str, base: str) -> DeltaFrom:
        """Make a delta from a listed model to another listed one and sign it into that one's facts. Signed offline.

        Raises:
            PublisherError: one of them is not listed, there are too many deltas, or keys are missing.
        """
        target, older = self.listed(path), self.listed(base)
        facts = self.facts_of(target)
        made = self._store_delta(path, self.target_file(path, target.hashes["sha256"]), older)
        kept = tuple(delta for delta in facts.deltas if delta.base_sha256 != made.base_sha256)
        if len(kept) >= UPDATE_DELTAS_MAX:
            raise PublisherError(f"{path} has {len(kept)} deltas, and devices read at most {UPDATE_DELTAS_MAX}")
        listed = self._load(MODELS, Targets)
        listed.signed.targets[path].unrecognized_fields["custom"] = encode_facts(
            msgspec.structs.replace(facts, deltas=(*kept, made))
        )
        self._sign_next(MODELS, listed)
        return made

    def add_agent(self, file: Path, name: str) -> str:
        """List a release of the runtime itself under agent/NAME, signed by the agent role's own keys.

        Raises:
            PublisherError: the repository has no such role, the name is taken by other bytes, or keys are missing.
        """
        if AGENT not in self.delegated():
            raise PublisherError(f"{self.folder} has no agent role; found a repository with init-repo --agent 2/3")
        if AGENT_FILE.fullmatch(name) is None:
            raise PublisherError(f"file name {name[:80]!r} cannot be used: letters, digits and ._+-, at most 128")
        path = f"agent/{name}"
        info = TargetFile.from_file(path, str(file), ["sha256"])
        listed = self._load(AGENT, Targets)
        present = listed.signed.targets.get(path)
        if present is not None and present.hashes != info.hashes:
            raise PublisherError(f"{path} is listed with other bytes; a release never changes: give it a new name")
        self.store_file(path, info.hashes["sha256"], file)
        listed.signed.targets[path] = info
        self._sign_next(AGENT, listed)
        return path

    def revoke_model(self, path: str) -> list[str]:
        """Take a model off the list (signed offline) and abort every rollout that points at it; return the cohorts.

        Raises:
            PublisherError: it is not listed, or keys are missing.
        """
        listed = self._load(MODELS, Targets)
        if path not in listed.signed.targets:
            raise PublisherError(f"{path} is not listed; listed are: {', '.join(listed.signed.targets) or 'none'}")
        pointing = [cohort for cohort, rollout in self.rollouts().items() if rollout.target == path]
        for cohort in pointing:  # first: a device that refreshes between the two sees an aborted rollout
            self.set_rollout(cohort, state="aborted")
        del listed.signed.targets[path]
        self._sign_next(MODELS, listed)
        return pointing

    def offer(
        self,
        cohort: str,
        path: str,
        *,
        device: str | None = None,
        open_bp: int = ROLLOUT_PARTS,
        state: str = "open",
        **more: Any,
    ) -> Rollout:
        """Point a cohort, or one device of it, at a listed model, under a new serial. Signed online.

        Args:
            cohort: of the devices.
            path: target name of the model.
            device: speak to this device only.
            open_bp: share of the cohort it is open to, in ten-thousandths.
            state: `open`, `paused` or `aborted`.
            more: further fields of the document (`nis_edge.update.rollout`).

        Raises:
            PublisherError: nothing of that name is listed, or a name or value cannot be used.
        """
        for what, name in (("cohort", cohort), ("device", device or "d")):
            if COHORT.fullmatch(name) is None:
                raise PublisherError(f"{what} {name!r} cannot be used: 1 to 64 of a-z, 0-9 and inner hyphens")
        target = self.listed(path)
        document = rollout_path(cohort) if device is None else override_path(device)
        rollout = Rollout(
            cohort=cohort,
            device=device,
            serial=self._serial_of(self._load(ROLLOUT, Targets).signed.targets.get(document)) + 1,
            target=path,
            sha256=target.hashes["sha256"],
            length=target.length,
            state=cast("Any", state),
            open_bp=open_bp,
            **more,
        )
        return self._sign_rollout(document, rollout)

    def set_rollout(self, name: str, **changes: Any) -> Rollout:
        """Change how far a rollout is open, or whether it is, without offering the model anew. Signed online.

        The serial stays: a device where the model failed is not asked to try it again, and starts stay spread alike.

        Args:
            name: a cohort, or `dev.ID`.
            changes: fields of the document.

        Raises:
            PublisherError: nothing is offered to the cohort, or the online key is missing.
        """
        rollout = self.rollouts().get(name)
        if rollout is None:
            raise PublisherError(f"nothing is offered to {name!r}; start a rollout: nis-ota rollout start")
        return self._sign_rollout(rollout_path(name), msgspec.structs.replace(rollout, **changes))

    def withdraw_override(self, device: str) -> None:
        """Take one device's own document back: it follows its cohort again. Signed online.

        Raises:
            PublisherError: there is none.
        """
        role = self._load(ROLLOUT, Targets)
        if role.signed.targets.pop(override_path(device), None) is None:
            raise PublisherError(f"device {device!r} has no rollout of its own")
        self._sign_next(ROLLOUT, role)

    def renew(self, role: str) -> int:
        """Sign an offline role or `rollout` again with a new date; return its version.

        Raises:
            PublisherError: keys are missing (or `StagedError`: it waits for them).
        """
        kind: type[Root] | type[Targets] = Root if role == "root" else Targets
        metadata = self._load(role, kind)
        self._sign_next(role, metadata)
        return int(metadata.signed.version)

    def sign_online(self) -> None:
        """Make a new snapshot when a role changed or the old one is half through its life; always a new timestamp."""
        versions = {f"{role}.json": self._newest(role) for role in ("targets", *self.delegated())}
        if self._newest("snapshot") == 0:
            meta = {name: MetaFile(version) for name, version in versions.items()}
            first = Snapshot(spec_version=SPECIFICATION, expires=self._now + LIFE["snapshot"], meta=meta)
            self._sign_and_store("snapshot", Metadata(first))
        else:
            snapshot = self._load("snapshot", Snapshot)
            stale = snapshot.signed.expires - self._now < LIFE["snapshot"] / 2
            changed = {name: file.version for name, file in snapshot.signed.meta.items()} != versions
            if stale or changed or not self._is_signed("snapshot", snapshot):
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

    def refresh_online(self) -> None:
        """What a timer does: a new timestamp, a new snapshot when due, and `rollout` again when half its life is over
        and its key is here. Needs no offline key.

        Raises:
            PublisherError: a key of snapshot or timestamp is missing.
        """
        rollout = self._load(ROLLOUT, Targets)
        key_is_here = any(self._ring.signer(key) for key in self.demands()[ROLLOUT].keys.values())
        if key_is_here and rollout.signed.expires - self._now < LIFE[ROLLOUT] / 2:
            self._sign_next(ROLLOUT, rollout)
        self.sign_online()

    def take_in(self, staged: Staged, role: str) -> Path:
        """Make a staged file part of the repository, when it is complete by the repository's own metadata.

        Raises:
            PublisherError: signatures are missing, or it does not follow the newest version here.
        """
        newest = self._newest(role)
        if staged.version != newest + 1:
            raise PublisherError(
                f"{role} version {staged.version} does not follow version {newest}, which is the newest here; "
                "make the change again on top of it"
            )
        checked = Staged(staged.metadata, self._wanted(role, staged.metadata))
        missing = [status.text() for status in checked.status() if not status.met]
        if missing:
            raise PublisherError(f"{role} version {staged.version} is not signed enough; {'; '.join(missing)}")
        path = self.metadata / f"{staged.version}.{role}.json"
        write_durably(path, checked.bare())
        (self.staged / path.name).unlink(missing_ok=True)
        return path

    # --- reading ------------------------------------------------------------------------------------------------------

    def current_files(self) -> list[Path]:
        """The metadata a device needs now, in the order it must be published in: roots, ..., timestamp last."""
        roots = [self.metadata / f"{n}.root.json" for n in range(1, self._newest("root") + 1)]
        delegated = [role for role in (MODELS, AGENT, ROLLOUT) if role in self.delegated()]
        others = [self.metadata / f"{self._newest(role)}.{role}.json" for role in (*delegated, "targets", "snapshot")]
        return [*roots, *others, self.metadata / "timestamp.json"]

    def delegated(self) -> list[str]:
        """Names of the delegated roles of this repository."""
        delegations = self._load("targets", Targets).signed.delegations
        return list(delegations.roles or {}) if delegations is not None else []

    def listed_models(self) -> dict[str, TargetFile]:
        """Every model on the list, by target name."""
        return dict(self._load(MODELS, Targets).signed.targets)

    def listed(self, path: str) -> TargetFile:
        """One model on the list.

        Raises:
            PublisherError: it is not on it.
        """
        target = self._load(MODELS, Targets).signed.targets.get(path)
        if target is None:
            raise PublisherError(f"{path} is not listed; add it first: nis-ota add-target")
        return target

    def facts_of(self, target: TargetFile) -> SignedFacts:
        """What is signed beside a model's hash.

        Raises:
            PublisherError: no device could read it.
        """
        try:
            return read_facts(target.custom or {})
        except msgspec.ValidationError as error:
            raise PublisherError(f"signed facts of {target.path} are malformed: {error}; list it again") from error

    def model_files(self) -> dict[str, Path]:
        """Every model with its companions: published name below targets/ -> the file here."""
        found = {}
        for path, info in self.listed_models().items():
            facts = self.facts_of(info)
            names = [published_name(path, info.hashes["sha256"])]
            names += [published_name(path, blocks.sha256, "blocks") for blocks in _block_lists(facts)]
            names += [published_name(path, delta.sha256, "delta") for delta in facts.deltas]
            found.update({name: self.targets / name for name in names})
        return found

    def agent_files(self) -> dict[str, Path]:
        """Every release of the runtime: published name below targets/ -> the file here."""
        if AGENT not in self.delegated():
            return {}
        files = [
            self.target_file(path, info.hashes["sha256"])
            for path, info in self._load(AGENT, Targets).signed.targets.items()
        ]
        return {str(path.relative_to(self.targets)): path for path in files}

    def documents(self) -> dict[str, Path]:
        """The file of every rollout document, by cohort, or by `dev.ID` for one device's own."""
        found = {}
        for path, info in self._load(ROLLOUT, Targets).signed.targets.items():
            if path.startswith("rollout/"):
                name = path.removeprefix("rollout/").removesuffix(".json")
                found[name] = self.target_file(path, info.hashes["sha256"])
        return found

    def withdrawn(self) -> list[str]:
        """Documents (`dev.ID`) that lately were signed and are no more: their bundles are to be taken back."""
        newest, present = self._newest(ROLLOUT), set(self.documents())
        found: set[str] = set()
        for version in range(max(1, newest - REMEMBERED), newest):
            path = self.metadata / f"{version}.{ROLLOUT}.json"
            if path.is_file():
                signed = Metadata[Targets].from_file(str(path)).signed.targets
                found.update(name.removeprefix("rollout/").removesuffix(".json") for name in signed)
        return sorted(found - present)

    def rollouts(self) -> dict[str, Rollout]:
        """Every rollout document, named as by `documents`."""
        found = {}
        for name, path in self.documents().items():
            try:
                found[name] = read_rollout(path.read_bytes(), name, device_of(name))
            except (OSError, NisEdgeError) as error:
                raise PublisherError(f"{path} cannot be read: {error}; offer the model again") from error
        return found

    def target_file(self, path: str, sha256: str) -> Path:
        """Where a target's bytes lie."""
        folder, _, name = path.rpartition("/")
        return self.targets / folder / f"{sha256}.{name}"

    def expiries(self) -> dict[str, datetime]:
        """Until when every role's newest signature counts."""
        roles = ("root", "targets", *self.delegated())
        found = {role: self._load(role, Root if role == "root" else Targets).signed.expires for role in roles}
        if self._newest("snapshot"):
            found["snapshot"] = self._load("snapshot", Snapshot).signed.expires
        path = self.metadata / "timestamp.json"
        if path.is_file():
            found["timestamp"] = Metadata[Timestamp].from_file(str(path)).signed.expires
        return found

    def demands(self) -> dict[str, Wanted]:
        """Every role's keys and threshold as they are now."""
        root, targets = self._load("root", Root).signed, self._load("targets", Targets).signed
        top = {role: ceremony.wanted_by_root(root, role) for role in ("root", "targets", "snapshot", "timestamp")}
        return top | {role: ceremony.wanted_by_targets(targets, role) for role in self.delegated()}

    def check_files(self) -> None:
        """Refuse to go on while a file that metadata vouches for is missing here: devices would ask for it in vain.

        Raises:
            PublisherError: one is.
        """
        for path in (self.model_files() | self.agent_files()).values():
            if not path.is_file():
                raise PublisherError(
                    f"{path} is missing; restore it, or make it again (nis-ota add-target, make-delta)"
                )

    def check_signatures(self) -> None:
        """Refuse to go on while a role's newest version is not signed by those who may sign it now.

        Raises:
            PublisherError: a key was rotated and the role was not signed again.
        """
        for role in ("targets", *self.delegated()):
            if not self._is_signed(role, self._load(role, Targets)):
                raise PublisherError(
                    f"{role} is not signed by its present keys; sign it again: nis-ota sign {self.folder} {role}"
                )

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
        if not path.is_file() and (self.staged / f"1.{role}.json").is_file():
            raise PublisherError(
                f"{role} still waits for its first signatures: nis-ota sign {self.staged}/1.{role}.json, then "
                f"nis-ota merge --into {self.folder} {self.staged}/1.{role}.json"
            )
        try:
            return cast("Metadata[S]", Metadata[kind].from_file(str(path)))  # type: ignore[valid-type]
        except (RepositoryError, OSError) as error:
            raise PublisherError(f"{path} cannot be read: {error}; restore it from a backup") from error

    def _serial_of(self, info: TargetFile | None) -> int:
        return int((info.custom or {}).get("serial", 0)) if info is not None else 0

    def _sign_rollout(self, document: str, rollout: Rollout) -> Rollout:
        role = self._load(ROLLOUT, Targets)
        try:
            data = encode_rollout(rollout)
        except ValueError as error:
            raise PublisherError(f"{error}; nothing was signed") from error
        info = TargetFile.from_data(document, data, ["sha256"])
        info.unrecognized_fields["custom"] = {"serial": rollout.serial}
        self._store_target(document, info.hashes["sha256"], data)
        role.signed.targets[document] = info
        self._sign_next(ROLLOUT, role)
        return rollout

    def _sign_next(self, role: str, metadata: Metadata[Any]) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = self._now + LIFE[role]
        self._sign_and_store(role, metadata)

    def _sign_and_store(self, role: str, metadata: Metadata[Any]) -> None:
        metadata.signatures.clear()
        staged = Staged(metadata, self._wanted(role, metadata))
        staged.sign(self._ring)
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        if staged.complete:
            write_durably(self.metadata / name, metadata.to_bytes(SERIALIZER))
            return
        if self._stage and role not in ONLINE_ROLES:
            if (self.staged / name).is_file():
                raise PublisherError(
                    f"{self.staged / name} waits for signatures already; merge it first, or remove it to drop it"
                )
            staged.write(self.staged / name)
            raise StagedError(self.staged / name, [status.text() for status in staged.status()])
        demand = next(status for status in staged.status() if not status.met)
        names = ", ".join(sorted([*demand.signed, *demand.may_sign]))
        raise PublisherError(
            f"role {role} needs {demand.threshold} signatures, {len(demand.signed)} of its keys are here ({names}); "
            "bring the key files and name their folder with --keys"
            + ("" if role in ONLINE_ROLES else ", or leave the file for them with --stage")
        )

    def _wanted(self, role: str, metadata: Metadata[Any]) -> Sequence[Wanted]:
        """Whose signatures make a version of `role` count, by what is here."""
        if role in DELEGATED:
            return [ceremony.wanted_by_targets(self._load("targets", Targets).signed, role)]
        if role != "root":
            return [ceremony.wanted_by_root(self._load("root", Root).signed, role)]
        own = [ceremony.wanted_by_root(metadata.signed, "root")]
        if metadata.signed.version == 1:
            return own
        return [ceremony.wanted_by_root(self._load("root", Root).signed, "root"), *own]

    def _is_signed(self, role: str, metadata: Metadata[Any]) -> bool:
        return Staged(metadata, self._wanted(role, metadata)).complete

    def store_file(self, path: str, sha256: str, source: Path) -> None:
        """Copy a target's bytes in, and make sure that they are what was hashed.

        Raises:
            PublisherError: the source changed meanwhile.
        """
        file = self.target_file(path, sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        copy_durably(source, file)
        if file_hash(file) != sha256:
            file.unlink()
            raise PublisherError(f"{source} changed while it was read; nothing was listed; try again")

    def _store_target(self, path: str, sha256: str, data: bytes) -> None:
        file = self.target_file(path, sha256)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            write_durably(file, data)

    def _store_blocks(self, path: str, file: Path) -> BlockList:
        from nis_ota.companions import block_list

        data, blocks = block_list(file)
        write_durably(self.targets / published_name(path, blocks.sha256, "blocks"), data)
        return blocks

    def _store_delta(self, path: str, package: Path, base: TargetFile) -> DeltaFrom:
        from nis_ota.companions import make_delta

        scratch = self.targets / f".{path.rpartition('/')[2]}.delta"
        try:
            made = make_delta(self.target_file(base.path, base.hashes["sha256"]), package, scratch)
            stored = self.targets / published_name(path, made.sha256, "delta")
            copy_durably(scratch, stored)
        finally:
            scratch.unlink(missing_ok=True)
        return msgspec.structs.replace(made, blocks=self._store_blocks(path, stored))


def _block_lists(facts: SignedFacts) -> list[BlockList]:
    own = [facts.blocks] if facts.blocks is not None else []
    return own + [delta.blocks for delta in facts.deltas if delta.blocks is not None]


def moment(now: datetime | None) -> datetime:
    """A date as metadata carries it: UTC, whole seconds."""
    return (now or datetime.now(timezone.utc)).replace(microsecond=0)
