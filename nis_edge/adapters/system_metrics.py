"""What the operating system says of this machine's load: CPU, memory, disk, load, pressure. From /proc and psutil.

/proc is read under a root that tests choose (psutil's own switch for that is global to the process); psutil serves what
concerns a disk or this process itself.

A figure that can't be had is an absent ``Reading`` with the reason, never zero. Reads block for microseconds, or for as
long as a dying disk takes: callers read in a thread of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from nis_edge.clock import Clock
from nis_edge.errors import SensorUnavailableError
from nis_edge.limits import SENSOR_FILE_BYTES_MAX
from nis_edge.wire.messages import Reading

_MEMORY: Final = re.compile(r"^(MemTotal|MemAvailable): *(\d+) kB$", re.MULTILINE)
# docs.kernel.org, accounting/psi: share of the last 10 s in which some task waited for the resource.
_PSI: Final = re.compile(r"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


class SystemMetrics:
    """The machine's own figures.

    Args:
        root: the folder that stands for ``/``.
        disk: a folder on the disk to watch.
        clock: stamps the readings.
    """

    def __init__(self, root: Path, disk: Path, clock: Clock) -> None:
        self._proc = root / "proc"
        self._disk = disk
        self._clock = clock
        self._busy_total: tuple[float, float] | None = None

    def read(self) -> list[Reading]:
        """Every figure once: cpu_percent, memory_percent, disk_percent, load_1m, and PSI of cpu, memory and io."""
        return [
            self._reading("cpu_percent", "%", self._cpu_percent),
            self._reading("memory_percent", "%", self._memory_percent),
            self._reading("disk_percent", "%", lambda: float(psutil.disk_usage(str(self._disk)).percent)),
            self._reading("load_1m", "1", lambda: float(_read(self._proc / "loadavg").split()[0])),
            *(
                self._reading(f"psi_{name}_percent", "%", lambda name=name: self._psi(name))  # type: ignore[misc]
                for name in ("cpu", "memory", "io")
            ),
        ]

    def _reading(self, name: str, unit: str, read: Callable[[], float]) -> Reading:
        value, reason = None, None
        try:
            value = read()
            if not math.isfinite(value):
                value, reason = None, "it is no finite number"
        except SensorUnavailableError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename or name}: {error.strerror or error}"
        except (psutil.Error, ValueError, IndexError, KeyError) as error:
            reason = f"what the kernel shows could not be read as a number: {error}"
        return Reading(name=name, value=value, unit=unit, ts=self._clock.wall(), source="os", reason=reason)

    def _cpu_percent(self) -> float:
        # proc(5): user nice system idle iowait irq softirq steal guest guest_nice. Guest time is part of user time:
        # counting it again would make the total too large.
        fields = _read(self._proc / "stat").split("\n", 1)[0].split()
        if fields[0] != "cpu":
            raise ValueError("the first line of stat is not that of all CPUs")
        ticks = [int(word) for word in fields[1:9]]
        total = float(sum(ticks))
        busy = total - ticks[3] - ticks[4]
        before, self._busy_total = self._busy_total, (busy, total)
        if before is None or total <= before[1]:
            raise SensorUnavailableError("it takes two looks, and this is the first")
        return min(100.0, max(0.0, 100.0 * (busy - before[0]) / (total - before[1])))

    def _memory_percent(self) -> float:
        found = dict(_MEMORY.findall(_read(self._proc / "meminfo")))
        total, available = int(found["MemTotal"]), int(found["MemAvailable"])
        if not 0 <= available <= total or total == 0:
            raise ValueError(f"{available} of {total} kB available")
        return 100.0 * (total - available) / total

    def _psi(self, name: str) -> float:
        found = _PSI.search(_read(self._proc / "pressure" / name))
        if found is None:
            raise SensorUnavailableError(f"{self._proc / 'pressure' / name} has no line that begins with 'some'")
        return float(found[1])


def free_memory_bytes() -> int:
    """Memory that can be taken without swapping, as the kernel estimates it."""
    return int(psutil.virtual_memory().available)


def own_memory_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(SENSOR_FILE_BYTES_MAX).decode("ascii", errors="replace")
    except OSError as error:
        raise SensorUnavailableError(f"{path}: {error.strerror or error}") from error
