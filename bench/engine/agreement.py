"""What every peer's logits are held against before its speed counts: its own, computed in another way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Reads = Callable[[np.ndarray], np.ndarray]


def at_once_and_singly(start: Reads, go_on: Reads) -> str:
    """A prompt at once gives the logits of the prompt token by token, but for rounding; say what was held.

    Args:
        start: afresh, read int32 [n] and return the last logits.
        go_on: read further tokens.

    Raises:
        RuntimeError: the logits differ by more than rounding explains.
    """
    prompt = np.arange(7, 19, dtype=np.int32)
    at_once = start(prompt).copy()
    singly = start(prompt[:1])
    for token in prompt[1:]:
        singly = go_on(np.array([token], dtype=np.int32))
    off = float(np.abs(at_once - singly).max() / at_once.std())
    if not off < 0.2:
        raise RuntimeError(f"a prompt at once and token by token differ by {off} standard deviations")
    return f"a prompt at once and token by token agree within {off:.3f} standard deviations of the logits"
