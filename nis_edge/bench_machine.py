"""The conditions of a measurement: machine, governor, memory of this process, commit. Unknown is None."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Final

from nis_edge.bench_records import Machine
from nis_edge.limits import KIB, SENSOR_FILE_BYTES_MAX

GIT_TIMEOUT_S: Final = 5.0

ARM_PARTS: Final = {
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE", "0xd49": "Neoverse-N2", "0xd4f": "Neoverse-V2", "0x004": "Carmel",
}  # fmt: skip
"""ARM's part numbers (MIDR_EL1) of the boards we meet; Linux names no model there."""


def machine(root: Path = Path("/")) -> Machine:
    """Describe the machine.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    cpuinfo = _text(root / "proc/cpuinfo", 16 * KIB) or ""
    frequency = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    meminfo = _field(_text(root / "proc/meminfo") or "", "MemTotal")
    return Machine(
        board=_text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name"),
        cpu_model=_cpu_model(cpuinfo),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=int(meminfo.split()[0]) * KIB if meminfo else None,
        kernel=platform.release(),
        system=_field(_text(root / "etc/os-release") or "", "PRETTY_NAME", "=", '"'),
        python=platform.python_version(),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        frequency_mhz_max=int(frequency) / 1000 if frequency and frequency.isdigit() else None,
        virtual=" hypervisor" in cpuinfo if cpuinfo and platform.machine() == "x86_64" else None,
        load_average=os.getloadavg()[0],
    )


def rss_bytes() -> int | None:
    """Resident memory of this process now."""
    return _status_bytes("VmRSS")


def peak_rss_bytes() -> int | None:
    """Highest resident memory of this process so far."""
    return _status_bytes("VmHWM")


def commit() -> tuple[str | None, str | None]:
    """The commit of the source tree this runs from, with ``+changes`` where it was edited; or None and why."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None, "not run from a git work tree"
    try:
        head = _git(folder, "rev-parse", "HEAD").strip()
        changed = _git(
            folder, "status", "--porcelain", "--untracked-files=no", "--", "nis_edge", "firmware_hooks"
        ).strip()
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"git gave no commit: {' '.join(str(error).split())[:120]}"
    return f"{head}{'+changes' if changed else ''}", None


def _git(folder: Path, *words: str) -> str:
    # safe.directory: the tree may belong to another user than the one who measures.
    command = ["git", "-c", f"safe.directory={folder}", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_S, check=True)
    return done.stdout.decode("utf-8", errors="replace")


def _cpu_model(cpuinfo: str) -> str | None:
    named = _field(cpuinfo, "model name")
    if named:
        return named
    part = _field(cpuinfo, "CPU part")
    return ARM_PARTS.get(part, f"ARM part {part}") if part else None


def _status_bytes(name: str) -> int | None:
    kibibytes = _field(_text(Path("/proc/self/status")) or "", name)
    return int(kibibytes.split()[0]) * KIB if kibibytes else None


def _field(text: str, name: str, separator: str = ":", strip: str = "") -> str | None:
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip().strip(strip) or None
    return None


def _text(path: Path, most: int = SENSOR_FILE_BYTES_MAX) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", errors="replace").strip().strip("\0") or None
    except OSError:
        return None
