"""transformers' BitNet and Llama as an oracle: random checkpoints written by its own save_pretrained, and what it says.

Importing this module needs torch, transformers and accelerate (the train extra). Run as a script's library by
record_oracle.py and live by the tests marked `oracle`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

# transformers decorates its quantisation with torch.compile; eager mode is the same arithmetic without a C++ compiler.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import numpy as np
import torch
import torch._dynamo
from transformers import (
    AutoModelForCausalLM,
    BitNetConfig,
    BitNetForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.integrations.bitnet import pack_weights, replace_with_bitnet_linear
from transformers.utils.quantization_config import BitNetQuantConfig

from tests.parity.cases import Case

torch._dynamo.config.disable = True
# These models are far too small to share: with several threads they would mostly wait for each other.
torch.set_num_threads(1)


def write_checkpoint(folder: Path, case: Case) -> Path:
    """Write a random checkpoint as transformers saves it.

    The packed autobitlinear checkpoint (as microsoft/bitnet-b1.58-2B-4T ships it) is no output of save_pretrained,
    which unpacks: it is the bitlinear one with the other class in config.json and scales that multiply.
    """
    torch.manual_seed(case.seed)
    if case.graph == "llama":
        model = LlamaForCausalLM(LlamaConfig(**case.config))
    else:
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


def load(folder: Path) -> PreTrainedModel:
    """The checkpoint as transformers runs it, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def logits(model: PreTrainedModel, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocab]."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def greedy_cached(model: PreTrainedModel, tokens: list[int], steps: int) -> list[int]:
    """The most probable continuation, each token from the keys and values kept so far."""
    found, kept, feed = [], None, tokens
    with torch.no_grad():
        for _ in range(steps):
            out = model(torch.tensor([feed]), past_key_values=kept, use_cache=True)
            kept = out.past_key_values
            feed = [int(out.logits[0, -1].argmax())]
            found += feed
    return found


def greedy(model: PreTrainedModel, tokens: list[int], steps: int) -> list[int]:
    """The most probable continuation, token by token, each from the whole text (no cache)."""
    text = list(tokens)
    for _ in range(steps):
        text.append(int(logits(model, text)[-1].argmax()))
    return text[len(tokens) :]


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


def _set(model: PreTrainedModel, name: str, values: torch.Tensor) -> None:
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
