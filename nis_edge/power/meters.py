"""What serial power meters send: the 130-byte frame of UM24C, UM25C and UM34C, and the line of our own INA228 meter.

Our meter sends one line a reading, ``v_mV,i_mA,energy_mJ,t_us,crc``: decimal numbers, then the CRC-16/CCITT-FALSE of
everything before the last comma as four hexadecimal digits. Energy and time come from the chip's own accumulator and
the meter's own clock, so that what happens between two lines is not lost. Pure.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Final, NamedTuple

from nis_edge.errors import SensorUnavailableError

UM_REQUEST: Final = b"\xf0"
UM_FRAME_BYTES: Final = 130

UM_SCALES: Final = {0x0963: (100.0, 1000.0), 0x09C9: (1000.0, 10_000.0), 0x0D4C: (100.0, 1000.0)}
"""Model word -> counts per volt and per ampere: UM24C, UM25C, UM34C (edge.md 2.3)."""

UM_POWER_MISMATCH_MAX: Final = 0.05
"""Share by which a frame's own power may differ from voltage times current; more is a frame read out of step."""

UM_POWER_SLACK_W: Final = 0.05
"""The same in W, for currents near zero where digits are few."""

LINE_BYTES_MAX: Final = 96
"""A line of our meter; the longest that makes sense has about 60 bytes."""

_LINE: Final = re.compile(
    rb"(-?\d{1,6}(?:\.\d{1,6})?),(-?\d{1,6}(?:\.\d{1,6})?),(\d{1,15}(?:\.\d{1,6})?),(\d{1,18}),([0-9A-Fa-f]{4})"
)


class MeterSample(NamedTuple):
    """One reading of a meter in V, A, W, and where it counts, J since it was switched on and its own seconds."""

    volts: float
    amps: float
    watts: float
    joules: float | None = None
    meter_s: float | None = None


def parse_um_frame(frame: bytes) -> MeterSample:
    """Read the answer to UM_REQUEST.

    Raises:
        SensorUnavailableError: the bytes are no such frame; nothing is taken from them.
    """
    if len(frame) != UM_FRAME_BYTES:
        raise SensorUnavailableError(f"the meter sent {len(frame)} bytes instead of {UM_FRAME_BYTES}")
    model, raw_volts, raw_amps, milliwatts = struct.unpack_from(">HHHI", frame)
    if model not in UM_SCALES:
        raise SensorUnavailableError(f"the meter calls itself {model:#06x}, which is no UM24C, UM25C or UM34C")
    per_volt, per_ampere = UM_SCALES[model]
    volts, amps, watts = raw_volts / per_volt, raw_amps / per_ampere, milliwatts / 1000
    if abs(volts * amps - watts) > UM_POWER_SLACK_W + UM_POWER_MISMATCH_MAX * watts:
        raise SensorUnavailableError(
            f"the meter's frame contradicts itself: {volts:.2f} V x {amps:.3f} A is not {watts:.2f} W"
        )
    return MeterSample(volts, amps, watts)


def parse_line(line: bytes) -> MeterSample:
    """Read one line of our meter, without its line end.

    Raises:
        SensorUnavailableError: the line is cut, garbled or fails its checksum.
    """
    found = _LINE.fullmatch(line)
    if not found:
        raise SensorUnavailableError(f"the meter's line is garbled: {line[:40]!r}")
    if crc16(line[: found.start(5) - 1]) != int(found[5], 16):
        raise SensorUnavailableError("the meter's line fails its checksum")
    millivolts, milliamps, millijoules, microseconds = (float(text) for text in found.groups()[:4])
    volts, amps = millivolts / 1000, milliamps / 1000
    return MeterSample(volts, amps, volts * amps, millijoules / 1000, microseconds / 1e6)


def mean_watts(earlier: MeterSample, later: MeterSample) -> float | None:
    """Mean power in W between two lines by the meter's own accumulator and clock; None when it was restarted."""
    if None in (earlier.joules, later.joules, earlier.meter_s, later.meter_s):
        return None
    assert earlier.joules is not None and later.joules is not None
    assert earlier.meter_s is not None and later.meter_s is not None
    seconds, joules = later.meter_s - earlier.meter_s, later.joules - earlier.joules
    if seconds <= 0 or joules < 0 or not math.isfinite(joules / seconds):
        return None
    return joules / seconds


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, nothing reflected; b"123456789" gives 0x29B1."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc
