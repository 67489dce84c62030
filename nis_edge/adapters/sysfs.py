"""The sensors that Linux shows as files: power rails, temperatures, throttle evidence, under an injectable root.

``discover(root, boards)`` looks for every file-based source of the board files (hwmon, iio, powercap, power_supply) and
gives the sources found and the reasons for those not found. A source is recognised by driver name and rail label, never
by a hwmon number, a bus address or a release. ``source.read(now)`` gives one ``PowerReading`` and never raises for a
sensor: what can't be read, or can't be true, is an absent reading with the reason.

``temperatures(root)`` and ``throttle(root)`` serve the same root. Reads block for as long as the kernel's driver does
(an I2C transfer takes milliseconds), so callers read in a thread of their own.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nis_edge.errors import SensorUnavailableError
from nis_edge.limits import SENSOR_DIRECTORIES_MAX, SENSOR_FILE_BYTES_MAX
from nis_edge.power.boards import Board, BoardSource, Kind, Rail, describe
from nis_edge.power.plausibility import StuckWatch, counted_joules, watch_stuck
from nis_edge.power.rails import Absence, Accuracy, Discovery, PowerReading, RailSample, SourceInfo, rail_sample, total
from nis_edge.power.throttle import ThrottleState, merged, pi_state

ReadText = Callable[[Path], str]

MILLI: Final = 1e-3
MICRO: Final = 1e-6

CHANNELS_MAX: Final = 16
"""Channels of one hwmon or iio device; the INA3221 has 3."""

_KINDS_THAT_ADD: Final = ("powercap", "power_supply")
"""Where one pattern may stand for several things to be added: processor packages, batteries. Two power monitors under
one name may measure the same current twice."""

SKIPPED_LABELS: Final = ("NC", "nc")
"""What a board's device tree calls a channel that is not connected; its reads fail or mean nothing."""


@dataclass(frozen=True)
class Attribute:
    """One file that holds a number, and the factor that makes it V, A, W or J."""

    path: Path
    factor: float


@dataclass(frozen=True)
class Channel:
    """One measuring channel as the machine shows it."""

    label: str
    place: Path
    volts: Attribute | None = None
    amps: Attribute | None = None
    watts: Attribute | None = None
    joules: Attribute | None = None
    joules_span: Attribute | None = None
    status: Path | None = None


def read_text(path: Path) -> str:
    """Read one small attribute; never waits for a writer, never reads more than a page.

    Raises:
        SensorUnavailableError: the operating system refused, with its reason.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, SENSOR_FILE_BYTES_MAX)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SensorUnavailableError(f"{path}: {error.strerror}{_remedy(error)}") from error
    return text.decode("ascii", errors="replace").strip().strip("\0")


def discover(root: Path, boards: Sequence[Board], read: ReadText = read_text) -> Discovery:
    """Find the file-based power sources of these boards.

    Args:
        root: the folder that holds ``sys``; ``/`` on a real machine.
        boards: in the order of preference.
        read: gives an attribute's text; tests inject faults here.
    """
    seen: dict[tuple[Kind, tuple[str, ...]], tuple[list[Channel], str]] = {}
    sources: list[SysfsPowerSource] = []
    absent: list[Absence] = []
    for board in boards:
        for source in board.sources:
            if source.kind not in _CHANNELS_OF_KIND:
                continue
            key = (source.kind, source.chips)
            if key not in seen:
                seen[key] = _CHANNELS_OF_KIND[source.kind](root, source.chips, read)
            channels, why_none = seen[key]
            try:
                sources.append(_bind(board, source, channels, why_none, read))
            except SensorUnavailableError as error:
                absent.append(Absence(source=f"{board.id}/{source.id}", reason=str(error)))
    return Discovery(sources=tuple(sources), absent=tuple(absent))


@dataclass(frozen=True)
class _BoundRail:
    channel: Channel
    rail: Rail


@dataclass
class _Counter:
    """The last look at one energy counter and what was counted since the source was opened."""

    last_j: float
    last_s: float
    total_j: float = 0.0


@dataclass
class SysfsPowerSource:
    """A power source whose rails are files."""

    info: SourceInfo
    source: BoardSource
    rails: tuple[_BoundRail, ...]
    read_attribute: ReadText
    _stuck: StuckWatch = field(default_factory=StuckWatch)
    _counters: dict[Path, _Counter] = field(default_factory=dict)

    def read(self, now: float) -> PowerReading:
        """Read every rail once; see ``PowerSource``."""
        samples = [self._read_rail(bound, now) for bound in self.rails]
        counted = [sample for sample in samples if sample.rail in self.info.counted]
        raw = tuple(number for sample in counted for number in (sample.volts, sample.amps, sample.watts))
        joules = [sample.joules for sample in counted]
        reading = total(
            self.info,
            samples,
            [_scaled(bound.rail) for bound in self.rails],
            now=now,
            joules=None if None in joules else sum(joule for joule in joules if joule is not None),
            fit=None
            if self.source.fit is None
            else (self.source.fit.gain, self.source.fit.offset_w, self.source.fit.scope, self.source.fit.method),
        )
        if reading.watts is None:
            return reading
        self._stuck, fault = watch_stuck(self._stuck, raw, now, self.source.stuck_after_s)
        if fault is not None:
            return PowerReading(t_s=now, watts=None, info=self.info, rails=tuple(samples), reason=fault)
        return reading

    def close(self) -> None:
        """Nothing is held open between readings."""

    def _read_rail(self, bound: _BoundRail, now: float) -> RailSample:
        channel, rail = bound.channel, bound.rail
        try:
            if channel.status is not None:
                _refuse_charging(self.read_attribute(channel.status))
            volts = self._number(channel.volts, rail.volts_scale)
            amps = self._number(channel.amps, rail.amps_scale)
            watts = self._number(channel.watts, rail.volts_scale * rail.amps_scale)
            joules = None
            if channel.joules is not None:
                scale = rail.volts_scale * rail.amps_scale
                interval_watts, joules = self._count(channel, channel.joules, now, scale)
                watts = interval_watts if watts is None and volts is None else watts
        except SensorUnavailableError as error:
            return RailSample(rail=channel.label, watts=None, reason=str(error))
        if channel.status is not None and amps is not None:
            amps = abs(amps)  # a battery that discharges: drivers disagree on the sign, the status decides
        sample = rail_sample(
            channel.label,
            volts=volts,
            amps=amps,
            watts=watts,
            watts_max=self.source.watts_max,
            amps_slack=self.source.amps_slack,
        )
        return RailSample(
            rail=sample.rail, watts=sample.watts, volts=volts, amps=amps, joules=joules, reason=sample.reason
        )

    def _number(self, attribute: Attribute | None, scale: float) -> float | None:
        return None if attribute is None else _number(attribute, self.read_attribute) * scale

    def _count(
        self, channel: Channel, attribute: Attribute, now: float, scale: float
    ) -> tuple[float | None, float | None]:
        """Watts since the last look, and joules since the source was opened, both times ``scale``.

        Raises:
            SensorUnavailableError: for a channel that has nothing but the counter: it gives no power yet, or broke.
        """
        current_j = _number(attribute, self.read_attribute)
        span_j = None if channel.joules_span is None else _number(channel.joules_span, self.read_attribute)
        only_counter = channel.watts is None and channel.volts is None
        counter = self._counters.get(attribute.path)
        if counter is None:
            self._counters[attribute.path] = _Counter(current_j, now)
            if only_counter:
                raise SensorUnavailableError(f"{channel.label}: first look at the energy counter; power needs two")
            return None, 0.0
        elapsed_s = now - counter.last_s
        try:
            step_j = counted_joules(
                counter.last_j, current_j, span_j=span_j, elapsed_s=elapsed_s, watts_max=self.source.watts_max
            )
            if only_counter and step_j == 0:
                raise SensorUnavailableError(f"the energy counter did not move in {elapsed_s:.2f} s")
        except SensorUnavailableError as error:
            counter.last_j, counter.last_s = current_j, now
            if only_counter:
                raise SensorUnavailableError(f"{channel.label}: {error}") from error
            return None, None
        counter.last_j, counter.last_s = current_j, now
        counter.total_j += step_j * scale
        return step_j * scale / elapsed_s, counter.total_j


def temperatures(root: Path, read: ReadText = read_text) -> dict[str, float]:
    """Thermal zones in degrees Celsius by their type; a zone that can't be read is left out."""
    found: dict[str, float] = {}
    for zone in _entries(root / "sys/class/thermal", "thermal_zone*"):
        try:
            name = read(zone / "type")
            celsius = _number(Attribute(zone / "temp", MILLI), read)
        except SensorUnavailableError:
            continue
        if -60.0 <= celsius <= 200.0:  # beyond: a sensor that is off reports a constant such as -256 degrees
            found[f"{name}.{zone.name.removeprefix('thermal_zone')}" if name in found else name] = celsius
    return found


def throttle_limit_c(root: Path, read: ReadText = read_text) -> float | None:
    """The lowest temperature at which a thermal zone begins to slow the machine down; None where none says so."""
    limits: list[float] = []
    for path in sorted((root / "sys/class/thermal").glob("thermal_zone*/trip_point_*_type"))[:SENSOR_DIRECTORIES_MAX]:
        try:
            if read(path) == "passive":
                limits.append(_number(Attribute(path.with_name(path.name.replace("_type", "_temp")), MILLI), read))
        except SensorUnavailableError:
            continue
    return min((limit for limit in limits if 40.0 <= limit <= 120.0), default=None)


def throttle(root: Path, read: ReadText = read_text) -> ThrottleState:
    """What the machine's files say about throttling: Pi firmware word, Pi under-voltage alarm, event counters."""
    states: list[ThrottleState] = []
    for path in sorted((root / "sys/devices/platform").glob("soc*/*firmware/get_throttled"))[:1]:
        try:
            states.append(pi_state(int(read(path), 16)))
        except (SensorUnavailableError, ValueError):
            continue
    counters: dict[str, int] = {}
    for device in _hwmon_directories(root):
        try:
            if not states and read(device / "name") == "rpi_volt":
                alarm = read(device / "in0_lcrit_alarm") != "0"
                states.append(ThrottleState(known=True, active=("under-voltage",) if alarm else ()))
        except SensorUnavailableError:
            continue
    # Jetson: over-current events; x86: thermal throttling of each core and package.
    patterns = (
        ("sys/class/hwmon", "hwmon*/oc*_event_cnt"),
        ("sys/devices/system/cpu", "cpu[0-9]*/thermal_throttle/*_throttle_count"),
    )
    for folder, pattern in patterns:
        for path in sorted((root / folder).glob(pattern))[:SENSOR_DIRECTORIES_MAX]:
            try:
                counters[f"{path.parent.parent.name}/{path.name}"] = int(read(path))
            except (SensorUnavailableError, ValueError):
                continue
    if counters:
        states.append(ThrottleState(known=True, counters=counters))
    return merged(tuple(states))


def _bind(
    board: Board, source: BoardSource, channels: list[Channel], why_none: str, read: ReadText
) -> SysfsPowerSource:
    """Match a source's rails with the machine's channels.

    Raises:
        SensorUnavailableError: a rail that the total needs is not there, stands there twice, or may not be read.
    """
    if not channels:
        raise SensorUnavailableError(why_none)
    bound: list[_BoundRail] = []
    missing: list[str] = []
    for rail in source.rails:
        matches = [channel for channel in channels if fnmatch.fnmatchcase(channel.label, rail.label)]
        if len(matches) > 1 and rail.counted and source.kind not in _KINDS_THAT_ADD:
            places = ", ".join(str(match.place) for match in matches)
            raise SensorUnavailableError(f"rail {rail.label} stands at more than one place ({places}): which to count?")
        if not matches and rail.counted and rail.required:
            missing.append(rail.label)
        taken = {entry.channel.label for entry in bound}
        bound += [_BoundRail(match, rail) for match in matches if match.label not in taken]
    counted = tuple(entry.channel.label for entry in bound if entry.rail.counted)
    if missing or not counted:
        there = ", ".join(sorted({channel.label for channel in channels}))
        raise SensorUnavailableError(f"no rail {', '.join(missing) or 'that is counted'} among {there}")
    for entry in bound:
        if entry.rail.counted:
            _refuse_forbidden(entry.channel, read)
    where = ", ".join(dict.fromkeys(str(entry.channel.place) for entry in bound if entry.rail.counted))
    info = describe(board, source, counted=counted, where=where)
    return SysfsPowerSource(info=info, source=source, rails=tuple(bound), read_attribute=read)


def _refuse_forbidden(channel: Channel, read: ReadText) -> None:
    """Tell a channel that this process may never read from one that fails now and then.

    Raises:
        SensorUnavailableError: permission is lacking.
    """
    for attribute in (channel.watts, channel.amps, channel.volts, channel.joules):
        if attribute is None:
            continue
        try:
            read(attribute.path)
        except SensorUnavailableError as error:
            if isinstance(error.__cause__, PermissionError):
                raise


def _hwmon_channels(root: Path, chips: tuple[str, ...], read: ReadText) -> tuple[list[Channel], str]:
    devices = _hwmon_directories(root)
    if not devices:
        return [], f"no hwmon device under {root / 'sys/class/hwmon'}"
    channels: list[Channel] = []
    names: set[str] = set()
    for device in devices:
        name = _text(device / "name", read) or _driver_name(device)
        names.add(name or "?")
        if name in chips:
            channels += _hwmon_device_channels(device, name, read)
    return channels, f"no hwmon device named {' or '.join(chips)} (found: {', '.join(sorted(names))})"


def _hwmon_device_channels(device: Path, chip: str, read: ReadText) -> list[Channel]:
    """The channels of one device. Only a channel with a current or a power of its own counts: an INA3221's in4 to in6
    are shunt voltages in microvolts and its in7 and curr4 are sums of the others."""
    labelled = any((device / f"in{number}_label").exists() for number in range(1, CHANNELS_MAX))
    device_label = _text(device / "label", read)
    channels = []
    for number in range(1, CHANNELS_MAX):
        amps, watts = device / f"curr{number}_input", device / f"power{number}_input"
        if not amps.exists() and not watts.exists():
            continue
        label = _text(device / f"in{number}_label", read)
        if labelled and (not label or label in SKIPPED_LABELS or label.startswith("sum of")):
            continue
        joules = device / f"energy{number}_input"
        volts = device / f"in{number}_input"
        channels.append(
            Channel(
                label=label or device_label or chip,
                place=device,
                volts=Attribute(volts, MILLI) if volts.exists() else None,
                amps=Attribute(amps, MILLI) if amps.exists() else None,
                watts=Attribute(watts, MICRO) if watts.exists() else None,
                joules=Attribute(joules, MICRO) if joules.exists() else None,
            )
        )
    return channels


def _iio_channels(root: Path, chips: tuple[str, ...], read: ReadText) -> tuple[list[Channel], str]:
    bus, drivers = root / "sys/bus/iio/devices", root / "sys/bus/i2c/drivers"
    devices = [entry for chip in chips for entry in _entries(drivers / chip, "*/iio:device*")]
    devices = _distinct([*devices, *_entries(bus, "iio:device*")])
    channels: list[Channel] = []
    for device in devices:
        for number in range(CHANNELS_MAX):
            label = _text(device / f"rail_name_{number}", read)
            if not label or label in SKIPPED_LABELS:
                continue
            volts, amps, watts = (
                device / f"in_{quantity}{number}_input" for quantity in ("voltage", "current", "power")
            )
            channels.append(
                Channel(
                    label=label,
                    place=device,
                    volts=Attribute(volts, MILLI) if volts.exists() else None,
                    amps=Attribute(amps, MILLI) if amps.exists() else None,
                    watts=Attribute(watts, MILLI) if watts.exists() else None,
                )
            )
    return channels, f"no iio device with named rails under {drivers / chips[0]} or {bus}"


def _powercap_channels(root: Path, _chips: tuple[str, ...], read: ReadText) -> tuple[list[Channel], str]:
    folder = root / "sys/class/powercap"
    channels = []
    for zone in _entries(folder, "*"):
        # The same package shows a second time through its memory-mapped interface.
        if "mmio" in zone.name or not (zone / "energy_uj").exists():
            continue
        label = _text(zone / "name", read) or zone.name
        channels.append(
            Channel(
                label=label,
                place=zone,
                joules=Attribute(zone / "energy_uj", MICRO),
                joules_span=Attribute(zone / "max_energy_range_uj", MICRO),
            )
        )
    return channels, f"no energy counter (RAPL) under {folder}"


def _power_supply_channels(root: Path, _chips: tuple[str, ...], read: ReadText) -> tuple[list[Channel], str]:
    folder = root / "sys/class/power_supply"
    channels = []
    for supply in _entries(folder, "*"):
        # A USB-C port's entry tells what was negotiated, not what flows.
        if supply.name.startswith("ucsi-source-psy"):
            continue
        kind = _text(supply / "type", read).lower()
        volts, amps, watts = (supply / f"{quantity}_now" for quantity in ("voltage", "current", "power"))
        if not kind or not (watts.exists() or (volts.exists() and amps.exists())):
            continue
        channels.append(
            Channel(
                label=f"{kind}/{supply.name}",
                place=supply,
                volts=Attribute(volts, MICRO) if volts.exists() else None,
                amps=Attribute(amps, MICRO) if amps.exists() else None,
                watts=Attribute(watts, MICRO) if watts.exists() and not amps.exists() else None,
                status=supply / "status" if kind == "battery" else None,
            )
        )
    return channels, f"no supply that measures its power under {folder}"


_CHANNELS_OF_KIND: Final[dict[Kind, Callable[[Path, tuple[str, ...], ReadText], tuple[list[Channel], str]]]] = {
    "hwmon": _hwmon_channels,
    "iio": _iio_channels,
    "powercap": _powercap_channels,
    "power_supply": _power_supply_channels,
}


def _hwmon_directories(root: Path) -> list[Path]:
    """hwmon devices by class and by I2C driver: JetPack releases and test trees show one, the other or both."""
    return _distinct(
        [
            *_entries(root / "sys/class/hwmon", "hwmon*"),
            *_entries(root / "sys/bus/i2c/drivers", "*/*/hwmon/hwmon*"),
        ]
    )


def _driver_name(device: Path) -> str:
    """The I2C driver's name from .../drivers/NAME/1-0040/hwmon/hwmon3, for a device without a ``name``."""
    parts = device.parts
    return parts[parts.index("drivers") + 1] if "drivers" in parts else ""


def _entries(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))[:SENSOR_DIRECTORIES_MAX]
    except OSError:
        return []  # a folder that may not be listed has nothing for this process


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """The same device reached by two paths counts once."""
    return list({path.resolve(): path for path in reversed(paths)}.values())[::-1]


def _text(path: Path, read: ReadText) -> str:
    """An attribute's text, empty where it is absent or unreadable."""
    try:
        return read(path)
    except SensorUnavailableError:
        return ""


def _number(attribute: Attribute, read: ReadText) -> float:
    text = read(attribute.path)
    try:
        return int(text) * attribute.factor
    except ValueError as error:
        raise SensorUnavailableError(f"{attribute.path}: {text[:40]!r} is not a whole number") from error


def _refuse_charging(status: str) -> None:
    """Raise unless a battery's status says that it feeds the machine."""
    if status != "Discharging":
        raise SensorUnavailableError(
            f"the battery's status is {status or 'unknown'!r}: its current is not what the machine draws"
        )


def _scaled(rail: Rail) -> Accuracy:
    """A rail's accuracy after its calibration scales."""
    given = rail.accuracy
    return Accuracy(
        amps_step=given.amps_step * rail.amps_scale,
        volts_step=given.volts_step * rail.volts_scale,
        watts_step=given.watts_step * rail.amps_scale * rail.volts_scale,
        amps_offset=given.amps_offset * rail.amps_scale,
        gain=given.gain,
    )


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "; let the agent's user read it (a udev or tmpfiles.d rule; firmware_hooks/README.md has the lines)"
    return ""
