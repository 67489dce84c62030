"""Power meters on a serial port: UM24C, UM25C, UM34C (Bluetooth serial) and our own INA228 meter (USB).

``discover(root, boards)`` gives the sources of the board files whose kind is ``um_meter`` or ``nis_meter``. A port is
tried only where a board file names it: writing to whatever serial port is there could command a machine. The port is
opened at the first reading, for this process alone, and again after it was lost; ``close`` gives it back.
``source.read(now)`` never raises for a sensor. A UM meter answers within a second, so read in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nis_edge.errors import SensorUnavailableError
from nis_edge.power.boards import Board, BoardSource, describe
from nis_edge.power.meters import (
    LINE_BYTES_MAX,
    UM_FRAME_BYTES,
    UM_REQUEST,
    MeterSample,
    mean_watts,
    parse_line,
    parse_um_frame,
)
from nis_edge.power.plausibility import StuckWatch, watch_stuck
from nis_edge.power.rails import Absence, Discovery, PowerReading, RailSample, SourceInfo, rail_sample, total

OpenPort = Callable[[Path, int, float], Any]

BAUD: Final = {"um_meter": 9600, "nis_meter": 115_200}
"""UM meters: edge.md 2.3. Ours is USB, where the figure means nothing."""

ANSWER_TIMEOUT_S: Final = 1.0
"""130 bytes at 9600 baud take 0.14 s; Bluetooth adds some tenths."""

LINE_AGE_MAX_S: Final = 1.0
"""An older line is no reading of now; our meter sends ten a second."""

DRAIN_BYTES_MAX: Final = 64 * LINE_BYTES_MAX
"""What is taken from a port at one reading; a port that babbles faster is cut."""


def discover(root: Path, boards: Sequence[Board], open_port: OpenPort | None = None) -> Discovery:
    """Find the serial meters that board files name.

    Args:
        root: the folder that holds ``dev``; ``/`` on a real machine.
        boards: in the order of preference.
        open_port: gives a port like pyserial's for (path, baud, timeout in s); None uses pyserial.
    """
    sources: list[SerialPowerSource] = []
    absent: list[Absence] = []
    for board in boards:
        for source in board.sources:
            if source.kind not in BAUD:
                continue
            ports = [root / port.lstrip("/") for port in source.ports]
            there = next((port for port in ports if port.exists()), None)
            if there is None:
                reason = f"no serial meter at {' or '.join(map(str, ports))}"
                absent.append(Absence(source=f"{board.id}/{source.id}", reason=reason))
            else:
                sources.append(_bind(board, source, there, open_port or _open_port))
    return Discovery(sources=tuple(sources), absent=tuple(absent))


@dataclass
class SerialPowerSource:
    """A meter on a port."""

    info: SourceInfo
    source: BoardSource
    path: Path
    open_port: OpenPort
    _port: Any = None
    _pending: bytes = b""
    _last: MeterSample | None = None
    _last_s: float = 0.0
    _first_j: float | None = None
    _stuck: StuckWatch = field(default_factory=StuckWatch)

    def read(self, now: float) -> PowerReading:
        """Read once; see ``PowerSource``."""
        rail = self.source.rails[0]
        joules = None
        try:
            before = self._last
            sample = self._take(now)
            watts = sample.watts
            if sample.joules is not None:
                watts, counted_j = self._count(before, sample)
                joules = None if counted_j is None else counted_j * rail.volts_scale * rail.amps_scale
            judged = rail_sample(
                rail.label,
                volts=sample.volts * rail.volts_scale,
                amps=sample.amps * rail.amps_scale,
                watts=watts * rail.volts_scale * rail.amps_scale,
                watts_max=self.source.watts_max,
                amps_slack=self.source.amps_slack,
            )
        except SensorUnavailableError as error:
            judged = RailSample(rail=rail.label, watts=None, reason=f"{self.path}: {error}")
        except OSError as error:  # pyserial's errors are OSErrors: the cable was pulled, the link dropped
            self.close()
            judged = RailSample(rail=rail.label, watts=None, reason=f"{self.path}: {error}")
        reading = total(self.info, [judged], [rail.accuracy], now=now, joules=joules)
        if reading.watts is None:
            return reading
        self._stuck, fault = watch_stuck(
            self._stuck, (judged.volts, judged.amps, judged.watts), now, self.source.stuck_after_s
        )
        if fault is not None:
            return PowerReading(t_s=now, watts=None, info=self.info, rails=(judged,), reason=fault)
        return reading

    def close(self) -> None:
        """Give the port back."""
        if self._port is not None:
            self._port.close()
            self._port = None
        self._pending, self._last, self._first_j = b"", None, None

    def _take(self, now: float) -> MeterSample:
        if self._port is None:
            self._port = self.open_port(self.path, BAUD[self.source.kind], ANSWER_TIMEOUT_S)
        if self.source.kind == "um_meter":
            self._port.reset_input_buffer()
            self._port.write(UM_REQUEST)
            return parse_um_frame(self._port.read(UM_FRAME_BYTES))
        return self._newest_line(now)

    def _newest_line(self, now: float) -> MeterSample:
        """The newest whole line that has come; waits for the first one only."""
        if self._last is None:
            self._last, self._last_s = self._first_line(), now
        self._pending += self._port.read(min(self._port.in_waiting, DRAIN_BYTES_MAX))
        *lines, rest = self._pending.split(b"\n")
        self._pending = rest[-LINE_BYTES_MAX:]
        fault: SensorUnavailableError | None = None
        for line in reversed(lines):
            try:
                self._last, self._last_s = parse_line(line.rstrip(b"\r")), now
                return self._last
            except SensorUnavailableError as error:
                fault = fault or error
        if fault is not None:
            raise fault
        if now - self._last_s > LINE_AGE_MAX_S:
            raise SensorUnavailableError(f"the meter has sent no whole line for over {LINE_AGE_MAX_S:g} s")
        return self._last

    def _first_line(self) -> MeterSample:
        """Wait for the first line after the port was opened, or the second: the first may have lost its beginning."""
        first = self._port.read_until(b"\n", LINE_BYTES_MAX)
        try:
            return parse_line(first.rstrip(b"\r\n"))
        except SensorUnavailableError:
            return parse_line(self._port.read_until(b"\n", LINE_BYTES_MAX).rstrip(b"\r\n"))

    def _count(self, before: MeterSample | None, sample: MeterSample) -> tuple[float, float | None]:
        """Mean power since the line before, and joules since the port was opened or the meter was restarted."""
        assert sample.joules is not None
        if before is None or self._first_j is None:
            self._first_j = sample.joules
            return sample.watts, 0.0
        if before is sample:
            return sample.watts, sample.joules - self._first_j
        watts = mean_watts(before, sample)
        if watts is None:
            self._first_j = sample.joules
            return sample.watts, None
        return watts, sample.joules - self._first_j


def _bind(board: Board, source: BoardSource, path: Path, open_port: OpenPort) -> SerialPowerSource:
    info = describe(board, source, counted=(source.rails[0].label,), where=str(path))
    return SerialPowerSource(info=info, source=source, path=path, open_port=open_port)


def _open_port(path: Path, baud: int, timeout_s: float) -> Any:
    """Open a port for this process alone.

    Raises:
        SensorUnavailableError: it can't be opened, or another process reads it.
    """
    import serial  # only machines with a meter pay for it

    try:
        port = serial.Serial(str(path), baud, timeout=timeout_s, write_timeout=timeout_s, exclusive=True)
    except (OSError, ValueError) as error:
        remedy = "; add the agent's user to group dialout, or stop the other program that reads the meter"
        raise SensorUnavailableError(f"{' '.join(str(error).split())[:120]}{remedy}") from error
    return port
