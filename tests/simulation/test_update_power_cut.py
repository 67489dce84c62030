"""The power is cut during every call that changes the disk, and what was not flushed is lost, kept or torn.

The disk is `tests.support.simulated_disk` in the place of the operating system's; the rest is the real update loop,
boot decision, store and journal. After each cut the next start must run the old model or the new one, whole, and the
update must still come to its end.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.booting import Booted, boot_model
from nis_edge.errors import SlotWriteError
from nis_edge.lookout import Look
from nis_edge.selftest import Report
from nis_edge.update.machine import State
from nis_edge.update.offer import Target
from nis_edge.update.rollout import Rollout
from nis_edge.update_settings import Activation, UpdateSettings
from nis_edge.updating import UpdateLoop
from tests.support.clock import SteppedClock
from tests.support.simulated_disk import PowerCut, SimulatedDisk
from tests.support.update_world import DEVICE, passing_self_test


@pytest.fixture(autouse=True)
def no_real_flushes() -> Iterator[None]:
    """The disk here is simulated; what the loop keeps beside it needs no flush of a real one."""
    with mock.patch("os.fsync"):
        yield


OLD, NEW = b"old model " * 300, b"new model, longer " * 400
CHUNK = 2000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class MemorySource:
    """The network, without one."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def fill(self, _url: str, sink: Any, _should_stop: Any) -> None:
        for start in range(sink.offset, len(self.data), CHUNK):
            sink.write(self.data[start : start + CHUNK])


class OfferedLoop(UpdateLoop):
    """The update loop with its look at the repository replaced by a given offer."""

    offered: tuple[bytes, str, int] | None = None

    def _look_at_offer(self, bundle: bytes | None, folder: Path | None) -> Look:
        assert self.offered is not None
        data, version, counter = self.offered
        path = f"models/tiny/{version}.nis"
        facts = {"version": version, "release_counter": counter, "hardware": ["any"]}
        return Look(
            rollout=Rollout(cohort="stable", serial=1, target=path, sha256=sha(data), length=len(data)),
            target=Target(path=path, length=len(data), sha256=sha(data), custom=facts),
            source=MemorySource(data),
            where=path,
        )


class Bench:
    """A device on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, tmp: Path, self_test: Any = passing_self_test) -> None:
        self.disk, self.tmp, self.self_test = disk, tmp, self_test
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.store = SlotStore("/state/update", disk)
        self.served: list[str] = []

    def boot(self) -> Booted[str]:
        def load(path: Path) -> str:
            fd = int(path.name)
            return sha(self.disk.pread(fd, self.disk.size(fd), 0))

        booted = boot_model(self.store, load, None, lambda name, **fields: self.events.append((name, fields)))
        self.served.append(booted.model or "none")
        settings = UpdateSettings(folder=self.tmp, device=DEVICE, probation_s=0.0, tick_s=0.0)
        self.loop = OfferedLoop(
            settings,
            self.store,
            booted.update,
            on_activate=self._activate,
            log=lambda name, **fields: self.events.append((name, fields)),
            self_test=self.self_test,
            clock=SteppedClock(),
            clock_synced=lambda: True,
        )
        return booted

    async def _activate(self, activation: Activation) -> None:
        self.served.append(activation.slot.sha256 if activation.slot else "factory")

    def update_to(self, data: bytes, version: str, counter: int) -> None:
        self.loop.offered = (data, version, counter)

        async def go() -> None:
            await self.loop._take_up()
            await self.loop.check()

        asyncio.run(go())


def with_old_model(tmp: Path, **disk: Any) -> SimulatedDisk:
    """A disk on which the old model is installed and everything durable."""
    bench = Bench(SimulatedDisk(), tmp)
    bench.boot()
    bench.update_to(OLD, "1.0.0", 1)
    settled = bench.disk.after_cut("lost")
    assert Bench(settled, tmp).boot().model == sha(OLD)
    for name, value in disk.items():
        setattr(settled, name, value)
    settled.calls.clear()
    return settled


def calls_of_an_update(tmp: Path) -> list[str]:
    disk = with_old_model(tmp)
    bench = Bench(disk, tmp)
    bench.boot()
    bench.update_to(NEW, "2.0.0", 2)
    assert bench.served[-1] == sha(NEW)
    return list(disk.calls)


OUTCOMES = [("lost", 0), ("kept", 0), *(("torn", seed) for seed in range(4))]


@pytest.mark.parametrize(("mode", "seed"), OUTCOMES)
def test_case_32_a_power_cut_at_any_write_leaves_a_device_that_runs_the_old_or_the_new_model(
    tmp_path: Path, mode: str, seed: int
) -> None:
    calls = calls_of_an_update(tmp_path)
    assert {"pwrite", "flush", "rename", "flush_folder"} <= set(calls)
    for cut_at in range(1, len(calls) + 1):
        disk = with_old_model(tmp_path, cut_at=cut_at)
        bench = Bench(disk, tmp_path)
        with pytest.raises(PowerCut):
            bench.boot()
            bench.update_to(NEW, "2.0.0", 2)
            raise PowerCut
        survivor = Bench(disk.after_cut(mode, seed * 1000 + cut_at), tmp_path)
        booted = survivor.boot()
        where = f"cut at call {cut_at} ({calls[cut_at - 1]}), {mode} {seed}"
        assert booted.model in (sha(OLD), sha(NEW)), where
        floor = booted.update.journal.floors.release_counter
        assert floor in (1, 2), where
        if "slot.committed" in [name for name, _ in bench.events]:
            assert booted.model == sha(NEW), f"{where}: a committed model was lost"
        survivor.update_to(NEW, "2.0.0", 2)
        survivor.update_to(NEW, "2.0.0", 2)
        assert survivor.served[-1] == sha(NEW), f"{where}: the update never came to its end"
        assert survivor.loop.update.state is State.IDLE, where
        assert survivor.loop.update.journal.floors.release_counter == 2, where


@pytest.mark.parametrize("mode", ["lost", "kept", "torn"])
def test_a_power_cut_during_the_very_first_update_leaves_the_factory_model_or_the_new_one(
    tmp_path: Path, mode: str
) -> None:
    whole = Bench(SimulatedDisk(), tmp_path)
    whole.boot()
    whole.update_to(NEW, "2.0.0", 2)
    for cut_at in range(1, len(whole.disk.calls) + 1):
        disk = SimulatedDisk(cut_at=cut_at)
        bench = Bench(disk, tmp_path)
        with pytest.raises(PowerCut):
            bench.boot()
            bench.update_to(NEW, "2.0.0", 2)
            raise PowerCut
        survivor = Bench(disk.after_cut(mode, cut_at), tmp_path)
        assert survivor.boot().origin in ("none", "trial", "active")  # none: this device has no factory model
        survivor.update_to(NEW, "2.0.0", 2)
        assert survivor.served[-1] == sha(NEW)


def test_a_power_cut_while_a_trial_starts_under_probation_costs_a_try_and_ends_with_a_whole_model(
    tmp_path: Path,
) -> None:
    disk = on_probation(tmp_path)
    for cut_at in (1, 2):
        for mode in ("lost", "kept", "torn"):
            disk = on_probation(tmp_path, cut_at=cut_at)
            with pytest.raises(PowerCut):
                Bench(disk, tmp_path).boot()
            booted = Bench(disk.after_cut(mode, cut_at), tmp_path).boot()
            assert booted.model in (sha(OLD), sha(NEW))


def on_probation(tmp: Path, cut_at: int | None = None) -> SimulatedDisk:
    """A disk cut right after the journal said PROBATION."""
    calls = calls_of_an_update(tmp)
    for candidate in range(len(calls), 0, -1):
        disk = with_old_model(tmp, cut_at=candidate)
        bench = Bench(disk, tmp)
        with pytest.raises(PowerCut):
            bench.boot()
            bench.update_to(NEW, "2.0.0", 2)
        settled = disk.after_cut("lost")
        journal = SlotStore("/state/update", settled).read_journal()
        if journal is not None and journal.state == "PROBATION":
            settled.cut_at = cut_at
            return settled
    raise AssertionError("the journal never said PROBATION")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_case_34_35_a_failing_write_or_flush_at_any_call_never_commits_and_leaves_the_old_model_running(
    tmp_path: Path, code: int
) -> None:
    calls = calls_of_an_update(tmp_path)
    for fail_at in range(1, len(calls) + 1):
        disk = with_old_model(tmp_path, fail_at={fail_at: code})
        bench = Bench(disk, tmp_path)
        bench.boot()
        bench.update_to(NEW, "2.0.0", 2)
        where = f"{errno.errorcode[code]} at call {fail_at} ({calls[fail_at - 1]})"
        assert bench.served[-1] in (sha(OLD), sha(NEW)), where
        durable = Bench(disk.after_cut("lost"), tmp_path)
        assert durable.boot().model in (sha(OLD), sha(NEW)), where
        committed = "slot.committed" in [name for name, _ in bench.events]
        if committed:
            assert durable.served[-1] == sha(NEW), where
        else:
            assert any(name == "update.failed" for name, _ in bench.events), where
        disk.fail_at = {}
        again = Bench(disk, tmp_path)
        again.boot()
        again.update_to(NEW, "2.0.0", 2)
        again.update_to(NEW, "2.0.0", 2)
        assert again.served[-1] == sha(NEW), where


def test_case_34_a_download_without_room_is_refused_first_and_says_how_much_is_missing(
    tmp_path: Path,
) -> None:
    disk = with_old_model(tmp_path, capacity=40_000)
    bench = Bench(disk, tmp_path)
    bench.boot()
    bench.update_to(NEW, "2.0.0", 2)
    assert bench.served == [sha(OLD)]
    assert "no room for the update" in (bench.loop.status.error or "")
    assert "pwrite" not in disk.calls


def test_case_36_a_flipped_bit_in_the_active_model_falls_back_to_the_previous_one_and_the_model_comes_again(
    tmp_path: Path,
) -> None:
    disk = with_old_model(tmp_path)
    bench = Bench(disk, tmp_path)
    bench.boot()
    bench.update_to(NEW, "2.0.0", 2)
    disk.content(f"/state/update/store/{sha(NEW)}/model.nis")[100] ^= 1
    after = Bench(disk, tmp_path)
    booted = after.boot()
    assert (booted.model, booted.origin) == (sha(OLD), "previous")
    assert [name for name, _ in after.events] == ["slot.damaged"]
    after.update_to(NEW, "2.0.0", 2)
    assert after.served[-1] == sha(NEW)


def test_case_37_with_both_slots_bad_the_factory_model_runs(tmp_path: Path) -> None:
    disk = with_old_model(tmp_path)
    bench = Bench(disk, tmp_path)
    bench.boot()
    bench.update_to(NEW, "2.0.0", 2)
    for data in (OLD, NEW):
        disk.content(f"/state/update/store/{sha(data)}/model.nis")[0] ^= 255
    factory = tmp_path / "factory.nis"
    booted = boot_model(bench.store, lambda path: str(path), factory, lambda *_a, **_f: None)
    assert (booted.origin, booted.model) == ("factory", str(factory))
    assert booted.update.journal.active is None
    assert booted.update.journal.floors.release_counter == 2, "the floor outlives the models"


def test_case_16_a_model_swapped_between_verification_and_load_is_not_what_is_loaded(tmp_path: Path) -> None:
    store = SlotStore(tmp_path / "update")
    store.prepare()
    partial = store.begin(sha(NEW), len(NEW))
    partial.write(NEW)
    store.seal(partial)
    fd = store.open_verified(sha(NEW))
    assert fd is not None
    evil = tmp_path / "evil"
    evil.write_bytes(b"evil")
    evil.replace(tmp_path / "update" / "store" / sha(NEW) / "model.nis")
    assert Path(f"/proc/self/fd/{fd}").read_bytes() == NEW
    store.close(fd)
    assert store.open_verified(sha(NEW)) is None


def test_bytes_that_are_not_the_signed_ones_never_become_a_model(tmp_path: Path) -> None:
    store = SlotStore("/state/update", SimulatedDisk())
    store.prepare()
    partial = store.begin(sha(NEW), len(NEW))
    partial.write(NEW[:-1] + b"!")
    with pytest.raises(SlotWriteError, match="dropped"):
        store.seal(partial)
    assert not store.holds(sha(NEW))
    assert store.begin(sha(NEW), len(NEW)).offset == 0


def test_a_byte_that_the_medium_garbled_in_silence_is_found_before_the_model_gets_its_name(tmp_path: Path) -> None:
    disk = with_old_model(tmp_path, garbles=b"longer")
    bench = Bench(disk, tmp_path)
    bench.boot()
    bench.update_to(NEW, "2.0.0", 2)
    assert bench.served == [sha(OLD)]
    assert "the download was dropped" in (bench.loop.status.error or "")


def test_a_journal_of_which_no_record_is_readable_is_reported_and_the_factory_model_runs(tmp_path: Path) -> None:
    disk = with_old_model(tmp_path)
    journal = disk.content("/state/update/journal")
    journal[50] ^= 1
    journal[4096 + 50] ^= 1
    bench = Bench(disk, tmp_path)
    booted = bench.boot()
    assert booted.origin == "none"
    assert [name for name, _ in bench.events] == ["journal.damaged"]


async def failing(_fd: int, _golden: str | None) -> Report:
    return Report(passed=False, reason="golden entry 0: the logits are not the golden ones")


def test_case_39_a_model_that_fails_its_test_is_rolled_back_once_and_not_tried_again(tmp_path: Path) -> None:
    disk = with_old_model(tmp_path)
    bench = Bench(disk, tmp_path, self_test=failing)
    bench.boot()
    bench.update_to(NEW, "2.0.0", 2)
    bench.update_to(NEW, "2.0.0", 2)
    assert [name for name, _ in bench.events].count("slot.rolled_back") == 1
    assert bench.served == [sha(OLD)]
    assert "failed here before" in (bench.loop.status.detail or "")
    assert disk.names("/state/update/store") == [sha(OLD)]
