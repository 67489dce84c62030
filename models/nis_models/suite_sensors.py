"""Suites *device* and *physics*: faults put into real series, and laws in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nis_edge.monitor import tables
from nis_edge.monitor.feeds import LABELS as FEED_LABELS
from nis_edge.monitor.feeds import RECENT
from nis_edge.monitor.series import WINDOW
from nis_models import evidence_judges, feed_faults, outside, outside_figures, physics_items, physics_text
from nis_models.measures import NONE
from nis_models.outside import JudgedDevice, JudgedPhysics
from nis_models.outside_lines import DeviceWindow, PhysicsItem
from nis_models.physics_items import Item

if TYPE_CHECKING:
    from nis_edge.engine.model import Model

TEXT_TRAIN: Final = 3000


def device(model: Model, runs: Path, count: int, seed: int = 0) -> dict[str, Any]:
    """The daemon's signals on windows of 64 readings, and the package's judge of feeds on the 144 it needs, test files.

    Args:
        runs: folder of the development data.
        count: windows.
    """
    feeds = list(feed_faults.draw(feed_faults.load(runs), "test", count, seed))
    raw = model.tables
    packed = tables.decode(raw) if raw is not None else None
    judges: dict[str, list[JudgedDevice]] = {"signals": [], "majority": []}
    forest = None
    if packed is not None and packed.series is not None:
        from nis_edge.monitor.dense import names

        forest = tables.Tables(packed, names(), evidence_judges.HEAD_OUTPUTS)
        judges["tables"] = []
    for feed in feeds:
        values = [None if np.isnan(v) else float(v) for v in feed.values]
        line = DeviceWindow(
            "", "nab", feed.file, tuple(values[-WINDOW:]), feed.label or NONE, None, feed.strength or NONE
        )
        judged = outside.judge_line(line, None)
        assert isinstance(judged, JudgedDevice)
        judges["signals"].append(judged)
        judges["majority"].append(JudgedDevice(line, FEED_LABELS[0], None, {}))
        if forest is not None:
            shares = forest.of_feed(feed.values) or {NONE: 1.0}
            judges["tables"].append(JudgedDevice(line, max(shares, key=lambda k: shares[k]), None, {}))
    report = {name: outside_figures.of_devices(rows) for name, rows in judges.items()}
    report["note"] = {
        "fault": f"in the newest {RECENT} readings", "signals": f"what the daemon runs, on {WINDOW} readings",
        "tables": "the package's trees on 144 readings; the daemon doesn't ask them yet",
    }  # fmt: skip
    return report


def physics(count: int, seed: int = 0) -> dict[str, Any]:
    """The validator on structured items, the reader of texts on both sets of wordings, and a bag of words."""
    parts = {words: list(physics_items.draw_many(count, words, seed)) for words in ("dev", "held_out")}
    everything = [item for items in parts.values() for item in items]
    wrong = [item for item in everything if physics_items.decided(item).decision != item.label]
    return {
        "validator": {
            "n": len(everything),
            "accuracy": round(1.0 - len(wrong) / len(everything), 6),
            "wrong": [vars(item) for item in wrong[:5]],
        },
        **{f"text_{words}": _read(items) for words, items in parts.items()},
        "words_only": _words_only(parts["held_out"]),
        "note": "labels come from how an item was made; a parser fills the slots, the validator decides. A bag of words"
        " sits near chance: nothing here is physics reasoning of a model",
    }


def _read(items: Sequence[Item]) -> dict[str, Any]:
    rows, laws = [], 0
    for number, item in enumerate(items):
        line = PhysicsItem(str(number), item.wording, str(number), item.law, item.level, item.text, item.label)
        said = physics_text.decide(item.text)
        laws += said.law == item.law
        rows.append((item, JudgedPhysics(line, said)))
    figures = outside_figures.of_physics([row for _, row in rows])
    sizes = {
        size: [float(row.said.label == item.label) for item, row in rows if item.size == size]
        for size in ("none", *physics_items.SIZES)
    }
    figures["by_size"] = {size: round(float(np.mean(right)), 4) for size, right in sizes.items() if right}
    figures["law_picked"] = round(laws / len(rows), 4)
    return figures


def _words_only(test: Sequence[Item]) -> dict[str, Any]:
    """TF-IDF and logistic regression, learned on the other set of wordings."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train = list(physics_items.draw_many(min(TEXT_TRAIN, 10 * len(test)), "dev", 1_000_000))
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    fitted = LogisticRegression(max_iter=400).fit(words.fit_transform(i.text for i in train), [i.label for i in train])
    said = fitted.predict(words.transform(i.text for i in test))
    return {
        "n": len(test),
        "accuracy": round(float(np.mean([s == i.label for s, i in zip(said, test, strict=True)])), 4),
    }
