"""What each command does. One function a command; ``handlers`` is the table of them.

Arguments are checked against a declared form before anything is done. A command never gets more than a person at the
device's own command line: no shell, no file, no secret; the model changes only by signed updates.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol, TypeVar

import msgspec

from nis_edge import __version__
from nis_edge.commanding import Handler
from nis_edge.errors import ConfigError, EventFormatError, LinkError, UpdateError
from nis_edge.limits import NAME_CHARS_MAX
from nis_edge.mailbox import Mailbox, Request
from nis_edge.wire.codec import visible
from nis_edge.wire.messages import Assessment, Finding

A = TypeVar("A", bound=msgspec.Struct)

UPDATE_ANSWER_S: Final = 3600.0
"""A large model over a slow link takes as long; beyond, the answer is that it goes on."""

NOTE_CHARS_MAX: Final = 1000


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class LogLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``log-level``: until the next start or reload."""

    level: Literal["debug", "info", "warning", "error"]


class UpdateWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``update`` and ``ota``."""

    do: Literal["check", "apply", "rollback"] = "check"


class Opinion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``verdict``: whether a finding, named by its label and agents, was right."""

    label: str
    right: bool
    agents: list[str] | None = None
    note: str | None = None
    by: str | None = None


class Parts(Protocol):
    """The daemon, as far as commands reach."""

    last: Assessment | None
    boot_id: str

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        ...

    def view(self) -> dict[str, Any]:
        """The overview of everything."""
        ...

    def assess_now(self) -> Assessment | None:
        """Judge at once; the newest verdict."""
        ...

    def reload(self) -> dict[str, Any]:
        """Read the configuration file again."""
        ...

    def set_log_level(self, level: str) -> None:
        """Change what is logged."""
        ...

    def findings_of_late(self) -> list[Finding]:
        """Findings that are open or were, the newest last."""
        ...

    def record_opinion(self, finding: Finding, opinion: Opinion) -> None:
        """Publish what an operator thinks of a finding."""
        ...


def handlers(parts: Parts, mailbox: Callable[[], Mailbox | None]) -> Mapping[str, Handler]:
    """Every command by name.

    Args:
        parts: the daemon.
        mailbox: where requests to the update loop go; gives None when updates are off.
    """

    async def ping(args: dict[str, Any]) -> dict[str, Any]:
        _checked(args, Nothing)
        return {"version": __version__, "boot_id": parts.boot_id, "uptime_s": round(parts.uptime_s, 1)}

    async def status(args: dict[str, Any]) -> dict[str, Any]:
        _checked(args, Nothing)
        return parts.view()

    async def assess_now(args: dict[str, Any]) -> dict[str, Any]:
        _checked(args, Nothing)
        verdict = parts.assess_now()
        if verdict is None:
            raise LinkError("there is no verdict yet; try again in a second")
        labels = [finding.label for finding in verdict.findings]
        return {"ts": verdict.ts, "status": verdict.status, "level": verdict.level, "findings": labels}

    async def reload(args: dict[str, Any]) -> dict[str, Any]:
        _checked(args, Nothing)
        return parts.reload()

    async def log_level(args: dict[str, Any]) -> dict[str, Any]:
        wish = _checked(args, LogLevel)
        parts.set_log_level(wish.level)
        return {"level": wish.level, "until": "the next start or reload"}

    async def update(args: dict[str, Any]) -> dict[str, Any]:
        box = mailbox()
        if box is None:
            raise UpdateError("updates are off: the configuration pins a model; the model in service stays")
        return await _ask_updates(box, _checked(args, UpdateWish).do)

    async def verdict(args: dict[str, Any]) -> dict[str, Any]:
        opinion = _checked(args, Opinion)
        finding = _named(parts.findings_of_late(), opinion)
        short = msgspec.structs.replace(
            opinion,
            note=visible(opinion.note)[:NOTE_CHARS_MAX] if opinion.note else None,
            by=visible(opinion.by)[:NAME_CHARS_MAX] if opinion.by else None,
        )
        parts.record_opinion(finding, short)
        return {"label": finding.label, "agents": list(finding.agents), "since": finding.since, "right": opinion.right}

    return {
        "ping": ping,
        "status": status,
        "assess-now": assess_now,
        "reload": reload,
        "log-level": log_level,
        "update": update,
        "ota": update,
        "verdict": verdict,
    }


def _checked(args: dict[str, Any], form: type[A]) -> A:
    try:
        return msgspec.convert(args, form)
    except msgspec.ValidationError as error:
        fields = ", ".join(form.__struct_fields__) or "none"
        raise EventFormatError(f"arguments: {error}; known are: {fields}") from error


def _named(findings: list[Finding], opinion: Opinion) -> Finding:
    wanted = set(opinion.agents) if opinion.agents is not None else None
    for finding in reversed(findings):
        if finding.label == opinion.label and (wanted is None or wanted == set(finding.agents)):
            return finding
    known = sorted({f"{finding.label} ({', '.join(finding.agents)})" for finding in findings})[:8]
    raise ConfigError(f"no such finding of late; there are: {'; '.join(known) or 'none'}")


async def _ask_updates(box: Mailbox, do: Literal["check", "apply", "rollback"]) -> dict[str, Any]:
    request = Request(id=secrets.token_hex(8), do=do)
    loop = asyncio.get_running_loop()
    try:
        box.ask(request)
    except OSError as error:
        raise UpdateError(f"the request can't be left in the state folder: {error}; the old model stays") from error
    deadline = loop.time() + UPDATE_ANSWER_S
    while loop.time() < deadline:
        answer = box.read_answer(request.id)
        if answer is not None:
            if not answer.ok:
                raise UpdateError(answer.text)
            return {"text": answer.text}
        await asyncio.sleep(0.5)
    raise UpdateError("it is still under way after an hour; see ota/status. The old model serves until then")
