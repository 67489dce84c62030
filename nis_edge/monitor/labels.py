"""The seventeen findings: their names in fixed order, how grave each is, and what an operator should do about it.

The order is a contract: output ``i`` of the task head ``consciousness`` is the probability of ``LABELS[i]``, and the
last output is ``failure``, the probability that the run fails. Level and action come from this table; no text a model
wrote decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from nis_edge.wire.messages import Severity, Status

LABELS: Final[tuple[str, ...]] = (
    "looping",
    "stalled",
    "contradiction",
    "overconfident",
    "goal_drift",
    "ignored_input",
    "unverified_claim",
    "premature_end",
    "context_loss",
    "role_violation",
    "missing_clarification",
    "invalid_call",
    "unsafe_action",
    "resource_starvation",
    "sensor_fault",
    "physics_violation",
    "stale_feed",
)

FAILURE: Final = "failure"
"""The head's last output: the probability that the run does not reach its goal. Not a finding."""

HEAD_NAME: Final = "consciousness"
HEAD_OUTPUTS: Final[tuple[str, ...]] = (*LABELS, FAILURE)


class LabelRule(NamedTuple):
    """What a finding means to an operator."""

    severity: Severity
    meaning: str
    action: str


TABLE: Final[Mapping[str, LabelRule]] = {
    "looping": LabelRule("high", "repeats itself without progress", "interrupt the agent and change its plan or tool"),
    "stalled": LabelRule("high", "shows no progress", "check that the agent's process is alive, then restart it"),
    "contradiction": LabelRule(
        "medium", "contradicts what was said before", "ask the agents to settle which one holds"
    ),
    "overconfident": LabelRule("medium", "claims more certainty than its results earn", "demand a check before acting"),
    "goal_drift": LabelRule("medium", "works on something else than the goal", "restate the goal to the agent"),
    "ignored_input": LabelRule(
        "medium", "passed over what it was told", "repeat the input and ask for an answer to it"
    ),
    "unverified_claim": LabelRule("medium", "states as fact what no result shows", "ask for the source, or check it"),
    "premature_end": LabelRule("medium", "ended before the goal was met", "reopen the task"),
    "context_loss": LabelRule("medium", "lost what it knew earlier", "give the agent the earlier facts again"),
    "role_violation": LabelRule("medium", "acts outside its role", "restrict the agent's tools to its role"),
    "missing_clarification": LabelRule("medium", "acted on an unclear request", "have the agent ask before it goes on"),
    "invalid_call": LabelRule("medium", "calls a tool in a way that fails", "check the tool and the call's arguments"),
    "unsafe_action": LabelRule("critical", "does something that may harm", "stop the agent and have a person look"),
    "resource_starvation": LabelRule("high", "the device runs short", "shed load or cool the device"),
    "sensor_fault": LabelRule("medium", "a sensor is absent or implausible", "check the sensor and its wiring"),
    "physics_violation": LabelRule(
        "high", "numbers break a conservation law", "distrust the reading; check the sensors"
    ),
    "stale_feed": LabelRule("medium", "a feed has gone quiet", "check the sender and its link"),
}

SEVERITY_ORDER: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")

STATUS_OF_SEVERITY: Final[Mapping[Severity, Status]] = {
    "low": "healthy",
    "medium": "degraded",
    "high": "degraded",
    "critical": "critical",
}
"""The worst finding decides the status of whom it names; the worst component decides the whole. Never a mean."""
