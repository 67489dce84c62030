"""The native engine against the numpy reference on everything transformers has no word for: task heads, Llama-like
graphs, half-precision embeddings, sizes that fill no block."""

import numpy as np
import pytest

from nis_edge.engine.model import Model
from nis_edge.engine.reference import reference_head, reference_logits
from nis_edge.errors import ModelError
from nis_edge.pack.layout import TaskHead
from nis_edge.pack.reader import open_package
from tests.parity import agreement
from tests.support.tiny_models import write_tiny_package

SHAPES = {
    "plain": {},
    "odd-sizes-bf16": {"embed": "BF16", "heads": 3, "kv_heads": 1, "head_dim": 6, "hidden": 23, "ffn": 77},
    "untied-f16": {"tied_head": False, "embed": "F16", "heads": 5, "kv_heads": 5, "head_dim": 8, "hidden": 100},
    "llama-like": {"sub_norms": False, "activation": "silu"},
    "silu-with-sub-norms": {"activation": "silu"},
    "heads-wider-than-hidden": {"heads": 8, "kv_heads": 4, "head_dim": 32, "hidden": 40},
    "two-task-heads": {"task_heads": {"law": TaskHead(0, ("a",)), "mood": TaskHead(3, ("b", "c", "d"))}},
    "one-layer-deep-theta": {"layers": 1, "rope_theta": 500_000.0, "norm_eps": 1e-6},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_and_task_heads_agree(tmp_path, shape):
    path = write_tiny_package(tmp_path / "a.nis", seed=5, **shape)
    tokens = np.random.default_rng(6).integers(0, 320, 40).tolist()
    with open_package(path) as package:
        agreement.assert_agree(agreement.native(path)(tokens), reference_logits(package, tokens, all_positions=True))
        names = sorted(package.manifest.architecture.task_heads)
        expected = {name: reference_head(package, tokens, name) for name in names}
    model = Model.open(path)
    try:
        session = model.session()
        session.forward(tokens)
        for name in names:
            found = session.head(name)
            assert found.shape == expected[name].shape
            assert np.abs(found - expected[name]).max() < agreement.WORST * max(1.0, float(expected[name].std()))
    finally:
        model.close()


def test_the_reference_computes_the_last_position_alone_or_all(tmp_path):
    with open_package(write_tiny_package(tmp_path / "a.nis")) as package:
        everything = reference_logits(package, [5, 6, 7], all_positions=True)
        assert everything.shape == (3, 320)
        np.testing.assert_allclose(reference_logits(package, [5, 6, 7]), everything[-1], rtol=1e-5, atol=1e-5)
        # Causal: what follows changes nothing before it.
        np.testing.assert_allclose(reference_logits(package, [5, 6, 9], True)[:2], everything[:2], rtol=1e-5, atol=1e-5)
        assert np.abs(reference_logits(package, [6, 5, 7]) - everything[-1]).max() > 0.01


@pytest.mark.parametrize("tokens", [[], [320], [-1], [0] * 129])
def test_the_reference_refuses_tokens_it_cannot_take(tmp_path, tokens):
    with open_package(write_tiny_package(tmp_path / "a.nis")) as package, pytest.raises(ModelError):
        reference_logits(package, tokens)


def test_the_reference_names_the_heads_it_has(tmp_path):
    with (
        open_package(write_tiny_package(tmp_path / "a.nis")) as package,
        pytest.raises(ModelError, match="no task head 'physics'; it has consciousness"),
    ):
        reference_head(package, [1], "physics")
