"""A benchmark's result as a table for a terminal: figures first, then power and its source, then the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nis_edge.bench_records import Energy, Power, Report, Workload
from nis_edge.power.energy import Interval

UNKNOWN = "-"


def table(report: Report) -> str:
    """The whole report as text, without a newline at the end."""
    return "\n".join(
        [
            *_head(report),
            "",
            *_columns(
                [("workload", "p50 ms", "p90 ms", "p99 ms", "spread", "n", "tokens", "tokens/s")]
                + [_workload_row(workload) for workload in report.workloads]
            ),
            *(f"  {workload.name}: not run: {workload.reason}" for workload in report.workloads if workload.reason),
            "",
            *_memory(report),
            "",
            *_power(report.power),
            *_conditions(report),
            "",
            *_gates(report),
        ]
    )


def _head(report: Report) -> list[str]:
    machine, subject = report.machine, report.subject
    commit = subject.commit[:12] + subject.commit[40:] if subject.commit else f"unknown ({subject.commit_reason})"
    return [
        f"nis-edge bench, {report.mode}, {report.started}, {report.seconds:.0f} s",
        f"machine   {machine.board or machine.architecture}: {machine.cpu_model or 'unknown processor'}, "
        f"{machine.cores} cores, governor {machine.governor or 'unknown'}",
        f"model     {subject.model}, {subject.package_bytes / 1e6:.2f} MB, sha256 {subject.package_sha256[:16]}",
        f"engine    {subject.backend}, {subject.isa}, {subject.threads} thread{'s' if subject.threads > 1 else ''}, "
        f"nis-edge {subject.version}, commit {commit}",
    ]


def _workload_row(workload: Workload) -> tuple[str, ...]:
    latency = workload.latency
    if latency is None:
        return (workload.name, *[UNKNOWN] * 7)
    return (
        workload.name,
        f"{latency.p50_ms:.2f}",
        f"{latency.p90_ms:.2f}",
        f"{latency.p99_ms:.2f}",
        UNKNOWN if workload.spread is None else f"{workload.spread.relative:.0%}",
        str(workload.n),
        UNKNOWN if workload.tokens_per_run is None else f"{workload.tokens_per_run:.0f}",
        UNKNOWN if workload.tokens_per_s is None else f"{workload.tokens_per_s:.0f}",
    )


def _memory(report: Report) -> list[str]:
    memory = report.memory
    return [
        f"memory    peak {_mb(memory.peak_rss_bytes)}, {_mb(memory.rss_before_load_bytes)} before the package, "
        f"{_mb(memory.rss_after_load_bytes)} after",
        f"load      {memory.load_ms_p50:.1f} ms (median of {memory.loads}), first {memory.load_ms_first:.1f} ms",
    ]


def _power(power: Power) -> Iterable[str]:
    if power.load_w is None or power.info is None:
        yield "power     unknown; the verdict below says why"
        return
    info = power.info
    yield f"power     {_watts(power.load_w)} under load, 95 % interval"
    yield f"source    {info.board}/{info.source}: scope {info.scope}, grade {info.grade}, {' + '.join(info.counted)}"
    yield f"covers    {info.covers}" + (f"; not: {info.misses}" if info.misses else "")
    if power.idle_before_w is not None and power.idle_after_w is not None and power.drift_w is not None:
        yield f"idle      {_watts(power.idle_before_w)} before, {_watts(power.idle_after_w)} after"
        yield f"drift     {_watts(power.drift_w)}"
    for name, energy in (("assessment", power.energy_per_assessment), ("token", power.energy_per_token)):
        if energy is not None:
            yield f"energy    {_energy(energy)} per {name}"
    if power.estimate is not None:
        estimate = power.estimate
        yield f"estimate  {estimate.watts:.2f} W at the {estimate.scope} (modelled, not judged: {estimate.method})"
    yield f"samples   {power.samples}, {power.gaps} gaps, {'energy counter' if power.counter else 'trapezoid'}"


def _conditions(report: Report) -> Iterable[str]:
    thermal, sampler = report.thermal, report.sampler
    if thermal.celsius_end:
        hottest = max(thermal.celsius_end, key=thermal.celsius_end.__getitem__)
        started = thermal.celsius_start.get(hottest)
        before = UNKNOWN if started is None else f"{started:.1f}"
        yield f"heat      {hottest} {before} -> {thermal.celsius_end[hottest]:.1f} C"
    if thermal.throttled:
        yield f"throttle  {', '.join(thermal.throttled)}"
    ratio = UNKNOWN if sampler.latency_ratio is None else f"{sampler.latency_ratio:.3f}"
    share = UNKNOWN if sampler.cpu_percent_of_core is None else f"{sampler.cpu_percent_of_core:.2f} %"
    yield f"sampling  {share} of a core, assessment latency with / without: {ratio}"
    for note in report.notes:
        yield f"note      {note}"


def _gates(report: Report) -> Iterable[str]:
    for gate in report.gates:
        first, *more = gate.reason.split("; ")
        yield f"{gate.verdict.upper():<14}{gate.name} < {_limit(gate.limit, gate.unit)}: {first}"
        yield from (f"{'':<14}{line}" for line in more)


def _limit(limit: float, unit: str) -> str:
    return f"{limit / 1e9:g} GB" if unit == "bytes" else f"{limit:g} {unit}"


def _energy(energy: Energy) -> str:
    gross = f"{_millijoules(energy.gross_j)} gross"
    return f"{gross}, {_millijoules(energy.net_j)} above idle" if energy.net_j else f"{gross} ({energy.net_reason})"


def _watts(interval: Interval) -> str:
    return f"{interval.value:.2f} W [{interval.low:.2f}, {interval.high:.2f}]"


def _millijoules(interval: Interval) -> str:
    return f"{1000 * interval.value:.2f} mJ [{1000 * interval.low:.2f}, {1000 * interval.high:.2f}]"


def _mb(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
