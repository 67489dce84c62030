"""OpenAI-compatible bodies in, replies and chunks out, over a real tiny model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from nis_edge.completions import Completions, render_chat
from nis_edge.engine.model import Model
from nis_edge.errors import ConfigError, ModelError
from tests.support.tiny_models import write_tiny_package

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
HELLO = [{"role": "user", "content": "The agent"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Completions]:
    numbers = itertools.count()
    with Model.open(write_tiny_package(tmp_path_factory.mktemp("completions") / "tiny.nis", seed=2)) as model:
        yield Completions(model, now=lambda: 5, identify=lambda: str(next(numbers)), template=TEMPLATE)


def test_models_names_the_package(made: Completions) -> None:
    assert [entry["id"] for entry in made.models()["data"]] == ["tiny"]


@pytest.mark.parametrize("way", ["complete", "chat"])
def test_a_stream_says_the_same_as_a_reply(made: Completions, way: str) -> None:
    asked: dict[str, Any] = {"max_tokens": 15, "temperature": 3, "seed": 4}
    asked |= {"prompt": "The agent"} if way == "complete" else {"messages": HELLO}
    whole: Any = getattr(made, way)(asked)
    chunks = list(getattr(made, way)({**asked, "stream": True}))
    if way == "complete":
        text, streamed = whole["choices"][0]["text"], "".join(c["choices"][0]["text"] for c in chunks)
    else:
        text = whole["choices"][0]["message"]["content"]
        streamed = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert text == streamed and text
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]
    assert json.loads(json.dumps(chunks)) == chunks


def test_a_response_format_is_kept(made: Completions) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    for seed in range(5):
        body = {"messages": HELLO, "temperature": 9, "seed": seed, "response_format": wanted}
        reply: Any = made.chat(body)
        assert set(json.loads(reply["choices"][0]["message"]["content"])) == {"ok"}
        assert reply["choices"][0]["finish_reason"] == "stop"


def test_log_probabilities_come_in_both_forms(made: Completions) -> None:
    flat: Any = made.complete({"prompt": [5, 6], "max_tokens": 4, "logprobs": 2})
    logs = flat["choices"][0]["logprobs"]
    assert len(logs["tokens"]) == len(logs["token_logprobs"]) == len(logs["top_logprobs"]) > 0
    nested: Any = made.chat({"messages": HELLO, "max_tokens": 4, "logprobs": True, "top_logprobs": 3})
    content = nested["choices"][0]["logprobs"]["content"]
    assert all(len(entry["top_logprobs"]) == 3 and entry["logprob"] <= 0 for entry in content)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"prompt": 7}, "prompt must be"), ({"prompt": "a", "n": 2}, "'n' is not supported"),
        ({"prompt": "a", "logit_bias": {"5": 1}}, "'logit_bias'"), ({"prompt": "a", "temperature": "x"}, "temperature"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"), ({"prompt": "a", "stop": [1]}, "stop must be"),
        ({"prompt": "a", "response_format": {"type": "xml"}}, "response_format"), ([], "JSON object"),
        ({"prompt": "a", "stream": "yes"}, "stream must be"), ({"prompt": "a", "top_p": 0}, "top_p"),
    ],
)  # fmt: skip
def test_bodies_that_are_not_acceptable_are_refused_by_name(made: Completions, body: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        made.complete(body)


@pytest.mark.parametrize("messages", [None, [], [{"role": "tool", "content": "a"}], [{"role": "user"}], ["a"] * 300])
def test_messages_that_are_none_are_refused(made: Completions, messages: Any) -> None:
    with pytest.raises(ConfigError, match="messages"):
        made.chat({"messages": messages})


def test_a_template_is_kept_in_its_sandbox() -> None:
    assert render_chat(TEMPLATE, HELLO, {"bos_token": "<s>"}) == "<s>user: The agent\nassistant: "
    with pytest.raises(ConfigError, match="no system"):
        render_chat("{{ raise_exception('no system') }}", HELLO, {})
    for wrong in (
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for",
        "{{ 1 // 0 }}",
        "{{ cycler.__init__.__globals__.os }}",
    ):
        with pytest.raises(ModelError, match="broken"):
            print(render_chat(wrong, HELLO, {}))
    with pytest.raises(ConfigError, match="not offered"):
        render_chat("{{ 'a' * 1000000000 }}", HELLO, {})
    with pytest.raises(ConfigError, match="too long"):
        render_chat("{% for i in range(10000000) %}a{% endfor %}", HELLO, {})
