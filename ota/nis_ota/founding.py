"""A new repository: keys made here or brought from their holders, and the first metadata, signed or waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets

from nis_ota import keys
from nis_ota.errors import PublisherError, StagedError
from nis_ota.repository import Repository, moment
from nis_ota.roles import AGENT, DELEGATED, LIFE, MODELS, ONLINE_ROLES, ROLLOUT, SPECIFICATION, Quorum


@dataclass(frozen=True)
class Plan:
    """Quorums of the offline roles, and public keys that their holders brought.

    `agent` None: the runtime is not updated through this repository, and no such role is made.
    """

    root: Quorum
    targets: Quorum
    agent: Quorum | None = None
    root_keys: Sequence[Key] = ()
    targets_keys: Sequence[Key] = ()
    agent_keys: Sequence[Key] = ()


def found(folder: Path, plan: Plan, passphrase: bytes | None, now: datetime | None = None) -> Repository:
    """Make a repository in a new folder.

    Args:
        folder: new or empty.
        plan: who signs. Keys that were not brought are made in `folder`/keys.
        passphrase: encrypts the offline keys made here; None leaves them plain. Online keys are always plain: a timer
            signs with them.
        now: the moment to sign with.

    Raises:
        PublisherError: the folder is not empty, or more keys were brought than the quorum counts.
    """
    if folder.exists() and any(folder.iterdir()):
        raise PublisherError(f"{folder} is not empty; choose a new folder")
    holders = {
        "root": _holders("root", plan.root, plan.root_keys),
        "targets": _holders("targets", plan.targets, plan.targets_keys),
        AGENT: _holders(AGENT, plan.agent, plan.agent_keys) if plan.agent is not None else [],
    }
    _no_name_twice([name for names in holders.values() for name in names])
    for name in ("metadata", "targets", "staged"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    offline, online = folder / "keys", folder / "keys" / keys.ONLINE_FOLDER
    brought = {keys.name_of(key): key for key in (*plan.root_keys, *plan.targets_keys, *plan.agent_keys)}
    made = {
        role: [brought.get(name) or keys.generate(offline, name, passphrase) for name in names]
        for role, names in holders.items()
    }
    online_keys = {role: keys.generate(online, role, None) for role in ONLINE_ROLES}
    at = moment(now)
    top = _first_root(plan, made, online_keys, at)
    named = _first_targets(plan, made, online_keys, at)
    repository = Repository(folder, keys.KeyRing([offline], passphrase=passphrase), at, stage=True)
    delegated = {
        role: Metadata(Targets(spec_version=SPECIFICATION, expires=at + LIFE[role]))
        for role in named.delegations.roles or {}  # type: ignore[union-attr]
    }
    try:
        repository._sign_and_store("root", Metadata(top))
        repository._sign_and_store("targets", Metadata(named))
        for role, metadata in delegated.items():
            repository._sign_and_store(role, metadata)
    except StagedError:
        _stage_the_rest(repository, top, named, delegated)
        return repository
    repository.sign_online()
    return repository


def _stage_the_rest(repository: Repository, top: Root, named: Targets, delegated: dict[str, Metadata[Targets]]) -> None:
    """Write every first file that is not complete with its hint, so that one visit to each key holder is enough."""
    from nis_ota import ceremony

    waiting: list[tuple[str, Metadata[Root] | Metadata[Targets], ceremony.Wanted]] = [
        ("root", Metadata(top), ceremony.wanted_by_root(top, "root")),
        ("targets", Metadata(named), ceremony.wanted_by_root(top, "targets")),
        *((role, metadata, ceremony.wanted_by_targets(named, role)) for role, metadata in delegated.items()),
    ]
    for role, metadata, wanted in waiting:
        name = f"1.{role}.json"
        if (repository.metadata / name).is_file() or (repository.staged / name).is_file():
            continue
        staged = ceremony.Staged(metadata, [wanted])
        staged.sign(repository._ring)
        staged.write(repository.staged / name)


def _first_root(plan: Plan, made: dict[str, list[Key]], online: dict[str, Key], at: datetime) -> Root:
    top = Root(spec_version=SPECIFICATION, expires=at + LIFE["root"], consistent_snapshot=True)
    for role, role_keys, threshold in (
        ("root", made["root"], plan.root.threshold),
        ("targets", made["targets"], plan.targets.threshold),
        ("snapshot", [online["snapshot"]], 1),
        ("timestamp", [online["timestamp"]], 1),
    ):
        for key in role_keys:
            top.add_key(key, role)
        top.roles[role].threshold = threshold
    return top


def _first_targets(plan: Plan, made: dict[str, list[Key]], online: dict[str, Key], at: datetime) -> Targets:
    delegations = Delegations(keys={}, roles={})
    named = Targets(spec_version=SPECIFICATION, expires=at + LIFE["targets"], delegations=delegations)
    signers = [(MODELS, made["targets"], plan.targets.threshold), (ROLLOUT, [online[ROLLOUT]], 1)]
    if plan.agent is not None:
        signers.insert(1, (AGENT, made[AGENT], plan.agent.threshold))
    for name, role_keys, threshold in signers:
        assert delegations.roles is not None
        delegations.roles[name] = DelegatedRole(name, [], threshold, True, [DELEGATED[name]])
        for key in role_keys:
            named.add_key(key, name)
    return named


def _holders(role: str, quorum: Quorum, brought: Sequence[Key]) -> list[str]:
    names = [keys.name_of(key) for key in brought]
    if len(names) > quorum.count:
        raise PublisherError(f"{len(names)} keys for {role}, but its quorum counts {quorum.count}; raise --{role}")
    free = (f"{role}-{n + 1}" for n in range(quorum.count + len(names)))
    missing = [name for name in free if name not in names][: quorum.count - len(names)]
    return [*names, *missing]


def _no_name_twice(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PublisherError(f"key name {twice[0]!r} stands for two keys; give each its own name")
