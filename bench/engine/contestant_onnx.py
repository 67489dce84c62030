"""ONNX Runtime over the graph that `nis-models export-onnx` writes: the same `.nis` package, the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.engine.agreement import at_once_and_singly
from nis_edge.onnx_backend import OnnxModel


class Onnx:
    """A `.nis` package in ONNX Runtime with int8 weights, its faster form."""

    def __init__(self, path: str, threads: int) -> None:
        self._model = OnnxModel(Path(path), threads=threads)
        self._session = self._model.session()
        self._logits = np.zeros(1, dtype=np.float32)

    def first(self) -> int:
        """The first token after loading."""
        return int(self.prefill(np.array([1], dtype=np.int32)).argmax())

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        self._session.rewind(0)
        return self._go_on(tokens)

    def decode(self, steps: int) -> None:
        for _ in range(steps):
            self._go_on(np.array([int(self._logits.argmax())], dtype=np.int32))

    def check(self) -> str:
        return at_once_and_singly(self.prefill, self._go_on)

    def about(self) -> dict[str, object]:
        return {"isa": self._model.isa}

    def _go_on(self, tokens: np.ndarray) -> np.ndarray:
        self._logits = self._session.forward(tokens.tolist())
        return self._logits
