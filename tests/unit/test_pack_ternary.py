"""The packed ternary layout against a definition written out bit by bit, and the absmean rule."""

import numpy as np
import pytest

from nis_edge.errors import PackFormatError
from nis_edge.pack.ternary import (
    TernaryMatrix,
    fault_in_codes,
    pack_ternary,
    packed_shape,
    quantise_absmean,
    unpack_ternary,
)

SHAPES = [(1, 1), (8, 64), (7, 63), (9, 65), (16, 128), (3, 200), (40, 17), (33, 129)]


def random_codes(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, size=(rows, columns), dtype=np.int8)


def code_at(packed: np.ndarray, columns: int, row: int, column: int) -> int:
    """The stored value of one weight, straight from the rule in models/FORMAT.md."""
    groups = (columns + 63) // 64
    unit = ((row // 8) * groups + column // 64) * 8 + row % 8
    within = column % 64
    byte = packed.reshape(-1)[unit * 16 + within % 16]
    return (int(byte) >> (2 * (within // 16)) & 3) - 1


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_each_weight_stands_where_the_format_says_and_padding_is_zero(rows, columns):
    codes = random_codes(rows, columns)
    packed = pack_ternary(codes)
    blocks, groups, _ = packed_shape(rows, columns)
    for row in range(blocks * 8):
        for column in range(groups * 64):
            expected = codes[row, column] if row < rows and column < columns else 0
            assert code_at(packed, columns, row, column) == expected


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_unpacking_gives_back_what_was_packed(rows, columns):
    codes = random_codes(rows, columns)
    packed = pack_ternary(codes)
    assert packed.shape == packed_shape(rows, columns)
    assert np.array_equal(unpack_ternary(packed, rows, columns), codes)
    assert np.array_equal(unpack_ternary(packed.reshape(-1), rows, columns), codes)
    assert fault_in_codes(packed, rows, columns) is None


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_a_code_3_and_dirty_padding_are_found_wherever_they_stand(rows, columns):
    clean = pack_ternary(random_codes(rows, columns)).reshape(-1)
    groups = (columns + 63) // 64
    places = [(0, 0), (rows - 1, columns - 1), (rows, 0), (0, columns), (rows, columns)]
    for row, column in places:
        if row >= (rows + 7) // 8 * 8 or column >= groups * 64:
            continue
        unit = ((row // 8) * groups + column // 64) * 8 + row % 8
        index, shift = unit * 16 + column % 64 % 16, 2 * (column % 64 // 16)
        is_padding = row >= rows or column >= columns
        for code in (0, 2, 3):
            dirty = clean.copy()
            dirty[index] = dirty[index] & ~np.uint8(3 << shift) | np.uint8(code << shift)
            fault = fault_in_codes(dirty.reshape(packed_shape(rows, columns)), rows, columns)
            if code == 3:
                assert fault is not None and "code 3" in fault
            elif is_padding:
                assert fault is not None and "padding" in fault
            else:
                assert fault is None


@pytest.mark.parametrize(
    "codes",
    [
        np.array([[2]], dtype=np.int8),
        np.array([[-2]], dtype=np.int8),
        np.array([[127]], dtype=np.int8),
        np.array([[0.5]], dtype=np.float32),
        np.zeros((0, 4), dtype=np.int8),
        np.zeros(4, dtype=np.int8),
    ],
)
def test_codes_that_are_not_ternary_are_refused(codes):
    with pytest.raises(PackFormatError):
        pack_ternary(codes)


def test_a_wrong_number_of_packed_bytes_is_refused():
    with pytest.raises(PackFormatError, match="has 128 bytes, got 64"):
        unpack_ternary(np.zeros(64, dtype=np.uint8), 8, 64)


def test_absmean_rounds_half_to_even_and_scales_by_the_mean_magnitude():
    # mean(abs) = 1: 0.5 rounds to 0, 1.5 clamps to 1, 0.75 to 1, -2 clamps to -1.
    weights = np.array([[0.5, 1.5, 0.75, -2.0, 0.25]], dtype=np.float32)
    codes, scale = quantise_absmean(weights)
    assert codes.tolist() == [[0, 1, 1, -1, 0]]
    assert scale == 1.0


def test_absmean_of_zeros_keeps_the_floor_and_of_nan_refuses():
    codes, scale = quantise_absmean(np.zeros((2, 2), dtype=np.float32))
    assert not codes.any()
    assert scale == pytest.approx(1e-5)
    for bad in (np.nan, np.inf):
        with pytest.raises(PackFormatError, match="NaN or infinity"):
            quantise_absmean(np.array([[1.0, bad]], dtype=np.float32))


def test_a_matrix_of_real_weights_keeps_signs_and_one_magnitude():
    weights = np.random.default_rng(1).standard_normal((10, 70)).astype(np.float32)
    real = TernaryMatrix.from_weights(weights).weights()
    assert len(np.unique(np.abs(real))) == 2
    assert not np.any(real * weights < 0)
