"""The one entry the daemon and the benchmark use: the best source, found again when it goes, or every reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from nis_edge.metering import PowerMeter, find_power, find_throttle, load_boards, sysroot, why_no_power
from nis_edge.power.plausibility import StuckWatch, watch_stuck
from nis_edge.power.throttle import ThrottleState, during, pi_state
from tests.support import power_trees as trees

BOARDS, _ = load_boards(Path("/nonexistent"))


def meter_at(root: Path, **options: float) -> PowerMeter:
    return PowerMeter(lambda: find_power(root, BOARDS), **options)


def test_a_complete_scope_is_preferred_to_a_better_known_part(tmp_path) -> None:
    trees.write_rapl(tmp_path, 0)
    watts = trees.write_orin_nano(tmp_path)
    reading = meter_at(tmp_path).read(1.0)
    assert reading is not None and reading.watts == pytest.approx(watts)


def test_a_source_that_is_silent_now_is_passed_by(tmp_path) -> None:
    trees.write_battery(tmp_path, status="Charging")
    counter = trees.write_rapl(tmp_path, 0)
    meter = meter_at(tmp_path)
    assert meter.read(1.0) is not None
    counter.write_text("6000000\n")
    reading = meter.read(2.0)
    assert reading is not None and reading.info.board == "x86-rapl" and reading.watts == pytest.approx(6.0)


def test_no_source_is_none_with_every_reason(tmp_path) -> None:
    meter = meter_at(tmp_path)
    assert meter.read(1.0) is None
    for looked_for in ("no hwmon device", "no energy counter (RAPL)", "no Raspberry Pi firmware", "no supply"):
        assert looked_for in (meter.why_none or "")


def test_a_source_is_found_again_after_its_driver_came_back_elsewhere(tmp_path) -> None:
    import shutil

    trees.write_orin_nano(tmp_path, hwmon=1)
    meter = meter_at(tmp_path, search_again_s=10.0)
    assert meter.read(0.0) is not None
    shutil.rmtree(tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040")
    gone = meter.read(1.0)
    assert gone is not None and gone.watts is None
    watts = trees.write_orin_nano(tmp_path, hwmon=7)
    still = meter.read(9.0)
    assert still is not None and still.watts is None
    back = meter.read(10.5)
    assert back is not None and back.watts == pytest.approx(watts)


def test_reasons_are_told_once_with_all_the_sources_they_keep_away(tmp_path) -> None:
    line = why_no_power(find_power(tmp_path, BOARDS).absent)
    assert line.count("no hwmon device") == 1 and "\n" not in line
    assert "jetson-agx-orin/rails, jetson-orin-nano/vdd-in" in line


def test_the_root_comes_from_the_environment() -> None:
    assert sysroot({}) == Path("/")
    assert sysroot({"NIS_EDGE_SYSROOT": "/tree"}) == Path("/tree")


def test_throttling_is_unknown_where_nothing_tells(tmp_path) -> None:
    assert not find_throttle(tmp_path).known


def test_what_throttled_during_a_run_is_told_from_flags_sticky_bits_and_counters() -> None:
    calm = ThrottleState(known=True, since_boot=("under-voltage",), counters={"cpu0": 4})
    assert during([calm, calm]) == ()
    assert during([calm, pi_state(0x4), calm]) == ("throttled (active)",)
    later = ThrottleState(known=True, since_boot=("under-voltage", "throttled"), counters={"cpu0": 6, "cpu1": 9})
    assert during([calm, later]) == ("throttled (occurred)", "cpu0 grew by 2")
    assert during([]) == ()


def test_a_stuck_watch_starts_again_with_every_change() -> None:
    watch, fault = watch_stuck(StuckWatch(), (1.0,), 5.0, 10.0)
    assert fault is None
    watch, fault = watch_stuck(watch, (1.0,), 14.9, 10.0)
    assert fault is None
    watch, fault = watch_stuck(watch, (1.0,), 15.0, 10.0)
    assert fault is not None and "10 s" in fault
    watch, fault = watch_stuck(watch, (1.1,), 16.0, 10.0)
    assert fault is None
