"""The model shapes everyone is measured on. Random ternary weights serve: speed does not depend on their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Shape:
    """Dimensions of a BitNet graph (squared-ReLU gated MLP, sub-norms, tied embedding)."""

    name: str
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    rope_theta: float

    @property
    def ternary_weights(self) -> int:
        """Weights in the ternary matrices of all layers."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.ffn)


SHAPES: Final = {
    # microsoft/bitnet-b1.58-2B-4T, from its published config.json.
    "2b4t": Shape("2b4t", 2560, 6912, 30, 20, 5, 128, 128_256, 500_000.0),
    # The founding plan's model: 12 layers of width 512 and a vocabulary of 50,000.
    "nis-base": Shape("nis-base", 512, 2048, 12, 8, 8, 64, 50_000, 10_000.0),
}
