"""`nis-edge pack`: turn a checkpoint into a model package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nis_edge.errors import ConfigError

if TYPE_CHECKING:
    from nis_edge.pack.layout import Manifest
    from nis_edge.pack.writer import Source

DESCRIPTION = "Turn a checkpoint into a model package: one file, the same bytes every time."
EXAMPLE = "nis-edge pack ./bitnet-b1.58-2B-4T -o bitnet-2b4t.nis"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", metavar="SRC", type=Path, help="folder in Hugging Face layout: config.json, safetensors"
    )
    parser.add_argument("-o", "--output", metavar="OUT.nis", type=Path, required=True, help="the package to write")
    parser.add_argument("--id", metavar="NAME", help="the model's id in the package (default: the folder's name)")
    parser.add_argument("--model-version", metavar="TEXT", default="1", help="the model's version (default: 1)")
    parser.add_argument("--licence", metavar="SPDX", default="", help="licence of the weights, an SPDX expression")
    parser.add_argument(
        "--weights",
        choices=("master", "bitlinear", "autobitlinear"),
        help="how the matrices are stored, if config.json does not say: real numbers to be made ternary by absmean;"
        " packed with a scale that divides; packed with a scale that multiplies",
    )
    parser.add_argument("--no-golden", action="store_true", help="leave the self-test out (it runs the native engine)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Pack, and say what was made."""
    from nis_edge.pack.huggingface import ACCEPTED, read_checkpoint

    if not args.source.is_dir():
        raise ConfigError(f"{args.source}: is no folder; accepted is {ACCEPTED}; nothing was written")
    if args.output.is_dir() or not args.output.parent.is_dir():
        raise ConfigError(f"{args.output}: is a folder or lies in none; name the file to write; nothing was written")
    checkpoint = read_checkpoint(
        args.source, model_id=args.id, version=args.model_version, licence=args.licence, storage=args.weights
    )
    try:
        digest, manifest = _write(args.output, checkpoint.manifest, checkpoint.tensors, golden=not args.no_golden)
    finally:
        checkpoint.close()
    size_bytes = args.output.stat().st_size
    if args.json:
        facts = {
            "package": str(args.output),
            "size_bytes": size_bytes,
            "sha256": digest,
            "model": manifest.model.id,
            "weights": checkpoint.storage,
            "golden_self_tests": len(manifest.golden),
            "tokenizer": manifest.tokenizer.kind,
        }
        print(json.dumps(facts))
        return 0
    print(f"{args.output}  {size_bytes:,} bytes  sha256 {digest}")
    if checkpoint.storage == "master":
        print("the real weights were made ternary by absmean")
    if manifest.tokenizer.kind == "none":
        print("no tokenizer.json was found: the package takes token ids only")
    return 0


def _write(output: Path, manifest: Manifest, tensors: Mapping[str, Source], golden: bool) -> tuple[str, Manifest]:
    """Write the package. With a self-test it is written aside first, run by the engine, and written with the result."""
    import msgspec
    import numpy as np

    from nis_edge.commands.progress import ByteProgress
    from nis_edge.engine import golden as self_test
    from nis_edge.pack import layout
    from nis_edge.pack.reader import open_package
    from nis_edge.pack.writer import write_package

    total = sum(layout.nbytes(spec) for spec in layout.tensor_table(manifest) if spec.name != "tokenizer")
    if "tokenizer" in tensors:
        total += np.asarray(tensors["tokenizer"]).size
    if not golden:
        return write_package(output, manifest, tensors, ByteProgress("packing", total)), manifest
    from nis_edge.engine.model import Model

    untried = output.with_name(f".{output.name}.untried")
    try:
        write_package(untried, manifest, tensors, ByteProgress("packing", total))
        model = Model.open(untried)
        try:
            manifest = msgspec.structs.replace(manifest, golden=(self_test.record(model),))
        finally:
            model.close()
        with open_package(untried, check_content=False) as package:
            digest = write_package(output, manifest, package.tensors, ByteProgress("adding the self-test", total))
    finally:
        untried.unlink(missing_ok=True)
    return digest, manifest
