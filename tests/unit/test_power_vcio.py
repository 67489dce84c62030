"""The Raspberry Pi's firmware, asked through an injected ioctl or an injected program."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from nis_edge.adapters import vcio
from nis_edge.errors import SensorUnavailableError
from nis_edge.metering import load_boards
from nis_edge.power.pmic import parse_adc, parse_throttled
from tests.support.power_trees import PI5_RAILS, PI5_WATTS, pi5_answer

BOARDS, _ = load_boards(Path("/nonexistent"))


class FakeFirmware:
    """Speaks the property protocol over a buffer, as the kernel's device node does."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.code = 0

    def ioctl(self, descriptor: int, request: int, message: bytearray) -> int:
        total, code, tag, room, _, _ = struct.unpack_from("=6I", message, 0)
        assert (request, total, code, tag) == (0xC0086400, len(message), 0, 0x00030080)
        assert room + 24 <= len(message)
        command = bytes(message[24:]).split(b"\0", 1)[0].decode()
        self.asked.append(command)
        answer = self.answers.get(command, 'error=1 error_msg="Command not registered"').encode() + b"\0"
        struct.pack_into("=I", message, 20, self.code)
        message[24 : 24 + len(answer)] = answer
        return 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vcio_gencmd").write_bytes(b"")
    return tmp_path


def test_a_pi_5_gives_the_sum_of_its_named_rails_as_an_incomplete_scope(root) -> None:
    firmware = FakeFirmware({"pmic_read_adc": pi5_answer()})
    (source,) = vcio.discover(root, BOARDS, ioctl=firmware.ioctl).sources
    reading = source.read(1.0)
    assert reading.watts == pytest.approx(PI5_WATTS, abs=1e-6)
    assert set(reading.info.counted) == set(PI5_RAILS)
    assert (reading.info.scope, reading.info.grade, reading.info.complete) == ("rails", "C", False)


def test_the_fit_to_the_input_is_an_estimate_of_grade_d_beside_the_reading(root) -> None:
    firmware = FakeFirmware({"pmic_read_adc": pi5_answer()})
    (source,) = vcio.discover(root, BOARDS, ioctl=firmware.ioctl).sources
    estimate = source.read(1.0).estimate
    assert estimate is not None
    assert estimate.watts == pytest.approx(1.1451 * PI5_WATTS + 0.5879)
    assert (estimate.scope, estimate.grade) == ("input", "D")


def test_the_narrow_node_is_preferred_and_the_program_is_the_last_resort(root) -> None:
    (root / "dev/vcio").write_bytes(b"")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/vcgencmd").write_bytes(b"")
    ran: list[list[str]] = []

    def run(words) -> str:
        ran.append(list(words))
        return pi5_answer()

    firmware = FakeFirmware({"pmic_read_adc": pi5_answer()})
    (source,) = vcio.discover(root, BOARDS, ioctl=firmware.ioctl, run=run).sources
    assert source.info.where.endswith("dev/vcio_gencmd") and not ran

    def refused(descriptor: int, request: int, message: bytearray) -> int:
        raise PermissionError(13, "Permission denied")

    (source,) = vcio.discover(root, BOARDS, ioctl=refused, run=run).sources
    assert source.info.where.endswith("usr/bin/vcgencmd")
    assert source.read(2.0).watts == pytest.approx(PI5_WATTS, abs=1e-6)
    assert ran[-1] == [str(root / "usr/bin/vcgencmd"), "pmic_read_adc"]


def test_an_older_pi_is_absent_and_says_that_it_has_no_current_sensor(root) -> None:
    found = vcio.discover(root, BOARDS, ioctl=FakeFirmware({}).ioctl)
    assert found.sources == ()
    assert "Command not registered" in found.absent[0].reason
    assert "Raspberry Pi 4 or older has no current sensor" in found.absent[0].reason


def test_no_permission_names_the_group(root) -> None:
    def refused(descriptor: int, request: int, message: bytearray) -> int:
        raise PermissionError(13, "Permission denied")

    found = vcio.discover(root, BOARDS, ioctl=refused)
    assert "group video" in found.absent[0].reason


def test_another_machine_is_told_that_it_has_no_such_firmware(tmp_path) -> None:
    found = vcio.discover(tmp_path, BOARDS)
    assert "no Raspberry Pi firmware" in found.absent[0].reason


def test_a_code_of_the_firmware_is_a_refusal(root) -> None:
    firmware = FakeFirmware({"pmic_read_adc": pi5_answer()})
    firmware.code = 0x80000001
    found = vcio.discover(root, BOARDS, ioctl=firmware.ioctl)
    assert found.sources == () and "refused" in found.absent[0].reason


def test_a_rail_that_disappears_makes_the_sum_absent(root) -> None:
    firmware = FakeFirmware({"pmic_read_adc": pi5_answer()})
    (source,) = vcio.discover(root, BOARDS, ioctl=firmware.ioctl).sources
    lacking = {rail: values for rail, values in PI5_RAILS.items() if rail != "VDD_CORE"}
    firmware.answers["pmic_read_adc"] = pi5_answer(lacking)
    reading = source.read(1.0)
    assert reading.watts is None and "VDD_CORE: not read" in (reading.reason or "")
    firmware.answers["pmic_read_adc"] = pi5_answer({**PI5_RAILS, "VDD_CORE": (0.9, -2.0)})
    reading = source.read(2.0)
    assert reading.watts is None and "negative current" in (reading.reason or "")
    del firmware.answers["pmic_read_adc"]
    assert source.read(3.0).watts is None


def test_the_throttle_word_is_read_by_ioctl(root) -> None:
    state = vcio.throttle(root, ioctl=FakeFirmware({"get_throttled": "throttled=0x50005"}).ioctl)
    assert state.known
    assert state.active == ("under-voltage", "throttled")
    assert state.since_boot == ("under-voltage", "throttled")
    assert not vcio.throttle(root, ioctl=FakeFirmware({}).ioctl).known


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "nonsense",
        "VDD_CORE_A current(7)=nanA",
        "VDD_CORE_A current(7)=1e9A",
        "VDD_CORE_A current(7)=1.0V",
        "VDD_CORE_A current(7)=1.0A\nVDD_CORE_A current(7)=2.0A",
        "EXT5V_V volt(24)=5.0V",
        "VDD_CORE_A current(7)=1.0A\n" + "x" * 4000,
    ],
)
def test_an_answer_that_is_not_the_format_is_refused(answer) -> None:
    with pytest.raises(SensorUnavailableError):
        parse_adc(answer)


@pytest.mark.parametrize("answer", ["", "throttled=", "throttled=0xzz", "0x50005"])
def test_an_answer_without_a_throttle_word_is_refused(answer) -> None:
    with pytest.raises(SensorUnavailableError):
        parse_throttled(answer)
