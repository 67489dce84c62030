"""The judges of evidence that travel in a package: trees and perceptron over the numbers of windows, word vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from nis_edge.errors import ConfigError
from nis_edge.monitor import dense as dense_room
from nis_edge.monitor import evidence as evidence_room
from nis_edge.monitor import feeds, lexicon, meaning, tables
from nis_edge.monitor.context import Window
from nis_edge.monitor.dense import dense, meaning_vectors, names
from nis_edge.monitor.evidence import gather
from nis_edge.monitor.labels import HEAD_OUTPUTS
from nis_edge.monitor.meaning import Meanings
from nis_models import boosting, data, feed_faults, measures, perceptron
from nis_models.scenarios import Item

Array = np.ndarray[Any, Any]

FEEDS: Final = 12_000
FEED_OUTPUTS: Final = ("none", *feeds.LABELS)


def words_of(path: Path) -> tuple[list[str], Array]:
    """Words and their vectors as a package holds them: a signed byte each.

    Raises:
        ConfigError: the file is missing; the operator runs ``nis-models vectors``.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; run nis-models vectors first, nothing was learned")
    with np.load(path) as kept:
        words, table = [str(word) for word in kept["words"]], kept["table"]
    scaled = np.round(table * (127.0 / np.abs(table).max()))
    return words, np.clip(scaled, -127, 127).astype(np.int8)


def numbers_of(windows: Sequence[Window], meanings: Meanings) -> tuple[Array, Array]:
    """Numbers and meanings of windows: float32 [n, features], float32 [n, vectors]."""
    numbers, meant = [], []
    for window in windows:
        numbers.append(dense(window, gather(window), meanings))
        meant.append(meaning_vectors(window, meanings))
    return np.array(numbers, dtype=np.float32), np.array(meant, dtype=np.float32)


def kept_numbers(
    folder: Path, split: str, items: Sequence[Item], words: Sequence[str], table: Array
) -> tuple[Array, Array]:
    """Numbers and meanings of the first items of a split, from a copy beside the data where one was made by this code.

    Args:
        folder: of a built data set.
        split: its name.
        items: the split's first items.
        words: of the table.
        table: int8 [words, width].
    """
    sources = [Path(module.__file__ or "").read_bytes() for module in (dense_room, evidence_room, lexicon, meaning)]
    built = data.manifest_of(folder)["splits"][split]["sha256"]
    parts = [built.encode(), str(len(items)).encode(), "\n".join(words).encode(), table.tobytes(), *sources]
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    kept = folder / f"numbers-{split}-{name}.npz"
    if kept.is_file():
        with np.load(kept) as file:
            return file["numbers"], file["meant"].astype(np.float32)
    numbers, meant = numbers_of([item.window for item in items], Meanings(words, table))
    # Half precision is enough for unit vectors; what is learned from is the same whether it was kept or not.
    meant = meant.astype(np.float16)
    np.savez(kept, numbers=numbers, meant=meant)
    return numbers, meant.astype(np.float32)


def learn(
    items: Sequence[Item],
    targets: Array,
    counted: Array,
    vectors: Path,
    *,
    folder: Path,
    trees_windows: int | None = None,
    without: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _line: None,
) -> tables.TableBytes:
    """Learn trees and perceptron; how they are weighed is left to the export, which has the model.

    Args:
        items: windows to learn from, the first of the train split.
        targets: 0 or 1, [n, outputs].
        counted: whether a target is known, [n, outputs].
        vectors: from ``nis-models vectors``.
        folder: of the data set that the items are from.
        trees_windows: trees learn from so many of them only; they take longer.
        without: a source whose windows are left out.
        seed: the same seed and data learn the same tables.
        progress: told of each step.
    """
    words, table = words_of(vectors)
    progress(f"computing the evidence of {len(items)} windows")
    numbers, meant = kept_numbers(folder, "train", items, words, table)
    used = np.array([item.source != without for item in items])
    net = perceptron.learn(numbers[used], meant[used], targets[used], counted[used], names(), seed=seed)
    progress("perceptron learned")
    first = np.flatnonzero(used[:trees_windows])
    trees = boosting.learn(
        numbers[first], targets[first], counted[first], names(), HEAD_OUTPUTS, seed=seed, progress=progress
    )
    return tables.TableBytes(
        evidence=trees,
        perceptron=net,
        weights=b"",
        words="\n".join(words),
        vectors=table.tobytes(),
        width=table.shape[1],
    )


def learn_feeds(folder: Path, *, windows: int = FEEDS, seed: int = 0) -> tables.ForestBytes:
    """Learn what is wrong with numeric feeds from faults put into real series of the train split."""
    rows, outputs = rows_of(feed_faults.draw(feed_faults.load(folder), "train", windows, seed))
    known = np.ones_like(outputs)
    return boosting.learn(rows, outputs, known, feeds.names(), FEED_OUTPUTS, trees=80, leaves=16, seed=seed)


def rows_of(drawn: Iterable[feed_faults.Feed]) -> tuple[Array, Array]:
    """Numbers and targets of feeds that can be judged: float32 [n, numbers], float64 [n, outputs]."""
    seen = [(feeds.numbers(feed.values), feed.label or "none") for feed in drawn]
    known = [(row, label) for row, label in seen if row is not None]
    targets = np.array([[float(label == name) for name in FEED_OUTPUTS] for _, label in known])
    return np.array([row for row, _ in known], dtype=np.float32), targets


def score_feeds(packed: tables.ForestBytes, folder: Path, *, windows: int = 3_000) -> dict[str, Any]:
    """How well the judge of feeds does on series that it has not seen, by strength of the fault.

    Args:
        packed: the judge.
        folder: of the development data.
        windows: drawn of the test split.

    Returns:
        By strength: balanced accuracy over all classes with its interval over files, recall by class, and n; ``none``
        is the same windows for each strength.
    """
    drawn = list(feed_faults.draw(feed_faults.load(folder), "test", windows))
    known = [(row, feed) for feed in drawn if (row := feeds.numbers(feed.values)) is not None]
    forest = tables.Forest(packed, feeds.names())
    z = boosting.scores(forest, np.array([row for row, _ in known]))
    said = z.argmax(axis=1)
    truth = np.array([packed.outputs.index(feed.label or "none") for _, feed in known])
    figures: dict[str, Any] = {}
    for strength in (*feed_faults.STRENGTHS, "medium and strong"):
        rows = np.flatnonzero([feed.strength is None or feed.strength in strength for _, feed in known])
        files = [known[row][1].file for row in rows]

        def balanced(chosen: Array) -> float:
            return float(np.mean([(said[chosen][truth[chosen] == k] == k).mean() for k in np.unique(truth[chosen])]))

        figures[strength] = {
            "balanced_accuracy": round(balanced(rows), 4),
            "ci95": measures.bootstrap(files, lambda picked, rows=rows: balanced(rows[picked])),
            "n": len(rows),
            "files": len(set(files)),
            "recall": {
                name: round(float((said[rows][truth[rows] == k] == k).mean()), 4) if (truth[rows] == k).any() else None
                for k, name in enumerate(packed.outputs)
            },
        }
    return figures


def scores(packed: tables.TableBytes, numbers: Array, meant: Array) -> dict[str, Array]:
    """What trees and perceptron say of rows, each by its name: float64 [n, outputs]."""
    forest = tables.Forest(packed.evidence, names())
    net = perceptron.ready(packed.perceptron, packed.width, len(HEAD_OUTPUTS))
    return {"trees": boosting.scores(forest, numbers), "perceptron": perceptron.scores(net, numbers, meant)}


def meanings_of(packed: tables.TableBytes) -> Meanings:
    """Word vectors of tables."""
    return Meanings(*unpacked_words(packed))


def unpacked_words(packed: tables.TableBytes) -> tuple[list[str], Array]:
    """Words and their vectors, int8 [words, width], of tables."""
    words = packed.words.split("\n")
    return words, np.frombuffer(packed.vectors, dtype=np.int8).reshape(len(words), packed.width)
