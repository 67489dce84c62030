"""The screen of an output head as a package carries it: held against its definition, read here from the text alone.

The oracle is numpy in double precision over the stored rows: it takes the planes apart as models/FORMAT.md says, and
asks of the bounds what head.c's proof needs and that they are no looser than they must be.
"""

from __future__ import annotations

import numpy as np
import pytest

from nis_edge.engine import head_screen
from nis_edge.errors import PackFormatError
from nis_edge.pack.container import to_float32
from tests.kernels import probe

WIDTHS = [8, 9, 63, 64, 255, 256, 257, 511, 512, 2560]


def codes_of(rows: head_screen.Rows, hidden: int) -> list[np.ndarray]:
    """What each level says of a row, in half codes: the middle of the codes that it leaves open. [rows, hidden]."""
    nibbles, ones, halves = (plane.astype(np.int64) for plane in rows.planes)
    count = nibbles.shape[0]
    four = np.empty((count, nibbles.shape[1] // 64, 2, 64), dtype=np.int64)
    four[:, :, 0], four[:, :, 1] = (nibbles.reshape(count, -1, 64) & 15), (nibbles.reshape(count, -1, 64) >> 4)
    four = four.reshape(count, -1)[:, :hidden]
    bits = []
    for plane in (ones, halves):
        groups = plane.reshape(count, -1, 1, 32) >> np.arange(8)[None, None, :, None] & 1
        bits.append(groups.reshape(count, -1)[:, :hidden])
    return [
        2 * (4 * four + 2) - 64,
        2 * (4 * four + 2 * bits[0] + 1) - 64,
        2 * (4 * four + 2 * bits[0] + bits[1]) + 1 - 64,
    ]


def heads(dtype: str, hidden: int, rows: int = 40) -> np.ndarray:
    """Rows that are bell-shaped, with outliers, one-hot, zero, tiny and huge, in the stored dtype."""
    random = np.random.default_rng(hidden)
    head = random.standard_normal((rows, hidden)).astype(np.float32)
    head[1] = 0.0
    head[2] = np.eye(1, hidden, hidden // 2, dtype=np.float32)
    head[3, ::7] *= 40.0
    head[4] *= np.float32(2.0**-13)
    head[5] *= np.float32(2.0**9)
    head[6] = -1.0
    if dtype == "F32":
        head[7] *= np.float32(2.0**-140)
    if dtype == "BF16":
        return (head.view(np.uint32) >> 16).astype(np.uint16)
    return head.astype(np.float16) if dtype == "F16" else head


@pytest.mark.parametrize("hidden", WIDTHS)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_bounds_hold_and_padding_is_zero(dtype: str, hidden: int) -> None:
    head = heads(dtype, hidden)
    made = head_screen.make(head, dtype)
    real = to_float32(head, dtype).astype(np.float64)
    scales, norms, errors = made.bounds[0].astype(np.float64), made.bounds[1], made.bounds[2:]
    assert (norms >= np.linalg.norm(real, axis=1)).all()
    assert (norms <= np.linalg.norm(real, axis=1) * 1.001 + 1e-25).all()
    for level, halves_of_codes in enumerate(codes_of(made, hidden)):
        missed = np.linalg.norm(real - halves_of_codes * scales[:, None] / 2, axis=1)
        assert (errors[level] >= missed).all()
        # Zeros that fill a row up to eight columns count as missed by half a cell or less.
        filling = np.sqrt((-hidden % 8) * (2.0 ** (1 - level)) ** 2) * scales
        assert (errors[level] <= (missed + filling) * 1.001 + norms * 1e-5 + 1e-25).all()
    columns = -(-hidden // 256) * 256
    padded = codes_of(made, columns)[2][:, hidden:]
    assert (padded == -63).all()


@pytest.mark.parametrize("hidden", WIDTHS)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_instruction_set_makes_the_same_bytes_however_rows_are_grouped(dtype: str, hidden: int) -> None:
    head = heads(dtype, hidden)
    truth = head_screen.make(head, dtype, isa="scalar")
    for isa in probe.ISAS:
        for step in (40, 7):
            parts = [head_screen.make(head[start : start + step], dtype, isa=isa) for start in range(0, 40, step)]
            assert np.concatenate([part.bounds for part in parts], axis=1).tobytes() == truth.bounds.tobytes()
            for index in range(3):
                joined = np.concatenate([part.planes[index] for part in parts])
                assert joined.tobytes() == truth.planes[index].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_a_row_that_is_not_finite_is_named(dtype: str, value: float) -> None:
    head = heads(dtype, 64)
    head[33, 63] = value
    with pytest.raises(PackFormatError, match="row 1033 of the output head holds NaN or infinity"):
        head_screen.make(head, dtype, first=1000)


def test_a_row_too_long_for_a_bound_is_named() -> None:
    head = heads("F32", 64)
    head[9] = 3e38
    with pytest.raises(PackFormatError, match=r"row 9 .* pack without a screen"):
        head_screen.make(head, "F32")
