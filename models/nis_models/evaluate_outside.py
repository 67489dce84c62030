"""``nis-models evaluate --traces``: judge files from outside, print the table, write figures and predictions."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from nis_edge.errors import ConfigError
from nis_models import outside, outside_figures
from nis_models.outside_lines import Refused

_STEPS: Final = (
    "step_exact", "step_within_one", "agent", "agent_named_first", "suspect_step_within_one", "suspect_agent",
)  # fmt: skip
TOLD_EVERY: Final = 100
REFUSED_SHOWN: Final = 5


def run(args: argparse.Namespace) -> int:
    """Judge ``args.traces`` with ``args.model``; 2 where not one line could be judged."""
    results: list[outside.Result] = []
    for result in outside.judge_files(args.traces, args.model):
        results.append(result)
        if len(results) % TOLD_EVERY == 0:
            print(f"{len(results)} lines judged ...", file=sys.stderr, flush=True)
    refused = [result for result in results if isinstance(result, Refused)]
    for one in refused[:REFUSED_SHOWN]:
        print(f"{one.file}, line {one.line} was left out: {one.reason}", file=sys.stderr)
    if len(refused) > REFUSED_SHOWN:
        print(f"... and {len(refused) - REFUSED_SHOWN} more lines; --json names them", file=sys.stderr)
    if args.predictions is not None:
        outside.write_predictions(results, args.predictions)
    if len(refused) == len(results):
        named = ", ".join(str(path) for path in args.traces)
        raise ConfigError(f"{named}: no line of it could be judged")
    figures = {"model": package_of(args.model), **outside_figures.report(results)}
    print_table(figures)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"written to {args.json}")
    return 0


def package_of(path: Path) -> dict[str, Any]:
    """Which package judged."""
    from nis_edge.engine.model import Model

    with Model.open(path) as model:
        about = model.manifest.model
        return {"id": about.id, "version": about.version, "sha256": model.package.sha256(), "isa": model.isa}


def print_table(figures: dict[str, Any]) -> None:
    """The figures for people."""
    model = figures["model"]
    print(f"{model['id']} {model['version']}: {figures['judged']} lines judged, {figures['refused']} left out")
    if figures["names_not_in_vocabulary"]:
        names = ", ".join(f"{name} ({n})" for name, n in figures["names_not_in_vocabulary"].items())
        print(f"not scored, for no finding of ours is meant: {names}")
    for part, show in (("runs", _show_runs), ("windows", _show_windows)):
        if part in figures:
            for name, row in (("all", figures[part]["all"]), *figures[part]["by_system"].items()):
                print(f"\n{part}, {name}: {row['n']} lines in {row['groups']} groups")
                show(row)
    if "all" in figures.get("device", {}):
        print(f"\ndevice windows: {figures['device']['n']}")
        for name, row in (("all", figures["device"]["all"]), *figures["device"]["by_strength"].items()):
            print(f"  {name:10} balanced accuracy {_with(row, 'balanced_accuracy')}  {_plain(row['recall'])}")
    if "all" in figures.get("physics", {}):
        physics = figures["physics"]
        print("\nphysics items (a parser fills the slots, the validator decides)")
        rows = [("all", physics["all"]), *physics["by_law"].items()]
        rows += [(f"level {name}", row) for name, row in physics["by_level"].items()]
        for name, row in rows:
            print(
                f"  {name:22} n {row['n']:5}  accuracy {_with(row, 'accuracy')}  majority {_text(row['majority'])}"
                f"  unread {row['unread']}  undecided {row['undecided']}"
            )


def _show_runs(row: dict[str, Any]) -> None:
    outcome = row.get("outcome", {})
    if "judges" in outcome:
        print(f"  outcome: {outcome['failed']} of {outcome['n']} failed")
        for name, f in outcome["judges"].items():
            print(
                f"    {name:15} AUROC {_with(f, 'auroc')}  ECE {_text(f['ece'])}  Brier {_text(f['brier'])}"
                f"  NLL {_text(f['nll'])}  risk-coverage {_text(f['risk_coverage_area'])}"
                f"  accuracy {_text(f['accuracy'])}, {_text(f['accuracy_at_80_coverage'])} at 80 %"
            )
    if "findings" in row:
        found = row["findings"]
        print(f"  findings: balanced accuracy {_with(found, 'balanced_accuracy')}")
        for label, f in found["labels"].items():
            print(
                f"    {label:22} n {f['n']:4}  recall {_text(f['recall'])}  specificity {_text(f['specificity'])}"
                f"  AUROC {_text(f['auroc'])}"
            )
    if "steps" in row:
        steps = row["steps"]
        parts = [f"{name} {_value(steps[name])}" for name in _STEPS]
        print(f"  steps: {'  '.join(parts)}  silent in {steps['silent']} of {steps['n']}")
        print("    by chance: " + "  ".join(f"{name} {_value(v)}" for name, v in steps["baselines"].items()))


def _show_windows(row: dict[str, Any]) -> None:
    for name, f in row.get("judges", {}).items():
        print(
            f"  {name:12} balanced accuracy {_with(f, 'balanced_accuracy')}  recall of findings "
            f"{_with(f, 'injected_recall_mean')}  macro-F1 {_with(f, 'macro_f1')}"
        )
    if "recall" in row:
        print("  recall: " + _plain(row["recall"]))
    parts = [
        f"{name.replace('_', ' ')} {_value(row[name])}"
        for name in ("hard_negatives_called_none", "locus_within_one", "locus_within_one_where_named")
        if row.get(name)
    ]
    if "confidence" in row:
        f = row["confidence"]
        parts.append(f"ECE {_text(f['ece'])} (all labels {_text(row.get('ece_all_labels'))})")
    if row.get("auprc_macro") is not None:
        parts.append(f"AUPRC {_text(row['auprc_macro'])}")
    if parts:
        print("  " + "  ".join(parts))


def _with(figures: dict[str, Any], name: str) -> str:
    interval = figures.get(f"{name}_ci95")
    return _text(figures[name]) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _value(entry: dict[str, Any]) -> str:
    interval = entry["ci95"]
    return _text(entry["value"]) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _plain(recalls: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in recalls.items())


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
