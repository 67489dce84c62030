"""Brings records from the outbox to the broker, each at least once, and keeps the link.

Theory of operation. One connection after the other: dial; on success publish the birth, subscribe, and send records in
order, never more under way than the window allows. An acknowledged record leaves the outbox; one the broker refuses for
good is parked; one it refuses for now ends the connection. When the link is lost, whatever was under way is sent again
on the next connection: the outbox still has it. Between attempts the courier rests with full jitter. Being without a
broker is a healthy state: it is told once, not at each attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from nis_edge.adapters.mqtt import Backoff, BrokerOptions, Connection, Incoming, Message, Subscription, connect
from nis_edge.adapters.spool import Record
from nis_edge.clock import Clock
from nis_edge.errors import BrokerLostError, ConfigError
from nis_edge.outbox import Outbox
from nis_edge.supervisor import Beat
from nis_edge.telemetry import Telemetry
from nis_edge.waiting import within

STABLE_S: Final = 60.0
"""A connection that held this long lets the next pause begin at the low end again."""

POSTS_MAX: Final = 64
"""Answers that wait in memory for the link; the oldest goes, as whoever asked it has long given up."""

FAREWELL_S: Final = 2.0
"""At the end, how long to wait for acknowledgements of what is under way."""


class _Sent(NamedTuple):
    """A message that is no record; ``again``: to be sent again should the link break before it is acknowledged."""

    message: Message
    again: bool


UnderWay = int | _Sent
"""What a message id stands for: a record by its number, or another message."""


HEART_S: Final = 5.0
"""Between two beats while nothing comes or goes."""

READ_AHEAD: Final = 256
"""Records read from the disk at one time: a turn of the storage thread costs more than the reading."""


@dataclass
class _Ahead:
    """Records of one connection that were read and not sent yet; ``last`` is the number of the last one read."""

    records: deque[Record] = field(default_factory=deque)
    last: int = 0


@dataclass(frozen=True)
class LinkState:
    """How the link is: ``reason`` says why it is not connected."""

    connected: bool
    host: str | None
    port: int | None
    sessions: int = 0
    reason: str | None = None
    window: int | None = None


class Courier:
    """The link to one broker.

    Args:
        options: where it is and who we are; None when there is none, and then records stay in the outbox.
        outbox: where records wait.
        telemetry: makes messages of them.
        greet: the messages to publish when connected, given the number of the connection.
        subscriptions: gives what to ask for, at each connection.
        on_message: takes what arrives; called in the network thread, must only put it into a bounded queue.
        backoff: the pauses between attempts.
        clock: the time.
        log: a structlog logger.
    """

    def __init__(
        self,
        options: BrokerOptions | None,
        *,
        outbox: Outbox,
        telemetry: Telemetry,
        greet: Callable[[int], list[Message]],
        subscriptions: Callable[[], Sequence[Subscription]],
        on_message: Callable[[Incoming], None],
        backoff: Backoff,
        clock: Clock,
        log: Any,
    ) -> None:
        self._options = options
        self._outbox = outbox
        self._telemetry = telemetry
        self._greet = greet
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._backoff = backoff
        self._clock = clock
        self._log = log
        self._states: dict[str, Message] = {}
        self._stale_topics: set[str] = set()
        self._posts: deque[Message] = deque(maxlen=POSTS_MAX)
        self._connection: Connection | None = None
        self._reconfigured = asyncio.Event()
        self.farewell_reason = "stopped"
        self.state = self._idle_state("connecting")

    def show(self, message: Message) -> None:
        """Publish a retained state now, and again at each connection; only the newest of each topic is remembered."""
        self._states[message.topic] = message
        self._stale_topics.add(message.topic)
        self.wake()

    def post(self, message: Message) -> None:
        """Send a message of QoS 1 that is not worth the disk, e.g. an answer to one asker; again if the link breaks."""
        self._posts.append(message)
        self.wake()

    def wake(self) -> None:
        """There is something new to send."""
        if self._connection is not None:
            self._connection.wake()

    def reconfigure(self, options: BrokerOptions | None) -> None:
        """Leave the broker there is, and go to this one."""
        self._options = options
        self._reconfigured.set()
        self.wake()

    async def run(self, beat: Beat) -> None:
        """Keep the link until cancelled; then say farewell."""
        told: str | None = None
        while True:
            self._reconfigured.clear()
            started = None
            try:
                beat()
                if self._options is None:
                    self.state = self._idle_state("no broker is configured")
                    await self._rest(3600.0, beat)
                    continue
                connection = await self._dial(self._options, beat)
                started, told = self._clock.monotonic(), None
                reason = await self._serve(connection, self._options, beat)
            except (BrokerLostError, ConfigError) as error:
                # Certificates were fine at the start; a file that vanished since may come back like a broker.
                reason = str(error)
            self._connection = None
            self.state = replace(self._idle_state(reason), sessions=self.state.sessions)
            if self._reconfigured.is_set():
                self._backoff.reset()
                continue
            if started is not None and self._clock.monotonic() - started >= STABLE_S:
                self._backoff.reset()
            pause_s = self._backoff.next_pause_s()
            if reason != told:
                unharmed = "judging goes on, records wait in the spool"
                self._log.warning("broker.lost", reason=reason, unharmed=unharmed, next_attempt_s=round(pause_s, 1))
                told = reason
            await self._rest(pause_s, beat)

    async def _dial(self, options: BrokerOptions, beat: Beat) -> Connection:
        attempt = asyncio.ensure_future(connect(options, self._on_message))
        try:
            # A name server may take its time; the heart goes on.
            while not attempt.done():
                beat()
                await asyncio.wait({attempt}, timeout=5.0)
            return attempt.result()
        finally:
            attempt.cancel()

    async def _serve(self, connection: Connection, options: BrokerOptions, beat: Beat) -> str:
        """Deliver until other options come; why it ended."""
        self._connection = connection
        sessions = self.state.sessions + 1
        self.state = LinkState(True, options.host, options.port, sessions, None, connection.window)
        self._log.info(
            "broker.connected", host=options.host, port=options.port, session_present=connection.session_present
        )
        under_way: dict[int, UnderWay] = {}
        told: set[str] = set()
        try:
            # Before the birth: a broker takes packets in order, so whoever hears that we are online is heard by us.
            for subscription in self._subscriptions():
                connection.subscribe_nowait(subscription)
            for message in self._greet(sessions):
                while len(under_way) >= connection.window:
                    await self._acknowledged(connection, under_way, 1.0, told)
                under_way[connection.publish_nowait(message)] = _Sent(message, False)
            self._stale_topics = set(self._states)
            ahead = _Ahead()
            while not self._reconfigured.is_set():
                beat()
                self._publish_states(connection, under_way)
                self._publish_posts(connection, under_way)
                await self._send(connection, under_way, ahead)
                await self._acknowledged(connection, under_way, HEART_S, told)
                for reason in connection.refused_subscriptions():
                    self._log.error("subscription.refused", reason=reason, unharmed="everything but these messages")
            await self._leave(connection, under_way, told, "reconfigured")
            return "the configuration changed"
        except asyncio.CancelledError:
            await self._leave(connection, under_way, told, self.farewell_reason)
            raise
        finally:
            self._connection = None
            self._posts.extendleft(
                sent.message for sent in reversed(list(under_way.values())) if isinstance(sent, _Sent) and sent.again
            )
            await asyncio.shield(connection.abandon())

    async def _send(self, connection: Connection, under_way: dict[int, UnderWay], ahead: _Ahead) -> None:
        """Fill the window from the outbox. What is read ahead and dropped meanwhile for want of room still goes out."""
        now = self._clock.wall()
        while (room := connection.window - len(under_way)) > 0:
            if not ahead.records:
                ahead.records.extend(await self._outbox.read(ahead.last, READ_AHEAD))
                if not ahead.records:
                    return
                ahead.last = ahead.records[-1].seq
            for _ in range(min(room, len(ahead.records))):
                record = ahead.records.popleft()
                message = self._telemetry.message(record, now)
                if not connection.fits(message):
                    self._outbox.refused(record.seq, f"{len(record.payload)} bytes are more than the broker takes")
                elif message.expiry_s is None or message.expiry_s > 0:
                    under_way[connection.publish_nowait(message)] = record.seq
                # else the outbox lets go of it in its own time, and counts it

    async def _acknowledged(
        self, connection: Connection, under_way: dict[int, UnderWay], timeout_s: float, told: set[str]
    ) -> None:
        for answer in await connection.wait_acknowledgements(timeout_s):
            sent = under_way.get(answer.message_id)
            if answer.reason is not None and answer.passes:
                raise BrokerLostError(f"the broker takes no more for now: {answer.reason}")
            under_way.pop(answer.message_id, None)
            if answer.reason is not None:
                self._tell_refusal(answer.reason, sent, told)
            if not isinstance(sent, int):
                continue
            if answer.reason is None:
                self._outbox.delivered(sent)
            else:
                self._outbox.refused(sent, answer.reason)

    def _tell_refusal(self, reason: str, sent: UnderWay | None, told: set[str]) -> None:
        topic = sent.message.topic if isinstance(sent, _Sent) else ""
        if (told_as := f"{topic} {reason}") in told or len(told) >= 16:
            return
        told.add(told_as)
        if isinstance(sent, _Sent):
            unharmed = "records; this state, description or answer is missing at the broker: mend its access list"
            self._log.warning("message.refused", reason=f"the broker refused {topic}: {reason}", unharmed=unharmed)
        else:
            unharmed = "it is kept in the spool's table of parked records; the others go on"
            self._log.error("record.parked", reason=f"the broker refused a record: {reason}", unharmed=unharmed)

    def _publish_states(self, connection: Connection, under_way: dict[int, UnderWay]) -> None:
        while self._stale_topics and len(under_way) < connection.window:
            message = self._states[self._stale_topics.pop()]
            message_id = connection.publish_nowait(message)
            if message.qos:
                under_way[message_id] = _Sent(message, False)

    def _publish_posts(self, connection: Connection, under_way: dict[int, UnderWay]) -> None:
        while self._posts and len(under_way) < connection.window:
            message = self._posts[0]
            if connection.fits(message):
                under_way[connection.publish_nowait(message)] = _Sent(message, True)
            self._posts.popleft()

    async def _leave(self, connection: Connection, under_way: dict[int, UnderWay], told: set[str], reason: str) -> None:
        deadline = self._clock.monotonic() + FAREWELL_S
        with contextlib.suppress(BrokerLostError):
            self._publish_states(connection, under_way)
            self._publish_posts(connection, under_way)
            while under_way and (left_s := deadline - self._clock.monotonic()) > 0.0:
                await self._acknowledged(connection, under_way, left_s, told)
        await connection.close([self._telemetry.offline(reason)])

    async def _rest(self, seconds: float, beat: Beat) -> None:
        end = self._clock.monotonic() + seconds
        while (left := end - self._clock.monotonic()) > 0.0 and not self._reconfigured.is_set():
            beat()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._reconfigured.wait(), min(left, 5.0))

    def _idle_state(self, reason: str) -> LinkState:
        host, port = (self._options.host, self._options.port) if self._options is not None else (None, None)
        return LinkState(False, host, port, reason=reason)
