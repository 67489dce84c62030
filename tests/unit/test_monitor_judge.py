"""The model as second judge: asked one question at a time, believed by its calibration, never alone at full weight."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nis_edge.errors import ModelError
from nis_edge.monitor.assess import fuse
from nis_edge.monitor.judge import answer_of, judge_of
from nis_edge.monitor.labels import HEAD_NAME, HEAD_OUTPUTS, LABELS
from nis_edge.monitor.machine import (
    DEFAULT_OPTIONS,
    AgentEvents,
    Ask,
    Effect,
    Emit,
    Input,
    JudgeChanged,
    ModelAnswers,
    Options,
    Raised,
    Tick,
    step,
)
from nis_edge.monitor.state import Judge, MonitorState, OpenFinding
from nis_edge.pack.layout import Architecture, Calibration, Manifest, ModelIdentity, TaskHead
from nis_edge.wire.messages import AgentEvent, Assessment, ModelAnswer

CALIBRATED = Judge(
    model="test 1", thresholds={"goal_drift": 0.6, "looping": 0.5}, temperatures={"goal_drift": 1.5}, decides=True
)
ADVISORY = replace(CALIBRATED, decides=False)


class Desk:
    """A monitor and the model's answers under a test's hand."""

    def __init__(self, judge: Judge | None = CALIBRATED, options: Options = DEFAULT_OPTIONS) -> None:
        self.state = MonitorState()
        self.options = options
        self.now = 1000.0
        self.count = 0
        self.effects: list[Effect] = []
        self.put(JudgeChanged(judge, "no model"))

    def put(self, *inputs: Input) -> list[Effect]:
        self.state, effects = step(self.state, inputs, self.now, self.options)
        self.effects += effects
        return list(effects)

    def event(self, agent: str = "a") -> list[Effect]:
        self.count += 1
        self.now += 0.5
        event = AgentEvent(id=f"{self.count}", ts=self.now, agent=agent, kind="message", text=f"step {self.count}")
        return self.put(AgentEvents((event,)))

    def answer(self, **probabilities: float) -> list[Effect]:
        assert self.state.pending is not None
        answer = ModelAnswer(
            model="test 1", probabilities=probabilities, failure_probability=0.25, tokens=9, latency_ms=None
        )
        return self.put(ModelAnswers(self.state.pending.id, answer))

    def round(self, **probabilities: float) -> list[Effect]:
        self.event()
        return self.answer(**probabilities)

    @property
    def last(self) -> Assessment:
        return next(effect.assessment for effect in reversed(self.effects) if isinstance(effect, Emit))


def asks(effects: list[Effect]) -> list[Ask]:
    return [effect for effect in effects if isinstance(effect, Ask)]


def test_one_question_is_under_way_and_the_newest_window_waits() -> None:
    desk = Desk()
    assert len(asks(desk.event())) == 1
    assert asks(desk.event()) == asks(desk.event()) == []
    (next_ask,) = asks(desk.answer(goal_drift=0.1))
    assert next_ask.window.events[-1].id == "3"
    assert asks(desk.answer(goal_drift=0.1)) == []
    desk.event()
    assert desk.last.metrics["windows_unjudged"].value == 1.0


def test_without_a_model_nothing_is_asked_and_the_reason_is_said() -> None:
    desk = Desk(None)
    assert asks(desk.event()) == []
    assert (desk.last.model, desk.last.model_reason) == (None, "no model")


def test_an_answer_that_does_not_come_is_given_up_and_a_late_one_ignored() -> None:
    desk = Desk()
    (lost,) = asks(desk.event())
    desk.event()
    desk.now += Options().ask_timeout_s + 1
    (again,) = asks(desk.put(Tick()))
    assert again.id != lost.id
    answer = ModelAnswer(model="t", probabilities={"looping": 1.0}, failure_probability=None, tokens=1, latency_ms=None)
    desk.put(ModelAnswers(lost.id, answer))
    assert desk.state.counts.stale_answers == 1 and desk.state.counts.unanswered == 1
    assert desk.state.open == {}
    desk.put(ModelAnswers(again.id, None, "it is being replaced"))
    assert desk.last.model_reason == "it is being replaced"


def test_one_odd_answer_raises_nothing_two_in_a_row_do() -> None:
    desk = Desk()
    desk.round(goal_drift=0.65)
    desk.round(goal_drift=0.2)
    assert desk.last.findings == ()
    desk.round(goal_drift=0.65)
    desk.round(goal_drift=0.65)
    (finding,) = desk.last.findings
    assert (finding.label, finding.source, finding.probability, finding.confidence) == (
        "goal_drift",
        "model",
        0.65,
        0.65,
    )
    assert finding.agents == ("a",) and finding.evidence


def test_a_clear_answer_raises_at_once() -> None:
    desk = Desk()
    desk.round(goal_drift=0.95)
    assert [finding.label for finding in desk.last.findings] == ["goal_drift"]


def test_a_finding_holds_between_the_thresholds_and_clears_after_two_low_answers() -> None:
    desk = Desk()
    desk.round(goal_drift=0.95)
    for probability in (0.5, 0.45, 0.5, 0.3, 0.5):
        desk.round(goal_drift=probability)
        assert desk.last.findings
    desk.round(goal_drift=0.3)
    desk.round(goal_drift=0.3)
    assert desk.last.findings == ()
    assert len([effect for effect in desk.effects if isinstance(effect, Raised)]) == 1


def test_confidence_is_null_where_the_label_is_not_calibrated() -> None:
    desk = Desk()
    desk.round(looping=0.99)
    (finding,) = desk.last.findings
    assert (finding.probability, finding.confidence) == (0.99, None)


def test_a_label_without_a_threshold_is_never_raised() -> None:
    desk = Desk(Judge(model="m", thresholds={}, temperatures={}))
    desk.round(unsafe_action=1.0)
    assert desk.last.findings == ()
    assert "no calibrated thresholds" in (desk.last.model_reason or "")


def test_another_model_starts_with_a_clean_slate() -> None:
    desk = Desk()
    desk.round(goal_drift=0.99)
    desk.put(JudgeChanged(None, "it was rolled back"))
    assert desk.last.findings == () and desk.last.model_reason == "it was rolled back"
    assert any("cleared: goal_drift" in word for word in desk.last.changed)


def test_what_rule_and_model_both_say_is_one_finding_at_the_rules_weight() -> None:
    def found(scope: str, severity: str, probability: float | None) -> OpenFinding:
        return OpenFinding(
            scope=scope, label="looping", rule=scope, subject="a", agents=("a",), severity=severity, text=scope,  # type: ignore[arg-type]
            evidence=("1",), since=5.0, opened_t=5.0, probability=probability,
        )  # fmt: skip

    both = {"r": found("agent", "high", None), "m": found("model", "medium", 0.9)}
    (finding,) = fuse(both)
    assert (finding.source, finding.severity, finding.probability) == ("rule+model", "high", 0.9)
    assert finding.text == "agent; model"


def test_temperature_softens_and_the_failure_output_stands_apart() -> None:
    raw = [0.0] * len(HEAD_OUTPUTS)
    raw[LABELS.index("goal_drift")] = 3.0
    answer = answer_of(CALIBRATED, HEAD_OUTPUTS, raw, tokens=5, latency_ms=None)
    assert answer.probabilities["goal_drift"] == pytest.approx(0.880797, abs=1e-6)
    assert answer.probabilities["looping"] == 0.5
    assert answer.failure_probability == 0.5 and "failure" not in answer.probabilities


@pytest.mark.parametrize("raw", [[0.0], [float("nan")] * len(HEAD_OUTPUTS)])
def test_outputs_that_are_no_numbers_are_the_models_fault(raw: list[float]) -> None:
    with pytest.raises(ModelError):
        answer_of(CALIBRATED, HEAD_OUTPUTS, raw, tokens=5, latency_ms=None)


def manifest(heads: dict[str, TaskHead]) -> Manifest:
    architecture = Architecture(
        kind="bitnet", hidden=64, ffn=64, layers=1, heads=1, kv_heads=1, head_dim=64, vocab=8, context=16,
        rope_theta=1e4, norm_eps=1e-5, activation="relu2", sub_norms=True, tied_head=True, task_heads=heads,
    )  # fmt: skip
    calibration = Calibration(thresholds={"looping": 0.7}, temperature={"looping": 2.0})
    return Manifest(model=ModelIdentity("nano", "3"), architecture=architecture, calibration=calibration)


def test_a_package_without_the_head_cannot_judge() -> None:
    judge = judge_of(manifest({HEAD_NAME: TaskHead(1, HEAD_OUTPUTS)}))
    assert (judge.model, judge.thresholds) == ("nano 3", {"looping": 0.7})
    with pytest.raises(ModelError, match="task head"):
        judge_of(manifest({}))


def test_what_an_advisory_model_says_alone_is_a_hint_and_what_a_deciding_one_says_is_an_alert() -> None:
    desk = Desk(ADVISORY)
    desk.round(goal_drift=0.95)
    assert [(f.label, f.severity) for f in desk.last.findings] == [("goal_drift", "low")]
    assert (desk.last.status, desk.last.action) == ("healthy", "none")
    assert "advisory" in (desk.last.model_reason or "")
    desk = Desk()
    desk.round(goal_drift=0.95)
    assert (desk.last.status, desk.last.findings[0].severity) == ("degraded", "medium")


def test_a_hint_that_a_rule_confirms_is_told_anew_as_an_alert() -> None:
    desk = Desk(ADVISORY)
    desk.round(looping=0.95)
    assert [e.finding.severity for e in desk.effects if isinstance(e, Raised)] == ["low"]
    for index in range(6):
        desk.now += 1
        call = AgentEvent(id=f"c{index}", ts=desk.now, agent="a", kind="tool_call", tool="look", args_hash="1")
        answer = AgentEvent(id=f"r{index}", ts=desk.now, agent="a", kind="tool_result", tool="look", ok=True, text="-")
        desk.put(AgentEvents((call, answer)))
    raised = [effect.finding for effect in desk.effects if isinstance(effect, Raised)]
    assert [(f.severity, f.source, f.agents) for f in raised] == [
        ("low", "model", ("a",)), ("high", "rule+model", ("a",)),
    ]  # fmt: skip
    assert desk.last.status == "degraded"


def test_a_package_decides_only_if_its_builder_says_so() -> None:
    def of(details: dict[str, object]) -> bool:
        calibration = Calibration(thresholds={"looping": 0.5}, temperature={}, details=details)
        return judge_of(replace(manifest({HEAD_NAME: TaskHead(1, HEAD_OUTPUTS)}), calibration=calibration)).decides

    assert [of({}), of({"standing": "advisory"}), of({"standing": True}), of({"standing": "decides"})] == [
        False, False, False, True,
    ]  # fmt: skip


def test_where_findings_are_expected_to_be_rarer_than_in_calibration_the_same_evidence_says_less() -> None:
    rare = replace(CALIBRATED, rates={"looping": 0.5})
    desk = Desk(rare, Options(expected_share=0.1))
    desk.round(looping=0.9, goal_drift=0.9)
    # Odds of 9 to 1 where every second window held a finding are even odds where one in ten does.
    assert desk.last.model is not None
    assert desk.last.model.probabilities == pytest.approx({"looping": 0.5, "goal_drift": 0.9})
    desk.round(looping=0.9)
    assert [f.confidence for f in desk.last.findings if f.label == "looping"] == [None], "no temperature"
    as_calibrated = Desk(rare)
    as_calibrated.round(looping=0.9)
    assert as_calibrated.last.model is not None
    assert as_calibrated.last.model.probabilities == {"looping": 0.9}


def test_rates_that_are_none_are_left_out() -> None:
    details = {"rates": {"looping": 0.25, "stalled": 1.5, "no_such": 0.1, "goal_drift": "often"}}
    calibration = Calibration(thresholds={"looping": 0.5}, temperature={}, details=details)
    assert judge_of(replace(manifest({HEAD_NAME: TaskHead(1, HEAD_OUTPUTS)}), calibration=calibration)).rates == {
        "looping": 0.25
    }
    odd = Calibration(thresholds={"looping": 0.5}, temperature={}, details={"rates": [0.25]})
    assert judge_of(replace(manifest({HEAD_NAME: TaskHead(1, HEAD_OUTPUTS)}), calibration=odd)).rates == {}
