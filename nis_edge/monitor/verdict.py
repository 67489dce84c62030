"""What a rule says: one value, the same for every rule."""

from __future__ import annotations

from typing import Literal

import msgspec

from nis_edge.wire.messages import Severity

Standing = Literal["raise", "hold"]
Scope = Literal["agent", "silence", "device", "physics", "claims", "team", "model"]
"""When a judge has its say: with its agent's events, in a scan, with readings, with claims, with an answer."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A rule's word on one subject.

    ``standing`` "raise" opens or renews the finding, "hold" keeps it if it is open (the value lies between the rule's
    two thresholds). A rule that says nothing withdraws its finding: that is the whole of the hysteresis.

    Args:
        scope: when this rule has its say.
        label: one of ``labels.LABELS``.
        rule: which rule speaks; who raised a finding is who may withdraw it.
        subject: an agent's name, or the device, or a feed.
        severity: how grave, by the rule's measure.
        text: one line with numbers.
        evidence: event ids or sensor names, oldest first.
        agents: whom it concerns; empty means the subject alone.
    """

    scope: Scope
    label: str
    rule: str
    subject: str
    severity: Severity
    text: str
    evidence: tuple[str, ...]
    agents: tuple[str, ...] = ()
    standing: Standing = "raise"
