"""Open a package: map it read-only, believe nothing, hand out views.

What is checked when (models/FORMAT.md, "Checks"): at every open the header down to the last byte (its own hash
included), the manifest, that the tensors are exactly those the architecture demands, alignment, padding, and every
small value (norms, scales, projections). The bulk of the bytes (hash of each tensor, ternary codes, embeddings, the
tokenizer's ids) is checked by ``check_content``: at open for small packages, and by `verify` and the trial of an update
for all.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import container, layout, ternary
from nis_edge.pack.layout import Manifest, TensorSpec

Progress = Callable[[str, int], None]
"""Called with a tensor's name and its bytes once it is done."""


def open_package(path: str | os.PathLike[str], *, check_content: bool | None = None) -> Package:
    """Open a package.

    Args:
        path: the `.nis` file.
        check_content: also check hashes, codes and embeddings; None does so for packages up to 16 MiB.

    Returns:
        The open package; a context manager.

    Raises:
        PackFormatError: with the path, what is wrong and what to do. Nothing of the file was used.
    """
    file = container.MappedFile(path)
    try:
        header = container.read_header(file)
        manifest, hashes = _read_metadata(header, file.path)
        specs = _match_tensors(header, manifest, hashes, file.path)
        package = Package(file, header, manifest, hashes, specs)
        package._check_small_values()
        if check_content or (check_content is None and file.size <= limits.PACK_CHECK_AT_OPEN_BYTES_MAX):
            package.check_content()
    except BaseException:
        file.close()
        raise
    return package


class Package:
    """An open package. Made by ``open_package``.

    Attributes:
        path: the file.
        manifest: what the model is.
        size_bytes: of the file.
        specs: tensor name -> what the architecture demands of it, in file order; padding left out.
        hashes: tensor name -> SHA-256 of its bytes, as the file claims.
        tensors: tensor name -> read-only view in the map (BF16 as its bits in uint16).
    """

    def __init__(
        self,
        file: container.MappedFile,
        header: container.Header,
        manifest: Manifest,
        hashes: Mapping[str, str],
        specs: Mapping[str, TensorSpec],
    ) -> None:
        self._file = file
        self._header = header
        self._sha256: str | None = None
        self.path: Path = file.path
        self.manifest = manifest
        self.size_bytes = file.size
        self.hashes = MappingProxyType(dict(hashes))
        self.specs = MappingProxyType(dict(specs))
        self.tensors: Mapping[str, npt.NDArray[Any]] = MappingProxyType(
            {name: container.view(file, header, name) for name in specs}
        )

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; views that are still referenced stay valid."""
        self.tensors = MappingProxyType({})
        self._file.close()

    def offset(self, name: str) -> int:
        """Where a tensor's first byte stands in the file, a multiple of 64."""
        return self._header.data_start + self._header.entries[name].data_offsets[0]

    def float32(self, name: str, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """A tensor's real numbers (F32, F16 or BF16), converted; a view where it is F32 already.

        Args:
            name: of the tensor.
            rows: which rows to convert, so that an embedding need not be converted whole.
        """
        return container.to_float32(self.tensors[name][rows], self.specs[name].dtype)

    def matrix(self, name: str) -> ternary.TernaryMatrix:
        """A ternary matrix with its scale; the packed bytes are a view in the map."""
        shape = self.specs[name].matrix
        if shape is None:
            raise PackFormatError(f"{self.path}: tensor {name} is no ternary matrix")
        return ternary.TernaryMatrix(self.tensors[name], *shape, float(self.tensors[f"{name}.scale"][0]))

    @property
    def tables(self) -> bytes | None:
        """The tables for judging evidence, a copy, or None without."""
        return self.tensors["tables"].tobytes() if "tables" in self.specs else None

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the whole file; read once, then remembered."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            for start in range(0, self._file.size, limits.PACK_CHUNK_BYTES):
                digest.update(self._file.bytes_at(start, min(start + limits.PACK_CHUNK_BYTES, self._file.size)).data)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def check_content(self, progress: Progress | None = None) -> None:
        """Check the bulk of the bytes: hashes, ternary codes, finite embeddings, the tokenizer's ids.

        Args:
            progress: told of each tensor that is done.

        Raises:
            PackFormatError: naming the tensor.
        """
        for name, spec in self.specs.items():
            array = self.tensors[name]
            flat = array.reshape(-1).view(np.uint8)
            digest = hashlib.sha256()
            for chunk in _chunks(flat):
                digest.update(chunk.data)
            if digest.hexdigest() != self.hashes[name]:
                raise PackFormatError(
                    f"{self.path}: tensor {name} does not match its SHA-256; the file was damaged, fetch it again"
                )
            if spec.matrix is not None:
                fault = ternary.fault_in_codes(array, *spec.matrix)
                if fault is not None:
                    raise PackFormatError(f"{self.path}: ternary matrix {name} {fault}; pack the model again")
            elif name == "tokenizer":
                _check_tokenizer(array, self.manifest, self.path)
            elif spec.dtype != "U8":
                self._check_finite(name)
            if progress is not None:
                progress(name, flat.size)

    def _check_small_values(self) -> None:
        for name in set(self._header.entries) - set(self.specs):
            if container.view(self._file, self._header, name).any():
                raise PackFormatError(f"{self.path}: padding {name} is not zero; the file was damaged, fetch it again")
        if not self._is_small_part_finite():
            for name in self._small_names():
                self._check_finite(name)
        for name in self.specs:
            if name.endswith(".scale") and not self.tensors[name][0] > 0:
                raise PackFormatError(f"{self.path}: scale {name} is not above zero; pack the model again")
        if self.manifest.screen is not msgspec.UNSET:
            for name in layout.SCREEN_BOUNDS:
                if np.signbit(self.tensors[name]).any():
                    raise PackFormatError(f"{self.path}: tensor {name} holds numbers below zero; pack the model again")

    def _small_names(self) -> list[str]:
        """The tensors before the large ones: all of them F32."""
        return list(itertools.takewhile(lambda name: name != layout.FIRST_LARGE, self.specs))

    def _is_small_part_finite(self) -> bool:
        """Whether all numbers up to the first large tensor are finite: at once, padding too, which is zero."""
        part = self._file.bytes_at(self._header.data_start, self.offset(layout.FIRST_LARGE))
        return bool(np.isfinite(part.view("<f4")).all())

    def _check_finite(self, name: str) -> None:
        rows = max(1, limits.PACK_CHUNK_BYTES // 4 // max(1, int(np.prod(self.tensors[name].shape[1:]))))
        for start in range(0, self.tensors[name].shape[0], rows):
            if not np.isfinite(self.float32(name, slice(start, start + rows))).all():
                raise PackFormatError(f"{self.path}: tensor {name} holds NaN or infinity; the checkpoint was broken")


def _read_metadata(header: container.Header, path: Path) -> tuple[Manifest, dict[str, str]]:
    """Manifest and tensor hashes from a header that is byte for byte what the writer would have written."""
    metadata = header.metadata
    expected = {layout.MANIFEST_KEY, layout.HASHES_KEY, layout.HEADER_HASH_KEY}
    if layout.MANIFEST_KEY not in metadata:
        raise PackFormatError(
            f"{path}: is a safetensors file but no package (metadata key {layout.MANIFEST_KEY!r} is missing);"
            " make one with nis-edge pack"
        )
    if set(metadata) != expected:
        raise PackFormatError(f"{path}: metadata keys must be {', '.join(sorted(expected))}; the file is damaged")
    if layout.encode_header(header.fields) != header.raw:
        raise PackFormatError(
            f"{path}: the header is not in canonical form or does not match its own SHA-256; the file was damaged or"
            " written by another tool: fetch it again or pack the model again"
        )
    manifest_text = metadata[layout.MANIFEST_KEY]
    manifest_fields = container.parse_json(manifest_text.encode(), f"{path}: manifest")
    if container.canonical_json(manifest_fields) != manifest_text:
        raise PackFormatError(f"{path}: the manifest is not in canonical form; pack the model again")
    manifest = layout.decode_manifest(manifest_fields, f"{path}: manifest")
    hashes_text = metadata[layout.HASHES_KEY]
    hashes = container.parse_json(hashes_text.encode(), f"{path}: tensor hashes")
    if container.canonical_json(hashes) != hashes_text or not all(map(layout.is_sha256, hashes.values())):
        raise PackFormatError(f"{path}: the tensor hashes are not in canonical form; pack the model again")
    return manifest, hashes


def _match_tensors(
    header: container.Header, manifest: Manifest, hashes: Mapping[str, str], path: Path
) -> dict[str, TensorSpec]:
    """The demanded tensors, once the file holds exactly these, aligned, in order, with legal padding between."""
    entries = header.entries
    specs = {spec.name: spec for spec in layout.tensor_table(manifest)}
    present = [name for name in entries if not name.startswith(layout.PADDING_PREFIX)]
    missing = [name for name in specs if name not in entries]
    if missing:
        raise PackFormatError(
            f"{path}: lacks tensor {missing[0]} and {len(missing) - 1} more that the architecture demands"
        )
    unexpected = [name for name in present if name not in specs]
    if unexpected:
        raise PackFormatError(f"{path}: tensor {unexpected[0]!a} is no part of the architecture; pack the model again")
    if present != list(specs):
        raise PackFormatError(f"{path}: the tensors do not stand in the order of the format; pack the model again")
    if set(hashes) != set(specs):
        raise PackFormatError(f"{path}: the tensor hashes do not name the tensors of the file; pack the model again")
    for name, spec in specs.items():
        entry = entries[name]
        shape = entry.shape if spec.shape == (-1,) and len(entry.shape) == 1 else spec.shape
        if entry.dtype != spec.dtype or entry.shape != shape:
            raise PackFormatError(
                f"{path}: tensor {name} is {entry.dtype} {list(entry.shape)}, the architecture demands"
                f" {spec.dtype} {list(spec.shape)}; pack the model again"
            )
        if (header.data_start + entry.data_offsets[0]) % layout.ALIGNMENT:
            raise PackFormatError(f"{path}: tensor {name} is not aligned to {layout.ALIGNMENT} bytes; pack it again")
    if "tokenizer" in specs and not 1 <= entries["tokenizer"].nbytes <= limits.PACK_TOKENIZER_BYTES_MAX:
        raise PackFormatError(f"{path}: the tokenizer has {entries['tokenizer'].nbytes} bytes, out of bounds")
    if "tables" in specs and not 1 <= entries["tables"].nbytes <= limits.PACK_TABLES_BYTES_MAX:
        raise PackFormatError(f"{path}: the tables have {entries['tables'].nbytes} bytes, out of bounds")
    if list(entries) != layout.with_padding([(name, entries[name].nbytes) for name in present]):
        raise PackFormatError(f"{path}: the padding does not follow the format; pack the model again")
    for name in set(entries) - set(specs):
        padding = entries[name]
        if padding.dtype != "U8" or len(padding.shape) != 1 or padding.nbytes >= layout.ALIGNMENT:
            raise PackFormatError(f"{path}: padding {name} does not follow the format; pack the model again")
    return specs


def _check_tokenizer(data: npt.NDArray[Any], manifest: Manifest, path: Path) -> None:
    """The tokenizer's ids must be rows of the embedding."""
    fields = container.parse_json(data.tobytes(), f"{path}: tokenizer")
    fault = tokenizer_fault(fields, manifest.architecture.vocab)
    if fault is not None:
        raise PackFormatError(f"{path}: the tokenizer {fault}; take the tokenizer that belongs to this model")


def tokenizer_fault(fields: Mapping[str, Any], vocab: int) -> str | None:
    """What is wrong between a parsed tokenizer.json and a vocabulary size, or None."""
    model = fields.get("model")
    if not isinstance(model, dict):
        return "has no model section"
    words = model.get("vocab")
    added = fields.get("added_tokens") or []
    try:
        # Unigram lists [piece, score] pairs, whose id is the position; the others map piece to id.
        ids = list(words.values()) if isinstance(words, dict) else list(range(len(words or [])))
        ids += [token["id"] for token in added]
        highest = max(ids, default=-1)
        if highest >= vocab or min(ids, default=0) < 0:
            return f"knows the token id {highest}, but the model has a vocabulary of {vocab}"
    except (TypeError, KeyError):
        return "has no readable vocabulary"
    return None


def _chunks(data: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, data.size, limits.PACK_CHUNK_BYTES):
        yield data[start : start + limits.PACK_CHUNK_BYTES]
