"""MQTT topics under ``nis/v1/{site}/{device}/``: built from checked names, and parsed back.

A device's id comes from its configuration, never from a payload. An agent's name stands in the topic it publishes on,
so that a broker's access list can bind it; the codec refuses an event that names another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from nis_edge.errors import ConfigError, EventFormatError
from nis_edge.limits import NAME_CHARS_MAX
from nis_edge.wire.messages import Severity

ROOT: Final = "nis/v1"

_DEVICE_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", re.ASCII)
_WORD: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
# MQTT 5, 4.7: the separator and the two wildcards; control characters are refused for the reader's sake.
_LEVEL_BREAKERS: Final = re.compile("[/+#\\x00-\\x1f\\x7f-\\x9f]")


@dataclass(frozen=True)
class Topics:
    """Every topic of one device.

    Args:
        site: lower-case letters, digits and inner hyphens, at most 64.
        device: the same.

    Raises:
        ConfigError: a name is not of that form (the operator acts).
    """

    site: str
    device: str

    def __post_init__(self) -> None:
        for what, name in (("site", self.site), ("device", self.device)):
            if not _DEVICE_NAME.fullmatch(name):
                raise ConfigError(f"{what} name {name[:80]!r} must be 1 to 64 of a-z, 0-9 and inner hyphens")

    @property
    def prefix(self) -> str:
        """Without a trailing slash."""
        return f"{ROOT}/{self.site}/{self.device}"

    @property
    def status(self) -> str:
        """Retained birth; also the topic of the last will."""
        return f"{self.prefix}/status"

    @property
    def meta(self) -> str:
        """Retained description of hardware, sensors and model."""
        return f"{self.prefix}/meta"

    def telemetry(self, stream: str) -> str:
        """Batches of points: power, latency, system."""
        return f"{self.prefix}/telemetry/{_word(stream)}"

    def state(self, name: str) -> str:
        """Retained last value for dashboards."""
        return f"{self.prefix}/state/{_word(name)}"

    def event(self, severity: Severity) -> str:
        """Findings that changed state."""
        return f"{self.prefix}/event/{_word(severity)}"

    @property
    def assessment(self) -> str:
        """Every assessment, through the spool."""
        return f"{self.prefix}/assessment"

    @property
    def config_desired(self) -> str:
        """What the operator wants, retained."""
        return f"{self.prefix}/config/desired"

    @property
    def config_reported(self) -> str:
        """What the device made of it, retained."""
        return f"{self.prefix}/config/reported"

    def command(self, name: str) -> str:
        """A command to the device; never retained."""
        return f"{self.prefix}/cmd/{_word(name)}"

    @property
    def commands_filter(self) -> str:
        """Subscription to every command."""
        return f"{self.prefix}/cmd/+"

    def command_result(self, name: str) -> str:
        """Answer to a command."""
        return f"{self.prefix}/cmd/{_word(name)}/result"

    @property
    def ota_status(self) -> str:
        """Where an update stands, retained."""
        return f"{self.prefix}/ota/status"

    @property
    def ota_report(self) -> str:
        """The device's signed report of an update, through the spool."""
        return f"{self.prefix}/ota/report"

    @property
    def ota_request(self) -> str:
        """Where the device asks for blocks of a model."""
        return f"{self.prefix}/ota/request"

    @property
    def ota_block(self) -> str:
        """Where blocks come in."""
        return f"{self.prefix}/ota/block"

    def agent_event(self, agent: str) -> str:
        """Where one agent publishes its events.

        Raises:
            EventFormatError: the name can't be one level of a topic (the sender acts).
        """
        if not agent or len(agent) > NAME_CHARS_MAX or _LEVEL_BREAKERS.search(agent):
            raise EventFormatError(f"agent name {agent[:40]!r} can't stand in a topic")
        return f"{self.prefix}/agents/{agent}/event"

    @property
    def agent_events_filter(self) -> str:
        """Subscription to every agent's events."""
        return f"{self.prefix}/agents/+/event"

    def agent_of(self, topic: str) -> str | None:
        """The agent that may publish on ``topic``, or None when it is no agent-event topic of this device."""
        start, end = f"{self.prefix}/agents/", "/event"
        if not (topic.startswith(start) and topic.endswith(end)):
            return None
        agent = topic[len(start) : -len(end)]
        if not agent or len(agent) > NAME_CHARS_MAX or _LEVEL_BREAKERS.search(agent):
            return None
        return agent

    def command_of(self, topic: str) -> str | None:
        """The name of the command sent on ``topic``, or None when it is none of this device."""
        start = f"{self.prefix}/cmd/"
        name = topic[len(start) :] if topic.startswith(start) else ""
        return name if _WORD.fullmatch(name) else None


def _word(name: str) -> str:
    if not _WORD.fullmatch(name):
        raise ConfigError(f"topic word {name[:80]!r} must be 1 to 64 of a-z, 0-9, _ and -")
    return name
