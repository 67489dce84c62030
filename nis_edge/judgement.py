"""A package's model as the monitor's second judge: prompts in, answers out.

The daemon's worker thread and the replay of recordings share this one definition, so that a recording is judged by
exactly what runs on the device. Consecutive windows share their beginning; the session keeps what it has computed of
it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from nis_edge.clock import Clock
from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from nis_edge.monitor.context import Window
from nis_edge.monitor.judge import answer_of, judge_of, outputs_of
from nis_edge.monitor.labels import HEAD_NAME
from nis_edge.monitor.window import PROMPT_TOKENS_MAX, SPECIALS, Prompt, encode, render
from nis_edge.wire.messages import ModelAnswer


def shipped_package() -> Path | None:
    """Where the model that ships with nis-edge lies, or None where it was not built in."""
    try:
        found = resources.files("nis_edge.shipped") / "nis-nano.nis"
    except ModuleNotFoundError:
        return None
    path = Path(str(found))
    return path if path.is_file() else None


class PromptJudge:
    """One open model that answers prompts, one at a time.

    Args:
        path: a model package with a tokenizer and the task head for findings.
        threads: worker threads of the engine.
        clock: measures what an answer took; None leaves that out, so that a replay is the same each time.

    Raises:
        ModelError: the package can't judge agents; nothing else was touched, the builder acts.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, clock: Clock | None = None) -> None:
        self._model = Model.open(path, threads=threads)
        try:
            manifest = self._model.manifest
            tokenizer = self._model.tokenizer
            if tokenizer is None:
                raise ModelError(f"{path}: the package has no tokenizer, so it can't read events")
            for name in SPECIALS:
                # A model made for other windows would fail at each prompt: better to say so now.
                tokenizer.special(name)
            self._tokenizer = tokenizer
            self._outputs = outputs_of(manifest)
            self.judge = judge_of(manifest)
            self._session = self._model.session(max_positions=PROMPT_TOKENS_MAX)
        except BaseException:
            self._model.close()
            raise
        self._clock = clock
        self._seen: list[int] = []

    @property
    def model(self) -> Model:
        """The open model, for what can be said about it."""
        return self._model

    def answer(self, prompt: Prompt) -> ModelAnswer:
        """Put one prompt to the model.

        Raises:
            ModelError: the model gave no usable answer; the next prompt may be put all the same.
        """
        started = self._clock.monotonic() if self._clock else 0.0
        tokens = encode(prompt, self._tokenizer)
        # The last token is always run again: its position is where the head is read.
        shared = min(_shared_start(self._seen, tokens), len(tokens) - 1)
        self._seen = []
        self._session.rewind(shared)
        self._session.feed(tokens[shared:])
        raw = [float(value) for value in self._session.head(HEAD_NAME)]
        self._seen = tokens
        latency_ms = (self._clock.monotonic() - started) * 1e3 if self._clock else None
        return answer_of(self.judge, self._outputs, raw, tokens=len(tokens), latency_ms=latency_ms)

    def answer_window(self, window: Window) -> ModelAnswer:
        """Put one window to the model: rendering it takes time too, so it is best done where the model runs.

        Raises:
            ModelError: the model gave no usable answer; the next window may be put all the same.
        """
        return self.answer(render(window))

    def close(self) -> None:
        """Let go of the package."""
        self._session.close()
        self._model.close()


def _shared_start(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two prompts have in common from their start."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
