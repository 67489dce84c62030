"""Single kernels of the engine on this machine, interleaved: billions of weights or gigabytes per second.

    python -m bench.kernels [--rounds N] [--json FILE]

Times are CPU time of this thread, so that a busy neighbour takes less from a figure; memory bandwidth is still shared.
A figure is the median over rounds with its range; only ratios within one run mean anything on another day.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.kernels import probe

ROWS, COLUMNS = 6912, 2560
"""The largest matrix of the 2b4t shape: 4.4 MB packed."""

COPIES = 24
"""Matrices gone through in turn so that each comes from DRAM: 106 MB, beyond every cache here."""

HEAD_BYTES = 128 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    contestants = dict(gemv_contestants() | gemm_contestants() | head_contestants())
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.rounds):
        for name, measure in contestants.items():
            samples[name].append(measure())
    rows = {
        name: {"median": round(statistics.median(v), 2), "lowest": round(min(v), 2), "highest": round(max(v), 2)}
        for name, v in samples.items()
    }
    width = max(map(len, rows))
    for name, row in rows.items():
        print(f"{name:<{width}}  {row['median']:8.2f}  [{row['lowest']:.2f}-{row['highest']:.2f}]")
    if args.json:
        about = {"machine": platform.machine(), "isas": probe.ISAS, "rounds": args.rounds, "clock": "thread CPU time"}
        args.json.write_text(json.dumps({"about": about, "results": rows}, indent=1) + "\n")


def timed(work: Callable[[], None], amount: float) -> float:
    """Billions of ``amount`` per second of CPU time."""
    start = time.thread_time()
    work()
    return amount / (time.thread_time() - start) / 1e9


def gemv_from_dram() -> Callable[[], float]:
    """The best kernel over one matrix that no cache holds, in one call; G weights/s of one thread."""
    packed = np.random.default_rng(0).integers(0, 171, COPIES * ROWS * COLUMNS // 4, dtype=np.uint8) & 0xAA
    activations = np.random.default_rng(1).integers(-128, 128, (1, COLUMNS), dtype=np.int8)

    def work() -> None:
        probe.packed_matmul(probe.ISAS[0], packed, COPIES * ROWS, COLUMNS, activations)

    return lambda: timed(work, COPIES * ROWS * COLUMNS)


def plain_read() -> Callable[[], float]:
    """Memory read by numpy's sum of 64-bit words; GB/s of one thread."""
    words = np.ones(HEAD_BYTES // 8, dtype=np.uint64)
    return lambda: timed(lambda: words.sum(), HEAD_BYTES)


def gemv_contestants() -> dict[str, Callable[[], float]]:
    """One activation vector: from DRAM, and one matrix that stays in the last cache."""
    random = np.random.default_rng(0)
    packed = random.integers(0, 171, (COPIES, ROWS * COLUMNS // 4), dtype=np.uint8) & 0xAA  # codes 0 and 2
    activations = random.integers(-128, 128, (1, COLUMNS), dtype=np.int8)

    def from_dram(isa: str) -> float:
        def work() -> None:
            for matrix in packed:
                probe.packed_matmul(isa, matrix, ROWS, COLUMNS, activations)

        return timed(work, COPIES * ROWS * COLUMNS)

    def from_cache(isa: str) -> float:
        def work() -> None:
            for _ in range(COPIES):
                probe.packed_matmul(isa, packed[0], ROWS, COLUMNS, activations)

        return timed(work, COPIES * ROWS * COLUMNS)

    fast = [isa for isa in probe.ISAS if isa != "scalar"]
    table: dict[str, Callable[[], float]] = {}
    for isa in fast:
        table[f"gemv {isa}, last cache, G weights/s"] = lambda isa=isa: from_cache(isa)
        table[f"gemv {isa}, DRAM, G weights/s"] = lambda isa=isa: from_dram(isa)
    return table


def gemm_contestants() -> dict[str, Callable[[], float]]:
    """Sixty-four vectors, a whole chunk of a prompt."""
    random = np.random.default_rng(1)
    packed = random.integers(0, 171, ROWS * COLUMNS // 4, dtype=np.uint8) & 0xAA
    table: dict[str, Callable[[], float]] = {}
    for tokens in (8, 64):
        activations = random.integers(-128, 128, (tokens, COLUMNS), dtype=np.int8)

        def measure(isa: str, tokens: int = tokens, activations: np.ndarray = activations) -> float:
            work = lambda: probe.packed_matmul(isa, packed, ROWS, COLUMNS, activations)  # noqa: E731
            return timed(work, tokens * ROWS * COLUMNS)

        for isa in probe.ISAS:
            if isa != "scalar":
                table[f"gemm {isa}, {tokens} tokens, G weights/s"] = lambda isa=isa, m=measure: m(isa)
    return table


def head_contestants() -> dict[str, Callable[[], float]]:
    """Dot products of the output head in the widths of nis-base and 2b4t, in gigabytes of rows per second."""
    random = np.random.default_rng(2)
    x = random.standard_normal(2560).astype(np.float32)
    halves = random.standard_normal(HEAD_BYTES // 2, dtype=np.float32).astype(np.float16)
    table: dict[str, Callable[[], float]] = {}
    for isa in probe.ISAS:
        for width in (512, 2560):
            rows = halves[: halves.size // width * width].reshape(-1, width)
            if isa != "scalar":
                table[f"head {isa}, f16 width {width}, GB/s"] = lambda isa=isa, rows=rows, width=width: timed(
                    lambda: probe.dot_rows(isa, x[:width].copy(), rows), rows.nbytes
                )
    table["read by numpy (sum of 64-bit words), GB/s"] = plain_read()
    return table


if __name__ == "__main__":
    main()
