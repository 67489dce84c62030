"""How long work shows itself: one line that is redrawn on a terminal, a line every tenth otherwise. On stderr.

Work on less than 32 MB is done before anyone could read the line, and shows nothing.
"""

from __future__ import annotations

import sys
from typing import Final, TextIO

SHOWN_FROM_BYTES: Final = 32_000_000


class ByteProgress:
    """Progress through a known number of bytes; callable as (name, bytes) for every piece that is done."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        """Start at zero.

        Args:
            what: the work, in a few words.
            total: bytes of the whole.
            stream: where to write; stderr by default.
        """
        self._what = what
        self._total = max(1, total)
        self._stream = sys.stderr if stream is None else stream
        self._redraws = self._stream.isatty()
        self._done = 0
        self._tenths = 0

    def __call__(self, name: str, nbytes: int) -> None:
        """One more piece is done."""
        if self._total < SHOWN_FROM_BYTES:
            return
        self._done = min(self._total, self._done + nbytes)
        percent = 100 * self._done // self._total
        if self._redraws:
            end = "\n" if self._done == self._total else ""
            self._stream.write(f"\r\033[K{self._what}: {percent} % of {self._total / 1e6:,.1f} MB  {name}{end}")
            self._stream.flush()
        elif percent // 10 > self._tenths:
            self._tenths = percent // 10
            self._stream.write(f"{self._what}: {percent} % of {self._total / 1e6:,.1f} MB\n")
