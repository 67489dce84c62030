"""Watts from sensor trees: right or absent with a reason, never wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from nis_edge.adapters import sysfs
from nis_edge.errors import SensorUnavailableError
from nis_edge.metering import load_boards
from nis_edge.power.boards import Board, parse_board
from nis_edge.power.rails import PowerReading, PowerSource, best_first
from tests.support import power_trees as trees

BOARDS, FAULTS = load_boards(Path("/nonexistent"))


def best(root: Path, read=sysfs.read_text) -> PowerSource:
    return best_first(sysfs.discover(root, BOARDS, read).sources)[0]


def board_of(root: Path) -> str:
    return best(root).info.board


def first_reading(root: Path, read=sysfs.read_text) -> PowerReading:
    return best(root, read).read(100.0)


def test_every_board_file_that_ships_is_valid() -> None:
    assert FAULTS == ()
    assert {"raspberry-pi-5", "jetson-orin-nano", "jetson-agx-orin", "jetson-nano", "generic-hwmon", "x86-rapl"} <= {
        board.id for board in BOARDS
    }


@pytest.mark.parametrize(
    ("write", "board", "scope", "grade", "complete"),
    [
        (trees.write_orin_nano, "jetson-orin-nano", "module", "B", True),
        (trees.write_agx_orin, "jetson-agx-orin", "rails", "C", False),
        (trees.write_jetson_nano, "jetson-nano", "module", "B", True),
        (trees.write_thor, "jetson-thor", "input", "B", True),
        (trees.write_ina228, "generic-hwmon", "input", "A", True),
        (trees.write_battery, "generic-battery", "input", "B", True),
    ],
)
def test_a_tree_gives_its_watts_scope_and_grade(tmp_path, write, board, scope, grade, complete) -> None:
    watts = write(tmp_path)
    reading = first_reading(tmp_path)
    assert reading.watts == pytest.approx(watts)
    assert (reading.info.board, reading.info.scope, reading.info.grade, reading.info.complete) == (
        board,
        scope,
        grade,
        complete,
    )
    assert reading.uncertainty_w is not None and 0 < reading.uncertainty_w < watts


def test_the_total_of_a_module_names_the_one_rail_it_is(tmp_path) -> None:
    trees.write_orin_nano(tmp_path)
    reading = first_reading(tmp_path)
    assert reading.info.counted == ("VDD_IN",)
    assert [sample.rail for sample in reading.rails] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]


def test_a_board_is_found_by_label_whatever_its_hwmon_number_and_by_class_as_well_as_by_driver(tmp_path) -> None:
    trees.write_ina3221(tmp_path, "7-0044", 11, {"VDD_SOC": (5000, 100), "VDD_IN": (5000, 1000)}, by_class=True)
    assert first_reading(tmp_path).watts == pytest.approx(5.0)


def test_a_device_seen_by_class_and_by_driver_is_counted_once(tmp_path) -> None:
    trees.write_orin_nano(tmp_path)
    (tmp_path / "sys/class/hwmon").mkdir(parents=True)
    (tmp_path / "sys/class/hwmon/hwmon1").symlink_to(tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1")
    assert first_reading(tmp_path).watts == pytest.approx(5.072 * 1.312)


def test_sums_and_shunt_voltages_of_the_driver_are_never_channels(tmp_path) -> None:
    trees.write_agx_orin(tmp_path)
    rails = {sample.rail for sample in first_reading(tmp_path).rails}
    assert rails == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_a_counted_rail_that_fails_makes_the_sum_absent_not_smaller(tmp_path) -> None:
    trees.write_agx_orin(tmp_path)
    broken: dict[str, str] = {}
    source = best(tmp_path, trees.failing_reader(broken))
    assert source.read(1.0).watts is not None
    broken["hwmon3/curr2_input"] = "No data available"
    reading = source.read(2.0)
    assert reading.watts is None and "VDD_CPU_CV" not in reading.info.board
    assert "curr2_input: No data available" in (reading.reason or "")


def test_a_rail_that_is_only_shown_may_fail_without_harm(tmp_path) -> None:
    watts = trees.write_orin_nano(tmp_path)
    source = best(tmp_path, trees.failing_reader({"curr3_input": "Input/output error"}))
    reading = source.read(1.0)
    assert reading.watts == pytest.approx(watts)
    assert [sample.reason is None for sample in reading.rails] == [True, True, False]


def test_a_sensor_that_vanishes_in_mid_run_leaves_an_absent_reading(tmp_path) -> None:
    trees.write_orin_nano(tmp_path)
    source = best(tmp_path)
    assert source.read(1.0).watts is not None
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input").unlink()
    reading = source.read(2.0)
    assert reading.watts is None and "No such file" in (reading.reason or "")


@pytest.mark.parametrize(
    ("milliamps", "told"),
    [
        ("-520", "negative current -0.520 A"),
        ("4294967", "beyond the 80 W"),
        ("garbage", "not a whole number"),
        ("", "whole"),
    ],
)
def test_a_current_that_cannot_be_true_is_absent_with_the_reason(tmp_path, milliamps, told) -> None:
    trees.write_orin_nano(tmp_path)
    source = best(tmp_path)
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input").write_text(milliamps + "\n")
    reading = source.read(1.0)
    assert reading.watts is None and told in (reading.reason or "")


def test_noise_around_zero_on_a_quiet_rail_is_kept_with_its_sign(tmp_path) -> None:
    trees.write_ina3221(
        tmp_path, "1-0040", 3, {"VDD_GPU_SOC": (19000, -20), "VDD_CPU_CV": (19000, 100), "VIN_SYS_5V0": (5000, 1000)}
    )
    trees.write_ina3221(tmp_path, "1-0041", 4, {"VDDQ_VDD2_1V8AO": (5000, 100)})
    assert first_reading(tmp_path).watts == pytest.approx(19 * (-0.020 + 0.100) + 5.0 + 0.5)


def test_a_total_of_zero_is_a_fault_not_a_figure(tmp_path) -> None:
    trees.write_ina3221(tmp_path, "1-0040", 1, {"VDD_IN": (5000, 0)})
    reading = first_reading(tmp_path)
    assert reading.watts is None and "draws more than nothing" in (reading.reason or "")


def test_a_converter_that_stands_still_is_told_until_it_moves(tmp_path) -> None:
    trees.write_orin_nano(tmp_path)
    source = best(tmp_path)
    assert source.read(0.0).watts is not None
    assert source.read(59.0).watts is not None
    stuck = source.read(61.0)
    assert stuck.watts is None and "stuck" in (stuck.reason or "")
    (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input").write_text("1320\n")
    assert source.read(62.0).watts == pytest.approx(5.072 * 1.320)


def test_rapl_gives_power_from_the_second_look_and_counts_one_package_once(tmp_path) -> None:
    counter = trees.write_rapl(tmp_path, 1_000_000)
    source = best(tmp_path)
    first = source.read(10.0)
    assert first.watts is None and "needs two" in (first.reason or "")
    counter.write_text("9_500_000\n".replace("_", ""))
    reading = source.read(10.5)
    assert reading.watts == pytest.approx(17.0)
    assert reading.joules == pytest.approx(8.5)
    assert (reading.info.counted, reading.info.scope, reading.info.complete) == (("package-0",), "package", False)


def test_two_packages_are_added(tmp_path) -> None:
    counters = [trees.write_rapl(tmp_path, 0, package=package) for package in (0, 1)]
    source = best(tmp_path)
    source.read(1.0)
    counters[0].write_text("2000000\n")
    counters[1].write_text("3000000\n")
    assert source.read(2.0).watts == pytest.approx(5.0)


def test_rapl_wraps_at_its_range(tmp_path) -> None:
    counter = trees.write_rapl(tmp_path, 65_530_000_000, span=65_532_000_000)
    source = best(tmp_path)
    source.read(1.0)
    counter.write_text("3000000\n")
    reading = source.read(1.5)
    assert reading.watts == pytest.approx(10.0)
    assert reading.joules == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("microjoules", "after_s", "told"),
    [
        (5_000_000, 0.1, "did not move"),
        (4_000_000, 0.1, "it was reset"),
        (6_000_000, 3600.0, "more than once"),
    ],
)
def test_a_counter_that_cannot_be_believed_gives_a_gap_and_then_recovers(tmp_path, microjoules, after_s, told) -> None:
    counter = trees.write_rapl(tmp_path, 5_000_000)
    source = best(tmp_path)
    source.read(0.0)
    counter.write_text(f"{microjoules}\n")
    reading = source.read(after_s)
    assert reading.watts is None and told in (reading.reason or "")
    counter.write_text(f"{microjoules + 2_000_000}\n")
    assert source.read(after_s + 1.0).watts == pytest.approx(2.0)


def test_a_missed_look_at_a_counter_loses_no_energy(tmp_path) -> None:
    counter = trees.write_rapl(tmp_path, 0)
    broken: dict[str, str] = {}
    source = best(tmp_path, trees.failing_reader(broken))
    source.read(0.0)
    counter.write_text("4000000\n")
    broken["energy_uj"] = "Input/output error"
    assert source.read(1.0).watts is None
    broken.clear()
    reading = source.read(2.0)
    assert reading.joules == pytest.approx(4.0) and reading.watts == pytest.approx(2.0)


def test_an_ina228_without_a_label_is_somewhere_and_cannot_be_complete(tmp_path) -> None:
    watts = trees.write_ina228(tmp_path, label=None)
    reading = first_reading(tmp_path)
    assert reading.watts == pytest.approx(watts)
    assert (reading.info.scope, reading.info.grade, reading.info.complete) == ("rails", "C", False)


def test_two_power_monitors_of_unknown_place_are_not_added(tmp_path) -> None:
    trees.write_ina228(tmp_path, label=None, hwmon=2)
    trees.write_ina228(tmp_path, label=None, hwmon=3)
    found = sysfs.discover(tmp_path, BOARDS)
    assert found.sources == ()
    assert any("which to count?" in absence.reason for absence in found.absent)


def test_a_charging_battery_does_not_tell_what_the_machine_draws(tmp_path) -> None:
    trees.write_battery(tmp_path, status="Charging")
    reading = first_reading(tmp_path)
    assert reading.watts is None and "'Charging'" in (reading.reason or "")


def test_a_gauge_that_signs_discharge_negative_gives_the_same_watts(tmp_path) -> None:
    watts = trees.write_battery(tmp_path, microamps=-812_000)
    assert first_reading(tmp_path).watts == pytest.approx(watts)


def test_a_negotiated_usb_supply_is_no_source(tmp_path) -> None:
    trees.write_battery(tmp_path)
    for name in ("type", "status", "voltage_now", "current_now"):
        (tmp_path / "sys/class/power_supply/BAT0" / name).unlink()
    assert sysfs.discover(tmp_path, BOARDS).sources == ()


def own_board(kind: str, **source: object) -> Board:
    """A board file of the owner that counts every label it finds."""
    common = {"id": "all", "kind": kind, "scope": "rails", "grade": "C", "complete": False, "covers": "all"}
    rails = [{"label": "*", "counted": True}]
    data = {"format": 1, "id": "own", "title": "own", "source": [{**common, **source, "rail": rails}]}
    return parse_board(data, "own.toml")


def test_not_even_a_wildcard_counts_unconnected_channels_or_the_sums_of_the_driver(tmp_path) -> None:
    trees.write_ina3221(tmp_path, "1-0041", 4, {"NC": (0, 0), "VDD_AUX": (5000, 200)})
    (source,) = sysfs.discover(tmp_path, [own_board("hwmon", chips=["ina3221"])]).sources
    assert source.info.counted == ("VDD_AUX",)
    assert source.read(1.0).watts == pytest.approx(1.0)


def test_not_even_a_wildcard_counts_a_negotiated_usb_supply(tmp_path) -> None:
    watts = trees.write_battery(tmp_path)
    (source,) = sysfs.discover(tmp_path, [own_board("power_supply")]).sources
    assert source.info.counted == ("battery/BAT0",)
    assert source.read(1.0).watts == pytest.approx(watts)


def test_an_empty_machine_names_every_source_looked_for(tmp_path) -> None:
    found = sysfs.discover(tmp_path, BOARDS)
    assert found.sources == ()
    told = {absence.source: absence.reason for absence in found.absent}
    assert "no energy counter (RAPL)" in told["x86-rapl/package"]
    assert "no hwmon device" in told["jetson-orin-nano/vdd-in"]


def test_another_chip_is_named_in_the_reason(tmp_path) -> None:
    trees.write_files(tmp_path / "sys/class/hwmon/hwmon0", {"name": "k10temp", "temp1_input": 40000})
    told = {absence.source: absence.reason for absence in sysfs.discover(tmp_path, BOARDS).absent}
    assert "found: k10temp" in told["jetson-orin-nano/vdd-in"]


def test_a_counter_without_permission_is_absent_with_the_remedy(tmp_path) -> None:
    trees.write_rapl(tmp_path, 0)

    def read(path: Path) -> str:
        if path.name == "energy_uj":
            cause = PermissionError(13, "Permission denied")
            raise SensorUnavailableError(f"{path}: Permission denied; let the agent's user read it") from cause
        return sysfs.read_text(path)

    found = sysfs.discover(tmp_path, BOARDS, read)
    assert found.sources == ()
    assert any("let the agent's user read it" in absence.reason for absence in found.absent)


def test_an_attribute_is_read_in_bounds_and_without_waiting(tmp_path) -> None:
    import os

    (tmp_path / "long").write_text("1" * 100_000)
    assert len(sysfs.read_text(tmp_path / "long")) == 4096
    os.mkfifo(tmp_path / "fifo")
    assert sysfs.read_text(tmp_path / "fifo") == ""
    with pytest.raises(SensorUnavailableError, match="directory"):
        sysfs.read_text(tmp_path)


def test_temperatures_leave_out_zones_that_are_off(tmp_path) -> None:
    zones = {0: ("cpu-thermal", "51500"), 1: ("gpu-thermal", "-256000"), 2: ("cpu-thermal", "48000"), 3: ("x", "n/a")}
    for number, (kind, text) in zones.items():
        trees.write_files(tmp_path / f"sys/class/thermal/thermal_zone{number}", {"type": kind, "temp": text})
    assert sysfs.temperatures(tmp_path) == {"cpu-thermal": 51.5, "cpu-thermal.2": 48.0}


def test_throttle_flags_come_from_the_pi_word_or_its_alarm_or_counters(tmp_path) -> None:
    assert not sysfs.throttle(tmp_path).known
    trees.write_files(tmp_path / "sys/class/hwmon/hwmon0", {"name": "rpi_volt", "in0_lcrit_alarm": 1})
    assert sysfs.throttle(tmp_path).active == ("under-voltage",)
    trees.write_files(tmp_path / "sys/devices/platform/soc/soc:firmware", {"get_throttled": "50004"})
    state = sysfs.throttle(tmp_path)
    assert (state.active, state.since_boot) == (("throttled",), ("under-voltage", "throttled"))
    trees.write_files(tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle", {"core_throttle_count": 3})
    trees.write_files(tmp_path / "sys/class/hwmon/hwmon1", {"name": "soctherm_oc", "oc1_event_cnt": 2})
    assert len(sysfs.throttle(tmp_path).counters) == 2
