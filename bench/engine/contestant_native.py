"""nis-edge's own engine: one call per prompt, one per decoded token."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nis_edge.engine.model import Model


class Native:
    """A `.nis` package with a cache of 512 positions."""

    def __init__(self, path: str, threads: int) -> None:
        self._model = Model.open(Path(path), threads=threads)
        self._session = self._model.session(max_positions=512)
        self._logits = np.zeros(1, dtype=np.float32)

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        self._session.rewind(0)
        self._logits = self._session.forward(tokens)
        return self._logits

    def decode(self, steps: int) -> np.ndarray:
        for _ in range(steps):
            self._logits = self._session.forward([int(self._logits.argmax())])
        return self._logits
