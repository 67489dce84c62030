"""Sensor trees in the formats real boards show, with numbers of our own; a writer returns the watts it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from nis_edge.adapters.sysfs import read_text
from nis_edge.errors import SensorUnavailableError


def write_files(folder: Path, texts: Mapping[str, object]) -> None:
    """Write attributes, each with the newline the kernel gives."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n")


def write_ina3221(
    root: Path, address: str, hwmon: int, rails: Mapping[str, tuple[int, int]], *, by_class: bool = False
) -> Path:
    """One INA3221 as JetPack 5 and later show it: label -> (mV, mA), up to three, and the driver's sums."""
    place = f"sys/class/hwmon/hwmon{hwmon}" if by_class else f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{hwmon}"
    folder = root / place
    write_files(folder, {"name": "ina3221"})
    for number, (label, (millivolts, milliamps)) in enumerate(rails.items(), start=1):
        write_files(
            folder,
            {
                f"in{number}_label": label,
                f"in{number}_input": millivolts,
                f"curr{number}_input": milliamps,
                f"in{number + 3}_input": milliamps * 5,
            },
        )
    write_files(folder, {"in7_label": "sum of shunt voltages", "in7_input": 7777, "curr4_input": 9999})
    return folder


def write_orin_nano(root: Path, hwmon: int = 1) -> float:
    """VDD_IN 5.072 V x 1.312 A is the module's input."""
    write_ina3221(
        root, "1-0040", hwmon, {"VDD_IN": (5072, 1312), "VDD_CPU_GPU_CV": (5064, 400), "VDD_SOC": (5064, 296)}
    )
    return 5.072 * 1.312


def write_agx_orin(root: Path) -> float:
    """Four rails at two chips; NC is not connected and its attributes can't be read."""
    write_ina3221(
        root, "1-0040", 3, {"VDD_GPU_SOC": (19120, 160), "VDD_CPU_CV": (19112, 60), "VIN_SYS_5V0": (5024, 1060)}
    )
    folder = write_ina3221(root, "1-0041", 4, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5016, 120)})
    (folder / "name").unlink()  # then the driver's folder names the chip
    for name in ("in1_input", "curr1_input"):
        (folder / name).unlink()
        (folder / name).mkdir()  # reading a directory fails with an error, for root too
    return 19.120 * 0.160 + 19.112 * 0.060 + 5.024 * 1.060 + 5.016 * 0.120


def write_jetson_nano(root: Path) -> float:
    """JetPack 4: an iio device with named rails, the third one not connected."""
    folder = root / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    rails = {0: ("POM_5V_IN", 5096, 664, 3383), 1: ("POM_5V_GPU", 5080, 48, 243), 2: ("NC", 0, 0, 0)}
    for number, (label, millivolts, milliamps, milliwatts) in rails.items():
        write_files(
            folder,
            {
                f"rail_name_{number}": label,
                f"in_voltage{number}_input": millivolts,
                f"in_current{number}_input": milliamps,
                f"in_power{number}_input": milliwatts,
                f"crit_current_limit_{number}": 4000,
            },
        )
    return 3.383


def write_thor(root: Path) -> float:
    """An INA238 labelled VIN for the whole input, beside an INA3221 with module rails."""
    write_files(
        root / "sys/class/hwmon/hwmon5",
        {
            "name": "ina238",
            "label": "VIN",
            "in0_input": 3,
            "in1_input": 19950,
            "curr1_input": 1810,
            "power1_input": 36109500,
        },
    )
    write_ina3221(root, "2-0040", 6, {"VDD_GPU": (19900, 300), "VDD_CPU_SOC_MSS": (19900, 500)})
    return 36.1095


def write_ina228(root: Path, label: str | None = "DC_IN", hwmon: int = 2) -> float:
    """An INA228 of the owner with energy counter; in0 is its shunt voltage."""
    texts = {
        "name": "ina228",
        "in0_input": 11,
        "in1_input": 5113,
        "curr1_input": 1204,
        "power1_input": 6156052,
        "energy1_input": 500_000_000,
    }
    write_files(root / f"sys/class/hwmon/hwmon{hwmon}", texts if label is None else {**texts, "label": label})
    return 6.156052


def write_rapl(root: Path, microjoules: int, span: int = 65_532_610_987, package: int = 0) -> Path:
    """One package, its core domain, and the same package again through its memory-mapped interface."""
    folder = root / f"sys/class/powercap/intel-rapl:{package}"
    counter = {"energy_uj": microjoules, "max_energy_range_uj": span}
    write_files(folder, {"name": f"package-{package}", **counter})
    write_files(root / f"sys/class/powercap/intel-rapl:{package}:0", {"name": "core", **counter})
    write_files(root / f"sys/class/powercap/intel-rapl-mmio:{package}", {"name": f"package-{package}", **counter})
    write_files(root / "sys/class/powercap/intel-rapl", {"enabled": 1})
    return folder / "energy_uj"


def write_battery(root: Path, status: str = "Discharging", microamps: int = 812_000) -> float:
    """A fuel gauge, and a USB-C port whose entry tells only what was negotiated."""
    write_files(
        root / "sys/class/power_supply/BAT0",
        {"type": "Battery", "status": status, "voltage_now": 11_480_000, "current_now": microamps},
    )
    write_files(
        root / "sys/class/power_supply/ucsi-source-psy-1-00081",
        {"type": "USB", "voltage_now": 20_000_000, "current_now": 3_000_000},
    )
    write_files(root / "sys/class/power_supply/AC", {"type": "Mains", "online": 0})
    return 11.480 * 0.812


PI5_RAILS: Mapping[str, tuple[float, float]] = {
    "3V7_WL_SW": (3.7012, 0.0988), "3V3_SYS": (3.3127, 0.2207), "1V8_SYS": (1.7995, 0.1903),
    "DDR_VDD2": (1.1062, 0.1311), "DDR_VDDQ": (0.6049, 0.0315), "1V1_SYS": (1.1049, 0.2418),
    "0V8_SW": (0.8021, 0.5502), "VDD_CORE": (0.9013, 3.1207), "3V3_DAC": (3.3101, 0.0004),
    "3V3_ADC": (3.3088, 0.0002), "0V8_AON": (0.7981, 0.0042), "HDMI": (5.0110, 0.0171),
}  # fmt: skip
"""Rail -> (volts, amps)."""

PI5_WATTS = sum(volts * amps for volts, amps in PI5_RAILS.values())


def pi5_answer(rails: Mapping[str, tuple[float, float]] = PI5_RAILS) -> str:
    """What ``vcgencmd pmic_read_adc`` prints on a Pi 5."""
    lines = [f"{rail + '_A':>13} current({n})={amps:.8f}A" for n, (rail, (_, amps)) in enumerate(rails.items())]
    lines += [f"{rail + '_V':>13} volt({n + 12})={volts:.8f}V" for n, (rail, (volts, _)) in enumerate(rails.items())]
    lines += ["     EXT5V_V volt(24)=5.01200000V", "      BATT_V volt(25)=2.99100000V"]
    return "\n".join(lines) + "\n"


def failing_reader(broken: Mapping[str, str]) -> Callable[[Path], str]:
    """A reader that fails for paths ending so, as the kernel does for a channel that is switched off or gone.

    Args:
        broken: the end of a path -> what the kernel says; changed by the test while it runs.
    """

    def read(path: Path) -> str:
        for end, why in broken.items():
            if str(path).endswith(end):
                raise SensorUnavailableError(f"{path}: {why}")
        return read_text(path)

    return read
