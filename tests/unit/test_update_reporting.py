"""What a device remembers can't be changed unnoticed; what it reports is signed by its own key and by nothing else."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.adapters.audit_file import AuditFile
from nis_edge.adapters.device_key import DeviceKey
from nis_edge.cli import main
from nis_edge.errors import DeviceError
from nis_edge.reporting import Reporter
from nis_edge.update.audit import BrokenChainError, encode_entry, make_entry, verify
from nis_edge.update.report import Report, open_report
from tests.support.clock import SteppedClock
from tests.support.update_world import World, golden_package, world


def chain(count: int) -> list[bytes]:
    lines, before = [], None
    for n in range(count):
        before = make_entry(before, "slot.activated", {"sha256": "a" * 64, "n": n, "why": "ä \n \U0001f600"}, 1.5 * n)
        lines.append(encode_entry(before))
    return lines


def test_a_whole_chain_verifies_and_names_its_head() -> None:
    found = verify(chain(4))
    assert found is not None
    assert (found.first, found.last) == (1, 4)
    assert verify([]) is None


@given(at=st.integers(0, 3), position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_changed_byte_breaks_the_chain(at: int, position: int, flip: int) -> None:
    lines = chain(4)
    changed = bytearray(lines[at])
    changed[position % (len(changed) - 1)] ^= flip
    lines[at] = bytes(changed)
    with pytest.raises(BrokenChainError, match=rf"line {at + 1}|line {at + 2}"):
        verify(lines)


def test_a_line_that_was_removed_inserted_or_swapped_breaks_the_chain() -> None:
    lines = chain(4)
    foreign = encode_entry(make_entry(None, "slot.activated", {}, 0.0))
    for broken in ([lines[0], *lines[2:]], [lines[1], lines[0]], [*lines, foreign], [lines[0], lines[0]]):
        with pytest.raises(BrokenChainError):
            verify(broken)


def test_a_trail_goes_on_after_a_restart_a_torn_line_and_a_full_segment(tmp_path: Path) -> None:
    for _ in range(3):
        trail = AuditFile(tmp_path, bytes_max=1500)
        for n in range(5):
            trail.append("update.decided", {"n": n}, float(n))
        with (tmp_path / "audit.jsonl").open("ab") as file:
            file.write(b'{"n":99,"torn')
    trail = AuditFile(tmp_path, bytes_max=1500)
    trail.append("update.decided", {}, 0.0)
    found = verify(trail.lines())
    assert found is not None
    assert found.last == 16
    assert len(list(tmp_path.glob("audit.jsonl*"))) <= 4


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    first = DeviceKey(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert DeviceKey(path).public_hex == first.public_hex
    path.chmod(0o644)
    with pytest.raises(DeviceError, match="chmod 600"):
        DeviceKey(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(DeviceError, match="damaged"):
        DeviceKey(path)
    assert path.read_bytes() == b"short", "a key is never overwritten"


REPORT = Report(
    device="dev-1", cohort="stable", seq=1, at=0.0, clock_state="synced", state="IDLE",
    installed_version="1.0.0", agent_version="0.1.0", release_counter_floor=1,
)  # fmt: skip


def reporter(
    folder: Path, sent: list[bytes], clock: SteppedClock | None = None
) -> tuple[Reporter, list[tuple[str, dict[str, Any]]]]:
    logged: list[tuple[str, dict[str, Any]]] = []
    made = Reporter(folder, lambda name, **fields: logged.append((name, fields)), clock or SteppedClock(), sent.append)
    return made, logged


def test_reports_have_rising_numbers_also_over_a_restart_and_say_nothing_twice(tmp_path: Path) -> None:
    sent: list[bytes] = []
    for _ in range(2):
        told, _ = reporter(tmp_path, sent)
        told.note("updates.started")
        for state in ("IDLE", "IDLE", "PLAN", "DOWNLOAD"):
            told.report(msgspec.structs.replace(REPORT, state=state))
    key = DeviceKey(tmp_path / "device.key").public_hex
    reports = [open_report(data, key)[0] for data in sent]
    assert [r.state for r in reports] == ["IDLE", "PLAN", "DOWNLOAD"] * 2
    numbers = [r.seq for r in reports]
    assert numbers == sorted(set(numbers))
    assert all(r.audit_head is not None for r in reports)


def test_a_trail_or_key_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    sent: list[bytes] = []
    told, logged = reporter(tmp_path / "absent", sent)
    for _ in range(3):
        told.note("slot.activated", sha256="a" * 64)
        told.note("slot.committed", sha256="a" * 64)
        told.report(REPORT)
    assert [name for name, _ in logged].count("audit.failed") == 1
    assert [name for name, _ in logged].count("report.failed") == 1
    assert sent == []


def test_what_repeats_or_what_a_stranger_could_send_does_not_fill_the_trail(tmp_path: Path) -> None:
    clock = SteppedClock()
    told, _ = reporter(tmp_path, [], clock)
    for n in range(100):
        told.note("update.noticed", source="mqtt")
        told.note("update.refused", reason=f"forged: {n}", kind="UntrustedMetadataError")
        told.note("update.refused", reason=f"old: {n}", kind="RollbackRefusedError")
    assert len(list(AuditFile(tmp_path).lines())) == 2
    clock.advance(3600.0)
    told.note("update.refused", reason="forged: again", kind="UntrustedMetadataError")
    assert len(list(AuditFile(tmp_path).lines())) == 3


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def take_one_and_fail_the_next(w: World) -> None:
    """Version 1.0.0 is committed; 2.0.0 fails its self-test and is rolled back."""
    w.publisher.release("1.0.0", 1)
    assert w.device.check(), w.device.error
    w.publisher.release("2.0.0", 2, seed=1, wrong_golden=True)
    w.device.self_test = failing
    w.device.boot()
    w.device.check()


def test_an_update_reports_its_way_and_end_signed_and_leaves_a_whole_trail(
    w: World, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[bytes] = []
    w.device.reports = sent
    w.device.boot()
    take_one_and_fail_the_next(w)
    reports = [open_report(data)[0] for data in sent]
    ends = [(r.outcome, r.installed_version, r.serial) for r in reports if r.state in ("COMMITTED", "ROLLED_BACK")]
    assert ("committed", "1.0.0", 1) in ends
    assert reports[-1].outcome == "rolled_back"
    assert reports[-1].error_code == "TrialFailedError"
    assert reports[-1].clock_state == "synced"
    config = w.tmp / "edge.toml"
    config.write_text(f'[device]\nid = "dev-1"\nstate = "{w.device.folder}"\n')
    assert main(["update", "audit", "--config", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "slot.committed" in printed
    assert "slot.rolled_back" in printed
    trail = w.device.folder / "update" / "audit.jsonl"
    trail.write_bytes(trail.read_bytes().replace(b"slot.rolled_back", b"slot.committed!!"))
    assert main(["update", "audit", "--config", str(config)]) == 1
    assert "the trail is broken" in capsys.readouterr().err
    assert main(["update", "identity", "--config", str(config)]) == 0
    assert capsys.readouterr().out.strip() == open_report(sent[0])[1]
    shutil.rmtree(w.device.folder)


def test_an_outcome_stays_with_the_attempt_it_belongs_to(w: World) -> None:
    sent: list[bytes] = []
    w.device.reports = sent
    take_one_and_fail_the_next(w)

    def newest() -> tuple[str, int | None]:
        report = open_report(sent[-1])[0]
        return report.outcome, report.serial

    assert newest() == ("rolled_back", 2)
    assert not w.device.check(bundle=b"a stranger's")
    assert newest() == ("rolled_back", 2), "a look that failed takes nothing back"
    w.device.boot()
    w.device.check()
    assert newest() == ("rolled_back", 2), "nor does a restart"
    package = golden_package(w.tmp / "3.nis", "3.0.0", 2)
    w.publisher.add(package, "3.0.0", 3)
    w.publisher.sign_document(w.publisher.document("3.0.0", 3, state="paused"))
    assert not w.device.check()
    assert newest() == ("none", 3), "the fixed release has not been tried by anyone"


async def failing(_fd: int, _golden: str | None) -> Any:
    from nis_edge.selftest import Report as SelfTestReport

    return SelfTestReport(passed=False, reason="golden entry 0: the logits are not the golden ones")
