"""Constrained answers: a regular language over the model's tokens, so that no invalid token can be chosen.

For every state of the language the engine computes once which tokens may follow; while text is made that is a look-up.
A token is allowed only if the answer can still be finished within the tokens that are left.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from nis_edge.engine import library, regular
from nis_edge.engine.regular import DEAD, Pattern, Table
from nis_edge.errors import ConfigError

FAR: Final = 0xFFFFFFFF
"""The distance of a state that no tokens lead on from."""

CHOICES_MAX: Final = 1000
CHOICE_CHARS_MAX: Final = 4096

CONSTRAINTS_KEPT: Final = 2
"""Each may hold 128 MiB of sets (SETS_BYTES_MAX of nis_edge/native/constraint.c): the one in use and the one before."""


class Vocabulary:
    """The bytes of a model's tokens, as the engine's tree."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """Take the bytes of every token; those without any are never allowed by a constraint."""
        self._library = library.load()
        self.tokens = tokens
        offsets = np.zeros(len(tokens) + 1, dtype=np.uint64)
        np.cumsum([len(token) for token in tokens], out=offsets[1:])
        pointer = ctypes.c_void_p()
        status = self._library.nis_vocabulary_create(
            b"".join(tokens), offsets.ctypes.data, len(tokens), ctypes.byref(pointer)
        )
        if status != library.OK:
            raise library.error_of(status, f"a vocabulary of {len(tokens)} tokens")
        self.pointer = pointer

    def __del__(self) -> None:
        if getattr(self, "pointer", None) is not None:
            self._library.nis_vocabulary_free(self.pointer)


class Constraint:
    """A language over a vocabulary. May be used by any number of answers at once, and is worth keeping."""

    def __init__(self, vocabulary: Vocabulary, pattern: Pattern) -> None:
        """Compute every state's tokens: milliseconds for a choice, tenths of a second for a large schema.

        Args:
            vocabulary: of the model.
            pattern: of the answers.

        Raises:
            ConfigError: too large, allows nothing, or nothing that the tokens could write.
        """
        self._library = library.load()
        self._vocabulary = vocabulary  # read by the engine
        self.table: Table = regular.compile_pattern(pattern)
        self._complete = (self.table.next == DEAD).all(axis=1)
        pointer = ctypes.c_void_p()
        states = len(self.table.accepting)
        status = self._library.nis_constraint_create(
            vocabulary.pointer,
            self.table.next.ctypes.data,
            self.table.accepting.ctypes.data,
            states,
            ctypes.byref(pointer),
        )
        if status == library.SHAPE:
            raise ConfigError(f"the constraint is too large: {states} states; allow shorter or fewer things")
        if status != library.OK:
            raise library.error_of(status, f"a constraint of {states} states")
        self.pointer = pointer
        if self.distance(0) == FAR:
            raise ConfigError("the constraint allows no text that the model's tokens could write")

    def distance(self, state: int) -> int:
        """The least number of tokens from a state to the end of an answer."""
        return int(self._library.nis_constraint_distance(self.pointer, state))

    def is_complete(self, state: int) -> bool:
        """Whether the answer ends here because nothing can follow."""
        return bool(self._complete[state])

    def is_accepting(self, state: int) -> bool:
        """Whether the answer may end here."""
        return bool(self.table.accepting[state])

    def advance(self, state: int, token: int) -> int:
        """The state that a token leads to; ``regular.DEAD`` if it is not allowed."""
        return int(self._library.nis_constraint_next(self.pointer, state, token))

    def __del__(self) -> None:
        if getattr(self, "pointer", None) is not None:
            self._library.nis_constraint_free(self.pointer)


class Allowed:
    """The set of tokens that may come next, as the sampler reads it: one per answer."""

    def __init__(self, constraint: Constraint, ends: Iterable[int]) -> None:
        """Start with nothing.

        Args:
            constraint: of the answer.
            ends: tokens that end it, allowed where it may end.
        """
        self._constraint = constraint
        self._library = library.load()
        vocab = len(constraint._vocabulary.tokens)
        self._set = np.zeros((vocab + 63) // 64, dtype=np.uint64)
        self._ends = [(end // 64, np.uint64(1 << end % 64)) for end in ends]

    def at(self, state: int, left: int) -> int | None:
        """Where the set lies in memory; None: nothing may follow, or not within ``left`` tokens."""
        mine = self._set.ctypes.data
        found: int | None = self._library.nis_constraint_allowed(self._constraint.pointer, state, left, mine)
        if found is None or not (self._ends and self._constraint.is_accepting(state)):
            return found
        if found != mine:
            ctypes.memmove(mine, found, self._set.nbytes)
        for word, bit in self._ends:
            self._set[word] |= bit
        return mine

    def tokens(self, state: int, left: int) -> npt.NDArray[np.int64]:
        """The same as numbers, ascending; for tests and for a look."""
        where = self.at(state, left)
        if where is None:
            return np.empty(0, dtype=np.int64)
        words = (ctypes.c_uint64 * self._set.size).from_address(where)
        bits = np.unpackbits(np.frombuffer(bytes(words), dtype=np.uint8), bitorder="little")
        return np.flatnonzero(bits)


# --- ways to say what is allowed; json_schema.py has the third ------------------------------------------------------


def choices(texts: Sequence[str]) -> Pattern:
    """One of some texts.

    Raises:
        ConfigError: none, too many, or an empty or overlong one.
    """
    if not 1 <= len(texts) <= CHOICES_MAX:
        raise ConfigError(f"{len(texts)} choices, must be 1 to {CHOICES_MAX}")
    for choice in texts:
        if not 1 <= len(choice) <= CHOICE_CHARS_MAX:
            raise ConfigError(f"a choice of {len(choice)} characters, must be 1 to {CHOICE_CHARS_MAX}")
    return regular.literal_choices(texts)


def expression(pattern: str) -> Pattern:
    """A regular expression over the whole answer, of the kind ``regular.parse`` takes."""
    return regular.parse(pattern)


@functools.lru_cache(maxsize=CONSTRAINTS_KEPT)
def constraint_of(vocabulary: Vocabulary, pattern: Pattern) -> Constraint:
    """A constraint, kept for the next answers that need the same one."""
    return Constraint(vocabulary, pattern)
