"""llama.cpp through llama-cpp-python's low-level API: the same calls its own bench makes."""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np

from bench.engine.agreement import at_once_and_singly


class Llama:
    """A GGUF model with a context of 512 positions."""

    def __init__(self, path: str, threads: int) -> None:
        self._log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._log, None)
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = 512
        options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def first(self) -> int:
        """The first token after loading."""
        return int(self._step(np.array([1], dtype=np.int32)).argmax())

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        return self._step(tokens)

    def decode(self, steps: int) -> None:
        logits = self._logits()
        for _ in range(steps):
            logits = self._step(np.array([int(logits.argmax())], dtype=np.int32))
        if not np.isfinite(logits).all() or float(logits.std()) == 0.0:
            raise RuntimeError("logits are not finite or do not vary")

    def check(self) -> str:
        return at_once_and_singly(self.prefill, self._step)

    def about(self) -> dict[str, object]:
        return {}

    def _step(self, tokens: np.ndarray) -> np.ndarray:
        array = (llama_cpp.llama_token * len(tokens))(*tokens.tolist())
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        return self._logits()

    def _logits(self) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self._vocab,))
