"""Write a package: the same model gives the same bytes, and a reader never sees half a file.

Tensors may come as arrays or as callables that make them when their turn comes, so a model larger than memory can be
packed: what is in memory at once is one tensor, or one chunk of rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import DeviceError, PackFormatError
from nis_edge.pack import container, layout
from nis_edge.pack.layout import Manifest, TensorSpec
from nis_edge.pack.reader import Progress, tokenizer_fault
from nis_edge.pack.ternary import TernaryMatrix

Array = npt.NDArray[Any]
Made = Array | TernaryMatrix | Iterable[Array]
Source = Array | TernaryMatrix | Callable[[], Made]
"""A tensor, or a callable that makes it when its turn comes: an array, a ternary matrix, or chunks of rows."""

_UNWRITTEN = "0" * 64


def write_package(
    path: str | os.PathLike[str],
    manifest: Manifest,
    tensors: Mapping[str, Source],
    progress: Progress | None = None,
) -> str:
    """Write a package atomically: it appears under its name whole and durable, or not at all.

    Args:
        path: the file to make or replace.
        manifest: what the model is; checked.
        tensors: name -> source, in any order; exactly the tensors of ``layout.tensor_table``. A ``TernaryMatrix``
            under ``x`` brings ``x.scale`` along. BF16 is given as its bits in uint16. The tokenizer is the bytes of
            tokenizer.json as uint8.
        progress: told of each tensor that is done.

    Returns:
        Hexadecimal SHA-256 of the file.

    Raises:
        PackFormatError: manifest and tensors disagree; the builder of the model acts, an old file is untouched.
        DeviceError: the file can't be written (disk full, no permission); an old file is untouched.
    """
    target = Path(path)
    layout.check_manifest(manifest, f"{target}: manifest")
    specs = _resolved_table(manifest, tensors, target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            digest = _Writing(descriptor, target, manifest, specs).write(tensors, progress)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise DeviceError(
            f"{target}: can't be written ({error.strerror or error}); an older file of that name is untouched"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return digest


class _Writing:
    """One file being written: every place is known beforehand, the hashes come with the bytes."""

    def __init__(self, descriptor: int, target: Path, manifest: Manifest, specs: list[TensorSpec]) -> None:
        self.descriptor = descriptor
        self.target = target
        self.specs = specs
        self.hashes = {spec.name: _UNWRITTEN for spec in specs}
        self.manifest_text = layout.encode_manifest(manifest)
        self.entries = _placed(specs)
        self.data_start = container.LENGTH_BYTES + len(self._header())
        if self.data_start - container.LENGTH_BYTES > limits.PACK_HEADER_BYTES_MAX:
            raise PackFormatError(f"{target}: the header would exceed {limits.PACK_HEADER_BYTES_MAX} bytes")

    def write(self, tensors: Mapping[str, Source], progress: Progress | None) -> str:
        """Write every tensor, then the header; return the SHA-256 of the file."""
        end = max(entry["data_offsets"][1] for entry in self.entries.values())
        os.ftruncate(self.descriptor, self.data_start + end)
        for spec in self.specs:
            if spec.name not in tensors:
                continue  # a scale that its matrix brings along
            source = tensors[spec.name]
            made = source() if callable(source) else source
            if isinstance(made, TernaryMatrix):
                self._write_scale(spec, made, given=f"{spec.name}.scale" in tensors)
                if progress is not None:
                    progress(f"{spec.name}.scale", 4)
                made = made.packed
            chunks = [made] if isinstance(made, np.ndarray) else made
            self._write_tensor(spec, chunks)
            if progress is not None:
                progress(spec.name, layout.nbytes(spec))
        unwritten = [name for name, digest in self.hashes.items() if digest == _UNWRITTEN]
        if unwritten:
            raise PackFormatError(f"{self.target}: tensor {unwritten[0]} is missing; an older file is untouched")
        header = self._header()
        _write_at(self.descriptor, 0, len(header).to_bytes(container.LENGTH_BYTES, "little") + header)
        return self._digest(self.data_start + end)

    def _header(self) -> bytes:
        metadata = {
            layout.MANIFEST_KEY: self.manifest_text,
            layout.HASHES_KEY: container.canonical_json(self.hashes),
        }
        return layout.encode_header({**self.entries, container.METADATA_KEY: metadata})

    def _write_scale(self, spec: TensorSpec, matrix: TernaryMatrix, given: bool) -> None:
        if (matrix.rows, matrix.columns) != spec.matrix:
            raise PackFormatError(
                f"{self.target}: matrix {spec.name} is {matrix.rows} x {matrix.columns}, the architecture demands"
                f" {spec.matrix}; an older file is untouched"
            )
        if given:
            raise PackFormatError(f"{self.target}: {spec.name}.scale is given twice; an older file is untouched")
        scale = np.array([matrix.scale], dtype="<f4")
        self._write_tensor(TensorSpec(f"{spec.name}.scale", "F32", (1,)), [scale])

    def _write_tensor(self, spec: TensorSpec, chunks: Iterable[Array]) -> None:
        place = self.data_start + self.entries[spec.name]["data_offsets"][0]
        wanted = container.DTYPES[spec.dtype]
        digest = hashlib.sha256()
        rows = 0
        for chunk in chunks:
            if chunk.dtype.newbyteorder("<") != wanted or chunk.shape[1:] != spec.shape[1:] or chunk.ndim < 1:
                raise PackFormatError(
                    f"{self.target}: tensor {spec.name} is {chunk.dtype} {list(chunk.shape)}, the architecture demands"
                    f" {spec.dtype} {list(spec.shape)}; an older file is untouched"
                )
            rows += chunk.shape[0]
            if rows > spec.shape[0]:
                break
            for part in _row_chunks(chunk):
                raw = np.ascontiguousarray(part, dtype=wanted)
                _check_values(spec, raw, self.target)
                data = raw.reshape(-1).view(np.uint8)
                _write_at(self.descriptor, place, data.data)
                digest.update(data.data)
                place += data.size
        if rows != spec.shape[0]:
            raise PackFormatError(
                f"{self.target}: tensor {spec.name} has {rows} rows or more, the architecture demands {spec.shape[0]};"
                " an older file is untouched"
            )
        self.hashes[spec.name] = digest.hexdigest()

    def _digest(self, size: int) -> str:
        digest = hashlib.sha256()
        for start in range(0, size, limits.PACK_CHUNK_BYTES):
            digest.update(os.pread(self.descriptor, min(limits.PACK_CHUNK_BYTES, size - start), start))
        return digest.hexdigest()


def _resolved_table(manifest: Manifest, tensors: Mapping[str, Source], target: Path) -> list[TensorSpec]:
    """The tensor table with the tokenizer's length filled in, once the names given are the names demanded."""
    specs = layout.tensor_table(manifest)
    names = {spec.name for spec in specs}
    matrices = {f"{spec.name}.scale" for spec in specs if spec.matrix is not None}
    unexpected = sorted(set(tensors) - names)
    if unexpected:
        raise PackFormatError(f"{target}: tensor {unexpected[0]} is no part of the architecture; nothing was written")
    missing = sorted(name for name in names - set(tensors) if name not in matrices)
    # A scale may come with its matrix; whether it did is known only when the matrix has been made.
    missing += sorted(
        name for name in matrices - set(tensors) if isinstance(tensors.get(name.removesuffix(".scale")), np.ndarray)
    )
    if missing:
        raise PackFormatError(f"{target}: tensor {missing[0]} is missing; nothing was written")
    specs = [_with_tables(spec, tensors, target) if spec.name == "tables" else spec for spec in specs]
    if specs[-1].name != "tokenizer":
        return specs
    data = tensors["tokenizer"]
    if not isinstance(data, np.ndarray) or data.ndim != 1 or not 1 <= data.size <= limits.PACK_TOKENIZER_BYTES_MAX:
        raise PackFormatError(
            f"{target}: the tokenizer must be the bytes of tokenizer.json as uint8; nothing was written"
        )
    fault = tokenizer_fault(container.parse_json(data.tobytes(), f"{target}: tokenizer"), manifest.architecture.vocab)
    if fault is not None:
        raise PackFormatError(f"{target}: the tokenizer {fault}; nothing was written")
    return [*specs[:-1], TensorSpec("tokenizer", "U8", (data.size,))]


def _with_tables(spec: TensorSpec, tensors: Mapping[str, Source], target: Path) -> TensorSpec:
    data = tensors[spec.name]
    if not isinstance(data, np.ndarray) or data.ndim != 1 or not 1 <= data.size <= limits.PACK_TABLES_BYTES_MAX:
        raise PackFormatError(f"{target}: the tables must be bytes as uint8; nothing was written")
    return TensorSpec(spec.name, spec.dtype, (data.size,))


def _placed(specs: list[TensorSpec]) -> dict[str, dict[str, Any]]:
    """Header entries of all tensors, padding included, in file order."""
    by_name = {spec.name: spec for spec in specs}
    entries: dict[str, dict[str, Any]] = {}
    position = 0
    for name in layout.with_padding([(spec.name, layout.nbytes(spec)) for spec in specs]):
        spec = by_name.get(name) or TensorSpec(name, "U8", (-position % layout.ALIGNMENT,))
        end = position + layout.nbytes(spec)
        entries[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [position, end]}
        position = end
    return entries


def _check_values(spec: TensorSpec, values: Array, target: Path) -> None:
    """Refuse to write what no reader would take."""
    if spec.dtype != "U8" and not np.isfinite(container.to_float32(values, spec.dtype)).all():
        raise PackFormatError(f"{target}: tensor {spec.name} holds NaN or infinity; an older file is untouched")
    if spec.name.endswith(".scale") and not values[0] > 0:
        raise PackFormatError(f"{target}: {spec.name} must be above zero; an older file is untouched")
    if spec.name in layout.SCREEN_BOUNDS and np.signbit(values).any():
        raise PackFormatError(f"{target}: {spec.name} must not be below zero; an older file is untouched")


def _row_chunks(array: Array) -> Iterator[Array]:
    row_bytes = max(1, array.nbytes // max(1, array.shape[0]))
    rows = max(1, limits.PACK_CHUNK_BYTES // row_bytes)
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]


def _write_at(descriptor: int, place: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(descriptor, rest, place)
        rest, place = rest[written:], place + written


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
