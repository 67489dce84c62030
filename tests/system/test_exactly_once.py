"""The promise: whatever the broker suffers, each assessment arrives exactly once by (device, boot_id, seq).

NIS_EDGE_SOAK_SECONDS sets how long events flow (default 60); the broker is killed in the middle for a sixth of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.support.broker import Mosquitto, mosquitto
from tests.support.daemon import DaemonProcess, event
from tests.support.subscriber import Subscriber

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(300)]
__all__ = ["mosquitto"]

SECONDS = float(os.environ.get("NIS_EDGE_SOAK_SECONDS", "60"))
RATE = 20
OUTAGE_S = SECONDS / 6


def last_number(spool: Path) -> int:
    """The last number that the daemon gave, from its own file."""
    with contextlib.closing(sqlite3.connect(spool)) as db:
        return int(db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()[0])


def test_every_assessment_arrives_exactly_once_though_the_broker_is_killed_in_the_middle(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    subscriber = Subscriber(mosquitto.port, "nis/v1/test/dut/#")
    config = f'[mqtt]\nhost = "127.0.0.1"\nport = {mosquitto.port}\nreconnect_s_max = 2.0\n'
    with DaemonProcess(tmp_path, config).start() as daemon:
        daemon.wait(lambda: daemon.status()["broker"]["connected"], "the broker is connected")
        started = time.monotonic()
        killed = restarted = False
        for number in range(int(SECONDS * RATE)):
            at = started + number / RATE
            while (left := at - time.monotonic()) > 0:
                time.sleep(left)
            now = time.monotonic() - started
            if not killed and now >= (SECONDS - OUTAGE_S) / 2:
                mosquitto.kill()
                killed = True
            if not restarted and now >= (SECONDS + OUTAGE_S) / 2:
                assert not daemon.status()["broker"]["connected"]
                mosquitto.start()
                restarted = True
            assert daemon.post(json.dumps(event(number, f"agent-{number % 4}")).encode())[0] == 202
        assert restarted
        daemon.wait(lambda: daemon.status()["events"]["seen"] == int(SECONDS * RATE), "all events are judged")
        daemon.wait(lambda: daemon.status()["broker"]["connected"], "the broker is connected again")
        assert daemon.end() == 0
    own_count = last_number(tmp_path / "state" / "spool.db")
    # What the daemon wrote last may still wait on disk: the next run delivers it under the number it has.
    with DaemonProcess(tmp_path, config).start() as daemon:
        view = daemon.status()
        daemon.wait(lambda: daemon.status()["spool"]["on_disk"]["assessment"] <= 2, "the rest is delivered")
        assert sum(view["spool"]["dropped"].values()) == 0
        assert view["spool"]["parked"] == 0
        first_boot = daemon.events("daemon.started")[0]["boot_id"]
        subscriber.wait(
            lambda: {seq for boot, seq in subscriber.records() if boot == first_boot} == set(range(1, own_count + 1)),
            "exactly the numbers that the daemon gave have arrived",
        )
        assert daemon.end() == 0
    subscriber.close()
    numbered = subscriber.records()
    assessments = {key: json.loads(body) for key, body in subscriber.records("/assessment").items()}
    mine = [body for (boot, _), body in sorted(assessments.items()) if boot == first_boot]
    # Every event brought an assessment, so the last of each step counts them all, and no count goes back.
    seen = [body["events_seen"] for body in mine]
    assert seen == sorted(seen)
    assert seen[-1] == int(SECONDS * RATE)
    spread = [topic for topic, _, properties, _ in subscriber.messages if "seq" in properties]
    print(
        f"{int(SECONDS * RATE)} events, {len(mine)} assessments, {len(numbered)} records, "
        f"{len(spread) - len(numbered)} came twice and were dropped by (boot_id, seq), 0 missing"
    )
