"""A model comes by the cheapest allowed way: a delta against the running one, else whole; never silently dear."""

from __future__ import annotations

import hashlib
import shutil
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import zstandard

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.adapters.zstd_stream import CHUNK_BYTES, decompressed
from nis_edge.errors import UntrustedMetadataError
from nis_edge.fetching import FetchPolicy
from nis_edge.limits import KIB, MIB
from nis_edge.update.bitmap import Bitmap
from nis_edge.update.delta import DeltaHeader, Segment, encode_header, xored
from nis_edge.update.facts import DeltaFrom, SignedFacts, published_name
from nis_edge.update.plan import is_metered_route, plan
from tests.support.simulated_disk import SimulatedDisk
from tests.support.update_world import World, file_hash, golden_package, world


def delta_bytes(base: bytes, target: bytes) -> bytes:
    """A delta as the format's description says, made by the library itself."""
    common = min(len(base), len(target))
    parts = [Segment(common, 0)] + ([Segment(len(target) - common, None)] if len(target) > common else [])
    header = DeltaHeader(sha(base), len(base), sha(target), len(target), tuple(parts))
    payload = b"".join(xored(header, [target], lambda size, at: base[at : at + size]))
    return encode_header(header) + zstandard.ZstdCompressor(level=3).compress(payload)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def w(first_release: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(first_release, tmp_path, symlinks=True, dirs_exist_ok=True)
    with world(tmp_path) as made:
        yield made


def release_with_delta(w: World, *, damage: bool = False) -> tuple[Path, DeltaFrom]:
    """Offer 2.0.0 with a delta from 1.0.0."""
    base, package = w.tmp / "1.0.0.nis", golden_package(w.tmp / "2.0.0.nis", "2.0.0", 1)
    delta = delta_bytes(base.read_bytes(), package.read_bytes())
    if damage:
        delta = delta[:-40] + bytes(40)
    ref = DeltaFrom(base_sha256=file_hash(base), sha256=sha(delta), length=len(delta))
    path = w.publisher.add(package, "2.0.0", 2, deltas=(ref,))
    w.publisher.repository.offer("stable", path)
    w.publisher.publish()
    place = w.tmp / "web" / "targets" / published_name(path, ref.sha256, "delta")
    place.write_bytes(delta)
    return package, ref


def asked_for(w: World, name: str) -> bool:
    return any(name in path for path, _ in w.web.requests)


def with_policy(w: World, policy: FetchPolicy) -> None:
    w.device.policy = policy
    w.device.boot()


def test_a_delta_against_the_running_model_is_fetched_instead_of_the_whole(w: World) -> None:
    package, ref = release_with_delta(w)
    assert w.device.check(), w.device.error
    assert w.device.running == file_hash(package)
    assert asked_for(w, ref.sha256)
    assert not asked_for(w, file_hash(package))
    assert SlotStore(w.device.folder / "update")._disk.names(str(w.device.folder / "update" / "partial")) == []


def test_a_delta_that_fails_is_said_and_the_whole_follows_where_bytes_are_free(w: World) -> None:
    package, _ = release_with_delta(w, damage=True)
    assert w.device.check(), w.device.error
    assert w.device.running == file_hash(package)
    assert len(w.device.logged("delta.failed")) == 1


def test_case_30_a_delta_that_fails_on_a_metered_link_brings_no_silent_full_download(w: World) -> None:
    package, ref = release_with_delta(w, damage=True)
    with_policy(w, FetchPolicy(metered=lambda: True, metered_bytes_max=ref.length))
    before = w.device.running
    assert not w.device.check()
    assert w.device.running == before
    assert asked_for(w, ref.sha256)
    assert not asked_for(w, file_hash(package))
    assert "update.metered_mib_max" in w.device.error
    assert w.device.error.startswith("delta ")


def test_a_model_too_large_for_a_metered_link_waits_and_comes_over_another(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    metered = [True]
    with_policy(w, FetchPolicy(metered=lambda: metered[0], metered_bytes_max=1000))
    assert not w.device.check()
    assert "waits for another link" in w.device.error
    metered[0] = False
    assert w.device.check(), w.device.error


def test_a_delta_whose_hash_was_signed_but_that_gives_another_model_is_refused(w: World) -> None:
    package, ref = release_with_delta(w)
    place = w.tmp / "web" / "targets" / published_name("models/tiny/2.0.0.nis", ref.sha256, "delta")
    place.write_bytes(place.read_bytes()[:-1] + b"!")
    assert w.device.check(), w.device.error
    assert w.device.running == file_hash(package)
    assert "hash" in w.device.logged("delta.failed")[0]["reason"]


def facts(*lengths: int) -> SignedFacts:
    deltas = tuple(DeltaFrom(base_sha256="b" * 64, sha256=f"{n:064x}", length=n) for n in lengths)
    return SignedFacts(version="2", release_counter=2, hardware=("any",), deltas=deltas)


def test_the_cheapest_way_comes_first_and_a_delta_from_another_base_or_larger_than_the_whole_never() -> None:
    def kinds(base: str | None, *lengths: int) -> list[int]:
        found = plan(facts(*lengths), "c" * 64, 100, base, metered=False, metered_bytes_max=0)
        return [way.length for way in found.ways]

    assert kinds("b" * 64, 50, 10, 200) == [10, 50, 100]
    assert kinds("d" * 64, 50) == [100]
    assert kinds(None, 50) == [100]


def test_a_cellular_default_route_is_metered_and_no_route_is_unknown() -> None:
    head = "Iface\tDestination\tGateway\tFlags\n"
    assert is_metered_route(head + "eth0\t00000000\t0101A8C0\t0003\nwwan0\t0000000A\t0\t1\n") is False
    assert is_metered_route(head + "wwan0\t00000000\t0101A8C0\t0003\n") is True
    assert is_metered_route(head) is None


def test_a_delta_applies_in_bounded_memory_and_a_frame_that_wants_more_is_refused() -> None:
    data = bytes(64 * MIB)
    frame = zstandard.ZstdCompressor(level=1).compress(data)

    def pread(size: int, at: int) -> bytes:
        return frame[at : at + size]

    tracemalloc.start()
    sizes = [len(chunk) for chunk in decompressed(pread, 0)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (sum(sizes), max(sizes)) == (len(data), CHUNK_BYTES)
    assert peak < 2 * MIB, "the library's own window of at most 8 MiB comes on top"
    wide = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    greedy = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    frame = greedy.compress(bytes(32 * MIB)) + greedy.flush()
    with pytest.raises(UntrustedMetadataError, match="decompressed"):
        list(decompressed(pread, 0))


def test_a_map_of_another_shape_or_torn_holds_nothing_it_should_not() -> None:
    held = Bitmap(100 * KIB, 16 * KIB)
    for block in (0, 1, 6):
        held.add(block)
    assert held.held_bytes() == 36 * KIB
    assert held.gap(0) == (32 * KIB, 96 * KIB)
    assert held.gap(40 * KIB) == (40 * KIB, 96 * KIB)
    assert list(Bitmap(100 * KIB, 16 * KIB, held.encode()).missing()) == [2, 3, 4, 5]
    for other in (Bitmap(100 * KIB, 32 * KIB, held.encode()), Bitmap(99 * KIB, 16 * KIB, held.encode()),
                  Bitmap(100 * KIB, 16 * KIB, held.encode()[:-1])):  # fmt: skip
        assert other.held_bytes() == 0


def test_only_the_gaps_of_a_download_are_asked_for(w: World) -> None:
    from nis_edge.adapters.download import HttpSource

    data = bytes(range(256)) * 1000
    (w.tmp / "web" / "file").write_bytes(data)
    store = SlotStore("/state/update", SimulatedDisk())
    store.prepare()
    partial = store.begin(sha(data), len(data))
    partial.write_block(1, data[64 * KIB : 128 * KIB])
    HttpSource().fill(f"{w.web.url}/file", partial)
    assert [asked for path, asked in w.web.requests if path == "/file"] == ["bytes=0-65535", "bytes=131072-"]
    store.seal(partial)
    assert store.holds(sha(data))


def test_the_room_for_a_model_is_taken_before_its_first_byte_and_resumes_from_whole_blocks_after_a_cut() -> None:
    data = bytes(range(250)) * 4000
    disk = SimulatedDisk()
    store = SlotStore("/state/update", disk)
    store.prepare()
    partial = store.begin(sha(data), len(data))
    assert disk.size(partial.fd) == len(data)
    partial.write(data[:700_000])
    partial.flush()
    partial.write(data[700_000:900_000])
    after = SlotStore("/state/update", disk.after_cut("lost")).begin(sha(data), len(data))
    assert after.offset == 700_000 // (64 * KIB) * 64 * KIB
    assert after.resumed


def test_a_changed_etag_starts_over_and_mixes_nothing(w: World) -> None:
    from nis_edge.adapters.download import HttpSource
    from nis_edge.errors import DownloadInterruptedError
    from tests.support.web_folder import body

    data = bytes(range(256)) * 1000
    store = SlotStore("/state/update", SimulatedDisk())
    store.prepare()
    partial, source, url = store.begin(sha(data), len(data)), HttpSource(), f"{w.web.url}/file"

    def cut(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("ETag", '"a"')
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:1000])
        handler.close_connection = True
        return True

    w.web.faults["file"] = cut
    with pytest.raises(DownloadInterruptedError, match=r"broke off|ended"):
        source.fill(url, partial)
    span = f"bytes 1000-{len(data) - 1}/{len(data)}"
    w.web.faults["file"] = body(data[1000:], 206, {"ETag": '"b"', "Content-Range": span})
    with pytest.raises(DownloadInterruptedError, match="starting over"):
        source.fill(url, partial)
    assert partial.offset == 0


def test_a_download_keeps_to_its_rate(w: World) -> None:
    from nis_edge.adapters.download import HttpSource

    data = bytes(100_000)
    (w.tmp / "web" / "file").write_bytes(data)
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    store = SlotStore("/state/update", SimulatedDisk())
    store.prepare()
    source = HttpSource(lambda: now[0], rate_bytes_per_s=10_000, sleep=sleep)
    source.fill(f"{w.web.url}/file", store.begin(sha(data), len(data)))
    assert 9.9 < sum(waits) < 10.1


def test_bits_beyond_the_last_block_of_a_damaged_map_count_for_nothing() -> None:
    length, block = 100_000, 16_384  # seven blocks: one bit of the byte is over
    full = Bitmap(length, block)
    damaged = Bitmap(length, block, full.encode()[:-1] + b"\xff")
    assert damaged.held_bytes() == length
    assert damaged.encode()[-1] == 0x7F
