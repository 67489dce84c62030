"""The comparison of word and sentence vectors: its stand-in for the table of words, and its paired figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nis_models.encoder import texts_of
from nis_models.scenarios import Item, draw_item

from bench.monitor import sentences
from bench.monitor.sentence_vectors import KINDS, Set, Verdicts, figures, numbers_of
from nis_edge.monitor import dense
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.tables import SHOWN


class Tokenizer:
    """Pieces are characters."""

    cls_token_id, sep_token_id = 1, 2

    def __call__(self, texts: list[str], **_options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(sign) for sign in text] for text in texts]}


def drawn(count: int = 40) -> list[Item]:
    return [draw_item(seed, "tune") for seed in range(count)]


def stand_in(items: list[Item], width: int) -> sentences.Sentences:
    texts = texts_of(item.window for item in items)
    vectors = np.random.default_rng(0).normal(size=(len(texts), width)).astype(np.float32)
    return sentences.Sentences(texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_a_long_text_keeps_both_ends_and_a_short_one_is_whole() -> None:
    long = "a" * 48 + "b" * 300 + "c" * 14
    first, second = sentences.pieces_of(["short", long], Tokenizer())
    assert first == [1, *map(ord, "short"), 2]
    assert second == [1, *[ord("a")] * 48, *[ord("c")] * 14, 2]


def test_components_learned_from_some_texts_keep_their_likeness() -> None:
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12))
    short = sentences.reduced(flat.astype(np.float32), np.arange(200) < 150, width=3)
    centred = flat - flat[:150].mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.allclose(short @ short.T, centred @ centred.T, atol=1e-4)


def test_each_kind_has_its_own_numbers_and_the_same_evidence() -> None:
    items = drawn(3)
    narrow, wide = stand_in(items, 4), stand_in(items, 9)
    known = (np.ones((3, len(dense.names())), dtype=np.float32), np.ones((3, SHOWN * 5), dtype=np.float32))
    kinds = {kind: numbers_of(kind, items, known, narrow, wide) for kind in KINDS}
    plain = len(dense.names()) - len(dense.MEANINGS)
    assert {name: kind.evidence.shape[1] - plain for name, kind in kinds.items()} == {
        "none": 0,
        "words": len(dense.MEANINGS),
        "sentences": len(dense.MEANINGS),
        "both": 2 * len(dense.MEANINGS),
        "wide": len(dense.MEANINGS),
        "strict": len(dense.MEANINGS),
    }
    assert {name: kind.meant.shape[1] for name, kind in kinds.items()} == {
        "none": 0, "words": SHOWN * 5, "sentences": SHOWN * 4, "both": SHOWN * 9, "wide": SHOWN * 4,
        "strict": SHOWN * 4,
    }  # fmt: skip
    for kind in kinds.values():
        assert len(set(kind.names)) == len(kind.names) == kind.evidence.shape[1]
        assert (kind.evidence[:, :plain] == 1).all()


def test_a_judge_that_is_always_right_gains_what_the_other_misses() -> None:
    tune = Set.of(drawn())
    truth = np.array([LABELS.index(item.labels[0]) if item.labels else -1 for item in tune.items])
    p = tune.targets[:, : len(LABELS)]
    report = figures(tune, Verdicts(truth, p), Verdicts(np.full(len(truth), -1), p))
    assert report["balanced_accuracy"]["value"] == 1.0
    classes = len(set(truth))
    assert report["balanced_accuracy"]["gain"] == pytest.approx(1 - 1 / classes, abs=1e-4)
    assert report["recall"]["none"]["gain"] == 0.0
    absent = next((name for i, name in enumerate(LABELS) if i not in truth), None)
    assert absent is None or report["recall"][absent] == {"value": None, "n": 0}
