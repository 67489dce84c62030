"""nis-nano in torch, quantisation-aware: the graph of models/FORMAT.md with straight-through rounding.

The numbers are those the device computes: ternary weights by absmean with one scale per matrix, int8 activations by
absmax per token, everything else float32. Masters are float32; ``ternary_codes`` is what export packs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBED_STD = 0.1
"""Of embeddings at the start: a step of the optimizer must be able to move a rare word's noticeably."""

ADDED_SHARE = 0.1
"""Size of what a layer adds at the start, over what it would add with plain initialisation."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; names as in the package's manifest."""

    hidden: int = 192
    ffn: int = 512
    layers: int = 3
    head_layers: int = 1
    heads: int = 6
    vocab: int = 4096
    context: int = 256
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    outputs: int = 18

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads


def weight_scale(weight: Tensor) -> Tensor:
    """Absmean of a matrix: the real weight of code 1."""
    return weight.abs().mean().clamp(min=1e-5)


def ternary_codes(weight: Tensor) -> tuple[Tensor, float]:
    """Codes in {-1, 0, 1} as int8 [out, in], and the scale."""
    scale = weight_scale(weight)
    return (weight / scale).round().clamp(-1, 1).to(torch.int8), float(scale)


class _TernaryWeight(torch.autograd.Function):
    """Forward: codes times scale. Backward: as if nothing had been rounded."""

    @staticmethod
    def forward(_ctx: Any, weight: Tensor) -> Tensor:
        scale = weight_scale(weight)
        return (weight / scale).round_().clamp_(-1, 1).mul_(scale)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _Int8Activation(torch.autograd.Function):
    """Forward: int8 by absmax per token, as float. Backward: as if nothing had been rounded."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        return (x * scale).round_().clamp_(-128, 127).div_(scale)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight."""
    return functional.rms_norm(x.float(), (x.shape[-1],), weight, eps)


class Layer(nn.Module):
    """One block; the matrices that read the same activations are kept apart, for each has its own scale."""

    def __init__(self, shape: Shape, *, ternary: bool) -> None:
        super().__init__()
        self.shape, self.ternary = shape, ternary
        width, ffn = shape.hidden, shape.ffn
        for name, (rows, columns) in {
            "q": (width, width),
            "k": (width, width),
            "v": (width, width),
            "o": (width, width),
            "gate": (ffn, width),
            "up": (ffn, width),
            "down": (width, ffn),
        }.items():
            weight = torch.empty(rows, columns)
            # What a layer adds to the stream starts small, so that words are not drowned in noise.
            nn.init.normal_(weight, std=columns**-0.5 * (ADDED_SHARE if name in ("o", "down") else 1.0))
            self.register_parameter(name, nn.Parameter(weight))
        for name, size in {"attn_norm": width, "attn_sub_norm": width, "ffn_norm": width, "ffn_sub_norm": ffn}.items():
            self.register_parameter(name, nn.Parameter(torch.ones(size)))

    def weights(self, *names: str) -> Tensor:
        """Quantised matrices that read the same input, one below the other."""
        parts = [getattr(self, name) for name in names]
        if self.ternary:
            parts = [_TernaryWeight.apply(part) for part in parts]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def activations(self, x: Tensor) -> Tensor:
        """Quantised activations."""
        return _Int8Activation.apply(x) if self.ternary else x

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, ask: Tensor | None = None) -> Tensor:
        """One block over x [batch, n, hidden].

        Args:
            x: the residual stream.
            cos: [n, head_dim / 2] of the rotary angles.
            sin: likewise.
            ask: when given, [batch] positions: only they are computed, and [batch, 1, hidden] is returned.
        """
        shape = self.shape
        batch, n, width = x.shape
        normed = self.activations(rms_norm(x, self.attn_norm, shape.norm_eps))
        if ask is None:
            q, k, v = functional.linear(normed, self.weights("q", "k", "v")).split(width, dim=-1)
            q = _rotate(q.view(batch, n, shape.heads, -1), cos, sin)
        else:
            rows = torch.arange(batch)
            k, v = functional.linear(normed, self.weights("k", "v")).split(width, dim=-1)
            q = functional.linear(normed[rows, ask][:, None], self.weights("q"))
            q = _rotate(q.view(batch, 1, shape.heads, -1), cos[ask][:, None], sin[ask][:, None])
        k = _rotate(k.view(batch, n, shape.heads, -1), cos, sin)
        v = v.view(batch, n, shape.heads, -1)
        # Attention in float32 also under bfloat16: its backward pass is five times slower there.
        q, k, v = (part.transpose(1, 2).float() for part in (q, k, v))
        with torch.autocast("cpu", enabled=False):
            if ask is None:
                mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                seen = torch.arange(n)[None, :] <= ask[:, None]
                mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None, :])
                x = x[rows, ask][:, None]
        joined = mixed.transpose(1, 2).reshape(batch, -1, width)
        joined = self.activations(rms_norm(joined, self.attn_sub_norm, shape.norm_eps))
        x = x + functional.linear(joined, self.weights("o"))
        normed = self.activations(rms_norm(x, self.ffn_norm, shape.norm_eps))
        gate, up = functional.linear(normed, self.weights("gate", "up")).split(shape.ffn, dim=-1)
        gated = self.activations(rms_norm(functional.relu(gate).square() * up, self.ffn_sub_norm, shape.norm_eps))
        return x + functional.linear(gated, self.weights("down"))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of x [batch, n, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class NisNano(nn.Module):
    """Trunk, tied token head, and the task head ``consciousness`` read at one position."""

    def __init__(self, shape: Shape, *, ternary: bool = True) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        nn.init.normal_(self.embed, std=EMBED_STD)
        self.trunk = nn.ModuleList(Layer(shape, ternary=ternary) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        self.head = nn.ModuleList(Layer(shape, ternary=ternary) for _ in range(shape.head_layers))
        self.head_norm = nn.Parameter(torch.ones(shape.hidden))
        self.projection = nn.Parameter(torch.zeros(shape.outputs, shape.hidden))
        self.bias = nn.Parameter(torch.full((shape.outputs,), -2.5))
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = torch.arange(shape.context, dtype=torch.float32)[:, None] / shape.rope_theta**exponents
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def stream(self, tokens: Tensor) -> Tensor:
        """The residual stream after the trunk: [batch, n, hidden]."""
        n = tokens.shape[1]
        x = functional.embedding(tokens, self.embed)
        for layer in self.trunk:
            x = layer(x, self.cos[:n], self.sin[:n])
        return x

    def logits(self, tokens: Tensor) -> Tensor:
        """Next-token logits at every position: [batch, n, vocab]."""
        return functional.linear(rms_norm(self.stream(tokens), self.norm, self.shape.norm_eps), self.embed)

    def forward(self, tokens: Tensor, ask: Tensor) -> Tensor:
        """Raw outputs of the task head.

        Args:
            tokens: int64 [batch, n], padded at the end.
            ask: int64 [batch], the position of ``<ask>``.

        Returns:
            float32 [batch, outputs], before the sigmoid.
        """
        x = self.stream(tokens)
        n = tokens.shape[1]
        for layer in self.head[:-1]:
            x = layer(x, self.cos[:n], self.sin[:n])
        x = self.head[-1](x, self.cos[:n], self.sin[:n], ask)
        x = rms_norm(x[:, 0], self.head_norm, self.shape.norm_eps)
        return functional.linear(x, self.projection, self.bias)
