"""Which order I2_S codes stand in, shown by the model itself.

A trained model uses its channels unevenly: a residual channel that the embedding and the norms make large is read with
more weights other than zero, and so is a neuron whose norm is large. Norms and embeddings stand in the file as real
numbers in their true order; the share of non-zero codes of each column depends on the supposed one. In the right
order the two go together, in a wrong one they don't. Each pair of vectors gives a rank correlation r over n channels;
r * sqrt(n - 1) is about standard normal if the order is wrong. Random weights show nothing, and then nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from nis_edge.pack.ggml_blocks import I2S_ORDERS, I2sOrder
from nis_edge.pack.ternary import Float32Array, Int8Array

CLEAR: Final = 8.0
"""Standard deviations that the right order must reach."""

APART: Final = 2.0
"""How many times the next best order's evidence it must be."""

LAYERS_READ: Final = 4
"""Layers looked at: the evidence of one is already strong, and reading all of a large model takes long."""

EMBEDDING_ROWS: Final = 4096
"""Rows of the embedding from which the channels' sizes are estimated."""


class Channels(Protocol):
    """What is looked at."""

    layers: int

    def codes(self, layer: int, part: str, order: I2sOrder) -> Int8Array | None: ...

    def norm(self, layer: int, part: str) -> Float32Array | None: ...

    def embedding(self, rows: int) -> Float32Array | None: ...


def tested_order(channels: Channels) -> tuple[I2sOrder | None, str]:
    """The order that the model shows, None if it shows none, and the evidence in words."""
    with np.errstate(all="ignore"):  # a damaged file's NaN agrees with nothing
        scores = {order: _score(channels, order) for order in I2S_ORDERS}
    text = ", ".join(f"{order} {score:.1f}" for order, score in scores.items())
    ranked = sorted(scores, key=lambda order: scores[order], reverse=True)
    best, second = scores[ranked[0]], scores[ranked[1]]
    evidence = f"channels agree by {text} standard deviations"
    clear = best >= CLEAR and best >= APART * second
    return (ranked[0] if clear else None), evidence


def _score(channels: Channels, order: I2sOrder) -> float:
    """The strongest agreement between column densities in this order and what is known in true order."""
    return max((_agreement(a, b) for a, b in _pairs(channels, order)), default=0.0)


def _pairs(channels: Channels, order: I2sOrder) -> Iterator[tuple[Float32Array, Float32Array]]:
    layers = range(min(channels.layers, LAYERS_READ))
    embedding = channels.embedding(EMBEDDING_ROWS)
    sizes = None if embedding is None else np.abs(embedding).mean(axis=0)
    groups = (("attn_norm", ("q", "k", "v")), ("ffn_norm", ("gate", "up")))
    reading: list[Float32Array] = []
    for norm, parts in groups:
        densities = [_density(channels, layer, part, order) for layer in layers for part in parts]
        known = [density for density in densities if density is not None]
        if not known or len({density.size for density in known}) != 1:
            continue
        together = np.mean(known, axis=0)
        reading.append(together)
        norms = [values for layer in layers if (values := channels.norm(layer, norm)) is not None]
        if norms and all(values.size == together.size for values in norms):
            yield together, np.mean(np.abs(norms), axis=0)
    if sizes is not None and reading and all(vector.size == sizes.size for vector in reading):
        yield np.mean(reading, axis=0), sizes
    for norm, part in (("ffn_sub_norm", "down"), ("attn_sub_norm", "o")):
        for layer in layers:
            density, values = _density(channels, layer, part, order), channels.norm(layer, norm)
            if density is not None and values is not None and density.size == values.size:
                yield density, np.abs(values)


def _density(channels: Channels, layer: int, part: str, order: I2sOrder) -> Float32Array | None:
    """Share of non-zero codes per column."""
    codes = channels.codes(layer, part, order)
    return None if codes is None else (codes != 0).mean(axis=0, dtype=np.float32)


def _agreement(a: Float32Array, b: Float32Array) -> float:
    """abs(Spearman's r) * sqrt(n - 1); 0 where one side is constant."""
    if a.size < 16 or not np.isfinite(a).all() or not np.isfinite(b).all():
        return 0.0
    ranks = [_ranks(vector) for vector in (a, b)]
    spread = float(ranks[0].std() * ranks[1].std())
    if spread == 0:
        return 0.0
    covariance = float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())))
    return abs(covariance / spread) * float(np.sqrt(a.size - 1))


def _ranks(values: Float32Array) -> npt.NDArray[np.float64]:
    """Ranks, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = ((ends - counts + ends - 1) / 2)[inverse]
    return ranks
