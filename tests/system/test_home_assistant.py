"""Home Assistant, as a consumer of its shape sees us: every entity described and alive, every button obeyed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from nis_edge.power.easing import NAMES
from tests.support.broker import Mosquitto, mosquitto
from tests.support.daemon import DaemonProcess, event
from tests.support.home_assistant import HomeAssistant
from tests.support.power_trees import write_files, write_orin_nano
from tests.support.subscriber import Subscriber

pytestmark = pytest.mark.system
__all__ = ["mosquitto"]

PREFIX = "nis/v1/test/dut"
DESCRIPTION = "homeassistant/device/nis_dut/config"


def config(port: int, more: str = "") -> str:
    quick = "[telemetry]\nlatency_s = 1.0\npower_s = 1.0\nsystem_s = 1.0\n"
    return f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nreconnect_s_max = 1.0\nwill_delay_s = 0\n{more}{quick}'


def follow(seen: Subscriber, home: HomeAssistant) -> None:
    """Hand what arrived to the consumer, in order."""
    with seen._lock:
        messages, seen.messages = seen.messages, []
    for topic, payload, _, _ in messages:
        if payload:
            home.receive(topic, payload)


def test_every_entity_is_described_and_lives_and_every_command_is_understood(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    root = tmp_path / "root"
    watts = write_orin_nano(root)
    write_files(root / "sys/class/thermal/thermal_zone0", {"type": "cpu-thermal", "temp": 51234})
    write_files(root / "proc/device-tree", {"model": "NVIDIA Jetson Orin Nano"})
    seen = Subscriber(mosquitto.port, "#")
    with DaemonProcess(tmp_path / "d", config(mosquitto.port), environ={"NIS_EDGE_SYSROOT": str(root)}).start() as dut:
        seen.wait(lambda: seen.last(DESCRIPTION), "the description is there")
        home = HomeAssistant(DESCRIPTION, seen.last(DESCRIPTION) or b"")
        assert json.loads(seen.last(DESCRIPTION) or b"")["dev"]["mdl"] == "NVIDIA Jetson Orin Nano"
        call = {"v": 1, "agent": "worker", "kind": "tool_call", "tool": "read", "args_hash": "a", "text": "read"}
        for number in range(8):
            dut.post(json.dumps({**call, "id": f"c{number}"}).encode())

        def alive() -> bool:
            follow(seen, home)
            stateful = [e for e in home.entities.values() if "state_topic" in e.options]
            return (
                all(e.updates for e in stateful)
                and home.entities["verdict"].state == "degraded"
                and home.entities["power"].state is not None
                and home.entities["temperature"].state is not None
                and home.entities["events_seen"].state == 8
            )

        seen.wait(alive, f"every entity has a state: {[k for k, e in home.entities.items() if not e.updates]}")
        entities = home.entities
        assert home.available
        assert entities["power"].state == pytest.approx(watts, abs=0.01)
        assert entities["power"].attributes["grade"] == "B"
        assert entities["temperature"].state == pytest.approx(51.234)
        assert entities["problem"].state is True
        assert entities["findings"].state == 1
        assert entities["verdict"].attributes["findings"]
        assert entities["throttled"].state is None, "what this tree does not tell is unknown, not off"
        assert entities["log_level"].state == "info"
        assert entities["easing"].state == "full"
        assert entities["easing"].options["options"] == list(NAMES), "the words are those of power.easing"
        assert entities["model"].state["in_progress"] is False
        assert entities["model"].state["latest_version"] == entities["model"].state["installed_version"]

        for key, value in (
            ("assess_now", None),
            ("check_update", None),
            ("rollback", None),
            ("model", None),
            ("log_level", "warning"),
        ):
            topic, payload = home.command(key, value)
            seen.publish(topic, payload)
            result = f"{topic}/result"
            seen.wait(lambda r=result: any(a["state"] != "accepted" for a in seen.all(r)), f"{key} is answered")
            answer = seen.all(result)[-1]
            if key in ("assess_now", "log_level"):
                assert answer["state"] == "done", answer
            else:  # no repository is configured here: understood, and refused by the update loop with its reason
                assert answer["reason"], answer
                assert "argument" not in answer["reason"]
            with seen._lock:
                seen.messages = [m for m in seen.messages if m[0] != result]
        seen.wait(lambda: follow(seen, home) or entities["log_level"].state == "warning", "the select follows")

        # Home Assistant has started again and wants the description anew.
        with seen._lock:
            seen.messages = []
        seen.publish("homeassistant/status", b"online")
        seen.wait(lambda: seen.last(DESCRIPTION), "the description comes again")
        assert dut.end() == 0
        seen.wait(lambda: follow(seen, home) or home.available is False, "the end is seen")
    late = Subscriber(mosquitto.port, "#", "late")
    late.wait(lambda: late.last(DESCRIPTION), "who comes later finds the description")
    retained = {topic for topic, _, _, kept in late.messages if kept}
    assert home.topics() <= retained
    assert not any("/cmd/" in topic for topic in retained)
    late.close()
    seen.close()


def test_who_does_not_want_it_says_so(tmp_path: Path, mosquitto: Mosquitto) -> None:
    seen = Subscriber(mosquitto.port, "#")
    with DaemonProcess(tmp_path, config(mosquitto.port, "homeassistant = false\n")).start() as dut:
        dut.post(json.dumps(event(1)).encode())
        seen.wait(lambda: seen.last(f"{PREFIX}/state/system"), "states are published")
        assert seen.last(DESCRIPTION) is None
        dut.write_config(config(mosquitto.port))
        dut.send(signal.SIGHUP)
        seen.wait(lambda: seen.last(DESCRIPTION), "it is described after all")
        with seen._lock:
            seen.messages = []
        seen.publish("homeassistant/status", b"online")
        seen.wait(lambda: seen.last(DESCRIPTION), "and listens to Home Assistant")
        dut.write_config(config(mosquitto.port, "homeassistant = false\n"))
        dut.send(signal.SIGHUP)
        seen.wait(lambda: seen.last(DESCRIPTION) == b"", "the description is taken away")
        assert dut.end() == 0
    seen.close()
