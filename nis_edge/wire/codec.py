"""Bytes to canonical agent events, and records to bytes: the sill of the house.

Everything a sender wrote is hostile until it has passed here. What passes is an ``AgentEvent``; what does not is an
``EventFormatError`` with the reason, and the stream goes on. Dialects (``aliases``) are translated before the check, so
that one check holds for all of them. Encoding is deterministic: the same record gives the same bytes.
"""

from __future__ import annotations

import re
from typing import Any, Final, get_args

import msgspec

from nis_edge.errors import EventFormatError
from nis_edge.limits import BATCH_EVENTS_MAX, EVENT_BYTES_MAX, JSON_DEPTH_MAX, NAME_CHARS_MAX
from nis_edge.wire.aliases import to_canonical
from nis_edge.wire.messages import AgentEvent, Kind, Priority
from nis_edge.wire.times import seconds_since_epoch

KINDS: Final = frozenset(get_args(Kind))
PRIORITIES: Final = frozenset(get_args(Priority))

_FIELDS: Final = frozenset(AgentEvent.__struct_fields__) - {"extra"}
_NAME_FIELDS: Final = ("id", "agent", "topic", "to", "correlation", "tool", "args_hash", "outcome_of")

# Control characters, line and paragraph separators, and the marks that reorder or hide text: in a name they serve only
# to deceive a reader of a log or a terminal.
_DECEIVING: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ufff9-\\ufffb]"
)

_encoder: Final = msgspec.json.Encoder()


class Refusal(msgspec.Struct, frozen=True):
    """One event that was refused: its place in what was sent (0 is the first) and why."""

    position: int
    reason: str


class Batch(msgspec.Struct, frozen=True):
    """What one body of one or many events held."""

    events: tuple[AgentEvent, ...]
    refusals: tuple[Refusal, ...]


def decode_event(raw: bytes, *, now: float, number: int, sender: str | None = None) -> AgentEvent:
    """Read one agent event: canonical, an NIS v3 message, an envelope or a node heartbeat.

    Args:
        raw: one JSON object in UTF-8, at most 64 KiB.
        now: seconds since the epoch; becomes ``ts`` where the sender gave none.
        number: the caller's running count; an event without an id is called ``e<number>``.
        sender: who sent it as the transport knows (the MQTT topic names the agent), or None when it doesn't.

    Raises:
        EventFormatError: with the reason; the sender acts, nothing of the event was used.
    """
    if len(raw) > EVENT_BYTES_MAX:
        raise EventFormatError(f"event of {len(raw)} bytes is larger than the {EVENT_BYTES_MAX} allowed")
    return event_of(_decode_object(raw), now=now, number=number, sender=sender)


def decode_batch(raw: bytes, *, now: float, number: int, sender: str | None = None) -> Batch:
    """Read one event, a JSON array of them, or JSON lines; a malformed one is refused alone.

    Args:
        raw: UTF-8; the caller has bounded its size.
        now: seconds since the epoch.
        number: the running count of the first event.
        sender: as in ``decode_event``.

    Raises:
        EventFormatError: the whole is unreadable, or holds more than ``BATCH_EVENTS_MAX`` events.
    """
    pieces = _split(raw)
    if len(pieces) > BATCH_EVENTS_MAX:
        raise EventFormatError(f"{len(pieces)} events at once are more than the {BATCH_EVENTS_MAX} allowed")
    events: list[AgentEvent] = []
    refusals: list[Refusal] = []
    for position, piece in enumerate(pieces):
        try:
            events.append(decode_event(piece, now=now, number=number + position, sender=sender))
        except EventFormatError as error:
            refusals.append(Refusal(position, str(error)))
    return Batch(tuple(events), tuple(refusals))


def event_of(fields: dict[str, Any], *, now: float, number: int, sender: str | None = None) -> AgentEvent:
    """Check the fields of one JSON object and build the event; unknown fields are kept in ``extra``.

    Args:
        fields: a decoded JSON object; it is not changed.
        now, number, sender: as in ``decode_event``.

    Raises:
        EventFormatError: with the reason (the sender acts).
    """
    if nests_too_deep(fields):
        raise EventFormatError(f"event nests deeper than the {JSON_DEPTH_MAX} levels allowed")
    canonical = to_canonical(fields)
    known = {key: value for key, value in canonical.items() if key in _FIELDS and value is not None}
    extra = {key: value for key, value in canonical.items() if key not in _FIELDS and value is not None}
    if isinstance(extra.get("extra"), dict):
        extra = {**extra.pop("extra"), **extra}
    if known.get("v", 1) != 1:
        raise EventFormatError(f"event version {known['v']!r} is not 1, the only one known here")
    known.setdefault("id", f"e{number}")
    if isinstance(known["id"], int) and not isinstance(known["id"], bool):
        known["id"] = str(known["id"])
    known["ts"] = seconds_since_epoch(known["ts"]) if "ts" in known else now
    if sender is not None and known.setdefault("agent", sender) != sender:
        raise EventFormatError(f"event names agent {str(known['agent'])[:40]!r} but was sent by {sender[:40]!r}")
    for missing in ("agent", "kind"):
        if missing not in known:
            raise EventFormatError(f"event lacks {missing!r}")
    if not (isinstance(known["kind"], str) and known["kind"] in KINDS):
        extra["kind"] = known["kind"]
        known["kind"] = "message"
    if "priority" in known:
        word = known["priority"].lower() if isinstance(known["priority"], str) else None
        if word in PRIORITIES:
            known["priority"] = word
        else:
            # The NIS versions number priorities in opposite directions: a bare number has no certain meaning.
            extra["priority"] = known.pop("priority")
    if extra:
        known["extra"] = extra
    try:
        event = msgspec.convert(known, AgentEvent)
    except msgspec.ValidationError as error:
        raise EventFormatError(f"event refused: {error}") from error
    _check_values(event)
    return event


def encode(record: msgspec.Struct) -> bytes:
    """One record as one line of compact JSON (no newline), fields in their declared order: the same bytes each time."""
    return _encoder.encode(record)


def nests_too_deep(value: dict[str, Any]) -> bool:
    """Whether objects and lists stand in each other more than ``JSON_DEPTH_MAX`` deep, the outermost counted."""
    level: list[Any] = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def is_deceiving(text: str) -> bool:
    """Whether a name holds control characters or marks that hide or reorder text."""
    return _DECEIVING.search(text) is not None


def visible(text: str) -> str:
    """Text for a terminal: characters that could control it or deceive a reader are shown as their escapes."""
    return _DECEIVING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _split(raw: bytes) -> list[bytes]:
    body = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise EventFormatError("empty: no event was sent")
    if body[:1] == b"[":
        try:
            return [bytes(piece) for piece in msgspec.json.decode(body, type=list[msgspec.Raw])]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EventFormatError(f"array of events is no JSON: {error}") from error
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) > 1 and not all(line.rstrip().endswith(b"}") for line in lines):
        # One object printed over several lines, not JSON lines.
        return [body]
    return lines


def _decode_object(raw: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(raw)
    except RecursionError as error:
        raise EventFormatError(f"event nests deeper than the {JSON_DEPTH_MAX} levels allowed") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventFormatError(f"event is no JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise EventFormatError(f"event is a JSON {type(decoded).__name__}, not an object")
    return decoded


def _check_values(event: AgentEvent) -> None:
    for field in _NAME_FIELDS:
        name = getattr(event, field)
        if name is None:
            continue
        if not name or len(name) > NAME_CHARS_MAX:
            raise EventFormatError(f"{field} has {len(name)} characters, not 1 to {NAME_CHARS_MAX}")
        if _DECEIVING.search(name):
            raise EventFormatError(f"{field} '{visible(name[:40])}' holds control or hidden characters")
    if event.confidence is not None and not 0.0 <= event.confidence <= 1.0:
        raise EventFormatError(f"confidence {event.confidence:g} lies outside 0..1")
    if event.latency_ms is not None and event.latency_ms < 0.0:
        raise EventFormatError(f"latency_ms {event.latency_ms:g} is negative")
    if event.step is not None and not 0 <= event.step < 2**53:
        raise EventFormatError(f"step {event.step} is no count")
    if event.claim is not None:
        if not event.claim.key or len(event.claim.key) > NAME_CHARS_MAX:
            raise EventFormatError(f"claim key has {len(event.claim.key)} characters, not 1 to {NAME_CHARS_MAX}")
        if event.claim.tol is not None and event.claim.tol < 0.0:
            raise EventFormatError(f"claim tolerance {event.claim.tol:g} is negative")
