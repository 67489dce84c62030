"""What a board file says: the power sources a board may have, their rails, scope, grade, accuracy and total rule.

A board file is data, so that a user adds a board without code; firmware_hooks/README.md tells how. This module turns
the parsed TOML into frozen records and names every fault of a file at once. Reading files is the roof's business,
finding the sensors on a machine the adapters'.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

from nis_edge.errors import ConfigError
from nis_edge.limits import BOARD_RAILS_MAX, BOARD_SOURCES_MAX
from nis_edge.power.rails import GRADES, SCOPES, Accuracy, Grade, Scope, SourceInfo

BOARD_FORMAT: Final = 1

TEXT_CHARS_MAX: Final = 400
"""A sentence for a table on a screen, not an essay."""

Kind = Literal["hwmon", "iio", "powercap", "power_supply", "gencmd", "um_meter", "nis_meter"]
KINDS: Final[tuple[Kind, ...]] = ("hwmon", "iio", "powercap", "power_supply", "gencmd", "um_meter", "nis_meter")
"""How a source is read; the kind fixes the files and their units, as the kernel's or firmware's interface does."""

KINDS_WITH_CHIPS: Final = ("hwmon", "iio")
KINDS_WITH_PORTS: Final = ("um_meter", "nis_meter")


class Rail(msgspec.Struct, frozen=True, kw_only=True):
    """One rail of a source: ``label`` may hold ``*``, ``counted`` rails make the total, scales mend a wrong shunt."""

    label: str
    counted: bool = False
    required: bool = True
    volts_scale: float = 1.0
    amps_scale: float = 1.0
    accuracy: Accuracy = Accuracy()


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A published fit from the measured total to a wider scope: watts = gain * total + offset_w. Modelled, grade D."""

    gain: float
    offset_w: float
    scope: Scope
    method: str


class BoardSource(msgspec.Struct, frozen=True, kw_only=True):
    """One way to read a board's power."""

    id: str
    kind: Kind
    chips: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    scope: Scope
    grade: Grade
    complete: bool
    lower_bound: bool = False
    covers: str
    misses: str = ""
    rate_hz: float
    watts_max: float
    amps_slack: float = 0.0
    stuck_after_s: float
    rails: tuple[Rail, ...]
    fit: Fit | None = None


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board file: an id, a title and its sources in the order of preference."""

    id: str
    title: str
    sources: tuple[BoardSource, ...]


def describe(board: Board, source: BoardSource, *, counted: tuple[str, ...], where: str) -> SourceInfo:
    """What a source found on this machine is.

    Args:
        board: the description it was found by.
        source: that board's source.
        counted: the labels found there whose sum is the total.
        where: the place it is read from.
    """
    return SourceInfo(
        source=source.id,
        board=board.id,
        kind=source.kind,
        scope=source.scope,
        grade=source.grade,
        complete=source.complete,
        lower_bound=source.lower_bound,
        counted=counted,
        covers=source.covers,
        misses=source.misses,
        rate_hz=source.rate_hz,
        where=where,
    )


def parse_board(data: Mapping[str, Any], where: str) -> Board:
    """Build a board from the parsed TOML.

    Args:
        data: the file's top-level table.
        where: the file's name, for messages.

    Raises:
        ConfigError: the file's author acts; every fault is named, one line.
    """
    faults: list[str] = []
    table = _Table(data, "", faults)
    table.literal("format", (BOARD_FORMAT,))
    board_id = table.text("id")
    title = table.text("title")
    sources = [_parse_source(source) for source in table.tables("source", BOARD_SOURCES_MAX, unique="id")]
    table.refuse_unknown()
    if faults:
        raise ConfigError(f"{where}: {'; '.join(faults)}; this board file is left out, the others serve")
    return Board(id=board_id, title=title, sources=tuple(sources))


def _parse_source(table: _Table) -> BoardSource:
    kind = cast(Kind, table.literal("kind", KINDS))
    default_accuracy = _parse_accuracy(table.table("accuracy"), Accuracy())
    rails = [_parse_rail(rail, default_accuracy) for rail in table.tables("rail", BOARD_RAILS_MAX, unique="label")]
    if rails and not any(rail.counted for rail in rails):
        table.fault("rail", "no rail is counted, so there is no total; set counted = true on at least one")
    chips = table.texts("chips") if kind in KINDS_WITH_CHIPS else ()
    ports = table.texts("ports") if kind in KINDS_WITH_PORTS else ()
    if ports and len(rails) != 1:
        table.fault("rail", "a serial meter has exactly one rail")
    scope = cast(Scope, table.literal("scope", SCOPES))
    grade = cast(Grade, table.literal("grade", GRADES))
    complete = table.flag("complete")
    if complete and scope not in ("input", "module"):
        table.fault("complete", f"scope {scope!r} cannot be complete: only input and module take in all that is drawn")
    if complete and grade == "D":
        table.fault("complete", "grade D is a model and cannot be complete")
    source = BoardSource(
        id=table.text("id"),
        kind=kind,
        chips=chips,
        ports=ports,
        scope=scope,
        grade=grade,
        complete=complete,
        lower_bound=table.flag("lower_bound", default=False),
        covers=table.text("covers"),
        misses=table.text("misses", default=""),
        rate_hz=table.number("rate_hz", 0.1, 1000.0, default=10.0),
        watts_max=table.number("watts_max", 0.1, 10_000.0, default=1000.0),
        amps_slack=table.number("amps_slack", 0.0, 100.0, default=0.0),
        stuck_after_s=table.number("stuck_after_s", 1.0, 86_400.0, default=60.0),
        rails=tuple(rails),
        fit=_parse_fit(table.table("fit")),
    )
    table.refuse_unknown()
    return source


def _parse_rail(table: _Table, default_accuracy: Accuracy) -> Rail:
    rail = Rail(
        label=table.text("label"),
        counted=table.flag("counted", default=False),
        required=table.flag("required", default=True),
        volts_scale=table.number("volts_scale", 1e-3, 1e3, default=1.0),
        amps_scale=table.number("amps_scale", 1e-3, 1e3, default=1.0),
        accuracy=_parse_accuracy(table.table("accuracy"), default_accuracy),
    )
    table.refuse_unknown()
    return rail


def _parse_accuracy(table: _Table | None, default: Accuracy) -> Accuracy:
    if table is None:
        return default
    accuracy = Accuracy(
        amps_step=table.number("amps_step", 0.0, 100.0, default=0.0),
        volts_step=table.number("volts_step", 0.0, 100.0, default=0.0),
        watts_step=table.number("watts_step", 0.0, 1000.0, default=0.0),
        amps_offset=table.number("amps_offset", 0.0, 100.0, default=0.0),
        gain=table.number("gain", 0.0, 1.0, default=0.0),
    )
    table.refuse_unknown()
    return accuracy


def _parse_fit(table: _Table | None) -> Fit | None:
    if table is None:
        return None
    fit = Fit(
        gain=table.number("gain", 0.1, 10.0),
        offset_w=table.number("offset_w", -100.0, 100.0),
        scope=cast(Scope, table.literal("scope", SCOPES)),
        method=table.text("method"),
    )
    table.refuse_unknown()
    return fit


class _Table:
    """One table of the file, read key by key; faults are collected, never raised, so that all are named."""

    def __init__(self, data: Mapping[str, Any], path: str, faults: list[str]) -> None:
        self._data = data
        self._path = path
        self._faults = faults
        self._known: set[str] = set()

    def fault(self, key: str, what: str) -> None:
        """Note one fault at a key of this table."""
        self._faults.append(f"{self._path}{key}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        """One line of text; empty only where the default is."""
        value = self._take(key, default)
        allowed = isinstance(value, str) and (value or default == "") and len(value) <= TEXT_CHARS_MAX
        if not allowed or "\n" in value:
            self._wrong(key, value, f"one line of text, at most {TEXT_CHARS_MAX} characters")
            return ""
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of at least one string."""
        value = self._take(key, None)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
            self._wrong(key, value, "a list of names")
            return ()
        return tuple(value)

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number in low..high."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._wrong(key, value, f"a number from {low:g} to {high:g}")
            return low
        if not low <= value <= high:
            self.fault(key, f"{value:g} is outside {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            self._wrong(key, value, "true or false")
            return False
        return value

    def literal(self, key: str, allowed: tuple[Any, ...]) -> Any:
        """One of a few values."""
        value = self._take(key, None)
        if isinstance(value, bool) or value not in allowed:
            self._wrong(key, value, f"one of {', '.join(map(str, allowed))}")
            return allowed[0]
        return value

    def table(self, key: str) -> _Table | None:
        """A table inside this one, or None when it is not there."""
        self._known.add(key)
        if key not in self._data:
            return None
        value = self._data[key]
        if not isinstance(value, Mapping):
            self._wrong(key, value, "a table")
            return None
        return _Table(value, f"{self._path}{key}.", self._faults)

    def tables(self, key: str, most: int, *, unique: str) -> list[_Table]:
        """An array of one to ``most`` tables that differ in the key ``unique``."""
        self._known.add(key)
        value = self._data.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
            self.fault(key, f"at least one [[{self._path}{key}]] is needed")
            return []
        if len(value) > most:
            self.fault(key, f"{len(value)} entries, at most {most}")
            return []
        names = [str(item.get(unique)) for item in value]
        for twice in sorted({entry for entry in names if names.count(entry) > 1}):
            self.fault(key, f"{unique} {twice!r} stands more than once")
        return [_Table(item, f"{self._path}{key}[{index}].", self._faults) for index, item in enumerate(value)]

    def refuse_unknown(self) -> None:
        """Name every key that nothing asked for, with the nearest that something did."""
        for key in self._data:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                self.fault(key, f"unknown key{f'; did you mean {near[0]!r}?' if near else ''}")

    def _take(self, key: str, default: Any) -> Any:
        self._known.add(key)
        return self._data.get(key, default)

    def _wrong(self, key: str, value: Any, wanted: str) -> None:
        if value is None:
            self.fault(key, f"is missing; {wanted} is needed")
        else:
            self.fault(key, f"{str(value)[:40]!r} is not {wanted}")
