"""The journal's bytes: the newest good record is used, nothing else passes for one."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.limits import UPDATE_DENIED_MAX, UPDATE_KEYS_MAX, UPDATE_ROLES_MAX
from nis_edge.update import journal as j
from nis_edge.update.journal import (
    Denied,
    Floors,
    Journal,
    RoleFloor,
    ShadowTerms,
    Slot,
    Terms,
    decode_record,
    encode_record,
    newest,
)

SLOT = Slot(sha256="a" * 64, version="1.0.0", release_counter=3)


def file_of(*journals: Journal) -> bytearray:
    data = bytearray(j.JOURNAL_BYTES)
    for journal in journals:
        start = j.record_offset(journal.generation)
        data[start : start + j.RECORD_BYTES] = encode_record(journal)
    return data


def test_a_record_reads_back_as_it_was_written() -> None:
    journal = Journal(generation=7, state="PROBATION", active=SLOT, trial=SLOT, tries_left=2)
    assert decode_record(encode_record(journal)) == journal


def test_the_newest_generation_is_used() -> None:
    old, new = Journal(generation=4), Journal(generation=5, active=SLOT)
    assert newest(bytes(file_of(old, new))) == new


def test_two_generations_in_a_row_never_share_a_place() -> None:
    assert all(j.record_offset(n) != j.record_offset(n + 1) for n in range(10))


@pytest.mark.parametrize("torn_at", [0, 1, 27, 28, 29, 200, 512, 2048, 4095])
def test_case_33_a_torn_newest_record_leaves_the_older_one_in_force(torn_at: int) -> None:
    old, new = Journal(generation=4, active=SLOT), Journal(generation=6, active=None, tries_left=1)
    data = bytearray(j.JOURNAL_BYTES)
    data[: j.RECORD_BYTES] = encode_record(new)[:torn_at] + encode_record(old)[torn_at:]
    data[j.RECORD_BYTES :] = encode_record(msgspec.structs.replace(old, generation=5))
    found = newest(bytes(data))
    assert found is not None
    assert found.generation in (5, 6)
    if found.generation == 6:
        assert found == new, "only a record that is whole may be taken for the new one"


@given(st.integers(0, j.RECORD_BYTES - 1), st.integers(1, 255))
def test_any_changed_byte_makes_a_record_unreadable(position: int, flip: int) -> None:
    record = bytearray(encode_record(Journal(generation=2, active=SLOT)))
    record[position] ^= flip
    assert decode_record(bytes(record)) is None


@given(st.binary(max_size=2 * j.JOURNAL_BYTES))
def test_arbitrary_bytes_are_no_journal(data: bytes) -> None:
    assert newest(data) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{",
        b'{"active": {"sha256": "../../etc/passwd", "version": "1", "release_counter": 1}}',
        b'{"active": {"sha256": "' + b"A" * 64 + b'", "version": "1", "release_counter": 1}}',
        b'{"active": {"sha256": "' + b"a" * 64 + b'", "version": "1\\n", "release_counter": 1}}',
        b'{"tries_left": -1}',
        b'{"state": "DOWNLOAD"}',
        b'{"floors": {"time_s": -5}}',
        b"\xff\xfe",
        b"[" * 2000,
    ],
)
def test_a_record_with_a_right_checksum_but_impossible_content_is_refused(payload: bytes) -> None:
    record = bytearray(j.RECORD_BYTES)
    j._HEADER.pack_into(record, 0, j.MAGIC, j.FORMAT, len(payload), 0, 0)
    record[j._HEADER.size : j._HEADER.size + len(payload)] = payload
    j._CRC.pack_into(record, j._CRC_OFFSET, zlib.crc32(record))
    assert decode_record(bytes(record)) is None


def test_a_record_of_a_later_format_is_left_alone() -> None:
    record = bytearray(encode_record(Journal(generation=2)))
    j._HEADER.pack_into(record, 0, j.MAGIC, j.FORMAT + 1, 2, 2, 0)
    j._CRC.pack_into(record, j._CRC_OFFSET, 0)
    j._CRC.pack_into(record, j._CRC_OFFSET, zlib.crc32(record))
    assert decode_record(bytes(record)) is None


def test_the_fullest_journal_fits_one_record() -> None:
    slot = Slot(
        sha256="f" * 64,
        version="9" * 32,
        release_counter=2**53,
        security_epoch=2**53,
        length=2**53,
        serial=2**53,
        golden_sha256="e" * 64,
    )
    shadow = ShadowTerms(
        windows=100_000, seconds_max=604_799.123, few_pass=False, agreement_min=0.123456, calibration_gap_max=0.123456,
        latency_ratio_max=123.456789, joules_ratio_max=123.456789,
    )  # fmt: skip
    terms = Terms(
        memory_bytes=2.0**53, latency_ms_max=12345.678, tokens_per_s_min=12345.678, rss_bytes_max=2.0**53,
        watts_max=12345.678, temperature_c_max=12345.678, shadow=shadow,
    )  # fmt: skip
    denied = Denied(sha256="f" * 64, serial=2**53, reason="x" * j.DENIED_REASON_CHARS)
    floor = RoleFloor(2**53, ("abcdef01",) * UPDATE_KEYS_MAX)
    full = Journal(
        generation=2**53,
        state="ROLLED_BACK",
        active=slot,
        trial=msgspec.structs.replace(slot, terms=terms),
        previous=slot,
        tries_left=3,
        transitions=28,
        floors=Floors(
            release_counter=2**53,
            security_epoch=2**53,
            time_s=4102444800.123456,
            roles={f"{n:032}": floor for n in range(UPDATE_ROLES_MAX)},
        ),
        denied=(denied,) * UPDATE_DENIED_MAX,
    )
    assert decode_record(encode_record(full)) == full


def test_more_roles_than_fit_are_refused_before_anything_is_written() -> None:
    roles = {f"role{n}": RoleFloor(1) for n in range(UPDATE_ROLES_MAX + 1)}
    with pytest.raises(ValueError, match="metadata roles"):
        encode_record(Journal(floors=Floors(roles=roles)))


def test_a_denial_ends_with_a_newer_serial() -> None:
    journal = Journal(denied=(Denied(sha256="a" * 64, serial=4, reason="crashed"),))
    assert journal.denial("a" * 64, 4) is not None
    assert journal.denial("a" * 64, 5) is None
    assert journal.denial("b" * 64, 1) is None
