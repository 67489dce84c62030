"""Serial meters over a pseudo-terminal: right watts and joules, or absent with the reason."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.adapters import serial_meter
from nis_edge.errors import SensorUnavailableError
from nis_edge.metering import PowerMeter, find_power, load_boards
from nis_edge.power.meters import crc16, parse_line, parse_um_frame
from nis_edge.power.rails import PowerSource

BOARDS, _ = load_boards(Path("/nonexistent"))


def um_frame(millivolts: int = 5087, tenth_milliamps: int = 11_234, model: int = 0x09C9) -> bytes:
    milliwatts = millivolts * tenth_milliamps // 10_000
    if model != 0x09C9:
        millivolts, tenth_milliamps = millivolts // 10, tenth_milliamps // 10
    frame = struct.pack(">HHHI", model, millivolts, tenth_milliamps, milliwatts)
    return frame + bytes(128 - len(frame)) + b"\xff\xf1"


def line(millivolts: float, milliamps: float, millijoules: float, microseconds: int) -> bytes:
    text = f"{millivolts:.3f},{milliamps:.3f},{millijoules:.3f},{microseconds}".encode()
    return text + f",{crc16(text):04X}\n".encode()


class Terminal:
    """A pseudo-terminal whose far end a test holds, linked into a tree under the name a board file looks for."""

    def __init__(self, root: Path, name: str) -> None:
        self.far, self._near = os.openpty()
        tty.setraw(self._near)
        (root / "dev").mkdir(exist_ok=True)
        (root / "dev" / name).symlink_to(os.ttyname(self._near))

    def send(self, data: bytes) -> None:
        os.write(self.far, data)

    def deliver(self, data: bytes) -> None:
        """Send, and wait until the near end can read all of it: the kernel carries it over in its own time."""
        wanted = self._readable() + len(data)
        self.send(data)
        deadline_s = time.monotonic() + 10
        while self._readable() < wanted and time.monotonic() < deadline_s:
            select.select([self._near], [], [], 0.01)
        assert self._readable() == wanted

    def _readable(self) -> int:
        (count,) = struct.unpack("i", fcntl.ioctl(self._near, termios.FIONREAD, b"\0" * 4))
        return count

    def hang_up(self) -> None:
        for descriptor in (self.far, self._near):
            if descriptor >= 0:
                os.close(descriptor)
        self.far = self._near = -1


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, "nis-meter")
    yield made
    made.hang_up()


def only_source(root: Path, terminal: Terminal | None = None, *, sends: bytes = b"") -> PowerSource:
    """The one meter of a tree. ``sends`` comes once the port is open: opening throws away what came before."""

    def open_port(path: Path, baud: int, timeout_s: float) -> Any:
        port = serial.Serial(str(path), baud, timeout=timeout_s, exclusive=True)
        if terminal is not None:
            terminal.deliver(sends)
        return port

    (source,) = serial_meter.discover(root, BOARDS, open_port).sources
    return source


def answer_requests(terminal: Terminal, frames: list[bytes]) -> threading.Thread:
    """Be the UM meter: one frame for each request byte."""

    def serve() -> None:
        for frame in frames:
            assert os.read(terminal.far, 1) == b"\xf0"
            terminal.send(frame)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_um25c_gives_watts_at_the_input_with_grade_a(tmp_path) -> None:
    terminal = Terminal(tmp_path, "nis-um25c")
    served = answer_requests(terminal, [um_frame(), um_frame()[:100]])
    source = only_source(tmp_path)
    reading = source.read(1.0)
    assert reading.watts == pytest.approx(5.714, abs=0.001)
    assert (reading.info.scope, reading.info.grade, reading.info.complete) == ("input", "A", True)
    assert reading.rails[0].volts == pytest.approx(5.087) and reading.rails[0].amps == pytest.approx(1.1234)
    short = source.read(2.0)
    assert short.watts is None and "100 bytes instead of 130" in (short.reason or "")
    served.join(5)
    source.close()
    terminal.hang_up()


def test_the_other_um_models_have_coarser_digits() -> None:
    for model in (0x0963, 0x0D4C):
        sample = parse_um_frame(um_frame(5080, 11_230, model))
        assert (sample.volts, sample.amps) == pytest.approx((5.08, 1.123))


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (b"", "0 bytes"),
        (um_frame(model=0x1234), "no UM24C"),
        (um_frame()[:2] + struct.pack(">HHI", 5087, 11_234, 60_000) + um_frame()[10:], "contradicts itself"),
    ],
)
def test_a_frame_that_is_none_is_refused(frame, told) -> None:
    with pytest.raises(SensorUnavailableError, match=told):
        parse_um_frame(frame)


def test_our_meter_counts_the_energy_between_lines(tmp_path, terminal) -> None:
    source = only_source(tmp_path, terminal, sends=line(5100, 1200, 1000, 1_000_000))
    first = source.read(10.0)
    assert first.watts == pytest.approx(5.1 * 1.2) and first.joules == 0.0
    # A burst between two lines shows in the accumulator alone: 9 W of mean power at 6.12 W of instant power.
    terminal.deliver(line(5100, 1200, 1450, 1_025_000) + line(5100, 1200, 1900, 1_100_000))
    second = source.read(10.1)
    assert second.watts == pytest.approx(9.0) and second.joules == pytest.approx(0.9)
    source.close()


def test_the_newest_whole_line_counts_and_a_half_one_waits(tmp_path, terminal) -> None:
    cut_at_both_ends = line(5100, 900, 0, 0)[7:] + line(5100, 1000, 0, 0) + line(5100, 2000, 1000, 100_000)[:-9]
    source = only_source(tmp_path, terminal, sends=cut_at_both_ends)
    assert source.read(1.0).watts == pytest.approx(5.1)
    terminal.deliver(line(5100, 2000, 1000, 100_000)[-9:])
    assert source.read(1.1).watts == pytest.approx(10.0)
    source.close()


def test_a_restarted_meter_begins_a_new_count_instead_of_a_negative_one(tmp_path, terminal) -> None:
    source = only_source(tmp_path, terminal, sends=line(5100, 1000, 9000, 5_000_000))
    source.read(1.0)
    terminal.deliver(line(5100, 1000, 10, 1000))
    after = source.read(2.0)
    assert after.watts == pytest.approx(5.1) and after.joules is None
    terminal.deliver(line(5100, 1000, 520, 101_000))
    assert source.read(2.1).joules == pytest.approx(0.51)
    source.close()


def test_silence_and_noise_are_absent_readings(tmp_path, terminal) -> None:
    source = only_source(tmp_path, terminal, sends=line(5100, 1000, 0, 0))
    assert source.read(1.0).watts is not None
    assert source.read(1.5).watts is not None
    silent = source.read(2.5)
    assert silent.watts is None and "no whole line" in (silent.reason or "")
    terminal.deliver(line(5100, 1000, 0, 0).replace(b"5", b"6", 1))
    garbled = source.read(2.6)
    assert garbled.watts is None and "checksum" in (garbled.reason or "")
    terminal.deliver(b"\xff" * 3000 + b"\n" + line(5100, 1000, 500, 100_000))
    assert source.read(2.7).watts == pytest.approx(5.0)
    source.close()


def keep_sending(terminal: Terminal, data: bytes, stop: threading.Event) -> threading.Thread:
    """Be our meter, ten lines a second until told to stop."""

    def send() -> None:
        while not stop.wait(0.1):
            terminal.send(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_a_pulled_cable_is_absent_and_the_meter_is_found_again(tmp_path) -> None:
    meter = PowerMeter(lambda: find_power(tmp_path, BOARDS), search_again_s=5.0)
    for plugged_at_s, milliamps in ((0.0, 1000), (6.0, 2000)):
        terminal, stop = Terminal(tmp_path, "nis-meter"), threading.Event()
        sending = keep_sending(terminal, line(5100, milliamps, 0, 0), stop)
        reading = meter.read(plugged_at_s)
        assert reading is not None and reading.watts == pytest.approx(5.1 * milliamps / 1000), reading.reason
        stop.set()
        sending.join(5)
        terminal.hang_up()
        (tmp_path / "dev/nis-meter").unlink()
        lost = meter.read(plugged_at_s + 2.0)
        assert lost is not None and lost.watts is None and "nis-meter" in (lost.reason or "")


def test_no_port_is_absent_with_its_name_and_no_other_port_is_touched(tmp_path) -> None:
    other = Terminal(tmp_path, "ttyUSB0")
    opened: list[Path] = []
    found = serial_meter.discover(tmp_path, BOARDS, lambda path, *_: opened.append(path))
    assert found.sources == () and opened == []
    assert any("dev/nis-um25c" in absence.reason for absence in found.absent)
    other.hang_up()


def test_the_checksum_is_the_standard_one() -> None:
    assert crc16(b"123456789") == 0x29B1


@given(st.binary(max_size=200))
def test_any_bytes_are_a_sample_or_a_refusal(data) -> None:
    for parse in (parse_line, parse_um_frame):
        try:
            parse(data)
        except SensorUnavailableError:
            continue


@given(st.integers(0, 7), st.integers(0, 40))
def test_a_line_with_one_flipped_bit_never_passes(bit, position) -> None:
    good = bytearray(line(5100, 1200, 1000, 1_000_000).rstrip())
    good[position % len(good)] ^= 1 << bit
    if bytes(good).lower() == line(5100, 1200, 1000, 1_000_000).rstrip().lower():
        return  # a hexadecimal digit may change its case
    with pytest.raises(SensorUnavailableError):
        parse_line(bytes(good))
