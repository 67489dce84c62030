"""OpenTelemetry traces of agents (OTLP/HTTP, JSON) as agent events, by the GenAI semantic conventions.

What a span is, its `gen_ai.operation.name` says:

    execute_tool                          tool_call when it began, tool_result when it ended
    chat, text_completion, generate_content   message with what the model said, or step where content is not recorded
    invoke_agent, invoke_workflow, plan   goal with what was asked, then step with what came out
    create_agent                          lifecycle
    anything else of gen_ai               step

A span whose status is an error becomes an error event, or a failed tool result. Spans without `gen_ai.*` are not about
agents and are passed over. The sender of an event is `gen_ai.agent.name`, else its id, else the service. Nothing is
invented: content that was not recorded leaves the text empty. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from nis_edge.errors import EventFormatError
from nis_edge.limits import BATCH_EVENTS_MAX, NAME_CHARS_MAX
from nis_edge.wire.codec import Batch, Refusal, event_of
from nis_edge.wire.messages import AgentEvent

STATUS_ERROR: Final = 2
"""STATUS_CODE_ERROR of the OTLP protocol."""

NANOSECONDS: Final = 1_000_000_000

TEXT_CHARS_MAX: Final = 16_384
"""Of one recorded message; an agent's whole history may stand in a span."""

SPANS_MAX: Final = BATCH_EVENTS_MAX // 2
"""Each becomes at most two events."""

ANSWERING: Final = frozenset({"chat", "text_completion", "generate_content"})
ACTING: Final = frozenset({"invoke_agent", "invoke_workflow", "plan"})

Attributes = Mapping[str, Any]


def decode_traces(raw: bytes, *, now: float, number: int) -> Batch:
    """Read an ExportTraceServiceRequest in JSON.

    Args:
        raw: UTF-8; the caller has bounded its size.
        now: seconds since the epoch, for spans without a time.
        number: the running count of the first event.

    Returns:
        The events in order of time, and a refusal for each span that is malformed.

    Raises:
        EventFormatError: the whole is unreadable, or holds more than ``SPANS_MAX`` spans (the sender acts).
    """
    try:
        request = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise EventFormatError(f"no OTLP request in JSON: {error}") from error
    spans = list(_spans(request))
    if len(spans) > SPANS_MAX:
        raise EventFormatError(f"{len(spans)} spans at once are more than the {SPANS_MAX} allowed")
    events: list[AgentEvent] = []
    refusals: list[Refusal] = []
    for position, (resource, span) in enumerate(spans):
        try:
            for fields in _events(resource, span):
                events.append(event_of(fields, now=now, number=number + len(events)))
        except EventFormatError as error:
            refusals.append(Refusal(position, str(error)))
    events.sort(key=lambda event: event.ts)
    return Batch(tuple(events), tuple(refusals))


def _spans(request: Any) -> Iterator[tuple[Attributes, Any]]:
    """Each span with the attributes of its resource."""
    for group in _list(request, "resourceSpans"):
        resource = _attributes(group.get("resource") if isinstance(group, dict) else None)
        for scope in _list(group, "scopeSpans"):
            for span in _list(scope, "spans"):
                yield resource, span


def _list(holder: Any, key: str) -> Sequence[Any]:
    if not isinstance(holder, dict):
        raise EventFormatError(f"an OTLP request must hold objects where {key!r} is looked for")
    inside = holder.get(key, [])
    if not isinstance(inside, list):
        raise EventFormatError(f"{key!r} of an OTLP request must be a list")
    return inside


def _events(resource: Attributes, span: Any) -> Iterator[dict[str, Any]]:
    """The events of one span, as fields."""
    if not isinstance(span, dict):
        raise EventFormatError("a span must be an object")
    attributes = _attributes(span)
    operation = attributes.get("gen_ai.operation.name")
    if operation is None and not any(key.startswith("gen_ai.") for key in attributes):
        return
    identity = _text(span.get("spanId"))
    if not identity:
        raise EventFormatError("a span of an agent lacks its spanId")
    begun, ended = _seconds(span, "startTimeUnixNano"), _seconds(span, "endTimeUnixNano")
    status = span.get("status")
    failed = isinstance(status, dict) and status.get("code") in (STATUS_ERROR, "STATUS_CODE_ERROR")
    common = {
        "agent": _sender(resource, attributes),
        "correlation": _name(attributes.get("gen_ai.conversation.id") or span.get("traceId")),
        "extra": _kept(operation, attributes, span),
    }
    end = {**common, "ts": ended, "latency_ms": None if None in (begun, ended) else 1e3 * (ended - begun)}  # type: ignore[operator]
    failure = _failure(span, status) if failed else None
    if operation == "execute_tool":
        arguments = _json_text(attributes.get("gen_ai.tool.call.arguments"))
        tool = _name(attributes.get("gen_ai.tool.name")) or "unknown tool"
        digest = hashlib.sha256(arguments.encode()).hexdigest()[:16] if arguments else None
        yield {
            **common, "id": identity, "ts": begun, "kind": "tool_call", "tool": tool, "args_hash": digest,
            "text": arguments or None,
        }  # fmt: skip
        result = failure or _json_text(attributes.get("gen_ai.tool.call.result")) or None
        yield {**end, "id": f"{identity}.result", "kind": "tool_result", "tool": tool, "ok": not failed, "text": result}
        return
    if operation in ACTING:
        asked = _said(attributes.get("gen_ai.input.messages"), "user")
        if asked:
            yield {**common, "id": f"{identity}.goal", "ts": begun, "kind": "goal", "text": asked}
    if failed:
        yield {**end, "id": identity, "kind": "error", "ok": False, "text": failure}
        return
    said = _said(attributes.get("gen_ai.output.messages"), "assistant")
    yield {**end, "id": identity, "kind": _kind(operation, said), "ok": True, "text": said}


def _kind(operation: Any, said: str | None) -> str:
    """What a span that went well is, apart from tools."""
    if operation == "create_agent":
        return "lifecycle"
    return "message" if operation in ANSWERING and said else "step"


def _attributes(holder: Any) -> dict[str, Any]:
    """The attributes of a span or resource as a plain mapping; later ones win."""
    if not isinstance(holder, dict):
        return {}
    found: dict[str, Any] = {}
    for entry in _list(holder, "attributes"):
        if isinstance(entry, dict) and isinstance(entry.get("key"), str):
            found[entry["key"]] = _value(entry.get("value"))
    return found


def _value(value: Any) -> Any:
    """An AnyValue as JSON; 64-bit integers come as strings."""
    if not isinstance(value, dict):
        return None
    for key in ("stringValue", "boolValue", "doubleValue"):
        if key in value:
            return value[key]
    if "intValue" in value:
        try:
            return int(value["intValue"])
        except (TypeError, ValueError):
            return None
    if "arrayValue" in value and isinstance(value["arrayValue"], dict):
        return [_value(one) for one in value["arrayValue"].get("values", []) or []]
    if "kvlistValue" in value and isinstance(value["kvlistValue"], dict):
        pairs = value["kvlistValue"].get("values", []) or []
        return {one["key"]: _value(one.get("value")) for one in pairs if isinstance(one, dict) and "key" in one}
    return None


def _sender(resource: Attributes, attributes: Attributes) -> str:
    for name in (attributes.get("gen_ai.agent.name"), attributes.get("gen_ai.agent.id"), resource.get("service.name")):
        if known := _name(name):
            return known
    raise EventFormatError("a span names no agent: set gen_ai.agent.name, or service.name of the resource")


def _kept(operation: Any, attributes: Attributes, span: Mapping[str, Any]) -> dict[str, Any]:
    """What has no canonical place and is worth keeping."""
    kept = {
        "otel_operation": operation,
        "otel_parent": span.get("parentSpanId"),
        "model": attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model"),
        "input_tokens": attributes.get("gen_ai.usage.input_tokens"),
        "output_tokens": attributes.get("gen_ai.usage.output_tokens"),
        "error_type": attributes.get("error.type"),
    }
    return {key: value for key, value in kept.items() if isinstance(value, (str, int)) and value != ""}


def _seconds(span: Mapping[str, Any], key: str) -> float | None:
    try:
        nanoseconds = int(span[key])
    except (KeyError, TypeError, ValueError):
        return None
    return nanoseconds / NANOSECONDS if nanoseconds > 0 else None


def _failure(span: Mapping[str, Any], status: Any) -> str:
    """What a failed span says of its failure: its status, else its exception."""
    if message := _text(status.get("message")):
        return message
    for event in _list(span, "events"):
        if isinstance(event, dict) and event.get("name") == "exception":
            about = _attributes(event)
            kind, message = _text(about.get("exception.type")), _text(about.get("exception.message"))
            return ": ".join(part for part in (kind, message) if part) or "failed"
    return "failed"


def _said(messages: Any, role: str) -> str | None:
    """The text of the newest message of a role; messages come as objects or as their JSON."""
    if isinstance(messages, str):
        try:
            messages = msgspec.json.decode(messages)
        except (msgspec.DecodeError, RecursionError):
            return _text(messages)
    if not isinstance(messages, list):
        return None
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == role:
            return _content(message)
    return None


def _content(message: Mapping[str, Any]) -> str | None:
    parts = message.get("parts", message.get("content"))
    if isinstance(parts, str):
        return _text(parts)
    if not isinstance(parts, list):
        return None
    texts = [
        part.get("content", part.get("text")) for part in parts if isinstance(part, dict) and part.get("type") == "text"
    ]
    return _text("\n".join(text for text in texts if isinstance(text, str)))


def _json_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return (value or "")[:TEXT_CHARS_MAX]
    return json.dumps(value, sort_keys=True, ensure_ascii=False)[:TEXT_CHARS_MAX]


def _text(value: Any) -> str | None:
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) and value else None


def _name(value: Any) -> str | None:
    return value[:NAME_CHARS_MAX] if isinstance(value, str) and value else None
