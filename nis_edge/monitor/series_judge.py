"""Trees that name the fault of a short series by its shape, with calibrated probabilities. Pure.

They travel beside the shipped model and are read by the roof. The bytes come from outside: they are bounded, and every
index is checked before anything is computed (see ``tables.Forest``).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from nis_edge.errors import ModelError
from nis_edge.monitor import shapes
from nis_edge.monitor.tables import Forest, ForestBytes

FORMAT: Final = 1
PACKED_MAX: Final = 4 << 20
"""Bytes of the trees, unpacked."""

TEMPERATURES: Final = (0.05, 20.0)

LABELS: Final = ("none", "stuck", "drift", "spike", "dropout", "saturation", "noise", "level_shift")

Array = np.ndarray[Any, Any]


class SeriesBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The judge as it lies in its file, in MessagePack under zlib.

    Args:
        forest: trees over ``shapes.names()``, for each of ``LABELS``.
        temperature: divisor of the scores before the softmax.
        format: of these bytes.
    """

    forest: ForestBytes
    temperature: float
    format: int = FORMAT


class SeriesJudge:
    """The judge, checked and ready. It keeps nothing between calls.

    Args:
        data: the file.

    Raises:
        ModelError: the file is damaged or of another version (the builder of the package acts).
    """

    def __init__(self, data: bytes) -> None:
        try:
            unpacker = zlib.decompressobj()
            plain = unpacker.decompress(data, PACKED_MAX)
            if not unpacker.eof or unpacker.unused_data:
                raise ModelError(f"the judge of series is cut off, too long, or has more than {PACKED_MAX} bytes")
            packed = msgspec.msgpack.decode(plain, type=SeriesBytes)
        except (zlib.error, msgspec.MsgspecError) as error:
            raise ModelError(f"the judge of series can't be read: {error}") from error
        if packed.format != FORMAT:
            raise ModelError(f"the judge of series has format {packed.format}, this version reads {FORMAT}")
        low, high = TEMPERATURES
        if not low <= packed.temperature <= high:
            raise ModelError("the judge of series has no usable temperature")
        if packed.forest.outputs != LABELS:
            raise ModelError("the judge of series does not know the faults of a series")
        self._forest = Forest(packed.forest, shapes.names())
        self._temperature = packed.temperature

    def probabilities(self, values: Sequence[float | None]) -> dict[str, float] | None:
        """How probable each of ``LABELS`` is: they sum to 1.

        Args:
            values: oldest first, None where one is missing; only the newest ``shapes.WINDOW`` are looked at.

        Returns:
            None with fewer values, or with fewer than ``shapes.PRESENT_MIN`` known ones.
        """
        window = np.array([np.nan if value is None else value for value in values[-shapes.WINDOW :]], dtype=np.float64)
        if len(window) < shapes.WINDOW or int(np.isfinite(window).sum()) < shapes.PRESENT_MIN:
            return None
        scores = self._forest.scores(shapes.numbers(window[None, :])[0]).astype(np.float64) / self._temperature
        likely = np.exp(scores - scores.max())
        return dict(zip(LABELS, (likely / likely.sum()).tolist(), strict=True))


def pack(judge: SeriesBytes) -> bytes:
    """The bytes of its file."""
    return zlib.compress(msgspec.msgpack.encode(judge), 9)
