"""A hundred thousand devices in simulated time: who starts when, how wide a wave is, whom an abort still reaches.

    python -m bench.update.fleet [--devices 100000] [--walked 100000]

Every decision is the device's own code: the rollout document is read by `update.rollout`, judged by `update.offer`, and
each device walks down the table of `update.machine`. Simulated are the clock, the time a download takes, and who can be
reached. Chance is seeded, so the same arguments give the same figures.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nis_edge.update.facts import SignedFacts, encode_facts
from nis_edge.update.journal import Floors, Journal, Slot
from nis_edge.update.machine import Effect, Event, State, Update, next_try, step
from nis_edge.update.offer import Device, Target, judge
from nis_edge.update.rollout import (
    ROLLOUT_PARTS,
    Rollout,
    encode_rollout,
    read_rollout,
    rollout_bucket,
    start_delay_s,
    starts_in_s,
)

COHORT = "stable"
BEGIN_S = 1_800_000_000.0
"""The moment the rollout opens; every simulated time counts from it."""

OLD = Slot(sha256="a" * 64, version="1.0.0", release_counter=1)
PATH = "models/tiny/2.0.0.nis"
FACTS = SignedFacts(version="2.0.0", release_counter=2, hardware=("any",))
TARGET = Target(path=PATH, length=600_000_000, sha256="b" * 64, custom=encode_facts(FACTS))

SPREAD_S = 3600
"""Start times are spread over an hour: 27.8 starts a second on average, so that chance alone stays below twice that."""

ABORT_S = 1800.0
REACHED_WITHIN_S = 5.0
"""How late a notice of the broker comes in, at most."""

OUT_OF_REACH = 0.01
"""Share of devices that can reach nobody at the moment before their trial; the verified offer stands for these."""

DOWNLOAD_S = (120.0, 2400.0)


def devices(count: int) -> Iterator[Device]:
    """Devices with the kind of ids that fleets have."""
    for n in range(count):
        yield Device(id=f"edge-{n:06d}", cohort=COHORT, hardware=frozenset({"aarch64"}), agent_version="0.1.0")


def document(**fields: object) -> Rollout:
    """A rollout document as a device reads it: through its own bytes."""
    known = {"cohort": COHORT, "serial": 7, "target": PATH, "sha256": TARGET.sha256, "length": TARGET.length}
    return read_rollout(encode_rollout(Rollout(**{**known, **fields})), COHORT)  # type: ignore[arg-type]


# --- starts and waves -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Starts:
    """When devices start, in whole seconds after the rollout opened."""

    devices: int
    spread_s: int
    mean: float
    """Starts a second."""
    peak: int
    """Starts in the busiest second."""
    distance: float
    """Greatest distance between the starts' distribution and an even one (Kolmogorov-Smirnov)."""
    distance_by_chance: float
    """What evenly drawn times exceed once in a hundred fleets."""


def starts(count: int, spread_s: int = SPREAD_S) -> Starts:
    """The start times of a whole fleet that heard of the rollout before it opened."""
    rollout = document(not_before=BEGIN_S, spread_s=spread_s)
    times = sorted(start_delay_s(rollout, device.id) for device in devices(count))
    seconds = [0] * spread_s
    for at in times:
        seconds[int(at)] += 1
    distance = max(max((n + 1) / count - at / spread_s, at / spread_s - n / count) for n, at in enumerate(times))
    return Starts(count, spread_s, count / spread_s, max(seconds), distance, 1.63 / count**0.5)


@dataclass(frozen=True)
class Wave:
    """One step of a rollout that widens: the share asked for, and the share of the fleet it opened to."""

    asked: float
    opened: float


def waves(count: int, shares_bp: Sequence[int] = tuple(range(1000, ROLLOUT_PARTS + 1, 1000))) -> list[Wave]:
    """Widen a rollout step by step; each step's share of the fleet by the devices' own places."""
    rollout = document()
    buckets = sorted(rollout_bucket(rollout, device.id) for device in devices(count))
    return [Wave(share / ROLLOUT_PARTS, bisect_right(buckets, share - 1) / count) for share in shares_bp]


# --- an abort ---------------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """One device's way: when its download began, when its trial did, how it ended. Seconds after the opening."""

    began_at: float | None = None
    trial_at: float | None = None
    cut_short_at: float | None = None
    reachable: bool = True
    end: State = State.IDLE
    active: str = OLD.sha256


class Walker:
    """One device in simulated time: performs the table's effects as the update loop does.

    Args:
        device: who it is.
        chance: its own.
        before, after: the rollout document before and after the abort at `abort_s`.
    """

    def __init__(self, device: Device, chance: random.Random, before: Rollout, after: Rollout, abort_s: float) -> None:
        self._device, self._before, self._after, self._abort_s = device, before, after, abort_s
        self.now = -chance.uniform(0.0, 3600.0)  # it polled or was told in the hour before the opening
        self._download_s = chance.uniform(*DOWNLOAD_S)
        self._told_at = abort_s + chance.uniform(0.0, REACHED_WITHIN_S)
        self.walk = Walk(reachable=chance.random() >= OUT_OF_REACH)
        self._update = Update(journal=Journal(active=OLD, floors=Floors(release_counter=1)))
        self._slot: Slot | None = None
        self._waiting = False

    def run(self) -> Walk:
        """Look when it is due, until there is nothing more to wait for."""
        while True:
            self._waiting = False
            self._drive(Event.OFFERED)
            if not self._waiting:
                break
        self.walk.end = self._update.state
        assert self._update.journal.active is not None
        self.walk.active = self._update.journal.active.sha256
        return self.walk

    def _in_force(self) -> Rollout:
        return self._after if self.now >= self._abort_s else self._before

    def _drive(self, event: Event | None) -> None:
        while event is not None:
            self._update, effects = step(self._update, event, candidate=self._slot if event is Event.ACCEPTED else None)
            event = None
            for effect in effects:
                if effect is not Effect.PERSIST and (event := self._perform(effect)) is not None:
                    break

    def _perform(self, effect: Effect) -> Event | None:
        if effect is Effect.JUDGE:
            return self._judge()
        if effect is Effect.FETCH:
            return self._fetch()
        if effect is Effect.CHECK_ABORT:
            recalled = self.walk.reachable and self._in_force().state != "open"
            return Event.ABORTED if recalled else Event.APPROVED
        if effect is Effect.NEXT_TRY:
            self.walk.trial_at = self.now
            return next_try(self._update)
        return {
            Effect.VERIFY: Event.INTACT,
            Effect.SELF_TEST: Event.PASSED,
            Effect.WATCH: Event.HEALTHY,
            Effect.SETTLE: Event.SETTLED,
        }.get(effect)

    def _judge(self) -> Event:
        rollout = self._in_force()
        verdict = judge(rollout, TARGET, self._device, self._update.journal)
        if verdict.slot is None:
            return Event.REFUSED
        wait_s = starts_in_s(rollout, self._device.id, now_s=BEGIN_S + self.now, known_for_s=0.0)
        if wait_s > 0:
            self.now, self._waiting = self.now + wait_s, True
            return Event.REFUSED
        self._slot = verdict.slot
        return Event.ACCEPTED

    def _fetch(self) -> Event:
        self.walk.began_at = self.now
        ends_at = self.now + self._download_s
        if self.walk.reachable and self._told_at < ends_at:
            self.now = max(self.now, self._told_at)
            self.walk.cut_short_at = self.now
            return Event.ABORTED
        self.now = ends_at
        return Event.DOWNLOADED


@dataclass(frozen=True)
class Abort:
    """What became of a fleet whose rollout was aborted half-way."""

    devices: int
    committed_before: int
    """On the new model by a trial that began before the abort."""
    never_began: int
    cut_short: int
    """Downloads that the abort ended."""
    held_at_the_door: int
    """Whole downloads that were not tried."""
    tried_after: int
    """Trials that began after the abort on devices that could reach somebody; the promise is none."""
    tried_unreached: int
    """Trials that began after the abort on devices that could reach nobody."""
    unreached: int


def abort(count: int, seed: int = 0) -> Abort:
    """Open a rollout to a whole fleet, abort it at half of its spread."""
    before = document(not_before=BEGIN_S, spread_s=SPREAD_S)
    after = document(not_before=BEGIN_S, spread_s=SPREAD_S, state="aborted")
    chance = random.Random(seed)
    walks = [Walker(device, chance, before, after, ABORT_S).run() for device in devices(count)]
    late = [walk for walk in walks if walk.trial_at is not None and walk.trial_at >= ABORT_S]
    for walk in walks:
        assert walk.end is State.IDLE
        assert (walk.active == TARGET.sha256) == (walk.trial_at is not None)
    return Abort(
        devices=count,
        committed_before=sum(walk.trial_at is not None and walk.trial_at < ABORT_S for walk in walks),
        never_began=sum(walk.began_at is None for walk in walks),
        cut_short=sum(walk.cut_short_at is not None for walk in walks),
        held_at_the_door=sum(
            walk.began_at is not None and walk.cut_short_at is None and walk.trial_at is None for walk in walks
        ),
        tried_after=sum(walk.reachable for walk in late),
        tried_unreached=sum(not walk.reachable for walk in late),
        unreached=sum(not walk.reachable for walk in walks),
    )


# --- telling ----------------------------------------------------------------------------------------------------------


def report(count: int, walked: int) -> str:
    """All figures, in lines."""
    begun, steps, ended = starts(count), waves(count), abort(walked)
    worst = max(steps, key=lambda wave: abs(wave.opened - wave.asked))
    return "\n".join(
        (
            f"{begun.devices} devices start over {begun.spread_s} s: {begun.mean:.1f} a second, busiest second "
            f"{begun.peak} ({begun.peak / begun.mean:.2f} times the mean), distance from even {begun.distance:.5f} "
            f"(by chance up to {begun.distance_by_chance:.5f})",
            f"waves of 10 %: the first opens to {steps[0].opened:.3%}, the worst is {worst.opened:.3%} for "
            f"{worst.asked:.0%}",
            f"{ended.devices} devices, aborted after {ABORT_S:.0f} s: {ended.committed_before} had tried it before, "
            f"{ended.never_began} never began, {ended.cut_short} downloads were cut short, {ended.held_at_the_door} "
            f"held at the door, {ended.tried_after} tried it afterwards; of {ended.unreached} out of reach "
            f"{ended.tried_unreached} tried it",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100_000, help="whose starts and waves are computed")
    parser.add_argument("--walked", type=int, default=100_000, help="that walk down the whole table and are aborted")
    args = parser.parse_args()
    print(report(args.devices, args.walked))


if __name__ == "__main__":
    main()
