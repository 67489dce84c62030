"""The rules on the numbers they judge by, at their thresholds and beside their look-alikes."""

from __future__ import annotations

import pytest

from nis_edge.monitor.absorb import absorb_event
from nis_edge.monitor.rules import (
    POLL_ROUNDS,
    RETRY_ROUNDS,
    SAME_CALL_ROUNDS,
    RuleOptions,
    agreement,
    agrees,
    conflicting_claims,
    failing_calls,
    little_novelty,
    overconfident,
    repeated_calls,
    repeated_messages,
    silence_limit_s,
    slow_answers,
)
from nis_edge.monitor.state import AgentState, Call, ClaimEntry, Message, MonitorState, Outcome, Result
from nis_edge.monitor.statistics import cycle_length, likeness, quantile, robust_z, sketch_of, wilson
from nis_edge.wire.messages import AgentEvent

OPTIONS = RuleOptions()


def agent(**fields: object) -> AgentState:
    return AgentState(name="a", first_t=0.0, last_t=0.0, last_ts=0.0, **fields)  # type: ignore[arg-type]


def calls(keys: str, *, tool: str = "look", ok: bool | None = True, answer: int | None = 1) -> tuple[Call, ...]:
    seen: set[str] = set()
    made = []
    for index, key in enumerate(keys):
        made.append(Call(id=str(index), key=key, tool=tool, t=float(index), new=key not in seen, result=answer, ok=ok))
        seen.add(key)
    return tuple(made)


@pytest.mark.parametrize(
    ("keys", "standing"),
    [
        ("aaaa", "raise"), ("aaa", "hold"), ("aa", None), ("abcaaaa", "raise"), ("aaaab", None),
        ("ababab", "raise"), ("abab", None), ("xabcabcabc", "raise"), ("abcdefghabcdefghabcdefgh", "raise"),
        ("abcdefghiabcdefghiabcdefghi", None),
    ],
)  # fmt: skip
def test_cycles_of_one_to_eight_calls_are_found(keys: str, standing: str | None) -> None:
    verdict = repeated_calls(agent(calls=calls(keys)))
    assert (verdict and verdict.standing) == standing


def test_retries_and_polling_are_given_more_rounds() -> None:
    assert repeated_calls(agent(calls=calls("a" * SAME_CALL_ROUNDS, ok=False))) is None
    retried = repeated_calls(agent(calls=calls("a" * RETRY_ROUNDS, ok=False)))
    assert retried is not None and "fails each time" in retried.text
    polled = "a" * (POLL_ROUNDS - 2)
    assert repeated_calls(agent(calls=calls(polled, tool="get_job_status"))) is None
    assert repeated_calls(agent(calls=calls("a" * POLL_ROUNDS, tool="get_job_status"))) is not None


def test_a_call_under_way_neither_raises_nor_withdraws() -> None:
    done = calls("aaaa")
    pending = Call(id="9", key="a", tool="look", t=9.0, new=False)
    before, during = repeated_calls(agent(calls=done)), repeated_calls(agent(calls=(*done, pending)))
    assert before is not None and during is not None and before.text == during.text


def test_answers_that_differ_are_no_circle() -> None:
    told = tuple(Call(id=str(index), key="a", tool="look", t=0.0, new=index == 0, result=index) for index in range(10))
    assert repeated_calls(agent(calls=told)) is None


@pytest.mark.parametrize(("keys", "standing"), [("a" * 5 + "b" * 5, "hold"), ("aabbababba" * 2 + "abba", "raise")])
def test_few_new_calls_are_looping_without_a_circle(keys: str, standing: str) -> None:
    verdict = little_novelty(agent(calls=calls(keys)))
    assert verdict is not None and verdict.standing == standing


def test_new_calls_and_short_histories_are_no_looping() -> None:
    assert little_novelty(agent(calls=calls("abcdefghijkl"))) is None
    assert little_novelty(agent(calls=calls("aaaaaaaaa"))) is None


def messages(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(str(index), *sketch_of(text)) for index, text in enumerate(texts))


def test_near_identical_messages_are_found_and_counts_that_move_on_are_not() -> None:
    same = "Please provide the reservation number so that I can look into this."
    verdict = repeated_messages(
        agent(messages=messages(same, "other words entirely here now", same.lower(), same + " "))
    )
    assert verdict is not None and verdict.standing == "raise" and verdict.evidence == ("0", "2", "3")
    moving = [f"finished part {index} of 20 of the long survey" for index in range(8)]
    assert repeated_messages(agent(messages=messages(*moving))) is None
    assert repeated_messages(agent(messages=messages("yes", "yes", "yes"))).standing == "hold"  # type: ignore[union-attr]


def test_a_prompt_that_is_answered_otherwise_each_time_is_given_more_rounds() -> None:
    prompt = sketch_of("Continue, please, and keep solving the problem until you have the answer.")
    answers = [
        sketch_of(text)[0]
        for text in (
            "the train needs three hours to the border, so it is there at noon",
            "customs take one hour more on weekdays and none at night",
            "adding both gives the arrival that was asked for",
            "a second way leads over the coast, which is slower",
            "both ways together leave a margin of an hour",
        )
    ]

    def said(*heard: tuple[int, ...] | None) -> AgentState:
        return agent(messages=(Message("0", *prompt), *(Message(str(i), *prompt, one) for i, one in enumerate(heard))))

    def standing(*heard: tuple[int, ...] | None) -> str | None:
        verdict = repeated_messages(said(*heard))
        return verdict and verdict.standing

    assert standing(*answers[:2]) == standing(*answers[:4]) == "hold"
    assert standing(*answers) == "raise", "nor does prompting go on for ever"
    assert standing(answers[0], answers[0]) == "raise", "the other one turns in a circle, too"
    assert standing(answers[0], None) == "raise", "nobody said anything in between"


def test_what_was_heard_is_what_another_agent_said_at_length_since() -> None:
    state = MonitorState()
    part, more = "here is the first part of it", "what takes you all so long today"
    lines = (
        ("driver", "go on"),
        ("worker", part),
        ("driver", "go on"),
        ("driver", "go on"),
        ("user", more),
        ("driver", "go on"),
        ("worker", "thank you"),
        ("driver", "go on"),
    )
    for number, (name, text) in enumerate(lines):
        event = AgentEvent(id=str(number), ts=float(number), agent=name, kind="message", text=text)
        state = absorb_event(state, event, float(number), float(number), time_known=True)
    heard = [message.heard for message in state.agents["driver"].messages]
    assert heard == [None, sketch_of(part)[0], None, None, None]
    assert [message.heard for message in state.agents["worker"].messages] == [None, None]


def test_of_a_failure_its_last_line_is_remembered() -> None:
    trace = "Traceback (most recent call last):\n  File 'a.py', line 3\nZeroDivisionError: division by zero\n"
    event = AgentEvent(id="1", ts=0.0, agent="a", kind="tool_result", tool="run", ok=False, text=trace)
    state = absorb_event(MonitorState(), event, 0.0, 0.0, time_known=True)
    assert state.agents["a"].results[0].failure == sketch_of("ZeroDivisionError: division by zero")[0]


@pytest.mark.parametrize(
    ("failures", "standing"),
    [
        (("no such file a", "no such file a", "no such file a"), "raise"),
        (
            (
                "invalid arguments for look: unexpected field a",
                "disk full",
                "invalid arguments for look: unexpected field b",
            ),
            "raise",
        ),
        (("no such file", "wrong type of value", "division by zero"), "hold"),
        (("no such file", "wrong type of value", "division by zero", "no such file", "wrong type of value"), "raise"),
        (("one thing", "second cause", "third kind", "fourth fault", "fifth slip", "sixth and last"), "raise"),
        (("", "", ""), "raise"),
    ],
)
def test_failures_that_differ_each_time_are_attempts(failures: tuple[str, ...], standing: str) -> None:
    results = tuple(Result(str(i), False, 0.0, sketch_of(text)[0] if text else ()) for i, text in enumerate(failures))
    verdict = failing_calls(agent(results=results), 1.0, OPTIONS)
    assert verdict is not None and verdict.standing == standing


@pytest.mark.parametrize(
    ("failed", "total", "standing"), [(2, 2, None), (3, 3, "raise"), (3, 6, "hold"), (3, 20, None), (12, 20, "raise")]
)
def test_failures_raise_by_the_lower_bound_of_their_share(failed: int, total: int, standing: str | None) -> None:
    results = tuple(Result(str(index), index >= failed, 0.0) for index in range(total))
    verdict = failing_calls(agent(results=results), 1.0, OPTIONS)
    assert (verdict and verdict.standing) == standing


def test_unknown_results_are_no_failures_and_old_failures_are_history() -> None:
    unknown = tuple(Result(str(index), None, 0.0) for index in range(9))
    assert failing_calls(agent(results=unknown), 1.0, OPTIONS) is None
    failed = tuple(Result(str(index), False, 0.0) for index in range(9))
    assert failing_calls(agent(results=failed), 10_000.0, OPTIONS) is None
    assert failing_calls(agent(results=failed), 10_000.0, RuleOptions(time_known=False)) is not None


def test_latency_is_held_against_the_deadline_and_against_the_agents_own_past() -> None:
    steady = tuple(100.0 + index % 5 for index in range(40))
    assert slow_answers(agent(latencies=steady), OPTIONS) is None
    verdict = slow_answers(agent(latencies=(*steady, *[900.0] * 8)), OPTIONS)
    assert verdict is not None and "900 ms" in verdict.text
    assert slow_answers(agent(latencies=(*steady, *[200.0] * 8)), OPTIONS) is None
    late = slow_answers(agent(latencies=steady), RuleOptions(latency_deadline_ms=50.0))
    assert late is not None and late.standing == "raise"
    assert slow_answers(agent(latencies=(0.0,) * 40), OPTIONS) is None


def test_confidence_is_held_against_resolved_outcomes() -> None:
    def outcomes(right: int, total: int) -> tuple[Outcome, ...]:
        return tuple(Outcome(0.9, index < right, 0.0, str(index)) for index in range(total))

    assert overconfident(agent(outcomes=outcomes(0, 15))) is None
    verdict = overconfident(agent(outcomes=outcomes(4, 20)))
    assert verdict is not None and verdict.standing == "raise" and "4 of 20" in verdict.text
    assert overconfident(agent(outcomes=outcomes(17, 20))) is None


def test_silence_is_measured_by_heartbeat_or_by_the_agents_own_pauses() -> None:
    assert silence_limit_s(agent(), OPTIONS) is None
    assert silence_limit_s(agent(beat_t=0.0, beat_gaps=(30.0, 30.0, 30.0)), OPTIONS) == 90.0
    # A third beat that comes as late as beats of this agent do is late, not missing; a fourth interval is too many.
    assert silence_limit_s(agent(beat_t=0.0, beat_gaps=(30.0, 31.0, 29.0)), OPTIONS) == pytest.approx(97.7, abs=0.1)
    assert silence_limit_s(agent(beat_t=0.0, beat_gaps=(30.0, 70.0, 10.0)), OPTIONS) == 120.0
    assert silence_limit_s(agent(beat_t=0.0, beat_gaps=(0.1, 0.1, 0.1)), OPTIONS) == OPTIONS.heartbeat_floor_s
    assert silence_limit_s(agent(gaps=(1.0,) * 8), OPTIONS) == OPTIONS.silence_floor_s
    assert silence_limit_s(agent(gaps=(1.0,) * 7 + (200.0,)), OPTIONS) == 600.0


def claim(name: str, value: float | str | bool | None, unit: str | None = None, tol: float | None = None) -> ClaimEntry:
    return ClaimEntry(name, value, unit, tol, f"{name}1", 0.0)


@pytest.mark.parametrize(
    ("left", "right", "agreed"),
    [
        (claim("a", 1.0), claim("b", 1.005), True),
        (claim("a", 1.0), claim("b", 1.1), False),
        (claim("a", 1.0, tol=0.2), claim("b", 1.1), True),
        (claim("a", 1.0, "V"), claim("b", 1.0, "mV"), None),
        (claim("a", "open"), claim("b", "closed"), False),
        (claim("a", True), claim("b", 1.0), None),
        (claim("a", None), claim("b", 1.0), None),
        (claim("a", 1), claim("b", 1.0), True),
    ],
)
def test_claims_agree_within_tolerance_and_are_compared_only_like_with_like(
    left: ClaimEntry, right: ClaimEntry, agreed: bool | None
) -> None:
    assert agrees(left, right) is agreed
    assert agrees(right, left) is agreed


def test_the_odd_one_out_is_named_and_of_two_both_are() -> None:
    three = {"level": (claim("a", 5.0), claim("b", 5.0), claim("c", 9.0))}
    (verdict,) = conflicting_claims(three, 1.0)
    assert verdict.agents == ("c",)
    (verdict,) = conflicting_claims({"level": three["level"][1:]}, 1.0)
    assert verdict.agents == ("b", "c")
    assert list(conflicting_claims(three, 1e6)) == []
    assert agreement(three, 1.0) == (1, 3)


@pytest.mark.parametrize(
    ("s", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilson_agrees_with_published_values(s: int, n: int, low: float, high: float) -> None:
    assert wilson(s, n) == pytest.approx((low, high), abs=5e-5)


def test_statistics_on_samples_checked_by_hand() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert robust_z(20.0, [10.0, 11.0, 9.0, 10.0, 12.0], 0.1) == pytest.approx(10.0 / 1.4826)
    assert cycle_length(list("xyzxyz"), 8, 2) == 3
    assert cycle_length(list("xyz"), 8, 2) is None
    left, right = sketch_of("the quick brown fox jumps"), sketch_of("the quick brown fox sleeps")
    assert likeness(left[0], right[0]) == pytest.approx(3 / 5)
    assert sketch_of("part 3 of 9")[1] != sketch_of("part 4 of 9")[1]
    assert likeness((), ()) == 1.0
