"""Tokenizer, text stream and sampler."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nis_edge.engine.tokenizer import TextStream, Tokenizer
from nis_edge.errors import ModelError
from tests.support.tiny_models import tiny_tokenizer_json


def tokenizer() -> Tokenizer:
    return Tokenizer.from_bytes(tiny_tokenizer_json(), {"bos": 1, "eos": 2})


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_text_survives_encoding_and_decoding(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    if "<|" not in clean:
        assert tokenizer().decode(tokenizer().encode(text)) == clean


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_a_stream_writes_the_same_text_piece_by_piece(text: str) -> None:
    if "<|" in text or "\ufffd" in text:
        return
    stream = TextStream(tokenizer())
    assert "".join(stream.add(token) for token in tokenizer().encode(text)) == text


def test_a_stream_never_writes_half_a_character() -> None:
    tokens = tokenizer().encode("€")
    assert len(tokens) > 1  # its three bytes are not one token of this tokenizer
    stream = TextStream(tokenizer())
    pieces = [stream.add(token) for token in tokens]
    assert pieces[:-1] == [""] * (len(tokens) - 1)
    assert pieces[-1] == "€"


def test_specials_are_found_by_the_manifests_name_or_the_tokenizers_own() -> None:
    assert tokenizer().special("bos") == 1
    assert tokenizer().special("<|unk|>") == 3
    assert tokenizer().find_special("absent") is None
    with pytest.raises(ModelError, match="no special token 'absent' among the"):
        tokenizer().special("absent")


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_bytes_that_are_no_tokenizer_are_refused(raw: bytes) -> None:
    with pytest.raises(ModelError, match="tokenizer can't be read"):
        Tokenizer.from_bytes(raw)
