"""What the daemon tells the world, as records and messages: topics, schemas, classes and times of each.

Everything that must not be lost becomes a ``Record`` for the spool (QoS 1); the last value of each stream is also kept
as a retained state for dashboards (QoS 0, current only). A consumer that may see a record twice drops the second by
``(device, boot_id, seq)``, which every message carries as user properties.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from nis_edge import __version__
from nis_edge.adapters.mqtt import Message
from nis_edge.adapters.spool import Class, Record
from nis_edge.config import SpoolOptions
from nis_edge.wire.codec import encode
from nis_edge.wire.commands import SCHEMA as COMMAND_SCHEMA
from nis_edge.wire.commands import Command, Result
from nis_edge.wire.messages import Assessment, Finding
from nis_edge.wire.topics import Topics

STATE_EXPIRY_S: Final = 300
"""A retained state older than this is gone from the broker: a dashboard then shows nothing rather than the past."""

RESULT_LIFE_S: Final = 3600.0
"""Nobody waits longer for the answer to a command."""

_HOUR_S: Final = 3600.0


@dataclass(frozen=True)
class Identity:
    """Who speaks: the topics of the device and this run of the daemon."""

    topics: Topics
    boot_id: str


class Telemetry:
    """Makes records and messages.

    Args:
        identity: who speaks.
        options: how long each class is worth sending.
    """

    def __init__(self, identity: Identity, options: SpoolOptions) -> None:
        self._identity = identity
        self._life_s: dict[Class, float] = {
            "telemetry": options.telemetry_hours * _HOUR_S,
            "assessment": options.assessment_hours * _HOUR_S,
            "event": options.event_hours * _HOUR_S,
        }

    def assessment(self, assessment: Assessment, now: float) -> Record:
        """One verdict."""
        topic = self._identity.topics.assessment
        return self._record("assessment", topic, "nis.assessment/1", encode(assessment), now)

    def finding(self, finding: Finding, change: str, now: float) -> Record:
        """A finding that began (``raised``) or ended (``cleared``)."""
        body = msgspec.json.encode({"ts": now, "change": change, "finding": finding})
        return self._record("event", self._identity.topics.event(finding.severity), "nis.finding/1", body, now)

    def stream(self, name: str, body: Mapping[str, Any], now: float) -> Record:
        """One record of a telemetry stream: latency, power or system."""
        raw = msgspec.json.encode({"ts": now, **body})
        return self._record("telemetry", self._identity.topics.telemetry(name), f"nis.{name}/1", raw, now)

    def opinion(self, finding: Finding, body: Mapping[str, Any], now: float) -> Record:
        """What an operator thinks of a finding, beside the finding's own records."""
        raw = msgspec.json.encode({"ts": now, "change": "judged", "finding": finding, "opinion": body})
        return self._record("event", self._identity.topics.event(finding.severity), "nis.finding/1", raw, now)

    def command_result(self, result: Result, now: float) -> Record:
        """What became of a command, for whoever watches; it gives way to everything else."""
        topic = self._identity.topics.command_result(result.command)
        raw = msgspec.json.encode(result)
        return Record("telemetry", topic, COMMAND_SCHEMA, raw, self._identity.boot_id, now, now + RESULT_LIFE_S)

    def reply(self, result: Result, command: Command) -> Message:
        """The same for the one who asked, where they asked for it, in their trace."""
        assert command.response_topic is not None
        span = _digest(self._identity.boot_id, command.name, result.state, str(result.ts))[32:48]
        more = (("traceparent", f"00-{command.trace_id}-{span}-01"),) if command.trace_id else ()
        properties = self._properties(COMMAND_SCHEMA, self._identity.boot_id, more)
        raw = msgspec.json.encode(result)
        expiry_s = int(RESULT_LIFE_S)
        return Message(command.response_topic, raw, 1, False, properties, expiry_s, command.correlation)

    def reported(self, body: Mapping[str, Any]) -> Message:
        """The retained answer to what was desired."""
        properties = self._properties("nis.config/1", self._identity.boot_id)
        return Message(self._identity.topics.config_reported, msgspec.json.encode(body), 1, True, properties)

    def update_report(self, payload: bytes, now: float) -> Record:
        """One signed report of an update."""
        return self._record("event", self._identity.topics.ota_report, "nis.update-report/1", payload, now)

    def message(self, record: Record, now: float) -> Message:
        """A record as it goes to the broker."""
        trace = traceparent(self._identity.topics.device, record.boot_id, record.seq)
        more = (("seq", str(record.seq)), ("traceparent", trace))
        properties = self._properties(record.schema, record.boot_id, more)
        left_s = int(record.expires - now)
        return Message(record.topic, record.payload, 1, False, properties, expiry_s=left_s)

    def state(self, name: str, schema: str, payload: bytes, interval_s: float = 0.0) -> Message:
        """The retained last value of a stream that has a new one each ``interval_s``."""
        properties = self._properties(schema, self._identity.boot_id)
        expiry_s = state_expiry_s(interval_s)
        return Message(self._identity.topics.state(name), payload, 0, True, properties, expiry_s)

    def online(self, session: int, model: str | None) -> Message:
        """The birth: retained, published at each connection."""
        versions = {"nis_edge": __version__, "model": model}
        return self._status({"state": "online", "session": session, "versions": versions})

    def offline(self, reason: str) -> Message:
        """The end of a connection: the last will, or a clean farewell."""
        return self._status({"state": "offline", "reason": reason})

    def meta(self, body: Mapping[str, Any]) -> Message:
        """The retained description of device, sensors and model."""
        raw = msgspec.json.encode({"device": self._identity.topics.device, **body})
        properties = self._properties("nis.meta/1", self._identity.boot_id)
        return Message(self._identity.topics.meta, raw, 1, True, properties)

    def _status(self, body: Mapping[str, Any]) -> Message:
        raw = msgspec.json.encode({**body, "boot_id": self._identity.boot_id})
        properties = self._properties("nis.status/1", self._identity.boot_id)
        return Message(self._identity.topics.status, raw, 1, True, properties)

    def _record(self, kind: Class, topic: str, schema: str, payload: bytes, now: float) -> Record:
        return Record(kind, topic, schema, payload, self._identity.boot_id, now, now + self._life_s[kind])

    def _properties(
        self, schema: str, boot_id: str, more: tuple[tuple[str, str], ...] = ()
    ) -> tuple[tuple[str, str], ...]:
        return (("schema", schema), ("boot_id", boot_id), *more)


def state_expiry_s(interval_s: float) -> int:
    """Seconds that a state is worth showing: a few of its intervals."""
    return max(STATE_EXPIRY_S, int(3 * interval_s))


def traceparent(device: str, boot_id: str, seq: int) -> str:
    """W3C trace context of a record: made of what identifies it, so that it is the same each time it is sent."""
    digest = _digest(device, boot_id, str(seq))
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def _digest(*parts: str) -> str:
    return hashlib.blake2b("/".join(parts).encode(), digest_size=24).hexdigest()


def machine_description() -> dict[str, Any]:
    """What this machine is, for ``meta``."""
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def board_name(root: Path) -> str | None:
    """What the firmware calls this board, e.g. ``Raspberry Pi 5 Model B Rev 1.0``; None where it says nothing.

    Args:
        root: the folder that stands for ``/``.
    """
    for name in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        with contextlib.suppress(OSError):
            text = (root / name).read_bytes()[:128].rstrip(b"\0").decode("ascii", errors="replace").strip()
            if text:
                return text
    return None
