"""The device as the monitor and the telemetry see it: load, temperature, throttling, power. Read in one thread.

Sensors block (an I2C transfer takes milliseconds, a dying disk seconds), so all of them are read in one thread beside
the asyncio thread. A sensor that is absent gives an absent reading with its reason; nothing here invents a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

from nis_edge.adapters import sysfs
from nis_edge.adapters.system_metrics import SystemMetrics
from nis_edge.clock import Clock
from nis_edge.logs import Occasional
from nis_edge.metering import PowerMeter, find_throttle
from nis_edge.power.easing import Easing, ease
from nis_edge.power.rails import PowerReading
from nis_edge.power.throttle import ThrottleState, during
from nis_edge.supervisor import Beat
from nis_edge.wire.messages import Reading

THROTTLE_C: Final = 80.0
"""Where a Raspberry Pi's firmware begins to slow down; its thermal zones do not say so."""

CPU_ZONES: Final = ("cpu", "x86_pkg_temp", "soc", "tj", "coretemp")
"""Beginnings of the names of thermal zones that tell the processor's temperature: Raspberry Pi cpu-thermal, Jetson
cpu-thermal and tj-thermal, x86."""

READINGS_TOLD_ABSENT: Final = frozenset({"temperature_c", "throttled"})
"""Absent on many machines from the start: told once in the log, so that nobody takes their silence for health."""


class DeviceSensors:
    """Load, temperature and throttling of this machine.

    Args:
        root: the folder that stands for ``/``.
        disk: a folder on the disk to watch.
        clock: stamps the readings.
    """

    def __init__(self, root: Path, disk: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._metrics = SystemMetrics(root, disk, clock)
        self._looks: list[ThrottleState] = []

    def throttle_limit_c(self) -> float:
        """Degrees Celsius at which this board begins to throttle, as far as it tells; blocking."""
        return sysfs.throttle_limit_c(self._root) or THROTTLE_C

    def read(self) -> list[Reading]:
        """Every reading once; blocking."""
        return [*self._metrics.read(), self._temperature(), self._throttled()]

    def _temperature(self) -> Reading:
        zones = sysfs.temperatures(self._root)
        processor = {n: c for n, c in zones.items() if n.lower().startswith(CPU_ZONES)} or zones
        if not processor:
            reason = f"no thermal zone under {self._root / 'sys/class/thermal'} gives a temperature"
            return self._reading("temperature_c", None, "Cel", "thermal", reason)
        hottest = max(processor, key=lambda name: processor[name])
        return self._reading("temperature_c", processor[hottest], "Cel", f"thermal {hottest}")

    def _throttled(self) -> Reading:
        look = find_throttle(self._root)
        self._looks = [*self._looks[-1:], look]
        if not look.known:
            return self._reading("throttled", None, "1", "throttle", look.reason or "unknown")
        # A counter that rose, or a sticky bit that was set since the last look, counts as throttled now.
        return self._reading("throttled", 1.0 if during(self._looks) else 0.0, "1", "throttle")

    def _reading(self, name: str, value: float | None, unit: str, source: str, reason: str | None = None) -> Reading:
        return Reading(name=name, value=value, unit=unit, ts=self._clock.wall(), source=source, reason=reason)


class Sensing:
    """Reads the device again and again.

    Args:
        sensors: the device.
        meter: its power.
        thread: an executor of exactly one thread.
        metrics_s, power_s: seconds between two readings.
        clock: the time.
        log: a structlog logger.
        tell: takes the readings.
        ease: takes how much the device may do, whenever that changes.
        throttle_c: degrees Celsius at which the board begins to throttle; None: as the board tells.
    """

    def __init__(
        self,
        sensors: DeviceSensors,
        meter: PowerMeter,
        thread: Executor,
        *,
        metrics_s: float,
        power_s: float,
        clock: Clock,
        log: Any,
        tell: Callable[[list[Reading]], None],
        ease: Callable[[Easing], None] = lambda _: None,
        throttle_c: float | None = None,
    ) -> None:
        self._sensors, self._meter, self._thread = sensors, meter, thread
        self.metrics_s, self.power_s = metrics_s, power_s
        self._clock, self._log, self._tell, self._told_ease = clock, log, tell, ease
        self.throttle_c = throttle_c
        self._board_throttle_c: float | None = None
        self.easing = Easing()
        self._occasional = Occasional(log, clock.monotonic, every_s=3600.0)
        self.readings: list[Reading] = []
        self.power: PowerReading | None = None
        self.why_no_power: str | None = "not read yet"
        self._watts: list[float] = []
        self._gaps = 0

    async def run_metrics(self, beat: Beat) -> None:
        """Read load, temperature and throttling until cancelled."""
        while True:
            beat()
            self.readings = await asyncio.get_running_loop().run_in_executor(self._thread, self._sensors.read)
            if self._board_throttle_c is None:
                self._board_throttle_c = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._sensors.throttle_limit_c
                )
            self._say_absent(self.readings)
            self._tell(self.readings)
            self._ease(self._board_throttle_c)
            await asyncio.sleep(self.metrics_s)

    async def run_power(self, beat: Beat) -> None:
        """Read power until cancelled."""
        while True:
            beat()
            now = self._clock.monotonic()
            self.power = await asyncio.get_running_loop().run_in_executor(self._thread, self._meter.read, now)
            self.why_no_power = self._meter.why_none if self.power is None else self.power.reason
            if self.power is not None and self.power.watts is not None:
                self._watts = [*self._watts[-3599:], self.power.watts]
            else:
                self._gaps += 1
            await asyncio.sleep(self.power_s)

    def take_power(self) -> dict[str, Any]:
        """Mean and largest power since the last call, with source, scope, grade and what is known of its error."""
        watts, gaps = self._watts, self._gaps
        self._watts, self._gaps = [], 0
        info = self.power.info if self.power is not None else None
        return {
            "watts": round(sum(watts) / len(watts), 4) if watts else None,
            "watts_max": round(max(watts), 4) if watts else None,
            "n": len(watts),
            "gaps": gaps,
            "uncertainty_w": self.power.uncertainty_w if self.power is not None and watts else None,
            "source": info.source if info is not None else None,
            "scope": info.scope if info is not None else None,
            "grade": info.grade if info is not None else None,
            "reason": None if watts else self.why_no_power,
        }

    def _ease(self, board_throttle_c: float) -> None:
        """Let a hot device do less, and say so when that changes."""
        values = {reading.name: reading.value for reading in self.readings}
        throttled = values.get("throttled")
        before = self.easing
        self.easing = ease(
            before,
            celsius=values.get("temperature_c"),
            throttled=None if throttled is None else throttled > 0.0,
            limit_c=self.throttle_c if self.throttle_c is not None else board_throttle_c,
            now=self._clock.monotonic(),
        )
        if self.easing.level == before.level:
            return
        self._told_ease(self.easing)
        if self.easing.level:
            unharmed = "the rules judge every event; the model is asked " + (
                "no more" if self.easing.rest_s == float("inf") else f"at most every {self.easing.rest_s:g} s"
            )
            self._log.warning("device.eased", to=self.easing.name, reason=self.easing.reason, unharmed=unharmed)
        else:
            self._log.info("device.recovered")

    def _say_absent(self, readings: list[Reading]) -> None:
        for reading in readings:
            if reading.value is None and reading.name in READINGS_TOLD_ABSENT:
                unharmed = "judging goes on without it; it is reported as unknown"
                self._occasional.warning(
                    "sensor.failed", reading.name, sensor=reading.name, reason=reading.reason, unharmed=unharmed
                )
