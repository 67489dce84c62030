"""The OpenAI-compatible routes over a real tiny model and the real server: replies, streams, refusals, bounds."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nis_edge import answering as module
from nis_edge.adapters import http_api
from nis_edge.adapters.http_api import HttpApi
from nis_edge.answering import ANSWERS_MAX, Answering
from nis_edge.engine.constraint import constraint_of
from tests.support.clock import SteppedClock
from tests.support.tiny_models import write_tiny_package

Ask = Callable[..., Awaitable[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("answering") / "tiny.nis", seed=2)


def served(package: Path | None, scenario: Callable[[Ask, Answering], Awaitable[None]]) -> None:
    async def body() -> None:
        failures: list[str] = []
        answers = Answering(package, threads=1, clock=SteppedClock())
        api = HttpApi("127.0.0.1", 0, None, answers.routes(), failures.append)
        port = await api.start()

        async def ask(path: str, content: Any = None) -> tuple[int, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            raw = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
            head = f"{'GET' if content is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            kind = "" if content is None else f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
            writer.write(f"{head}{kind}\r\n".encode() + raw)
            answer = await reader.read()
            writer.close()
            return int(answer.split(b" ", 2)[1]), answer.split(b"\r\n\r\n", 1)[1]

        try:
            await scenario(ask, answers)
        finally:
            await api.stop()
            await answers.close()
        assert not failures, failures

    asyncio.run(asyncio.wait_for(body(), 30))


def test_a_prompt_is_completed_whole_or_streamed_with_the_same_text(package: Path) -> None:
    async def scenario(ask: Ask, _: Answering) -> None:
        body = {"prompt": "The agent", "max_tokens": 12, "seed": 3, "temperature": 2}
        status, whole = await ask("/v1/completions", body)
        assert status == 200
        status, streamed = await ask("/v1/completions", {**body, "stream": True})
        assert status == 200 and b"data: [DONE]" in streamed
        lines = [line[6:] for line in streamed.decode().splitlines() if line.startswith("data: {")]
        text = "".join(json.loads(line)["choices"][0]["text"] for line in lines)
        assert text == json.loads(whole)["choices"][0]["text"] and text
        assert json.loads((await ask("/v1/models"))[1])["data"][0]["id"] == "tiny"

    served(package, scenario)


def test_without_a_model_the_way_to_one_is_named() -> None:
    async def scenario(ask: Ask, _: Answering) -> None:
        status, body = await ask("/v1/chat/completions", {"messages": []})
        assert status == 404 and "completions.model" in json.loads(body)["error"]["message"]
        assert json.loads((await ask("/v1/models"))[1]) == {"object": "list", "data": []}

    served(None, scenario)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "no JSON"),
        ([], "JSON object"),
        ({"prompt": 5}, "prompt must be"),
        ({"prompt": "x", "tools": []}, "'tools' is not supported"),
        ({"prompt": [1] * 5000}, "no room"),
    ],
)
def test_a_body_that_can_not_be_answered_is_refused_in_openais_form(package: Path, body: Any, told: str) -> None:
    async def scenario(ask: Ask, _: Answering) -> None:
        status, answer = await ask("/v1/completions", body)
        error = json.loads(answer)["error"]
        assert status == 400 and told in error["message"] and error["type"] == "invalid_request_error"

    served(package, scenario)


def test_answers_under_way_are_bounded_and_a_reader_who_leaves_makes_room(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWERS_MAX", 1)

    async def scenario(ask: Ask, answers: Answering) -> None:
        body = {"prompt": "The agent", "max_tokens": 5, "stream": True}
        streams = []
        response = await answers.routes()["POST", "/v1/completions"](_request(body))
        assert response.stream is not None
        streams.append(response.stream)
        await streams[0].__anext__()
        assert (await ask("/v1/completions", body))[0] == 429
        await streams[0].aclose()  # type: ignore[attr-defined]
        assert (await ask("/v1/completions", body))[0] == 200

    served(package, scenario)
    assert ANSWERS_MAX > 1


def test_a_stream_that_nobody_begins_to_read_makes_room(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWERS_MAX", 1)

    async def scenario(ask: Ask, _: Answering) -> None:
        body = {"prompt": "The agent", "max_tokens": 5}
        with monkeypatch.context() as full:
            full.setattr(http_api, "API_FOLLOWERS_MAX", 0)
            status, answer = await ask("/v1/completions", {**body, "stream": True})
            assert status == 503 and b"followers" in answer
        assert (await ask("/v1/completions", body))[0] == 200

    served(package, scenario)


def test_constraints_are_kept_for_the_next_answer_and_go_with_the_model(package: Path) -> None:
    async def scenario(ask: Ask, _: Answering) -> None:
        constraint_of.cache_clear()
        body = {"prompt": "x", "max_tokens": 40, "response_format": {"type": "json_object"}}
        for _turn in range(2):
            assert (await ask("/v1/completions", body))[0] == 200
        assert constraint_of.cache_info()[:2] == (1, 1)

    served(package, scenario)
    assert constraint_of.cache_info().currsize == 0


def test_a_daemon_that_is_asked_nothing_imports_nothing_that_answers() -> None:
    script = (
        "import sys, nis_edge.daemon; print([name for name in ('completions', 'engine.constraint', 'engine.generation',"
        " 'engine.regular', 'engine.byte_vocabulary') if f'nis_edge.{name}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def _request(body: Any) -> Any:
    from nis_edge.adapters.http_api import Request

    return Request("POST", "/v1/completions", {}, json.dumps(body).encode())


def test_a_package_that_can_not_be_opened_is_an_error_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "bad.nis").write_bytes(b"\0" * 64)

    async def scenario(ask: Ask, _: Answering) -> None:
        assert (await ask("/v1/models"))[0] == 503
        assert (await ask("/v1/completions", {"prompt": "x"}))[0] == 400

    served(tmp_path / "bad.nis", scenario)
