"""Metadata that waits for signatures: files that are carried to where the keys are, signed there, and merged.

A staged file is TUF metadata whose envelope (the unsigned part) also says whose signatures are wanted: by which role's
keys, how many. That hint lets an air-gapped machine sign with nothing but the file and its key. It is only a hint: what
counts is checked again, against the repository's own metadata, when the file is taken in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization.json import CanonicalJSONSerializer, JSONSerializer

from nis_ota import keys
from nis_ota.errors import PublisherError
from nis_ota.files import write_durably

WANTED_FIELD: Final = "x-nis-wanted"
STAGED_BYTES_MAX: Final = 1 << 20
"""A root is 3 KiB, a list of thousands of models under a mebibyte; more is something else."""

SERIALIZER: Final = JSONSerializer(compact=True)


@dataclass(frozen=True)
class Wanted:
    """`threshold` signatures by `keys` (key id -> key), as `by` demands it."""

    by: str
    threshold: int
    keys: dict[str, Key]

    def signed(self, metadata: Metadata[Any]) -> list[str]:
        """Names of those of its keys whose signature verifies."""
        payload = CanonicalJSONSerializer().serialize(metadata.signed)
        names = []
        for keyid, key in self.keys.items():
            signature = metadata.signatures.get(keyid)
            if signature is not None and _verifies(key, signature, payload):
                names.append(keys.name_of(key))
        return names


@dataclass(frozen=True)
class Status:
    """How far one demand of a staged file is met."""

    by: str
    threshold: int
    signed: list[str]
    may_sign: list[str]

    @property
    def met(self) -> bool:
        """Whether enough have signed."""
        return len(self.signed) >= self.threshold

    def text(self) -> str:
        """One line for people."""
        rest = "" if self.met else f"; may still sign: {', '.join(self.may_sign)}"
        return (
            f"{self.by}: {len(self.signed)} of {self.threshold} signatures ({', '.join(self.signed) or 'none'}){rest}"
        )


class Staged:
    """One metadata file and whose signatures it waits for."""

    def __init__(self, metadata: Metadata[Any], wanted: Sequence[Wanted]) -> None:
        self.metadata = metadata
        self.wanted = list(wanted)

    @classmethod
    def read(cls, path: Path) -> Staged:
        """Read a file that `write` made, or plain TUF metadata of a root (which says itself who signs it).

        Raises:
            PublisherError: it is neither.
        """
        try:
            with path.open("rb") as file:
                data = file.read(STAGED_BYTES_MAX + 1)
            if len(data) > STAGED_BYTES_MAX:
                raise ValueError(f"more than {STAGED_BYTES_MAX} bytes")
            metadata: Metadata[Any] = Metadata.from_bytes(data)
            raw = metadata.unrecognized_fields.pop(WANTED_FIELD, None)
            wanted = [_wanted(entry) for entry in raw] if raw is not None else []
            if raw is None and isinstance(metadata.signed, Root):
                wanted = [wanted_by_root(metadata.signed, "root")]
        except (RepositoryError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PublisherError(f"{path} is no metadata file: {error}; nothing was signed") from error
        return cls(metadata, wanted)

    @property
    def role(self) -> str:
        """`root`, `targets`, or what the file's name must say for a delegated role."""
        return str(self.metadata.signed.type)

    @property
    def version(self) -> int:
        """The metadata's version."""
        return int(self.metadata.signed.version)

    def sign(self, ring: keys.KeyRing) -> list[str]:
        """Sign with every wanted key that is here and has not signed; return their names.

        Raises:
            PublisherError: a key file cannot be opened.
        """
        added = []
        for keyid, key in self._wanted_keys().items():
            if keyid in self.metadata.signatures:
                continue
            signer = ring.signer(key)
            if signer is not None:
                try:
                    self.metadata.sign(signer, append=True)
                except UnsignedMetadataError as error:
                    raise (error.__cause__ if isinstance(error.__cause__, PublisherError) else error) from None
                added.append(keys.name_of(key))
        return added

    def status(self) -> list[Status]:
        """How far every demand is met."""
        found = []
        for demand in self.wanted:
            signed = demand.signed(self.metadata)
            rest = [name for name in map(keys.name_of, demand.keys.values()) if name not in signed]
            found.append(Status(demand.by, demand.threshold, signed, rest))
        return found

    def contents(self) -> list[str]:
        """What a signature vouches for, one line each: nobody should sign what he cannot read."""
        signed = self.metadata.signed
        lines = [f"expires {signed.expires:%Y-%m-%d}"]
        if isinstance(signed, Root):
            lines += [
                f"{role}: {entry.threshold} of {', '.join(keys.name_of(signed.keys[keyid]) for keyid in entry.keyids)}"
                for role, entry in signed.roles.items()
            ]
        if isinstance(signed, Targets):
            delegations = signed.delegations
            lines += [
                f"{role} may sign {', '.join(entry.paths or [])}: {entry.threshold} of "
                f"{', '.join(keys.name_of(delegations.keys[keyid]) for keyid in entry.keyids)}"
                for role, entry in ((delegations.roles or {}) if delegations is not None else {}).items()
            ]
            lines += [
                f"{name}: {info.length} bytes, sha256 {info.hashes.get('sha256', 'none')}, "
                f"facts {json.dumps(info.custom, sort_keys=True)}"
                for name, info in signed.targets.items()
            ]
        return [printable(line) for line in lines]

    @property
    def complete(self) -> bool:
        """Whether every demand is met."""
        return bool(self.wanted) and all(status.met for status in self.status())

    def write(self, path: Path) -> None:
        """Write it with its hint; parts of the ceremony may each hold a copy."""
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = Metadata(self.metadata.signed, dict(self.metadata.signatures))
        whole.unrecognized_fields[WANTED_FIELD] = [
            {
                "by": demand.by,
                "threshold": demand.threshold,
                "keys": {keyid: key.to_dict() for keyid, key in demand.keys.items()},
            }
            for demand in self.wanted
        ]
        write_durably(path, whole.to_bytes(SERIALIZER))

    def bare(self) -> bytes:
        """The metadata alone, as it is published."""
        return Metadata(self.metadata.signed, dict(self.metadata.signatures)).to_bytes(SERIALIZER)

    def _wanted_keys(self) -> dict[str, Key]:
        return {keyid: key for demand in self.wanted for keyid, key in demand.keys.items()}


def printable(text: str) -> str:
    """A line out of a file that came from somewhere, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:1000]


def merge(files: Iterable[Path]) -> Staged:
    """Put the signatures of several copies of one file together.

    Raises:
        PublisherError: the copies do not say the same, so one of them was changed.
    """
    merged: Staged | None = None
    first = Path()
    for path in files:
        staged = Staged.read(path)
        if merged is None:
            merged, first = staged, path
            continue
        if staged.metadata.signed != merged.metadata.signed:
            raise PublisherError(f"{path} and {first} do not say the same; sign copies of one file, never of two")
        for keyid, signature in staged.metadata.signatures.items():
            merged.metadata.signatures.setdefault(keyid, signature)
    if merged is None:
        raise PublisherError("no file to merge; name the signed copies")
    return merged


def wanted_by_root(root: Root, role: str) -> Wanted:
    """What `root` demands of `role`."""
    entry = root.roles[role]
    return Wanted(f"root version {root.version}", entry.threshold, {keyid: root.keys[keyid] for keyid in entry.keyids})


def wanted_by_targets(targets: Targets, role: str) -> Wanted:
    """What the top-level targets demand of a delegated role."""
    delegations = targets.delegations
    if delegations is None or delegations.roles is None or role not in delegations.roles:
        raise PublisherError(f"this repository delegates nothing to {role!r}; it was made without it")
    entry = delegations.roles[role]
    return Wanted(
        f"targets version {targets.version}",
        entry.threshold,
        {keyid: delegations.keys[keyid] for keyid in entry.keyids},
    )


def _wanted(raw: dict[str, Any]) -> Wanted:
    found = {keyid: Key.from_dict(keyid, dict(value)) for keyid, value in raw["keys"].items()}
    for key in found.values():
        keys.name_of(key)
    return Wanted(str(raw["by"])[:80], int(raw["threshold"]), found)


def _verifies(key: Key, signature: Signature, payload: bytes) -> bool:
    try:
        key.verify_signature(signature, payload)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True
