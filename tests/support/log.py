"""A log that keeps what was logged, and refuses what events.py does not declare."""

from __future__ import annotations

from typing import Any

from nis_edge.events import check


class KeptLog:
    """Stands for a structlog logger."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def named(self, name: str) -> list[dict[str, Any]]:
        """The fields of each event of this name, debug lines left out."""
        return [fields for level, n, fields in self.events if n == name and level != "debug"]

    def __getattr__(self, level: str) -> Any:
        def log(name: str, **fields: Any) -> None:
            complaint = check(name, fields)
            assert complaint is None, complaint
            self.events.append((level, name, fields))

        return log
