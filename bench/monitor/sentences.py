"""Vectors of whole texts from all-MiniLM-L6-v2, in the place of ``nis_edge.monitor.meaning.Meanings``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from nis_models.vectors import WIDTH, folder

from nis_edge.monitor.meaning import Meanings, clipped

Array = np.ndarray[Any, Any]

HEAD_PIECES: Final = 48
TAIL_PIECES: Final = 14
"""With the two marks around a text, at most 64 pieces."""

BATCH: Final = 64


def pieces_of(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Pieces of texts with the marks around them: both ends of a long one."""
    listed = tokenizer([clipped(text) for text in texts], add_special_tokens=False)["input_ids"]
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    return [
        [first, *(p if len(p) <= HEAD_PIECES + TAIL_PIECES else [*p[:HEAD_PIECES], *p[-TAIL_PIECES:]]), last]
        for p in listed
    ]


def encode(texts: Sequence[str], progress: Callable[[str], None]) -> Array:
    """Mean-pooled unit vectors: float32 [n, 384]; products in bfloat16, which moves a vector by less than 0.0001."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    where = folder()
    tokenizer, model = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where).eval()
    pieces = pieces_of(texts, tokenizer)
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    result = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            longest = max(len(pieces[i]) for i in rows)
            ids = torch.tensor([pieces[i] + [0] * (longest - len(pieces[i])) for i in rows])
            mask = torch.tensor([[1] * len(pieces[i]) + [0] * (longest - len(pieces[i])) for i in rows])
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            kept = mask[..., None].float()
            mean = (hidden * kept).sum(1) / kept.sum(1)
            result[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
            if start // BATCH % 100 == 0:
                progress(f"{start} of {len(order)} texts")
    return result


class Sentences(Meanings):
    """Vectors of known texts, looked up.

    Args:
        texts: all that will be asked for.
        vectors: unit vectors, float32 [texts, width].
    """

    def __init__(self, texts: Sequence[str], vectors: Array) -> None:
        self._place = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self._vectors.shape[1])

    def vector(self, text: str) -> Array | None:
        """Unit vector of a text; None where it is empty."""
        return self._vectors[self._place[text]] if text else None


def reduced(vectors: Array, learned_from: Array, width: int = WIDTH) -> Array:
    """Vectors as wide as a word's on a device: unit vectors, float32 [texts, width].

    Args:
        vectors: float32 [texts, width].
        learned_from: which of them the principal components are learned from, bool [texts].
        width: how many components.
    """
    base = vectors[learned_from].astype(np.float64)
    middle = base.mean(axis=0)
    values, directions = np.linalg.eigh((base - middle).T @ (base - middle))
    told = (vectors - middle) @ directions[:, np.argsort(values)[::-1][:width]]
    told /= np.maximum(np.linalg.norm(told, axis=1, keepdims=True), 1e-12)
    return np.asarray(told, dtype=np.float32)
