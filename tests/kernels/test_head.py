"""The most likely tokens, found through a screen of the output head, are exactly those of all logits, sorted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from tests.kernels import probe
from tests.support.tiny_models import write_tiny_package


def sorted_logits(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best first, the lower token among equals."""
    order = np.lexsort((np.arange(logits.size), -logits.astype(np.float64)))
    return order, logits[order]


@pytest.mark.parametrize("screen", [False, True], ids=["made", "packed"])
@pytest.mark.parametrize("isa", probe.ISAS)
def test_the_best_tokens_are_those_of_all_logits(tmp_path: Path, isa: str, screen: bool) -> None:
    with Model.open(write_tiny_package(tmp_path / "m.nis", seed=3, screen=screen), isa=isa, threads=2) as model:
        model.screen_from(0)
        vocab = model.manifest.architecture.vocab
        session, plain = model.session(), model.session()
        for step, count in enumerate([1, 1, 7, vocab, 1, 20, 1, 3, 1, 20, 1, 1]):
            logits = plain.forward([step])
            tokens, values = sorted_logits(logits)
            found, found_values = session.best([step], count)
            assert found.tolist() == tokens[:count].tolist()
            assert found_values.tobytes() == values[:count].tobytes()
        statistics = model.head_statistics()
        assert 0 < statistics["rows_screened"] < statistics["rows"]


def test_a_gap_keeps_only_tokens_near_the_best(tmp_path: Path) -> None:
    with Model.open(write_tiny_package(tmp_path / "m.nis", seed=4)) as model:
        session, plain = model.session(), model.session()
        tokens, values = sorted_logits(plain.forward([5]))
        gap = float(values[0] - values[4])
        found, _ = session.best([5], 50, gap)
        assert found.tolist() == tokens[: int((values >= values[0] - np.float32(gap)).sum())].tolist()


@pytest.mark.parametrize("screen", [False, True], ids=["made", "packed"])
def test_greedy_goes_on_with_the_best_token_while_the_screen_is_made(tmp_path: Path, screen: bool) -> None:
    with Model.open(write_tiny_package(tmp_path / "m.nis", seed=5, screen=screen), threads=2) as model:
        model.screen_from(0)
        session, plain = model.session(), model.session()
        token = 1
        for made in session.greedy(1, 20):
            token = int(plain.forward([token]).argmax())
            assert made == token


@pytest.mark.parametrize(("count", "gap"), [(0, math.inf), (10_000, math.inf), (1, -1.0), (1, math.nan)])
def test_a_senseless_question_is_refused(tmp_path: Path, count: int, gap: float) -> None:
    with Model.open(write_tiny_package(tmp_path / "m.nis", seed=6)) as model:
        session = model.session()
        with pytest.raises(ModelError, match="best"):
            session.best([1], count, gap)
        assert session.position == 0
