"""The real self-test's program, with the numpy reference in the engine's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nis_edge import selftest
from nis_edge.engine.reference import reference_head, reference_logits
from nis_edge.pack.reader import open_package


class ReferenceModel:
    """Looks like the engine's model."""

    def __init__(self, path: Path) -> None:
        self.package = open_package(path)
        self.manifest = self.package.manifest

    def session(self, max_positions: int | None = None) -> ReferenceSession:
        return ReferenceSession(self)

    def close(self) -> None:
        self.package.close()


class ReferenceSession:
    """Looks like the engine's session."""

    def __init__(self, model: ReferenceModel) -> None:
        self._package = model.package
        self._tokens: Sequence[int] = ()

    def forward(self, tokens: Sequence[int]) -> Any:
        self._tokens = tokens
        return reference_logits(self._package, tokens)

    def head(self, name: str) -> Any:
        return reference_head(self._package, self._tokens, name)


if __name__ == "__main__":
    selftest._open_with_engine = ReferenceModel
    raise SystemExit(selftest.main())
