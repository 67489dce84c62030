"""What can go wrong on the publisher's side; every message names the fix."""

from __future__ import annotations

from nis_edge.errors import NisEdgeError


class PublisherError(NisEdgeError):
    """The operator of the repository acts; nothing was published."""
