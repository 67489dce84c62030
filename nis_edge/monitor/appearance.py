"""How a name looks to a person: names drawn alike have one appearance, whatever letters spell them. Pure."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

# Letters of Cyrillic and Greek, and digits, that common fonts draw like a Latin letter (a choice from Unicode's
# confusables, UTS 39); NFKC already unfolds full-width, mathematical and circled letters.
_DRAWN_ALIKE: Final = str.maketrans(
    {
        "\u0430": "a", "\u0435": "e", "\u043e": "o", "\u0440": "p", "\u0441": "c", "\u0443": "y", "\u0445": "x",
        "\u0456": "i", "\u0455": "s", "\u0458": "j", "\u04bb": "h", "\u0501": "d", "\u051b": "q", "\u051d": "w",
        "\u043a": "k", "\u043c": "m", "\u0442": "t", "\u0432": "b", "\u043d": "h",
        "\u03b1": "a", "\u03bf": "o", "\u03bd": "v", "\u03c1": "p", "\u03c4": "t", "\u03c5": "u", "\u03ba": "k",
        "\u03b9": "i", "\u03c7": "x", "\u03b3": "y", "\u03b5": "e", "\u0131": "i",
        "0": "o", "1": "l", "|": "l", "$": "s", "@": "a",
    }
)  # fmt: skip
_ACCENTS: Final = "Mn"


@lru_cache(maxsize=4096)
def appearance_of(name: str) -> str:
    """The name without case, accents, separators and scripts."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(letter for letter in folded if unicodedata.category(letter) != _ACCENTS)
    return bare.translate(_DRAWN_ALIKE).replace("rn", "m").replace("vv", "w").strip(" ._-")
