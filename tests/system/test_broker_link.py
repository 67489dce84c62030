"""The MQTT adapter against a real mosquitto: session, will, window, refusal, loss."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nis_edge.adapters.mqtt import (
    Backoff,
    BrokerOptions,
    Connection,
    Incoming,
    Message,
    Subscription,
    TlsFiles,
    connect,
)
from nis_edge.errors import BrokerLostError, ConfigError
from tests.support.authority import Authority
from tests.support.broker import DEADLINE_S, Mosquitto, free_port, mosquitto, running

pytestmark = pytest.mark.system
__all__ = ["mosquitto"]

WILL = Message("t/status", b'{"state":"offline"}', 1, True)


def options(port: int, name: str = "dut", **more: object) -> BrokerOptions:
    return BrokerOptions("127.0.0.1", port, name, WILL, **{"will_delay_s": 0, **more})  # type: ignore[arg-type]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def ignore(_message: Incoming) -> None:
    pass


async def acknowledged(connection: Connection, count: int) -> list[str | None]:
    got: list[str | None] = []
    while len(got) < count:
        got += [a.reason for a in await connection.wait_acknowledgements(1.0)]
    return got


class Seen:
    """Messages that arrived, from any thread."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self.incoming: list[Incoming] = []
        self.changed = threading.Event()

    def __call__(self, message: Incoming) -> None:
        self.incoming.append(message)
        self.messages.append((message.topic, message.payload, message.retained))
        self.changed.set()

    async def wait_for(self, done: Callable[[list[tuple[str, bytes, bool]]], bool]) -> None:
        while not done(self.messages):
            await asyncio.sleep(0.01)


def test_a_published_message_is_acknowledged_and_delivered_with_its_retained_flag(mosquitto: Mosquitto) -> None:
    async def scenario() -> None:
        seen = Seen()
        reader = await connect(options(mosquitto.port, "reader"), seen)
        writer = await connect(options(mosquitto.port), ignore)
        reader.subscribe_nowait(Subscription("t/#"))
        reader.publish_nowait(Message("t/first", b"", 1))
        await acknowledged(reader, 1)  # so the broker has seen the subscription before it
        mid = writer.publish_nowait(Message("t/x", b"1", 1, properties=(("schema", "a/1"),), expiry_s=60))
        assert [(a.message_id, a.reason) for a in await writer.wait_acknowledgements(5)] == [(mid, None)]
        await seen.wait_for(lambda m: ("t/x", b"1", False) in m)
        await writer.close()
        await reader.close()

    run(scenario)


def test_messages_sent_while_away_are_delivered_in_the_kept_session(mosquitto: Mosquitto) -> None:
    async def scenario() -> None:
        first = await connect(options(mosquitto.port), ignore)
        assert first.session_present is False
        first.subscribe_nowait(Subscription("t/cmd/#"))
        first.publish_nowait(Message("t/y", b"", 1))
        await acknowledged(first, 1)
        await first.close()
        writer = await connect(options(mosquitto.port, "writer"), ignore)
        writer.publish_nowait(Message("t/cmd/x", b"now", 1))
        await acknowledged(writer, 1)
        seen = Seen()
        again = await connect(options(mosquitto.port), seen)
        assert again.session_present is True
        await seen.wait_for(lambda m: ("t/cmd/x", b"now", False) in m)
        await writer.close()
        await again.close()

    run(scenario)


def test_a_client_that_vanishes_leaves_its_will_and_one_that_leaves_does_not(mosquitto: Mosquitto) -> None:
    async def scenario() -> None:
        seen = Seen()
        reader = await connect(options(mosquitto.port, "reader"), seen)
        reader.subscribe_nowait(Subscription("t/status"))
        leaves = await connect(options(mosquitto.port), ignore)
        await leaves.close([Message("t/status", b"bye", 1, True)])
        await seen.wait_for(lambda m: len(m) == 1)
        vanishes = await connect(options(mosquitto.port), ignore)
        sock = vanishes._client.socket()  # the cable is cut
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)
        await seen.wait_for(lambda m: len(m) == 2)
        assert [payload for _, payload, _ in seen.messages] == [b"bye", WILL.payload]
        with pytest.raises(BrokerLostError):
            while True:
                await vanishes.wait_acknowledgements(1.0)
        await vanishes.abandon()
        await reader.close()

    run(scenario)


def test_the_window_is_the_smaller_of_ours_and_the_brokers(tmp_path: Path) -> None:
    for broker in running(tmp_path, "max_inflight_messages 5"):

        async def scenario(port: int = broker.port) -> None:
            small = await connect(options(port), ignore)
            assert small.window == 5
            smaller = await connect(options(port, "other", window=2), ignore)
            assert smaller.window == 2
            await small.close()
            await smaller.close()

        run(scenario)


def test_a_packet_the_broker_would_not_take_is_known_before_it_is_sent(tmp_path: Path) -> None:
    for broker in running(tmp_path, "max_packet_size 3000"):

        async def scenario(port: int = broker.port) -> None:
            connection = await connect(options(port), ignore)
            assert connection.fits(Message("t/x", b"x" * 1000))
            assert not connection.fits(Message("t/x", b"x" * 3000))
            await connection.close()

        run(scenario)


def test_wrong_credentials_are_one_clear_refusal(tmp_path: Path) -> None:
    for broker in running(tmp_path, users={"dut": "secret"}):

        async def scenario(port: int = broker.port) -> None:
            with pytest.raises(BrokerLostError, match=r"refused: Not authorized \(0x87\)"):
                await connect(options(port, username="dut", password="wrong"), ignore)
            await (await connect(options(port, username="dut", password="secret"), ignore)).close()

        run(scenario)


def test_a_message_that_may_not_be_published_is_refused_not_lost(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write t/ok\n")
    acl.chmod(0o700)
    for broker in running(tmp_path, f"acl_file {acl}"):

        async def scenario(port: int = broker.port) -> None:
            connection = await connect(options(port), ignore)
            connection.publish_nowait(Message("t/ok", b"", 1))
            connection.publish_nowait(Message("t/no", b"", 1))
            assert sorted(str(r) for r in await acknowledged(connection, 2)) == ["None", "Not authorized (0x87)"]
            await connection.close()

        run(scenario)


def test_a_broker_that_is_not_there_is_out_of_reach() -> None:
    async def scenario() -> None:
        with pytest.raises(BrokerLostError, match="out of reach: Connection refused"):
            await connect(options(free_port()), ignore)
        with pytest.raises(BrokerLostError, match="out of reach"):
            await connect(BrokerOptions("no-such-host.invalid", 1, "x", WILL), ignore)

    run(scenario)


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """A server that answers whatever comes with the same bytes, then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="http"),
        pytest.param(b"", id="hangs-up"),
        pytest.param(b"\x20\x03\x00\x84\x00", id="unsupported-version"),
        pytest.param(b"\x20\x02\x00\x01", id="old-protocol-refusal"),
        pytest.param(b"\x20\xff\xff\xff\xff\xff", id="endless-length"),
        pytest.param(b"\x20\x03\x00\xee\x00", id="unknown-reason"),
    ],
)
def test_a_peer_that_speaks_nonsense_is_one_clear_refusal(answer: bytes) -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(BrokerLostError, match="refused"):
            await connect(options(port), ignore)

    with server(answer) as port:
        run(lambda: scenario(port))


def test_a_packet_without_end_costs_a_bounded_memory_and_the_connection() -> None:
    sent = 0
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            nonlocal sent
            peer, _ = listening.accept()
            with peer:
                peer.settimeout(20)
                peer.recv(4096)
                peer.sendall(b"\x20\x03\x00\x00\x00" + b"\x30\xff\xff\xff\x7f")  # a PUBLISH of 256 MiB begins
                try:
                    while sent < 256 << 20:
                        sent += peer.send(b"x" * 65536)
                except OSError:
                    pass
            ended.set()

        threading.Thread(target=serve, daemon=True).start()

        async def scenario() -> None:
            # The packet may come before the handshake was told of, on a busy machine: then connecting fails with it.
            with pytest.raises(BrokerLostError):
                connection = await connect(options(listening.getsockname()[1]), ignore)
                try:
                    while True:
                        await connection.wait_acknowledgements(1.0)
                finally:
                    await connection.abandon()

        run(scenario)
        assert ended.wait(20)
    assert sent < 32 << 20


def test_a_kill_of_the_broker_is_noticed(mosquitto: Mosquitto) -> None:
    async def scenario() -> None:
        connection = await connect(options(mosquitto.port), ignore)
        mosquitto.kill()
        with pytest.raises(BrokerLostError):
            while True:
                await connection.wait_acknowledgements(5.0)
        with pytest.raises(BrokerLostError):
            connection.publish_nowait(Message("t/x", b"", 1))
        await connection.abandon()

    run(scenario)


def test_unusable_certificates_are_the_operators_to_mend(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")

    async def scenario() -> None:
        for ca in (broken, tmp_path / "none.pem"):
            with pytest.raises(ConfigError, match=str(ca)):
                await connect(options(1, tls=TlsFiles(ca_file=ca)), ignore)

    run(scenario)


def test_a_subscription_that_is_not_allowed_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"\x20\x03\x00\x00\x00")
                packet_id = peer.recv(4096)[2:4]
                peer.sendall(b"\x90\x04" + packet_id + b"\x00\x87")
                peer.recv(4096)

        threading.Thread(target=serve, daemon=True).start()

        async def scenario() -> None:
            connection = await connect(options(listening.getsockname()[1]), ignore)
            connection.subscribe_nowait(Subscription("secret/#"))
            refused: list[str] = []
            while not refused:
                await connection.wait_acknowledgements(0.1)
                refused = connection.refused_subscriptions()
            assert refused == ["subscription to secret/# refused: Not authorized (0x87)"]
            await connection.close()

        run(scenario)


def test_mutual_tls_lets_in_only_who_bears_a_certificate_of_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    stranger = Authority(tmp_path, "stranger")
    certificate, key = authority.issue("server"), tmp_path / "server.key"
    settings = f"cafile {authority.certificate}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true"
    ours = TlsFiles(authority.certificate, authority.issue("dut"), tmp_path / "dut.key")
    theirs = TlsFiles(authority.certificate, stranger.issue("thief"), tmp_path / "thief.key")
    for broker in running(tmp_path, settings):

        async def scenario(port: int = broker.port) -> None:
            await (await connect(options(port, tls=ours), ignore)).close()
            for wrong, why in (
                (theirs, "refused|out of reach"),
                (TlsFiles(authority.certificate), "refused|out of reach"),
                (TlsFiles(stranger.certificate, ours.cert_file, ours.key_file), "certificate verify failed"),
                (TlsFiles(), "certificate verify failed"),
            ):
                with pytest.raises(BrokerLostError, match=why):
                    await connect(options(port, tls=wrong), ignore)

        run(scenario)


def test_pauses_have_full_jitter_under_a_ceiling_that_doubles() -> None:
    ceilings: list[float] = []
    backoff = Backoff(1.0, 120.0, lambda low, high: ceilings.append(high) or low)  # type: ignore[func-returns-value]
    for _ in range(9):
        assert backoff.next_pause_s() == 0.0
    assert ceilings == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    backoff.reset()
    backoff.next_pause_s()
    assert ceilings[-1] == 1
