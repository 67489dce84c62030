"""Faults put into series: each mechanism is drawn with its onset, nothing leaks, the same seed gives the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nis_models.series_faults import HELD_OUT, MECHANISMS, WINDOW, draw, draw_series, load

from nis_edge.monitor.series import KINDS

SERIES = draw_series(20, 3)


def test_the_same_seed_draws_the_same_windows() -> None:
    one, other = list(draw(SERIES, 40, 5)), list(draw(SERIES, 40, 5))
    assert all(np.array_equal(a.values, b.values, equal_nan=True) for a, b in zip(one, other, strict=True))
    assert [a.label for a in one] == [b.label for b in other]
    assert [a.label for a in one] != [b.label for b in draw(SERIES, 40, 6)]


def test_every_kind_and_mechanism_is_drawn_with_its_onset() -> None:
    made = list(draw(SERIES, 900, 1))
    assert {(one.label, one.mechanism) for one in made if one.mechanism} == {
        (kind, way) for kind in KINDS for way in MECHANISMS[kind]
    }
    assert all(len(one.values) == WINDOW for one in made)
    healthy = [one for one in made if one.label == "none"]
    assert all(one.onset is None and one.strength is None for one in healthy)
    stuck = [one for one in made if one.mechanism == "at the last value"]
    assert all(one.onset is not None and one.values[one.onset] == one.values[one.onset - 1] for one in stuck)


def test_mechanisms_held_out_are_left_out() -> None:
    assert {one.mechanism for one in draw(SERIES, 400, 2, without=HELD_OUT)}.isdisjoint(HELD_OUT)
    assert {one.mechanism for one in draw(SERIES, 400, 2, only=HELD_OUT)} <= HELD_OUT | {""}
    assert all(any(way not in HELD_OUT for way in MECHANISMS[kind]) for kind in KINDS)
    assert all(any(way in HELD_OUT for way in MECHANISMS[kind]) for kind in KINDS)


def test_spans_labelled_as_anomalies_are_no_healthy_series(tmp_path: Path) -> None:
    folder = tmp_path / "nab"
    folder.mkdir()
    rows = [
        f"2020-01-01 {place // 60:02d}:{place % 60:02d}:00,{1000 if 400 <= place < 420 else place % 7}"
        for place in range(800)
    ]
    (folder / "real__x.csv").write_text("timestamp,value\n" + "\n".join(rows), encoding="utf-8")
    (folder / "windows.json").write_text(
        '{"real/x.csv": [["2020-01-01 06:40:00.000000", "2020-01-01 06:59:00.000000"]]}', encoding="utf-8"
    )
    (series,) = load(tmp_path)
    assert [len(piece) for piece in series.pieces] == [400, 380]
    assert max(piece.max() for piece in series.pieces) < 10


@pytest.mark.slow
def test_training_runs_from_end_to_end_and_beats_the_thresholds(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from nis_models.series_training import _numbers, learn

    from nis_edge.monitor import shapes
    from nis_edge.monitor.tables import Forest

    made = list(draw(SERIES, 1200, 1))
    rows = _numbers(made)
    forest = Forest(learn(made, rows, np.arange(900), 12, 0), shapes.names())
    said = forest.many(rows[900:]).argmax(axis=1)
    truth = np.array([("none", *KINDS).index(one.label) for one in made[900:]])
    assert (said == truth).mean() > 0.6
