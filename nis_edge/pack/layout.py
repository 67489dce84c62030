"""What a package says and holds: the manifest, and from it the one list of tensors, in file order.

Reader, writer, importers and tests all take the tensors' names, shapes, dtypes and order from ``tensor_table``; there
is no second definition. Text for people: models/FORMAT.md.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack.container import DTYPES, LENGTH_BYTES, METADATA_KEY, canonical_json
from nis_edge.pack.ternary import packed_shape

FORMAT_VERSION: Final = 1

ALIGNMENT: Final = 64
"""Bytes: a cache line, and the widest vector load. Every tensor starts at a multiple of it in the file."""

MANIFEST_KEY: Final = "nis"
"""Metadata key of the manifest."""

HASHES_KEY: Final = "nis.tensors"
"""Metadata key of the map tensor name -> SHA-256 of its bytes."""

HEADER_HASH_KEY: Final = "nis.header"
"""Metadata key of the SHA-256 of the header with this very value written as 64 zeros."""

PADDING_PREFIX: Final = "pad."
"""safetensors allows no holes, so padding is tensors of its own: U8, shorter than ALIGNMENT, all zero."""

MATRICES: Final = ("q", "k", "v", "o", "gate", "up", "down")
"""The seven ternary matrices of a layer, in the order of the forward pass."""

FIRST_LARGE: Final = "embed"
"""The first of the large tensors; all before it are F32, and small."""

SCREEN_BOUNDS: Final = ("screen.scales", "screen.norms", "screen.errors")
"""What a screen says of each row: F32, finite, not below zero."""

SCREEN_COLUMNS: Final = 256
"""Columns of a group in the planes of a screen (nis_edge/native/screen.h): a row is padded to a multiple of it."""

FloatType = Literal["F32", "F16", "BF16"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ModelIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model this is; the version is the publisher's."""

    id: str
    version: str


class TaskHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stack of layers of its own on top of the trunk, and a projection to named outputs."""

    layers: int
    outputs: tuple[str, ...]


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The graph and its sizes. Task heads share the trunk's layer shape."""

    kind: Literal["bitnet"]
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    rope_theta: float
    norm_eps: float
    activation: Literal["relu2", "silu"]
    sub_norms: bool
    tied_head: bool
    task_heads: dict[str, TaskHead] = {}


class Quantisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How numbers are stored: matrices of the layers always ternary with one scale, activations int8 by token."""

    scheme: Literal["b1.58"] = "b1.58"
    embed: FloatType = "F32"
    head: FloatType | None = None


class TokenizerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a tokenizer.json travels along, the ids of the tokens the program names, and the chat template.

    The template (Jinja) is carried as text; nothing here executes it. A field that is UNSET does not stand in the file.
    """

    kind: Literal["tokenizers-json", "none"] = "none"
    specials: dict[str, int] = {}
    chat_template: str | msgspec.UnsetType = msgspec.UNSET


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How whoever made the model wants text to be generated: tokens that end it, and sampling; null where unsaid."""

    stop: tuple[int, ...] = ()
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From raw outputs to probabilities, by output name; ``details`` says how it was made (free)."""

    thresholds: dict[str, float] = {}
    temperature: dict[str, float] = {}
    details: dict[str, Any] = {}


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hashes every right engine reproduces: SHA-256 of float32 little-endian bytes after ``tokens``.

    ``logits_sha256`` is of the last position's logits [vocab], ``heads_sha256`` of each task head's outputs.
    """

    tokens: tuple[int, ...]
    logits_sha256: str
    heads_sha256: dict[str, str] = {}


class TablesInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That tables travel along (``monitor.tables``), and for whom: the head's outputs are judged together with them."""

    kind: Literal["evidence"] = "evidence"


class ScreenInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That the output head's screen travels along: each row once more in 4, 1 and 1 bits, with bounds.

    The kind names the rule by which its bytes follow from the head's.
    """

    kind: Literal["planes-4-1-1"]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The typed content of the metadata key ``nis``."""

    model: ModelIdentity
    architecture: Architecture
    quantisation: Quantisation = Quantisation()
    tokenizer: TokenizerInfo = TokenizerInfo()
    tables: TablesInfo | None = None
    labels: tuple[str, ...] = ()
    calibration: Calibration | None = None
    golden: tuple[Golden, ...] = ()
    licence: str = ""
    lineage: dict[str, Any] = {}
    generation: Generation | msgspec.UnsetType = msgspec.UNSET
    screen: ScreenInfo | msgspec.UnsetType = msgspec.UNSET
    format: int = FORMAT_VERSION


class TensorSpec(msgspec.Struct, frozen=True):
    """One tensor a package must hold.

    ``shape`` is the stored shape. For a ternary matrix ``matrix`` is its (rows, columns) and the stored shape that of
    the packed bytes. The lengths of tokenizer and tables are known only with their bytes: their shape is (-1,).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    matrix: tuple[int, int] | None = None


def tensor_table(manifest: Manifest) -> list[TensorSpec]:
    """Every tensor of a package in file order, padding left out.

    The small ones come first (norms, scales, projections of the task heads), so that opening a package checks their
    values by touching a few pages; then the large ones in the order of the forward pass.

    Args:
        manifest: a manifest that passed ``check_manifest``.
    """
    architecture = manifest.architecture
    small: list[TensorSpec] = []
    large = [TensorSpec(FIRST_LARGE, manifest.quantisation.embed, (architecture.vocab, architecture.hidden))]
    stacks = [("trunk", architecture.layers)]
    stacks += [(f"heads.{name}", head.layers) for name, head in sorted(architecture.task_heads.items())]
    for stack, layers in stacks:
        for index in range(layers):
            for spec in _layer(f"{stack}.{index}", architecture):
                (large if spec.matrix else small).append(spec)
        if stack == "trunk":
            small.append(TensorSpec("norm", "F32", (architecture.hidden,)))
            large.extend(_screen_planes(manifest))
            if not architecture.tied_head:
                assert manifest.quantisation.head is not None
                large.append(TensorSpec("head", manifest.quantisation.head, (architecture.vocab, architecture.hidden)))
            continue
        outputs = len(architecture.task_heads[stack.removeprefix("heads.")].outputs)
        small.append(TensorSpec(f"{stack}.norm", "F32", (architecture.hidden,)))
        small.append(TensorSpec(f"{stack}.projection", "F32", (outputs, architecture.hidden)))
        small.append(TensorSpec(f"{stack}.bias", "F32", (outputs,)))
    small.extend(_screen_bounds(manifest))
    if manifest.tables is not None:
        large.append(TensorSpec("tables", "U8", (-1,)))
    if manifest.tokenizer.kind != "none":
        large.append(TensorSpec("tokenizer", "U8", (-1,)))
    return small + large


def head_name(manifest: Manifest) -> str:
    """The tensor whose rows are the output head's: the embedding, if they are tied."""
    return "embed" if manifest.architecture.tied_head else "head"


def _screen_bounds(manifest: Manifest) -> Iterator[TensorSpec]:
    """What a screen says of each row of the head; errors level by level."""
    if manifest.screen is not msgspec.UNSET:
        vocab = manifest.architecture.vocab
        yield TensorSpec("screen.scales", "F32", (vocab,))
        yield TensorSpec("screen.norms", "F32", (vocab,))
        yield TensorSpec("screen.errors", "F32", (3, vocab))


def _screen_planes(manifest: Manifest) -> Iterator[TensorSpec]:
    """The codes of a screen, in the planes that are read one after another."""
    if manifest.screen is not msgspec.UNSET:
        vocab, hidden = manifest.architecture.vocab, manifest.architecture.hidden
        columns = -(-hidden // SCREEN_COLUMNS) * SCREEN_COLUMNS
        yield TensorSpec("screen.nibbles", "U8", (vocab, columns // 2))
        yield TensorSpec("screen.ones", "U8", (vocab, columns // 8))
        yield TensorSpec("screen.halves", "U8", (vocab, columns // 8))


def _layer(prefix: str, architecture: Architecture) -> Iterator[TensorSpec]:
    """The tensors of one transformer layer."""
    hidden, ffn = architecture.hidden, architecture.ffn
    queries = architecture.heads * architecture.head_dim
    keys = architecture.kv_heads * architecture.head_dim
    yield TensorSpec(f"{prefix}.attn_norm", "F32", (hidden,))
    if architecture.sub_norms:
        yield TensorSpec(f"{prefix}.attn_sub_norm", "F32", (queries,))
    yield TensorSpec(f"{prefix}.ffn_norm", "F32", (hidden,))
    if architecture.sub_norms:
        yield TensorSpec(f"{prefix}.ffn_sub_norm", "F32", (ffn,))
    shapes = {
        "q": (queries, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, queries),
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
    }
    for name in MATRICES:
        yield TensorSpec(f"{prefix}.{name}.scale", "F32", (1,))
        yield TensorSpec(f"{prefix}.{name}", "U8", packed_shape(*shapes[name]), shapes[name])


def encode_manifest(manifest: Manifest) -> str:
    """The canonical JSON text of a manifest: equal manifests give equal text, whatever order they were built in."""
    # A round trip through the types, so that a float given as an integer is written as a float.
    try:
        typed = msgspec.convert(msgspec.to_builtins(manifest), Manifest, strict=True)
    except (msgspec.ValidationError, TypeError) as error:
        raise PackFormatError(f"the manifest does not fit its own types: {error}; nothing was written") from error
    fields = msgspec.to_builtins(typed)
    if typed.tables is None:
        # A package without tables reads as it did before there were any.
        del fields["tables"]
    return canonical_json(fields)


def decode_manifest(fields: dict[str, Any], where: str) -> Manifest:
    """A manifest from parsed JSON, checked.

    Args:
        fields: the parsed JSON object.
        where: what is being read, for the error message.

    Raises:
        PackFormatError: unknown or missing fields, wrong types, or values out of bounds.
    """
    version = fields.get("format")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise PackFormatError(
            f"{where}: format {ascii(version)[:20]}, this program reads format {FORMAT_VERSION};"
            " pack the model again or update nis-edge"
        )
    try:
        manifest = msgspec.convert(fields, Manifest, strict=True)
    except (msgspec.ValidationError, OverflowError) as error:
        raise PackFormatError(f"{where}: {error}; pack the model again") from error
    check_manifest(manifest, where)
    return manifest


def check_manifest(manifest: Manifest, where: str) -> None:
    """Check every value of a manifest against its bounds and the others.

    Args:
        manifest: what to check.
        where: what is being read or written, for the error message.

    Raises:
        PackFormatError: naming the field.
    """
    fault = next(_faults(manifest), None)
    if fault is not None:
        raise PackFormatError(f"{where}: {fault}; whoever packed the model acts")


def _faults(manifest: Manifest) -> Iterator[str]:
    architecture = manifest.architecture
    if manifest.format != FORMAT_VERSION:
        yield f"format is {manifest.format}, not {FORMAT_VERSION}"
    for field, text in (("model.id", manifest.model.id), ("model.version", manifest.model.version)):
        if not 1 <= len(text) <= limits.NAME_CHARS_MAX or not text.isprintable():
            yield f"{field} must be 1 to {limits.NAME_CHARS_MAX} printable characters"
    for field in ("hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab"):
        if not 1 <= getattr(architecture, field) <= limits.PACK_DIMENSION_MAX:
            yield f"architecture.{field} must be 1 to {limits.PACK_DIMENSION_MAX}"
    if architecture.heads * architecture.head_dim > limits.PACK_DIMENSION_MAX:
        yield f"architecture.heads times head_dim exceeds {limits.PACK_DIMENSION_MAX}"
    if architecture.heads % architecture.kv_heads:
        yield "architecture.heads must be a multiple of kv_heads"
    if architecture.head_dim % 2:
        yield "architecture.head_dim must be even, rotary positions turn pairs"
    if not 1 <= architecture.layers <= limits.PACK_LAYERS_MAX:
        yield f"architecture.layers must be 1 to {limits.PACK_LAYERS_MAX}"
    if not 1 <= architecture.context <= limits.PACK_CONTEXT_MAX:
        yield f"architecture.context must be 1 to {limits.PACK_CONTEXT_MAX}"
    for field in ("rope_theta", "norm_eps"):
        value = getattr(architecture, field)
        if not (math.isfinite(value) and 0 < value < 1e12):
            yield f"architecture.{field} must be above 0 and below 1e12"
    if architecture.tied_head != (manifest.quantisation.head is None):
        yield "quantisation.head must be null for a tied head and a dtype for one of its own"
    if manifest.screen is not msgspec.UNSET and not (
        limits.PACK_SCREEN_COLUMNS_MIN <= architecture.hidden <= limits.PACK_SCREEN_COLUMNS_MAX
    ):
        bounds = f"{limits.PACK_SCREEN_COLUMNS_MIN} to {limits.PACK_SCREEN_COLUMNS_MAX}"
        yield f"screen: architecture.hidden must be {bounds} for a screen"
    yield from _task_head_faults(architecture)
    yield from _text_faults(manifest)
    yield from _golden_faults(manifest)


def _task_head_faults(architecture: Architecture) -> Iterator[str]:
    if len(architecture.task_heads) > limits.PACK_OUTPUTS_MAX:
        yield "architecture.task_heads has too many entries"
    if architecture.layers + sum(head.layers for head in architecture.task_heads.values()) > limits.PACK_LAYERS_MAX:
        yield f"trunk and task heads together have more than {limits.PACK_LAYERS_MAX} layers"
    for name, head in architecture.task_heads.items():
        if not _NAME.fullmatch(name):
            yield f"the task head's name {ascii(name)[:40]} must be a-z, 0-9 and _, up to 64, beginning with a letter"
        if not 0 <= head.layers <= limits.PACK_LAYERS_MAX:
            yield f"task head {name}: layers must be 0 to {limits.PACK_LAYERS_MAX}"
        if not 1 <= len(head.outputs) <= limits.PACK_OUTPUTS_MAX or len(set(head.outputs)) != len(head.outputs):
            yield f"task head {name}: 1 to {limits.PACK_OUTPUTS_MAX} outputs, each named once"
        if not all(_NAME.fullmatch(output) for output in head.outputs):
            yield f"task head {name}: an output's name must be a-z, 0-9 and _, up to 64, beginning with a letter"


def _text_faults(manifest: Manifest) -> Iterator[str]:
    if len(manifest.labels) > limits.PACK_OUTPUTS_MAX or len(set(manifest.labels)) != len(manifest.labels):
        yield f"labels: at most {limits.PACK_OUTPUTS_MAX}, each once"
    if not all(_NAME.fullmatch(label) for label in manifest.labels):
        yield "labels must be a-z, 0-9 and _, up to 64, beginning with a letter"
    vocab = manifest.architecture.vocab
    for name, token in manifest.tokenizer.specials.items():
        if not 0 <= token < vocab:
            yield f"tokenizer.specials: {ascii(name)[:40]} is {token}, outside the vocabulary of {vocab}"
    template = manifest.tokenizer.chat_template
    if not isinstance(template, msgspec.UnsetType) and not 1 <= len(template) <= limits.CHAT_TEMPLATE_CHARS_MAX:
        yield f"tokenizer.chat_template must be 1 to {limits.CHAT_TEMPLATE_CHARS_MAX} characters"
    if not isinstance(manifest.generation, msgspec.UnsetType):
        yield from _generation_faults(manifest.generation, vocab)
    if manifest.calibration is not None:
        if not all(0 <= value <= 1 for value in manifest.calibration.thresholds.values()):
            yield "calibration.thresholds must be probabilities"
        if not all(math.isfinite(value) and value > 0 for value in manifest.calibration.temperature.values()):
            yield "calibration.temperature must be finite and above 0"
    if len(manifest.licence) > limits.NAME_CHARS_MAX:
        yield "licence must be an SPDX expression of at most 128 characters"


def _generation_faults(generation: Generation, vocab: int) -> Iterator[str]:
    if len(generation.stop) > limits.PACK_STOP_TOKENS_MAX or not all(0 <= token < vocab for token in generation.stop):
        yield f"generation.stop: at most {limits.PACK_STOP_TOKENS_MAX} tokens, each inside the vocabulary of {vocab}"
    bounds = {"temperature": (0, 100), "top_k": (0, vocab), "top_p": (0, 1), "repetition_penalty": (0.01, 100)}
    for field, (low, high) in bounds.items():
        value = getattr(generation, field)
        if value is not None and not low <= value <= high:
            yield f"generation.{field} must lie between {low} and {high}"


def _golden_faults(manifest: Manifest) -> Iterator[str]:
    architecture = manifest.architecture
    if len(manifest.golden) > limits.PACK_GOLDENS_MAX:
        yield f"golden: at most {limits.PACK_GOLDENS_MAX}"
    longest = min(limits.PACK_GOLDEN_TOKENS_MAX, architecture.context)
    for golden in manifest.golden:
        if not 1 <= len(golden.tokens) <= longest:
            yield f"golden: 1 to {longest} tokens each"
        if not all(0 <= token < architecture.vocab for token in golden.tokens):
            yield "golden: a token lies outside the vocabulary"
        if set(golden.heads_sha256) - set(architecture.task_heads):
            yield "golden: names a task head the architecture lacks"
        for digest in (golden.logits_sha256, *golden.heads_sha256.values()):
            if not is_sha256(digest):
                yield "golden: a SHA-256 is 64 hexadecimal digits"


def is_sha256(value: Any) -> bool:
    """Whether a value is a SHA-256 in lower-case hexadecimal."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def with_padding(sizes: list[tuple[str, int]]) -> list[str]:
    """Tensor names in file order with the padding tensors between them.

    A tensor whose bytes are no multiple of 64 is followed by padding, unless it is the last.

    Args:
        sizes: (name, bytes) in file order.
    """
    names: list[str] = []
    for position, (name, nbytes) in enumerate(sizes):
        names.append(name)
        if nbytes % ALIGNMENT and position < len(sizes) - 1:
            names.append(f"{PADDING_PREFIX}{position:05}")
    return names


def encode_header(fields: Mapping[str, Any]) -> bytes:
    """The header's bytes with its own SHA-256 set.

    The hash is taken over the very bytes that are returned, with 64 zeros in the place of the hash.

    Args:
        fields: the header as JSON values; the value of ``nis.header`` in its metadata is ignored and replaced.

    Returns:
        Canonical JSON, padded with spaces so that the data begins at a multiple of 64.
    """
    unset = "0" * 64
    metadata = {**fields[METADATA_KEY], HEADER_HASH_KEY: unset}
    blank = _padded(canonical_json({**fields, METADATA_KEY: metadata}))
    # Canonical text, so that this stands nowhere but in the metadata: inside a text every quote has a backslash.
    place = f'"{HEADER_HASH_KEY}":"'.encode()
    before, found, after = blank.partition(place + unset.encode())
    assert found
    return before + place + hashlib.sha256(blank).hexdigest().encode() + after


def _padded(text: str) -> bytes:
    raw = text.encode("ascii")
    return raw + b" " * (-(LENGTH_BYTES + len(raw)) % ALIGNMENT)


def nbytes(spec: TensorSpec) -> int:
    """Bytes of a tensor whose shape is known."""
    return math.prod(spec.shape) * DTYPES[spec.dtype].itemsize
