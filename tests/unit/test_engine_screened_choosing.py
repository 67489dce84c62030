"""Tokens chosen from the most likely ones alone are those that all logits would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nis_edge.engine import library
from nis_edge.engine.model import Model
from nis_edge.engine.sampler import Sampler, Sampling
from nis_edge.errors import ModelError
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors, write_tiny_package

STEPS = 60
VOCAB = 4800
"""The screen serves a sixteenth of the vocabulary at most."""


@pytest.fixture(scope="module", params=[(1, False), (2, False), (2, True)], ids=["made 1", "made 2", "packed"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path, (seed, screen) = tmp_path_factory.mktemp("screened") / "tiny.nis", request.param
    write_tiny_package(path, seed=seed, screen=screen, vocab=VOCAB, tokenizer=False)
    with Model.open(path) as opened:
        opened.screen_from(0)
        yield opened


def both_ways(model: Model, how: Sampling, steps: int = STEPS) -> tuple[list[int], list[int]]:
    """Tokens through the screen, and from all logits."""
    answers: list[list[int]] = []
    for screened in (True, False):
        session, sampler = model.session(), Sampler(model, how)
        made = [1]
        for _ in range(steps):
            one = np.array(made[-1:], dtype=np.int32)
            recent = set(made[-20:]) if how.repetition_penalty != 1.0 else set()
            if screened:
                made.append(session.choose(one, sampler, recent))
            else:
                made.append(sampler.pick(session.forward(one), recent=recent))
        answers.append(made)
    return answers[0], answers[1]


@pytest.mark.parametrize("temperature", [0.0, 0.05, 0.7, 1.5, 50.0])
@pytest.mark.parametrize(
    "how",
    [
        {"top_k": 1}, {"top_k": 5}, {"top_k": 20, "top_p": 0.7}, {"min_p": 0.5}, {"min_p": 0.05, "top_p": 0.9},
        {"top_k": 10, "min_p": 0.2}, {"top_k": 10, "repetition_penalty": 1.3}, {"repetition_penalty": 1.2}, {},
        {"top_k": 5, "repetition_penalty": 0.7}, {"top_p": 0.5}, {"top_k": 2000}, {"min_p": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_the_tokens_are_those_of_all_logits(model: Model, temperature: float, how: dict) -> None:
    for seed in (1, 2):
        found, wanted = both_ways(model, Sampling(temperature=temperature, seed=seed, **how), 25)
        assert found == wanted


def test_top_k_reads_few_rows_in_full_and_top_p_alone_all(model: Model) -> None:
    both_ways(model, Sampling(top_k=5, temperature=1.0), 12)  # the screen is made
    before = model.head_statistics()["rows_screened"]
    both_ways(model, Sampling(top_k=5, temperature=1.0), 10)
    after = model.head_statistics()["rows_screened"]
    assert after - before == 10 * VOCAB
    both_ways(model, Sampling(top_p=0.9, temperature=1.0), 10)
    assert model.head_statistics()["rows_screened"] == after


def test_logits_that_differ_by_less_than_their_weights_choose_the_same(tmp_path: Path) -> None:
    """Rows of the head in families of 40 whose greatest logit has the highest token, but whose weights are equal: the
    k-th weight is that of tokens which are not among the most likely, and the lower tokens count."""
    manifest = tiny_manifest(vocab=VOCAB, tokenizer=False)
    tensors = tiny_tensors(manifest, 9)
    for name in ("embed", "head"):
        if name in tensors:
            rows = np.asarray(tensors[name]).copy()
            steps = np.float32(1e-3) * (1 + np.arange(40, dtype=np.float32) * np.float32(2**-22))[None, :, None]
            rows[:] = (rows[::40, None, :] * steps).reshape(rows.shape)
            tensors[name] = rows
    write_package(tmp_path / "m.nis", manifest, tensors)
    with Model.open(tmp_path / "m.nis") as model:
        model.screen_from(0)
        for temperature in (1.0, 60.0, 100.0):
            found, wanted = both_ways(model, Sampling(temperature=temperature, top_k=20, seed=5))
            assert found == wanted


def test_a_failed_choice_reads_and_draws_nothing(model: Model) -> None:
    how = Sampling(temperature=1.0, top_k=5, seed=4)
    session, sampler = model.session(4), Sampler(model, how)
    one = np.array([1], dtype=np.int32)
    with pytest.raises(ModelError, match="outside the vocabulary"):
        session.choose(one, sampler, [VOCAB])
    with pytest.raises(ModelError, match="5 more tokens do not fit"):
        session.choose(np.ones(5, dtype=np.int32), sampler)
    assert session.position == 0
    assert session.choose(one, sampler) == model.session().choose(one, Sampler(model, how))


def test_every_instruction_set_chooses_the_same_through_the_screen(tmp_path: Path) -> None:
    paths = [
        write_tiny_package(tmp_path / name, seed=8, screen=screen, vocab=VOCAB, tokenizer=False)
        for name, screen in (("made.nis", False), ("packed.nis", True))
    ]
    made = set()
    for isa in library.offered_isas():
        for path in paths:
            with Model.open(path, isa=isa, threads=2) as model:
                model.screen_from(0)
                made.add(tuple(both_ways(model, Sampling(temperature=0.9, top_k=12, seed=3), 30)[0]))
    assert len(made) == 1
