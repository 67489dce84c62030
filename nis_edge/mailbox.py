"""The operator's letters to the running update loop: one request file in, one answer file out, in the state folder.

Only who may write the state folder may ask. A letter that is not understood is dropped; the asker sees no answer and
says so.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator's command asks of the running daemon."""

    id: str
    do: Literal["check", "apply", "rollback", "import"]
    path: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's answer to the request of that id."""

    id: str
    ok: bool
    text: str


class Mailbox:
    """Both sides of it, and the last status beside it.

    Args:
        folder: the update folder.
    """

    def __init__(self, folder: Path) -> None:
        self._request = folder / "request.json"
        self._answer = folder / "answer.json"
        self._status = folder / "status.json"

    def ask(self, request: Request) -> None:
        """Leave a request; it takes the place of one that was not read yet."""
        _write_whole(self._request, msgspec.json.encode(request))

    def withdraw(self) -> None:
        """Take a request back that nobody read."""
        self._request.unlink(missing_ok=True)

    def take_request(self) -> Request | None:
        """The request that waits, once."""
        try:
            data = self._request.read_bytes()
            self._request.unlink()
            return msgspec.json.decode(data, type=Request)
        except (OSError, msgspec.MsgspecError, RecursionError):
            return None

    def answer(self, request: Request, *, ok: bool, text: str) -> None:
        """Answer a request; lost on a full disk, where the asker stops waiting by itself."""
        with contextlib.suppress(OSError):
            _write_whole(self._answer, msgspec.json.encode(Answer(id=request.id, ok=ok, text=text)))

    def read_answer(self, request_id: str) -> Answer | None:
        """The answer to a request, once it is there."""
        try:
            answer = msgspec.json.decode(self._answer.read_bytes(), type=Answer)
        except (OSError, msgspec.MsgspecError, RecursionError):
            return None
        return answer if answer.id == request_id else None

    def show_status(self, status: msgspec.Struct) -> None:
        """Leave the newest status for whoever looks; a full disk must not stop the update that might free it."""
        with contextlib.suppress(OSError):
            _write_whole(self._status, msgspec.json.encode(status))

    def read_status(self) -> dict[str, Any]:
        """The last status shown; empty when there is none."""
        try:
            found = msgspec.json.decode(self._status.read_bytes())
        except (OSError, msgspec.MsgspecError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _write_whole(path: Path, data: bytes) -> None:
    """Replace a small file at once; readers see the old or the new content. Not made durable: it may be lost."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)
