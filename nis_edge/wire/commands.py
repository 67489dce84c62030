"""Commands by MQTT: the bytes of ``cmd/{name}`` in, a checked ``Command`` out; a ``Result`` out, its bytes back. Pure.

A command's payload is a JSON object whose keys are the command's arguments, beside ``id``, the idempotency key: two
commands of the same name and id are one command. It may also be empty, or a bare word, because dashboards send no more:
``INSTALL`` on ``cmd/ota`` is what Home Assistant says to an update.

An answer goes where the sender asks (MQTT's response topic), which makes us speak in our own name where the sender may
not. So a topic on which somebody acts is refused: nothing under ``nis/`` or a dashboard's discovery, and no wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from nis_edge.errors import EventFormatError
from nis_edge.limits import COMMAND_BYTES_MAX, CORRELATION_BYTES_MAX, JSON_DEPTH_MAX, TOPIC_BYTES_MAX
from nis_edge.wire.codec import nests_too_deep

State = Literal["accepted", "done", "failed"]

SCHEMA: Final = "nis.command-result/1"

BARE_WORDS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {("ota", "INSTALL"): {"do": "apply"}}
"""Words that stand for arguments, by command; every other bare word (``PRESS``) stands for none."""

_WORD: Final = re.compile(rb"[A-Za-z0-9_-]{0,64}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_CLOSED_ROOTS: Final = ("nis/", "homeassistant/", "$")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command.

    Args:
        name: the last level of its topic.
        args: what the payload says beside the id.
        key: what makes two of the same name one command; None when the sender gave nothing of that kind.
        response_topic, correlation: where an answer is wanted, and what to give back with it.
        trace_id: of the sender's W3C trace context, 32 hex digits, or None.
    """

    name: str
    args: dict[str, Any]
    key: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    trace_id: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command; ``repeated`` says that it was carried out before, and this is what came of it then."""

    v: Literal[1] = 1
    ts: float
    command: str
    id: str | None
    state: State
    result: dict[str, Any] | None = None
    reason: str | None = None
    repeated: bool = False


def parse_command(
    name: str,
    payload: bytes,
    *,
    response_topic: str | None = None,
    correlation: bytes | None = None,
    properties: Sequence[tuple[str, str]] = (),
) -> Command:
    """Check one command.

    Args:
        name: the last level of its topic.
        payload: its bytes.
        response_topic, correlation, properties: as they came with the message.

    Raises:
        EventFormatError: the payload is none of a command's (the sender acts).
    """
    if len(payload) > COMMAND_BYTES_MAX:
        raise EventFormatError(f"a command of {len(payload)} bytes is larger than the {COMMAND_BYTES_MAX} allowed")
    body = _body(name, payload)
    key = body.pop("id", None)
    if key is not None and not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise EventFormatError("'id' must be a text of 1 to 128 printable ASCII characters without spaces")
    if correlation is not None and len(correlation) > CORRELATION_BYTES_MAX:
        raise EventFormatError(f"correlation data of more than {CORRELATION_BYTES_MAX} bytes")
    trace = _TRACEPARENT.fullmatch(dict(properties).get("traceparent", ""))
    return Command(
        name=name,
        args=body,
        # A request that is told apart by its correlation is the same one when the broker delivers it twice.
        key=key if key is not None else (f"correlation:{correlation.hex()}" if correlation else None),
        response_topic=response_topic,
        correlation=correlation,
        trace_id=trace[1] if trace and set(trace[1]) != {"0"} else None,
    )


def answerable(topic: str | None) -> bool:
    """Whether an answer may be sent to this response topic."""
    if not topic or len(topic.encode()) > TOPIC_BYTES_MAX or re.search("[+#\x00-\x1f\x7f-\x9f]", topic):
        return False
    return not topic.lstrip("/").startswith(_CLOSED_ROOTS)


def _body(name: str, payload: bytes) -> dict[str, Any]:
    stripped = payload.strip()
    if _WORD.fullmatch(stripped) and stripped not in (b"null", b"true", b"false") and not stripped.isdigit():
        return dict(BARE_WORDS.get((name, stripped.decode()), {}))
    try:
        body = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventFormatError(f"a command is a JSON object, one word or nothing: {error}") from error
    if not isinstance(body, dict):
        raise EventFormatError("a command is a JSON object, one word or nothing")
    if nests_too_deep(body):
        raise EventFormatError(f"nested deeper than {JSON_DEPTH_MAX} levels")
    return body
