"""The GGUF container: a header of typed key-value pairs, a table of tensors, the tensors' bytes at aligned places.

Nothing of a file is believed: counts, lengths, types, dimensions and offsets are checked before they are used, so the
worst a file can do is to be refused. What keys and tensors mean is decided by ``gguf_checkpoint``; how a tensor's
blocks hold numbers, by ``ggml_blocks``. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
(versions 2 and 3, little-endian).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import container
from nis_edge.pack.ggml_blocks import TYPES, BlockType

MAGIC: Final = b"GGUF"

VERSIONS: Final = (2, 3)
"""Version 1 had 32-bit counts and was never written by a converter of ternary models."""

_SCALARS: Final[Mapping[int, np.dtype[Any]]] = MappingProxyType(
    {
        0: np.dtype("u1"),
        1: np.dtype("i1"),
        2: np.dtype("<u2"),
        3: np.dtype("<i2"),
        4: np.dtype("<u4"),
        5: np.dtype("<i4"),
        6: np.dtype("<f4"),
        7: np.dtype("?"),
        10: np.dtype("<u8"),
        11: np.dtype("<i8"),
        12: np.dtype("<f8"),
    }
)
_BOOL: Final = 7
_STRING: Final = 8
_ARRAY: Final = 9

Value = bool | int | float | str | list[str] | npt.NDArray[Any]
"""Of a key: a scalar, text, a list of texts, or a numpy array of scalars (bool as uint8)."""


@dataclass(frozen=True)
class GgufTensor:
    """What the table says of one tensor.

    Attributes:
        name: as it stands in the file.
        shape: slowest side first, as numpy has it (the file lists the fastest first).
        kind: how its blocks hold numbers.
        start: first byte in the file.
        nbytes: length in bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    start: int
    nbytes: int


@dataclass(frozen=True)
class Gguf:
    """A checked GGUF header."""

    file: container.MappedFile
    metadata: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]

    def where(self, name: str) -> str:
        """Where a tensor or key stands, for an error message."""
        return f"{self.file.path}: {container.shown(name)}"

    def text(self, key: str) -> str | None:
        """A key's text, None without the key.

        Raises:
            PackFormatError: the key holds something else.
        """
        value = self.metadata.get(key)
        if value is None or isinstance(value, str):
            return value
        raise PackFormatError(f"{self.where(key)} is no text; the file is damaged")

    def raw(self, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
        """A read-only view of a tensor's bytes."""
        return self.file.bytes_at(tensor.start, tensor.start + tensor.nbytes)

    def release(self, tensor: GgufTensor) -> None:
        """A tensor has been read for the last time."""
        self.file.release(tensor.start, tensor.start + tensor.nbytes)


def read_gguf(file: container.MappedFile) -> Gguf:
    """Parse and check the header of a GGUF file.

    Args:
        file: the mapped file; it stays the caller's to close.

    Raises:
        PackFormatError: with the path, what is wrong and what to do.
    """
    cursor = _Cursor(file)
    if cursor.take(4) != MAGIC:
        raise PackFormatError(f"{file.path}: is no GGUF file (it does not begin with GGUF)")
    version = cursor.u32()
    if version not in VERSIONS:
        big = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "is big-endian" if big else f"is GGUF version {version}"
        raise PackFormatError(f"{file.path}: {what}; little-endian versions 2 and 3 are read, convert it again")
    tensor_count, key_count = cursor.u64(), cursor.u64()
    if tensor_count > limits.PACK_TENSORS_MAX:
        raise PackFormatError(f"{file.path}: claims {tensor_count} tensors, above the bound {limits.PACK_TENSORS_MAX}")
    if key_count > limits.GGUF_KEYS_MAX:
        raise PackFormatError(f"{file.path}: claims {key_count} keys, above the bound of {limits.GGUF_KEYS_MAX}")
    metadata: dict[str, Value] = {}
    for _ in range(key_count):
        key = cursor.text(limits.GGUF_NAME_BYTES_MAX)
        if key in metadata:
            raise PackFormatError(f"{file.path}: the key {container.shown(key)} stands twice; the file is damaged")
        metadata[key] = cursor.value(cursor.u32(), key)
    rows = [_table_row(cursor) for _ in range(tensor_count)]
    return Gguf(file, MappingProxyType(metadata), MappingProxyType(_placed(rows, metadata, cursor)))


class _Cursor:
    """Reads forward through a file; never beyond its end, never more than the header's bound."""

    def __init__(self, file: container.MappedFile) -> None:
        self.file = file
        self.position = 0
        self._texts_left = limits.GGUF_ARRAY_ITEMS_MAX
        self._end = min(file.size, limits.GGUF_HEADER_BYTES_MAX)
        self._view = memoryview(file.bytes_at(0, self._end).data)

    def take(self, count: int) -> bytes:
        if count > self._end - self.position:
            cause = "ends inside its header; it was truncated, fetch it again"
            if self._end < self.file.size:
                cause = f"has a header above the bound of {limits.GGUF_HEADER_BYTES_MAX} bytes"
            raise PackFormatError(f"{self.file.path}: {cause}")
        self.position += count
        return self._view[self.position - count : self.position].tobytes()

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self, most: int) -> str:
        length = self.u64()
        if length > most:
            raise PackFormatError(f"{self.file.path}: claims a text of {length} bytes, above the bound of {most}")
        # Tokens of a vocabulary may be cut inside a character; what is no UTF-8 must not end the reading.
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, key: str) -> Value:
        if kind == _STRING:
            return self.text(limits.GGUF_TEXT_BYTES_MAX)
        if kind == _ARRAY:
            return self._array(key)
        scalar: Value = self._scalars(kind, 1, key)[0].item()
        return bool(scalar) if kind == _BOOL else scalar

    def _array(self, key: str) -> Value:
        kind, count = self.u32(), self.u64()
        if count > limits.GGUF_ARRAY_ITEMS_MAX:
            raise PackFormatError(f"{self.file.path}: {container.shown(key)} claims {count} items, above the bound")
        if kind == _STRING:
            self._texts_left -= count
            if self._texts_left < 0:
                raise PackFormatError(f"{self.file.path}: holds more texts than {limits.GGUF_ARRAY_ITEMS_MAX}")
            return self._texts(count)
        return self._scalars(kind, count, key)

    def _texts(self, count: int) -> list[str]:
        """Many texts, by a loop that touches each byte once: a vocabulary has hundreds of thousands."""
        view, end, position = self._view, self._end, self.position
        unpack = struct.Struct("<Q").unpack_from
        texts: list[str] = []
        for _ in range(count):
            if position + 8 > end:
                break
            (length,) = unpack(view, position)
            position += 8
            if length > min(limits.GGUF_TEXT_BYTES_MAX, end - position):
                break
            texts.append(str(view[position : position + length], "utf-8", "replace"))
            position += length
        if len(texts) < count:
            raise PackFormatError(f"{self.file.path}: a list of texts ends outside the header; the file is damaged")
        self.position = position
        return texts

    def _scalars(self, kind: int, count: int, key: str) -> npt.NDArray[Any]:
        dtype = _SCALARS.get(kind)
        if dtype is None:
            raise PackFormatError(f"{self.file.path}: {container.shown(key)} has the unknown type {kind}")
        raw = np.frombuffer(self.take(count * dtype.itemsize), dtype=np.uint8)
        return raw if kind == _BOOL else raw.view(dtype)


def _table_row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (slowest side first), type and offset of one tensor, each within its bounds."""
    name = cursor.text(limits.GGUF_NAME_BYTES_MAX)
    path = cursor.file.path
    sides = cursor.u32()
    if not 1 <= sides <= 4:
        raise PackFormatError(f"{path}: tensor {container.shown(name)} has {sides} dimensions; the file is damaged")
    shape = tuple(cursor.u64() for _ in range(sides))[::-1]
    if not all(1 <= side <= limits.PACK_DIMENSION_MAX for side in shape):
        raise PackFormatError(f"{path}: tensor {container.shown(name)} claims the shape {list(shape)}, out of bounds")
    return name, shape, cursor.u32(), cursor.u64()


def _placed(
    rows: list[tuple[str, tuple[int, ...], int, int]], metadata: Mapping[str, Value], cursor: _Cursor
) -> dict[str, GgufTensor]:
    """The tensors with their places, once all lie inside the file and none overlaps another."""
    file = cursor.file
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or isinstance(alignment, bool) or not 8 <= alignment <= 65_536 or alignment % 8:
        raise PackFormatError(f"{file.path}: general.alignment is {alignment!r:.20}; a multiple of 8 is expected")
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, number, offset in rows:
        kind = TYPES.get(number)
        if kind is None:
            raise PackFormatError(
                f"{file.path}: tensor {container.shown(name)} has type {number}, which is not read;"
                f" read are {', '.join(known.name for known in TYPES.values())}"
            )
        if name in tensors:
            raise PackFormatError(f"{file.path}: tensor {container.shown(name)} stands twice; the file is damaged")
        if shape[-1] % kind.block:
            raise PackFormatError(
                f"{file.path}: tensor {container.shown(name)} has rows of {shape[-1]}, no multiple of the"
                f" {kind.block} that a block of {kind.name} holds"
            )
        nbytes = kind.nbytes(shape)
        start = data_start + offset
        if offset % alignment or start + nbytes > file.size:
            raise PackFormatError(
                f"{file.path}: tensor {container.shown(name)} claims {nbytes} bytes at {start} of {file.size};"
                " the file was truncated or damaged, fetch it again"
            )
        tensors[name] = GgufTensor(name, shape, kind, start, nbytes)
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.start)
    for before, after in itertools.pairwise(ordered):
        if before.start + before.nbytes > after.start:
            raise PackFormatError(
                f"{file.path}: tensors {container.shown(before.name)} and {container.shown(after.name)} overlap"
            )
    return tensors
