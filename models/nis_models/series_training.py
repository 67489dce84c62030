"""Learns the judge of series, and proves it on families of series and mechanisms of faults it never saw.

Written beside the model: ``series.bin``, what the device loads, and ``series.json``, what was measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from joblib import Parallel, delayed
from msgspec.structs import replace

from nis_edge.monitor import shapes
from nis_edge.monitor.series import look_at
from nis_edge.monitor.series_judge import LABELS, SeriesBytes, SeriesJudge, pack
from nis_edge.monitor.tables import Forest, ForestBytes
from nis_models import boosting
from nis_models.series_faults import HELD_OUT, Made, draw, draw_series, load

Array = np.ndarray[Any, Any]

TREES: Final = 55
LEAVES: Final = 22
DRAWN_SERIES: Final = 40
FEATURES: Final = 110
"""Numbers that trees may look at: the most telling by a quick forest over the same windows."""

NONE_SHARE: Final = 0.3
"""Of windows drawn: the healthy have more ways to look than any fault."""

WEAK: Final = 0.15
WEAK_COUNTS: Final = 0.3
"""A weak fault counts less: the judge must not see faults where there are none."""

RULES_MOST: Final = 2000
"""Windows of each test that the rules are tried on."""

SMOKE: Final = 1600
RESAMPLES: Final = 1000


def train_series(args: argparse.Namespace) -> int:
    """`nis-models train-series`."""
    real = load(args.data)
    count = SMOKE if args.smoke else args.windows
    trees = 8 if args.smoke else TREES
    began = time.process_time()
    series = real + draw_series(DRAWN_SERIES, args.seed)
    _say(f"{len(real)} real series, {DRAWN_SERIES} drawn; drawing {count} windows")
    made = list(draw(series, count, args.seed, weak=WEAK, none_share=NONE_SHARE))
    rows = _numbers(made)
    report = evaluate(made, rows, trees, args.seed, () if args.smoke else ("LR",), args.workers)
    everything = np.arange(len(made))
    forest = learn(made, rows, everything, trees, args.seed)
    base = np.frombuffer(forest.base, dtype="<f4").copy()
    base[0] += report["caution"]
    forest = replace(forest, base=base.tobytes())
    judge = SeriesBytes(forest=forest, temperature=report["temperature"])
    data = pack(judge)
    SeriesJudge(data)
    report |= {
        "seed": args.seed, "windows": len(made), "trees": trees * len(LABELS), "leaves": LEAVES, "bytes": len(data),
        "features": len(shapes.names()), "method": METHOD,
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "series.bin").write_bytes(data)
    (args.out / "series.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _say(f"{args.out}/series.bin: {len(data)} bytes; {time.process_time() - began:.0f} s of processor time")
    print(table(report))
    return 0


METHOD: Final = (
    "Each family of real series is judged by trees that saw none of it (drawn series are always in training); 'new"
    " mechanisms' besides by trees that saw half of the families and none of the mechanisms held out, on those alone."
    " Balanced accuracy over eight classes on healthy windows and medium and strong faults; 95 % intervals by bootstrap"
    " over series. One number favours healthy windows; for each family it is fitted on the others. The temperature, one"
    " number too, is fitted on the same out-of-family scores. The shipped trees are learned on all families."
)


def learn(made: Sequence[Made], rows: Array, chosen: Array, trees: int, seed: int) -> ForestBytes:
    """Trees over the chosen windows; every class counts the same."""
    from sklearn.ensemble import ExtraTreesClassifier

    target, weights = _classes(made)[chosen], _weights(made, chosen)
    quick = ExtraTreesClassifier(30, max_features=30, min_samples_leaf=3, random_state=seed)
    few = np.random.default_rng(seed).permutation(len(chosen))[:5000]
    quick.fit(rows[chosen][few], target[few], sample_weight=weights[few])
    telling = np.sort(np.argsort(-quick.feature_importances_, kind="stable")[:FEATURES])
    features = [shapes.names()[place] for place in telling]
    return boosting.learn_together(
        rows[chosen][:, telling], target, weights, features, LABELS, trees=trees, leaves=LEAVES, seed=seed
    )


def _weights(made: Sequence[Made], chosen: Array) -> Array:
    target = _classes(made)[chosen]
    weights = np.where(np.array([made[place].strength == "weak" for place in chosen]), WEAK_COUNTS, 1.0)
    totals = np.bincount(target, weights, minlength=len(LABELS))
    weights = weights / totals[target]
    return np.asarray(weights / weights.mean())


def evaluate(
    made: Sequence[Made], rows: Array, trees: int, seed: int, baselines: Sequence[str], workers: int = 1
) -> dict[str, Any]:
    """All figures of the report."""
    family = np.array([one.family for one in made])
    families = sorted(set(family) - {"drawn"})
    scores = np.zeros((len(made), len(LABELS)))
    linear = np.full(len(made), -1)
    held = np.array([one.mechanism in HELD_OUT for one in made])
    half = set(families[::2])
    tasks = [(np.flatnonzero(family != name), np.flatnonzero(family == name)) for name in families]
    # Mechanisms and families both unseen: healthy windows stand beside the faults held out.
    strange = np.isin(family, list(half)) & (held | np.array([one.label == "none" for one in made]))
    tasks.append((np.flatnonzero(~np.isin(family, list(half)) & ~held), np.flatnonzero(strange)))
    new = np.zeros_like(scores)
    jobs = (delayed(_learn_and_score)(made, rows, rest, test, trees, seed) for rest, test in tasks)
    for place, found in enumerate(Parallel(n_jobs=workers, return_as="generator")(jobs)):
        rest, test = tasks[place]
        if place == len(families):
            new[test] = found
            continue
        scores[test] = found
        if "LR" in baselines:
            linear[test] = _linear(made, rows, rest, test)
        _say(f"{families[place]}: {_balanced(made, test, found.argmax(axis=1)):.3f}")
    real = np.flatnonzero(family != "drawn")
    # How much the healthy are favoured is one number; for each family it is fitted on the others.
    caution = _caution(made, real, scores)
    for name in families:
        own = family == name
        favour = _caution(made, real[family[real] != name], scores)
        scores[own, 0] += favour
        new[own, 0] += favour
    temperature = _temperature(scores[real], _classes(made)[real])
    probable = _softmax(scores / temperature)
    counted = np.array([one.strength != "weak" for one in made])
    main = real[counted[real]]
    said = scores.argmax(axis=1)
    report: dict[str, Any] = {
        "temperature": round(temperature, 4),
        "caution": round(caution, 4),
        "judge": _figures(made, main, said),
        "by_strength": {
            strength: _recalls(made, np.array([p for p in real if made[p].strength == strength]), said)
            for strength in ("weak", "medium", "strong")
        },
        "by_family": {
            name: round(
                _balanced(made, np.flatnonzero((family == name) & counted), said[(family == name) & counted]), 4
            )
            for name in families
        },
        "by_mechanism": _by_mechanism(made, main, said),
        "calibration_error": round(_calibration_error(probable[main], _classes(made)[main]), 4),
        "majority": round(1 / len(LABELS), 4),
    }
    few = np.random.default_rng(seed).permutation(main)[:RULES_MOST]
    by_rules = np.full(len(made), -1)
    for place in few:
        found = look_at([value if np.isfinite(value) else None for value in made[place].values.tolist()])
        by_rules[place] = 0 if found is None else LABELS.index(found.kind)
    report["rules"] = _figures(made, few, by_rules)
    if "LR" in baselines:
        report["logistic_regression"] = _figures(made, main, linear)
    test = np.flatnonzero(strange & counted)
    report["new_mechanisms"] = _figures(made, test, new.argmax(axis=1))
    return report


def _learn_and_score(made: Sequence[Made], rows: Array, rest: Array, test: Array, trees: int, seed: int) -> Array:
    return _scores(learn(made, rows, rest, trees, seed), rows[test])


def _caution(made: Sequence[Made], places: Array, scores: Array) -> float:
    """What is added to the score of ``none`` for the best balance of all classes, weak faults aside."""
    places = np.array([place for place in places if made[place].strength != "weak"])
    tried = np.linspace(-1.0, 2.5, 36)
    found = []
    for more in tried:
        moved = scores[places].copy()
        moved[:, 0] += more
        found.append(_balanced([made[place] for place in places], np.arange(len(places)), moved.argmax(axis=1)))
    return float(tried[int(np.argmax(found))])


def _numbers(made: Sequence[Made]) -> Array:
    windows = np.stack([one.values for one in made])
    return np.concatenate([shapes.numbers(windows[at : at + 2048]) for at in range(0, len(windows), 2048)])


def _classes(made: Sequence[Made]) -> Array:
    return np.array([LABELS.index(one.label) for one in made])


def _scores(forest: ForestBytes, rows: Array) -> Array:
    return np.asarray(Forest(forest, shapes.names()).many(rows), dtype=np.float64)


def _linear(made: Sequence[Made], rows: Array, rest: Array, test: Array) -> Array:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rest = rest[:6000]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=400, tol=1e-3))
    model.fit(rows[rest], _classes(made)[rest], logisticregression__sample_weight=_weights(made, rest))
    return np.asarray(model.predict(rows[test]))


def _softmax(scores: Array) -> Array:
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))


def _temperature(scores: Array, truth: Array) -> float:
    """The divisor under which what happened was likeliest."""
    tried = np.geomspace(0.4, 4.0, 47)
    losses = [-np.log(_softmax(scores / t)[np.arange(len(truth)), truth] + 1e-12).mean() for t in tried]
    return float(tried[int(np.argmin(losses))])


def _calibration_error(probable: Array, truth: Array) -> float:
    """Of the stated class: expected difference of confidence and share right, over ten bins of equal mass."""
    sure, right = probable.max(axis=1), probable.argmax(axis=1) == truth
    parts = np.array_split(np.argsort(sure), 10)
    return float(sum(len(part) * abs(sure[part].mean() - right[part].mean()) for part in parts) / len(truth))


def _balanced(made: Sequence[Made], places: Array, said: Array) -> float:
    """Mean recall of the classes that occur; ``said`` of each of ``places``."""
    truth = _classes([made[place] for place in places])
    return float(np.mean([(said[truth == one] == one).mean() for one in np.unique(truth)]))


def _recalls(made: Sequence[Made], places: Array, said: Array) -> dict[str, float]:
    truth = _classes([made[place] for place in places])
    return {LABELS[one]: round(float((said[places][truth == one] == one).mean()), 3) for one in np.unique(truth)}


def _figures(made: Sequence[Made], places: Array, said: Array) -> dict[str, Any]:
    truth = _classes([made[place] for place in places])
    codes = np.unique([made[place].series for place in places], return_inverse=True)[1]
    windows = np.zeros((codes.max() + 1, len(LABELS)))
    right = np.zeros_like(windows)
    np.add.at(windows, (codes, truth), 1.0)
    np.add.at(right, (codes, truth), said[places] == truth)
    # Series are drawn anew, with all their windows.
    drawn = np.random.default_rng(0).integers(len(windows), size=(RESAMPLES, len(windows)))
    totals = windows[drawn].sum(axis=1)
    recalls = right[drawn].sum(axis=1) / np.where(totals > 0, totals, np.nan)
    recalls = recalls[np.isfinite(recalls).all(axis=1)]
    recall = right.sum(axis=0) / windows.sum(axis=0)

    def interval(values: Array) -> list[float] | None:
        if len(recalls) < RESAMPLES // 2:
            return None
        return [round(float(edge), 4) for edge in np.percentile(values, (2.5, 97.5))]

    return {
        "windows": len(places),
        "series": len(windows),
        "balanced_accuracy": round(float(recall.mean()), 4),
        "interval": interval(recalls.mean(axis=1)),
        "recall": {label: round(float(share), 4) for label, share in zip(LABELS, recall, strict=True)},
        "recall_interval": {label: interval(recalls[:, one]) for one, label in enumerate(LABELS)},
        "said": {
            LABELS[one]: {
                LABELS[other]: int((said[places][truth == one] == other).sum()) for other in range(len(LABELS))
            }
            for one in range(len(LABELS))
        },
    }


def _by_mechanism(made: Sequence[Made], places: Array, said: Array) -> dict[str, float]:
    names = sorted({f"{made[p].label}: {made[p].mechanism}" for p in places if made[p].mechanism})
    right: dict[str, list[bool]] = {name: [] for name in names}
    for p in places:
        if made[p].mechanism:
            right[f"{made[p].label}: {made[p].mechanism}"].append(LABELS[said[p]] == made[p].label)
    return {name: round(float(np.mean(hits)), 3) for name, hits in right.items()}


def table(report: dict[str, Any]) -> str:
    """The report for a reader."""
    rows = [("judge", "judge"), ("new_mechanisms", "judge, new mechanisms"), ("rules", "rules alone")]
    rows += [("logistic_regression", "logistic regression")] if "logistic_regression" in report else []
    lines = [f"| balanced accuracy, 8 classes | 95 % | {' | '.join(LABELS)} |", "|" + "---|" * (len(LABELS) + 2)]
    for key, name in rows:
        one = report[key]
        interval = "unknown" if one["interval"] is None else f"{one['interval'][0]:.2f} - {one['interval'][1]:.2f}"
        recalls = " | ".join(f"{one['recall'].get(label, float('nan')):.2f}" for label in LABELS)
        lines.append(f"| {name}: {one['balanced_accuracy']:.3f} | {interval} | {recalls} |")
    lines.append(f"| majority: {report['majority']:.3f} | | |")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
