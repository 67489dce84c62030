"""The dialects of the NIS protocol, each translated to the canonical fields of an agent event.

A dialect is recognised by the names of its fields. Translation only moves and renames: what has no canonical place
stays beside the known fields and ends up in the event's ``extra``. Nothing is invented: where a dialect's value has no
certain meaning (priorities as bare numbers), it is kept as it came.

    NIS v3 message      message_type, source_agent, content ...          (later: type, source, destination, payload)
    envelope            _event_type (dotted), _timestamp, _source
    node heartbeat      node_id, status, *_usage, active_tasks ...       every 30 s
    introspection       reflection_type, agent_id, findings, confidence ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Fields = dict[str, Any]

KIND_OF_MESSAGE_TYPE: Final[Mapping[str, str]] = {
    "consciousness_event": "step",
    "goal_generation": "goal",
    "simulation_result": "step",
    "alignment_check": "step",
    "memory_operation": "step",
    "agent_coordination": "message",
    "system_health": "heartbeat",
    "audit_alert": "error",
    "performance_metric": "step",
    "command": "message",
    "query": "message",
    "event": "step",
    "response": "message",
    "system": "lifecycle",
    "log": "message",
}
"""Message types of NIS v3.0 and of its later versions."""

KIND_OF_DOTTED_WORD: Final[Mapping[str, str]] = {
    "health": "heartbeat",
    "heartbeat": "heartbeat",
    "goal": "goal",
    "goals": "goal",
    "error": "error",
    "alert": "error",
    "audit": "error",
    "lifecycle": "lifecycle",
    "consciousness": "step",
    "simulation": "step",
    "memory": "step",
    "performance": "step",
}
"""Words of dotted event types such as nis.system.health; the last word that is known decides."""

_TEXT_KEYS: Final = ("text", "message", "description", "goal", "content", "reason", "error")
_VALUE_KEYS: Final = ("tool", "ok", "latency_ms", "confidence", "step", "args_hash", "claim", "outcome_of", "outcome")


def to_canonical(fields: Fields) -> Fields:
    """Return the fields under their canonical names; a canonical event comes back as it is.

    Args:
        fields: a decoded JSON object; it is not changed.
    """
    if "agent" in fields and "kind" in fields:
        return fields
    if "_event_type" in fields:
        return _from_envelope(fields)
    if "message_type" in fields or ("type" in fields and ("source" in fields or "source_agent" in fields)):
        return _from_message(fields)
    if "reflection_type" in fields and "agent_id" in fields:
        return _from_introspection(fields)
    if "node_id" in fields and "status" in fields:
        return _from_heartbeat(fields)
    return fields


def _from_message(fields: Fields) -> Fields:
    rest = dict(fields)
    message_type = _take(rest, "message_type", "type")
    content = _take(rest, "content", "payload")
    canonical: Fields = {
        "id": _take(rest, "message_id", "id"),
        "ts": _take(rest, "timestamp", "ts"),
        "agent": _take(rest, "source_agent", "source", "agent"),
        "kind": _kind(message_type),
        "topic": _take(rest, "topic"),
        "to": _take(rest, "target_agent", "destination", "target", "to"),
        "correlation": _take(rest, "correlation_id", "correlation"),
        "priority": _take(rest, "priority"),
        "message_type": message_type,
    }
    return {**rest, **canonical, **_content(content)}


def _from_envelope(fields: Fields) -> Fields:
    rest = dict(fields)
    event_type = _take(rest, "_event_type")
    words = event_type.lower().split(".") if isinstance(event_type, str) else []
    kinds = [KIND_OF_DOTTED_WORD[word] for word in words if word in KIND_OF_DOTTED_WORD]
    canonical: Fields = {
        "id": _take(rest, "_id", "id"),
        "ts": _take(rest, "_timestamp"),
        "agent": _take(rest, "_source", "agent"),
        "kind": kinds[-1] if kinds else "message",
        "message_type": event_type,
    }
    content = _take(rest, "data", "payload", "content")
    if content is None:
        content, rest = rest, {}
    return {**rest, **canonical, **_content(content)}


def _from_heartbeat(fields: Fields) -> Fields:
    rest = dict(fields)
    canonical: Fields = {
        "id": _take(rest, "id", "message_id"),
        "ts": _take(rest, "ts", "timestamp"),
        "agent": _take(rest, "node_id"),
    }
    status = _take(rest, "status")
    canonical["text"] = status if isinstance(status, str) else None
    canonical["kind"] = "lifecycle" if status == "offline" else "heartbeat"
    return {**canonical, "data": rest}


def _from_introspection(fields: Fields) -> Fields:
    rest = dict(fields)
    canonical: Fields = {
        "id": _take(rest, "id"),
        "ts": _take(rest, "timestamp", "ts"),
        "agent": _take(rest, "agent_id"),
        "kind": "step",
        "topic": _take(rest, "reflection_type"),
        "confidence": _take(rest, "confidence"),
    }
    recommendations = rest.get("recommendations")
    if isinstance(recommendations, list):
        canonical["text"] = "; ".join(word for word in recommendations if isinstance(word, str)) or None
    return {**canonical, "data": rest}


def _content(content: object) -> Fields:
    """The canonical fields found in a message's free-form content; the content itself is kept as ``data``."""
    if isinstance(content, str):
        return {"text": content}
    if not isinstance(content, dict):
        return {} if content is None else {"data": {"content": content}}
    found: Fields = {"data": content}
    for key in _TEXT_KEYS:
        if isinstance(content.get(key), str):
            found["text"] = content[key]
            break
    found.update({key: content[key] for key in _VALUE_KEYS if content.get(key) is not None})
    return found


def _kind(message_type: object) -> str:
    word = message_type.lower() if isinstance(message_type, str) else ""
    return KIND_OF_MESSAGE_TYPE.get(word, word or "message")


def _take(fields: Fields, *names: str) -> Any:
    """Remove the first of the names that is present and return its value."""
    for name in names:
        if name in fields:
            return fields.pop(name)
    return None
