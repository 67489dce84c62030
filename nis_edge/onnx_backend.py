"""A package computed by ONNX Runtime instead of the native engine: the same few calls, to compare and as an oracle."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nis_edge.engine.tokenizer import Tokenizer
from nis_edge.errors import ModelError
from nis_edge.pack.reader import Package, open_package

try:
    import onnxruntime

    from nis_edge.onnx_graph import INLINE_BYTES_MAX, TRUNK, Weights, build_graph, head_graph, write_graph
except ModuleNotFoundError as error:  # the one place that needs the extra says what brings it
    raise ModelError(f"{error.name} is not installed; pip install 'nis-edge[onnx]' brings the onnx backend") from None

Floats = npt.NDArray[np.float32]
Cache = dict[str, Floats]

ERRORS_ONLY: Final = 3
"""ONNX Runtime's severity: its warnings about graph optimisation are nothing an operator can act on."""


class OnnxModel:
    """An open package behind ONNX Runtime. A context manager; graphs are built when first needed.

    Args:
        path: the `.nis` file.
        threads: ONNX Runtime may use within one operator, the caller's included; at least 1.
        weights: how ternary weights are stored in the graph.

    Raises:
        PackFormatError: the file is no package or is damaged; the builder of the model acts.
    """

    def __init__(self, path: Path, *, threads: int = 1, weights: Weights = "int8") -> None:
        self.package: Package = open_package(path)
        self.manifest = self.package.manifest
        self.threads = threads
        self.weights: Weights = weights
        self._runs: dict[str, Any] = {}

    @property
    def isa(self) -> str:
        """What computes, as the engine names its instruction set."""
        return f"onnxruntime {onnxruntime.__version__}, {self.weights} weights"

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The package's tokenizer, or None."""
        if self.manifest.tokenizer.kind == "none":
            return None
        return Tokenizer.from_bytes(self.package.tensors["tokenizer"].tobytes(), self.manifest.tokenizer.specials)

    @property
    def tables(self) -> bytes | None:
        """The package's tables for judging evidence, or None."""
        return self.package.tables

    def session(self, max_positions: int | None = None) -> OnnxSession:  # noqa: ARG002  (the engine's signature)
        """A fresh session; it grows as it reads, up to the manifest's context."""
        return OnnxSession(self)

    def graph(self, name: str) -> Any:
        """ONNX Runtime's session of one graph.

        Raises:
            ModelError: ONNX Runtime can't run it; the message is its own.
        """
        if name not in self._runs:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            options.log_severity_level = ERRORS_ONLY
            try:
                with _loadable(self.package, name, self.weights) as graph:
                    self._runs[name] = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # ONNX Runtime raises its own kinds, all below Exception
                reason = str(error).splitlines()[0]
                raise ModelError(f"{self.package.path}: ONNX Runtime can't run graph {name}: {reason}") from None
        return self._runs[name]

    def close(self) -> None:
        """Let go of the package and the graphs."""
        self._runs.clear()
        self.package.close()

    def __enter__(self) -> OnnxModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _loadable(package: Package, name: str, weights: Weights) -> Iterator[bytes | str]:
    """A graph as ONNX Runtime takes it: its bytes, or the path of a file where it is too large for one message."""
    graph = build_graph(package, name, weights)
    if graph.ByteSize() <= INLINE_BYTES_MAX:
        yield graph.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="nis-edge-onnx-") as folder:
        path = Path(folder) / f"{name}.onnx"
        write_graph(graph, path)
        yield str(path)


class OnnxSession:
    """What was read so far: keys and values of each graph, and the trunk's residual stream for the task heads."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        shape = model.manifest.architecture
        self._residual: Floats = np.empty((0, shape.hidden), dtype=np.float32)  # [position, hidden]
        self._trunk = self._empty_cache(shape.layers)
        self._heads = {name: self._empty_cache(head.layers) for name, head in shape.task_heads.items()}
        self._outputs: dict[str, Floats] = {}  # a head's outputs at the last position it has seen

    @property
    def position(self) -> int:
        """How many tokens were read."""
        return int(self._residual.shape[0])

    def forward(self, tokens: Sequence[int], all_positions: bool = False) -> Floats:
        """Read tokens and say what comes next: float32 [vocab] after the last, or [n, vocab].

        Raises:
            ModelError: no tokens, one outside the vocabulary, or more than the context holds.
        """
        wanted = np.arange(len(tokens)) if all_positions else np.array([len(tokens) - 1])
        logits = self._read(tokens, wanted)
        return logits if all_positions else logits[0]

    def feed(self, tokens: Sequence[int]) -> None:
        """Read tokens without asking for logits. Errors as ``forward``."""
        self._read(tokens, np.empty(0, dtype=np.int64))

    def head(self, name: str) -> Floats:
        """Raw outputs [outputs] of a task head at the last position; its layers run over positions it has not seen.

        Raises:
            ModelError: no such head, or nothing read yet.
        """
        if name not in self._heads:
            raise ModelError(f"{self._model.package.path}: has no task head {name!r}")
        if self.position == 0:
            raise ModelError(f"{self._model.package.path}: the session has read nothing yet")
        cache = self._heads[name]
        seen = _cached_positions(cache) if cache else 0
        if seen < self.position or name not in self._outputs:
            # A head without layers has no cache and is asked about the last position alone.
            start = min(seen, self.position - 1) if cache else self.position - 1
            _cut(cache, start)
            made = _call(self._model.graph(head_graph(name)), {"residual": self._residual[start:]}, cache)
            self._outputs[name] = made["outputs"][-1]
        return self._outputs[name]

    def rewind(self, position: int) -> None:
        """Keep the first ``position`` positions, 0 to ``self.position``."""
        if not 0 <= position <= self.position:
            raise ModelError(f"{self._model.package.path}: can't rewind to {position}, it stands at {self.position}")
        self._residual = self._residual[:position]
        self._outputs.clear()
        for cache in (self._trunk, *self._heads.values()):
            _cut(cache, position)

    def close(self) -> None:
        """Nothing is held outside."""

    def _read(self, tokens: Sequence[int], wanted: npt.NDArray[np.int64]) -> Floats:
        shape, where = self._model.manifest.architecture, self._model.package.path
        ids = np.asarray(tokens, dtype=np.int64)
        if ids.ndim != 1 or not 1 <= ids.size <= shape.context - self.position:
            raise ModelError(f"{where}: takes 1 to {shape.context - self.position} more tokens, got {ids.size}")
        if ids.min() < 0 or ids.max() >= shape.vocab:
            raise ModelError(f"{where}: a token lies outside the vocabulary of {shape.vocab}")
        made = _call(self._model.graph(TRUNK), {"tokens": ids, "wanted": wanted}, self._trunk)
        self._residual = np.concatenate([self._residual, made["residual"]])
        self._outputs.clear()
        return made["logits"]

    def _empty_cache(self, layers: int) -> Cache:
        shape = self._model.manifest.architecture
        nothing = np.empty((shape.kv_heads, 0, shape.head_dim), dtype=np.float32)
        return {f"{index}.{kind}": nothing for index in range(layers) for kind in ("keys", "values")}


def _call(graph: Any, inputs: dict[str, npt.NDArray[Any]], cache: Cache) -> dict[str, Floats]:
    """Run a graph; `cache` takes the keys and values of the positions it appended."""
    names = [output.name for output in graph.get_outputs()]
    past = {f"past.{name}": array for name, array in cache.items()}
    made = dict(zip(names, graph.run(names, {**inputs, **past}), strict=True))
    for name in cache:
        cache[name] = made.pop(f"present.{name}")
    return made


def _cached_positions(cache: Cache) -> int:
    return int(next(iter(cache.values())).shape[1])


def _cut(cache: Cache, position: int) -> None:
    for name, array in cache.items():
        cache[name] = array[:, :position]
