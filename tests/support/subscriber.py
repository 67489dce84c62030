"""A consumer as the documentation describes it: QoS 1, a kept session, and the second of two alike dropped."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Subscriber:
    """Everything under a filter, kept in order; reconnects by itself.

    Args:
        port: of the broker on loopback.
        topic_filter: what to ask for.
        name: the session's.
    """

    def __init__(self, port: int, topic_filter: str, name: str = "subscriber") -> None:
        self.messages: list[tuple[str, bytes, dict[str, str], bool]] = []
        self.raw: list[paho.MQTTMessage] = []
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._filter = topic_filter
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(0.2, 0.5)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._received
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, 30, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def records(self, suffix: str = "") -> dict[tuple[str, int], bytes]:
        """(boot_id, seq) -> payload of every record on a topic that ends so: duplicates are gone."""
        with self._lock:
            return {
                (properties["boot_id"], int(properties["seq"])): payload
                for topic, payload, properties, _ in self.messages
                if "seq" in properties and topic.endswith(suffix)
            }

    def last(self, topic: str) -> bytes | None:
        """The newest payload on a topic."""
        with self._lock:
            return next((payload for t, payload, _, _ in reversed(self.messages) if t == topic), None)

    def wait(self, condition: Any, what: str, seconds: float = 30.0) -> None:
        """Wait until ``condition()`` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            time.sleep(0.02)

    def publish(self, topic: str, payload: bytes, retain: bool = False, **properties: Any) -> None:
        """Publish at QoS 1 and wait until the broker has it; MQTT 5 properties by paho's names."""
        packed = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(packed, name, value)
        self._client.publish(topic, payload, 1, retain, packed).wait_for_publish(10)

    def json(self, topic: str) -> Any:
        """The newest payload on a topic, parsed; empty when there is none."""
        return json.loads(self.last(topic) or b"{}")

    def all(self, topic: str) -> list[Any]:
        """Every payload on a topic, parsed."""
        with self._lock:
            return [json.loads(payload) for t, payload, _, _ in self.messages if t == topic]

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._filter, 1)

    def _received(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        properties = dict(getattr(message.properties, "UserProperty", ()))
        with self._lock:
            self.raw.append(message)
            self.messages.append((message.topic, bytes(message.payload), properties, bool(message.retain)))
