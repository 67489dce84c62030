"""The model card, written from the package and its metrics: no figure in it is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nis_edge.errors import ConfigError
from nis_edge.monitor.labels import LABELS, TABLE
from nis_edge.pack.reader import open_package

SOURCES = {
    "simulated": "teams simulated by `nis_models.scenarios`, this project's own, Apache-2.0; "
    "trades and wordings of the test windows are in no training window",
    "tau_airline": "recorded runs of an airline service agent (tau-bench), MIT",
    "AgentJudge-security": "recorded safe and unsafe runs (AgentJudge security), Apache-2.0",
    "halueval_chat": "questions and answers of HaluEval (general) that were not found to be made up, put in a row as "
    "runs of an assistant, MIT",
    "all-MiniLM-L6-v2": "word vectors and the start of the embeddings come from its weights, Apache-2.0",
    "NAB": "machine and sensor series that faults of feeds are put into, MIT",
    "masft_ag2": "recorded multi-agent runs on GSM-Plus (MAD, CC-BY-4.0; GSM-Plus, CC-BY-SA-4.0): **only tested on**: "
    "no weight, table, threshold or tokenizer has seen them, so they show how the package does on an unseen system",
}
JUDGES = {
    "model": "**the package**",
    "without_model": "the package without its ternary model",
    "package_trees": "its trees alone (evidence and meaning)",
    "perceptron": "its perceptron alone (evidence and meaning)",
    "alone": "its ternary model alone (tokens of evidence, and text)",
    "float_twin": "the float twin of the model alone",
    "evidence": "evidence + logistic regression",
    "trees": "evidence + boosted trees",
    "words": "TF-IDF + logistic regression",
    "length": "length only",
    "majority": "majority",
}


def write(package: Path, metrics: Path, false_alarms: Path | None = None) -> str:
    """Return the card as Markdown.

    Args:
        package: the model.
        metrics: what ``nis-models evaluate --json`` wrote about this very package.
        false_alarms: what ``python -m bench.monitor.false_alarms --model --json`` wrote about it; None where it was not
            counted.

    Raises:
        ConfigError: the metrics are missing or of another package; the operator evaluates first.
    """
    if not metrics.is_file():
        raise ConfigError(f"{metrics} is missing; run nis-models evaluate --json {metrics} first, no card was written")
    record: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    with open_package(package) as opened:
        manifest, sha256, size = opened.manifest, opened.sha256(), opened.size_bytes
    if record["model"]["sha256"] != sha256:
        raise ConfigError(
            f"{metrics} was measured on another package than {package}; evaluate again, no card was written"
        )
    judges = record["judges"]
    verdict = _verdict(judges)
    parts = [
        f"# {manifest.model.id} {manifest.model.version}\n",
        f"{verdict}\n",
        f"Judges of one window of a team's events, which say together which of {len(LABELS)} findings hold: boosted "
        "trees and a perceptron over numbers that plain code computes (`nis_edge/monitor/dense.py`), and a ternary "
        "(b1.58) transformer that reads evidence and words as tokens; a logistic regression weighs the three. "
        f"{package.name}: {size / 1e6:.2f} MB, SHA-256 `{sha256}`. Licence of the weights: {manifest.licence}.\n",
        _architecture(manifest),
        "## How good, how bad\n",
        "Judged through the device's own engine, at the thresholds in the package. 95 % intervals: bootstrap "
        "over groups (a simulated run, or all recordings of one task).\n",
        _overview(judges),
        "### Recall by finding (test windows with exactly one finding, or none)\n",
        _recalls(judges),
        "### As detectors, one by one (the package, all test windows)\n",
        _detectors(judges["model"]["all"]["labels"]),
        "### By source\n",
        _by_source(judges),
        _calibration(judges["model"]),
        _expected(record.get("expected")),
        _false_alarms(false_alarms, sha256),
        _feeds(record.get("feeds")),
        _left_out(record.get("left_out")),
        _ablation(judges),
        _gap(judges),
        _failure(judges),
        _reading(),
        _data(record["data"], manifest.lineage),
        _not_for(),
    ]
    return "\n".join(parts)


def _verdict(judges: dict[str, Any]) -> str:
    mine = judges["model"]["all"]["balanced_accuracy"]
    rivals = {name: judges[name]["all"]["balanced_accuracy"] for name in ("evidence", "trees") if name in judges}
    if not rivals:
        return "**Advisory.** It was not compared with a baseline on the same evidence."
    best = max(rivals, key=lambda name: rivals[name]["value"])
    others = ", ".join(f"{_interval(entry)} of {JUDGES[name]}" for name, entry in rivals.items())
    comparison = f"balanced accuracy {_interval(mine)} against {others}, on the same evidence and windows"
    gain = judges[best]["all"].get("model_gains")
    if gain is not None and gain["ci95"] and gain["ci95"][0] > 0:
        paired = f"{gain['value']:+.3f} [{gain['ci95'][0]:+.3f}, {gain['ci95'][1]:+.3f}] against {JUDGES[best]}, paired"
        alone = judges.get("alone", {}).get("all", {}).get("balanced_accuracy")
        trees = judges.get("package_trees", {}).get("all", {}).get("balanced_accuracy")
        parts = (
            f" Most of it comes from trees and perceptron: its ternary model alone reaches {_interval(alone)}, its "
            f"trees alone {_interval(trees)}."
            if alone and trees
            else ""
        )
        return f"**Advisory.** It beats simple judges of the same evidence: {comparison}; {paired}.{parts}"
    if mine["ci95"][1] < min(entry["ci95"][0] for entry in rivals.values()):
        return (
            f"**Advisory, and not good yet: it is worse than simple judges on the evidence that it reads itself**: "
            f"{comparison}. It adds nothing to them. The rules decide; what this model says is a pointer at most."
        )
    return f"**Advisory.** It adds nothing that the intervals would show: {comparison}. The rules decide."


def _architecture(manifest: Any) -> str:
    a = manifest.architecture
    head = a.task_heads["consciousness"]
    return (
        f"Hidden {a.hidden}, feed-forward {a.ffn} (gated squared ReLU), {a.layers} trunk layers and "
        f"{head.layers} of the head, {a.heads} heads, "
        f"vocabulary {a.vocab} (byte-level BPE, single digits), context {a.context}. Linear layers ternary with "
        f"one scale, activations int8 by token, "
        "embeddings f16.\n"
    )


def _overview(judges: dict[str, Any]) -> str:
    rows = [
        "| judge | balanced accuracy, 18 classes | macro F1 | clean windows called none | hard negatives called none |",
        "|---|---|---|---|---|",
    ]
    for name, title in JUDGES.items():
        if name in judges:
            whole = judges[name]["all"]
            cells = [
                _interval(whole[key])
                for key in ("balanced_accuracy", "macro_f1", "clean_called_none", "hard_negatives_called_none")
            ]
            rows.append(f"| {title} | " + " | ".join(cells) + " |")
    whole = judges["model"]["all"]
    counts = f"n = {whole['n']} test windows in {whole['groups']} groups"
    return "\n".join([*rows, "", f"{counts}; all judges are scaled and thresholded on the same tune windows.", ""])


def _recalls(judges: dict[str, Any]) -> str:
    shown = [name for name in JUDGES if name in judges and name not in ("majority", "length")]
    rows = ["| finding | " + " | ".join(JUDGES[name] for name in shown) + " |", "|---|" + "---|" * len(shown)]
    for label in (*LABELS, "none"):
        cells = [_number(judges[name]["all"]["class_recall"][label]) for name in shown]
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _detectors(table: dict[str, Any]) -> str:
    rows = ["| finding | meaning | n | recall | precision | average precision |", "|---|---|---|---|---|---|"]
    for label in LABELS:
        entry = table[label]
        rows.append(
            f"| {label} | {TABLE[label].meaning} | {entry['n']} | {_number(entry['recall'])} | "
            f"{_number(entry['precision'])} | {_number(entry['average_precision'])} |"
        )
    return "\n".join(rows) + "\n"


def _by_source(judges: dict[str, Any]) -> str:
    shown = [name for name in ("model", "package_trees", "alone", "evidence", "trees") if name in judges]
    rows = [
        "| source | n | "
        + " | ".join(f"{JUDGES[name]}: balanced accuracy" for name in shown)
        + " | clean called none (model) |",
        "|---|---|" + "---|" * (len(shown) + 1),
    ]
    for source, part in judges["model"]["by_source"].items():
        cells = [_interval(judges[name]["by_source"][source]["balanced_accuracy"]) for name in shown]
        rows.append(f"| {source} | {part['n']} | " + " | ".join(cells) + f" | {_interval(part['clean_called_none'])} |")
    note = (
        "Only 13 of the findings can be put into recorded runs: 14 classes there. Groups are few (see the intervals)."
    )
    return "\n".join([*rows, "", note, ""])


def _false_alarms(file: Path | None, sha256: str) -> str:
    if file is None or not file.is_file():
        return ""
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if record["package_sha256"] != sha256:
        raise ConfigError(f"{file} was counted with another package; count again, no card was written")
    rows = [
        "### False alarms\n",
        "| watched | device-days | windows judged | false alarms a day | true alarms | hints a day |",
        "|---|---|---|---|---|---|",
    ]
    for count in record["counts"]:
        runs = f" ({count['runs']})" if count["runs"] else ""
        rows.append(
            f"| {count['name']}{runs} | {count['days']:.2f} | {count['windows_judged']} "
            f"| {_interval(count['false_alarms_per_day'])} | {count['true_alarms']} "
            f"| {_interval(count['hints_per_day'])} |"
        )
    return "\n".join(rows) + (
        "\n\nRules and package together, at the shipped thresholds; exact Poisson intervals of 95 %. Recorded runs are "
        f"those that reached their goal. They have no times: {record['events_per_day']} events, as the simulated team "
        "of ten has in a day, count as a device-day, and so few days give wide intervals. *True* alarms were read and "
        "hold though the run succeeded. What this package says alone is a hint: it moves no status; its probabilities "
        "are moved to `monitor.expected_share`, as on a device.\n"
    )


def _feeds(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    classes = list(next(iter(figures.values()))["recall"])
    rows = [
        "### Numeric feeds: stuck, drift, spike, dropout, saturation, noise, level shift\n",
        "| strength | balanced accuracy | n | " + " | ".join(classes) + " |",
        "|---|---|---|" + "---|" * len(classes),
    ]
    for strength, entry in figures.items():
        interval = f" [{entry['ci95'][0]:.2f}, {entry['ci95'][1]:.2f}]" if entry["ci95"] else ""
        cells = [_number(entry["recall"][name]) for name in classes]
        rows.append(
            f"| {strength} | {entry['balanced_accuracy']:.2f}{interval} | {entry['n']} | " + " | ".join(cells) + " |"
        )
    return "\n".join(rows) + (
        "\n\nFaults put into real series (NAB) whose files no training window came from; boosted trees over the "
        "numbers of `nis_edge/monitor/feeds.py`; the bootstrap is over files.\n"
    )


def _calibration(mine: dict[str, Any]) -> str:
    c = mine["all"]["calibration"]
    unseen = mine["by_source"].get("masft_ag2", {}).get("calibration")
    return (
        f"### Calibration\n\nExpected calibration error over all labels {_number(c['ece_all_labels'])}, of the "
        f"most probable label {_number(c['ece_top_label'])} "
        f"({c['bins']} bins of equal mass), Brier score {_number(c['brier'])}"
        + (
            f"; on the system that nothing was learned from {_number(unseen['ece_all_labels'])} and "
            f"{_number(unseen['ece_top_label'])}"
            if unseen
            else ""
        )
        + ". The tune and test windows hold a "
        "finding in more than half of all cases; "
        "in a healthy team findings are far rarer, so **the probabilities are too high there** until they are moved to "
        "what is expected (`monitor.expected_share`).\n"
    )


def _expected(figures: dict[str, Any] | None) -> str:
    """What is left to find where findings are expected to be rare."""
    if figures is None:
        return ""
    recalls = ", ".join(f"{label} {_number(figures['labels'][label]['recall'])}" for label in LABELS)
    return (
        f"### On a device\n\nA monitor expects each finding in a share of {figures['share']:g} of all windows "
        "(`monitor.expected_share`) and moves the probabilities there before it says anything. Of the same test "
        f"windows it then finds {_interval(figures['injected_recall_mean'])} (mean over findings), and calls none "
        f"{_interval(figures['clean_called_none'])} of clean windows and "
        f"{_interval(figures['hard_negatives_called_none'])} of hard negatives. By finding: {recalls}. A fault that "
        "lasts is seen in many windows, so more of them are found in the end than these figures say.\n"
    )


def _failure(judges: dict[str, Any]) -> str:
    rows = ["### Will the run fail?\n", "| judge | AUROC, all recorded runs |", "|---|---|"]
    for name, title in JUDGES.items():
        entry = judges[name]["all"]["failure"] if name in judges else None
        if entry is not None and entry["auroc"] is not None:
            interval = f" [{entry['ci95'][0]:.2f}, {entry['ci95'][1]:.2f}]" if entry["ci95"] else ""
            rows.append(f"| {title} | {entry['auroc']:.2f}{interval} |")
    entry = judges["model"]["all"]["failure"]
    if entry is None:
        return "### Will the run fail?\n\nNot measured: the data set holds no recorded runs.\n"
    return "\n".join(rows) + (
        f"\n\nn = {entry['n']} windows of recorded runs, {entry['failed']} of failed ones. Pooled over systems "
        f"that fail unequally often, so part of this is telling "
        "the systems apart. Nothing is raised from it.\n"
    )


def _reading() -> str:
    return (
        "### How to read this\n\n"
        "The simulator, its wordings and the lexical marks of the evidence come from the same authors, and while the "
        "evidence was written its rates on the test wordings were looked at once: figures on simulated windows are "
        "optimistic for every judge that uses evidence, and say most about structure. Faults in recorded runs were put "
        "in by us too, partly in our own words. The baselines learn from the first 10,000 windows of the same data; "
        "what the package's own trees reach alone, on as many windows as the package, stands beside them. No figure "
        "here is of a fault that happened by itself in the field.\n"
    )


def _data(data: dict[str, Any], lineage: dict[str, Any]) -> str:
    lines = ["## Training data and lineage", ""]
    lines += [f"- {name}: {text}." for name, text in SOURCES.items()]
    made_of = lineage.get("tables")
    if made_of:
        lines += [
            "",
            f"The perceptron learned from the first {made_of['windows']} windows of the set with SHA-256 "
            f"`{made_of['sha256']}`, trees from the first {made_of.get('trees_windows')} of them, seed "
            f"{made_of['seed']}; the judge of feeds from {made_of.get('feeds', 0)} windows of series.",
        ]
    lines += ["", "Sittings of the model, last first:", ""]
    sitting: dict[str, Any] | None = lineage.get("training")
    while sitting:
        made_of = sitting["data"]
        sources = ", ".join(f"{name} {count}" for name, count in made_of.get("sources", {}).items())
        lines.append(
            f"- {sitting['windows']} windows shown of a set of {made_of.get('items')} ({sources}; "
            f"SHA-256 `{made_of.get('sha256')}`), configuration `{sitting['config_sha256'][:16]}`, "
            f"seed {sitting['seed']}"
        )
        sitting = sitting["started_from"]
    for split in ("tune", "test"):
        entry = data["splits"][split]
        lines.append(f"- {split}: {entry['items']} windows, SHA-256 `{entry['sha256']}`")
    lines += [
        "",
        "The data sets are not in the repository; `nis-models data build` makes them again, to the byte, from a seed "
        "and the recorded runs.",
        "",
    ]
    return "\n".join(lines)


def _left_out(figures: dict[str, Any] | None) -> str:
    if not figures:
        return ""
    rows = [
        "### One system left out\n",
        "Trees and perceptron learned as those of the package, but without any window of the system, weights and "
        "thresholds too, then judged on its test windows. Without the ternary model, which was not trained once more "
        "for each. AG2 is in no training at all: its row is the shipped package.\n",
        "| system | n | balanced accuracy | clean called none | hard negatives called none | calibration error: all "
        "labels, most probable | failure, AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in figures.items():
        c = entry["calibration"]
        auroc = entry["failure"]["auroc"] if entry["failure"] else None
        rows.append(
            f"| {name} | {entry['n']} | {_interval(entry['balanced_accuracy'])} | "
            f"{_interval(entry['clean_called_none'])} | {_interval(entry['hard_negatives_called_none'])} | "
            f"{_number(c['ece_all_labels'])}, {_number(c['ece_top_label'])} | {_number(auroc)} |"
        )
    return "\n".join(rows) + "\n"


def _ablation(judges: dict[str, Any]) -> str:
    """What the ternary model adds to the tables that travel with it."""
    gain = judges.get("without_model", {}).get("all", {}).get("model_gains")
    if gain is None or gain["ci95"] is None:
        return ""
    low, high = gain["ci95"]
    if low > 0:
        meaning = "it earns its place"
    elif high < 0:
        meaning = "it costs more than it brings"
    else:
        meaning = "no more than chance would give"
    without = _interval(judges["without_model"]["all"]["balanced_accuracy"])
    return (
        "### What the ternary model adds\n\nTrees and perceptron weighed without it, on the same tune windows: "
        f"{without}. With it the package has {gain['value']:+.3f} "
        f"[{low:+.3f}, {high:+.3f}], paired: {meaning}.\n"
    )


def _gap(judges: dict[str, Any]) -> str:
    if "float_twin" not in judges:
        return (
            "### Ternary and float\n\nThe gap to a float twin was not measured for this model. `nis-models train "
            "--float-twin` trains the twin, `nis-models evaluate --float-twin` scores it.\n"
        )
    mine, twin = (judges[name]["all"]["balanced_accuracy"] for name in ("alone", "float_twin"))
    gap = judges["float_twin"]["all"]["ternary_gains"]
    return (
        f"### Ternary and float\n\nThe ternary model alone {_interval(mine)}, its float twin {_interval(twin)}, which "
        "went on without rounding from the step in which the model began to round, over as many windows: "
        f"{gap['value']:+.3f} [{gap['ci95'][0]:+.3f}, {gap['ci95'][1]:+.3f}], paired. Both have seen few windows.\n"
    )


def _not_for() -> str:
    return (
        "## What it must not be used for\n\n"
        "- To stop, punish or replace an agent or a person without someone looking: its findings are pointers "
        "with the error rates above.\n"
        "- As a safety function. `unsafe_action` has misses; interlocks belong in the tools.\n"
        "- As a detector of deception or of content that harms: it sees some words of each event and numbers "
        "about them.\n"
        "- On languages other than English: all wordings it was trained on are English.\n"
        "- As physics: `physics_violation` rests on a residual that code computes from stated quantities.\n"
        "- As proof that nothing is wrong: silence of the model is weak evidence.\n"
    )


def _interval(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if entry["ci95"] is None:
        return f"{entry['value']:.2f} (n {entry['n']})"
    return f"{entry['value']:.2f} [{entry['ci95'][0]:.2f}, {entry['ci95'][1]:.2f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
