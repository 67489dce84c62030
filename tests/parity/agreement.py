"""When two engines agree: the tolerances of the parity tests, and their reason.

Both sides compute in float32 and sum in different orders, so a value may differ in its last bits: about 1e-6 of the
spread (standard deviation) of the logits. Where such a value, times the activation scale, lies at a half, one side
rounds it up and the other down: one int8 activation differs by one step, 1/127 of the vector's largest. That is rare
(about 1e-5 per activation), but when it happens in one of these tiny models it moves the logits of that position by up
to a few hundredths of their spread, and a little those of later positions, which attend to it. Hence two bounds: a
tight one for the typical position, which any wrong graph, scale or order of rows breaks by orders of magnitude, and a
loose one for the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nis_edge.engine.reference import reference_logits
from nis_edge.pack.huggingface import read_checkpoint
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package

TYPICAL = 1e-5
"""Of the spread: bound of the median position over all cases."""

WITH_FLIPS = 1e-3
"""Of the spread: bound of the median position of one case, in which an early flip may reach every later position."""

WORST = 0.15
"""Of the spread: bound of every logit."""

Logits = Callable[[Sequence[int]], np.ndarray]
"""Tokens -> float32 logits [tokens, vocab]."""


def errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Largest difference per position, in spreads of the oracle's logits: [tokens]."""
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    return np.abs(ours - theirs).max(axis=1) / theirs.std()


def assert_agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Hold the logits of one case to its two bounds."""
    found = errors(ours, theirs)
    assert np.median(found) < WITH_FLIPS, found
    assert found.max() < WORST, found


def assert_same_greedy(compute: Logits, prompt: Sequence[int], expected: Sequence[int]) -> None:
    """The greedy continuation is the oracle's, token by token.

    Only where the two best candidates are closer than the worst error of a flip may the choice differ; from there on
    the two texts are different ones, and the comparison ends.
    """
    text = list(prompt)
    for step, token in enumerate(expected):
        logits = compute(text)[-1]
        chosen = int(logits.argmax())
        if chosen != token:
            gap = (logits[chosen] - logits[token]) / logits.std()
            assert gap < WORST and step > 0, f"step {step}: {chosen} instead of {token}, by {gap:.3f} spreads"
            return
        text.append(token)


def pack(checkpoint: Path, path: Path) -> Path:
    """Pack a checkpoint folder with our packer."""
    source = read_checkpoint(checkpoint)
    try:
        write_package(path, source.manifest, source.tensors)
    finally:
        source.close()
    return path


def reference(path: Path) -> Logits:
    """The numpy reference as a backend."""

    def compute(tokens: Sequence[int]) -> np.ndarray:
        with open_package(path) as package:
            return reference_logits(package, tokens, all_positions=True)

    return compute


def native(path: Path) -> Logits:
    """The native engine as a backend."""
    from nis_edge.engine.model import Model

    def compute(tokens: Sequence[int]) -> np.ndarray:
        model = Model.open(path)
        try:
            return np.array(model.session().forward(list(tokens), all_positions=True))
        finally:
            model.close()

    return compute


BACKENDS = {"reference": reference, "native": native}
