"""What bytes each token of a tokenizer writes: what constraints and exact text streams are made of."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from nis_edge.errors import ModelError

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer_json: str, vocab: int) -> list[bytes]:
    """The bytes of every token.

    Known are byte-level vocabularies (GPT-2's alphabet: BitNet, Llama 3, Qwen) and sentencepiece's with byte fallback
    (Llama 2, Mistral).

    Args:
        tokenizer_json: what Hugging Face tokenizers saves.
        vocab: size of the model's vocabulary.

    Returns:
        [vocab]; empty for special tokens and for numbers that no token has.

    Raises:
        ModelError: the tokenizer is of another kind; the builder of the model acts.
    """
    described = json.loads(tokenizer_json)
    decoders = set(_types(described.get("decoder")))
    words: Mapping[str, int] | None = _words(described.get("model", {}))
    if words is None:
        raise ModelError("the tokenizer lists no vocabulary, so its tokens' bytes are unknown and can't be constrained")
    if "ByteLevel" in decoders:
        spell = _byte_level
    elif "ByteFallback" in decoders or "Metaspace" in decoders:
        spell = _sentencepiece
    else:
        raise ModelError(
            f"the tokenizer's decoder ({', '.join(sorted(decoders)) or 'none'}) is neither byte-level nor"
            " sentencepiece, so its tokens' bytes are unknown and can't be constrained"
        )
    table = [b""] * vocab
    for word, number in words.items():
        if 0 <= number < vocab:
            table[number] = spell(word)
    for added in described.get("added_tokens", []):
        number = added.get("id", -1)
        if 0 <= number < vocab:
            table[number] = b"" if added.get("special") else added.get("content", "").encode()
    return table


def _types(decoder: Any) -> list[str]:
    if not isinstance(decoder, dict):
        return []
    inner = [name for part in decoder.get("decoders", []) for name in _types(part)]
    return [str(decoder.get("type")), *inner]


def _words(model: Any) -> Mapping[str, int] | None:
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        return vocabulary
    if isinstance(vocabulary, list):  # Unigram: pairs of word and score
        return {pair[0]: number for number, pair in enumerate(vocabulary)}
    return None


@functools.cache
def _alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for characters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + n): b for n, b in enumerate(others)}


def _byte_level(word: str) -> bytes:
    alphabet = _alphabet()
    if any(char not in alphabet for char in word):
        return b""
    return bytes(alphabet[char] for char in word)


def _sentencepiece(word: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(word)
    return bytes([int(byte[1], 16)]) if byte else word.replace("\u2581", " ").encode()
