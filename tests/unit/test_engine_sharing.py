"""Forks, saved sessions, batches and rolling windows compute the bits that one session alone would."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nis_edge.engine import library
from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from tests.support.tiny_models import CONSCIOUSNESS_OUTPUTS, write_tiny_package

VOCAB = 320
TOKENS = [(7919 * i + 3) % VOCAB for i in range(120)]
KV = ("F32", "F16", "I8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model.open(write_tiny_package(tmp_path_factory.mktemp("sharing") / "tiny.nis", seed=9), threads=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def truth(model: Model) -> dict[str, np.ndarray]:
    return {kv: model.session(kv=kv).forward(TOKENS, all_positions=True) for kv in KV}


def test_int8_keys_and_values_stay_near_the_exact_ones(truth: dict[str, np.ndarray]) -> None:
    spread = truth["F32"].std()
    assert np.abs(truth["I8"] - truth["F32"]).mean() < 0.05 * spread
    assert (truth["I8"] != truth["F32"]).any()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(read=st.integers(1, 110), at=st.integers(0, 110), kv=st.sampled_from(KV), forks=st.integers(1, 3))
def test_forks_and_their_parent_go_on_as_if_alone(
    model: Model, truth: dict[str, np.ndarray], read: int, at: int, kv: str, forks: int
) -> None:
    parent = model.session(kv=kv)
    parent.feed(TOKENS[:read])
    at = min(at, read)
    children = [parent.fork(at) for _ in range(forks)]
    strange = parent.fork(at)
    strange.feed([5, 4, 3])
    for child in children:
        assert (child.forward(TOKENS[at : at + 7]) == truth[kv][at + 6]).all()
    assert (parent.forward(TOKENS[read : read + 5]) == truth[kv][read + 4]).all()


@pytest.mark.parametrize("kv", KV)
def test_a_saved_session_goes_on_with_the_same_bits_and_heads(
    model: Model, truth: dict[str, np.ndarray], kv: str
) -> None:
    session = model.session(kv=kv)
    session.feed(TOKENS[:77])
    head = session.head("consciousness")
    saved = session.save()
    restored = model.restore(saved)
    assert restored.save() == saved
    assert (restored.head("consciousness") == head).all()
    assert (restored.forward(TOKENS[77:]) == truth[kv][-1]).all()
    assert restored.max_positions == session.max_positions


def test_bytes_of_another_model_and_damaged_bytes_are_refused(model: Model, tmp_path: Path) -> None:
    session = model.session()
    session.feed(TOKENS[:5])
    saved = session.save()
    other = write_tiny_package(tmp_path / "other.nis", seed=10)
    with Model.open(other) as strange, pytest.raises(ModelError, match="another model"):
        strange.restore(saved)
    damaged = bytearray(saved)
    damaged[len(saved) // 2] ^= 4
    for wrong in (b"", saved[:-1], saved + b"\0", bytes(damaged), saved[:80]):
        with pytest.raises(ModelError, match="damaged"):
            model.restore(wrong)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60), st.sampled_from(KV)), min_size=1, max_size=8))
def test_each_session_of_a_batch_gets_the_bits_it_gets_alone(
    model: Model, truth: dict[str, np.ndarray], parts: list[tuple[int, int, str]]
) -> None:
    batch = []
    for before, count, kv in parts:
        session = model.session(kv=kv)
        if before:
            session.feed(TOKENS[:before])
        batch.append((session, TOKENS[before : before + count]))
    for logits, (before, count, kv) in zip(model.forward_batch(batch), parts, strict=True):
        assert (logits == truth[kv][before + count - 1]).all()


def test_a_batch_that_fails_names_the_item_and_moves_nobody(model: Model) -> None:
    one, two = model.session(), model.session(max_positions=3)
    with pytest.raises(ModelError, match="session 1 of 2"):
        model.forward_batch([(one, [1, 2]), (two, [1, 2, 3, 4])])
    with pytest.raises(ModelError, match="session 1 of 2"):
        model.forward_batch([(one, [1]), (one, [2])])
    with pytest.raises(ModelError, match="must be 1 to 256"):
        model.forward_batch([])
    assert one.position == two.position == 0


def test_a_rolling_window_of_a_one_layer_model_reads_only_what_it_keeps(tmp_path: Path) -> None:
    """In one layer keys and values depend on their own token alone, so a fresh session fed with the sinks and the
    window says independently what a rolled one must compute, up to the rounding of angles."""
    with Model.open(write_tiny_package(tmp_path / "one.nis", layers=1, task_heads={}, context=64)) as model:
        rolling = model.session(window=20, sinks=4)
        tokens = [(7919 * i + 3) % VOCAB for i in range(400)]
        for position, token in enumerate(tokens):
            logits = rolling.forward([token])
            if position % 37 == 0 or position == 399:
                kept = tokens[: position + 1]
                if len(kept) > 24:
                    kept = [*kept[:4], *kept[-20:]]
                expected = model.session().forward(kept)
                assert np.abs(logits - expected).max() < 2e-3 * np.abs(expected).max()
        assert rolling.position == 400


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 299), max_size=6), kv=st.sampled_from(KV))
def test_a_rolling_session_does_not_depend_on_the_division_into_calls(model: Model, cuts: list[int], kv: str) -> None:
    tokens = (TOKENS * 3)[:300]
    whole = model.session(kv=kv, window=70, sinks=3).forward(tokens)
    session = model.session(kv=kv, window=70, sinks=3)
    edges = sorted({0, *cuts, 300})
    for start, end in itertools.pairwise(edges):
        if start == 150:
            session = model.restore(session.save())
        logits = session.forward(tokens[start:end])
    assert (logits == whole).all()


def test_a_rolling_session_gives_memory_back_and_says_what_is_gone(model: Model) -> None:
    session = model.session(window=70, sinks=3)
    session.feed((TOKENS * 9)[:1000])
    assert len(session.save()) < 300 * 8 * 2 * 2 * 16
    for back in (session.rewind, session.fork):
        with pytest.raises(ModelError, match="gave back"):
            back(500)
    with pytest.raises(ModelError, match="gave back"):
        session.head("consciousness")
    with pytest.raises(ModelError, match="the model allows 128 together"):
        model.session(window=126)
    with pytest.raises(ModelError, match="one of the two"):
        model.session(window=3, max_positions=8)


def test_a_head_costs_only_its_own_layers(tmp_path: Path) -> None:
    from nis_edge.pack.layout import TaskHead

    heads = {
        "consciousness": TaskHead(layers=3, outputs=CONSCIOUSNESS_OUTPUTS),
        "physics": TaskHead(layers=2, outputs=("consistent", "violation")),
    }
    path = write_tiny_package(tmp_path / "heads.nis", layers=4, task_heads=heads)
    with Model.open(path) as model:

        def spent() -> int:
            total = library.load().nis_probe_layer_tokens(model.pointer)
            spent.before, difference = total, total - getattr(spent, "before", 0)  # type: ignore[attr-defined]
            return difference

        session = model.session()
        session.feed(TOKENS[:50])
        assert spent() == 4 * 50
        first = session.head("consciousness")
        assert spent() == 3 * 50
        session.head("consciousness")
        assert spent() == 0
        session.head("physics")
        assert spent() == 2 * 50
        session.feed(TOKENS[50:60])
        assert spent() == 4 * 10
        session.head("physics")
        assert spent() == 2 * 10
        fork = session.fork(50)
        assert (fork.head("consciousness") == first).all()
        assert spent() == 3 * 1


def test_equal_sessions_save_equal_bytes(model: Model) -> None:
    digests = set()
    for chunk in (1, 13, 90):
        session = model.session(kv="I8")
        for start in range(0, 90, chunk):
            session.feed(TOKENS[start : min(90, start + chunk)])
        digests.add(hashlib.sha256(session.save()).hexdigest())
    assert len(digests) == 1
