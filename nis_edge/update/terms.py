"""What a candidate must keep on this device: the signed bounds beside what its trial measured. Pure.

A figure that this device can't measure is not judged, and its absence is said: a board without a meter takes models
too.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nis_edge.update.facts import Shadow, SignedFacts
from nis_edge.update.journal import ShadowTerms, Terms
from nis_edge.wire.messages import ModelAnswer

RELATIVE_SLACK: Final = 1e-9


@dataclass(frozen=True)
class Figures:
    """What the self-test measured; None: could not be measured here."""

    latency_ms: float | None = None
    tokens_per_s: float | None = None
    rss_bytes: float | None = None
    watts: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class Judged:
    """`breach` is the first bound that was not kept, in words; `unmeasured` names bounds that could not be judged."""

    breach: str | None
    unmeasured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One window, judged by both."""

    running: ModelAnswer
    candidate: ModelAnswer


def terms_of(facts: SignedFacts) -> Terms:
    """The signed bounds in the journal's compact form."""
    bounds, shadow = facts.bounds, facts.bounds.shadow
    return Terms(
        memory_bytes=facts.memory_bytes or None,
        latency_ms_max=bounds.latency_ms_max,
        tokens_per_s_min=bounds.tokens_per_s_min,
        rss_bytes_max=bounds.rss_bytes_max,
        watts_max=bounds.watts_max,
        temperature_c_max=bounds.temperature_c_max,
        shadow=_shadow_terms(shadow) if shadow is not None else None,
    )


def _shadow_terms(shadow: Shadow) -> ShadowTerms:
    return ShadowTerms(
        windows=shadow.windows,
        seconds_max=shadow.seconds_max,
        few_pass=shadow.on_few == "pass",
        agreement_min=shadow.agreement_min,
        calibration_gap_max=shadow.calibration_gap_max,
        latency_ratio_max=shadow.latency_ratio_max,
        joules_ratio_max=shadow.joules_ratio_max,
    )


def judge_figures(terms: Terms, figures: Figures) -> Judged:
    """Hold what the self-test measured against the bounds."""
    unmeasured = []
    for name, unit, value, bound, is_floor in (
        ("latency", "ms", figures.latency_ms, terms.latency_ms_max, False),
        ("speed", "tokens/s", figures.tokens_per_s, terms.tokens_per_s_min, True),
        ("memory", "bytes", figures.rss_bytes, terms.rss_bytes_max, False),
        ("power", "W", figures.watts, terms.watts_max, False),
        ("temperature", "degrees C", figures.temperature_c, terms.temperature_c_max, False),
    ):
        if bound is None:
            continue
        if value is None:
            unmeasured.append(name)
        elif value < bound if is_floor else value > bound:
            side = "at least" if is_floor else "at most"
            return Judged(f"{name} of {value:g} {unit}, signed is {side} {bound:g}", tuple(unmeasured))
    return Judged(None, tuple(unmeasured))


def judge_shadow(terms: ShadowTerms, pairs: Sequence[Pair]) -> Judged:
    """Hold what both models said of the same windows against the bounds.

    Args:
        terms: the signed bounds.
        pairs: every window that both judged.
    """
    if len(pairs) < terms.windows and not terms.few_pass:
        return Judged(f"only {len(pairs)} of {terms.windows} windows came to be judged beside the running model")
    if not pairs:
        return Judged(None, ("agreement", "calibration", "latency", "energy"))
    agreement = statistics.fmean(_top(pair.running) == _top(pair.candidate) for pair in pairs)
    if agreement < terms.agreement_min - RELATIVE_SLACK:
        return Judged(f"agreement of {agreement:.3f} over {len(pairs)} windows, signed is {terms.agreement_min:g}")
    gap = statistics.fmean(abs(_certainty(pair.running) - _certainty(pair.candidate)) for pair in pairs)
    if gap > terms.calibration_gap_max + RELATIVE_SLACK:
        signed = f"signed is {terms.calibration_gap_max:g}"
        return Judged(f"calibration gap of {gap:.3f} over {len(pairs)} windows, {signed}")
    unmeasured = ["energy"] if terms.joules_ratio_max is not None else []
    if terms.latency_ratio_max is not None:
        ratio = _latency_ratio(pairs)
        if ratio is None:
            unmeasured.append("latency")
        elif ratio > terms.latency_ratio_max:
            return Judged(f"latency of {ratio:.2f} times the running model's, signed is {terms.latency_ratio_max:g}")
    return Judged(None, tuple(unmeasured))


def _top(answer: ModelAnswer) -> str:
    return max(answer.probabilities, key=lambda label: (answer.probabilities[label], label), default="")


def _certainty(answer: ModelAnswer) -> float:
    if answer.failure_probability is not None:
        return answer.failure_probability
    return max(answer.probabilities.values(), default=0.0)


def _latency_ratio(pairs: Sequence[Pair]) -> float | None:
    timed = [
        (pair.running.latency_ms, pair.candidate.latency_ms)
        for pair in pairs
        if pair.running.latency_ms and pair.candidate.latency_ms is not None
    ]
    if not timed:
        return None
    return statistics.median(c for _, c in timed) / statistics.median(r for r, _ in timed)
