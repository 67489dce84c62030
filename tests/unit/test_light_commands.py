"""`status` and `config check` say what they find; `status` and the daemon import no more than they need."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nis_edge.cli import main

HEAVY = ("asyncio", "numpy", "msgspec", "structlog", "paho", "h11", "psutil", "sqlite3", "rich", "tokenizers")


def test_status_imports_nothing_heavy() -> None:
    script = (
        "import sys; from nis_edge.cli import main; main(['status', '--address', 'http://127.0.0.1:9']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_daemon_imports_no_screen_and_leaves_the_name_to_those_who_want_one() -> None:
    script = "import sys, nis_edge.daemon; print([n for n in ('rich', 'pygments') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> str:
    status, body = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    request.addfinalizer(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("answering", [(200, b"\x1b]0;owned\x07HEALTHY\n")], indirect=True)
def test_what_answers_can_not_control_the_terminal(answering: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--address", answering]) == 0
    assert capsys.readouterr().out == "?]0;owned?HEALTHY\n"


@pytest.mark.parametrize("answering", [(401, b""), (500, b""), (200, b"\xff")], indirect=True)
def test_an_answer_that_is_none_is_one_line_and_code_1(answering: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--address", answering]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"nis-edge: no daemon answers at {answering}: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("address", ["ftp://x", "nonsense", "http://"])
def test_an_address_that_is_none_is_wrong_usage(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--address", address]) == 2
    assert "http://HOST:PORT" in capsys.readouterr().err


def test_a_sound_file_has_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[model]\nthreads = 2\n")
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: no fault\n"


def test_every_fault_is_printed_and_the_code_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[model]\nthread = 2\n[mqtt]\nport = 0\n")
    assert main(["config", "check", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{file}:2: unknown key 'thread' in [model]; did you mean 'threads'?"
    assert lines[1].startswith(f"{file}:4: mqtt.port")
    assert main(["config", "check", str(file), "--json"]) == 2
    assert [fault["line"] for fault in json.loads(capsys.readouterr().out)["faults"]] == [2, 4]


def test_a_time_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--for", "-3"]) == 2
    assert "--for -3" in capsys.readouterr().err
