"""`nis-edge update`: what the device's updates are doing, and the operator's say in it.

While the daemon runs it owns the update store; this command then leaves a request beside it and waits for the answer.
Without a daemon the command does the work itself, up to the point where the new model is on probation: the next start
of the daemon loads it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import fcntl
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from nis_edge.config import Config, device_id, load, state_folder
from nis_edge.errors import UpdateError
from nis_edge.mailbox import Mailbox, Request

if TYPE_CHECKING:
    from nis_edge.update_settings import Activation

DESCRIPTION = "Model updates of this device: what is installed, what is offered, and the operator's say in it."
EXAMPLE = "nis-edge update import /media/usb/nis --config /etc/nis-edge/nis-edge.toml"

ACTIONS: Final = {
    "status": "what runs, what is on its way, what was refused and why",
    "check": "look at what is offered, change nothing",
    "apply": "look, download, verify, test, and put the new model on probation",
    "rollback": "return to the previous model; the present one is not taken again until its publisher offers it anew",
    "audit": "check the hash-chained trail of everything that happened to this device's model, and show its end",
    "identity": "the public key this device signs its reports with, for the publisher; made when there is none",
    "import": "like apply, from a folder that nis-ota publish made (a USB stick); the same checks",
}
PATIENCE_S: Final = 900.0
"""How long a request to the daemon may take before the command stops waiting (the daemon goes on)."""

LOOK_EVERY_S: Final = 0.2

AUDIT_LINES_SHOWN: Final = 20
"""Entries of the trail that `audit` prints; it checks all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == "import":
            action.add_argument("path", type=Path, metavar="FOLDER", help="a folder that nis-ota publish made")
        action.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
        action.add_argument("--json", action="store_true", help="print facts as JSON")
        if name not in ("status", "rollback", "audit", "identity"):
            action.add_argument("--repository", metavar="URL", help="instead of update.repository")
            action.add_argument("--root", type=Path, metavar="FILE", help="instead of update.root: what to trust first")
        action.set_defaults(act=_act, path=None, repository=None, root=None)
    client = actions.add_parser(
        "tuf-client", help="the client of the public TUF conformance suite (its interface: CLIENT-CLI.md)"
    )
    client.add_argument("--metadata-dir", type=Path, required=True)
    client.add_argument("--metadata-url")
    client.add_argument("--target-name", action="append", default=[])
    client.add_argument("--target-dir", type=Path)
    client.add_argument("--target-base-url")
    client.add_argument("do", choices=("init", "refresh", "download"))
    client.add_argument("trusted_root", type=Path, nargs="?")
    client.set_defaults(act=_conform)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return int(args.act(args))


def _act(args: argparse.Namespace) -> int:
    config = load(args.config) if args.config is not None else Config()
    folder = state_folder(config.device, os.environ)
    if args.action == "status":
        return _status(folder / "update", args.json)
    if args.action == "audit":
        return _audit(folder / "update", args.json)
    if args.action == "identity":
        return _identity(folder / "update", args.json)
    if _daemon_runs(folder):
        return _ask_daemon(folder / "update", args)
    return asyncio.run(_work_alone(config, folder, args))


def _conform(args: argparse.Namespace) -> int:
    from nis_edge import conformance

    return conformance.run(
        args.do,
        metadata_dir=args.metadata_dir,
        trusted_root=args.trusted_root,
        metadata_url=args.metadata_url,
        target_names=args.target_name,
        target_dir=args.target_dir,
        target_base_url=args.target_base_url,
    )


def _status(folder: Path, as_json: bool) -> int:
    from nis_edge.adapters.slot_store import SlotStore
    from nis_edge.update.journal import Journal

    store = SlotStore(folder)
    journal = store.read_journal()
    if journal is None and store.has_journal():
        raise UpdateError(f"{store.journal_path}: no record is readable; the factory model runs; check the medium")
    journal = journal or Journal()
    last = Mailbox(folder).read_status()
    if as_json:
        facts = {"journal": msgspec.to_builtins(journal), "last": last, "folder": str(folder)}
        sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
        return 0
    active = f"{journal.active.version} ({journal.active.sha256[:12]})" if journal.active else "factory"
    print(f"installed  {active}")
    if journal.trial is not None:
        print(f"on trial   {journal.trial.version}: {journal.state}, {journal.tries_left} tries left")
    if journal.previous is not None:
        print(f"previous   {journal.previous.version}")
    if last.get("latest_version"):
        print(f"offered    {last['latest_version']}")
    for denied in journal.denied:
        print(f"denied     {denied.sha256[:12]}: {denied.reason}")
    print(f"state      {last.get('state', journal.state)}{_words(last.get('detail'))}")
    if last.get("diverged"):
        print(f"carriers   {last['diverged']}")
    if last.get("error"):
        print(f"error      {last['error']}")
    if last.get("time_unverified"):
        print(f"clock      {last.get('clock_state')}: the time is not verified, expiry is judged by what is known")
    return 0


def _audit(folder: Path, as_json: bool) -> int:
    from nis_edge.adapters.audit_file import AuditFile
    from nis_edge.update.audit import BrokenChainError, read_entry, verify

    lines = list(AuditFile(folder).lines())
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # being written, or torn by a power cut; the next entry takes its place
    try:
        found = verify(lines)
    except BrokenChainError as error:
        message = f"{folder}/audit.jsonl: the trail is broken: {error}; somebody or something changed it"
        if as_json:
            sys.stdout.write(msgspec.json.encode({"ok": False, "text": message}).decode() + "\n")
        else:
            print(f"nis-edge: {message}", file=sys.stderr)
        return 1
    shown = [entry for line in lines[-AUDIT_LINES_SHOWN:] if (entry := read_entry(line)) is not None]
    if as_json:
        facts = {"ok": True, "chain": msgspec.to_builtins(found), "newest": msgspec.to_builtins(shown)}
        sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
        return 0
    for entry in shown:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.at))
        print(f"{entry.n:6} {moment} {entry.event} {' '.join(f'{k}={v}' for k, v in entry.facts.items())}")
    if found is None:
        print("nothing has happened to this device's model yet")
    else:
        print(f"whole: entries {found.first} to {found.last}, head {found.head}")
    return 0


def _identity(folder: Path, as_json: bool) -> int:
    from nis_edge.adapters.device_key import DeviceKey
    from nis_edge.reporting import KEY_NAME

    folder.mkdir(parents=True, exist_ok=True)
    key = DeviceKey(folder / KEY_NAME).public_hex
    print(msgspec.json.encode({"key": key}).decode() if as_json else key)
    return 0


def _daemon_runs(folder: Path) -> bool:
    """Whether a daemon holds the state folder's lock."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _ask_daemon(folder: Path, args: argparse.Namespace) -> int:
    """Leave a request, show what happens, print the answer."""
    path = str(args.path.resolve()) if args.path is not None else None
    request, mailbox = Request(id=secrets.token_hex(8), do=args.action, path=path), Mailbox(folder)
    mailbox.ask(request)
    ends_at, shown = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < ends_at:
        answer, status = mailbox.read_answer(request.id), mailbox.read_status()
        if answer is not None:
            return _print_outcome(answer.ok, answer.text, status, args)
        line = f"{status.get('state', '')}{_percentage(status)}"
        if line != shown and not args.json:
            print(f"... {line}", file=sys.stderr)
            shown = line
        time.sleep(LOOK_EVERY_S)
    mailbox.withdraw()
    raise UpdateError(f"the daemon did not answer within {PATIENCE_S:.0f} s; see its log; the old model runs on")


async def _work_alone(config: Config, folder: Path, args: argparse.Namespace) -> int:
    """Do the work in this process; the daemon is not running."""
    from nis_edge.adapters.slot_store import SlotStore
    from nis_edge.fetching import fetch_policy
    from nis_edge.starting import take_state_folder
    from nis_edge.update.journal import Journal
    from nis_edge.update.machine import State, resume
    from nis_edge.update_settings import settings_of
    from nis_edge.updating import UpdateLoop

    with take_state_folder(folder):
        store = SlotStore(folder / "update")
        store.prepare()
        update, _ = resume(store.read_journal() or Journal())
        options = dataclasses.replace(
            config.update,
            repository=args.repository or config.update.repository,
            root=args.root or config.update.root,
        )

        async def wait_for_daemon(_activation: Activation) -> None:
            loop.stop()

        loop = UpdateLoop(
            settings_of(options, device_id(config.device), folder),
            store,
            update,
            on_activate=wait_for_daemon,
            log=_quiet,
            policy=fetch_policy(options),
        )
        if args.action == "rollback":
            done = await loop.roll_back()
        else:
            cut_off = args.action != "check" and loop.update.state not in (State.IDLE, State.PROBATION)
            if cut_off:
                await loop.finish_trial()
            if not cut_off or loop.update.state is State.IDLE:
                await loop.check(folder=args.path, apply=args.action != "check", at_once=True)
            done = loop.status.error is None
        status = loop.status
        text = status.error or status.detail or ""
        if loop.update.state is State.PROBATION:
            text = f"{text}; it is loaded when the daemon starts next"
        if args.action == "rollback" and done:
            done, text = True, f"{status.installed_version} is loaded when the daemon starts next"
        return _print_outcome(done, text, msgspec.to_builtins(status), args)


def _print_outcome(ok: bool, text: str, status: dict[str, Any], args: argparse.Namespace) -> int:
    if args.json:
        sys.stdout.write(msgspec.json.encode({"ok": ok, "text": text, "status": status}).decode() + "\n")
    elif ok:
        print(text)
    else:
        print(f"nis-edge: {text}", file=sys.stderr)
    return 0 if ok else 1


def _quiet(_name: str, **_fields: Any) -> None:
    """Log events belong to the daemon's log; here the outcome is printed."""


def _words(text: object) -> str:
    return f": {text}" if text else ""


def _percentage(status: dict[str, Any]) -> str:
    value = status.get("update_percentage")
    return f" {value} %" if isinstance(value, int) else ""
