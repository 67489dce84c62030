"""The judges of evidence that travel in a package: trees and perceptron over the numbers of windows, and language."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from nis_edge.errors import ConfigError
from nis_edge.monitor import dense as dense_room
from nis_edge.monitor import evidence as evidence_room
from nis_edge.monitor import feeds, lexicon, meaning, tables
from nis_edge.monitor import sentences as sentences_room
from nis_edge.monitor.context import Window
from nis_edge.monitor.dense import dense, meaning_vectors, names
from nis_edge.monitor.evidence import gather
from nis_edge.monitor.labels import HEAD_OUTPUTS
from nis_edge.monitor.meaning import Meanings, TextVectors
from nis_edge.monitor.sentences import EncoderBytes, Sentences
from nis_models import boosting, data, feed_faults, measures, perceptron
from nis_models.scenarios import Item

Array = np.ndarray[Any, Any]

FEEDS: Final = 12_000
FEED_OUTPUTS: Final = ("none", *feeds.LABELS)


@dataclass(frozen=True)
class Language:
    """What a package knows of language: a table of words, or an encoder of sentences.

    Args:
        words: most frequent first; empty beside an encoder.
        table: int8 [words, width].
        encoder: of sentences; None without.
    """

    words: tuple[str, ...]
    table: Array
    encoder: EncoderBytes | None = None

    @classmethod
    def of(cls, packed: tables.TableBytes) -> Language:
        """That of tables."""
        words = tuple(packed.words.split("\n")) if packed.words else ()
        return cls(words, np.frombuffer(packed.vectors, np.int8).reshape(len(words), packed.width), packed.encoder)

    @classmethod
    def of_words(cls, path: Path) -> Language:
        """That of word vectors in a file.

        Raises:
            ConfigError: the file is missing; the operator runs ``nis-models vectors``.
        """
        words, table = words_of(path)
        return cls(tuple(words), table)

    @classmethod
    def of_encoder(cls, encoder: EncoderBytes) -> Language:
        """That of an encoder."""
        return cls((), np.zeros((0, encoder.width), dtype=np.int8), encoder)

    @property
    def raw(self) -> bytes:
        """What it is made of."""
        if self.encoder is not None:
            return msgspec.msgpack.encode(self.encoder)
        return b"\0".join(("\n".join(self.words).encode(), self.table.tobytes()))

    def meanings(self, folder: Path | None = None) -> TextVectors:
        """What gives texts their vectors.

        Args:
            folder: an encoder's vectors are kept there, so that no text is encoded twice; None keeps nothing.
        """
        if self.encoder is None:
            return Meanings(self.words, self.table)
        return Remembered(self.encoder, folder)


class Remembered:
    """Vectors of sentences, each text encoded once and the result kept in a file.

    Texts go through the encoder one at a time, as on a device: the steps of its signed bytes follow all that is
    computed together, so a batch would give other vectors (cosine 0.99).
    """

    def __init__(self, packed: EncoderBytes, folder: Path | None) -> None:
        self._sentences = Sentences(packed)
        name = hashlib.sha256(msgspec.msgpack.encode(packed)).hexdigest()[:16]
        self._file = folder / f"sentences-{name}.npz" if folder is not None else None
        self._known: dict[bytes, Array | None] = {}
        if self._file is not None and self._file.is_file():
            with np.load(self._file) as kept:
                vectors = [vector if vector.any() else None for vector in kept["vectors"]]
                self._known = dict(zip(map(bytes, kept["texts"]), vectors, strict=True))

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self._sentences.width

    def vector(self, text: str) -> Array | None:
        """Unit vector of a text: float32 [width]; None when it says nothing."""
        key = hashlib.blake2b(meaning.clipped(text).encode("utf-8", "replace"), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._sentences.vector(text)
        return self._known[key]

    def save(self) -> None:
        """Keep all that is known."""
        if self._file is not None:
            nothing = np.zeros(self.width, dtype=np.float32)
            texts = np.frombuffer(b"".join(self._known), dtype=np.uint8).reshape(-1, 16)
            vectors = [nothing if vector is None else vector for vector in self._known.values()]
            np.savez(self._file, texts=texts, vectors=np.array(vectors, dtype=np.float32).reshape(-1, self.width))


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


def numbers_of(windows: Sequence[Window], meanings: TextVectors) -> tuple[Array, Array]:
    """Numbers and meanings of windows: float32 [n, features], float32 [n, vectors]."""
    numbers, meant = [], []
    for window in windows:
        numbers.append(dense(window, gather(window), meanings))
        meant.append(meaning_vectors(window, meanings))
    return np.array(numbers, dtype=np.float32), np.array(meant, dtype=np.float32)


def kept_numbers(folder: Path, split: str, items: Sequence[Item], language: Language) -> tuple[Array, Array]:
    """Numbers and meanings of the first items of a split, from a copy beside the data where one was made by this code.

    Args:
        folder: of a built data set.
        split: its name.
        items: the split's first items.
        language: that the numbers about meaning rest on.
    """
    rooms = (dense_room, evidence_room, lexicon, meaning, *((sentences_room,) if language.encoder else ()))
    sources = [Path(module.__file__ or "").read_bytes() for module in rooms]
    built = data.manifest_of(folder)["splits"][split]["sha256"]
    parts = [built.encode(), str(len(items)).encode(), language.raw, *sources]
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    kept = folder / f"numbers-{split}-{name}.npz"
    if kept.is_file():
        with np.load(kept) as file:
            return file["numbers"], file["meant"].astype(np.float32)
    meanings = language.meanings(folder)
    numbers, meant = numbers_of([item.window for item in items], meanings)
    if isinstance(meanings, Remembered):
        meanings.save()
    # Half precision is enough for unit vectors; what is learned from is the same whether it was kept or not.
    meant = meant.astype(np.float16)
    np.savez(kept, numbers=numbers, meant=meant)
    return numbers, meant.astype(np.float32)


def learn(
    items: Sequence[Item],
    targets: Array,
    counted: Array,
    language: Language,
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
        language: words or an encoder, to travel along.
        folder: of the data set that the items are from.
        trees_windows: trees learn from so many of them only; they take longer.
        without: a source whose windows are left out.
        seed: the same seed and data learn the same tables.
        progress: told of each step.
    """
    progress(f"computing the evidence of {len(items)} windows")
    numbers, meant = kept_numbers(folder, "train", items, language)
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
        words="\n".join(language.words),
        vectors=language.table.tobytes(),
        width=language.table.shape[1],
        encoder=language.encoder,
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
