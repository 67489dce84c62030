"""A rollout in waves: open to a small share first, wider while devices report success, halted when they report failure.

The document that devices read (signed online) says how far it is open; the plan, which only the publisher needs, lies
beside it in `DIR/rollouts/COHORT.json`. `judge` is pure: it looks at progress and says what to do next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from nis_edge.update.rollout import ROLLOUT_PARTS, Rollout, override_name
from nis_ota.errors import PublisherError
from nis_ota.files import write_durably
from nis_ota.fleet import Progress
from nis_ota.repository import Repository

FOLDER: Final = "rollouts"
WAVES: Final = (100, 1000, 5000, ROLLOUT_PARTS)
"""One device in a hundred, in ten, in two, all: in ten-thousandths of the cohort."""

WAVES_MAX: Final = 1000

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
BasisPoints = Annotated[int, msgspec.Meta(ge=1, le=ROLLOUT_PARTS)]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout widens, and when it stops by itself."""

    waves: Annotated[tuple[BasisPoints, ...], msgspec.Meta(min_length=1, max_length=WAVES_MAX)] = WAVES
    halt_percent: Percent = 5.0
    """Halt when at least this share of the devices that tried it failed ..."""
    halt_after: Annotated[int, msgspec.Meta(ge=1)] = 5
    """... and at least so many tried."""
    advance_percent: Percent = 90.0
    """Next wave when at least this share of the devices the present one reaches run it ..."""
    advance_after: Annotated[int, msgspec.Meta(ge=1)] = 1
    """... and at least so many do."""
    halted: str | None = None
    """Why it halted by itself."""


class Decision(msgspec.Struct, frozen=True):
    """What to do next, and why, in one line."""

    act: Literal["advance", "halt", "wait", "done"]
    why: str


def judge(rollout: Rollout, plan: Plan, progress: Progress) -> Decision:
    """Decide about an open rollout by what its devices reported. Failure is looked at first."""
    failures, successes = progress.failure_share, progress.success_share
    counted = f"{progress.succeeded} run it, {progress.failed} failed, {progress.waiting} of {progress.reached} to come"
    if failures is not None and progress.tried >= plan.halt_after and 100 * failures >= plan.halt_percent:
        share = f"{100 * failures:.1f} % of {progress.tried} devices failed, the limit is {plan.halt_percent:g} %"
        return Decision("halt", share)
    if rollout.state != "open":
        return Decision("wait", f"it is {rollout.state}")
    enough = successes is not None and 100 * successes >= plan.advance_percent
    if not enough or progress.succeeded < plan.advance_after:
        return Decision("wait", f"{counted}; the next wave needs {plan.advance_percent:g} %")
    if rollout.wave >= len(plan.waves):
        return Decision("done", counted)
    return Decision("advance", counted)


def start(repository: Repository, name: str, target: str, plan: Plan, **document: Any) -> Rollout:
    """Offer a model to the first wave of a cohort.

    Raises:
        PublisherError: the waves do not rise, or the model is not listed.
    """
    if list(plan.waves) != sorted(set(plan.waves)):
        raise PublisherError(f"waves {', '.join(map(str, plan.waves))} must rise, e.g. 100,1000,10000 for 1, 10, 100 %")
    rollout = repository.offer(name, target, open_bp=plan.waves[0], **document)
    _write(repository, rollout_name(rollout), plan)
    return rollout


def advance(repository: Repository, name: str) -> Rollout:
    """Open the next wave.

    Raises:
        PublisherError: it is open to everyone already, or not open.
    """
    rollout, plan = current(repository, name)
    if rollout.state != "open":
        raise PublisherError(f"{name} is {rollout.state}; nis-ota rollout resume opens it again")
    if rollout.wave >= len(plan.waves):
        raise PublisherError(f"{name}: wave {rollout.wave} is the last one, {_percent(rollout.open_bp)}")
    return repository.set_rollout(name, wave=rollout.wave + 1, open_bp=plan.waves[rollout.wave])


def halt(repository: Repository, name: str, why: str) -> Rollout:
    """Abort a rollout because its devices failed, and remember why."""
    _, plan = current(repository, name)
    rollout = repository.set_rollout(name, state="aborted")
    _write(repository, name, msgspec.structs.replace(plan, halted=why))
    return rollout


def set_state(repository: Repository, name: str, state: Literal["open", "paused", "aborted"]) -> Rollout:
    """Pause, resume or abort.

    Raises:
        PublisherError: it was aborted: devices that gave up take the model only under a new serial.
    """
    rollout, plan = current(repository, name)
    if rollout.state == "aborted" and state != "aborted":
        raise PublisherError(f"{name} was aborted; start it anew: nis-ota rollout start")
    if plan.halted is not None:
        _write(repository, name, msgspec.structs.replace(plan, halted=None))
    return repository.set_rollout(name, state=state)


def current(repository: Repository, name: str) -> tuple[Rollout, Plan]:
    """The document and the plan of a rollout. One that was offered without a plan is one wave.

    Raises:
        PublisherError: nothing is offered under that name.
    """
    rollout = repository.rollouts().get(name)
    if rollout is None:
        raise PublisherError(f"nothing is offered to {name!r}; start a rollout: nis-ota rollout start")
    path = _path(repository, name)
    if not path.is_file():
        return rollout, Plan(waves=(max(1, rollout.open_bp),))
    try:
        return rollout, msgspec.json.decode(path.read_bytes(), type=Plan)
    except msgspec.MsgspecError as error:
        raise PublisherError(f"{path} cannot be read: {error}; restore it, or start the rollout anew") from error


def rollout_name(rollout: Rollout) -> str:
    """How a rollout is called: its cohort, or `dev.ID`."""
    return rollout.cohort if rollout.device is None else override_name(rollout.device)


def _path(repository: Repository, name: str) -> Path:
    return repository.folder / FOLDER / f"{name}.json"


def _write(repository: Repository, name: str, plan: Plan) -> None:
    path = _path(repository, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, msgspec.json.format(msgspec.json.encode(plan)) + b"\n")


def _percent(basis_points: int) -> str:
    return f"{basis_points / 100:g} % of the devices"
