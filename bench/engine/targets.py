"""The engine's targets, as ratios that a run either reaches or misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "nis-edge"


@dataclass(frozen=True)
class Target:
    """One line of the table: what was measured, what it must reach, whether it does."""

    what: str
    ours: str
    peer: str
    ratio: float | None
    target: str
    met: bool | None


def targets(results: Sequence[Mapping[str, Any]], extras: Mapping[str, Any]) -> list[Target]:
    """All targets that the run has figures for.

    Args:
        results: rows of `python -m bench.engine`; each shape's best ratio over the measured numbers of threads counts
            against the peer's best up to ours.
        extras: what else was measured: `rss`, `loads`, `python_overhead`, `idle_share`, `gemv`.
    """
    found = [
        _speed(results, "2b4t", "decode", 2.5, "f16 head"),
        _speed(results, "2b4t", "decode", 1.8, ""),
        _speed(results, "2b4t", "prefill", 1.5, ""),
        _speed(results, "nis-base", "decode", 3.0, "f16 head"),
        _speed(results, "nis-base", "decode", 3.0, ""),
        _speed(results, "nis-base", "prefill", 1.5, ""),
    ]
    lines = [target for target in found if target]
    if gemv := extras.get("gemv"):
        ratio = gemv["ours"] / gemv["read"]
        ours, read = f"{gemv['ours']:.1f} GB/s ({4 * gemv['ours']:.0f} G weights/s)", f"{gemv['read']:.1f} GB/s"
        lines.append(
            Target("ternary GEMV from DRAM, 1 thread", ours, f"plain read {read}", ratio, ">= 0.9", ratio >= 0.9)
        )
    if (loads := extras.get("loads")) and OURS in loads and len(loads) > 1:
        peer = min((name for name in loads if name.startswith("llama.cpp")), key=lambda name: loads[name])
        ratio = loads[OURS] / loads[peer]
        shown = f"{peer}: {loads[peer]:.3f} s"
        lines.append(
            Target("2b4t load to first token, warm cache", f"{loads[OURS]:.3f} s", shown, ratio, "<= 0.2", ratio <= 0.2)
        )
    if rss := extras.get("rss"):
        ratio = (rss["peak_mb"] - rss["bare_mb"]) / rss["touched_mb"]
        ours, touched = f"{rss['peak_mb']:.0f} MB, {rss['bare_mb']:.0f} of it Python", f"{rss['touched_mb']:.0f} MB"
        lines.append(Target("2b4t peak RSS over package bytes touched", ours, touched, ratio, "<= 1.1", ratio <= 1.1))
    if (overhead := extras.get("python_overhead")) is not None:
        shown = f"{100 * overhead:.2f} %"
        lines.append(
            Target("Python in nis-base decode, a call a token", shown, "", overhead, "< 0.02", overhead < 0.02)
        )
    if (idle := extras.get("idle_share")) is not None:
        shown = f"{100 * idle:.2f} % of a core"
        lines.append(Target("idle after decoding", shown, "", idle, "< 0.005", idle < 0.005))
    return lines


def _speed(
    results: Iterable[Mapping[str, Any]], shape: str, workload: str, at_least: float, among: str
) -> Target | None:
    """Ours at its most threads against the best peer at up to as many."""
    rows = [row for row in results if row["shape"] == shape and row["workload"].startswith(workload)]
    ours = [row for row in rows if row["contestant"] == OURS]
    peers = [row for row in rows if row["contestant"] != OURS and among in row["contestant"]]
    if not ours or not peers:
        return None
    best = max(ours, key=lambda row: (row["threads"], row["tokens_per_s_median"]))
    peer = max(
        (row for row in peers if row["threads"] <= best["threads"]), key=lambda row: float(row["tokens_per_s_median"])
    )
    ratio = best["tokens_per_s_median"] / peer["tokens_per_s_median"]
    what = f"{shape} {best['workload']} against the best peer" + (f" with an {among}" if among else " of any head")
    return Target(what, _rate(best), f"{peer['contestant']}: {_rate(peer)}", ratio, f">= {at_least}", ratio >= at_least)


def _rate(row: Mapping[str, Any]) -> str:
    low, high = row["tokens_per_s_min"], row["tokens_per_s_max"]
    return f"{row['tokens_per_s_median']} tokens/s [{low} - {high}], {row['threads']} threads"


def target_table(lines: Sequence[Target]) -> str:
    """As Markdown."""
    text = ["| what | ours | against | ratio | target | met |", "|---|---|---|---|---|---|"]
    for line in lines:
        ratio = "" if line.ratio is None else f"{line.ratio:.3f}"
        met = {True: "yes", False: "no", None: "not measured"}[line.met]
        text.append(f"| {line.what} | {line.ours} | {line.peer} | {ratio} | {line.target} | {met} |")
    return "\n".join(text)
