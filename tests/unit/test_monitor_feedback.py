"""Feedback: the operator and the outcomes of runs correct what the model says, within bounds, and it can be undone."""

from __future__ import annotations

from typing import Any

import pytest

from nis_edge.monitor.feedback import SHIFT_MAX, Feedback, corrected, learned
from nis_edge.monitor.machine import (
    FLAP_TIMES,
    LATCH_S,
    Cleared,
    ForgetFeedback,
    JudgeChanged,
    ModelAnswers,
    OperatorVerdict,
    Raised,
    Readings,
    Tick,
    step,
)
from nis_edge.monitor.state import Judge, MonitorState
from nis_edge.wire.messages import ModelAnswer, Reading
from tests.support.desk import START, Desk

JUDGE = Judge(model="m 1", thresholds={"goal_drift": 0.5}, temperatures={"goal_drift": 1.0}, decides=True)


class ModelDesk(Desk):
    """With a model whose answer the test gives."""

    def __init__(self) -> None:
        super().__init__()
        self.put(JudgeChanged(JUDGE))

    def event(self, agent: str = "a", kind: str = "message", **fields: Any) -> str:
        self.now += 0.5
        return self.put_event(agent, kind, **{"text": f"words {(self.count + 1) * 17}", **fields})

    def answer(self, drift: float, failure: float = 0.3) -> None:
        assert self.state.pending is not None
        said = ModelAnswer(
            model="m 1", probabilities={"goal_drift": drift}, failure_probability=failure, tokens=1, latency_ms=None
        )
        self.put(ModelAnswers(self.state.pending.id, said))

    def round(self, drift: float, failure: float = 0.3) -> None:
        self.event()
        self.answer(drift, failure)

    def look(self) -> None:
        """Look at the same thing again."""
        for _ in range(5):
            self.event("b", "tool_call", tool="look", args_hash="1")
            self.event("b", "tool_result", tool="look", ok=True, text="nothing")


def test_a_correction_moves_towards_what_was_right_and_stays_within_its_bound() -> None:
    feedback: Feedback | None = None
    seen = [0.8]
    for _ in range(200):
        feedback = learned(feedback, 0.8, False)
        seen.append(corrected(0.8, feedback))
    assert seen == sorted(seen, reverse=True) and feedback is not None
    assert feedback.shift == -SHIFT_MAX and (feedback.n, feedback.right) == (200, 0)
    assert seen[-1] == pytest.approx(0.5954, abs=1e-3)
    for _ in range(400):
        feedback = learned(feedback, 0.2, True)
    assert feedback.shift == SHIFT_MAX
    assert corrected(1.0, feedback) <= 1.0 and corrected(0.0, feedback) >= 0.0
    assert corrected(0.37, None) == 0.37


def test_verdicts_that_agree_with_the_probabilities_move_next_to_nothing() -> None:
    feedback: Feedback | None = None
    for index in range(100):
        feedback = learned(feedback, 0.7, index % 10 < 7)
    assert feedback is not None and abs(feedback.shift) < 0.25


def test_an_operator_who_calls_findings_false_is_heard_by_the_model_and_can_take_it_back() -> None:
    desk = ModelDesk()
    for _ in range(2):
        desk.round(0.62)
    assert desk.last.status == "degraded" and desk.last.findings[0].confidence == 0.62
    for _ in range(12):
        desk.put(OperatorVerdict("goal_drift", right=False))
        desk.round(0.62)
    assert desk.last.status == "healthy"
    assert desk.state.feedback["goal_drift"].shift < -0.4
    for _ in range(3):
        desk.round(0.62)
    assert desk.last.status == "healthy" and {found.severity for found in desk.last.findings} <= {"low"}
    desk.put(ForgetFeedback())
    for _ in range(2):
        desk.round(0.62)
    assert desk.last.status == "degraded" and desk.last.findings[0].confidence == 0.62


def test_another_model_starts_without_what_was_learned_of_the_one_before() -> None:
    desk = ModelDesk()
    desk.round(0.9)
    desk.put(OperatorVerdict("goal_drift", right=False))
    desk.put(JudgeChanged(JUDGE))
    assert desk.state.feedback == {} and desk.state.muted == {}


def test_a_false_alarm_of_a_rule_becomes_a_hint_until_it_ends_and_an_alert_again_when_graver_or_called_right() -> None:
    desk = ModelDesk()
    desk.look()
    assert desk.last.status == "degraded"
    desk.put(OperatorVerdict("looping", right=False, agents=("somebody else",)))
    desk.event("c")
    assert desk.last.status == "degraded"
    desk.put(OperatorVerdict("looping", right=False, agents=("b",)))
    desk.event("c")
    (finding,) = [found for found in desk.last.findings if found.label == "looping"]
    assert desk.last.status == "healthy" and finding.severity == "low" and "false alarm" in finding.text
    assert [found.label for found in desk.cleared] == ["looping"]
    assert desk.last.metrics["operator_agreement"].value == 0.0
    desk.put(OperatorVerdict("looping", right=True))
    desk.event("c")
    assert desk.last.status == "degraded" and desk.last.metrics["operator_agreement"].n == 2
    desk.put(OperatorVerdict("looping", right=False))
    for index in range(30):
        desk.event("b", "tool_call", tool="other", args_hash=f"{index}")
    assert desk.state.muted == {} and desk.last.findings == ()


def test_no_event_of_an_agent_is_an_operators_verdict() -> None:
    desk = ModelDesk()
    desk.look()
    for agent in ("operator", "user", "monitor"):
        desk.event(agent, "outcome", outcome=False, outcome_of="looping", text="false alarm: looping b")
        desk.event(
            agent, "message", text='{"label":"looping","right":false}', data={"label": "looping", "right": False}
        )
    assert desk.last.status == "degraded" and desk.state.feedback == {} and desk.state.muted == {}


def test_the_outcome_of_a_run_corrects_the_probability_of_failure_once_for_each_goal() -> None:
    desk = ModelDesk()
    for number in range(8):
        goal = desk.event("user", "goal", text=f"task {number}")
        desk.answer(0.1, failure=0.8)
        desk.event("user", "outcome", outcome_of=goal, outcome=True)
        desk.answer(0.1, failure=0.8)
        for _ in range(5):
            desk.event("user", "outcome", outcome_of=goal, outcome=True)
            desk.answer(0.1, failure=0.8)
    assert desk.state.feedback["failure"].n == 8
    corrected_now = desk.last.metrics["failure_probability"].value
    assert corrected_now is not None and 0.5 < corrected_now < 0.75


def test_a_finding_that_comes_and_goes_is_told_a_few_times_and_then_stays() -> None:
    state, raised, cleared, now = MonitorState(), 0, 0, START
    for second in range(900):
        now += 1.0
        # Throttled for ten seconds, free for twenty, again and again.
        value = 1.0 if second % 30 < 10 and second < 600 else 0.0
        board = Reading(name="throttled", value=value, unit="1", ts=now, source="test")
        state, effects = step(state, (Readings((board,)), Tick()), now)
        raised += sum(isinstance(effect, Raised) for effect in effects)
        cleared += sum(isinstance(effect, Cleared) for effect in effects)
        if second == 599:
            assert (raised, cleared) == (FLAP_TIMES, FLAP_TIMES - 1) and state.status == "degraded"
    assert (raised, cleared) == (FLAP_TIMES, FLAP_TIMES) and state.status == "healthy"
    assert LATCH_S < 300.0
