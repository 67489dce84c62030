"""An assessment in words for a person: by template, with numbers, and the evidence in the agents' own words. Pure.

What agents wrote is shown as an excerpt on one line, with everything that could control a terminal made visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nis_edge.wire.codec import visible
from nis_edge.wire.messages import AgentEvent, Coordination, Finding, Metric

EXCERPT_CHARS: Final = 96
EVIDENCE_LINES: Final = 3


def excerpt(event: AgentEvent, chars: int = EXCERPT_CHARS) -> str:
    """Who did what, on one line of at most about ``chars`` characters."""
    mark = {True: " ok", False: " FAILED", None: ""}[event.ok]
    text = " ".join((event.text or "").split())
    # A recorded call often names its tool in its text: once is enough.
    subject = f" {event.tool}" if event.tool and event.tool not in text[:chars] else ""
    head = f"{event.agent} {event.kind.replace('_', ' ')}{subject}{mark}"
    if not text and event.claim is not None:
        text = f"{event.claim.key} = {event.claim.value}{f' {event.claim.unit}' if event.claim.unit else ''}"
    if len(text) > chars:
        text = text[: chars - 1].rstrip() + "…"
    return visible(f"{head}: {text}" if text else head)


def finding_lines(finding: Finding, excerpts: Mapping[str, str]) -> list[str]:
    """A finding as lines: what and who, why, on which evidence, what to do.

    Args:
        finding: as fused.
        excerpts: event id -> excerpt, as far as still known.
    """
    judged = {"rule": "by rule", "model": "by the model", "rule+model": "by rule and model"}[finding.source]
    sure = f", confidence {finding.confidence:.0%}" if finding.confidence is not None else ""
    lines = [
        f"{finding.label}  {finding.severity}  {visible(', '.join(finding.agents))}  ({judged}{sure})",
        f"  {visible(finding.text)}",
    ]
    shown = [identity for identity in finding.evidence if identity in excerpts][-EVIDENCE_LINES:]
    lines += [f"  [{visible(identity)}] {excerpts[identity]}" for identity in shown]
    lines.append(f"  -> {finding.action}")
    return lines


def coordination_lines(advice: Coordination) -> list[str]:
    """The team as lines: deadlocks, who is blocked, load, whom to ask next; nothing where there is nothing to say."""
    lines = [f"deadlock                 {visible(' -> '.join((*ring, ring[0])))}" for ring in advice.deadlocks]
    lines += [
        f"blocked                  {visible(one.agent)} waits for {visible(one.on)} since {one.since_s:.0f} s"
        for one in advice.blocked[:EVIDENCE_LINES]
    ]
    if advice.busiest is not None and advice.load.value is not None:
        share = f"{advice.load.value:.1f} fair shares of the work"
        lines.append(f"busiest                  {visible(advice.busiest)}: {share}")
    for tool, best in list(advice.best_for.items())[:EVIDENCE_LINES]:
        task = "anything" if tool == "*" else visible(tool)[:24]
        success = f"{best.success_rate:.0%} of {best.n}, at least {best.low:.0%}"
        lines.append(f"ask next for {task}: {visible(best.agent)} ({success})")
    return lines


def metric_text(metric: Metric) -> str:
    """A metric as a person reads it: value, interval, sample; or why there is none."""
    if metric.value is None:
        return f"unavailable: {metric.reason}"
    if metric.unit == "share":
        value = f"{metric.value:.0%}"
        if metric.low is not None and metric.high is not None:
            value += f" ({metric.low:.0%} to {metric.high:.0%})"
    elif metric.unit == "count":
        return f"{metric.value:.0f}"
    else:
        value = f"{metric.value:.3g} {metric.unit}"
    return f"{value}, n={metric.n}"
