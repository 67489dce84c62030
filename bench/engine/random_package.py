"""Writes a `.nis` package of a shape with random ternary weights and an F16 head, as the peers' files have it.

It carries the head's screen, as a package of `nis-edge pack` does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.engine.random_codes import random_code_bytes
from bench.engine.shapes import Shape
from nis_edge.engine import head_screen
from nis_edge.pack.layout import Architecture, Manifest, ModelIdentity, Quantisation, tensor_table
from nis_edge.pack.writer import Source, write_package


def write_random_package(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write the package; every dimension must be a multiple of the layout's block, so that no padding is random."""
    rng = np.random.default_rng(seed)
    manifest = Manifest(
        model=ModelIdentity(id=f"random-{shape.name}", version="0"),
        architecture=Architecture(
            kind="bitnet",
            hidden=shape.hidden,
            ffn=shape.ffn,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            vocab=shape.vocab,
            context=4096,
            rope_theta=shape.rope_theta,
            norm_eps=1e-5,
            activation="relu2",
            sub_norms=True,
            tied_head=True,
        ),
        quantisation=Quantisation(embed="F16"),
        licence="Apache-2.0",
        lineage={"weights": "random, for speed only"},
    )
    tensors = random_tensors(manifest, rng)
    if head_screen.pays(manifest):
        manifest, tensors = head_screen.with_screen(manifest, tensors)
    write_package(path, manifest, tensors)


def random_tensors(manifest: Manifest, rng: np.random.Generator, embed_scale: float = 1.0) -> dict[str, Source]:
    """Random weights for a manifest; norms are ones, and what is no weight is left out for the caller to add.

    Args:
        manifest: every dimension a multiple of the layout's block.
        rng: draws them.
        embed_scale: standard deviation of the embedding, and of task heads' projections.
    """
    shape = manifest.architecture
    tensors: dict[str, Source] = {}
    for spec in tensor_table(manifest):
        if spec.matrix:
            tensors[spec.name] = random_code_bytes(rng, spec.shape)
        elif spec.name.endswith(".scale"):
            columns = shape.ffn if ".down." in spec.name else shape.hidden
            tensors[spec.name] = np.array([(1.5 / columns) ** 0.5], dtype=np.float32)
        elif spec.name == "embed":
            tensors[spec.name] = (embed_scale * rng.standard_normal(spec.shape, dtype=np.float32)).astype(np.float16)
        elif spec.name.endswith(".projection"):
            tensors[spec.name] = embed_scale * rng.standard_normal(spec.shape, dtype=np.float32)
        elif spec.name != "tokenizer":
            tensors[spec.name] = np.ones(spec.shape, dtype=np.float32)
    return tensors
