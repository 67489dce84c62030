"""Bounded waiting gives the result, keeps the limit, and never loses a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from nis_edge.waiting import within


def test_a_cancellation_that_meets_the_result_is_not_forgotten() -> None:
    async def body() -> None:
        event = asyncio.Event()
        waiting = asyncio.ensure_future(within(event.wait(), 60.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        event.set()
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(body())


def test_a_result_in_time_is_given() -> None:
    async def soon() -> int:
        await asyncio.sleep(0)
        return 7

    async def body() -> int:
        return await within(soon(), 60.0)

    assert asyncio.run(body()) == 7


def test_an_error_in_time_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("so it is")

    async def body() -> None:
        await within(fails(), 60.0)

    with pytest.raises(ValueError, match="so it is"):
        asyncio.run(body())


def test_when_the_time_is_over_what_was_awaited_has_ended() -> None:
    ended = []

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def body() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await within(never(), 0.01)
        assert ended

    asyncio.run(body())


def test_a_cancelled_wait_cancels_what_it_waited_for() -> None:
    async def body() -> bool:
        inner: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(within(inner, 60.0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        return inner.cancelled()

    assert asyncio.run(body())
