"""`nis-edge inspect`: what a model package says and holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nis_edge.pack.layout import Manifest
    from nis_edge.pack.reader import Package

DESCRIPTION = "Header, tensors and hashes of a model package. The header is checked; for the bytes see nis-edge verify."
EXAMPLE = "nis-edge inspect models/nis-nano/nis-nano.nis"

SHOWN: Final = 8
"""Special tokens on the screen; a monitor's package has hundreds, and --json prints them all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("package", metavar="PKG", type=Path, help="the package")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    from nis_edge.pack.reader import open_package

    with open_package(args.package, check_content=False) as package:
        print(_as_json(package) if args.json else _as_text(package))
    return 0


def _as_json(package: Package) -> str:
    import msgspec

    facts = {
        "path": str(package.path),
        "size_bytes": package.size_bytes,
        "sha256": package.sha256(),
        "manifest": msgspec.to_builtins(package.manifest),
        "tensors": [
            {
                "name": name,
                "dtype": spec.dtype,
                "shape": list(package.tensors[name].shape),
                "matrix": spec.matrix,
                "offset": package.offset(name),
                "bytes": package.tensors[name].nbytes,
                "sha256": package.hashes[name],
            }
            for name, spec in package.specs.items()
        ],
    }
    return json.dumps(facts, indent=2)


def _generation(manifest: Manifest) -> str:
    """What the model's maker wants for generation, in one line."""
    import msgspec

    if isinstance(manifest.generation, msgspec.UnsetType):
        return "not stated"
    said = msgspec.structs.asdict(manifest.generation)
    stop = " ".join(map(str, said.pop("stop")))
    known = {"stop": stop or None, **said}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)


def _screen(package: Package) -> str:
    """How much of the file says which rows of the output head need not be read."""
    sizes = [array.nbytes for name, array in package.tensors.items() if name.startswith("screen.")]
    return f"of the output head, {sum(sizes):,} bytes" if sizes else "none, the engine makes one where it is worth it"


def _as_text(package: Package) -> str:
    import msgspec

    manifest = package.manifest
    shape = manifest.architecture
    weights = sum(spec.matrix[0] * spec.matrix[1] for spec in package.specs.values() if spec.matrix)
    ternary_bytes = sum(package.tensors[name].nbytes for name, spec in package.specs.items() if spec.matrix)
    task_heads = ", ".join(
        f"{name} ({head.layers} layers, {len(head.outputs)} outputs)" for name, head in sorted(shape.task_heads.items())
    )
    specials = manifest.tokenizer.specials
    listed = " ".join(f"{name}={token}" for name, token in sorted(specials.items(), key=lambda item: item[1])[:SHOWN])
    more = f" and {len(specials) - SHOWN} more" if len(specials) > SHOWN else ""
    facts = [
        ("model", f"{manifest.model.id} {manifest.model.version}, licence {manifest.licence or 'not stated'}"),
        ("file", f"{package.path}, {package.size_bytes:,} bytes, format {manifest.format}"),
        ("sha256", package.sha256()),
        ("graph", f"{shape.kind}, {shape.activation}, {'with' if shape.sub_norms else 'without'} sub-norms"),
        (
            "shape",
            f"hidden {shape.hidden}, ffn {shape.ffn}, layers {shape.layers}, heads {shape.heads}/{shape.kv_heads}"
            f" of {shape.head_dim}, vocabulary {shape.vocab}, context {shape.context}",
        ),
        ("ternary", f"{weights:,} weights in {ternary_bytes:,} bytes"),
        (
            "embedding",
            f"{manifest.quantisation.embed}, output head "
            + ("tied" if shape.tied_head else str(manifest.quantisation.head)),
        ),
        ("screen", _screen(package)),
        ("task heads", task_heads or "none"),
        ("tokenizer", f"{manifest.tokenizer.kind} {listed}{more}".rstrip()),
        ("chat", "no template" if manifest.tokenizer.chat_template is msgspec.UNSET else "template carried as text"),
        ("generation", _generation(manifest)),
        ("labels", ", ".join(manifest.labels) or "none"),
        ("calibrated", "no" if manifest.calibration is None else "yes"),
        ("self-tests", str(len(manifest.golden))),
        ("lineage", ", ".join(sorted(manifest.lineage)) or "not stated"),
    ]
    lines = [f"{name:<10}  {value}" for name, value in facts]
    lines += ["", f"{'tensor':<32} {'dtype':<5} {'shape':<18} {'offset':>12} {'bytes':>12}  sha256"]
    for name, spec in package.specs.items():
        sides = spec.matrix or package.tensors[name].shape
        kind = "T2" if spec.matrix else spec.dtype
        text = " x ".join(str(side) for side in sides)
        size = package.tensors[name].nbytes
        lines.append(
            f"{name:<32} {kind:<5} {text:<18} {package.offset(name):>12,} {size:>12,}  {package.hashes[name][:12]}"
        )
    return "\n".join(lines)
