"""Waiting with a limit (floor 0): the one place that bounds an await in time. No state, no I/O of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float) -> T:
    """Await, at most so long, and let every cancellation through.

    ``asyncio.wait_for`` before Python 3.12 forgets a cancellation that meets its result in the same turn of the event
    loop; a loop told to stop at the moment its event is set would then go on for ever.

    Args:
        awaitable: cancelled when the time is over or this call is cancelled.
        seconds: the limit.

    Raises:
        asyncio.TimeoutError: the time is over.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            raise asyncio.TimeoutError
    return task.result()
