"""Data sets: items drawn by seed, written as JSON lines outside the repository, with a manifest of hashes.

Train, tune and test differ in trades, wordings and groups of real runs; nothing crosses. ``manifest.json`` beside the
files says how many items of which source each split holds, and the SHA-256 of each file: it goes into the package's
lineage.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from nis_edge.errors import ConfigError
from nis_models import recorded
from nis_models.domains import Split
from nis_models.scenarios import Item, draw_item

SPLITS: Final[tuple[Split, ...]] = ("train", "tune", "test")
INJECTED_SHARE: Final = 0.48
OUTCOME_SHARE: Final = 0.08
"""Shares of real runs when there are any; the rest is simulated."""


def build(out: Path, sizes: dict[Split, int], runs: Path | None, *, first_seed: int = 0) -> dict[str, Any]:
    """Draw the items and write them.

    Args:
        out: folder to write to.
        sizes: items by split.
        runs: folder of the recorded runs; None builds from simulated teams only.
        first_seed: items are drawn with consecutive seeds from here.

    Returns:
        The manifest.
    """
    out.mkdir(parents=True, exist_ok=True)
    corpora = recorded.load(runs) if runs is not None else None
    manifest: dict[str, Any] = {"format": 1, "first_seed": first_seed, "splits": {}}
    for split in SPLITS:
        corpus = corpora[split] if corpora is not None else None
        path = out / f"{split}.jsonl.gz"
        counts: Counter[str] = Counter()
        encoder = msgspec.json.Encoder()
        # mtime 0: the same items make the same bytes.
        with (
            path.open("wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=3, filename="") as stream,
        ):
            for item in draw(split, sizes[split], corpus, first_seed):
                stream.write(encoder.encode(item) + b"\n")
                counts[item.source] += 1
                counts.update(f"label:{label}" for label in item.labels)
                if not item.labels and item.known is None:
                    counts["label:none"] += 1
        manifest["splits"][split] = {
            "items": sizes[split],
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "counts": dict(sorted(counts.items())),
        }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def draw(split: Split, count: int, corpus: recorded.Corpus | None, first_seed: int) -> Iterator[Item]:
    """Items of a split in a fixed mixture and order."""
    for number in range(count):
        seed = first_seed + number
        place = (number * 0.6180339887) % 1.0  # spreads the sources evenly
        if corpus is not None and place < INJECTED_SHARE:
            yield recorded.draw_injected(seed, corpus)
        elif corpus is not None and place < INJECTED_SHARE + OUTCOME_SHARE:
            yield recorded.draw_outcome(seed, corpus)
        else:
            yield draw_item(seed, split)


def read(folder: Path, split: Split) -> list[Item]:
    """Read a split's items.

    Raises:
        ConfigError: it has not been built; the operator runs ``nis-models data build``.
    """
    path = folder / f"{split}.jsonl.gz"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; run nis-models data build --out {folder} first")
    decoder = msgspec.json.Decoder(Item)
    with gzip.open(path, "rb") as lines:
        return [decoder.decode(line) for line in lines]


def sources_of(counts: dict[str, int]) -> dict[str, int]:
    """Windows by source, of a split's counts."""
    return {name: count for name, count in counts.items() if not name.startswith("label:")}


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest of a built data set."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; run nis-models data build --out {folder} first")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def label_counts(items: Iterable[Item]) -> Counter[str]:
    """How often each finding holds; ``none`` where it is known that none does."""
    counts: Counter[str] = Counter()
    for item in items:
        counts.update(item.labels or (("none",) if item.known is None else ("unknown",)))
    return counts
