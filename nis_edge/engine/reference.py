"""The forward pass in numpy, to be read: the graph of models/FORMAT.md, one function per box.

It is the same computation as the native engine's and as transformers' BitNet, in float32, with the exact integer sums
of ternary times int8. It is slow and keeps nothing between calls. It agrees with the engine within a stated tolerance,
not bit for bit: numpy does not promise an order of summation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nis_edge.errors import ModelError
from nis_edge.pack.layout import Architecture
from nis_edge.pack.reader import Package
from nis_edge.pack.ternary import unpack_ternary

Float32Array = npt.NDArray[np.float32]

ABSMAX_FLOOR: Final = np.float32(1e-5)
"""Least largest magnitude of an activation vector (transformers, integrations/bitnet.py, ActQuant)."""


def reference_logits(package: Package, tokens: Sequence[int], all_positions: bool = False) -> Float32Array:
    """Logits of the next token.

    Args:
        package: an open package.
        tokens: ids, 1 to the manifest's context of them, each below the vocabulary's size.
        all_positions: for every position instead of the last.

    Returns:
        float32 [vocab], or [tokens, vocab].

    Raises:
        ModelError: too many tokens, none, or one outside the vocabulary; the caller acts.
    """
    x = rms_norm(_trunk(package, tokens), package.float32("norm"), package.manifest.architecture.norm_eps)
    if not all_positions:
        x = x[-1:]
    head = package.float32("embed" if package.manifest.architecture.tied_head else "head")
    logits: Float32Array = x @ head.T  # [n, vocab]
    return logits if all_positions else logits[0]


def reference_head(package: Package, tokens: Sequence[int], name: str) -> Float32Array:
    """Raw outputs of a task head at the last position.

    Args:
        package: an open package.
        tokens: as for ``reference_logits``.
        name: of the head.

    Returns:
        float32 [outputs], before any sigmoid.

    Raises:
        ModelError: no head of that name, or bad tokens; the caller acts.
    """
    architecture = package.manifest.architecture
    if name not in architecture.task_heads:
        known = ", ".join(architecture.task_heads) or "none"
        raise ModelError(f"{package.path}: has no task head {name!r}; it has {known}")
    stack = f"heads.{name}"
    x = _trunk(package, tokens)
    x = _layers(package, stack, architecture.task_heads[name].layers, x)
    x = rms_norm(x[-1], package.float32(f"{stack}.norm"), architecture.norm_eps)
    return package.float32(f"{stack}.projection") @ x + package.float32(f"{stack}.bias")


def _trunk(package: Package, tokens: Sequence[int]) -> Float32Array:
    """The residual stream after the trunk's last layer, before the final norm: [n, hidden]."""
    architecture = package.manifest.architecture
    ids = np.asarray(tokens, dtype=np.int64)
    if ids.ndim != 1 or not 1 <= ids.size <= architecture.context:
        raise ModelError(f"{package.path}: takes 1 to {architecture.context} tokens, got {ids.size}")
    if ids.min() < 0 or ids.max() >= architecture.vocab:
        raise ModelError(f"{package.path}: a token lies outside the vocabulary of {architecture.vocab}")
    x = np.concatenate([package.float32("embed", slice(token, token + 1)) for token in ids.tolist()])
    return _layers(package, "trunk", architecture.layers, x)


def _layers(package: Package, stack: str, count: int, x: Float32Array) -> Float32Array:
    """A stack of transformer layers over the residual stream x [n, hidden], all positions from 0."""
    architecture = package.manifest.architecture
    for index in range(count):
        layer = _Layer(package, f"{stack}.{index}", architecture)
        x = x + layer.attention(rms_norm(x, layer.weight("attn_norm"), architecture.norm_eps))
        x = x + layer.feed_forward(rms_norm(x, layer.weight("ffn_norm"), architecture.norm_eps))
    return x


class _Layer:
    """One transformer layer: names and sizes bound, nothing cached."""

    def __init__(self, package: Package, prefix: str, architecture: Architecture) -> None:
        self.package = package
        self.prefix = prefix
        self.architecture = architecture

    def weight(self, name: str) -> Float32Array:
        return self.package.float32(f"{self.prefix}.{name}")

    def linear(self, name: str, x: Float32Array) -> Float32Array:
        """x [n, in] times a ternary matrix [out, in]: [n, out]."""
        matrix = self.package.matrix(f"{self.prefix}.{name}")
        return ternary_linear(x, unpack_ternary(matrix.packed, matrix.rows, matrix.columns), matrix.scale)

    def sub_norm(self, name: str, x: Float32Array) -> Float32Array:
        if not self.architecture.sub_norms:
            return x
        return rms_norm(x, self.weight(name), self.architecture.norm_eps)

    def attention(self, x: Float32Array) -> Float32Array:
        """Causal self-attention with grouped keys: [n, hidden] -> [n, hidden]."""
        shape = self.architecture
        n = x.shape[0]
        q = self.linear("q", x).reshape(n, shape.heads, shape.head_dim)
        k = self.linear("k", x).reshape(n, shape.kv_heads, shape.head_dim)
        v = self.linear("v", x).reshape(n, shape.kv_heads, shape.head_dim)
        cos, sin = rotary_angles(n, shape.head_dim, shape.rope_theta)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        # Query head h reads the keys and values of group h // (heads / kv_heads).
        k = np.repeat(k, shape.heads // shape.kv_heads, axis=1)
        v = np.repeat(v, shape.heads // shape.kv_heads, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(np.float32(shape.head_dim))  # [heads, n, n]
        scores[:, np.triu(np.ones((n, n), dtype=bool), k=1)] = -np.inf
        mixed = np.einsum("hqk,khd->qhd", softmax(scores), v)  # [n, heads, head_dim]
        joined = mixed.reshape(n, shape.heads * shape.head_dim)
        return self.linear("o", self.sub_norm("attn_sub_norm", joined))

    def feed_forward(self, x: Float32Array) -> Float32Array:
        """The gated two-layer network: [n, hidden] -> [n, hidden]."""
        gated = ACTIVATIONS[self.architecture.activation](self.linear("gate", x)) * self.linear("up", x)  # [n, ffn]
        return self.linear("down", self.sub_norm("ffn_sub_norm", gated))


def ternary_linear(x: Float32Array, codes: npt.NDArray[np.int8], scale: float) -> Float32Array:
    """Activations, made int8 by token, times ternary weights.

    Args:
        x: float32 [n, in].
        codes: int8 [out, in] in {-1, 0, 1}.
        scale: the real weight of code 1.

    Returns:
        float32 [n, out].
    """
    q, s = quantise_activations(x)
    # Sums of integers, exact in float64: 2**24 columns times 128 is far below 2**53.
    sums = q.astype(np.float64) @ codes.T.astype(np.float64)
    y: Float32Array = sums.astype(np.float32) * (np.float32(scale) / s)
    return y


def quantise_activations(x: Float32Array) -> tuple[npt.NDArray[np.int8], Float32Array]:
    """Int8 activations with one scale per token: s = 127 / max(abs(x)), q = clamp(round(x * s), -128, 127).

    Args:
        x: float32 [n, width].

    Returns:
        int8 [n, width], rounded half to even, and s, float32 [n, 1].
    """
    s = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), ABSMAX_FLOOR)
    return np.clip(np.rint(x * s), -128, 127).astype(np.int8), s


def rms_norm(x: Float32Array, weight: Float32Array, eps: float) -> Float32Array:
    """x / sqrt(mean(x**2) + eps) * weight over the last axis."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
    normed: Float32Array = weight * (x * (np.float32(1) / np.sqrt(mean_square + np.float32(eps))))
    return normed


def rotary_angles(n: int, head_dim: int, theta: float) -> tuple[Float32Array, Float32Array]:
    """Cosines and sines, each [n, head_dim / 2], of position times theta ** (-2 i / head_dim)."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    angles = np.arange(n, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def rotate(x: Float32Array, cos: Float32Array, sin: Float32Array) -> Float32Array:
    """Turn the pairs (i, i + head_dim / 2) of x [n, heads, head_dim] by the angles of their position."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def softmax(scores: Float32Array) -> Float32Array:
    """Over the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    normalised: Float32Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return normalised


def squared_relu(x: Float32Array) -> Float32Array:
    """max(x, 0) ** 2."""
    squared: Float32Array = np.square(np.maximum(x, np.float32(0)))
    return squared


def silu(x: Float32Array) -> Float32Array:
    """x * sigmoid(x); exp of a large number may overflow to infinity, and x / infinity is the right 0."""
    with np.errstate(over="ignore"):
        weighted: Float32Array = x / (np.float32(1) + np.exp(-x))
    return weighted


ACTIVATIONS: Final[dict[str, Callable[[Any], Float32Array]]] = {"relu2": squared_relu, "silu": silu}
