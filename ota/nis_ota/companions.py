"""What travels beside a model, signed through its facts: its block list, and deltas from older models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nis_edge.errors import NisEdgeError
from nis_edge.limits import KIB, UPDATE_DELTA_SEGMENTS_MAX
from nis_edge.pack.container import Header, MappedFile, read_header
from nis_edge.update.blocks import encode_blocks
from nis_edge.update.delta import WINDOW_LOG_MAX, DeltaHeader, Segment, encode_header, xored
from nis_edge.update.facts import BlockList, DeltaFrom
from nis_ota.errors import PublisherError
from nis_ota.files import file_hash, flush_folder

BLOCK_BYTES: Final = 32 * KIB
"""One block over MQTT: under any broker's usual limit, and a list of 0.1 % of the file."""

ZSTD_LEVEL: Final = 9
"""Measured on flipped ternary weights: 3 and 19 differ by a few per cent of the delta, by a factor of 50 in time."""

_CHUNK: Final = 1 << 20


def block_list(path: Path, block_bytes: int = BLOCK_BYTES) -> tuple[bytes, BlockList]:
    """The block list of a file, and what is signed of it."""
    digest, hashes, length = hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while block := file.read(block_bytes):
            digest.update(block)
            hashes.append(hashlib.sha256(block).digest())
            length += len(block)
    data = encode_blocks(digest.hexdigest(), length, block_bytes, hashes)
    return data, BlockList(sha256=hashlib.sha256(data).hexdigest(), length=len(data), block_bytes=block_bytes)


def make_delta(base: Path, target: Path, out: Path) -> DeltaFrom:
    """Write the delta that makes `target` of `base`; return what is signed of it, but for its block list.

    Memory: a few chunks and the window.

    Args:
        base: the older package.
        target: the newer one.
        out: where the delta is written.

    Raises:
        PublisherError: zstandard is missing, or the two cannot be lined up.
    """
    try:
        import zstandard
    except ImportError as error:
        raise PublisherError("making deltas needs zstandard: pip install 'nis-edge[ota]'") from error
    try:
        header = DeltaHeader(
            file_hash(base), base.stat().st_size, file_hash(target), target.stat().st_size, line_up(base, target)
        )
        encoded = encode_header(header)
    except NisEdgeError as error:
        raise PublisherError(f"{target} has no delta from {base}: {error}") from error
    settings = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=WINDOW_LOG_MAX)
    with base.open("rb") as old, out.open("wb") as file:

        def read_base(length: int, offset: int) -> bytes:
            old.seek(offset)
            return old.read(length)

        file.write(encoded)
        with zstandard.ZstdCompressor(compression_params=settings).stream_writer(
            file, size=header.length, closefd=False
        ) as frame:
            for piece in xored(header, _chunks(target), read_base):
                frame.write(piece)
    flush_folder(out.parent)
    return DeltaFrom(base_sha256=header.base_sha256, sha256=file_hash(out), length=out.stat().st_size)


def line_up(base: Path, target: Path) -> tuple[Segment, ...]:
    """Which bytes of `target` lie over which of `base`: each tensor over the one of its name and size, headers over
    headers when they are equally long. Neighbours that go on together become one segment."""
    old, new = _header(base), _header(target)
    parts = [Segment(new.data_start, 0 if new.data_start == old.data_start else None)]
    for name, entry in new.entries.items():
        if entry.nbytes == 0:
            continue
        twin = old.entries.get(name)
        at = old.data_start + twin.data_offsets[0] if twin is not None and twin.nbytes == entry.nbytes else None
        last = parts[-1]
        if at is None and last.base_offset is None:
            parts[-1] = Segment(last.length + entry.nbytes, None)
        elif at is not None and last.base_offset is not None and at == last.base_offset + last.length:
            parts[-1] = Segment(last.length + entry.nbytes, last.base_offset)
        else:
            parts.append(Segment(entry.nbytes, at))
    if len(parts) > UPDATE_DELTA_SEGMENTS_MAX:
        raise PublisherError(f"{target} lines up with {base} in {len(parts)} places, more than a delta holds")
    return tuple(parts)


def _header(path: Path) -> Header:
    file = MappedFile(path)
    try:
        return read_header(file)
    finally:
        file.close()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
