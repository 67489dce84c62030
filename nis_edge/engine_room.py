"""The model in its one worker thread: questions in, answers out, and a change of model between two questions.

The engine's C code lets go of the interpreter while it works, so the asyncio thread goes on meanwhile. There is exactly
one worker thread: loading, answering and closing never overlap. A question that fails is answered with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from nis_edge.clock import Clock
from nis_edge.errors import DeviceError, ModelError
from nis_edge.judgement import PromptJudge
from nis_edge.latency import Latencies
from nis_edge.limits import MIB
from nis_edge.monitor.machine import Ask, JudgeChanged, ModelAnswers
from nis_edge.supervisor import Beat
from nis_edge.waiting import within

T = TypeVar("T")

HASHED_BYTES_MAX: Final = 64 * MIB
"""A larger package is not read whole at each start only to name its hash; one that came as an update has it anyway."""

ANSWER_STALL_S: Final = 60.0
"""An answer that takes longer is no answer but a hang; the watchdog then lets the daemon be restarted."""


@dataclass(frozen=True)
class ModelInService:
    """What is known of the model that judges."""

    name: str
    path: str
    isa: str
    threads: int
    load_ms: float
    sha256: str | None = None  # None: too large to be read whole for it at each start


class EngineRoom:
    """One model at a time.

    Args:
        thread: an executor of exactly one thread.
        threads: worker threads of the engine itself.
        clock: the time.
        log: a structlog logger.
        tell: takes answers and changes of model, for the monitor.
    """

    def __init__(
        self,
        thread: Executor,
        *,
        threads: int,
        clock: Clock,
        log: Any,
        tell: Callable[[ModelAnswers | JudgeChanged], None],
    ) -> None:
        self._thread = thread
        self._threads = threads
        self._clock = clock
        self._log = log
        self._tell = tell
        self._judge: PromptJudge | None = None
        self._questions: asyncio.Queue[Ask] = asyncio.Queue(maxsize=1)
        self._rest_s, self._rest_reason = 0.0, ""
        self._asked_s = float("-inf")
        self.model: ModelInService | None = None
        self.reason: str | None = "no model was loaded"
        self.latencies = Latencies()

    def ask(self, question: Ask) -> None:
        """Take one question; the monitor has one under way at most. A newer one takes the place of one not begun."""
        now = self._clock.monotonic()
        if now - self._asked_s < self._rest_s:
            self._tell(ModelAnswers(question.id, None, self._rest_reason))
            return
        self._asked_s = now
        if self._questions.full():
            stale = self._questions.get_nowait()
            self._tell(ModelAnswers(stale.id, None, "a newer question took its place"))
        self._questions.put_nowait(question)

    def rest(self, seconds: float, reason: str) -> None:
        """From now on leave at least so long between two questions; the others are answered with the reason.

        Args:
            seconds: 0: no rest; infinite: the model is not asked.
            reason: why, for whoever reads an assessment.
        """
        self._rest_s, self._rest_reason = seconds, reason

    async def load(self, path: Path, shown: str | None = None, sha256: str | None = None) -> None:
        """Open a package and put it in service; the one before is closed when the new one stands.

        Args:
            path: of the package.
            shown: what to call it, where the path is a descriptor's.
            sha256: of the file, where it is known.

        Raises:
            ModelError: it can't judge; the one before stays in service (the builder acts).
            DeviceError: this machine can't run it (the operator acts).
        """
        self.put(await self._call(self.open, path), shown or str(path), sha256)

    def open(self, path: Path) -> tuple[PromptJudge, float]:
        """Open a package, blocking; the judge and the milliseconds it took."""
        started = self._clock.monotonic()
        judge = PromptJudge(path, threads=self._threads, clock=self._clock)
        if judge.model.package.size_bytes <= HASHED_BYTES_MAX:
            judge.model.package.sha256()  # here, where it keeps nobody waiting
        return judge, (self._clock.monotonic() - started) * 1e3

    def put(self, opened: tuple[PromptJudge, float], shown: str, sha256: str | None = None) -> None:
        """Put an opened package in service."""
        judge, load_ms = opened
        before, self._judge = self._judge, judge
        isa, threads = judge.model.isa, judge.model.threads
        package = judge.model.package
        if sha256 is None and package.size_bytes <= HASHED_BYTES_MAX:
            sha256 = package.sha256()
        self.model = ModelInService(judge.judge.model, shown, isa, threads, round(load_ms, 1), sha256)
        self.reason = None
        about = {"load_ms": self.model.load_ms, "isa": isa, "threads": threads}
        self._log.info("model.loaded", model=self.model.name, path=shown, **about)
        self._tell(JudgeChanged(judge.judge))
        if before is not None:
            self._thread.submit(before.close)

    def withdraw(self, reason: str) -> None:
        """Judge by rules alone from now on."""
        before, self._judge = self._judge, None
        self.model, self.reason = None, reason
        self._tell(JudgeChanged(None, reason))
        if before is not None:
            self._thread.submit(before.close)

    async def run(self, beat: Beat) -> None:
        """Answer questions until cancelled. The heart does not beat while an answer is computed."""
        while True:
            beat()
            try:
                question = await within(self._questions.get(), ANSWER_STALL_S / 4)
            except asyncio.TimeoutError:
                continue
            self._tell(await self._answer(question))

    async def close(self) -> None:
        """Let go of the package."""
        if self._judge is not None:
            await self._call(self._judge.close)
            self._judge = None

    async def _answer(self, question: Ask) -> ModelAnswers:
        judge = self._judge
        if judge is None:
            return ModelAnswers(question.id, None, self.reason)
        try:
            answer = await self._call(judge.answer_window, question.window)
        except (ModelError, DeviceError) as error:
            self._log.error("answer.failed", reason=str(error), unharmed="the rules go on judging")
            return ModelAnswers(question.id, None, str(error))
        if answer.latency_ms is not None:
            self.latencies.add(answer.latency_ms, self._clock.monotonic())
        return ModelAnswers(question.id, answer)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
