"""The tokenizer: byte-level BPE of 4,096 pieces, single digits, and the window's special tokens first.

Special tokens are ids 0 .. n-1 in the order of ``window.SPECIALS``. Encoding a text never yields one: the monitor puts
them in by name, and a text that spells ``<ask>`` is split like any other text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from nis_edge.monitor.window import SPECIALS, Text, render
from nis_models.scenarios import Item

VOCABULARY: Final = 4096
LEARNED_WINDOWS: Final = 8_000
"""Windows the merges are learned from: more add names of single runs."""

TEXTS_MAX: Final = 400_000


def learn(texts: Iterable[str]) -> str:
    """Learn the merges.

    Args:
        texts: what windows show, as the device cuts it.

    Returns:
        The JSON of the tokenizer; the same for the same texts.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())
    # The specials keep their ids in the vocabulary, but nothing that reads this file may find them in a text: an event
    # that spells "<ask>" is hostile, and the monitor puts specials in by id.
    learned["added_tokens"] = []
    return json.dumps(learned, ensure_ascii=True, separators=(",", ":"))


def texts_of(items: Iterable[Item]) -> Iterator[str]:
    """What windows show as words."""
    for item in items:
        for piece in render(item.window).pieces:
            if isinstance(piece, Text):
                yield piece.text


class LearnedTokenizer:
    """A tokenizer of this project as training uses it; the device has its own reader of the same file."""

    def __init__(self, source: str) -> None:
        from tokenizers import Tokenizer

        self.source = source
        self._tokenizer = Tokenizer.from_str(source)
        self._specials = {name: self._tokenizer.token_to_id(name) for name in SPECIALS}
        self._known: dict[str, list[int]] = {}

    @classmethod
    def read(cls, path: Path) -> LearnedTokenizer:
        """Read ``tokenizer.json``."""
        return cls(path.read_text(encoding="utf-8"))

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids = self._known.get(text)
        if ids is None:
            ids = list(self._tokenizer.encode(text).ids)
            if len(self._known) < TEXTS_MAX:
                self._known[text] = ids
        return ids

    def special(self, name: str) -> int:
        """Id of a special token."""
        return int(self._specials[name])

    @property
    def specials(self) -> dict[str, int]:
        """All special tokens."""
        return dict(self._specials)
