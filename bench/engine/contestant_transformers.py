"""transformers' BitNet, its weights dense in bfloat16 as their masters are published: the oracle, not a fast peer."""

from __future__ import annotations

import numpy as np
import torch
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.cache_utils import DynamicCache

from bench.engine.agreement import at_once_and_singly
from bench.engine.shapes import SHAPES, Shape


class Transformers:
    """A model of a shape by name, with random weights drawn here."""

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = random_model(SHAPES[path])
        self._cache = DynamicCache()
        self._logits = np.zeros(1, dtype=np.float32)

    def first(self) -> int:
        """The first token after loading."""
        return int(self.prefill(np.array([1], dtype=np.int32)).argmax())

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        self._cache = DynamicCache()
        return self._step(tokens)

    def decode(self, steps: int) -> None:
        for _ in range(steps):
            self._step(np.array([int(self._logits.argmax())], dtype=np.int32))

    def check(self) -> str:
        return at_once_and_singly(self.prefill, self._step)

    def about(self) -> dict[str, object]:
        return {}

    @torch.inference_mode()
    def _step(self, tokens: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        answer = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._logits = answer.logits[0, -1].float().numpy()
        return self._logits


def random_model(shape: Shape) -> BitNetForCausalLM:
    """Made without memory first, so that no time goes into drawing weights that are drawn again."""
    config = BitNetConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab,
        rope_theta=shape.rope_theta,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = BitNetForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            spread = 1.0 if "embed" in name else weight.shape[1] ** -0.5
            torch.nn.init.uniform_(weight, -spread, spread)
    return model
