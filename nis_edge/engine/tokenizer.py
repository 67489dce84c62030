"""Text to token ids and back, by the tokenizer.json that travels in the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nis_edge.errors import ModelError


class Tokenizer:
    """A package's tokenizer; adds no special tokens of its own, the caller names those it wants."""

    def __init__(self, tokenizer: Any, specials: Mapping[str, int]) -> None:
        """Take a ``tokenizers.Tokenizer`` and the ids of the special tokens by name."""
        self._tokenizer = tokenizer
        self._specials = dict(specials)

    @classmethod
    def from_bytes(cls, tokenizer_json: bytes, specials: Mapping[str, int] | None = None) -> Tokenizer:
        """Make a tokenizer.

        Args:
            tokenizer_json: what Hugging Face tokenizers saves.
            specials: name -> id of special tokens, as the manifest lists them.

        Raises:
            ModelError: the bytes are no tokenizer; the builder of the model acts.
        """
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(tokenizer_json)
        except BaseException as error:
            # tokenizers raises the bare Exception, and where its own code fails a panic that is no Exception at all.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise ModelError(f"the package's tokenizer can't be read ({error}); pack the model again") from error
        return cls(tokenizer, specials or {})

    def json(self) -> str:
        """The whole of it as JSON, as Hugging Face tokenizers saves it."""
        text: str = self._tokenizer.to_str()
        return text

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Args:
            text: any; bytes that are no UTF-8 can't occur in a str, lone surrogates are replaced.
        """
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._tokenizer.encode(clean, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens leave none."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def word(self, token: int) -> str:
        """A token as the tokenizer writes it, special ones included; empty if there is none of that number."""
        word: str | None = self._tokenizer.id_to_token(token)
        return word or ""

    def find_special(self, name: str) -> int | None:
        """The id of a special token, by the manifest's name for it or else by the tokenizer's own; None if absent."""
        known = self._specials.get(name)
        if known is None:
            known = self._tokenizer.token_to_id(name)
        return None if known is None else int(known)

    def special(self, name: str) -> int:
        """The id of a special token.

        Args:
            name: as the manifest lists it, or as the tokenizer itself writes it.

        Raises:
            ModelError: there is none of that name; the builder of the model acts.
        """
        known = self.find_special(name)
        if known is None:
            raise ModelError(
                f"the tokenizer has no special token {name!r} among the {len(self._specials)} the package lists;"
                " nis-edge inspect --json PKG shows them"
            )
        return known


class TextStream:
    """Text of tokens as they come: a character whose bytes are not complete yet is held back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start an empty stream."""
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._pending: list[int] = []

    def add(self, token: int) -> str:
        """Take one more token; return the text that it completes, often empty.

        Args:
            token: its id.
        """
        self._pending.append(token)
        # Some tokenizers write a token differently at the start of a text, so the last complete ones stay in front.
        before = self._tokenizer.decode(self._context)
        after = self._tokenizer.decode(self._context + self._pending)
        incomplete = after.endswith("\ufffd") and len(self._pending) < _CHARACTER_TOKENS_MAX
        if incomplete or len(after) <= len(before):
            return ""
        self._context, self._pending = self._pending, []
        return after[len(before) :]

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        before = self._tokenizer.decode(self._context)
        after = self._tokenizer.decode(self._context + self._pending)
        self._context, self._pending = self._pending, []
        return after[len(before) :]


_CHARACTER_TOKENS_MAX = 8
"""A UTF-8 character has at most 4 bytes, so more tokens than this will not complete one."""
