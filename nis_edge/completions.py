"""OpenAI-compatible completions of a local model, without the wire: bodies in, replies or chunks out.

Whoever serves `/v1/models`, `/v1/completions` and `/v1/chat/completions` hands the parsed JSON body to ``Completions``
and writes what comes back; a stream's chunks become server-sent events, closed by ``[DONE]``. Clock and chance are
handed in. Parameters that would change the answer but are not supported are refused by name, so that no client is
misled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from nis_edge.engine import json_schema
from nis_edge.engine.constraint import Constraint, constraint_of
from nis_edge.engine.generation import Answer, Piece, Wish
from nis_edge.engine.model import Model
from nis_edge.engine.sampler import LIKELY_MAX, Sampling
from nis_edge.errors import ConfigError, ModelError

MESSAGES_MAX: Final = 256
PROMPT_CHARS_MAX: Final = 1024 * 1024
TEMPLATE_STEPS_MAX: Final = 100_000
"""Items of ranges that a chat template may make in all."""

ROLES: Final = ("system", "developer", "user", "assistant")

Body = Mapping[str, Any]
Reply = dict[str, Any]

_IGNORED: Final = frozenset(("model", "user", "stream", "stream_options", "store", "metadata"))
_COMMON: Final = frozenset(
    (
        "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "logprobs",
        "response_format",
    )
)  # fmt: skip
_FINISH: Final = {"end": "stop", "complete": "stop", "stop": "stop", "length": "length", "cancelled": "stop"}


class Completions:
    """Completions of one model. Belongs to one thread at a time; each answer has a session of its own."""

    def __init__(
        self,
        model: Model,
        *,
        now: Callable[[], int],
        identify: Callable[[], str],
        kv: str = "F32",
        template: str | None = None,
    ) -> None:
        """Set up.

        Args:
            model: open; it stays the caller's.
            now: seconds since 1970, for `created`.
            identify: a fresh id, for `id`.
            kv: how sessions keep keys and values.
            template: a chat template (Jinja) instead of the package's.
        """
        self._model, self._now, self._identify, self._kv = model, now, identify, kv
        packaged = model.manifest.tokenizer.chat_template
        self._template = template or (packaged if isinstance(packaged, str) else None)
        self.name = model.manifest.model.id

    def models(self) -> Reply:
        """The reply to `/v1/models`."""
        entry = {"id": self.name, "object": "model", "created": self._now(), "owned_by": "nis-edge"}
        return {"object": "list", "data": [entry]}

    def complete(self, body: Body) -> Reply | Iterator[Reply]:
        """Answer a body of `/v1/completions`: a reply, or chunks if it asks for a stream.

        Raises:
            ConfigError: the body is not acceptable; the sender acts.
            ModelError: the prompt does not fit.
        """
        _only(body, _COMMON | {"prompt"})
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            if len(prompt) > PROMPT_CHARS_MAX:
                raise ConfigError(f"the prompt has {len(prompt)} characters, at most {PROMPT_CHARS_MAX} are taken")
            tokens = self._encode(prompt, begin=True)
        elif isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
            tokens = prompt
        else:
            raise ConfigError("prompt must be a text or a list of token ids")
        likely = body.get("logprobs")
        answer = self._answer(body, tokens, None if likely is None else _whole(likely, "logprobs", 0, LIKELY_MAX))
        head = {"id": f"cmpl-{self._identify()}", "created": self._now(), "model": self.name}
        if _flag(body, "stream"):
            return self._stream_text(head, answer)
        pieces = list(answer)
        choice = {
            "index": 0,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": None if likely is None else self._flat(pieces),
            "finish_reason": _FINISH[answer.finish or "length"],
        }
        return {**head, "object": "text_completion", "choices": [choice], "usage": _usage(len(tokens), answer)}

    def chat(self, body: Body) -> Reply | Iterator[Reply]:
        """Answer a body of `/v1/chat/completions`. Arguments and errors as ``complete``."""
        _only(body, _COMMON | {"messages", "max_completion_tokens", "top_logprobs"})
        tokens = self._encode(self._render(_messages(body.get("messages"))), begin=False)
        wanted = _flag(body, "logprobs")
        likely = _whole(body.get("top_logprobs", 0), "top_logprobs", 0, LIKELY_MAX) if wanted else None
        answer = self._answer(body, tokens, likely)
        head = {"id": f"chatcmpl-{self._identify()}", "created": self._now(), "model": self.name}
        if _flag(body, "stream"):
            return self._stream_chat(head, answer, wanted)
        pieces = list(answer)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(piece.text for piece in pieces)},
            "logprobs": self._nested(pieces) if wanted else None,
            "finish_reason": _FINISH[answer.finish or "length"],
        }
        return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(len(tokens), answer)}

    # --- streams ------------------------------------------------------------------------------------------------------

    def _stream_text(self, head: Reply, answer: Answer) -> Iterator[Reply]:
        for piece in answer:
            logs = None if piece.log_probability is None else self._flat([piece])
            yield _chunk(head, "text_completion", {"text": piece.text, "logprobs": logs}, None)
        yield _chunk(head, "text_completion", {"text": "", "logprobs": None}, answer.finish)

    def _stream_chat(self, head: Reply, answer: Answer, wanted: bool) -> Iterator[Reply]:
        kind = "chat.completion.chunk"
        yield _chunk(head, kind, {"delta": {"role": "assistant", "content": ""}}, None)
        for piece in answer:
            logs = {"logprobs": self._nested([piece])} if wanted else {}
            yield _chunk(head, kind, {"delta": {"content": piece.text}, **logs}, None)
        yield _chunk(head, kind, {"delta": {}}, answer.finish)

    # --- from a body to an answer -------------------------------------------------------------------------------------

    def _encode(self, text: str, *, begin: bool) -> list[int]:
        tokenizer = self._model.tokenizer
        if tokenizer is None:
            raise ModelError(f"{self.name}: the package has no tokenizer; send token ids as the prompt")
        tokens = tokenizer.encode(text)
        first = tokenizer.find_special("bos") if begin else None
        tokens = tokens if first is None else [first, *tokens]
        if not tokens:
            raise ConfigError("the prompt is empty")
        return tokens

    def _answer(self, body: Body, tokens: Sequence[int], likely: int | None) -> Answer:
        context = self._model.manifest.architecture.context
        if len(tokens) >= context:
            raise ModelError(f"{self.name}: a prompt of {len(tokens)} tokens leaves no room in {context} positions")
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        most = context - len(tokens) if limit is None else _whole(limit, "max_tokens", 1, 2**31)
        wish = Wish(most, _sampling(body), _stops(body), self._constraint(body), likely)
        session = self._model.session(max_positions=min(context, len(tokens) + most), kv=self._kv)
        return Answer(self._model, session, tokens, wish)

    def _constraint(self, body: Body) -> Constraint | None:
        wanted = body.get("response_format")
        if wanted is None or wanted == {"type": "text"}:
            return None
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind == "json_object":
            return constraint_of(self._model.vocabulary, json_schema.json_object_pattern())
        described = wanted.get("json_schema") if isinstance(wanted, dict) else None
        if kind != "json_schema" or not isinstance(described, dict) or "schema" not in described:
            raise ConfigError("response_format: type text, json_object, or json_schema with a schema in json_schema")
        pattern = json_schema.parse_schema(json.dumps(described["schema"]))
        return constraint_of(self._model.vocabulary, pattern)

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self._template is None:
            raise ModelError(f"{self.name}: the package has no chat template; use /v1/completions, or pack it again")
        return render_chat(self._template, messages, _special_texts(self._model))

    # --- log-probabilities --------------------------------------------------------------------------------------------

    def _word(self, token: int) -> tuple[str, list[int]]:
        raw = self._model.vocabulary.tokens[token]
        return raw.decode("utf-8", "replace"), list(raw)

    def _flat(self, pieces: Sequence[Piece]) -> Reply:
        made = [piece for piece in pieces if piece.token is not None]
        return {
            "tokens": [self._word(piece.token or 0)[0] for piece in made],
            "token_logprobs": [piece.log_probability for piece in made],
            "top_logprobs": [{self._word(token)[0]: value for token, value in piece.likely} for piece in made],
        }

    def _nested(self, pieces: Sequence[Piece]) -> Reply:
        def entry(token: int, value: float | None) -> Reply:
            text, raw = self._word(token)
            return {"token": text, "logprob": value, "bytes": raw}

        made = [piece for piece in pieces if piece.token is not None]
        return {
            "content": [
                {
                    **entry(piece.token or 0, piece.log_probability),
                    "top_logprobs": [entry(token, value) for token, value in piece.likely],
                }
                for piece in made
            ]
        }


def chat_prompt(model: Model, messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as this model was trained to read it, by the template in its package. Errors as ``render_chat``.

    Raises:
        ModelError: the package has no template; its builder acts.
    """
    template = model.manifest.tokenizer.chat_template
    if not isinstance(template, str):
        raise ModelError(
            f"{model.package.path}: the package has no chat template; ask without --chat, or pack it again"
        )
    return render_chat(template, messages, _special_texts(model))


def _special_texts(model: Model) -> dict[str, str]:
    """What templates call `bos_token` and the like."""
    tokenizer = model.tokenizer
    names = ("bos", "eos", "unk", "pad")
    found = ((name, None if tokenizer is None else tokenizer.find_special(name)) for name in names)
    tokens = {name: number for name, number in found if number is not None}
    texts = {} if tokenizer is None else {name: tokenizer.word(number) for name, number in tokens.items()}
    return {f"{name}_token": texts.get(name, "") for name in names}


def render_chat(template: str, messages: Sequence[Mapping[str, str]], specials: Mapping[str, str]) -> str:
    """Write a conversation as the model was trained to read it, by its Jinja template, in Jinja's sandbox.

    Args:
        template: comes with the package, whose publisher is trusted; it can reach nothing but these values, and ranges
            and products that would fill the memory are refused.
        messages: `role` and `content` each.
        specials: `bos_token` and the like.

    Raises:
        ConfigError: the extra `chat` is not installed, or the template refuses these messages.
        ModelError: the template is broken.
    """
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise ConfigError(
            "chat needs the extra: pip install 'nis-edge[chat]'; /v1/completions works without"
        ) from error

    class _RefusedError(Exception):
        pass

    def refuse(reason: object) -> None:
        raise _RefusedError(str(reason)[:200])

    steps = 0

    def bounded_range(*bounds: int) -> range:
        nonlocal steps
        made = range(*bounds)
        steps += len(made)
        if steps > TEMPLATE_STEPS_MAX:
            raise _RefusedError("it loops too long")
        return made

    class _Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, _context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
                raise _RefusedError(f"{operator} of such values is not offered")
            return left * right

    environment = _Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(raise_exception=refuse, range=bounded_range)
    try:
        text = environment.from_string(template).render(messages=messages, add_generation_prompt=True, **specials)
    except _RefusedError as error:
        raise ConfigError(f"the package's chat template refuses these messages: {error}") from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the package's chat template is broken: {error}; pack it with another") from error
    if len(text) > PROMPT_CHARS_MAX:
        raise ConfigError(f"the conversation has {len(text)} characters, at most {PROMPT_CHARS_MAX} are taken")
    return text


def _chunk(head: Reply, kind: str, choice: Reply, finish: str | None) -> Reply:
    reason = None if finish is None else _FINISH[finish]
    return {**head, "object": kind, "choices": [{"index": 0, **choice, "finish_reason": reason}]}


def _usage(prompt: int, answer: Answer) -> Reply:
    return {"prompt_tokens": prompt, "completion_tokens": answer.made, "total_tokens": prompt + answer.made}


def _only(body: Body, known: frozenset[str] | set[str]) -> None:
    if not isinstance(body, Mapping):
        raise ConfigError("the body must be a JSON object")
    neutral: Mapping[str, Any] = {"n": 1, "echo": False, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0}
    for key, value in body.items():
        if key in known or key in _IGNORED or value is None or (key in neutral and value == neutral[key]):
            continue
        raise ConfigError(f"parameter {key[:80]!r} is not supported; leave it out")


def _flag(body: Body, key: str) -> bool:
    value = body.get(key)
    if value not in (None, True, False):
        raise ConfigError(f"{key} must be true or false")
    return value is True


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number, {low} to {high}")
    return value


def _sampling(body: Body) -> Sampling:
    given: dict[str, Any] = {"temperature": 1.0}
    for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
        value = body.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"{name} must be a number")
            given[name] = float(value)
    for name in ("top_k", "seed"):
        if body.get(name) is not None:
            given[name] = _whole(body[name], name, 0, 2**64 - 1)
    return Sampling(**given)


def _stops(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise ConfigError("stop must be a text or a list of texts")
    return tuple(stops)


def _messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or not 1 <= len(value) <= MESSAGES_MAX:
        raise ConfigError(f"messages must be a list of 1 to {MESSAGES_MAX} messages")
    messages, size = [], 0
    for number, message in enumerate(value):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            content = "".join(str(part.get("text", "")) for part in content)
        if role not in ROLES or not isinstance(content, str):
            raise ConfigError(f"messages[{number}] needs a role of {', '.join(ROLES)} and a text as content")
        size += len(content)
        messages.append({"role": str(role), "content": content})
    if size > PROMPT_CHARS_MAX:
        raise ConfigError(f"the messages have {size} characters, at most {PROMPT_CHARS_MAX} are taken")
    return messages
