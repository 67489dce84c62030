"""Deltas: a new model as XOR against the one that runs, compressed. Retrained ternary weights share no 4 KiB chunks,
but a few flipped values in a same-layout file leave an XOR of almost all zeros.

Little-endian.

    header    magic "NISXORZ1", base length u64, target length u64, base sha256 32 B, target sha256 32 B, segments u32
    segment   length u64, base offset u64 (2^64 - 1: no base here); segments tile the target from its first byte on
    payload   one zstd frame, window at most 2^23 bytes, of the target's bytes, each XORed with the base's byte that its
              segment lines up with

Segments let a tensor line up with its old place when the metadata before it has grown. The result is hashed like any
download; a delta that gives anything else than the signed target is refused.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import UPDATE_DELTA_SEGMENTS_MAX, UPDATE_MODEL_BYTES_MAX
from nis_edge.update.facts import OLD_MODEL_STAYS

MAGIC: Final = b"NISXORZ1"
NO_BASE: Final = 2**64 - 1
WINDOW_LOG_MAX: Final = 23
"""Largest zstd window a device accepts, as a power of two: it is the memory that applying a delta takes."""

_HEADER: Final = struct.Struct("<8sQQ32s32sI")
_SEGMENT: Final = struct.Struct("<QQ")
HEADER_BYTES_MAX: Final = _HEADER.size + UPDATE_DELTA_SEGMENTS_MAX * _SEGMENT.size


@dataclass(frozen=True)
class Segment:
    """`length` bytes of the target line up with the base from `base_offset` on; None: with nothing."""

    length: int
    base_offset: int | None


@dataclass(frozen=True)
class DeltaHeader:
    """What a delta makes of what."""

    base_sha256: str
    base_length: int
    sha256: str
    length: int
    segments: tuple[Segment, ...]

    @property
    def encoded_bytes(self) -> int:
        """Length of the header; the zstd frame begins here."""
        return _HEADER.size + len(self.segments) * _SEGMENT.size


def encode_header(header: DeltaHeader) -> bytes:
    """The bytes of a header; its own reader accepts them.

    Raises:
        UntrustedMetadataError: no device would accept it.
    """
    data = _HEADER.pack(
        MAGIC,
        header.base_length,
        header.length,
        bytes.fromhex(header.base_sha256),
        bytes.fromhex(header.sha256),
        len(header.segments),
    ) + b"".join(_SEGMENT.pack(s.length, NO_BASE if s.base_offset is None else s.base_offset) for s in header.segments)
    read_header(data)
    return data


def read_header(data: bytes) -> DeltaHeader:
    """Decode the header at the beginning of `data` (HEADER_BYTES_MAX bytes are always enough).

    Raises:
        UntrustedMetadataError: it is malformed; the publisher acts.
    """
    if len(data) < _HEADER.size:
        raise _bad("is cut short")
    magic, base_length, length, base, target, count = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _bad("is none")
    if not (0 < length <= UPDATE_MODEL_BYTES_MAX and 0 < base_length <= UPDATE_MODEL_BYTES_MAX):
        raise _bad(f"makes {length} bytes of {base_length}")
    if not 1 <= count <= UPDATE_DELTA_SEGMENTS_MAX or len(data) < _HEADER.size + count * _SEGMENT.size:
        raise _bad(f"has {count} segments in {len(data)} bytes")
    segments, end = [], 0
    for n in range(count):
        size, at = _SEGMENT.unpack_from(data, _HEADER.size + n * _SEGMENT.size)
        if size == 0 or (at != NO_BASE and at + size > base_length):
            raise _bad(f"segment {n} reaches beyond its base")
        end += size
        segments.append(Segment(size, None if at == NO_BASE else at))
    if end != length:
        raise _bad(f"has segments of {end} bytes for {length}")
    return DeltaHeader(base.hex(), base_length, target.hex(), length, tuple(segments))


def xored(
    header: DeltaHeader, chunks: Iterable[bytes], read_base: Callable[[int, int], bytes], start: int = 0
) -> Iterator[bytes]:
    """XOR a stream with the base: from delta to target, or from target to delta.

    Args:
        header: what lines up with what.
        chunks: the stream; chunks of any size, small ones need little memory.
        read_base: (length, offset) -> exactly that many bytes of the base.
        start: where in the target the stream begins.

    Raises:
        UntrustedMetadataError: the stream is longer than the target, or the base shorter than it was.
    """
    ends = list(accumulate(segment.length for segment in header.segments))
    position, n = start, bisect_right(ends, start)
    for chunk in chunks:
        if position + len(chunk) > header.length:
            raise _bad(f"gives more than the {header.length} bytes it promised")
        at = 0
        while at < len(chunk):
            segment, piece = header.segments[n], chunk[at : at + ends[n] - position]
            if segment.base_offset is None:
                yield piece
            else:
                begin = ends[n] - segment.length
                yield _xor(piece, read_base(len(piece), segment.base_offset + position - begin))
            at, position = at + len(piece), position + len(piece)
            n += position == ends[n]


def _xor(a: bytes, b: bytes) -> bytes:
    if len(a) != len(b):
        raise _bad("needs more of its base than there is")
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")


def _bad(why: str) -> UntrustedMetadataError:
    return UntrustedMetadataError(f"delta {why}; {OLD_MODEL_STAYS}")
