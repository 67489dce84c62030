"""Zstandard frames, decompressed as a stream in bounded memory. The library comes with the extra `delta`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import IO, Final, cast

from nis_edge.errors import UntrustedMetadataError, UpdateError
from nis_edge.limits import KIB
from nis_edge.update.delta import WINDOW_LOG_MAX
from nis_edge.update.facts import OLD_MODEL_STAYS

CHUNK_BYTES: Final = 128 * KIB


def can_decompress() -> bool:
    """Whether the library is installed; does not import it."""
    return find_spec("zstandard") is not None


class _Reader:
    """A file from a position on, as the library reads it."""

    def __init__(self, pread: Callable[[int, int], bytes], offset: int) -> None:
        self._pread = pread
        self._offset = offset

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        data = self._pread(size, self._offset)
        self._offset += len(data)
        return data


def decompressed(pread: Callable[[int, int], bytes], offset: int) -> Iterator[bytes]:
    """The content of the frame at `offset`, in chunks of at most 128 KiB.

    Args:
        pread: (length, offset) -> up to that many bytes.
        offset: where the frame begins.

    Raises:
        UntrustedMetadataError: it is no frame, is damaged, or wants more memory than a device gives.
        UpdateError: the library is missing; the operator acts.
    """
    try:
        import zstandard
    except ImportError as error:
        raise UpdateError(f"deltas need: pip install 'nis-edge[delta]'; {OLD_MODEL_STAYS}") from error
    machine = zstandard.ZstdDecompressor(max_window_size=2**WINDOW_LOG_MAX)
    reader = cast("IO[bytes]", _Reader(pread, offset))  # the library calls read(size) and nothing else
    chunks = machine.read_to_iter(reader, read_size=CHUNK_BYTES, write_size=CHUNK_BYTES)
    while True:
        try:
            chunk = next(chunks, None)
        except zstandard.ZstdError as error:
            raise UntrustedMetadataError(f"delta cannot be decompressed: {error}; {OLD_MODEL_STAYS}") from error
        if chunk is None:
            return
        yield chunk
