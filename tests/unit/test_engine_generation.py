"""Answers: stop strings wherever the cuts fall, partial characters held back, finish reasons, cancelling."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nis_edge.engine.constraint import Constraint, choices, expression
from nis_edge.engine.generation import Answer, ByteStream, StopText, Wish
from nis_edge.engine.model import Model
from nis_edge.engine.sampler import Sampling
from nis_edge.errors import ConfigError, ModelError
from tests.support.tiny_models import write_tiny_package


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model.open(write_tiny_package(tmp_path_factory.mktemp("generation") / "tiny.nis", seed=2)) as opened:
        yield opened


def answer(model: Model, **wish: object) -> Answer:
    assert model.tokenizer is not None
    return Answer(model, model.session(), model.tokenizer.encode("The agent"), Wish(**wish))  # type: ignore[arg-type]


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_text_ends_before_the_first_stop_string_whatever_the_cuts(text: str, stops: list[str], cuts: list[int]) -> None:
    stop = StopText(stops)
    edges = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    out = "".join(stop.add(text[a:b]) for a, b in itertools.pairwise(edges)) + stop.flush()
    # Of strings that overlap, the one that is whole first ends the text.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert stop.met == bool(ends)
    if ends and len(stops) == 1:
        assert out == text[: ends[0][1]]
    elif not ends:
        assert out == text
    else:
        assert text.startswith(out) and not any(s in out for s in stops)


@given(st.text(max_size=20), st.lists(st.integers(1, 80), max_size=10))
def test_bytes_of_a_character_come_out_together(text: str, cuts: list[int]) -> None:
    raw = text.encode("utf-8", "replace")
    edges = sorted({0, *(cut for cut in cuts if cut < len(raw)), len(raw)})
    tokens = [raw[a:b] for a, b in itertools.pairwise(edges)]
    stream = ByteStream(tokens)
    assert "".join(stream.add(i) for i in range(len(tokens))) + stream.flush() == raw.decode()
    broken = ByteStream(["€".encode()[:2]])
    assert broken.add(0) == "" and broken.flush() == "\ufffd"


def test_an_answer_is_the_same_in_pieces_and_names_why_it_ended(model: Model) -> None:
    wish = {"max_tokens": 20, "sampling": Sampling(temperature=5.0, seed=8), "likely": 3}
    one, two = answer(model, **wish), answer(model, **wish)
    pieces = list(one)
    assert "".join(piece.text for piece in pieces) == two.text()
    assert one.finish == two.finish == "length" and one.made == 20
    assert all(piece.log_probability <= 0 and len(piece.likely) == 3 for piece in pieces if piece.token is not None)


def test_a_stop_string_across_tokens_ends_an_answer_and_is_left_out(model: Model) -> None:
    whole = answer(model, max_tokens=60, sampling=Sampling(temperature=5.0, seed=8)).text()
    middle = whole[7:12]
    stopped = answer(model, max_tokens=60, sampling=Sampling(temperature=5.0, seed=8), stops=(middle,))
    assert stopped.text() == whole[: whole.index(middle)]
    assert stopped.finish == "stop" and stopped.made < 60


def test_a_full_session_ends_an_answer_after_one_more_token(model: Model) -> None:
    session = model.session(max_positions=10)
    made = Answer(model, session, [5] * 8, Wish(max_tokens=50))
    made.text()
    assert (made.finish, made.made, session.position) == ("length", 3, 10)
    with pytest.raises(ModelError, match="a prompt of 11 tokens does not fit"):
        Answer(model, model.session(max_positions=10), [5] * 11, Wish())


def test_cancelling_ends_an_answer_without_an_error(model: Model) -> None:
    under_way = answer(model, max_tokens=100, sampling=Sampling(temperature=5.0))
    texts = []
    for piece in under_way:
        texts.append(piece.text)
        if len(texts) == 3:
            under_way.cancel()
    assert under_way.finish == "cancelled" and under_way.made == 3


def test_the_penalty_sees_prompt_and_answer_but_only_the_last_of_them(model: Model) -> None:
    plain = list(answer(model, max_tokens=40))
    penalised = list(answer(model, max_tokens=40, sampling=Sampling(repetition_penalty=100.0)))
    tokens = [p.token for p in penalised if p.token is not None]
    assert len(set(tokens)) == len(tokens) > 0
    assert [p.token for p in plain] != tokens


def test_constrained_answers_end_complete_or_where_the_model_ends_them(model: Model) -> None:
    constraint = Constraint(model.vocabulary, choices(["yes", "no", "no, stop"]))
    for seed in range(20):
        made = answer(model, sampling=Sampling(temperature=3.0, seed=seed), constraint=constraint)
        text = made.text()
        assert text in ("yes", "no", "no, stop")
        assert made.finish == "complete" or (made.finish, text) == ("end", "no")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), allowed=st.integers(2, 30))
def test_a_short_budget_still_ends_in_a_valid_answer(model: Model, seed: int, allowed: int) -> None:
    constraint = Constraint(model.vocabulary, expression(r"\[(\d+(,\d+)*)?\]"))
    made = answer(model, max_tokens=allowed, sampling=Sampling(temperature=30.0, seed=seed), constraint=constraint)
    text = made.text()
    assert text.startswith("[") and text.endswith("]") and made.made <= allowed


def test_a_constraint_that_needs_more_tokens_than_allowed_is_refused_before_anything_is_made(model: Model) -> None:
    constraint = Constraint(model.vocabulary, expression("z{30}"))
    with pytest.raises(ConfigError, match="shortest answer has 30 tokens, 12 may be made"):
        answer(model, max_tokens=12, constraint=constraint)


def test_wishes_out_of_range_are_refused() -> None:
    for wrong in ({"max_tokens": 0}, {"stops": ("",)}, {"stops": ("a",) * 17}, {"likely": 21}):
        with pytest.raises(ConfigError):
            Wish(**wrong)  # type: ignore[arg-type]


def test_a_rolling_session_answers_beyond_the_context(model: Model) -> None:
    session = model.session(window=60)
    made = Answer(model, session, [5, 6], Wish(max_tokens=300, sampling=Sampling(temperature=20.0, seed=1)))
    made.text()
    assert made.made == 300 or made.finish == "end"
    assert np.isfinite(session.forward([1])).all()
