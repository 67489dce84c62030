"""A package of the nis-base shape that can be asked: random weights, the tokenizer and the labels of a trained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.engine.random_package import random_tensors
from bench.engine.shapes import SHAPES
from nis_edge.monitor.labels import HEAD_NAME, HEAD_OUTPUTS
from nis_edge.pack.layout import Architecture, Manifest, ModelIdentity, Quantisation, TaskHead
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package

HEAD_LAYERS = 3
"""Layers of the consciousness head in the founding plan (design, monitor section 6)."""


def write_random_judge(path: Path, trained: Path, seed: int = 0) -> None:
    """Write the package.

    Args:
        path: where.
        trained: a package whose tokenizer, windows and calibration are taken.
        seed: of the weights.
    """
    shape, rng = SHAPES["nis-base"], np.random.default_rng(seed)
    source = open_package(trained)
    try:
        tokenizer = np.frombuffer(source.tensors["tokenizer"].tobytes(), dtype=np.uint8).copy()
        manifest = Manifest(
            model=ModelIdentity(id="random-nis-base", version="0"),
            architecture=Architecture(
                kind="bitnet", hidden=shape.hidden, ffn=shape.ffn, layers=shape.layers, heads=shape.heads,
                kv_heads=shape.kv_heads, head_dim=shape.head_dim, vocab=shape.vocab, context=512,
                rope_theta=shape.rope_theta, norm_eps=1e-5, activation="relu2", sub_norms=True, tied_head=True,
                task_heads={HEAD_NAME: TaskHead(HEAD_LAYERS, HEAD_OUTPUTS)},
            ),
            quantisation=Quantisation(embed="F16"),
            tokenizer=source.manifest.tokenizer,
            calibration=source.manifest.calibration,
            licence="Apache-2.0",
            lineage={"weights": "random, for speed only"},
        )  # fmt: skip
    finally:
        source.close()
    tensors = {**random_tensors(manifest, rng, embed_scale=0.02), "tokenizer": tokenizer}
    write_package(path, manifest, tensors)
