"""`publish`, `publish-bundle`, `refresh-online`, `export-usb`: from the repository to where devices look."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from nis_ota.commands import shared

if TYPE_CHECKING:
    from nis_ota.repository import Repository

WARN_BEFORE = timedelta(days=14)
"""Offline signatures are asked for this long before they expire: people must meet."""


def register(commands: shared.Commands) -> None:
    """Declare the commands."""
    command = shared.add(
        commands,
        "publish",
        publish,
        "sign snapshot and timestamp, copy everything in the safe order, write the MQTT bundles",
        "nis-ota publish fleet --to s3://models/nis --mqtt broker:1883 --site lab",
    )
    shared.repository_argument(command)
    shared.place_arguments(command)
    shared.broker_arguments(command, required=False)
    shared.keys_argument(command)

    command = shared.add(
        commands,
        "publish-bundle",
        publish_bundle,
        "retain the bundle of cohorts or devices on a broker",
        "nis-ota publish-bundle fleet --mqtt broker:1883 --site lab --cohort stable",
    )
    shared.repository_argument(command)
    shared.broker_arguments(command, required=True)
    command.add_argument("--cohort", action="append", default=[], help="this cohort (repeatable; default: all)")
    command.add_argument("--device", action="append", default=[], help="the device with a rollout of its own")

    command = shared.add(
        commands,
        "refresh-online",
        refresh_online,
        "renew snapshot and timestamp before they expire; for a daily timer, needs only the online keys",
        "nis-ota refresh-online fleet --to /srv/www/nis",
    )
    shared.repository_argument(command)
    shared.place_arguments(command)
    shared.broker_arguments(command, required=False)
    shared.keys_argument(command)

    command = shared.add(
        commands,
        "export-usb",
        export_usb,
        "write what one cohort needs to a stick, for nis-edge update import",
        "nis-ota export-usb fleet --cohort stable --to /media/usb/nis",
    )
    shared.repository_argument(command)
    command.add_argument("--cohort", default="stable", help="default: stable")
    command.add_argument("--device", help="the device with a rollout of its own, instead of the cohort")
    command.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="on the stick")


def publish(args: argparse.Namespace) -> None:
    """`nis-ota publish`."""
    repository = shared.open_repository(args)
    repository.check_signatures()
    repository.check_files()
    repository.sign_online()
    _put_out(args, repository, online_only=False)


def refresh_online(args: argparse.Namespace) -> None:
    """`nis-ota refresh-online`."""
    repository = shared.open_repository(args)
    repository.check_signatures()
    repository.refresh_online()
    _put_out(args, repository, online_only=True)
    for role, expires in repository.expiries().items():
        if role not in ("snapshot", "timestamp") and expires - repository.now < WARN_BEFORE:
            shared.warn(
                f"WARNING: {role} expires on {expires:%Y-%m-%d}, and then devices take no update; its key holders "
                f"sign it again: nis-ota sign {args.folder} {role} --keys FOLDER"
            )


def _put_out(args: argparse.Namespace, repository: Repository, *, online_only: bool) -> None:
    from nis_ota import publishing

    place = shared.place(args)
    report = shared.warn if args.json else print
    written = publishing.publish(repository, place, report, online_only=online_only)
    cost = publishing.check_bytes(repository)
    if cost > publishing.CHECK_BYTES_MAX:
        shared.warn(
            f"WARNING: one look costs a device {cost} bytes of metadata, more than {publishing.CHECK_BYTES_MAX}; "
            f"take old models off the list: nis-ota revoke target {args.folder} TARGET"
        )
    topics = _retain(args, repository, list(repository.documents())) if args.mqtt else {}
    shared.tell(
        args,
        {"place": place.name, "written": written, "retained": topics},
        f"published {len(written)} files to {place.name}; the timestamp after all it vouches for",
        *(f"retained {size} bytes on {topic}" for topic, size in topics.items()),
    )


def publish_bundle(args: argparse.Namespace) -> None:
    """`nis-ota publish-bundle`."""
    from nis_edge.update.rollout import override_name

    repository = shared.open_repository(args)
    named = [*args.cohort, *map(override_name, args.device)]
    topics = _retain(args, repository, named or list(repository.documents()))
    shared.tell(args, topics, *(f"retained {size} bytes on {topic}" for topic, size in topics.items()))


def _retain(args: argparse.Namespace, repository: Repository, names: list[str]) -> dict[str, int]:
    """Retain bundles; return topic -> bytes."""
    from nis_ota.broker import Broker
    from nis_ota.publishing import bundle_bytes

    payloads = {}
    for name in names:
        payloads[_topic(args.site, name)] = bundle_bytes(repository, name)
    with Broker(shared.access(args)) as broker:
        for name in repository.withdrawn():
            broker.publish(_topic(args.site, name), b"", retain=True)
        for topic, payload in payloads.items():
            broker.publish(topic, payload, retain=True)
    return {topic: len(payload) for topic, payload in payloads.items()}


def _topic(site: str, name: str) -> str:
    from nis_edge.update.bundle import bundle_topic, device_bundle_topic
    from nis_edge.update.rollout import device_of

    device = device_of(name)
    return bundle_topic(site, name) if device is None else device_bundle_topic(site, device)


def export_usb(args: argparse.Namespace) -> None:
    """`nis-ota export-usb`."""
    from nis_edge.update.rollout import override_name
    from nis_ota import publishing

    repository = shared.open_repository(args)
    name = args.cohort if args.device is None else override_name(args.device)
    report = shared.warn if args.json else print
    written = publishing.export(repository, name, args.to, report)
    shared.tell(
        args,
        {"folder": str(args.to), "written": written},
        f"wrote {len(written)} files to {args.to}; on the device: nis-edge update import {args.to}",
    )
