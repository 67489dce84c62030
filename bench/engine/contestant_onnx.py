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

    def first(self) -> int:
        """The first token after loading."""
        return int(self.prefill(np.array([1], dtype=np.int32)).argmax())

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        self._session.rewind(0)
        self._logits = self._session.forward(tokens.tolist())
        return self._logits

    def decode(self, steps: int) -> None:
        for _ in range(steps):
            self._logits = self._session.forward([int(self._logits.argmax())])

    def check(self) -> str:
        """A prompt at once gives the logits of the prompt token by token, but for rounding; say what was held."""
        prompt = np.arange(7, 19, dtype=np.int32)
        at_once = self.prefill(prompt).copy()
        self._session.rewind(0)
        for token in prompt.tolist():
            singly = self._session.forward([token])
        off = float(np.abs(at_once - singly).max() / at_once.std())
        if not off < 0.2:
            raise RuntimeError(f"a prompt at once and token by token differ by {off} standard deviations")
        return f"a prompt at once and token by token agree within {off:.3f} standard deviations of the logits"

    def about(self) -> dict[str, object]:
        return {"isa": self._model.isa}
