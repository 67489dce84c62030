"""glibc's allocator, told to give back what it does not need: a daemon of months on a board of one gigabyte.

By itself glibc keeps every large block that was freed once for the next time (its threshold for a mapping of its own
grows to the largest block seen, mallopt(3)), and makes a heap for each thread. Reading a model's tables and tokenizer
would leave megabytes that nothing uses again. A record and an idle second cost no more with fixed thresholds and one
heap for all threads (bench/daemon): the engine allocates nothing while it computes, and Python's own small objects do
not come from malloc.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""malloc.h of glibc; musl has neither the function nor the habit."""

OWN_MAPPING_BYTES: Final = 128 * 1024
"""Blocks from this size on are mapped by themselves and given back when freed: glibc's first choice, held."""


def keep_small() -> bool:
    """Hold glibc to small heaps, for this process from now on; False where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES), (_M_TRIM_THRESHOLD, OWN_MAPPING_BYTES))
    return all(mallopt(name, value) == 1 for name, value in wanted)
