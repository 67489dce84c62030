"""From timings and readings to the figures of a benchmark's report. Nothing is measured here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nis_edge.bench_records import (
    Energy,
    Latency,
    Machine,
    Phase,
    Power,
    Spread,
    Thermal,
    Trace,
    TracePoint,
    Workload,
)
from nis_edge.bench_workloads import Impossible, Task
from nis_edge.errors import SensorUnavailableError
from nis_edge.metering import why_no_power
from nis_edge.power.energy import (
    EnergyBlocks,
    Interval,
    energy_blocks,
    energy_per_unit,
    joined,
    mean_power,
    net_power,
)
from nis_edge.power.rails import Discovery, PowerSource
from nis_edge.power.throttle import during
from nis_edge.sampling import Sampler

BLOCKS: Final = 12
"""Equal blocks of a run for spread and bootstrap; at least 10 (edge.md 2.4, point 5)."""

STILL_READINGS: Final = 20
"""As many readings in a row never agree to the last digit while the load changes, unless the converter is stuck."""

TRACE_POINTS: Final = 600
"""A result file stays small enough to read; a picture has not many more columns."""

UNSTEADY: Final = 0.2
"""Block medians that differ by more than this share deserve a word."""


@dataclass(frozen=True)
class Timed:
    """The runs of one workload: when it ran and what each run took."""

    start_s: float
    end_s: float
    tokens: int
    durations_s: Sequence[float]


def workload_of(task: Task | Impossible, timed: Timed | None) -> Workload:
    """The figures of one workload, or why there are none."""
    if isinstance(task, Impossible) or timed is None:
        reason = task.reason if isinstance(task, Impossible) else "not run"
        return Workload(name=task.name, what=task.what, reason=reason)
    durations_ms = 1000 * np.asarray(timed.durations_s, dtype=np.float64)
    busy_s = float(durations_ms.sum()) / 1000
    return Workload(
        name=task.name,
        what=task.what,
        n=len(durations_ms),
        seconds=timed.end_s - timed.start_s,
        tokens_per_run=timed.tokens / len(durations_ms),
        tokens_per_s=timed.tokens / busy_s if busy_s > 0 else None,
        latency=latency_of(durations_ms),
        quantiles_ms=tuple(float(q) for q in np.quantile(durations_ms, np.linspace(0.0, 1.0, 101))),
        spread=_spread(durations_ms),
    )


def latency_of(durations_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Latency:
    """Percentiles of float64 [n] durations in ms; those above the median are observed values, rounded up."""
    p90_ms, p99_ms = np.quantile(durations_ms, (0.90, 0.99), method="higher")
    return Latency(
        p50_ms=float(np.median(durations_ms)),
        p90_ms=float(p90_ms),
        p99_ms=float(p99_ms),
        mean_ms=float(durations_ms.mean()),
        min_ms=float(durations_ms.min()),
        max_ms=float(durations_ms.max()),
    )


def _spread(durations_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Spread | None:
    """Medians of equal blocks in order of time; None with too few runs for blocks."""
    if len(durations_ms) < 3 * BLOCKS:
        return None
    medians = [float(np.median(block)) for block in np.array_split(durations_ms, BLOCKS)]
    return Spread(
        blocks=BLOCKS,
        p50_ms=tuple(medians),
        p50_ms_lowest=min(medians),
        p50_ms_highest=max(medians),
        relative=(max(medians) - min(medians)) / statistics.median(medians),
    )


def power_of(
    found: Discovery,
    source: PowerSource | None,
    sampler: Sampler,
    gated: Timed | None,
    idle: Sequence[tuple[float, float]],
    seed: int,
) -> Power:
    """Power and energy of the gated workload, or why there are none.

    Args:
        found: every source of the machine and every absence.
        source: the one that was read.
        sampler: its readings.
        gated: the workload whose seconds count as load.
        idle: the rests before and after, as (start, end) in seconds on the monotonic clock.
        seed: of the bootstrap.
    """
    if source is None:
        return _no_power(found, source, sampler, f"no power source on this machine: {why_no_power(found.absent)}")
    if gated is None:
        return _no_power(found, source, sampler, "the assessment did not run, so there is no load to measure")
    try:
        _refuse_still(sampler)
        load = energy_blocks(sampler.readings, gated.start_s, gated.end_s, period_s=sampler.period_s, blocks=BLOCKS)
    except SensorUnavailableError as error:
        return _no_power(found, source, sampler, f"{source.info.board}/{source.info.source}: {error}")
    idle_blocks: list[EnergyBlocks] = []
    idle_reason = None
    try:
        for start_s, end_s in idle:
            idle_blocks.append(
                energy_blocks(sampler.readings, start_s, end_s, period_s=sampler.period_s, blocks=BLOCKS)
            )
    except SensorUnavailableError as error:
        idle_blocks, idle_reason = [], f"idle: {error}"
    load_w = mean_power(load, seed)
    net_w = net_power(load, joined(*idle_blocks), seed) if idle_blocks else None
    within = [
        reading
        for reading in sampler.readings
        if reading.estimate is not None and gated.start_s <= reading.t_s <= gated.end_s
    ]
    return Power(
        info=source.info,
        load_w=load_w,
        idle_before_w=mean_power(idle_blocks[0], seed) if idle_blocks else None,
        idle_after_w=mean_power(idle_blocks[1], seed) if idle_blocks else None,
        drift_w=net_power(idle_blocks[1], idle_blocks[0], seed) if idle_blocks else None,
        net_w=net_w,
        energy_per_assessment=_energy(load_w, net_w, gated, len(gated.durations_s), idle_reason),
        energy_per_token=_energy(load_w, net_w, gated, gated.tokens, idle_reason),
        estimate=within[len(within) // 2].estimate if within else None,
        samples=load.samples,
        gaps=load.gaps,
        counter=load.counter,
        reason=None,
        looked_for=found.absent,
    )


def _refuse_still(sampler: Sampler) -> None:
    """Raise when idle and load read the same to the last digit: that is a stuck converter, not a steady machine.

    Raises:
        SensorUnavailableError: the hardware.
    """
    values = {reading.watts for reading in sampler.readings if reading.watts is not None}
    if len(values) == 1 and len(sampler.readings) >= STILL_READINGS:
        raise SensorUnavailableError(
            f"all {len(sampler.readings)} readings are {values.pop():.3f} W, idle or busy: the converter is stuck"
        )


def _no_power(found: Discovery, source: PowerSource | None, sampler: Sampler, reason: str) -> Power:
    info = None if source is None else source.info
    return Power(info=info, samples=len(sampler.readings), reason=reason, looked_for=found.absent)


def _energy(
    load_w: Interval, net_w: Interval | None, gated: Timed, units: int, idle_reason: str | None
) -> Energy | None:
    if units < 1:
        return None
    window_s = gated.end_s - gated.start_s
    return Energy(
        gross_j=energy_per_unit(load_w, window_s, units),
        net_j=None if net_w is None else energy_per_unit(net_w, window_s, units),
        net_reason=(idle_reason or "idle was not measured") if net_w is None else None,
    )


def thermal_of(sampler: Sampler) -> Thermal:
    """Temperatures and throttling over the whole run."""
    known = any(look.known for look in sampler.looks)
    return Thermal(
        celsius_start=sampler.temperatures[0][1] if sampler.temperatures else {},
        celsius_end=sampler.temperatures[-1][1] if sampler.temperatures else {},
        throttle_known=known,
        throttled=during(sampler.looks),
        reason=None if known else next((look.reason for look in sampler.looks if look.reason), "never looked"),
    )


def trace_of(sampler: Sampler, phases: Sequence[tuple[str, float, float]], start_s: float) -> Trace:
    """What happened when, in at most TRACE_POINTS points.

    Args:
        sampler: its readings.
        phases: name, start and end in s on the monotonic clock.
        start_s: s on the monotonic clock that becomes zero.
    """
    points = []
    size = -(-len(sampler.readings) // TRACE_POINTS) or 1
    for first in range(0, len(sampler.readings), size):
        stretch = sampler.readings[first : first + size]
        watts = [reading.watts for reading in stretch if reading.watts is not None]
        points.append(
            TracePoint(
                t_s=stretch[0].t_s - start_s,
                mean_w=statistics.fmean(watts) if watts else None,
                low_w=min(watts, default=None),
                high_w=max(watts, default=None),
            )
        )
    size = -(-len(sampler.temperatures) // TRACE_POINTS) or 1
    return Trace(
        phases=tuple(Phase(name=name, start_s=at_s - start_s, end_s=end_s - start_s) for name, at_s, end_s in phases),
        power=tuple(points),
        hottest_celsius=tuple(
            (t_s - start_s, max(celsius.values())) for t_s, celsius in sampler.temperatures[::size] if celsius
        ),
    )


def notes_of(mode: str, machine: Machine, workloads: Sequence[Workload], thermal: Thermal) -> list[str]:
    """What a reader must know before comparing these figures with others."""
    notes = []
    if machine.virtual:
        notes.append("virtual machine: other tenants disturb latencies")
    if machine.load_average is not None and machine.load_average > 0.5 * machine.cores:
        notes.append(
            f"the machine was busy at the start: load average {machine.load_average:.1f} on {machine.cores} cores"
        )
    notes += [
        f"{workload.name}: block medians differ by {workload.spread.relative:.0%}: the machine was not steady"
        for workload in workloads
        if workload.spread is not None and workload.spread.relative > UNSTEADY
    ]
    if not thermal.throttle_known:
        notes.append(f"throttling is not known: {thermal.reason}")
    if mode == "quick":
        notes.append("a quick run: use --strict for figures to publish")
    return notes
