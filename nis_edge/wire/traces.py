"""Recorded runs of agents (``events[{agent, kind: user|agent|tool|system, text}]``, no times) as canonical events.

A run's lines say less than a live stream does, so the translation adds only what the text shows for certain: a call is
a call when it is written as one (``CALL name {json}``, ``ACT name{...}``), a result failed when it says so in the form
tools use for it, and succeeded when its form is that of data. What is not certain stays None. There is no time in a
run unless each line has its ``t``: ``ts`` then counts the events, and whoever judges them is told that times are
unknown.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from nis_edge.errors import EventFormatError
from nis_edge.limits import NAME_CHARS_MAX, RUN_BYTES_MAX, RUN_EVENTS_MAX
from nis_edge.wire.messages import AgentEvent

_CALL: Final = re.compile(r"\s*CALL\s+([A-Za-z_][\w.-]{0,127})\s*(\{.*)?\Z", re.DOTALL)
_ACT_FIRST: Final = re.compile(r"\s*ACT\s+([A-Za-z_][\w.-]{0,127})\s*([({].*)?\Z", re.DOTALL)
_ACT_LAST: Final = re.compile(r"\sACT\s+([A-Za-z_][\w.-]{0,127})\(([^()]{0,2000})\)\s*\Z")

_CALL_TAIL_CHARS: Final = 2400
"""A call that ends a text is looked for in so many last characters: the longest ``_ACT_LAST`` can match, and some."""

_EXIT_CODE: Final = re.compile(r"\s*exit ?code:?\s*(-?\d{1,5})\b", re.IGNORECASE)
_FAILED: Final = re.compile(
    r"[\s\"']*(?:error\b|traceback \(most recent call last\)|exception\b|fatal:|permission denied|command not found"
    r"|[a-z_.]{1,60}(?:error|exception):|could not (?:find|open|connect|resolve)\b|no such file\b)",
    re.IGNORECASE,
)
_NOT_FOUND: Final = re.compile(r".{0,300}\bnot found[\s.!\"']*\Z", re.IGNORECASE)
_DATA: Final = re.compile(r"[\s\"']*(?:[\[{].*[\]}]|-?\d+(?:\.\d+)?)[\s\"']*\Z", re.DOTALL)
_ERROR_FIELD: Final = re.compile(r"[\"'](?:error|exception)[\"']\s*:\s*(?!\s|null|none|\"\"|''|false)", re.IGNORECASE)

# Names under which recordings file the world's answers: they are no members of the team.
_WORLD: Final = frozenset({"tool", "tools", "environment", "env", "function", "system", "observation"})


class RunLine(msgspec.Struct, frozen=True):
    """One event as the recording has it; ``t`` in seconds where it has times."""

    agent: str
    kind: Literal["user", "agent", "tool", "system"]
    text: str
    t: float | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded run: its events, and what the recording knows of how it went (which no judge is shown)."""

    id: str
    events: tuple[RunLine, ...]
    source: str = ""
    system: str = ""
    model: str = ""
    group: str = ""
    goal: str | None = None
    outcome: int | None = None
    findings: tuple[str, ...] = ()
    step_labels: tuple[dict[str, Any], ...] = ()

    @property
    def is_timed(self) -> bool:
        """Whether every event has its time."""
        return bool(self.events) and all(line.t is not None for line in self.events)


_run_decoder: Final = msgspec.json.Decoder(Run)


def is_run(fields: dict[str, Any]) -> bool:
    """Whether a decoded JSON object is a recorded run rather than one event."""
    return isinstance(fields.get("events"), list) and "kind" not in fields


def decode_run(raw: bytes) -> Run:
    """Read one recorded run.

    Raises:
        EventFormatError: the line is malformed or too large (whoever recorded it acts).
    """
    if len(raw) > RUN_BYTES_MAX:
        raise EventFormatError(f"run of {len(raw)} bytes is larger than the {RUN_BYTES_MAX} allowed")
    try:
        run = _run_decoder.decode(raw)
    except RecursionError as error:
        raise EventFormatError("run nests too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventFormatError(f"run refused: {error}") from error
    if len(run.events) > RUN_EVENTS_MAX:
        raise EventFormatError(f"run of {len(run.events)} events is longer than the {RUN_EVENTS_MAX} allowed")
    return run


def canonical_events(run: Run) -> tuple[AgentEvent, ...]:
    """Translate a run's events; ids are ``1``, ``2`` ... in order, times are the run's or count the events.

    The goal is the first thing a user said; in a run without a user it is the first event, for no team starts without a
    task. A goal that the recording states apart comes first, as event ``0``. A result is filed under the agent whose
    call it answers when the recording names only the tool.
    """
    goal_at = next((index for index, line in enumerate(run.events) if line.kind == "user"), 0)
    events: list[AgentEvent] = []
    if run.goal is not None:
        goal_at = -1
        start = (run.events[0].t or 0.0) if run.is_timed else 0.0
        events.append(AgentEvent(id="0", ts=start, agent="user", kind="goal", text=run.goal))
    is_timed = run.is_timed
    caller: str | None = None
    called: str | None = None
    for index, line in enumerate(run.events):
        event = _event(index, line, index == goal_at, caller, called)
        if is_timed and line.t is not None:
            event = replace(event, ts=line.t)
        events.append(event)
        if event.kind == "tool_call":
            caller, called = event.agent, event.tool
        elif event.kind == "tool_result":
            called = None
    return tuple(events)


def call_in(text: str) -> tuple[str, str] | None:
    """The tool and the arguments' text of a call that is written as one, or None."""
    match = _CALL.match(text) or _ACT_FIRST.match(text) or _ACT_LAST.search(text[-_CALL_TAIL_CHARS:])
    return (match[1], match[2] or "") if match else None


def hash_of_arguments(arguments: str) -> str:
    """A short hash under which equal arguments meet: JSON by content, anything else by its words.

    Args:
        arguments: the text between a call's brackets.
    """
    try:
        plain = msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        plain = " ".join(arguments.split()).encode("utf-8", "replace")
    return hashlib.sha256(plain).hexdigest()[:16]


def success_in(text: str) -> bool | None:
    """Whether a tool's answer shows that the call succeeded or failed, or None when its form shows neither."""
    exit_code = _EXIT_CODE.match(text)
    if exit_code:
        return int(exit_code[1]) == 0
    if _FAILED.match(text) or _NOT_FOUND.match(text):
        return False
    if _DATA.match(text):
        return _ERROR_FIELD.search(text[:2000]) is None
    return None


def _event(index: int, line: RunLine, is_goal: bool, caller: str | None, called: str | None) -> AgentEvent:
    agent = _name(line.agent)
    plain = AgentEvent(id=str(index + 1), ts=float(index), agent=agent, kind="message", text=line.text)
    if is_goal:
        return replace(plain, kind="goal")
    if line.kind == "tool":
        world, _, tool = agent.partition(":")
        of_world = world.lower() in _WORLD
        return replace(
            plain,
            kind="tool_result",
            agent=caller if of_world and caller else agent,
            tool=_name(tool) if of_world and tool else called,
            ok=success_in(line.text),
        )
    call = call_in(line.text) if line.kind == "agent" else None
    if call is None:
        return plain
    return replace(plain, kind="tool_call", tool=call[0], args_hash=hash_of_arguments(call[1]))


def _name(recorded: str) -> str:
    return recorded.strip()[:NAME_CHARS_MAX] or "unnamed"
