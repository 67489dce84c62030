"""What a benchmark's result file holds: the records behind `nis-edge bench --json`, schema ``nis.bench/1``.

Everything that could not be known is null and has its reason beside it. Durations and units stand in the names.
docs/bench.md explains the fields; a change that removes or redefines one raises the schema's number.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from nis_edge.errors import ConfigError
from nis_edge.power.energy import Interval
from nis_edge.power.gate import Gate, Limits, Verdict
from nis_edge.power.rails import Absence, Estimate, SourceInfo

SCHEMA: Final = "nis.bench/1"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran. ``governor`` and ``virtual`` are conditions without which latencies can't be compared."""

    board: str | None
    cpu_model: str | None
    architecture: str
    cores: int
    memory_bytes: int | None
    kernel: str
    system: str | None
    python: str
    governor: str | None
    frequency_mhz_max: float | None
    virtual: bool | None
    load_average: float | None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    version: str
    commit: str | None
    commit_reason: str | None
    backend: str
    isa: str
    threads: int
    package: str
    package_sha256: str
    package_bytes: int
    model: str


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of single runs in ms; p90 and p99 are observed values, never interpolated below one."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How steady the machine was: medians ``p50_ms`` of equal blocks of the run, in order of time."""

    blocks: int
    p50_ms: tuple[float, ...] = ()
    p50_ms_lowest: float
    p50_ms_highest: float
    relative: float


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One workload: ``latency`` is null exactly when ``reason`` says why it did not run.

    ``quantiles_ms`` are the quantiles 0, 1, ... 100 % of single runs, so that the distribution can be drawn.
    """

    name: str
    what: str
    n: int = 0
    seconds: float = 0.0
    tokens_per_run: float | None = None
    tokens_per_s: float | None = None
    latency: Latency | None = None
    quantiles_ms: tuple[float, ...] = ()
    spread: Spread | None = None
    reason: str | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of this process in bytes, and how long it takes to open the package."""

    rss_before_load_bytes: int | None
    rss_after_load_bytes: int | None
    peak_rss_bytes: int | None
    load_ms_first: float
    load_ms_p50: float
    loads: int


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one unit of work in J: gross is all that was drawn, net is what idle did not draw."""

    gross_j: Interval
    net_j: Interval | None
    net_reason: str | None


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """Power of the run that also gave the assessment latency; 95 % intervals. Null figures have ``reason``."""

    info: SourceInfo | None
    load_w: Interval | None = None
    idle_before_w: Interval | None = None
    idle_after_w: Interval | None = None
    drift_w: Interval | None = None
    net_w: Interval | None = None
    energy_per_assessment: Energy | None = None
    energy_per_token: Energy | None = None
    estimate: Estimate | None = None
    samples: int
    gaps: int | None = None
    counter: bool | None = None
    reason: str | None = None
    looked_for: tuple[Absence, ...]


class Thermal(msgspec.Struct, frozen=True, kw_only=True):
    """Temperatures at start and end in degrees Celsius, and what throttled; ``throttle_known`` false: nobody tells."""

    celsius_start: dict[str, float]
    celsius_end: dict[str, float]
    throttle_known: bool
    throttled: tuple[str, ...]
    reason: str | None


class SamplerCost(msgspec.Struct, frozen=True, kw_only=True):
    """What measuring costs: processor time, and the assessment's median with the sampler on over off."""

    rate_hz: float
    cpu_percent_of_core: float | None
    latency_ratio: float | None
    n_on: int
    n_off: int
    reason: str | None


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the run, in seconds since its start."""

    name: str
    start_s: float
    end_s: float


class TracePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Power over a stretch of the run: mean, least and most of its readings; all null where every reading failed."""

    t_s: float
    mean_w: float | None
    low_w: float | None
    high_w: float | None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What happened when: phases, power, and the hottest sensor as (seconds, degrees Celsius)."""

    phases: tuple[Phase, ...]
    power: tuple[TracePoint, ...]
    hottest_celsius: tuple[tuple[float, float], ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result."""

    schema: str = SCHEMA
    started: str
    mode: str
    seconds: float
    seed: int
    machine: Machine
    subject: Subject
    limits: Limits
    memory: Memory
    workloads: tuple[Workload, ...]
    power: Power
    thermal: Thermal
    sampler: SamplerCost
    gates: tuple[Gate, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    trace: Trace | None = None


def to_json(report: Report) -> bytes:
    """The result file: indented JSON with a newline at the end."""
    plain: Any = msgspec.to_builtins(report)
    return msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"


def from_json(text: bytes, where: str) -> Report:
    """Read a result file.

    Args:
        text: its bytes.
        where: its name, for the message.

    Raises:
        ConfigError: it is no result of this schema; the operator acts.
    """
    try:
        report = msgspec.json.decode(text, type=Report)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where}: no result of nis-edge bench: {error}") from None
    if report.schema != SCHEMA:
        raise ConfigError(f"{where}: schema {report.schema!r}, this version reads {SCHEMA!r}")
    return report
