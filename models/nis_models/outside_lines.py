"""Lines of files from outside: which kind each is, what it shows, what it says is true. Read forgivingly, not guessed.

Four kinds (see ``models/README.md``): a recorded *run*, a *window*, a *device* window, a *physics* item. A field that
is missing or of another shape is read as what it plainly means (a label for a list of one, ``"failed"`` for 0, an
unknown kind for a message); a line that can't be read at all is refused with its number and the reason.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec

from nis_edge.errors import ConfigError, EventFormatError
from nis_edge.limits import NAME_CHARS_MAX, RUN_BYTES_MAX, RUN_EVENTS_MAX
from nis_edge.monitor import feeds
from nis_edge.monitor.labels import LABELS
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.traces import Run, RunLine, call_in, canonical_events, hash_of_arguments

VALUES_MAX: Final = 1 << 16
STEP_LABELS_MAX: Final = 1000
NONE: Final = "none"
NONE_WORDS: Final = frozenset({NONE, "", "null", "normal", "clean", "healthy", "ok"})

_GZIP_MAGIC: Final = b"\x1f\x8b"
_RUN_KINDS: Final = frozenset({"user", "agent", "tool", "system"})
_ROLE_KINDS: Final = {
    "assistant": "agent", "human": "user", "operator": "user", "function": "tool", "environment": "tool",
    "observation": "tool", "tool_result": "tool", "tool_call": "agent", "message": "agent",
}  # fmt: skip
"""Kinds by other names. What is neither is an agent's message."""

_CANONICAL: Final = frozenset({"step", "tool_call", "tool_result", "claim", "outcome", "heartbeat", "error", "goal"})
"""Kinds of a live event that say more than who spoke: they are kept."""

FINDING_NAMES: Final[dict[str, str]] = {
    # Numbers and names of the MAST taxonomy.
    "1.2": "role_violation", "disobey role specification": "role_violation",
    "1.3": "looping", "step repetition": "looping",
    "1.4": "context_loss", "loss of conversation history": "context_loss",
    "2.1": "context_loss", "conversation reset": "context_loss",
    "1.5": "premature_end", "unaware of termination conditions": "premature_end",
    "unaware of stopping conditions": "premature_end",
    "3.1": "premature_end", "premature termination": "premature_end",
    "2.2": "missing_clarification", "fail to ask for clarification": "missing_clarification",
    "2.3": "goal_drift", "task derailment": "goal_drift",
    "2.5": "ignored_input", "ignored other agent's input": "ignored_input",
    "2.6": "contradiction", "reasoning action mismatch": "contradiction",
    "3.2": "unverified_claim", "no or incomplete verification": "unverified_claim",
    "no or incorrect verification": "unverified_claim", "3.3": "unverified_claim",
    "incorrect verification": "unverified_claim", "weak verification": "unverified_claim",
    # Words that security sets use for what was done.
    "prompt injection": "unsafe_action", "unauthorized access control": "unsafe_action",
    "data exfiltration leakage": "unsafe_action", "other security risk": "unsafe_action",
}  # fmt: skip
"""Names that others give to our findings."""

_OUTCOMES: Final = {
    "1": 1, "ok": 1, "success": 1, "succeeded": 1, "pass": 1, "passed": 1, "true": 1, "correct": 1, "safe": 1,
    "0": 0, "fail": 0, "failed": 0, "failure": 0, "false": 0, "incorrect": 0, "wrong": 0, "unsafe": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """A run or a window.

    Args:
        events: what the monitor is fed; their ``id`` is not the line's index, ``places`` tells.
        places: event id -> index among the line's own events.
        truth: findings that hold, of a window (empty: none does); None where it says nothing.
        findings: findings that hold somewhere in a run; None where it says nothing.
        unknown: names of findings that are not in our vocabulary.
    """

    kind: str
    id: str
    source: str
    system: str
    group: str
    events: tuple[AgentEvent, ...]
    places: dict[str, int]
    is_timed: bool
    agents: tuple[str, ...]
    truth: frozenset[str] | None
    findings: frozenset[str] | None
    unknown: tuple[str, ...]
    locus: tuple[int, ...]
    hard_negative_for: str | None
    outcome: int | None
    steps: tuple[tuple[int | None, str], ...]


@dataclass(frozen=True)
class DeviceWindow:
    """Readings of one sensor, None where one is missing; ``label`` None where the line says nothing."""

    id: str
    source: str
    group: str
    values: tuple[float | None, ...]
    label: str | None
    onset: int | None
    strength: str


@dataclass(frozen=True)
class PhysicsItem:
    """A statement in words; ``label`` consistent, violation, or None where the line says nothing."""

    id: str
    source: str
    group: str
    law: str
    level: str
    text: str
    label: str | None


@dataclass(frozen=True)
class Refused:
    """A line that could not be read, and why."""

    file: str
    line: int
    reason: str


Line = Trace | DeviceWindow | PhysicsItem | Refused


def read(paths: Sequence[Path]) -> Iterator[Line]:
    """Read files of JSON lines, plain or gzip, one after the other.

    Raises:
        ConfigError: a file can't be opened or is cut off; nothing is changed by it, the operator names another.
    """
    for path in paths:
        number = 0
        try:
            with path.open("rb") as raw:
                packed = raw.read(2) == _GZIP_MAGIC
                raw.seek(0)
                stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if packed else raw)
                while True:
                    line = stream.readline(RUN_BYTES_MAX + 1)
                    if not line:
                        break
                    number += 1
                    if len(line) > RUN_BYTES_MAX:
                        while line and not line.endswith(b"\n"):
                            line = stream.readline(RUN_BYTES_MAX)
                        yield Refused(path.name, number, f"longer than the {RUN_BYTES_MAX} bytes allowed")
                    elif line.strip():
                        yield parse(line, path.name, number)
        except (OSError, EOFError) as error:
            said = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: {said}, after line {number}; nothing was written, name a whole file") from error


def parse(line: bytes, file: str, number: int) -> Line:
    """Read one line; what can't be read is refused with the reason, nothing raises."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Refused(file, number, f"no JSON: {error}" if isinstance(error, ValueError) else "it nests too deep")
    if not isinstance(fields, dict):
        return Refused(file, number, "no JSON object")
    try:
        if isinstance(fields.get("values"), list):
            return _device(fields, file, number)
        if isinstance(fields.get("events"), list):
            return _trace(fields, file, number)
        if isinstance(fields.get("text"), str):
            return _physics(fields, file, number)
    except (EventFormatError, ValueError, TypeError, OverflowError) as error:
        return Refused(file, number, str(error))
    return Refused(file, number, "it has neither events nor values nor text: no run, window, device window or item")


def finding_of(name: str) -> str | None:
    """Our name of a finding that others may have named, or None."""
    text = name.strip()
    plain = re.sub(r"[\s-]+", "_", text.lower())
    if plain in LABELS:
        return plain
    words = " ".join(re.sub(r"[^a-z0-9.' ]+", " ", text.lower()).split())
    number = re.match(r"(?:fm )?(\d\.\d)\b\s*", words)
    rest = words[number.end() :].strip() if number else words
    return FINDING_NAMES.get(rest) or (FINDING_NAMES.get(number[1]) if number else None)


def _trace(fields: dict[str, Any], file: str, number: int) -> Trace:
    given = [event for event in fields["events"] if isinstance(event, dict)]
    if len(given) != len(fields["events"]):
        raise EventFormatError("an event is no JSON object")
    if len(given) > RUN_EVENTS_MAX:
        raise EventFormatError(f"{len(given)} events are more than the {RUN_EVENTS_MAX} allowed")
    goal = fields.get("goal") if isinstance(fields.get("goal"), str) and fields["goal"].strip() else None
    lines = tuple(_line(event) for event in given)
    run = Run(id="", events=lines, goal=goal)
    events = _events(run, given)
    named = fields.get("labels") if fields.get("labels") is not None else fields.get("label")
    is_window = any(key in fields for key in ("label", "labels", "hard_negative_for"))
    hard = _hard_negative(fields.get("hard_negative_for"))
    truth, unknown = _names_of(named)
    findings, odd = _names_of(fields.get("findings"))
    return Trace(
        kind="window" if is_window else "run",
        id=_id(fields, file, number),
        source=_word(fields.get("source")) or _word(fields.get("system")) or Path(file).name.split(".")[0],
        system=_word(fields.get("system")) or _word(fields.get("source")) or "unnamed",
        group=_word(fields.get("group")) or _id(fields, file, number),
        events=events,
        places={event.id: int(event.id) - 1 for event in events if event.id != "0"},
        is_timed=run.is_timed,
        agents=tuple(line.agent for line in lines),
        truth=frozenset() if truth is None and hard else truth if not (unknown and not truth) else None,
        findings=findings,
        unknown=(*unknown, *odd),
        locus=_indices(fields.get("locus")),
        hard_negative_for=hard,
        outcome=_outcome(fields.get("outcome")),
        steps=_steps(fields.get("step_labels")),
    )


def _line(event: dict[str, Any]) -> RunLine:
    kind = str(event.get("kind") or event.get("role") or "agent").lower()
    kind = kind if kind in _RUN_KINDS else _ROLE_KINDS.get(kind, "agent")
    agent = event.get("agent")
    agent = agent if isinstance(agent, str) and agent.strip() else kind
    return RunLine(agent=agent, kind=cast("Any", kind), text=_text(event), t=_time(event.get("t", event.get("ts"))))


def _time(value: Any) -> float | None:
    """Seconds, of a number or of a date and time as ISO 8601 writes it."""
    number = _number(value)
    if number is not None or not isinstance(value, str):
        return number
    try:
        moment = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _text(event: dict[str, Any]) -> str:
    said = event.get("text") if event.get("text") is not None else event.get("content")
    if said is None:
        return ""
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _events(run: Run, given: list[dict[str, Any]]) -> tuple[AgentEvent, ...]:
    """The line's events as the monitor takes them, with what they say beyond who spoke."""
    events = list(canonical_events(run))
    if run.goal is not None:
        # A goal that an event states word for word is that event: told twice it would look like a repetition.
        for place, line in enumerate(run.events[:2]):
            if line.text.strip() == run.goal.strip():
                events[place + 1] = msgspec.structs.replace(events[place + 1], kind="goal", tool=None, ok=None)
                del events[0]
                break
    at = len(events) - len(given)
    for place, fields in enumerate(given):
        events[at + place] = _richer(events[at + place], fields)
    return tuple(events)


def _richer(event: AgentEvent, fields: dict[str, Any]) -> AgentEvent:
    more: dict[str, Any] = {}
    kind = str(fields.get("kind") or "").lower()
    if kind in _CANONICAL and event.kind != "goal":
        more["kind"] = kind
    for name in ("tool", "args_hash", "to", "correlation", "outcome_of"):
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            more[name] = value.strip()[:NAME_CHARS_MAX]
    if more.get("kind") == "tool_call" and not (event.tool or more.get("tool")):
        # A call filed as one may leave out the word that marks it.
        call = call_in(event.text or "") or call_in(f"CALL {event.text or ''}")
        if call is not None:
            more.update(tool=call[0], args_hash=hash_of_arguments(call[1]))
    if isinstance(fields.get("ok"), bool):
        more["ok"] = fields["ok"]
    confidence = _number(fields.get("confidence"))
    if confidence is not None and 0.0 <= confidence <= 1.0:
        more["confidence"] = confidence
    if isinstance(fields.get("outcome"), bool):
        more["outcome"] = fields["outcome"]
    return msgspec.structs.replace(event, **more) if more else event


def _names_of(named: Any) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    if named is None:
        return None, ()
    if isinstance(named, dict):
        # Flags by name, as annotators write them.
        named = [name for name, holds in named.items() if holds]
    wanted, unknown = set(), []
    for one in named if isinstance(named, list) else [named]:
        if isinstance(one, dict):
            one = one.get("label") or one.get("category") or one.get("name") or ""
        text = str(one)
        if text.strip().lower() in NONE_WORDS:
            continue
        name = finding_of(text)
        if name is None:
            unknown.append(text[:60])
        else:
            wanted.add(name)
    return frozenset(wanted), tuple(unknown)


def _hard_negative(value: Any) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None or value is False or str(value).strip().lower() in NONE_WORDS:
        return None
    return finding_of(str(value)) or str(value)[:60]


def _outcome(value: Any) -> int | None:
    if isinstance(value, bool) or (isinstance(value, (int, float)) and value in (0, 1)):
        return int(value)
    return _OUTCOMES.get(value.strip().lower()) if isinstance(value, str) else None


def _steps(value: Any) -> tuple[tuple[int | None, str], ...]:
    steps = []
    for label in (value if isinstance(value, list) else [])[:STEP_LABELS_MAX]:
        if isinstance(label, dict):
            step, agent = _number(label.get("step")), label.get("agent")
            agent = agent.strip() if isinstance(agent, str) else ""
            if step is not None or agent:
                steps.append((None if step is None else int(step), agent))
    return tuple(steps)


def _indices(value: Any) -> tuple[int, ...]:
    given = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(int(number) for one in given if (number := _number(one)) is not None)


def _device(fields: dict[str, Any], file: str, number: int) -> DeviceWindow:
    if len(fields["values"]) > VALUES_MAX:
        raise EventFormatError(f"{len(fields['values'])} values are more than the {VALUES_MAX} allowed")
    label = fields.get("label")
    if isinstance(label, list):
        label = label[0] if label else NONE
    if label is not None:
        label = re.sub(r"[\s-]+", "_", str(label).strip().lower())
        label = NONE if label in NONE_WORDS else label
        if label not in (NONE, *feeds.LABELS):
            raise EventFormatError(f"no fault of a feed is called {label[:40]!r}")
    series = _word(fields.get("series"))
    onset = _number(fields.get("onset"))
    return DeviceWindow(
        id=_id(fields, file, number),
        source=_word(fields.get("source")) or "device",
        group=_word(fields.get("group")) or series or _id(fields, file, number),
        values=tuple(_number(value) for value in fields["values"]),
        label=label,
        onset=None if onset is None or onset < 0 else int(onset),
        strength=_word(fields.get("strength")) or NONE,
    )


def _physics(fields: dict[str, Any], file: str, number: int) -> PhysicsItem:
    label = fields.get("label")
    if isinstance(label, bool):
        label = "consistent" if label else "violation"
    if label is not None:
        label = str(label).strip().lower()
        if label not in ("consistent", "violation"):
            raise EventFormatError(f"a physics item is consistent or violation, not {label[:40]!r}")
    return PhysicsItem(
        id=_id(fields, file, number),
        source=_word(fields.get("source")) or "physics",
        group=_word(fields.get("group")) or _id(fields, file, number),
        law=_word(fields.get("law")) or "unnamed",
        level=_word(fields.get("level")) or "unnamed",
        text=fields["text"],
        label=label,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _id(fields: dict[str, Any], file: str, number: int) -> str:
    return _word(fields.get("id")) or f"{file}:{number}"


def _word(value: Any) -> str:
    """A name as text; a number is a name too."""
    if value is None or isinstance(value, (dict, list, bool)):
        return ""
    return str(value).strip()[:NAME_CHARS_MAX]
