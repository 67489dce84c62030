"""Judges of evidence: what the device computes is what was learned, and weighing them helps nobody cheat."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("torch")

from nis_models import boosting, data, evidence_judges, feed_faults, fusion, perceptron
from nis_models.scenarios import draw_item

from nis_edge.errors import ModelError
from nis_edge.monitor import feeds, tables
from nis_edge.monitor.dense import names
from nis_edge.monitor.labels import HEAD_OUTPUTS

RNG = np.random.default_rng(7)
OUTPUTS = ("first", "second", "rare")


def _learnable(count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers = RNG.normal(size=(count, 6)).astype(np.float32)
    numbers[RNG.random(numbers.shape) < 0.1] = np.nan
    targets = np.stack([numbers[:, 0] > 0, np.isnan(numbers[:, 1]), np.zeros(count)], axis=1).astype(np.float64)
    return numbers, targets, np.ones_like(targets)


def test_the_device_walks_trees_as_scikit_learn_does() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    numbers, targets, counted = _learnable()
    packed = boosting.learn(numbers, targets, counted, names()[:6], OUTPUTS, trees=12, leaves=8)
    row = np.full((len(numbers), len(names())), np.nan, dtype=np.float32)
    row[:, :6] = numbers
    walked = boosting.scores(tables.Forest(packed, names()), row)
    learned = HistGradientBoostingClassifier(
        max_iter=12, learning_rate=boosting.RATE, max_leaf_nodes=8, min_samples_leaf=15, l2_regularization=2.0,
        max_features=0.3, early_stopping=False, random_state=0,
    ).fit(numbers, targets[:, 0] > 0)  # fmt: skip
    assert np.abs(walked[:, 0] - learned.decision_function(numbers)).max() < 1e-4
    assert ((walked[:, 1] > 0) == (targets[:, 1] > 0)).mean() > 0.95, "an unknown value is known to be unknown"
    assert (walked[:, 2] < -4).all(), "what never held is never claimed"


def test_the_device_computes_the_perceptron_that_was_learned() -> None:
    numbers, targets, counted = _learnable(1200)
    meant = RNG.normal(size=(1200, tables.SHOWN * 2)).astype(np.float32)
    packed = perceptron.learn(numbers, meant, targets, counted, names()[:6], epochs=120)
    net = perceptron.ready(packed, 2, len(OUTPUTS))
    many = perceptron.scores(net, numbers, meant)
    assert np.abs(many[3] - net.scores(numbers[3], meant[3])).max() < 1e-4
    assert ((many[:, 0] > 0) == (targets[:, 0] > 0)).mean() > 0.9


def test_weighing_trusts_the_judge_that_is_right_and_not_the_one_that_is_noise() -> None:
    targets = (RNG.random((600, 2)) < 0.4).astype(np.float64)
    right, noise = (targets - 0.5) * 4 + RNG.normal(size=targets.shape), RNG.normal(size=targets.shape) * 5
    weights = fusion.learn({"trees": right, "model": noise}, targets, np.ones_like(targets))
    assert weights.shape == (2, 7)
    assert weights[0, 0] > 5 * abs(weights[0, 4])
    assert weights[0, 2] == 0, "a judge that is left out weighs nothing"
    fused = fusion.fused({"trees": right, "model": noise}, weights)
    assert ((fused > 0) == (targets > 0)).mean() > 0.95


def test_no_window_is_weighed_by_what_was_learned_from_its_own_group() -> None:
    groups = [f"g{i % 40}" for i in range(400)]
    targets = (RNG.random((400, 1)) < 0.5).astype(np.float64)
    said = {"trees": (targets - 0.5) + RNG.normal(size=targets.shape)}
    before = fusion.across(said, targets, np.ones_like(targets), groups)
    own = np.array([group == "g7" for group in groups])
    targets[own] = 1 - targets[own]
    after = fusion.across(said, targets, np.ones_like(targets), groups)
    assert np.array_equal(before[own], after[own]), "its group's truth does not move what is said of a window"
    assert np.abs(before[~own] - after[~own]).max() > 0


@pytest.fixture(scope="module")
def series() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {f"real__{i}.csv": 50 + np.cumsum(rng.normal(size=900)) * 0.1 + rng.normal(size=900) for i in range(40)}


@pytest.mark.parametrize("label", feeds.LABELS)
def test_a_fault_of_a_feed_is_put_where_it_says(label: str, series: dict[str, np.ndarray]) -> None:
    drawn = [feed for feed in feed_faults.draw(series, "train", 120) if feed.label == label]
    assert len(drawn) > 3 and {feed.strength for feed in drawn} <= set(feed_faults.STRENGTHS)
    for feed in drawn:
        original = series[feed.file]
        past = feed.values[: -feeds.RECENT]
        assert any(np.array_equal(past, original[i : i + len(past)]) for i in range(len(original))), "the past is real"
        assert feed.proof


def test_series_of_one_file_stay_in_one_split(series: dict[str, np.ndarray]) -> None:
    files = {
        split: {feed.file for feed in feed_faults.draw(series, split, 60)}  # type: ignore[arg-type]
        for split in ("train", "tune", "test")
    }
    assert not files["train"] & files["test"] and not files["train"] & files["tune"]


def test_a_missing_folder_of_series_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="holds no series"):
        feed_faults.load(tmp_path)


def test_a_judge_that_says_the_same_of_every_window_weighs_nothing() -> None:
    targets = (RNG.random((600, 1)) < 0.4).astype(np.float64)
    said = {"trees": (targets - 0.5) * 4 + RNG.normal(size=targets.shape), "perceptron": np.full((600, 1), -9.86)}
    weights = fusion.learn(said, targets, np.ones_like(targets))
    assert weights[0, 1] == 0 and weights[0, 0] > 0


def test_a_source_left_out_is_learned_from_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [replace(draw_item(seed, "train"), source="one" if seed % 3 else "other") for seed in range(30)]
    numbers = np.array([[float(item.source == "other")] for item in items], dtype=np.float32)
    shown: list[np.ndarray] = []
    language = evidence_judges.Language(("word",), np.zeros((1, 2), dtype=np.int8))
    monkeypatch.setattr(evidence_judges, "kept_numbers", lambda *_args: (numbers, numbers))
    monkeypatch.setattr(perceptron, "learn", lambda seen, *_args, **_kw: shown.append(seen))
    monkeypatch.setattr(boosting, "learn", lambda seen, *_args, **_kw: shown.append(seen))
    known = np.ones((30, 1))
    evidence_judges.learn(items, known, known, language, folder=Path(), trees_windows=12, without="other")
    assert [len(seen) for seen in shown] == [20, 8] and not any(seen.any() for seen in shown)
    shown.clear()
    evidence_judges.learn(items, known, known, language, folder=Path(), trees_windows=12)
    assert [len(seen) for seen in shown] == [30, 12]


def test_tables_learned_with_an_encoder_carry_it_and_no_words(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from nis_models.cli import main

    from tests.support.tiny_encoder import tiny_encoder

    folder, encoder, out = tmp_path / "data", tmp_path / "encoder.bin", tmp_path / "rich.bin"
    data.build(folder, {"train": 300, "tune": 1, "test": 1}, None)
    packed = tiny_encoder(width=4)
    encoder.write_bytes(msgspec.msgpack.encode(packed))
    assert main(["tables", "--data", str(folder), "--encoder", str(encoder), "--out", str(out)]) == 0
    learned = tables.decode(out.read_bytes())
    assert learned.encoder == packed and learned.words == "" and learned.vectors == b"" and learned.width == 4
    made_of = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert packed.origin in made_of["encoder"] and "word_vectors" not in made_of
    assert list(folder.glob("sentences-*.npz")), "no text is encoded twice"
    weights = np.zeros((len(HEAD_OUTPUTS), 3 * len(HEAD_OUTPUTS) + 1), "<f4")
    ready = tables.Tables(msgspec.structs.replace(learned, weights=weights.tobytes()), names(), HEAD_OUTPUTS)
    assert ready.meanings.vector("the pump") is not None
    assert main(["tables", "--data", str(folder), "--encoder", str(tmp_path / "none"), "--out", str(out)]) == 2


def test_a_tokenizer_for_the_device_cuts_pads_and_adds_nothing() -> None:
    from nis_models.encoder import bare_tokenizer

    from nis_edge.monitor.sentences import Pieces
    from tests.support.tiny_encoder import tiny_tokenizer

    special = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    trained = tiny_tokenizer(
        truncation={"max_length": 3, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
        added_tokens=[{"id": 2, "content": "[CLS]", **special}],
    )  # fmt: skip
    with pytest.raises(ModelError, match="pads"):
        Pieces(trained, 16)
    found = Pieces(bare_tokenizer(trained), 16).of("[CLS] the pump the pump")
    assert found is not None and found.tolist() == [2, 1, 10, 11, 1, 4, 5, 4, 5, 3]
