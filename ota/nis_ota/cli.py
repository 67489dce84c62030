"""The `nis-ota` command: make a signed repository, list models in it, offer them to cohorts, publish.

Exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted. Every error is one line that names the fix.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nis_edge import __version__
from nis_edge.errors import NisEdgeError
from nis_edge.update.offer import SignedFacts, golden_hash
from nis_ota import keys, publishing, verifying
from nis_ota.errors import PublisherError
from nis_ota.repository import Quorum, Repository

EXAMPLES: Final = """\
The first update in five lines:
  nis-ota init-repo fleet
  nis-ota add-target fleet nis-nano.nis --release-counter 1 --offer-to stable
  nis-ota publish fleet --to /srv/www/nis
  nis-ota verify /srv/www/nis --root fleet/metadata/1.root.json
  nis-ota notice fleet --mqtt broker:1883 --site lab --cohort stable
Give each device fleet/metadata/1.root.json by a way you trust: it is the anchor of all trust.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        args.run(args)
    except KeyboardInterrupt:
        return 130
    except NisEdgeError as error:
        print(f"nis-ota: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"nis-ota: {where}{error.strerror or error}; nothing more was done", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nis-ota",
        description="Publishes signed model updates: a TUF repository that any web server or bucket can serve.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nis-ota {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    command = _command(commands, "init-repo", init_repo, "make keys and an empty repository", "nis-ota init-repo fleet")
    command.add_argument("folder", type=Path, help="new folder")
    command.add_argument("--root", type=_quorum, default=Quorum(2, 3), metavar="M/N", help="root keys (default 2/3)")
    command.add_argument(
        "--targets", type=_quorum, default=Quorum(2, 3), metavar="M/N", help="keys that sign models (default 2/3)"
    )
    command.add_argument("--plain-keys", action="store_true", help="leave the offline keys unencrypted (for tests)")

    command = _command(
        commands,
        "add-target",
        add_target,
        "list a model package, signed with the offline keys",
        "nis-ota add-target fleet nis-nano.nis --release-counter 4 --hardware aarch64 x86_64 --offer-to stable",
    )
    command.add_argument("folder", type=Path, help="the repository")
    command.add_argument("package", type=Path, help="a .nis package")
    command.add_argument("--name", help="name of the model (default: from the package)")
    command.add_argument("--version", help="version (default: from the package)")
    command.add_argument("--release-counter", type=int, required=True, help="rises with every release; never reused")
    command.add_argument("--security-epoch", type=int, default=0, help="raise it to forbid everything older for good")
    command.add_argument("--hardware", nargs="+", default=["any"], help="hardware classes (default: any)")
    command.add_argument("--minimum-agent", default="0", help="oldest nis-edge that can run it")
    command.add_argument("--memory-bytes", type=int, default=0, help="memory it needs (default: not stated)")
    command.add_argument("--offer-to", action="append", default=[], metavar="COHORT", help="offer it at once")
    _keys_argument(command)

    command = _command(
        commands,
        "offer",
        offer,
        "point a cohort at a listed model (also back to an older one that devices still accept)",
        "nis-ota offer fleet models/nis-nano/1.2.0.nis --cohort stable",
    )
    command.add_argument("folder", type=Path, help="the repository")
    command.add_argument("target", help="name as add-target printed it")
    command.add_argument("--cohort", default="stable", help="default: stable")
    _keys_argument(command)

    command = _command(
        commands,
        "publish",
        publish,
        "sign snapshot and timestamp, copy everything in the safe order, write the MQTT bundles",
        "nis-ota publish fleet --to /srv/www/nis --mqtt broker:1883 --site lab",
    )
    command.add_argument("folder", type=Path, help="the repository")
    command.add_argument("--to", type=Path, required=True, help="folder a web server or a bucket's sync serves")
    _broker_arguments(command, required=False)
    _keys_argument(command)

    command = _command(
        commands,
        "notice",
        notice,
        "publish a cohort's retained bundle to a broker",
        "nis-ota notice fleet --mqtt broker:1883 --site lab --cohort stable",
    )
    command.add_argument("folder", type=Path, help="the repository")
    _broker_arguments(command, required=True)

    command = _command(
        commands,
        "refresh-online",
        refresh_online,
        "renew snapshot and timestamp before they expire; for a daily timer, needs only the online keys",
        "nis-ota refresh-online fleet --to /srv/www/nis",
    )
    command.add_argument("folder", type=Path, help="the repository")
    command.add_argument("--to", type=Path, required=True, help="the published folder")
    _broker_arguments(command, required=False)
    _keys_argument(command)

    command = _command(
        commands,
        "verify",
        verify,
        "check a published folder with the client that runs on devices",
        "nis-ota verify /srv/www/nis --root fleet/metadata/1.root.json",
    )
    command.add_argument("folder", type=Path, help="the published folder")
    command.add_argument("--root", type=Path, required=True, help="the root metadata that devices were given")
    command.add_argument("--json", action="store_true", help="print facts as JSON")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: object, summary: str, example: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _keys_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--keys", type=Path, action="append", default=[], metavar="FOLDER", help="more folders with keys (repeatable)"
    )


def _broker_arguments(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--mqtt", type=_host_port, required=required, metavar="HOST:PORT", help="broker for the bundle"
    )
    command.add_argument("--site", default="local", help="the devices' site (default: local)")
    command.add_argument("--cohort", action="append", default=[], help="cohorts to notify (default: all)")
    command.add_argument("--tls", action="store_true", help="speak TLS to the broker")
    command.add_argument("--username", help="for the broker; the password is read from NIS_OTA_MQTT_PASSWORD")


def _quorum(text: str) -> Quorum:
    try:
        return Quorum.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not M/N with 1 <= M <= N <= 9, e.g. 2/3") from error


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, e.g. broker:1883")
    return host, int(port)


def _ask() -> keys.Ask | None:
    return getpass.getpass if sys.stdin is not None and sys.stdin.isatty() else None


def _open(args: argparse.Namespace) -> Repository:
    return Repository(args.folder, keys.KeyRing([*args.keys, args.folder / "keys"], _ask()))


def init_repo(args: argparse.Namespace) -> None:
    """`nis-ota init-repo`."""
    passphrase = None
    if not args.plain_keys:
        try:
            passphrase = keys.read_passphrase("Passphrase for the offline keys: ", _ask())
        except PublisherError as error:
            raise PublisherError(f"{error}; --plain-keys leaves them unencrypted, for tests only") from error
    Repository.create(args.folder, root=args.root, targets=args.targets, passphrase=passphrase)
    folder = args.folder
    print(f"made {folder}: root {args.root.threshold} of {args.root.count}, ", end="")
    print(f"models {args.targets.threshold} of {args.targets.count}, online keys for snapshot, timestamp, rollout")
    print(f"give every device {folder}/metadata/1.root.json by a way you trust")
    print(f"move {folder}/keys/root-*.pem and targets-*.pem to separate media; keep {folder}/keys/online here")
    if args.plain_keys:
        print(
            "WARNING: the offline keys are not encrypted: whoever reads them can sign models for your fleet",
            file=sys.stderr,
        )


def add_target(args: argparse.Namespace) -> None:
    """`nis-ota add-target`."""
    from nis_edge.pack.reader import open_package

    with open_package(args.package, check_content=True) as package:
        manifest = package.manifest
    if not manifest.golden:
        raise PublisherError(
            f"{args.package} carries no golden entries, so no device could test it; pack it with nis-edge pack"
        )
    version = args.version or manifest.model.version
    facts = _facts(args, version, golden_hash(manifest.golden))
    repository = _open(args)
    target = repository.add_model(args.package, args.name or manifest.model.id, facts)
    print(f"listed {target} (release counter {facts.release_counter}, for {', '.join(facts.hardware)})")
    for cohort in args.offer_to:
        rollout = repository.offer(cohort, target)
        print(f"offered to cohort {cohort} (serial {rollout.serial})")
    print(f"next: nis-ota publish {args.folder} --to FOLDER")


def _facts(args: argparse.Namespace, version: str, golden: str) -> SignedFacts:
    import msgspec

    raw = {
        "version": version,
        "release_counter": args.release_counter,
        "security_epoch": args.security_epoch,
        "hardware": args.hardware,
        "minimum_agent": args.minimum_agent,
        "memory_bytes": args.memory_bytes,
        "golden_sha256": golden,
    }
    try:
        return msgspec.convert(raw, SignedFacts)
    except msgspec.ValidationError as error:
        raise PublisherError(f"these facts cannot be signed: {error}") from error


def offer(args: argparse.Namespace) -> None:
    """`nis-ota offer`."""
    rollout = _open(args).offer(args.cohort, args.target)
    print(f"cohort {args.cohort} is offered {args.target} (serial {rollout.serial})")
    print(f"next: nis-ota publish {args.folder} --to FOLDER")


def publish(args: argparse.Namespace) -> None:
    """`nis-ota publish`."""
    repository = _open(args)
    repository.sign_online()
    written = publishing.publish(repository, args.to, print)
    print(f"published {len(written)} files to {args.to}; the timestamp last")
    if args.mqtt:
        _notify(args, repository)


def notice(args: argparse.Namespace) -> None:
    """`nis-ota notice`."""
    args.keys = []
    _notify(args, _open(args))


def refresh_online(args: argparse.Namespace) -> None:
    """`nis-ota refresh-online`."""
    publish(args)


def _notify(args: argparse.Namespace, repository: Repository) -> None:
    host, port = args.mqtt
    for cohort in args.cohort or sorted(repository.cohorts()):
        payload = publishing.bundle_bytes(repository, cohort)
        topic = publishing.notify(
            payload,
            host=host,
            port=port,
            site=args.site,
            cohort=cohort,
            tls=args.tls,
            username=args.username,
            password=os.environ.get("NIS_OTA_MQTT_PASSWORD"),
        )
        print(f"retained {len(payload)} bytes on {topic}")


def verify(args: argparse.Namespace) -> None:
    """`nis-ota verify`."""
    seen = verifying.verify(args.folder, args.root.read_bytes(), time.time())
    if args.json:
        print(json.dumps([vars(cohort) for cohort in seen], indent=2))
        return
    for cohort in seen:
        print(
            f"cohort {cohort.cohort}: {cohort.target} ({cohort.bytes} bytes, counter {cohort.release_counter}), "
            f"rollout serial {cohort.serial}, {cohort.state}: a device would take it"
        )


if __name__ == "__main__":
    raise SystemExit(main())
