"""An answer, token by token: sampling, constraint, stop strings, log-probabilities, cancelling."""

from __future__ import annotations

import codecs
import dataclasses
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import numpy as np

from nis_edge.engine.constraint import FAR, Allowed, Constraint
from nis_edge.engine.sampler import LIKELY_MAX, Sampler, Sampling
from nis_edge.engine.tokenizer import TextStream
from nis_edge.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from nis_edge.engine.model import Model
    from nis_edge.engine.session import Session

STOPS_MAX: Final = 16
STOP_CHARS_MAX: Final = 1024

ENDS: Final = ("eos", "eot", "im_end")
"""Special tokens, by the manifest's names, that end an answer."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What an answer shall be.

    Attributes:
        max_tokens: at most so many, 1 or more.
        sampling: how tokens are chosen.
        stops: texts that end it, wherever they come to stand; they are not part of it.
        constraint: what it may be.
        likely: also say each token's log-probability and this many alternatives; None: say nothing.
    """

    max_tokens: int = 128
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    constraint: Constraint | None = None
    likely: int | None = None

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ConfigError: a value is out of range.
        """
        if self.max_tokens < 1:
            raise ConfigError(f"{self.max_tokens} tokens: 1 or more")
        if len(self.stops) > STOPS_MAX or any(not 1 <= len(stop) <= STOP_CHARS_MAX for stop in self.stops):
            raise ConfigError(f"at most {STOPS_MAX} stop strings of 1 to {STOP_CHARS_MAX} characters each")
        if self.likely is not None and not 0 <= self.likely <= LIKELY_MAX:
            raise ConfigError(f"{self.likely} alternatives: 0 to {LIKELY_MAX}")


@dataclasses.dataclass(frozen=True)
class Piece:
    """One token of an answer.

    Attributes:
        token: its id; None for the last piece, which only brings text that was held back.
        text: what became certain with it: complete characters that no stop string can begin with.
        log_probability: of the token; None unless wished.
        likely: (token, log-probability) of the most likely ones, best first.
    """

    token: int | None
    text: str
    log_probability: float | None = None
    likely: tuple[tuple[int, float], ...] = ()


class Answer:
    """An answer under way: iterate over its pieces, then ask why it ended.

    Attributes:
        finish: None while under way; then "end" (the model ended it), "complete" (the constraint left nothing to say),
            "stop" (a stop string), "length" (max_tokens, or the session is full), or "cancelled".
        made: tokens made so far.
    """

    def __init__(self, model: Model, session: Session, prompt: Sequence[int], wish: Wish) -> None:
        """Prepare; nothing is computed before the first piece.

        Args:
            model: that answers.
            session: with what was read before; the prompt and the answer are appended.
            prompt: token ids, one or more.
            wish: what the answer shall be.

        Raises:
            ConfigError: the constraint can't be met within the tokens allowed.
            ModelError: the prompt leaves no room.
        """
        self.finish: str | None = None
        self.made = 0
        self._model, self._session, self._wish = model, session, wish
        self._prompt = session.checked(prompt)
        room = session.max_positions - session.position - self._prompt.size
        if room < 0:
            raise ModelError(
                f"{model.package.path}: a prompt of {self._prompt.size} tokens does not fit, the session stands at"
                f" {session.position} of {session.max_positions} positions"
            )
        self._left = min(wish.max_tokens, room + 1)  # the last token is made but not read
        self._ends = ends_of(model)
        self._sampler = Sampler(model, wish.sampling)
        self._cancelled = False
        self._state = 0
        self._allowed: Allowed | None = None
        if wish.constraint is not None:
            self._check_reach(wish.constraint)
            self._allowed = Allowed(wish.constraint, self._ends)
        self._stream = _stream_of(model, exact=wish.constraint is not None)
        self._stop = StopText(wish.stops)

    def cancel(self) -> None:
        """From any thread: end the answer; the piece under way may still come."""
        self._cancelled = True
        self._session.cancel()

    def __iter__(self) -> Iterator[Piece]:
        logits = None  # none are needed unless a constraint or log-probabilities look at all of them
        if self._allowed is not None or self._wish.likely is not None:
            logits = np.empty(self._model.manifest.architecture.vocab, dtype=np.float32)
        recent = _Recent(self._wish.sampling, self._prompt)
        reading = self._prompt
        one = np.empty(1, dtype=np.int32)
        while self.finish is None:
            token = self._next(reading, logits, recent.tokens)
            if token is None:
                break
            self.made += 1
            self._left -= 1
            if token in self._ends:
                self.finish = "end"
                break
            text = self._stop.add(self._stream.add(token))
            self._advance(token)
            yield self._piece(token, text, logits)
            recent.add(token)
            one[0] = token
            reading = one
        held = self._stop.add(self._stream.flush()) + self._stop.flush()
        if held:
            yield Piece(None, held)

    def text(self) -> str:
        """Run to the end; return the whole text."""
        return "".join(piece.text for piece in self)

    def _next(self, tokens: np.ndarray, logits: np.ndarray | None, recent: Collection[int]) -> int | None:
        """Read tokens and choose the next one, from ``logits`` if given; None if the answer was cancelled meanwhile."""
        token = None
        try:
            if not self._cancelled and logits is None:
                token = self._session.choose(tokens, self._sampler, recent)
            elif not self._cancelled and logits is not None:
                self._session.forward_into(tokens, logits)
        except ModelError:
            if not self._cancelled:
                raise
        if self._cancelled:
            self.finish = "cancelled"
            return None
        if logits is not None:
            allowed = self._allowed.at(self._state, self._left) if self._allowed is not None else None
            token = self._sampler.pick(logits, allowed, recent)
        return token

    def _advance(self, token: int) -> None:
        """Move the constraint on, and see whether the answer ends with this token."""
        if self._wish.constraint is not None:
            self._state = self._wish.constraint.advance(self._state, token)
            if self._wish.constraint.is_complete(self._state):
                self.finish = "complete"
        if self._stop.met:
            self.finish = "stop"
        elif self.finish is None and self._left == 0:
            self.finish = "length"

    def _piece(self, token: int, text: str, logits: np.ndarray | None) -> Piece:
        if self._wish.likely is None or logits is None:
            return Piece(token, text)
        mine, likely = self._sampler.log_probabilities(logits, token, self._wish.likely)
        return Piece(token, text, mine, tuple(likely))

    def _check_reach(self, constraint: Constraint) -> None:
        needed = constraint.distance(0)
        if needed == FAR or needed > self._left:
            raise ConfigError(
                f"the constraint's shortest answer has {needed} tokens, {self._left} may be made; allow more tokens"
            )


def ends_of(model: Model) -> frozenset[int]:
    """The tokens that end an answer of a model."""
    generation, tokenizer = model.manifest.generation, model.tokenizer
    stops = () if isinstance(generation, msgspec.UnsetType) else generation.stop
    found = () if tokenizer is None else (tokenizer.find_special(name) for name in ENDS)
    return frozenset((*stops, *(token for token in found if token is not None)))


class _Recent:
    """The distinct tokens of the last few, for the repetition penalty."""

    def __init__(self, sampling: Sampling, prompt: np.ndarray) -> None:
        self._on = sampling.repetition_penalty != 1.0
        self._window: deque[int] = deque(maxlen=sampling.repetition_window)
        self._counts: Counter[int] = Counter()
        for token in prompt[-sampling.repetition_window :] if self._on else ():
            self.add(int(token))

    @property
    def tokens(self) -> Counter[int]:
        return self._counts

    def add(self, token: int) -> None:
        if not self._on:
            return
        if len(self._window) == self._window.maxlen:
            oldest = self._window[0]
            self._counts[oldest] -= 1
            if self._counts[oldest] == 0:
                del self._counts[oldest]
        self._window.append(token)
        self._counts[token] += 1


class _Stream(Protocol):
    def add(self, token: int) -> str: ...

    def flush(self) -> str: ...


class ByteStream:
    """Text of tokens by their bytes: a character that is not complete yet is held back."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """Start an empty stream.

        Args:
            tokens: the bytes of every token.
        """
        self._tokens = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Take one more token; return the text that it completes, often empty."""
        return self._decoder.decode(self._tokens[token])

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        return self._decoder.decode(b"", final=True)


class _NumberStream:
    """Token ids as text, for a package without a tokenizer."""

    def add(self, token: int) -> str:
        return f"{token} "

    def flush(self) -> str:
        return ""


def _stream_of(model: Model, *, exact: bool) -> _Stream:
    tokenizer = model.tokenizer
    if tokenizer is None:
        return _NumberStream()
    return ByteStream(model.vocabulary.tokens) if exact else TextStream(tokenizer)


class StopText:
    """Passes text on until one of some strings has come, wherever the pieces are cut."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Start.

        Args:
            stops: the strings; none: everything passes at once.
        """
        self._stops = tuple(stops)
        self._held = ""
        self.met = False

    def add(self, text: str) -> str:
        """Take more text; return what can't be part of a stop string any more."""
        if self.met:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        found = min((at for at in (held.find(stop) for stop in self._stops) if at >= 0), default=None)
        if found is not None:
            self.met, self._held = True, ""
            return held[:found]
        keep = max(self._begun(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _begun(text: str, stop: str) -> int:
        """How many characters at the end of a text are the beginning of a stop string."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
