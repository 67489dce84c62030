"""A real HTTP server over a folder, with Range, and with the faults that servers and networks have, on order."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]
"""Given the handler and the file's bytes; True: it has answered."""


class _QuietServer(ThreadingHTTPServer):
    """A client that leaves in the middle is what half of these tests are about."""

    def handle_error(self, *_args: object) -> None:
        """Quiet."""


class WebFolder:
    """A server on loopback.

    Attributes:
        url: its root.
        requests: every request as (path, Range header or "").
        faults: pattern of a path -> what goes wrong there; searched in order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str]] = []
        self.faults: dict[str, Fault] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_args: object) -> None:
                """Quiet."""

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        self.requests.append((handler.path, asked))
        path = self.folder / handler.path.lstrip("/")
        data = path.read_bytes() if path.is_file() else None
        for pattern, fault in self.faults.items():
            if re.search(pattern, handler.path) and fault(handler, data or b""):
                return
        if data is None:
            self.send(handler, 404, b"")
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if match is None:
            self.send(handler, 200, data)
        elif int(match[1]) >= len(data):
            self.send(handler, 416, b"")
        else:
            start = int(match[1])
            part = data[start : int(match[2]) + 1 if match[2] else None]
            header = {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}
            self.send(handler, 206, part, header)

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def web_folder(folder: Path) -> Iterator[WebFolder]:
    """A running server over `folder`."""
    server = WebFolder(folder)
    try:
        yield server
    finally:
        server.close()


def cut_after(count: int, times: int = 1) -> Fault:
    """Announce the whole answer, send `count` bytes of it, close: a connection that broke. `times` times, then well."""
    left = [times]

    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        if left[0] == 0:
            return False
        left[0] -= 1
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        body = data[start:]
        handler.send_response(206 if match else 200)
        handler.send_header("Content-Length", str(len(body)))
        if match:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return fault


def status(code: int, headers: dict[str, str] | None = None) -> Fault:
    """Answer with a status and nothing else, always."""

    def fault(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        WebFolder.send(handler, code, b"", headers)
        return True

    return fault


def body(data: bytes, code: int = 200, headers: dict[str, str] | None = None) -> Fault:
    """Answer with these bytes instead."""

    def fault(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        WebFolder.send(handler, code, data, headers)
        return True

    return fault


def endless(chunk: bytes = b" " * 65536) -> Fault:
    """Send without end and without a length, until the client has had enough."""

    def fault(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(chunk)
        except OSError:
            return True

    return fault
