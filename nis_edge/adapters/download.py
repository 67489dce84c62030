"""A model over HTTP: resumable, never longer than signed, ended when it stalls.

The bytes go straight into the store's download file (`Sink`), so the space is needed once and a broken connection
costs only the rest. Nothing here trusts the server: whatever it sends is hashed after the last byte.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import urlsplit

import urllib3

from nis_edge.errors import DownloadInterruptedError, DownloadStoppedError
from nis_edge.limits import KIB, UPDATE_RATE_BYTES_PER_S_MIN, UPDATE_STALL_SECONDS_MAX
from nis_edge.update.facts import OLD_MODEL_STAYS

CHUNK_BYTES: Final = 64 * KIB

RETRIES: Final = urllib3.Retry(
    total=2, connect=0, read=0, redirect=2, status=0, other=0, respect_retry_after_header=False
)
"""Two redirects; everything else is for the caller, who waits as long as the server asked and then resumes."""

CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")

RETRY_AFTER_SECONDS_MAX: Final = 3600.0
"""A server may ask for patience, not for ever."""


class Sink(Protocol):
    """Where the bytes go; the store's download is one."""

    @property
    def offset(self) -> int:
        """Where the next byte goes; `length` when nothing is missing."""
        ...

    @property
    def end(self) -> int:
        """Where the bytes missing at `offset` end."""
        ...

    @property
    def length(self) -> int:
        """Signed length of the file."""
        ...

    def write(self, data: bytes) -> None:
        """Append."""
        ...

    def restart(self) -> None:
        """Drop everything held."""
        ...


class HttpSource:
    """Targets below one URL.

    Args:
        monotonic: seconds of a clock that never goes back.
        stall_s: a window of this many seconds with less than the minimum rate ends the attempt.
        rate_bytes_per_s: never faster than this on average, to leave the link to others; None: as it comes.
        sleep: waits, for the rate.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        stall_s: float = UPDATE_STALL_SECONDS_MAX,
        rate_bytes_per_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._stall_s = stall_s
        self._rate = rate_bytes_per_s
        self._sleep = sleep
        self._tags: dict[str, str] = {}
        self._pool = urllib3.PoolManager(headers={"User-Agent": "nis-edge", "Accept-Encoding": "identity"})

    def fill(self, url: str, sink: Sink, should_stop: Callable[[], bool] = lambda: False) -> None:
        """One attempt to bring `sink` to its full length, from where it stands.

        Args:
            url: the file; its content never changes (the name carries the hash).
            sink: where the bytes go.
            should_stop: asked before every chunk.

        Raises:
            DownloadInterruptedError: retry later; what arrived is kept.
            DownloadStoppedError: `should_stop` said so.
            SlotWriteError: the disk fails, or the server sends more than was signed.
        """
        while sink.offset < sink.length:
            self._fill_gap(url, sink, should_stop)

    def _fill_gap(self, url: str, sink: Sink, should_stop: Callable[[], bool]) -> None:
        """One request for the next missing bytes."""
        end = sink.end
        headers = {}
        if sink.offset or end < sink.length:
            headers["Range"] = f"bytes={sink.offset}-{end - 1 if end < sink.length else ''}"
            if url in self._tags:
                headers["If-Range"] = self._tags[url]
        try:
            response = self._pool.request(
                "GET",
                url,
                headers={**self._pool.headers, **headers},
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=10, read=self._stall_s),
                retries=RETRIES,
            )
        except urllib3.exceptions.HTTPError as error:
            raise DownloadInterruptedError(f"{_host(url)} does not answer: {_cause(error)}; {_KEPT}") from error
        try:
            self._accept(url, response, sink)
            end = sink.end
            for chunk in self._paced(url, response):
                if should_stop():
                    raise DownloadStoppedError(f"download stopped on request; {_KEPT}")
                sink.write(chunk)
                if sink.end != end and sink.offset < sink.length:
                    return
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise DownloadInterruptedError(f"{url} broke off: {_cause(error)}; {_KEPT}") from error
        finally:
            response.close()
        if sink.offset < end:
            raise DownloadInterruptedError(f"{url} ended after {sink.offset} of {sink.length} bytes; {_KEPT}")

    def _accept(self, url: str, response: urllib3.BaseHTTPResponse, sink: Sink) -> None:
        """Match the answer with what was asked; a server that answers otherwise makes us start over, never corrupt."""
        if response.status == 206:
            match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            fits = (
                match is not None
                and int(match[1]) == sink.offset
                and int(match[2]) < sink.end
                and match[3] in ("*", str(sink.length))
            )
            if not fits or self._is_another(url, response):
                self._tags.pop(url, None)
                sink.restart()
                raise DownloadInterruptedError(f"{url}: the server answered with another range; starting over")
        elif response.status == 200:
            if sink.offset or sink.end < sink.length:
                sink.restart()
            self._tags.pop(url, None)
            self._is_another(url, response)
        elif response.status == 416:
            sink.restart()
            raise DownloadInterruptedError(f"{url}: the server knows no such range; starting over")
        else:
            raise DownloadInterruptedError(
                f"{url}: HTTP status {response.status}; {_KEPT}", _retry_after(response.headers.get("Retry-After"))
            )

    def _is_another(self, url: str, response: urllib3.BaseHTTPResponse) -> bool:
        """Whether the server's file has another strong ETag than the bytes held; the first one is remembered."""
        tag = response.headers.get("ETag", "")
        if not tag.startswith('"') or len(tag) > 200:
            return False
        return self._tags.setdefault(url, tag) != tag

    def _paced(self, url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        window_start, window_bytes = self._monotonic(), 0
        started, received = window_start, 0
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
            window_bytes += len(chunk)
            received += len(chunk)
            if self._rate is not None and (ahead_s := started + received / self._rate - self._monotonic()) > 0:
                self._sleep(min(ahead_s, self._stall_s / 2))
            elapsed = self._monotonic() - window_start
            if elapsed >= self._stall_s:
                if window_bytes < UPDATE_RATE_BYTES_PER_S_MIN * elapsed:
                    raise DownloadInterruptedError(
                        f"{url}: {window_bytes} bytes in {elapsed:.0f} s is too slow; {_KEPT}"
                    )
                window_start, window_bytes = self._monotonic(), 0


def open_on_stick(path: Path) -> BinaryIO:
    """Open a file that somebody else laid down; a pipe or a device in its place is refused and can't hold us up.

    Raises:
        OSError: it can't be opened, or is no plain file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(fd, "rb")


class FolderSource:
    """Targets in a folder: a USB stick or a mounted share. The same checks follow as for a server."""

    def fill(self, path: str, sink: Sink, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Bring `sink` to its full length from the file `path`.

        Raises:
            As `HttpSource.fill`.
        """
        try:
            with open_on_stick(Path(path)) as file:
                file.seek(sink.offset)
                while sink.offset < sink.length and (chunk := file.read(CHUNK_BYTES)):
                    if should_stop():
                        raise DownloadStoppedError(f"copy stopped on request; {_KEPT}")
                    sink.write(chunk[: sink.end - sink.offset])
                    file.seek(sink.offset)
        except OSError as error:
            raise DownloadInterruptedError(f"{path}: {error.strerror or error}; {_KEPT}") from error
        if sink.offset < sink.length:
            raise DownloadInterruptedError(f"{path} ends after {sink.offset} of {sink.length} bytes; {_KEPT}")


_KEPT: Final = f"what arrived is kept; {OLD_MODEL_STAYS}"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; the date form and nonsense count as absent."""
    if value is None or re.fullmatch(r"\d{1,9}", value.strip()) is None:
        return None
    return min(float(value), RETRY_AFTER_SECONDS_MAX)


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    text = reason if isinstance(reason, BaseException) else error
    return " ".join(str(text).split())[:200] or type(error).__name__


def _host(url: str) -> str:
    return urlsplit(url).netloc or url
