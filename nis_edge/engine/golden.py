"""The golden self-test: what a package says the engine must compute, bit for bit, on any machine.

Publishers record it when they pack (``record``); devices, `nis-edge verify` and the trial of an update repeat it
(``differences``). Logits are the same bits for every instruction set and thread count, so one hash serves a fleet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from nis_edge.pack.layout import Golden, Manifest

GOLDEN_TOKENS: Final = 24
"""Default length: several positions for every head, and a fraction of a second even for a model of 2 G weights."""

GOLDEN_STRIDE: Final = 7919
"""A prime, so that the default tokens spread over any vocabulary it does not divide."""


class Session(Protocol):
    """What a session of the engine offers to a self-test."""

    def forward(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits of the last position."""
        ...

    def head(self, name: str) -> npt.NDArray[np.float32]:
        """Raw outputs of a task head at the last position."""
        ...


class Engine(Protocol):
    """What an open model offers to a self-test."""

    @property
    def manifest(self) -> Manifest:
        """Of the package."""
        ...

    def session(self, max_positions: int | None = None) -> Any:
        """A new session."""
        ...


def record(model: Engine, tokens: Sequence[int] | None = None) -> Golden:
    """Run a model and write down what it computed.

    Args:
        model: an open model of the native engine.
        tokens: the prompt; by default 24 ids spread over the vocabulary.
    """
    architecture = model.manifest.architecture
    if tokens is None:
        length = min(GOLDEN_TOKENS, architecture.context)
        tokens = [position * GOLDEN_STRIDE % architecture.vocab for position in range(1, length + 1)]
    prompt = tuple(int(token) for token in tokens)
    session: Session = model.session(max_positions=len(prompt))
    logits = _sha256(session.forward(prompt))
    return Golden(prompt, logits, {name: _sha256(session.head(name)) for name in sorted(architecture.task_heads)})


def differences(model: Engine) -> list[str]:
    """Repeat every self-test of a package.

    Args:
        model: an open model.

    Returns:
        One line for each result that is not the recorded one; empty when all are.
    """
    return list(_differences(model, model.manifest.golden))


def _differences(model: Engine, goldens: Iterable[Golden]) -> Iterable[str]:
    for number, golden in enumerate(goldens, start=1):
        computed = record(model, golden.tokens)
        if computed.logits_sha256 != golden.logits_sha256:
            yield f"self-test {number}: the logits are not the recorded ones"
        for name, digest in golden.heads_sha256.items():
            if computed.heads_sha256[name] != digest:
                yield f"self-test {number}: the outputs of task head {name} are not the recorded ones"


def _sha256(values: npt.NDArray[np.float32]) -> str:
    """Of float32 numbers as little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
