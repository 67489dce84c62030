"""Judges of windows: each gives a logit for every head output, so that all are scaled and scored alike.

The packed model is asked through the device's own engine; a checkpoint through torch; the baselines know only what
``features`` lets them know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nis_edge.errors import ConfigError
from nis_edge.judgement import WindowReader
from nis_edge.monitor import tables
from nis_edge.monitor.labels import HEAD_OUTPUTS
from nis_edge.monitor.window import render
from nis_models import evidence_judges, features, fusion
from nis_models.scenarios import Item, targets_of

if TYPE_CHECKING:
    from nis_edge.engine.model import Model

Array = np.ndarray[Any, Any]
Judge = Callable[[Sequence[Item]], Array]
"""Items in, float [n, outputs] logits out."""

BASELINE_ITEMS_MAX: Final = 10_000
"""Items a baseline learns from: more moves its figures by less than their intervals."""

WITHOUT_MODEL: Final = "without_model"

BASELINES: Final = ("majority", "length", "words", "evidence")


def packed(model: Model) -> Judge:
    """The package as the device asks it: its model, with its tables where it has some."""

    def judge(items: Sequence[Item]) -> Array:
        reader = WindowReader(model)
        try:
            return np.array([reader.raw_of(item.window)[0] for item in items], dtype=np.float64)
        finally:
            reader.close()

    return judge


def parts(
    model: Model, folder: Path, sets: Mapping[str, Sequence[Item]], weighed_on: Sequence[Item]
) -> dict[str, Judge]:
    """The package, each of its judges alone, and its tables weighed without its model; every window looked at once.

    Args:
        model: an open package.
        folder: of the data set that the sets are the beginnings of.
        sets: split -> its items; the judges know only these very lists.
        weighed_on: the whole tune split, whose beginning ``sets`` holds: what the package's own weights rest on.
    """
    raw = model.tables
    if raw is None:
        return {"model": packed(model)}
    decoded = tables.decode(raw)
    count = len(HEAD_OUTPUTS)
    weights = np.frombuffer(decoded.weights, dtype="<f4").reshape(count, 3 * count + 1)
    language = evidence_judges.Language.of(decoded)
    seen: dict[str, dict[int, Array]] = {
        name: {} for name in ("model", "package_trees", "perceptron", "alone", WITHOUT_MODEL)
    }
    targets, counted = (np.array(column) for column in zip(*map(targets_of, weighed_on), strict=True))
    tuned = evidence_judges.scores(decoded, *evidence_judges.kept_numbers(folder, "tune", weighed_on, language))
    tables_only = fusion.learn(tuned, targets, counted)
    for split, items in sets.items():
        numbers, meant = evidence_judges.kept_numbers(folder, split, items, language)
        said = {**evidence_judges.scores(decoded, numbers, meant), "model": alone(model)(items)}
        seen["model"][id(items)] = fusion.fused(said, weights)
        seen["alone"][id(items)] = said["model"]
        seen["package_trees"][id(items)] = said["trees"]
        seen["perceptron"][id(items)] = said["perceptron"]
        seen[WITHOUT_MODEL][id(items)] = (
            fusion.across(tuned, targets, counted, [item.group for item in weighed_on])[: len(items)]
            if split == "tune"
            else fusion.fused({name: said[name] for name in tuned}, tables_only)
        )
    return {name: lambda items, by_list=by_list: by_list[id(items)] for name, by_list in seen.items()}


def known_numbers(model: Model, folder: Path, sets: Mapping[str, Sequence[Item]]) -> dict[int, Array]:
    """Evidence of each set's beginning, as far as a baseline needs it, by the ``id`` of the set's list."""
    if model.tables is None:
        return {}
    language = evidence_judges.Language.of(tables.decode(model.tables))
    return {
        id(items): evidence_judges.kept_numbers(
            folder, split, items[:BASELINE_ITEMS_MAX] if split == "train" else items, language
        )[0]
        for split, items in sets.items()
    }


def alone(model: Model) -> Judge:
    """The packed model without the package's tables, by the engine of the device."""

    def judge(items: Sequence[Item]) -> Array:
        reader = WindowReader(model)
        try:
            return np.array([reader.raw(render(item.window))[0] for item in items], dtype=np.float64)
        finally:
            reader.close()

    return judge


def checkpoint(path: Path, tokenizer_path: Path, *, ternary: bool = True) -> Judge:
    """Weights of a training run, by torch; a float twin's are not rounded.

    Raises:
        ConfigError: there are none; the operator trains first.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; it is the model.pt of a complete run of nis-models train")
    import torch

    from nis_models.model import NisNano, Shape
    from nis_models.tokens import LearnedTokenizer
    from nis_models.train import examples_of, predict

    state = torch.load(path, weights_only=True)
    shape = Shape(**state["shape"]) if "shape" in state else Shape()
    model = NisNano(shape, ternary=ternary)
    model.load_state_dict(state["model"])
    tokenizer = LearnedTokenizer.read(tokenizer_path)

    def judge(items: Sequence[Item]) -> Array:
        return predict(model, examples_of(list(items), tokenizer)).astype(np.float64)

    return judge


def baseline(
    name: str, train: Sequence[Item], *, trees: bool = False, numbers: Mapping[int, Array] | None = None
) -> Judge:
    """A judge that is not a language model.

    Args:
        name: ``majority`` (the label's frequency), ``length`` (how much was said), ``words`` (TF-IDF), ``evidence``.
        train: what it learns from.
        trees: boosted trees in place of logistic regression, for ``evidence``.
        numbers: evidence that is known already, by the ``id`` of the list whose beginning it is of.
    """
    items = list(train)[:BASELINE_ITEMS_MAX]
    pairs = [targets_of(item) for item in items]
    targets = np.array([pair[0] for pair in pairs])
    counted = np.array([pair[1] for pair in pairs]) > 0
    look = _look(name, items, trees=trees)
    kept = numbers if numbers is not None and name == "evidence" else {}

    def looked(new: Sequence[Item], count: int) -> Any:
        known = kept.get(id(new))
        return look(list(new)[:count]) if known is None else features.of_numbers(known[:count], flags=not trees)

    seen = looked(train, len(items))
    learned = [_learn(name, seen, targets[:, i], counted[:, i], trees=trees) for i in range(len(HEAD_OUTPUTS))]

    def judge(new: Sequence[Item]) -> Array:
        shown = looked(new, len(new))
        return np.stack([score(shown) for score in learned], axis=1)

    return judge


def _look(name: str, items: list[Item], *, trees: bool) -> Callable[[list[Item]], Any]:
    if name == "words":
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(ngram_range=(1, 2), min_df=3, max_features=30_000, sublinear_tf=True)
        words.fit(features.texts(item.window for item in items))
        return lambda new: words.transform(features.texts(item.window for item in new))
    if name == "length":
        return lambda new: features.lengths(item.window for item in new)
    if name == "evidence":
        return lambda new: features.vectors((item.window for item in new), flags=not trees)
    return lambda new: np.zeros((len(new), 1), dtype=np.float32)


def _learn(name: str, seen: Any, target: Array, counted: Array, *, trees: bool) -> Callable[[Any], Array]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.flatnonzero(counted)
    y = target[rows]
    frequency = float(np.clip(y.mean() if len(y) else 0.5, 1e-4, 1 - 1e-4))
    constant = float(np.log(frequency / (1 - frequency)))
    if name == "majority" or len(set(y.tolist())) < 2:
        return lambda shown: np.full(shown.shape[0], constant)
    if trees:
        model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, random_state=0)
        # A number that none of these windows has parts nothing; scikit-learn would stumble over it.
        model.fit(np.where(np.isnan(seen[rows]).all(axis=0), np.float32(0.0), seen[rows]), y)
        return lambda shown: np.asarray(model.decision_function(shown), dtype=np.float64)
    regression = LogisticRegression(C=1.0 if name != "words" else 10.0, max_iter=400)
    fitted = regression if name == "words" else make_pipeline(StandardScaler(), regression)
    fitted.fit(seen[rows], y)
    return lambda shown: np.asarray(fitted.decision_function(shown), dtype=np.float64)
