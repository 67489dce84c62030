"""The errors of nis-edge. The branch of an error answers one question: who must act?

A message says what happened, what is still safe, and what to do, in one line. Adapters translate foreign exceptions
into these at the sill, with ``from``; nothing above an adapter ever meets a library's own exception.
"""

from __future__ import annotations


class NisEdgeError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(NisEdgeError):
    """The operator acts: a configuration file, a flag or an input file is wrong."""


class EventFormatError(NisEdgeError):
    """The sender of an agent event acts: one event was refused, the stream goes on."""


class ModelError(NisEdgeError):
    """The builder of the model acts.

    What it says may quote a model's file, which others wrote: the message is held to one printable line of bounded
    length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class PackFormatError(ModelError):
    """The bytes of a model package break the format; nothing of it was used."""


class KernelUnavailableError(ModelError):
    """The instruction set asked for is not compiled in or not offered by this CPU."""


class DeviceError(NisEdgeError):
    """The hardware or the operating system stands in the way."""


class SensorUnavailableError(DeviceError):
    """A sensor is absent, unreadable or implausible; its reading is absent, never zero."""


class LinkError(NisEdgeError):
    """Time heals it: retry."""


class BrokerLostError(LinkError):
    """The MQTT broker is out of reach or refused; records wait in the spool."""


class CloudUnreachableError(LinkError):
    """The cloud model or a bucket is out of reach; local work goes on."""


class UpdateError(NisEdgeError):
    """The publisher acts; the old model stays in service."""


class UntrustedMetadataError(UpdateError):
    """Update metadata did not verify: unsigned, forged, expired, replayed or mixed."""


class RollbackRefusedError(UpdateError):
    """The update is older than what this device already trusted."""


class SlotWriteError(UpdateError):
    """The candidate could not be stored durably."""


class TrialFailedError(UpdateError):
    """The candidate loaded but failed its self-test."""


class DownloadInterruptedError(CloudUnreachableError):
    """A download ended early; what arrived is kept. ``retry_after_s`` is what the server asked for, or None."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DownloadStoppedError(UpdateError):
    """Somebody asked a download to stop (an abort, the daemon's end); what arrived is kept."""


_LINE_CHARS_MAX = 900
"""Of a message that quotes a file: its beginning says where and what, its end what to do."""


def _one_line(message: str) -> str:
    """The message without control characters; one that is too long loses its middle."""
    if not message.isprintable():
        message = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
    if len(message) > _LINE_CHARS_MAX:
        half = _LINE_CHARS_MAX // 2 - 4
        message = f"{message[:half]} [...] {message[-half:]}"
    return message
