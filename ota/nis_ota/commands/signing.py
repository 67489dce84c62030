"""`key`, `root`, `sign`, `merge`, `revoke`: who may sign, and the files that wait for them."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from nis_ota.commands import shared
from nis_ota.errors import PublisherError

if TYPE_CHECKING:
    from nis_ota.ceremony import Staged

WAITING = 3
"""Exit code: no fault, but signatures are still missing."""


def register(commands: shared.Commands) -> None:
    """Declare the commands."""
    _register_keys(shared.group(commands, "key", "make, take over, replace and list signing keys"))
    roots = shared.group(commands, "root", "change the root of trust with files on a machine without a network")
    command = shared.add(
        roots, "edit", root_edit, "write the next root, unsigned",
        "nis-ota root edit 1.root.json -o 2.root.json --add root root-4.pub --remove root root-1",
    )  # fmt: skip
    command.add_argument("file", type=Path, help="the newest N.root.json")
    command.add_argument("-o", "--output", type=Path, required=True, help="the next one, e.g. 2.root.json")
    command.add_argument("--add", nargs=2, action="append", default=[], metavar=("ROLE", "FILE.pub"))
    command.add_argument("--remove", nargs=2, action="append", default=[], metavar=("ROLE", "KEY"))
    command.add_argument("--threshold", nargs=2, action="append", default=[], metavar=("ROLE", "M"))
    for group, path in ((commands, "sign"), (roots, "root sign")):
        command = shared.add(
            group, "sign", sign, "sign files that wait, or renew a role of a repository before it expires",
            f"nis-ota {path} staged/4.models.json --keys /media/key-1",
        )  # fmt: skip
        command.add_argument("what", nargs="+", metavar="FILE", help="waiting files; or REPOSITORY ROLE to renew it")
        shared.keys_argument(command, stage=True)
    for group, path in ((commands, "merge"), (roots, "root merge")):
        command = shared.add(
            group, "merge", merge, "put signatures of copies together; take complete files into a repository",
            f"nis-ota {path} --into fleet /media/key-1/4.models.json /media/key-2/4.models.json",
        )  # fmt: skip
        command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="signed copies, of one or more files")
        where = command.add_mutually_exclusive_group(required=True)
        where.add_argument("-o", "--output", type=Path, help="write the merged file (one file only)")
        where.add_argument("--into", type=Path, metavar="REPOSITORY", help="take complete files in")
    revokes = shared.group(commands, "revoke", "take back a model or a key")
    command = shared.add(
        revokes, "target", revoke_target, "take a model off the list and abort its rollouts",
        "nis-ota revoke target fleet models/nis-nano/1.2.0.nis",
    )  # fmt: skip
    shared.repository_argument(command)
    command.add_argument("target", help="name as add-target printed it")
    shared.keys_argument(command, stage=True)
    command = shared.add(
        revokes, "key", revoke_key, "take a key out of every role it signs", "nis-ota revoke key fleet targets-2"
    )
    shared.repository_argument(command)
    command.add_argument("name", help="the key's name")
    shared.keys_argument(command, stage=True)


def _register_keys(group: shared.Commands) -> None:
    command = shared.add(group, "gen", key_gen, "make a signing key", "nis-ota key gen root-alice --out /media/usb")
    command.add_argument("name", help="its name: a-z, 0-9 and hyphens")
    command.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="where its files go (default: here)"
    )
    command.add_argument("--plain-keys", action="store_true", help="leave it unencrypted")
    command = shared.add(
        group, "import", key_import, "take over a key: a PEM file, a PKCS#11 token or a cloud's key service",
        "PYKCS11LIB=/usr/lib/softhsm/libsofthsm2.so nis-ota key import root-bob --uri 'hsm:2?label=yubikey'",
    )  # fmt: skip
    command.add_argument("name", help="its name: a-z, 0-9 and hyphens")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--pem", type=Path, help="private key, Ed25519 or ECDSA P-256")
    source.add_argument("--uri", help="hsm:KEYID?label=TOKEN, awskms:KEY or gcpkms:KEY (securesystemslib signer URIs)")
    command.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="where its files go (default: here)"
    )
    command.add_argument("--plain-keys", action="store_true", help="leave it unencrypted")
    command = shared.add(
        group, "rotate", key_rotate, "replace keys in every role they sign: after a theft, or once a year",
        "nis-ota key rotate fleet timestamp snapshot rollout",
    )  # fmt: skip
    shared.repository_argument(command)
    command.add_argument("names", nargs="+", metavar="NAME", help="names of the keys to replace")
    command.add_argument(
        "--by", type=Path, metavar="FILE.pub", help="replace the one key by this one (default: make a new one)"
    )
    command.add_argument("--plain-keys", action="store_true", help="leave new offline keys unencrypted")
    shared.keys_argument(command, stage=True)
    command = shared.add(group, "list", key_list, "every key, and the roles it signs", "nis-ota key list fleet")
    shared.repository_argument(command)


def key_gen(args: argparse.Namespace) -> None:
    """`nis-ota key gen`."""
    from nis_ota import keys

    passphrase = None if args.plain_keys else keys.read_passphrase(f"Passphrase for {args.name}: ", shared.ask())
    key = keys.generate(args.out, args.name, passphrase)
    _tell_key(args, key.keyid)


def key_import(args: argparse.Namespace) -> None:
    """`nis-ota key import`."""
    from nis_ota import keys

    if args.uri:
        key = keys.import_uri(args.out, args.name, args.uri, shared.ask())
    else:
        old = None
        if b"ENCRYPTED" in args.pem.read_bytes()[:4096]:
            old = keys.read_passphrase(f"Passphrase of {args.pem}: ", shared.ask())
        new = None if args.plain_keys else keys.read_passphrase(f"Passphrase for {args.name}: ", shared.ask())
        key = keys.import_pem(args.out, args.name, args.pem, old, new)
    _tell_key(args, key.keyid)


def _tell_key(args: argparse.Namespace, keyid: str) -> None:
    public = args.out / f"{args.name}.pub"
    shared.tell(
        args,
        {"name": args.name, "keyid": keyid, "public": str(public)},
        f"key {args.name} ({keyid[:12]}): give {public} to whoever founds or edits the repository; keep the rest",
    )


def key_rotate(args: argparse.Namespace) -> None:
    """`nis-ota key rotate`."""
    from nis_ota import keys, rotation
    from nis_ota.roles import ONLINE_ROLES

    repository = shared.open_repository(args)
    if args.by and len(args.names) != 1:
        raise PublisherError("--by replaces one key; name one")
    offline = [name for name in args.names if not set(rotation.roles_of(repository, name)) <= set(ONLINE_ROLES)]
    passphrase = None
    if offline and not args.plain_keys and not args.by:
        passphrase = keys.read_passphrase("Passphrase for the new offline keys: ", shared.ask())
    folder = args.folder / "keys"
    changes = {
        name: keys.read_public(args.by) if args.by else rotation.new_key(folder, repository, name, passphrase)
        for name in args.names
    }
    touched = rotation.replace(repository, changes)
    replaced = {name: keys.name_of(key) for name, key in changes.items() if key is not None}
    shared.tell(
        args,
        {"replaced": replaced, "signed": touched},
        *(f"{old} is replaced by {new}; destroy {old}.pem wherever it lies" for old, new in replaced.items()),
        f"signed anew: {', '.join(touched)}",
        f"next: nis-ota publish {args.folder} --to PLACE",
    )


def key_list(args: argparse.Namespace) -> None:
    """`nis-ota key list`."""
    from nis_ota import keys

    found: dict[str, dict[str, object]] = {}
    for role, demand in shared.open_repository(args).demands().items():
        for keyid, key in demand.keys.items():
            entry = found.setdefault(keys.name_of(key), {"keyid": keyid, "scheme": key.scheme, "roles": []})
            entry["roles"].append(role)  # type: ignore[attr-defined]
    lines = [
        f"{name:<16} {entry['keyid'][:12]}  {entry['scheme']:<20} {', '.join(entry['roles'])}"  # type: ignore[index,arg-type]
        for name, entry in found.items()
    ]
    shared.tell(args, found, *lines)


def root_edit(args: argparse.Namespace) -> None:
    """`nis-ota root edit`."""
    from nis_ota import keys, rotation

    if args.output.exists():
        raise PublisherError(f"{args.output} exists and is not overwritten; it may hold signatures")
    try:
        thresholds = {role: int(count) for role, count in args.threshold}
    except ValueError as error:
        raise PublisherError(f"--threshold takes a role and a number: {error}") from error
    staged = rotation.edit_root(
        args.file,
        add=[(role, keys.read_public(Path(path))) for role, path in args.add],
        remove=[(role, name) for role, name in args.remove],
        thresholds=thresholds,
        now=datetime.now(timezone.utc).replace(microsecond=0),
    )
    staged.write(args.output)
    shared.tell(
        args,
        _facts(args.output, staged),
        f"wrote {args.output}: root version {staged.version}, unsigned",
        *(f"  {status.text()}" for status in staged.status()),
        f"next, at each key holder: nis-ota root sign {args.output} --keys FOLDER",
    )


def sign(args: argparse.Namespace) -> int:
    """`nis-ota sign`."""
    from nis_ota import ceremony

    first = Path(args.what[0])
    if first.is_dir():
        if len(args.what) != 2:
            raise PublisherError("to renew a role, name REPOSITORY and one ROLE; to sign, name files")
        args.folder = first
        repository = shared.open_repository(args)
        role = args.what[1]
        if role not in ("root", "targets", *repository.delegated()):
            raise PublisherError(f"{role!r} is no role that is signed by hand; refresh-online renews the others")
        version = repository.renew(role)
        shared.tell(args, {"role": role, "version": version}, f"signed {role} version {version}")
        return 0
    ring = shared.ring(args)
    facts, lines, complete = [], [], True
    for path in map(Path, args.what):
        staged = ceremony.Staged.read(path)
        if not staged.wanted:
            raise PublisherError(f"{path} does not say who may sign it; sign the file that was staged")
        added = staged.sign(ring)
        if added:
            staged.write(path)
        complete = complete and staged.complete
        facts.append({**_facts(path, staged), "added": added})
        lines += [f"{path}: {staged.role} version {staged.version}, signed by {', '.join(added) or 'no key here'}"]
        lines += [f"  {line}" for line in staged.contents()]
        lines += [f"  {ceremony.printable(status.text())}" for status in staged.status()]
    shared.tell(args, facts, *lines)
    if not any(fact["added"] for fact in facts) and not complete:
        raise PublisherError(
            "nothing was signed: none of the keys that may sign is here; name their folder with --keys"
        )
    return 0 if complete else WAITING


def merge(args: argparse.Namespace) -> int:
    """`nis-ota merge`."""
    from nis_ota import ceremony
    from nis_ota.repository import Repository
    from nis_ota.rotation import role_of_file

    groups: dict[str, list[Path]] = {}
    for path in args.files:
        groups.setdefault(path.name, []).append(path)
    if args.output:
        merged = ceremony.merge(args.files)
        merged.write(args.output)
        lines = [f"wrote {args.output}", *(f"  {status.text()}" for status in merged.status())]
        shared.tell(args, _facts(args.output, merged), *lines)
        return 0 if merged.complete else WAITING
    repository = Repository.open(args.into, shared.ring(args, args.into / "keys"))
    staged = {name: ceremony.merge(paths) for name, paths in groups.items()}
    roles = {name: role_of_file(paths[0], staged[name]) for name, paths in groups.items()}
    order = ("root", "targets", *sorted(set(roles.values()) - {"root", "targets"}))
    taken = []
    for name in sorted(groups, key=lambda name: (order.index(roles[name]), staged[name].version)):
        present = repository.staged / name
        if present.is_file() and present not in groups[name]:
            staged[name] = ceremony.merge([present, *groups[name]])
        if not staged[name].complete and present.is_file():
            staged[name].write(present)  # keep the signatures that came, until the others do
        taken.append(str(repository.take_in(staged[name], roles[name])))
    for path in sorted(
        repository.staged.glob("*.json")
    ):  # online roles of a new repository, which had to wait for these
        rest = ceremony.Staged.read(path)
        if rest.complete and (repository.metadata / "1.targets.json").is_file():
            taken.append(str(repository.take_in(rest, role_of_file(path, rest))))
    shared.tell(args, {"taken": taken}, *(f"took in {path}" for path in taken),
                f"next: nis-ota publish {args.into} --to PLACE")  # fmt: skip
    return 0


def revoke_target(args: argparse.Namespace) -> None:
    """`nis-ota revoke target`."""
    cohorts = shared.open_repository(args).revoke_model(args.target)
    shared.tell(
        args,
        {"target": args.target, "aborted": cohorts},
        f"{args.target} is off the list; rollouts aborted: {', '.join(cohorts) or 'none'}",
        "devices that run it go on until they are offered another; a higher --security-epoch forbids it for good",
        f"next: nis-ota publish {args.folder} --to PLACE",
    )


def revoke_key(args: argparse.Namespace) -> None:
    """`nis-ota revoke key`."""
    from nis_ota import rotation

    repository = shared.open_repository(args)
    rotation.roles_of(repository, args.name)
    touched = rotation.replace(repository, {args.name: None})
    shared.tell(
        args,
        {"revoked": args.name, "signed": touched},
        f"{args.name} signs nothing any more; signed anew: {', '.join(touched)}",
        f"next: nis-ota publish {args.folder} --to PLACE",
    )


def _facts(path: Path, staged: Staged) -> dict[str, object]:
    return {
        "file": str(path),
        "type": staged.role,
        "version": staged.version,
        "complete": staged.complete,
        "contents": staged.contents(),
        "demands": [{**vars(status), "met": status.met} for status in staged.status()],
    }
