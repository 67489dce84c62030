"""How to get a model here: by a delta or whole, as the link allows. Pure.

On a link that costs by the byte nothing large is fetched in silence: what is over the operator's bound waits for
another link, also when it is the whole file in place of a delta that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from nis_edge.update.facts import BlockList, SignedFacts

Kind = Literal["delta", "full"]

METERED_INTERFACES: Final = ("wwan", "wwp", "ppp", "rmnet", "ccmni", "usb")
"""How the kernel names cellular and tethered links; such a link is metered unless the operator says otherwise."""


@dataclass(frozen=True)
class Way:
    """One file that leads to the model: itself, or a delta against `base_sha256`."""

    kind: Kind
    sha256: str
    length: int
    blocks: BlockList | None = None
    base_sha256: str | None = None


@dataclass(frozen=True)
class Plan:
    """Ways to try in order, and in words why others are left out."""

    ways: tuple[Way, ...]
    left_out: str | None = None


def plan(
    facts: SignedFacts,
    sha256: str,
    length: int,
    base_sha256: str | None,
    *,
    metered: bool,
    metered_bytes_max: int,
    can_delta: bool = True,
) -> Plan:
    """Order the ways to a model, the cheapest first.

    Args:
        facts: what its publisher signed.
        sha256: of the model.
        length: of the model, bytes.
        base_sha256: of the model in the store that runs; None: there is none a delta could start from.
        metered: whether bytes cost money on the present link.
        metered_bytes_max: largest file to fetch over such a link.
        can_delta: whether this installation can apply deltas.
    """
    full = Way("full", sha256, length, facts.blocks)
    ways = [
        Way("delta", delta.sha256, delta.length, delta.blocks, delta.base_sha256)
        for delta in facts.deltas
        if can_delta and delta.base_sha256 == base_sha256 and delta.length < length
    ]
    ways.sort(key=lambda way: way.length)
    ways.append(full)
    if not metered:
        return Plan(tuple(ways))
    kept = tuple(way for way in ways if way.length <= metered_bytes_max)
    if full in kept:
        return Plan(kept)
    left_out = (
        f"the whole model of {length} bytes is more than the {metered_bytes_max} that a metered link may carry "
        "(update.metered_mib_max); it waits for another link"
    )
    return Plan(kept, left_out)


def is_metered_route(route_table: str) -> bool | None:
    """Whether the default route leaves by a cellular or tethered interface; None: there is no default route.

    Args:
        route_table: the text of /proc/net/route (columns: Iface, Destination, ...; the default has 00000000).
    """
    for line in route_table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 1 and columns[1] == "00000000":
            return columns[0].startswith(METERED_INTERFACES)
    return None
