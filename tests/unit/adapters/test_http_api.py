"""The local HTTP server: what it serves, and everything a hostile peer may try."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from nis_edge.adapters import http_api
from nis_edge.adapters.http_api import HttpApi, Request, Response
from nis_edge.errors import ConfigError, DeviceError, EventFormatError
from nis_edge.limits import API_BODY_BYTES_MAX, API_CONNECTIONS_MAX, API_FOLLOWERS_MAX, API_HEADER_BYTES_MAX

TOKEN = "correct-horse-battery"


async def hello(request: Request) -> Response:
    return Response(body=json.dumps({"query": dict(request.query)}).encode())


async def echo(request: Request) -> Response:
    return Response(202, request.body)


async def broken(request: Request) -> Response:
    raise RuntimeError("oops")


async def picky(request: Request) -> Response:
    raise EventFormatError("event lacks 'agent'")


async def endless(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"data: x\n\n"
            await asyncio.sleep(0.01)

    return Response(content_type="text/event-stream", stream=pieces())


ROUTES = {
    ("GET", "/hello"): hello,
    ("POST", "/echo"): echo,
    ("GET", "/broken"): broken,
    ("POST", "/picky"): picky,
    ("GET", "/follow"): endless,
    ("GET", "/page"): hello,
}

Dial = Callable[[bytes], Awaitable[bytes]]


def served(scenario: Callable[[Dial, int, list[str]], Awaitable[None]], token: str | None = None) -> None:
    async def body() -> None:
        failures: list[str] = []
        api = HttpApi("127.0.0.1", 0, token, ROUTES, failures.append)
        port = await api.start()

        async def dial(raw: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw)
                return await reader.read()
            finally:
                writer.close()

        try:
            await scenario(dial, port, failures)
        finally:
            await api.stop()

    asyncio.run(asyncio.wait_for(body(), 20))


def get(path: str, *headers: str, host: str = "localhost") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1:1", "Connection: close", f"Content-Type: {kind}", *headers]
    if not headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_route_answers_with_its_query_and_body() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        answer = await dial(get("/hello?follow=1&x=%41"))
        assert status(answer) == 200
        assert answer.endswith(b'{"query": {"follow": "1", "x": "A"}}')
        answer = await dial(post("/echo", b'{"a":1}'))
        assert (status(answer), answer[-7:]) == (202, b'{"a":1}')

    served(scenario)


def test_one_connection_carries_several_requests() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        answer = await dial(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n" + get("/hello"))
        assert answer.count(b"HTTP/1.1 200") == 2

    served(scenario)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(get("/none"), 404, id="unknown path"),
        pytest.param(get("/echo"), 405, id="wrong method"),
        pytest.param(get("/hello", host="evil.example"), 421, id="a name bound to our address"),
        pytest.param(get("/hello", host="localhost.evil.example"), 421, id="a name that looks like ours"),
        pytest.param(post("/echo", b"{}", kind="text/plain"), 415, id="what a web page may send"),
        pytest.param(post("/echo", b"", f"Content-Length: {API_BODY_BYTES_MAX + 1}"), 413, id="announced too large"),
        pytest.param(b"nonsense\r\n\r\n", 400, id="no http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, id="tls"),
        pytest.param(get("/hello", "X: " + "x" * API_HEADER_BYTES_MAX * 2), 431, id="headers too large"),
        pytest.param(post("/echo", b"", "Content-Length: -1"), 400, id="negative length"),
        pytest.param(post("/echo", b"", "Content-Length: 1", "Content-Length: 2"), 400, id="two lengths"),
        pytest.param(post("/picky", b"{}"), 400, id="a refused event"),
        pytest.param(get("/hello?" + "&".join(f"a{n}=1" for n in range(99))), 400, id="too many parameters"),
        pytest.param(b"GET http://[ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400, id="broken target"),
        pytest.param(get("/hello", host="["), 400, id="broken host"),
    ],
)
def test_a_request_that_will_not_do_is_refused_with_its_reason(raw: bytes, expected: int) -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        answer = await dial(raw)
        assert status(answer) == expected
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
        assert failures == []

    served(scenario)


def test_a_chunked_body_is_cut_off_at_the_bound() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/echo", b"", "Transfer-Encoding: chunked"))
        with pytest.raises(OSError):
            for _ in range(4 * API_BODY_BYTES_MAX // 65536):
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
                if reader.at_eof():
                    raise ConnectionResetError
            answer = await reader.read()
            assert status(answer) == 413
            raise ConnectionResetError

    served(scenario)


def test_a_handler_that_fails_is_a_plain_500_and_the_server_goes_on() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        answer = await dial(get("/broken"))
        assert status(answer) == 500
        assert b"oops" not in answer
        assert failures == ["GET /broken: RuntimeError: oops"]
        assert status(await dial(get("/hello"))) == 200

    served(scenario)


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", 401), ("Authorization: Bearer wrong", 401), (f"Authorization: Basic {TOKEN}", 401),
     (f"Authorization: Bearer {TOKEN}", 200), ("Authorization: Bearer \xe9\xff", 401)],
)  # fmt: skip
def test_with_a_token_only_who_bears_it_is_served(header: str, expected: int) -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        raw = get("/hello", *([header] if header else []), host="edge.example").decode().encode("latin-1")
        assert status(await dial(raw)) == expected

    served(scenario, TOKEN)


def test_beyond_loopback_it_does_not_start_without_a_token() -> None:
    async def scenario() -> None:
        api = HttpApi("0.0.0.0", 0, None, ROUTES, lambda reason: None)
        with pytest.raises(ConfigError, match=r"needs api\.token_file"):
            await api.start()
        await HttpApi("0.0.0.0", 0, TOKEN, ROUTES, lambda reason: None).start()

    asyncio.run(scenario())


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 16"):
        HttpApi("127.0.0.1", 0, "short", ROUTES, lambda reason: None)


def test_a_taken_port_is_named() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        with pytest.raises(DeviceError, match=f"can't listen on 127.0.0.1:{port}"):
            await HttpApi("127.0.0.1", port, None, ROUTES, failures.append).start()

    served(scenario)


def test_connections_beyond_the_bound_are_told_so() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(API_CONNECTIONS_MAX)]
        while status(await dial(get("/hello"))) != 503:
            await asyncio.sleep(0.01)
        for _, writer in held:
            writer.close()
        while status(await dial(get("/hello"))) != 200:
            await asyncio.sleep(0.01)

    served(scenario)


def test_followers_are_bounded_and_free_their_place_when_they_leave() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        async def follow() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/follow"))
            await reader.readuntil(b"\r\n\r\n")
            return reader, writer

        held = [await follow() for _ in range(API_FOLLOWERS_MAX)]
        assert b"data: x" in await held[0][0].readuntil(b"data: x")
        assert status(await dial(get("/follow"))) == 503
        for _, writer in held:
            writer.close()
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/follow"))
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            if status(head) == 200:
                break

    served(scenario)


def test_a_peer_that_dawdles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "API_REQUEST_SECONDS_MAX", 0.05)
    monkeypatch.setattr(http_api, "API_IDLE_SECONDS_MAX", 0.05)

    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        for half in (b"", b"GET /hello HT", post("/echo", b"{", "Content-Length: 10")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(half)
            assert await reader.read() == b""
            writer.close()

    served(scenario)


def test_a_compressed_body_is_unpacked_within_the_bounds_of_any_body() -> None:
    async def scenario(dial: Dial, port: int, failures: list[str]) -> None:
        async def send(body: bytes, coding: str = "gzip") -> bytes:
            return await dial(post("/echo", body, f"Content-Length: {len(body)}", f"Content-Encoding: {coding}"))

        assert (await send(gzip.compress(b'{"a":1}'))).endswith(b'{"a":1}')
        bomb = gzip.compress(b"0" * (API_BODY_BYTES_MAX * 4))
        assert len(bomb) < API_BODY_BYTES_MAX // 10
        assert status(await send(bomb)) == 413
        assert status(await send(b"no gzip at all")) == 400
        assert status(await send(gzip.compress(b"x" * 1000)[:-9])) == 400
        assert status(await send(b"x", "br")) == 415

    served(scenario)


def test_only_the_pages_files_are_served_without_the_token() -> None:
    async def body() -> None:
        api = HttpApi("127.0.0.1", 0, TOKEN, ROUTES, lambda _: None, frozenset({"/page"}))
        port = await api.start()
        try:
            for path, wanted in (("/page", 200), ("/hello", 401)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(get(path))
                assert status(await reader.read()) == wanted
                writer.close()
        finally:
            await api.stop()

    asyncio.run(asyncio.wait_for(body(), 20))
