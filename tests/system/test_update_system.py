"""The whole of an update with nothing simulated: commands, web server, mosquitto, daemon process, engine, self-test."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nis_edge.monitor.window import PROMPT_TOKENS_MAX, SPECIALS
from nis_edge.update.bundle import bundle_topic
from tests.support.broker import Mosquitto, mosquitto, mosquitto_path
from tests.support.tiny_models import tiny_manifest, tiny_tensors
from tests.support.web_folder import WebFolder, web_folder

__all__ = ["mosquitto"]

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


def pack(path: Path, version: str, seed: int) -> Path:
    """A tiny package whose golden entry the real engine recorded."""
    from nis_edge.engine import golden
    from nis_edge.engine.model import Model
    from nis_edge.pack.layout import ModelIdentity
    from nis_edge.pack.writer import write_package

    manifest = tiny_manifest(specials=tuple(SPECIALS), vocab=768, context=PROMPT_TOKENS_MAX)
    manifest = msgspec.structs.replace(manifest, model=ModelIdentity("tiny", version))
    tensors = tiny_tensors(manifest, seed)
    write_package(path, manifest, tensors)
    with Model.open(path) as model:
        entry = golden.record(model)
    write_package(path, msgspec.structs.replace(manifest, golden=(entry,)), tensors)
    return path


def command(module: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=DEADLINE_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, done.stderr
    return done


def ota(*words: str) -> str:
    return command("nis_ota.cli", *words).stdout


class RunningDaemon:
    """`nis-edge run` as a process."""

    def __init__(self, tmp: Path, config: Path) -> None:
        self.config = config
        self.state = tmp / "state"
        self._log = (tmp / "daemon.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nis_edge.cli", "run", "--config", str(config)],
            stdout=self._log, stderr=self._log, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        self.log_path = tmp / "daemon.log"

    def alive(self) -> None:
        assert self.process.poll() is None, self.log()[-3000:]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        path = self.state / "update" / "status.json"
        try:
            return dict(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            return {}

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        ends_at = time.monotonic() + DEADLINE_S
        while not (found := condition()):
            self.alive()
            assert time.monotonic() < ends_at, f"not within {DEADLINE_S:.0f} s: {what}; log: {self.log()[-3000:]}"
            time.sleep(0.05)
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(DEADLINE_S)
        self._log.close()


class Fleet:
    """One publisher, one broker, one device."""

    def __init__(self, tmp: Path, web: WebFolder, broker: Mosquitto) -> None:
        self.tmp, self.web, self.broker = tmp, web, broker
        self.repository = str(tmp / "fleet")
        ota("init-repo", self.repository, "--plain-keys")
        self.config = tmp / "edge.toml"
        self.config.write_text(
            f'[device]\nsite = "lab"\nid = "dev-1"\nstate = "{tmp / "state"}"\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
            f'[update]\nrepository = "{web.url}"\nroot = "{self.repository}/metadata/1.root.json"\npoll_s = 86400.0\n'
            "[api]\nenabled = false\n"
        )
        self.daemons: list[RunningDaemon] = []

    def release(self, version: str, counter: int) -> Path:
        package = pack(self.tmp / f"{version}.nis", version, counter)
        ota("add-target", self.repository, str(package), "--release-counter", str(counter), "--offer-to", "stable")
        return package

    def publish(self) -> None:
        ota("publish", self.repository, "--to", str(self.tmp / "www"))

    def notify(self) -> None:
        ota("publish-bundle", self.repository, "--mqtt", f"127.0.0.1:{self.broker.port}", "--site", "lab")

    def start(self) -> RunningDaemon:
        self.daemons.append(RunningDaemon(self.tmp, self.config))
        return self.daemons[-1]


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Fleet]:
    (tmp_path / "www").mkdir()
    with web_folder(tmp_path / "www") as web:
        made = Fleet(tmp_path, web, mosquitto)
        try:
            yield made
        finally:
            for daemon in made.daemons:
                daemon.stop()


class Listener:
    """Reads what the device publishes."""

    def __init__(self, port: int, topic: str) -> None:
        from paho.mqtt import client as mqtt

        self.messages: queue.Queue[bytes] = queue.Queue()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_args: client.subscribe(topic, qos=1)
        self._client.on_message = lambda _client, _userdata, message: self.messages.put(message.payload)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def drain(self) -> list[dict[str, Any]]:
        found = []
        while not self.messages.empty():
            found.append(json.loads(self.messages.get()))
        return found

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_a_retained_notice_brings_a_signed_model_into_a_running_daemon_and_forgeries_do_not(fleet: Fleet) -> None:
    if mosquitto_path() is None:
        pytest.skip("NOT RUN: mosquitto is not installed")
    fleet.release("1.0.0", 1)
    fleet.publish()
    statuses = Listener(fleet.broker.port, "nis/v1/lab/dev-1/ota/status")
    daemon = fleet.start()
    try:
        daemon.wait("1.0.0 on probation", lambda: daemon.status().get("state") == "PROBATION")
        daemon.wait("the model in service", lambda: "update 1.0.0" in daemon.log())
        told: list[dict[str, Any]] = []
        daemon.wait(
            "the status by MQTT",
            lambda: told.extend(statuses.drain()) or any(status["state"] == "PROBATION" for status in told),
        )
        assert {"installed_version", "latest_version", "in_progress", "error", "clock_state"} <= set(told[-1])

        done = command("nis_edge.cli", "update", "rollback", "--config", str(fleet.config))
        assert "rolled back" in done.stdout
        daemon.wait("idle", lambda: daemon.status().get("state") == "IDLE")

        fleet.release("1.1.0", 2)
        fleet.publish()
        stale = (fleet.tmp / "www" / "bundles" / "stable.json").read_bytes()
        fleet.notify()
        daemon.wait("1.1.0 on probation", lambda: "update 1.1.0" in daemon.log())
        daemon.kill()

        daemon = fleet.start()
        daemon.wait("the trial loaded after a kill", lambda: daemon.log().count("update 1.1.0") >= 2)
        command("nis_edge.cli", "update", "rollback", "--config", str(fleet.config))
        daemon.wait("idle", lambda: daemon.status().get("state") == "IDLE")

        fleet.publish()
        fleet.notify()
        newest = (fleet.tmp / "www" / "metadata" / "timestamp.json").read_bytes()
        cached = daemon.state / "update" / "tuf" / "timestamp.json"
        daemon.wait("the newer notice was verified", lambda: cached.read_bytes() == newest)
        forged = json.loads(stale)
        forged["files"]["timestamp.json"] = forged["files"]["timestamp.json"].replace('"version":', '"version":9')
        for payload, said in ((stale, "already seen|must be >="), (json.dumps(forged).encode(), "timestamp")):
            before = daemon.log().count("update.refused")
            publish(fleet.broker.port, bundle_topic("lab", "stable"), payload)
            daemon.wait("one refusal", lambda before=before: daemon.log().count("update.refused") == before + 1)
            line = [line for line in daemon.log().splitlines() if "update.refused" in line][-1]
            assert re.search(said, line), line
            assert "stays in service" in line
        assert daemon.status()["state"] == "IDLE"
    finally:
        statuses.close()


def publish(port: int, topic: str, payload: bytes) -> None:
    from paho.mqtt import publish as paho_publish

    paho_publish.single(topic, payload, qos=1, retain=True, hostname="127.0.0.1", port=port)


def test_a_tampered_target_is_refused_by_a_running_daemon_which_goes_on(fleet: Fleet) -> None:
    fleet.release("1.0.0", 1)
    fleet.publish()
    target = next((fleet.tmp / "www" / "targets" / "models" / "tiny").glob("*.nis"))
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    daemon = fleet.start()
    daemon.wait("the refusal", lambda: "update.refused" in daemon.log())
    assert "tampered" in daemon.status()["error"]
    assert daemon.status()["installed_version"] != "1.0.0"
    command("nis_ota.cli", "publish", fleet.repository, "--to", str(fleet.tmp / "www"))
    done = command("nis_edge.cli", "update", "apply", "--config", str(fleet.config))
    assert "on probation" in done.stdout
    daemon.alive()


def test_a_daemon_that_reaches_only_the_broker_is_renewed_by_bundle_and_blocks_and_its_signed_reports_are_believed(
    fleet: Fleet,
) -> None:
    from nis_edge.update.report import open_report

    if mosquitto_path() is None:
        pytest.skip("NOT RUN: mosquitto is not installed")
    config = fleet.config.read_text()
    fleet.config.write_text(re.sub(r"repository = .*\n", "", config))
    fleet.release("1.0.0", 1)
    fleet.publish()
    broker = f"127.0.0.1:{fleet.broker.port}"
    reports = Listener(fleet.broker.port, "nis/v1/lab/dev-1/ota/report")
    serving = subprocess.Popen(
        [sys.executable, "-m", "nis_ota.cli", "serve-blocks", fleet.repository, "--mqtt", broker, "--site", "lab",
         "--device-rate", "2000000", "--total-rate", "4000000"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        daemon = fleet.start()
        daemon.wait("the first reports", lambda: not reports.messages.empty())
        fleet.notify()
        daemon.wait("1.0.0 on probation", lambda: daemon.status().get("state") == "PROBATION")
        daemon.wait("the model in service", lambda: "update 1.0.0" in daemon.log())
        key = command("nis_edge.cli", "update", "identity", "--config", str(fleet.config)).stdout.strip()
        seen = []

        def told() -> bool:
            while not reports.messages.empty():
                seen.append(open_report(reports.messages.get(), key)[0])
            return any(report.state == "PROBATION" for report in seen)

        daemon.wait("its signed report", told)
        assert [report.seq for report in seen] == sorted({report.seq for report in seen})
        done = command("nis_edge.cli", "update", "audit", "--config", str(fleet.config))
        assert "slot.activated" in done.stdout
        assert fleet.web.requests == []
    finally:
        serving.terminate()
        serving.wait(DEADLINE_S)
        reports.close()
