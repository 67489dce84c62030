"""transformers' BitNet as an oracle: random checkpoints written by its own save_pretrained, and what it computes.

Importing this module needs torch, transformers and accelerate (the train extra). Run as a script's library by
record_oracle.py and live by the tests marked `oracle`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# transformers decorates its quantisation with torch.compile; eager mode is the same arithmetic without a C++ compiler.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import numpy as np
import torch
import torch._dynamo
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import pack_weights, replace_with_bitnet_linear
from transformers.utils.quantization_config import BitNetQuantConfig

torch._dynamo.config.disable = True

STORAGES = ("master-f32", "master-bf16", "bitlinear", "autobitlinear-packed", "autobitlinear-real")
"""How a checkpoint may store its matrices: the table of nis_edge/pack/huggingface.py, with two types of master."""


@dataclass(frozen=True)
class Case:
    """One random checkpoint."""

    storage: str
    seed: int
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        shape = self.config
        tied = "tied" if shape["tie_word_embeddings"] else "untied"
        heads = f"{shape['num_attention_heads']}of{shape['num_key_value_heads']}"
        return f"{self.storage}-h{shape['hidden_size']}-{heads}-{tied}-{self.seed}"


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


CASES = (
    case("master-f32", 0, hidden=64, heads=4, kv_heads=2, tied=True),
    case("master-f32", 1, hidden=72, heads=3, kv_heads=1, tied=False, ffn=100),
    case("master-bf16", 2, hidden=60, heads=5, kv_heads=5, tied=True),
    case("bitlinear", 3, hidden=64, heads=4, kv_heads=1, tied=False),
    case("bitlinear", 4, hidden=56, heads=7, kv_heads=7, tied=True, ffn=132),
    case("autobitlinear-packed", 5, hidden=64, heads=2, kv_heads=1, tied=True),
    case("autobitlinear-packed", 6, hidden=72, heads=9, kv_heads=3, tied=False),
    case("autobitlinear-real", 7, hidden=48, heads=6, kv_heads=2, tied=True),
)

RECORDED_CASES = (
    case("master-f32", 10, hidden=18, heads=3, kv_heads=1, tied=False, ffn=28, vocab=64),
    case("master-bf16", 11, hidden=32, heads=4, kv_heads=2, tied=True, ffn=36, vocab=64),
    case("bitlinear", 12, hidden=40, heads=5, kv_heads=5, tied=True, ffn=68, vocab=64),
    case("bitlinear", 13, hidden=72, heads=9, kv_heads=3, tied=False, ffn=76, vocab=64),
    case("autobitlinear-packed", 14, hidden=64, heads=2, kv_heads=1, tied=True, ffn=132, vocab=64),
    case("autobitlinear-real", 15, hidden=16, heads=2, kv_heads=2, tied=False, ffn=20, vocab=64),
)
"""Smaller still: these checkpoints are kept in tests/parity/recorded, for machines without torch."""


def write_checkpoint(folder: Path, case: Case) -> Path:
    """Write a random checkpoint as transformers saves it.

    The packed autobitlinear checkpoint (as microsoft/bitnet-b1.58-2B-4T ships it) is no output of save_pretrained,
    which unpacks: it is the bitlinear one with the other class in config.json and scales that multiply.
    """
    torch.manual_seed(case.seed)
    model = BitNetForCausalLM(BitNetConfig(**case.config))
    linear_class = "bitlinear" if case.storage in ("bitlinear", "autobitlinear-packed") else "autobitlinear"
    mode = "online" if case.storage.startswith("master") else "offline"
    quantisation = BitNetQuantConfig(linear_class=linear_class, quantization_mode=mode)
    replace_with_bitnet_linear(model, ["lm_head"], quantisation)
    model.config.quantization_config = quantisation
    random = np.random.default_rng(case.seed)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if tied_to_embedding(name, case):
                continue
            _set(model, name, _random_values(name, tuple(tensor.shape), tensor.dtype, random, case.storage))
    if case.storage == "master-bf16":
        model.to(torch.bfloat16)
    model.tie_weights()
    model.save_pretrained(folder)
    if case.storage == "autobitlinear-packed":
        _rename_linear_class(folder / "config.json")
    return folder


def tied_to_embedding(name: str, case: Case) -> bool:
    return bool(case.config["tie_word_embeddings"]) and name == "lm_head.weight"


def load(folder: Path) -> BitNetForCausalLM:
    """The checkpoint as transformers runs it, in float32."""
    model = BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def logits(model: BitNetForCausalLM, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocab]."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def greedy(model: BitNetForCausalLM, tokens: list[int], steps: int) -> list[int]:
    """The most probable continuation, token by token, each from the whole text (no cache)."""
    text = list(tokens)
    for _ in range(steps):
        text.append(int(logits(model, text)[-1].argmax()))
    return text[len(tokens) :]


def prompt(case: Case, length: int = 24) -> list[int]:
    """Random tokens."""
    return np.random.default_rng(1000 + case.seed).integers(0, case.config["vocab_size"], length).tolist()


def _random_values(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, random: np.random.Generator, storage: str
) -> torch.Tensor:
    """Values large enough that attention is peaked and activations have outliers."""
    if name.endswith("norm.weight"):
        return torch.from_numpy(random.uniform(0.5, 1.5, shape).astype(np.float32))
    if name.endswith("weight_scale"):
        real = np.float32(random.uniform(0.05, 0.2))
        return torch.tensor([1 / real if storage == "bitlinear" else real], dtype=torch.float32)
    if dtype == torch.uint8:
        codes = random.integers(-1, 2, (shape[0] * 4, shape[1]))
        return pack_weights(torch.from_numpy(codes))
    if "_proj" in name and storage == "autobitlinear-real":
        return torch.from_numpy(random.integers(-1, 2, shape).astype(np.float32))
    # A small embedding, so that a tied head does not just repeat the last token.
    spread = 0.1 if "embed" in name else 0.15 if "_proj" in name else 1.0
    return torch.from_numpy((spread * random.standard_normal(shape)).astype(np.float32))


def _set(model: BitNetForCausalLM, name: str, values: torch.Tensor) -> None:
    """Put values in the place of a parameter or buffer that still is on the meta device."""
    owner_name, _, attribute = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    old = getattr(owner, attribute)
    assert old.shape == values.shape, name
    setattr(owner, attribute, torch.nn.Parameter(values) if isinstance(old, torch.nn.Parameter) else values)


def _rename_linear_class(path: Path) -> None:
    config = json.loads(path.read_text())
    config["quantization_config"]["linear_class"] = "autobitlinear"
    path.write_text(json.dumps(config, indent=2))
