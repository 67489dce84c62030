"""The fleet as its signed reports tell it: which devices, what they run, how a rollout goes.

A report counts only when it is signed by the key its device is enrolled with. What a broker, or anyone who can publish
on it, invents is shown as not verified and moves no rollout.

    DIR/fleet/devices.json    device id -> Ed25519 public key (64 hex digits), as `nis-edge update identity` prints it
    DIR/fleet/reports.jsonl   the newest envelope of every device, verbatim, so that anyone can verify it again
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from nis_edge.errors import NisEdgeError
from nis_edge.limits import UPDATE_REPORT_BYTES_MAX
from nis_edge.update.facts import COHORT
from nis_edge.update.journal import HEX64, Hex64
from nis_edge.update.report import Envelope, Report, open_report
from nis_edge.update.rollout import Rollout, rollout_bucket
from nis_ota.errors import PublisherError
from nis_ota.files import write_durably

FOLDER: Final = "fleet"
UNVERIFIED_MAX: Final = 1000
"""How many devices that nobody enrolled are kept to be shown: enough to see them, too few to fill a disk."""


@dataclass(frozen=True)
class Seen:
    """One device's newest report, and whether it may be believed."""

    report: Report
    key: str
    verified: bool
    envelope: bytes


@dataclass(frozen=True)
class Progress:
    """How one rollout goes, by verified reports of its cohort.

    `reached` devices lie in the open share; of them, `succeeded` run the model, `failed` tried it and did not keep it,
    `refused` found that it is not for them, the rest are `waiting`.
    """

    reached: int
    succeeded: int
    failed: int
    refused: int

    @property
    def waiting(self) -> int:
        """Devices that have not decided."""
        return self.reached - self.succeeded - self.failed - self.refused

    @property
    def tried(self) -> int:
        """Devices that tried it."""
        return self.succeeded + self.failed

    @property
    def failure_share(self) -> float | None:
        """Failures among those that tried; None while nobody has."""
        return self.failed / self.tried if self.tried else None

    @property
    def success_share(self) -> float | None:
        """Successes among those that were reached; None while nobody was."""
        return self.succeeded / self.reached if self.reached else None


class Fleet:
    """The registry and the newest reports of a repository's fleet."""

    def __init__(self, repository: Path) -> None:
        self._folder = repository / FOLDER
        self.devices: dict[str, str] = _read_devices(self._folder / "devices.json")
        self._seen: dict[str, Seen] = {}
        path = self._folder / "reports.jsonl"
        if path.is_file():
            with path.open("rb") as file:
                self.absorb(line.rstrip(b"\n") for line in file)

    def enroll(self, device: str, key: str) -> bool:
        """Say which key a device signs with; False when that was known.

        Raises:
            PublisherError: the id or key cannot be one, or the device has another key.
        """
        if COHORT.fullmatch(device) is None:
            raise PublisherError(f"device {device!r} cannot be one: 1 to 64 of a-z, 0-9 and inner hyphens")
        if HEX64.fullmatch(key) is None:
            raise PublisherError(f"key of {device} must be 64 hex digits, as nis-edge update identity prints it")
        if self.devices.get(device) not in (None, key):
            raise PublisherError(f"{device} is enrolled with another key; take that back first: device forget {device}")
        known = self.devices.get(device) == key
        self.devices[device] = key
        self._write_devices()
        return not known

    def forget(self, device: str) -> None:
        """Take a device off the registry, and its report with it.

        Raises:
            PublisherError: it is not on it.
        """
        if self.devices.pop(device, None) is None:
            raise PublisherError(f"{device!r} is not enrolled; see nis-ota fleet-status")
        self._write_devices()
        self._seen.pop(device, None)
        self.save()

    def absorb(self, envelopes: Iterable[bytes]) -> list[str]:
        """Take in reports in any order, also twice; return why some were not, one line each."""
        refused = []
        for envelope in envelopes:
            if not envelope.strip():
                continue
            try:
                self._absorb(envelope)
            except NisEdgeError as error:
                refused.append(str(error))
        return refused

    def reports(self) -> list[Seen]:
        """The newest report of every device, by its id."""
        return [self._seen[device] for device in sorted(self._seen)]

    def save(self) -> None:
        """Keep the newest reports for the next time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(seen.envelope + b"\n" for seen in self.reports())
        write_durably(self._folder / "reports.jsonl", lines)

    def progress(self, rollout: Rollout) -> Progress:
        """How a rollout goes, by what verified devices of its cohort have said."""
        reached = succeeded = failed = refused = 0
        for seen in self._seen.values():
            report = seen.report
            if not seen.verified or report.cohort != rollout.cohort:
                continue
            if rollout.device is not None and report.device != rollout.device:
                continue
            tried = report.serial == rollout.serial and report.offered_sha256 in (None, rollout.sha256)
            runs = report.installed_sha256 == rollout.sha256
            inside = rollout_bucket(rollout, report.device) < rollout.open_bp
            if not (inside or runs or (tried and report.outcome != "none")):
                continue
            reached += 1
            if runs:
                succeeded += 1
            elif tried and report.outcome == "rolled_back":
                failed += 1
            elif tried and report.outcome == "refused":
                refused += 1
        return Progress(reached, succeeded, failed, refused)

    def _absorb(self, envelope: bytes) -> None:
        if len(envelope) > UPDATE_REPORT_BYTES_MAX:
            raise PublisherError(f"report of {len(envelope)} bytes, at most {UPDATE_REPORT_BYTES_MAX} are read")
        report, key = open_report(envelope, self.devices.get(_device_of(envelope)))
        verified = report.device in self.devices
        before = self._seen.get(report.device)
        if before is not None and before.verified == verified and before.report.seq >= report.seq:
            return  # late or twice: the highest number is the newest
        if before is not None and before.verified and not verified:
            return
        if before is None and not verified and len(self._seen) - len(self.devices) >= UNVERIFIED_MAX:
            raise PublisherError(f"report of {report.device!r} is not kept: too many devices that nobody enrolled")
        self._seen[report.device] = Seen(report, key, verified, envelope)

    def _write_devices(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(sorted(self.devices.items())), indent=1)
        write_durably(self._folder / "devices.json", text.encode() + b"\n")


def read_reports(path: Path) -> list[bytes]:
    """Envelopes from a file, one a line, as a subscriber wrote them."""
    with path.open("rb") as file:
        return [line.rstrip(b"\n") for line in file]


def _device_of(envelope: bytes) -> str:
    """Whose report it says it is: decides only which key it must verify with."""
    try:
        return msgspec.json.decode(envelope, type=Envelope).device
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PublisherError(f"a report is malformed: {error}") from error


def _read_devices(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    name = Annotated[str, msgspec.Meta(pattern=rf"^{COHORT.pattern}\Z")]
    try:
        found: Mapping[str, str] = msgspec.json.decode(path.read_bytes(), type=dict[name, Hex64])
    except msgspec.MsgspecError as error:
        raise PublisherError(f"{path} cannot be read: {error}; restore it from a backup") from error
    return dict(found)
