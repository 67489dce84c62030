"""One conversation with a model: what it has read so far, and the questions one may ask of it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from nis_edge.engine import library
from nis_edge.errors import ModelError

if TYPE_CHECKING:
    from nis_edge.engine.model import Model
    from nis_edge.engine.sampler import Sampler

Float32Array: TypeAlias = npt.NDArray[np.float32]
POSITIONS_MAX: Final = 1 << 20
"""NIS_CONTEXT_MAX of nis_edge/native/model.h: no session holds more."""

Tokens: TypeAlias = Sequence[int] | npt.NDArray[Any]


class Session:
    """Keys, values and the residual stream of the positions read so far. Made by ``Model.session``.

    A session belongs to one thread at a time; a second one gets an error. A call that raises leaves the session where
    it was. Logits are the same bits for every instruction set, number of threads and division into calls.
    """

    def __init__(self, model: Model, pointer: ctypes.c_void_p, heads: Mapping[str, tuple[int, int]]) -> None:
        """Take over an engine's session.

        Args:
            model: it belongs to.
            pointer: the engine's handle, which the model knows.
            heads: task head's name -> (number in the engine, count of outputs).
        """
        self._model = model
        self._library = library.load()
        self._pointer = pointer  # NULL once it is freed, here or with the model
        self._heads = heads
        self._where = str(model.package.path)
        self._vocab = model.manifest.architecture.vocab

    @property
    def max_positions(self) -> int:
        """How many tokens it can read; of a rolling session 2**20."""
        return int(self._library.nis_session_max_positions(self.handle()))

    @property
    def position(self) -> int:
        """How many tokens were read."""
        return int(self._library.nis_session_position(self.handle()))

    def forward(self, tokens: Tokens, all_positions: bool = False) -> Float32Array:
        """Read tokens and say what comes next.

        Args:
            tokens: integers [n], n at least 1, each 0 to vocab - 1.
            all_positions: logits after every one of them instead of after the last.

        Returns:
            float32 [vocab], or [n, vocab].

        Raises:
            ModelError: bad tokens, a full session, a session in use by another thread, or weights that compute
                something that is not finite.
        """
        ids = self.checked(tokens)
        logits = np.empty((ids.size, self._vocab) if all_positions else self._vocab, dtype=np.float32)
        self._forward(ids, library.ALL_LOGITS if all_positions else library.LAST_LOGITS, logits)
        return logits

    def forward_into(self, tokens: npt.NDArray[np.int32], logits: Float32Array) -> None:
        """As ``forward``, for a loop: nothing is made or looked at that the engine does not look at.

        Args:
            tokens: int32 [n], contiguous.
            logits: float32 [vocab], contiguous; gets the logits after the last token.
        """
        self._forward(tokens, library.LAST_LOGITS, logits)

    def feed(self, tokens: Tokens) -> None:
        """Read tokens without asking for logits, which is cheaper. Arguments and errors as ``forward``."""
        self._forward(self.checked(tokens), library.NO_LOGITS, None)

    def best(self, tokens: Tokens, count: int, gap: float = math.inf) -> tuple[npt.NDArray[np.int32], Float32Array]:
        """Read tokens and name the most likely ones to come next, exactly as sorting all logits would, for less.

        Args:
            tokens: as ``forward``.
            count: how many to name, 1 to vocab.
            gap: name only those whose logit is at most this far below the best one; 0 or more.

        Returns:
            Tokens int32 [n] and logits float32 [n], best first, the lower token among equals; n is at most ``count``.

        Raises:
            ModelError: as ``forward``, or count or gap out of range.
        """
        ids = self.checked(tokens)
        if not (1 <= count <= self._vocab and gap >= 0.0):
            raise ModelError(f"{self._where}: best {count} within {gap}: needs 1 to {self._vocab}, and 0 or more")
        candidates = np.empty(count, dtype=[("token", np.int32), ("logit", np.float32)])
        found = ctypes.c_size_t()
        self._raise(
            self._library.nis_session_best(
                self.handle(), ids.ctypes.data, ids.size, count, gap, candidates.ctypes.data, ctypes.byref(found)
            )
        )
        named = candidates[: found.value]
        return named["token"].copy(), named["logit"].copy()

    def choose(self, tokens: npt.NDArray[np.int32], sampler: Sampler, recent: Collection[int] = ()) -> int:
        """Read tokens and choose the next one, as ``forward`` and ``Sampler.pick`` would, usually for less.

        Args:
            tokens: int32 [n], contiguous.
            sampler: of this session's model.
            recent: distinct tokens that the repetition penalty is for.

        Raises:
            ModelError: as ``forward``; then nothing was read and nothing drawn.
        """
        repeated = np.fromiter(recent, dtype=np.int32, count=len(recent)) if recent else None
        token = ctypes.c_int32()
        status = self._library.nis_session_choose(
            self.handle(), tokens.ctypes.data, tokens.size, sampler.handle,
            None if repeated is None else repeated.ctypes.data, len(recent), ctypes.byref(token),
        )  # fmt: skip
        if status == library.FULL:
            raise self._full(tokens.size)
        self._raise(status)
        return token.value

    def greedy(self, first: int, count: int, stop: int | None = None) -> list[int]:
        """Read a token, then let the model continue with its most likely ones, all in one call of the engine.

        Args:
            first: the token to read.
            count: how many to make at most; the session must have room for as many.
            stop: end after this one was made.

        Returns:
            The tokens made; the last one has not been read.

        Raises:
            ModelError: as ``forward``; then nothing was read.
        """
        # No numpy and few calls: between two tokens of a small model they would be several per cent of the time.
        if not (isinstance(first, int) and 0 <= first < self._vocab):
            first = int(self.checked([first])[0])
        if not 1 <= count <= POSITIONS_MAX:
            raise ModelError(f"{self._where}: {count} tokens to make, must be 1 or more and fit the session")
        made, made_count = (ctypes.c_int32 * count)(), ctypes.c_size_t()
        status = self._library.nis_session_greedy(
            self.handle(), first, -1 if stop is None else stop, count, made, ctypes.byref(made_count)
        )
        if status == library.FULL:
            raise ModelError(
                f"{self._where}: {count} tokens to make, the session has room for {self.max_positions - self.position}"
            )
        self._raise(status)
        return made[: made_count.value]

    def head(self, name: str) -> Float32Array:
        """Ask a task head about the last position; only its own layers run, over positions it has not seen.

        Args:
            name: of the head.

        Returns:
            float32 [outputs], before any sigmoid.

        Raises:
            ModelError: no such head, nothing read yet, or as ``forward``.
        """
        if name not in self._heads:
            raise ModelError(f"{self._where}: has no task head {name!r}; it has {', '.join(self._heads) or 'none'}")
        number, count = self._heads[name]
        outputs = np.empty(count, dtype=np.float32)
        self._raise(self._library.nis_session_head(self.handle(), number, outputs.ctypes.data))
        return outputs

    def rewind(self, position: int) -> None:
        """Keep the first positions and forget the rest.

        Args:
            position: how many to keep, 0 to ``self.position``.

        Raises:
            ModelError: more than there are.
        """
        if not 0 <= position <= self.position:
            raise ModelError(f"{self._where}: can't rewind to {position}, the session stands at {self.position}")
        self._raise(self._library.nis_session_rewind(self.handle(), position))

    def fork(self, position: int | None = None) -> Session:
        """Start a second session that has read the same first tokens; what both have read is kept once.

        Args:
            position: how many of them, 0 to ``self.position``; None takes all.

        Raises:
            ModelError: more than there are, or, of a rolling session, ones that it no longer holds.
            DeviceError: not enough memory.
        """
        position = self.position if position is None else position
        if not 0 <= position <= self.position:
            raise ModelError(f"{self._where}: can't fork at {position}, the session stands at {self.position}")
        pointer = ctypes.c_void_p()
        self._raise(self._library.nis_session_fork(self.handle(), position, ctypes.byref(pointer)))
        return self._model.adopt(pointer)

    def save(self) -> bytes:
        """All that the session holds, for ``Model.restore``; 8 * layers * kv_heads * head_dim bytes a position in F32.

        Raises:
            ModelError: in use by another thread.
        """
        size = self._library.nis_session_saved_bytes(self.handle())
        saved = bytearray(size)
        where = (ctypes.c_char * size).from_buffer(saved) if size else None
        self._raise(self._library.nis_session_save(self.handle(), where, size) if size else library.BUSY)
        return bytes(saved)

    def cancel(self) -> None:
        """From any thread: let the pass under way, or the next one, end early with a ModelError."""
        self._library.nis_session_cancel(self.handle())

    def close(self) -> None:
        """Free the memory. May be called again."""
        self._model.release(self._pointer)

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            self.close()

    def handle(self) -> ctypes.c_void_p:
        """The engine's handle.

        Raises:
            ModelError: the session is closed.
        """
        if not self._pointer:
            raise ModelError(f"{self._where}: the session is closed")
        return self._pointer

    def checked(self, tokens: Tokens) -> npt.NDArray[np.int32]:
        """Tokens as the engine wants them, once they are what they must be."""
        try:
            ids = np.asarray(tokens)
        except ValueError:  # rows of different lengths
            ids = np.empty((0, 0))
        if ids.ndim != 1 or ids.size < 1 or ids.dtype.kind not in "iu":
            raise ModelError(f"{self._where}: tokens must be a sequence of one or more integers")
        bad = np.flatnonzero((ids < 0) | (ids >= self._vocab))
        if bad.size:
            raise ModelError(
                f"{self._where}: token {ids[bad[0]]} at index {bad[0]} is outside the vocabulary of {self._vocab}"
            )
        return np.ascontiguousarray(ids, dtype=np.int32)

    def _forward(self, ids: npt.NDArray[np.int32], wanted: int, logits: Float32Array | None) -> None:
        status = self._library.nis_session_forward(
            self.handle(), ids.ctypes.data, ids.size, wanted, None if logits is None else logits.ctypes.data
        )
        if status == library.FULL:
            raise self._full(ids.size)
        self._raise(status)

    def _full(self, more: int) -> ModelError:
        return ModelError(
            f"{self._where}: {more} more tokens do not fit, the session stands at {self.position} of"
            f" {self.max_positions} positions"
        )

    def _raise(self, status: int) -> None:
        if status != library.OK:
            raise library.error_of(status, self._where)
