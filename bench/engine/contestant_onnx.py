"""ONNX Runtime over the graph that `nis-models export-onnx` writes: the same `.nis` package, the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nis_edge.onnx_backend import OnnxModel


class Onnx:
    """A `.nis` package in ONNX Runtime with int8 weights, its faster form."""

    def __init__(self, path: str, threads: int) -> None:
        self._model = OnnxModel(Path(path), threads=threads)
        self._session = self._model.session()
        self._logits = np.zeros(1, dtype=np.float32)

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        self._session.rewind(0)
        self._logits = self._session.forward(tokens.tolist())
        return self._logits

    def decode(self, steps: int) -> np.ndarray:
        for _ in range(steps):
            self._logits = self._session.forward([int(self._logits.argmax())])
        return self._logits
