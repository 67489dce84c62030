"""A model over a mapped package: the weights stay in the file's pages, shared by every process that maps it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from nis_edge.engine import library
from nis_edge.engine.session import Float32Array, Session, Tokens
from nis_edge.engine.tokenizer import Tokenizer
from nis_edge.errors import ModelError
from nis_edge.pack.layout import MATRICES, Manifest
from nis_edge.pack.reader import Package, open_package

if TYPE_CHECKING:
    from nis_edge.engine.constraint import Vocabulary

THREADS_MAX: Final = 256
"""NIS_THREADS_MAX of nis_edge/native/model.h."""

BATCH_MAX: Final = 256
"""NIS_BATCH_MAX of nis_edge/native/model.h."""

_NORMS: Final = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")


class Model:
    """An open model. Made by ``Model.open``; a context manager.

    Several threads may use sessions of one model; their passes run one after another.
    """

    def __init__(self, package: Package, *, threads: int = 1, isa: str | None = None) -> None:
        """Build the engine's model over an open package, which it takes over and closes.

        Args:
            package: an open package.
            threads: 1 to 256, the caller's included.
            isa: name of an instruction set; None takes the best this CPU offers.

        Raises:
            ModelError: the architecture is beyond what the engine runs; the builder of the model acts.
            KernelUnavailableError: the instruction set is not offered here.
            DeviceError: not enough memory or threads, or the engine is not installed rightly.
        """
        if not 1 <= threads <= THREADS_MAX:
            raise ModelError(f"{package.path}: {threads} threads, must be 1 to {THREADS_MAX}")
        self._package = package
        self._library = library.load()
        self._pointer: ctypes.c_void_p | None = None
        # The engine's sessions by address; a handle that was freed is NULL.
        self._open: dict[int | None, ctypes.c_void_p] = {}
        self._tokenizer: Tokenizer | None = None
        self._vocabulary: Vocabulary | None = None
        self._tensors: Mapping[str, npt.NDArray[Any]] = package.tensors  # keeps the map alive
        self._task_heads = sorted(package.manifest.architecture.task_heads)
        self.threads = threads
        self._pointer = self._create(threads, isa)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, threads: int = 1, isa: str | None = None) -> Model:
        """Open a package and make it ready to run; nothing is copied.

        Args:
            path: of the `.nis` file.
            threads: 1 to 256, the caller's included.
            isa: name of an instruction set; None takes the best this CPU offers.

        Raises:
            PackFormatError: the file is no package or is damaged; the builder of the model acts.
            ModelError, KernelUnavailableError, DeviceError: as the constructor.
        """
        package = open_package(path)
        try:
            return cls(package, threads=threads, isa=isa)
        except BaseException:
            package.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the package says about itself."""
        return self._package.manifest

    @property
    def package(self) -> Package:
        """The package the weights are read from."""
        return self._package

    @property
    def isa(self) -> str:
        """Name of the instruction set in use."""
        name: bytes = self._library.nis_model_isa(self.pointer)
        return name.decode()

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The package's tokenizer, made when first asked for; None if it has none.

        Raises:
            ModelError: its bytes are no tokenizer; the builder of the model acts.
        """
        if self._tokenizer is None and self.manifest.tokenizer.kind == "tokenizers-json":
            raw = self._tensors["tokenizer"].tobytes()
            self._tokenizer = Tokenizer.from_bytes(raw, self.manifest.tokenizer.specials)
        return self._tokenizer

    @property
    def tables(self) -> bytes | None:
        """The package's tables for judging evidence, or None if it has none."""
        return self._package.tables

    @property
    def vocabulary(self) -> Vocabulary:
        """The bytes of every token, made when first asked for: what constraints are made of.

        Raises:
            ModelError: no tokenizer, or one whose tokens' bytes are not known; the builder of the model acts.
        """
        if self._vocabulary is None:
            # Here, because only constrained answers need them: a daemon that judges does not.
            from nis_edge.engine.byte_vocabulary import token_bytes
            from nis_edge.engine.constraint import Vocabulary

            if self.tokenizer is None:
                raise ModelError(f"{self._package.path}: has no tokenizer, so its answers can't be constrained")
            self._vocabulary = Vocabulary(token_bytes(self.tokenizer.json(), self.manifest.architecture.vocab))
        return self._vocabulary

    @property
    def pointer(self) -> ctypes.c_void_p:
        """The engine's handle.

        Raises:
            ModelError: the model is closed.
        """
        if self._pointer is None:
            raise ModelError(f"{self._package.path}: the model is closed")
        return self._pointer

    def session(
        self, max_positions: int | None = None, *, kv: str = "F32", window: int | None = None, sinks: int = 4
    ) -> Session:
        """Start a conversation with the model.

        Args:
            max_positions: 1 to the manifest's context, which is also the default. Memory is taken as they fill.
            kv: how keys and values are kept: "F32", "F16" in half the memory, or "I8" in about a quarter. Logits differ
                between the three, but each is the same bits on every CPU.
            window: keep only the last positions, this many, and the first ``sinks``: a conversation without an end.
                Together they are at most the context; ``max_positions`` is then left out.
            sinks: first positions that a rolling window keeps.

        Raises:
            ModelError: positions, window or dtype out of range.
            DeviceError: not enough memory.
        """
        context = self.manifest.architecture.context
        if kv not in library.KV_DTYPES:
            raise ModelError(f"{self._package.path}: keys and values are kept as F32, F16 or I8, not {kv!r}")
        pointer = ctypes.c_void_p()
        if window is not None:
            if max_positions is not None:
                raise ModelError(f"{self._package.path}: a rolling window has no max_positions; give one of the two")
            if not (window >= 1 and sinks >= 0 and sinks + window <= context):
                raise ModelError(
                    f"{self._package.path}: {sinks} sinks and a window of {window} positions, the model allows"
                    f" {context} together"
                )
            what = f"a rolling session of {sinks} and {window} positions"
            status = self._library.nis_session_create_rolling(
                self.pointer, sinks, window, library.KV_DTYPES[kv], ctypes.byref(pointer)
            )
        else:
            positions = context if max_positions is None else max_positions
            if not 1 <= positions <= context:
                raise ModelError(
                    f"{self._package.path}: a session of {positions} positions, the model allows 1 to {context}"
                )
            what = f"a session of {positions} positions"
            status = self._library.nis_session_create(
                self.pointer, positions, library.KV_DTYPES[kv], ctypes.byref(pointer)
            )
        if status != library.OK:
            raise library.error_of(status, f"{self._package.path}: {what}")
        return self.adopt(pointer)

    def restore(self, saved: bytes) -> Session:
        """Go on with a session that ``Session.save`` wrote, on this machine or another: with the same bits.

        Args:
            saved: its bytes. They are checked against accidents and other models; bytes that a stranger may have
                written must be signed by whoever hands them over.

        Raises:
            ModelError: damaged, or of another model or version; no session was made.
            DeviceError: not enough memory.
        """
        pointer = ctypes.c_void_p()
        status = self._library.nis_session_restore(self.pointer, bytes(saved), len(saved), ctypes.byref(pointer))
        if status != library.OK:
            raise library.error_of(status, f"{self._package.path}: a saved session of {len(saved)} bytes")
        return self.adopt(pointer)

    def adopt(self, pointer: ctypes.c_void_p) -> Session:
        """Wrap an engine's session of this model, which is closed with the model."""
        outputs = [len(self.manifest.architecture.task_heads[name].outputs) for name in self._task_heads]
        self._open[pointer.value] = pointer
        return Session(self, pointer, dict(zip(self._task_heads, enumerate(outputs), strict=True)))

    def release(self, pointer: ctypes.c_void_p) -> None:
        """Free an engine's session of this model, once."""
        address, pointer.value = pointer.value, None
        if address is not None:
            self._open.pop(address, None)
            self._library.nis_session_free(address)

    def forward_batch(self, batch: Sequence[tuple[Session, Tokens]]) -> list[Float32Array]:
        """Let several sessions read tokens in one pass over the weights, which is where most of the time goes.

        Args:
            batch: 1 to 256 sessions of this model, each once, with the tokens it shall read.

        Returns:
            For each the float32 [vocab] that ``Session.forward`` would have returned, bit for bit.

        Raises:
            ModelError: as ``Session.forward``, naming the item; then no session has moved.
        """
        if not 1 <= len(batch) <= BATCH_MAX:
            raise ModelError(f"{self._package.path}: a batch of {len(batch)} sessions, must be 1 to {BATCH_MAX}")
        ids = [session.checked(tokens) for session, tokens in batch]
        logits = [np.empty(self.manifest.architecture.vocab, dtype=np.float32) for _ in batch]
        items = (library.BatchItem * len(batch))()
        for item, (session, _), read, made in zip(items, batch, ids, logits, strict=True):
            item.session, item.tokens, item.count = session.handle(), read.ctypes.data, read.size
            item.wanted, item.logits = library.LAST_LOGITS, made.ctypes.data
        failed = ctypes.c_size_t()
        status = self._library.nis_batch_forward(items, len(batch), ctypes.byref(failed))
        if status != library.OK:
            raise library.error_of(status, f"{self._package.path}: session {failed.value} of {len(batch)} in a batch")
        return logits

    def head_statistics(self) -> dict[str, int]:
        """How the output head was read by ``Session.best``, ``greedy`` and, as far as it screened, ``choose``.

        Returns:
            ``evaluations``; and of the vocabulary's rows ``rows`` in all, ``rows_screened`` that a few bits ruled on,
            ``rows_refined`` that took further bits, ``rows_computed`` in full precision.
        """
        stats = library.HeadStats()
        self._library.nis_model_head_stats(self.pointer, ctypes.byref(stats))
        return {name: int(getattr(stats, name)) for name in library.HEAD_STATS}

    def screen_from(self, head_bytes: int) -> None:
        """Screen output heads of at least so many bytes; the engine starts with 8 MiB. No result depends on it.

        A screen that the package brings is mapped, one that the engine has to make takes 6 bits an element of the head.

        Args:
            head_bytes: 0 or more; 0 screens every head.
        """
        self._library.nis_model_screen_from(self.pointer, head_bytes)

    def close(self) -> None:
        """Close the sessions, free the engine's memory and let go of the file. May be called again."""
        if self._pointer is not None:
            status = self._free()
            if status != library.OK:
                raise library.error_of(status, f"{self._package.path}: can't be closed")
            self._pointer = None
            self._tensors = {}
            self._package.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Its sessions may be garbage of the same cycle, finalised before or after it, and at the interpreter's end a
        # module may be gone: only the engine's memory is freed here, and nothing raised. The map ends with its views.
        if getattr(self, "_pointer", None) is not None:
            self._free()
            self._pointer = None

    def _free(self) -> int:
        """Free the engine's sessions and model; its status."""
        for pointer in tuple(self._open.values()):
            self.release(pointer)
        status: int = self._library.nis_model_free(self._pointer)
        return status

    def _create(self, threads: int, isa: str | None) -> ctypes.c_void_p:
        weights = self._weights()
        pointer = ctypes.c_void_p()
        message = ctypes.create_string_buffer(library.MESSAGE_BYTES)
        status = self._library.nis_model_create(
            ctypes.byref(weights),
            isa.encode() if isa else None,
            threads,
            ctypes.byref(pointer),
            message,
            len(message),
        )
        if status != library.OK:
            raise library.error_of(status, str(self._package.path), message.value.decode(errors="replace"))
        return pointer

    def _weights(self) -> library.Weights:
        """The engine's description of the package; the engine copies it, but not the tensors."""
        manifest = self.manifest
        shape = manifest.architecture
        sizes = ("hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocab", "context")
        weights = library.Weights(
            architecture=library.Architecture(
                **{name: getattr(shape, name) for name in sizes},
                activation=library.ACTIVATIONS[shape.activation],
                sub_norms=int(shape.sub_norms),
                norm_eps=shape.norm_eps,
                rope_theta=shape.rope_theta,
            ),
            embed=self._tensor("embed"),
            embed_dtype=library.DTYPES[manifest.quantisation.embed],
            norm=self._tensor("norm"),
            layers=self._layers("trunk", shape.layers),
            task_heads=self._heads(),
            task_head_count=len(self._task_heads),
        )
        if not shape.tied_head:
            weights.head = self._tensor("head")
            weights.head_dtype = library.DTYPES[manifest.quantisation.head or ""]
        if manifest.screen is not msgspec.UNSET:
            fields = (*library.SCREEN_PLANES, *library.SCREEN_BOUNDS)
            weights.screen = library.HeadScreen(*(self._tensor(f"screen.{field}") for field in fields))
        return weights

    def _heads(self) -> ctypes.Array[library.TaskHead]:
        heads = (library.TaskHead * max(1, len(self._task_heads)))()
        for head, name in zip(heads, self._task_heads, strict=False):
            described = self.manifest.architecture.task_heads[name]
            head.layers = self._layers(f"heads.{name}", described.layers)
            head.layer_count = described.layers
            head.outputs = len(described.outputs)
            head.norm = self._tensor(f"heads.{name}.norm")
            head.projection = self._tensor(f"heads.{name}.projection")
            head.bias = self._tensor(f"heads.{name}.bias")
        return heads

    def _layers(self, stack: str, count: int) -> ctypes.Array[library.Layer]:
        layers = (library.Layer * max(1, count))()
        for index, layer in enumerate(layers[:count]):
            for name in _NORMS:
                if f"{stack}.{index}.{name}" in self._tensors:
                    setattr(layer, name, self._tensor(f"{stack}.{index}.{name}"))
            for name in MATRICES:
                scale = float(self._tensors[f"{stack}.{index}.{name}.scale"][0])
                setattr(layer, name, library.Ternary(self._tensor(f"{stack}.{index}.{name}"), scale))
        return layers

    def _tensor(self, name: str) -> library.Tensor:
        array = self._tensors[name]
        assert array.flags.c_contiguous
        return library.Tensor(array.ctypes.data, array.nbytes)
