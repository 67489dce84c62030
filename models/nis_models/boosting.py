"""Boosted trees over evidence, learned with scikit-learn and written as the tables a device walks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from nis_edge.monitor.tables import MISSING_LEFT, ForestBytes

Array = np.ndarray[Any, Any]

TREES: Final = 70
LEAVES: Final = 20
RATE: Final = 0.1
LEAST_POSITIVE: Final = 20
"""Windows with a finding below which nothing is learned of it."""


def learn(
    numbers: Array,
    targets: Array,
    counted: Array,
    features: Sequence[str],
    outputs: Sequence[str],
    *,
    trees: int = TREES,
    leaves: int = LEAVES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _line: None,
) -> ForestBytes:
    """Learn one forest, an output at a time.

    Args:
        numbers: float32 [n, features]; NaN is unknown.
        targets: 0 or 1, [n, outputs].
        counted: whether a target is known, [n, outputs].
        features: names of the columns of ``numbers``.
        outputs: names of the columns of ``targets``.
        trees: of each output.
        leaves: of each tree at most.
        seed: the same seed learns the same trees.
        progress: told of each output.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    base, counts, grown = [], [], []
    for column, name in enumerate(outputs):
        rows = np.flatnonzero(counted[:, column] > 0)
        y = targets[rows, column] > 0
        if y.sum() < LEAST_POSITIVE or (~y).sum() < LEAST_POSITIVE:
            share = (y.sum() + 0.5) / (len(y) + 1.0) if len(y) else 0.01
            base.append(float(np.log(share / (1 - share))))
            counts.append(0)
            continue
        model = HistGradientBoostingClassifier(
            max_iter=trees,
            learning_rate=RATE,
            max_leaf_nodes=leaves,
            min_samples_leaf=15,
            l2_regularization=2.0,
            max_features=0.3,
            early_stopping=False,
            random_state=seed,
        )
        # A number that none of these windows has parts nothing; scikit-learn would stumble over it.
        known = np.where(np.isnan(numbers[rows]).all(axis=0), np.float32(0.0), numbers[rows])
        model.fit(known, y)
        base.append(float(np.ravel(model._baseline_prediction)[0]))
        grown += [stage[0].nodes for stage in model._predictors]
        counts.append(len(model._predictors))
        progress(f"{name}: {int(y.sum())} of {len(y)} windows")
    return _packed(base, counts, grown, features, outputs)


def _packed(
    base: list[float], counts: list[int], grown: list[Any], features: Sequence[str], outputs: Sequence[str]
) -> ForestBytes:
    ordered = [_in_order(nodes) for nodes in grown]
    feature, value, left, right = (
        [np.concatenate([tree[part] for tree in ordered]) for part in range(4)] if ordered else [np.zeros(0)] * 4
    )
    return ForestBytes(
        features=tuple(features),
        outputs=tuple(outputs),
        base=np.array(base, dtype="<f4").tobytes(),
        trees=np.array(counts, dtype="<u2").tobytes(),
        nodes=np.array([len(tree[0]) for tree in ordered], dtype=np.uint8).tobytes(),
        feature=feature.astype("<u2").tobytes(),
        value=value.astype("<f4").tobytes(),
        left=left.astype(np.uint8).tobytes(),
        right=right.astype(np.uint8).tobytes(),
    )


def _in_order(nodes: Any) -> tuple[list[int], list[float], list[int], list[int]]:
    """One tree with parents before their children: feature, value, left, right."""
    feature, value, left, right = [], [], [], []
    queue, placed = [0], {0: 0}
    for node in queue:
        row = nodes[node]
        if row["is_leaf"]:
            feature.append(0)
            value.append(float(row["value"]))
            left.append(0)
            right.append(0)
            continue
        feature.append(int(row["feature_idx"]) | (MISSING_LEFT if row["missing_go_to_left"] else 0))
        # A threshold of infinity parts known from unknown.
        value.append(float(np.clip(row["num_threshold"], -3e38, 3e38)))
        for child, into in ((int(row["left"]), left), (int(row["right"]), right)):
            placed[child] = len(queue)
            into.append(placed[child])
            queue.append(child)
    return feature, value, left, right


def scores(forest: Any, numbers: Array) -> Array:
    """Scores of many rows: float64 [n, outputs]."""
    return np.asarray(forest.many(numbers.astype(np.float32)), dtype=np.float64)


def learn_together(
    numbers: Array,
    targets: Array,
    weights: Array,
    features: Sequence[str],
    outputs: Sequence[str],
    *,
    trees: int,
    leaves: int,
    seed: int = 0,
) -> ForestBytes:
    """Learn one forest whose outputs compete: their softmax says which class a row is of.

    Args:
        numbers: float32 [n, features].
        targets: the class of each row, int [n]; each of ``outputs`` occurs.
        weights: how much a row counts, [n].
        features, outputs: their names.
        trees: of each output.
        leaves: of each tree at most.
        seed: the same seed learns the same trees.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=0.13,
        max_leaf_nodes=leaves,
        min_samples_leaf=20,
        l2_regularization=3.0,
        max_features=0.25,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(numbers, targets, sample_weight=weights)
    base = np.ravel(model._baseline_prediction).tolist()
    grown = [stage[place].nodes for place in range(len(outputs)) for stage in model._predictors]
    return _packed(base, [len(model._predictors)] * len(outputs), grown, features, outputs)
