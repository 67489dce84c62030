"""Block lists, and blocks over MQTT: what a device asks for, what it gets, what each block must hash to.

The device pulls. It publishes a request on `.../ota/request`; whoever serves blocks (`nis-ota serve-blocks`) answers
on `.../ota/block` of that device, one message a block. Nothing received is believed: every block is compared with its
hash in a block list whose own hash the offline models role signed. A list is itself pulled with the same request.

Little-endian throughout.

    block list   magic "NISBLKS1", block_bytes u32, count u32, length u64, sha256 of the file 32 B, then count * 32 B
    request      magic "NISBREQ1", sha256 of the file 32 B, block_bytes u32, first u32, window u8, bitmap bytes:
                 bit i (least significant first) of the bitmap asks for block first + i; the answer is at most `window`
                 blocks, lowest numbers first
    block        magic "NISBLOK1", sha256 of the file 32 B, block_bytes u32, index u32, then the bytes of the block
    refusal      a block with index 0xffffffff and a UTF-8 reason of at most 200 bytes in place of bytes
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import (
    UPDATE_BLOCK_BITMAP_BYTES_MAX,
    UPDATE_BLOCK_BYTES_MAX,
    UPDATE_BLOCK_BYTES_MIN,
    UPDATE_BLOCK_WINDOW_MAX,
    UPDATE_MODEL_BYTES_MAX,
)
from nis_edge.update.facts import OLD_MODEL_STAYS

_LIST: Final = struct.Struct("<8sIIQ32s")
_REQUEST: Final = struct.Struct("<8s32sIIB")
_BLOCK: Final = struct.Struct("<8s32sII")
LIST_MAGIC: Final = b"NISBLKS1"
REQUEST_MAGIC: Final = b"NISBREQ1"
BLOCK_MAGIC: Final = b"NISBLOK1"
REFUSED: Final = 0xFFFF_FFFF
REASON_BYTES_MAX: Final = 200
BLOCK_OVERHEAD_BYTES: Final = _BLOCK.size


@dataclass(frozen=True)
class Blocks:
    """A block list: the file it describes, and the SHA-256 of each block (the last one may be short)."""

    sha256: str
    length: int
    block_bytes: int
    hashes: tuple[bytes, ...]

    def span(self, index: int) -> tuple[int, int]:
        """(offset, length) of a block in the file."""
        offset = index * self.block_bytes
        return offset, min(self.block_bytes, self.length - offset)

    def is_right(self, index: int, data: bytes) -> bool:
        """Whether `data` is block `index`."""
        return 0 <= index < len(self.hashes) and hashlib.sha256(data).digest() == self.hashes[index]


@dataclass(frozen=True)
class BlockRequest:
    """What a device asks for: blocks `first + i` of the file, for every i in `wanted` (relative, sorted)."""

    sha256: str
    block_bytes: int
    first: int
    window: int
    wanted: tuple[int, ...]

    @property
    def indices(self) -> list[int]:
        """The blocks to send now, at most `window`."""
        return [self.first + i for i in self.wanted[: self.window]]


@dataclass(frozen=True)
class Block:
    """One answer: a block's bytes, or why there is none (`refusal`; then `index` is None)."""

    sha256: str
    block_bytes: int
    index: int | None
    data: bytes
    refusal: str | None = None


def block_count(length: int, block_bytes: int) -> int:
    """Blocks of a file."""
    return -(-length // block_bytes)


def encode_blocks(sha256: str, length: int, block_bytes: int, hashes: Iterable[bytes]) -> bytes:
    """The bytes of a block list.

    Args:
        sha256: of the whole file, 64 hex digits.
        length: of the file, bytes.
        block_bytes: 16 KiB to 64 KiB.
        hashes: SHA-256 of each block, 32 bytes each, in order.
    """
    digests = b"".join(hashes)
    head = _LIST.pack(LIST_MAGIC, block_bytes, block_count(length, block_bytes), length, bytes.fromhex(sha256))
    read_blocks(head + digests)
    return head + digests


def read_blocks(data: bytes) -> Blocks:
    """Decode a block list; its own hash was compared with the signed one before, or is about to be.

    Raises:
        UntrustedMetadataError: it is malformed; the publisher acts.
    """
    if len(data) < _LIST.size:
        raise _bad("block list", "is cut short")
    magic, block_bytes, count, length, digest = _LIST.unpack_from(data)
    if magic != LIST_MAGIC:
        raise _bad("block list", "is none")
    _check_block_bytes("block list", block_bytes)
    if not 1 <= length <= UPDATE_MODEL_BYTES_MAX or count != block_count(length, block_bytes):
        raise _bad("block list", f"counts {count} blocks for {length} bytes")
    if len(data) != _LIST.size + 32 * count:
        raise _bad("block list", f"has {len(data)} bytes for {count} blocks")
    hashes = tuple(data[start : start + 32] for start in range(_LIST.size, len(data), 32))
    return Blocks(digest.hex(), length, block_bytes, hashes)


def encode_request(request: BlockRequest) -> bytes:
    """The bytes of a request.

    Raises:
        ValueError: it asks for more than a server reads.
    """
    top = max(request.wanted, default=-1)
    if not 1 <= request.window <= UPDATE_BLOCK_WINDOW_MAX or not 0 <= top < 8 * UPDATE_BLOCK_BITMAP_BYTES_MAX:
        raise ValueError(f"block request for {len(request.wanted)} blocks up to {top}, window {request.window}")
    bitmap = bytearray(top // 8 + 1)
    for i in request.wanted:
        bitmap[i // 8] |= 1 << (i % 8)
    head = _REQUEST.pack(
        REQUEST_MAGIC, bytes.fromhex(request.sha256), request.block_bytes, request.first, request.window
    )
    return head + bitmap


def read_request(data: bytes) -> BlockRequest:
    """Decode a device's request; the sender is not believed.

    Raises:
        UntrustedMetadataError: it is malformed.
    """
    bitmap = data[_REQUEST.size :]
    if len(data) < _REQUEST.size or not 1 <= len(bitmap) <= UPDATE_BLOCK_BITMAP_BYTES_MAX:
        raise _bad("block request", f"has {len(data)} bytes")
    magic, digest, block_bytes, first, window = _REQUEST.unpack_from(data)
    if magic != REQUEST_MAGIC or not 1 <= window <= UPDATE_BLOCK_WINDOW_MAX:
        raise _bad("block request", "is none")
    _check_block_bytes("block request", block_bytes)
    if first > block_count(UPDATE_MODEL_BYTES_MAX, UPDATE_BLOCK_BYTES_MIN):
        raise _bad("block request", f"starts at block {first}")
    wanted = tuple(8 * n + bit for n, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1)
    return BlockRequest(digest.hex(), block_bytes, first, window, wanted)


def encode_block(block: Block) -> bytes:
    """The bytes of an answer."""
    index, data = (
        (REFUSED, (block.refusal or "").encode()[:REASON_BYTES_MAX])
        if block.index is None
        else (block.index, block.data)
    )
    return _BLOCK.pack(BLOCK_MAGIC, bytes.fromhex(block.sha256), block.block_bytes, index) + data


def read_block(data: bytes) -> Block:
    """Decode an answer; the sender is not believed.

    Raises:
        UntrustedMetadataError: it is malformed.
    """
    if len(data) <= _BLOCK.size:
        raise _bad("block", f"has {len(data)} bytes")
    magic, digest, block_bytes, index = _BLOCK.unpack_from(data)
    body = data[_BLOCK.size :]
    if magic != BLOCK_MAGIC:
        raise _bad("block", "is none")
    _check_block_bytes("block", block_bytes)
    if len(body) > (REASON_BYTES_MAX if index == REFUSED else block_bytes):
        raise _bad("block", f"carries {len(body)} bytes")
    if index == REFUSED:
        text = body.decode("utf-8", "replace")
        reason = "".join(c if c.isprintable() else "?" for c in text)
        return Block(digest.hex(), block_bytes, None, b"", reason)
    return Block(digest.hex(), block_bytes, index, body)


def _check_block_bytes(what: str, block_bytes: int) -> None:
    if not UPDATE_BLOCK_BYTES_MIN <= block_bytes <= UPDATE_BLOCK_BYTES_MAX:
        raise _bad(what, f"has blocks of {block_bytes} bytes")


def _bad(what: str, why: str) -> UntrustedMetadataError:
    return UntrustedMetadataError(f"{what} {why}; {OLD_MODEL_STAYS}")
