"""Lets a candidate judge the live stream beside the running model and compares the two.

The daemon shows it every question that the running model gets and every answer it gives; both calls only put something
into a small table. The candidate sits in a process of its own (`nis_edge.candidate`) with one question under way at a
time; questions that come meanwhile are not compared, so a slow candidate costs nothing but its own chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from nis_edge.booting import descriptor_path
from nis_edge.candidate import Reply, question_of
from nis_edge.limits import UPDATE_SHADOW_LINE_BYTES_MAX
from nis_edge.monitor.context import Window
from nis_edge.trial import end_process
from nis_edge.update.journal import ShadowTerms
from nis_edge.update.terms import Pair
from nis_edge.waiting import within
from nis_edge.wire.messages import ModelAnswer

COMMAND: Final = (sys.executable, "-m", "nis_edge.candidate")
ANSWER_S: Final = 60.0
"""A candidate that takes longer for one answer has failed."""

WAITING_MAX: Final = 8
"""Answers of either side that wait for the other's."""


class ShadowFailedError(Exception):
    """The candidate died, hung, or gave no answer."""


class Understudy:
    """The candidate beside the running model; idle until `begin`.

    Args:
        command: the candidate's program; the package's path is appended.
        answer_s: how long one answer may take.
    """

    def __init__(self, command: Sequence[str] = COMMAND, answer_s: float = ANSWER_S) -> None:
        self._command = tuple(command)
        self._answer_s = answer_s
        self._process: asyncio.subprocess.Process | None = None
        self._question: tuple[int, Window] | None = None
        self._running: dict[int, ModelAnswer] = {}
        self._candidate: dict[int, ModelAnswer] = {}
        self._came = asyncio.Event()
        self.pairs: list[Pair] = []

    @property
    def is_watching(self) -> bool:
        """Whether questions and answers are worth showing."""
        return self._process is not None

    def see_question(self, number: int, window: Window) -> None:
        """The running model was asked this."""
        if self.is_watching:
            self._question = number, window
            self._came.set()

    def see_answer(self, number: int, answer: ModelAnswer) -> None:
        """The running model said this."""
        if self.is_watching:
            _remember(self._running, number, answer)
            self._match(number)

    async def begin(self, fd: int) -> None:
        """Start the candidate on the package behind `fd`, which it inherits.

        Raises:
            ShadowFailedError: it does not load.
            OSError: it could not be started.
        """
        self.pairs, self._question, self._came = [], None, asyncio.Event()
        self._running.clear()
        self._candidate.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            descriptor_path(fd),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(fd,),
            limit=UPDATE_SHADOW_LINE_BYTES_MAX,
        )
        ready = await self._reply()
        if ready.error is not None:
            raise ShadowFailedError(ready.error)

    async def watch(self, terms: ShadowTerms, seconds: float) -> bool:
        """Compare for at most `seconds`; whether as many windows as asked for were judged by both.

        Raises:
            ShadowFailedError: the candidate failed.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while len(self.pairs) < terms.windows:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return False
            if self._question is None:
                self._came.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._came.wait(), left_s)
                continue
            (number, window), self._question = self._question, None
            await self._ask(number, window)
        return True

    async def end(self) -> None:
        """Let the candidate go."""
        process, self._process = self._process, None
        if process is not None:
            await end_process(process)

    async def _ask(self, number: int, window: Window) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question_of(number, window))
            await self._process.stdin.drain()
        except OSError as error:
            raise ShadowFailedError("it ended while it judged beside the running model") from error
        reply = await self._reply()
        if reply.error is not None or reply.answer is None or reply.id != number:
            raise ShadowFailedError(f"it gave no answer: {reply.error or 'nonsense'}")
        _remember(self._candidate, number, reply.answer)
        self._match(number)

    async def _reply(self) -> Reply:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await within(self._process.stdout.readline(), self._answer_s)
            return msgspec.json.decode(line, type=Reply)
        except asyncio.TimeoutError as error:
            raise ShadowFailedError(f"it gave no answer within {self._answer_s:.0f} s") from error
        except (msgspec.MsgspecError, ValueError, OSError) as error:
            raise ShadowFailedError("it ended while it judged beside the running model") from error

    def _match(self, number: int) -> None:
        if number in self._running and number in self._candidate:
            self.pairs.append(Pair(self._running.pop(number), self._candidate.pop(number)))
            self._came.set()


def _remember(answers: dict[int, ModelAnswer], number: int, answer: ModelAnswer) -> None:
    answers[number] = answer
    while len(answers) > WAITING_MAX:
        answers.pop(next(iter(answers)))
