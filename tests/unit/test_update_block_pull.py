"""Blocks over the broker: asked for, checked one by one, asked for again; nobody is believed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest

from nis_edge.adapters.slot_store import Partial, SlotStore
from nis_edge.block_pull import SILENCES_MAX, WRONG_MAX, BlockPull
from nis_edge.errors import DownloadInterruptedError, DownloadStoppedError, UntrustedMetadataError
from nis_edge.limits import KIB
from nis_edge.update.blocks import Block, BlockRequest, encode_block, encode_blocks, read_request
from nis_edge.update.facts import BlockList
from nis_edge.update.plan import Way
from tests.support.simulated_disk import SimulatedDisk

SIZE = 16 * KIB
DATA = random.Random(2).randbytes(20 * SIZE + 100)
SHA = hashlib.sha256(DATA).hexdigest()
LIST = encode_blocks(
    SHA, len(DATA), SIZE, [hashlib.sha256(DATA[at : at + SIZE]).digest() for at in range(0, len(DATA), SIZE)]
)
LIST_SHA = hashlib.sha256(LIST).hexdigest()
WAY = Way("full", SHA, len(DATA), BlockList(sha256=LIST_SHA, length=len(LIST), block_bytes=SIZE))


class Broker:
    """A block server behind a broker that does to each answer what `mishap` says."""

    def __init__(self, mishap: Callable[[int, bytes], list[bytes]] = lambda _n, answer: [answer]) -> None:
        self.mishap = mishap
        self.requests: list[BlockRequest] = []
        self.sent = 0
        self.pull = BlockPull(self.receive, lambda: True, answer_s=0.005)
        self.files = {SHA: DATA, LIST_SHA: LIST}

    def receive(self, payload: bytes) -> None:
        request = read_request(payload)
        self.requests.append(request)
        data = self.files.get(request.sha256)
        if data is None:
            self.pull.arrive(encode_block(Block(request.sha256, request.block_bytes, None, b"", "no such file")))
            return
        for index in request.indices:
            at = index * request.block_bytes
            block = Block(request.sha256, request.block_bytes, index, data[at : at + request.block_bytes])
            self.sent += 1
            for answer in self.mishap(self.sent, encode_block(block)):
                self.pull.arrive(answer)

    def asked(self) -> list[int]:
        return [index for request in self.requests if request.sha256 == SHA for index in request.indices]


def begun() -> tuple[SlotStore, Partial]:
    store = SlotStore("/state/update", SimulatedDisk())
    store.prepare()
    return store, store.begin(SHA, len(DATA), SIZE)


def test_a_model_comes_over_the_broker_alone() -> None:
    broker, (store, sink) = Broker(), begun()
    broker.pull.fill(WAY, sink, lambda: False)
    store.seal(sink)
    assert store.holds(SHA)
    assert broker.asked() == list(range(21))
    assert all(len(request.indices) <= 8 for request in broker.requests)


@pytest.mark.parametrize(
    "mishap",
    [
        lambda n, answer: [] if n == 5 else [answer],
        lambda n, answer: [answer, answer],
        lambda n, answer: [answer[:-1] + bytes([answer[-1] ^ 1])] if n == 5 else [answer],
        lambda n, answer: [answer[:30], b"", b"x" * 500, answer],
        lambda n, answer: [encode_block(Block("f" * 64, SIZE, 3, b"another file")), answer],
    ],
    ids=["lost", "duplicated", "corrupted", "garbage between", "of another file"],
)
def test_case_29_a_lost_duplicate_or_corrupt_block_is_the_only_one_that_is_asked_for_again(
    mishap: Callable[[int, bytes], list[bytes]],
) -> None:
    broker, (store, sink) = Broker(mishap), begun()
    broker.pull.fill(WAY, sink, lambda: False)
    store.seal(sink)
    assert store.holds(SHA)
    again = [index for index in set(broker.asked()) if broker.asked().count(index) > 1]
    assert len(again) <= 1, "one mishap costs one block, asked for anew"
    assert set(broker.asked()) == set(range(21))


def test_a_pull_goes_on_with_what_it_has() -> None:
    broker, (_, sink) = Broker(), begun()
    sink.write_block(3, DATA[3 * SIZE : 4 * SIZE])
    broker.pull.fill(WAY, sink, lambda: False)
    assert 3 not in broker.asked()


def test_a_broker_where_nobody_serves_blocks_is_given_up_on() -> None:
    broker, (_, sink) = Broker(lambda _n, _answer: []), begun()
    with pytest.raises(DownloadInterruptedError, match="serve-blocks"):
        broker.pull.fill(WAY, sink, lambda: False)
    assert len(broker.requests) == SILENCES_MAX


def test_somebody_who_forges_every_block_is_given_up_on_and_nothing_of_it_is_kept() -> None:
    broker, (_, sink) = Broker(), begun()
    broker.pull._block_list(WAY.blocks, lambda: False)  # type: ignore[arg-type]
    broker.mishap = lambda _n, answer: [answer[:-1] + bytes([answer[-1] ^ 1])]
    with pytest.raises(DownloadInterruptedError, match=r"not what was signed|nobody serves"):
        broker.pull.fill(WAY, sink, lambda: False)
    assert len(list(sink.missing())) == 21
    assert broker.pull.wrong <= WRONG_MAX + 1


def test_a_forged_block_list_is_refused() -> None:
    broker, (_, sink) = Broker(), begun()
    broker.files[LIST_SHA] = LIST[:-1] + b"!"
    with pytest.raises(DownloadInterruptedError, match="not the signed one"):
        broker.pull.fill(WAY, sink, lambda: False)


def test_a_signed_list_of_another_file_is_refused() -> None:
    broker, (_, sink) = Broker(), begun()
    other = LIST[:24] + b"\x01" * 32 + LIST[56:]
    sha = hashlib.sha256(other).hexdigest()
    broker.files[sha] = other
    way = Way("full", SHA, len(DATA), BlockList(sha256=sha, length=len(other), block_bytes=SIZE))
    with pytest.raises(UntrustedMetadataError, match="another file"):
        broker.pull.fill(way, sink, lambda: False)


def test_a_server_that_does_not_have_the_file_says_so() -> None:
    broker, (_, sink) = Broker(), begun()
    del broker.files[SHA]
    with pytest.raises(DownloadInterruptedError, match="no such file"):
        broker.pull.fill(WAY, sink, lambda: False)


def test_a_stop_is_heeded_before_every_window() -> None:
    broker, (_, sink) = Broker(), begun()
    with pytest.raises(DownloadStoppedError):
        broker.pull.fill(WAY, sink, lambda: len(broker.asked()) >= 8)
    assert broker.asked() == list(range(8))


def test_a_flood_of_messages_is_dropped_at_the_queue() -> None:
    broker = Broker()
    for _ in range(10_000):
        broker.pull.arrive(b"x")
    assert broker.pull._inbox.qsize() <= 32
