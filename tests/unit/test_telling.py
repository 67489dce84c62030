"""What the daemon shows and publishes: latencies, messages, metrics, words; the unknown stays unknown."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nis_edge.config import SpoolOptions
from nis_edge.latency import Latencies
from nis_edge.limits import ASSESSMENTS_KEPT, FOLLOWER_ITEMS_MAX, LATENCIES_KEPT
from nis_edge.local_api import Feed
from nis_edge.overview_words import broker_words, model_words, power_words, status_lines, summary_line, update_words
from nis_edge.prometheus import exposition
from nis_edge.screen import LiveScreen, PlainScreen, RecentLines, make_screen, picture
from nis_edge.telemetry import STATE_EXPIRY_S, Identity, Telemetry
from nis_edge.wire.messages import Assessment, Finding
from nis_edge.wire.topics import Topics
from tests.support.clock import SteppedClock

CLASSES = ("telemetry", "assessment", "event")
FINDING: dict[str, Any] = {
    "label": "looping", "severity": "high", "agents": ["bob"], "text": "calls \x1b[31mread 4 times",
    "action": "interrupt", "source": "rule", "since": 1.0,
    "evidence": [{"id": "e1", "text": "bob tool call: read"}, {"id": "e2", "text": None}],
}  # fmt: skip


def view(**changed: Any) -> dict[str, Any]:
    nothing = {"p50_ms": None, "p90_ms": None, "p99_ms": None, "max_ms": None, "n": 0, "window_s": None}
    whole: dict[str, Any] = {
        "version": "1", "site": "s", "device": "d", "boot_id": "b", "uptime_s": 3.0, "api": "http://x", "verdict": None,
        "events": {"seen": 5, "refused": 1, "lost": 0, "waiting": 0, "assessments": 6, "steps": 7},
        "latency": {"assessment": nothing, "model": nothing},
        "model": {"name": None, "reason": "no package"},
        "power": {"watts": None, "source": None, "reason": "none found"},
        "device_readings": {"cpu_percent": 12.5, "temperature_c": {"reason": "no zone"}},
        "broker": {"configured": False, "host": None, "port": None, "connected": False, "sessions": 0, "window": None,
                   "reason": "no broker is configured"},
        "spool": {"on_disk": dict.fromkeys(CLASSES, 1), "bytes_on_disk": 10, "in_memory": 0, "delivered": 0,
                  "kept": dict.fromkeys(CLASSES, 0), "dropped": dict.fromkeys(CLASSES, 0), "last_seq": 3,
                  "parked": 0, "failing": None},
        "update": None,
        "loops": {"stalled": [], "restarts": {"link": 2}},
    }  # fmt: skip
    return {**whole, **changed}


def judged(status: str = "degraded") -> dict[str, Any]:
    return {"ts": 1.0, "status": status, "level": "basic", "level_reason": "device only", "action": "interrupt",
            "agents": {"bob": "degraded", "amy": "healthy"}, "findings": [FINDING], "model_reason": None}  # fmt: skip


def test_latency_percentiles_are_those_of_the_newest() -> None:
    latencies = Latencies()
    assert latencies.summary()["p99_ms"] is None
    for number in range(LATENCIES_KEPT + 100):
        latencies.add(float(number), number / 10)
    summary = latencies.summary()
    assert summary["n"] == LATENCIES_KEPT
    assert summary["max_ms"] == LATENCIES_KEPT + 99
    assert summary["p50_ms"] == 100 + LATENCIES_KEPT / 2 - 1


def test_the_99th_of_a_hundred_is_the_99th() -> None:
    latencies = Latencies()
    for number in range(1, 101):
        latencies.add(float(number), 0.0)
    summary = latencies.summary()
    assert (summary["p50_ms"], summary["p90_ms"], summary["p99_ms"]) == (50.0, 90.0, 99.0)


def test_a_record_carries_schema_boot_and_number_and_lives_as_long_as_its_class() -> None:
    telemetry = Telemetry(Identity(Topics("s", "d"), "b1"), SpoolOptions(telemetry_hours=1, event_hours=2))
    record = telemetry.stream("power", {"watts": None}, 100.0)
    assert (record.kind, record.topic, record.expires) == ("telemetry", "nis/v1/s/d/telemetry/power", 3700.0)
    message = telemetry.message(dataclasses.replace(record, seq=7), 700.0)
    assert message.properties[:3] == (("schema", "nis.power/1"), ("boot_id", "b1"), ("seq", "7"))
    (name, trace) = message.properties[3]
    assert name == "traceparent" and re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace)
    assert telemetry.message(dataclasses.replace(record, seq=7), 800.0).properties == message.properties
    assert telemetry.message(dataclasses.replace(record, seq=8), 700.0).properties[3] != message.properties[3]
    assert (message.qos, message.retain, message.expiry_s) == (1, False, 3000)
    finding = Finding(
        label="looping", severity="high", agents=("a",), evidence=(), source="rule", text="", action="", since=0
    )
    event = telemetry.finding(finding, "raised", 0.0)
    assert (event.kind, event.topic, event.expires) == ("event", "nis/v1/s/d/event/high", 7200.0)
    assert json.loads(event.payload)["change"] == "raised"


def test_birth_farewell_and_states_are_retained_and_states_expire() -> None:
    telemetry = Telemetry(Identity(Topics("s", "d"), "b1"), SpoolOptions())
    online, offline = telemetry.online(3, "nano 1"), telemetry.offline("stopped")
    assert online.topic == offline.topic == "nis/v1/s/d/status"
    assert online.retain and offline.retain and online.qos == offline.qos == 1
    assert json.loads(online.payload) == {
        "state": "online", "session": 3, "versions": {"nis_edge": "0.1.0", "model": "nano 1"}, "boot_id": "b1"
    }  # fmt: skip
    state = telemetry.state("power", "nis.power/1", b"{}")
    assert (state.qos, state.retain, state.expiry_s) == (0, True, STATE_EXPIRY_S)


def test_metrics_are_well_formed_and_the_unknown_has_no_line() -> None:
    verdict = judged()
    verdict["findings"] = [{**FINDING, "agents": ['a"\\\n']}, {**FINDING, "agents": ['a"\\\n']}]
    text = exposition(view(verdict=verdict), 1000)
    lines = text.splitlines()
    sample = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\.)*"(,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? -?[0-9.e+]+')
    names = [line.split(" ")[0] for line in lines if not line.startswith("#")]
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    assert len(names) == len(set(names)), "a sample stands twice"
    assert "nis_edge_power_watts" not in text
    assert 'name="temperature_c"' not in text
    assert 'nis_edge_finding{label="looping",severity="high",agents="a\\"\\\\\\n"} 1' in lines
    assert 'nis_edge_status{status="degraded"} 1' in lines


def test_a_prometheus_scrape_takes_every_metric_with_its_type_and_labels() -> None:
    verdict = judged()
    verdict["findings"] = [{**FINDING, "agents": ['a"\\\n']}]
    families = {f.name: f for f in text_string_to_metric_families(exposition(view(verdict=verdict), 1000))}
    assert families["nis_edge_status"].type == "gauge" and families["nis_edge_events"].type == "counter"
    (finding,) = families["nis_edge_finding"].samples
    assert finding.labels["agents"] == 'a"\\\n' and finding.value == 1.0
    assert {sample.labels["status"]: sample.value for sample in families["nis_edge_status"].samples}["degraded"] == 1.0


def test_before_the_first_verdict_the_status_is_unknown() -> None:
    assert 'nis_edge_status{status="unknown"} 1' in exposition(view(), 1)


def test_words_say_what_is_unknown_and_why() -> None:
    assert power_words(view()).startswith("unknown: this machine has no power sensor")
    broken = {"watts": None, "source": "x/rail", "reason": "i2c error"}
    assert power_words(view(power=broken)) == "unknown: x/rail: i2c error"
    assert model_words(view()) == "none: no package"
    assert broker_words(view()) == "none; 3 records kept locally"
    assert update_words(view()) == "off: the model is pinned by the configuration"
    assert "no verdict yet" in summary_line(view())


def test_the_status_shows_findings_with_evidence_and_nothing_that_controls_a_terminal() -> None:
    spool = {**view()["spool"], "failing": "disk \x07 full", "dropped": {"telemetry": 4}, "parked": 1}
    text = "\n".join(status_lines(view(verdict=judged(), spool=spool, loops={"stalled": ["engine"], "restarts": {}})))
    for expected in (
        "DEGRADED",
        "looping  high  bob",
        "[e1] bob tool call: read",
        "-> interrupt",
        "FAILING",
        "STALLED: engine",
    ):
        assert expected in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_slow_follower_misses_the_oldest_and_leaves_without_trace() -> None:
    async def scenario() -> None:
        feed = Feed("assessment")
        follower = feed.follow()
        assert await follower.__anext__() == b": follows\n\n"
        for number in range(FOLLOWER_ITEMS_MAX + 5):
            feed.add(b"%d" % number)
        assert await follower.__anext__() == b"event: assessment\ndata: 5\n\n"
        await follower.aclose()  # type: ignore[attr-defined]
        feed.add(b"x")
        assert not feed._followers

    asyncio.run(scenario())


def test_the_newest_assessments_are_kept_to_a_bound() -> None:
    feed = Feed("assessment")
    for number in range(ASSESSMENTS_KEPT + 9):
        feed.add(b"%d" % number)
    assert len(feed.newest(10**6)) == ASSESSMENTS_KEPT
    assert feed.newest(1) == [b"%d" % (ASSESSMENTS_KEPT + 8)]
    assert feed.newest(0) == []


def test_plain_lines_tell_what_changed_with_its_evidence() -> None:
    async def scenario() -> str:
        out = io.StringIO()
        screen = make_screen(SteppedClock(), out)
        assert isinstance(screen, PlainScreen)
        screen.assessed(assessment(("raised: looping (bob)",)))
        running = asyncio.ensure_future(screen.run(lambda: view(verdict=judged()), lambda: None))
        while "raised" not in out.getvalue():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})
        return out.getvalue()

    shown = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert "* raised: looping (bob)" in shown
    assert "[e1] bob tool call: read" in shown
    assert shown.splitlines()[-1].count("degraded") == 1
    assert "\x1b" not in shown


def assessment(changed: tuple[str, ...]) -> Assessment:
    return Assessment(
        ts=1.0, status="degraded", level=None, level_reason="", findings=(), metrics={}, agents={}, model=None,
        model_reason=None, changed=changed, action="none", events_seen=0,
    )  # fmt: skip


@pytest.mark.parametrize("verdict", [None, judged(), judged("critical")])
def test_the_live_screen_draws_everything_without_control_characters_of_others(verdict: Any) -> None:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=120, force_terminal=False)
    update = {"state": "DOWNLOAD", "installed_version": "1", "update_percentage": 40, "error": None}
    console.print(picture(view(verdict=verdict, update=update), ["12:00:00 warning inbox.overflowed"]))
    drawn = console.file.getvalue()
    for expected in (
        "findings",
        "power",
        "unknown",
        "download, installed 1, 40 %",
        "inbox.overflowed",
        "none: no package",
    ):
        assert expected in drawn
    assert "\x1b" not in drawn
    if verdict:
        assert "[e1] bob tool call: read" in drawn


def test_on_a_terminal_the_screen_is_live_and_keeps_the_log_aside() -> None:
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = make_screen(SteppedClock(), Terminal())
    assert isinstance(screen, LiveScreen)
    assert screen.log_lines is not None


def test_the_log_beside_a_screen_keeps_its_errors_for_the_end() -> None:
    lines = RecentLines()
    lines.write("12:00:00 error   loop.failed        reason=x\n")
    lines.write("12:00:00 info    daemon.started\n")
    assert lines.grave() == ["12:00:00 error   loop.failed        reason=x"]
