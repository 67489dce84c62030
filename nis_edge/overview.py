"""The daemon's state as one plain value: what `status`, the screen, the API and the telemetry all show."""

from __future__ import annotations

from typing import Any, Final, Protocol

from nis_edge import __version__
from nis_edge.config import Config
from nis_edge.courier import Courier
from nis_edge.engine_room import EngineRoom
from nis_edge.judging import Judging
from nis_edge.outbox import Outbox
from nis_edge.sensing import Sensing
from nis_edge.supervisor import Supervisor
from nis_edge.wire.messages import Assessment

EVIDENCE_SHOWN: Final = 3


class Updates(Protocol):
    """What is shown of updates."""

    @property
    def status(self) -> Any:
        """An ``UpdateStatus``."""
        ...


class Parts(Protocol):
    """The running daemon, as far as it is shown."""

    config: Config
    device: str
    boot_id: str
    supervisor: Supervisor
    judging: Judging
    engine: EngineRoom
    outbox: Outbox
    courier: Courier
    sensing: Sensing
    last: Assessment | None
    api_address: str | None

    @property
    def updates(self) -> Updates | None:
        """None when the configuration pins a model."""
        ...

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        ...


def overview(parts: Parts) -> dict[str, Any]:
    """Everything an operator asks for, as plain values that encode to JSON."""
    return {
        "version": __version__,
        "site": parts.config.device.site,
        "device": parts.device,
        "boot_id": parts.boot_id,
        "uptime_s": round(parts.uptime_s, 1),
        "api": parts.api_address,
        "verdict": _verdict(parts),
        "events": _events(parts),
        "latency": {"assessment": parts.judging.latencies.summary(), "model": parts.engine.latencies.summary()},
        "model": _model(parts.engine),
        "power": _power(parts.sensing),
        "device_readings": {
            reading.name: reading.value if reading.value is not None else {"reason": reading.reason}
            for reading in parts.sensing.readings
        },
        "easing": {"level": parts.sensing.easing.name, "reason": parts.sensing.easing.reason},
        "broker": _broker(parts),
        "spool": _spool(parts.outbox),
        "update": _update(parts.updates),
        "loops": {"stalled": parts.supervisor.stalled(), "restarts": parts.supervisor.restarts()},
    }


def _verdict(parts: Parts) -> dict[str, Any] | None:
    last = parts.last
    if last is None:
        return None
    return {
        "ts": last.ts,
        "status": last.status,
        "level": last.level,
        "level_reason": last.level_reason,
        "action": last.action,
        "agents": last.agents,
        "findings": [
            {
                "label": finding.label,
                "severity": finding.severity,
                "agents": finding.agents,
                "text": finding.text,
                "action": finding.action,
                "source": finding.source,
                "since": finding.since,
                "evidence": [
                    {"id": identity, "text": parts.judging.excerpts.get(identity)}
                    for identity in finding.evidence[-EVIDENCE_SHOWN:]
                ],
            }
            for finding in last.findings
        ],
        "model_reason": last.model_reason,
    }


def _events(parts: Parts) -> dict[str, int]:
    counts = parts.judging.counts()
    return {
        "seen": counts.events,
        "refused": counts.refused,
        "lost": counts.lost,
        "waiting": len(parts.judging.inbox),
        "assessments": counts.assessments,
        "steps": counts.steps,
    }


def _model(engine: EngineRoom) -> dict[str, Any]:
    model = engine.model
    if model is None:
        return {"name": None, "reason": engine.reason}
    return {
        "name": model.name,
        "path": model.path,
        "isa": model.isa,
        "threads": model.threads,
        "load_ms": model.load_ms,
        "sha256": model.sha256,
        "reason": None,
    }


def _power(sensing: Sensing) -> dict[str, Any]:
    reading = sensing.power
    if reading is None:
        return {"watts": None, "source": None, "reason": sensing.why_no_power}
    info = reading.info
    if reading.watts is None:
        return {"watts": None, "source": info.source, "reason": sensing.why_no_power}
    return {
        "watts": round(reading.watts, 3),
        "uncertainty_w": reading.uncertainty_w,
        "source": info.source,
        "scope": info.scope,
        "grade": info.grade,
        "reason": None,
    }


def _broker(parts: Parts) -> dict[str, Any]:
    link = parts.courier.state
    return {
        "configured": link.host is not None,
        "host": link.host,
        "port": link.port,
        "connected": link.connected,
        "sessions": link.sessions,
        "window": link.window,
        "reason": link.reason,
    }


def _spool(outbox: Outbox) -> dict[str, Any]:
    counts = outbox.counts()
    return {
        "on_disk": counts.on_disk,
        "bytes_on_disk": counts.bytes_on_disk,
        "in_memory": counts.in_memory,
        "kept": counts.kept,
        "delivered": counts.delivered,
        "dropped": counts.dropped,
        "parked": counts.parked,
        "last_seq": counts.last_seq,
        "failing": counts.failing,
    }


def _update(updates: Updates | None) -> dict[str, Any] | None:
    if updates is None:
        return None
    status = updates.status
    return {field: getattr(status, field) for field in status.__struct_fields__}
