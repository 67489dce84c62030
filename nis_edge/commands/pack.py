"""`nis-edge pack`: turn a checkpoint into a model package."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nis_edge.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from nis_edge.pack.checkpoint import Checkpoint
    from nis_edge.pack.layout import Manifest
    from nis_edge.pack.writer import Source

DESCRIPTION = """Turn a checkpoint into a model package: one file, the same bytes every time.

SRC is a folder in Hugging Face layout (BitNet, or Llama with ternary matrices: real master weights, packed bitlinear
or autobitlinear), or a GGUF file (I2_S of bitnet.cpp, TQ1_0, TQ2_0, or ternary F16, BF16, F32). What a file does not
say is refused with the flag that decides; docs/packing.md lists what is read."""
EXAMPLE = """nis-edge pack ./bitnet-b1.58-2B-4T -o bitnet-2b4t.nis
         nis-edge pack ggml-model-i2_s.gguf --i2s-order x86 --tokenizer-pre llama-bpe -o bitnet-2b4t.nis
         nis-edge pack falcon3-tq2_0.gguf --id falcon3-1b -o falcon3-1b.nis
         nis-edge pack ./my-llama-1.58bit --weights ternary -o mine.nis"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from nis_edge.pack.checkpoint import STORAGES
    from nis_edge.pack.ggml_blocks import I2S_ORDERS
    from nis_edge.pack.gguf_tokenizer import PRE_TOKENIZERS

    parser.add_argument("source", metavar="SRC", type=Path, help="folder in Hugging Face layout, or GGUF file")
    parser.add_argument("-o", "--output", metavar="OUT.nis", type=Path, required=True, help="the package to write")
    parser.add_argument("--id", metavar="NAME", help="the model's id in the package (default: the source's name)")
    parser.add_argument("--model-version", metavar="TEXT", default="1", help="the model's version (default: 1)")
    parser.add_argument("--licence", metavar="SPDX", default="", help="licence of the weights, an SPDX expression")
    parser.add_argument("--no-tokenizer", action="store_true", help="leave the tokenizer out: token ids only")
    parser.add_argument("--no-golden", action="store_true", help="leave the self-test out (it runs the native engine)")
    parser.add_argument(
        "--no-screen",
        action="store_true",
        help="leave the output head's screen out: a smaller file, and every engine makes its own in memory (default: in"
        " the package if the head is large enough for one)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    ambiguous = parser.add_argument_group("where the source does not say what its numbers mean")
    ambiguous.add_argument(
        "--weights",
        choices=STORAGES,
        help="how the matrices are stored: real numbers to be made ternary by absmean; real numbers that are -s, 0 and"
        " s; packed with a scale that divides; packed with a scale that multiplies",
    )
    ambiguous.add_argument(
        "--activation", choices=("relu2", "silu"), help="GGUF, architecture bitnet: what the model was trained with"
    )
    ambiguous.add_argument(
        "--i2s-order",
        choices=I2S_ORDERS,
        help="GGUF, I2_S: how four codes share a byte (default: the order that the model's own statistics show)",
    )
    ambiguous.add_argument(
        "--scale",
        choices=("multiply", "divide"),
        help="GGUF, I2_S: what the stored scale does (default: multiply, as bitnet.cpp does; divide for a file"
        " converted from a packed checkpoint whose weight_scale divides)",
    )
    ambiguous.add_argument(
        "--tokenizer-pre",
        choices=tuple(PRE_TOKENIZERS),
        help="GGUF without tokenizer.ggml.pre: how the text is cut before the merges",
    )


def run(args: argparse.Namespace) -> int:
    """Pack, and say what was made."""
    from nis_edge.engine import head_screen

    if args.output.is_dir() or not args.output.parent.is_dir():
        raise ConfigError(f"{args.output}: is a folder or lies in none; name the file to write; nothing was written")
    try:
        checkpoint = _read(args)
        try:
            _check_tokenizer(checkpoint)
            screen = not args.no_screen and head_screen.pays(checkpoint.manifest)
            digest, manifest = _write(
                args.output, checkpoint.manifest, checkpoint.tensors, golden=not args.no_golden, screen=screen
            )
        finally:
            checkpoint.close()
    except MemoryError as error:
        raise DeviceError(
            f"{args.source}: a tensor of it does not fit this machine's memory; nothing was written, an older"
            f" {args.output.name} is untouched: pack it on a larger machine"
        ) from error
    size_bytes = args.output.stat().st_size
    if args.json:
        facts = {
            "package": str(args.output),
            "size_bytes": size_bytes,
            "sha256": digest,
            "model": manifest.model.id,
            "weights": checkpoint.storage,
            "golden_self_tests": len(manifest.golden),
            "screen": screen,
            "tokenizer": manifest.tokenizer.kind,
            "notes": list(checkpoint.notes),
        }
        print(json.dumps(facts))
        return 0
    print(f"{args.output}  {size_bytes:,} bytes  sha256 {digest}")
    if checkpoint.storage == "master":
        print("the real weights were made ternary by absmean")
    for note in checkpoint.notes:
        print(note)
    if manifest.tokenizer.kind == "none":
        print("no tokenizer was packed: the package takes token ids only")
    return 0


def _read(args: argparse.Namespace) -> Checkpoint:
    """The checkpoint by whichever reader its source needs."""
    from nis_edge.pack import gguf_checkpoint, huggingface
    from nis_edge.pack.checkpoint import Choices

    identity = {"model_id": args.id, "version": args.model_version, "licence": args.licence}
    if args.source.is_file():
        choices = Choices(
            storage=args.weights,
            activation=args.activation,
            i2s_order=args.i2s_order,
            scale=args.scale,
            pre=args.tokenizer_pre,
            without_tokenizer=args.no_tokenizer,
        )
        return gguf_checkpoint.read_gguf_checkpoint(args.source, choices=choices, **identity)
    if not args.source.is_dir():
        raise ConfigError(
            f"{args.source}: is no folder and no file; accepted are {huggingface.ACCEPTED}, and"
            f" {gguf_checkpoint.ACCEPTED}; nothing was written"
        )
    for flag in ("activation", "i2s_order", "scale", "tokenizer_pre"):
        if getattr(args, flag) is not None:
            raise ConfigError(f"--{flag.replace('_', '-')} is for GGUF files; config.json says it; nothing was written")
    return huggingface.read_checkpoint(
        args.source, storage=args.weights, without_tokenizer=args.no_tokenizer, **identity
    )


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    """A tokenizer that the library can't read is refused here, not on the device."""
    import numpy as np

    from nis_edge.engine.tokenizer import Tokenizer

    if "tokenizer" in checkpoint.tensors:
        Tokenizer.from_bytes(np.asarray(checkpoint.tensors["tokenizer"]).tobytes())


def _write(
    output: Path, manifest: Manifest, tensors: Mapping[str, Source], *, golden: bool, screen: bool
) -> tuple[str, Manifest]:
    """Write the package. With a self-test it is written aside first, run by the engine, and written with the result."""
    import msgspec

    from nis_edge.engine import golden as self_test
    from nis_edge.pack.reader import open_package

    if not golden:
        return _finish(output, manifest, tensors, screen, "packing")
    from nis_edge.engine.model import Model

    untried = output.with_name(f".{output.name}.untried")
    try:
        _finish(untried, manifest, tensors, False, "packing")
        model = Model.open(untried)
        try:
            manifest = msgspec.structs.replace(manifest, golden=(self_test.record(model),))
        finally:
            model.close()
        with open_package(untried, check_content=False) as package:
            return _finish(output, manifest, package.tensors, screen, "adding the self-test")
    finally:
        untried.unlink(missing_ok=True)


def _finish(
    path: Path, manifest: Manifest, tensors: Mapping[str, Source], screen: bool, what: str
) -> tuple[str, Manifest]:
    """Write one file, with the output head's screen if wanted."""
    import numpy as np

    from nis_edge.commands.progress import ByteProgress
    from nis_edge.engine import head_screen
    from nis_edge.pack import layout
    from nis_edge.pack.writer import write_package

    if screen:
        manifest, tensors = head_screen.with_screen(manifest, tensors)
    total = sum(layout.nbytes(spec) for spec in layout.tensor_table(manifest) if spec.name != "tokenizer")
    if "tokenizer" in tensors:
        total += np.asarray(tensors["tokenizer"]).size
    return write_package(path, manifest, tensors, ByteProgress(what, total)), manifest
