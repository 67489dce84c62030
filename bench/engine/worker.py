"""One contestant in a process of its own: loads its model, then times what it is told over standard input.

Protocol, one JSON object a line. The first line out is {"ready": {"load_s": s, "checked": text}} after the first token
was made and the logits were held against what they must be: a figure from a kernel that left its output untouched must
not count. Then {"op": ..., "tokens": n, "after": k} answers {"seconds": s, "rss_mb": r, "touched_mb": t}: the peak of
resident memory, and how much of it are pages of the model's file. "idle" answers the CPU seconds that this process used
while it did nothing for one second. The end of input ends it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Protocol

import numpy as np


class Contestant(Protocol):
    """A loaded model that can be timed."""

    def first(self) -> int:
        """Make the first token after loading."""
        ...

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        """Start afresh, process the prompt in one call, return the logits of its last position."""
        ...

    def decode(self, steps: int) -> None:
        """Go on greedily for a number of steps."""
        ...

    def check(self) -> str:
        """Hold the logits against what they must be; return what was held, raise where they are wrong."""
        ...

    def about(self) -> dict[str, object]:
        """What is worth knowing at the end."""
        ...


def load(kind: str, path: str, threads: int) -> tuple[Contestant, float]:
    """Import the contestant only in its own process: each may need another environment. The clock starts after that."""
    if kind == "nis-edge":
        from bench.engine.contestant_native import Native as Kind
    elif kind == "onnx":
        from bench.engine.contestant_onnx import Onnx as Kind  # type: ignore[assignment]
    elif kind == "transformers":
        from bench.engine.contestant_transformers import Transformers as Kind  # type: ignore[assignment]
    else:
        from bench.engine.contestant_llama import Llama as Kind  # type: ignore[assignment]
    started = time.perf_counter()
    contestant = Kind(path, threads)
    contestant.first()
    return contestant, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["nis-edge", "llama.cpp", "onnx", "transformers"])
    parser.add_argument("path")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    args = parser.parse_args()
    bare_mb = rss_mb()
    contestant, load_s = load(args.kind, args.path, args.threads)
    try:
        checked = contestant.check()
    except RuntimeError as error:
        answer(error=str(error))
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on: a check may have opened a second model
    answer(ready={"load_s": load_s, "checked": checked, "bare_mb": bare_mb, **contestant.about()})
    rng = np.random.default_rng(1)
    for line in sys.stdin:
        try:
            answer(
                **timed(contestant, json.loads(line), args.vocab, rng),
                rss_mb=rss_mb(),
                touched_mb=touched_mb(args.path),
            )
        except RuntimeError as error:
            answer(error=str(error))


def timed(contestant: Contestant, order: dict[str, object], vocab: int, rng: np.random.Generator) -> dict[str, object]:
    """Do what was ordered; seconds are of the ordered work alone."""
    op, tokens = order["op"], order.get("tokens")
    if op == "about":
        return contestant.about()
    if op == "idle":
        before = time.process_time()
        time.sleep(1.0)
        return {"seconds": time.process_time() - before}
    assert isinstance(tokens, int)
    if op == "prefill":
        prompt, times = rng.integers(0, vocab, tokens, dtype=np.int32), order["times"]
        assert isinstance(times, int)
        started = time.perf_counter()
        for _ in range(times):
            logits = contestant.prefill(prompt)
        seconds = (time.perf_counter() - started) / times
        if not np.isfinite(logits).all() or float(logits.std()) == 0.0:
            raise RuntimeError("logits are not finite or do not vary")
        return {"seconds": seconds}
    contestant.prefill(rng.integers(0, vocab, order["after"], dtype=np.int32))
    decode = contestant.decode if op == "decode" else contestant.decode_singly  # type: ignore[attr-defined]
    started = time.perf_counter()
    decode(tokens)
    return {"seconds": time.perf_counter() - started}


def rss_mb() -> float:
    """Peak resident memory so far, of this program alone: getrusage would count the one it was started from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def touched_mb(path: str) -> float:
    """Resident memory of the pages of the model's file, screen of the head included where the file has one."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = line.endswith(str(Path(path).resolve()))
        elif inside and words[0] == "Rss:":
            total += int(words[1])
    return total / 1024


def answer(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
