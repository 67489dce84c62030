"""What the daemon tells the world, as records and messages: topics, schemas, classes and times of each. No I/O.

Everything that must not be lost becomes a ``Record`` for the spool (QoS 1); the last value of each stream is also kept
as a retained state for dashboards (QoS 0, current only). A consumer that may see a record twice drops the second by
``(device, boot_id, seq)``, which every message carries as user properties.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from nis_edge import __version__
from nis_edge.adapters.mqtt import Message
from nis_edge.adapters.spool import Class, Record
from nis_edge.config import SpoolOptions
from nis_edge.wire.codec import encode
from nis_edge.wire.messages import Assessment, Finding
from nis_edge.wire.topics import Topics

STATE_EXPIRY_S: Final = 300
"""A retained state older than this is gone from the broker: a dashboard then shows nothing rather than the past."""

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

    def message(self, record: Record, now: float) -> Message:
        """A record as it goes to the broker."""
        properties = self._properties(record.schema, record.boot_id, (("seq", str(record.seq)),))
        left_s = int(record.expires - now)
        return Message(record.topic, record.payload, 1, False, properties, expiry_s=left_s)

    def state(self, name: str, schema: str, payload: bytes) -> Message:
        """The retained last value of a stream."""
        properties = self._properties(schema, self._identity.boot_id)
        return Message(self._identity.topics.state(name), payload, 0, True, properties, STATE_EXPIRY_S)

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


def machine_description() -> dict[str, Any]:
    """What this machine is, for ``meta``."""
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
