"""`init-repo`, `verify`, `status`: a repository's birth, and how it stands."""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timezone
from pathlib import Path

from nis_ota.commands import shared
from nis_ota.errors import PublisherError
from nis_ota.roles import Quorum


def register(commands: shared.Commands) -> None:
    """Declare the commands."""
    command = shared.add(
        commands, "init-repo", init_repo, "make keys and an empty repository", "nis-ota init-repo fleet"
    )
    command.add_argument("folder", type=Path, help="new folder")
    command.add_argument("--root", type=shared.quorum, metavar="M/N", help="root keys (default 2/3)")
    command.add_argument("--targets", type=shared.quorum, metavar="M/N", help="keys that sign models (default 2/3)")
    command.add_argument(
        "--agent", type=shared.quorum, metavar="M/N", help="keys that sign the runtime itself (default: no such role)"
    )
    command.add_argument("--quick", action="store_true", help="one operator: one plain key a role; change it later")
    command.add_argument("--plain-keys", action="store_true", help="leave the offline keys unencrypted (for tests)")
    for role in ("root", "targets", "agent"):
        command.add_argument(
            f"--{role}-key", type=Path, action="append", default=[], metavar="FILE.pub",
            help=f"a {role} key that its holder made with nis-ota key gen (repeatable)",
        )  # fmt: skip

    command = shared.add(
        commands,
        "verify",
        verify,
        "check what is published with the client that runs on devices",
        "nis-ota verify https://updates.example/nis --cohort stable --root fleet/metadata/1.root.json",
    )
    command.add_argument("place", metavar="PLACE", help="the published folder, or the URL that devices use")
    command.add_argument("--root", type=Path, required=True, help="the root metadata that devices were given")
    command.add_argument("--cohort", action="append", default=[], help="cohorts to check (default for a folder: all)")

    command = shared.add(
        commands, "status", status, "who may sign what, until when it counts, what waits", "nis-ota status fleet"
    )
    shared.repository_argument(command)


def init_repo(args: argparse.Namespace) -> None:
    """`nis-ota init-repo`."""
    from nis_ota import founding, keys

    default = Quorum(1, 1) if args.quick else Quorum(2, 3)
    plan = founding.Plan(
        root=args.root or default,
        targets=args.targets or default,
        agent=args.agent,
        root_keys=[keys.read_public(path) for path in args.root_key],
        targets_keys=[keys.read_public(path) for path in args.targets_key],
        agent_keys=[keys.read_public(path) for path in args.agent_key],
    )
    plain = args.plain_keys or args.quick
    brought = len(plan.root_keys) + len(plan.targets_keys) + len(plan.agent_keys)
    wanted = plan.root.count + plan.targets.count + (plan.agent.count if plan.agent else 0)
    passphrase = None
    if not plain and brought < wanted:
        try:
            passphrase = keys.read_passphrase("Passphrase for the offline keys: ", shared.ask())
        except PublisherError as error:
            raise PublisherError(f"{error}; --plain-keys leaves them unencrypted, for tests only") from error
    made = founding.found(args.folder, plan, passphrase)
    folder = args.folder
    waiting = sorted(str(path) for path in made.staged.glob("*.json"))
    lines = [
        f"made {folder}: root {plan.root.threshold} of {plan.root.count}, models {plan.targets.threshold} of "
        f"{plan.targets.count}, online keys for snapshot, timestamp, rollout",
    ]
    if waiting:
        lines += [
            f"these wait for their keys: {' '.join(waiting)}",
            "carry them to each key holder: nis-ota sign FILE... --keys FOLDER; bring the signed copies back:",
            f"nis-ota merge --into {folder} FILE...",
        ]
    else:
        lines += [f"give every device {folder}/metadata/1.root.json by a way you trust"]
    if brought < wanted:
        lines += [f"move {folder}/keys/*.pem to separate media; keep {folder}/keys/online here"]
    shared.tell(args, {"folder": str(folder), "root": str(made.metadata / "1.root.json"), "waiting": waiting}, *lines)
    if plain and brought < wanted:
        shared.warn("WARNING: the offline keys are not encrypted: whoever reads them can sign models for your fleet")


def verify(args: argparse.Namespace) -> None:
    """`nis-ota verify`."""
    from nis_ota import verifying

    seen = verifying.verify(args.place, args.root.read_bytes(), time.time(), args.cohort)
    lines = [
        f"{cohort.name}: {cohort.target} ({cohort.bytes} bytes, counter {cohort.release_counter}), "
        f"rollout serial {cohort.serial}, {cohort.state} to {cohort.open_bp / 100:g} %: a device would take it"
        for cohort in seen
    ]
    metadata = verifying.metadata_bytes(seen)
    shared.tell(args, [vars(cohort) for cohort in seen], *lines, f"metadata of a first check: {metadata} bytes")


def status(args: argparse.Namespace) -> None:
    """`nis-ota status`."""
    from nis_ota import keys

    repository = shared.open_repository(args)
    now, expiries = datetime.now(timezone.utc), repository.expiries()
    facts, lines = {}, []
    for role, demand in repository.demands().items():
        names = [keys.name_of(key) for key in demand.keys.values()]
        left = expiries[role] - now if role in expiries else None
        facts[role] = {
            "threshold": demand.threshold,
            "keys": {keys.name_of(key): keyid for keyid, key in demand.keys.items()},
            "expires": expiries[role].isoformat() if role in expiries else None,
            "seconds_left": left.total_seconds() if left is not None else None,
        }
        until = "not signed yet" if left is None else f"{left.days} days left" if left.days >= 0 else "EXPIRED"
        lines.append(f"{role:<10} {demand.threshold} of {len(names)}  {until:<14} {', '.join(names)}")
    models = {path: (info.custom or {}).get("release_counter") for path, info in repository.listed_models().items()}
    waiting = sorted(str(path) for path in repository.staged.glob("*.json"))
    lines += [f"model      {path} (release counter {counter})" for path, counter in models.items()]
    lines += [f"waits      {path} for signatures" for path in waiting]
    shared.tell(args, {"roles": facts, "models": models, "waiting": waiting}, *lines)
