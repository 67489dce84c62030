"""The sampler: power, temperatures and throttle flags all along a benchmark, in a thread of its own, at a known cost.

It reads on a fixed grid of the monotonic clock, keeps everything in bounded lists, and measures the processor time it
takes itself. A reading that fails stays in the list as an absent one, so that the gap shows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from nis_edge.clock import Clock
from nis_edge.limits import METER_SAMPLES_MAX
from nis_edge.power.rails import PowerReading, PowerSource
from nis_edge.power.throttle import ThrottleState

STATE_PERIOD_S: Final = 1.0
"""Temperatures and throttle flags change slowly; asking a Pi's firmware costs more than reading a rail."""


class Sampler:
    """Samples until stopped.

    Args:
        source: power source, or None: then only temperatures and throttle flags are taken.
        throttle: gives the throttle state now.
        temperatures: gives degrees Celsius by sensor.
        clock: the clock that the workloads are timed with.
        rate_hz: power readings per second.
    """

    def __init__(
        self,
        source: PowerSource | None,
        throttle: Callable[[], ThrottleState],
        temperatures: Callable[[], dict[str, float]],
        clock: Clock,
        rate_hz: float,
    ) -> None:
        self.rate_hz = rate_hz
        self.readings: list[PowerReading] = []
        self.looks: list[ThrottleState] = []
        self.temperatures: list[tuple[float, dict[str, float]]] = []
        self.cpu_s = 0.0
        self.ran_s = 0.0
        self.fault: str | None = None
        self._source = source
        self._throttle = throttle
        self._read_temperatures = temperatures
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample; again after ``stop`` is allowed."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the last reading; a sampler that is not running is left alone."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    @property
    def period_s(self) -> float:
        """Seconds between power readings as meant."""
        return 1.0 / self.rate_hz

    @property
    def cpu_percent(self) -> float | None:
        """Processor time of the sampler's thread, in percent of one core; None before it ran."""
        return 100 * self.cpu_s / self.ran_s if self.ran_s > 0 else None

    def _run(self) -> None:
        started_s, cpu_started_s = self._clock.monotonic(), time.thread_time()
        try:
            self._sample(started_s)
        except Exception as error:  # a thread must not die in silence: the run then has no verdict, and says why
            self.fault = f"the sampler failed: {error}"
        finally:
            self.cpu_s += time.thread_time() - cpu_started_s
            self.ran_s += self._clock.monotonic() - started_s

    def _sample(self, due_s: float) -> None:
        state_due_s = due_s
        period_s = self.period_s if self._source is not None else STATE_PERIOD_S
        while len(self.readings) < METER_SAMPLES_MAX:
            now = self._clock.monotonic()
            if self._source is not None:
                self.readings.append(self._source.read(now))
            if now >= state_due_s:
                self.looks.append(self._throttle())
                self.temperatures.append((now, self._read_temperatures()))
                state_due_s = now + STATE_PERIOD_S
            # The grid goes on from where it should be; what a slow read missed is left out, not caught up.
            due_s += period_s * max(1.0, -(-(self._clock.monotonic() - due_s) // period_s))
            if self._stop.wait(max(0.0, due_s - self._clock.monotonic())):
                return
