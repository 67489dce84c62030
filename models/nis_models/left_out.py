"""One system left out: judges, weights and thresholds made without any window of it, then tried on it.

The network is not trained once more for each system, so the figures are of trees and perceptron, weighed together. A
system that nothing was learned from needs none of this: its row is the package as it ships.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nis_models import evaluate, evidence_judges, fusion
from nis_models.scenarios import Item, targets_of

Array = np.ndarray[Any, Any]


def judged_without(
    source: str,
    items: Mapping[str, Sequence[Item]],
    numbers: Mapping[str, tuple[Array, Array]],
    learned: Mapping[str, Any],
    language: evidence_judges.Language,
    *,
    folder: Path,
    progress: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Figures on a source's test windows.

    Args:
        source: what is left out.
        items: the train windows to learn from, the whole tune and the whole test split.
        numbers: of tune and test, from ``evidence_judges.kept_numbers``.
        learned: how the package's tables were learned: ``trees_windows``, ``seed``.
        language: of the package.
        folder: of the data set.
        progress: told of each step.
    """
    train = [targets_of(item) for item in items["train"]]
    packed = evidence_judges.learn(
        items["train"],
        np.array([pair[0] for pair in train]),
        np.array([pair[1] for pair in train]),
        language,
        folder=folder,
        trees_windows=learned["trees_windows"],
        without=source,
        seed=learned["seed"],
        progress=progress,
    )
    others = np.flatnonzero([item.source != source for item in items["tune"]])
    own = np.flatnonzero([item.source == source for item in items["test"]])
    tune, test = [items["tune"][row] for row in others], [items["test"][row] for row in own]
    targets, counted = (np.array(column) for column in zip(*map(targets_of, tune), strict=True))
    said = evidence_judges.scores(packed, *(part[others] for part in numbers["tune"]))
    weights = fusion.learn(said, targets, counted)
    calibration = evaluate.calibrate(fusion.across(said, targets, counted, [item.group for item in tune]), tune)
    z = fusion.fused(evidence_judges.scores(packed, *(part[own] for part in numbers["test"])), weights)
    return evaluate.score(z, test, calibration)
