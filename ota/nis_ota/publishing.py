"""From the repository to where devices look: a folder for any web server or bucket, and a retained MQTT bundle.

The order makes every moment a consistent one for a device that refreshes meanwhile: first the targets, then metadata
from the root upwards, the timestamp last. Files are immutable by name, except timestamp.json and the bundles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from nis_edge.update.bundle import Bundle, bundle_topic, encode_bundle
from nis_ota.errors import PublisherError
from nis_ota.repository import Repository, copy_durably, write_durably

BUNDLES: Final = "bundles"
MQTT_SECONDS_MAX: Final = 15.0

Report = Callable[[str], None]


def publish(repository: Repository, folder: Path, report: Report = lambda _line: None) -> list[Path]:
    """Bring `folder` up to date with the repository; return the files written, in the order they were.

    Args:
        repository: with its online roles signed.
        folder: made when absent: FOLDER/metadata, FOLDER/targets, FOLDER/bundles.
        report: called with one line for each file written.
    """
    written: list[Path] = []

    def put(source: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size == source.stat().st_size and _same(source, path):
            return
        copy_durably(source, path)
        written.append(path)
        report(f"wrote {path.relative_to(folder)} ({path.stat().st_size} bytes)")

    for name, info in repository.listed_models().items():
        source = repository.target_file(name, info.hashes["sha256"])
        if not source.is_file():
            raise PublisherError(f"{source} is missing; restore it, or list the package again with nis-ota add-target")
        put(source, folder / "targets" / source.relative_to(repository.targets))
    for source in repository.cohorts().values():
        put(source, folder / "targets" / source.relative_to(repository.targets))
    *versioned, timestamp = repository.current_files()
    for source in versioned:
        put(source, folder / "metadata" / source.name)
    put(timestamp, folder / "metadata" / timestamp.name)
    for cohort in repository.cohorts():
        path = folder / BUNDLES / f"{cohort}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, bundle_bytes(repository, cohort))
        written.append(path)
        report(f"wrote {path.relative_to(folder)} ({path.stat().st_size} bytes)")
    return written


def bundle_bytes(repository: Repository, cohort: str) -> bytes:
    """Everything a device of `cohort` needs to decide, in one message: the metadata chain and its rollout document.

    Raises:
        PublisherError: nothing was offered to this cohort yet, or the chain outgrew what devices read.
    """
    document = repository.cohorts().get(cohort)
    if document is None:
        raise PublisherError(f"nothing is offered to cohort {cohort!r}; offer a model: nis-ota offer")
    files = {path.name: path.read_text(encoding="utf-8") for path in repository.current_files()}
    del files["1.root.json"]  # every device has the first root: it was given it
    files[f"rollout/{document.name}"] = document.read_text(encoding="utf-8")
    try:
        return encode_bundle(Bundle(cohort=cohort, files=files))
    except ValueError as error:
        raise PublisherError(f"cohort {cohort}: {error}; publish by HTTP only, or shorten the root chain") from error


def notify(
    payload: bytes,
    *,
    host: str,
    port: int,
    site: str,
    cohort: str,
    tls: bool = False,
    username: str | None = None,
    password: str | None = None,
) -> str:
    """Publish a bundle as the retained message of its topic; return the topic.

    Raises:
        PublisherError: the broker is out of reach or refuses; what was published by HTTP stays valid.
    """
    from paho.mqtt import client as mqtt

    topic = bundle_topic(site, cohort)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    connected, outcome = threading.Event(), {"reason": "no answer"}

    def on_connect(_client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        outcome["reason"] = "" if not reason.is_failure else str(reason)
        connected.set()

    client.on_connect = on_connect
    if username is not None:
        client.username_pw_set(username, password)
    if tls:
        client.tls_set()
    where = f"broker {host}:{port}"
    try:
        client.connect(host, port, keepalive=30)
    except (OSError, ValueError) as error:
        raise PublisherError(f"{where} is out of reach: {error}; check host and port; HTTP stays valid") from error
    client.loop_start()
    try:
        connected.wait(MQTT_SECONDS_MAX)
        if outcome["reason"]:
            raise PublisherError(f"{where} refused the connection: {outcome['reason']}; check the credentials")
        message = client.publish(topic, payload, qos=1, retain=True)
        message.wait_for_publish(MQTT_SECONDS_MAX)
        if not message.is_published():
            raise PublisherError(f"{where} did not confirm {topic} within {MQTT_SECONDS_MAX:.0f} s; try again")
    finally:
        client.disconnect()
        client.loop_stop()
    return topic


def _same(a: Path, b: Path) -> bool:
    with a.open("rb") as one, b.open("rb") as other:
        while True:
            x, y = one.read(1 << 20), other.read(1 << 20)
            if x != y:
                return False
            if not x:
                return True
