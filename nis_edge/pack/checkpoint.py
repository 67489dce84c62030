"""A checkpoint as the packer sees it, whichever file it came from, and what its user may decide.

A file that does not say what its numbers mean is refused with the name of the choice that decides; no choice has a
default that guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack.container import MappedFile
from nis_edge.pack.ggml_blocks import I2sOrder
from nis_edge.pack.layout import Manifest
from nis_edge.pack.ternary import Float32Array
from nis_edge.pack.writer import Source

Storage = Literal["master", "ternary", "bitlinear", "autobitlinear"]
"""How a checkpoint stores its matrices: real numbers to be made ternary by absmean; real numbers that are -s, 0 and s
already; packed with a scale that divides; packed with a scale that multiplies."""

STORAGES: Final[tuple[Storage, ...]] = get_args(Storage)


@dataclass(frozen=True)
class Choices:
    """What the user decides where a file is ambiguous; None leaves it to the file, which must then say it.

    Attributes:
        storage: of the matrices (``--weights``).
        activation: of the gated network (``--activation``), for GGUF files of the architecture `bitnet`.
        i2s_order: how four codes share a byte (``--i2s-order``), for GGUF files with I2_S tensors.
        scale: whether a stored scale multiplies or divides (``--scale``), for GGUF files with I2_S tensors.
        pre: kind of pre-tokenizer (``--tokenizer-pre``), for GGUF files that lack it.
        without_tokenizer: pack token ids only (``--no-tokenizer``).
    """

    storage: Storage | None = None
    activation: Literal["relu2", "silu"] | None = None
    i2s_order: I2sOrder | None = None
    scale: Literal["multiply", "divide"] | None = None
    pre: str | None = None
    without_tokenizer: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint ready to be written: a manifest, and for each tensor its array or the callable that makes it.

    Attributes:
        manifest: of the package.
        tensors: name in the package -> source.
        storage: how the matrices were stored, in a word.
        notes: what the packer decided or left out, one line each.
        files: the mapped files that the sources read.
    """

    manifest: Manifest
    tensors: Mapping[str, Source]
    storage: str
    files: tuple[MappedFile, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Let go of the mapped files."""
        for file in self.files:
            file.close()


def finite(values: Float32Array, where: str) -> Float32Array:
    """The values, once none of them is NaN or infinite."""
    if not np.isfinite(values).all():
        raise PackFormatError(f"{where} holds NaN or infinity; the checkpoint is broken")
    return values


def short(value: Any) -> str:
    """An untrusted value as it may stand in an error message."""
    return ascii(value)[:80]


def chat_template(text: Any, where: str) -> str | None:
    """A chat template if there is one; Jinja text of bounded length."""
    if not isinstance(text, str) or not text:
        return None
    if len(text) > limits.CHAT_TEMPLATE_CHARS_MAX:
        raise PackFormatError(f"{where}: the chat template is longer than {limits.CHAT_TEMPLATE_CHARS_MAX} characters")
    return text
