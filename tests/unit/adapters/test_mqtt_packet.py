"""Our PUBLISH packets, read back by paho's own reader."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from nis_edge.adapters.mqtt import Message, publish_packet

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=40)


@given(
    topic=TEXT.filter(bool), payload=st.binary(max_size=70_000), qos=st.sampled_from((0, 1)), retain=st.booleans(),
    properties=st.lists(st.tuples(TEXT, TEXT), max_size=6), expiry_s=st.none() | st.integers(-5, 2**31),
    correlation=st.none() | st.binary(max_size=300), mid=st.integers(1, 65535), binary=st.booleans(),
)  # fmt: skip
def test_what_we_write_is_what_paho_reads(  # type: ignore[no-untyped-def]
    topic, payload, qos, retain, properties, expiry_s, correlation, mid, binary
) -> None:
    message = Message(topic, payload, qos, retain, tuple(properties), expiry_s, correlation, binary)
    packet = publish_packet(message, mid, retain=retain)
    assert packet[0] == 0x30 | qos << 1 | retain
    length, size = VariableByteIntegers.decode(packet[1:])
    body = packet[1 + size :]
    assert len(body) == length
    (topic_bytes,) = struct.unpack("!H", body[:2])
    assert body[2 : 2 + topic_bytes].decode() == topic
    body = body[2 + topic_bytes :]
    if qos:
        assert struct.unpack("!H", body[:2]) == (mid,)
        body = body[2:]
    read = Properties(PacketTypes.PUBLISH)
    _, used = read.unpack(body)
    assert body[used:] == payload
    assert getattr(read, "ContentType", None) == (None if binary else "application/json")
    assert getattr(read, "PayloadFormatIndicator", None) == (None if binary else 1)
    assert getattr(read, "UserProperty", []) == properties
    assert getattr(read, "MessageExpiryInterval", None) == (None if expiry_s is None else max(1, expiry_s))
    assert getattr(read, "CorrelationData", None) == correlation
