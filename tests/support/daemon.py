"""A real daemon in a process of its own, with a configuration, a state folder and a local API of its own."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 30.0


class DaemonProcess:
    """`nis-edge run --config ...` as a test drives it.

    Args:
        folder: for its files.
        config: TOML beyond device.state and api.port, which are set here.
        words: further words of the command line.
        environ: further environment.
        file_bytes_max: no file of its may grow beyond this, as if the disk were full then.
    """

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *words: str,
        environ: dict[str, str] | None = None,
        file_bytes_max: int | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config_path = folder / "nis-edge.toml"
        self.log_path = folder / "log.jsonl"
        self.words = words
        self.environ = environ or {}
        self.file_bytes_max = file_bytes_max
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.write_config(config)

    def write_config(self, config: str) -> None:
        """Write the configuration, keeping state folder and port of this daemon."""
        lines = ["[device]", 'id = "dut"', 'site = "test"', f'state = "{self.state}"', "[api]", "port = 0", config]
        self.config_path.write_text("\n".join(lines) + "\n")

    def start(self, *, ready: bool = True) -> DaemonProcess:
        """Start, and wait until the local API answers."""
        (self.state / "api.json").unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nis_edge.cli", "run", "--config", str(self.config_path), *self.words],
                stderr=log,
                stdout=log,
                env={**os.environ, **self.environ},
            )
        if self.file_bytes_max is not None:
            self.limit_files(self.file_bytes_max)
        if ready:
            self.wait(lambda: self.get("/healthz")[0] == 200, "the local API answers")
        return self

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
        """Wait for a condition; the daemon must live meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                pass  # not yet
            assert self.process is not None
            assert self.process.poll() is None, (
                f"the daemon ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            )
            assert time.monotonic() < deadline, f"waited in vain until {what}:\n{self.log()[-4000:]}"
            time.sleep(0.02)

    def wait_event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Wait for a log event with these fields, and give it."""
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            found[:] = [e for e in self.events(name) if all(e.get(k) == v for k, v in fields.items())]
            return bool(found)

        self.wait(seen, f"the log has {name} {fields}")
        return found[-1]

    def get(self, path: str) -> tuple[int, bytes]:
        """GET from its API."""
        return self._request("GET", path)

    def post(self, body: bytes, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
        """POST events."""
        status, answer = self._request("POST", "/v1/events", body, {"Content-Type": kind})
        return status, json.loads(answer)

    def status(self) -> dict[str, Any]:
        """The overview."""
        view = json.loads(self.get("/v1/status")[1])
        assert isinstance(view, dict)
        return view

    def log(self) -> str:
        """Everything it printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Its log events."""
        parsed = [
            json.loads(line[3:]) for line in self.log().splitlines() if line.startswith("<") and line.endswith("}")
        ]
        return [event for event in parsed if name is None or event["event"] == name]

    def limit_files(self, size: int) -> None:
        """Let no file of the daemon grow beyond ``size`` bytes; -1 lifts the limit."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, -1))

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and give the exit code."""
        self.send(number)
        return self.wait_exit()

    def wait_exit(self) -> int:
        """Wait for its end and give the exit code."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert "Traceback" not in self.log(), self.log()[-4000:]

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        address = json.loads((self.state / "api.json").read_text())["address"]
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def event(number: int, agent: str = "worker", **more: Any) -> dict[str, Any]:
    """One ordinary agent event."""
    return {"v": 1, "id": f"{agent}-{number}", "agent": agent, "kind": "message", "text": f"step {number} done", **more}
