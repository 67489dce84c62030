"""The formats that publisher and device share: block lists, blocks, deltas, rollout documents, device reports."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import KIB
from nis_edge.update.blocks import (
    Block,
    BlockRequest,
    encode_block,
    encode_blocks,
    encode_request,
    read_block,
    read_blocks,
    read_request,
)
from nis_edge.update.delta import DeltaHeader, Segment, encode_header, read_header, xored
from nis_edge.update.facts import published_name
from nis_edge.update.report import Envelope, Report, open_report, signed_bytes
from nis_edge.update.rollout import (
    Rollout,
    Window,
    device_of,
    encode_rollout,
    override_path,
    read_rollout,
    start_delay_s,
    window_opens_in_s,
)

DATA = random.Random(1).randbytes(100 * KIB)
SHA = hashlib.sha256(DATA).hexdigest()
SIZE = 16 * KIB


def block_list() -> bytes:
    hashes = [hashlib.sha256(DATA[at : at + SIZE]).digest() for at in range(0, len(DATA), SIZE)]
    return encode_blocks(SHA, len(DATA), SIZE, hashes)


def test_a_block_list_tells_right_blocks_from_wrong_ones_also_the_short_last_one() -> None:
    blocks = read_blocks(block_list())
    assert (blocks.sha256, blocks.length, len(blocks.hashes)) == (SHA, len(DATA), 7)
    assert blocks.span(6) == (6 * SIZE, 4 * KIB)
    assert blocks.is_right(6, DATA[6 * SIZE :])
    assert not blocks.is_right(5, DATA[6 * SIZE :])
    assert not blocks.is_right(7, b"")
    assert not blocks.is_right(-1, DATA[6 * SIZE :])


def test_a_request_reads_back_and_answers_with_its_lowest_blocks() -> None:
    request = BlockRequest(SHA, SIZE, 8, 2, (0, 3, 17))
    assert read_request(encode_request(request)) == request
    assert request.indices == [8, 11]


def test_a_block_and_a_refusal_read_back() -> None:
    for block in (Block(SHA, SIZE, 3, b"x" * SIZE), Block(SHA, SIZE, None, b"", "no such file")):
        assert read_block(encode_block(block)) == block


HEADER = DeltaHeader("a" * 64, 100, "b" * 64, 50, (Segment(10, None), Segment(40, 60)))


def test_a_delta_header_reads_back_and_says_where_the_payload_begins() -> None:
    data = encode_header(HEADER)
    assert read_header(data + b"payload") == HEADER
    assert data[HEADER.encoded_bytes :] == b""


@given(st.data())
def test_xor_with_a_shifted_base_and_back_gives_the_target_for_any_chunking(draw: Any) -> None:
    base = draw.draw(st.binary(min_size=1, max_size=300))
    target = draw.draw(st.binary(min_size=1, max_size=300))
    cut = draw.draw(st.integers(0, min(len(target), len(base))))
    shift = draw.draw(st.integers(0, len(base) - cut))
    parts = (Segment(cut, shift), Segment(len(target) - cut, None))
    header = DeltaHeader("a" * 64, len(base), "b" * 64, len(target), tuple(s for s in parts if s.length))
    size = draw.draw(st.integers(1, 64))

    def read(length: int, at: int) -> bytes:
        return base[at : at + length]

    def chunked(data: bytes) -> list[bytes]:
        return [data[at : at + size] for at in range(0, len(data), size)]

    delta = b"".join(xored(header, chunked(target), read))
    assert b"".join(xored(header, chunked(delta), read)) == target
    half = len(target) // 2
    assert b"".join(xored(header, chunked(delta[half:]), read, half)) == target[half:]


def test_a_delta_that_gives_more_than_it_promised_or_outreaches_its_base_is_refused() -> None:
    with pytest.raises(UntrustedMetadataError, match="more than the 50 bytes"):
        list(xored(HEADER, [b"x" * 51], lambda length, _at: b"y" * length))
    with pytest.raises(UntrustedMetadataError, match="more of its base"):
        list(xored(HEADER, [b"x" * 50], lambda _length, _at: b""))
    for segments in ((Segment(50, 51),), (Segment(49, 0),), (Segment(51, None),), ()):
        with pytest.raises(UntrustedMetadataError):
            encode_header(DeltaHeader("a" * 64, 100, "b" * 64, 50, segments))


@pytest.mark.parametrize("reader", [read_blocks, read_request, read_block, read_header])
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_with_one_line(reader: Callable[[bytes], Any], data: bytes) -> None:
    for prefix in (b"", b"NISBLKS1", b"NISBREQ1", b"NISBLOK1", b"NISXORZ1"):
        try:
            reader(prefix + data)
        except UntrustedMetadataError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (block_list(), read_blocks),
        (encode_request(BlockRequest(SHA, SIZE, 8, 2, (0, 3, 17))), read_request),
        (encode_header(HEADER), read_header),
    ],
)
def test_a_format_cut_at_any_byte_of_its_head_is_refused(data: bytes, reader: Callable[[bytes], Any]) -> None:
    for end in range(min(len(data) - 3, 60)):
        with pytest.raises(UntrustedMetadataError):
            reader(data[:end])


ROLLOUT = Rollout(cohort="stable", serial=3, target="models/tiny/1.nis", sha256="a" * 64, length=9, open_bp=5000)


def test_case_13_a_document_that_speaks_to_one_device_is_read_only_as_that() -> None:
    mine = msgspec.structs.replace(ROLLOUT, device="dev-1")
    assert read_rollout(encode_rollout(mine), "other-cohort", "dev-1") == mine
    for cohort, device in (("stable", None), ("stable", "dev-2")):
        with pytest.raises(UntrustedMetadataError, match="speaks to"):
            read_rollout(encode_rollout(mine), cohort, device)
    with pytest.raises(UntrustedMetadataError, match="speaks to"):
        read_rollout(encode_rollout(ROLLOUT), "stable", "dev-1")
    assert override_path("dev-1") == "rollout/dev.dev-1.json"


def test_a_rollout_s_name_says_whether_it_is_one_device_s_own() -> None:
    assert [device_of(name) for name in ("stable", "dev-1", "dev.dev-1")] == [None, None, "dev-1"]


def test_a_document_its_reader_would_refuse_is_not_made() -> None:
    with pytest.raises(ValueError, match="open_bp"):
        encode_rollout(msgspec.structs.replace(ROLLOUT, open_bp=10_001))


def test_start_delays_are_even_over_the_spread_and_new_for_every_serial() -> None:
    spread = msgspec.structs.replace(ROLLOUT, spread_s=1000)
    delays = [start_delay_s(spread, f"dev-{n}") for n in range(2000)]
    assert all(0 <= delay < 1000 for delay in delays)
    tenths = [sum(100 * k <= delay < 100 * (k + 1) for delay in delays) for k in range(10)]
    assert all(140 < count < 260 for count in tenths), tenths
    assert start_delay_s(msgspec.structs.replace(spread, serial=4), "dev-1") != delays[1]
    assert start_delay_s(ROLLOUT, "dev-1") == 0


def test_a_window_over_midnight_opens_and_closes_in_utc_and_waits_for_a_believable_clock() -> None:
    window = Window(start_minute=23 * 60, minutes=120)
    midnight = 1_796_083_200.0 - 1_796_083_200.0 % 86400
    assert window_opens_in_s(window, midnight + 1800, trusted=True) == 0
    assert window_opens_in_s(window, midnight + 3600, trusted=True) == 22 * 3600
    assert window_opens_in_s(window, midnight - 3600, trusted=True) == 0
    assert window_opens_in_s(window, midnight, trusted=False) is None
    assert window_opens_in_s(msgspec.structs.replace(window, without_clock="go"), 0, trusted=False) == 0
    assert window_opens_in_s(None, 0, trusted=False) == 0


def test_companions_of_a_model_lie_beside_it_under_their_own_hash() -> None:
    assert published_name("models/tiny/1.2.nis", "c" * 64, "delta") == f"models/tiny/{'c' * 64}.1.2.delta"
    with pytest.raises(UntrustedMetadataError):
        published_name("models/../1.nis", "c" * 64)


def envelope(private: Ed25519PrivateKey, report: Report, **changes: Any) -> bytes:
    text = msgspec.json.encode(report).decode()
    sig = private.sign(signed_bytes(text)).hex()
    key = private.public_key().public_bytes_raw().hex()
    fields = {"device": report.device, "key": key, "report": text, "sig": sig, **changes}
    return msgspec.json.encode(Envelope(**fields))


def test_a_report_is_believed_only_under_the_key_of_its_device() -> None:
    private, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    report = Report(
        device="dev-1", cohort="stable", seq=1, at=1.0, clock_state="synced", state="IDLE",
        installed_version="1.0.0", agent_version="0.1.0", release_counter_floor=1,
    )  # fmt: skip
    good = envelope(private, report)
    key = json.loads(good)["key"]
    assert open_report(good, key) == (report, key)
    assert open_report(good) == (report, key)
    for forged in (
        envelope(stranger, report, key=key),
        envelope(private, report, device="dev-2"),
        good.replace(b"1.0.0", b"1.0.1"),
        good[:-2],
        b"x" * 10_000,
    ):
        with pytest.raises(UntrustedMetadataError):
            open_report(forged, key)
    with pytest.raises(UntrustedMetadataError, match="another key"):
        open_report(envelope(stranger, report), key)
