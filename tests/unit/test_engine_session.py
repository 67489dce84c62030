"""A session reads tokens in any division, goes back, answers task heads lazily, and refuses without moving."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from tests.support.tiny_models import write_tiny_package

VOCAB = 320
TOKENS = [(7919 * i + 3) % VOCAB for i in range(100)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("session") / "tiny.nis", seed=9)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 thread", "2 threads"])
def model(path: Path, request: pytest.FixtureRequest) -> Iterator[Model]:
    with Model.open(path, threads=request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def truth(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits of every position, and the head's outputs at every position, asked one token at a time."""
    with Model.open(path) as model:
        session = model.session()
        logits, heads = [], []
        for token in TOKENS:
            logits.append(session.forward([token]))
            heads.append(session.head("consciousness"))
        return np.stack(logits), heads


def test_all_positions_at_once_equal_one_token_at_a_time(model: Model, truth: tuple) -> None:
    assert (model.session().forward(TOKENS, all_positions=True) == truth[0]).all()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 100), max_size=6), fed=st.booleans())
def test_any_division_into_calls_gives_the_same_bits(model: Model, truth: tuple, cuts: list[int], fed: bool) -> None:
    session = model.session()
    edges = sorted({0, *cuts, 100})
    for start, end in itertools.pairwise(edges):
        if fed and end < 100:
            session.feed(TOKENS[start:end])
        else:
            assert (session.forward(TOKENS[start:end]) == truth[0][end - 1]).all()
        assert session.position == end
    assert (session.head("consciousness") == truth[1][-1]).all()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40), st.booleans()), min_size=1, max_size=5))
def test_rewinding_keeps_the_prefix_of_trunk_and_heads(model: Model, truth: tuple, steps: list) -> None:
    session = model.session()
    for back_to, count, ask in steps:
        session.rewind(min(back_to, session.position))
        start, end = session.position, min(100, session.position + count)
        assert (session.forward(TOKENS[start:end]) == truth[0][end - 1]).all()
        if ask:
            assert (session.head("consciousness") == truth[1][end - 1]).all()


def test_what_was_rewound_leaves_no_trace(model: Model, truth: tuple) -> None:
    session = model.session()
    session.feed(TOKENS[:20])
    session.feed([9] * 30)
    elsewhere = session.head("consciousness")
    session.rewind(20)
    assert (session.forward(TOKENS[20:60]) == truth[0][59]).all()
    assert (session.head("consciousness") == truth[1][59]).all()
    assert (session.head("consciousness") != elsewhere).any()


def test_a_head_asked_again_after_rewinding_answers_for_the_earlier_position(model: Model, truth: tuple) -> None:
    session = model.session()
    session.feed(TOKENS[:50])
    assert (session.head("consciousness") == truth[1][49]).all()
    session.rewind(30)
    assert (session.head("consciousness") == truth[1][29]).all()
    assert (session.head("consciousness") == truth[1][29]).all()


def test_tokens_may_be_any_integer_array(model: Model, truth: tuple) -> None:
    for tokens in (tuple(TOKENS), np.array(TOKENS, dtype=np.int64), np.array(TOKENS, dtype=np.uint16)):
        assert (model.session().forward(tokens) == truth[0][-1]).all()
    backwards = np.array(TOKENS[::-1])[::-1]
    assert (model.session().forward(backwards) == truth[0][-1]).all()


BAD_TOKENS = {
    "none": [],
    "too large": [1, VOCAB],
    "negative": [-1],
    "far beyond int32": [1 << 40],
    "beyond int64": [1 << 80],
    "float": [1.5],
    "text": "ab",
    "nested": [[1, 2]],
    "bool": [True],
    "ragged": [[1], [2, 3]],
}


@pytest.mark.parametrize("tokens", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_bad_tokens_are_refused_and_the_session_stays(model: Model, truth: tuple, tokens: object) -> None:
    session = model.session()
    session.feed(TOKENS[:7])
    for call in (session.forward, session.feed):
        with pytest.raises(ModelError, match="token"):
            call(tokens)
    assert session.position == 7
    assert (session.forward(TOKENS[7:9]) == truth[0][8]).all()


def test_a_full_session_refuses_and_says_where_it_stands(model: Model) -> None:
    session = model.session(max_positions=10)
    session.feed(TOKENS[:8])
    with pytest.raises(ModelError, match="3 more tokens do not fit, the session stands at 8 of 10"):
        session.feed(TOKENS[:3])
    session.feed(TOKENS[8:10])
    assert session.position == 10


def test_unknown_heads_and_empty_sessions_are_refused(model: Model) -> None:
    session = model.session()
    with pytest.raises(ModelError, match="no position"):
        session.head("consciousness")
    with pytest.raises(ModelError, match="'physics'; it has consciousness"):
        session.head("physics")


@pytest.mark.parametrize("position", [-1, 5])
def test_rewinding_to_where_it_was_not_is_refused(model: Model, position: int) -> None:
    session = model.session()
    session.feed(TOKENS[:4])
    with pytest.raises(ModelError, match="can't rewind"):
        session.rewind(position)
    assert session.position == 4


def test_greedy_equals_picking_the_largest_logit_step_by_step(model: Model) -> None:
    session, other = model.session(), model.session()
    session.feed(TOKENS[:10])
    made = session.greedy(5, 40)
    token, expected = 5, []
    other.feed(TOKENS[:10])
    for _ in range(40):
        token = int(other.forward([token]).argmax())
        expected.append(token)
    assert made == expected
    assert session.position == 50
    session.rewind(10)
    assert session.greedy(5, 40, stop=expected[3]) == expected[: expected.index(expected[3]) + 1]


def test_greedy_beyond_the_end_is_refused(model: Model) -> None:
    session = model.session(max_positions=12)
    session.feed(TOKENS[:10])
    with pytest.raises(ModelError, match="room for 2"):
        session.greedy(1, 3)
    assert session.position == 10


def test_cancelling_ends_a_pass_and_leaves_the_session(model: Model, truth: tuple) -> None:
    session = model.session()
    session.feed(TOKENS[:4])
    session.cancel()
    with pytest.raises(ModelError, match="cancelled"):
        session.forward(TOKENS[4:])
    assert session.position == 4
    assert (session.forward(TOKENS[4:]) == truth[0][-1]).all()


def test_two_sessions_of_one_model_do_not_mix(model: Model, truth: tuple) -> None:
    one, two = model.session(), model.session()
    for start in range(0, 100, 10):
        two.feed(TOKENS[start // 2 : start // 2 + 5])
        assert (one.forward(TOKENS[start : start + 10]) == truth[0][start + 9]).all()
    assert (two.forward(TOKENS[50:60]) == truth[0][59]).all()


def test_sessions_in_several_threads_get_right_answers(model: Model, truth: tuple) -> None:
    wrong: list[int] = []

    def read() -> None:
        session = model.session()
        for start in range(0, 100, 5):
            if not (session.forward(TOKENS[start : start + 5]) == truth[0][start + 4]).all():
                wrong.append(start)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_second_thread_on_one_session_gets_an_error_and_does_no_harm(path: Path) -> None:
    with Model.open(path) as model:
        session = model.session()
        seen: list[str] = []
        done = threading.Event()

        def disturb() -> None:
            while not done.is_set():
                try:
                    session.head("consciousness")
                except ModelError as error:
                    seen.append(str(error))

        session.feed(TOKENS[:1])
        thread = threading.Thread(target=disturb)
        thread.start()
        expected = None
        for _ in range(2000):
            try:
                session.rewind(1)
                logits = session.forward(TOKENS[1:60])
            except ModelError as error:
                seen.append(str(error))
                continue
            expected = logits if expected is None else expected
            assert (logits == expected).all()
            if len(seen) >= 5:
                break
        done.set()
        thread.join()
        assert seen and all("in use by another thread" in line for line in seen)
