"""The log events of nis-edge: every name that may appear in the log, with the fields it must carry.

Names are ``noun.past_verb``. A failure event has a field that says what is unharmed. ``check`` is called by the roof's
logger for every event in tests and in development, so a name that is not declared here never reaches a user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

REQUIRED_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    # model
    "model.loaded": ("model", "path", "load_ms", "isa", "threads"),
    "model.refused": ("path", "reason", "unharmed"),
    # events in
    "event.refused": ("reason", "unharmed"),
    "inbox.overflowed": ("agent", "dropped", "unharmed"),
    # judgement
    "window.assessed": ("status", "findings"),
    "answer.failed": ("reason", "unharmed"),
    "model.shed": ("reason", "unharmed"),
    "finding.raised": ("label", "severity", "agents"),
    "finding.cleared": ("label",),
    # daemon
    "daemon.started": ("version", "boot_id", "device"),
    "daemon.stopped": ("reason",),
    "loop.failed": ("loop", "reason", "unharmed"),
    "loop.restarted": ("loop", "restarts"),
    "loop.stalled": ("loops", "unharmed"),
    "demo.started": ("agents", "broker"),
    "config.loaded": ("path",),
    "config.reloaded": ("path", "changed"),
    "config.refused": ("path", "reason", "unharmed"),
    # telemetry
    "broker.connected": ("host", "port", "session_present"),
    "broker.lost": ("reason", "unharmed"),
    "spool.overflowed": ("dropped", "unharmed"),
    "spool.failed": ("reason", "unharmed"),
    "spool.recovered": ("waiting",),
    "spool.set_aside": ("reason", "unharmed"),
    "record.parked": ("reason", "unharmed"),
    "message.refused": ("reason", "unharmed"),
    "command.taken": ("command", "key"),
    "command.done": ("command", "key"),
    "command.refused": ("command", "reason", "unharmed"),
    "command.failed": ("command", "reason", "unharmed"),
    "desired.applied": ("version", "changed"),
    "desired.refused": ("version", "reason", "unharmed"),
    "desired.kept": ("version",),
    "desired.rolled_back": ("version", "reason", "unharmed"),
    "log.changed": ("to",),
    "subscription.refused": ("reason", "unharmed"),
    "api.started": ("address",),
    "api.failed": ("reason", "unharmed"),
    "sensor.failed": ("sensor", "reason", "unharmed"),
    "device.eased": ("to", "reason", "unharmed"),
    "device.recovered": (),
    # update
    "updates.started": ("installed", "version"),
    "update.noticed": ("source",),
    "update.refused": ("reason", "unharmed"),
    "target.verified": ("target", "sha256"),
    "slot.written": ("sha256",),
    "slot.activated": ("sha256", "version"),
    "slot.rolled_back": ("sha256", "reason", "unharmed"),
    "slot.committed": ("sha256", "version"),
    "slot.damaged": ("sha256", "reason", "unharmed"),
    "journal.damaged": ("path", "unharmed"),
    "update.failed": ("reason", "unharmed"),
    "update.decided": ("verdict",),
    "repository.forbade": ("reason", "unharmed"),
    "trial.passed": ("sha256", "version"),
    "trial.failed": ("sha256", "reason", "unharmed"),
}


def check(name: str, fields: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a log event, or None.

    Args:
        name: the event's name.
        fields: the fields it carries.
    """
    required = REQUIRED_FIELDS.get(name)
    if required is None:
        return f"log event {name!r} is not declared in nis_edge/events.py"
    missing = [field for field in required if field not in fields]
    return f"log event {name!r} lacks {', '.join(missing)}" if missing else None
