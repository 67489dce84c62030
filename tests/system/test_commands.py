"""Commands and the configuration from afar, against a real broker: answered, once only, in time, and remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import Mosquitto, mosquitto
from tests.support.daemon import DaemonProcess
from tests.support.subscriber import Subscriber

pytestmark = pytest.mark.system
__all__ = ["mosquitto"]

PREFIX = "nis/v1/test/dut"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def config(port: int, more: str = "") -> str:
    return f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nreconnect_s_max = 1.0\nwill_delay_s = 0\n{more}'


@pytest.fixture
def asker(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    subscriber = Subscriber(mosquitto.port, "#", "asker")
    yield subscriber
    subscriber.close()


def connected(folder: Path, port: int, more: str = "") -> DaemonProcess:
    daemon = DaemonProcess(folder, config(port, more)).start()
    daemon.wait(lambda: daemon.status()["broker"]["connected"], "connected")
    boot_id = daemon.status()["boot_id"]
    seen = Subscriber(port, f"{PREFIX}/status", "looks-for-the-birth")
    # It subscribes before it says that it is online: a command sent from now on is heard.
    seen.wait(lambda: seen.json(f"{PREFIX}/status").get("boot_id") == boot_id, "the daemon says it is online")
    seen.close()
    return daemon


def answers(asker: Subscriber, name: str) -> list[dict[str, Any]]:
    return asker.all(f"{PREFIX}/cmd/{name}/result")


def ask(asker: Subscriber, name: str, payload: bytes = b"", **properties: Any) -> dict[str, Any]:
    """Send, and give the answer that ends it."""
    before = len(answers(asker, name))
    asker.publish(f"{PREFIX}/cmd/{name}", payload, MessageExpiryInterval=60, **properties)

    def ended() -> bool:
        return any(a["state"] != "accepted" or a["repeated"] for a in answers(asker, name)[before:])

    asker.wait(ended, f"{name} is answered")
    return answers(asker, name)[-1]


def test_each_command_is_accepted_then_done_and_answered_where_the_asker_wants(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        trace = [("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")]
        ask(asker, "ping", b'{"id": "p1"}', ResponseTopic="asker/7", CorrelationData=b"\x00\xff", UserProperty=trace)
        assert [a["state"] for a in answers(asker, "ping")] == ["accepted", "done"]
        asker.wait(lambda: len(asker.all("asker/7")) == 2, "the asker's own topic has both")
        mine = [m for m in asker.raw if m.topic == "asker/7"]
        assert {m.properties.CorrelationData for m in mine} == {b"\x00\xff"}
        assert all(dict(m.properties.UserProperty)["traceparent"].split("-")[1] == TRACE for m in mine)
        assert mine[0].properties.ContentType == "application/json"
        assert answers(asker, "ping")[-1]["result"]["boot_id"] == daemon.status()["boot_id"]
        assert ask(asker, "status")["result"]["device"] == "dut"
        daemon.wait(lambda: daemon.status()["verdict"] is not None, "there is a verdict")
        assert ask(asker, "assess-now")["result"]["status"] in ("healthy", "unknown")
        assert ask(asker, "log-level", b'{"level": "debug"}')["state"] == "done"
        daemon.wait_event("log.changed", to="debug")
        assert ask(asker, "reload")["result"] == {"changed": [], "needs_restart": []}
        daemon.write_config("[mqtt]\nhots = 1\n")
        assert "did you mean 'host'?" in ask(asker, "reload")["reason"]
        assert daemon.end() == 0


def test_what_is_wrong_with_a_command_is_said_and_nothing_is_done(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        assert "did you mean 'status'?" in ask(asker, "statos")["reason"]
        assert "Invalid enum value" in ask(asker, "log-level", b'{"level": "loud"}')["reason"]
        assert "unknown field" in ask(asker, "update", b'{"do": "check", "url": "http://evil"}')["reason"]
        assert "JSON object" in ask(asker, "ping", b"[1,2]")["reason"]
        assert "no such finding" in ask(asker, "verdict", b'{"label": "looping", "right": true}')["reason"]
        # An answer never goes where it would be a command of another device.
        ask(asker, "ping", ResponseTopic="nis/v1/test/other/cmd/reload")
        asker.publish(f"{PREFIX}/cmd/ping", b'{"id": "kept"}', retain=True)
        asker.wait(lambda: "retained" in (answers(asker, "ping")[-1]["reason"] or ""), "a retained one is refused")
        asker.publish(f"{PREFIX}/cmd/ping", b"", retain=True)
        assert asker.all("nis/v1/test/other/cmd/reload") == []
        assert daemon.end() == 0


def test_a_flood_of_commands_is_bounded_and_told(tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        for _ in range(100):
            asker.publish(f"{PREFIX}/cmd/ping", b"")
        assert "too fast" in daemon.wait_event("command.refused")["reason"]
        asker.wait(lambda: len(answers(asker, "ping")) > 10, "the first are answered")
        assert len(answers(asker, "ping")) < 100
        assert daemon.get("/healthz")[0] == 200


def test_a_key_that_is_known_is_never_carried_out_again_even_after_a_kill(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        first = ask(asker, "ping", b'{"id": "once"}')
        again = ask(asker, "ping", b'{"id": "once"}')
        assert (first["repeated"], again["repeated"]) == (False, True)
        assert again["result"] == first["result"]
        assert len(daemon.events("command.taken")) == 1
        daemon.kill()
    with connected(tmp_path, mosquitto.port) as daemon:
        third = ask(asker, "ping", b'{"id": "once"}')
        assert third["repeated"]
        assert third["result"] == first["result"], "the answer is that of the run that carried it out"
        assert daemon.end() == 0


def test_commands_sent_while_away_arrive_unless_nobody_can_tell_how_old_they_are(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        assert ask(asker, "ping")["state"] == "done"  # so the session has its subscriptions
        assert daemon.end() == 0
    asker.publish(f"{PREFIX}/cmd/ping", b'{"id": "in-time"}', MessageExpiryInterval=300)
    asker.publish(f"{PREFIX}/cmd/ping", b'{"id": "timeless"}')
    with connected(tmp_path, mosquitto.port) as daemon:
        asker.wait(lambda: {"in-time", "timeless"} <= {a["id"] for a in answers(asker, "ping")}, "both are answered")
        by_id = {a["id"]: a for a in answers(asker, "ping")}
        asker.wait(
            lambda: {a["id"]: a for a in answers(asker, "ping")}["in-time"]["state"] == "done", "the one is done"
        )
        assert "no message expiry" in by_id["timeless"]["reason"]
        assert daemon.end() == 0


def test_an_operators_verdict_on_a_finding_is_published_beside_it(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        call = {"v": 1, "agent": "worker", "kind": "tool_call", "tool": "read", "args_hash": "a", "text": "read"}
        for number in range(8):
            daemon.post(json.dumps({**call, "id": f"c{number}"}).encode())
        daemon.wait(lambda: daemon.status()["verdict"]["status"] == "degraded", "the loop is found")
        wish = {"id": "v1", "label": "looping", "right": False, "note": "it polls \x1b[31mon purpose", "by": "amy"}
        assert ask(asker, "verdict", json.dumps(wish).encode())["state"] == "done"
        events = f"{PREFIX}/event/high"
        asker.wait(lambda: any(e["change"] == "judged" for e in asker.all(events)), "the opinion is published")
        judged = asker.all(events)[-1]
        assert judged["finding"]["label"] == "looping"
        assert judged["opinion"] == {"right": False, "note": judged["opinion"]["note"], "by": "amy"}
        assert "\x1b" not in judged["opinion"]["note"]
        assert daemon.end() == 0


def desire(asker: Subscriber, version: int, **sections: dict[str, Any]) -> None:
    body = json.dumps({"version": version, "config": sections}).encode()
    asker.publish(f"{PREFIX}/config/desired", body, retain=True)


def reported(asker: Subscriber, version: int, state: str) -> dict[str, Any]:
    topic = f"{PREFIX}/config/reported"
    asker.wait(lambda: (asker.json(topic).get("version"), asker.json(topic).get("state")) == (version, state),
               f"version {version} is {state}")  # fmt: skip
    body = asker.json(topic)
    assert isinstance(body, dict)
    return body


def test_a_desired_configuration_is_applied_reported_kept_and_survives_a_restart(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port, "desired_trial_s = 1.0\n") as daemon:
        reported(asker, None, "none")  # type: ignore[arg-type]
        desire(asker, 1, telemetry={"system_s": 1}, log={"level": "debug"})
        reported(asker, 1, "accepted")
        asker.wait(lambda: len(asker.all(f"{PREFIX}/telemetry/system")) > 3, "the interval is in force")
        desire(asker, 2, mqtt={"host": "evil.example"})
        assert "own file only" in reported(asker, 2, "rejected")["reason"]
        assert daemon.status()["broker"]["host"] == "127.0.0.1"
        assert daemon.end() == 0
    with connected(tmp_path, mosquitto.port, "desired_trial_s = 1.0\n") as daemon:
        body = reported(asker, 2, "rejected")
        assert body["in_force_version"] == 1
        assert body["config"]["telemetry"]["system_s"] == 1.0
        assert json.loads(daemon.get("/v1/status")[1])["device"] == "dut"
        assert daemon.end() == 0


def test_a_daemon_that_dies_on_trial_comes_back_with_the_options_before(
    tmp_path: Path, mosquitto: Mosquitto, asker: Subscriber
) -> None:
    with connected(tmp_path, mosquitto.port) as daemon:
        desire(asker, 1, monitor={"tick_s": 60})
        reported(asker, 1, "on_trial")
        daemon.kill()
    with connected(tmp_path, mosquitto.port) as daemon:
        body = reported(asker, 1, "rolled_back")
        assert "without a farewell" in body["reason"]
        assert body["config"]["monitor"]["tick_s"] == 1.0
        assert daemon.wait_event("desired.rolled_back")["unharmed"]
        assert daemon.end() == 0
