"""``nis-models evaluate --suite``: every measure of the design's list, with intervals, by system, in JSON and HTML."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from nis_edge.engine.model import Model
from nis_edge.errors import ConfigError
from nis_edge.judgement import PromptJudge
from nis_models import data, report_html, suite_self, suite_sensors, suite_windows
from nis_models.scenarios import Item

SUITES: Final = ("injected", "outcome", "device", "consistency", "self", "physics")
TRAIN_WINDOWS: Final = 6000
STREAMS: Final = 150
"""Windows of the suites that ask many questions of each."""


def run(args: argparse.Namespace) -> int:
    """Run the suites of ``args.suite`` and write the reports."""
    wanted = SUITES if args.suite == "all" else (args.suite,)
    figures: dict[str, Any] = {}
    needs_windows = {"injected", "outcome", "consistency", "self"} & set(wanted)
    items = {split: data.read(args.data, split) for split in data.SPLITS} if needs_windows else {}
    sample = {split: _sample(rows, _most(split, args.sample)) for split, rows in items.items()}
    with Model.open(args.model) as model:
        about = model.manifest.model
        record: dict[str, Any] = {
            "model": {"id": about.id, "version": about.version, "sha256": model.package.sha256(), "isa": model.isa},
            "data": data.manifest_of(args.data) if needs_windows else None,
            "sample": {split: len(rows) for split, rows in sample.items()},
            "intervals": "95 %, percentile bootstrap over groups",
        }
        if {"injected", "outcome"} & set(wanted):
            judges = tuple(name for name in args.judges.split(",") if name) or None
            said = suite_windows.judge_all(
                model, sample["train"], sample["tune"], sample["test"], _tell,
                judges or (*suite_windows.BASELINES, *suite_windows.ABLATIONS),
            )  # fmt: skip
            if "injected" in wanted:
                figures["injected"] = suite_windows.injected(said, sample["test"])
            if "outcome" in wanted:
                figures["outcome"] = suite_windows.outcome(said, sample["test"])
        if "device" in wanted:
            if args.runs is None:
                raise ConfigError(
                    "--suite device needs --runs, the folder of the development data; nothing was measured"
                )
            _tell("device ...")
            figures["device"] = suite_sensors.device(model, args.runs, args.sample)
    if "physics" in wanted:
        _tell("physics ...")
        figures["physics"] = suite_sensors.physics(args.sample)
    if {"consistency", "self"} & set(wanted):
        judge = PromptJudge(args.model)
        try:
            few = [item for item in sample["test"] if item.window.events][: min(STREAMS, args.sample)]
            if "consistency" in wanted:
                _tell("consistency ...")
                figures["consistency"] = suite_self.consistency(judge, few)
            if "self" in wanted:
                _tell("self ...")
                figures["self"] = suite_self.awareness(judge, sample["test"][: 4 * len(few)])
        finally:
            judge.close()
    record["suites"] = figures
    print_summary(record)
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"written to {args.json}")
    if args.html is not None:
        args.html.write_text(report_html.page(record), encoding="utf-8")
        print(f"written to {args.html}")
    return 0


def _most(split: str, sample: int) -> int:
    return TRAIN_WINDOWS if split == "train" else sample


def _sample(items: Sequence[Item], count: int) -> list[Item]:
    """A fixed choice."""
    chosen = list(items)
    random.Random(0).shuffle(chosen)  # noqa: S311 - a fixed order, not a secret
    return chosen[:count]


def _tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def print_summary(record: dict[str, Any]) -> None:
    """The figures that decide, for people."""
    model, suites = record["model"], record["suites"]
    print(f"{model['id']} {model['version']}")
    for name, judged in suites.get("injected", {}).items():
        for part, figures in (("all", judged["all"]), *judged["by_system"].items()):
            print(
                f"  injected {name:10} {part:20} n {figures['n']:5}"
                f"  balanced {_shown(figures['balanced_accuracy'])}  findings {_shown(figures['injected_recall_mean'])}"
                f"  hard negatives {_shown(figures['hard_negatives_called_none'])}"
                f"  ECE {figures.get('confidence', {}).get('ece')}"
            )
    for name, judged in suites.get("outcome", {}).items():
        if judged["all"] is not None:
            by = ", ".join(f"{system} {figures['auroc']}" for system, figures in judged["by_system"].items())
            print(f"  outcome  {name:10} AUROC, mean of systems {judged['auroc_mean_of_systems']}  ({by})")
    for name, judged in suites.get("device", {}).items():
        if "all" in judged:
            by = ", ".join(f"{s} {figures['balanced_accuracy']}" for s, figures in judged["by_strength"].items())
            print(f"  device   {name:10} balanced {judged['all']['balanced_accuracy']}  ({by})")
    if "consistency" in suites:
        part = suites["consistency"]
        steady = part["coherence_score"]["value"]
        print(f"  metacognitive_consistency {part['metacognitive_consistency']}  coherence {steady}")
        for name, entry in part["directional"].items():
            print(f"    {name}: {entry['passed']} of {entry['n']}")
    if "self" in suites:
        part = suites["self"]
        print(
            f"  self_awareness {part['self_awareness_accuracy']}  introspection_depth"
            f" {part['introspection_depth']['value']}  AUROC of confidence {part['metacognitive_sensitivity']['auroc']}"
        )
    if "physics" in suites:
        part = suites["physics"]
        print(
            f"  physics  validator {part['validator']['accuracy']} of {part['validator']['n']}; texts: known wordings"
            f" {part['text_dev']['all']['accuracy']}, held out {part['text_held_out']['all']['accuracy']}, bag of words"
            f" {part['words_only']['accuracy']}"
        )


def _shown(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    low, high = entry["ci95"] or (None, None)
    return f"{entry['value']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")
