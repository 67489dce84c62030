"""Recorded runs become canonical events, and only what their text shows for certain is added."""

from __future__ import annotations

import msgspec
import pytest

from nis_edge.errors import EventFormatError
from nis_edge.limits import RUN_BYTES_MAX
from nis_edge.wire.traces import Run, RunLine, call_in, canonical_events, decode_run, hash_of_arguments, success_in


def run_of(*lines: tuple[str, str, str]) -> Run:
    return Run(id="r", events=tuple(RunLine(agent, kind, text) for agent, kind, text in lines))  # type: ignore[arg-type]


def test_the_first_word_of_the_user_is_the_goal() -> None:
    events = canonical_events(
        run_of(("system", "system", "be kind"), ("user", "user", "book it"), ("user", "user", "now"))
    )
    assert [event.kind for event in events] == ["message", "goal", "message"]
    assert [(event.id, event.ts) for event in events] == [("1", 0.0), ("2", 1.0), ("3", 2.0)]


def test_without_a_user_the_first_event_is_the_goal() -> None:
    events = canonical_events(run_of(("proxy", "agent", "solve this"), ("solver", "agent", "42")))
    assert [event.kind for event in events] == ["goal", "message"]


def test_a_call_and_its_result_are_filed_under_the_caller() -> None:
    _, call, result = canonical_events(
        run_of(
            ("user", "user", "go"), ("helper", "agent", 'CALL find {"id": 3}'), ("tool:find", "tool", "Error: no id")
        )
    )
    assert (call.kind, call.tool, call.agent) == ("tool_call", "find", "helper")
    assert (result.kind, result.tool, result.agent, result.ok) == ("tool_result", "find", "helper", False)


def test_a_result_of_the_environment_takes_the_name_of_the_call_it_answers() -> None:
    _, _, first, second = canonical_events(
        run_of(
            ("user", "user", "go"),
            ("agent", "agent", "ACT get{'u': 1}"),
            ("environment", "tool", "[1]"),
            ("environment", "tool", "{}"),
        )
    )
    assert (first.tool, first.agent, first.ok) == ("get", "agent", True)
    assert second.tool is None


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('CALL a_b {"x":1}', ("a_b", '{"x":1}')),
        ("ACT look{'x': 1}", ("look", "{'x': 1}")),
        ("[Observation]: fine. ACT look()", ("look", "")),
        ("please CALL me later", None),
        ("the ACT of writing", None),
    ],
)
def test_only_what_is_written_as_a_call_is_one(text: str, call: tuple[str, str] | None) -> None:
    assert call_in(text) == call


def test_equal_arguments_meet_however_they_are_spaced() -> None:
    assert hash_of_arguments('{"a": 1, "b":2}') == hash_of_arguments('{"b":2,"a":1}')
    assert hash_of_arguments('{"a": 1}') != hash_of_arguments('{"a": 2}')
    assert hash_of_arguments("{'a':  1}") == hash_of_arguments("{'a': 1}")


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("Error: payment does not add up", False),
        ("error: unknown language", False),
        ("Traceback (most recent call last):\n ...", False),
        ("exitcode: 1 (execution failed)\nCode output: x", False),
        ("exitcode: 0 (execution succeeded)", True),
        ('{"id": 3}', True),
        ('{"error": "none such"}', False),
        ('{"error": null, "id": 3}', True),
        ("255.0", True),
        ('""[\'https://example.org\']""', True),
        ('""Could not find asset at \'https://example.org/a.mp3\'""', False),
        ("Image 'https://example.org/a.jpg' not found.", False),
        ("A page that explains the words not found in most dictionaries", None),
        ("Transfer successful", None),
        ("", None),
        ("Errors are common in this field of study", None),
    ],
)
def test_success_is_stated_only_where_the_form_shows_it(text: str, ok: bool | None) -> None:
    assert success_in(text) is ok


def test_malformed_runs_are_refused_with_the_reason() -> None:
    for raw in (b"{", b'{"id":"x"}', b'{"id":"x","events":[{"agent":1}]}', b'{"id":"x","events":' + b"[" * 5000):
        with pytest.raises(EventFormatError, match="run"):
            decode_run(raw)
    with pytest.raises(EventFormatError, match="larger"):
        decode_run(b" " * (RUN_BYTES_MAX + 1))


def test_what_a_recording_knows_of_its_outcome_is_kept_apart_from_its_events() -> None:
    raw = msgspec.json.encode(
        {"id": "x", "events": [{"agent": "u", "kind": "user", "text": "hi"}], "outcome": 0, "findings": ["f"], "new": 1}
    )
    run = decode_run(raw)
    assert run.outcome == 0
    assert canonical_events(run)[0].extra is None


def test_times_and_a_goal_stated_apart_are_taken_over() -> None:
    timed = Run(
        id="r", goal="water the field", events=(RunLine("a", "agent", "on it", 7.5), RunLine("a", "agent", "done", 9.0))
    )
    events = canonical_events(timed)
    assert [(event.id, event.kind, event.ts) for event in events] == [
        ("0", "goal", 7.5),
        ("1", "message", 7.5),
        ("2", "message", 9.0),
    ]
    assert timed.is_timed and not run_of(("a", "agent", "x")).is_timed
