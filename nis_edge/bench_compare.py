"""Two results of `nis-edge bench` side by side: what became worse, what better, and what can't be told apart.

A latency counts as changed only when the whole 95 % interval of the ratio of the two medians lies beyond the tolerance;
the interval comes from the medians of equal blocks of each run, drawn again with replacement: the unsteadiness inside a
run. What differs from day to day it can't know, so the tolerance stays above zero. Energy compares by its own
intervals. Runs on other machines, backends or thread counts are not compared. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from nis_edge.bench_records import Report, Workload
from nis_edge.power.energy import DRAWS, Interval, student_t_975
from nis_edge.power.rails import Z_95

Change = Literal["worse", "better", "same", "unknown"]

TOLERANCE: Final = 0.05
"""Share by which a figure may move before it counts: quiet machines repeat a median within 2 to 3 %."""

MEMORY_TOLERANCE: Final = 0.1
"""The same for resident memory and load time, which depend on what else the machine holds."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both results: ``ratio`` is new over old with its 95 % interval, where one can be given."""

    name: str
    unit: str
    old: float | None
    new: float | None
    ratio: Interval | None
    change: Change
    reason: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All differences. ``unlike`` names what makes the two runs incomparable; then there are no differences."""

    unlike: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Literal["pass", "fail", "indeterminate"]:
        """fail when anything became worse; indeterminate when the runs can't be compared or nothing could be."""
        changes = {difference.change for difference in self.differences}
        if "worse" in changes:
            return "fail"
        return "pass" if changes - {"unknown"} and not self.unlike else "indeterminate"


def compare(old: Report, new: Report, *, seed: int = 20) -> Comparison:
    """Hold a newer result against an older one; the seed is the bootstrap's."""
    unlike = tuple(_unlike(old, new))
    if unlike:
        return Comparison(unlike=unlike, differences=(), notes=())
    before = {workload.name: workload for workload in old.workloads}
    differences: list[Difference] = []
    for workload in new.workloads:
        if workload.name in before:
            differences.append(_latency(before[workload.name], workload, seed))
    differences.append(_energy(old, new))
    for name, unit, a, b in (
        ("peak memory", "MB", _mb(old.memory.peak_rss_bytes), _mb(new.memory.peak_rss_bytes)),
        ("load time", "ms", old.memory.load_ms_p50, new.memory.load_ms_p50),
    ):
        differences.append(_plain(name, unit, a, b))
    return Comparison(unlike=(), differences=tuple(differences), notes=tuple(_notes(old, new)))


def _unlike(old: Report, new: Report) -> Iterator[str]:
    for name, a, b in (
        ("board", old.machine.board, new.machine.board),
        ("processor", old.machine.cpu_model, new.machine.cpu_model),
        ("cores", old.machine.cores, new.machine.cores),
        ("backend", old.subject.backend, new.subject.backend),
        ("threads", old.subject.threads, new.subject.threads),
    ):
        if a != b:
            yield f"{name}: {a} then, {b} now"


def _notes(old: Report, new: Report) -> Iterator[str]:
    for name, a, b in (
        ("model", old.subject.model, new.subject.model),
        ("instruction set", old.subject.isa, new.subject.isa),
        ("governor", old.machine.governor, new.machine.governor),
        ("mode", old.mode, new.mode),
        ("commit", old.subject.commit, new.subject.commit),
    ):
        if a != b:
            yield f"{name}: {a} then, {b} now"
    for when, report in (("then", old), ("now", new)):
        if report.thermal.throttled:
            yield f"throttled {when}: {', '.join(report.thermal.throttled)}"


def _latency(old: Workload, new: Workload, seed: int) -> Difference:
    name = f"{new.name} p50"
    a = None if old.latency is None else old.latency.p50_ms
    b = None if new.latency is None else new.latency.p50_ms
    if a is None or b is None or old.spread is None or new.spread is None:
        why = new.reason or old.reason or "too few runs for blocks"
        return Difference(name=name, unit="ms", old=a, new=b, ratio=None, change="unknown", reason=why)
    if not old.spread.p50_ms or not new.spread.p50_ms:
        why = "a result without block medians: measured by an older version"
        return Difference(name=name, unit="ms", old=a, new=b, ratio=None, change="unknown", reason=why)
    ratio = _ratio(old.spread.p50_ms, new.spread.p50_ms, seed)
    return Difference(name=name, unit="ms", old=a, new=b, ratio=ratio, change=_judged(ratio, TOLERANCE))


def _ratio(old: Sequence[float], new: Sequence[float], seed: int) -> Interval:
    """New over old: the ratio of the means of block medians, with a 95 % interval by bootstrap over blocks."""
    rng = np.random.default_rng(seed)
    logs = []
    for blocks in (new, old):
        values = np.log(np.asarray(blocks, dtype=np.float64))
        drawn = values[rng.integers(0, len(values), size=(DRAWS, len(values)))].mean(axis=1)
        # Few blocks say little about their spread: widen as Student's t does.
        widening = student_t_975(len(values) - 1) / Z_95 * math.sqrt(len(values) / (len(values) - 1))
        logs.append((float(values.mean()), (drawn - values.mean()) * widening))
    centre = logs[0][0] - logs[1][0]
    low, high = np.quantile(centre + logs[0][1] - logs[1][1], (0.025, 0.975))
    return Interval(math.exp(centre), math.exp(float(low)), math.exp(float(high)))


def _energy(old: Report, new: Report) -> Difference:
    name, unit = "energy per assessment", "mJ"
    a, b = old.power.energy_per_assessment, new.power.energy_per_assessment
    if a is None or b is None:
        why = "power was not measured in both runs"
        return Difference(name=name, unit=unit, old=None, new=None, ratio=None, change="unknown", reason=why)
    if old.power.info != new.power.info:
        why = "the two runs measured power with different sources or scopes"
        return Difference(name=name, unit=unit, old=None, new=None, ratio=None, change="unknown", reason=why)
    was, now = a.gross_j, b.gross_j
    ratio = Interval(now.value / was.value, now.low / was.high, now.high / was.low)
    return Difference(
        name=name, unit=unit, old=1000 * was.value, new=1000 * now.value, ratio=ratio, change=_judged(ratio, TOLERANCE)
    )


def _plain(name: str, unit: str, old: float | None, new: float | None) -> Difference:
    if not old or new is None:
        return Difference(name=name, unit=unit, old=old, new=new, ratio=None, change="unknown", reason="not measured")
    ratio = Interval(new / old, new / old, new / old)
    return Difference(name=name, unit=unit, old=old, new=new, ratio=ratio, change=_judged(ratio, MEMORY_TOLERANCE))


def _judged(ratio: Interval, tolerance: float) -> Change:
    if ratio.low > 1 + tolerance:
        return "worse"
    return "better" if ratio.high < 1 / (1 + tolerance) else "same"


def _mb(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / 1e6


def comparison_table(comparison: Comparison) -> str:
    """The comparison as text, without a newline at the end."""
    if comparison.unlike:
        return "\n".join(["the two runs can't be compared:", *(f"  {line}" for line in comparison.unlike)])
    lines = [f"{'figure':<26}{'then':>10}{'now':>10}  {'now / then, 95 %':<22}change"]
    for one in comparison.differences:
        old, new = ("-" if value is None else f"{value:.2f}" for value in (one.old, one.new))
        ratio = "-" if one.ratio is None else f"{one.ratio.value:.3f} [{one.ratio.low:.3f}, {one.ratio.high:.3f}]"
        change = one.change if not one.reason else f"{one.change}: {one.reason}"
        lines.append(f"{one.name + ' ' + one.unit:<26}{old:>10}{new:>10}  {ratio:<22}{change}")
    lines += [f"note      {note}" for note in comparison.notes]
    words = {"pass": "nothing became worse", "fail": "something became worse", "indeterminate": "nothing to compare"}
    return "\n".join([*lines, f"{comparison.verdict.upper():<10}{words[comparison.verdict]}"])
