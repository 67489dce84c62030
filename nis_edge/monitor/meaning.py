"""What words mean, as far as a table of vectors can say: texts near or far from each other without a shared word.

The table travels in a package: the most frequent English words, a signed byte for each of some dozens of dimensions,
one scale. A text's vector is the weighted mean of its words', rare words weighing more. Words it does not hold count
for nothing; digits, names of things and anything hostile are such words. A package may bring an encoder of whole
sentences in the table's place (``sentences``).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

HEAD_CHARS: Final = 900
TAIL_CHARS: Final = 200
"""Characters looked at, from both ends of a text."""

CACHED_TEXTS: Final = 512
WORD_CHARS_MAX: Final = 32
"""Longer words have no meaning here, whatever a table says of them."""

WIDTH_MAX: Final = 1024
"""Numbers in a vector."""

RARE: Final = 2e-3
"""Frequency at which a word counts half (smooth inverse frequency)."""

_WORD: Final = re.compile(r"[a-z]{2,}")
_KNOWN: Final = re.compile(rf"[a-z]{{2,{WORD_CHARS_MAX}}}")

Array = np.ndarray[Any, Any]


class TextVectors(Protocol):
    """What gives texts their vectors."""

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        ...

    def vector(self, text: str) -> Array | None:
        """Unit vector of a text: float32 [width]; None when nothing is known of it."""
        ...


def clipped(text: str) -> str:
    """Both ends of a text: as much of it as is looked at."""
    return text if len(text) <= HEAD_CHARS + TAIL_CHARS else f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"


class Meanings:
    """Vectors of words.

    Words are kept sorted in one array and vectors as the bytes they came in: as a dict and in float32 they would take
    several megabytes of a small device.

    Args:
        words: most frequent first, lower case.
        table: int8 [words, width].
    """

    def __init__(self, words: Sequence[str], table: Array) -> None:
        rows = {word.encode(): row for row, word in enumerate(words) if _KNOWN.fullmatch(word)}
        self._words = np.array(sorted(rows), dtype=f"S{WORD_CHARS_MAX}")
        self._rows = np.array([rows[word] for word in sorted(rows)], dtype=np.uint16)
        rank = np.arange(len(words), dtype=np.float32) + 10.0
        # Zipf: the frequency of a word is about one over its rank.
        frequency = 1.0 / (rank * np.float32(np.log(len(words) + 10.0)))
        self._weights = np.float32(RARE) / (np.float32(RARE) + frequency)
        self._table = table
        self._known: OrderedDict[str, Array | None] = OrderedDict()

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self._table.shape[1])

    def vector(self, text: str) -> Array | None:
        """Unit vector of a text: float32 [width]; None when it holds no known word."""
        text = clipped(text)
        try:
            known = self._known[text]
        except KeyError:
            known = self._known[text] = self._compute(text)
            if len(self._known) > CACHED_TEXTS:
                self._known.popitem(last=False)
        return known

    def _compute(self, text: str) -> Array | None:
        said = np.array(_WORD.findall(text.lower()), dtype=f"S{WORD_CHARS_MAX + 1}")  # cut words equal none
        if not len(said) or not len(self._words):
            return None
        places = np.minimum(self._words.searchsorted(said), len(self._words) - 1)
        rows = self._rows[places[self._words[places] == said]]
        if not len(rows):
            return None
        total = (self._table[rows].astype(np.float32) * self._weights[rows, None]).sum(axis=0)
        length = float(np.sqrt((total * total).sum()))
        return total / np.float32(length) if length > 0 else None


def cosine(one: Array | None, other: Array | None) -> float | None:
    """Likeness of two unit vectors, -1 to 1; None where one is missing."""
    return None if one is None or other is None else float((one * other).sum())


def mean_of(vectors: Sequence[Array | None]) -> Array | None:
    """Unit vector of the middle of several; None where there is none."""
    there = [vector for vector in vectors if vector is not None]
    if not there:
        return None
    total = np.sum(there, axis=0)
    length = float(np.sqrt((total * total).sum()))
    return np.asarray(total / np.float32(length)) if length > 0 else None
