"""Read a ternary model from a GGUF file, so that ``writer`` can make a package of it.

What llama.cpp's and bitnet.cpp's loaders do with a file decides what it means (llama.cpp src/llama-model.cpp and its
convert_hf_to_gguf.py; bitnet.cpp's fork, release of October 2024 and later, and its utils/convert-*.py):

| architecture            | activation                     | sub-norms | rows of q and k                              |
|-------------------------|--------------------------------|-----------|----------------------------------------------|
| bitnet                  | the file does not say          | yes       | as in the checkpoint                         |
| bitnet-b1.58, bitnet-25 | squared ReLU                   | yes       | as in the checkpoint                         |
| llama                   | SiLU                           | no        | pairs interleaved by the converter: undone   |

`bitnet` is what converters write for models of both activations, and the runtimes compute SiLU for all of them: the
user says which one the model was trained with. The same holds for the order of I2_S codes, which ``i2s_order`` tests
against the model's own statistics before it asks. An output head of its own counts where there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import container, ggml_blocks, gguf_tokenizer, layout
from nis_edge.pack.checkpoint import Checkpoint, Choices, chat_template, finite, short
from nis_edge.pack.ggml_blocks import I2sOrder
from nis_edge.pack.gguf import Gguf, GgufTensor, read_gguf
from nis_edge.pack.i2s_order import tested_order
from nis_edge.pack.layout import Architecture, Generation, Manifest, ModelIdentity, Quantisation, TokenizerInfo
from nis_edge.pack.ternary import Float32Array, Int8Array, TernaryMatrix, quantise_absmean, ternary_of_real
from nis_edge.pack.writer import Made, Source

ACTIVATIONS: Final[Mapping[str, str | None]] = {
    "bitnet": None,
    "bitnet-b1.58": "relu2",
    "bitnet-25": "relu2",
    "llama": "silu",
}
"""Architecture -> activation, None where the user decides."""

ACCEPTED: Final = (
    "a GGUF file of the architecture bitnet, bitnet-b1.58, bitnet-25 or llama whose matrices are I2_S, TQ1_0, TQ2_0,"
    " or F16, BF16 or F32 that hold -s, 0 and s"
)

PART_NAMES: Final[Mapping[str, str]] = {
    "attn_norm": "attn_norm",
    "attn_sub_norm": "attn_sub_norm",
    "ffn_norm": "ffn_norm",
    "ffn_sub_norm": "ffn_sub_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""A layer's tensor in a package -> in the file, below ``blk.N.``."""

DEFAULT_ROPE_THETA: Final = 10_000.0
"""llama.cpp's, where the key rope.freq_base is missing."""


@dataclass(frozen=True)
class _Graph:
    """What the metadata says of the model."""

    name: str
    architecture: Architecture
    interleaved: bool


def read_gguf_checkpoint(
    path: str | os.PathLike[str],
    *,
    model_id: str | None = None,
    version: str = "1",
    licence: str = "",
    choices: Choices | None = None,
) -> Checkpoint:
    """Read what a GGUF file holds; the weights are converted only when they are written.

    Args:
        path: the file.
        model_id: name of the model in the package; the file's own name for it, or its file name, if None.
        version: of the model in the package.
        licence: SPDX expression; the file's own if empty.
        choices: what the user decides.

    Raises:
        PackFormatError: with the path, what is wrong and what to do.
    """
    choices = choices or Choices()
    file = container.MappedFile(path)
    try:
        gguf = read_gguf(file)
        graph = _graph(gguf, choices)
        # Before anything walks through as many layers as the file claims.
        layout.check_manifest(_bare_manifest(graph.architecture), str(file.path))
        tokenizer = (
            None
            if choices.without_tokenizer
            else gguf_tokenizer.tokenizer_json(gguf, graph.architecture.vocab, choices.pre)
        )
        notes: list[str] = []
        order = _i2s_order(gguf, graph, choices, notes)
        tensors = _sources(gguf, graph, choices, order)
        storage = "+".join(sorted({gguf.tensors[name].kind.name for name in _matrix_names(graph)}))
        vocab = graph.architecture.vocab
        info = TokenizerInfo()
        if tokenizer is not None:
            template = chat_template(gguf.text("tokenizer.chat_template"), str(file.path))
            specials = gguf_tokenizer.specials(gguf, vocab)
            info = TokenizerInfo("tokenizers-json", specials, msgspec.UNSET if template is None else template)
        manifest = Manifest(
            model=ModelIdentity(model_id or _own_name(gguf), version),
            architecture=graph.architecture,
            quantisation=Quantisation(
                embed=_float_type(gguf.tensors["token_embd.weight"]),
                head=None if graph.architecture.tied_head else _float_type(gguf.tensors["output.weight"]),
            ),
            tokenizer=info,
            licence=licence or _text(gguf.metadata.get("general.license")),
            lineage={
                "source": "gguf",
                "architecture": graph.name,
                "weights": storage,
                "files_sha256": {file.path.name: _sha256(file)},
            },
            generation=_generation(gguf, vocab),
        )
        layout.check_manifest(manifest, str(file.path))
        if tokenizer is not None:
            tensors["tokenizer"] = np.frombuffer(tokenizer, dtype=np.uint8)
    except BaseException:
        file.close()
        raise
    return Checkpoint(manifest, tensors, storage, (file,), tuple(notes))


# --- the graph --------------------------------------------------------------------------------------------------------


def _graph(gguf: Gguf, choices: Choices) -> _Graph:
    name = gguf.text("general.architecture")
    where = str(gguf.file.path)
    if name is None or name not in ACTIVATIONS:
        raise PackFormatError(f"{where}: the architecture is {short(name)}; accepted is {ACCEPTED}")
    if _optional(gguf, "split.count", 1) > 1:
        raise PackFormatError(f"{where}: is one part of several; join them with llama-gguf-split --merge first")
    _refuse_unknown_graph(gguf, name)
    known = ACTIVATIONS[name]
    if known is not None and choices.activation not in (None, known):
        raise PackFormatError(f"{where}: {name} means the activation {known}; leave --activation away")
    activation = known or choices.activation
    if activation is None:
        raise PackFormatError(
            f"{where}: the architecture {name} does not say the activation, and converters write it for models of both:"
            " say --activation relu2 (as microsoft/bitnet-b1.58-2B-4T) or --activation silu (as 1bitLLM/bitnet_b1_58-*)"
        )
    number = partial(_number, gguf, name)
    hidden, heads = int(number("embedding_length")), int(number("attention.head_count"))
    head_dim = int(number("attention.key_length", hidden // max(heads, 1)))
    for key in ("attention.value_length", "rope.dimension_count"):
        if int(number(key, head_dim)) != head_dim:
            raise PackFormatError(f"{where}: {name}.{key} is not the head dimension {head_dim}, which packages demand")
    embed = _tensor(gguf, "token_embd.weight")
    return _Graph(
        name,
        Architecture(
            kind="bitnet",
            hidden=hidden,
            ffn=int(number("feed_forward_length")),
            layers=int(number("block_count")),
            heads=heads,
            kv_heads=int(number("attention.head_count_kv", heads)),
            head_dim=head_dim,
            vocab=embed.shape[0],
            context=int(number("context_length")),
            rope_theta=float(number("rope.freq_base", DEFAULT_ROPE_THETA)),
            norm_eps=float(np.float32(number("attention.layer_norm_rms_epsilon"))),
            activation=cast(Literal["relu2", "silu"], activation),
            sub_norms=name != "llama",
            tied_head=_tied(gguf),
        ),
        interleaved=name == "llama",
    )


def _refuse_unknown_graph(gguf: Gguf, name: str) -> None:
    """Keys that change the graph into one that packages can't express."""
    where = str(gguf.file.path)
    scaling = gguf.text(f"{name}.rope.scaling.type") or "none"
    factor = _optional(gguf, f"{name}.rope.scaling.factor", 1.0)
    old_factor = _optional(gguf, f"{name}.rope.scale_linear", 1.0)
    if scaling != "none" or factor not in (0.0, 1.0) or old_factor != 1.0:
        raise PackFormatError(f"{where}: rotary positions are scaled ({short(scaling)}); packages have no such graph")
    if _optional(gguf, f"{name}.expert_count", 0) > 0:
        raise PackFormatError(f"{where}: is a mixture of experts; packages have no such graph")
    if _optional(gguf, f"{name}.attention.sliding_window", 0) > 0:
        raise PackFormatError(f"{where}: attends within a sliding window; packages have no such graph")
    factors = gguf.tensors.get("rope_freqs.weight")
    if factors is not None and not (_real(gguf, factors) == 1).all():
        raise PackFormatError(f"{where}: rope_freqs.weight scales the rotary positions; packages have no such graph")


def _number(gguf: Gguf, architecture: str, key: str, default: float | None = None) -> float:
    value = gguf.metadata.get(f"{architecture}.{key}", default)
    wants_float = key in ("rope.freq_base", "attention.layer_norm_rms_epsilon")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        shown = "a list" if isinstance(value, np.ndarray | list) else short(value)
        raise PackFormatError(f"{gguf.file.path}: {architecture}.{key} is {shown}; one number above 0 is expected")
    if not wants_float and not isinstance(value, int):
        raise PackFormatError(f"{gguf.file.path}: {architecture}.{key} is {value!r:.40}; an integer is expected")
    return value


def _optional(gguf: Gguf, key: str, default: float) -> float:
    value = gguf.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PackFormatError(f"{gguf.where(key)} is no number; the file is damaged")
    return value


def _tensor(gguf: Gguf, name: str) -> GgufTensor:
    tensor = gguf.tensors.get(name)
    if tensor is None:
        raise PackFormatError(f"{gguf.file.path}: lacks tensor {name}; the file is incomplete or of another graph")
    return tensor


def _tied(gguf: Gguf) -> bool:
    """No head of its own, or one that is the embedding byte for byte."""
    head, embed = gguf.tensors.get("output.weight"), _tensor(gguf, "token_embd.weight")
    if head is None:
        return True
    if (head.kind, head.shape) != (embed.kind, embed.shape):
        return False
    ours, theirs = gguf.raw(head), gguf.raw(embed)
    step = limits.PACK_CHUNK_BYTES
    return all(np.array_equal(ours[at : at + step], theirs[at : at + step]) for at in range(0, ours.size, step))


# --- tensors ----------------------------------------------------------------------------------------------------------


def _file_name(name: str) -> str:
    """A package's tensor name -> the file's."""
    fixed = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
    if name in fixed:
        return fixed[name]
    _, index, part = name.split(".")
    return f"blk.{index}.{PART_NAMES[part]}.weight"


def _matrix_names(graph: _Graph) -> Iterator[str]:
    for index in range(graph.architecture.layers):
        for part in layout.MATRICES:
            yield f"blk.{index}.{PART_NAMES[part]}.weight"


def _bare_manifest(architecture: Architecture) -> Manifest:
    """A manifest that says no more than the graph."""
    head: layout.FloatType | None = None if architecture.tied_head else "F32"
    return Manifest(ModelIdentity("unnamed", "1"), architecture, Quantisation(head=head))


def _sources(gguf: Gguf, graph: _Graph, choices: Choices, order: I2sOrder | None) -> dict[str, Source]:
    """A source for each tensor of the package but the tokenizer; every tensor of the file is accounted for."""
    architecture = graph.architecture
    manifest = _bare_manifest(architecture)
    used = {"output.weight", "rope_freqs.weight"}
    sources: dict[str, Source] = {}
    for spec in layout.tensor_table(manifest):
        if spec.name.endswith(".scale"):
            continue
        name = _file_name(spec.name)
        tensor = _tensor(gguf, name)
        used.add(name)
        shape = spec.matrix or spec.shape
        if tensor.shape != shape:
            raise PackFormatError(
                f"{gguf.where(name)} has the shape {list(tensor.shape)}, the metadata demands {list(shape)}"
            )
        if spec.matrix is not None:
            heads = {"q": architecture.heads, "k": architecture.kv_heads}.get(spec.name.rpartition(".")[2], 0)
            permuted = heads if graph.interleaved else 0
            _check_matrix_type(gguf, tensor, choices, order)
            extra = f"{name.removesuffix('.weight')}.scale"
            used.add(extra)
            sources[spec.name] = partial(_matrix, gguf, tensor, choices, order, permuted, extra)
        elif spec.name in ("embed", "head"):
            sources[spec.name] = partial(_rows, gguf, tensor)
        else:
            sources[spec.name] = np.array(finite(_real(gguf, tensor), gguf.where(name))).reshape(shape)
    unknown = sorted(set(gguf.tensors) - used)
    if unknown:
        raise PackFormatError(
            f"{gguf.where(unknown[0])} and {len(unknown) - 1} more are no part of the {graph.name} graph that packages"
            " have (no biases, no experts)"
        )
    return sources


def _check_matrix_type(gguf: Gguf, tensor: GgufTensor, choices: Choices, order: I2sOrder | None) -> None:
    """Refuse before anything is written what no choice can make a ternary matrix."""
    name = tensor.kind.name
    if name in ("Q8_0", "Q4_K", "Q6_K"):
        raise PackFormatError(f"{gguf.where(tensor.name)} is {name}, which is not ternary; accepted is {ACCEPTED}")
    if choices.storage not in (None, "master", "ternary"):
        raise PackFormatError(f"{gguf.file.path}: --weights {choices.storage} is for Hugging Face folders")
    if name == "I2_S":
        assert order is not None
        rows, columns = tensor.shape
        row_block, column_block = ggml_blocks.i2s_block(order)
        if rows % row_block or columns % column_block:
            raise PackFormatError(
                f"{gguf.where(tensor.name)} is {rows} x {columns}; I2_S in the order {order} needs multiples of"
                f" {row_block} x {column_block}"
            )


def _matrix(
    gguf: Gguf, tensor: GgufTensor, choices: Choices, order: I2sOrder | None, interleaved_heads: int, extra: str
) -> Made:
    """A ternary matrix from any of the types."""
    codes, scale = _codes(gguf, tensor, choices, order)
    if codes.max() > 1:
        raise PackFormatError(f"{gguf.where(tensor.name)} holds the code 3, which stands for no weight; it is damaged")
    scale *= _extra_scale(gguf, extra)
    if interleaved_heads:
        codes = separate_pairs(codes, interleaved_heads)
    if not (np.isfinite(scale) and 0 < np.float32(scale) < np.inf):
        raise PackFormatError(f"{gguf.where(tensor.name)} has the scale {scale}; one above zero is expected")
    gguf.release(tensor)
    return TernaryMatrix.from_codes(codes, float(np.float32(scale)))


def _codes(gguf: Gguf, tensor: GgufTensor, choices: Choices, order: I2sOrder | None) -> tuple[Int8Array, float]:
    """Codes [rows, columns] and the real weight of code 1."""
    where = gguf.where(tensor.name)
    shape = cast("tuple[int, int]", tensor.shape)
    raw = gguf.raw(tensor)
    if tensor.kind.name == "I2_S":
        assert order is not None
        scale = ggml_blocks.i2s_scale(raw)
        if not (np.isfinite(scale) and scale > 0):
            raise PackFormatError(f"{where} has the scale {scale}; a number above zero is expected")
        return ggml_blocks.i2s_matrix(raw, shape, order), 1 / scale if choices.scale == "divide" else scale
    if tensor.kind.name in ggml_blocks.TERNARY_BLOCKS:
        return _one_scale(*ggml_blocks.ternary_blocks(tensor.kind.name, raw), shape, where)
    values = finite(ggml_blocks.real_rows(tensor.kind.name, raw).reshape(shape), where)
    found = None if choices.storage == "master" else ternary_of_real(values)
    if found is not None:
        return found
    if choices.storage == "master":
        return quantise_absmean(values)
    raise PackFormatError(
        f"{where} holds real numbers other than -s, 0 and s; --weights master makes them ternary by absmean, which is"
        " right only for the master weights of a model trained as ternary"
    )


def _one_scale(codes: Int8Array, scales: Float32Array, shape: tuple[int, int], where: str) -> tuple[Int8Array, float]:
    """Blocks become a matrix if their scales are one: blocks without a weight may have any."""
    if not np.isfinite(scales).all():
        raise PackFormatError(f"{where} has a block whose scale is NaN or infinite; the file is damaged")
    codes[scales == 0] = 0
    filled = codes.any(axis=1)
    used = np.unique(scales[filled])
    if used.size > 1:
        raise PackFormatError(
            f"{where} has {used.size} different block scales, from {used.min():.6g} to {used.max():.6g}; packages have"
            " one scale per matrix: convert the model's own ternary weights, not a quantised copy of real ones"
        )
    if used.size and used[0] < 0:
        raise PackFormatError(f"{where} has the scale {used[0]}; one above zero is expected")
    return codes.reshape(shape), float(used[0]) if used.size else 1.0


def _extra_scale(gguf: Gguf, name: str) -> float:
    """Older files keep a matrix's scale in a tensor of its own, which multiplies; 1 without it."""
    tensor = gguf.tensors.get(name)
    if tensor is None:
        return 1.0
    values = _real(gguf, tensor)
    if values.size != 1 or not (np.isfinite(values[0]) and values[0] > 0):
        raise PackFormatError(f"{gguf.where(name)}: one scale above zero is expected")
    return float(values[0])


def separate_pairs(codes: Int8Array, heads: int) -> Int8Array:
    """Undo what llama converters do to q and k: rows 2i and 2i+1 of a head become rows i and i + half of it."""
    rows, columns = codes.shape
    return np.ascontiguousarray(codes.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2)).reshape(
        rows, columns
    )


def _rows(gguf: Gguf, tensor: GgufTensor) -> Iterator[npt.NDArray[Any]]:
    """A large real matrix in chunks of rows: as it is stored, or as float32 where it is quantised."""
    raw = gguf.raw(tensor)
    rows, columns = tensor.shape
    row_bytes = raw.size // rows
    step = max(1, limits.PACK_CHUNK_BYTES // row_bytes)
    stored = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(tensor.kind.name)
    for start in range(0, rows, step):
        part = raw[start * row_bytes : (start + step) * row_bytes]
        values = part.view(stored) if stored else ggml_blocks.real_rows(tensor.kind.name, part)
        yield values.reshape(-1, columns)
    gguf.release(tensor)


def _real(gguf: Gguf, tensor: GgufTensor) -> Float32Array:
    """A small tensor's real numbers, float32 [weights]."""
    name = tensor.kind.name
    if name not in ("F32", "F16", "BF16"):
        raise PackFormatError(f"{gguf.where(tensor.name)} is {name}; F32, F16 or BF16 is expected")
    return ggml_blocks.real_rows(name, gguf.raw(tensor))


def _float_type(tensor: GgufTensor) -> layout.FloatType:
    """How the package stores an embedding or output head."""
    name = tensor.kind.name
    if name in ("I2_S", *ggml_blocks.TERNARY_BLOCKS):
        raise PackFormatError(
            f"tensor {tensor.name} is {name}; an embedding or output head is F32, F16, BF16, Q8_0, Q6_K or Q4_K"
        )
    return cast(layout.FloatType, name) if name in ("F32", "F16", "BF16") else "F32"


def _i2s_order(gguf: Gguf, graph: _Graph, choices: Choices, notes: list[str]) -> I2sOrder | None:
    """The order of the I2_S codes: the user's, else the one that the model's own statistics show; never a guess."""
    matrices = [tensor for name in _matrix_names(graph) if (tensor := gguf.tensors.get(name)) is not None]
    packed = [tensor for tensor in matrices if tensor.kind.name == "I2_S"]
    if not packed:
        for flag, given in (("--i2s-order", choices.i2s_order), ("--scale", choices.scale)):
            if given is not None:
                raise PackFormatError(f"{gguf.file.path}: {flag} is for I2_S tensors, and the file has none")
        return None
    if choices.i2s_order is not None:
        return choices.i2s_order
    order, evidence = tested_order(_ChannelReader(gguf, graph))
    if order is None:
        raise PackFormatError(
            f"{gguf.file.path}: the order of the I2_S codes is not written in the file, and its weights do not show it"
            f" ({evidence}); say --i2s-order x86 if a PC or the Python converter made it, --i2s-order arm if an ARM"
            " machine did, or --i2s-order x86-rows if a PC's build without ACT_PARALLEL did"
        )
    notes.append(f"the I2_S codes stand in the order {order}: {evidence}")
    return order


class _ChannelReader:
    """What ``i2s_order`` looks at: codes of matrices in a supposed order, and real values per channel."""

    def __init__(self, gguf: Gguf, graph: _Graph) -> None:
        self.gguf = gguf
        self.layers = graph.architecture.layers

    def codes(self, layer: int, part: str, order: I2sOrder) -> Int8Array | None:
        """Codes [rows, columns], or None if the tensor is not I2_S or its shape does not allow the order."""
        tensor = self.gguf.tensors.get(f"blk.{layer}.{PART_NAMES[part]}.weight")
        if tensor is None or tensor.kind.name != "I2_S" or len(tensor.shape) != 2:
            return None
        row_block, column_block = ggml_blocks.i2s_block(order)
        rows, columns = tensor.shape
        if rows % row_block or columns % column_block:
            return None
        return ggml_blocks.i2s_matrix(self.gguf.raw(tensor), (rows, columns), order)

    def norm(self, layer: int, part: str) -> Float32Array | None:
        """A norm's weights."""
        tensor = self.gguf.tensors.get(f"blk.{layer}.{PART_NAMES[part]}.weight")
        if tensor is None or tensor.kind.name not in ("F32", "F16", "BF16"):
            return None
        return _real(self.gguf, tensor)

    def embedding(self, rows: int) -> Float32Array | None:
        """The first rows of the embedding, [rows, hidden]."""
        tensor = self.gguf.tensors.get("token_embd.weight")
        if tensor is None or len(tensor.shape) != 2 or tensor.kind.name in ("I2_S", *ggml_blocks.TERNARY_BLOCKS):
            return None
        raw = self.gguf.raw(tensor)
        count = min(rows, tensor.shape[0])
        values = ggml_blocks.real_rows(tensor.kind.name, raw[: raw.size // tensor.shape[0] * count])
        return values.reshape(count, -1)


# --- words ------------------------------------------------------------------------------------------------------------


def _generation(gguf: Gguf, vocab: int) -> Generation | msgspec.UnsetType:
    """Tokens that end a text, and the recommended sampling."""
    keys: Callable[[str], Any] = gguf.metadata.get
    stop = sorted(
        {
            token
            for name in ("eos", "eot", "eom")
            if isinstance(token := keys(f"tokenizer.ggml.{name}_token_id"), int) and 0 <= token < vocab
        }
    )
    known: dict[str, Any] = {}
    for name, key in _SAMPLING.items():
        value = keys(f"general.sampling.{key}")
        if type(value) is int or (type(value) is float and name != "top_k"):
            known[name] = value if name == "top_k" else float(value)
    return Generation(tuple(stop), **known) if stop or known else msgspec.UNSET


_SAMPLING: Final = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "repetition_penalty": "penalty_repeat"}
"""Field of the package -> key below general.sampling."""


def _own_name(gguf: Gguf) -> str:
    """The name in the file as far as a package may carry it; else the file's."""
    name = _text(gguf.metadata.get("general.name")) or Path(gguf.file.path).stem
    return re.sub(r"[^\x20-\x7e]", "_", name)[: limits.NAME_CHARS_MAX] or "unnamed"


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= limits.NAME_CHARS_MAX else ""


def _sha256(file: container.MappedFile) -> str:
    import hashlib

    digest = hashlib.sha256()
    for start in range(0, file.size, limits.PACK_CHUNK_BYTES):
        stop = min(start + limits.PACK_CHUNK_BYTES, file.size)
        digest.update(file.bytes_at(start, stop).data)
        file.release(start, stop)
    return digest.hexdigest()
