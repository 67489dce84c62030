"""The spool: nothing committed is lost, the cap holds, drops are counted, damage is set aside."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nis_edge.adapters.spool import CLASSES, Class, Record, Spool, SpoolDamagedError
from nis_edge.errors import DeviceError
from nis_edge.limits import SPOOL_DAMAGED_KEPT_MAX, SPOOL_PARKED_MAX

ROOMY = 1 << 20


def record(kind: Class = "assessment", payload: bytes = b"{}", expires: float = 1e12) -> Record:
    return Record(kind, f"t/{kind}", "nis.test/1", payload, "b1", 1.0, expires)


def opened(path: Path, bytes_max: int = ROOMY) -> Spool:
    spool, complaint = Spool.open(path, bytes_max=bytes_max)
    assert complaint is None
    return spool


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_records_come_back_in_order_as_they_were_written(file: Path) -> None:
    spool = opened(file)
    kept = spool.commit([record(payload=b"1"), record("event", b"2")])
    assert [r.seq for r in kept] == [1, 2]
    assert spool.read(0, 10) == kept
    assert spool.read(1, 10) == kept[1:]
    assert spool.read(0, 1) == kept[:1]


def test_numbers_are_never_given_twice_even_after_everything_was_delivered(file: Path) -> None:
    spool = opened(file)
    spool.commit([record(), record()])
    spool.commit(delivered=[1, 2])
    spool.close()
    assert [r.seq for r in opened(file).commit([record()])] == [3]


def test_a_delivered_record_is_gone_and_an_undelivered_one_survives_reopening(file: Path) -> None:
    spool = opened(file)
    spool.commit([record(payload=b"gone"), record(payload=b"stays")])
    spool.commit(delivered=[1, 1, 99])
    spool.close()
    again = opened(file)
    assert [r.payload for r in again.read(0, 10)] == [b"stays"]
    assert again.counts().records == {"telemetry": 0, "assessment": 1, "event": 0}


def test_a_refused_record_is_parked_with_its_reason(file: Path) -> None:
    spool = opened(file)
    spool.commit([record(payload=b"bad")])
    spool.commit(refused=[(1, "not authorized"), (77, "unknown")])
    assert spool.read(0, 10) == []
    ((parked, reason),) = spool.parked()
    assert (parked.payload, parked.seq, reason) == (b"bad", 1, "not authorized")
    assert spool.counts().parked == 1


def test_parked_records_are_bounded(file: Path) -> None:
    spool = opened(file, 1 << 24)
    count = SPOOL_PARKED_MAX + 5
    spool.commit([record() for _ in range(count)])
    spool.commit(refused=[(seq, "no") for seq in range(1, count + 1)])
    assert spool.counts().parked == SPOOL_PARKED_MAX
    assert spool.parked()[0][0].seq == 6
    assert spool.counts().dropped["assessment"] == 5


def test_the_lowest_class_makes_room_first_and_every_drop_is_counted(file: Path) -> None:
    spool = opened(file, bytes_max=5 * (1000 + 256))
    body = b"x" * 1000
    spool.commit([record(kind, body) for kind in ("event", "telemetry", "assessment", "telemetry", "assessment")])
    spool.commit([record("assessment", body), record("event", body), record("event", body)])
    assert [r.kind for r in spool.read(0, 10)] == ["event", "assessment", "assessment", "event", "event"]
    assert spool.counts().dropped == {"telemetry": 2, "assessment": 1, "event": 0}


def test_a_record_of_the_lowest_class_never_pushes_out_a_higher_one(file: Path) -> None:
    spool = opened(file, bytes_max=2 * (1000 + 256))
    spool.commit([record("event", b"x" * 1000), record("event", b"x" * 1000)])
    assert spool.commit([record("telemetry", b"x")]) == []
    assert spool.counts().records["event"] == 2
    assert spool.counts().dropped == {"telemetry": 1, "assessment": 0, "event": 0}


def test_drop_counts_survive_a_restart(file: Path) -> None:
    spool = opened(file, bytes_max=300)
    for _ in range(3):
        spool.commit([record(payload=b"x")])
    spool.close()
    assert opened(file).counts().dropped["assessment"] == 2


def test_a_record_larger_than_the_whole_spool_is_dropped_alone(file: Path) -> None:
    spool = opened(file, bytes_max=1000)
    assert spool.commit([record("event", b"x" * 2000)]) == []
    assert spool.counts().dropped["event"] == 1


def test_what_is_past_its_time_is_dropped_and_counted(file: Path) -> None:
    spool = opened(file)
    spool.commit([record(expires=10.0), record("event", expires=11.0)])
    assert spool.expire(10.0) == 1
    assert [r.kind for r in spool.read(0, 9)] == ["event"]
    assert spool.counts().dropped["assessment"] == 1


def test_the_count_kept_in_memory_is_the_count_on_disk(file: Path) -> None:
    spool = opened(file, bytes_max=3000)
    for number in range(40):
        spool.commit([record(CLASSES[number % 3], b"x" * (number * 7 % 300))], delivered=[number // 2])
    held = spool.counts()
    spool.close()
    assert opened(file).counts() == held


def test_the_file_stays_near_its_cap(file: Path) -> None:
    spool = opened(file, bytes_max=ROOMY)
    for _ in range(60):
        spool.commit([record(payload=b"x" * 500) for _ in range(100)])
    assert file.stat().st_size < 1.3 * ROOMY


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """Files may not grow beyond so many bytes: what SQLite meets then is what a full disk gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_one_clear_error_and_changes_nothing(file: Path) -> None:
    spool = opened(file, 1 << 26)
    spool.commit([record(payload=b"before")])
    before = spool.counts()
    with full_disk(64 * 1024), pytest.raises(DeviceError, match="records already in it are safe"):
        spool.commit([record(payload=b"x" * 200_000)])
    assert spool.counts() == before
    assert [r.payload for r in spool.read(0, 9)] == [b"before"]
    assert [r.seq for r in spool.commit([record(payload=b"after")])] == [2]


@pytest.mark.parametrize("damage", ["zeros", "cut", "text", "page"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(file: Path, damage: str) -> None:
    spool = opened(file)
    spool.commit([record(payload=b"x" * 3000) for _ in range(50)])
    spool.close()
    raw = bytearray(file.read_bytes())
    if damage == "page":
        raw[4096:] = os.urandom(len(raw) - 4096)
    file.write_bytes({"zeros": b"\0" * 4096, "cut": raw[:5000], "text": b"not a database" * 99, "page": raw}[damage])
    again, complaint = Spool.open(file, bytes_max=ROOMY)
    assert complaint is not None
    assert "set aside as spool.db.damaged-1" in complaint
    assert file.with_name("spool.db.damaged-1").exists()
    assert len(again.commit([record()])) == 1


def test_a_foreign_database_is_set_aside(file: Path) -> None:
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE record (x)")
    other.close()
    assert "set aside" in (Spool.open(file, bytes_max=ROOMY)[1] or "")


def test_a_file_of_a_newer_version_is_set_aside_not_overwritten(file: Path) -> None:
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version = 7")
    other.close()
    assert "another version" in (Spool.open(file, bytes_max=ROOMY)[1] or "")


def test_damaged_files_are_kept_to_a_few(file: Path) -> None:
    for number in range(SPOOL_DAMAGED_KEPT_MAX + 2):
        file.write_bytes(b"garbage %d" % number * 100)
        Spool.open(file, bytes_max=ROOMY)[0].close()
        file.unlink()
    kept = sorted(p.name for p in file.parent.iterdir() if not p.name.endswith(("-wal", "-shm")))
    assert kept == [f"spool.db.damaged-{n}" for n in range(1, SPOOL_DAMAGED_KEPT_MAX + 1)]
    assert b"garbage 4" in file.with_name("spool.db.damaged-1").read_bytes()


def test_damage_met_while_running_is_told_apart_from_a_full_disk(file: Path) -> None:
    spool = opened(file, 1 << 24)
    spool.commit([record(payload=b"x" * 3000) for _ in range(2000)])  # more than SQLite's cache holds
    spool.close()
    spool = opened(file, 1 << 24)
    file.write_bytes(os.urandom(file.stat().st_size))
    with pytest.raises(SpoolDamagedError):
        spool.read(0, 2000)


def test_a_folder_that_cannot_be_written_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="can't be opened"):
        Spool.open(tmp_path / "none" / "spool.db", bytes_max=ROOMY)


def test_every_committed_record_survives_a_kill(file: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.unit.adapters.test_spool import opened, record\n"
        "spool = opened(Path(sys.argv[1]))\n"
        "while True:\n"
        "    print(spool.commit([record()])[0].seq, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    committed = [int(child.stdout.readline()) for _ in range(50)]
    child.kill()
    committed += [int(line) for line in child.stdout.read().splitlines()]
    child.wait()
    survivors = {r.seq for r in opened(file).read(0, 10**6)}
    assert set(committed) <= survivors


def test_a_failed_commit_does_not_change_the_counts_even_of_drops(file: Path) -> None:
    spool = opened(file, bytes_max=2000)
    spool.commit([record(payload=b"x" * 1500)])
    before = spool.counts()
    with pytest.raises(DeviceError):
        spool.commit([record(payload=b"y" * 1500), replace(record(), boot_id=None)])  # type: ignore[arg-type]
    assert spool.counts() == before


def test_an_event_makes_room_even_among_records_of_its_own_write(file: Path) -> None:
    spool = opened(file, bytes_max=4000)
    low, high = record(payload=b"x" * 1500), replace(record(payload=b"y" * 1500), kind="event")
    kept = spool.commit([low, low, high])
    assert [r.kind for r in spool.read(0, 9)] == [low.kind, "event"]
    assert len(kept) == 3
    assert spool.counts().dropped[low.kind] == 1


def test_what_was_lost_before_it_came_here_is_counted_and_remembered(file: Path) -> None:
    spool = opened(file)
    spool.commit([record()], lost={"telemetry": 7})
    spool.close()
    assert opened(file).counts().dropped["telemetry"] == 7


def test_reading_ahead_is_bounded_in_bytes(file: Path) -> None:
    spool = opened(file, bytes_max=1 << 24)
    spool.commit([record(payload=b"x" * (1 << 18)) for _ in range(8)])
    assert len(spool.read(0, 100)) == 4


def test_deleting_runs_of_delivered_records_keeps_the_counts(file: Path) -> None:
    spool = opened(file)
    spool.commit([record(payload=b"x" * n) for n in range(20)])
    spool.commit(delivered=[1, 2, 3, 7, 9, 10, 99])
    assert [r.seq for r in spool.read(0, 99)] == [4, 5, 6, 8, *range(11, 21)]
    held = spool.counts()
    spool.close()
    assert opened(file).counts() == held
