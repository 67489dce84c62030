"""Who starts when: documents for one device, start delays, maintenance windows, recalls, and carriers that disagree."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from nis_edge.block_pull import BlockPull
from nis_edge.limits import KIB
from nis_edge.update.blocks import Block, encode_block, encode_blocks, read_request
from nis_edge.update.divergence import METADATA_LAG_S, OFFER_LAG_S, Divergence
from nis_edge.update.facts import BlockList
from nis_edge.update.machine import State
from nis_edge.update.rollout import DAY_MINUTES, Window, start_delay_s
from tests.support.update_world import World, file_hash, golden_package, world


@pytest.fixture(scope="module")
def two_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device on 1.0.0; 2.0.0 is listed, offered to nobody."""
    folder = tmp_path_factory.mktemp("two_releases")
    with world(folder) as made:
        made.publisher.release("1.0.0", 1)
        assert made.device.check(), made.device.error
        made.publisher.add(golden_package(folder / "2.0.0.nis", "2.0.0", 1), "2.0.0", 2)
        made.publisher.publish()
    return folder


@pytest.fixture
def w(two_releases: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(two_releases, tmp_path, symlinks=True, dirs_exist_ok=True)
    with world(tmp_path) as made:
        yield made


# --- documents for one device -----------------------------------------------------------------------------------------


def test_a_document_for_this_device_goes_before_its_cohort_s(w: World) -> None:
    w.publisher.sign_document(w.publisher.document("2.0.0", 5, device="dev-1"))
    assert w.device.check(), w.device.error
    assert w.device.installed == "2.0.0"


def test_case_13_another_device_s_override_is_refused_wherever_it_is_put(w: World) -> None:
    other = w.publisher.document("2.0.0", 5, device="dev-2")
    w.publisher.sign_document(other)
    assert not w.device.check()
    assert (w.device.installed, w.device.error) == ("1.0.0", "")
    w.publisher.sign_document(other, name="rollout/dev.dev-1.json")
    assert not w.device.check()
    assert "speaks to 'dev-2'" in w.device.error
    w.publisher.sign_document(other, name="rollout/stable.json")
    assert not w.device.check()
    assert w.device.installed == "1.0.0"


def test_case_13_another_device_s_bundle_is_refused(w: World) -> None:
    w.publisher.sign_document(w.publisher.document("2.0.0", 5))
    bundle = msgspec.json.decode(w.publisher.bundle())
    assert not w.device.check(bundle=msgspec.json.encode({**bundle, "device": "dev-2"}))
    assert "for device 'dev-2'" in w.device.error
    assert w.device.check(bundle=msgspec.json.encode({**bundle, "device": "dev-1"})), w.device.error


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_device_waits_for_its_own_place_in_the_spread_and_then_starts(w: World) -> None:
    document = w.publisher.document("2.0.0", 5, spread_s=3600)
    w.publisher.sign_document(document)
    delay = start_delay_s(document, "dev-1")
    assert not w.device.check()
    assert "this device's turn is in" in (w.device.loop.status.detail or "")
    w.device.clock.advance(delay - 1)
    assert not w.device.check()
    w.device.clock.advance(2)
    assert w.device.check(), w.device.error


def test_an_operator_who_asks_does_not_wait_for_the_spread(w: World) -> None:
    w.publisher.sign_document(w.publisher.document("2.0.0", 5, spread_s=3600))
    assert asyncio.run(w.device.loop.check(at_once=True)), w.device.error


def test_no_device_starts_before_the_moment_the_document_names(w: World) -> None:
    w.publisher.sign_document(w.publisher.document("2.0.0", 5, not_before=w.device.clock.wall() + 100))
    assert not w.device.check()
    w.device.clock.advance(101)
    assert w.device.check(), w.device.error


def test_a_model_is_downloaded_at_once_and_tried_when_its_window_opens(w: World) -> None:
    minute = int(w.device.clock.wall() % 86400 // 60)
    window = Window(start_minute=(minute + 60) % DAY_MINUTES, minutes=30)
    w.publisher.sign_document(w.publisher.document("2.0.0", 5, window=window))
    assert not w.device.check()
    assert w.device.loop.update.state is State.IDLE
    assert "maintenance window opens in" in (w.device.loop.status.detail or "")
    asked = len([path for path, _ in w.web.requests if "2.0.0.nis" in path])
    w.device.clock.advance(3600)
    assert w.device.check(), w.device.error
    assert len([path for path, _ in w.web.requests if "2.0.0.nis" in path]) == asked, "nothing is fetched twice"


def test_without_a_believable_clock_a_window_waits_or_goes_as_its_document_says(w: World) -> None:
    w.device.synced = False
    window = Window(start_minute=0, minutes=1)
    w.publisher.sign_document(w.publisher.document("2.0.0", 5, window=window))
    assert not w.device.check()
    assert "needs a clock that can be believed" in (w.device.loop.status.detail or "")
    window = Window(start_minute=0, minutes=1, without_clock="go")
    w.publisher.sign_document(w.publisher.document("2.0.0", 6, window=window))
    assert w.device.check(), w.device.error


@pytest.mark.parametrize("years", [-56, 73])
def test_case_21_a_clock_that_jumps_in_the_middle_of_a_download_harms_nothing(w: World, years: int) -> None:
    w.publisher.sign_document(w.publisher.document("2.0.0", 5))
    before = w.device.clock.wall()

    def leap(_handler: object, _data: bytes) -> bool:
        w.device.clock.jump_wall(years * 365 * 86400.0)
        w.device.synced = False
        return False

    w.web.faults["2.0.0.nis"] = leap
    assert w.device.check(), w.device.error
    assert abs(w.device.clock.wall() - before) > 50 * 365 * 86400
    assert w.device.installed == "2.0.0"
    assert w.device.loop.update.journal.floors.time_s <= before, "a bogus clock is never written down"


# --- recalls ----------------------------------------------------------------------------------------------------------


def test_case_41_an_abort_that_is_published_during_the_download_ends_it(w: World) -> None:
    w.publisher.sign_document(w.publisher.document("2.0.0", 5))
    recall = w.publisher.document("2.0.0", 6, state="aborted")
    halted = threading.Event()

    def fault(_handler: object, _data: bytes) -> bool:
        w.publisher.sign_document(recall)
        w.device.loop.notice(w.publisher.bundle())
        return not halted.wait(20)  # the bytes come when the device has heard of the abort

    inner = w.device.loop._recalled

    async def recalled(bundle: bytes | None) -> str | None:
        try:
            return await inner(bundle)
        finally:
            halted.set()

    w.device.loop._recalled = recalled  # type: ignore[method-assign]
    w.web.faults["2.0.0.nis"] = fault
    assert not w.device.check()
    assert w.device.installed == "1.0.0"
    assert "no longer offered" in (w.device.loop.status.detail or ""), w.device.error
    assert w.device.logged("slot.written") == []


# --- the broker alone -------------------------------------------------------------------------------------------------


def serving(w: World, mishap: Callable[[bytes], list[bytes]] = lambda answer: [answer]) -> BlockPull:
    """A block server over everything published."""
    files = {path.name.split(".")[0]: path for path in (w.tmp / "web" / "targets").rglob("*") if path.is_file()}

    def publish(payload: bytes) -> None:
        request = read_request(payload)
        data = files[request.sha256].read_bytes()
        for index in request.indices:
            at = index * request.block_bytes
            block = Block(request.sha256, request.block_bytes, index, data[at : at + request.block_bytes])
            for answer in mishap(encode_block(block)):
                pull.arrive(answer)

    pull = BlockPull(publish, lambda: True, answer_s=0.005)
    return pull


def test_a_device_that_has_only_the_broker_is_updated_by_a_bundle_and_blocks(w: World) -> None:
    package = golden_package(w.tmp / "3.0.0.nis", "3.0.0", 2)
    data, size = package.read_bytes(), 16 * KIB
    hashes = [hashlib.sha256(data[at : at + size]).digest() for at in range(0, len(data), size)]
    blocks = encode_blocks(file_hash(package), len(data), size, hashes)
    sha = hashlib.sha256(blocks).hexdigest()
    signed = BlockList(sha256=sha, length=len(blocks), block_bytes=size)
    w.publisher.add(package, "3.0.0", 3, blocks=signed)
    w.publisher.sign_document(w.publisher.document("3.0.0", 5))
    (w.tmp / "web" / "targets" / "models" / "tiny" / f"{sha}.3.0.0.blocks").write_bytes(blocks)
    w.device.url, w.device.blocks = None, serving(w)
    w.device.boot()
    before = len(w.web.requests)
    assert w.device.check(bundle=w.publisher.bundle()), w.device.error
    assert w.device.running == file_hash(package)
    assert len(w.web.requests) == before


# --- two carriers -----------------------------------------------------------------------------------------------------


def test_a_carrier_that_lags_for_long_is_named_and_a_short_lag_is_not() -> None:
    two = Divergence()
    two.hear("broker", 5, 1, 0)
    assert two.verdict(1e9) is None, "one carrier alone can't differ"
    two.hear("server", 5, 2, 100)
    assert two.verdict(100 + OFFER_LAG_S) is None
    assert "broker still offers rollout 1" in (two.verdict(101 + OFFER_LAG_S) or "")
    two.hear("broker", 5, 2, 200)
    assert two.verdict(1e9) is None
    two.hear("broker", 9, 2, 300)
    assert two.verdict(300 + METADATA_LAG_S) is None
    assert "server brings old metadata" in (two.verdict(301 + METADATA_LAG_S) or "")


def test_a_server_that_lags_behind_the_broker_is_reported_once(w: World) -> None:
    saved = w.tmp / "saved"
    shutil.copytree(w.tmp / "web", saved)
    w.publisher.sign_document(w.publisher.document("2.0.0", 5))
    assert w.device.check(bundle=w.publisher.bundle()), w.device.error
    shutil.rmtree(w.tmp / "web")
    shutil.copytree(saved, w.tmp / "web")
    for _ in range(3):
        w.device.check()
        w.device.clock.advance(OFFER_LAG_S + 1)
    told = w.device.logged("carriers.diverged")
    assert len(told) == 1
    assert "server" in told[0]["reason"]
