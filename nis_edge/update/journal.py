"""The update journal: what one record says and its 4 KiB of bytes.

The file holds two records. The one with generation g lies at offset (g mod 2) * 4096, so a write never touches the
newest good record: a torn write leaves the other one to be used. Pointer switch, tries and floors change together in
one record; there is no moment in which one has changed without the other.

Record, little-endian: magic 8 bytes, format u32, payload length u32, generation u64, CRC-32 u32 of everything else
in the record, then the payload (JSON of `Journal`) and zero padding up to 4096 bytes.

This module knows no file; `adapters.slot_store` writes and reads.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Annotated, Final, Literal

import msgspec

from nis_edge.limits import UPDATE_DENIED_MAX, UPDATE_KEYS_MAX, UPDATE_ROLES_MAX

RECORD_BYTES: Final = 4096
"""One record; the sector and page size below which storage tears a write (design: two 4 KiB records)."""

JOURNAL_BYTES: Final = 2 * RECORD_BYTES

DENIED_REASON_CHARS: Final = 80
"""A denial's reason in the journal, plain ASCII, so that the fullest journal still fits a record (a test fills it)."""

ROLE_NAME_CHARS_MAX: Final = 32
"""A delegated role with a longer name has no floor in the journal; ours are `models` and `rollout`."""

MAGIC: Final = b"NISJRNL\n"
FORMAT: Final = 1

_HEADER: Final = struct.Struct("<8sIIQI")
_CRC: Final = struct.Struct("<I")
_CRC_OFFSET: Final = _HEADER.size - _CRC.size

HEX64: Final = re.compile(r"[0-9a-f]{64}")
"""32 bytes in lower-case hex: a SHA-256 or an Ed25519 public key."""

Hex64 = Annotated[str, msgspec.Meta(pattern=rf"^{HEX64.pattern}\Z")]
Sha256 = Hex64
"""A file's SHA-256. It becomes a folder's name, so nothing else may pass."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._+-]{0,31}\Z")]
"""A model's version as its publisher wrote it; printed, logged and part of file names on the publisher's side."""
JournalState = Literal["IDLE", "TRIAL", "SELFTEST", "SHADOW", "PROBATION", "COMMITTED", "ROLLED_BACK"]


class ShadowTerms(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The signed bounds of a trial beside the running model (`facts.Shadow`), compact."""

    windows: Count
    seconds_max: float
    few_pass: bool
    agreement_min: float
    calibration_gap_max: float
    latency_ratio_max: float | None
    joules_ratio_max: float | None


class Terms(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The signed bounds of a trial (`facts.Bounds`), compact: a restart in the middle of it must still know them."""

    memory_bytes: float | None = None
    latency_ms_max: float | None = None
    tokens_per_s_min: float | None = None
    rss_bytes_max: float | None = None
    watts_max: float | None = None
    temperature_c_max: float | None = None
    shadow: ShadowTerms | None = None


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the store: its content and the signed counters it came with."""

    sha256: Sha256
    version: Version
    release_counter: Count
    security_epoch: Count = 0
    length: Count = 0
    golden_sha256: Sha256 | None = None
    """Signed hash of the package's golden list; the self-test must find it."""
    serial: Count = 0
    """Serial of the rollout that offered it: a failed model is offered again only under a newer one."""
    terms: Terms | None = None
    """Bounds of its trial; None once it is over."""


class RoleFloor(msgspec.Struct, frozen=True):
    """The newest version seen of one metadata role, and the keys (first 8 hex digits of their ids) that vouched for it.

    When one of these keys has left the trusted root the floor is void: that is how a stolen key's absurdly high version
    is healed (fast-forward recovery of the TUF specification, 5.3.11).
    """

    version: Count
    keys: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=8)], ...], msgspec.Meta(max_length=UPDATE_KEYS_MAX)
    ] = ()


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """What this device never goes below again, whatever the metadata cache has lost."""

    release_counter: Count = 0
    security_epoch: Count = 0
    time_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Seconds since the epoch that have certainly passed: from a synchronised clock or from signed metadata."""
    roles: dict[Annotated[str, msgspec.Meta(max_length=ROLE_NAME_CHARS_MAX)], RoleFloor] = {}


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """A model that failed here: refused until a rollout with a newer serial offers it again."""

    sha256: Sha256
    serial: Count
    reason: Annotated[str, msgspec.Meta(max_length=DENIED_REASON_CHARS)]


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about updates that must survive a power cut."""

    generation: Count = 0
    state: JournalState = "IDLE"
    active: Slot | None = None
    """The model in service; None: the factory model."""
    trial: Slot | None = None
    previous: Slot | None = None
    tries_left: Count = 0
    transitions: Count = 0
    floors: Floors = msgspec.field(default_factory=Floors)
    denied: Annotated[tuple[Denied, ...], msgspec.Meta(max_length=UPDATE_DENIED_MAX)] = ()

    def names(self) -> frozenset[str]:
        """The SHA-256 of every model the journal refers to; garbage collection spares these."""
        return frozenset(slot.sha256 for slot in (self.active, self.trial, self.previous) if slot is not None)

    def denial(self, sha256: str, serial: int) -> Denied | None:
        """Why the model `sha256` offered under rollout `serial` is refused, or None."""
        return next((entry for entry in self.denied if entry.sha256 == sha256 and serial <= entry.serial), None)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Journal)


def record_offset(generation: int) -> int:
    """Where in the file the record of `generation` lies."""
    return (generation % 2) * RECORD_BYTES


def encode_record(journal: Journal) -> bytes:
    """The 4096 bytes of one record.

    Raises:
        ValueError: the journal holds more than a record carries, or what no reader would accept; nothing was written
            yet. The machine keeps within these bounds, so this is a fault of ours.
    """
    if len(journal.floors.roles) > UPDATE_ROLES_MAX:
        raise ValueError(f"journal names {len(journal.floors.roles)} metadata roles; at most {UPDATE_ROLES_MAX} fit")
    payload = _ENCODER.encode(journal)
    if _HEADER.size + len(payload) > RECORD_BYTES:
        raise ValueError(f"journal payload of {len(payload)} bytes does not fit a record of {RECORD_BYTES}")
    record = bytearray(RECORD_BYTES)
    _HEADER.pack_into(record, 0, MAGIC, FORMAT, len(payload), journal.generation, 0)
    record[_HEADER.size : _HEADER.size + len(payload)] = payload
    _CRC.pack_into(record, _CRC_OFFSET, zlib.crc32(record))
    if decode_record(bytes(record)) != journal:
        raise ValueError("journal holds a value that its own reader refuses")
    return bytes(record)


def decode_record(record: bytes) -> Journal | None:
    """The journal in one record, or None when the record is blank, torn, damaged or of an unknown format."""
    if len(record) != RECORD_BYTES:
        return None
    magic, format_number, length, generation, crc = _HEADER.unpack_from(record)
    if magic != MAGIC or format_number != FORMAT or length > RECORD_BYTES - _HEADER.size:
        return None
    blank = bytearray(record)
    _CRC.pack_into(blank, _CRC_OFFSET, 0)
    if zlib.crc32(blank) != crc:
        return None
    try:
        journal = _DECODER.decode(record[_HEADER.size : _HEADER.size + length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return journal if journal.generation == generation else None


def newest(data: bytes) -> Journal | None:
    """The newest good record in a journal file's bytes, or None when neither is good."""
    records = (decode_record(data[start : start + RECORD_BYTES]) for start in (0, RECORD_BYTES))
    return max((journal for journal in records if journal is not None), key=lambda j: j.generation, default=None)
