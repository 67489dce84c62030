"""A team that keeps watch for days: gauges read round after round, jobs polled, a call that fails and is repeated.

Most of what an edge device sees is this and not a task with an end. Nothing in it is wrong, though much repeats itself
and numbers said before no longer hold: the world moved, and a reading says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nis_edge.wire.messages import Claim
from nis_models.domains import Gauge, Split
from nis_models.phrases import fill
from nis_models.simulate import Team, round_like

MOVES: Final = 0.04
"""How far a quantity moves between two rounds, of its range."""

Words = Mapping[Split, tuple[str, ...]]

_AGAIN: Final[Words] = {
    "train": (
        "{q} at {p} now {v} {u}, {v0} {u} [last time|a round ago].",
        "Round {n}: {q} {v} {u}.",
        "{p}: {v} {u} (was {v0}).",
        "[Update|Status] {p}: {q} moved to {v} {u}.",
        "latest {q} = {v}",
        "The new reading is {v} {u}; the old one no longer holds.",
        "[{p}] {q}: {v} {u}, within limits",
        "Nothing unusual, {q} went from {v0} to {v} {u}.",
    ),
    "tune": (
        "{q} has changed to {v} {u} since the last round.",
        "Fresh value from {p}: {v} {u}.",
        "{v} {u} at {p}; previous round {v0} {u}.",
        "check {n} ok, {q} {v}",
    ),
}

_WAITING: Final[Words] = {
    "train": ("pending", "in progress", '{{"state": "running"}}', "queued", "not ready yet", "status: working"),
    "tune": ("still running", '{{"done": false}}', "waiting for slot"),
}

_READY: Final[Words] = {
    "train": ("done", '{{"state": "finished"}}', "completed, {v} {u}", "job {n} ready"),
    "tune": ("finished", '{{"done": true, "value": {v}}}'),
}

_FAILED: Final[Words] = {
    "train": ("Error: timed out", "timeout after 5 s", '{{"error": "bus busy"}}', "connection reset, try again"),
    "tune": ("Error: no answer in time", "temporarily unavailable"),
}

_REMARKS: Final[Words] = {
    "train": (
        "Moved to {p2}, going on with the list.",
        "Cleaned the {thing} at {p}, no remarks.",
        "Noted for the shift log: {p} quiet.",
        "[Shift change|Handover]: {a} takes over at {p2}.",
        "Compared {p} with {p2}, both fine.",
        "Battery swapped, continuing.",
        "Photo of {p} uploaded.",
        "Nothing to report from {p}.",
        "Route to {p2} planned, {n} m.",
        "Calibration of the {q} gauge finished, offset {n} counts.",
    ),
    "tune": (
        "On the way to {p2}.",
        "{p} inspected, all as it should be.",
        "Logged round {n}.",
        "{thing} at {p} looked over.",
        "Filter changed; back to normal duty.",
    ),
}


def keep_watch(team: Team, rounds: int) -> None:
    """Append so many pieces of a watch.

    Args:
        team: of the train or tune split; there are no test wordings.
        rounds: pieces of work, each of one to a dozen events.
    """
    pieces = (_read_again, _read_again, _poll, _repeat_failed, _remark, _remark, _claim, _step)
    for _ in range(rounds):
        team.rng.choice(pieces)(team)


def _read_again(team: Team) -> None:
    gauge, place = team.rng.choice((team.g1, team.g1, team.g2)), team.rng.choice((team.p1, team.p1, team.p2))
    agent, before = team.rng.choice(team.agents), team.value(gauge, place)
    now = _moved(team, gauge, place)
    slots = {"q": gauge.quantity, "p": place, "u": gauge.unit, "tool": gauge.tool, "v": now}
    team.call(agent, gauge.tool, {"place": place})
    team.result(agent, gauge.tool, team.word("result", **slots))
    if team.rng.random() < 0.6:
        team.emit(agent, "message", _words(team, _AGAIN, v0=before, **slots))


def _poll(team: Team) -> None:
    agent, tool = team.rng.choice(team.agents), team.act.tool
    job: dict[str, object] = {"job": team.rng.randint(1, 900)}
    waiting = _words(team, _WAITING)
    for _ in range(team.rng.randint(1, 7)):
        team.call(agent, tool, job)
        team.result(agent, tool, waiting)
    team.call(agent, tool, job)
    team.result(agent, tool, _words(team, _READY))


def _repeat_failed(team: Team) -> None:
    agent, place = team.rng.choice(team.agents), team.rng.choice((team.p1, team.p2, team.p3))
    team.call(agent, team.g3.tool, {"place": place})
    team.result(agent, team.g3.tool, _words(team, _FAILED), ok=False)
    team.call(agent, team.g3.tool, {"place": place})
    now = _moved(team, team.g3, place)
    team.result(
        agent, team.g3.tool, team.word("result", q=team.g3.quantity, p=place, u=team.g3.unit, tool=team.g3.tool, v=now)
    )


def _remark(team: Team) -> None:
    agent = team.rng.choice(team.agents)
    team.emit(agent, "message", _words(team, _REMARKS, a=team.other(agent)))


def _claim(team: Team) -> None:
    """Two instruments of one quantity agree within their tolerance."""
    for agent in team.rng.sample(team.agents, 2):
        value = round_like(team.values.get((team.g1.tool, team.p1), team.value(team.g1, team.p1)))
        tolerance = 0.05 * (team.g1.high - team.g1.low)
        seen = round_like(value + team.rng.gauss(0.0, 0.1 * tolerance))
        key = f"{team.g1.quantity} {team.p1}"
        team.emit(agent, "claim", None, claim=Claim(key=key, value=seen, unit=team.g1.unit, tol=tolerance))


def _step(team: Team) -> None:
    """A step whose stated confidence is as right as it says."""
    confidence = round(team.rng.uniform(0.55, 0.98), 2)
    said = team.emit(team.rng.choice(team.agents), "step", _words(team, _REMARKS), confidence=confidence)
    if team.rng.random() < 0.7:
        done = team.rng.random() < confidence
        team.emit(team.events[said].agent, "outcome", None, outcome_of=team.events[said].id, outcome=done)


def _moved(team: Team, gauge: Gauge, place: str) -> float:
    """What a gauge shows after the world moved on."""
    team.value(gauge, place)
    key = (gauge.tool, place)
    moved = team.values[key] + team.rng.gauss(0.0, MOVES) * (gauge.high - gauge.low)
    team.values[key] = min(gauge.high, max(gauge.low, moved))
    return team.value(gauge, place)


def _words(team: Team, words: Words, **slots: object) -> str:
    usual: dict[str, object] = {
        "p": team.p1,
        "p2": team.p2,
        "q": team.g1.quantity,
        "u": team.g1.unit,
        "a": team.agents[1],
        "thing": team.trade.thing,
        "n": team.rng.randint(2, 400),
        "v": team.value(team.g1, team.p1),
    }
    return fill(team.rng, team.rng.choice(words[team.split]), {**usual, **slots})
