"""Tiny random packages, real in every part: trunk, task head, byte-level BPE tokenizer; under 200 KB each.

Everything is drawn from one seed, so the same call gives the same bytes.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from nis_edge.engine.head_screen import with_screen
from nis_edge.pack.layout import (
    Architecture,
    Golden,
    Manifest,
    ModelIdentity,
    Quantisation,
    TaskHead,
    TokenizerInfo,
    tensor_table,
)
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import write_package

CONSCIOUSNESS_OUTPUTS = (
    "looping", "stalled", "contradiction", "overconfident", "goal_drift", "ignored_input", "unverified_claim",
    "premature_end", "context_loss", "role_violation", "missing_clarification", "invalid_call", "unsafe_action",
    "resource_starvation", "sensor_fault", "physics_violation", "stale_feed", "failure",
)  # fmt: skip
"""The 17 labels in the monitor's order, and whether the run fails."""

SPECIALS = ("pad", "bos", "eos", "unk")
"""Names of the special tokens; in the tokenizer they stand as <|name|>, with the first ids."""

CORPUS = (
    "The agent reads the sensor, reports the value and asks the planner what to do next.",
    "Tool call failed: timeout after 5000 ms; retrying the same call with the same arguments.",
    "Battery 11.4 V, motor temperature 61 C, link quality 0.82, position held.",
    "I am done. The task is complete, although the test was never run.",
)


def tiny_architecture(**shape: Any) -> Architecture:
    """A small architecture; any field may be given by name."""
    fields: dict[str, Any] = {
        "kind": "bitnet",
        "hidden": 64,
        "ffn": 128,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "vocab": 320,
        "context": 128,
        "rope_theta": 10_000.0,
        "norm_eps": 1e-5,
        "activation": "relu2",
        "sub_norms": True,
        "tied_head": True,
        "task_heads": {"consciousness": TaskHead(layers=1, outputs=CONSCIOUSNESS_OUTPUTS)},
    }
    return Architecture(**{**fields, **shape})


@functools.cache
def tiny_tokenizer_json(vocab: int = 320, specials: tuple[str, ...] = SPECIALS) -> bytes:
    """A byte-level BPE tokenizer.json trained on four sentences; at most ``vocab`` tokens, the specials first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[f"<|{name}|>" for name in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str().encode()


def tiny_manifest(
    *,
    specials: tuple[str, ...] = SPECIALS,
    tokenizer: bool = True,
    embed: str = "F32",
    golden: tuple[Golden, ...] = (),
    **shape: Any,
) -> Manifest:
    """A manifest of a small model; ``shape`` overrides fields of the architecture."""
    architecture = tiny_architecture(**shape)
    info = TokenizerInfo()
    if tokenizer:
        info = TokenizerInfo("tokenizers-json", {name: position for position, name in enumerate(specials)})
    return Manifest(
        model=ModelIdentity("tiny", "0.0.1"),
        architecture=architecture,
        quantisation=Quantisation(embed=embed, head=None if architecture.tied_head else embed),
        tokenizer=info,
        labels=CONSCIOUSNESS_OUTPUTS[:-1],
        golden=golden,
        licence="Apache-2.0",
        lineage={"made_by": "tests/support/tiny_models.py"},
    )


def tiny_tensors(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray | TernaryMatrix]:
    """Random tensors for a manifest: half of the weights zero, scales that keep activations near one."""
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray | TernaryMatrix] = {}
    for spec in tensor_table(manifest):
        if spec.matrix is not None:
            codes = random.choice(np.array([-1, 0, 0, 1], dtype=np.int8), size=spec.matrix)
            scale = np.float32(random.uniform(0.8, 1.2) / np.sqrt(spec.matrix[1]))
            tensors[spec.name] = TernaryMatrix.from_codes(codes, float(scale))
        elif spec.name == "tokenizer":
            names = sorted(manifest.tokenizer.specials, key=manifest.tokenizer.specials.__getitem__)
            tensors[spec.name] = np.frombuffer(
                tiny_tokenizer_json(manifest.architecture.vocab, tuple(names)), dtype=np.uint8
            )
        elif spec.name.endswith("norm"):
            tensors[spec.name] = random.uniform(0.5, 1.5, spec.shape).astype(np.float32)
        elif not spec.name.endswith(".scale"):
            values = random.standard_normal(spec.shape).astype(np.float32)
            tensors[spec.name] = _stored(values, spec.dtype)
    return tensors


def write_tiny_package(path: str | os.PathLike[str], seed: int = 0, *, screen: bool = False, **options: Any) -> Path:
    """Write a tiny random package.

    Args:
        path: where.
        seed: of the weights.
        screen: whether it brings the output head's screen.
        options: of ``tiny_manifest``: fields of the architecture, ``specials``, ``tokenizer``, ``embed``, ``golden``.
    """
    manifest = tiny_manifest(**options)
    tensors: dict[str, Any] = dict(tiny_tensors(manifest, seed))
    if screen:
        manifest, tensors = with_screen(manifest, tensors)
    write_package(path, manifest, tensors)
    return Path(path)


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16 if dtype == "F16" else np.float32)
