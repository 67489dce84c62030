"""The safetensors container: eight bytes of header length, a JSON header, the tensors' bytes without holes.

This reader trusts nothing: the header's length, its JSON (size, depth, duplicate keys), names, dtypes, shapes and
offsets are checked before any of them is used. It serves packages and the checkpoints they are packed from; what the
tensors mean is decided by others. The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import PackFormatError

LENGTH_BYTES: Final = 8
"""The header's length: unsigned, 64 bits, little-endian."""

METADATA_KEY: Final = "__metadata__"

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: the bits, as an unsigned integer
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F64": np.dtype("<f8"),
    "BOOL": np.dtype("u1"),
}
"""The dtypes of safetensors that this project can meet, with how numpy views their bytes."""

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON. One that never ends matches too: looking for its end from each quote in it would take for ever."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP_OF_BRACKET = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a header says of one tensor; offsets count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.data_offsets[1] - self.data_offsets[0]


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        raw: the JSON bytes as they stand in the file, trailing spaces included.
        fields: the JSON object they are.
        metadata: the ``__metadata__`` map.
        entries: tensor name -> entry, in the order of the data.
        data_start: offset of the first data byte in the file.
    """

    raw: bytes
    fields: Mapping[str, Any]
    metadata: Mapping[str, str]
    entries: Mapping[str, TensorEntry]
    data_start: int


class MappedFile:
    """A regular file mapped read-only.

    Views into the map stay valid as long as they are referenced, even after ``close``. The file must not be shortened
    in place while it is mapped; our own writer never does that (it renames a new file over the old one).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map a file.

        Args:
            path: the file.

        Raises:
            PackFormatError: it is missing, unreadable, empty or no regular file.
        """
        self.path = Path(path)
        try:
            # O_NONBLOCK: opening a named pipe must not wait for its other end.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PackFormatError(f"{self.path}: can't be opened ({reason}); check the path") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PackFormatError(f"{self.path}: is no regular file; give the path of the file itself")
            self.size = status.st_size
            if self.size < LENGTH_BYTES:
                raise PackFormatError(f"{self.path}: {self.size} bytes is too short for a header; fetch it again")
            self._map: mmap.mmap | None = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise PackFormatError(f"{self.path}: can't be mapped ({error.strerror or error})") from error
        finally:
            os.close(descriptor)

    def bytes_at(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """A read-only view, uint8 [stop - start], of bytes inside the file."""
        if self._map is None:
            raise PackFormatError(f"{self.path}: was closed; open it again")
        if not 0 <= start <= stop <= self.size:
            raise PackFormatError(f"{self.path}: bytes {start} to {stop} lie outside the file")
        return np.frombuffer(self._map, dtype=np.uint8, count=stop - start, offset=start)

    def release(self, start: int, stop: int) -> None:
        """Tell the system that these bytes won't be read again soon, so a large file does not fill the memory."""
        if self._map is not None:
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            last = stop // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Let go of the map. Views that are still referenced keep it alive until they are gone."""
        mapped, self._map = self._map, None
        if mapped is None:
            return
        try:
            mapped.close()
        except BufferError:
            # Somebody still holds a view; the last view to go unmaps the file.
            del mapped


def read_header(file: MappedFile) -> Header:
    """Parse and check the header of a safetensors file.

    Args:
        file: the mapped file.

    Raises:
        PackFormatError: with the path, what is wrong and what to do.
    """
    path = file.path
    length = int.from_bytes(file.bytes_at(0, LENGTH_BYTES).tobytes(), "little")
    if length > limits.PACK_HEADER_BYTES_MAX:
        raise PackFormatError(
            f"{path}: claims a header of {length} bytes, above the bound of {limits.PACK_HEADER_BYTES_MAX};"
            " it is no safetensors file or damaged"
        )
    if LENGTH_BYTES + length > file.size:
        raise PackFormatError(f"{path}: ends inside its header ({file.size} bytes); it was truncated, fetch it again")
    raw = file.bytes_at(LENGTH_BYTES, LENGTH_BYTES + length).tobytes()
    if not raw.startswith(b"{"):
        raise PackFormatError(f"{path}: the header is no JSON object; it is no safetensors file or damaged")
    fields = parse_json(raw, f"{path}: header")
    metadata = fields.get(METADATA_KEY, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise PackFormatError(f"{path}: {METADATA_KEY} must map text to text; the file is damaged")
    tensors = {name: entry for name, entry in fields.items() if name != METADATA_KEY}
    if len(tensors) > limits.PACK_TENSORS_MAX:
        raise PackFormatError(f"{path}: claims {len(tensors)} tensors, above the bound of {limits.PACK_TENSORS_MAX}")
    data_start = LENGTH_BYTES + length
    return Header(raw, fields, metadata, _checked_entries(tensors, file.size - data_start, path), data_start)


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object from an untrusted source.

    Args:
        raw: the text; its size is the caller's to bound.
        where: what is being read, for the error message.

    Raises:
        PackFormatError: it is no object, nests too deep, repeats a key, or holds NaN or infinity.
    """
    brackets = _STRINGS.sub(b"", raw).translate(None, _NO_BRACKETS)
    deepest = max(itertools.accumulate(map(_STEP_OF_BRACKET.__getitem__, brackets)), default=0)
    if deepest > limits.PACK_JSON_DEPTH_MAX:
        raise PackFormatError(f"{where}: JSON nests {deepest} deep, above the bound of {limits.PACK_JSON_DEPTH_MAX}")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PackFormatError(f"{where}: is no valid JSON ({error}); the file is damaged") from error
    if not isinstance(value, dict):
        raise PackFormatError(f"{where}: is no JSON object; the file is damaged")
    return value


def canonical_json(value: Any) -> str:
    """JSON text of plain values: sorted keys, no white space, ASCII only, shortest round-trip floats.

    Raises:
        PackFormatError: a NaN or an infinity, which JSON can't carry.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PackFormatError(f"the manifest can't be written as JSON ({error}); nothing was written") from error


def shown(name: str) -> str:
    """A name from an untrusted file as it may stand in an error message: one line, no control characters, no novel."""
    return name if name.isprintable() and len(name) <= limits.PACK_NAME_CHARS_MAX else ascii(name)[:40]


def view(file: MappedFile, header: Header, name: str) -> npt.NDArray[Any]:
    """A read-only array over one tensor's bytes in the map, in its stored dtype (BF16 as its bits, uint16)."""
    entry = header.entries[name]
    start, stop = (header.data_start + offset for offset in entry.data_offsets)
    return file.bytes_at(start, stop).view(DTYPES[entry.dtype]).reshape(entry.shape)


def to_float32(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Float32 numbers of a stored tensor.

    Args:
        values: the tensor as ``view`` returns it.
        dtype: F32, F16 or BF16.

    Raises:
        PackFormatError: another dtype.
    """
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F16", "F32"):
        return np.asarray(values, dtype=np.float32)
    raise PackFormatError(f"a tensor of dtype {dtype} holds no real numbers; F32, F16 or BF16 is expected")


def _checked_entries(fields: dict[str, Any], data_bytes: int, path: Path) -> dict[str, TensorEntry]:
    """The tensor entries in data order, once each is sound and together they fill the data without a hole."""
    entries: dict[str, TensorEntry] = {}
    for name, value in fields.items():
        if not 1 <= len(name) <= limits.PACK_NAME_CHARS_MAX:
            raise PackFormatError(f"{path}: tensor name {shown(name)} has {len(name)} characters; the file is damaged")
        try:
            entry = msgspec.convert(value, TensorEntry, strict=True)
        except (msgspec.ValidationError, OverflowError) as error:
            raise PackFormatError(f"{path}: tensor {shown(name)}: {error}; the file is damaged") from error
        if entry.dtype not in DTYPES:
            raise PackFormatError(f"{path}: tensor {shown(name)} has the unknown dtype {ascii(entry.dtype)[:20]}")
        elements = 1
        for side in entry.shape:
            # Python's integers can't overflow; the bound keeps what comes after within 64 bits.
            if not 0 <= side <= data_bytes or elements > data_bytes:
                raise PackFormatError(
                    f"{path}: tensor {shown(name)} claims the shape {list(entry.shape)[:8]}, beyond the file"
                )
            elements *= side
        start, stop = entry.data_offsets
        if not 0 <= start <= stop <= data_bytes:
            raise PackFormatError(
                f"{path}: tensor {shown(name)} claims bytes {start} to {stop} of {data_bytes}; the file is damaged"
            )
        if elements * DTYPES[entry.dtype].itemsize != stop - start:
            raise PackFormatError(
                f"{path}: tensor {shown(name)} of shape {list(entry.shape)[:8]} {entry.dtype}"
                f" claims {stop - start} bytes"
            )
        entries[name] = entry
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].data_offsets, item[0])))
    position = 0
    for name, entry in ordered.items():
        start, stop = entry.data_offsets
        if start != position:
            what = "overlaps the tensor before it" if start < position else "leaves a hole before it"
            raise PackFormatError(f"{path}: tensor {shown(name)} {what} at byte {start}; the file is damaged")
        position = stop
    if position != data_bytes:
        raise PackFormatError(
            f"{path}: the tensors end at byte {position} but the data has {data_bytes}; the file is damaged"
        )
    return ordered


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {ascii(twice)[:40]} stands twice")
    return fields


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")
