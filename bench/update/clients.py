"""Real update clients by the hundred, against one mosquitto and one web server on this machine.

    python -m bench.update.clients [--clients 200] [--spread 10]

Each client is the device's own update loop with its own store on the real disk, its own TUF cache, its own journal, key
and trail, and its own connection to the broker, over which the bundle comes and its signed reports go. They share one
process and its few worker threads. Not run is the self-test (it would measure this machine's cores, not updates); the
model is random bytes. Reports are verified as a publisher verifies them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from nis_ota import publishing

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.booting import boot_model
from nis_edge.reporting import Reporter
from nis_edge.update.bundle import bundle_topic
from nis_edge.update.facts import SignedFacts
from nis_edge.update.machine import State
from nis_edge.update.offer import Device
from nis_edge.update.report import Report, open_report
from nis_edge.update_settings import Activation, UpdateSettings
from nis_edge.updating import UpdateLoop
from tests.support.broker import Mosquitto
from tests.support.update_world import NOW, Publisher, passing_self_test
from tests.support.web_folder import WebFolder, web_folder

SITE, COHORT = "lab", "stable"
MODEL_BYTES = 256 * 1024
DEADLINE_S = 600.0


@dataclass(frozen=True)
class Figures:
    """What a fleet's update took."""

    clients: int
    updated: int
    """Clients whose journal names the new model, which their store holds whole."""
    reported: int
    """Devices whose newest report, verified against the device's key, says that it is committed."""
    seconds: float
    """From publishing the bundle to the last commit."""
    spread_s: int
    model_bytes: int
    served_model_bytes: int
    served_metadata_bytes: int
    bundle_bytes: int
    failures: tuple[str, ...]
    """What any client logged as failed or refused."""

    def text(self) -> str:
        """In lines."""
        mib = 1 << 20
        return (
            f"{self.updated} of {self.clients} clients updated, {self.reported} reported it under their signature; "
            f"{self.seconds:.1f} s from the bundle to the last commit, starts spread over {self.spread_s} s\n"
            f"served by HTTP: {self.served_model_bytes / mib:.1f} MiB of models of {self.model_bytes} bytes, "
            f"{self.served_metadata_bytes / self.clients:.0f} bytes of metadata a client; by the broker: a bundle of "
            f"{self.bundle_bytes} bytes each\nfailures: {len(self.failures)} {sorted(set(self.failures))[:3]}"
        )


class _WorldClock:
    """The moment of the test world; time passes as it does."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def wall(self) -> float:
        return NOW.timestamp() + 3600 + time.monotonic() - self._begin

    def monotonic(self) -> float:
        return time.monotonic()


class Client:
    """One device: its loop, its store, its connection."""

    def __init__(self, number: int, folder: Path, publisher: Publisher, url: str, port: int) -> None:
        self.id = f"dev-{number}"
        self.folder = folder
        self.failures: list[str] = []
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.id, protocol=mqtt.MQTTv5)
        self.subscribed = asyncio.Event()
        self._asyncio = asyncio.get_running_loop()
        folder.mkdir()
        clock = _WorldClock()
        self.store = SlotStore(folder / "update")
        booted = boot_model(self.store, str, None, self.log)
        settings = UpdateSettings(
            folder=folder / "update",
            device=Device(id=self.id, cohort=COHORT, hardware=frozenset({"x86_64"}), agent_version="0.1.0"),
            repository=url,
            root=publisher.root,
            poll_s=3600.0,
            probation_s=0.0,
            tick_s=0.5,
        )
        self.loop = UpdateLoop(
            settings,
            self.store,
            booted.update,
            on_activate=self._activate,
            log=self.log,
            self_test=passing_self_test,
            clock=clock,
            clock_synced=lambda: True,
            reporter=Reporter(folder / "update", self.log, clock, self._report),
        )
        self.mqtt.on_connect = lambda *_args: self.mqtt.subscribe(bundle_topic(SITE, COHORT), 1)
        self.mqtt.on_subscribe = lambda *_args: self._asyncio.call_soon_threadsafe(self.subscribed.set)
        self.mqtt.on_message = self._message
        self.mqtt.connect("127.0.0.1", port)
        self.mqtt.loop_start()

    def log(self, name: str, **fields: Any) -> None:
        if name.endswith((".failed", ".refused", ".damaged")):
            self.failures.append(f"{name}: {fields.get('reason', '')}"[:200])

    async def _activate(self, activation: Activation) -> None:
        assert activation.path is not None and activation.path.stat().st_size == MODEL_BYTES

    def _report(self, data: bytes) -> None:
        self.mqtt.publish(f"nis/v1/{SITE}/{self.id}/ota/report", data, qos=1)

    def _message(self, _client: Any, _userdata: Any, message: Any) -> None:
        self._asyncio.call_soon_threadsafe(self.loop.notice, bytes(message.payload), "mqtt")

    @property
    def is_done(self) -> bool:
        return self.loop.update.state is State.IDLE and self.loop.update.journal.active is not None


class Collector:
    """The publisher's ear: the newest verified report of every device."""

    def __init__(self, port: int) -> None:
        self.newest: dict[str, Report] = {}
        self._keys: dict[str, str] = {}
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda *_args: self._client.subscribe(f"nis/v1/{SITE}/+/ota/report", 1)
        self._client.on_message = self._message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _message(self, _client: Any, _userdata: Any, message: Any) -> None:
        device = message.topic.split("/")[3]
        report, key = open_report(bytes(message.payload), self._keys.get(device))
        self._keys[device] = key
        if device not in self.newest or report.seq > self.newest[device].seq:
            self.newest[device] = report

    def committed(self, version: str) -> int:
        return sum(r.outcome == "committed" and r.installed_version == version for r in self.newest.values())

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def update_fleet(count: int, folder: Path, spread_s: int) -> Figures:
    """Start a fleet, offer it a model, wait until everybody has it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 64 * count + 1024), hard))
    (folder / "www").mkdir()
    (folder / "broker").mkdir()
    broker = Mosquitto(folder / "broker")
    broker.start()
    try:
        with web_folder(folder / "www") as web:
            return asyncio.run(_run(count, folder, spread_s, broker, web))
    finally:
        broker.stop()


async def _run(count: int, folder: Path, spread_s: int, broker: Mosquitto, web: WebFolder) -> Figures:
    publisher = Publisher(folder / "repository", folder / "www")
    publisher.publish()
    collector = Collector(broker.port)
    clients = [Client(n, folder / f"dev-{n}", publisher, web.url, broker.port) for n in range(count)]
    running = [asyncio.ensure_future(client.loop.run()) for client in clients]
    try:
        await asyncio.gather(*(asyncio.wait_for(client.subscribed.wait(), 60) for client in clients))
        package = folder / "model.nis"
        package.write_bytes(os.urandom(MODEL_BYTES))
        facts = SignedFacts(version="1.0.0", release_counter=1, hardware=("any",))
        publisher.repository.offer(COHORT, publisher.repository.add_model(package, "tiny", facts), spread_s=spread_s)
        publisher.publish()
        bundle = publishing.bundle_bytes(publisher.repository, COHORT)
        web.requests.clear()
        begun = time.monotonic()
        clients[0].mqtt.publish(bundle_topic(SITE, COHORT), bundle, qos=1, retain=True)
        await _until(lambda: all(client.is_done for client in clients), running)
        seconds = time.monotonic() - begun
        await _until(lambda: collector.committed("1.0.0") == count, running)
    finally:
        for client in clients:
            client.loop.stop()
        await asyncio.gather(*running)
        for client in clients:
            client.mqtt.disconnect()
            client.mqtt.loop_stop()
        collector.close()
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    sizes = {path: (folder / "www" / path.lstrip("/")) for path, _ in web.requests}
    served = [(path, sizes[path].stat().st_size if sizes[path].is_file() else 0) for path, _ in web.requests]
    return Figures(
        clients=count,
        updated=sum(_holds(client, sha256) for client in clients),
        reported=collector.committed("1.0.0"),
        seconds=seconds,
        spread_s=spread_s,
        model_bytes=MODEL_BYTES,
        served_model_bytes=sum(size for path, size in served if path.endswith(".nis")),
        served_metadata_bytes=sum(size for path, size in served if not path.endswith(".nis")),
        bundle_bytes=len(bundle),
        failures=tuple(failure for client in clients for failure in client.failures),
    )


def _holds(client: Client, sha256: str) -> bool:
    """Read back from the disk as the next start would: journal and model."""
    journal = SlotStore(client.folder / "update").read_journal()
    if journal is None or journal.active is None or journal.active.sha256 != sha256:
        return False
    fd = client.store.open_verified(sha256, MODEL_BYTES)
    if fd is not None:
        client.store.close(fd)
    return fd is not None


async def _until(condition: Callable[[], bool], running: list[asyncio.Task[None]]) -> None:
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        for task in running:
            if task.done():
                task.result()
        assert time.monotonic() < ends_at, "the fleet did not come to its end"
        await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--spread", type=int, default=10, help="seconds over which the rollout spreads starts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(update_fleet(args.clients, Path(name), args.spread).text())


if __name__ == "__main__":
    main()
