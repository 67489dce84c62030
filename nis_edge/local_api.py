"""What the local API serves: page, health, metrics, status, events in, assessments out. The server is an adapter's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from nis_edge.adapters.http_api import EVENT_STREAM, Request, Response, Routes
from nis_edge.adapters.system_metrics import own_memory_bytes
from nis_edge.clock import Clock
from nis_edge.errors import EventFormatError
from nis_edge.history import History
from nis_edge.judging import Arrival, Judging
from nis_edge.limits import AGENTS_SHOWN_MAX, ASSESSMENTS_KEPT, FOLLOWER_ITEMS_MAX
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.machine import ForgetFeedback, OperatorVerdict
from nis_edge.overview_words import status_lines
from nis_edge.prometheus import CONTENT_TYPE, exposition
from nis_edge.waiting import within
from nis_edge.web_page import page_routes
from nis_edge.wire.codec import Batch, decode_batch
from nis_edge.wire.otlp import decode_traces

KEEP_ALIVE_S: Final = 15.0
"""A comment line at least so often tells a follower, and every proxy between, that the stream lives."""

REASONS_CHARS_MAX: Final = 2000


class Feed:
    """The newest of a kind of record as JSON, and who follows them.

    Args:
        name: of a server-sent event.
    """

    def __init__(self, name: str) -> None:
        self._head = f"event: {name}\ndata: ".encode()
        self._newest: deque[bytes] = deque(maxlen=ASSESSMENTS_KEPT)
        self._followers: set[asyncio.Queue[bytes]] = set()

    @property
    def followed(self) -> bool:
        """Whether anyone follows."""
        return bool(self._followers)

    def add(self, encoded: bytes) -> None:
        """Take one; a follower that is too slow misses the oldest of those that wait for it."""
        self._newest.append(encoded)
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(encoded)

    def newest(self, count: int) -> list[bytes]:
        """At most so many, the newest last."""
        return list(self._newest)[-count:] if count > 0 else []

    async def follow(self) -> AsyncIterator[bytes]:
        """Each record from now on as a server-sent event, with comments in between."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(FOLLOWER_ITEMS_MAX)
        self._followers.add(queue)
        try:
            yield b": follows\n\n"
            while True:
                try:
                    encoded = await within(queue.get(), KEEP_ALIVE_S)
                except asyncio.TimeoutError:
                    yield b": alive\n\n"
                else:
                    yield self._head + encoded + b"\n\n"
        finally:
            self._followers.discard(queue)


class SaidVerdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's word on open findings: ``label`` and ``right`` (of ``agents``, or of all), or ``forget`` alone."""

    label: str | None = None
    right: bool | None = None
    agents: tuple[str, ...] = ()
    forget: bool = False

    def told(self) -> OperatorVerdict | ForgetFeedback:
        """The input of the monitor.

        Raises:
            ValueError: with what is wrong; the operator acts.
        """
        if self.forget:
            if self.label is not None or self.right is not None:
                raise ValueError("forget stands alone: it takes back every verdict")
            return ForgetFeedback()
        if self.label not in LABELS or self.right is None:
            raise ValueError(f"label must be one of {', '.join(LABELS)}, and right true or false")
        if len(self.agents) > AGENTS_SHOWN_MAX:
            raise ValueError(f"at most {AGENTS_SHOWN_MAX} agents at once")
        return OperatorVerdict(self.label, self.right, self.agents)


def routes(
    judging: Judging, feed: Feed, heard: Feed, history: History, view: Callable[[], dict[str, Any]], clock: Clock
) -> Routes:
    """The table of what is served.

    Args:
        judging: takes events.
        feed: gives assessments.
        heard: gives the events that were judged.
        history: gives the last minutes.
        view: gives the overview.
        clock: stamps events that come without a time.
    """

    async def health(_request: Request) -> Response:
        stalled = view()["loops"]["stalled"]
        body = {"status": "stalled" if stalled else "ok", "stalled": stalled}
        return Response(503 if stalled else 200, msgspec.json.encode(body))

    async def metrics(_request: Request) -> Response:
        return Response(200, exposition(view(), own_memory_bytes()).encode(), CONTENT_TYPE)

    async def status(request: Request) -> Response:
        if request.query.get("format") == "text":
            # In words, so that a command on a weak machine needs no more than to print them.
            return Response(200, "\n".join(status_lines(view())).encode() + b"\n", "text/plain; charset=utf-8")
        return Response(200, msgspec.json.encode(view()))

    def take(batch: Batch) -> None:
        at = clock.monotonic()
        for event in batch.events:
            judging.arrive(Arrival(event, None, at), event.agent)
        for refusal in batch.refusals:
            judging.refuse(refusal.reason, "api")

    async def traces(request: Request) -> Response:
        batch = decode_traces(request.body, now=clock.wall(), number=judging.counts().events)
        take(batch)
        # As OTLP has it: a request is taken as a whole, and says how many of its spans were not.
        body: dict[str, Any] = {}
        if batch.refusals:
            said = "; ".join(dict.fromkeys(refusal.reason for refusal in batch.refusals))[:REASONS_CHARS_MAX]
            body = {"partialSuccess": {"rejectedSpans": len(batch.refusals), "errorMessage": said}}
        return Response(200, msgspec.json.encode(body))

    async def follow_events(request: Request) -> Response:
        if request.query.get("follow") != "1":
            raise EventFormatError("events are not kept: follow them as they come with ?follow=1")
        return Response(content_type=EVENT_STREAM, stream=heard.follow())

    async def events(request: Request) -> Response:
        batch = decode_batch(request.body, now=clock.wall(), number=judging.counts().events)
        take(batch)
        body = {"accepted": len(batch.events), "refused": batch.refusals}
        return Response(202 if batch.events or not batch.refusals else 400, msgspec.json.encode(body))

    async def verdicts(request: Request) -> Response:
        try:
            said = msgspec.json.decode(request.body, type=SaidVerdict)
            told = said.told()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            return Response(400, msgspec.json.encode({"refused": str(error)}))
        judging.tell(told)
        return Response(202, msgspec.json.encode({"accepted": True}))

    async def assessments(request: Request) -> Response:
        if request.query.get("follow") == "1":
            return Response(content_type=EVENT_STREAM, stream=feed.follow())
        return Response(200, b"[" + b",".join(feed.newest(_count(request))) + b"]")

    async def last_minutes(_request: Request) -> Response:
        return Response(200, history.encoded())

    return {
        **page_routes(),
        ("GET", "/healthz"): health,
        ("GET", "/metrics"): metrics,
        ("GET", "/v1/status"): status,
        ("GET", "/v1/history"): last_minutes,
        ("POST", "/v1/events"): events,
        ("GET", "/v1/events"): follow_events,
        ("POST", "/v1/traces"): traces,
        ("GET", "/v1/assessments"): assessments,
        ("POST", "/v1/verdicts"): verdicts,
    }


def _count(request: Request) -> int:
    limit = request.query.get("limit", "1")
    return int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 6 else 1
