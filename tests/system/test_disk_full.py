"""A disk that is full: the agent lives, counts what it drops by class, publishes the count, and recovers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nis_edge.adapters.spool import COMMIT_BYTES_MAX, ROW_OVERHEAD_BYTES, Record, Spool
from nis_edge.errors import DeviceError
from tests.support.broker import Mosquitto, mosquitto
from tests.support.daemon import DaemonProcess, event
from tests.support.subscriber import Subscriber

pytestmark = pytest.mark.system
__all__ = ["mosquitto"]

PREFIX = "nis/v1/test/dut"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("NOT RUN: mounting a small tmpfs needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"NOT RUN: a tmpfs can't be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_what_the_broker_has_leaves_a_disk_that_the_spool_itself_filled_to_the_last_byte(small_disk: Path) -> None:
    spool, _ = Spool.open(small_disk / "spool.db", bytes_max=64 << 20)
    kept: list[int] = []
    with pytest.raises(DeviceError, match="full"):
        while True:
            batch = [Record("assessment", "t", "s/1", b"x" * 700, "b", 1.0, 1e12)] * 50
            kept += [record.seq for record in spool.commit(batch)]
    ballast = os.open(small_disk / "ballast", os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(ballast, b"y" * 4096):
            pass
    os.close(ballast)
    assert os.statvfs(small_disk).f_bavail == 0
    new = Record("event", "t", "s/1", b"z" * 300, "b", 1.0, 1e12)
    for _ in range(3):
        with contextlib.suppress(DeviceError):
            spool.commit([new], kept)
    counts = spool.counts()
    assert counts.records["assessment"] == 0, "every record that was delivered is gone"
    assert counts.records["event"] >= 1, "and a new one has its room"
    spool.close()


def test_a_disk_that_filled_twice_is_emptied_by_what_the_broker_takes(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    spool, _ = Spool.open(small_disk / "spool.db", bytes_max=64 << 20)
    waiting = [Record("assessment", "t", "s/1", os.urandom(1800), "b", 1.0, 1e12) for _ in range(1600)]
    rows = COMMIT_BYTES_MAX // (1800 + ROW_OVERHEAD_BYTES)
    kept: list[int] = []

    def fill() -> None:
        with contextlib.suppress(DeviceError):
            while waiting:
                kept.extend(record.seq for record in spool.commit(waiting[:rows]))
                del waiting[:rows]

    fill()
    ballast.unlink()
    fill()  # the log is full of what has no room in the file yet
    assert waiting and kept
    for _ in range(400):
        delivered = kept[:16]
        with contextlib.suppress(DeviceError):
            added = spool.commit(waiting[:rows], delivered)
            del waiting[: len(added)]
            kept = [*kept[16:], *(record.seq for record in added)]
    assert not waiting and not kept and spool.counts().records["assessment"] == 0
    spool.close()


def test_a_full_disk_costs_counted_records_of_low_classes_and_nothing_else(
    tmp_path: Path, small_disk: Path, mosquitto: Mosquitto
) -> None:
    seen = Subscriber(mosquitto.port, f"{PREFIX}/#")
    port = mosquitto.port
    mosquitto.stop()  # so that records stay
    config = (
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nreconnect_s_max = 1.0\n[telemetry]\nsystem_s = 1.0\n'
        "[spool]\nmemory_mib_max = 1\ncommit_ms = 50\n[monitor]\npace_s = 0.005\n"
    )
    with DaemonProcess(tmp_path / "d", config) as daemon:
        daemon.state = small_disk
        daemon.write_config(config)
        daemon.start()
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * (2 << 20))
        number = 0

        def feed() -> dict[str, Any]:
            nonlocal number
            lines = [json.dumps(event(number + n, f"agent-{n}-{'x' * 90}")) for n in range(40)]
            daemon.post("\n".join(lines).encode(), "application/x-ndjson")
            number += 40
            return dict(daemon.status()["spool"])

        daemon.wait(lambda: feed()["failing"] is not None, "the disk is full", 60)
        daemon.wait(lambda: sum(feed()["dropped"].values()) > 0, "something is dropped", 60)
        spool = feed()
        assert spool["failing"]
        assert spool["dropped"]["event"] == 0, "the highest class goes last"
        assert daemon.get("/healthz")[0] == 200
        assert daemon.wait_event("spool.failed")["unharmed"]
        ballast.unlink()
        daemon.wait_event("spool.recovered")
        mosquitto.start()
        dropped = daemon.status()["spool"]["dropped"]
        seen.wait(
            lambda: seen.json(f"{PREFIX}/state/system").get("spool", {}).get("dropped") == dropped,
            f"exactly these counts are published: {dropped}",
        )
        daemon.wait(lambda: sum(daemon.status()["spool"]["on_disk"].values()) < 5, "what was kept is delivered", 60)
        told = daemon.wait_event("spool.overflowed")
        assert set(told["dropped"]) <= {"telemetry", "assessment"}
        assert daemon.end() == 0
    seen.close()
