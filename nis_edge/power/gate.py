"""Verdicts on limits: pass, fail or indeterminate, each with the reason. One function per limit; pure.

Rules kept here: only what was measured can pass; a power figure passes by the upper end of its interval, never by its
middle; a model (grade D) decides nothing; a scope that leaves out part of what the device draws can't pass, and fails
only when what it takes in is a sure lower bound and that alone is over the limit; a run during which the board
throttled decides nothing about latency or power.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from nis_edge.power.energy import Interval
from nis_edge.power.rails import SourceInfo

Verdict = Literal["pass", "fail", "indeterminate"]

P99_SAMPLES_MIN: Final = 100
"""With fewer samples the 99th percentile is above the largest of them more often than not."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a device must keep (the founding plan's figures); configuration may set others."""

    latency_ms: float = 50.0
    power_w: float = 10.0
    package_bytes: int = 5_000_000_000


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict: ``value`` is what was held against ``limit``, None when there is nothing to hold."""

    name: str
    verdict: Verdict
    value: float | None
    limit: float
    unit: str
    reason: str


def judge_latency(
    p99_ms: float | None, samples: int, limits: Limits, *, throttled: Sequence[str], missing: str = ""
) -> Gate:
    """Hold the 99th percentile of the assessment latency against its limit.

    Args:
        p99_ms: ms, or None when the workload did not run.
        samples: how many latencies it stands on.
        limits: the limits.
        throttled: what throttled during the run.
        missing: why there is no figure.
    """

    def gate(verdict: Verdict, reason: str) -> Gate:
        return Gate(
            name="assessment latency p99",
            verdict=verdict,
            value=p99_ms,
            limit=limits.latency_ms,
            unit="ms",
            reason=reason,
        )

    if p99_ms is None:
        return gate("indeterminate", missing or "no assessment was timed")
    if throttled:
        return gate("indeterminate", f"the board throttled during the run: {', '.join(throttled)}")
    if samples < P99_SAMPLES_MIN:
        return gate("indeterminate", f"{samples} samples; {P99_SAMPLES_MIN} are needed for a 99th percentile")
    if p99_ms < limits.latency_ms:
        return gate("pass", f"{p99_ms:.2f} ms over {samples} samples")
    return gate("fail", f"{p99_ms:.2f} ms over {samples} samples is not below {limits.latency_ms:g} ms")


def judge_power(
    power_w: Interval | None, info: SourceInfo | None, limits: Limits, *, throttled: Sequence[str], missing: str = ""
) -> Gate:
    """Hold the 95 % interval of the mean power under load against its limit.

    Args:
        power_w: W, or None when there is no trustworthy figure.
        info: the source of it, or None when the machine has none.
        limits: the limits.
        throttled: what throttled during the run.
        missing: why there is no figure.
    """

    def gate(verdict: Verdict, reason: str) -> Gate:
        value = None if power_w is None else power_w.high
        return Gate(
            name="power upper bound", verdict=verdict, value=value, limit=limits.power_w, unit="W", reason=reason
        )

    if power_w is None or info is None:
        return gate("indeterminate", missing or "no power was measured")
    what = f"{power_w.value:.2f} W [{power_w.low:.2f}, {power_w.high:.2f}], scope {info.scope}, grade {info.grade}"
    if throttled:
        return gate("indeterminate", f"the board throttled during the run: {', '.join(throttled)}; {what}")
    if info.grade == "D" or info.scope == "model":
        return gate("indeterminate", f"{what}: a model decides nothing")
    if not info.complete:
        if info.lower_bound and power_w.low >= limits.power_w:
            return gate(
                "fail", f"{what}: even without {info.misses or 'the rest'} it is not below {limits.power_w:g} W"
            )
        return gate("indeterminate", f"{what}: the scope leaves out {info.misses or 'part of what the device draws'}")
    if power_w.high < limits.power_w:
        return gate("pass", what)
    if power_w.low >= limits.power_w:
        return gate("fail", f"{what} is not below {limits.power_w:g} W")
    return gate("fail", f"{what}: the upper end is not below {limits.power_w:g} W")


def judge_package(package_bytes: int | None, limits: Limits, *, missing: str = "") -> Gate:
    """Hold the size of the model package in bytes against its limit."""
    if package_bytes is None:
        verdict: Verdict = "indeterminate"
        reason = missing or "the package's size is not known"
    elif package_bytes < limits.package_bytes:
        verdict, reason = "pass", f"{package_bytes / 1e6:.2f} MB"
    else:
        verdict, reason = "fail", f"{package_bytes / 1e9:.2f} GB is not below {limits.package_bytes / 1e9:g} GB"
    return Gate(
        name="package size",
        verdict=verdict,
        value=package_bytes,
        limit=limits.package_bytes,
        unit="bytes",
        reason=reason,
    )


def overall(gates: Sequence[Gate]) -> Verdict:
    """One verdict for all: fail if any failed, else indeterminate if any is, else pass; none at all decides nothing."""
    verdicts = {gate.verdict for gate in gates}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "indeterminate"
