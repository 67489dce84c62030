"""A real mosquitto on a free port of its own, that a test may kill and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEADLINE_S = 20.0


def mosquitto_path() -> str | None:
    """Where mosquitto is; Debian puts it where ordinary users' PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Mosquitto:
    """One broker.

    Args:
        folder: for its files.
        settings: further lines of its configuration.
        users: name -> password; None lets everyone in.
    """

    def __init__(self, folder: Path, settings: str = "", users: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/",
                 "log_dest stdout", "autosave_interval 1", settings]  # fmt: skip
        if users is None:
            lines.append("allow_anonymous true")
        else:
            passwords = folder / "passwords"
            passwords.write_text("".join(f"{name}:{word}\n" for name, word in users.items()))
            subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, capture_output=True)
            passwords.chmod(0o644)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        # As root, mosquitto would step down to a user that can't read a test's folder.
        (folder / "mosquitto.conf").write_text("\n".join(["user root", *lines]) + "\n")

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        program = mosquitto_path()
        assert program is not None
        log = (self.folder / "mosquitto.log").open("ab")
        self._process = subprocess.Popen(
            [program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log, cwd=self.folder
        )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, f"mosquitto ended: {self.log()[-2000:]}"
            assert time.monotonic() < deadline, "mosquitto did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no farewell to anyone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it saves what it holds."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill and start again."""
        self.kill()
        self.start()

    def log(self) -> str:
        """What it printed."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(DEADLINE_S)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker that lets everyone in."""
    yield from running(tmp_path)


def running(folder: Path, settings: str = "", users: dict[str, str] | None = None) -> Iterator[Mosquitto]:
    """A started broker, ended afterwards; skips the test where mosquitto is missing."""
    if mosquitto_path() is None:
        pytest.skip("NOT RUN: mosquitto is not installed (sudo apt-get install -y mosquitto)")
    home = folder / "mosquitto"
    home.mkdir()
    broker = Mosquitto(home, settings, users)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
