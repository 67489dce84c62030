"""Which model a starting daemon loads: trial under probation, active, previous, factory, or none (telemetry only).

Each candidate is hashed whole and loaded through the very descriptor that was hashed. A start under probation costs one
of the trial's tries before the trial is touched, so that a model which crashes the daemon cannot do so for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.errors import ModelError, SlotWriteError
from nis_edge.update.journal import Journal, Slot
from nis_edge.update.machine import Event, State, Update, resume, step

T = TypeVar("T")

Origin = Literal["trial", "active", "previous", "factory", "none"]

Log = Callable[..., None]
"""Called as log("noun.past_verb", field=value, ...)."""


@dataclass(frozen=True)
class Booted(Generic[T]):
    """What was loaded, and where updates stand; the `UpdateLoop` goes on from `update`."""

    model: T | None
    origin: Origin
    slot: Slot | None
    update: Update


def descriptor_path(fd: int) -> Path:
    """A path that opens exactly the file behind a descriptor of this process, whatever its name points at by now."""
    return Path(f"/proc/self/fd/{fd}")


def boot_model(store: SlotStore, load: Callable[[Path], T], factory: Path | None, log: Log) -> Booted[T]:
    """Load the best model there is.

    Args:
        store: the update store; it may be empty, damaged or on a read-only disk.
        load: opens a package by path; raises ModelError or OSError when it cannot.
        factory: the package that was shipped, or None.
        log: where log events go.
    """
    journal = _read_journal(store, log)
    update, event = resume(journal)
    if update.state is State.PROBATION and event is not None:
        update = _enter_probation(store, update, event, log)
        slot = update.journal.trial
        if slot is not None and update.state is State.PROBATION:
            model = _load(store, slot, load, log)
            if model is not None:
                return Booted(model, "trial", slot, update)
            update = _advance(store, update, Event.UNHEALTHY, "does not load at start", log)
    if update.state is State.ROLLED_BACK:
        update = _advance(store, update, Event.SETTLED, "", log)
    return _boot_settled(store, update, load, factory, log)


def _boot_settled(
    store: SlotStore, update: Update, load: Callable[[Path], T], factory: Path | None, log: Log
) -> Booted[T]:
    for origin, slot in _slots(update.journal):
        model = _load(store, slot, load, log)
        if model is None:
            continue
        if origin == "previous" and update.state is State.IDLE:
            update = _advance(store, update, Event.DAMAGED, "", log)
        return Booted(model, origin, slot, update)
    if update.journal.active is not None and update.state is State.IDLE:
        # Neither slot is whole: both leave the journal, so that the publisher's current model is fetched again.
        for _ in range(2 if update.journal.previous is not None else 1):
            update = _advance(store, update, Event.DAMAGED, "", log)
    if factory is not None:
        try:
            return Booted(load(factory), "factory", None, update)
        except (ModelError, OSError) as error:
            log("model.refused", path=str(factory), reason=str(error), unharmed="telemetry goes on without a model")
    return Booted(None, "none", None, update)


def _slots(journal: Journal) -> Iterator[tuple[Origin, Slot]]:
    if journal.active is not None:
        yield "active", journal.active
    if journal.previous is not None:
        yield "previous", journal.previous


def _read_journal(store: SlotStore, log: Log) -> Journal:
    try:
        store.prepare()
    except SlotWriteError as error:
        log("update.failed", reason=str(error), unharmed="the model in the store is still read")
    journal = store.read_journal()
    if journal is None:
        if store.has_journal():
            log(
                "journal.damaged",
                path=store.journal_path,
                unharmed="the factory model runs; signed metadata still guards every update",
            )
        return Journal()
    return journal


def _enter_probation(store: SlotStore, update: Update, event: Event, log: Log) -> Update:
    """Spend a try durably, or take no risk: without a durable record the trial must not run."""
    moved, _ = step(update, event, reason="no tries left after restarts")
    try:
        store.write_journal(moved.journal)
    except SlotWriteError as error:
        log("update.failed", reason=str(error), unharmed="the trial waits; the active model is loaded")
        return Update(journal=update.journal)
    if event is Event.EXHAUSTED:
        log_rolled_back(log, update.journal.trial, "no tries left after restarts")
    return moved


def _advance(store: SlotStore, update: Update, event: Event, reason: str, log: Log) -> Update:
    """One row of the table whose effects at boot are only the journal's."""
    moved, _ = step(update, event, reason=reason)
    if event is Event.UNHEALTHY:
        log_rolled_back(log, update.journal.trial, reason)
    if moved.journal.generation != update.journal.generation:
        try:
            store.write_journal(moved.journal)
        except SlotWriteError as error:
            log("update.failed", reason=str(error), unharmed="the decision is taken again at the next start")
    return moved


def log_rolled_back(log: Log, slot: Slot | None, reason: str) -> None:
    """The one log event of a rollback."""
    sha256 = slot.sha256 if slot is not None else ""
    log("slot.rolled_back", sha256=sha256, reason=reason, unharmed="the previous model is in service")


def _load(store: SlotStore, slot: Slot, load: Callable[[Path], T], log: Log) -> T | None:
    fd = store.open_verified(slot.sha256, slot.length or None)
    if fd is None:
        log("slot.damaged", sha256=slot.sha256, reason="absent or not as signed", unharmed="an older model is tried")
        return None
    try:
        return load(descriptor_path(fd))
    except (ModelError, OSError) as error:
        log("slot.damaged", sha256=slot.sha256, reason=str(error), unharmed="an older model is tried")
        return None
    finally:
        store.close(fd)
