"""Nothing that was on disk is missing and nothing comes twice, whoever is killed: the sender, or the broker.

The whole form (``make test-spool-kill``): 1000 kills of the sending process and 200 outages of the link under 200
records a second. NIS_SPOOL_KILLS and NIS_SPOOL_OUTAGES set how many; the sampled form runs by default.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.broker import Mosquitto, mosquitto
from tests.support.cable import Cable
from tests.support.subscriber import Subscriber

KILLS = int(os.environ.get("NIS_SPOOL_KILLS", "12"))
OUTAGES = int(os.environ.get("NIS_SPOOL_OUTAGES", "4"))
RATE = 200
RECORDS_OF = "nis/v1/test/dut/assessment"

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(600 + 8 * (KILLS + OUTAGES))]
__all__ = ["mosquitto"]


class Sender:
    """The process with the real outbox, spool and courier; what it said was safe is remembered across its deaths."""

    def __init__(self, state: Path, port: int) -> None:
        self.state, self.port = state, port
        self.first = self.kept = 0
        self.safe: set[int] = set()
        self.process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self, rate: int = RATE) -> None:
        """Start, and wait until it has put something on disk."""
        self.first = self.kept = self.first + 1_000_000  # numbers of one life don't meet those of another
        words = [sys.executable, "-m", "tests.support.outbox_process", str(self.state), str(self.port), str(rate)]
        with (self.state / "log").open("ab") as log:
            self.process = subprocess.Popen([*words, str(self.first), "20"], stdout=subprocess.PIPE, stderr=log)
        self._reader = threading.Thread(target=self._read, args=(self.process,))
        self._reader.start()

    def wait_kept(self, more: int) -> None:
        """Wait until so many more records are safe."""
        goal, deadline = self.kept + more, time.monotonic() + 60
        while self.kept < goal:
            assert self.process is not None and self.process.poll() is None, (self.state / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the sender keeps nothing"
            time.sleep(0.002)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None and self._reader is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self._reader.join(30)
        self.safe |= set(range(self.first, self.kept))

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            # A line cut off by the kill has no end and is not believed.
            if line.startswith(b"KEPT ") and line.endswith(b"\n"):
                self.kept = int(line.split()[1])


def arrived(subscriber: Subscriber) -> list[int]:
    """The numbers that came, each (boot_id, seq) once."""
    return [json.loads(body)["n"] for body in subscriber.records("/assessment").values()]


def check(subscriber: Subscriber, sender: Sender, what: str) -> None:
    subscriber.wait(lambda: sender.safe <= set(arrived(subscriber)), "every safe record has arrived", 120)
    numbers = arrived(subscriber)
    twice = len(numbers) - len(set(numbers))
    copies = sum("seq" in properties for _, _, properties, _ in subscriber.messages) - len(numbers)
    print(f"{what}: {len(sender.safe)} safe records, 0 missing, {twice} twice, {copies} copies dropped by (boot, seq)")
    assert twice == 0


def test_no_safe_record_is_missing_or_twice_though_the_sender_is_killed(tmp_path: Path, mosquitto: Mosquitto) -> None:
    chance = random.Random(6)
    subscriber = Subscriber(mosquitto.port, RECORDS_OF)
    sender = Sender(tmp_path, mosquitto.port)
    for _ in range(KILLS):
        sender.start()
        sender.wait_kept(1)
        time.sleep(chance.uniform(0.0, 0.4))
        sender.kill()
    sender.start(rate=1)
    check(subscriber, sender, f"{KILLS} kills")
    sender.kill()
    subscriber.close()


def test_no_safe_record_is_missing_or_twice_though_the_broker_goes_away(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Every other outage ends the broker, which saves what it acknowledged; the rest cuts the cable under way."""
    chance = random.Random(7)
    subscriber = Subscriber(mosquitto.port, RECORDS_OF)
    cable = Cable(mosquitto.port)
    sender = Sender(tmp_path, cable.port)
    sender.start()
    for number in range(OUTAGES):
        sender.wait_kept(int(RATE * chance.uniform(0.2, 0.6)))
        if number % 2:
            mosquitto.stop()
            sender.wait_kept(int(RATE * chance.uniform(0.05, 0.3)))
            mosquitto.start()
        else:
            cable.cut()
            sender.wait_kept(int(RATE * chance.uniform(0.05, 0.3)))
            cable.mend()
    sender.wait_kept(RATE)
    sender.kill()
    sender.start(rate=1)
    check(subscriber, sender, f"{OUTAGES} outages")
    sender.kill()
    cable.close()
    subscriber.close()
