"""The Raspberry Pi's firmware: its power chip's rails and its throttle word, asked by ioctl, or by ``vcgencmd``.

The ioctl costs microseconds; the program is the last resort, because starting one ten times a second slows the very
thing that is measured. ``discover(root, boards)`` gives the sources of the board files whose kind is ``gencmd``;
``throttle(root)`` gives the throttle state. ``source.read(now)`` never raises for a sensor. The device node, the ioctl
and the program are injectable.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nis_edge.errors import SensorUnavailableError
from nis_edge.limits import SENSOR_FILE_BYTES_MAX
from nis_edge.power.boards import Board, BoardSource, describe
from nis_edge.power.plausibility import StuckWatch, watch_stuck
from nis_edge.power.pmic import parse_adc, parse_throttled, refuse_firmware_error
from nis_edge.power.rails import Absence, Discovery, PowerReading, RailSample, SourceInfo, rail_sample, total
from nis_edge.power.throttle import ThrottleState, pi_state

Ioctl = Callable[[int, int, bytearray], object]
Run = Callable[[Sequence[str]], str]

DEVICES: Final = ("dev/vcio_gencmd", "dev/vcio")
"""Newer kernels give group video a node that can do nothing but this; the older node needs root on newer systems."""

PROGRAMS: Final = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")

IOCTL_PROPERTY: Final = 0xC0000000 | struct.calcsize("P") << 16 | 100 << 8
"""_IOWR(100, 0, char *): 0xC0086400 where a pointer has 8 bytes."""

TAG_GENCMD: Final = 0x00030080
"""The firmware property that runs a general command and returns its text."""

HEADER_WORDS: Final = 6
"""Total bytes, request code, tag, value bytes, request bytes, error; the command and then the answer follow."""

PROGRAM_TIMEOUT_S: Final = 2.0

ADC_COMMAND: Final = "pmic_read_adc"
THROTTLE_COMMAND: Final = "get_throttled"


@dataclass(frozen=True)
class Firmware:
    """A way to ask the firmware: a device node, or the program."""

    where: str
    ask: Callable[[str], str]


def discover(root: Path, boards: Sequence[Board], *, ioctl: Ioctl = fcntl.ioctl, run: Run | None = None) -> Discovery:
    """Find the firmware-based power sources of these boards.

    Args:
        root: the folder that holds ``dev`` and ``usr``; ``/`` on a real machine.
        boards: in the order of preference.
        ioctl: as ``fcntl.ioctl``.
        run: runs a program and returns its text; None runs it for real.
    """
    sources: list[FirmwarePowerSource] = []
    absent: list[Absence] = []
    for board in boards:
        for source in board.sources:
            if source.kind != "gencmd":
                continue
            try:
                sources.append(_bind(board, source, find_firmware(root, ADC_COMMAND, ioctl=ioctl, run=run)))
            except SensorUnavailableError as error:
                absent.append(Absence(source=f"{board.id}/{source.id}", reason=str(error)))
    return Discovery(sources=tuple(sources), absent=tuple(absent))


def throttle(root: Path, *, ioctl: Ioctl = fcntl.ioctl, run: Run | None = None) -> ThrottleState:
    """The firmware's throttle word; unknown with a reason where there is no such firmware."""
    try:
        return pi_state(
            parse_throttled(find_firmware(root, THROTTLE_COMMAND, ioctl=ioctl, run=run).ask(THROTTLE_COMMAND))
        )
    except SensorUnavailableError as error:
        return ThrottleState(known=False, reason=str(error))


def find_firmware(root: Path, command: str, *, ioctl: Ioctl = fcntl.ioctl, run: Run | None = None) -> Firmware:
    """The first way that answers ``command``.

    Raises:
        SensorUnavailableError: none does; each with its reason.
    """
    reasons: list[str] = []
    ways = [
        Firmware(str(root / device), lambda asked, path=root / device: ask_device(path, asked, ioctl))  # type: ignore[misc]
        for device in DEVICES
        if (root / device).exists()
    ]
    runner = run or _run
    ways += [
        Firmware(str(root / program), lambda asked, path=root / program: ask_program(path, asked, runner))  # type: ignore[misc]
        for program in PROGRAMS
        if (root / program).exists()
    ]
    for way in ways:
        try:
            way.ask(command)
        except SensorUnavailableError as error:
            reasons.append(str(error))
        else:
            return way
    nodes = " or ".join(str(root / device) for device in DEVICES)
    raise SensorUnavailableError("; ".join(reasons) or f"no Raspberry Pi firmware ({nodes})")


def ask_device(path: Path, command: str, ioctl: Ioctl = fcntl.ioctl) -> str:
    """Ask the firmware through a device node.

    Raises:
        SensorUnavailableError: the node can't be opened, the ioctl failed, or the firmware answered with an error.
    """
    words = command.encode("ascii") + b"\0"
    message = bytearray(HEADER_WORDS * 4 + SENSOR_FILE_BYTES_MAX + 4)
    struct.pack_into("=6I", message, 0, len(message), 0, TAG_GENCMD, SENSOR_FILE_BYTES_MAX, 0, 0)
    message[HEADER_WORDS * 4 : HEADER_WORDS * 4 + len(words)] = words
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            ioctl(descriptor, IOCTL_PROPERTY, message)
        finally:
            os.close(descriptor)
    except OSError as error:
        remedy = "; add the agent's user to group video" if isinstance(error, PermissionError) else ""
        raise SensorUnavailableError(f"{path}: {error.strerror}{remedy}") from error
    (code,) = struct.unpack_from("=I", message, 5 * 4)
    if code:
        raise SensorUnavailableError(f"{path}: the firmware refused {command!r} with code {code}")
    answer = bytes(message[HEADER_WORDS * 4 :]).split(b"\0", 1)[0].decode("ascii", errors="replace")
    refuse_firmware_error(answer)
    return answer


def ask_program(path: Path, command: str, run: Run) -> str:
    """Ask the firmware through ``vcgencmd``.

    Raises:
        SensorUnavailableError: the program failed, hung, or the firmware answered with an error.
    """
    try:
        answer = run([str(path), command])[:SENSOR_FILE_BYTES_MAX]
    except (OSError, subprocess.SubprocessError) as error:
        raise SensorUnavailableError(f"{path}: {error}") from error
    refuse_firmware_error(answer)
    return answer


@dataclass
class FirmwarePowerSource:
    """The rails of the Pi 5's power chip."""

    info: SourceInfo
    source: BoardSource
    firmware: Firmware
    _stuck: StuckWatch = field(default_factory=StuckWatch)

    def read(self, now: float) -> PowerReading:
        """Read every rail once; see ``PowerSource``."""
        try:
            rails = parse_adc(self.firmware.ask(ADC_COMMAND))
        except SensorUnavailableError as error:
            return PowerReading(t_s=now, watts=None, info=self.info, rails=(), reason=str(error))
        named = {rail.label: rail for rail in self.source.rails}
        samples: list[RailSample] = []
        for label, (volts, amps) in rails.items():
            if label not in named:
                continue
            scaled_volts = None if volts is None else volts * named[label].volts_scale
            if not named[label].counted and amps is None:
                reason = f"{label}: the chip gives no current"
                samples.append(RailSample(rail=label, watts=None, volts=scaled_volts, reason=reason))
                continue
            samples.append(
                rail_sample(
                    label,
                    volts=scaled_volts,
                    amps=None if amps is None else amps * named[label].amps_scale,
                    watts=None,
                    watts_max=self.source.watts_max,
                    amps_slack=self.source.amps_slack,
                )
            )
        fit = self.source.fit
        reading = total(
            self.info,
            samples,
            [named[sample.rail].accuracy for sample in samples],
            now=now,
            fit=None if fit is None else (fit.gain, fit.offset_w, fit.scope, fit.method),
        )
        if reading.watts is None:
            return reading
        raw = tuple(number for sample in samples for number in (sample.volts, sample.amps))
        self._stuck, fault = watch_stuck(self._stuck, raw, now, self.source.stuck_after_s)
        if fault is not None:
            return PowerReading(t_s=now, watts=None, info=self.info, rails=tuple(samples), reason=fault)
        return reading

    def close(self) -> None:
        """Nothing is held open between readings."""


def _bind(board: Board, source: BoardSource, firmware: Firmware) -> FirmwarePowerSource:
    """Match the source's rails with what the firmware names.

    Raises:
        SensorUnavailableError: a rail that the total needs is not named.
    """
    there = parse_adc(firmware.ask(ADC_COMMAND))
    counted = tuple(rail.label for rail in source.rails if rail.counted)
    missing = [rail.label for rail in source.rails if rail.counted and rail.required and rail.label not in there]
    if missing:
        raise SensorUnavailableError(f"the firmware names no rail {', '.join(missing)}; it has {', '.join(there)}")
    found = tuple(label for label in counted if label in there)
    info = describe(board, source, counted=found, where=firmware.where)
    return FirmwarePowerSource(info=info, source=source, firmware=firmware)


def _run(words: Sequence[str]) -> str:
    """Run a program that was found by its absolute path; its text, whatever its exit code: errors are in the text."""
    done = subprocess.run(words, capture_output=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    return done.stdout.decode("ascii", errors="replace")
