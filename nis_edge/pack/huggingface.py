"""Read a ternary checkpoint in Hugging Face layout, so that ``writer`` can make a package of it.

The graph comes from config.json, the numbers from safetensors files (one or sharded). What transformers' code does with
a checkpoint decides what it means (integrations/bitnet.py and models/bitnet/modeling_bitnet.py, read at 5.23.0):

| linear_class  | quantization_mode | stored weight       | real weight                                     |
|---------------|-------------------|---------------------|-------------------------------------------------|
| bitlinear     | any               | uint8, four rows    | code / weight_scale                             |
| autobitlinear | offline           | uint8, or -1, 0, 1  | code * weight_scale                             |
| autobitlinear | online            | real numbers        | absmean: round(w / mean(abs(w))) * mean(abs(w)) |
| (not said)    |                   | real numbers        | the user says: absmean, or -s, 0, s already     |

Two graphs are read: BitNetForCausalLM (squared ReLU or SiLU, with sub-norms), and LlamaForCausalLM with ternary
matrices (SiLU, no sub-norms, no biases), as 1.58-bit fine-tunes of Llama-like models are published.

Packed uint8 [out/4, in]: with R = out/4, byte row r holds the output rows r, r+R, r+2R and r+3R at bits 0-1, 2-3, 4-5
and 6-7, each as code + 1. Anything this reader is not sure about it refuses, naming what decides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import container, layout
from nis_edge.pack.checkpoint import Checkpoint, Storage, chat_template, finite, short
from nis_edge.pack.layout import Architecture, Generation, Manifest, ModelIdentity, Quantisation, TokenizerInfo
from nis_edge.pack.shards import Shards
from nis_edge.pack.ternary import Int8Array, TernaryMatrix, ternary_of_real
from nis_edge.pack.writer import Made, Source

ACCEPTED: Final = (
    "a folder in Hugging Face layout with config.json (BitNetForCausalLM or LlamaForCausalLM) and safetensors files:"
    " real master weights, ternary ones, or packed uint8 bitlinear or autobitlinear"
)

LAYER_NAMES: Final[Mapping[str, str]] = {
    "attn_norm": "input_layernorm.weight",
    "attn_sub_norm": "self_attn.attn_sub_norm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "ffn_sub_norm": "mlp.ffn_sub_norm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
"""A layer's tensor in a package -> in the checkpoint, below ``model.layers.N.``."""

CODES_PER_BYTE: Final = 4
"""integrations/bitnet.py, VALUES_PER_ITEM."""

DEFAULT_ROPE_THETA: Final = 500_000.0
"""models/bitnet/configuration_bitnet.py, default_theta."""

_IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def read_checkpoint(
    folder: str | os.PathLike[str],
    *,
    model_id: str | None = None,
    version: str = "1",
    licence: str = "",
    storage: Storage | None = None,
    without_tokenizer: bool = False,
) -> Checkpoint:
    """Read what a checkpoint folder holds; the weights are converted only when they are written.

    Args:
        folder: with config.json and model.safetensors (or its shards and index), and tokenizer.json if there is one.
        model_id: name of the model in the package; the folder's name if None.
        version: of the model in the package.
        licence: SPDX expression.
        storage: how the matrices are stored, where config.json does not say; it must not contradict config.json.
        without_tokenizer: leave tokenizer.json out; the package takes token ids only.

    Raises:
        PackFormatError: with the path, what is wrong and what to do.
    """
    root = Path(folder)
    config = _json_file(root / "config.json")
    where = str(root / "config.json")
    files: list[container.MappedFile] = []
    try:
        files.extend(map(container.MappedFile, _shard_paths(root)))
        shards = Shards(str(root), files)
        architecture = _architecture(config, where)
        decided = _storage(config, storage, shards, where)
        tokenizer = None if without_tokenizer else _tokenizer_bytes(root)
        specials = _specials(config, architecture.vocab) if tokenizer is not None else {}
        manifest = Manifest(
            model=ModelIdentity(model_id or root.resolve().name, version),
            architecture=architecture,
            quantisation=Quantisation(
                embed=_float_type(shards, "model.embed_tokens.weight"),
                head=None if architecture.tied_head else _float_type(shards, "lm_head.weight"),
            ),
            tokenizer=TokenizerInfo() if tokenizer is None else _tokenizer_info(root, specials),
            licence=licence,
            lineage={"source": "huggingface", "weights": decided, "files_sha256": shards.sha256()},
            generation=_generation(root, config, architecture.vocab),
        )
        layout.check_manifest(manifest, where)
        tensors = _sources(manifest, shards, decided)
        if tokenizer is not None:
            tensors["tokenizer"] = tokenizer
    except BaseException:
        for file in files:
            file.close()
        raise
    return Checkpoint(manifest, tensors, decided, tuple(files))


def unpack_rows(packed: npt.NDArray[np.uint8]) -> Int8Array:
    """Codes of transformers' packed weights.

    Args:
        packed: uint8 [out / 4, in].

    Returns:
        int8 [out, in] in {-1, 0, 1}; a stored 3 comes back as 2.
    """
    quarters = [(packed >> (2 * position) & 3).astype(np.int8) - np.int8(1) for position in range(CODES_PER_BYTE)]
    return np.concatenate(quarters)


def _shard_paths(root: Path) -> list[Path]:
    """The safetensors files of a folder: the single one, or those that the index names."""
    single, index = root / "model.safetensors", root / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        other = next((p.name for p in sorted(root.glob("*.bin")) + sorted(root.glob("*.pt"))), None)
        hint = f" ({other} is no safetensors file; save the checkpoint with safe_serialization)" if other else ""
        raise PackFormatError(f"{root}: has neither model.safetensors nor its index{hint}; accepted is {ACCEPTED}")
    weight_map = _json_file(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise PackFormatError(f"{index}: has no weight_map; the checkpoint is incomplete")
    names = sorted({str(name) for name in weight_map.values()})
    if len(names) > limits.CHECKPOINT_SHARDS_MAX:
        raise PackFormatError(f"{index}: names {len(names)} files, above the bound of {limits.CHECKPOINT_SHARDS_MAX}")
    for name in names:
        # An index must not lead out of its folder.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", name):
            raise PackFormatError(f"{index}: names the file {name!a}, which is no plain safetensors file name")
    return [root / name for name in names]


def _json_file(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size."""
    try:
        if path.exists() and not path.is_file():
            raise PackFormatError(f"{path}: is no regular file; accepted is {ACCEPTED}")
        if path.stat().st_size > limits.CHECKPOINT_JSON_BYTES_MAX:
            raise PackFormatError(f"{path}: is larger than {limits.CHECKPOINT_JSON_BYTES_MAX} bytes")
        return container.parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise PackFormatError(f"{path}: can't be read ({error.strerror}); accepted is {ACCEPTED}") from error


_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bitnet": {"hidden_act": "relu2", "rope_theta": DEFAULT_ROPE_THETA},
    "llama": {"hidden_act": "silu", "rope_theta": 10_000.0},
}
"""model_type -> what transformers takes for a missing field (configuration_bitnet.py, configuration_llama.py)."""

_CLASSES: Final = {"bitnet": "BitNetForCausalLM", "llama": "LlamaForCausalLM"}


def _architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """The graph as config.json tells it; what the package can't express is refused."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or config.get("architectures", [_CLASSES.get(kind)]) != [_CLASSES.get(kind, "")]:
        raise PackFormatError(
            f"{where}: describes {short(config.get('architectures'))} of type {short(kind)}; accepted is {ACCEPTED}"
        )
    for bias in ("attention_bias", "mlp_bias"):
        if config.get(bias):
            raise PackFormatError(f"{where}: {bias} is set; packages have no biases in their layers")
    activation = config.get("hidden_act", _DEFAULTS[kind]["hidden_act"])
    if activation not in ("relu2", "silu"):
        raise PackFormatError(f"{where}: hidden_act is {short(activation)}; relu2 or silu is expected")
    if not isinstance(config.get("tie_word_embeddings"), bool):
        raise PackFormatError(
            f"{where}: lacks tie_word_embeddings; say there true (the output head is the embedding) or false"
        )
    read = partial(_number, config, where)
    heads = int(read("num_attention_heads"))
    hidden = int(read("hidden_size"))
    head_dim = int(read("head_dim")) if config.get("head_dim") is not None else hidden // max(heads, 1)
    if kind == "bitnet" and head_dim * heads != hidden:
        raise PackFormatError(
            f"{where}: {heads} heads of {head_dim} do not make hidden_size {hidden}; the graph can't be run"
        )
    return Architecture(
        kind="bitnet",
        hidden=hidden,
        ffn=int(read("intermediate_size")),
        layers=int(read("num_hidden_layers")),
        heads=heads,
        kv_heads=int(read("num_key_value_heads")) if config.get("num_key_value_heads") is not None else heads,
        head_dim=head_dim,
        vocab=int(read("vocab_size")),
        context=int(read("max_position_embeddings")),
        rope_theta=_rope_theta(config, where, _DEFAULTS[kind]["rope_theta"]),
        norm_eps=float(read("rms_norm_eps")),
        activation=cast(Literal["relu2", "silu"], activation),
        sub_norms=kind == "bitnet",
        tied_head=config["tie_word_embeddings"],
    )


def _number(config: Mapping[str, Any], where: str, name: str) -> float:
    value = config.get(name)
    # 2**53: above it a float no longer holds every integer.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        raise PackFormatError(f"{where}: {name} is {short(value)}; a number above 0 is expected")
    if name != "rms_norm_eps" and name != "rope_theta" and not isinstance(value, int):
        raise PackFormatError(f"{where}: {name} is {short(value)}; an integer is expected")
    return value


def _rope_theta(config: Mapping[str, Any], where: str, default: float) -> float:
    """The base of the rotary positions, from either generation of config.json; scaled variants are refused."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, dict):
        raise PackFormatError(f"{where}: rope_parameters is no object")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default" or set(parameters) - {"rope_type", "type", "rope_theta"}:
        raise PackFormatError(
            f"{where}: rotary positions of type {short(kind)} with scaling are not part of the package format"
        )
    theta = parameters.get("rope_theta", config.get("rope_theta", default))
    return float(_number({"rope_theta": theta}, where, "rope_theta"))


def _storage(config: Mapping[str, Any], given: Storage | None, shards: Shards, where: str) -> Storage:
    """How the matrices are stored: what config.json says, else what the caller says; never a guess."""
    quantisation = config.get("quantization_config")
    said: Storage | None = None
    if quantisation is not None:
        if not isinstance(quantisation, dict) or quantisation.get("quant_method") != "bitnet":
            raise PackFormatError(f"{where}: quantization_config is not of the method bitnet; accepted is {ACCEPTED}")
        if quantisation.get("use_rms_norm"):
            raise PackFormatError(
                f"{where}: use_rms_norm adds a norm before each matrix, which the package format lacks"
            )
        if quantisation.get("modules_to_not_convert") not in (None, [], ["lm_head"]):
            named = short(quantisation["modules_to_not_convert"])
            raise PackFormatError(f"{where}: modules_to_not_convert is {named}; only lm_head may stay real")
        match quantisation.get("linear_class"), quantisation.get("quantization_mode"):
            case "bitlinear", _:
                said = "bitlinear"
            case "autobitlinear", "offline":
                said = "autobitlinear"
            case "autobitlinear", "online":
                said = "master"
    if said is not None and given is not None and said != given:
        raise PackFormatError(
            f"{where}: says the weights are {said}, not {given}; leave --weights away or mend config.json"
        )
    decided = said or given
    if decided is None:
        stored = shards.entry("model.layers.0.self_attn.q_proj.weight").dtype
        choice = (
            "real numbers, which transformers would run unquantised: --weights ternary if they are -s, 0 and s already,"
            " --weights master to make them ternary by absmean (right only for a model trained so)"
            if stored != "U8"
            else "packed: --weights bitlinear if weight_scale divides, --weights autobitlinear if it multiplies"
        )
        raise PackFormatError(f"{where}: does not say how the matrices are stored (linear_class); they are {choice}")
    return decided


def _sources(manifest: Manifest, shards: Shards, storage: Storage) -> dict[str, Source]:
    """A source for each tensor of the package but the tokenizer; every tensor of the checkpoint is accounted for."""
    used: set[str] = set()
    sources: dict[str, Source] = {}
    for spec in layout.tensor_table(manifest):
        if spec.name == "tokenizer" or spec.name.endswith(".scale"):
            continue
        name = _checkpoint_name(spec.name)
        used.add(name)
        if spec.matrix is not None:
            sources[spec.name] = partial(_matrix, shards, name, spec.matrix, storage)
            used.add(f"{name}_scale")
        elif spec.name in ("embed", "head"):
            sources[spec.name] = partial(_rows, shards, name, cast("tuple[int, int]", spec.shape))
        else:
            sources[spec.name] = np.array(shards.read_float32(name, spec.shape))
    if storage in ("master", "ternary"):
        used = {name for name in used if not name.endswith("_scale")}
    if manifest.architecture.tied_head and "lm_head.weight" in shards.names():
        _check_tied(shards, (manifest.architecture.vocab, manifest.architecture.hidden))
        used.add("lm_head.weight")
    unknown = sorted(name for name in shards.names() - used if not _IGNORED.fullmatch(name))
    if unknown:
        raise PackFormatError(
            f"{shards.where(unknown[0])} and {len(unknown) - 1} more are no part of the graph of config.json"
        )
    return sources


def _checkpoint_name(name: str) -> str:
    """A package's tensor name -> the checkpoint's."""
    fixed = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
    if name in fixed:
        return fixed[name]
    _, index, part = name.split(".")
    return f"model.layers.{index}.{LAYER_NAMES[part]}"


def _rows(shards: Shards, name: str, shape: tuple[int, int]) -> Iterator[npt.NDArray[Any]]:
    """A large real matrix as it is stored, in chunks of rows."""
    values = shards.read(name, shape)
    step = max(1, limits.PACK_CHUNK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, shape[0], step):
        yield values[start : start + step]
    shards.release(name)


def _matrix(shards: Shards, name: str, shape: tuple[int, int], storage: Storage) -> Made:
    """A ternary matrix from any of the storages."""
    rows, columns = shape
    dtype = shards.entry(name).dtype
    if storage == "master":
        if dtype == "U8":
            raise PackFormatError(f"{shards.where(name)} is packed, but the checkpoint is said to hold real weights")
        matrix = TernaryMatrix.from_weights(finite(shards.read_float32(name, shape), shards.where(name)))
    elif storage == "ternary":
        if dtype == "U8":
            raise PackFormatError(f"{shards.where(name)} is packed, but the checkpoint is said to hold real weights")
        found = ternary_of_real(finite(shards.read_float32(name, shape), shards.where(name)))
        if found is None:
            raise PackFormatError(f"{shards.where(name)} holds values other than -s, 0 and s; see --weights master")
        matrix = TernaryMatrix.from_codes(*found)
    else:
        scale = _scale(shards, f"{name}_scale", divides=storage == "bitlinear")
        if dtype == "U8":
            if rows % CODES_PER_BYTE:
                raise PackFormatError(
                    f"{shards.where(name)}: {rows} rows can't be packed by four; config.json is wrong"
                )
            codes = unpack_rows(shards.read(name, (rows // CODES_PER_BYTE, columns)))
        elif storage == "bitlinear":
            raise PackFormatError(f"{shards.where(name)} is {dtype}, but bitlinear stores packed U8")
        else:
            codes = _ternary_values(shards.read_float32(name, shape), shards.where(name))
        if codes.max() > 1:
            raise PackFormatError(f"{shards.where(name)} holds the code 3, which stands for no weight; it is damaged")
        matrix = TernaryMatrix.from_codes(codes, scale)
    shards.release(name)
    return matrix


def _scale(shards: Shards, name: str, divides: bool) -> float:
    """The real weight of code 1, in float32."""
    entry = shards.entry(name)
    if entry.shape not in ((), (1,)):
        raise PackFormatError(
            f"{shards.where(name)} has the shape {list(entry.shape)}; one scale per matrix is expected"
        )
    stored = shards.read_float32(name, entry.shape).reshape(-1)[0]
    if not (np.isfinite(stored) and stored > 0):
        raise PackFormatError(f"{shards.where(name)} is {stored}; a scale above zero is expected")
    return float(np.float32(1) / stored if divides else stored)


def _ternary_values(values: npt.NDArray[np.float32], where: str) -> Int8Array:
    """Codes that are stored as the real numbers -1, 0 and 1."""
    codes = np.clip(np.nan_to_num(values), -1, 1).astype(np.int8)
    if not np.array_equal(codes, values):
        raise PackFormatError(f"{where} holds values other than -1, 0 and 1; --weights master is for real weights")
    return codes


def _check_tied(shards: Shards, shape: tuple[int, int]) -> None:
    """A stored output head beside tie_word_embeddings must be the embedding, or the checkpoint contradicts itself."""
    pairs = zip(_rows(shards, "lm_head.weight", shape), _rows(shards, "model.embed_tokens.weight", shape), strict=True)
    if not all(head.dtype == embed.dtype and np.array_equal(head, embed) for head, embed in pairs):
        raise PackFormatError(
            f"{shards.where('lm_head.weight')} differs from the embedding, but tie_word_embeddings is true;"
            " set it to false in config.json if the stored head is meant"
        )


def _float_type(shards: Shards, name: str) -> layout.FloatType:
    dtype = shards.entry(name).dtype
    if dtype not in ("F32", "F16", "BF16"):
        raise PackFormatError(f"{shards.where(name)} is {dtype}; F32, F16 or BF16 is expected")
    return cast(layout.FloatType, dtype)


def _tokenizer_bytes(root: Path) -> npt.NDArray[np.uint8] | None:
    """The bytes of tokenizer.json, if there is one."""
    path = root / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > limits.PACK_TOKENIZER_BYTES_MAX:
            raise PackFormatError(f"{path}: is larger than {limits.PACK_TOKENIZER_BYTES_MAX} bytes")
        return np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise PackFormatError(f"{path}: can't be read ({error.strerror})") from error


def _optional_json(path: Path) -> dict[str, Any]:
    return _json_file(path) if path.is_file() else {}


def _tokenizer_info(root: Path, specials: dict[str, int]) -> TokenizerInfo:
    """What goes with the tokenizer: special tokens, and the chat template from either generation of files."""
    path = root / "chat_template.jinja"
    text: Any = None
    if path.is_file():
        if path.stat().st_size > 4 * limits.CHAT_TEMPLATE_CHARS_MAX:
            raise PackFormatError(f"{path}: is longer than {limits.CHAT_TEMPLATE_CHARS_MAX} characters")
        text = path.read_bytes().decode("utf-8", "replace")
    else:
        path = root / "tokenizer_config.json"
        text = _optional_json(path).get("chat_template")
        if isinstance(text, list):
            named = {entry.get("name"): entry.get("template") for entry in text if isinstance(entry, dict)}
            text = named.get("default")
    template = chat_template(text, str(path))
    return TokenizerInfo("tokenizers-json", specials, msgspec.UNSET if template is None else template)


def _generation(root: Path, config: Mapping[str, Any], vocab: int) -> Generation | msgspec.UnsetType:
    """Tokens that end a text, from generation_config.json or config.json, and the recommended sampling."""
    path = root / "generation_config.json"
    said = _optional_json(path)
    ends = said.get("eos_token_id", config.get("eos_token_id"))
    listed = ends if isinstance(ends, list) else [ends]
    stop = sorted({token for token in listed if type(token) is int and 0 <= token < vocab})
    known: dict[str, Any] = {}
    for name in ("temperature", "top_k", "top_p", "repetition_penalty"):
        value = said.get(name)
        if type(value) is int or (type(value) is float and name != "top_k"):
            known[name] = value if name == "top_k" else float(value)
    # What a file says of a vocabulary it does not have (the defaults of a config class) means nothing.
    return Generation(tuple(stop), **known) if stop or known else msgspec.UNSET


def _specials(config: Mapping[str, Any], vocab: int) -> dict[str, int]:
    """bos, eos and pad as config.json names them; ids outside the vocabulary are its defaults and mean nothing."""
    specials = {}
    for name in ("bos", "eos", "pad"):
        value = config.get(f"{name}_token_id")
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, int) and not isinstance(first, bool) and 0 <= first < vocab:
            specials[name] = first
    return specials
