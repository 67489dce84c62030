"""A model that costs nothing and a meter with known power, for benchmarks that measure the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nis_edge.monitor.labels import HEAD_OUTPUTS
from nis_edge.monitor.window import SPECIALS
from nis_edge.pack.layout import Manifest
from nis_edge.power.rails import Discovery, Grade, PowerReading, Scope, SourceInfo
from nis_edge.power.throttle import ThrottleState
from nis_edge.sampling import Sampler
from tests.support.tiny_models import tiny_manifest


class WordTokenizer:
    """One token a word; specials by their place in the monitor's list."""

    def encode(self, text: str) -> list[int]:
        return [len(SPECIALS) + len(word) % 40 for word in text.split()]

    def special(self, name: str) -> int:
        return SPECIALS.index(name)


class HollowSession:
    """Counts positions, as a session does, and computes nothing."""

    def __init__(self, manifest: Manifest, tokens_seen: list[int]) -> None:
        self.position = 0
        self._architecture = manifest.architecture
        self._seen = tokens_seen

    def feed(self, tokens: Sequence[int]) -> None:
        assert 0 < len(tokens) <= self._architecture.context - self.position
        assert all(0 <= token < self._architecture.vocab for token in tokens)
        self.position += len(tokens)
        self._seen.append(len(tokens))

    def forward(self, tokens: Sequence[int]) -> np.ndarray:
        self.feed(tokens)
        return np.zeros(self._architecture.vocab, dtype=np.float32)

    def head(self, name: str) -> np.ndarray:
        assert self.position > 0
        return np.zeros(len(self._architecture.task_heads[name].outputs), dtype=np.float32)

    def rewind(self, position: int) -> None:
        assert 0 <= position <= self.position
        self.position = position

    def close(self) -> None:
        pass


class HollowModel:
    """A model of the right shape without arithmetic."""

    isa = "hollow"
    tables = None

    def __init__(self, *, tokenizer: bool = True, **shape: object) -> None:
        self.manifest = tiny_manifest(**{"vocab": 600, "context": 256, "tokenizer": tokenizer, **shape})
        self.tokenizer = WordTokenizer() if tokenizer else None
        self.tokens_seen: list[int] = []
        self.closed = False
        assert not tokenizer or self.manifest.architecture.task_heads.keys() <= {"consciousness"}
        for head in self.manifest.architecture.task_heads.values():
            assert head.outputs == HEAD_OUTPUTS

    def session(self, max_positions: int | None = None) -> HollowSession:
        return HollowSession(self.manifest, self.tokens_seen)

    def close(self) -> None:
        self.closed = True


def meter_info(scope: Scope = "input", grade: Grade = "A", *, complete: bool = True) -> SourceInfo:
    """Who measures."""
    return SourceInfo(
        source="sim", board="bench", kind="hwmon", scope=scope, grade=grade, complete=complete, counted=("DC_IN",),
        covers="all", misses="" if complete else "USB", rate_hz=1000.0,
    )  # fmt: skip


class SimulatedMeter:
    """A power source whose watts are a function of time."""

    def __init__(self, watts: Callable[[float], float | None], info: SourceInfo | None = None) -> None:
        self.info = info or meter_info()
        self._watts = watts

    def read(self, now: float) -> PowerReading:
        watts = self._watts(now)
        reason = None if watts is not None else "the simulated sensor is gone"
        return PowerReading(t_s=now, watts=watts, info=self.info, rails=(), reason=reason)

    def close(self) -> None:
        pass


class GridSampler(Sampler):
    """Reads on the exact grid, all at once when it is stopped: what a sampler gives on a machine that is never busy."""

    def start(self) -> None:
        self._started_s = self._clock.monotonic()

    def stop(self) -> None:
        if self._started_s is None:
            return
        ran_s = self._clock.monotonic() - self._started_s
        for index in range(int(ran_s * self.rate_hz) + 2):
            t_s = self._started_s + index * self.period_s
            if self._source is not None:
                self.readings.append(self._source.read(t_s))
            if index % 10 == 0:
                self.looks.append(self._throttle())
                self.temperatures.append((t_s, self._read_temperatures()))
        self.ran_s += ran_s
        self._started_s = None

    _started_s: float | None = None


def about(watts: float) -> Callable[[float], float]:
    """A live converter's steady power: the last digit moves."""
    return lambda t_s: watts + 1e-6 * (int(t_s * 1e4) % 7)


def one_source(meter: SimulatedMeter) -> Callable[[], Discovery]:
    """A machine with this meter."""
    return lambda: Discovery(sources=(meter,))


def calm() -> ThrottleState:
    """A machine that could tell of throttling and has none."""
    return ThrottleState(known=True)
