"""The vector of evidence: fixed names, unknown is NaN, and each number moves with what it is about."""

from __future__ import annotations

import numpy as np
import pytest

from nis_edge.monitor.context import NO_DEVICE, Window, window_of
from nis_edge.monitor.dense import dense, meaning_vectors, names
from nis_edge.monitor.evidence import gather
from nis_edge.monitor.meaning import Meanings, cosine
from nis_edge.wire.messages import AgentEvent


def event(number: int, agent: str, text: str, kind: str = "message", **fields: object) -> AgentEvent:
    return AgentEvent(id=str(number), ts=1000.0 + number, agent=agent, kind=kind, text=text, **fields)  # type: ignore[arg-type]


def window(*events: AgentEvent, goal: str | None = "Book a flight to Oslo for 2 people.") -> Window:
    return window_of(goal, events, NO_DEVICE, 1000.0 + len(events), time_known=True)


def numbers(shown: Window, meanings: Meanings | None = None) -> dict[str, float]:
    return dict(zip(names(), dense(shown, gather(shown), meanings).tolist(), strict=True))


@pytest.fixture
def meanings() -> Meanings:
    words = ["filler"] * 0 + ["flight", "plane", "ticket", "soup", "bread", "recipe"]
    vectors = np.array([[120, 9], [118, 20], [110, 30], [5, 120], [12, 119], [20, 110]], dtype=np.int8)
    return Meanings(words, vectors)


def test_every_number_has_one_name() -> None:
    assert len(set(names())) == len(names())
    assert len(dense(window(), gather(window()), None)) == len(names())


def test_a_window_without_events_knows_nothing_of_events() -> None:
    seen = numbers(window(goal=None))
    assert np.isnan(seen["e0.novelty"]) and np.isnan(seen["c0.like"]) and np.isnan(seen["z"])
    assert seen["events"] == 0 and seen["goal_known"] == 0


@pytest.mark.parametrize(
    ("second", "number"),
    [
        ("The flight to Oslo costs 410 euros in total.", "differs.number"),
        ("The flight to Oslo is not available on Monday.", "differs.denied"),
        ("The flight to Oslo is unavailable on Monday.", "differs.opposite"),
    ],
)
def test_a_statement_changed_is_told_from_the_same_statement_again(second: str, number: str) -> None:
    first = (
        "The flight to Oslo costs 250 euros in total."
        if number == "differs.number"
        else "The flight to Oslo is available on Monday."
    )
    changed = numbers(window(event(1, "a", first), event(2, "b", "noted"), event(3, "a", second)))
    same = numbers(window(event(1, "a", first), event(2, "b", "noted"), event(3, "a", first)))
    assert changed[number] > 0.3
    assert same[number] == 0 and same["c0.same"] == 1


def test_a_request_that_was_acted_on_without_a_question_shows() -> None:
    asked = event(1, "user", "just change it to the other one", to="a")
    acted = numbers(window(event(0, "user", "hi"), asked, event(2, "a", "{}", kind="tool_call", tool="update")))
    answered = numbers(window(event(0, "user", "hi"), asked, event(2, "a", "Which booking do you mean?")))
    assert (acted["r0.acted_first"], answered["r0.acted_first"]) == (1, 0)
    assert answered["r0.asked_back"] == 1
    assert acted["r0.pointing"] > 0.4


def test_meaning_tells_off_topic_from_on_topic_without_a_shared_word(meanings: Meanings) -> None:
    near = numbers(window(event(1, "a", "a plane"), goal="flight"), meanings)
    far = numbers(window(event(1, "a", "a soup recipe"), goal="flight"), meanings)
    assert near["m0.goal"] > 0.9 > 0.5 > far["m0.goal"]
    assert np.isnan(numbers(window(event(1, "a", "xyzzy"), goal="flight"), meanings)["m0.goal"])


def test_a_text_of_unknown_words_has_no_meaning_rather_than_a_zero(meanings: Meanings) -> None:
    assert meanings.vector("12345 zzz") is None
    assert cosine(meanings.vector("flight"), None) is None
    shown = window(event(1, "a", "bread"))
    vectors = meaning_vectors(shown, meanings).reshape(-1, meanings.width)
    assert vectors[0].any() and not vectors[1].any()


def test_hostile_text_is_bounded_and_changes_no_form() -> None:
    long = event(1, "a", "is not " * 9000 + "\x00\u202e" + "?" * 5000)
    seen = dense(window(long, long, long), gather(window(long, long, long)), None)
    assert seen.dtype == np.float32 and len(seen) == len(names()) and not np.isinf(seen).any()
