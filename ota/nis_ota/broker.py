"""One connection to an MQTT broker, for a command: publish and wait, or listen for a while. No broker is trusted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from nis_ota.errors import PublisherError

SECONDS_MAX: Final = 15.0
"""How long a broker may take to accept a connection or confirm a message."""

SESSION_SECONDS: Final = 7 * 24 * 3600
"""How long a broker keeps reports for a publisher that listens only now and then."""

QUEUE_MAX: Final = 10_000
MESSAGE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True)
class Access:
    """How to reach a broker."""

    host: str
    port: int
    tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password: str | None = None

    @property
    def where(self) -> str:
        """For messages."""
        return f"broker {self.host}:{self.port}"


class Broker:
    """A connection, as a context manager.

    Args:
        access: where and who.
        session: name of a session that the broker keeps while nobody listens; None: none is kept.

    Raises:
        PublisherError: the broker is out of reach or refuses; what was published by HTTP stays valid.
    """

    def __init__(self, access: Access, session: str | None = None) -> None:
        self._access = access
        self._session = session
        self._inbox: queue.Queue[tuple[str, bytes]] = queue.Queue(QUEUE_MAX)
        self._answered, self._subscribed = threading.Event(), threading.Event()
        self._refusal = "no answer"
        self.dropped = 0
        """Messages that came faster than they were read, or were too large."""

    def __enter__(self) -> Broker:
        from paho.mqtt import client as mqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        access = self._access
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self._session or "", protocol=mqtt.MQTTv5)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        if access.username is not None:
            client.username_pw_set(access.username, access.password)
        properties = Properties(PacketTypes.CONNECT)
        if self._session is not None:
            properties.SessionExpiryInterval = SESSION_SECONDS
        try:
            if access.tls:
                client.tls_set(access.ca_file)
            client.connect(
                access.host, access.port, keepalive=30, clean_start=self._session is None, properties=properties
            )
        except (OSError, ValueError) as error:
            raise PublisherError(
                f"{access.where} is out of reach: {error}; check host and port; HTTP stays valid"
            ) from error
        self._client = client
        client.loop_start()
        self._answered.wait(SECONDS_MAX)
        if self._refusal:
            self.__exit__(None, None, None)
            raise PublisherError(f"{access.where} refused the connection: {self._refusal}; check the credentials")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the broker's word.

        Raises:
            PublisherError: it did not come in time.
        """
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        try:
            message.wait_for_publish(SECONDS_MAX)
            confirmed = message.is_published()
        except (RuntimeError, ValueError):
            confirmed = False
        if not confirmed:
            raise PublisherError(f"{self._access.where} did not confirm {topic} in {SECONDS_MAX:.0f} s; try again")

    def send(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0 and go on: what is lost is asked for again."""
        self._client.publish(topic, payload, qos=0)

    def subscribe(self, topic: str) -> None:
        """Listen to a topic filter, QoS 1.

        Raises:
            PublisherError: the broker does not allow it.
        """
        self._subscribed.clear()
        self._refusal = "no answer"
        self._client.subscribe(topic, qos=1)
        self._subscribed.wait(SECONDS_MAX)
        if self._refusal:
            raise PublisherError(f"{self._access.where} refused {topic}: {self._refusal}; check its access list")

    def messages(self, seconds: float, quiet_s: float | None = None) -> Iterator[tuple[str, bytes]]:
        """What comes in, for `seconds`, or until nothing came for `quiet_s`."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            try:
                yield self._inbox.get(timeout=left if quiet_s is None else min(left, quiet_s))
            except queue.Empty:
                if quiet_s is not None:
                    return

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._refusal = "" if not reason.is_failure else str(reason)
        self._answered.set()

    def _on_subscribe(self, _client: Any, _userdata: Any, _mid: Any, reasons: Any, _properties: Any) -> None:
        self._refusal = "; ".join(str(reason) for reason in reasons if reason.is_failure)
        self._subscribed.set()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        try:
            if len(message.payload) > MESSAGE_BYTES_MAX:
                raise queue.Full
            self._inbox.put_nowait((message.topic, message.payload))
        except queue.Full:
            self.dropped += 1
