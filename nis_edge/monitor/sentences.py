"""What whole sentences mean: an encoder that a package brings, in the place of the table of words (``meaning``).

A small transformer in ONNX: word pieces of a text in, one unit vector out. It tells apart what a table of words can't,
negation and order among them, and costs some milliseconds for each new text: so vectors of the newest texts are kept.
ONNX Runtime is an extra of the installation and is loaded only where a package brings an encoder.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgspec
import numpy as np

from nis_edge import limits
from nis_edge.engine.tokenizer import Tokenizer
from nis_edge.errors import ModelError
from nis_edge.monitor.meaning import CACHED_TEXTS, WIDTH_MAX, Array, clipped

MARKS: Final = ("[CLS]", "[SEP]")
"""Pieces before and after a text."""

TAIL_SHARE: Final = 4
"""Of a text with too many pieces one in so many is kept from its end, the others from its start."""

UNIT: Final = 1e-2
"""How far the length of a vector may be from one."""

ERRORS_ONLY: Final = 3
"""ONNX Runtime's severity: its warnings about graph optimisation are nothing an operator can act on."""


class EncoderBytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An encoder of sentences as it lies in a package.

    Args:
        graph: ONNX, weights included; inputs ``ids`` and ``mask``, int64 [texts, pieces]; the output is of unit
            vectors, float32 [texts, width].
        tokenizer: its word pieces, as the ``tokenizers`` library writes them: nothing cut, padded or added.
        width: of a vector.
        pieces: of the longest text it takes, the marks around it included.
        licence: of the weights, an SPDX expression.
        origin: what was made into it, and how.
    """

    graph: bytes
    tokenizer: bytes
    width: int
    pieces: int
    licence: str
    origin: str


class Pieces:
    """Word pieces of texts, both ends of long ones, with the marks around them.

    Args:
        tokenizer: as ``EncoderBytes`` holds it.
        most: pieces of the longest text, marks included.

    Raises:
        ModelError: the tokenizer is none or has no marks (the builder of the package acts).
    """

    def __init__(self, tokenizer: bytes, most: int) -> None:
        self._tokenizer = Tokenizer.from_bytes(tokenizer)
        self._marks = [self._tokenizer.find_special(name) for name in MARKS]
        _demand(None not in self._marks and not self._tokenizer.encode(""), "its tokenizer lacks marks, or pads")
        self._room = most - len(MARKS)

    def of(self, text: str) -> Array | None:
        """Ids of a text's pieces: int64 [pieces]; None when it has none."""
        pieces = self._tokenizer.encode(clipped(text))
        if not pieces:
            return None
        if len(pieces) > self._room:
            tail = self._room // TAIL_SHARE
            pieces = [*pieces[: self._room - tail], *pieces[len(pieces) - tail :]]
        return np.array([self._marks[0], *pieces, self._marks[1]], dtype=np.int64)


class Sentences:
    """Vectors of sentences, with the face of ``meaning.Meanings``. For one thread at a time.

    Args:
        packed: the encoder.

    Raises:
        ModelError: it is damaged (the builder of the package acts), or ONNX Runtime is not installed (the operator
            acts). Nothing was put in service.
    """

    def __init__(self, packed: EncoderBytes) -> None:
        _demand(1 <= len(packed.graph) <= limits.PACK_ENCODER_GRAPH_BYTES_MAX, "its graph is out of bounds")
        _demand(1 <= len(packed.tokenizer) <= limits.PACK_ENCODER_TOKENIZER_BYTES_MAX, "its tokenizer is out of bounds")
        _demand(1 <= packed.width <= WIDTH_MAX, "its width is out of bounds")
        _demand(len(MARKS) < packed.pieces <= limits.PACK_ENCODER_PIECES_MAX, "its longest text is out of bounds")
        # The key under which ONNX names a file of weights beside the graph: a package may not reach for files.
        _demand(b"location" not in packed.graph, "its graph points at files")
        self._width = packed.width
        self._pieces = Pieces(packed.tokenizer, packed.pieces)
        self._session = _session(packed.graph)
        self._known: OrderedDict[str, Array | None] = OrderedDict()
        self._compute("one try, so that a graph of another make shows now")

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self._width

    def vector(self, text: str) -> Array | None:
        """Unit vector of a text: float32 [width]; None when it says nothing.

        Raises:
            ModelError: the encoder failed at this text; the next one may be asked for all the same.
        """
        text = clipped(text)
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        vector = self._known[text] = self._compute(text)
        if len(self._known) > CACHED_TEXTS:
            self._known.popitem(last=False)
        return vector

    def _compute(self, text: str) -> Array | None:
        pieces = self._pieces.of(text)
        if pieces is None:
            return None
        ids = pieces[None]
        try:
            vector: Array = np.asarray(self._session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0])
        except Exception as error:  # ONNX Runtime raises its own kinds, all below Exception
            raise ModelError(f"the package's encoder failed: {_reason(error)}; fetch the package again") from None
        _demand(vector.shape == (1, self._width) and vector.dtype == np.float32, "its vectors have another shape")
        _demand(abs(float((vector * vector).sum()) - 1.0) <= UNIT, "its vectors are not of length one")
        unit: Array = vector[0]
        return unit


def _session(graph: bytes) -> Any:
    """ONNX Runtime's session: one thread, the processor, no memory held in reserve."""
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            "the package brings an encoder of sentences and ONNX Runtime is not installed;"
            " pip install 'nis-edge[onnx]' brings it, or take a package without an encoder"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # as above
        raise ModelError(f"the package's encoder can't be run: {_reason(error)}; fetch the package again") from None
    # It keeps the bytes it was made of, only to start again on another device: as much memory as the graph itself.
    vars(session).pop("_model_bytes", None)
    return session


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _demand(holds: bool, fault: str) -> None:
    if not holds:
        raise ModelError(f"the package's encoder is damaged: {fault}; fetch the package again")
