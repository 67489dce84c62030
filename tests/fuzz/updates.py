"""Drive damaged inputs through every parser of updates: `python -m tests.fuzz.updates --cases 20000 --seed 7`.

Every case is read, or refused with one clear line of our own errors (the journal, the download map and the audit trail:
with None); anything else stops the run with the case's name and its bytes. One case is (kind, seed): the same two give
the same bytes. A change hits one value of the parsed structure, after which checksums, hashes and signatures are made
right again so that it reaches the checks behind them, or it hits the bytes as a bad carrier would. The process is held
to an address space of 2 GiB and each case to 10 s of CPU time.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import resource
import signal
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nis_edge.adapters.zstd_stream import decompressed
from nis_edge.errors import NisEdgeError, UntrustedMetadataError
from nis_edge.update import audit, blocks, delta, journal
from nis_edge.update.bitmap import Bitmap
from nis_edge.update.bundle import Bundle, decode_bundle, encode_bundle
from nis_edge.update.facts import SignedFacts, encode_facts, read_facts
from nis_edge.update.report import Envelope, Report, open_report, signed_bytes
from nis_edge.update.rollout import Rollout, Window, encode_rollout, read_rollout
from tests.fuzz.mutations import NUMBERS, change_json, damage

ADDRESS_SPACE_BYTES = 2 << 30
CPU_SECONDS = 10
MESSAGE_CHARS = 1000

A, B = "a" * 64, "b" * 64
KEY = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
"""A device's key that an attacker holds: a right signature over wrong content must be refused as well."""


class Endless(BaseException):
    """A case used up its CPU time."""


# --- valid inputs -----------------------------------------------------------------------------------------------------


@functools.cache
def bundle() -> bytes:
    files = dict.fromkeys(("timestamp.json", "2.snapshot.json", "3.models.json"), '{"signed": {}, "signatures": []}')
    return encode_bundle(Bundle(cohort="stable", files={**files, f"rollout/{A}.stable.json": "{}"}))


@functools.cache
def rollout() -> bytes:
    return encode_rollout(
        Rollout(
            cohort="stable",
            serial=7,
            target="models/tiny/1.0.0.nis",
            sha256=A,
            length=600_000_000,
            spread_s=3600,
            not_before=1_800_000_000.0,
            window=Window(start_minute=60, minutes=120),
        )
    )


@functools.cache
def report() -> Report:
    return Report(
        device="dev-1",
        cohort="stable",
        seq=70_000,
        at=1_800_000_000.5,
        clock_state="synced",
        state="DOWNLOAD",
        installed_version="1.0.0",
        installed_sha256=A,
        offered_version="2.0.0",
        offered_sha256=B,
        bytes_done=5,
        bytes_total=10,
        agent_version="0.1.0",
        release_counter_floor=3,
        audit_head=A,
    )


@functools.cache
def journal_bytes() -> bytes:
    slot = journal.Slot(sha256=A, version="1.0.0", release_counter=1, length=10)
    floors = journal.Floors(release_counter=1, time_s=1.8e9, roles={"root": journal.RoleFloor(1, ("ab" * 4,))})
    denied = (journal.Denied(sha256=B, serial=3, reason="golden entry 0"),)
    older = journal.Journal(generation=6, active=slot, floors=floors, denied=denied)
    trial = msgspec.structs.replace(slot, sha256=B, version="2.0.0")
    newer = msgspec.structs.replace(older, generation=7, state="TRIAL", trial=trial, tries_left=3)
    return journal.encode_record(older) + journal.encode_record(newer)


@functools.cache
def block_list() -> bytes:
    content = b"model" * 20_000
    parts = [content[at : at + 16384] for at in range(0, len(content), 16384)]
    hashes = [hashlib.sha256(part).digest() for part in parts]
    return blocks.encode_blocks(hashlib.sha256(content).hexdigest(), len(content), 16384, hashes)


def delta_bytes() -> bytes:
    segments = (delta.Segment(500, None), delta.Segment(3000, 100), delta.Segment(596, 3400))
    return delta.encode_header(delta.DeltaHeader(A, 4096, B, 4096, segments)) + bytes(4096)


# --- kinds ------------------------------------------------------------------------------------------------------------


def _json_case(valid: Callable[[], bytes], random: Random) -> bytes:
    if random.randrange(3) == 0:
        return damage(valid(), random)
    return _dumped(change_json(json.loads(valid()), random))


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


def _packed_case(valid: bytes, fields: struct.Struct, random: Random) -> bytes:
    """Damage, or one number of the header set to an extreme, or a cut, or a tail."""
    raw = bytearray(valid)
    match random.randrange(4):
        case 0:
            return damage(valid, random)
        case 1:
            return valid[: random.randrange(len(valid) + 1)]
        case 2:
            return valid + random.randbytes(random.choice((1, 32, 4096)))
    at = random.randrange(8, max(9, fields.size - 4))
    width = random.choice((4, 8))
    value = random.choice((*NUMBERS, 2**63, 2**64 - 1)) % 2 ** (8 * width)
    raw[at : at + width] = value.to_bytes(width, "little")
    return bytes(raw)


def _journal_case(random: Random) -> bytes:
    """A record whose checksum is right again after its content was changed: what a bug of ours, or an owner, wrote."""
    data = bytearray(journal_bytes())
    if random.randrange(3) == 0:
        return damage(bytes(data), random)
    for start in (0, journal.RECORD_BYTES):
        magic, number, length, generation, _ = struct.unpack_from("<8sIIQI", data, start)
        body = bytes(data[start + 28 : start + 28 + length])
        if random.randrange(3):
            body = _dumped(change_json(json.loads(body), random))[: journal.RECORD_BYTES - 28]
        if random.randrange(8) == 0:
            length, generation = random.choice(NUMBERS), random.choice(NUMBERS)
        else:
            length = len(body)
        record = bytearray(struct.pack("<8sIIQI", magic, number, length, generation, 0) + body)
        record = record.ljust(journal.RECORD_BYTES, b"\0")
        struct.pack_into("<I", record, 24, zlib.crc32(record))
        data[start : start + journal.RECORD_BYTES] = record
    return bytes(data)


def _report_case(random: Random) -> bytes:
    text = msgspec.json.encode(report()).decode()
    if random.randrange(2):
        text = _dumped(change_json(json.loads(text), random)).decode()
    signed = Envelope(
        device="dev-1",
        key=KEY.public_key().public_bytes_raw().hex(),
        report=text,
        sig=KEY.sign(signed_bytes(text)).hex(),
    )
    whole = msgspec.json.encode(signed)
    match random.randrange(3):
        case 0:
            return whole
        case 1:
            return _dumped(change_json(json.loads(whole), random))
    return damage(whole, random)


def _read_delta(data: bytes) -> object:
    header = delta.read_header(data[: delta.HEADER_BYTES_MAX])
    body = data[header.encoded_bytes :][: header.length]
    made = sum(map(len, delta.xored(header, (body[at : at + 700] for at in range(0, len(body), 700)), _base)))
    assert made <= header.length
    return header


def _frame_case(random: Random) -> bytes:
    """A zstd frame whose window, sizes or blocks were changed, or one that unpacks to more than a delta promises."""
    content = random.choice((bytes(4096), bytes(8 << 20), random.randbytes(2000)))
    window = zstandard.ZstdCompressionParameters.from_level(1, window_log=random.choice((10, 20, 23, 27)))
    frame = zstandard.ZstdCompressor(compression_params=window).compress(content)
    return damage(frame, random) if random.randrange(4) else frame


def _read_frame(data: bytes) -> object:
    """As the fetcher applies a delta: the stream ends at the promised length, whatever the frame holds."""
    header = delta.DeltaHeader(A, 4096, B, 4096, (delta.Segment(4096, 0),))
    chunks = decompressed(lambda length, offset: data[offset : offset + length], 0)
    return sum(map(len, delta.xored(header, chunks, _base)))


def _base(length: int, offset: int) -> bytes:
    return bytes(4096)[offset : offset + length]


def _read_map(data: bytes) -> object:
    found = Bitmap(100_000, 16384, data)
    assert found.held_bytes() <= found.length
    return found if any(found.holds(n) for n in range(found.count)) else None


def _read_facts(data: bytes) -> object:
    try:
        return read_facts(json.loads(data))
    except msgspec.ValidationError as error:  # the caller says whose facts they are: `update.offer.judge`
        raise UntrustedMetadataError(f"signed facts are malformed: {error}; the old model keeps running") from error
    except ValueError:
        return None  # JSON is read by python-tuf before


KINDS: dict[str, tuple[Callable[[Random], bytes], Callable[[bytes], object]]] = {
    "bundle": (lambda r: _json_case(bundle, r), decode_bundle),
    "rollout": (lambda r: _json_case(rollout, r), lambda data: read_rollout(data, "stable")),
    "facts": (
        lambda r: _json_case(
            lambda: _dumped(encode_facts(SignedFacts(version="1.0.0", release_counter=1, hardware=("any",)))), r
        ),
        _read_facts,
    ),
    "report": (_report_case, open_report),
    "journal": (_journal_case, journal.newest),
    "block list": (lambda r: _packed_case(block_list(), struct.Struct("<8sIIQ32s"), r), blocks.read_blocks),
    "block": (
        lambda r: _packed_case(
            blocks.encode_block(blocks.Block(A, 16384, 5, bytes(16384))), struct.Struct("<8s32sII"), r
        ),
        blocks.read_block,
    ),
    "block request": (
        lambda r: _packed_case(
            blocks.encode_request(blocks.BlockRequest(A, 16384, 0, 8, (0, 3, 9))), struct.Struct("<8s32sIIB"), r
        ),
        blocks.read_request,
    ),
    "delta": (lambda r: _packed_case(delta_bytes(), struct.Struct("<8sQQ32s32sIQQQQQQ"), r), _read_delta),
    "delta frame": (_frame_case, _read_frame),
    "download map": (
        lambda r: _packed_case(_held_map(), struct.Struct("<8sIQ"), r),
        _read_map,
    ),
    "audit line": (
        lambda r: _json_case(lambda: audit.encode_entry(audit.make_entry(None, "slot.committed", {"a": 1}, 1.0)), r),
        audit.read_entry,
    ),
}
"""Kind -> how a damaged input is made, and its parser."""


def _held_map() -> bytes:
    held = Bitmap(100_000, 16384)
    held.add(0)
    held.add(6)
    return held.encode()


# --- running ----------------------------------------------------------------------------------------------------------


def run_case(kind: str, seed: int) -> str:
    """Read one damaged input.

    Returns:
        "read", "none", or the class of the error it was refused with.

    Raises:
        AssertionError: the refusal is not one clear line. Whatever else escapes is a finding too.
    """
    make, read = KINDS[kind]
    return outcome(read, make(Random(f"{kind} {seed}")))


def outcome(read: Callable[[bytes], object], data: bytes) -> str:
    """What a parser makes of some bytes; see `run_case`."""
    try:
        return "none" if read(data) is None else "read"
    except NisEdgeError as error:
        text = str(error)
        assert text and "\n" not in text and text.isprintable(), repr(text[:300])
        assert len(text) < MESSAGE_CHARS, f"{len(text)} characters: {text[:200]}"
        assert isinstance(error, UntrustedMetadataError), f"{type(error).__name__}: {text}"
        return type(error).__name__


def run_cases(cases: int, first_seed: int, kinds: tuple[str, ...] = tuple(KINDS)) -> Counter[str]:
    """Run ``cases`` cases, spread over the kinds, with rising seeds; print the one that is a finding."""
    outcomes: Counter[str] = Counter()
    for number in range(cases):
        kind, seed = kinds[number % len(kinds)], first_seed + number // len(kinds)
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        try:
            outcomes[f"{kind}: {run_case(kind, seed)}"] += 1
        except BaseException as error:
            data = KINDS[kind][0](Random(f"{kind} {seed}"))
            print(f"FOUND by {kind!r} {seed}: {type(error).__name__}: {str(error)[:500]}")
            print(f"{len(data)} bytes: {data[:400]!r}")
            raise
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return outcomes


def _stop(_number: int, _frame: object) -> None:
    raise Endless(f"more than {CPU_SECONDS} s of CPU time")


def main() -> int:
    """Run from a terminal or from the test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument("--kind", action="append", choices=tuple(KINDS))
    args = parser.parse_args()
    signal.signal(signal.SIGVTALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
    outcomes = run_cases(args.cases, args.seed, tuple(args.kind or KINDS))
    for name, count in sorted(outcomes.items()):
        print(f"{name:<44} {count}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(outcomes.values())} cases from seed {args.seed}: no finding; peak memory {peak:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
