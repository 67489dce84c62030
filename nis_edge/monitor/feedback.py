"""What became of judgements: a correction of probabilities, learned online, bounded, forgotten at a word. Pure.

Each label has one shift of the logit. An operator's verdict on a finding, or the outcome of a run, moves it a step
towards what was right (the gradient of the log loss); it never leaves ``SHIFT_MAX``, so that no series of verdicts can
make a sure answer vanish or a faint one sure. A model keeps none of it: another model, or a word of the operator,
begins anew.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

SHIFT_MAX: Final = 1.0
"""Logits: at most from 50 % to 27 or 73 %, from 90 % to 77 or 96 %."""

RATE: Final = 0.1
"""Step for one verdict: about a dozen that agree move an answer by half of the bound."""

_EDGE: Final = 1e-6


class Feedback(msgspec.Struct, frozen=True):
    """What was learned of one label: verdicts, how many called it right, the shift of its logit."""

    n: int = 0
    right: int = 0
    shift: float = 0.0


def learned(before: Feedback | None, probability: float | None, happened: bool) -> Feedback:
    """The feedback with one verdict more.

    Args:
        before: what was known.
        probability: what the model said, uncorrected; None when a rule spoke: then only the count moves.
        happened: what was right.
    """
    before = before or Feedback()
    shift = before.shift
    if probability is not None:
        shift += RATE * (float(happened) - corrected(probability, before))
    return Feedback(before.n + 1, before.right + happened, max(-SHIFT_MAX, min(SHIFT_MAX, shift)))


def corrected(probability: float, feedback: Feedback | None) -> float:
    """The probability after what was learned; the same number where nothing was."""
    return probability if feedback is None else shifted(probability, feedback.shift)


def shifted(probability: float, logits: float) -> float:
    """The probability whose logit is greater by so much; the same number for 0."""
    if logits == 0.0:
        return probability
    inside = min(1.0 - _EDGE, max(_EDGE, probability))
    return 1.0 / (1.0 + math.exp(-(math.log(inside / (1.0 - inside)) + logits)))
