"""The daemon's state in Prometheus's text format (version 0.0.4), from the one overview. Pure.

A figure that is unknown has no line: Prometheus has no null, and zero would be a lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

STATUSES: Final = ("healthy", "degraded", "critical", "unknown")

Labels = Mapping[str, str]
Sample = tuple[Labels, float | int | None]


def exposition(view: Mapping[str, Any], memory_bytes: int) -> str:
    """Everything countable of an overview.

    Args:
        view: from ``overview``.
        memory_bytes: resident memory of the daemon.
    """
    blocks = (*_self(view, memory_bytes), *_judgement(view), *_model(view), *_device(view), *_records(view))
    return "".join(blocks)


def _self(view: Mapping[str, Any], memory_bytes: int) -> Iterator[str]:
    restarts = view["loops"]["restarts"].items()
    yield _gauge("info", "Who this is.", [({"version": view["version"], "device": view["device"]}, 1)])
    yield _gauge("uptime_seconds", "Since the start.", _one(view["uptime_s"]))
    yield _gauge("memory_bytes", "Resident memory of the daemon.", _one(memory_bytes))
    yield _counter("loop_restarts", "Restarts of each loop.", [({"loop": name}, count) for name, count in restarts])


def _judgement(view: Mapping[str, Any]) -> Iterator[str]:
    verdict, events = view["verdict"] or {}, view["events"]
    now = verdict.get("status", "unknown")
    found = {(f["label"], f["severity"], ",".join(f["agents"])) for f in verdict.get("findings", ())}
    yield _gauge("status", "1 for the present verdict.", [({"status": s}, int(s == now)) for s in STATUSES])
    yield _gauge(
        "finding",
        "1 for each finding that holds.",
        [({"label": label, "severity": severity, "agents": agents}, 1) for label, severity, agents in sorted(found)],
    )
    yield _counter("events", "Agent events judged.", _one(events["seen"]))
    yield _counter("events_refused", "Malformed events.", _one(events["refused"]))
    yield _counter("events_lost", "Events dropped from full queues.", _one(events["lost"]))
    yield _counter("assessments", "Assessments made.", _one(events["assessments"]))
    yield _latency("assessment", "Event in to assessment out, over the newest.", view)


def _model(view: Mapping[str, Any]) -> Iterator[str]:
    yield _gauge("model_loaded", "Whether a model judges beside the rules.", _one(view["model"]["name"] is not None))
    yield _latency("model", "Question to the model to answer, over the newest.", view)


def _device(view: Mapping[str, Any]) -> Iterator[str]:
    power, readings = view["power"], view["device_readings"].items()
    scope = {key: str(power.get(key)) for key in ("source", "scope", "grade")}
    yield _gauge("power_watts", "Power, with what it covers.", [(scope, power["watts"])])
    yield _gauge(
        "device_reading",
        "The device's own readings.",
        [({"name": name}, value) for name, value in readings if not isinstance(value, Mapping)],
    )


def _records(view: Mapping[str, Any]) -> Iterator[str]:
    broker, spool = view["broker"], view["spool"]
    yield _gauge("broker_connected", "Whether the MQTT broker is connected.", _one(broker["connected"]))
    yield _counter("broker_sessions", "Connections made.", _one(broker["sessions"]))
    yield _gauge("spool_records", "Records on disk.", _by_class(spool["on_disk"]))
    yield _counter("spool_kept", "Records written to disk since the start.", _by_class(spool["kept"]))
    yield _counter("spool_dropped", "Records dropped since the spool began.", _by_class(spool["dropped"]))
    yield _gauge("spool_bytes", "Bytes on disk.", _one(spool["bytes_on_disk"]))
    yield _counter("spool_delivered", "Records the broker took since the start.", _one(spool["delivered"]))
    yield _gauge("spool_parked", "Records the broker refused for good.", _one(spool["parked"]))
    yield _gauge("spool_failing", "Whether the disk refuses records.", _one(spool["failing"] is not None))


def _latency(kind: str, text: str, view: Mapping[str, Any]) -> str:
    latency = view["latency"][kind]
    quantiles = (("0.5", "p50_ms"), ("0.9", "p90_ms"), ("0.99", "p99_ms"))
    return _gauge(f"{kind}_latency_milliseconds", text, [({"quantile": q}, latency[name]) for q, name in quantiles])


def _one(value: float | None) -> list[Sample]:
    return [({}, int(value) if isinstance(value, bool) else value)]


def _by_class(counts: Mapping[str, int]) -> list[Sample]:
    return [({"class": name}, count) for name, count in counts.items()]


def _gauge(name: str, text: str, samples: Iterable[Sample]) -> str:
    return _block(f"nis_edge_{name}", "gauge", text, samples)


def _counter(name: str, text: str, samples: Iterable[Sample]) -> str:
    return _block(f"nis_edge_{name}_total", "counter", text, samples)


def _block(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"{name}{_labels(labels)} {value}\n" for labels, value in samples if value is not None]
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{''.join(lines)}" if lines else ""


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
