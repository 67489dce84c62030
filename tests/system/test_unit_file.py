"""The service unit: hardened as promised, and it names what the project has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nis_edge.config import load

pytestmark = pytest.mark.system

FOLDER = Path(__file__).resolve().parents[2] / "systemd"
UNIT = FOLDER / "nis-edge.service"


def exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="NOT RUN: systemd-analyze is not installed")
@pytest.mark.parametrize("with_serial_meter", [False, True])
def test_the_unit_exposes_little(tmp_path: Path, with_serial_meter: bool) -> None:
    unit = tmp_path / UNIT.name
    shutil.copy(UNIT, unit)
    if with_serial_meter:
        folder = tmp_path / f"{UNIT.name}.d"
        folder.mkdir()
        shutil.copy(FOLDER / "nis-edge-serial.conf", folder / "serial.conf")
    assert exposure(unit) < 2.0


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="NOT RUN: systemd-sysusers is not installed")
def test_the_account_file_is_understood() -> None:
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", str(FOLDER / "nis-edge.sysusers")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr


def test_the_unit_and_its_files_agree() -> None:
    unit = UNIT.read_text(encoding="utf-8")
    assert "nis-edge run --config /etc/nis-edge/nis-edge.toml" in unit
    assert re.search(r"^User=nis-edge$", unit, re.MULTILINE)
    assert re.search(r"^u +nis-edge ", (FOLDER / "nis-edge.sysusers").read_text(encoding="utf-8"), re.MULTILINE)
    load(FOLDER / "nis-edge.toml")


def test_every_file_of_the_folder_is_named_in_its_readme() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in FOLDER.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in readme, file.name
