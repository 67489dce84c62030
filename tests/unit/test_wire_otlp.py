"""OpenTelemetry traces: what each kind of span becomes, and what a hostile exporter may try."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.errors import EventFormatError
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.otlp import SPANS_MAX, TEXT_CHARS_MAX, decode_traces

T = 1_767_225_600


def attribute(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": key, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    return {"key": key, "value": {"stringValue": value}}


def span(operation: str | None = None, *, at: float = 0.0, took: float = 0.5, fails: Any = None, **more: Any) -> dict:
    attributes = {"gen_ai.operation.name": operation, **{k.replace("__", "."): v for k, v in more.items()}}
    made: dict[str, Any] = {
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": f"{int(at * 10):016x}", "name": "x",
        "startTimeUnixNano": str(int((T + at) * 1e9)), "endTimeUnixNano": str(int((T + at + took) * 1e9)),
        "attributes": [attribute(k, v) for k, v in attributes.items() if v is not None],
    }  # fmt: skip
    if fails is not None:
        made["status"] = {"code": 2, "message": fails}
    return made


def events_of(*spans: Any, service: str | None = "team") -> list[AgentEvent]:
    resource = {"attributes": [attribute("service.name", service)] if service else []}
    request = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}
    batch = decode_traces(json.dumps(request).encode(), now=float(T), number=0)
    assert not batch.refusals, batch.refusals
    return list(batch.events)


def test_a_tool_span_is_a_call_and_its_result() -> None:
    call, result = events_of(
        span(
            "execute_tool", gen_ai__agent__name="planner", gen_ai__tool__name="search",
            gen_ai__tool__call__arguments='{"q": "soil"}', gen_ai__tool__call__result="3 hits",
            gen_ai__conversation__id="c7",
        )
    )  # fmt: skip
    assert (call.agent, call.kind, call.tool, call.text, call.ts) == (
        "planner",
        "tool_call",
        "search",
        '{"q": "soil"}',
        T,
    )
    assert (result.kind, result.ok, result.text, result.latency_ms) == ("tool_result", True, "3 hits", 500.0)
    assert call.correlation == result.correlation == "c7" and call.id != result.id


def test_the_same_arguments_have_the_same_hash_and_others_another() -> None:
    first, again, other = (
        events_of(span("execute_tool", gen_ai__tool__name="t", gen_ai__tool__call__arguments=text))[0].args_hash
        for text in ("{}", "{}", '{"a":1}')
    )
    assert first == again != other and first is not None


def test_a_failed_tool_says_why_by_its_status_or_its_exception() -> None:
    assert events_of(span("execute_tool", gen_ai__tool__name="t", fails="timeout"))[1].text == "timeout"
    raised = span("execute_tool", gen_ai__tool__name="t", fails="")
    raised["events"] = [
        {
            "name": "exception",
            "attributes": [attribute("exception.type", "IOError"), attribute("exception.message", "no")],
        }
    ]
    result = events_of(raised)[1]
    assert (result.ok, result.text) == (False, "IOError: no")


@pytest.mark.parametrize("encode", [json.dumps, lambda messages: messages], ids=["as JSON text", "as values"])
def test_a_chat_span_is_what_the_model_said(encode: Any) -> None:
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "how moist?"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "name": "x"}, {"type": "text", "content": "12 %"}]},
    ]
    made = span("chat", gen_ai__usage__output_tokens=7, gen_ai__request__model="m")
    value = encode(messages)
    stored = {"stringValue": value} if isinstance(value, str) else _any_value(value)
    made["attributes"].append({"key": "gen_ai.output.messages", "value": stored})
    (event,) = events_of(made)
    assert (event.kind, event.text, event.agent) == ("message", "12 %", "team")
    assert event.extra == {"otel_operation": "chat", "model": "m", "output_tokens": 7}


def _any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": k, "value": _any_value(v)} for k, v in value.items()]}}
    return {"stringValue": value}


def test_content_that_was_not_recorded_is_not_invented() -> None:
    (event,) = events_of(span("chat"))
    assert (event.kind, event.text) == ("step", None)


def test_an_agent_span_is_its_goal_and_what_came_of_it() -> None:
    asked = json.dumps([{"role": "user", "content": "water the plots"}])
    goal, step = events_of(span("invoke_agent", gen_ai__agent__name="boss", gen_ai__input__messages=asked))
    assert (goal.kind, goal.text, step.kind, step.ok) == ("goal", "water the plots", "step", True)
    failed = events_of(span("invoke_agent", gen_ai__agent__name="boss", fails="gave up"))[-1]
    assert (failed.kind, failed.text) == ("error", "gave up")


def test_events_come_in_order_of_time_and_spans_without_agents_are_passed_over() -> None:
    other = {"spanId": "1", "name": "GET /", "attributes": [attribute("http.method", "GET")]}
    events = events_of(span("chat", at=5.0), other, span("chat", at=1.0))
    assert [event.ts for event in events] == [T + 1.5, T + 5.5]


def test_a_span_that_names_nobody_is_refused_alone() -> None:
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [span("chat"), span("chat", gen_ai__agent__id="a1")]}]}]}
    batch = decode_traces(json.dumps(request).encode(), now=float(T), number=0)
    assert [event.agent for event in batch.events] == ["a1"]
    assert "gen_ai.agent.name" in batch.refusals[0].reason


def test_long_content_is_cut_and_too_many_spans_are_refused_whole() -> None:
    long = events_of(span("execute_tool", gen_ai__tool__name="t", gen_ai__tool__call__result="x" * 200_000))[1]
    assert long.text is not None and len(long.text) == TEXT_CHARS_MAX
    with pytest.raises(EventFormatError, match="more than the"):
        events_of(*[span("chat")] * (SPANS_MAX + 1))


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b'{"resourceSpans": 3}', b'{"resourceSpans": [[]]}', b'{"resourceSpans":[{"scopeSpans":{}}]}'],
)
def test_what_is_no_request_is_refused_with_a_reason(raw: bytes) -> None:
    with pytest.raises(EventFormatError, match="OTLP"):
        decode_traces(raw, now=float(T), number=0)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["spans", "attributes", "key", "value", "stringValue", "arrayValue", "values", "kvlistValue", "status",
                 "code", "events", "name", "spanId", "startTimeUnixNano", "gen_ai.operation.name"]
            ),
            inner, max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_any_span_is_events_or_a_refusal_never_a_crash(value: Any) -> None:
    request = {"resourceSpans": [{"resource": value, "scopeSpans": [{"spans": [value, span("chat")]}]}]}
    with contextlib.suppress(EventFormatError):
        decode_traces(json.dumps(request).encode(), now=float(T), number=0)
