"""The audit trail: what happened to this device's model, one line each, every line bound to the one before. Pure.

A line is JSON `{"n", "at", "event", "facts", "prev", "hash"}`: a running number, the wall clock, the name of the log
event and its fields, the hash of the line before (64 zeros for the first), and SHA-256 over the line without its `hash`
member. A changed, removed or inserted line breaks the chain at its place. Cutting lines off the end does not; that
shows against the device's signed reports, which carry the newest hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from nis_edge.limits import UPDATE_AUDIT_LINE_BYTES_MAX
from nis_edge.update.journal import Sha256

NOTHING: Final = "0" * 64
"""What the first line names as the one before it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    at: float
    event: Annotated[str, msgspec.Meta(max_length=64)]
    facts: dict[str, Any]
    prev: Sha256
    hash: Sha256


@dataclass(frozen=True)
class Verified:
    """A whole chain: entries `first` to `last`; `head` is the hash of the last, `before` what the first names."""

    first: int
    last: int
    head: str
    before: str


class BrokenChainError(ValueError):
    """A line does not follow from the one before it."""


def make_entry(before: Entry | None, event: str, facts: dict[str, Any], at: float) -> Entry:
    """The entry after `before`; facts that are too long for a line are shortened, and say so."""
    n, prev = (before.n + 1, before.hash) if before is not None else (1, NOTHING)
    if len(msgspec.json.encode(facts)) > UPDATE_AUDIT_LINE_BYTES_MAX // 2:
        facts = {"shortened": True, **{name: str(value)[:100] for name, value in list(facts.items())[:8]}}
    return Entry(n=n, at=at, event=event, facts=facts, prev=prev, hash=_hash(n, at, event, facts, prev))


def encode_entry(entry: Entry) -> bytes:
    """The line, with its end."""
    return msgspec.json.encode(entry) + b"\n"


def read_entry(line: bytes) -> Entry | None:
    """The entry in one line; None when it is torn, malformed, or not what its hash says."""
    if len(line) > UPDATE_AUDIT_LINE_BYTES_MAX:
        return None
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return entry if _hash(entry.n, entry.at, entry.event, entry.facts, entry.prev) == entry.hash else None


def verify(lines: Iterable[bytes]) -> Verified | None:
    """Check a whole chain; None when there is no line.

    Raises:
        BrokenChainError: at which line, and how.
    """
    first, last = None, None
    for number, line in enumerate(lines, start=1):
        entry = read_entry(line)
        if entry is None:
            raise BrokenChainError(f"line {number} was changed or is damaged")
        if last is not None and (entry.prev, entry.n) != (last.hash, last.n + 1):
            raise BrokenChainError(f"line {number} (entry {entry.n}) does not follow entry {last.n}")
        first, last = first or entry, entry
    if first is None or last is None:
        return None
    if first.n == 1 and first.prev != NOTHING:
        raise BrokenChainError("the first entry names one before it")
    return Verified(first.n, last.n, last.hash, first.prev)


def _hash(n: int, at: float, event: str, facts: dict[str, Any], prev: str) -> str:
    body = msgspec.json.encode({"n": n, "at": at, "event": event, "facts": facts, "prev": prev}, order="sorted")
    return hashlib.sha256(body).hexdigest()
