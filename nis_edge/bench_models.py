"""A model to measure, whichever way it runs: engine, ONNX Runtime or numpy reference behind the same few calls."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nis_edge.judgement import ReadableModel, ReadingSession

Floats = NDArray[np.float32]

BACKENDS: Final = ("native", "onnx", "reference")


class Session(ReadingSession, Protocol):
    """What the workloads need of a session; as the engine's."""

    @property
    def position(self) -> int:
        """Tokens taken in so far."""
        ...

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Take tokens in; float32 [vocab] of the last."""
        ...


class Model(ReadableModel, Protocol):
    """What the workloads need of a model; as the engine's."""

    @property
    def isa(self) -> str:
        """What computes."""
        ...

    def session(self, max_positions: int | None = None) -> Session:
        """A fresh session of so many positions, or over the manifest's whole context."""
        ...

    def close(self) -> None:
        """Let go of the package."""
        ...


def open_model(path: Path, backend: str, threads: int) -> Model:
    """Open a package with a backend.

    Args:
        path: the `.nis` file.
        backend: one of BACKENDS.
        threads: of the native engine or of ONNX Runtime; the reference has none of its own.

    Raises:
        ModelError: the builder of the model acts.
    """
    if backend == "reference":
        return ReferenceModel(path)
    if backend == "onnx":
        from nis_edge.onnx_backend import OnnxModel

        return OnnxModel(path, threads=threads)
    from nis_edge.engine.model import Model as NativeModel

    return NativeModel.open(path, threads=threads)


class ReferenceModel:
    """The numpy reference as a model: correct and slow, and without a cache: every call computes all positions."""

    isa = "numpy"

    def __init__(self, path: Path) -> None:
        from nis_edge.pack.reader import open_package

        self._package = open_package(path)
        self.manifest = self._package.manifest

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The package's tokenizer, or None."""
        if self.manifest.tokenizer.kind == "none":
            return None
        from nis_edge.engine.tokenizer import Tokenizer

        return Tokenizer.from_bytes(self._package.tensors["tokenizer"].tobytes(), self.manifest.tokenizer.specials)

    @property
    def tables(self) -> bytes | None:
        """The package's tables for judging evidence, or None."""
        return self._package.tables

    def session(self, max_positions: int | None = None) -> Session:  # noqa: ARG002  (the engine's signature)
        """A fresh session; it takes memory as it goes, whatever it is to hold."""
        return ReferenceSession(self._package)

    def close(self) -> None:
        """Let go of the package."""
        self._package.close()


class ReferenceSession:
    """Remembers the tokens and computes everything anew at each question."""

    def __init__(self, package: Any) -> None:
        self._package = package
        self._tokens: list[int] = []

    @property
    def position(self) -> int:
        """Tokens taken in so far."""
        return len(self._tokens)

    def feed(self, tokens: Sequence[int]) -> None:
        """Take tokens in."""
        self._tokens += [int(token) for token in tokens]

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Take tokens in; logits of the last."""
        from nis_edge.engine.reference import reference_logits

        self.feed(tokens)
        return reference_logits(self._package, self._tokens)

    def head(self, name: str) -> Floats:
        """Raw outputs of a task head at the last position."""
        from nis_edge.engine.reference import reference_head

        return reference_head(self._package, self._tokens, name)

    def rewind(self, position: int) -> None:
        """Keep the first ``position`` tokens."""
        del self._tokens[position:]

    def close(self) -> None:
        """Nothing is held."""
