"""A tokenizer.json made from a GGUF file's vocabulary, for the kinds that can be made exactly; others are refused.

| tokenizer.ggml.model | what it is                | what becomes of it                                               |
|----------------------|---------------------------|------------------------------------------------------------------|
| gpt2                 | byte-level BPE, merges    | the same, behind the pre-tokenizer that tokenizer.ggml.pre names |
| llama                | sentencepiece BPE, scores | BPE with byte fallback; a merge for every way to cut a piece     |

The pre-tokenizers' patterns are those of the published tokenizers of these families (openai/gpt-2, meta-llama/Meta-
Llama-3, Qwen2, SmolLM). A file without a pre-tokenizer, as older converters of bitnet.cpp write it, does not say how
its text is cut: the user does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack.checkpoint import short
from nis_edge.pack.gguf import Gguf

_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            _byte_level(use_regex=False),
        ],
    }


_DIGITS: Final = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)],
}

PRE_TOKENIZERS: Final[Mapping[str, dict[str, Any]]] = MappingProxyType(
    {
        "gpt-2": _byte_level(use_regex=True),
        "llama-bpe": _split(_LLAMA3),
        "llama3": _split(_LLAMA3),
        "llama-v3": _split(_LLAMA3),
        "qwen2": _split(_QWEN2),
        "smollm": _DIGITS,
    }
)
"""tokenizer.ggml.pre -> pre_tokenizer of a tokenizer.json."""

_IGNORE_MERGES: Final = frozenset({"llama-bpe", "llama3", "llama-v3"})
"""Kinds in which a word that is a token is taken whole, whatever its merges would make of it."""

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""tokenizer.ggml.token_type."""

_SPECIAL_NAMES: Final = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk", "eot": "eot"}
"""Key of the file -> name in the package."""

ESCAPE: Final = "; or leave the tokenizer out with --no-tokenizer: the package then takes token ids only"


def tokenizer_json(gguf: Gguf, vocab: int, pre: str | None) -> bytes | None:
    """The bytes of a tokenizer.json, or None if the file has no tokenizer.

    Args:
        gguf: the checked header.
        vocab: rows of the embedding; a tokenizer may have fewer tokens, not more.
        pre: kind of pre-tokenizer where the file does not name it.

    Raises:
        PackFormatError: a kind that can't be made exactly, or a vocabulary that is damaged.
    """
    where = str(gguf.file.path)
    model = gguf.text("tokenizer.ggml.model")
    if model is None or model == "no_vocab":
        return None
    if model not in ("gpt2", "llama"):
        raise PackFormatError(f"{where}: the tokenizer is of the kind {short(model)}; gpt2 and llama are read{ESCAPE}")
    tokens = _texts(gguf, "tokens")
    if not tokens or len(tokens) > vocab:
        raise PackFormatError(
            f"{where}: the tokenizer has {len(tokens)} tokens, but the embedding {vocab} rows{ESCAPE}"
        )
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise PackFormatError(f"{where}: two tokens of the vocabulary have the same text{ESCAPE}")
    kinds = _numbers(gguf, "token_type", len(tokens), default=_NORMAL)
    fields = _byte_level_bpe(gguf, ids, pre) if model == "gpt2" else _sentencepiece(gguf, tokens, ids, kinds, pre)
    fields = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, **fields}
    fields["added_tokens"] = [
        _added(number, tokens[number], kind in (_CONTROL, _UNKNOWN))
        for number, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER) or (kind == _UNKNOWN and model == "llama")
    ]
    raw = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(raw) > limits.PACK_TOKENIZER_BYTES_MAX:
        raise PackFormatError(f"{where}: the tokenizer is larger than {limits.PACK_TOKENIZER_BYTES_MAX} bytes{ESCAPE}")
    return raw


def specials(gguf: Gguf, vocab: int) -> dict[str, int]:
    """Ids of bos, eos, pad, unk and eot as far as the file names them inside the vocabulary."""
    found = {}
    for key, name in _SPECIAL_NAMES.items():
        value = gguf.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab:
            found[name] = value
    return found


def _byte_level_bpe(gguf: Gguf, ids: Mapping[str, int], pre: str | None) -> dict[str, Any]:
    where = str(gguf.file.path)
    named = gguf.text("tokenizer.ggml.pre")
    if named in (None, "", "default"):
        named = pre
    elif pre is not None and pre != named:
        raise PackFormatError(f"{where}: the pre-tokenizer is {short(named)}, not {pre}; leave --tokenizer-pre away")
    if named is None or named not in PRE_TOKENIZERS:
        what = "does not name its pre-tokenizer" if named is None else f"names the pre-tokenizer {short(named)}"
        flag = "" if named is not None else "; say --tokenizer-pre llama-bpe for a Llama 3 vocabulary (as 2B-4T has)"
        raise PackFormatError(f"{where}: {what}; known are {', '.join(PRE_TOKENIZERS)}{flag}{ESCAPE}")
    merges = _texts(gguf, "merges")
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not (space and left in ids and right in ids and left + right in ids):
            raise PackFormatError(f"{where}: the merge {short(merge)} does not join two tokens into one{ESCAPE}")
    return {
        "normalizer": {"type": "NFC"} if named == "qwen2" else None,
        "pre_tokenizer": PRE_TOKENIZERS[named],
        "decoder": _byte_level(use_regex=True),
        "model": _bpe(ids, merges, ignore_merges=named in _IGNORE_MERGES),
    }


def _sentencepiece(
    gguf: Gguf, tokens: list[str], ids: Mapping[str, int], kinds: list[int], pre: str | None
) -> dict[str, Any]:
    where = str(gguf.file.path)
    if pre is not None:
        raise PackFormatError(f"{where}: a sentencepiece tokenizer has no pre-tokenizer; leave --tokenizer-pre away")
    scores = gguf.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or scores.shape != (len(tokens),) or not np.isfinite(scores).all():
        raise PackFormatError(f"{where}: tokenizer.ggml.scores does not hold one number per token{ESCAPE}")
    prefix = gguf.metadata.get("tokenizer.ggml.add_space_prefix", True) is not False
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    marks = [{"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    strips = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": ([{"type": "Prepend", "prepend": "\u2581"}] if prefix else []) + marks,
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strips,
            ],
        },
        "model": _bpe(
            ids,
            _merges_of(tokens, kinds, scores.tolist(), where),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=_BYTE in kinds,
        ),
    }


def _bpe(ids: Mapping[str, int], merges: list[str] | list[list[str]], **options: Any) -> dict[str, Any]:
    fields = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(ids),
        "merges": merges,
    }
    return {**fields, **options}


def _merges_of(tokens: list[str], kinds: list[int], scores: list[float], where: str) -> list[list[str]]:
    """Every way a piece can come from two pieces, in the order in which sentencepiece would join: best score first.

    Where two ways lead to the same piece their order does not matter: the same text becomes the same piece.
    """
    joined = {token for token, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL}
    found: list[tuple[float, int, int, list[str]]] = []
    for number, piece in enumerate(tokens):
        if kinds[number] != _NORMAL or len(piece) < 2:
            continue
        if len(piece) > limits.TOKENIZER_PIECE_CHARS_MAX:
            raise PackFormatError(f"{where}: token {number} has {len(piece)} characters, above the bound{ESCAPE}")
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in joined and right in joined:
                found.append((-scores[number], number, cut, [left, right]))
        if len(found) > limits.GGUF_ARRAY_ITEMS_MAX:
            raise PackFormatError(f"{where}: the tokenizer has more than {limits.GGUF_ARRAY_ITEMS_MAX} merges{ESCAPE}")
    found.sort(key=lambda merge: merge[:3])
    return [pair for _, _, _, pair in found]


def _added(number: int, text: str, special: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _texts(gguf: Gguf, name: str) -> list[str]:
    value = gguf.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list):
        raise PackFormatError(f"{gguf.file.path}: tokenizer.ggml.{name} is no list of texts{ESCAPE}")
    return value


def _numbers(gguf: Gguf, name: str, count: int, default: int) -> list[int]:
    value = gguf.metadata.get(f"tokenizer.ggml.{name}")
    if value is None:
        return [default] * count
    if not isinstance(value, np.ndarray) or value.shape != (count,) or value.dtype.kind not in "iu":
        raise PackFormatError(f"{gguf.file.path}: tokenizer.ggml.{name} does not hold one integer per token{ESCAPE}")
    numbers: list[int] = value.tolist()
    return numbers
