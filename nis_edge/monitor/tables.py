"""Tables of a package that judge evidence: boosted trees, a perceptron, and how they and the model are weighed.

The bytes are one MessagePack map (models/FORMAT.md, "tables"). They come from outside: every length and index is
checked before anything is computed, and a tree's children always stand behind their parent, so that every walk ends.
A walk takes all trees one step at a time; a window costs some thousand look-ups and one small matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from nis_edge.errors import ModelError
from nis_edge.monitor import feeds
from nis_edge.monitor.dense import SPOKEN
from nis_edge.monitor.meaning import WIDTH_MAX, Array, Meanings, TextVectors
from nis_edge.monitor.sentences import EncoderBytes, Sentences

FORMAT: Final = 1
FEATURES_MAX: Final = 4096
OUTPUTS_MAX: Final = 64
TREES_MAX: Final = 65_536
NODES_MAX: Final = 255
"""Of one tree: children are numbered in a byte."""

HIDDEN_MAX: Final = 4096
SPREADS_MAX: Final = np.float32(5.0)
SHOWN: Final = SPOKEN + 2
"""Vectors in ``meaning_vectors``: the newest events, the newest request, the goal."""

WORDS_MAX: Final = 65_536
MISSING_LEFT: Final = 0x8000
"""Bit of a node's feature: an unknown value goes to the left child."""


class ForestBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Trees as they lie in a package; arrays little-endian.

    Args:
        features: names of the numbers that trees look at.
        outputs: names of the scores, each the sum of its trees and its base.
        base: float32 [outputs].
        trees: uint16 [outputs], how many trees each output has; they stand in the order of the outputs.
        nodes: uint8 [trees], how many nodes each tree has.
        feature: uint16 [nodes], which number a node looks at, with ``MISSING_LEFT``.
        value: float32 [nodes], the threshold of a node (up to it: left), the score of a leaf.
        left: uint8 [nodes], the left child within the tree; 0 for a leaf.
        right: uint8 [nodes].
    """

    features: tuple[str, ...]
    outputs: tuple[str, ...]
    base: bytes
    trees: bytes
    nodes: bytes
    feature: bytes
    value: bytes
    left: bytes
    right: bytes


class PerceptronBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A perceptron with one hidden layer (ReLU) as it lies in a package; arrays little-endian.

    Its inputs: every number less its mean by its spread (0 where unknown, at most ``SPREADS_MAX``), 1 or 0 for whether
    each is known, then the meaning of events as ``dense.meaning_vectors`` gives it.

    Args:
        features: names of the numbers.
        mean: float32 [features].
        spread: float32 [features].
        hidden: how many hidden units.
        first: float16 [hidden, inputs].
        first_bias: float32 [hidden].
        second: float16 [outputs, hidden].
        second_bias: float32 [outputs].
    """

    features: tuple[str, ...]
    mean: bytes
    spread: bytes
    hidden: int
    first: bytes
    first_bias: bytes
    second: bytes
    second_bias: bytes


class TableBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All tables of a package.

    Args:
        evidence: trees over ``dense.names()``.
        perceptron: over the same numbers and the meaning of events.
        weights: float32 [outputs, 3 * outputs + 1]: for each output the weights of the trees' scores, of the
            perceptron's, of the model's raw outputs, and a constant.
        words: words by frequency, one a line; empty beside an encoder.
        vectors: int8 [words, width].
        width: of a text's vector.
        series: trees over ``feeds.names()``, for ``none`` and each of ``feeds.LABELS``; None without.
        encoder: of sentences, in the place of the table of words; None without, and then not in the bytes.
    """

    evidence: ForestBytes
    perceptron: PerceptronBytes
    weights: bytes
    words: str
    vectors: bytes
    width: int
    series: ForestBytes | None = None
    format: int = FORMAT
    encoder: EncoderBytes | None = None


class Forest:
    """Trees ready to walk.

    Raises:
        ModelError: an array is too short, an index points nowhere (the builder of the package acts).
    """

    def __init__(self, packed: ForestBytes, known: Sequence[str]) -> None:
        self.outputs = packed.outputs
        count = len(packed.outputs)
        trees = _array(packed.trees, "<u2", count, "trees")
        nodes = np.frombuffer(packed.nodes, dtype=np.uint8)
        total = int(nodes.sum(dtype=np.int64))
        _demand(1 <= count <= OUTPUTS_MAX and 1 <= len(packed.features) <= FEATURES_MAX, "too many outputs or features")
        _demand(len(nodes) == int(trees.sum()) <= TREES_MAX and bool((nodes > 0).all()), "the trees are not all there")
        feature = _array(packed.feature, "<u2", total, "feature")
        self._value = _array(packed.value, "<f4", total, "value").astype(np.float32)
        self._base = _array(packed.base, "<f4", count, "base").astype(np.float32)
        left = _array(packed.left, "u1", total, "left")
        right = _array(packed.right, "u1", total, "right")
        _demand(bool(np.isfinite(self._value).all() and np.isfinite(self._base).all()), "a value is not finite")
        self._roots = np.cumsum(nodes, dtype=np.int32) - nodes  # also of no trees at all
        start = np.repeat(self._roots, nodes)
        index = np.arange(total, dtype=np.int32)
        own, limit = index - start, np.repeat(nodes, nodes)
        inner = left != 0
        _demand(
            bool(((left > own) & (right > own) & (left < limit) & (right < limit))[inner].all()),
            "a tree's children do not stand behind their parent",
        )
        looked = feature & (MISSING_LEFT - 1)
        _demand(bool((looked < len(packed.features)).all()), "a tree looks at a number that is not listed")
        # Numbers lie there twice: once with the unknown below all, once with it above all (see ``scores``).
        self._looked = _places(packed.features, known)[looked].astype(np.uint16)
        self._looked[(feature & MISSING_LEFT) == 0] += np.uint16(len(known))
        self._children = np.empty(2 * total, dtype=np.int32)
        self._children[0::2] = np.where(inner, start + right, index)
        self._children[1::2] = np.where(inner, start + left, index)
        self._depth = self._deepest(np.flatnonzero(inner))
        ends = np.cumsum(trees.astype(np.int64))
        self._spans = list(zip((ends - trees).tolist(), ends.tolist(), strict=True))

    def _deepest(self, inner: Array) -> int:
        """How many steps the longest walk takes."""
        depth = bytearray(len(self._value))
        # Parents stand before their children: one pass is enough; a tree has no more steps than nodes, a byte's worth.
        for node in inner:
            for child in self._children[2 * node : 2 * node + 2]:
                depth[child] = depth[node] + 1
        return max(depth, default=0)

    def scores(self, numbers: Array) -> Array:
        """The outputs' scores: float32 [outputs] of one vector float32 [known]."""
        at = self._roots
        unknown = np.isnan(numbers)
        seen = np.concatenate((np.where(unknown, -np.inf, numbers), np.where(unknown, np.inf, numbers)))
        for _ in range(self._depth):
            goes_left = seen.take(self._looked.take(at)) <= self._value.take(at)
            at = self._children.take(2 * at + goes_left)
        leaves = self._value.take(at)
        sums = [leaves[start:end].sum(dtype=np.float32) for start, end in self._spans]
        return self._base + np.array(sums, dtype=np.float32)

    def many(self, numbers: Array) -> Array:
        """What ``scores`` says of each row of float32 [n, known]: float32 [n, outputs]."""
        rows = [self.scores(row) for row in numbers]
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(self.outputs))


class Perceptron:
    """A perceptron ready to compute.

    Raises:
        ModelError: an array has another length or a value that is not finite (the builder of the package acts).
    """

    def __init__(self, packed: PerceptronBytes, known: Sequence[str], meant: int, outputs: int) -> None:
        count = len(packed.features)
        _demand(1 <= count <= FEATURES_MAX and 1 <= packed.hidden <= HIDDEN_MAX, "too many features or hidden units")
        self._places = _places(packed.features, known)
        self._mean = _floats(packed.mean, "<f4", count, "mean")
        spread = _floats(packed.spread, "<f4", count, "spread")
        _demand(bool((spread > 0).all()), "a spread is not above zero")
        self._by_spread = np.float32(1.0) / spread
        inputs = 2 * count + meant
        self._first = _floats(packed.first, "<f2", packed.hidden * inputs, "first").reshape(packed.hidden, inputs)
        self._first_bias = _floats(packed.first_bias, "<f4", packed.hidden, "first_bias")
        self._second = _floats(packed.second, "<f2", outputs * packed.hidden, "second").reshape(outputs, packed.hidden)
        self._second_bias = _floats(packed.second_bias, "<f4", outputs, "second_bias")

    def scores(self, numbers: Array, meant: Array) -> Array:
        """The outputs' scores of one vector: float32 [outputs]."""
        seen = self.inputs(numbers[None], meant[None])[0]
        hidden = np.maximum(self._first @ seen + self._first_bias, np.float32(0.0))
        return np.asarray(self._second @ hidden + self._second_bias)

    def inputs(self, numbers: Array, meant: Array) -> Array:
        """What the first layer sees of rows of numbers and meanings: float32 [n, inputs]."""
        chosen = numbers[:, self._places]
        there = ~np.isnan(chosen)
        centred = np.where(there, (chosen - self._mean) * self._by_spread, np.float32(0.0))
        return np.concatenate((np.clip(centred, -SPREADS_MAX, SPREADS_MAX), there, meant), axis=1, dtype=np.float32)


class Tables:
    """A package's tables, checked and ready.

    Args:
        packed: decoded bytes.
        features: names of the numbers that the device computes, in order.
        outputs: names of the model's outputs, in order.

    Raises:
        ModelError: the tables are damaged or of another version (the builder of the package acts), or their encoder
            needs ONNX Runtime, which is not installed (the operator acts).
    """

    def __init__(self, packed: TableBytes, features: Sequence[str], outputs: Sequence[str]) -> None:
        _demand(packed.format == FORMAT, f"they have format {packed.format}, this version reads {FORMAT}")
        self.evidence = Forest(packed.evidence, features)
        _demand(tuple(outputs) == packed.evidence.outputs, "they do not score what the model's head does")
        count = len(packed.evidence.outputs)
        weights = _floats(packed.weights, "<f4", count * (3 * count + 1), "weights")
        self._weights = weights.reshape(count, 3 * count + 1)
        words = packed.words.split("\n") if packed.words else []
        _demand(len(words) <= WORDS_MAX and 0 < packed.width <= WIDTH_MAX, "too many words")
        vectors = _array(packed.vectors, "i1", len(words) * packed.width, "vectors").reshape(len(words), packed.width)
        encoder = packed.encoder
        _demand(encoder is None or not words, "they have both a table of words and an encoder")
        _demand(encoder is None or encoder.width == packed.width, "their encoder is of another width")
        self.meanings: TextVectors = Meanings(words, vectors) if encoder is None else Sentences(encoder)
        self.perceptron = Perceptron(packed.perceptron, features, SHOWN * packed.width, count)
        self._series = Forest(packed.series, feeds.names()) if packed.series is not None else None
        known = {"none", *feeds.LABELS}
        _demand(self._series is None or set(self._series.outputs) == known, "they do not judge the faults of a feed")

    def fused(self, numbers: Array, meant: Array, raw: Array) -> Array:
        """Raw outputs of trees, perceptron and model together.

        Args:
            numbers: from ``dense``, float32 [features].
            meant: from ``meaning_vectors``, float32.
            raw: the model's raw outputs, float32 [outputs].

        Returns:
            float32 [outputs], before the sigmoid.
        """
        said = (self.evidence.scores(numbers), self.perceptron.scores(numbers, meant), raw)
        seen = np.concatenate((*(np.clip(part, -RAW_MAX, RAW_MAX) for part in said), ONE))
        return np.asarray((self._weights * seen[None, :]).sum(axis=1, dtype=np.float32))

    def of_feed(self, values: Array) -> dict[str, float] | None:
        """What is wrong with a numeric feed.

        Args:
            values: float [n], oldest first, NaN where a reading is missing.

        Returns:
            Probability of ``none`` and of each of ``feeds.LABELS``, adding up to 1; None where the package has no
            judge of feeds or there are too few readings.
        """
        seen = feeds.numbers(values) if self._series is not None else None
        if self._series is None or seen is None:
            return None
        scores = self._series.scores(seen).astype(np.float64)
        shares = np.exp(scores - scores.max())
        return dict(zip(self._series.outputs, (shares / shares.sum()).tolist(), strict=True))


RAW_MAX: Final = 20.0
"""Raw outputs farther from zero say no more than this."""
ONE: Final = np.ones(1, dtype=np.float32)


def decode(raw: bytes) -> TableBytes:
    """Read tables.

    Raises:
        ModelError: they are no tables of this format (the builder of the package acts).
    """
    try:
        return msgspec.msgpack.decode(raw, type=TableBytes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"the package's tables can't be read: {error}; fetch the package again") from error


def encode(tables: TableBytes) -> bytes:
    """The bytes of tables."""
    fields = {name: getattr(tables, name) for name in tables.__struct_fields__}
    if tables.encoder is None:
        # Tables without an encoder read as they did before there were any.
        del fields["encoder"]
    return msgspec.msgpack.encode(fields)


def _places(features: Sequence[str], known: Sequence[str]) -> Array:
    """Where the numbers that a package names stand among those that the device computes."""
    places = {name: place for place, name in enumerate(known)}
    strange = [name for name in features if name not in places]
    if strange:
        raise ModelError(
            f"the package's tables judge {strange[0]!a}, which this version does not compute: update nis-edge,"
            " or take the package made for it"
        )
    return np.array([places[name] for name in features], dtype=np.int64)


def _floats(raw: bytes, dtype: str, count: int, name: str) -> Array:
    array = _array(raw, dtype, count, name).astype(np.float32)
    _demand(bool(np.isfinite(array).all()), f"a value of {name} is not finite")
    return array


def _array(raw: bytes, dtype: str, count: int, name: str) -> Array:
    wanted = np.dtype(dtype)
    _demand(len(raw) == count * wanted.itemsize, f"{name} has {len(raw)} bytes, not {count * wanted.itemsize}")
    array: np.ndarray[Any, Any] = np.frombuffer(raw, dtype=wanted)
    return array


def _demand(holds: bool, fault: str) -> None:
    if not holds:
        raise ModelError(f"the package's tables are damaged: {fault}; fetch the package again")
