"""The device's report: how an update went, signed with the device's own key, for fleets that decide by it.

Envelope, JSON: `{"v": 1, "device", "key": Ed25519 public key (64 hex digits), "report": TEXT, "sig": 128 hex digits}`.
The signature covers `b"nis-edge update report 1\\n"` and the bytes of TEXT, which is the JSON of `Report`. It lies on
`nis/v1/{site}/{device}/ota/report`, QoS 1 through the spool, so reports may come late, twice, and out of order: `seq`
of one key rises, and a reader keeps the highest. The publisher learns a device's key once: `nis-edge update identity`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import UPDATE_REPORT_BYTES_MAX
from nis_edge.update.journal import Hex64, Sha256
from nis_edge.update.time_floor import ClockState

DOMAIN: Final = b"nis-edge update report 1\n"
"""Put before what is signed, so that no signature of this key can be taken for one of something else."""

Outcome = Literal["none", "committed", "rolled_back", "refused", "failed", "aborted"]
"""How the last attempt under `serial` ended; `none` while it is under way or there was none."""

Hex128 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One report. What is unknown is None."""

    v: Literal[1] = 1
    device: Annotated[str, msgspec.Meta(max_length=64)]
    cohort: Annotated[str, msgspec.Meta(max_length=64)]
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    at: float
    """The device's wall clock, seconds since the epoch; see `clock_state`."""
    clock_state: ClockState
    state: Annotated[str, msgspec.Meta(max_length=16)]
    """A state of `update.machine`."""
    outcome: Outcome = "none"
    serial: int | None = None
    """Rollout serial of the model on its way or last attempted."""
    wave: int | None = None
    installed_version: Annotated[str, msgspec.Meta(max_length=64)]
    installed_sha256: Sha256 | None = None
    offered_version: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    offered_sha256: Sha256 | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    error_code: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Name of the error's class, e.g. TrialFailedError."""
    error: Annotated[str, msgspec.Meta(max_length=400)] | None = None
    agent_version: Annotated[str, msgspec.Meta(max_length=32)]
    release_counter_floor: int
    diverged: bool = False
    """Whether broker and server told this device different things for longer than both need to agree."""
    audit_head: Sha256 | None = None
    """Hash of the newest entry of the device's audit trail: a trail cut later no longer matches."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A report under a signature."""

    v: Literal[1] = 1
    device: Annotated[str, msgspec.Meta(max_length=64)]
    key: Hex64
    report: Annotated[str, msgspec.Meta(max_length=UPDATE_REPORT_BYTES_MAX)]
    sig: Hex128


def signed_bytes(report: str) -> bytes:
    """What the signature of a report covers."""
    return DOMAIN + report.encode()


def open_report(data: bytes, key: str | None = None) -> tuple[Report, str]:
    """Read and verify an envelope.

    Args:
        data: untrusted bytes.
        key: the public key this device is known by, 64 hex digits; None takes the one it brings (first contact).

    Returns:
        The report, and the key that signed it.

    Raises:
        UntrustedMetadataError: malformed, signed by another key, or not signed by the key it names.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(data) > UPDATE_REPORT_BYTES_MAX:
        raise UntrustedMetadataError(f"device report of {len(data)} bytes, at most {UPDATE_REPORT_BYTES_MAX} are read")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedMetadataError(f"device report is malformed: {error}") from error
    if key is not None and envelope.key != key:
        raise UntrustedMetadataError(f"report of device {envelope.device!r} is signed by another key than its own")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(envelope.key)).verify(
            bytes.fromhex(envelope.sig), signed_bytes(envelope.report)
        )
        report = msgspec.json.decode(envelope.report, type=Report)
    except (InvalidSignature, ValueError, RecursionError) as error:
        raise UntrustedMetadataError(f"report of device {envelope.device!r} is forged or damaged") from error
    if report.device != envelope.device:
        raise UntrustedMetadataError(f"report of device {report.device!r} comes as that of {envelope.device!r}")
    return report, envelope.key
