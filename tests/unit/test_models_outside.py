"""Files from outside: every line is read forgivingly, judged through the daemon's path, scored by hand-made cases."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nis_models import outside, outside_figures, outside_lines
from nis_models.cli import main
from nis_models.outside import Judged, JudgedDevice, judge_line
from nis_models.outside_lines import DeviceWindow, PhysicsItem, Refused, Trace, parse

from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.machine import Options
from nis_edge.monitor.rules import RuleOptions
from nis_edge.replay import Replay

PACKAGE = Path("models/nis-nano/nis-nano.nis")


def line_of(fields: Any) -> outside_lines.Line:
    return parse(json.dumps(fields).encode(), "file.jsonl", 7)


def trace_of(fields: dict[str, Any]) -> Trace:
    line = line_of(fields)
    assert isinstance(line, Trace), line
    return line


def looping(n: int = 6) -> list[dict[str, Any]]:
    events = [{"agent": "user", "kind": "user", "text": "Find the invoice of May."}]
    for _ in range(n):
        events.append({"agent": "clerk", "kind": "agent", "text": 'CALL search {"q": "invoice"}'})
        events.append({"agent": "tool:search", "kind": "tool", "text": '{"hits": []}'})
    return events


def test_each_kind_of_line_is_known_by_its_fields() -> None:
    assert trace_of({"events": looping(), "outcome": 0}).kind == "run"
    assert trace_of({"events": looping(), "label": "looping"}).kind == "window"
    assert isinstance(line_of({"values": [1, 2, None], "label": "none"}), DeviceWindow)
    assert isinstance(
        line_of({"text": "2 H2 + O2 -> 2 H2O", "law": "stoichiometry", "label": "consistent"}), PhysicsItem
    )


@pytest.mark.parametrize(
    ("given", "truth"),
    [
        ({"label": "looping"}, {"looping"}),
        ({"label": "none"}, set()),
        ({"label": []}, set()),
        ({"labels": ["goal drift", "none"]}, {"goal_drift"}),
        ({"labels": {"looping": 1, "stalled": 0}}, {"looping"}),
        ({"label": "FM-1.3 Step repetition"}, {"looping"}),
        ({"label": None, "hard_negative_for": "looping"}, set()),
        ({"label": "bad mood"}, None),
        ({"label": None}, None),
    ],
)
def test_a_windows_truth_is_read_in_the_forms_that_annotators_use(
    given: dict[str, Any], truth: set[str] | None
) -> None:
    line = trace_of({"events": looping(), **given})
    assert line.truth == (None if truth is None else frozenset(truth))


def test_a_name_that_is_not_ours_is_counted_and_not_scored() -> None:
    line = trace_of({"events": looping(), "findings": ["Step repetition", "Bad Mood"]})
    assert line.findings == {"looping"}
    assert line.unknown == ("Bad Mood",)


@pytest.mark.parametrize("outcome", [0, 0.0, False, "failed", "0"])
def test_an_outcome_is_read_in_any_plain_form(outcome: Any) -> None:
    assert trace_of({"events": looping(), "outcome": outcome}).outcome == 0


def test_missing_fields_of_events_are_no_fault() -> None:
    line = trace_of(
        {"events": [{}, {"text": None}, {"kind": "alien", "text": 5}, {"role": "assistant", "content": "hi"}]}
    )
    assert [event.text for event in line.events] == ["", "", "5", "hi"]
    assert trace_of({"events": [], "label": "none"}).events == ()


def test_times_are_read_as_seconds_or_as_dates_and_only_where_every_event_has_one() -> None:
    dates = [{"t": f"2026-01-01T00:00:0{i}Z", "text": "x"} for i in range(3)]
    line = trace_of({"events": dates})
    assert line.is_timed
    assert [event.ts - line.events[0].ts for event in line.events] == [0.0, 1.0, 2.0]
    assert not trace_of({"events": [{"t": 1, "text": "x"}, {"text": "y"}]}).is_timed
    assert not trace_of({"events": [{"t": "soon", "text": "x"}]}).is_timed


def test_a_goal_that_the_first_event_states_is_told_once() -> None:
    events = looping()
    line = trace_of({"goal": events[0]["text"], "events": events, "label": "looping"})
    assert [event.kind for event in line.events].count("goal") == 1
    assert len(line.events) == len(events)
    apart = trace_of({"goal": "Something else.", "events": events, "label": "looping"})
    assert len(apart.events) == len(events) + 1
    assert apart.places[apart.events[1].id] == 0


def test_a_call_filed_as_one_is_the_call_that_a_run_writes_out() -> None:
    written = trace_of({"events": [{"agent": "a", "kind": "agent", "text": 'CALL search {"q": 1}'}] * 2}).events[1]
    filed = trace_of({"events": [{"agent": "a", "kind": "tool_call", "text": 'search {"q": 1}'}] * 2}).events[1]
    assert (filed.kind, filed.tool, filed.args_hash) == (written.kind, written.tool, written.args_hash)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "nests too deep"),
        (b'{"id": 3}', "neither events nor values"),
        (b'{"events": [1]}', "no JSON object"),
        (b'{"values": [1], "label": "odd"}', "no fault of a feed"),
        (b'{"text": "x", "label": "odd"}', "consistent or violation"),
    ],
)
def test_a_line_that_cant_be_read_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    line = parse(raw, "file.jsonl", 7)
    assert isinstance(line, Refused)
    assert (line.file, line.line) == ("file.jsonl", 7)
    assert reason in line.reason


def test_no_line_however_damaged_raises() -> None:
    rng = random.Random(5)
    values = [None, True, -1, 1e400, "x", "9" * 400, [], {}, [[]], {"a": 1}, float("nan"), ["looping", 3], "\ud800"]
    names = ["id", "events", "values", "text", "label", "labels", "locus", "onset", "strength", "series", "goal", "law",
             "findings", "step_labels", "hard_negative_for", "group", "source", "system", "outcome"]  # fmt: skip
    inner = ["agent", "kind", "text", "t", "ts", "tool", "ok", "confidence", "outcome", "to"]
    for _ in range(400):
        fields = {name: rng.choice(values) for name in rng.sample(names, 6)}
        if rng.random() < 0.7:
            fields["events"] = [{name: rng.choice(values) for name in rng.sample(inner, 4)} for _ in range(3)]
        line = parse(json.dumps(fields).encode(), "file", 1)
        result = judge_line(line, None)
        json.dumps(outside.prediction(result))


def test_plain_and_packed_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"values": [1], "label": "none"}\n\n')
    # Known by its content, whatever its name says.
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(b'{"events": [], "outcome": 1}\n{bad'))
    lines = list(outside_lines.read([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]))
    assert [type(line) for line in lines] == [DeviceWindow, Trace, Refused]


def test_a_run_is_judged_as_the_replay_of_its_events_judges_it() -> None:
    line = trace_of({"events": looping(8), "outcome": 0})
    result = judge_line(line, None)
    assert isinstance(result, Judged)
    replay = Replay(Options(rules=RuleOptions(time_known=False)), None, "rules alone")
    for event in line.events:
        replay.feed(event)
    assert result.found == tuple(sorted({e.finding.label for e in replay.episodes}, key=LABELS.index))
    assert result.first == "looping"
    assert result.named == ("clerk",)
    assert all(line.agents[i] in ("clerk", "tool:search") for i in result.locus)


def test_truth_is_never_shown_to_a_judge() -> None:
    plain = judge_line(trace_of({"events": looping(), "label": "none"}), None)
    told = judge_line(
        trace_of({"events": looping(), "label": "looping", "locus": [1], "outcome": 0, "findings": ["stalled"]}), None
    )
    assert isinstance(plain, Judged)
    assert isinstance(told, Judged)
    assert (plain.found, plain.first, plain.locus) == (told.found, told.first, told.locus)


def test_a_device_window_is_named_with_the_place_in_its_line() -> None:
    rng = np.random.default_rng(3)
    values = [*rng.normal(0, 1, 70), *([0.25] * 30)]
    result = judge_line(line_of({"values": values, "label": "stuck", "onset": 70, "strength": "strong"}), None)
    assert isinstance(result, JudgedDevice)
    assert result.first == "stuck"
    assert result.onset is not None
    assert abs(result.onset - 70) <= 1
    said = outside.prediction(result)
    assert said["confidence"] == said["probabilities"]["stuck"] == max(said["probabilities"].values())
    assert sum(said["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


def judged(first: str, truth: set[str], p: float, group: str, **more: Any) -> Judged:
    events = {"events": looping(1), "label": sorted(truth) or "none", "group": group, **more}
    probabilities = {label: p if label == first else 0.01 for label in LABELS}
    found, locus = ((first,), (1,)) if first != "none" else ((), ())
    return Judged(trace_of(events), probabilities, found, (), first, p, 0.5, locus, (), {})


def test_figures_of_windows_count_each_class_once() -> None:
    rows = [judged("looping", {"looping"}, 0.9, f"g{i}", locus=[2]) for i in range(8)]
    rows += [judged("none", {"stalled"}, 0.9, f"h{i}") for i in range(2)]
    rows += [judged("none", set(), 0.9, f"i{i}", hard_negative_for="looping") for i in range(3)]
    rows += [judged("looping", set(), 0.9, "j", hard_negative_for="looping")]
    figures = outside_figures.of_windows(rows)
    assert figures["recall"] == {"looping": 1.0, "stalled": 0.0, "none": 0.75}
    assert figures["judges"]["monitor"]["balanced_accuracy"] == pytest.approx((1 + 0 + 0.75) / 3, abs=1e-4)
    assert figures["judges"]["majority"]["balanced_accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    assert figures["hard_negatives_called_none"]["value"] == 0.75
    assert figures["locus_within_one"]["value"] == 1.0
    # 11 of 14 right, each said with 0.9.
    assert figures["confidence"]["brier"] == pytest.approx((11 * 0.01 + 3 * 0.81) / 14, abs=1e-4)


def test_figures_of_steps_need_the_labelled_agent_and_step() -> None:
    right = judge_line(trace_of({"events": looping(8), "step_labels": [{"step": 13, "agent": "clerk"}]}), None)
    wrong = judge_line(trace_of({"events": looping(8), "step_labels": [{"step": "0", "agent": "user"}]}), None)
    assert isinstance(right, Judged)
    assert isinstance(wrong, Judged)
    steps = outside_figures.of_runs([right, wrong])["steps"]
    assert steps["agent"]["value"] == 0.5
    assert steps["step_within_one"]["value"] == 0.5


def test_a_command_judges_files_names_what_it_left_out_and_predicts_each_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, said = tmp_path / "x.jsonl", tmp_path / "out.json", tmp_path / "said.jsonl"
    rows: list[Any] = [
        {"events": looping(5), "outcome": 0, "system": "s", "group": "g", "findings": ["looping"]},
        {"events": looping(5), "label": "looping", "locus": [5]},
        {"values": list(range(64)), "label": "none", "strength": "weak"},
        {"text": "Force equals mass times velocity.", "law": "dimensions", "level": "easy", "label": "violation"},
    ]
    file.write_text("\n".join([*map(json.dumps, rows), "{broken"]) + "\n", encoding="utf-8")
    assert main(["evaluate", "--traces", str(file), "--json", str(out), "--predictions", str(said),
                 "--model", str(PACKAGE), "--format", "unified"]) == 0  # fmt: skip
    assert "line 5 was left out" in capsys.readouterr().err
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["refused_lines"][0]["line"] == 5
    assert figures["physics"]["all"]["accuracy"] == 1.0
    assert figures["windows"]["all"]["n"] == figures["runs"]["all"]["n"] == 1
    predictions = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines()]
    assert [one["kind"] for one in predictions] == ["run", "window", "device", "physics", "refused"]
    assert predictions[0]["suspect"] in range(11)
    for one in predictions[:4]:
        assert set(one) >= {"id", "probabilities", "label", "confidence", "locus", "assessment"}


def test_a_file_without_a_line_that_can_be_judged_is_an_error_of_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("{broken\n", encoding="utf-8")
    assert main(["evaluate", "--traces", str(file), "--model", str(PACKAGE)]) == 2
    assert "no line of it could be judged" in capsys.readouterr().err
