"""Single kernels of the engine called with numpy arrays (nis_edge/native/nis_probe.h)."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p

import numpy as np

from nis_edge.engine import library
from nis_edge.pack.ternary import pack_ternary

ISAS = library.offered_isas()

_LIBRARY = library.load()
_DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}  # uint16: bits of bfloat16


def call(name: str, *arguments: object) -> None:
    """Call a probe; anything but NIS_OK fails the test."""
    function = getattr(_LIBRARY, name)
    function.restype = c_int
    status = function(*arguments)
    assert status == library.OK, f"{name}: {_LIBRARY.nis_status_text(status).decode()}"


def pointer(array: np.ndarray) -> c_void_p:
    assert array.flags.c_contiguous
    return c_void_p(array.ctypes.data)


def matmul(isa: str, weights: np.ndarray, activations: np.ndarray, name: str = "nis_probe_matmul") -> np.ndarray:
    """int32 [tokens, rows] = activations int8 [tokens, columns] times weights int8 [rows, columns]."""
    return packed_matmul(isa, pack_ternary(weights), *weights.shape, activations, name)


def packed_matmul(
    isa: str, packed: np.ndarray, rows: int, columns: int, activations: np.ndarray, name: str = "nis_probe_matmul"
) -> np.ndarray:
    tokens = activations.shape[0]
    padded = np.zeros((tokens, -(-columns // 64) * 64), dtype=np.int8)
    padded[:, :columns] = activations
    sums = np.full((tokens, -(-rows // 8) * 8), 0x7EADBEEF, dtype=np.int32)
    packed = np.ascontiguousarray(packed)
    sizes = (c_size_t(rows), c_size_t(columns))
    call(name, c_char_p(isa.encode()), pointer(packed), *sizes, pointer(padded), c_size_t(tokens), pointer(sums))
    return sums[:, :rows]


def quantise(isa: str, x: np.ndarray) -> tuple[np.ndarray, float, int]:
    values, scale, total = np.empty(x.size, dtype=np.int8), c_float(), c_int32()
    outputs = (pointer(values), ctypes.byref(scale), ctypes.byref(total))
    call("nis_probe_quantise", isa.encode(), pointer(x), c_size_t(x.size), *outputs)
    return values, scale.value, total.value


def sum_of_squares(isa: str, x: np.ndarray) -> float:
    total = c_float()
    call("nis_probe_sum_of_squares", isa.encode(), pointer(x), c_size_t(x.size), ctypes.byref(total))
    return total.value


def exponentials(isa: str, x: np.ndarray, maximum: float) -> tuple[np.ndarray, float]:
    values, total = x.copy(), c_float()
    last = (c_float(maximum), ctypes.byref(total))
    call("nis_probe_exponentials", isa.encode(), pointer(values), c_size_t(values.size), *last)
    return values, total.value


def silu_times(isa: str, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    values = gate.copy()
    call("nis_probe_silu_times", isa.encode(), pointer(values), pointer(up), c_size_t(values.size))
    return values


def dot_rows(isa: str, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    dots = np.empty(rows.shape[0], dtype=np.float32)
    sizes = (c_int(_DTYPES[rows.dtype]), c_size_t(rows.shape[0]), c_size_t(rows.shape[1]))
    call("nis_probe_dot_rows", isa.encode(), pointer(x), pointer(rows), *sizes, pointer(dots))
    return dots


def weighted_sum(isa: str, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    total = np.empty(rows.shape[1], dtype=np.float32)
    sizes = (c_int(_DTYPES[rows.dtype]), c_size_t(rows.shape[0]), c_size_t(rows.shape[1]))
    call("nis_probe_weighted_sum", isa.encode(), pointer(weights), pointer(rows), *sizes, pointer(total))
    return total


def rope(theta: float, head_dim: int, position: int) -> tuple[np.ndarray, np.ndarray]:
    cosines, sines = np.empty(head_dim // 2, dtype=np.float32), np.empty(head_dim // 2, dtype=np.float32)
    arguments = (c_double(theta), c_uint32(head_dim), c_uint32(position))
    call("nis_probe_rope", *arguments, pointer(cosines), pointer(sines))
    return cosines, sines
