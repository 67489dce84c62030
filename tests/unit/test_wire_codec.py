"""The sill: what is taken in, in which form, and what is refused with which reason."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nis_edge.errors import EventFormatError
from nis_edge.limits import BATCH_EVENTS_MAX, EVENT_BYTES_MAX, JSON_DEPTH_MAX, NAME_CHARS_MAX
from nis_edge.wire.codec import decode_batch, decode_event, encode, visible
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.times import seconds_since_epoch


def decoded(text: str | bytes, **changes: object) -> AgentEvent:
    raw = text if isinstance(text, bytes) else text.encode()
    return decode_event(raw, **{"now": 1000.0, "number": 7, **changes})  # type: ignore[arg-type]


def refusal(text: str | bytes, **changes: object) -> str:
    with pytest.raises(EventFormatError) as caught:
        decoded(text, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_canonical_event_comes_back_as_it_was_sent() -> None:
    event = AgentEvent(
        id="x", ts=5.5, agent="planner", kind="tool_call", tool="search", args_hash="ab", step=3, ok=True
    )
    assert decoded(encode(event)) == event


def test_unknown_fields_are_kept_and_unknown_kinds_become_messages() -> None:
    event = decoded('{"agent":"a","kind":"dance","colour":"red","extra":{"old":1}}')
    assert event.kind == "message"
    assert event.extra == {"old": 1, "colour": "red", "kind": "dance"}


def test_a_missing_id_and_time_are_filled_from_the_arguments_alone() -> None:
    first = decoded('{"agent":"a","kind":"message"}')
    assert (first.id, first.ts) == ("e7", 1000.0)
    assert first == decoded('{"agent":"a","kind":"message"}')


def test_an_integer_id_is_its_text() -> None:
    assert decoded('{"id":12,"agent":"a","kind":"message"}').id == "12"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_123, 1_700_000_000.123),
        (1_700_000_000_123_000, 1_700_000_000.123),
        (1_700_000_000_123_000_000, 1_700_000_000.123),
        ("2024-02-29T12:00:00Z", 1_709_208_000.0),
        ("2024-02-29T14:00:00.250+02:00", 1_709_208_000.25),
        ("1970-01-01 00:00:00", 0.0),
        ("2000-03-01T00:00:00Z", 951_868_800.0),
    ],
)
def test_times_are_told_apart_by_size_or_read_as_rfc_3339(written: float | str, seconds: float) -> None:
    assert seconds_since_epoch(written) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "written", ["yesterday", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z", -1, True, None, 10**400]
)
def test_what_is_no_time_is_refused(written: object) -> None:
    with pytest.raises(EventFormatError):
        seconds_since_epoch(written)


def test_a_nis_message_of_either_naming_is_translated() -> None:
    first = decoded(
        '{"message_id":"m1","message_type":"goal_generation","source_agent":"s","target_agent":"t","timestamp":9,'
        '"priority":"HIGH","content":{"goal":"survey the field","confidence":0.5},"integrity_score":0.9}'
    )
    assert (first.id, first.ts, first.agent, first.to, first.kind) == ("m1", 9.0, "s", "t", "goal")
    assert (first.text, first.confidence, first.priority) == ("survey the field", 0.5, "high")
    assert first.extra == {"message_type": "goal_generation", "integrity_score": 0.9}
    later = decoded('{"type":"query","source":"s","destination":"t","payload":{"text":"where?"},"priority":1}')
    assert (later.agent, later.to, later.kind, later.text) == ("s", "t", "message", "where?")
    assert later.priority is None
    assert later.extra == {"message_type": "query", "priority": 1}


def test_envelope_heartbeat_and_introspection_are_translated() -> None:
    envelope = decoded('{"_event_type":"nis.system.health","_source":"hub","_timestamp":3,"load":0.5}')
    assert (envelope.agent, envelope.kind, envelope.ts, envelope.data) == ("hub", "heartbeat", 3.0, {"load": 0.5})
    beat = decoded('{"node_id":"n","status":"degraded","cpu_usage":91,"timestamp":4}')
    assert (beat.agent, beat.kind, beat.text, beat.data) == ("n", "heartbeat", "degraded", {"cpu_usage": 91})
    assert decoded('{"node_id":"n","status":"offline"}').kind == "lifecycle"
    thought = decoded('{"reflection_type":"error_analysis","agent_id":"z","recommendations":["a","b"],"confidence":1}')
    assert (thought.kind, thought.topic, thought.text) == ("step", "error_analysis", "a; b")


def test_an_event_that_names_another_sender_than_its_topic_is_refused() -> None:
    assert decoded('{"kind":"message"}', sender="a").agent == "a"
    assert "was sent by 'b'" in refusal('{"agent":"a","kind":"message"}', sender="b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ("[1]", "not an object"),
        ('{"agent":"a"}', "lacks 'kind'"),
        ('{"kind":"message"}', "lacks 'agent'"),
        ('{"agent":"a","kind":"message","step":"one"}', "$.step"),
        ('{"agent":"a","kind":"message","v":2}', "version 2"),
        ('{"agent":"a","kind":"message","confidence":1.5}', "outside 0..1"),
        ('{"agent":"a","kind":"message","latency_ms":-1}', "negative"),
        ('{"agent":"","kind":"message"}', "0 characters"),
        ('{"agent":"a\\u0007b","kind":"message"}', "control"),
        ('{"agent":"a\\u202eb","kind":"message"}', "hidden"),
        ('{"agent":"a","kind":"claim","claim":{"key":"","value":1}}', "claim key"),
        ('{"agent":"a","kind":"message","text":"\\ud800"}', "no JSON"),
    ],
)
def test_malformed_events_are_refused_with_the_reason(text: str, reason: str) -> None:
    assert reason in refusal(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    assert "no JSON" in refusal(b'{"agent":"\xff","kind":"message"}')


def test_size_depth_and_names_are_bounded() -> None:
    assert "larger" in refusal(b'{"agent":"a","kind":"message","text":"' + b"x" * EVENT_BYTES_MAX + b'"}')
    nested = '{"a":' * JSON_DEPTH_MAX + "1" + "}" * JSON_DEPTH_MAX
    assert "deeper" in refusal(f'{{"agent":"a","kind":"message","data":{nested}}}')
    assert "deeper" in refusal("[" * 60_000)
    assert str(NAME_CHARS_MAX) in refusal(f'{{"agent":"{"a" * (NAME_CHARS_MAX + 1)}","kind":"message"}}')


def test_one_bad_event_of_a_batch_is_refused_alone() -> None:
    lines = b'{"agent":"a","kind":"message"}\n\nnonsense}\n{"agent":"b","kind":"message"}\n'
    batch = decode_batch(lines, now=1.0, number=10)
    assert [event.id for event in batch.events] == ["e10", "e12"]
    assert [refused.position for refused in batch.refusals] == [1]
    array = decode_batch(b'[{"agent":"a","kind":"message"}, 5]', now=1.0, number=0)
    assert (len(array.events), len(array.refusals)) == (1, 1)


def test_one_object_printed_over_several_lines_is_one_event() -> None:
    batch = decode_batch(b'{\n "agent": "a",\n "kind": "message"\n}', now=1.0, number=0)
    assert len(batch.events) == 1


def test_too_many_events_at_once_are_refused() -> None:
    body = b"[" + b",".join([b"{}"] * (BATCH_EVENTS_MAX + 1)) + b"]"
    with pytest.raises(EventFormatError, match="more than"):
        decode_batch(body, now=1.0, number=0)


def test_what_could_control_a_terminal_is_made_visible() -> None:
    assert visible("a\x1b[31mb\u202ec\r") == "a\\u001b[31mb\\u202ec\\u000d"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_an_event_or_one_clear_refusal(raw: bytes) -> None:
    try:
        decode_event(raw, now=0.0, number=0)
    except EventFormatError as error:
        assert str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    [*AgentEvent.__struct_fields__, "message_type", "source", "type", "payload", "node_id", "status", "_event_type",
     "_source", "_timestamp", "reflection_type", "agent_id", "recommendations", "content", "timestamp"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(field_names, json_values, max_size=8))
def test_any_object_in_any_dialect_gives_an_event_or_one_clear_refusal(fields: dict[str, object]) -> None:
    try:
        raw = msgspec.json.encode(fields)
        event = decode_event(raw, now=0.0, number=0)
    except (EventFormatError, UnicodeEncodeError):
        return
    assert decode_event(encode(event), now=0.0, number=0) == event


@pytest.mark.parametrize("kind", [[], {}, 7, True])
def test_a_kind_that_is_no_text_is_kept_as_a_message(kind: object) -> None:
    event = decode_event(encode({"agent": "a", "kind": kind}), now=0.0, number=1)
    assert (event.kind, event.extra) == ("message", {"kind": kind})
