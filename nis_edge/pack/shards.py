"""A checkpoint folder's safetensors files as one map of tensors; what the tensors mean is decided by the importer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import container


class Shards:
    """The safetensors files of a checkpoint as one map of tensors."""

    def __init__(self, root: str, files: Sequence[container.MappedFile]) -> None:
        """Read the headers of mapped files.

        Args:
            root: the folder, for error messages.
            files: the mapped files; they stay the caller's to close.

        Raises:
            PackFormatError: a header is broken, or two files hold the same tensor.
        """
        self._root = root
        self._files = files
        self._places: dict[str, tuple[container.MappedFile, container.Header]] = {}
        for file in files:
            header = container.read_header(file)
            for name in header.entries:
                if name in self._places:
                    other = self._places[name][0].path.name
                    raise PackFormatError(f"{file.path}: tensor {container.shown(name)} stands in {other} too")
                self._places[name] = (file, header)

    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._places)

    def entry(self, name: str) -> container.TensorEntry:
        """What the header says of a tensor, which must be there."""
        if name not in self._places:
            raise PackFormatError(
                f"{self._root}: lacks tensor {name}; the checkpoint is incomplete or of another graph"
            )
        return self._places[name][1].entries[name]

    def where(self, name: str) -> str:
        """Where a tensor stands, for an error message."""
        return f"{self._places[name][0].path}: tensor {container.shown(name)}"

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A view of a tensor, which must have the shape (BF16 as its bits)."""
        found = self.entry(name).shape
        if found != shape:
            raise PackFormatError(f"{self.where(name)} has the shape {list(found)}, config.json demands {list(shape)}")
        file, header = self._places[name]
        return container.view(file, header, name)

    def read_float32(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A tensor's real numbers."""
        values = self.read(name, shape)
        dtype = self.entry(name).dtype
        if dtype not in ("F32", "F16", "BF16"):
            raise PackFormatError(f"{self.where(name)} is {dtype}; F32, F16 or BF16 is expected")
        return container.to_float32(values, dtype)

    def release(self, name: str) -> None:
        """A tensor has been read for the last time."""
        file, header = self._places[name]
        start, stop = header.entries[name].data_offsets
        file.release(header.data_start + start, header.data_start + stop)

    def sha256(self) -> dict[str, str]:
        """File name -> SHA-256 of its content."""
        digests = {}
        for file in self._files:
            digest = hashlib.sha256()
            for start in range(0, file.size, limits.PACK_CHUNK_BYTES):
                stop = min(start + limits.PACK_CHUNK_BYTES, file.size)
                digest.update(file.bytes_at(start, stop).data)
                file.release(start, stop)
            digests[file.path.name] = digest.hexdigest()
        return digests
