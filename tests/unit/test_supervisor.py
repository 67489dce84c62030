"""The supervisor: a failure stays in its loop, endless failure ends the daemon, a silent heart is seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nis_edge.limits import LOOP_RESTARTS_MAX
from nis_edge.supervisor import Beat, LoopFailedError, Supervisor, doubling_pause_s
from tests.support.clock import SteppedClock


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda name, **fields: self.events.append((level, name, fields))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for level, n, fields in self.events if n == name and level != "debug"]


def supervisor(log: Log, clock: SteppedClock | None = None) -> Supervisor:
    return Supervisor(clock or SteppedClock(), log, pause_s=lambda failures: 0.0)


async def forever(beat: Beat) -> None:
    await asyncio.Event().wait()


def test_a_loop_that_fails_is_restarted_and_the_others_never_notice() -> None:
    async def scenario() -> None:
        log, stop, starts, others = Log(), asyncio.Event(), [], []

        async def fragile(beat: Beat) -> None:
            starts.append(1)
            if len(starts) < 3:
                raise ValueError("broken")
            stop.set()
            await forever(beat)

        async def sturdy(beat: Beat) -> None:
            others.append(1)
            await forever(beat)

        s = supervisor(log)
        s.add("sturdy", sturdy, unharmed="-", stall_s=1)
        s.add("fragile", fragile, unharmed="the sturdy one", stall_s=1)
        await asyncio.wait_for(s.run(stop), 5)
        assert len(others) == 1
        assert s.restarts() == {"sturdy": 0, "fragile": 2}
        failed = log.named("loop.failed")
        assert failed[0] == {"loop": "fragile", "reason": "ValueError: broken", "unharmed": "the sturdy one"}
        assert len(log.named("loop.restarted")) == 2

    asyncio.run(scenario())


def test_a_loop_that_keeps_failing_ends_the_daemon_after_the_others_ended_cleanly() -> None:
    async def scenario() -> None:
        log, ended = Log(), []

        async def hopeless(beat: Beat) -> None:
            await asyncio.sleep(0)
            raise OSError("no disk")

        async def tidy(beat: Beat) -> None:
            try:
                await forever(beat)
            finally:
                ended.append("tidy")

        s = supervisor(log)
        s.add("tidy", tidy, unharmed="-", stall_s=1)
        s.add("hopeless", hopeless, unharmed="-", stall_s=1)
        with pytest.raises(LoopFailedError, match=r"hopeless loop failed 6 times .* no disk"):
            await asyncio.wait_for(s.run(asyncio.Event()), 5)
        assert ended == ["tidy"]
        assert len(log.named("loop.failed")) == LOOP_RESTARTS_MAX + 1

    asyncio.run(scenario())


def test_failures_far_apart_never_add_up() -> None:
    async def scenario() -> None:
        log, clock, stop, starts = Log(), SteppedClock(), asyncio.Event(), []

        async def rare(beat: Beat) -> None:
            starts.append(1)
            if len(starts) > 4 * LOOP_RESTARTS_MAX:
                stop.set()
                await forever(beat)
            clock.advance(120)
            raise ValueError("now and then")

        s = supervisor(log, clock)
        s.add("rare", rare, unharmed="-", stall_s=1e9)
        await asyncio.wait_for(s.run(stop), 5)

    asyncio.run(scenario())


def test_a_loop_that_just_ends_counts_as_failed_unless_that_is_its_way() -> None:
    async def scenario() -> None:
        log, stop, runs = Log(), asyncio.Event(), []

        async def short(beat: Beat) -> None:
            runs.append(1)
            if len(runs) == 2:
                stop.set()
                await forever(beat)

        async def once(beat: Beat) -> None:
            return

        s = supervisor(log)
        s.add("short", short, unharmed="-", stall_s=1)
        s.add("once", once, unharmed="-", stall_s=1, may_end=True)
        await asyncio.wait_for(s.run(stop), 5)
        assert [f["loop"] for f in log.named("loop.failed")] == ["short"]

    asyncio.run(scenario())


def test_loops_end_in_reverse_order_so_that_feeders_stop_before_sinks() -> None:
    async def scenario() -> None:
        ended: list[str] = []
        stop = asyncio.Event()
        s = supervisor(Log())
        for name in ("sink", "middle", "source"):

            async def body(beat: Beat, name: str = name) -> None:
                try:
                    stop.set()
                    await forever(beat)
                finally:
                    await asyncio.sleep(0)
                    ended.append(name)

            s.add(name, body, unharmed="-", stall_s=1)
        await asyncio.wait_for(s.run(stop), 5)
        assert ended == ["source", "middle", "sink"]

    asyncio.run(scenario())


def test_a_silent_heart_is_named_and_a_beating_one_is_not() -> None:
    async def scenario() -> None:
        clock, stop = SteppedClock(), asyncio.Event()
        beats: list[Beat] = []

        async def body(beat: Beat) -> None:
            beats.append(beat)
            await forever(beat)

        s = supervisor(Log(), clock)
        s.add("quick", body, unharmed="-", stall_s=5)
        s.add("slow", body, unharmed="-", stall_s=60)
        running = asyncio.create_task(s.run(stop))
        while len(beats) < 2:
            await asyncio.sleep(0)
        clock.advance(10)
        assert s.stalled() == ["quick"]
        beats[0]()
        assert s.stalled() == []
        stop.set()
        await running

    asyncio.run(scenario())


def test_a_loop_that_has_not_begun_yet_is_not_stalled() -> None:
    async def scenario() -> None:
        stop = asyncio.Event()
        s = supervisor(Log(), SteppedClock(monotonic=1e6))
        seen: list[list[str]] = []

        async def first(beat: Beat) -> None:
            seen.append(s.stalled())
            stop.set()
            await forever(beat)

        s.add("first", first, unharmed="-", stall_s=1)
        s.add("second", forever, unharmed="-", stall_s=1)
        await asyncio.wait_for(s.run(stop), 5)
        assert seen == [[]]

    asyncio.run(scenario())


def test_the_pause_doubles_to_a_ceiling() -> None:
    assert [doubling_pause_s(n) for n in (1, 2, 3, 10)] == [0.5, 1.0, 2.0, 30.0]
