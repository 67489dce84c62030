"""The power of this machine as the daemon and the benchmark see it: board files in, the best source out, or why none.

``PowerMeter(find_power)`` is the one entry: ``meter.read(now)`` gives a ``PowerReading``, or None with the reasons in
``meter.why_none`` when the machine has no source at all. It finds sources again when the chosen one has been silent for
a while, because drivers come and go. Board files are those that ship, then those of the owner's folder; a file of the
owner with the id of a shipped one takes its place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from nis_edge.adapters import serial_meter, sysfs, vcio
from nis_edge.errors import ConfigError
from nis_edge.limits import BOARD_FILE_BYTES_MAX, BOARD_FILES_MAX
from nis_edge.power.boards import Board, parse_board
from nis_edge.power.rails import Absence, Discovery, PowerReading, PowerSource, best_first
from nis_edge.power.throttle import ThrottleState, merged

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SYSROOT_VARIABLE: Final = "NIS_EDGE_SYSROOT"
"""The folder to take for ``/`` when looking for sensors: tests and dry runs set it."""

OWN_BOARDS_FOLDER: Final = Path("/etc/nis-edge/boards")

SEARCH_AGAIN_S: Final = 60.0
"""A source that has given nothing for this long is looked for again; looking reads some dozens of small files."""


def sysroot(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that stands for ``/`` when sensors are looked for."""
    return Path(environ.get(SYSROOT_VARIABLE) or "/")


def load_boards(own_folder: Path = OWN_BOARDS_FOLDER) -> tuple[tuple[Board, ...], tuple[ConfigError, ...]]:
    """Every board file, the owner's first, and the faults of those left out.

    Args:
        own_folder: the owner's board files; it need not exist.
    """
    boards: dict[str, Board] = {}
    faults: list[ConfigError] = []
    own = sorted(own_folder.glob("*.toml"))[:BOARD_FILES_MAX] if own_folder.is_dir() else []
    shipped = sorted(
        (entry for entry in files("nis_edge.boards").iterdir() if entry.name.endswith(".toml")),
        key=lambda entry: entry.name,
    )
    for entry in [*own, *shipped]:
        try:
            with entry.open("rb") as file:
                text = file.read(BOARD_FILE_BYTES_MAX + 1)
            board = parse_board(_parse_toml(text, entry.name), entry.name)
        except OSError as error:
            faults.append(ConfigError(f"{entry.name}: can't be read: {error.strerror}; the other board files serve"))
        except ConfigError as error:
            faults.append(error)
        else:
            boards.setdefault(board.id, board)
    return tuple(boards.values()), tuple(faults)


def find_power(root: Path | None = None, boards: Sequence[Board] | None = None) -> Discovery:
    """Every power source of this machine, best first, and every one looked for in vain.

    Args:
        root: the folder that stands for ``/``; None asks the environment.
        boards: the boards to look for; None takes every board file.
    """
    at = sysroot() if root is None else root
    faults: Sequence[ConfigError] = ()
    if boards is None:
        boards, faults = load_boards()
    found = (serial_meter.discover(at, boards), sysfs.discover(at, boards), vcio.discover(at, boards))
    absent = [absence for discovery in found for absence in discovery.absent]
    return Discovery(
        sources=best_first([source for discovery in found for source in discovery.sources]),
        absent=(*absent, *(Absence(source="board file", reason=str(fault)) for fault in faults)),
    )


def find_throttle(root: Path | None = None) -> ThrottleState:
    """What this machine says about throttling, from every place that says something."""
    at = sysroot() if root is None else root
    state = sysfs.throttle(at)
    # The firmware is asked only where the files say nothing of the Pi's bits: asking costs more.
    return state if state.known else merged((state, vcio.throttle(at)))


def why_no_power(absent: Sequence[Absence]) -> str:
    """One line that names each reason once, with the sources that it kept away."""
    sources_of: dict[str, list[str]] = {}
    for absence in absent:
        sources_of.setdefault(absence.reason, []).append(absence.source)
    return "; ".join(f"{', '.join(sources)}: {reason}" for reason, sources in sources_of.items()) or "no board files"


class PowerMeter:
    """Reads the best power source of the machine and keeps looking when there is none.

    Args:
        find: gives the sources, best first; ``find_power`` on a real machine.
        search_again_s: s of silence after which sources are looked for again.
    """

    def __init__(self, find: Callable[[], Discovery] = find_power, search_again_s: float = SEARCH_AGAIN_S) -> None:
        self._find = find
        self._search_again_s = search_again_s
        self._source: PowerSource | None = None
        self._searched_s: float | None = None
        self._heard_s: float | None = None
        self._found = Discovery()

    @property
    def source(self) -> PowerSource | None:
        """The source in use."""
        return self._source

    @property
    def why_none(self) -> str | None:
        """Why there is no source, in one line; None when there is one."""
        return None if self._source is not None else why_no_power(self._found.absent)

    def read(self, now: float) -> PowerReading | None:
        """Read once: a reading (whose watts may be absent, with the reason), or None when there is no source.

        Args:
            now: seconds on the monotonic clock.
        """
        if self._due(now):
            self._search(now)
        if self._source is None:
            return None
        reading = self._source.read(now)
        if reading.watts is not None:
            self._heard_s = now
        return reading

    def _due(self, now: float) -> bool:
        if self._searched_s is None:
            return True
        silent_since_s = max(self._searched_s, self._heard_s if self._heard_s is not None else self._searched_s)
        return now - silent_since_s >= self._search_again_s

    def _search(self, now: float) -> None:
        self._searched_s = now
        if self._source is not None:
            self._source.close()  # what it holds, such as a serial port, must be free to be found again
        self._found = self._find()
        # The best that gives a figure now. A counter needs a second look: its first silence is no reason to pass it by.
        speaking = [source for source in self._found.sources if _speaks(source, now)]
        self._source = next(iter(speaking or self._found.sources), None)
        for source in self._found.sources:
            if source is not self._source:
                source.close()


def _speaks(source: PowerSource, now: float) -> bool:
    reading = source.read(now)
    return reading.watts is not None or source.info.kind == "powercap"


def _parse_toml(text: bytes, where: str) -> dict[str, Any]:
    if len(text) > BOARD_FILE_BYTES_MAX:
        raise ConfigError(f"{where}: larger than {BOARD_FILE_BYTES_MAX} bytes; the other board files serve")
    try:
        table: dict[str, Any] = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: no valid TOML: {error}; the other board files serve") from error
    return table
