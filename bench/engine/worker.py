"""One contestant in a process of its own: loads its model, then times what it is told over standard input.

Protocol, one JSON object a line: {"op": "prefill", "tokens": n} and {"op": "decode", "tokens": n, "after": k} answer
{"seconds": s, "rss_mb": r}; the end of input ends it. The first line out is {"ready": ..., "load_s": s}. Logits are
checked finite and varied after every timing, outside of it: a figure from a kernel that left its output untouched must
not count.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Protocol

import numpy as np


class Contestant(Protocol):
    """A loaded model that can be timed."""

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        """Start afresh, process the prompt in one call, return the logits of its last position."""
        ...

    def decode(self, steps: int) -> np.ndarray:
        """Go on greedily for a number of steps, return the last logits."""
        ...


def load(kind: str, path: str, threads: int) -> Contestant:
    """Import the contestant only in its own process: each may need another environment."""
    if kind == "nis-edge":
        from bench.engine.contestant_native import Native

        return Native(path, threads)
    from bench.engine.contestant_llama import Llama

    return Llama(path, threads)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["nis-edge", "llama.cpp"])
    parser.add_argument("path")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    args = parser.parse_args()
    started = time.perf_counter()
    contestant = load(args.kind, args.path, args.threads)
    first = contestant.prefill(np.array([1], dtype=np.int32))
    answer(ready=bool(np.isfinite(first).all()), load_s=time.perf_counter() - started)
    rng = np.random.default_rng(1)
    for line in sys.stdin:
        order = json.loads(line)
        if order["op"] == "prefill":
            prompt = rng.integers(0, args.vocab, order["tokens"], dtype=np.int32)
            started = time.perf_counter()
            logits = contestant.prefill(prompt)
        else:
            contestant.prefill(rng.integers(0, args.vocab, order["after"], dtype=np.int32))
            started = time.perf_counter()
            logits = contestant.decode(order["tokens"])
        seconds = time.perf_counter() - started
        if not np.isfinite(logits).all() or float(logits.std()) == 0.0:
            answer(error="logits are not finite or do not vary")
            continue
        answer(seconds=seconds, rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def answer(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
