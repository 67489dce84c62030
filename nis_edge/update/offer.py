"""What is on offer and whether this device takes it: signed facts, the rollout that points at them, one verdict.

Everything here was signed by somebody; nothing here is obeyed before it is judged against this device, its floors and
its denylist. The rollout document is signed online and can only *point at* a model that was also signed offline: same
name, same length, same hash. Whoever steals the online key can choose among listed models, never bring new bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from nis_edge.errors import RollbackRefusedError, UntrustedMetadataError, UpdateError
from nis_edge.limits import UPDATE_DOCUMENT_BYTES_MAX, UPDATE_MODEL_BYTES_MAX
from nis_edge.update.journal import Count, Journal, Sha256, Slot, Version

if TYPE_CHECKING:
    from nis_edge.pack.layout import Golden

MODEL_PATH: Final = re.compile(r"models/[a-z0-9][a-z0-9-]{0,63}/[0-9A-Za-z][0-9A-Za-z._+-]{0,31}\.nis")
"""The one shape of a model's target name. It has no room for `..`, an absolute path, a query or an escape."""

COHORT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
"""The same form as a site or a device has in topics."""

OLD_MODEL_STAYS: Final = "the running model stays in service"

ROLLOUT_PARTS: Final = 10_000
"""A rollout's share is counted in ten-thousandths (basis points)."""

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class SignedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The `custom` object that the offline models role signs beside a package's length and hash."""

    version: Version
    release_counter: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    security_epoch: Count = 0
    hardware: Annotated[tuple[Label, ...], msgspec.Meta(min_length=1, max_length=32)]
    """Hardware classes it may run on; `any` stands for all."""
    minimum_agent: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){0,3}\Z")] = "0"
    memory_bytes: Count = 0
    """Memory it needs to run; 0: not stated."""
    golden_sha256: Sha256 | None = None
    """Hash of the package's own golden list: the self-test must run exactly these."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """Who shall run what: `rollout/<cohort>.json`, signed online."""

    v: Literal[1] = 1
    cohort: Annotated[str, msgspec.Meta(pattern=rf"^{COHORT.pattern}\Z")]
    serial: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    target: Annotated[str, msgspec.Meta(max_length=128)]
    sha256: Sha256
    length: Annotated[int, msgspec.Meta(ge=1, le=UPDATE_MODEL_BYTES_MAX)]
    state: Literal["open", "paused", "aborted"] = "open"
    open_bp: Annotated[int, msgspec.Meta(ge=0, le=ROLLOUT_PARTS)] = ROLLOUT_PARTS


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One target as trusted metadata describes it."""

    path: str
    length: int
    sha256: str
    """Empty when it is signed with other hashes only; no device takes such a target."""
    custom: Mapping[str, Any]
    hashes: Mapping[str, str] = {}
    """All hashes it is signed with, in the metadata's order."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What an offer is judged against: who and what this device is."""

    id: str
    cohort: str
    hardware: frozenset[str]
    """Every class this device belongs to, e.g. {"aarch64", "raspberry-pi-5"}."""
    agent_version: str
    memory_bytes: int | None = None
    """Memory of the machine; None: unknown, and then not judged."""


@dataclass(frozen=True)
class Verdict:
    """Take it (`slot`), or not: `refusal` is None when there is simply nothing to do, and `text` says why."""

    text: str
    slot: Slot | None = None
    refusal: type[UpdateError] | None = None


_ROLLOUT_DECODER: Final = msgspec.json.Decoder(Rollout)


def read_rollout(data: bytes, cohort: str) -> Rollout:
    """Decode a rollout document that verified against its metadata.

    Raises:
        UntrustedMetadataError: it is malformed, too long, or speaks to another cohort; the publisher acts.
    """
    if len(data) > UPDATE_DOCUMENT_BYTES_MAX:
        raise UntrustedMetadataError(
            f"rollout document of {len(data)} bytes, at most {UPDATE_DOCUMENT_BYTES_MAX} are read; {OLD_MODEL_STAYS}"
        )
    try:
        rollout = _ROLLOUT_DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedMetadataError(f"rollout document is malformed: {error}; {OLD_MODEL_STAYS}") from error
    if rollout.cohort != cohort:
        raise UntrustedMetadataError(
            f"rollout document is for cohort {rollout.cohort!r}, this device is in {cohort!r}; {OLD_MODEL_STAYS}"
        )
    return rollout


def rollout_path(cohort: str) -> str:
    """The target name of a cohort's rollout document."""
    return f"rollout/{cohort}.json"


def golden_hash(golden: Iterable[Golden]) -> str:
    """SHA-256 over a package's golden entries: what the publisher signs and the self-test on the device must find.

    Spelt out field by field, so that a field added later changes no hash that was signed before.
    """
    entries = [[list(entry.tokens), entry.logits_sha256, sorted(entry.heads_sha256.items())] for entry in golden]
    return hashlib.sha256(msgspec.json.encode(entries)).hexdigest()


def check_path(path: str) -> str:
    """Return a model's target name when it is one.

    Raises:
        UntrustedMetadataError: the name has another shape than models/NAME/VERSION.nis.
    """
    if MODEL_PATH.fullmatch(path) is None:
        raise UntrustedMetadataError(
            f"target name {path[:80]!r} is not of the form models/NAME/VERSION.nis; {OLD_MODEL_STAYS}"
        )
    return path


def offered_version(target: Target | None) -> str | None:
    """The version of a target for the status; None when its signed facts are malformed."""
    try:
        return None if target is None else msgspec.convert(target.custom, SignedFacts).version
    except msgspec.ValidationError:
        return None


def rollout_bucket(rollout: Rollout, device_id: str) -> int:
    """The device's place, 0 to 9999, in this target's rollout: stable while the share grows, new for every target."""
    digest = hashlib.sha256(f"{rollout.sha256}\n{device_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % ROLLOUT_PARTS


def judge(rollout: Rollout, target: Target, device: Device, journal: Journal) -> Verdict:
    """Decide about the model a rollout points at.

    Args:
        rollout: the verified document for this device's cohort.
        target: what the offline models role signed under the rollout's target name.
        device: this device.
        journal: its floors, slots and denylist.
    """
    if target.path != rollout.target or target.sha256 != rollout.sha256 or target.length != rollout.length:
        return _refuse(UntrustedMetadataError, f"rollout of {rollout.target} differs from what is signed offline")
    try:
        facts = msgspec.convert(target.custom, SignedFacts)
    except msgspec.ValidationError as error:
        return _refuse(UntrustedMetadataError, f"signed facts of {target.path} are malformed: {error}")
    slot = Slot(
        sha256=target.sha256,
        version=facts.version,
        release_counter=facts.release_counter,
        security_epoch=facts.security_epoch,
        length=target.length,
        golden_sha256=facts.golden_sha256,
        serial=rollout.serial,
    )
    if journal.active is not None and journal.active.sha256 == slot.sha256:
        return Verdict(f"{facts.version} is installed")
    if rollout.state != "open":
        return Verdict(f"rollout of {facts.version} is {rollout.state}")
    if rollout_bucket(rollout, device.id) >= rollout.open_bp:
        return Verdict(f"rollout of {facts.version} has not reached this device yet")
    denial = journal.denial(slot.sha256, slot.serial)
    if denial is not None:
        return Verdict(f"{facts.version} failed here before ({denial.reason}); waiting for a newer rollout")
    floors = journal.floors
    if facts.release_counter < floors.release_counter or facts.security_epoch < floors.security_epoch:
        return _refuse(
            RollbackRefusedError,
            f"{facts.version} has release counter {facts.release_counter} and security epoch {facts.security_epoch}, "
            f"this device already ran {floors.release_counter} and {floors.security_epoch}",
        )
    unfit = _unfit(facts, device)
    return _refuse(UpdateError, f"{facts.version} {unfit}") if unfit else Verdict(f"{facts.version} is new", slot=slot)


def _unfit(facts: SignedFacts, device: Device) -> str | None:
    if "any" not in facts.hardware and not device.hardware & set(facts.hardware):
        return f"is for {', '.join(facts.hardware)}; this device is {', '.join(sorted(device.hardware))}"
    if _numbers(facts.minimum_agent) > _numbers(device.agent_version):
        return f"needs nis-edge {facts.minimum_agent} or newer; this is {device.agent_version}"
    if device.memory_bytes is not None and facts.memory_bytes > device.memory_bytes:
        return f"needs {facts.memory_bytes} bytes of memory; this device has {device.memory_bytes}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """`1.2.3rc1` -> (1, 2, 3): the leading numbers, enough to compare minimum versions."""
    numbers = []
    for part in version.split("."):
        digits = re.match(r"[0-9]{1,9}", part)
        if digits is None:
            break
        numbers.append(int(digits.group()))
    return tuple(numbers)


def _refuse(kind: type[UpdateError], what: str) -> Verdict:
    return Verdict(f"{what}; {OLD_MODEL_STAYS}", refusal=kind)
