"""Where events wait for the monitor: a queue of its own for each sender, so that one that floods drowns only itself.

Callbacks of the network and the API put things in from any thread; the monitor's own tick takes them out in turn, one
from each sender, as long as there are any. A full queue drops its oldest and counts it. Nothing acts on what waits.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from nis_edge.limits import INBOX_BYTES_MAX, INBOX_LANE_ITEMS_MAX, INBOX_LANES_MAX

T = TypeVar("T")

SHARED_LANE: Final = "(others)"
"""The queue of every sender beyond ``INBOX_LANES_MAX``."""


@dataclass
class _Lane(Generic[T]):
    items: deque[tuple[T, int]] = field(default_factory=deque)
    size: int = 0


class Inbox(Generic[T]):
    """Bounded in senders, in items of each, and in bytes over all.

    Args:
        wake: called, from the putting thread, when something was put into an empty inbox.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        # A lane is here only while it holds something: names that come and go take no memory. The first is served next.
        self._lanes: OrderedDict[str, _Lane[T]] = OrderedDict()
        self._bytes = 0
        self._dropped: dict[str, int] = {}

    def put(self, sender: str, item: T, size: int) -> None:
        """Add one item; the oldest of a full queue makes room, and is counted.

        Args:
            sender: whose queue.
            item: what waits.
            size: its bytes.
        """
        with self._lock:
            was_empty = not self._lanes
            name = sender if sender in self._lanes or len(self._lanes) < INBOX_LANES_MAX else SHARED_LANE
            lane = self._lanes.setdefault(name, _Lane())
            lane.items.append((item, size))
            lane.size += size
            self._bytes += size
            if len(lane.items) > INBOX_LANE_ITEMS_MAX:
                self._drop_oldest(name)
            while self._bytes > INBOX_BYTES_MAX:
                # Who fills the room makes room.
                self._drop_oldest(max(self._lanes, key=lambda n: self._lanes[n].size))
        if was_empty:
            self._wake()

    def take(self, limit: int) -> list[T]:
        """At most ``limit`` items, one from each sender in turn, each sender's in order."""
        taken: list[T] = []
        with self._lock:
            while self._lanes and len(taken) < limit:
                name, lane = self._lanes.popitem(last=False)
                taken.append(self._pop(lane))
                if lane.items:
                    self._lanes[name] = lane  # behind the others
        return taken

    def drain_drops(self) -> dict[str, int]:
        """How many were dropped of each sender since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        return dropped

    def __len__(self) -> int:
        with self._lock:
            return sum(len(lane.items) for lane in self._lanes.values())

    def _drop_oldest(self, name: str) -> None:
        lane = self._lanes[name]
        self._pop(lane)
        if not lane.items:
            del self._lanes[name]
        counted = name if name in self._dropped or len(self._dropped) < INBOX_LANES_MAX else SHARED_LANE
        self._dropped[counted] = self._dropped.get(counted, 0) + 1

    def _pop(self, lane: _Lane[T]) -> T:
        item, size = lane.items.popleft()
        lane.size -= size
        self._bytes -= size
        return item
