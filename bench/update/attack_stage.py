"""Where attackers are let loose: a publisher with real thresholds, a device that runs 2.0.0, an offered 3.0.0, and what
became of them afterwards.

The world is that of `tests.support.update_world`: the real publisher's code, a real web server, the device's own update
loop. Every attempt gets a copy of it. What an attempt brought about is not said by whoever wrote it but read off the
device: which model runs, what it says, whether it starts again, and whether the publisher's next release still comes
through, with the same keys or with new ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Literal

from nis_ota import rotation
from nis_ota.keys import KeyRing
from nis_ota.repository import Repository
from nis_ota.roles import Quorum

from nis_edge.update.time_floor import RELEASED_AT_S
from tests.support.update_world import NOW, EdgeDevice, Publisher, World, file_hash, world

DAYS: Final = (1, 2, 3, 4, 5, 7, 8, 14, 30, 31, 60, 89, 90, 91, 120)
"""When a device that is held back looks again, in days after the attack began."""

Ran = Literal["2.0.0", "3.0.0", "2.1.0", "1.0.0", "foreign", "nothing"]
Healed = Literal["at once", "with new keys", "not"]


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to.

    Attributes:
        ran: the model in service afterwards; `foreign`: bytes that no offline key signed.
        said: what the device says of it: a kind of error, or "".
        days: for an attempt to hold updates back: after how many days the device says so; None: it never did.
        holds: whether the attempt was to hold updates back.
        believes: whether the device believes its clock; where not, its status says so.
        stands: whether a restart still finds a whole model, and the same one.
        grown: bytes by which the device's folder grew beyond one model.
        healed: what it takes until the publisher's next release is installed.
    """

    ran: Ran
    said: str
    days: int | None
    holds: bool
    believes: bool
    stands: bool
    grown: int
    healed: Healed


@dataclass(frozen=True)
class Attempt:
    """One thing that one attacker tries.

    Attributes:
        attacker: who.
        tries: what, in words.
        act: does it; the device looks within.
        holds: it is meant to hold updates back; `act` returns the days until the device says so.
    """

    attacker: str
    tries: str
    act: Callable[[Stage], int | None]
    holds: bool = False


class Stage:
    """One copy of the world.

    Attributes:
        device: runs 2.0.0; 3.0.0 is offered to it and lies on the server.
        publisher: the honest one. Listed are 1.0.0, 2.0.0, 2.1.0 (offered to others only) and 3.0.0.
        oldest, seen: folders as published when 1.0.0 and 2.0.0 were the offered ones.
        stranger: a folder published by somebody else's keys, under the same names.
    """

    def __init__(self, w: World) -> None:
        self._world = w
        self.tmp = w.tmp
        self.device: EdgeDevice = w.device
        self.publisher: Publisher = w.publisher
        self.web = w.web
        self.www = w.tmp / "web"
        self.oldest, self.seen, self.stranger = (w.tmp / name for name in ("oldest", "seen", "stranger-web"))

    def look(self, bundle: bytes | None = None) -> bool:
        """Let the device look once."""
        return self.device.check(bundle=bundle)

    def replace_server(self, folder: Path) -> None:
        """Put another published folder in the server's place; the models of both stay to be had."""
        shutil.rmtree(self.www / "metadata")
        shutil.copytree(folder / "metadata", self.www / "metadata")
        shutil.copytree(folder / "targets", self.www / "targets", dirs_exist_ok=True)

    def thief(self, *names: str) -> Publisher:
        """The repository as somebody can sign it who holds only these keys: names of key files, or `online`."""
        folder = self.tmp / "thief"
        shutil.copytree(self.publisher.folder, folder)
        for path in sorted((folder / "keys").rglob("*.pem")):
            held = "online" in names if path.parent.name == "online" else path.stem in names
            if not held:
                path.unlink()
        return Publisher(folder, self.www, self.publisher.now)

    def lose_cache(self) -> None:
        """As after a power cut, or by somebody who can write there: everything of the metadata cache is gone."""
        shutil.rmtree(self.device.folder / "update" / "tuf", ignore_errors=True)

    def days_until_said(self, before_look: Callable[[int], Any] = lambda _day: None) -> int | None:
        """Look again on every one of DAYS; the first on which the device says that something is wrong."""
        today = 0
        for day in DAYS:
            self.device.clock.advance(timedelta(days=day - today).total_seconds())
            today = day
            before_look(day)
            self.look()
            if self.device.error:
                return day
        return None

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def outcome(self, attempt: Attempt, days: int | None) -> Outcome:
        """Read what became of the device, then let the publisher come back."""
        ran, said, believes = self._running(), self._said(), not self.device.loop.status.time_unverified
        grown = folder_bytes(self.device.folder) - self._folder_bytes_before
        self.device.boot()
        stands = self._running() == ran
        return Outcome(ran, said, days, attempt.holds, believes, stands, grown, self._heal())

    def begin(self) -> None:
        """Remember what the device's folder weighs."""
        self._folder_bytes_before = folder_bytes(self.device.folder)
        self.device.events.clear()

    def _running(self) -> Ran:
        for version in ("1.0.0", "2.0.0", "2.1.0", "3.0.0"):
            if self.device.running == file_hash(self.tmp / f"{version}.nis"):
                return version  # type: ignore[return-value]
        return "nothing" if self.device.running in ("none", "factory") else "foreign"

    def _said(self) -> str:
        told = [f["kind"] for name, f in self.device.events if name in ("update.refused", "update.failed")]
        return told[-1] if told and self.device.error else ""

    def _heal(self) -> Healed:
        """The attacker is gone, the clock is right again; the publisher releases 4.0.0, then with new online keys."""
        self.web.faults.clear()
        shutil.rmtree(self.www)  # the owner fills an emptied bucket
        self.device.synced = True
        now = max(NOW + timedelta(hours=2), datetime.fromtimestamp(self._moment(), timezone.utc))
        self.device.clock.jump_wall(now.timestamp() + 60 - self.device.clock.wall())
        self.device.url, self.device.blocks = self.web.url, None
        self.device.boot()
        self.publisher.now = now.replace(microsecond=0)
        repository = self.publisher.repository
        for role in ("targets", "models"):
            repository.renew(role)
        package = self.publisher.release("4.0.0", 9, seed=9)
        if self.look() and self.device.running == file_hash(package):
            return "at once"
        names = ("timestamp", "snapshot", "rollout")
        keys = self.publisher.folder / "keys"
        changes = {name: rotation.new_key(keys, self.publisher.repository, name, None) for name in names}
        rotation.replace(self.publisher.repository, changes)
        (self.publisher.folder / "metadata" / "timestamp.json").unlink()  # a new key may begin anew
        self.publisher.publish()
        self.look()
        return "with new keys" if self.device.running == file_hash(package) else "not"

    def _moment(self) -> float:
        """The device's time, where the attack had to do with days; else the world's."""
        wall = self.device.clock.wall()
        return wall if RELEASED_AT_S < wall < NOW.timestamp() + 366 * 86400 else NOW.timestamp()


def folder_bytes(folder: Path) -> int:
    """What the files below a folder take."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def build(folder: Path) -> Path:
    """Make the world that every attempt gets a copy of: root and targets 2 of 3, models 2 of 3, online keys apart."""
    repository = folder / "repository"
    Repository.create(repository, root=Quorum(2, 3), targets=Quorum(2, 3), passphrase=None, now=NOW)
    with world(folder) as made:
        made.publisher.release("1.0.0", 1, seed=1)
        assert made.device.check(), made.device.error
        shutil.copytree(folder / "web", folder / "oldest")
        (folder / "oldest.json").write_bytes(made.publisher.bundle())
        made.publisher.release("2.0.0", 2, seed=2)
        assert made.device.check(), made.device.error
        shutil.copytree(folder / "web", folder / "seen")
        (folder / "seen.json").write_bytes(made.publisher.bundle())
        made.publisher.release("2.1.0", 3, seed=3, cohort="canary")
        made.publisher.release("3.0.0", 4, seed=4)
        other = Publisher(folder / "stranger", folder / "stranger-web")
        keep = (folder / "3.0.0.nis").read_bytes()
        other.release("3.0.0", 666, seed=66)
        (folder / "3.0.0.nis").replace(folder / "foreign.nis")
        (folder / "3.0.0.nis").write_bytes(keep)
        (folder / "stranger.json").write_bytes(other.bundle())
    return folder


@contextmanager
def stage(built: Path, tmp: Path) -> Iterator[Stage]:
    """A fresh copy of the world in a folder that does not exist yet."""
    shutil.copytree(built, tmp, symlinks=True)
    with world(tmp) as made:
        yield Stage(made)


def run(attempt: Attempt, built: Path, tmp: Path) -> Outcome:
    """Let one attempt happen in a world of its own."""
    with stage(built, tmp) as here:
        here.begin()
        days = attempt.act(here)
        return here.outcome(attempt, days)


def ring(publisher: Publisher) -> KeyRing:
    """The keys that somebody holds."""
    return KeyRing([publisher.folder / "keys"])
