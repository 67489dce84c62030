"""Asks the kernel whether its clock is disciplined by a time source. Reads only; needs no privilege."""

from __future__ import annotations

import ctypes
from typing import Final

TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""

TIMEX_BYTES: Final = 512
"""struct timex has 208 bytes on 64-bit Linux; mode 0 (its first field) makes the call a pure read."""


def clock_is_synchronised() -> bool:
    """Whether NTP, PTP or the like disciplines this clock; False where the kernel cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    state = int(adjtimex(buffer))
    return 0 <= state < TIME_ERROR
