"""What a person sees: the page in a real Chromium, the live screen, the events as they come; each on a real daemon."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.daemon import DaemonProcess, event

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path / "dut", "[monitor]\nmetrics_s = 0.5").start() as running:
        yield running


def address(daemon: DaemonProcess) -> str:
    return str(json.loads((daemon.state / "api.json").read_text())["address"])


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nis_edge.cli", *words], capture_output=True, text=True, timeout=90)


def browse(folder: Path, url: str, *options: str) -> str:
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, profile, "--virtual-time-budget=9000", *options, url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def send_looping_agent(daemon: DaemonProcess) -> None:
    calls = []
    for number in range(12):
        call = event(number, kind="tool_call", tool="search", args_hash="a1", text=HOSTILE)
        result = {**event(number, kind="tool_result", tool="search", ok=True, text="nothing"), "id": f"r{number}"}
        calls += [call, result]
    assert daemon.post(json.dumps(calls).encode())[0] == 202
    daemon.wait(lambda: bool((daemon.status()["verdict"] or {}).get("findings")), "a finding is open")


@pytest.mark.skipif(CHROMIUM is None, reason="not run: chromium is missing (Debian: chromium)")
def test_the_page_shows_verdict_evidence_and_agents_and_words_of_agents_stay_words(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    send_looping_agent(daemon)
    url = f"{address(daemon)}/"
    page = browse(tmp_path, url, "--dump-dom")
    for shown in ('id="status">degraded', "looping · worker", "worker · degraded", "&lt;script&gt;", "temperature c"):
        assert shown in page, shown
    assert "<title>degraded · nis-edge</title>" in page and "onerror" not in page.replace("&lt;img src=x onerror", "")
    assert "no power sensor here can be read" in page or "scope" in page
    picture = tmp_path / "page.png"
    browse(tmp_path, url, f"--screenshot={picture}", "--window-size=1100,1400")
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1100, 1400)


def test_the_page_loads_nothing_from_elsewhere(daemon: DaemonProcess) -> None:
    for path in ("/", "/app.js", "/app.css", "/icon.svg"):
        status, body = daemon.get(path)
        assert status == 200
        text = body.decode().replace("http://www.w3.org/", "")  # names of XML, not addresses
        assert "http://" not in text and "https://" not in text and "//cdn" not in text


def test_top_draws_the_daemon_and_leaves_in_time(daemon: DaemonProcess) -> None:
    send_looping_agent(daemon)
    done = command("top", "--address", address(daemon), "--for", "1", "--every", "0.3")
    assert done.returncode == 0, done.stderr
    assert "DEGRADED" in done.stdout and "looping" in done.stdout and "\x1b" not in done.stdout


def test_events_are_followed_as_they_are_judged(daemon: DaemonProcess) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "nis_edge.cli", "events", "tail", "--address", address(daemon), "--count", "1",
         "--agent", "two"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    number = iter(range(10_000))

    def heard() -> bool:
        # Whoever follows hears what comes after: so both agents go on speaking until the follower has left.
        daemon.post(json.dumps([event(next(number), "one"), event(next(number), "two", text="a\x1b[2Jb")]).encode())
        return follower.poll() is not None

    daemon.wait(heard, "the follower has heard its agent")
    assert follower.stdout is not None
    (line,) = follower.stdout.read().splitlines()
    assert "two  message  a?[2Jb" in line and follower.returncode == 0


def test_traces_of_agents_are_judged_also_when_they_come_compressed(daemon: DaemonProcess) -> None:
    def span(number: int) -> dict:
        facts = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "s", "gen_ai.tool.call.arguments": "{}"}
        attributes = [{"key": key, "value": {"stringValue": value}} for key, value in facts.items()]
        return {"traceId": "t", "spanId": f"s{number}", "attributes": attributes}

    service = {"attributes": [{"key": "service.name", "value": {"stringValue": "otel-agent"}}]}
    spans = [*[span(number) for number in range(8)], {"attributes": span(0)["attributes"]}]
    request = {"resourceSpans": [{"resource": service, "scopeSpans": [{"spans": spans}]}]}
    connection = http.client.HTTPConnection(urlsplit(address(daemon)).netloc, timeout=10)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    connection.request("POST", "/v1/traces", gzip.compress(json.dumps(request).encode()), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["partialSuccess"]["rejectedSpans"] == 1
    daemon.wait(lambda: "otel-agent" in (daemon.status()["verdict"] or {}).get("agents", {}), "its agent is judged")
    assert daemon.status()["events"]["seen"] == 16
