"""A person looks at windows and says whether the label holds; answers are kept, one JSON line each."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

import msgspec

from nis_edge.monitor.evidence import event_text
from nis_models import data
from nis_models.scenarios import Item

TEXT_CHARS: Final = 400
ANSWERS: Final = {"y": "holds", "n": "wrong", "u": "unsure"}


def data_check(args: argparse.Namespace) -> int:
    """Ask, and sum up."""
    asked, wrong = check(
        data.read(args.data, args.split),
        args.out,
        per_kind=args.per_kind,
        label=args.label,
        answers=sys.stdin,
        shown=sys.stdout,
    )
    print(f"{asked} answers in {args.out}, {wrong} labels called wrong")
    return 0


def check(
    items: Iterable[Item], out: Path, *, per_kind: int, label: str | None, answers: TextIO, shown: TextIO
) -> tuple[int, int]:
    """Show windows and record what is answered.

    Args:
        items: to choose from, in order.
        out: JSON lines; a window that has an answer there is not shown again.
        per_kind: windows of each mechanism.
        label: only windows with this finding (``none``: without any); None shows all.
        answers: one line for each window: y, n or u, then words of one's own; q or its end stops.
        shown: where windows are written.

    Returns:
        How many answers the file holds, and how many of them call a label wrong.
    """
    known = _known(out)
    with out.open("a", encoding="utf-8") as record:
        for item in _chosen(items, known, per_kind, label):
            shown.write(text_of(item) + "\n[y] holds  [n] wrong  [u] unsure  [q] stop > ")
            shown.flush()
            line = answers.readline()
            while line and line[:1].lower() not in (*ANSWERS, "q"):
                shown.write("y, n, u or q > ")
                shown.flush()
                line = answers.readline()
            if not line or line[:1].lower() == "q":
                break
            known[name_of(item)] = ANSWERS[line[0].lower()]
            entry = {
                "window": name_of(item),
                "labels": item.labels,
                "mechanism": item.template,
                "source": item.source,
                "verdict": ANSWERS[line[0].lower()],
                "note": line[1:].strip(),
            }
            record.write(json.dumps(entry) + "\n")
            record.flush()
    return len(known), sum(verdict == "wrong" for verdict in known.values())


def name_of(item: Item) -> str:
    """A window's name: it changes with what is shown."""
    return hashlib.sha256(msgspec.json.encode(item)).hexdigest()[:16]


def text_of(item: Item) -> str:
    """A window for a person: label, why it should hold, and each event, those that show it marked."""
    holds = ", ".join(item.labels) or ("none" if item.known is None else "unknown")
    lines = [
        "",
        f"=== {holds}: {item.proof} [{item.source}, {item.template}]",
        f"goal: {item.window.goal}"[:TEXT_CHARS],
    ]
    for index, event in enumerate(item.window.events):
        mark = ">" if index in item.locus else " "
        result = "" if event.ok is None else (" ok" if event.ok else " failed")
        words = " ".join(event_text(event).split())[:TEXT_CHARS]
        lines.append(f"{mark} {event.agent} {event.kind}{result}: {words}")
    if item.window.time_known and item.window.events:
        lines.append(f"  ({item.window.now - item.window.events[-1].ts:.0f} s later)")
    return "\n".join(lines)


def _chosen(items: Iterable[Item], known: dict[str, str], per_kind: int, label: str | None) -> Iterator[Item]:
    counts: Counter[str] = Counter()
    for item in items:
        if label is not None and label not in (item.labels or ("none",)):
            continue
        counts[item.template] += 1
        if counts[item.template] <= per_kind and name_of(item) not in known:
            yield item


def _known(out: Path) -> dict[str, str]:
    if not out.is_file():
        return {}
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {row["window"]: row["verdict"] for row in rows}
