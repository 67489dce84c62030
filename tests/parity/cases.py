"""The random checkpoints of the parity tests, by their interesting numbers. No torch here: collecting stays cheap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

STORAGES = ("master-f32", "master-bf16", "bitlinear", "autobitlinear-packed", "autobitlinear-real")
"""How a checkpoint may store its matrices: the table of nis_edge/pack/huggingface.py, with two types of master."""


@dataclass(frozen=True)
class Case:
    """One random checkpoint."""

    storage: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    graph: str = "bitnet"

    @property
    def name(self) -> str:
        shape = self.config
        tied = "tied" if shape["tie_word_embeddings"] else "untied"
        heads = f"{shape['num_attention_heads']}of{shape['num_key_value_heads']}"
        prefix = "" if self.graph == "bitnet" else f"{self.graph}-"
        return f"{prefix}{self.storage}-h{shape['hidden_size']}-{heads}-{tied}-{self.seed}"


def case(
    storage: str, seed: int, *, hidden: int, heads: int, kv_heads: int, tied: bool, ffn: int = 96, vocab: int = 200
) -> Case:
    """A case by its interesting numbers."""
    return Case(
        storage,
        seed,
        {
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 128,
            "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0 + 1000 * seed},
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )


def llama_case(storage: str, seed: int, **numbers: Any) -> Case:
    """The same for a Llama with ternary matrices."""
    return replace(case(storage, seed, **numbers), graph="llama")


def random_case(seed: int) -> Case:
    """A shape nobody chose: any heads and groups, widths in fours (the packed storages hold four rows in a byte)."""
    random = np.random.default_rng(seed)
    kv_heads = int(random.integers(1, 5))
    heads = kv_heads * int(random.integers(1, 5))
    head_dim = 4 * int(random.integers(1, 6))
    return case(
        STORAGES[seed % len(STORAGES)],
        seed,
        hidden=heads * head_dim,
        heads=heads,
        kv_heads=kv_heads,
        tied=bool(random.integers(2)),
        ffn=4 * int(random.integers(4, 60)),
        vocab=int(random.integers(50, 300)),
    )


CASES = (
    case("master-f32", 0, hidden=64, heads=4, kv_heads=2, tied=True),
    case("master-f32", 1, hidden=72, heads=3, kv_heads=1, tied=False, ffn=100),
    case("master-bf16", 2, hidden=60, heads=5, kv_heads=5, tied=True),
    case("bitlinear", 3, hidden=64, heads=4, kv_heads=1, tied=False),
    case("bitlinear", 4, hidden=56, heads=7, kv_heads=7, tied=True, ffn=132),
    case("autobitlinear-packed", 5, hidden=64, heads=2, kv_heads=1, tied=True),
    case("autobitlinear-packed", 6, hidden=72, heads=9, kv_heads=3, tied=False),
    case("autobitlinear-real", 7, hidden=48, heads=6, kv_heads=2, tied=True),
    *(random_case(seed) for seed in range(20, 32)),
)

RECORDED_CASES = (
    case("master-f32", 10, hidden=18, heads=3, kv_heads=1, tied=False, ffn=28, vocab=64),
    case("master-bf16", 11, hidden=32, heads=4, kv_heads=2, tied=True, ffn=36, vocab=64),
    case("bitlinear", 12, hidden=40, heads=5, kv_heads=5, tied=True, ffn=68, vocab=64),
    case("bitlinear", 13, hidden=72, heads=9, kv_heads=3, tied=False, ffn=76, vocab=64),
    case("autobitlinear-packed", 14, hidden=64, heads=2, kv_heads=1, tied=True, ffn=132, vocab=64),
    case("autobitlinear-real", 15, hidden=16, heads=2, kv_heads=2, tied=False, ffn=20, vocab=64),
    llama_case("bitlinear", 16, hidden=40, heads=5, kv_heads=1, tied=False, ffn=44, vocab=64),
    llama_case("master-bf16", 17, hidden=24, heads=3, kv_heads=3, tied=True, ffn=36, vocab=64),
)
"""Smaller still: these checkpoints are kept in tests/parity/recorded, for machines without torch."""


def long_case(seed: int) -> Case:
    """A shape nobody chose, of either graph, with room for a long text; a Llama's heads need not make its width."""
    drawn = random_case(seed)
    graph = ("bitnet", "llama")[seed // len(STORAGES) % 2]
    config = {**drawn.config, "max_position_embeddings": 1024}
    if graph == "llama" and seed % 3 == 0:
        width = config["hidden_size"] // config["num_attention_heads"]
        config |= {"head_dim": width, "hidden_size": config["hidden_size"] + 4 * config["num_attention_heads"]}
    return Case(drawn.storage, seed, config, graph)


LONG_CASES = tuple(long_case(seed) for seed in range(100, 120))
"""For 256 greedy steps: every storage with either graph, twice."""


def prompt(case: Case, length: int = 24) -> list[int]:
    """Random tokens."""
    return np.random.default_rng(1000 + case.seed).integers(0, case.config["vocab_size"], length).tolist()
