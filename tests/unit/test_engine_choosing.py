"""Tokens are chosen as the header says, step by step, restated here in plain Python over whole numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nis_edge.engine.model import Model
from nis_edge.engine.sampler import Sampler, Sampling, draw
from nis_edge.errors import ConfigError, ModelError
from tests.support.tiny_models import write_tiny_package

VOCAB = 320


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model.open(write_tiny_package(tmp_path_factory.mktemp("choosing") / "tiny.nis")) as opened:
        yield opened


def bits(allowed: set[int]) -> np.ndarray:
    words = np.zeros(VOCAB // 64, dtype=np.uint64)
    for token in allowed:
        words[token // 64] |= np.uint64(1 << token % 64)
    return words


def kept(logits: np.ndarray, how: Sampling, allowed: set[int]) -> dict[int, float]:
    """Tokens that may be drawn and their weights, from the definition; exponentials by the C library's float64."""
    tokens = sorted(allowed)
    top = max(logits[t] for t in tokens)
    weights = {t: math.exp(float(logits[t] - top) / how.temperature) for t in tokens}
    weights = {t: w for t, w in weights.items() if w >= max(how.min_p, 2**-30)}
    order = sorted(weights, key=lambda t: (-weights[t], t))
    if how.top_k:
        order = order[: how.top_k]
    total, chosen, reached = sum(weights[t] for t in order), [], 0.0
    for token in order:
        if how.top_p < 1.0 and reached >= how.top_p * total * (1 - 1e-9):
            break
        chosen.append(token)
        reached += weights[token]
    return {t: weights[t] for t in chosen}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_tokens_of_the_defined_set_are_drawn(model: Model, data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    # Steps of a quarter: many equal logits, so that ties at every boundary are met.
    logits = (np.round(random.normal(0, 3, VOCAB) * 4) / 4).astype(np.float32)
    how = Sampling(
        temperature=data.draw(st.sampled_from([0.25, 1.0, 4.0])),
        top_k=data.draw(st.sampled_from([0, 1, 3, 50, 319])),
        top_p=data.draw(st.sampled_from([1.0, 0.9, 0.31, 0.01])),
        min_p=data.draw(st.sampled_from([0.0, 0.03])),
        seed=data.draw(st.integers(0, 2**64 - 1)),
    )
    allowed = data.draw(st.sampled_from([set(range(VOCAB)), {3, 64, 127, 319}, set(range(0, VOCAB, 3))]))
    expected = kept(logits, how, allowed)
    sampler, mask = Sampler(model, how), bits(allowed)
    drawn = {sampler.pick(logits, mask.ctypes.data) for _ in range(40)}
    # A weight within rounding of a boundary may fall on either side: the set may differ by such a token.
    assert len(drawn - set(expected)) <= (1 if how.top_p < 1.0 else 0)
    if how.top_p == 1.0 and len(expected) <= 3:
        total = sum(expected.values())
        assert {t for t, w in expected.items() if w / total > 0.3} <= drawn


def test_draws_follow_the_weights_and_the_documented_counter(model: Model) -> None:
    logits = np.full(VOCAB, -100.0, dtype=np.float32)
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    logits[:4] = 2.0 * np.log(probabilities)
    sampler = Sampler(model, Sampling(temperature=2.0, seed=7))
    drawn = [sampler.pick(logits) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4)[:4] / 4000, probabilities, atol=0.03)
    edges = np.cumsum(probabilities)
    predicted = [int(np.searchsorted(edges, draw(7, n) / 2**64, side="right")) for n in range(4000)]
    assert sum(a != b for a, b in zip(drawn, predicted, strict=True)) <= 1


def test_the_generator_is_the_documented_one() -> None:
    def mixed(z: int) -> int:
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    gamma = 0x9E3779B97F4A7C15
    for seed in (0, 1, 2**64 - 1):
        for number in (0, 1, 1000, 2**63):
            assert draw(seed, number) == mixed((mixed((seed + gamma) % 2**64) + (number + 1) * gamma) % 2**64)


def test_temperature_zero_takes_the_first_of_the_largest_that_is_allowed(model: Model) -> None:
    logits = np.zeros(VOCAB, dtype=np.float32)
    logits[[70, 200, 300]] = 5.0
    sampler = Sampler(model, Sampling())
    assert sampler.pick(logits) == 70
    mask = bits({1, 200, 300})
    assert sampler.pick(logits, mask.ctypes.data) == 200
    with pytest.raises(ModelError, match="choosing a token"):
        sampler.pick(logits, bits(set()).ctypes.data)


def test_the_penalty_lowers_what_was_said_whatever_its_sign(model: Model) -> None:
    sampler = Sampler(model, Sampling(repetition_penalty=2.0))
    logits = np.full(VOCAB, -8.0, dtype=np.float32)
    logits[[5, 6]] = (3.0, 2.0)
    assert sampler.pick(logits) == 5
    assert sampler.pick(logits, recent=[5]) == 6
    logits[[5, 6]] = (-1.0, -1.5)
    assert sampler.pick(logits, recent=[5]) == 6
    assert logits[5] == -1.0
    with pytest.raises(ModelError):
        sampler.pick(logits, recent=[VOCAB])


def test_log_probabilities_are_those_of_the_softmax(model: Model) -> None:
    logits = np.random.default_rng(3).normal(0, 4, VOCAB).astype(np.float32)
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    mine, likely = Sampler(model, Sampling()).log_probabilities(logits, 17, 5)
    assert mine == pytest.approx(exact[17], abs=1e-5)
    order = np.argsort(-exact, kind="stable")[:5]
    assert [token for token, _ in likely] == list(order)
    assert [value for _, value in likely] == pytest.approx(list(exact[order]), abs=1e-5)


def test_logits_that_are_not_finite_are_refused(model: Model) -> None:
    logits = np.zeros(VOCAB, dtype=np.float32)
    logits[9] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        Sampler(model, Sampling()).pick(logits)
    with pytest.raises(ConfigError, match="float32"):
        Sampler(model, Sampling()).pick(np.zeros(VOCAB))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0}, {"temperature": float("nan")}, {"temperature": 101.0}, {"seed": -1}, {"seed": 1 << 64},
        {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"top_k": -1}, {"repetition_penalty": 0.0},
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_choices_are_the_same_on_every_instruction_set(tmp_path: Path) -> None:
    from nis_edge.engine import library

    path = write_tiny_package(tmp_path / "tiny.nis")
    logits = np.random.default_rng(1).normal(0, 2, VOCAB).astype(np.float32)
    drawn = set()
    for isa in library.offered_isas():
        with Model.open(path, isa=isa) as model:
            sampler = Sampler(model, Sampling(temperature=0.9, top_p=0.8, top_k=40, seed=3))
            drawn.add(tuple(sampler.pick(logits) for _ in range(200)))
    assert len(drawn) == 1
