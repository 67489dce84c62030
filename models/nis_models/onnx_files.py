"""`nis-models export-onnx`: a package as ONNX files, checked against the engine before they get their names."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from nis_edge.onnx_backend import OnnxModel
from nis_edge.onnx_graph import Weights, build_graph, graph_names, write_graph

CHECK_TOKENS: Final = 32

MEDIAN_ERROR_MAX: Final = 0.05
"""Of the logits' standard deviation. A right graph lies at 2e-7 for nis-nano and, where rounding flips an int8 value
and twelve random layers amplify it, at 0.02; a wrong one lies near 1."""

TOP1_AGREEMENT_MIN: Final = 0.9


@dataclass(frozen=True)
class Agreement:
    """ONNX Runtime beside the engine on the same random tokens.

    Attributes:
        median_error, largest_error: of the logits, in standard deviations of the engine's.
        top1: share of positions whose most likely token is the same.
        heads: task head -> largest error of its outputs.
    """

    median_error: float
    largest_error: float
    top1: float
    heads: dict[str, float]

    @property
    def good(self) -> bool:
        """Whether the two compute the same model."""
        return self.median_error <= MEDIAN_ERROR_MAX and self.top1 >= TOP1_AGREEMENT_MIN


def export_onnx(args: argparse.Namespace) -> int:
    """Write the graphs of a package into a folder; 0 when they agree with the engine."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.exists():
        raise ModelError(f"{args.out} is already there; name a new folder, nothing was written")
    agreement = compare(args.package, args.weights)
    print(
        f"beside the engine: median error {agreement.median_error:.1e}, largest {agreement.largest_error:.1e} of the "
        f"logits' spread, same most likely token at {agreement.top1:.0%} of {CHECK_TOKENS} positions"
    )
    if not agreement.good:
        print(f"{args.package}: ONNX Runtime computes something else than the engine; no file written", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}.") as partial:
        folder = Path(partial) / "graphs"
        folder.mkdir()
        with Model.open(args.package) as model:
            for name in graph_names(model.package):
                write_graph(build_graph(model.package, name, args.weights), folder / f"{name}.onnx")
        (folder / "agreement.json").write_text(json.dumps(asdict(agreement), indent=1) + "\n", encoding="utf-8")
        shutil.move(folder, args.out)
    for path in sorted(args.out.iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0


def compare(package: Path, weights: Weights) -> Agreement:
    """Run both over the same tokens.

    Args:
        package: a `.nis` file.
        weights: form of the ternary weights in the graph.

    Raises:
        ModelError: either can't run the package.
    """
    with Model.open(package) as native, OnnxModel(package, weights=weights) as onnx:
        shape = native.manifest.architecture
        tokens = np.random.default_rng(0).integers(0, shape.vocab, min(CHECK_TOKENS, shape.context))
        ours, theirs = native.session(), onnx.session()
        wanted = ours.forward(tokens, all_positions=True)
        got = theirs.forward([int(token) for token in tokens], all_positions=True)
        errors = np.abs(wanted - got) / max(float(wanted.std()), 1e-30)
        heads = {name: float(np.abs(ours.head(name) - theirs.head(name)).max()) for name in shape.task_heads}
    return Agreement(
        median_error=float(np.median(errors)),
        largest_error=float(errors.max()),
        top1=float((wanted.argmax(axis=1) == got.argmax(axis=1)).mean()),
        heads=heads,
    )
