"""Change who may sign: replace keys by new ones, or take them away, in every role they serve.

A stolen online key is healed by this: devices refuse everything it signed as soon as they see the new root or targets,
and what it pushed ahead (absurdly high versions) is forgotten with it (TUF specification 5.3.11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from nis_ota import ceremony, keys
from nis_ota.ceremony import Staged
from nis_ota.errors import PublisherError
from nis_ota.repository import Repository
from nis_ota.roles import DELEGATED, LIFE, ONLINE_ROLES


def next_name(name: str) -> str:
    """The name of the key that replaces one: `timestamp` -> `timestamp-r2` -> `timestamp-r3`."""
    base, count = re.fullmatch(r"(.*?)(?:-r([0-9]+))?", name).groups()  # type: ignore[union-attr]
    return f"{base}-r{int(count or 1) + 1}"


def roles_of(repository: Repository, name: str) -> list[str]:
    """The roles a key of that name signs.

    Raises:
        PublisherError: none.
    """
    found = [role for role, demand in repository.demands().items() if name in map(keys.name_of, demand.keys.values())]
    if not found:
        known = sorted({keys.name_of(k) for demand in repository.demands().values() for k in demand.keys.values()})
        raise PublisherError(f"no role has a key {name!r}; there are: {', '.join(known)}")
    return found


def replace(repository: Repository, changes: Mapping[str, Key | None]) -> list[str]:
    """Replace keys by name, or take them away (None), everywhere; return the roles that were signed anew.

    The root first, then targets, then what targets delegate. When one of them must wait for signatures elsewhere
    (`StagedError`), run it again after the merge: what is done already is left alone.

    Raises:
        PublisherError: a role would be left with fewer keys than it needs, or keys are missing.
    """
    touched: list[str] = []
    root = repository._load("root", Root)
    top = [role for role in root.signed.roles if _change(root.signed, role, _keys_of_root(root.signed, role), changes)]
    if top:
        repository._sign_next("root", root)
        touched += ["root"]
    targets = repository._load("targets", Targets)
    delegations = targets.signed.delegations
    assert delegations is not None and delegations.roles is not None
    below = [
        role
        for role, entry in delegations.roles.items()
        if _change(targets.signed, role, {keyid: delegations.keys[keyid] for keyid in entry.keyids}, changes)
    ]
    if below or not repository._is_signed("targets", targets):
        repository._sign_next("targets", targets)
        touched += ["targets"]
    for role in repository.delegated():
        metadata = repository._load(role, Targets)
        if role in below or not repository._is_signed(role, metadata):
            repository._sign_next(role, metadata)
            touched += [role]
    return touched


def new_key(folder: Path, repository: Repository, name: str, passphrase: bytes | None) -> Key:
    """Make the key that replaces one, where keys of its kind lie; online keys are plain. One that a try before left
    behind is taken."""
    online = set(roles_of(repository, name)) <= set(ONLINE_ROLES)
    place = folder / keys.ONLINE_FOLDER if online else folder
    if (place / f"{next_name(name)}.pub").is_file():
        return keys.read_public(place / f"{next_name(name)}.pub")
    return keys.generate(place, next_name(name), None if online else passphrase)


def edit_root(
    file: Path,
    *,
    add: Sequence[tuple[str, Key]] = (),
    remove: Sequence[tuple[str, str]] = (),
    thresholds: Mapping[str, int] | None = None,
    now: Any,
) -> Staged:
    """The next root after `file`, waiting for signatures by the old keys and the new.

    Args:
        file: the newest root, on a machine without a network.
        add: (role, public key).
        remove: (role, key's name or id).
        thresholds: role -> signatures it needs from now on.
        now: the moment its life begins.

    Raises:
        PublisherError: a role or key is unknown, or a role would have fewer keys than it needs.
    """
    previous = Staged.read(file).metadata
    if not isinstance(previous.signed, Root):
        raise PublisherError(f"{file} is {previous.signed.type} metadata; edit the newest N.root.json")
    edited = Metadata[Root].from_bytes(Metadata(previous.signed, dict(previous.signatures)).to_bytes())
    root = edited.signed
    for role in [*(role for role, _ in (*add, *remove)), *(thresholds or {})]:
        if role not in root.roles:
            raise PublisherError(f"{role!r} is no role of the root; there are: {', '.join(root.roles)}")
    for role, key in add:
        root.add_key(key, role)
    for role, name in remove:
        found = [i for i, key in _keys_of_root(root, role).items() if name in (i, keys.name_of(key))]
        if not found:
            raise PublisherError(f"{role} has no key {name!r}")
        root.revoke_key(found[0], role)
    for role, threshold in (thresholds or {}).items():
        root.roles[role].threshold = threshold
    for role, entry in root.roles.items():
        _check_count(role, len(entry.keyids), entry.threshold)
    root.version += 1
    root.expires = now + LIFE["root"]
    edited.signatures.clear()
    return Staged(edited, [ceremony.wanted_by_root(previous.signed, "root"), ceremony.wanted_by_root(root, "root")])


def _change(signed: Root | Targets, role: str, present: dict[str, Key], changes: Mapping[str, Key | None]) -> bool:
    changed = False
    for keyid, key in present.items():
        name = keys.name_of(key)
        if name not in changes:
            continue
        new = changes[name]
        if new is not None:
            signed.add_key(new, role)
        signed.revoke_key(keyid, role)
        changed = True
    if changed:
        roles: Any = signed.roles if isinstance(signed, Root) else signed.delegations.roles  # type: ignore[union-attr]
        _check_count(role, len(roles[role].keyids), roles[role].threshold)
    return changed


def _check_count(role: str, count: int, threshold: int) -> None:
    if not 1 <= threshold <= count:
        raise PublisherError(
            f"{role} would have {count} keys and need {threshold} of them; add a key or lower the threshold"
        )


def _keys_of_root(root: Root, role: str) -> dict[str, Key]:
    return {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}


def role_of_file(path: Path, staged: Staged) -> str:
    """The role of a staged file, which for a delegated one only its name says.

    Raises:
        PublisherError: the name is not N.ROLE.json.
    """
    parts = path.name.split(".")
    named = parts[1] if len(parts) >= 3 and parts[0].isdecimal() else ""
    if named in DELEGATED and staged.role == "targets":
        return named
    if named and named != staged.role:
        raise PublisherError(f"{path.name} holds {staged.role} metadata; keep the name it was staged under")
    if not named and staged.role == "targets":
        raise PublisherError(f"{path.name} does not say which role it is; keep the name N.ROLE.json")
    return staged.role
