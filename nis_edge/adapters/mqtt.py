"""One connection at a time to an MQTT 5 broker, by paho (callback API 2).

paho's network thread only moves bytes: what arrives is handed to ``on_message`` (which must only put it into a bounded
queue), what is acknowledged crosses to the asyncio thread and waits there. Nothing acts inside a callback.

A new client is made for every connection, so that paho keeps no messages of its own: the spool alone decides what is
sent again. The session on the broker is kept (``clean_start`` off, with an expiry), so commands and notices sent while
the device was away are delivered. Reconnecting is the caller's, with ``Backoff``; paho's has no jitter.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from nis_edge.errors import BrokerLostError, ConfigError
from nis_edge.limits import KIB, MQTT_CONNECT_SECONDS_MAX, MQTT_PACKET_BYTES_MAX
from nis_edge.waiting import within

T = TypeVar("T")

RECEIVE_MAXIMUM: Final = 16
"""QoS 1 messages the broker may have under way towards us."""

CONTENT_TYPE: Final = "application/json"

_JSON_PROPERTIES: Final = b"\x01\x01\x03\x00" + bytes((len(CONTENT_TYPE),)) + CONTENT_TYPE.encode()
"""Of every message with a JSON payload: payload format indicator 1 (UTF-8), content type."""

REASON_REFUSED: Final = 0x80
"""MQTT 5, 2.4: reason codes from here on are failures."""

REASON_QUOTA: Final = 0x97
"""MQTT 5, 2.4: quota exceeded, the one refusal of a message that time heals."""

_RECEIVE_BYTES: Final = 64 * KIB
"""Read from the socket at one time."""

_PACKET_OVERHEAD_BYTES: Final = 1024
"""Fixed header, topic and properties of one of our messages; measured below 400."""


@dataclass(frozen=True)
class TlsFiles:
    """TLS: authorities to trust (None: the system's) and, for mutual TLS, our certificate with its key."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Message:
    """One message to publish.

    Args:
        topic, payload: where and what.
        qos: 0 or 1.
        retain: whether the broker keeps it for later subscribers.
        properties: MQTT user properties, in order.
        expiry_s: seconds after which the broker need not deliver it, or None.
        correlation: what a request gave to find its answer by, or None.
        binary: the payload is no JSON, and is not called so: a broker may refuse bytes that are said to be text.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None
    correlation: bytes | None = None
    binary: bool = False


@dataclass(frozen=True)
class Incoming:
    """One message that arrived.

    Args:
        topic, payload: where and what.
        retained: it had lain at the broker (or, with ``as_published``, was sent to lie there).
        response_topic, correlation: where the sender wants its answer, and what to give back with it.
        properties: MQTT user properties, in order.
        expiry_s: seconds that it is still worth something, or None when its sender set no limit.
        backlog: it came in a session that was taken up again, before our subscriptions were renewed: it waited there.
    """

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None
    backlog: bool = False


@dataclass(frozen=True)
class Subscription:
    """A topic filter to ask for at QoS 1; ``as_published`` keeps the retain flag of messages sent while we listen."""

    topic_filter: str
    as_published: bool = False


@dataclass(frozen=True)
class BrokerOptions:
    """How to reach the broker and who we are there; ``will`` is what it publishes should we vanish."""

    host: str
    port: int
    client_id: str
    will: Message
    username: str | None = None
    password: str | None = None
    tls: TlsFiles | None = None
    keepalive_s: int = 30
    session_expiry_s: int = 7 * 86400
    will_delay_s: int = 10
    window: int = 16


@dataclass(frozen=True)
class Acknowledgement:
    """The broker's answer to a QoS 1 message: ``reason`` is None when it took it, else why not.

    ``passes`` says that it may take the same message later.
    """

    message_id: int
    reason: str | None
    passes: bool = False


def check_tls(files: TlsFiles) -> None:
    """Open certificates and key once, to know before the first connection whether they serve.

    Raises:
        ConfigError: they can't be used (the operator acts).
    """
    _tls_context(files)


class Backoff:
    """Pauses with full jitter: uniform between 0 and a ceiling that doubles, so that a fleet does not return at once.

    Args:
        low: the first ceiling, seconds.
        high: the last.
        uniform: (low, high) -> a number between, e.g. ``random.uniform``.
    """

    def __init__(self, low: float, high: float, uniform: Callable[[float, float], float]) -> None:
        self._low, self._high, self._uniform = low, high, uniform
        self._attempts = 0

    def next_pause_s(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling = min(self._high, self._low * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return self._uniform(0.0, ceiling)

    def reset(self) -> None:
        """The link has been stable: begin again at the low end."""
        self._attempts = 0


class Connection:
    """A live connection; made by ``connect``. Used from the asyncio thread only.

    ``window`` is how many QoS 1 messages may be under way: the smaller of ours and the broker's Receive Maximum.
    """

    def __init__(self, client: _Client, options: BrokerOptions, events: _Events) -> None:
        self._client = client
        self._events = events
        properties = events.connack_properties
        self.session_present = events.session_present
        self.window = min(options.window, int(getattr(properties, "ReceiveMaximum", 65535)))
        self._packet_bytes_max = int(getattr(properties, "MaximumPacketSize", MQTT_PACKET_BYTES_MAX))
        self._retain_available = bool(getattr(properties, "RetainAvailable", 1))
        self._unsent = bytearray()

    def fits(self, message: Message) -> bool:
        """Whether the broker takes a packet of this size; sending a larger one would end the connection."""
        return len(message.payload) + len(message.topic) + _PACKET_OVERHEAD_BYTES <= self._packet_bytes_max

    def publish_nowait(self, message: Message) -> int:
        """Hand one message to the network thread, with those of the same turn; the caller keeps to ``window``.

        Returns:
            Its id, which comes back in an ``Acknowledgement`` when QoS is 1.

        Raises:
            BrokerLostError: the connection is gone.
        """
        self._events.raise_if_lost()
        mid = self._client.next_id()
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += publish_packet(message, mid, retain=message.retain and self._retain_available)
        return mid

    def _flush(self) -> None:
        """Send what this turn of the loop gave: one wake-up of the network thread and one write for all of it."""
        packets, self._unsent = self._unsent, bytearray()
        if packets and self._events.lost is None:
            self._client.send_packets(packets)

    def subscribe_nowait(self, subscription: Subscription) -> None:
        """Ask for messages at QoS 1; a refusal shows up in ``refused_subscriptions``."""
        self._events.raise_if_lost()
        options = SubscribeOptions(qos=1, retainAsPublished=subscription.as_published)
        _, mid = self._client.subscribe(subscription.topic_filter, options=options)
        if mid is not None:
            self._events.subscriptions[mid] = subscription.topic_filter

    def refused_subscriptions(self) -> list[str]:
        """Filters the broker refused since the last call, each with its reason."""
        refused, self._events.refused = self._events.refused, []
        return refused

    async def wait_acknowledgements(self, timeout_s: float) -> list[Acknowledgement]:
        """What was acknowledged since the last call; empty after ``timeout_s`` without any.

        Raises:
            BrokerLostError: the connection is gone, and with it the acknowledgements not yet in.
        """
        events = self._events
        if not events.acknowledged:
            events.raise_if_lost()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(events.changed.wait(), timeout_s)
        # Cleared after the wait, so that what came before the next one is not slept over.
        events.changed.clear()
        taken, events.acknowledged = events.acknowledged, []
        if not taken:
            events.raise_if_lost()
        return taken

    def wake(self) -> None:
        """Let ``wait_acknowledgements`` return at once, e.g. because there is something new to send."""
        self._events.changed.set()

    async def close(self, farewell: Sequence[Message] = ()) -> None:
        """Publish the last messages, wait for what is under way, and disconnect so that no will is published.

        Args:
            farewell: e.g. the retained ``offline``.
        """
        waiting = set()
        with contextlib.suppress(BrokerLostError):
            waiting = {self.publish_nowait(message) for message in farewell if message.qos}
        deadline = asyncio.get_running_loop().time() + 2.0
        with contextlib.suppress(BrokerLostError):
            while waiting and (left := deadline - asyncio.get_running_loop().time()) > 0:
                waiting -= {answer.message_id for answer in await self.wait_acknowledgements(left)}
        self._flush()
        self._client.disconnect()
        await _in_thread("mqtt-close", self._client.loop_stop)

    async def abandon(self) -> None:
        """End the network thread of a connection that is lost."""
        self._client.disconnect()
        await _in_thread("mqtt-close", self._client.loop_stop)


async def connect(options: BrokerOptions, on_message: Callable[[Incoming], None]) -> Connection:
    """Dial, shake hands, and start the network thread.

    Args:
        options: where and who.
        on_message: called in the network thread, must only put what came into a bounded queue.

    Raises:
        BrokerLostError: out of reach or refused, with the reason; try again later.
        ConfigError: a certificate or key can't be used (the operator acts).
    """
    events = _Events(asyncio.get_running_loop())
    client = _make_client(options, on_message, events)
    where = f"broker {options.host}:{options.port}"
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = options.session_expiry_s
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MQTT_PACKET_BYTES_MAX

    def dial() -> None:
        client.connect(options.host, options.port, options.keepalive_s, clean_start=False, properties=properties)

    try:
        await _in_thread("mqtt-dial", dial)
    except (OSError, ValueError) as error:
        # ssl.SSLError and socket.gaierror are OSErrors; paho answers a host it can't use with ValueError.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokerLostError(f"{where} is out of reach: {reason}") from error
    client.loop_start()
    connection = None
    try:
        await within(events.connected.wait(), MQTT_CONNECT_SECONDS_MAX)
        events.raise_if_lost()
        if getattr(events.connack_properties, "MaximumQoS", 1) < 1:
            raise BrokerLostError("it offers only QoS 0, which loses records")
        connection = Connection(client, options, events)
    except asyncio.TimeoutError as error:
        raise BrokerLostError(f"{where} did not answer within {MQTT_CONNECT_SECONDS_MAX:g} s") from error
    except BrokerLostError as error:
        raise BrokerLostError(f"{where} refused: {error}") from error
    finally:
        if connection is None:
            client.disconnect()
            await _in_thread("mqtt-close", client.loop_stop)
    return connection


class _Events:
    """What the network thread tells the asyncio thread. Fields are touched by the asyncio thread only.

    But ``_crossing``, which the network thread fills: it appends before it looks whether a crossing is due, and the
    asyncio thread clears that mark before it empties the queue, so no answer is left behind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.connected = asyncio.Event()  # or failed: then ``lost`` says why
        self.changed = asyncio.Event()
        self.acknowledged: list[Acknowledgement] = []
        self._crossing: deque[Acknowledgement] = deque()
        self._crossing_due = False
        self.subscriptions: dict[int, str] = {}
        self.refused: list[str] = []
        self.lost: str | None = None
        self.session_present = False
        self.connack_properties: Any = None

    def cross(self, act: Callable[..., None], *args: Any) -> None:
        """Run ``act`` on the asyncio thread; called in the network thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(act, *args)

    def accept(self, session_present: bool, properties: Any) -> None:
        self.session_present = session_present
        self.connack_properties = properties
        self.connected.set()

    def lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self.connected.set()
        self.changed.set()

    def acknowledge_soon(self, answer: Acknowledgement) -> None:
        """Take an answer in the network thread; all that come before the asyncio thread looks cross at once."""
        self._crossing.append(answer)
        if not self._crossing_due:
            self._crossing_due = True
            self.cross(self._acknowledge)

    def _acknowledge(self) -> None:
        self._crossing_due = False
        while self._crossing:
            self.acknowledged.append(self._crossing.popleft())
        self.changed.set()

    def subscribed(self, mid: int, failures: list[str]) -> None:
        topic_filter = self.subscriptions.pop(mid, "?")
        self.refused += [f"subscription to {topic_filter} refused: {reason}" for reason in failures]
        self.changed.set()

    def raise_if_lost(self) -> None:
        if self.lost is not None:
            raise BrokerLostError(self.lost)


class _Client(paho.Client):
    """paho's client with a short way for what we send most: records out, acknowledgements in.

    paho makes about twenty objects and six system calls for a message and its acknowledgement, a third of a core at
    2000 a second. Here messages of one turn are one write, what came is read in large pieces, and a plain PUBACK is
    read by its bytes (docs/decisions/0041-mqtt-short-way.md names what of paho's inside this rests on).
    The network thread reports an exception instead of dying unseen.
    """

    broken: Callable[[str], None]
    acknowledged: Callable[[int, int], None]

    def __init__(self, *args: Any, **options: Any) -> None:
        self._received = b""
        self._taken = 0
        super().__init__(*args, **options)

    def next_id(self) -> int:
        """The packet identifier of the next message."""
        return self._mid_generate()

    def send_packets(self, packets: bytearray) -> None:
        """Queue whole packets as one write; QoS 1 to paho's queue, which then has nothing to do after sending."""
        self._packet_queue(paho.PUBLISH, packets, 0, 1)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:
            # E.g. a packet that breaks the protocol.
            self.broken(f"{type(error).__name__}: {error}")
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  (paho's signature)
        """Handle every packet that was received so far."""
        while self._sock is not None:
            code = self._packet_read()
            if code == MQTTErrorCode.MQTT_ERR_AGAIN:
                if self._in_packet["remaining_length"] > MQTT_PACKET_BYTES_MAX:
                    return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            if code > 0:
                return self._loop_rc_handle(code)
            if self._taken == len(self._received):
                return MQTTErrorCode.MQTT_ERR_SUCCESS
        return MQTTErrorCode.MQTT_ERR_NO_CONN

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._taken == len(self._received):
            self._received, self._taken = super()._sock_recv(_RECEIVE_BYTES), 0
        begin = self._taken
        self._taken = min(begin + bufsize, len(self._received))
        return self._received[begin : self._taken]

    def _sock_close(self) -> None:
        self._received, self._taken = b"", 0
        super()._sock_close()

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        body = bytes(self._in_packet["packet"])
        if cmd == "PUBACK" and (len(body) == 2 or (len(body) > 2 and body[2] < REASON_REFUSED)):
            self.acknowledged(int.from_bytes(body[:2], "big"), 0)
        elif cmd == "PUBACK" and len(body) > 2:
            self.acknowledged(int.from_bytes(body[:2], "big"), body[2])
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def publish_packet(message: Message, mid: int, *, retain: bool) -> bytes:
    """A message as an MQTT 5 PUBLISH packet (section 3.3 of the standard).

    Args:
        message: its topic has no wildcards; the caller has looked at its size.
        mid: packet identifier, used with QoS 1.
        retain: whether the broker is to keep it.
    """
    properties = bytearray(b"" if message.binary else _JSON_PROPERTIES)
    if message.expiry_s is not None:
        properties += b"\x02" + max(1, message.expiry_s).to_bytes(4, "big")
    if message.correlation is not None:
        properties += b"\x09" + len(message.correlation).to_bytes(2, "big") + message.correlation
    for name, value in message.properties:
        properties += b"\x26" + _text(name) + _text(value)
    identifier = mid.to_bytes(2, "big") if message.qos else b""
    head = _text(message.topic) + identifier + _variable_length(len(properties))
    first = 0x30 | (message.qos << 1) | retain
    length = _variable_length(len(head) + len(properties) + len(message.payload))
    return b"".join((bytes((first,)), length, head, properties, message.payload))


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _variable_length(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _make_client(options: BrokerOptions, on_message: Callable[[Incoming], None], events: _Events) -> _Client:
    resumed = subscribed_once = False  # known to the network thread alone
    client = _Client(
        CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
    )
    client.connect_timeout = MQTT_CONNECT_SECONDS_MAX
    client.max_inflight_messages_set(0)  # no queue of paho's own: the caller keeps to the window
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    if options.tls is not None:
        client.tls_set_context(_tls_context(options.tls))
    client.will_set(options.will.topic, options.will.payload, 1, True, _will_properties(options))

    def connected(_c: Any, _u: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        nonlocal resumed
        if reason.is_failure:
            events.cross(events.lose, _reason_text(reason, properties))
        else:
            resumed = bool(flags.session_present)
            events.cross(events.accept, bool(flags.session_present), properties)

    def disconnected(_c: Any, _u: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        said = "the broker ended it: " if flags.is_disconnect_packet_from_server else "connection lost: "
        events.cross(events.lose, said + _reason_text(reason, properties))

    def acknowledged(mid: int, code: int) -> None:
        refusal = _reason_text(ReasonCode(PacketTypes.PUBACK, identifier=code), None) if code else None
        events.acknowledge_soon(Acknowledgement(mid, refusal, code == REASON_QUOTA))

    def subscribed(_c: Any, _u: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        nonlocal subscribed_once
        subscribed_once = True
        events.cross(events.subscribed, mid, [_reason_text(r, properties) for r in reasons if r.is_failure])

    def received(_c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        on_message(_incoming(message, backlog=resumed and not subscribed_once))

    client.on_connect = connected
    client.on_disconnect = disconnected
    client.acknowledged = acknowledged
    client.on_subscribe = subscribed
    client.on_message = received
    client.broken = lambda reason: events.cross(events.lose, f"the network thread failed: {reason}")
    return client


def _incoming(message: paho.MQTTMessage, *, backlog: bool) -> Incoming:
    properties = message.properties
    return Incoming(
        message.topic,
        bytes(message.payload),
        bool(message.retain),
        getattr(properties, "ResponseTopic", None),
        getattr(properties, "CorrelationData", None),
        tuple(getattr(properties, "UserProperty", ())),
        getattr(properties, "MessageExpiryInterval", None),
        backlog,
    )


def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
        if files.cert_file is not None and files.key_file is not None:
            context.load_cert_chain(files.cert_file, files.key_file)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(str(f) for f in (files.ca_file, files.cert_file, files.key_file) if f is not None)
        raise ConfigError(f"TLS files can't be used ({named}): {error}; nothing was sent, mend [mqtt]") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _will_properties(options: BrokerOptions) -> Properties:
    properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    properties.ContentType = CONTENT_TYPE
    properties.PayloadFormatIndicator = 1
    properties.WillDelayInterval = options.will_delay_s
    if options.will.properties:
        properties.UserProperty = list(options.will.properties)
    return properties


def _reason_text(reason: ReasonCode, properties: Any) -> str:
    text = f"{reason} (0x{reason.value:02x})"
    more = getattr(properties, "ReasonString", None)
    return f"{text}: {str(more)[:200]}" if more else text


async def _in_thread(name: str, call: Callable[[], T]) -> T:
    """Run a blocking call beside the loop. Cancelled, it is left to end by itself and keeps no process alive."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(act: Callable[[Any], None], outcome: Any) -> None:
        if not result.done():
            act(outcome)

    def body() -> None:
        act: Callable[[Any], None]
        outcome: Any
        try:
            act, outcome = result.set_result, call()
        except Exception as error:
            act, outcome = result.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, act, outcome)

    threading.Thread(target=body, name=name, daemon=True).start()
    return await result
