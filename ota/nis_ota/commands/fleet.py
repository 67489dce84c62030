"""`device`, `fleet-status`, `serve-blocks`: listen to the fleet, and answer it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nis_ota.commands import shared

if TYPE_CHECKING:
    from nis_ota.fleet import Fleet, Seen

QUIET_S = 1.0
"""A broker that sends nothing for so long has sent what it kept."""

SAY_EVERY_S = 60.0


def register(commands: shared.Commands) -> None:
    """Declare the commands."""
    devices = shared.group(commands, "device", "say which key a device signs its reports with")
    command = shared.add(
        devices, "enroll", enroll, "take a device into the fleet", "nis-ota device enroll fleet gw-7 5c1f...e0"
    )
    shared.repository_argument(command)
    command.add_argument("device", help="its id")
    command.add_argument("key", help="its public key, as nis-edge update identity prints it on the device")
    command = shared.add(
        devices, "forget", forget, "take a device out of the fleet", "nis-ota device forget fleet gw-7"
    )
    shared.repository_argument(command)
    command.add_argument("device", help="its id")

    command = shared.add(
        commands,
        "fleet-status",
        fleet_status,
        "what every device runs and how its last update went, by reports it signed",
        "nis-ota fleet-status fleet --mqtt broker:1883 --site lab",
    )
    shared.repository_argument(command)
    command.add_argument("--reports", action="append", default=[], metavar="FILE", help="signed reports, one a line")
    command.add_argument("--listen", type=float, default=5.0, metavar="S", help="seconds to listen on the broker")
    shared.broker_arguments(command, required=False)

    command = shared.add(
        commands,
        "serve-blocks",
        serve_blocks,
        "send models in blocks over MQTT to devices that reach only the broker; runs until it is stopped",
        "nis-ota serve-blocks fleet --mqtt broker:1883 --site lab --device-rate 32000",
    )
    shared.repository_argument(command)
    shared.broker_arguments(command, required=True)
    command.add_argument("--device-rate", type=rate, default=64_000.0, metavar="B/S", help="for one device (64000)")
    command.add_argument("--total-rate", type=rate, default=1_000_000.0, metavar="B/S", help="for all (1000000)")
    command.add_argument("--for", dest="seconds", type=float, metavar="S", help="end after S seconds")


def rate(text: str) -> float:
    """Bytes a second, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate in bytes a second")
    return value


def enroll(args: argparse.Namespace) -> None:
    """`nis-ota device enroll`."""
    from nis_ota.fleet import Fleet

    shared.open_repository(args)
    new = Fleet(args.folder).enroll(args.device, args.key)
    shared.tell(
        args, {"device": args.device, "new": new}, f"{args.device} is {'enrolled' if new else 'enrolled already'}"
    )


def forget(args: argparse.Namespace) -> None:
    """`nis-ota device forget`."""
    from nis_ota.fleet import Fleet

    shared.open_repository(args)
    Fleet(args.folder).forget(args.device)
    shared.tell(args, {"device": args.device}, f"{args.device} is out of the fleet; its reports count no more")


def gather(args: argparse.Namespace) -> tuple[Fleet, list[str]]:
    """The fleet with the reports that files and broker bring; also, why some were not taken."""
    from nis_edge.wire.topics import ROOT
    from nis_ota.broker import Broker
    from nis_ota.fleet import Fleet, read_reports

    fleet, refused = Fleet(args.folder), []
    for path in args.reports:
        refused += fleet.absorb(read_reports(Path(path)))
    if args.mqtt:
        # A session of its own: the broker keeps reports that come while nobody listens.
        with Broker(shared.access(args), session=f"nis-ota-fleet-{args.site}") as broker:
            broker.subscribe(f"{ROOT}/{args.site}/+/ota/report")
            for topic, payload in broker.messages(args.listen, QUIET_S):
                refused += [f"{line} (on {topic})" for line in fleet.absorb([payload])]
            if broker.dropped:
                refused.append(f"{broker.dropped} messages were too large or too many")
    fleet.save()
    return fleet, refused


def fleet_status(args: argparse.Namespace) -> None:
    """`nis-ota fleet-status`."""
    shared.open_repository(args)
    fleet, refused = gather(args)
    seen = fleet.reports()
    silent = sorted(set(fleet.devices) - {one.report.device for one in seen})
    rows = [("DEVICE", "COHORT", "RUNS", "STATE", "LAST UPDATE", "CLOCK", "KEY"), *map(_row, seen)]
    rows += [(device, "", "", "", "no report yet", "", "enrolled") for device in silent]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    facts = {
        "devices": [{**_as_dict(one), "verified": one.verified, "key": one.key} for one in seen],
        "silent": silent,
        "refused": refused,
    }
    unknown = [one.report.device for one in seen if not one.verified]
    if unknown:
        lines += [f"{len(unknown)} not enrolled, so not counted: nis-ota device enroll {args.folder} DEVICE KEY"]
    shared.tell(args, facts, *lines)
    for line in refused:
        shared.warn(f"not counted: {line}")


def _row(one: Seen) -> tuple[str, ...]:
    report = one.report
    outcome: str = "" if report.outcome == "none" else report.outcome
    if report.error:
        outcome = f"{outcome}: {report.error_code or 'error'}" if outcome else report.error_code or "error"
    return (
        report.device, report.cohort, report.installed_version, report.state, outcome or "-", report.clock_state,
        "verified" if one.verified else "NOT ENROLLED",
    )  # fmt: skip


def _as_dict(one: Seen) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(one.report)
    return found


def serve_blocks(args: argparse.Namespace) -> None:
    """`nis-ota serve-blocks`."""
    from nis_edge.wire.topics import ROOT
    from nis_ota.broker import Broker
    from nis_ota.serving import BlockServer, files_by_hash

    repository = shared.open_repository(args)
    with Broker(shared.access(args)) as broker:
        server = BlockServer(
            files_by_hash(repository), broker.send, time.monotonic,
            device_rate=args.device_rate, total_rate=args.total_rate,
        )  # fmt: skip
        broker.subscribe(f"{ROOT}/{args.site}/+/ota/request")
        shared.warn(f"serving {len(server.files)} files in blocks to site {args.site}; stop with Ctrl-C")
        ends_at = time.monotonic() + args.seconds if args.seconds else None
        said_at, said = time.monotonic(), 0
        while (now := time.monotonic()) and (ends_at is None or now < ends_at):
            wait = min(server.pump() or SAY_EVERY_S, SAY_EVERY_S, (ends_at or now + SAY_EVERY_S) - now)
            for topic, payload in broker.messages(max(wait, 0.001)):
                server.ask(topic, payload)
                break
            if now - said_at >= SAY_EVERY_S:
                server.files = files_by_hash(repository)  # what was added meanwhile
                if server.served.blocks != said:
                    shared.warn(f"{server.served.blocks} blocks to {len(server.served.devices)} devices so far")
                said_at, said = now, server.served.blocks
        facts = {**vars(server.served), "devices": len(server.served.devices)}
        shared.tell(args, facts, f"sent {server.served.blocks} blocks ({server.served.bytes} bytes)")
