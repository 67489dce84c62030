"""The local HTTP server: h11 for the protocol, asyncio for the sockets, handlers for everything else.

It knows nothing of what it serves: the roof gives it a table of routes. What it keeps to itself is what a hostile peer
could abuse: connections, header and body sizes and times are bounded; a token is compared in constant time; and a web
page in a browser on this machine gets nothing, because a request must name this host as its host (a name that was bound
to our address elsewhere fails) and a body must be declared as JSON (which no page can send across origins unasked).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

import h11

from nis_edge.errors import ConfigError, DeviceError, EventFormatError
from nis_edge.limits import (
    API_BODY_BYTES_MAX,
    API_CONNECTIONS_MAX,
    API_FOLLOWERS_MAX,
    API_HEADER_BYTES_MAX,
    API_IDLE_SECONDS_MAX,
    API_REQUEST_SECONDS_MAX,
    KIB,
)
from nis_edge.waiting import within

TOKEN_CHARS_MIN: Final = 16
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
_BODY_TYPES: Final = frozenset({JSON, "application/x-ndjson", "application/jsonl", "application/json-seq"})
_READ_BYTES: Final = 16 * KIB


@dataclass(frozen=True)
class Request:
    """One request that passed the checks."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """A whole answer, or, with ``stream``, one that is sent piece by piece until the peer leaves."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[tuple[str, str], Handler]
"""(method, path) -> who answers."""


class _RefusedError(Exception):
    """A request that is answered with an error by the server itself."""

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


@dataclass
class HttpApi:
    """The server.

    Args:
        host, port: where to listen; port 0 takes any that is free.
        token: what a request must bear, or None: only for loopback.
        routes: who answers what.
        open_paths: served without the token: files of a page that hold nothing of this device.
        failed: told the reason when a handler raises something unforeseen; the peer gets a plain 500.

    Raises:
        ConfigError: the token is too short to protect anything.
    """

    host: str
    port: int
    token: str | None
    routes: Routes
    failed: Callable[[str], None]
    open_paths: frozenset[str] = frozenset()
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _followers: int = 0

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < TOKEN_CHARS_MIN:
            raise ConfigError(f"the API's token has fewer than {TOKEN_CHARS_MIN} characters: choose a longer one")

    async def start(self) -> int:
        """Begin to listen.

        Returns:
            The port.

        Raises:
            DeviceError: the address is taken or not ours.
            ConfigError: without a token, others than this machine could connect (the operator acts).
        """
        try:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=_READ_BYTES)
        except OSError as error:
            reason = error.strerror or error
            raise DeviceError(f"the local API can't listen on {self.host}:{self.port}: {reason}") from error
        addresses = [sock.getsockname() for sock in self._server.sockets]
        # Asked of the sockets, because a name may resolve to anything.
        if self.token is None and not all(ipaddress.ip_address(a[0]).is_loopback for a in addresses):
            await self.stop()
            raise ConfigError(f"api.host {self.host} is reachable from outside: it needs api.token_file")
        return int(addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=2.0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        count = len(self._open)
        self._open.add(task)
        try:
            peer = _Peer(reader, writer)
            if count < API_CONNECTIONS_MAX:
                await self._serve(peer)
            elif count < 2 * API_CONNECTIONS_MAX:
                # What was sent is read first: closing over unread bytes would take the answer back.
                await within(reader.read(_READ_BYTES), 1.0)
                await peer.send(_error(503, f"more than {API_CONNECTIONS_MAX} connections"), close=True)
        except (OSError, asyncio.TimeoutError, h11.ProtocolError):
            pass  # the peer is gone, too slow, or speaks something else; there is nobody to tell
        finally:
            self._open.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _serve(self, peer: _Peer) -> None:
        while True:
            try:
                request = await self._read(peer)
            except _RefusedError as refusal:
                await peer.send(_error(refusal.status, str(refusal), refusal.headers), close=True)
                return
            if request is None:
                return
            await self._answer(peer, request)
            if not peer.next_request():
                return

    async def _answer(self, peer: _Peer, request: Request) -> None:
        try:
            response = await self.routes[(request.method, request.path)](request)
        except EventFormatError as error:
            response = _error(400, str(error))
        except Exception as error:
            self.failed(f"{request.method} {request.path}: {type(error).__name__}: {error}")
            response = _error(500, "the server failed on this request; it is logged, and the daemon goes on")
        if response.stream is None:
            await peer.send(response)
        elif self._followers >= API_FOLLOWERS_MAX:
            await peer.send(_error(503, f"more than {API_FOLLOWERS_MAX} followers"), close=True)
        else:
            self._followers += 1
            try:
                await peer.send_stream(response, response.stream)
            finally:
                self._followers -= 1

    async def _read(self, peer: _Peer) -> Request | None:
        head = await peer.wait_head()
        if head is None:
            return None
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        method = head.method.decode("ascii")
        try:
            target = urlsplit(head.target.decode("latin-1"))
            query = {key: values[-1] for key, values in parse_qs(target.query, max_num_fields=16).items()}
            host = urlsplit("//" + headers.get("host", "")).hostname or ""
        except ValueError as error:
            raise _RefusedError(400, f"no valid address: {error}") from error
        self._check_host(host)
        if target.path not in self.open_paths:
            self._check_token(headers.get("authorization", ""))
        known = {m for m, path in self.routes if path == target.path}
        if not known:
            raise _RefusedError(404, f"nothing is at {target.path[:100]}")
        if method not in known:
            raise _RefusedError(405, f"{target.path} takes {', '.join(sorted(known))}", (("Allow", ", ".join(known)),))
        if method == "POST":
            content_type = headers.get("content-type", "").split(";", 1)[0].strip().lower()
            if content_type not in _BODY_TYPES:
                raise _RefusedError(415, f"send a Content-Type of {JSON} or application/x-ndjson")
        # h11 has checked that it is a number.
        if int(headers.get("content-length", "0")) > API_BODY_BYTES_MAX:
            raise _RefusedError(413, f"a body may have {API_BODY_BYTES_MAX} bytes")
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise _RefusedError(415, f"Content-Encoding {coding[:40]!r} is not taken; send gzip or none")
        body = await peer.wait_body()
        return Request(method, target.path, query, _unzipped(body) if coding == "gzip" else body)

    def _check_host(self, host: str) -> None:
        if self.token is not None:
            return  # who knows the token is no stray web page
        if host not in {"localhost", "127.0.0.1", "::1", self.host}:
            raise _RefusedError(421, "this server answers to localhost only")

    def _check_token(self, authorization: str) -> None:
        if self.token is None:
            return
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode("utf-8"))
        if scheme.lower() != "bearer" or not same:
            raise _RefusedError(401, "a token is needed: Authorization: Bearer ...", (("WWW-Authenticate", "Bearer"),))


class _Peer:
    """One connection: h11's state beside its socket. Every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=API_HEADER_BYTES_MAX)

    async def wait_head(self) -> h11.Request | None:
        """The next request's head, or None when the peer is done."""
        try:
            first = await within(self._next(), API_IDLE_SECONDS_MAX)
        except h11.RemoteProtocolError as error:
            raise _RefusedError(error.error_status_hint, f"no valid HTTP: {error}") from error
        return first if isinstance(first, h11.Request) else None

    async def wait_body(self) -> bytes:
        """The request's body, bounded in size and time."""
        return await within(self._body(), API_REQUEST_SECONDS_MAX)

    def next_request(self) -> bool:
        """Make ready for the next request; False when this connection is to end."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def send(self, response: Response, *, close: bool = False) -> None:
        """A whole answer."""
        await self._send_head(response, [("Content-Length", str(len(response.body)))], close=close)
        await self._write(self._http.send(h11.Data(data=response.body)))
        await self._write(self._http.send(h11.EndOfMessage()))

    async def send_stream(self, response: Response, pieces: AsyncIterator[bytes]) -> None:
        """An answer that goes on until the pieces end or the peer leaves."""
        await self._send_head(response, [("Cache-Control", "no-store")], close=True)
        gone = asyncio.ensure_future(self._reader.read(1))  # a follower sends nothing more: this ends when it leaves
        try:
            async for piece in pieces:
                if gone.done():
                    return
                await self._write(self._http.send(h11.Data(data=piece)))
            await self._write(self._http.send(h11.EndOfMessage()))
        finally:
            gone.cancel()

    async def _send_head(self, response: Response, more: list[tuple[str, str]], *, close: bool) -> None:
        headers = [("Content-Type", response.content_type), ("X-Content-Type-Options", "nosniff"), *response.headers]
        if close:
            more = [*more, ("Connection", "close")]
        await self._write(self._http.send(h11.Response(status_code=response.status, headers=[*headers, *more])))

    async def _body(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                event = await self._next()
            except h11.RemoteProtocolError as error:
                raise _RefusedError(error.error_status_hint, f"no valid HTTP: {error}") from error
            if isinstance(event, h11.EndOfMessage):
                return b"".join(pieces)
            if not isinstance(event, h11.Data):
                raise ConnectionResetError("the peer left before the end of its request")
            size += len(event.data)
            if size > API_BODY_BYTES_MAX:
                raise _RefusedError(413, f"a body may have {API_BODY_BYTES_MAX} bytes")
            pieces.append(bytes(event.data))

    async def _next(self) -> object:
        begun = None
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            now = asyncio.get_running_loop().time()
            if begun is not None and now - begun > API_REQUEST_SECONDS_MAX:
                raise asyncio.TimeoutError
            data = await within(
                self._reader.read(_READ_BYTES), API_IDLE_SECONDS_MAX if begun is None else API_REQUEST_SECONDS_MAX
            )
            begun = now if begun is None else begun
            self._http.receive_data(data)

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            await within(self._writer.drain(), API_REQUEST_SECONDS_MAX)


def _unzipped(body: bytes) -> bytes:
    """A gzip body, as far as it stays within the bounds of any body: a small one may unpack to gigabytes."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, API_BODY_BYTES_MAX + 1)
    except zlib.error as error:
        raise _RefusedError(400, f"the body is no gzip: {error}") from error
    if len(plain) > API_BODY_BYTES_MAX:
        raise _RefusedError(413, f"a body may have {API_BODY_BYTES_MAX} bytes, unpacked too")
    if not unpack.eof:
        raise _RefusedError(400, "the body is a gzip that was cut short")
    return plain


def _error(status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, json.dumps({"error": reason}).encode() + b"\n", headers=headers)
