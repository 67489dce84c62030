"""``nis-models evaluate``: a package beside its baselines, a suite of measures, or files from outside."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from nis_edge.config import MonitorOptions
from nis_edge.errors import ConfigError
from nis_edge.monitor import tables
from nis_edge.monitor.judge import judge_of
from nis_edge.monitor.labels import LABELS


def evaluate_model(args: argparse.Namespace) -> int:
    """Score a package, or judge a file from outside."""
    if args.traces is not None:
        from nis_models import evaluate_outside

        return evaluate_outside.run(args)
    if args.suite is not None:
        from nis_models import suite

        return suite.run(args)
    from nis_edge.engine.model import Model
    from nis_models import data, evaluate, evidence_judges, export, judges

    items = {split: data.read(args.data, split) for split in data.SPLITS}
    whole_tune = items["tune"]
    if args.limit is not None:
        items = {split: part if split == "train" else part[: args.limit] for split, part in items.items()}
    with Model.open(args.model) as model:
        print("judging by the package ...", flush=True)
        judged = judges.parts(model, args.data, {split: items[split] for split in ("tune", "test")}, whole_tune)
        numbers = judges.known_numbers(model, args.data, items)
        fixed = {"model": export.calibration_of(model.manifest)}
        if args.float_twin is not None:
            judged["float_twin"] = judges.checkpoint(args.float_twin, args.tokenizer, ternary=False)
        for name in filter(None, args.baselines.split(",")):
            if name not in (*judges.BASELINES, "trees"):
                raise ConfigError(f"--baselines: {name!r} is none of {', '.join((*judges.BASELINES, 'trees'))}")
            print(f"learning baseline {name} ...", flush=True)
            judged[name] = judges.baseline(
                "evidence" if name == "trees" else name, items["train"], trees=name == "trees", numbers=numbers
            )
        print("judging ...", flush=True)
        figures = evaluate.compare(judged, items["tune"], items["test"], fixed)
        record = {
            "model": {
                "id": model.manifest.model.id,
                "version": model.manifest.model.version,
                "sha256": model.package.sha256(),
                "isa": model.isa,
            },
            "data": data.manifest_of(args.data),
            "judges": figures,
        }
        rates = judge_of(model.manifest).rates
        if rates:
            share = MonitorOptions().expected_share
            moved = evaluate.where_expected(fixed["model"], rates, share)
            record["expected"] = {
                "share": share,
                **evaluate.score(judged["model"](items["test"]), items["test"], moved),
            }
        packed = tables.decode(model.tables) if model.tables is not None else None
        if args.left_out and packed is not None:
            record["left_out"] = _left_out(args, packed, model.manifest.lineage["tables"], figures)
        if args.runs is not None and packed is not None and packed.series is not None:
            record["feeds"] = evidence_judges.score_feeds(packed.series, args.runs)
            for strength, entry in record["feeds"].items():
                print(f"feeds, {strength} faults: {entry['balanced_accuracy']:.2f} {entry['ci95']}, n = {entry['n']}")
    _print_table(figures)
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"written to {args.json}")
    return 0


def _left_out(
    args: argparse.Namespace, packed: tables.TableBytes, learned: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """Systems left out in turn, and beside them those that nothing was learned from."""
    from nis_models import data, evidence_judges, left_out, recorded

    language = evidence_judges.Language.of(packed)
    items = {split: data.read(args.data, split) for split in data.SPLITS}
    items["train"] = items["train"][: learned["windows"]]
    numbers = {
        split: evidence_judges.kept_numbers(args.data, split, items[split], language) for split in ("tune", "test")
    }
    found: dict[str, Any] = {}
    for source in args.left_out.split(","):
        print(f"learning without {source} ...", flush=True)
        found[source] = left_out.judged_without(source, items, numbers, learned, language, folder=args.data)
    for source in sorted(recorded.UNSEEN & set(figures["model"]["by_source"])):
        found[source] = figures["model"]["by_source"][source]
    return found


def _print_table(figures: dict[str, Any]) -> None:
    for name, report in figures.items():
        print(f"\n{name}")
        for source, part in {"all": report["all"], **report["by_source"]}.items():
            row = "  ".join(
                f"{key} {_shown_value(part[key])}"
                for key in ("balanced_accuracy", "macro_f1", "clean_called_none", "hard_negatives_called_none")
            )
            print(f"  {source:22} n {part['n']:5}  {row}")
    recalls = {name: report["all"]["class_recall"] for name, report in figures.items()}
    print("\nrecall by class: " + ", ".join(figures))
    for label in (*LABELS, "none"):
        print(
            f"  {label:22} "
            + "  ".join(f"{np.nan if recalls[name][label] is None else recalls[name][label]:.2f}" for name in recalls)
        )


def _shown_value(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    low, high = entry["ci95"] or (float("nan"), float("nan"))
    return f"{entry['value']:.3f} [{low:.3f}, {high:.3f}]"
