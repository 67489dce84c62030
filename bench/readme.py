"""Writes the README's numbers from the committed result files, so that no figure there was typed by hand.

python -m bench.readme           rewrite the marked parts of README.md and ARCHITECTURE.md
python -m bench.readme --check   exit 1 if they differ from the files; the tests call this
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.engine.__main__ import table as engine_table
from bench.engine.targets import Target, target_table
from nis_edge.update.machine import render_mermaid

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
METRICS = ROOT / "models" / "nis-nano" / "metrics.json"


JUDGES = {
    "model": "**nis-nano, the package as the device asks it**",
    "without_model": "the package without its ternary model",
    "package_trees": "its trees alone, over evidence and meaning",
    "perceptron": "its perceptron alone, over evidence and meaning",
    "alone": "its ternary model alone",
    "float_twin": "the float twin of its ternary model, alone",
    "majority": "always the most frequent class",
    "length": "length of the texts alone",
    "words": "TF-IDF and logistic regression",
    "evidence": "the same evidence and logistic regression",
    "trees": "the same evidence and boosted trees",
}


def numbers() -> str:
    """Everything under the README's heading Numbers."""
    parts = [model_part(json.loads(METRICS.read_text()))]
    parts += [device_part(json.loads(file.read_text()), file) for file in sorted(RESULTS.glob("*.bench.json"))]
    parts += [monitor_part(json.loads(file.read_text()), file) for file in sorted(RESULTS.glob("*.monitor.json"))]
    parts += false_alarms_part()
    parts += [daemon_part(json.loads(file.read_text()), file) for file in sorted(RESULTS.glob("*.daemon.json"))]
    parts += [engine_part(json.loads(file.read_text()), file) for file in sorted(RESULTS.glob("*.engine.json"))]
    return "\n\n".join(parts)


def model_part(metrics: dict[str, Any]) -> str:
    """The shipped model beside its baselines, on templates and groups it has not seen."""
    judges = metrics["judges"]
    value, simple = (judges[name]["all"]["balanced_accuracy"]["value"] for name in ("model", "evidence"))
    advice = " Worse than simple judges on the same evidence: advisory, the rules carry the verdict."
    lines = [
        "**The shipped model**, on faults injected by templates and into recorded runs that training never saw "
        "(source: [models/nis-nano/metrics.json](models/nis-nano/metrics.json), "
        "the whole of it in the [card](models/cards/nis-nano.md)); 95 % intervals by bootstrap over groups."
        + (advice if value < simple else ""),
        "",
        "| judge | balanced accuracy, 17 findings and none | hard negatives called none | n |",
        "|---|---|---|---|",
    ]
    for name, judged in judges.items():
        score = judged["all"]
        lines.append(
            f"| {JUDGES.get(name, name)} | {with_interval(score['balanced_accuracy'])} "
            f"| {with_interval(score['hard_negatives_called_none'])} | {score['n']} |"
        )
    return "\n".join(lines)


def device_part(report: dict[str, Any], file: Path) -> str:
    """One `nis-edge bench` run."""
    machine, subject, memory = report["machine"], report["subject"], report["memory"]
    lines = [
        f"**`nis-edge bench`** ({report['mode']}) on {machine['cpu_model']}, {machine['architecture']}, "
        f"{subject['threads']} thread(s), {subject['isa']}, commit {subject['commit']}, {subject['model']} "
        f"(source: {link(file)}):",
        "",
        "| workload | p50 ms | p90 ms | p99 ms | spread of p50 over blocks | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for workload in report["workloads"]:
        latency = workload["latency"]
        if latency is None:
            lines.append(f"| {workload['name']} | not run: {workload['reason']} | | | | |")
            continue
        spread = workload["spread"]
        spread_text = f"{spread['p50_ms_lowest']:.2f} - {spread['p50_ms_highest']:.2f}" if spread else "unknown"
        rate = f"{workload['tokens_per_s']:.0f}" if workload["tokens_per_s"] else ""
        lines.append(
            f"| {workload['name']} | {latency['p50_ms']:.2f} | {latency['p90_ms']:.2f} | {latency['p99_ms']:.2f} "
            f"| {spread_text} | {rate} |"
        )
    peak = memory["peak_rss_bytes"]
    lines += [
        "",
        f"Package {subject['package_bytes'] / 1e6:.2f} MB, loaded in {memory['load_ms_p50']:.1f} ms, "
        f"peak resident memory {'unknown' if peak is None else f'{peak / 1e6:.0f} MB'}.",
        "",
        "| gate | verdict | why |",
        "|---|---|---|",
    ]
    # Why a gate could not be judged in one clause; the file names every source that was looked for.
    lines += [f"| {gate['name']} | {gate['verdict']} | {gate['reason'].split(': ')[0]} |" for gate in report["gates"]]
    return "\n".join(lines)


def monitor_part(report: dict[str, Any], file: Path) -> str:
    """One run of `python -m bench.monitor`."""
    lines = [
        f"**Judging a stream**: {report['rate_per_s']:g} events a second of {report['agents']} agents by the daemon's "
        f"path, pinned to {report['cores']} core of {report['machine']['cpu_model']}, commit {report['commit'][:7]} "
        f"(source: {link(file)}). *Assessed*: event in to the assessment that holds it; *model*: event in to the "
        "model's answer on a window that holds it.",
        "",
        "| judge | assessed p50 / p99 ms | model p50 / p99 ms | windows | gate |",
        "|---|---|---|---|---|",
    ]
    for result in report["results"]:
        assessed, model = result["assessed_ms"], result["model_ms"]
        answered = f"{model['p50_ms']:.1f} / {model['p99_ms']:.1f}" if model["n"] else "no model"
        lines.append(
            f"| {result['workload']} | {assessed['p50_ms']:.1f} / {assessed['p99_ms']:.1f} | {answered} "
            f"| {result['answers']} answered, {result['windows_shed']} left out | {result['gate']} |"
        )
    return "\n".join(lines)


def false_alarms_part() -> list[str]:
    """All runs of `python -m bench.monitor.false_alarms` in one table; nothing where there are none."""
    files = sorted(RESULTS.glob("*.false-alarms.json"), reverse=True)
    reports = [json.loads(file.read_text()) for file in files]
    if not reports:
        return []
    first = reports[0]
    lines = [
        f"**False alarms a device-day** at the shipped thresholds (source: {', '.join(link(file) for file in files)}); "
        f"limit {first['limit_per_day']:g}, exact Poisson intervals of 95 %. A recorded run has no times: its share of "
        f"a day is its events over {first['events_per_day']}, the simulated team's day. Alarms in runs that "
        "reached their goal were read one by one; those that hold (*true*) are listed in "
        "[bench/monitor/true_alarms.json](bench/monitor/true_alarms.json). A hint moves no status.",
        "",
        "| judge | watched | device-days | false alarms a day | true alarms | hints a day |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        for count in report["counts"]:
            runs = f" ({count['runs']})" if count["runs"] else ""
            lines.append(
                f"| {report['judge']} | {count['name']}{runs} | {count['days']:.2f} "
                f"| {with_interval(count['false_alarms_per_day'])} | {count['true_alarms']} "
                f"| {with_interval(count['hints_per_day'])} |"
            )
    return ["\n".join(lines)]


def daemon_part(report: dict[str, Any], file: Path) -> str:
    """One run of `python -m bench.daemon`."""
    about = report["about"]
    idle, demo, updates, records = (report["results"][name] for name in ("idle", "demo", "updates", "records"))
    gates = report["results"]["gates"]
    missed = [f"{name} {gate['value']:g}, limit {gate['limit']:g}" for name, gate in gates.items() if not gate["pass"]]
    return (
        f"**What the daemon costs** on {about['machine']['cpu_model']}, commit {about['commit'][:7]} "
        f"(source: {link(file)}): idle over {idle['minutes']:g} min {idle['rss_mb_without_package']:.0f} MB resident "
        f"without the model's pages and {idle['cpu_percent_of_core']:.2f} % of a core; with the demo team over "
        f"{demo['minutes']:g} min {demo['rss_mb_without_package']:.0f} MB and {demo['cpu_percent_of_core']:.1f} %; "
        f"{updates['rss_mb_without_package']:.0f} MB idle with signed updates set up; "
        f"{records['delivered_per_second']:.0f} records a second, each on disk before it is sent, for "
        f"{records['cpu_percent_of_core']:.1f} % of a core. "
        + (f"Missed: {'; '.join(missed)}." if missed else f"All {len(gates)} limits are kept.")
    )


def engine_part(report: dict[str, Any], file: Path) -> str:
    """One run of `python -m bench.engine`."""
    about = report["about"]
    if report.get("targets"):  # the tables of every contestant stand in the file
        shown = target_table([Target(**line) for line in report["targets"]])
    else:
        shown = engine_table(report["results"])
    return (
        f"**The engine beside llama.cpp** (llama-cpp-python {about['llama_cpp_python']}) on {about['cpu']}, commit "
        f"{about['commit']}, {about['method']} (source: {link(file)}). Only the ratios mean anything on another "
        f"machine or day:\n\n{shown}"
    )


def update_diagram() -> str:
    """The update's transition table as a diagram."""
    return f"```mermaid\n{render_mermaid().strip()}\n```"


def with_interval(figure: dict[str, Any] | None) -> str:
    """As in ``0.71 [0.68, 0.74]``."""
    if figure is None or figure["value"] is None:
        return "not measured"
    low, high = figure["ci95"] or (None, None)
    return f"{figure['value']:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")


def link(file: Path) -> str:
    """A Markdown link to a file of the repository."""
    path = file.relative_to(ROOT)
    return f"[{path}]({path})"


PARTS: dict[str, tuple[tuple[str, Callable[[], str]], ...]] = {
    "README.md": (("numbers", numbers),),
    "ARCHITECTURE.md": (("update-table", update_diagram),),
}


def rewritten(name: str) -> str:
    """A document with its marked parts made anew."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for mark, make in PARTS[name]:
        begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
        before, found, rest = text.partition(begin)
        _old, ended, after = rest.partition(end)
        if not (found and ended):
            raise SystemExit(f"{name} lacks the marks {begin} and {end}")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a document is out of step")
    args = parser.parse_args()
    stale = [name for name in PARTS if (ROOT / name).read_text(encoding="utf-8") != rewritten(name)]
    if args.check:
        for name in stale:
            print(f"{name} is out of step with its sources; run: python -m bench.readme", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(rewritten(name), encoding="utf-8")
        print(f"rewrote {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
