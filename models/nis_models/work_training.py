"""What the heavy commands do: training, evaluation, export."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nis_edge.errors import ConfigError, ModelError
from nis_edge.monitor import tables
from nis_edge.monitor.labels import LABELS
from nis_models import config as configs
from nis_models import data
from nis_models.tokens import LearnedTokenizer, learn, texts_of

SMOKE_WINDOWS = 640
SMOKE_BATCHES = 40


def train(args: argparse.Namespace) -> int:
    """Train, or go on training."""
    from nis_models.train import Run

    config = configs.read(args.config)
    if args.smoke:
        return _smoke(config)
    if not args.tokenizer.is_file():
        raise ConfigError(f"{args.tokenizer} is missing; run nis-models tokenizer first, nothing was trained")
    tokenizer = LearnedTokenizer.read(args.tokenizer)
    if args.start_from is not None and not args.start_from.is_file():
        raise ConfigError(f"{args.start_from} is missing; --start-from takes the model.pt of a complete run")
    split = data.manifest_of(args.data)["splits"]["train"]
    made_of = {"sha256": split["sha256"], "items": split["items"], "sources": data.sources_of(split["counts"])}
    out = args.out
    if args.float_twin:
        out = args.out.with_name(f"{args.out.name}-float")
        _fork(args.out, out)
    examples = _examples(args, config, tokenizer, split["sha256"])
    options = {
        "data": made_of,
        "ternary": not args.float_twin,
        "start": args.start_from,
        "vectors": args.vectors,
        "workers": args.workers,
    }
    mates = _join(args.workers, config, out, examples, options)
    run = Run(config, out, examples, **options)
    with _shown(run.steps) as show:
        complete = run.go(show, stop_s=args.stop_after, stop_at=args.stop_at)
    for mate in mates:
        mate.join()
    print(f"{'complete' if complete else 'stopped'} at step {run.step} of {run.steps}; {out}")
    return 0


def _examples(args: argparse.Namespace, config: configs.Config, tokenizer: LearnedTokenizer, sha256: str) -> Any:
    """Windows as numbers, from a copy beside the data where there is one of the same data and tokenizer."""
    from nis_models.train import Examples, examples_of

    count = config.train.drawn_from or config.train.windows
    name = hashlib.sha256(f"{sha256} {count} {tokenizer.source}".encode()).hexdigest()[:16]
    kept = args.data / f"examples-{name}.npz"
    if kept.is_file():
        return Examples.load(kept)
    print("rendering windows ...", flush=True)
    # Only windows that will be shown are rendered: rendering takes longer than reading.
    examples = examples_of(data.read(args.data, "train")[:count], tokenizer)
    examples.save(kept)
    return examples


def _join(workers: int, config: configs.Config, out: Path, examples: Any, options: dict[str, Any]) -> list[Any]:
    """Start the other workers and meet them."""
    if workers == 1:
        return []
    import torch.multiprocessing

    context = torch.multiprocessing.get_context("spawn")
    meeting = Path(tempfile.mkdtemp()) / "meeting"
    mates = [
        context.Process(target=_help, args=(rank, meeting, config, out, examples, options), daemon=True)
        for rank in range(1, workers)
    ]
    for mate in mates:
        mate.start()
    _meet(meeting, 0, workers)
    return mates


def _meet(meeting: Path, rank: int, workers: int) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)


def _help(rank: int, meeting: Path, config: configs.Config, out: Path, examples: Any, options: dict[str, Any]) -> None:
    """A further worker: the same steps on its share of each batch; it writes nothing."""
    from nis_models.train import Run

    _meet(meeting, rank, options["workers"])
    Run(config, out, examples, rank=rank, **options).go(lambda _entry: None)


def _fork(run: Path, twin: Path) -> None:
    """Let a float twin begin where the run begins to round."""
    from nis_models.train import HALFWAY

    if not (run / HALFWAY).is_file():
        raise ConfigError(f"{run / HALFWAY} is missing; a float twin needs a run that has come past its first half")
    twin.mkdir(parents=True, exist_ok=True)
    if not (twin / "checkpoint.pt").is_file():
        shutil.copyfile(run / HALFWAY, twin / "checkpoint.pt")


def _smoke(config: configs.Config) -> int:
    """A minute's training on data of its own: the loss must fall."""
    from nis_models.train import Run, examples_of

    with tempfile.TemporaryDirectory() as folder:
        items = list(data.draw("train", SMOKE_WINDOWS, None, 0))
        tokenizer = LearnedTokenizer(learn(texts_of(items)))
        short = replace(config.train, windows=SMOKE_BATCHES * config.train.batch_windows, warmup_steps=10)
        run = Run(replace(config, train=short), Path(folder), examples_of(items, tokenizer))
        before = _mean_loss(run)
        run.go(lambda entry: print(_line(entry), flush=True))
        after = _mean_loss(run)
    print(f"loss {before:.3f} before, {after:.3f} after {run.step} steps")
    if after >= before:
        raise ModelError(
            "the loss did not fall in the smoke training; the training code is broken, nothing was written"
        )
    return 0


def _mean_loss(run: Any) -> float:
    import torch

    from nis_models.train import loss_of, predict

    few = replace(
        run.examples,
        tokens=run.examples.tokens[:256],
        targets=run.examples.targets[:256],
        counted=run.examples.counted[:256],
    )
    outputs = torch.from_numpy(predict(run.model, few))
    return float(loss_of(outputs, torch.from_numpy(few.targets), torch.from_numpy(few.counted), run.config))


def make_vectors(args: argparse.Namespace) -> int:
    """Bring in word vectors."""
    from nis_models import vectors

    made = vectors.build(args.tokenizer, args.out, configs.read(args.config).shape.hidden)
    print(f"vectors of {made['words']} words and {made['pieces']} pieces written to {args.out}")
    return 0


def make_tables(args: argparse.Namespace) -> int:
    """Learn the judges of evidence."""
    from nis_models import evidence_judges

    items = data.read(args.data, "train")[: args.windows]
    from nis_models.scenarios import targets_of

    if args.encoder is not None:
        from nis_models import encoder

        language = evidence_judges.Language.of_encoder(encoder.read(args.encoder))
    else:
        language = evidence_judges.Language.of_words(args.vectors)
    pairs = [targets_of(item) for item in items]
    learned = evidence_judges.learn(
        items,
        np.array([pair[0] for pair in pairs]),
        np.array([pair[1] for pair in pairs]),
        language,
        folder=args.data,
        trees_windows=args.trees_windows,
        seed=args.seed,
        progress=lambda line: print(line, flush=True),
    )
    if args.runs is not None:
        learned = msgspec.structs.replace(learned, series=evidence_judges.learn_feeds(args.runs, seed=args.seed))
    write_tables(learned, args.out, args.data, len(items), args.trees_windows, args.seed)
    print(f"{args.out.stat().st_size / 1e6:.2f} MB written to {args.out}")
    return 0


def write_tables(
    learned: tables.TableBytes, out: Path, folder: Path, windows: int, trees_windows: int | None, seed: int
) -> None:
    """Write tables, and beside them what they were made of."""
    from nis_models import evidence_judges

    out.write_bytes(tables.encode(learned))
    split = data.manifest_of(folder)["splits"]["train"]
    made_of = {
        "sha256": split["sha256"],
        "windows": windows,
        "trees_windows": windows if trees_windows is None else min(windows, trees_windows),
        "seed": seed,
        "sources": data.sources_of(split["counts"]),
        **(
            {"word_vectors": "all-MiniLM-L6-v2 (Apache-2.0)"}
            if learned.encoder is None
            else {"encoder": f"{learned.encoder.origin} ({learned.encoder.licence})"}
        ),
        "feeds": evidence_judges.FEEDS if learned.series is not None else 0,
    }
    out.with_suffix(".json").write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")


class _Shown:
    """Progress: a bar on a terminal, lines elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._bar: Any = None

    def __enter__(self) -> Callable[[dict[str, float]], None]:
        import sys

        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar.start()
            self._task = self._bar.add_task("training", total=self._steps)
        return self._show

    def __exit__(self, *_exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, entry: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=entry["step"], description=f"loss {entry['loss']:.3f}")
        else:
            print(_line(entry), flush=True)


def _shown(steps: int) -> _Shown:
    return _Shown(steps)


def _line(entry: dict[str, float]) -> str:
    return f"step {entry['step']}/{entry['steps']}  loss {entry['loss']:.3f}  {entry['tokens_per_s']} tokens/s"


def export_model(args: argparse.Namespace) -> int:
    """Calibrate and pack."""
    from nis_models import export

    config = configs.read(args.config)
    tokenizer = LearnedTokenizer.read(args.tokenizer)
    model = export.load(args.run_folder / "model.pt")
    manifest = data.manifest_of(args.data)
    log = [json.loads(line) for line in (args.run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    lineage = {
        "training": export.origin_of(args.run_folder / "model.pt"),
        "tuned_on_sha256": manifest["splits"]["tune"]["sha256"],
        "last_loss": log[-1]["loss"],
        "card": "models/cards/nis-nano.md",
        "metrics": "models/nis-nano/metrics.json",
    }
    learned = None
    if args.tables is not None:
        if not args.tables.is_file():
            raise ConfigError(f"{args.tables} is missing; run nis-models tables first, nothing was written")
        learned = tables.decode(args.tables.read_bytes())
        lineage["tables"] = json.loads(args.tables.with_suffix(".json").read_text(encoding="utf-8"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sha256, calibration = export.export(
        model,
        tokenizer,
        data.read(args.data, "tune"),
        args.out,
        model_id=config.name,
        version=args.version,
        lineage=lineage,
        learned=learned,
    )
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, sha256 {sha256}")
    if args.behaviour is not None:
        print(f"{export.write_behaviour(args.out, args.behaviour)} windows pinned in {args.behaviour}")
    print(
        "thresholds: " + ", ".join(f"{label} {t:.2f}" for label, t in zip(LABELS, calibration.thresholds, strict=False))
    )
    return 0
