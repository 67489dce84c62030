"""The output head's screen in a package: made when packing, made again when checking; the engine only maps it.

The bytes are the engine's own (`nis_screen_make`), the same on every instruction set; there is no second definition of
them here. What a screen is for: nis_edge/native/head.c. What of it is trusted, and why:
docs/decisions/0017-screen-in-the-package.md.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.engine import library
from nis_edge.errors import PackFormatError
from nis_edge.pack import container, layout
from nis_edge.pack.layout import Manifest, ScreenInfo
from nis_edge.pack.reader import Package
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import Source

Array = npt.NDArray[Any]

BOUNDS: Final = 5
"""Scale, norm and three errors of a row."""


@dataclass(frozen=True)
class Rows:
    """The screen of some rows of a head.

    Attributes:
        planes: nibbles, ones and halves, each uint8 [rows, bytes of a row].
        bounds: float32 [5, rows]: scales, norms, and the errors of three levels.
    """

    planes: tuple[Array, Array, Array]
    bounds: npt.NDArray[np.float32]


def pays(manifest: Manifest) -> bool:
    """Whether the engine reads this head through a screen unless it is told otherwise."""
    shape = manifest.architecture
    dtype = library.DTYPES[_dtype(manifest)]
    return bool(library.load().nis_screen_pays(shape.vocab, shape.hidden, dtype))


def with_screen(manifest: Manifest, tensors: Mapping[str, Source]) -> tuple[Manifest, dict[str, Source]]:
    """A package's parts with the head's screen among them.

    The head is read four times, some rows at a time, when the tensors are written; only the bounds, 20 bytes a row,
    stay in memory.

    Args:
        manifest: of a package whose head has 8 to 65536 columns.
        tensors: its tensors, as ``write_package`` takes them.

    Returns:
        The manifest that says so, and the tensors with those of the screen.
    """
    screened = msgspec.structs.replace(manifest, screen=ScreenInfo("planes-4-1-1"))
    head = tensors[layout.head_name(manifest)]

    @functools.cache
    def bounds() -> npt.NDArray[np.float32]:
        return np.concatenate([made.bounds for made in _made(manifest, head)], axis=1)

    def plane(index: int) -> Callable[[], Iterator[Array]]:
        return lambda: (made.planes[index] for made in _made(manifest, head))

    sources: dict[str, Source] = {
        "screen.scales": lambda: bounds()[0],
        "screen.norms": lambda: bounds()[1],
        "screen.errors": lambda: bounds()[2:],
        "screen.nibbles": plane(0),
        "screen.ones": plane(1),
        "screen.halves": plane(2),
    }
    return screened, {**tensors, **sources}


def check(package: Package) -> None:
    """Make a package's screen again from its head and compare every byte; nothing to do for a package without one.

    Args:
        package: open, its content checked.

    Raises:
        PackFormatError: they differ, so that tokens chosen through the screen could be wrong.
    """
    if package.manifest.screen is msgspec.UNSET:
        return
    tensors = package.tensors
    planes = [tensors[f"screen.{name}"] for name in library.SCREEN_PLANES]
    bounds = np.vstack([tensors["screen.scales"], tensors["screen.norms"], tensors["screen.errors"]])
    start = 0
    for made in _made(package.manifest, tensors[layout.head_name(package.manifest)]):
        rows = slice(start, start + made.bounds.shape[1])
        start = rows.stop
        pairs = [(bounds[:, rows], made.bounds)]
        pairs += [(plane[rows], again) for plane, again in zip(planes, made.planes, strict=True)]
        if not all(np.array_equal(packed, again) for packed, again in pairs):
            raise PackFormatError(
                f"{package.path}: the screen of the output head is not what the head gives (rows {rows.start} to"
                f" {rows.stop - 1}); don't use this package: pack the model again"
            )


def make(head: Array, dtype: str, *, first: int = 0, isa: str | None = None) -> Rows:
    """The screen of some rows.

    Args:
        head: [rows, hidden] in the stored dtype (BF16 as its bits in uint16), hidden 8 to 65536.
        dtype: F32, F16 or BF16.
        first: number of the first of the rows, for the message.
        isa: name of an instruction set; None takes the best this CPU offers. The bytes don't depend on it.

    Raises:
        PackFormatError: a row holds NaN or infinity, or is longer than a float32 can say.
    """
    count, hidden = head.shape
    rows = np.ascontiguousarray(head, dtype=container.DTYPES[dtype])
    columns = -(-hidden // layout.SCREEN_COLUMNS) * layout.SCREEN_COLUMNS
    widths = (columns // 2, columns // 8, columns // 8)
    nibbles, ones, halves = (np.empty((count, width), dtype=np.uint8) for width in widths)
    bounds = np.empty((BOUNDS, count), dtype=np.float32)
    scale, norm, *errors = (bounds[kind].ctypes.data for kind in range(BOUNDS))
    places = library.ScreenPlaces(
        nibbles.ctypes.data, ones.ctypes.data, halves.ctypes.data, scale, norm, (ctypes.c_void_p * 3)(*errors)
    )
    failed = ctypes.c_size_t()
    status = library.load().nis_screen_make(
        isa.encode() if isa else None,
        rows.ctypes.data,
        library.DTYPES[dtype],
        count,
        hidden,
        ctypes.byref(places),
        ctypes.byref(failed),
    )
    if status == library.NOT_FINITE:
        row = first + failed.value
        raise PackFormatError(
            f"row {row} of the output head holds NaN or infinity; the checkpoint is broken, an older file is untouched"
        )
    if status != library.OK:
        raise library.error_of(status, "the screen of the output head")
    if not np.isfinite(bounds).all():
        row = first + int(np.isfinite(bounds).all(axis=0).argmin())
        raise PackFormatError(
            f"row {row} of the output head is longer than float32 can say; pack without a screen (--no-screen);"
            " an older file is untouched"
        )
    return Rows((nibbles, ones, halves), bounds)


def _dtype(manifest: Manifest) -> str:
    stored = manifest.quantisation
    return stored.embed if manifest.architecture.tied_head else str(stored.head)


def _made(manifest: Manifest, head: Source) -> Iterator[Rows]:
    """The screen of a head, a few megabytes of rows at a time."""
    source = head() if callable(head) else head
    assert not isinstance(source, TernaryMatrix)
    step = max(1, limits.PACK_CHUNK_BYTES // (4 * manifest.architecture.hidden))
    first = 0
    for chunk in [source] if isinstance(source, np.ndarray) else source:
        for start in range(0, chunk.shape[0], step):
            made = make(chunk[start : start + step], _dtype(manifest), first=first)
            first += made.bounds.shape[1]
            yield made
            if first > manifest.architecture.vocab:
                return  # more rows than there should be: the writer refuses them
