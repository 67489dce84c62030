"""How trees, perceptron and model are weighed: a logistic regression for each output, on windows none learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from nis_edge.monitor.tables import RAW_MAX

Array = np.ndarray[Any, Any]

PARTS: Final = ("trees", "perceptron", "model")

OWN: Final = {"trees": 1.0, "perceptron": 1.0, "model": 0.5}
OTHERS: Final = {"trees": 0.25, "perceptron": 0.25, "model": 0.0}
"""Size at which a judge's scores enter: of the output that is weighed, and of the others, which may correct, not carry.
A smaller score pays more for its weight; the model, the weakest alone, speaks for its own output only."""

STRENGTH: Final = 0.03
"""Of the penalty's inverse. All were chosen on tune windows, groups left out and sources left out."""


def learn(parts: dict[str, Array], targets: Array, counted: Array) -> Array:
    """Weights [outputs, 3 * outputs + 1] of the judges' scores, float32; a judge that is left out weighs nothing.

    Args:
        parts: of ``PARTS``, name -> scores [n, outputs].
        targets: 0 or 1, [n, outputs].
        counted: whether a target is known, [n, outputs].
    """
    from sklearn.linear_model import LogisticRegression

    outputs = targets.shape[1]
    seen = np.concatenate([_clipped(parts.get(name), len(targets), outputs) for name in PARTS], axis=1)
    spread = seen.std(axis=0)
    # A judge that says the same of every window weighs nothing; its spread is zero but for rounding.
    speaks = spread > 1e-6
    scale = np.where(speaks, 1.0 / np.where(speaks, spread, 1.0), 0.0)
    weights = np.zeros((outputs, 3 * outputs + 1), dtype=np.float64)
    for output in range(outputs):
        rows = counted[:, output] > 0
        y = targets[rows, output] > 0
        size = np.concatenate([np.full(outputs, OTHERS[name]) for name in PARTS])
        size[output::outputs] = [OWN[name] for name in PARTS]
        if y.sum() < 5 or (~y).sum() < 5:
            # Nothing to learn from: the mean of those who speak.
            weights[output, output:-1:outputs] = speaks[output::outputs] / max(1, len(parts))
            continue
        fitted = LogisticRegression(C=STRENGTH, max_iter=400).fit(seen[rows] * scale * size, y)
        weights[output, :-1] = fitted.coef_[0] * scale * size
        weights[output, -1] = fitted.intercept_[0]
    return weights.astype(np.float32)


def fused(parts: dict[str, Array], weights: Array) -> Array:
    """Fused raw outputs [n, outputs], as the device computes them."""
    outputs = weights.shape[0]
    count = len(next(iter(parts.values())))
    seen = np.concatenate([_clipped(parts.get(name), count, outputs) for name in PARTS], axis=1)
    return np.asarray(seen @ weights[:, :-1].T.astype(np.float64) + weights[:, -1])


def across(
    parts: dict[str, Array], targets: Array, counted: Array, groups: Sequence[str], folds: int = 5, seed: int = 0
) -> Array:
    """Fused raw outputs of windows whose own weights were learned without their group: what calibration rests on."""
    result = np.zeros(targets.shape, dtype=np.float64)
    _, member = np.unique(np.array(groups), return_inverse=True)
    place = (np.random.default_rng(seed).permutation(int(member.max()) + 1) % folds)[member]
    for fold in range(folds):
        rest = place != fold
        weights = learn({name: z[rest] for name, z in parts.items()}, targets[rest], counted[rest])
        result[~rest] = fused({name: z[~rest] for name, z in parts.items()}, weights)
    return result


def _clipped(scores: Array | None, count: int, outputs: int) -> Array:
    if scores is None:
        return np.zeros((count, outputs))
    return np.clip(scores.astype(np.float64), -RAW_MAX, RAW_MAX)
