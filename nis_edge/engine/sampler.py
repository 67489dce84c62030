"""From logits to the next token: the most likely one, or one drawn by a seed; the same on every machine.

The engine does it (nis_edge/native/choosing.c): weights are whole numbers, the generator is a counter, libm has no say.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from nis_edge.engine import library
from nis_edge.errors import ConfigError

if TYPE_CHECKING:
    from nis_edge.engine.model import Model

LIKELY_MAX: Final = 20
"""Alternatives with their log-probabilities for one token, as OpenAI's interface bounds them."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the header nis_engine.h says it step by step.

    Attributes:
        temperature: 0 takes the most likely token; to 100.
        top_k: only the so many most likely; 0: all.
        top_p: of those only the most likely that make up this share; 1: all.
        min_p: none less likely than this share of the most likely; 0: all.
        repetition_penalty: tokens of the last ``repetition_window`` have their logit divided by it, or multiplied if it
            is negative; 1: none.
        repetition_window: tokens, prompt and answer together.
        seed: of the draws, 0 to 2**64 - 1.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ConfigError: a value is out of range.
        """
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("top_k", 0, 2**31),
            ("top_p", 1e-6, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", 0.01, 100.0),
            ("repetition_window", 1, 2**20),
            ("seed", 0, 2**64 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} {value} must be {low} to {high}")


class Sampler:
    """Chooses tokens for one answer, counting its draws. Belongs to one thread at a time."""

    def __init__(self, model: Model, sampling: Sampling) -> None:
        """Set up for a model's vocabulary."""
        self._library = library.load()
        self._vocab = model.manifest.architecture.vocab
        how = library.Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            top_k=sampling.top_k,
            seed=sampling.seed,
        )
        self._token = ctypes.c_int32()
        self._token_at = ctypes.byref(self._token)
        pointer = ctypes.c_void_p()
        status = self._library.nis_sampler_create(model.pointer, ctypes.byref(how), ctypes.byref(pointer))
        if status != library.OK:
            raise library.error_of(status, f"a sampler for {self._vocab} tokens")
        self._pointer = pointer

    @property
    def handle(self) -> ctypes.c_void_p:
        """The engine's handle."""
        return self._pointer

    def pick(self, logits: npt.NDArray[np.float32], allowed: int | None = None, recent: Collection[int] = ()) -> int:
        """The next token.

        Args:
            logits: float32 [vocab], contiguous.
            allowed: where a set of bits lies in memory (``Allowed.at``); None: all are.
            recent: distinct tokens that the repetition penalty is for.

        Raises:
            ModelError: logits that are not finite, or no token is allowed.
        """
        if logits.dtype != np.float32 or logits.shape != (self._vocab,) or not logits.flags.c_contiguous:
            raise ConfigError(f"logits must be {self._vocab} contiguous float32 numbers")
        repeated: Any = np.fromiter(recent, dtype=np.int32, count=len(recent)) if recent else None
        status = self._library.nis_sampler_choose(
            self._pointer,
            logits.ctypes.data,
            allowed,
            None if repeated is None else repeated.ctypes.data,
            len(recent),
            self._token_at,
        )
        if status != library.OK:
            raise library.error_of(status, "choosing a token")
        return self._token.value

    def log_probabilities(
        self, logits: npt.NDArray[np.float32], token: int, count: int = 0
    ) -> tuple[float, list[tuple[int, float]]]:
        """What the model gave a token, before temperature, penalty and constraint.

        Args:
            logits: float32 [vocab], contiguous.
            token: the chosen one.
            count: how many of the most likely to name, 0 to LIKELY_MAX.

        Returns:
            The natural logarithm of the token's probability, and (token, logarithm) of the most likely, best first.
        """
        count = min(count, LIKELY_MAX, self._vocab)
        mine = ctypes.c_float()
        likely = (library.Likely * max(1, count))()
        status = self._library.nis_sampler_log_probabilities(
            self._pointer, logits.ctypes.data, token, ctypes.byref(mine), likely, count
        )
        if status != library.OK:
            raise library.error_of(status, "log-probabilities")
        return mine.value, [(one.token, one.log_probability) for one in likely[:count]]

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None:
            self._library.nis_sampler_free(self._pointer)


def draw(seed: int, number: int) -> int:
    """Draw ``number`` of a seed: 64 random bits."""
    return int(library.load().nis_draw(seed, number))
