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
from typing import TYPE_CHECKING, Any

import msgspec

from nis_edge.errors import RollbackRefusedError, UntrustedMetadataError, UpdateError
from nis_edge.update.facts import OLD_MODEL_STAYS, SignedFacts, read_facts
from nis_edge.update.journal import Journal, Slot, Terms
from nis_edge.update.rollout import Rollout, rollout_bucket
from nis_edge.update.terms import terms_of

if TYPE_CHECKING:
    from nis_edge.pack.layout import Golden


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
    kernel_abi: int | None = None
    """Interface number of the engine; None: unknown, and then not judged."""


@dataclass(frozen=True)
class Verdict:
    """Take it (`slot`), or not: `refusal` is None when there is simply nothing to do, and `text` says why."""

    text: str
    slot: Slot | None = None
    facts: SignedFacts | None = None
    refusal: type[UpdateError] | None = None


def golden_hash(golden: Iterable[Golden]) -> str:
    """SHA-256 over a package's golden entries: what the publisher signs and the self-test on the device must find.

    Spelt out field by field, so that a field added later changes no hash that was signed before.
    """
    entries = [[list(entry.tokens), entry.logits_sha256, sorted(entry.heads_sha256.items())] for entry in golden]
    return hashlib.sha256(msgspec.json.encode(entries)).hexdigest()


def offered_version(target: Target | None) -> str | None:
    """The version of a target for the status; None when its signed facts are malformed."""
    try:
        return None if target is None else read_facts(target.custom).version
    except msgspec.ValidationError:
        return None


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
        facts = read_facts(target.custom)
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
        terms=terms if (terms := terms_of(facts)) != Terms() else None,
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
    return (
        _refuse(UpdateError, f"{facts.version} {unfit}")
        if unfit
        else Verdict(f"{facts.version} is new", slot=slot, facts=facts)
    )


def _unfit(facts: SignedFacts, device: Device) -> str | None:
    if "any" not in facts.hardware and not device.hardware & set(facts.hardware):
        return f"is for {', '.join(facts.hardware)}; this device is {', '.join(sorted(device.hardware))}"
    if _numbers(facts.minimum_agent) > _numbers(device.agent_version):
        return f"needs nis-edge {facts.minimum_agent} or newer; this is {device.agent_version}"
    if device.kernel_abi is not None and facts.kernel_abi > device.kernel_abi:
        return f"needs engine interface {facts.kernel_abi}; this nis-edge has {device.kernel_abi}"
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
