"""A tokenizer made from a GGUF vocabulary against sentencepiece itself, on text and on noise."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from nis_edge.pack.container import MappedFile
from nis_edge.pack.gguf import read_gguf
from nis_edge.pack.gguf_tokenizer import tokenizer_json
from tests.support.gguf_files import GgufFile

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("prefix", [True, False], ids=["space-before", "as-it-is"])
def test_ids_are_those_of_sentencepiece(tmp_path, prefix):
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is missing: the train extra brings it")
    paths = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    lines = [line for path in paths for line in path.read_text().splitlines() if line.strip()]
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        vocab_size=1000,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    count = range(theirs.get_piece_size())
    file = GgufFile(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": [theirs.id_to_piece(token) for token in count],
            "tokenizer.ggml.scores": np.array([theirs.get_score(token) for token in count], dtype="<f4"),
            "tokenizer.ggml.token_type": np.array([kind(theirs, token) for token in count], dtype="<i4"),
            "tokenizer.ggml.add_space_prefix": prefix,
        }
    )
    mapped = MappedFile(file.write(tmp_path / "a.gguf"))
    ours = Tokenizer.from_buffer(tokenizer_json(read_gguf(mapped), len(count), None))
    mapped.close()
    drawn = random.Random(1)
    noise = ["".join(drawn.choices("aaabc  \n\té汉🙂.1239theing", k=drawn.randint(1, 60))) for _ in range(3000)]
    for text in lines + noise:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text), text
        assert ours.decode(ids) == text


def kind(model, token: int) -> int:
    """tokenizer.ggml.token_type of a piece."""
    if model.is_unknown(token):
        return 2
    if model.is_control(token):
        return 3
    return 6 if model.is_byte(token) else 1
