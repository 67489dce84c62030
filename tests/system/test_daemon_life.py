"""The daemon from outside: it starts, judges, tells, reloads, stops; each fault around it is one clear line."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nis_edge.monitor.window import PROMPT_TOKENS_MAX, SPECIALS
from tests.support.broker import Mosquitto, mosquitto, running
from tests.support.daemon import DaemonProcess, event
from tests.support.subscriber import Subscriber
from tests.support.tiny_models import write_tiny_package

pytestmark = pytest.mark.system
__all__ = ["mosquitto"]

PREFIX = "nis/v1/test/dut"


def mqtt(port: int, more: str = "") -> str:
    return f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nreconnect_s_max = 1.0\nwill_delay_s = 0\n{more}'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path).start() as running_daemon:
        yield running_daemon


def refused_start(tmp_path: Path, config: str = "", *words: str) -> tuple[int, str]:
    """Exit code and the one line of a daemon that does not come up."""
    with DaemonProcess(tmp_path, config, *words).start(ready=False) as daemon:
        code = daemon.wait_exit()
        said = [line for line in daemon.log().splitlines() if line.startswith("nis-edge: ")]
        assert len(said) == 1, daemon.log()
        return code, said[0]


def looping(daemon: DaemonProcess) -> None:
    call = {"v": 1, "agent": "worker", "kind": "tool_call", "tool": "read", "args_hash": "a", "text": "read"}
    for number in range(8):
        daemon.post(json.dumps({**call, "id": f"c{number}"}).encode())


def test_events_by_http_are_judged_and_a_finding_is_shown_with_its_evidence(daemon: DaemonProcess) -> None:
    looping(daemon)
    daemon.wait(lambda: daemon.status()["verdict"]["status"] == "degraded", "the loop is found")
    (finding,) = daemon.status()["verdict"]["findings"]
    assert finding["label"] == "looping"
    assert finding["agents"] == ["worker"]
    assert all("worker tool call" in evidence["text"] for evidence in finding["evidence"])
    latest = json.loads(daemon.get("/v1/assessments")[1])
    assert [f["label"] for f in latest[0]["findings"]] == ["looping"]
    assert b'nis_edge_finding{label="looping",severity="high",agents="worker"} 1' in daemon.get("/metrics")[1]


def test_malformed_events_are_refused_with_reasons_and_the_rest_goes_on(daemon: DaemonProcess) -> None:
    lines = [json.dumps(event(1)), '{"agent": "x"}', json.dumps(event(2))]
    status, answer = daemon.post("\n".join(lines).encode(), "application/x-ndjson")
    assert status == 202
    assert answer["accepted"] == 2
    assert "lacks 'kind'" in answer["refused"][0]["reason"]
    assert daemon.post(b"\xff\xfe")[0] == 400
    assert daemon.post(b"[" * 100_000)[0] == 400
    daemon.wait(lambda: daemon.status()["events"]["seen"] == 2, "both good events are judged")
    assert daemon.status()["events"]["refused"] >= 1


def test_assessments_can_be_followed_as_server_sent_events(daemon: DaemonProcess) -> None:
    address = json.loads((daemon.state / "api.json").read_text())["address"].removeprefix("http://")
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as peer:
        peer.sendall(b"GET /v1/assessments?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b": follows" not in received:
            received += peer.recv(65536)
        daemon.post(json.dumps(event(1)).encode())
        while b"event: assessment\ndata: {" not in received:
            received += peer.recv(65536)
    assert b"text/event-stream" in received


def test_without_a_broker_records_are_kept_and_nothing_is_wrong(daemon: DaemonProcess) -> None:
    daemon.post(json.dumps(event(1)).encode())
    daemon.wait(lambda: daemon.status()["spool"]["on_disk"]["assessment"] > 0, "an assessment is on disk")
    view = daemon.status()
    assert view["broker"] == {"configured": False, "host": None, "port": None, "connected": False, "sessions": 0,
                              "window": None, "reason": "no broker is configured"}  # fmt: skip
    assert daemon.get("/healthz")[0] == 200
    assert daemon.end() == 0
    assert daemon.events("broker.lost") == []


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGTERM, 0, "stopped by SIGTERM"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_stops_it_cleanly_and_the_farewell_says_why(
    tmp_path: Path, mosquitto: Mosquitto, number: signal.Signals, code: int, reason: str
) -> None:
    subscriber = Subscriber(mosquitto.port, f"{PREFIX}/#")
    with DaemonProcess(tmp_path, mqtt(mosquitto.port)).start() as daemon:
        subscriber.wait(lambda: b'"online"' in (subscriber.last(f"{PREFIX}/status") or b""), "the birth is seen")
        subscriber.wait(lambda: subscriber.last(f"{PREFIX}/meta"), "the description is seen")
        assert json.loads(subscriber.last(f"{PREFIX}/meta") or b"")["device"] == "dut"
        assert daemon.end(number) == code
        assert daemon.events("daemon.stopped")[0]["reason"] == reason
    subscriber.wait(lambda: b'"offline"' in (subscriber.last(f"{PREFIX}/status") or b""), "the farewell is seen")
    assert json.loads(subscriber.last(f"{PREFIX}/status") or b"")["reason"] == reason
    subscriber.close()


def test_a_killed_daemon_leaves_its_will_and_its_unsent_records_reach_the_broker_later(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    subscriber = Subscriber(mosquitto.port, f"{PREFIX}/#")
    with DaemonProcess(tmp_path, mqtt(mosquitto.port)).start() as daemon:
        daemon.wait(lambda: daemon.status()["broker"]["connected"], "connected")
        mosquitto.kill()
        daemon.wait(lambda: not daemon.status()["broker"]["connected"], "the loss is noticed")
        for number in range(20):
            daemon.post(json.dumps(event(number)).encode())
        daemon.wait(lambda: daemon.status()["events"]["seen"] == 20, "all are judged")
        daemon.wait(lambda: daemon.status()["spool"]["in_memory"] == 0, "all are on disk")
        boot, last = daemon.status()["boot_id"], daemon.status()["spool"]["last_seq"]
        daemon.kill()
    mosquitto.start()
    with DaemonProcess(tmp_path, mqtt(mosquitto.port)).start() as daemon:
        assert daemon.status()["boot_id"] != boot
        subscriber.wait(
            lambda: {seq for b, seq in subscriber.records() if b == boot} >= set(range(1, last + 1)),
            "everything the killed run wrote has arrived",
        )
        daemon.wait(lambda: daemon.status()["broker"]["connected"], "connected")
        daemon.kill()
    subscriber.wait(
        lambda: json.loads(subscriber.last(f"{PREFIX}/status") or b"{}").get("reason") == "connection lost", "the will"
    )
    subscriber.close()


def test_events_by_mqtt_are_bound_to_the_agent_that_the_topic_names(tmp_path: Path, mosquitto: Mosquitto) -> None:
    sender = Subscriber(mosquitto.port, "nothing", "sender")

    def send(agent: str, body: dict[str, Any], retain: bool = False) -> None:
        sender.publish(f"{PREFIX}/agents/{agent}/event", json.dumps(body).encode(), retain)

    send("old", {"kind": "message", "text": "kept by the broker for who comes later"}, retain=True)
    with DaemonProcess(tmp_path, mqtt(mosquitto.port)).start() as daemon:
        assert "retained" in daemon.wait_event("event.refused", sender="old")["reason"]
        send("alice", {"kind": "message", "text": "hello"})
        send("alice", event(1, "mallory"))
        assert "sent by 'alice'" in daemon.wait_event("event.refused", sender="alice")["reason"]
        daemon.wait(lambda: list(daemon.status()["verdict"]["agents"]) == ["alice"], "only alice is known")
        sender.publish(f"{PREFIX}/agents/bob/event", b"\xff" * 100)
        daemon.wait_event("event.refused", sender="bob")
    sender.close()


def test_one_that_floods_does_not_blind_the_monitor_to_the_others(daemon: DaemonProcess) -> None:
    def flood() -> None:
        for batch in range(30):
            body = "\n".join(json.dumps(event(batch * 1000 + n, "loud")) for n in range(1000))
            daemon.post(body.encode(), "application/x-ndjson")

    flooding = threading.Thread(target=flood)
    flooding.start()
    daemon.post(json.dumps(event(1, "quiet")).encode())
    flooding.join()
    daemon.wait(lambda: "quiet" in daemon.status()["verdict"]["agents"], "the quiet one is seen")
    view = daemon.status()
    assert view["events"]["lost"] > 0
    assert {e["agent"] for e in daemon.events("inbox.overflowed")} == {"loud"}
    assert daemon.get("/healthz")[0] == 200


def test_wrong_credentials_are_told_once_and_the_agent_goes_on(tmp_path: Path) -> None:
    for broker in running(tmp_path, users={"dut": "right"}):
        password = tmp_path / "password"
        password.write_text("wrong\n")
        more = f'username = "dut"\npassword_file = "{password}"\n'
        with DaemonProcess(tmp_path, mqtt(broker.port, more)).start() as daemon:
            lost = daemon.wait_event("broker.lost")
            assert "refused: Not authorized" in lost["reason"]
            assert lost["unharmed"]
            daemon.post(json.dumps(event(1)).encode())
            daemon.wait(lambda: daemon.status()["events"]["seen"] == 1, "it judges")
            assert "Not authorized" in daemon.status()["broker"]["reason"]
            password.write_text("right\n")
            daemon.write_config(mqtt(broker.port, more + "keepalive_s = 31\n"))
            daemon.send(signal.SIGHUP)
            daemon.wait(lambda: daemon.status()["broker"]["connected"], "the mended secret is used")
            assert len(daemon.events("broker.lost")) == 1
            assert daemon.end() == 0


def test_a_broken_configuration_is_refused_at_reload_and_the_old_one_stays(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    with DaemonProcess(tmp_path, mqtt(mosquitto.port)).start() as daemon:
        daemon.wait(lambda: daemon.status()["broker"]["connected"], "connected")
        daemon.write_config("[mqtt]\nhots = 'x'\nport = 0\n")
        daemon.send(signal.SIGHUP)
        refused = daemon.wait_event("config.refused")
        assert "did you mean 'host'?" in refused["reason"]
        assert "mqtt.port must be 1 to 65535" in refused["reason"]
        assert refused["unharmed"]
        assert daemon.status()["broker"]["connected"]
        daemon.write_config(mqtt(mosquitto.port, "[spool]\nmib_max = 8\n[monitor]\ntick_s = 0.5\n"))
        daemon.send(signal.SIGHUP)
        reloaded = daemon.wait_event("config.reloaded")
        assert reloaded["changed"] == ["monitor", "spool"]
        assert reloaded["needs_restart"] == ["spool"]
        daemon.write_config("")
        daemon.send(signal.SIGHUP)
        daemon.wait(lambda: not daemon.status()["broker"]["configured"], "the broker is left")


def test_a_full_disk_is_survived_counted_told_and_recovered_from(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, file_bytes_max=256 * 1024).start() as daemon:
        number = 0
        while not daemon.events("spool.failed"):
            daemon.post("\n".join(json.dumps(event(number + n)) for n in range(20)).encode(), "application/x-ndjson")
            number += 20
            daemon.wait(lambda: daemon.status()["events"]["waiting"] == 0, "the inbox is empty")
            assert number < 5000
        failed = daemon.wait_event("spool.failed")
        assert failed["unharmed"]
        assert daemon.status()["spool"]["failing"]
        assert daemon.get("/healthz")[0] == 200
        daemon.limit_files(-1)
        daemon.wait_event("spool.recovered")
        daemon.wait(lambda: daemon.status()["spool"]["in_memory"] == 0, "what waited is written")
        assert sum(daemon.status()["spool"]["dropped"].values()) == 0
        assert daemon.end() == 0


def test_a_damaged_spool_is_set_aside_and_the_agent_starts(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "spool.db").write_bytes(b"rubbish" * 1000)
    with DaemonProcess(tmp_path).start() as daemon:
        assert "damaged-1" in daemon.wait_event("spool.set_aside")["reason"]
        daemon.post(json.dumps(event(1)).encode())
        daemon.wait(lambda: daemon.status()["spool"]["on_disk"]["assessment"] > 0, "records are kept")


def test_sensors_that_are_missing_are_unknown_never_zero(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, environ={"NIS_EDGE_SYSROOT": str(tmp_path / "empty")}).start() as daemon:
        daemon.wait_event("sensor.failed", sensor="temperature_c")
        daemon.wait(lambda: "cpu_percent" in daemon.status()["device_readings"], "readings are in")
        view = daemon.status()
        for name, value in view["device_readings"].items():
            if name != "disk_percent":
                assert value["reason"], name
        assert view["power"]["watts"] is None
        assert view["power"]["reason"]
        assert daemon.get("/healthz")[0] == 200


def test_the_service_manager_hears_of_start_life_reload_and_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)

        def next_with(word: str) -> str:
            while True:
                message = manager.recv(9999).decode()
                if word in message:
                    return message

        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        with DaemonProcess(tmp_path, environ=environ).start() as daemon:
            assert manager.recv(9999).decode().startswith("READY=1")
            assert daemon.events("api.started"), "ready comes when everything stands"
            for _ in range(3):
                next_with("WATCHDOG=1")
            daemon.send(signal.SIGHUP)
            next_with("RELOADING=1")
            next_with("READY=1")
            daemon.send(signal.SIGTERM)
            assert "stopped by SIGTERM" in next_with("STOPPING=1")
            assert daemon.wait_exit() == 0


def test_a_pinned_model_judges_beside_the_rules_and_its_latency_is_measured(tmp_path: Path) -> None:
    package = write_tiny_package(
        tmp_path / "tiny.nis", specials=SPECIALS, vocab=256 + len(SPECIALS) + 64, context=PROMPT_TOKENS_MAX
    )
    with DaemonProcess(tmp_path, f'[model]\npath = "{package}"\n').start() as daemon:
        loaded = daemon.wait_event("model.loaded")
        assert loaded["model"] == "tiny 0.0.1"
        for number in range(5):
            daemon.post(json.dumps(event(number)).encode())
        daemon.wait(lambda: daemon.status()["latency"]["model"]["n"] > 0, "the model answers")
        daemon.wait(
            lambda: json.loads(daemon.get("/v1/assessments")[1])[0]["model"] is not None, "an assessment has its answer"
        )
        view = daemon.status()
        assert view["model"]["path"] == str(package)
        assert view["model"]["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
        assert view["latency"]["model"]["p99_ms"] > 0
        assert view["update"] is None, "a pinned model is not updated"
        assert daemon.end() == 0


def test_a_wrong_model_path_ends_the_start_with_code_2(tmp_path: Path) -> None:
    code, line = refused_start(tmp_path, '[model]\npath = "/nowhere/model.nis"\n')
    assert code == 2
    assert "/nowhere/model.nis" in line


def test_a_file_that_is_no_model_ends_the_start_with_code_2(tmp_path: Path) -> None:
    (tmp_path / "model.nis").write_bytes(b"\x00" * 4096)
    code, line = refused_start(tmp_path, f'[model]\npath = "{tmp_path / "model.nis"}"\n')
    assert code == 2
    assert "model.nis" in line


def test_a_faulty_configuration_ends_the_start_with_code_2(tmp_path: Path) -> None:
    code, line = refused_start(tmp_path, "[mqtt]\nhots = 1\n[modle]\n")
    assert code == 2
    assert "did you mean 'host'?" in line
    assert "did you mean 'model'?" in line


def test_a_missing_secret_ends_the_start_with_code_2(tmp_path: Path) -> None:
    code, line = refused_start(tmp_path, '[mqtt]\nhost = "b"\nusername = "u"\npassword_file = "/nowhere/pw"\n')
    assert (code, "/nowhere/pw can't be read" in line) == (2, True)


def test_two_daemons_never_share_a_state_folder(daemon: DaemonProcess, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nis_edge.cli", "run", "--config", str(daemon.config_path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert daemon.process is not None
    assert f"in use by another nis-edge (process {daemon.process.pid})" in done.stderr
    assert daemon.get("/healthz")[0] == 200


def test_a_taken_port_ends_the_start_but_a_demonstration_takes_the_next(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own = tmp_path / "own.toml"
        own.write_text(f'[device]\nstate = "{tmp_path / "s"}"\nid = "dut"\n[api]\nport = {port}\n')
        words = [sys.executable, "-m", "nis_edge.cli", "run", "--config", str(own)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert f"can't listen on 127.0.0.1:{port}" in done.stderr
        done = subprocess.run([*words, "--demo", "--for", "1"], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0
        assert f"API http://127.0.0.1:{port + 1}" in done.stdout


def test_status_costs_little_and_says_what_is_there(daemon: DaemonProcess) -> None:
    looping(daemon)
    daemon.wait(lambda: daemon.status()["verdict"]["status"] == "degraded", "the loop is found")
    address = json.loads((daemon.state / "api.json").read_text())["address"]
    words = [sys.executable, "-m", "nis_edge.cli", "status", "--address", address]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
    for expected in ("DEGRADED", "looping", "worker", "broker  none", "power   unknown"):
        assert expected in shown
    view = json.loads(subprocess.run([*words, "--json"], capture_output=True, timeout=30, check=True).stdout)
    assert view["device"] == "dut"


def test_status_without_a_daemon_is_one_line_and_code_1(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{s.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "nis_edge.cli", "status", "--address", address],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"nis-edge: no daemon answers at {address}: Connection refused; start it with: nis-edge run\n"
