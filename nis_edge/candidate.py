"""The candidate in a process of its own, judging what the running model judges: `python -m nis_edge.candidate PKG`.

One JSON object a line: in `{"id", "window"}`, out `{"id", "answer"}` or `{"id", "error"}`. It limits itself before it
touches the package and gives way to everything else on the machine. A crash ends this process and nothing else.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from nis_edge.clock import SystemClock
from nis_edge.errors import NisEdgeError
from nis_edge.judgement import PromptJudge
from nis_edge.limits import UPDATE_SHADOW_LINE_BYTES_MAX
from nis_edge.monitor.context import Window
from nis_edge.selftest import limit_this_process
from nis_edge.wire.messages import ModelAnswer

NICENESS: Final = 10


class Question(msgspec.Struct, frozen=True):
    """One window, numbered."""

    id: int
    window: Window


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the candidate says of the question of that id."""

    id: int
    answer: ModelAnswer | None = None
    error: str | None = None


def question_of(number: int, window: Window) -> bytes:
    """A window as a line for the process."""
    return msgspec.json.encode(Question(number, window)) + b"\n"


def main() -> int:
    """Answer questions until the input ends."""
    path = Path(sys.argv[1])
    os.nice(NICENESS)
    limit_this_process(path.stat().st_size, cpu_s=None)
    try:
        judge = PromptJudge(path, threads=1, clock=SystemClock())
    except NisEdgeError as error:
        _say(Reply(0, error=" ".join(str(error).split())[:300]))
        return 1
    _say(Reply(0))
    for line in iter(lambda: sys.stdin.buffer.readline(UPDATE_SHADOW_LINE_BYTES_MAX), b""):
        question = msgspec.json.decode(line, type=Question)
        try:
            _say(Reply(question.id, judge.answer_window(question.window)))
        except NisEdgeError as error:
            _say(Reply(question.id, error=" ".join(str(error).split())[:300]))
    return 0


def _say(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    raise SystemExit(main())
