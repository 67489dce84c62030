"""The life of one model update: one transition table, from which the diagram in the documentation is drawn.

Theory of operation. An offer that verified walks down the table. Until STAGED nothing but the store is touched and the
journal says nothing: a cut there loses at most a download that resumes. From TRIAL on every step is first written to
the journal (effect PERSIST comes before any other), so that whatever the moment of a power cut, the next start finds
either the old model or the new one. Each run of the self-test and each start under probation costs one of `tries_left`
*before* it happens, so that a model which takes the device down with it cannot do so more often than that. Floors rise
only at COMMITTED. A model that failed is denied until a rollout with a newer serial offers it again.

Every row is (state, event) -> (next state, change of the journal, effects). What is not in the table does not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import msgspec

from nis_edge.limits import UPDATE_DENIED_MAX, UPDATE_ROLES_MAX, UPDATE_TRANSITIONS_MAX, UPDATE_TRIES
from nis_edge.update.journal import (
    DENIED_REASON_CHARS,
    ROLE_NAME_CHARS_MAX,
    Denied,
    Floors,
    Journal,
    JournalState,
    RoleFloor,
    Slot,
)


class State(str, Enum):
    """Where an update stands."""

    IDLE = "IDLE"
    PLAN = "PLAN"
    DOWNLOAD = "DOWNLOAD"
    VERIFY = "VERIFY"
    STAGED = "STAGED"
    TRIAL = "TRIAL"
    SELFTEST = "SELFTEST"
    SHADOW = "SHADOW"
    PROBATION = "PROBATION"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


class Event(str, Enum):
    """What happened, as the roof reports it."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    DOWNLOADED = "downloaded"
    FAILED = "failed"
    INTACT = "intact"
    ABORTED = "aborted"
    APPROVED = "approved"
    TRY = "try"
    EXHAUSTED = "exhausted"
    PASSED = "passed"
    SHADOW_ASKED = "passed, shadow asked"
    AGREED = "agreed"
    RESTARTED = "restarted"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    ROLLBACK_ASKED = "rollback asked"
    DAMAGED = "damaged"
    SETTLED = "settled"


class Effect(str, Enum):
    """What the roof does next, in order."""

    PERSIST = "write the journal"
    JUDGE = "judge the offer"
    FETCH = "download"
    VERIFY = "re-read and hash"
    CHECK_ABORT = "look for an abort"
    NEXT_TRY = "try, if one is left"
    SELF_TEST = "run the self-test"
    SHADOW = "let it judge beside the running model"
    ACTIVATE = "switch to the new model"
    WATCH = "watch its health"
    RESTORE = "switch back"
    SETTLE = "report, tidy the store"


@dataclass(frozen=True)
class Update:
    """The whole state of the update room: where it stands, the model on its way, the journal as last decided."""

    state: State = State.IDLE
    candidate: Slot | None = None
    journal: Journal = field(default_factory=Journal)
    transitions: int = 0


Change = Callable[[Update, str], Journal]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    to: State
    effects: tuple[Effect, ...] = ()
    change: Change | None = None


def _begin_trial(update: Update, _reason: str) -> Journal:
    assert update.candidate is not None
    return msgspec.structs.replace(update.journal, trial=update.candidate, tries_left=UPDATE_TRIES)


def _spend_try(update: Update, _reason: str) -> Journal:
    return msgspec.structs.replace(update.journal, tries_left=max(0, update.journal.tries_left - 1))


def _renew_tries(update: Update, _reason: str) -> Journal:
    return msgspec.structs.replace(update.journal, tries_left=UPDATE_TRIES - 1)


def _keep(update: Update, _reason: str) -> Journal:
    return update.journal


def _commit(update: Update, _reason: str) -> Journal:
    journal, trial = update.journal, update.journal.trial
    assert trial is not None
    floors = msgspec.structs.replace(
        journal.floors,
        release_counter=max(journal.floors.release_counter, trial.release_counter),
        security_epoch=max(journal.floors.security_epoch, trial.security_epoch),
    )
    kept = msgspec.structs.replace(trial, terms=None)
    return msgspec.structs.replace(
        journal, active=kept, previous=journal.active, trial=None, tries_left=0, floors=floors
    )


def _roll_back(update: Update, reason: str) -> Journal:
    journal, trial = update.journal, update.journal.trial
    assert trial is not None
    return msgspec.structs.replace(journal, trial=None, tries_left=0, denied=deny(journal.denied, trial, reason))


def _return_to_previous(update: Update, reason: str) -> Journal:
    journal, active = update.journal, update.journal.active
    assert active is not None
    return msgspec.structs.replace(
        journal, active=journal.previous, previous=None, denied=deny(journal.denied, active, reason)
    )


def _drop_active(update: Update, _reason: str) -> Journal:
    """Not denied: the same content may come again from the publisher, undamaged."""
    return msgspec.structs.replace(update.journal, active=update.journal.previous, previous=None)


_S, _E, _F = State, Event, Effect

TABLE: Final[dict[tuple[State, Event], Row]] = {
    (_S.IDLE, _E.OFFERED): Row(_S.PLAN, (_F.JUDGE,)),
    (_S.IDLE, _E.ROLLBACK_ASKED): Row(_S.ROLLED_BACK, (_F.RESTORE, _F.SETTLE), _return_to_previous),
    (_S.IDLE, _E.DAMAGED): Row(_S.IDLE, (), _drop_active),
    (_S.PLAN, _E.ACCEPTED): Row(_S.DOWNLOAD, (_F.FETCH,)),
    (_S.PLAN, _E.REFUSED): Row(_S.IDLE),
    (_S.DOWNLOAD, _E.DOWNLOADED): Row(_S.VERIFY, (_F.VERIFY,)),
    (_S.DOWNLOAD, _E.FAILED): Row(_S.IDLE),
    (_S.DOWNLOAD, _E.ABORTED): Row(_S.IDLE),
    (_S.VERIFY, _E.INTACT): Row(_S.STAGED, (_F.CHECK_ABORT,)),
    (_S.VERIFY, _E.FAILED): Row(_S.IDLE),
    (_S.VERIFY, _E.DAMAGED): Row(_S.DOWNLOAD, (_F.FETCH,)),
    (_S.STAGED, _E.APPROVED): Row(_S.TRIAL, (_F.NEXT_TRY,), _begin_trial),
    (_S.STAGED, _E.ABORTED): Row(_S.IDLE),
    (_S.TRIAL, _E.TRY): Row(_S.SELFTEST, (_F.SELF_TEST,), _spend_try),
    (_S.TRIAL, _E.RESTARTED): Row(_S.TRIAL, (_F.NEXT_TRY,), _keep),
    (_S.TRIAL, _E.EXHAUSTED): Row(_S.ROLLED_BACK, (_F.SETTLE,), _roll_back),
    (_S.SELFTEST, _E.PASSED): Row(_S.PROBATION, (_F.ACTIVATE, _F.WATCH), _renew_tries),
    (_S.SELFTEST, _E.SHADOW_ASKED): Row(_S.SHADOW, (_F.SHADOW,), _keep),
    (_S.SELFTEST, _E.FAILED): Row(_S.ROLLED_BACK, (_F.SETTLE,), _roll_back),
    (_S.SELFTEST, _E.RESTARTED): Row(_S.TRIAL, (_F.NEXT_TRY,), _keep),
    (_S.SHADOW, _E.RESTARTED): Row(_S.SHADOW, (_F.SHADOW,), _keep),
    (_S.SHADOW, _E.AGREED): Row(_S.PROBATION, (_F.ACTIVATE, _F.WATCH), _renew_tries),
    (_S.SHADOW, _E.FAILED): Row(_S.ROLLED_BACK, (_F.SETTLE,), _roll_back),
    (_S.SHADOW, _E.ROLLBACK_ASKED): Row(_S.ROLLED_BACK, (_F.SETTLE,), _roll_back),
    (_S.PROBATION, _E.RESTARTED): Row(_S.PROBATION, (_F.WATCH,), _spend_try),
    (_S.PROBATION, _E.EXHAUSTED): Row(_S.ROLLED_BACK, (_F.RESTORE, _F.SETTLE), _roll_back),
    (_S.PROBATION, _E.UNHEALTHY): Row(_S.ROLLED_BACK, (_F.RESTORE, _F.SETTLE), _roll_back),
    (_S.PROBATION, _E.ROLLBACK_ASKED): Row(_S.ROLLED_BACK, (_F.RESTORE, _F.SETTLE), _roll_back),
    (_S.PROBATION, _E.HEALTHY): Row(_S.COMMITTED, (_F.SETTLE,), _commit),
    (_S.COMMITTED, _E.SETTLED): Row(_S.IDLE),
    (_S.ROLLED_BACK, _E.SETTLED): Row(_S.IDLE),
}


class NotInTableError(Exception):
    """The roof reported an event that cannot happen in this state: a fault of ours, never of the publisher."""


def step(
    update: Update, event: Event, *, reason: str = "", candidate: Slot | None = None
) -> tuple[Update, tuple[Effect, ...]]:
    """Move one row down the table.

    Args:
        update: where things stand.
        event: what happened.
        reason: why, for a denial that the row may write.
        candidate: the model accepted; only with ACCEPTED.

    Returns:
        The new state, and the effects to perform in order; PERSIST stands first whenever the journal changed.

    Raises:
        NotInTableError: the table has no such row.
    """
    row = TABLE.get((update.state, event))
    if row is None:
        raise NotInTableError(f"no transition from {update.state.value} on {event.value!r}")
    transitions = update.transitions + 1
    if transitions > UPDATE_TRANSITIONS_MAX and row.to not in _ENDS:
        return _stop_at_cap(update)
    if candidate is not None:
        update = replace(update, candidate=candidate)
    journal, effects = update.journal, row.effects
    if row.change is not None:
        journal = msgspec.structs.replace(
            row.change(update, reason),
            state=_journalled(row.to),
            generation=update.journal.generation + 1,
            transitions=transitions,
        )
        effects = (_F.PERSIST, *effects)
    if row.to is _S.IDLE:
        return Update(journal=journal), effects
    return Update(state=row.to, candidate=update.candidate, journal=journal, transitions=transitions), effects


_ENDS: Final = frozenset({_S.IDLE, _S.COMMITTED, _S.ROLLED_BACK})


def _stop_at_cap(update: Update) -> tuple[Update, tuple[Effect, ...]]:
    """End an update that goes round in circles: back to the active model, or just back to IDLE before TRIAL."""
    if update.journal.trial is None:
        return Update(journal=update.journal), ()
    journal = msgspec.structs.replace(
        _roll_back(update, f"more than {UPDATE_TRANSITIONS_MAX} transitions"),
        state="ROLLED_BACK",
        generation=update.journal.generation + 1,
        transitions=0,
    )
    stopped = Update(state=_S.ROLLED_BACK, candidate=update.candidate, journal=journal)
    return stopped, (_F.PERSIST, _F.RESTORE, _F.SETTLE)


def _journalled(state: State) -> JournalState:
    names: dict[State, JournalState] = {
        _S.IDLE: "IDLE",
        _S.TRIAL: "TRIAL",
        _S.SELFTEST: "SELFTEST",
        _S.SHADOW: "SHADOW",
        _S.PROBATION: "PROBATION",
        _S.COMMITTED: "COMMITTED",
        _S.ROLLED_BACK: "ROLLED_BACK",
    }
    return names[state]


def deny(denied: tuple[Denied, ...], slot: Slot, reason: str) -> tuple[Denied, ...]:
    """The denylist with `slot` on it; the oldest entry leaves when it is full."""
    others = tuple(entry for entry in denied if entry.sha256 != slot.sha256)
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in reason[:DENIED_REASON_CHARS])
    entry = Denied(sha256=slot.sha256, serial=slot.serial, reason=plain)
    return (*others, entry)[-UPDATE_DENIED_MAX:]


def resume(journal: Journal) -> tuple[Update, Event | None]:
    """Where a fresh start finds the update, and the event that sets it going again (None: nothing was under way)."""
    if journal.trial is None or journal.state not in ("TRIAL", "SELFTEST", "SHADOW", "PROBATION"):
        return Update(journal=journal), None
    update = Update(
        state=State(journal.state), candidate=journal.trial, journal=journal, transitions=journal.transitions
    )
    if update.state is _S.PROBATION and journal.tries_left == 0:
        return update, Event.EXHAUSTED
    return update, Event.RESTARTED


def bounded_roles(roles: Mapping[str, RoleFloor]) -> dict[str, RoleFloor]:
    """The floors a record can carry: top-level roles first, then delegated ones in the order they were met."""
    kept = [name for name in ("root", "timestamp", "snapshot", "targets") if name in roles]
    kept += [name for name in roles if name not in kept and len(name) <= ROLE_NAME_CHARS_MAX]
    return {name: roles[name] for name in kept[:UPDATE_ROLES_MAX]}


def with_floors(update: Update, floors: Floors) -> Update:
    """The same update with new floors in a journal of the next generation; the caller writes it."""
    journal = msgspec.structs.replace(update.journal, floors=floors, generation=update.journal.generation + 1)
    return replace(update, journal=journal)


def next_try(update: Update) -> Event:
    """TRY while a try is left, else EXHAUSTED."""
    return Event.TRY if update.journal.tries_left > 0 else Event.EXHAUSTED


def render_mermaid() -> str:
    """The table as a mermaid state diagram, in the order of the table."""
    lines = ["stateDiagram-v2", "    [*] --> IDLE"]
    for (state, event), row in TABLE.items():
        what = f" / {', '.join(effect.value for effect in row.effects)}" if row.effects else ""
        mark = " [journal]" if row.change is not None else ""
        lines.append(f"    {state.value} --> {row.to.value}: {event.value}{mark}{what}")
    return "\n".join(lines) + "\n"
