"""The daemon on a machine that umockdev pretends: real file system calls to /sys, seen by the whole process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("umockdev-run"), reason="not run: umockdev-run is missing (Debian: umockdev)"),
]

ORIN_NANO = {
    "bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon3": {
        "name": "ina3221", "in1_label": "VDD_IN", "in1_input": 5072, "curr1_input": 1312,
        "in2_label": "VDD_CPU_GPU_CV", "in2_input": 5064, "curr2_input": 400,
        "in3_label": "VDD_SOC", "in3_input": 5064, "curr3_input": 296,
        "in7_label": "sum of shunt voltages", "in7_input": 7777,
    },
}  # fmt: skip
AGX_ORIN = {
    "i2c-1/1-0040/hwmon/hwmon2": {
        "name": "ina3221", "in1_label": "VDD_GPU_SOC", "in1_input": 19120, "curr1_input": 160,
        "in2_label": "VDD_CPU_CV", "in2_input": 19112, "curr2_input": 60,
        "in3_label": "VIN_SYS_5V0", "in3_input": 5024, "curr3_input": 1060, "in7_input": 9999, "curr4_input": 9999,
    },
    "i2c-1/1-0041/hwmon/hwmon5": {
        "name": "ina3221", "in1_label": "NC", "in2_label": "VDDQ_VDD2_1V8AO", "in2_input": 5016, "curr2_input": 120,
    },
}  # fmt: skip
AGX_ORIN_W = 19.120 * 0.160 + 19.112 * 0.060 + 5.024 * 1.060 + 5.016 * 0.120


def written(folder: Path, devices: dict[str, dict[str, object]]) -> Path:
    """A description in umockdev's own format."""
    blocks = []
    for place, attributes in devices.items():
        lines = [f"P: /devices/platform/{place}", "E: SUBSYSTEM=hwmon"]
        lines += [f"A: {name}={value}\\n" for name, value in attributes.items()]
        blocks.append("\n".join(lines) + "\n\n")
    path = folder / "board.umockdev"
    path.write_text("".join(blocks))
    return path


def under(devices: Path, *command: str) -> str:
    done = subprocess.run(
        ["umockdev-run", "-d", str(devices), "--", *command], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


@pytest.mark.parametrize(
    ("devices", "watts", "told"),
    [
        (ORIN_NANO, 5.072 * 1.312, "jetson-orin-nano/vdd-in: scope module, grade B"),
        (AGX_ORIN, AGX_ORIN_W, "jetson-agx-orin/rails: scope rails, grade C"),
    ],
    ids=["Orin Nano", "AGX Orin"],
)
def test_the_doctor_finds_the_boards_power_by_its_labels(
    tmp_path: Path, devices: dict[str, dict[str, object]], watts: float, told: str
) -> None:
    out = under(written(tmp_path, devices), sys.executable, "-m", "nis_edge.cli", "doctor", "--json")
    (finding,) = [f for f in json.loads(out)["findings"] if f["check"] == "power"]
    assert f"{told}, {watts:.2f} W" in finding["found"]


WHOLE_RUN = """
import json, os, subprocess, sys, time, urllib.request
from pathlib import Path

folder = Path(sys.argv[1])
config = folder / "nis.toml"
config.write_text(f'''
[device]
state = "{folder}/state"
[api]
port = 0
[power]
interval_s = 0.1
''')
daemon = subprocess.Popen([sys.executable, "-m", "nis_edge.cli", "run", "--config", str(config), "--for", "60"])
deadline = time.monotonic() + 60

def power(wanted):
    while time.monotonic() < deadline:
        try:
            address = json.loads((folder / "state/api.json").read_text())["address"]
            with urllib.request.urlopen(address + "/v1/status", timeout=5) as answer:
                shown = json.load(answer)["power"]
        except (OSError, ValueError):
            shown = {}
        if shown and wanted(shown):
            return shown
        time.sleep(0.05)
    raise SystemExit(f"never seen; last {shown}")

there = power(lambda shown: shown["watts"] is not None)
rail = next(Path(os.environ["UMOCKDEV_DIR"]).glob("sys/devices/**/curr1_input"))
amps = rail.read_text()
rail.unlink()
gone = power(lambda shown: shown["watts"] is None)
rail.write_text(amps)
back = power(lambda shown: shown["watts"] is not None)
daemon.terminate()
print(json.dumps({"there": there, "gone": gone, "back": back, "code": daemon.wait(30)}))
"""


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_rail_that_vanishes_during_a_run_is_absent_with_its_reason_until_it_is_back(tmp_path: Path) -> None:
    script = tmp_path / "whole_run.py"
    script.write_text(textwrap.dedent(WHOLE_RUN))
    out = under(written(tmp_path, ORIN_NANO), sys.executable, str(script), str(tmp_path))
    seen = json.loads(out.splitlines()[-1])
    assert seen["there"]["watts"] == seen["back"]["watts"] == round(5.072 * 1.312, 3)
    assert (seen["there"]["scope"], seen["there"]["grade"]) == ("module", "B")
    assert seen["gone"]["reason"] and "curr1_input" in seen["gone"]["reason"]
    assert seen["code"] == 0
