"""A picture of one benchmark result: how latencies are distributed, and power over time with the phases of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nis_edge.bench_records import Report
from nis_edge.errors import ConfigError

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"
"""Wong's palette (Nature Methods 8, 441): told apart with every kind of colour vision."""

SHADES: Final = ("#e8eef4", "#f6efe6")


def plot(report: Report, target: Path) -> None:
    """Draw a result into a PNG file.

    Raises:
        ConfigError: matplotlib is not installed, or the file can't be written; the operator acts.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError("--plot needs matplotlib; pip install 'nis-edge[plot]' brings it") from None
    figure = Figure(figsize=(10, 7), layout="constrained")
    above, below = figure.subplots(2, 1)
    _latencies(above, report)
    _power(below, report)
    subject, machine = report.subject, report.machine
    figure.suptitle(
        f"nis-edge bench ({report.mode})   {subject.model}   {subject.backend} {subject.isa}, "
        f"{subject.threads} thread(s)\n{machine.board or machine.cpu_model or machine.architecture}, {report.started}",
        fontsize=10,
    )
    try:
        figure.savefig(target, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plot {target}: {error.strerror}") from None


def _latencies(axes: Any, report: Report) -> None:
    """Share of runs that took no longer, one line a workload, on a logarithmic axis of ms."""
    styles = ("-", "--", "-.", ":")
    for number, workload in enumerate(w for w in report.workloads if w.quantiles_ms):
        shares = [100 * step / (len(workload.quantiles_ms) - 1) for step in range(len(workload.quantiles_ms))]
        gated = number == 0
        axes.plot(
            workload.quantiles_ms, shares, styles[number % len(styles)], color=BLUE if gated else GREY,
            linewidth=2 if gated else 1.2, label=f"{workload.name} (n={workload.n})",
        )  # fmt: skip
    axes.axvline(
        report.limits.latency_ms, color=ORANGE, label=f"limit of the assessment, {report.limits.latency_ms:g} ms"
    )
    axes.axhline(99, color=GREY, linewidth=0.6)
    axes.set(xscale="log", xlabel="latency of one run, ms", ylabel="runs that took no longer, %", ylim=(0, 101))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _power(axes: Any, report: Report) -> None:
    """Watts over seconds; a gap in the line is a gap in the readings."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="seconds since the start", ylabel="W")
    trace = report.trace
    for number, phase in enumerate(() if trace is None else trace.phases):
        axes.axvspan(phase.start_s, phase.end_s, color=SHADES[number % 2], linewidth=0)
        axes.text(
            (phase.start_s + phase.end_s) / 2, 0.03, phase.name.replace(" ", "\n"), ha="center", va="bottom",
            fontsize=7, transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    if trace is None or report.power.load_w is None:
        why = (report.power.reason or "no trace in this result").split(": ")[0]
        axes.text(0.5, 0.4, f"power unknown: {why}", transform=axes.transAxes, ha="center")
        axes.set_yticks([])
        return
    nan = float("nan")
    times = [point.t_s for point in trace.power]
    axes.plot(times, [nan if p.mean_w is None else p.mean_w for p in trace.power], color=BLUE, label="measured")
    axes.fill_between(
        times, [nan if p.low_w is None else p.low_w for p in trace.power],
        [nan if p.high_w is None else p.high_w for p in trace.power], color=BLUE, alpha=0.2, linewidth=0,
    )  # fmt: skip
    axes.axhline(report.limits.power_w, color=ORANGE, label=f"limit, {report.limits.power_w:g} W")
    peak_w = max((p.high_w for p in trace.power if p.high_w is not None), default=0.0)
    axes.set_ylim(0, 1.15 * max(peak_w, report.limits.power_w))
    if report.power.info is not None:
        info = report.power.info
        axes.set_ylabel(f"W ({info.scope}, grade {info.grade})")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
