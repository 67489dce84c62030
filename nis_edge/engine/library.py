"""The C engine as Python sees it: the library, its structs and prototypes, and its statuses as our errors.

Nothing here decides anything: nis_edge/native/nis_engine.h is the definition, ``ABI`` is compared with the library's so
that a stale build is refused instead of read wrongly. ``ctypes.CDLL`` lets go of the GIL during every call.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Final

from nis_edge.errors import DeviceError, KernelUnavailableError, ModelError, NisEdgeError

ABI: Final = 6
"""NIS_ABI of the header this file was written for."""

PATH: Final = Path(__file__).parent.parent / "native" / "libnis_engine.so"

MESSAGE_BYTES: Final = 256
"""Room for the one line that nis_model_create writes on a refusal."""

DTYPES: Final = {"F32": 0, "F16": 1, "BF16": 2}
"""nis_dtype of weights."""

KV_DTYPES: Final = {"F32": 0, "F16": 1, "I8": 3}
"""nis_dtype of keys and values."""

ACTIVATIONS: Final = {"relu2": 0, "silu": 1}
"""nis_activation."""

NO_LOGITS: Final = 0
LAST_LOGITS: Final = 1
ALL_LOGITS: Final = 2

OK: Final = 0
ARGUMENT: Final = 1
SHAPE: Final = 2
NO_MEMORY: Final = 3
NO_KERNEL: Final = 4
TOKEN: Final = 5
FULL: Final = 6
NOT_FINITE: Final = 7
BUSY: Final = 8
NO_THREAD: Final = 12
GONE: Final = 13
FORMAT: Final = 14


class Architecture(ctypes.Structure):
    """nis_architecture."""

    _fields_ = (
        *(
            (name, c_uint32)
            for name in ("hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocab", "context")
        ),
        ("activation", c_uint32),
        ("sub_norms", c_uint32),
        ("norm_eps", c_float),
        ("rope_theta", c_double),
    )


class Tensor(ctypes.Structure):
    """nis_tensor: memory that the caller keeps."""

    _fields_ = (("data", c_void_p), ("bytes", c_uint64))


class Ternary(ctypes.Structure):
    """nis_ternary."""

    _fields_ = (("codes", Tensor), ("scale", c_float))


class Layer(ctypes.Structure):
    """nis_layer."""

    _fields_ = (
        *((name, Tensor) for name in ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")),
        *((name, Ternary) for name in ("q", "k", "v", "o", "gate", "up", "down")),
    )


class TaskHead(ctypes.Structure):
    """nis_task_head."""

    _fields_ = (
        ("layers", POINTER(Layer)),
        ("layer_count", c_uint32),
        ("outputs", c_uint32),
        ("norm", Tensor),
        ("projection", Tensor),
        ("bias", Tensor),
    )


SCREEN_PLANES: Final = ("nibbles", "ones", "halves")
SCREEN_BOUNDS: Final = ("scales", "norms", "errors")
"""Fields of nis_head_screen."""


class HeadScreen(ctypes.Structure):
    """nis_head_screen."""

    _fields_ = tuple((name, Tensor) for name in (*SCREEN_PLANES, *SCREEN_BOUNDS))


class ScreenPlaces(ctypes.Structure):
    """nis_screen_places."""

    _fields_ = (
        *((name, c_void_p) for name in (*SCREEN_PLANES, "scales", "norms")),
        ("errors", c_void_p * 3),
    )


class Weights(ctypes.Structure):
    """nis_weights."""

    _fields_ = (
        ("architecture", Architecture),
        ("embed", Tensor),
        ("head", Tensor),
        ("screen", HeadScreen),
        ("embed_dtype", c_uint32),
        ("head_dtype", c_uint32),
        ("norm", Tensor),
        ("layers", POINTER(Layer)),
        ("task_heads", POINTER(TaskHead)),
        ("task_head_count", c_uint32),
    )


class BatchItem(ctypes.Structure):
    """nis_batch_item."""

    _fields_ = (
        ("session", c_void_p),
        ("tokens", c_void_p),
        ("count", c_size_t),
        ("wanted", c_uint32),
        ("logits", c_void_p),
    )


HEAD_STATS: Final = ("evaluations", "rows", "rows_screened", "rows_refined", "rows_computed")
"""Fields of nis_head_stats."""


class HeadStats(ctypes.Structure):
    """nis_head_stats."""

    _fields_ = tuple((name, c_uint64) for name in HEAD_STATS)


class Sampling(ctypes.Structure):
    """nis_sampling."""

    _fields_ = (
        *((name, c_float) for name in ("temperature", "top_p", "min_p", "repetition_penalty")),
        ("top_k", c_uint32),
        ("seed", c_uint64),
    )


class Likely(ctypes.Structure):
    """nis_likely."""

    _fields_ = (("token", c_int32), ("log_probability", c_float))


_PROTOTYPES: Final = {
    "nis_status_text": (c_char_p, (c_int,)),
    "nis_isa_offered": (c_char_p, (c_uint32,)),
    "nis_model_create": (c_int, (POINTER(Weights), c_char_p, c_uint32, POINTER(c_void_p), c_char_p, c_size_t)),
    "nis_model_isa": (c_char_p, (c_void_p,)),
    "nis_model_free": (c_int, (c_void_p,)),
    "nis_session_create": (c_int, (c_void_p, c_uint32, c_int, POINTER(c_void_p))),
    "nis_session_create_rolling": (c_int, (c_void_p, c_uint32, c_uint32, c_int, POINTER(c_void_p))),
    "nis_session_fork": (c_int, (c_void_p, c_size_t, POINTER(c_void_p))),
    "nis_session_saved_bytes": (c_size_t, (c_void_p,)),
    "nis_session_save": (c_int, (c_void_p, c_void_p, c_size_t)),
    "nis_session_restore": (c_int, (c_void_p, c_char_p, c_size_t, POINTER(c_void_p))),
    "nis_session_free": (None, (c_void_p,)),
    "nis_batch_forward": (c_int, (POINTER(BatchItem), c_size_t, POINTER(c_size_t))),
    "nis_session_forward": (c_int, (c_void_p, c_void_p, c_size_t, c_int, c_void_p)),
    "nis_model_head_stats": (c_int, (c_void_p, POINTER(HeadStats))),
    "nis_model_screen_from": (c_int, (c_void_p, c_uint64)),
    "nis_screen_pays": (c_uint32, (c_uint32, c_uint32, c_uint32)),
    "nis_screen_make": (
        c_int,
        (c_char_p, c_void_p, c_uint32, c_size_t, c_uint32, POINTER(ScreenPlaces), POINTER(c_size_t)),
    ),
    "nis_session_best": (c_int, (c_void_p, c_void_p, c_size_t, c_size_t, c_float, c_void_p, POINTER(c_size_t))),
    "nis_session_choose": (c_int, (c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_size_t, POINTER(c_int32))),
    "nis_session_greedy": (c_int, (c_void_p, c_int32, c_int32, c_size_t, c_void_p, POINTER(c_size_t))),
    "nis_session_head": (c_int, (c_void_p, c_uint32, c_void_p)),
    "nis_session_rewind": (c_int, (c_void_p, c_size_t)),
    "nis_session_position": (c_size_t, (c_void_p,)),
    "nis_session_max_positions": (c_size_t, (c_void_p,)),
    "nis_probe_layer_tokens": (c_uint64, (c_void_p,)),
    "nis_session_cancel": (None, (c_void_p,)),
    "nis_draw": (c_uint64, (c_uint64, c_uint64)),
    "nis_sampler_create": (c_int, (c_void_p, POINTER(Sampling), POINTER(c_void_p))),
    "nis_sampler_free": (None, (c_void_p,)),
    "nis_sampler_choose": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, POINTER(c_int32))),
    "nis_sampler_log_probabilities": (
        c_int,
        (c_void_p, c_void_p, c_int32, POINTER(c_float), POINTER(Likely), c_size_t),
    ),
    "nis_vocabulary_create": (c_int, (c_char_p, c_void_p, c_size_t, POINTER(c_void_p))),
    "nis_vocabulary_free": (None, (c_void_p,)),
    "nis_constraint_create": (c_int, (c_void_p, c_void_p, c_void_p, c_size_t, POINTER(c_void_p))),
    "nis_constraint_free": (None, (c_void_p,)),
    "nis_constraint_distance": (c_uint32, (c_void_p, c_uint32)),
    "nis_constraint_allowed": (c_void_p, (c_void_p, c_uint32, c_uint32, c_void_p)),
    "nis_constraint_next": (c_uint32, (c_void_p, c_uint32, c_int32)),
}


@functools.cache
def load() -> ctypes.CDLL:
    """Return the library, loaded once.

    Raises:
        DeviceError: it is missing, built for another machine, or older or newer than this code; who installs acts.
    """
    try:
        library = ctypes.CDLL(str(PATH))
    except OSError as error:
        raise DeviceError(
            f"the engine {PATH} can't be loaded ({error}); install the wheel of this platform, or build it with"
            " `pip install -e .` where gcc and libc6-dev are present; no model was touched"
        ) from error
    library.nis_abi.restype = c_uint32
    if library.nis_abi() != ABI:
        raise DeviceError(
            f"the engine {PATH} has interface {library.nis_abi()}, this program needs {ABI};"
            " rebuild it with `pip install -e .`; no model was touched"
        )
    for name, (restype, argtypes) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype = restype
        function.argtypes = argtypes
    return library


def offered_isas() -> list[str]:
    """Names of the instruction sets that this CPU offers, best first."""
    names: list[str] = []
    while (name := load().nis_isa_offered(len(names))) is not None:
        names.append(name.decode())
    return names


def error_of(status: int, where: str, detail: str = "") -> NisEdgeError:
    """Return the error that a status means.

    Args:
        status: not OK.
        where: the model or the session, for the message.
        detail: what the engine or the caller knows beyond the status.
    """
    text = detail or load().nis_status_text(status).decode()
    if status == NO_KERNEL:
        return KernelUnavailableError(f"{where}: {text}; this CPU offers {', '.join(offered_isas())}")
    if status in (NO_MEMORY, NO_THREAD):
        return DeviceError(f"{where}: {text}; nothing was changed: free memory, or take fewer positions or threads")
    return ModelError(f"{where}: {text}")
