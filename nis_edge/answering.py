"""The OpenAI-compatible part of the local API: a model of the operator's own answers, in a thread of its own.

It never shares a thread with judging, so a long answer delays no verdict; it shares the processor, which is the
operator's choice when he configures it. The package is opened, and what answers is imported, at the first question: a
daemon that is asked nothing has no memory in it. Answers under way are bounded; one that is streamed is made token by
token as its reader takes it, and ends when the reader leaves.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from nis_edge.adapters.http_api import EVENT_STREAM, Request, Response, Routes
from nis_edge.clock import Clock
from nis_edge.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from nis_edge.completions import Completions, Reply
    from nis_edge.engine.model import Model

ANSWERS_MAX: Final = 4
"""Answers under way at once: each has keys and values of its own in memory."""

RETRY_AFTER_S: Final = 5


class Answering:
    """Answers questions to one package.

    Args:
        package: the operator's model, or None: then every question is refused with what to set.
        threads: of the engine for these answers.
        clock: the time.
    """

    def __init__(self, package: Path | None, *, threads: int, clock: Clock) -> None:
        self._package, self._threads, self._clock = package, threads, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._model: Model | None = None
        self._completions: Completions | None = None
        self._under_way = 0

    def routes(self) -> Routes:
        """What is served."""
        return {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/chat/completions"): self._chat,
        }

    async def close(self) -> None:
        """Let go of the model once the token under way is made."""
        if self._model is not None:
            from nis_edge.engine.constraint import constraint_of

            await self._call(self._model.close)
            self._model = self._completions = None
            constraint_of.cache_clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _models(self, _request: Request) -> Response:
        if self._package is None:
            return Response(200, msgspec.json.encode({"object": "list", "data": []}))
        try:
            return Response(200, msgspec.json.encode(await self._call(lambda: self._ready().models())))
        except ModelError as error:
            return _error(503, str(error), "server_error")

    async def _complete(self, request: Request) -> Response:
        return await self._answer(request, lambda body: self._ready().complete(body))

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, lambda body: self._ready().chat(body))

    async def _answer(self, request: Request, begin: Any) -> Response:
        if self._package is None:
            return _error(404, "no model answers here: set completions.model in the configuration", "not_found_error")
        try:
            body = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, RecursionError) as error:
            return _error(400, f"the body is no JSON: {error}", "invalid_request_error")
        if self._under_way >= ANSWERS_MAX:
            return _error(429, f"{ANSWERS_MAX} answers are under way; ask again", "rate_limit_error")
        self._under_way += 1
        handed_on = False
        try:
            reply = await self._call(lambda: begin(body))
            if isinstance(reply, dict):
                return Response(200, msgspec.json.encode(reply))
            stream = self._stream(reply)
            # Begun here: only then does it give its place back if whoever gets it drops it unread.
            await stream.__anext__()
            handed_on = True
            return Response(content_type=EVENT_STREAM, stream=stream)
        except (ConfigError, ModelError) as error:
            return _error(400, str(error), "invalid_request_error")
        finally:
            if not handed_on:
                self._under_way -= 1

    async def _stream(self, chunks: Iterator[Reply]) -> AsyncIterator[bytes]:
        """Each chunk as a server-sent event, after one empty piece by which it begins.

        An answer that breaks ends with an error event, as its readers expect.
        """
        try:
            yield b""
            while (chunk := await self._call(lambda: next(chunks, None))) is not None:
                yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"
            yield b"data: [DONE]\n\n"
        except (ConfigError, ModelError) as error:
            yield b"data: " + _error(500, str(error), "server_error").body + b"\n\n"
        finally:
            self._under_way -= 1

    def _ready(self) -> Completions:
        """The model, opened at the first question; in the worker thread."""
        if self._completions is None:
            from nis_edge.completions import Completions
            from nis_edge.engine.model import Model

            assert self._package is not None
            self._model = Model.open(self._package, threads=self._threads)
            self._completions = Completions(
                self._model, now=lambda: int(self._clock.wall()), identify=lambda: secrets.token_hex(12), kv="F16"
            )
        return self._completions

    async def _call(self, function: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _error(status: int, message: str, kind: str) -> Response:
    headers = (("Retry-After", str(RETRY_AFTER_S)),) if status == 429 else ()
    return Response(status, msgspec.json.encode({"error": {"message": message, "type": kind}}), headers=headers)
