"""nis-edge's own engine: one call per prompt, one for all the tokens it decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nis_edge.engine.model import Model


class Native:
    """A `.nis` package with a cache of 512 positions in float16, as the peers keep theirs."""

    def __init__(self, path: str, threads: int) -> None:
        self._path, self._threads = Path(path), threads
        self._model = Model.open(self._path, threads=threads)
        self._session = self._model.session(max_positions=512, kv="F16")
        self._next = 0

    def first(self) -> int:
        """The first token after loading."""
        self._next = self._session.greedy(1, 1)[0]
        return self._next

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        self._session.rewind(0)
        logits = self._session.forward(tokens)
        self._next = int(logits.argmax())
        return logits

    def decode(self, steps: int) -> None:
        """Greedily, in one call."""
        self._next = self._session.greedy(self._next, steps)[-1]

    def decode_singly(self, steps: int) -> None:
        """Greedily, one call a token: the difference to `decode` is Python's."""
        for _ in range(steps):
            self._next = self._session.greedy(self._next, 1)[0]

    def check(self) -> str:
        """Greedy tokens are those of all logits; logits are the bits of another instruction set; say what was held."""
        self._session.rewind(0)
        first, steps = 5, 12  # by then the whole screen of the head is in use
        tokens = self._session.greedy(first, steps)
        self._session.rewind(0)
        step = self._session.forward([first])
        for token in tokens:
            if token != int(step.argmax()):
                raise RuntimeError("greedy is not the argmax of all logits")
            step = self._session.forward([token])
        others = [isa for isa in ("avx2", "neon", "scalar") if isa != self._model.isa]
        with Model.open(self._path, threads=self._threads, isa=others[0]) as other:
            prompt = [first, *tokens[:4]]
            self._session.rewind(0)
            if not np.array_equal(other.session(16, kv="F16").forward(prompt), self._session.forward(prompt)):
                raise RuntimeError(f"{self._model.isa} and {others[0]} give different logits")
        return f"greedy equals the argmax of all logits over {steps} tokens; logits equal {others[0]}'s bit for bit"

    def about(self) -> dict[str, object]:
        return {"isa": self._model.isa, "head": self._model.head_statistics()}
