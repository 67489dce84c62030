"""The rollout document: who shall run what, when. Signed by the online role; it can only point.

`rollout/<cohort>.json` speaks to a cohort, `rollout/dev.<id>.json` to one device and goes before it (no cohort's name
has a dot, so the two can't be confused). It names a model that was also signed offline, by equal name, length and hash.
Whoever steals the online key can hold devices back or choose among listed models, never bring new bytes.

A device finds its own place in a wave: bucket = H(target hash, device id) mod 10000 < open_bp, and its own start within
`spread_s` from H(device id, serial). Nobody keeps lists of devices, and a server meets an even load.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import UPDATE_DOCUMENT_BYTES_MAX, UPDATE_MODEL_BYTES_MAX, UPDATE_SPREAD_SECONDS_MAX
from nis_edge.update.facts import COHORT, OLD_MODEL_STAYS
from nis_edge.update.journal import Sha256

ROLLOUT_PARTS: Final = 10_000
"""A rollout's share is counted in ten-thousandths (basis points)."""

DAY_MINUTES: Final = 1440

Name = Annotated[str, msgspec.Meta(pattern=rf"^{COHORT.pattern}\Z")]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """When a new model may be tried, every day, in UTC. Downloading is allowed at any time."""

    start_minute: Annotated[int, msgspec.Meta(ge=0, lt=DAY_MINUTES)]
    minutes: Annotated[int, msgspec.Meta(ge=1, le=DAY_MINUTES)]
    """How long it is open; it may run over midnight."""
    without_clock: Literal["wait", "go"] = "wait"
    """What a device does whose clock can't be believed."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """Who shall run what: `rollout/<cohort>.json` or `rollout/dev.<id>.json`, signed online."""

    v: Literal[1] = 1
    cohort: Name
    device: Name | None = None
    """The one device it speaks to; inside the signature, so that nobody can replay it to another."""
    serial: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    """Rises with every new offer, not with a wave of it: a model that failed on a device is offered again only under a
    higher one."""
    target: Annotated[str, msgspec.Meta(max_length=128)]
    sha256: Sha256
    length: Annotated[int, msgspec.Meta(ge=1, le=UPDATE_MODEL_BYTES_MAX)]
    state: Literal["open", "paused", "aborted"] = "open"
    open_bp: Annotated[int, msgspec.Meta(ge=0, le=ROLLOUT_PARTS)] = ROLLOUT_PARTS
    wave: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """Number of the wave, for reports; devices go by open_bp."""
    not_before: Annotated[float, msgspec.Meta(ge=0, le=4_102_444_800)] | None = None
    """No device starts earlier; seconds since the epoch. Judged by the trusted time, so never early."""
    spread_s: Annotated[int, msgspec.Meta(ge=0, le=UPDATE_SPREAD_SECONDS_MAX)] = 0
    """Devices start evenly over this time."""
    window: Window | None = None


_DECODER: Final = msgspec.json.Decoder(Rollout)


_DEVICE_PREFIX: Final = "dev."


def rollout_path(name: str) -> str:
    """The target name of a rollout document: a cohort's, or the one called `override_name`."""
    return f"rollout/{name}.json"


def override_path(device: str) -> str:
    """The target name of the document that speaks to one device."""
    return rollout_path(override_name(device))


def override_name(device: str) -> str:
    """How one device's own rollout is called: `dev.ID`, which is no cohort's name."""
    return f"{_DEVICE_PREFIX}{device}"


def device_of(name: str) -> str | None:
    """The device whose own rollout is called `name`; None: it is a cohort's."""
    return name.removeprefix(_DEVICE_PREFIX) if name.startswith(_DEVICE_PREFIX) else None


def encode_rollout(rollout: Rollout) -> bytes:
    """The document's bytes; what is at its default is written too, so that a reader sees the whole.

    Raises:
        ValueError: its own reader would refuse it.
    """
    data = msgspec.json.encode(rollout)
    try:
        msgspec.json.decode(data, type=Rollout)
    except msgspec.ValidationError as error:
        raise ValueError(f"rollout document: {error}") from error
    return data


def read_rollout(data: bytes, cohort: str, device: str | None = None) -> Rollout:
    """Decode a rollout document that verified against its metadata.

    Args:
        data: the document.
        cohort: this device's.
        device: this device's id when the document is one that speaks to a single device.

    Raises:
        UntrustedMetadataError: it is malformed, too long, or speaks to others; the publisher acts.
    """
    if len(data) > UPDATE_DOCUMENT_BYTES_MAX:
        raise UntrustedMetadataError(
            f"rollout document of {len(data)} bytes, at most {UPDATE_DOCUMENT_BYTES_MAX} are read; {OLD_MODEL_STAYS}"
        )
    try:
        rollout = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedMetadataError(f"rollout document is malformed: {error}; {OLD_MODEL_STAYS}") from error
    if rollout.device != device:
        raise UntrustedMetadataError(
            f"rollout document speaks to {rollout.device or 'a whole cohort'!r}, this is {device or 'a cohort'!r}; "
            f"{OLD_MODEL_STAYS}"
        )
    if rollout.device is None and rollout.cohort != cohort:
        raise UntrustedMetadataError(
            f"rollout document is for cohort {rollout.cohort!r}, this device is in {cohort!r}; {OLD_MODEL_STAYS}"
        )
    return rollout


def rollout_bucket(rollout: Rollout, device_id: str) -> int:
    """The device's place, 0 to 9999, in this target's rollout: stable while the share grows, new for every target."""
    return _draw(f"{rollout.sha256}\n{device_id}") % ROLLOUT_PARTS


def start_delay_s(rollout: Rollout, device_id: str) -> float:
    """Seconds after the rollout reached it at which this device starts: evenly spread, new for every serial."""
    return rollout.spread_s * (_draw(f"{device_id}\n{rollout.serial}") / 2**64)


def starts_in_s(rollout: Rollout, device_id: str, *, now_s: float, known_for_s: float) -> float:
    """Seconds until this device starts: 0 when it is due.

    Args:
        rollout: the document.
        device_id: this device.
        now_s: the trusted time, seconds since the epoch.
        known_for_s: how long this device has known this serial; counts where the document names no moment.
    """
    since_s = now_s - rollout.not_before if rollout.not_before is not None else known_for_s
    return max(0.0, start_delay_s(rollout, device_id) - since_s)


def window_opens_in_s(window: Window | None, now_s: float, *, trusted: bool) -> float | None:
    """Seconds until a model may be tried: 0 within the window; None while only a believable clock could tell.

    Args:
        window: the document's.
        now_s: the trusted time, seconds since the epoch.
        trusted: whether the clock is synchronised.
    """
    if window is None or (not trusted and window.without_clock == "go"):
        return 0.0
    if not trusted:
        return None
    since_start_s = (now_s - 60 * window.start_minute) % (60 * DAY_MINUTES)
    return 0.0 if since_start_s < 60 * window.minutes else 60 * DAY_MINUTES - since_start_s


def _draw(text: str) -> int:
    """64 even bits from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
