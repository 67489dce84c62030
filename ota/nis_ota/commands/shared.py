"""What the commands have in common: how they are declared, how they find keys, how they print facts."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nis_ota.roles import Quorum

if TYPE_CHECKING:
    from nis_ota.broker import Access
    from nis_ota.destinations import Destination
    from nis_ota.keys import Ask, KeyRing
    from nis_ota.repository import Repository

Commands = Any
"""What argparse calls `_SubParsersAction`."""

BROKER_PASSWORD_VARIABLE = "NIS_OTA_MQTT_PASSWORD"  # noqa: S105  # the name of a variable, not a secret


def add(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], summary: str, example: str
) -> argparse.ArgumentParser:
    """Declare one command; every one prints facts as JSON when asked to."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print facts as JSON")
    return command


def group(commands: Commands, name: str, summary: str) -> Commands:
    """Declare a command that has commands of its own."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    return parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)


def repository_argument(command: argparse.ArgumentParser) -> None:
    """The first argument of most commands."""
    command.add_argument("folder", type=Path, metavar="REPOSITORY", help="folder made by nis-ota init-repo")


def keys_argument(command: argparse.ArgumentParser, *, stage: bool = False) -> None:
    """Where private keys may lie."""
    command.add_argument(
        "--keys", type=Path, action="append", default=[], metavar="FOLDER", help="more folders with keys (repeatable)"
    )
    if stage:
        command.add_argument(
            "--stage",
            action="store_true",
            help="when keys are elsewhere, leave the change in REPOSITORY/staged for sign and merge (exit code 3)",
        )


def place_arguments(command: argparse.ArgumentParser) -> None:
    """Where to publish."""
    command.add_argument(
        "--to", required=True, metavar="PLACE", help="a folder, s3://BUCKET/PREFIX or rsync:HOST:FOLDER"
    )
    command.add_argument("--endpoint-url", metavar="URL", help="of an S3-compatible service other than Amazon's")


def broker_arguments(command: argparse.ArgumentParser, *, required: bool) -> None:
    """How to reach the broker."""
    command.add_argument("--mqtt", type=host_port, required=required, metavar="HOST:PORT", help="the broker")
    command.add_argument("--site", default="local", help="the devices' site (default: local)")
    command.add_argument("--tls", action="store_true", help="speak TLS to the broker")
    command.add_argument("--ca", metavar="FILE", help="certificates to trust for it (default: the system's)")
    command.add_argument("--username", help=f"for the broker; the password is read from {BROKER_PASSWORD_VARIABLE}")


def quorum(text: str) -> Quorum:
    """`2/3` for argparse."""
    try:
        return Quorum.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not M/N with 1 <= M <= N <= 9, e.g. 2/3") from error


def host_port(text: str) -> tuple[str, int]:
    """`broker:1883` for argparse."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, e.g. broker:1883")
    return host, int(port)


def ask() -> Ask | None:
    """How to ask a person, where there is one."""
    return getpass.getpass if sys.stdin is not None and sys.stdin.isatty() else None


def ring(args: argparse.Namespace, *more: Path) -> KeyRing:
    """The keys this command may use."""
    from nis_ota.keys import KeyRing

    return KeyRing([*getattr(args, "keys", []), *more], ask())


def open_repository(args: argparse.Namespace) -> Repository:
    """The repository a command works on."""
    from nis_ota.repository import Repository

    return Repository.open(args.folder, ring(args, args.folder / "keys"), stage=getattr(args, "stage", False))


def place(args: argparse.Namespace) -> Destination:
    """The destination a command publishes to."""
    from nis_ota.destinations import destination

    return destination(args.to, endpoint=args.endpoint_url)


def access(args: argparse.Namespace) -> Access:
    """The broker a command talks to."""
    from nis_ota.broker import Access

    host, port = args.mqtt
    password = os.environ.get(BROKER_PASSWORD_VARIABLE)
    return Access(host, port, args.tls or args.ca is not None, args.ca, args.username, password)


def tell(args: argparse.Namespace, facts: Any, *lines: str) -> None:
    """Print facts as JSON when asked to, else the lines."""
    if args.json:
        print(json.dumps(facts, indent=2, default=str))
        return
    for line in lines:
        print(line)


def warn(text: str) -> None:
    """A line that no program reads."""
    print(text, file=sys.stderr)
