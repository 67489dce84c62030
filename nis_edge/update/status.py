"""The record of `ota/status`: what an operator, a fleet report or Home Assistant reads about this device's model."""

from __future__ import annotations

import msgspec

from nis_edge.update.machine import State, Update
from nis_edge.update.time_floor import ClockState

FACTORY: str = "factory"
"""What `installed_version` says while the model that was shipped with the software runs and its own is not known."""


class UpdateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One status record. `error` is None or one line; a device that only waits has state IDLE and no error."""

    state: str
    installed_version: str
    latest_version: str | None
    in_progress: bool
    update_percentage: int | None
    error: str | None
    detail: str | None
    clock_state: ClockState
    time_unverified: bool
    tries_left: int | None
    release_counter_floor: int
    generation: int
    diverged: str | None = None
    """Which of broker and server lags behind the other for too long, in words."""


def status_of(
    update: Update,
    *,
    clock_state: ClockState,
    factory_version: str | None = None,
    latest_version: str | None = None,
    percentage: int | None = None,
    error: str | None = None,
    detail: str | None = None,
    diverged: str | None = None,
) -> UpdateStatus:
    """The status that an update's state amounts to."""
    journal = update.journal
    return UpdateStatus(
        state=update.state.value,
        installed_version=journal.active.version if journal.active is not None else factory_version or FACTORY,
        latest_version=latest_version,
        in_progress=update.state is not State.IDLE,
        update_percentage=percentage if update.state is State.DOWNLOAD else None,
        error=error,
        detail=detail,
        clock_state=clock_state,
        time_unverified=clock_state != "synced",
        tries_left=journal.tries_left if journal.trial is not None else None,
        release_counter_floor=journal.floors.release_counter,
        generation=journal.generation,
        diverged=diverged,
    )
