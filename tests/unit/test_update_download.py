"""A download resumes, never grows beyond what was signed, and ends when the server does not deliver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nis_edge.adapters.download import FolderSource, HttpSource
from nis_edge.errors import DownloadInterruptedError, DownloadStoppedError, SlotWriteError
from tests.support.web_folder import WebFolder, body, cut_after, status, web_folder

DATA = os.urandom(300_000)


@dataclass
class Memory:
    """A sink in memory, as strict as the store's."""

    length: int = len(DATA)
    data: bytearray = field(default_factory=bytearray)
    restarts: int = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    @property
    def end(self) -> int:
        return self.length

    def write(self, data: bytes) -> None:
        if self.offset + len(data) > self.length:
            raise SlotWriteError("server sent more than the signed bytes")
        self.data += data

    def restart(self) -> None:
        self.data.clear()
        self.restarts += 1


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebFolder]:
    (tmp_path / "model").write_bytes(DATA)
    with web_folder(tmp_path) as server:
        yield server


def fill(web: WebFolder, sink: Memory, **more: Any) -> None:
    HttpSource(**more).fill(f"{web.url}/model", sink)


def test_a_whole_download_arrives(web: WebFolder) -> None:
    sink = Memory()
    fill(web, sink)
    assert sink.data == DATA
    assert web.requests == [("/model", "")]


def test_case_23_a_download_that_broke_off_goes_on_where_it_stopped(web: WebFolder) -> None:
    sink = Memory()
    web.faults["model"] = cut_after(100_000)
    with pytest.raises(DownloadInterruptedError, match="what arrived is kept"):
        fill(web, sink)
    assert sink.offset == 100_000
    fill(web, sink)
    assert sink.data == DATA
    assert web.requests[-1] == ("/model", "bytes=100000-")
    assert sink.restarts == 0


def test_case_23_a_flapping_connection_comes_to_its_end(web: WebFolder) -> None:
    sink = Memory()
    web.faults["model"] = cut_after(40_000, times=7)
    for _ in range(7):
        with pytest.raises(DownloadInterruptedError):
            fill(web, sink)
    fill(web, sink)
    assert sink.data == DATA


def test_case_24_a_server_that_ignores_range_makes_it_start_over_and_not_mix(web: WebFolder) -> None:
    sink = Memory(data=bytearray(b"?" * 1000))
    web.faults["model"] = body(DATA, 200)
    fill(web, sink)
    assert sink.data == DATA
    assert sink.restarts == 1


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-299999/300000",
        "bytes 999-299999/300000",
        "bytes 1000-299999/400000",
        "bytes */300000",
        "lines 1000-299999/300000",
        "",
        "bytes " + "9" * 500,
    ],
)
def test_case_24_a_wrong_content_range_is_not_believed(web: WebFolder, content_range: str) -> None:
    sink = Memory(data=bytearray(DATA[:1000]))
    web.faults["model"] = body(DATA[1000:], 206, {"Content-Range": content_range})
    with pytest.raises(DownloadInterruptedError, match="another range"):
        fill(web, sink)
    assert sink.offset == 0


def test_a_range_beyond_the_file_starts_over(web: WebFolder) -> None:
    sink = Memory(length=len(DATA) + 10, data=bytearray(DATA))
    with pytest.raises(DownloadInterruptedError, match="no such range"):
        fill(web, sink)
    assert sink.offset == 0


@pytest.mark.parametrize("code", [403, 404, 410, 429, 500, 503])
def test_case_25_an_error_status_ends_the_attempt_and_keeps_what_arrived(web: WebFolder, code: int) -> None:
    sink = Memory(data=bytearray(DATA[:1000]))
    web.faults["model"] = status(code)
    with pytest.raises(DownloadInterruptedError, match=f"status {code}"):
        fill(web, sink)
    assert sink.data == DATA[:1000]
    assert len(web.requests) == 1, "one attempt is one request"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("999999999", 3600.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-5", None), ("9" * 300, None)],
)
def test_retry_after_is_heeded_within_bounds(web: WebFolder, header: str, seconds: float | None) -> None:
    web.faults["model"] = status(503, {"Retry-After": header})
    with pytest.raises(DownloadInterruptedError) as caught:
        fill(web, Memory())
    assert caught.value.retry_after_s == seconds


def test_case_26_a_server_that_dribbles_is_given_up_on(web: WebFolder) -> None:
    ticks = iter(range(0, 10_000_000, 10_000))
    with pytest.raises(DownloadInterruptedError, match="too slow"):
        fill(web, Memory(), monotonic=lambda: float(next(ticks)))


def test_case_26_a_server_that_falls_silent_is_given_up_on(web: WebFolder) -> None:
    import threading

    released = threading.Event()

    def silence(handler: Any, _data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:10])
        handler.wfile.flush()
        released.wait(20)
        handler.close_connection = True
        return True

    web.faults["model"] = silence
    sink = Memory()
    try:
        with pytest.raises(DownloadInterruptedError, match="broke off"):
            fill(web, sink, stall_s=0.2)
    finally:
        released.set()
    assert sink.data == DATA[:10]


def test_a_longer_answer_than_signed_is_cut_off(web: WebFolder) -> None:
    sink = Memory(length=1000)
    with pytest.raises(SlotWriteError, match="more than the signed"):
        fill(web, sink)
    assert sink.offset <= 1000


def test_a_stop_is_heeded_between_two_chunks(web: WebFolder) -> None:
    sink = Memory()
    answers = iter([False, False, True])
    with pytest.raises(DownloadStoppedError):
        HttpSource().fill(f"{web.url}/model", sink, lambda: next(answers))
    assert 0 < sink.offset < len(DATA)


def test_a_server_that_is_not_there_is_a_link_error() -> None:
    with pytest.raises(DownloadInterruptedError, match=r"127\.0\.0\.1:9 does not answer"):
        HttpSource().fill("http://127.0.0.1:9/model", Memory())


def test_a_complete_download_asks_nothing(web: WebFolder) -> None:
    fill(web, Memory(data=bytearray(DATA)))
    assert web.requests == []


def test_a_folder_gives_the_same_bytes_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA)
    sink = Memory(data=bytearray(DATA[:1234]))
    FolderSource().fill(str(tmp_path / "model"), sink)
    assert sink.data == DATA


def test_a_short_or_missing_file_on_a_stick_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA[:50])
    with pytest.raises(DownloadInterruptedError, match="ends after 50"):
        FolderSource().fill(str(tmp_path / "model"), Memory())
    with pytest.raises(DownloadInterruptedError, match="No such file"):
        FolderSource().fill(str(tmp_path / "absent"), Memory())
