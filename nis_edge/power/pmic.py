"""The text that a Raspberry Pi's firmware answers: rail voltages and currents, throttle bits, refusals. Pure.

``pmic_read_adc`` on a Pi 5 gives lines such as ``VDD_CORE_A current(7)=1.50000000A`` and
``VDD_CORE_V volt(15)=0.88000000V``; a rail has both, EXT5V and BATT only a voltage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from nis_edge.errors import SensorUnavailableError

_LINE: Final = re.compile(r"\s*(\w{1,32})_([AV])\s+(?:current|volt)\(\d{1,3}\)=(-?\d{1,6}(?:\.\d{1,12})?)([AV])\s*")
_ERROR: Final = re.compile(r'error=(\d+)(?:\s+error_msg="([^"]{0,200})")?')
_THROTTLED: Final = re.compile(r"throttled=(0x[0-9a-fA-F]{1,8})\s*")


def refuse_firmware_error(answer: str) -> None:
    """Raise when the firmware answered with an error instead of a value.

    Raises:
        SensorUnavailableError: the hardware or its firmware lacks the command.
    """
    found = _ERROR.search(answer)
    if found and found.group(1) != "0":
        said = found.group(2) or f"error {found.group(1)}"
        raise SensorUnavailableError(
            f"the firmware answered {said!r}: this board has no such sensor (a Raspberry Pi 4 or older has no current "
            "sensor) or its firmware is too old"
        )


def parse_adc(answer: str) -> Mapping[str, tuple[float | None, float | None]]:
    """Read the power chip's answer.

    Returns:
        Rail name -> (volts, amps), None where the chip gives none.

    Raises:
        SensorUnavailableError: the answer is an error, is empty, or has a line that is none of these.
    """
    refuse_firmware_error(answer)
    volts: dict[str, float] = {}
    amps: dict[str, float] = {}
    for line in answer.replace("\0", "").splitlines():
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if not found or found.group(2) != found.group(4):
            raise SensorUnavailableError(f"the firmware's answer has a line that is no rail: {line.strip()[:60]!r}")
        rail, quantity, number, _ = found.groups()
        of_quantity = amps if quantity == "A" else volts
        if rail in of_quantity:
            raise SensorUnavailableError(f"the firmware named rail {rail} twice in one answer")
        of_quantity[rail] = float(number)
    if not amps:
        raise SensorUnavailableError("the firmware's answer names no current")
    return {rail: (volts.get(rail), amps.get(rail)) for rail in sorted(volts.keys() | amps.keys())}


def parse_throttled(answer: str) -> int:
    """The throttle word of ``get_throttled``, e.g. ``throttled=0x50005`` -> 0x50005.

    Raises:
        SensorUnavailableError: the answer holds no such word.
    """
    refuse_firmware_error(answer)
    found = _THROTTLED.search(answer)
    if not found:
        raise SensorUnavailableError(f"the firmware's answer is no throttle word: {answer.strip()[:60]!r}")
    return int(found.group(1), 16)
