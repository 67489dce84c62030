"""Drive damaged inputs through every reader: `.venv/bin/python -m tests.fuzz.readers --cases 20000 --seed 7`.

Every case ends as a whole package, checked to the last byte and (one in eight) run by the engine, or as one clear line
of our own errors; anything else stops the run with the case's name and keeps its files. The process is held to an
address space of 3 GiB and each case to 20 s of CPU time, so that a file that asks for memory or time without end fails.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from nis_edge.engine.model import Model
from nis_edge.engine.tokenizer import Tokenizer
from nis_edge.errors import ModelError, NisEdgeError
from nis_edge.pack.checkpoint import Choices
from nis_edge.pack.gguf_checkpoint import read_gguf_checkpoint
from nis_edge.pack.huggingface import read_checkpoint
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from tests.fuzz.mutations import KINDS, make_case

ADDRESS_SPACE_BYTES = 3 << 30
CPU_SECONDS = 20
MESSAGE_CHARS = 1000


class Endless(BaseException):
    """A case used up its CPU time."""


def run_case(kind: str, seed: int, folder: Path, run_engine: bool) -> str:
    """Run one case in an empty folder.

    Returns:
        "package" or the class of the error it was refused with.

    Raises:
        AssertionError: the refusal is not one clear line. Whatever else escapes is a finding too.
    """
    for name, raw in make_case(kind, seed).items():
        (folder / name).write_bytes(raw)
    try:
        path = folder / "a.nis"
        if not kind.startswith("package"):
            _pack(kind, seed, folder, path)
        with open_package(path, check_content=True) as package:
            if package.manifest.tokenizer.kind != "none":
                tokenizer = Tokenizer.from_bytes(package.tensors["tokenizer"].tobytes())
                tokenizer.decode(tokenizer.encode("a b\n 12 é"))
        if run_engine:
            _run(path)
    except NisEdgeError as error:
        text = str(error)
        assert text and "\n" not in text and text.isprintable(), repr(text[:300])
        assert len(text) < MESSAGE_CHARS, f"{len(text)} characters: {text[:200]}"
        assert isinstance(error, ModelError), f"{type(error).__name__}: {text}"
        return type(error).__name__
    return "package"


def _pack(kind: str, seed: int, folder: Path, path: Path) -> None:
    if kind.startswith("gguf"):
        order = (None, "x86", "arm", "x86-rows")[seed % 4] if kind == "gguf-I2_S" else None
        choices = Choices(i2s_order=order or ("x86" if kind == "gguf-I2_S" else None), activation=None)
        source = read_gguf_checkpoint(folder / "a.gguf", choices=choices)
    else:
        source = read_checkpoint(folder, model_id="m")
    try:
        write_package(path, source.manifest, source.tensors)
    finally:
        source.close()


def _run(path: Path) -> None:
    """A model of damaged numbers computes something finite or says that it can't."""
    model = Model.open(path)
    try:
        positions = min(4, model.manifest.architecture.context)
        logits = model.session(positions).forward([0] * min(2, positions))
        assert np.isfinite(logits).all()
        model.screen_from(0)
        tokens, values = model.session(positions).best([0], 1)
        assert 0 <= tokens[0] < model.manifest.architecture.vocab and np.isfinite(values).all()
    finally:
        model.close()


def run_cases(cases: int, first_seed: int, kinds: tuple[str, ...] = KINDS) -> Counter[str]:
    """Run ``cases`` cases, spread over the kinds, with rising seeds.

    Raises:
        SystemExit: a finding; its files are kept and their place printed.
    """
    outcomes: Counter[str] = Counter()
    root = Path(tempfile.mkdtemp(prefix="nis-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    kept = True
    try:
        for number in range(cases):
            kind, seed = kinds[number % len(kinds)], first_seed + number // len(kinds)
            folder = root / "case"
            folder.mkdir()
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
            try:
                outcomes[f"{kind} {run_case(kind, seed, folder, run_engine=seed % 8 == 0)}"] += 1
            except BaseException as error:
                print(f"FOUND by {kind} {seed}: {type(error).__name__}: {str(error)[:500]}; files in {folder}")
                raise
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            shutil.rmtree(folder)
        kept = False
    finally:
        if not kept:
            shutil.rmtree(root, ignore_errors=True)
    return outcomes


def _stop(number: int, frame: object) -> None:
    raise Endless(f"more than {CPU_SECONDS} s of CPU time")


def main() -> int:
    """Run from a terminal or from the test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument("--kind", action="append", choices=KINDS)
    args = parser.parse_args()
    signal.signal(signal.SIGVTALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
    outcomes = run_cases(args.cases, args.seed, tuple(args.kind or KINDS))
    for outcome, count in sorted(outcomes.items()):
        print(f"{outcome:<40} {count}")
    print(f"{sum(outcomes.values())} cases from seed {args.seed}: no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
