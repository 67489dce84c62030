"""Ternary matrices: the canonical packed layout, and the rule that makes ternary weights out of real ones.

The layout is the same whoever packed it. Rows are padded to a multiple of 8 and columns to a multiple of 64, with zero
weights. A code is the value plus one (0, 1, 2) in two bits. One unit of 16 bytes holds 64 columns of one row: its byte
j holds columns j, j+16, j+32 and j+48 at bits 0-1, 2-3, 4-5 and 6-7. Units stand in the order [row block of 8][column
group of 64][row in the block], so 128 bytes that lie together serve 8 rows and 64 columns.

What a kernel does with these bytes is the engine's business; what a file is allowed to claim is the reader's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nis_edge.errors import PackFormatError

ROW_BLOCK: Final = 8
"""Rows interleaved in one block."""

COLUMN_GROUP: Final = 64
"""Columns in one unit."""

UNIT_BYTES: Final = 16
"""Bytes of one unit: 64 codes of two bits."""

BLOCK_BYTES: Final = ROW_BLOCK * UNIT_BYTES
"""Bytes of 8 rows x 64 columns."""

ABSMEAN_FLOOR: Final = np.float32(1e-5)
"""Least mean magnitude of a matrix (transformers, integrations/bitnet.py, WeightQuant: clamp_(min=1e-5))."""

Int8Array = npt.NDArray[np.int8]
UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TernaryMatrix:
    """A packed matrix of weights ``code * scale``, code in {-1, 0, 1}.

    Attributes:
        packed: uint8 [row blocks, column groups, 128], the canonical layout.
        rows: outputs, before padding.
        columns: inputs, before padding.
        scale: the real weight of code 1, finite and above zero.
    """

    packed: UInt8Array
    rows: int
    columns: int
    scale: float

    @classmethod
    def from_codes(cls, codes: npt.NDArray[Any], scale: float) -> TernaryMatrix:
        """Pack codes.

        Args:
            codes: integers [rows, columns] in {-1, 0, 1}.
            scale: the real weight of code 1.
        """
        rows, columns = codes.shape
        return cls(pack_ternary(codes), int(rows), int(columns), float(scale))

    @classmethod
    def from_weights(cls, weights: npt.NDArray[Any]) -> TernaryMatrix:
        """Make real weights ternary by the absmean rule (see ``quantise_absmean``) and pack them.

        Args:
            weights: real numbers [rows, columns].
        """
        codes, scale = quantise_absmean(weights)
        return cls.from_codes(codes, scale)

    def weights(self) -> Float32Array:
        """The real weights, float32 [rows, columns]."""
        real: Float32Array = unpack_ternary(self.packed, self.rows, self.columns).astype(np.float32)
        real *= np.float32(self.scale)
        return real


def packed_shape(rows: int, columns: int) -> tuple[int, int, int]:
    """Shape of the packed uint8 tensor of a [rows, columns] matrix: (row blocks, column groups, 128)."""
    return -(-rows // ROW_BLOCK), -(-columns // COLUMN_GROUP), BLOCK_BYTES


def pack_ternary(codes: npt.NDArray[Any]) -> UInt8Array:
    """Pack ternary codes into the canonical layout.

    Args:
        codes: integers [rows, columns] in {-1, 0, 1}.

    Returns:
        uint8 [row blocks, column groups, 128], C order.

    Raises:
        PackFormatError: codes of another rank or range; the builder of the model acts.
    """
    values = np.asarray(codes)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 1 or values.dtype.kind not in "iu":
        raise PackFormatError(
            f"ternary codes must be integers [rows, columns], got {values.dtype} {list(values.shape)}"
        )
    if values.min() < -1 or values.max() > 1:
        raise PackFormatError("ternary codes must be -1, 0 or 1, found others; nothing was packed")
    rows, columns = values.shape
    blocks, groups, _ = packed_shape(rows, columns)
    padded = np.ones((blocks * ROW_BLOCK, groups * COLUMN_GROUP), dtype=np.uint8)
    padded[:rows, :columns] = values.astype(np.int8) + 1
    # [block, row, group, quarter, j]: column = group * 64 + quarter * 16 + j
    split = padded.reshape(blocks, ROW_BLOCK, groups, 4, UNIT_BYTES)
    units = split[:, :, :, 0] | split[:, :, :, 1] << 2 | split[:, :, :, 2] << 4 | split[:, :, :, 3] << 6
    return np.ascontiguousarray(units.transpose(0, 2, 1, 3)).reshape(blocks, groups, BLOCK_BYTES)


def unpack_ternary(packed: npt.NDArray[Any], rows: int, columns: int) -> Int8Array:
    """Undo ``pack_ternary``.

    Args:
        packed: uint8 of any shape with the bytes of the canonical layout.
        rows: outputs, before padding.
        columns: inputs, before padding.

    Returns:
        int8 [rows, columns]; a stored code 3, which no packer writes, comes back as 2.

    Raises:
        PackFormatError: the number of bytes does not fit the shape.
    """
    blocks, groups, _ = packed_shape(rows, columns)
    data = np.asarray(packed, dtype=np.uint8)
    if data.size != blocks * groups * BLOCK_BYTES:
        raise PackFormatError(
            f"a packed {rows} x {columns} matrix has {blocks * groups * BLOCK_BYTES} bytes, got {data.size}"
        )
    units = data.reshape(blocks, groups, ROW_BLOCK, UNIT_BYTES)
    codes = np.empty((blocks, ROW_BLOCK, groups, 4, UNIT_BYTES), dtype=np.int8)
    for quarter in range(4):
        codes[:, :, :, quarter] = ((units >> (2 * quarter)) & 3).transpose(0, 2, 1, 3)
    codes -= 1
    return np.ascontiguousarray(codes.reshape(blocks * ROW_BLOCK, groups * COLUMN_GROUP)[:rows, :columns])


def fault_in_codes(packed: npt.NDArray[Any], rows: int, columns: int) -> str | None:
    """Scan a packed matrix for what no packer writes.

    Args:
        packed: uint8 [row blocks, column groups, 128].
        rows: outputs, before padding.
        columns: inputs, before padding.

    Returns:
        What is wrong, or None: a code 3, or padding that is not a zero weight.
    """
    if bool(np.any(packed & (packed >> 1) & 0x55)):
        return "holds the code 3, which stands for no weight"
    blocks, groups, _ = packed_shape(rows, columns)
    units = packed.reshape(blocks, groups, ROW_BLOCK, UNIT_BYTES)
    zero_units = np.uint8(0b01_01_01_01)
    used_rows = rows - (blocks - 1) * ROW_BLOCK
    if used_rows < ROW_BLOCK and bool(np.any(units[-1, :, used_rows:] != zero_units)):
        return "has padding rows that are not zero weights"
    used_columns = columns - (groups - 1) * COLUMN_GROUP
    column = np.arange(4)[:, None] * UNIT_BYTES + np.arange(UNIT_BYTES)
    # Two bits set where a column of the last group is padding: there the code must be 1.
    mask = np.bitwise_or.reduce(np.where(column >= used_columns, 3 << (2 * np.arange(4)[:, None]), 0)).astype(np.uint8)
    if bool(np.any(units[:, -1] & mask != zero_units & mask)):
        return "has padding columns that are not zero weights"
    return None


def quantise_absmean(weights: npt.NDArray[Any]) -> tuple[Int8Array, float]:
    """Ternary codes and scale of real weights: s = mean(abs(W)), code = clamp(round(W / s), -1, 1).

    The arithmetic is that of transformers' ``WeightQuant``: W in float32 times the float32 reciprocal of the mean,
    rounded half to even. The mean is summed in double precision, so that the result does not depend on the order.

    Args:
        weights: real numbers [rows, columns], finite.

    Returns:
        int8 [rows, columns], and the scale (the real weight of code 1) rounded to float32.

    Raises:
        PackFormatError: a weight is NaN or infinite; whoever trained the model acts.
    """
    values = np.asarray(weights, dtype=np.float32)
    mean = np.float32(np.mean(np.abs(values), dtype=np.float64))
    if not np.isfinite(mean):
        raise PackFormatError("the weights hold NaN or infinity; the checkpoint is broken, nothing was packed")
    reciprocal = np.float32(1.0) / max(mean, ABSMEAN_FLOOR)
    codes = np.clip(np.rint(values * reciprocal), -1, 1).astype(np.int8)
    return codes, float(np.float32(1.0) / reciprocal)


def ternary_of_real(weights: npt.NDArray[Any]) -> tuple[Int8Array, float] | None:
    """Codes and scale of real weights that are ternary already: -s, 0 and s, exactly.

    Args:
        weights: real numbers [rows, columns].

    Returns:
        int8 [rows, columns] and s (1.0 for a matrix of zeros); None if other values occur.
    """
    values = np.asarray(weights, dtype=np.float32)
    scale = np.float32(max(values.max(), -values.min()))
    if not np.isfinite(scale):
        return None
    codes = (values > 0).astype(np.int8) - (values < 0).astype(np.int8)
    # In slices of rows, so that no second matrix of floats is needed.
    step = max(1, (1 << 20) // max(1, values.shape[1]))
    for start in range(0, values.shape[0], step):
        part = slice(start, start + step)
        if not np.array_equal(np.abs(values[part]), scale * (codes[part] != 0)):
            return None
    return codes, float(scale) if scale > 0 else 1.0
