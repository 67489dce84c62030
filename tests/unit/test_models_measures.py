"""Figures of reports against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from nis_models import measures


def test_scaling_recovers_the_temperature_and_shift_that_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 4, 20_000)
    y = (rng.random(20_000) < measures.sigmoid((z + 1.5) / 2.0)).astype(float)
    fitted = measures.fit_scaling(z, y)
    assert fitted.temperature == pytest.approx(2.0, rel=0.1)
    assert fitted.shift == pytest.approx(1.5, abs=0.2)
    assert measures.expected_calibration_error(fitted.apply(z), y) < 0.02


def test_scaling_survives_labels_that_never_hold() -> None:
    fitted = measures.fit_scaling(np.linspace(-3, 3, 50), np.zeros(50))
    assert np.isfinite(fitted.temperature)
    assert fitted.temperature > 0


def test_the_best_threshold_separates_what_can_be_separated() -> None:
    p, y = np.array([0.1, 0.2, 0.7, 0.9]), np.array([0.0, 0.0, 1.0, 1.0])
    assert 0.2 < measures.best_threshold(p, y) < 0.7
    assert measures.best_threshold(p, np.zeros(4)) == 0.5


def test_a_verdict_is_the_label_farthest_above_its_own_threshold() -> None:
    p = np.array([[0.6, 0.3], [0.4, 0.3], [0.4, 0.05]])
    assert measures.verdicts(p, np.array([0.5, 0.1])).tolist() == [1, 1, -1]


@pytest.mark.parametrize(
    ("score", "area"), [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([1, 1, 1, 1], 0.5), ([1, 3, 2, 4], 0.75)]
)
def test_area_under_roc_counts_ordered_pairs(score: list[float], area: float) -> None:
    assert measures.area_under_roc(np.array(score, dtype=float), np.array([0, 0, 1, 1])) == pytest.approx(area)


def test_area_under_roc_needs_both_outcomes() -> None:
    assert measures.area_under_roc(np.array([1.0, 2.0]), np.array([1, 1])) is None


def test_recall_is_counted_by_class_and_none_is_a_class() -> None:
    recalls = measures.class_recalls(np.array([0, 0, 1, -1]), np.array([0, -1, 1, -1]), 3)
    assert recalls[[0, 1, 3]].tolist() == [0.5, 1.0, 1.0]
    assert np.isnan(recalls[2])


def test_an_interval_resamples_groups_and_not_windows() -> None:
    values = np.array([0.0] * 500 + [1.0] * 500)
    by_group = measures.bootstrap([str(i // 100) for i in range(1000)], lambda rows: float(values[rows].mean()))
    alone = measures.bootstrap([str(i) for i in range(1000)], lambda rows: float(values[rows].mean()))
    assert by_group is not None
    assert by_group[1] - by_group[0] > 0.4
    assert alone is not None
    assert alone[1] - alone[0] < 0.1


def test_too_few_groups_give_no_interval_rather_than_a_narrow_one() -> None:
    assert measures.bootstrap(["a", "a", "b"], lambda rows: float(len(rows))) is None
    # A draw without a window of the class has no figure; too few figures make no interval.
    groups = [str(i) for i in range(40)]
    sometimes = measures.bootstrap(groups, lambda rows: 1.0 if rows[0] % 4 else float("nan"))
    assert sometimes == [1.0, 1.0]
    assert measures.bootstrap(groups, lambda _rows: float("nan")) is None


def test_average_precision_of_a_perfect_and_a_hopeless_ranking() -> None:
    assert measures.average_precision(np.array([0.9, 0.8, 0.1]), np.array([1.0, 1.0, 0.0])) == 1.0
    assert measures.average_precision(np.array([0.1, 0.9]), np.array([1.0, 0.0])) == 0.5
    assert measures.average_precision(np.array([0.1]), np.array([0.0])) is None


def test_risk_by_coverage_takes_the_surest_first_and_ties_in_proportion() -> None:
    right = np.array([1.0, 1.0, 0.0, 0.0])
    assert measures.risk_by_coverage(np.array([0.9, 0.8, 0.7, 0.6]), right).tolist() == pytest.approx(
        [0, 0, 1 / 3, 0.5]
    )
    # All equally sure: whichever comes first, half of them are wrong.
    assert measures.risk_by_coverage(np.full(4, 0.5), right).tolist() == pytest.approx([0.5] * 4)
    assert measures.risk_coverage_area(np.full(4, 0.5), right) == pytest.approx(0.5)
    assert measures.accuracy_at_coverage(np.array([0.9, 0.8, 0.7, 0.6]), right, 0.5) == 1.0


def test_log_loss_of_a_sure_error_is_finite_and_of_a_coin_is_one_bit() -> None:
    assert measures.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(np.log(1e6), rel=1e-6)
    assert measures.log_loss(np.array([0.5, 0.5]), np.array([0.0, 1.0])) == pytest.approx(np.log(2))


def test_a_reliability_diagram_shows_what_was_said_against_what_was_true() -> None:
    p = np.repeat([0.1, 0.9], 150)
    y = np.repeat([0.0, 1.0], 150)
    points = measures.reliability(p, y)
    assert len(points) == measures.BINS
    assert sum(point["n"] for point in points) == 300
    assert points[0] == {"said": 0.1, "true": 0.0, "n": 20}
    assert points[-1] == {"said": 0.9, "true": 1.0, "n": 20}
