"""A package's model as the monitor's second judge: windows in, answers out.

The daemon's worker thread and the replay of recordings share this one definition, so that a recording is judged by
exactly what runs on the device, and the benchmark times it. Consecutive windows share their beginning; the session
keeps what it has computed of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nis_edge.clock import Clock
from nis_edge.config import MonitorOptions
from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from nis_edge.monitor.context import Window
from nis_edge.monitor.dense import dense, meaning_vectors, names
from nis_edge.monitor.evidence import gather
from nis_edge.monitor.judge import answer_of, judge_of, outputs_of
from nis_edge.monitor.labels import HEAD_NAME
from nis_edge.monitor.machine import Options
from nis_edge.monitor.series_judge import SeriesJudge
from nis_edge.monitor.tables import Tables, decode
from nis_edge.monitor.window import PROMPT_TOKENS_MAX, SPECIALS, Prompt, encode, render_with
from nis_edge.pack.layout import Manifest
from nis_edge.wire.messages import ModelAnswer


def shipped_package() -> Path | None:
    """Where the model that ships with nis-edge lies, or None where it was not built in."""
    try:
        found = resources.files("nis_edge.shipped") / "nis-nano.nis"
    except ModuleNotFoundError:
        return None
    path = Path(str(found))
    return path if path.is_file() else None


@cache
def series_judge() -> SeriesJudge | None:
    """The shipped judge of sensors' series, or None where it was not built in: then thresholds judge alone.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        found = resources.files("nis_edge.shipped") / "series.bin"
    except ModuleNotFoundError:
        return None
    return SeriesJudge(found.read_bytes()) if found.is_file() else None


@cache
def shipped_options() -> Options:
    """What a daemon without a configuration judges by; a recording is judged by the same.

    Raises:
        ModelError: the judge of sensors' series is damaged.
    """
    return Options(series=series_judge(), expected_share=MonitorOptions().expected_share)


class ReadingSession(Protocol):
    """What a reader needs of a session; as the engine's."""

    def feed(self, tokens: Sequence[int]) -> object:
        """Take tokens in."""
        ...

    def head(self, name: str) -> NDArray[np.float32]:
        """Raw outputs of a task head at the last position, float32 [outputs]."""
        ...

    def rewind(self, position: int) -> object:
        """Keep the first ``position`` positions."""
        ...

    def close(self) -> object:
        """Let go of what was read."""
        ...


class ReadableModel(Protocol):
    """What a reader needs of a model; as the engine's."""

    @property
    def manifest(self) -> Manifest:
        """What the package says about itself."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The package's tokenizer, or None."""
        ...

    @property
    def tables(self) -> bytes | None:
        """The package's tables for judging evidence, or None."""
        ...

    def session(self, max_positions: int | None = None) -> ReadingSession:
        """A fresh session of so many positions, or over the manifest's whole context."""
        ...


class WindowReader:
    """What an open package says of windows, in raw outputs: its model alone, or with its tables where it has some.

    Consecutive windows share their beginning; the session keeps what it has computed of it.

    Args:
        model: with a tokenizer and the task head for findings; it stays the caller's to close.

    Attributes:
        outputs: names of the raw outputs.
        tables: of the package, or None.
        computed: tokens of the last prompt that went through the model; the others were kept of the prompt before.

    Raises:
        ModelError: the package can't judge agents; nothing else was touched, the builder acts.
    """

    def __init__(self, model: ReadableModel) -> None:
        tokenizer, said_of = model.tokenizer, f"model {model.manifest.model.id} {model.manifest.model.version}"
        if tokenizer is None:
            raise ModelError(f"{said_of}: the package has no tokenizer, so it can't read events")
        for name in SPECIALS:
            # A model made for other windows would fail at each prompt: better to say so now.
            tokenizer.special(name)
        context = model.manifest.architecture.context
        if context < PROMPT_TOKENS_MAX:
            raise ModelError(
                f"{said_of}: a prompt takes {PROMPT_TOKENS_MAX} positions, the package's context has {context}"
            )
        self._tokenizer = tokenizer
        self.outputs = outputs_of(model.manifest)
        packed = model.tables
        self.tables = Tables(decode(packed), names(), self.outputs) if packed is not None else None
        self._session = model.session(max_positions=PROMPT_TOKENS_MAX)
        self._seen: list[int] = []
        self.computed = 0

    def raw(self, prompt: Prompt) -> tuple[list[float], int]:
        """The model's own raw outputs for a prompt, and the prompt's length in tokens."""
        tokens = encode(prompt, self._tokenizer)
        # The last token is always run again: its position is where the head is read.
        shared = min(_shared_start(self._seen, tokens), len(tokens) - 1)
        self._seen = []
        self._session.rewind(shared)
        self._session.feed(tokens[shared:])
        raw = [float(value) for value in self._session.head(HEAD_NAME)]
        self._seen, self.computed = tokens, len(tokens) - shared
        return raw, len(tokens)

    def raw_of(self, window: Window) -> tuple[list[float], int]:
        """Raw outputs for a window, of model and tables together, and the length of the prompt."""
        evidence = gather(window)
        raw, count = self.raw(render_with(window, evidence))
        if self.tables is None:
            return raw, count
        meanings = self.tables.meanings
        numbers = dense(window, evidence, meanings)
        fused = self.tables.fused(numbers, meaning_vectors(window, meanings), np.array(raw, dtype=np.float32))
        return [float(value) for value in fused], count

    def forget(self) -> None:
        """Keep nothing of the last prompt: the next one goes through the model whole."""
        self._seen = []

    def close(self) -> None:
        """Let go of the session."""
        self._session.close()


class PromptJudge:
    """One open package that judges windows, one at a time.

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
            self._reader = WindowReader(self._model)
            self.judge = judge_of(self._model.manifest)
        except BaseException:
            self._model.close()
            raise
        self._clock = clock

    @property
    def model(self) -> Model:
        """The open model, for what can be said about it."""
        return self._model

    def answer_window(self, window: Window) -> ModelAnswer:
        """Judge one window: by the model, and by the package's tables where it has some.

        Rendering takes time too, so it is best done where the model runs.

        Raises:
            ModelError: the model gave no usable answer; the next window may be put all the same.
        """
        started = self._clock.monotonic() if self._clock else 0.0
        raw, count = self._reader.raw_of(window)
        latency_ms = (self._clock.monotonic() - started) * 1e3 if self._clock else None
        return answer_of(self.judge, self._reader.outputs, raw, tokens=count, latency_ms=latency_ms)

    def close(self) -> None:
        """Let go of the package."""
        self._reader.close()
        self._model.close()


def _shared_start(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two prompts have in common from their start."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
