"""What the light commands do: data, tokenizer, card. Nothing here needs torch."""

from __future__ import annotations

import argparse

from nis_edge.errors import ConfigError
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.window import Special, render
from nis_models import data, demo, tokens


def data_build(args: argparse.Namespace) -> int:
    """Build a data set."""
    sizes: dict[data.Split, int] = {"train": args.train, "tune": args.tune, "test": args.test}
    if min(sizes.values()) < 1:
        raise ConfigError("--train, --tune and --test must be 1 or more; nothing was written")
    manifest = data.build(args.out, sizes, args.data, first_seed=args.seed)
    for split, entry in manifest["splits"].items():
        print(f"{split}: {entry['items']} windows, sha256 {entry['sha256'][:16]}")
    print(f"written to {args.out}")
    return 0


def data_inspect(args: argparse.Namespace) -> int:
    """Show windows."""
    if args.label is not None and args.label not in (*LABELS, "none"):
        raise ConfigError(f"--label {args.label!r} is none of: none, {', '.join(LABELS)}")
    items = data.read(args.data, args.split)
    print(", ".join(f"{label} {count}" for label, count in sorted(data.label_counts(items).items())))
    shown = [
        item
        for item in items
        if args.label is None
        or args.label in item.labels
        or (args.label == "none" and not item.labels and item.known is None)
    ][: args.count]
    for item in shown:
        holds = ", ".join(item.labels) or ("none" if item.known is None else "unknown")
        print(f"\n{holds}  [{item.source}, {item.template}] events {list(item.locus)}")
        print("  " + " ".join(p.name if isinstance(p, Special) else repr(p.text) for p in render(item.window).pieces))
    return 0


def data_demo(args: argparse.Namespace) -> int:
    """Write the demonstration."""
    events, faults = demo.write(args.out)
    print(f"{events} events with {faults} faults written to {args.out}")
    return 0


def tokenizer(args: argparse.Namespace) -> int:
    """Learn the tokenizer."""
    items = data.read(args.data, "train")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    learnt_from = items[: tokens.LEARNED_WINDOWS]
    args.out.write_text(tokens.learn(tokens.texts_of(learnt_from)), encoding="utf-8")
    print(f"{tokens.VOCABULARY} tokens learned from {len(learnt_from)} windows, written to {args.out}")
    return 0


def card(args: argparse.Namespace) -> int:
    """Write the card."""
    from nis_models import cards

    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(cards.write(args.model, args.metrics, args.false_alarms), encoding="utf-8")
    print(f"written to {args.out}")
    return 0
