"""Memory that a process freed goes back to the system, from blocks of any size seen before."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent(
    """
    import ctypes, sys
    from pathlib import Path
    from nis_edge.adapters import heap

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        sys.exit(77)
    if sys.argv[1] == "small":
        assert heap.keep_small()
    malloc, free = libc.malloc, libc.free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

    def heap_kib():
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        return sum(int(next(x for x in lines if x.startswith("Rss:")).split()[1]) for line in lines if "[heap]" in line)

    free(malloc(16 << 20))  # one large block, freed: glibc now keeps blocks up to that size in its heap
    before = heap_kib()
    blocks = [malloc(1 << 20) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    last = malloc(1000)  # stands behind them, so that the top of the heap can't shrink
    for block in blocks:
        free(block)
    print(heap_kib() - before)
    """
)


def kept_kib(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("NOT RUN: this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_blocks_go_back_to_the_system_whatever_size_was_freed_before() -> None:
    assert kept_kib("as it is") > 7 * 1024
    assert kept_kib("small") < 1024
