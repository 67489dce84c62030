"""The engine's room: one question at a time, a failure is an answer, a new model only when it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nis_edge import engine_room as module
from nis_edge.engine_room import EngineRoom
from nis_edge.errors import ModelError
from nis_edge.monitor.context import NO_DEVICE, Window
from nis_edge.monitor.machine import Ask, JudgeChanged, ModelAnswers
from nis_edge.monitor.state import Judge
from nis_edge.wire.messages import ModelAnswer
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog

WINDOW = Window(None, (), NO_DEVICE, 0.0, True)


class FakePromptJudge:
    """What the room uses of a ``PromptJudge``."""

    def __init__(self, path: Path, *, threads: int, clock: Any) -> None:
        if "bad" in str(path):
            raise ModelError(f"{path}: no task head")
        self.judge = Judge(model=Path(path).stem, thresholds={}, temperatures={})
        package = SimpleNamespace(size_bytes=7, sha256=lambda: "ab" * 32)
        self.model = SimpleNamespace(isa="scalar", threads=threads, package=package)
        self.failure: ModelError | None = None
        self.closed = False

    def answer_window(self, window: Window) -> ModelAnswer:
        if self.failure is not None:
            raise self.failure
        return ModelAnswer(model=self.judge.model, probabilities={}, failure_probability=None, tokens=1, latency_ms=2.0)

    def close(self) -> None:
        self.closed = True


def ask(number: int) -> Ask:
    return Ask(number, WINDOW)


def run(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[EngineRoom, list[Any], KeptLog], Awaitable[None]]) -> None:
    async def body() -> None:
        monkeypatch.setattr(module, "PromptJudge", FakePromptJudge)
        told: list[Any] = []
        log = KeptLog()
        with ThreadPoolExecutor(1) as thread:
            room = EngineRoom(thread, threads=2, clock=SteppedClock(), log=log, tell=told.append)
            task = asyncio.ensure_future(room.run(lambda: None))
            try:
                await asyncio.wait_for(scenario(room, told, log), 10)
            finally:
                task.cancel()
                await asyncio.wait({task})
                await room.close()

    asyncio.run(body())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def answers(told: list[Any]) -> list[ModelAnswers]:
    return [t for t in told if isinstance(t, ModelAnswers)]


def test_a_loaded_model_is_named_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: EngineRoom, told: list[Any], log: KeptLog) -> None:
        await room.load(Path("/m/nano.nis"))
        assert isinstance(told[0], JudgeChanged)
        assert room.model is not None
        assert (room.model.name, room.model.isa, room.model.threads) == ("nano", "scalar", 2)
        assert room.model.sha256 == "ab" * 32
        assert log.named("model.loaded")[0]["path"] == "/m/nano.nis"
        room.ask(ask(5))
        await until(lambda: answers(told))
        assert answers(told)[0].id == 5
        assert room.latencies.summary()["n"] == 1

    run(monkeypatch, scenario)


def test_a_failed_answer_is_told_with_its_reason_and_the_next_is_put_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(room: EngineRoom, told: list[Any], log: KeptLog) -> None:
        await room.load(Path("nano.nis"))
        judge: Any = room._judge
        judge.failure = ModelError("output is not finite")
        room.ask(ask(1))
        await until(lambda: len(answers(told)) == 1)
        assert answers(told)[0].answer is None
        assert answers(told)[0].reason == "output is not finite"
        judge.failure = None
        room.ask(ask(2))
        await until(lambda: len(answers(told)) == 2)
        assert answers(told)[1].answer is not None

    run(monkeypatch, scenario)


def test_a_model_that_can_not_judge_leaves_the_old_one_in_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: EngineRoom, told: list[Any], log: KeptLog) -> None:
        await room.load(Path("nano.nis"))
        old: Any = room._judge
        with pytest.raises(ModelError, match="no task head"):
            await room.load(Path("bad.nis"))
        assert room._judge is old
        assert not old.closed
        await room.load(Path("new.nis"), "update 2")
        await until(lambda: old.closed)
        assert room.model is not None
        assert (room.model.name, room.model.path) == ("new", "update 2")

    run(monkeypatch, scenario)


def test_without_a_model_a_question_is_answered_with_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: EngineRoom, told: list[Any], log: KeptLog) -> None:
        room.withdraw("nothing is installed")
        room.ask(ask(1))
        await until(lambda: answers(told))
        assert answers(told)[0].reason == "nothing is installed"
        assert told[0] == JudgeChanged(None, "nothing is installed")

    run(monkeypatch, scenario)


def test_a_newer_question_takes_the_place_of_one_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: EngineRoom, told: list[Any], log: KeptLog) -> None:
        await room.load(Path("nano.nis"))
        room.ask(ask(1))
        room.ask(ask(2))
        await until(lambda: len(answers(told)) == 2)
        assert [(a.id, a.answer is None) for a in answers(told)] == [(1, True), (2, False)]

    run(monkeypatch, scenario)


def test_a_resting_model_leaves_questions_unanswered_with_the_reason_until_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(room: EngineRoom, told: list[Any], log: KeptLog) -> None:
        await room.load(Path("one.nis"))
        room.rest(5.0, "the board is hot")
        for number in (1, 2):
            room.ask(ask(number))
            while not any(isinstance(t, ModelAnswers) and t.id == number for t in told):
                await asyncio.sleep(0.001)
        room._clock.advance(5.0)
        room.ask(ask(3))
        while not any(isinstance(t, ModelAnswers) and t.id == 3 for t in told):
            await asyncio.sleep(0.001)
        answers = {t.id: t for t in told if isinstance(t, ModelAnswers)}
        assert answers[1].answer is not None and answers[3].answer is not None
        assert (answers[2].answer, answers[2].reason) == (None, "the board is hot")

    run(monkeypatch, scenario)
