"""How ggml's tensor types hold numbers, for the types that ternary models are shipped in.

| type  | id | block           | bytes     | holds                                                               |
|-------|----|-----------------|-----------|---------------------------------------------------------------------|
| F32, F16, BF16 | 0, 1, 30 | 1   | 4, 2, 2   | the number                                                          |
| Q8_0  |  8 | 32              | 34        | f16 d; int8 q: d * q                                                |
| Q4_K  | 12 | 256             | 144       | f16 d, dmin; 8 pairs of 6 bits (sc, m); nibbles q: d * sc * q - dmin * m |
| Q6_K  | 14 | 256             | 210       | low nibbles, high bit pairs, 16 int8 sc, f16 d: d * sc * (q - 32)   |
| TQ1_0 | 34 | 256             | 54        | 32 + 16 bytes of five trits, 4 bytes of four, f16 d                 |
| TQ2_0 | 35 | 256             | 66        | 64 bytes of four codes, f16 d                                       |
| I2_S  | 36 | the whole tensor| n/4 + 32  | codes; then one f32 scale and 28 bytes of nothing                   |

I2_S is of bitnet.cpp's fork of llama.cpp; mainline does not know it. Its codes 0, 1, 2 mean -1, 0, 1 as in TQ2_0, and a
weight is code * scale. How four codes share a byte depends on the build that made the file (bitnet.cpp
src/ggml-bitnet-mad.cpp, quantize_i2_s), and nothing in the file says which it was:

| order    | made by                                | byte i holds, from the highest two bits down                  |
|----------|----------------------------------------|---------------------------------------------------------------|
| x86      | x86 builds, and the Python converters  | of each 128 weights in a row: i, i+32, i+64, i+96 (32 bytes)  |
| arm      | ARM builds                             | of each 64 weights in a row: i, i+16, i+32, i+48 (16 bytes)   |
| x86-rows | x86 builds with ACT_PARALLEL undefined | column i of four neighbouring rows, the first one highest     |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from nis_edge.pack.ternary import Float32Array, Int8Array, UInt8Array

I2sOrder = Literal["x86", "arm", "x86-rows"]
I2S_ORDERS: Final[tuple[I2sOrder, ...]] = get_args(I2sOrder)

I2S_TAIL_BYTES: Final = 32
"""After an I2_S tensor's codes: the scale (f32), and what aligns the next tensor."""


@dataclass(frozen=True)
class BlockType:
    """A ggml tensor type.

    Attributes:
        name: as ggml writes it.
        number: ggml's id.
        block: weights in one block.
        block_bytes: bytes of one block; of I2_S, a quarter of a byte per weight stands in ``nbytes``.
    """

    name: str
    number: int
    block: int
    block_bytes: int

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of that shape."""
        count = math.prod(shape)
        if self.name == "I2_S":
            return count // 4 + I2S_TAIL_BYTES
        return count // self.block * self.block_bytes


TYPES: Final[Mapping[int, BlockType]] = MappingProxyType(
    {
        kind.number: kind
        for kind in (
            BlockType("F32", 0, 1, 4),
            BlockType("F16", 1, 1, 2),
            BlockType("Q8_0", 8, 32, 34),
            BlockType("Q4_K", 12, 256, 144),
            BlockType("Q6_K", 14, 256, 210),
            BlockType("BF16", 30, 1, 2),
            BlockType("TQ1_0", 34, 256, 54),
            BlockType("TQ2_0", 35, 256, 66),
            BlockType("I2_S", 36, 4, 1),
        )
    }
)

TERNARY_BLOCKS: Final = ("TQ1_0", "TQ2_0")

_POWERS: Final = np.array([1, 3, 9, 27, 81], dtype=np.uint8)


def ternary_blocks(name: str, raw: UInt8Array) -> tuple[Int8Array, Float32Array]:
    """Codes and scales of ternary blocks.

    Args:
        name: TQ1_0 or TQ2_0.
        raw: uint8 [blocks * bytes of a block].

    Returns:
        int8 [blocks, 256], and the real weight of code 1 of each block, float32 [blocks]. A stored code 3 of TQ2_0
        comes back as 2.
    """
    if name == "TQ1_0":
        blocks = raw.reshape(-1, 54)
        parts = [_trits(blocks[:, :32], 5), _trits(blocks[:, 32:48], 5), _trits(blocks[:, 48:52], 4)]
        codes = np.concatenate(parts, axis=1)
    else:
        blocks = raw.reshape(-1, 66)
        halves = blocks[:, :64].reshape(-1, 2, 1, 32)
        shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1)
        codes = ((halves >> shifts & 3).astype(np.int8) - np.int8(1)).reshape(-1, 256)
    scales = np.ascontiguousarray(blocks[:, -2:]).view("<f2").astype(np.float32).reshape(-1)
    return codes, scales


def _trits(packed: UInt8Array, count: int) -> Int8Array:
    """Trits of bytes that hold a fraction in base 3, rounded up: [blocks, width] -> [blocks, count * width]."""
    shifted = packed[:, None, :] * _POWERS[:count].reshape(1, count, 1)  # modulo 256: the leading trits fall off
    trits: Int8Array = (shifted.astype(np.uint16) * 3 >> 8).astype(np.int8) - np.int8(1)
    return trits.reshape(packed.shape[0], -1)


def i2s_matrix(raw: UInt8Array, shape: tuple[int, int], order: I2sOrder) -> Int8Array:
    """Codes of an I2_S tensor.

    Args:
        raw: uint8 [rows * columns / 4 + 32].
        shape: rows and columns; columns a multiple of the order's block, rows of 4 for x86-rows.
        order: how four codes share a byte.

    Returns:
        int8 [rows, columns]; a stored code 3 comes back as 2.
    """
    rows, columns = shape
    packed = raw[: rows * columns // 4]
    codes = np.empty((rows, columns), dtype=np.int8)
    if order == "x86-rows":
        four_rows = packed.reshape(rows // 4, columns)
        for quarter in range(4):
            codes[quarter::4] = four_rows >> (6 - 2 * quarter) & 3
    else:
        width = 32 if order == "x86" else 16
        blocks = packed.reshape(rows, columns // (4 * width), width)
        target = codes.reshape(rows, columns // (4 * width), 4, width)
        for quarter in range(4):
            target[:, :, quarter] = blocks >> (6 - 2 * quarter) & 3
    codes -= 1
    return codes


def i2s_block(order: I2sOrder) -> tuple[int, int]:
    """What rows and columns of an I2_S matrix must be multiples of."""
    return {"x86": (1, 128), "arm": (1, 64), "x86-rows": (4, 1)}[order]


def i2s_scale(raw: UInt8Array) -> float:
    """The scale behind an I2_S tensor's codes."""
    return float(raw[-I2S_TAIL_BYTES:].view("<f4")[0])


def real_rows(name: str, raw: UInt8Array) -> Float32Array:
    """Real numbers of blocks that hold no ternary codes, in ggml's own order of operations (float32).

    Args:
        name: F32, F16, BF16, Q8_0, Q4_K or Q6_K.
        raw: uint8, whole blocks.

    Returns:
        float32 [weights].
    """
    match name:
        case "F32":
            return raw.view("<f4").astype(np.float32, copy=False)
        case "F16":
            return raw.view("<f2").astype(np.float32)
        case "BF16":
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        case "Q8_0":
            blocks = raw.reshape(-1, 34)
            return (_half(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(-1)
        case "Q4_K":
            return _q4_k(raw.reshape(-1, 144))
        case "Q6_K":
            return _q6_k(raw.reshape(-1, 210))
    raise AssertionError(name)


def _half(pair: npt.NDArray[Any]) -> Float32Array:
    """Two bytes as an f16: [blocks, 2] -> float32 [blocks, 1]."""
    return np.ascontiguousarray(pair).view("<f2").astype(np.float32)


def _q4_k(blocks: UInt8Array) -> Float32Array:
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], axis=1).astype(np.float32)  # [blocks, 8]
    minima = np.concatenate([middle & 63, high >> 4 | middle >> 2 & 48], axis=1).astype(np.float32)
    step = (_half(blocks[:, :2]) * scales)[:, :, None]
    floor = (_half(blocks[:, 2:4]) * minima)[:, :, None]
    pairs = blocks[:, 16:].reshape(-1, 4, 1, 32)  # 32 bytes hold 64 weights: the low nibbles, then the high ones
    nibbles = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    return (step * nibbles - floor).reshape(-1)


def _q6_k(blocks: UInt8Array) -> Float32Array:
    halves = blocks[:, :128].reshape(-1, 2, 1, 64)  # 64 bytes hold 128 weights
    low = np.concatenate([halves & 15, halves >> 4], axis=2).reshape(-1, 8, 32)
    pairs = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    high = np.concatenate([pairs >> shift & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(-1, 8, 32)
    numbers = ((low | high << 4).astype(np.int8) - np.int8(32)).reshape(-1, 16, 16).astype(np.float32)
    step = _half(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)  # [blocks, 16]
    real: Float32Array = step[:, :, None] * numbers
    return real.reshape(-1)
