"""Says whether the present link to the world costs by the byte, as far as the routing table tells."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nis_edge.update.plan import is_metered_route

ROUTE_TABLE: Final = Path("/proc/net/route")


def link_is_metered(route_table: Path = ROUTE_TABLE) -> bool:
    """Whether the default route is cellular or tethered; False where that cannot be told."""
    try:
        text = route_table.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return is_metered_route(text) is True
