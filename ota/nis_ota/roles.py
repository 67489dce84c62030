"""Who signs what, for how long, and how many of them must."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

SPECIFICATION: Final = "1.0.31"
MODELS: Final = "models"
AGENT: Final = "agent"
ROLLOUT: Final = "rollout"

DELEGATED: Final = {MODELS: "models/*/*", AGENT: "agent/*", ROLLOUT: "rollout/*"}
"""Delegated role -> the one shape of target names it may sign. All end the search: no other role is asked then."""

ONLINE_ROLES: Final = ("snapshot", "timestamp", ROLLOUT)

LIFE: Final = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    MODELS: timedelta(days=90),
    AGENT: timedelta(days=90),
    ROLLOUT: timedelta(days=30),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(days=3),
}
"""How long a role's signature counts (design: ota section 4); `targets` bounds how long a freeze can go unnoticed."""


@dataclass(frozen=True)
class Quorum:
    """`threshold` of `count` keys must sign."""

    threshold: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Quorum:
        """Read `2/3`.

        Raises:
            ValueError: not M/N with 1 <= M <= N <= 9.
        """
        threshold, _, count = text.partition("/")
        quorum = cls(int(threshold), int(count))
        if not 1 <= quorum.threshold <= quorum.count <= 9:
            raise ValueError(text)
        return quorum
