"""Trial, probation and rollback on a whole device: failing models, restarts, the operator's hand."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nis_edge.booting import boot_model
from nis_edge.errors import ModelError
from nis_edge.limits import UPDATE_TRIES
from nis_edge.mailbox import Answer, Mailbox, Request
from nis_edge.selftest import Report
from nis_edge.update.machine import State
from nis_edge.update_settings import Activation
from tests.support.update_world import World, file_hash, subprocess_self_test, world


@pytest.fixture
def w(first_release: Path, tmp_path: Path) -> Iterator[World]:
    """A world whose device runs 1.0.0."""
    shutil.copytree(first_release, tmp_path, symlinks=True, dirs_exist_ok=True)
    with world(tmp_path) as made:
        yield made


def with_self_test(w: World, self_test: Any) -> None:
    w.device.self_test = self_test
    w.device.boot()


CRASH = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
HANG = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.mark.parametrize(
    ("command", "seconds", "wrong", "said"),
    [
        (None, 60.0, True, "not the recorded ones"),
        (CRASH, 60.0, False, "SIGSEGV"),
        (HANG, 0.2, False, "did not end"),
    ],
)
def test_case_39_a_bad_model_is_rolled_back_once_denied_and_its_bytes_removed(
    w: World, command: Any, seconds: float, wrong: bool, said: str
) -> None:
    with_self_test(w, subprocess_self_test(command, seconds) if command else subprocess_self_test())
    before = w.device.running
    package = w.publisher.release("2.0.0", 2, seed=1, wrong_golden=wrong)
    for _ in range(2):
        assert not w.device.check()
    assert w.device.running == before
    assert [f["reason"] for f in w.device.logged("slot.rolled_back")] != []
    assert len(w.device.logged("slot.rolled_back")) == 1
    assert said in w.device.logged("slot.rolled_back")[0]["reason"]
    assert w.device.installed == "1.0.0"
    assert not w.device.store.holds(file_hash(package))
    assert w.device.loop.update.journal.floors.release_counter == 1


def test_a_denied_model_is_tried_again_when_a_newer_rollout_offers_it(w: World) -> None:
    with_self_test(w, subprocess_self_test(CRASH))
    w.publisher.release("2.0.0", 2, seed=1)
    assert not w.device.check()
    with_self_test(w, subprocess_self_test())
    assert not w.device.check()
    w.publisher.repository.offer("stable", "models/tiny/2.0.0.nis")
    w.publisher.publish()
    assert w.device.check(), w.device.error
    assert w.device.installed == "2.0.0"


def test_a_model_that_cannot_be_put_in_service_is_rolled_back(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    served = []

    async def refuse(activation: Activation) -> None:
        assert activation.slot is not None
        served.append(activation.slot.version)
        if activation.slot.version == "2.0.0":
            raise ModelError("the daemon's engine does not like it")

    w.device.loop._on_activate = refuse
    assert not w.device.check()
    assert served == ["2.0.0", "1.0.0"]
    assert "does not like it" in w.device.error
    assert w.device.installed == "1.0.0"


def test_a_model_that_falls_ill_on_probation_is_replaced_by_the_old_one(w: World) -> None:
    old = w.device.running
    complaints = iter([None, None, "12 answers late in a row"])
    w.device.health, w.device.probation_s = lambda: next(complaints), 3600.0
    w.device.boot()
    package = w.publisher.release("2.0.0", 2, seed=1)
    assert not w.device.check()
    assert w.device.in_service[-2:] == [file_hash(package), old]
    assert "12 answers late" in w.device.error
    assert w.device.loop.update.journal.denial(file_hash(package), 2) is not None


def on_probation(w: World) -> str:
    """Bring 2.0.0 on probation, then stop the daemon."""
    package = w.publisher.release("2.0.0", 2, seed=1)
    w.device.probation_s = 3600.0
    w.device.boot()

    async def go() -> None:
        task = asyncio.ensure_future(w.device.loop.check())
        deadline = asyncio.get_running_loop().time() + 20
        while w.device.loop.update.state is not State.PROBATION or "activated" not in str(w.device.events):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)
        w.device.loop.stop()
        await task

    asyncio.run(go())
    return file_hash(package)


def test_a_restart_on_probation_loads_the_trial_and_watches_on(w: World) -> None:
    new = on_probation(w)
    assert w.device.boot().origin == "trial"
    assert w.device.running == new
    w.device.probation_s = 0.0
    w.device.boot()
    asyncio.run(w.device.loop._take_up())
    assert w.device.installed == "2.0.0"


def test_case_40_a_trial_that_crashes_the_daemon_is_left_after_its_tries(w: World) -> None:
    new, old = on_probation(w), w.device.in_service[0]
    starts = [w.device.boot().model for _ in range(UPDATE_TRIES + 1)]
    assert starts.count(new) == UPDATE_TRIES - 1, "the first of the tries was the switch itself"
    assert starts[-2:] == [old, old]
    assert w.device.logged("slot.rolled_back")[0]["reason"] == "no tries left after restarts"
    assert w.device.loop.update.state is State.IDLE


def test_a_trial_that_does_not_load_at_start_is_rolled_back_at_once(w: World) -> None:
    new = on_probation(w)

    def load(path: Path) -> str:
        if file_hash(path) == new:
            raise ModelError("wrong model for this engine")
        return file_hash(path)

    booted = boot_model(w.device.store, load, None, w.device.log)
    assert booted.origin == "active"
    assert booted.update.state is State.IDLE
    assert w.device.store.read_journal().trial is None  # type: ignore[union-attr]


def test_case_38_on_a_disk_that_cannot_be_written_the_trial_waits_and_the_active_model_runs(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    new, old = on_probation(w), w.device.in_service[0]

    def read_only(*_args: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(w.device.store._disk, "pwrite", read_only)
        booted = w.device.boot()
        assert (booted.model, booted.origin) == (old, "active")
        assert "read-only" in w.device.logged("update.failed")[0]["reason"]
    assert w.device.boot().model == new


def test_a_self_test_interrupted_by_a_restart_is_run_again(w: World) -> None:
    package = w.publisher.release("2.0.0", 2, seed=1)

    class Killed(BaseException):
        pass

    async def killed(_fd: int, _golden: str | None) -> Report:
        raise Killed

    with_self_test(w, killed)
    with pytest.raises(Killed):
        w.device.check()
    with_self_test(w, subprocess_self_test())
    assert w.device.loop.update.state is State.SELFTEST
    asyncio.run(w.device.loop._take_up())
    assert w.device.running == file_hash(package)
    assert w.device.installed == "2.0.0"


def ask(w: World, do: str, path: str | None = None) -> Answer:
    """Leave a request like the command does, let the loop run until it answers."""
    mailbox = Mailbox(w.device.folder / "update")
    mailbox.ask(Request(id="r1", do=do, path=path))  # type: ignore[arg-type]

    async def go() -> None:
        running = asyncio.ensure_future(w.device.loop.run())
        deadline = asyncio.get_running_loop().time() + 20
        while mailbox.read_answer("r1") is None:
            assert asyncio.get_running_loop().time() < deadline
            assert not running.done()
            await asyncio.sleep(0.005)
        w.device.loop.stop()
        await running

    asyncio.run(go())
    answer = mailbox.read_answer("r1")
    assert answer is not None
    return answer


def test_the_operator_returns_to_the_previous_model(w: World) -> None:
    old = w.device.running
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error
    w.device.url = None
    w.device.boot()
    assert ask(w, "rollback").ok
    assert w.device.running == old
    assert w.device.installed == "1.0.0"
    assert w.device.loop.update.journal.floors.release_counter == 2


def test_the_operator_ends_a_probation(w: World) -> None:
    old = w.device.in_service[0]
    on_probation(w)
    w.device.boot()
    answer = ask(w, "rollback")
    assert answer == Answer(id="r1", ok=True, text="2.0.0 is rolled back")
    assert w.device.running == old


def test_without_another_model_a_rollback_is_refused_with_words(tmp_path: Path) -> None:
    with world(tmp_path) as fresh:
        answer = ask(fresh, "rollback")
        assert (answer.ok, answer.text) == (False, "the factory model is in service; there is nothing to roll back")


def test_apply_is_answered_as_soon_as_the_model_is_on_probation(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.device.probation_s = 3600.0
    w.device.boot()
    answer = ask(w, "apply")
    assert answer.ok
    assert "on probation" in answer.text


@pytest.mark.parametrize("letter", [b"\xff not json", b"{}", b'{"id": "x", "do": "burn"}', b"[" * 9999])
def test_a_request_that_is_not_ours_is_dropped(tmp_path: Path, letter: bytes) -> None:
    (tmp_path / "request.json").write_bytes(letter)
    assert Mailbox(tmp_path).take_request() is None
    assert not (tmp_path / "request.json").exists()


def test_a_notice_wakes_the_loop_and_the_update_happens(w: World) -> None:
    package = w.publisher.release("2.0.0", 2, seed=1)
    bundle = w.publisher.bundle()

    async def go() -> None:
        running = asyncio.ensure_future(w.device.loop.run())
        w.device.loop.notice(b"an older one that is replaced", "mqtt")
        w.device.loop.notice(bundle, "mqtt")
        deadline = asyncio.get_running_loop().time() + 20
        while w.device.running != file_hash(package):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)
        w.device.loop.stop()
        await running

    asyncio.run(go())
    assert [f["source"] for f in w.device.logged("update.noticed")] == ["mqtt"]
    assert w.device.logged("update.refused") == []


def test_every_state_of_an_update_is_told(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.device.statuses.clear()
    assert w.device.check(), w.device.error
    told = list(dict.fromkeys(status.state for status in w.device.statuses))
    assert told == ["PLAN", "DOWNLOAD", "VERIFY", "STAGED", "TRIAL", "SELFTEST", "PROBATION", "COMMITTED", "IDLE"]
    assert w.device.statuses[-1].latest_version == "2.0.0"
    assert w.device.statuses[-1].in_progress is False


def test_case_25_a_target_that_stays_missing_is_given_up_after_bounded_tries_with_growing_pauses(w: World) -> None:
    from tests.support.web_folder import status

    package = w.publisher.release("2.0.0", 2, seed=1)
    w.web.faults[file_hash(package)] = status(404)
    assert not w.device.check()
    assert "HTTP status 404" in w.device.error
    assert len(w.device.waits) == 4
    assert all(wait <= 2.0**n for n, wait in enumerate(w.device.waits))
    assert w.device.loop.update.state is State.IDLE


def test_case_23_a_broken_download_goes_on_at_the_next_look(w: World) -> None:
    from tests.support.web_folder import cut_after

    package = w.publisher.release("2.0.0", 2, seed=1)
    w.web.faults[file_hash(package)] = cut_after(20_000, times=5)
    assert not w.device.check()
    assert w.device.check(), w.device.error
    ranges = [asked for path, asked in w.web.requests if file_hash(package) in path]
    # Between looks whole blocks (32 KiB, as its publisher signed) are kept; within one, every byte.
    assert ranges == ["", *(f"bytes={20_000 * n}-" for n in range(1, 5)), f"bytes={98_304}-"]
