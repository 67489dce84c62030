"""What can go wrong on the publisher's side; every message names the fix."""

from __future__ import annotations

from pathlib import Path

from nis_edge.errors import NisEdgeError


class PublisherError(NisEdgeError):
    """The operator of the repository acts; nothing was published."""


class StagedError(PublisherError):
    """No fault: the change waits in a file for the signatures of keys that are elsewhere."""

    def __init__(self, path: Path, status: list[str]) -> None:
        super().__init__(f"{path} waits for signatures; {'; '.join(status)}")
        self.path = path
        self.status = status
