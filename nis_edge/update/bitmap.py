"""Which blocks of a download are on the disk: a few bytes beside it, written only after the blocks were flushed.

Little-endian: magic "NISPMAP1", block_bytes u32, length u64, then one bit a block, least significant first. Bits are
only ever added, and only for blocks that are durable, so a torn write of the map can make a download forget blocks,
never believe in missing ones. The whole file is hashed at the end in any case.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from nis_edge.update.blocks import block_count

MAGIC: Final = b"NISPMAP1"
_HEADER: Final = struct.Struct("<8sIQ")


class Bitmap:
    """The blocks held of a file of `length` bytes in blocks of `block_bytes`.

    Args:
        length: of the file; at least 1.
        block_bytes: of a block; the last one may be short.
        data: an earlier map's bytes; one of another shape counts as empty.
    """

    def __init__(self, length: int, block_bytes: int, data: bytes = b"") -> None:
        self.length = length
        self.block_bytes = block_bytes
        self.count = block_count(length, block_bytes)
        self._bits = bytearray(-(-self.count // 8))
        self._header = _HEADER.pack(MAGIC, block_bytes, length)
        if data[: _HEADER.size] == self._header and len(data) == _HEADER.size + len(self._bits):
            self._bits[:] = data[_HEADER.size :]
            if self.count % 8:  # bits beyond the last block say nothing, whoever set them
                self._bits[-1] &= (1 << self.count % 8) - 1

    @property
    def encoded_bytes(self) -> int:
        """Length of `encode()`; the same for the same shape."""
        return _HEADER.size + len(self._bits)

    def encode(self) -> bytes:
        """The map's bytes."""
        return self._header + bytes(self._bits)

    def holds(self, block: int) -> bool:
        """Whether a block is held."""
        return bool(self._bits[block // 8] >> block % 8 & 1)

    def add(self, block: int) -> None:
        """Note a block as held."""
        self._bits[block // 8] |= 1 << block % 8

    def clear(self) -> None:
        """Hold nothing."""
        self._bits[:] = bytes(len(self._bits))

    def missing(self) -> Iterator[int]:
        """The blocks not held, in order."""
        return (block for block in range(self.count) if not self.holds(block))

    def held_bytes(self) -> int:
        """Bytes in the blocks held."""
        blocks = sum(byte.bit_count() for byte in self._bits)
        last = self.count - 1
        short = self.count * self.block_bytes - self.length if self.holds(last) else 0
        return blocks * self.block_bytes - short

    def gap(self, start: int) -> tuple[int, int]:
        """The next bytes not held at or after byte `start`: (begin, end); (length, length) when there are none."""
        block = start // self.block_bytes
        while block < self.count and self.holds(block):
            block += 1
        if block >= self.count:
            return self.length, self.length
        begin, end = max(start, block * self.block_bytes), block + 1
        while end < self.count and not self.holds(end):
            end += 1
        return begin, min(self.length, end * self.block_bytes)
