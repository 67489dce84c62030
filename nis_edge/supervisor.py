"""Runs the daemon's loops: one that fails is restarted alone, one that keeps failing ends the daemon.

Theory of operation. Each loop is a task on the one asyncio thread. When it raises, the failure is logged with what is
unharmed, and it starts again after a pause that doubles; the others never notice. More failures than
``LOOP_RESTARTS_MAX`` within ``LOOP_WINDOW_SECONDS`` mean that restarting does not help, and ``run`` raises, so that the
service manager may act. Each loop beats its heart; one that has not for longer than it promised is stalled, and the
watchdog is then left hungry on purpose.

Stopping cancels the loops one after the other, the last added first, so that whatever feeds others stops before what it
feeds: add the sinks first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from nis_edge.clock import Clock
from nis_edge.errors import NisEdgeError
from nis_edge.limits import LOOP_RESTARTS_MAX, LOOP_WINDOW_SECONDS

STOP_SECONDS_MAX: Final = 5.0
"""Each loop's time to end cleanly; systemd's TimeoutStopSec in our unit leaves room for all of them."""

Beat = Callable[[], None]
LoopBody = Callable[[Beat], Awaitable[None]]


class LoopFailedError(NisEdgeError):
    """A loop failed too often; the service manager restarts the daemon."""


def doubling_pause_s(failures: int) -> float:
    """Seconds to wait before the n-th restart (from 1): 0.5, 1, 2 ... 30."""
    return float(min(30.0, 0.5 * 2 ** (failures - 1)))


@dataclass
class _Loop:
    name: str
    body: LoopBody
    unharmed: str
    stall_s: float
    may_end: bool
    last_beat: float = 0.0
    restarts: int = 0
    failures: deque[float] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Supervisor:
    """The set of loops.

    Args:
        clock: the time.
        log: a structlog logger.
        pause_s: failures in a row -> seconds before the restart.
    """

    def __init__(self, clock: Clock, log: Any, pause_s: Callable[[int], float] = doubling_pause_s) -> None:
        self._clock = clock
        self._log = log
        self._pause_s = pause_s
        self._loops: list[_Loop] = []

    def add(self, name: str, body: LoopBody, *, unharmed: str, stall_s: float, may_end: bool = False) -> None:
        """Add a loop; it starts with ``run``.

        Args:
            name: for the log.
            body: runs until cancelled; calls what it is given at least every ``stall_s`` seconds.
            unharmed: what goes on when this loop fails, for the log.
            stall_s: silence of the heart that counts as stalled.
            may_end: whether returning is its proper end; otherwise returning counts as a failure.
        """
        self._loops.append(_Loop(name, body, unharmed, stall_s, may_end))

    async def run(self, stop: asyncio.Event) -> None:
        """Run every loop until ``stop`` is set, then end them in order.

        Raises:
            LoopFailedError: one failed too often (the others are ended cleanly first).
        """
        for loop in self._loops:
            self._beat(loop)
            loop.task = asyncio.create_task(self._keep_alive(loop), name=loop.name)
        stopped = asyncio.create_task(stop.wait())
        watched = {loop.task for loop in self._loops if loop.task is not None}
        try:
            while not stopped.done() and watched:
                done, _ = await asyncio.wait({stopped, *watched}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & watched:
                    watched.discard(task)
                    task.result()
            await stopped
        finally:
            stopped.cancel()
            await self._end_all()

    def stalled(self) -> list[str]:
        """The names of running loops whose hearts have been silent for too long."""
        now = self._clock.monotonic()
        return [
            loop.name
            for loop in self._loops
            if loop.task is not None and not loop.task.done() and now - loop.last_beat > loop.stall_s
        ]

    def restarts(self) -> dict[str, int]:
        """How often each loop was restarted since the start."""
        return {loop.name: loop.restarts for loop in self._loops}

    async def _keep_alive(self, loop: _Loop) -> None:
        while True:
            self._beat(loop)
            try:
                await loop.body(lambda: self._beat(loop))
                if loop.may_end:
                    return
                reason = "it ended on its own"
            except Exception as error:
                reason = f"{type(error).__name__}: {error}" if not isinstance(error, NisEdgeError) else str(error)
                self._log.debug("loop.failed", loop=loop.name, reason=reason, unharmed=loop.unharmed, exc_info=True)
            now = self._clock.monotonic()
            loop.failures.append(now)
            while now - loop.failures[0] > LOOP_WINDOW_SECONDS:
                loop.failures.popleft()
            self._log.error("loop.failed", loop=loop.name, reason=reason, unharmed=loop.unharmed)
            if len(loop.failures) > LOOP_RESTARTS_MAX:
                raise LoopFailedError(
                    f"the {loop.name} loop failed {len(loop.failures)} times within {LOOP_WINDOW_SECONDS:g} s, "
                    f"last with: {reason}; records on disk are safe, the service manager may start again"
                )
            await self._rest(loop, self._pause_s(len(loop.failures)))
            loop.restarts += 1
            self._log.warning("loop.restarted", loop=loop.name, restarts=loop.restarts)

    async def _rest(self, loop: _Loop, seconds: float) -> None:
        # A pause is no stall: the heart goes on.
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0.0:
            self._beat(loop)
            await asyncio.sleep(min(left, loop.stall_s / 2))

    def _beat(self, loop: _Loop) -> None:
        loop.last_beat = self._clock.monotonic()

    async def _end_all(self) -> None:
        for loop in reversed(self._loops):
            if loop.task is None or loop.task.done():
                continue
            loop.task.cancel()
            await asyncio.wait({loop.task}, timeout=STOP_SECONDS_MAX)
            if not loop.task.done():
                self._log.error(
                    "loop.failed",
                    loop=loop.name,
                    reason=f"did not end within {STOP_SECONDS_MAX:g} s",
                    unharmed="the other loops end; records on disk are safe",
                )
