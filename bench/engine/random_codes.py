"""Bytes of random ternary codes, the same for every file format of the bench: four 2-bit codes, each 0, 1 or 2."""

from __future__ import annotations

import numpy as np

_VALID_BYTES = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)],
    dtype=np.uint8,
)


def random_code_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of that shape; every byte holds four valid codes."""
    return _VALID_BYTES[rng.integers(0, len(_VALID_BYTES), shape, dtype=np.uint8)]
