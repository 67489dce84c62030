"""`nis-edge logits`: the numbers behind a model's answer, so that anyone can compare us with an oracle, or two CPUs."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nis_edge.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DESCRIPTION = (
    "Write the float32 logits [tokens, vocab] of a model for given token ids as a NumPy file. They are the same bits\n"
    "for every instruction set and number of threads; the printed SHA-256 is of their little-endian bytes."
)
EXAMPLE = "nis-edge logits -m model.nis --tokens 1,2,3 -o logits.npy --isa scalar --threads 2"

TOKENS_MAX: Final = 65_536
"""Ids on one command line; Linux allows about 128 KiB for one argument."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-m", "--model", metavar="PKG", type=Path, required=True, help="the package")
    parser.add_argument("--tokens", metavar="IDS", required=True, help="token ids, separated by commas")
    parser.add_argument("-o", "--output", metavar="OUT.npy", type=Path, required=True, help="the file to write")
    parser.add_argument("--isa", metavar="NAME", help="instruction set (default: the best this CPU offers)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)")
    parser.add_argument("--kv", choices=("F32", "F16", "I8"), default="F32", help="how keys and values are kept")
    parser.add_argument("--chunk", metavar="N", type=int, help="read N tokens at a time: the bits stay the same")
    parser.add_argument(
        "--save-at", metavar="N", type=int, help="after N tokens save the session, restore it and go on: the same bits"
    )
    parser.add_argument(
        "--backend",
        choices=tuple(BACKENDS),
        default="native",
        help="onnx: ONNX Runtime, needs the extra; reference: numpy, slow",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(args: argparse.Namespace) -> int:
    """Compute and write; 0 when the file is there.

    Raises:
        ConfigError: the token ids are no ids (the operator acts).
        ModelError: the package can't be used, or the tokens do not fit it.
    """
    import numpy as np

    tokens = parse_tokens(args.tokens)
    logits, isa = BACKENDS[args.backend](args, tokens)
    partial = args.output.with_name(f".{args.output.name}.partial")
    try:
        with partial.open("wb") as file:
            np.save(file, logits.astype("<f4", copy=False))
        partial.replace(args.output)
    finally:
        partial.unlink(missing_ok=True)
    digest = hashlib.sha256(np.ascontiguousarray(logits, dtype="<f4").tobytes()).hexdigest()
    if args.json:
        facts = {"output": str(args.output), "shape": list(logits.shape), "sha256": digest, "isa": isa}
        print(json.dumps({**facts, "backend": args.backend, "threads": args.threads}))
    else:
        rows, columns = logits.shape
        print(f"{args.output}  float32 [{rows}, {columns}]  sha256 {digest}  ({args.backend}, {isa})")
    return 0


def parse_tokens(text: str) -> list[int]:
    """Token ids from a comma-separated list.

    Raises:
        ConfigError: not such a list, or too long a one.
    """
    words = text.split(",")
    if len(words) > TOKENS_MAX:
        raise ConfigError(f"--tokens: {len(words)} ids, at most {TOKENS_MAX} are taken")
    for number, word in enumerate(words, start=1):
        if not (word.strip().isascii() and word.strip().isdigit() and len(word.strip()) <= 9):
            raise ConfigError(f"--tokens: entry {number}, {word[:20]!r}, is no token id; write for example 1,2,3")
    return [int(word) for word in words]


def _native(args: argparse.Namespace, tokens: list[int]) -> tuple[npt.NDArray[np.float32], str]:
    import numpy as np

    from nis_edge.engine.model import Model

    chunk = args.chunk if args.chunk is not None else len(tokens)
    if chunk < 1:
        raise ConfigError(f"--chunk {chunk}: 1 or more")
    if args.save_at is not None and not 0 < args.save_at < len(tokens):
        raise ConfigError(f"--save-at {args.save_at}: 1 to {len(tokens) - 1}, one less than there are tokens")
    edges = sorted({*range(0, len(tokens), chunk), len(tokens), args.save_at or 0})
    logits = []
    with Model.open(args.model, threads=args.threads, isa=args.isa) as model:
        session = model.session(max_positions=min(len(tokens), model.manifest.architecture.context), kv=args.kv)
        if len(tokens) > session.max_positions:
            edges = [0, len(tokens)]  # refused whole, before anything is computed
        for start, end in itertools.pairwise(edges):
            if start and start == args.save_at:
                session = model.restore(session.save())
            logits.append(session.forward(tokens[start:end], all_positions=True))
        return np.concatenate(logits), model.isa


def _only_native(args: argparse.Namespace) -> None:
    if args.kv != "F32" or args.chunk is not None or args.save_at is not None:
        raise ConfigError("--kv, --chunk and --save-at belong to the native backend")


def _reference(args: argparse.Namespace, tokens: list[int]) -> tuple[npt.NDArray[np.float32], str]:
    from nis_edge.engine.reference import reference_logits
    from nis_edge.pack.reader import open_package

    _only_native(args)
    if args.isa is not None or args.threads != 1:
        raise ConfigError("--isa belongs to the native backend and --threads to native and onnx")
    with open_package(args.model) as package:
        logits: Any = reference_logits(package, tokens, all_positions=True)
        return logits, "numpy"


def _onnx(args: argparse.Namespace, tokens: list[int]) -> tuple[npt.NDArray[np.float32], str]:
    from nis_edge.onnx_backend import OnnxModel

    _only_native(args)
    if args.isa is not None:
        raise ConfigError("--isa belongs to the native backend")
    with OnnxModel(args.model, threads=args.threads) as model:
        return model.session().forward(tokens, all_positions=True), model.isa


BACKENDS: Final = {"native": _native, "onnx": _onnx, "reference": _reference}
