"""The device's sensors: the processor's temperature, throttling and power; the absent is absent and told once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nis_edge.metering import PowerMeter
from nis_edge.power.easing import Easing
from nis_edge.power.rails import Discovery, PowerReading, SourceInfo
from nis_edge.sensing import DeviceSensors, Sensing
from nis_edge.wire.messages import Reading
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog

INFO = SourceInfo(
    source="test/rail", board="test", kind="hwmon", scope="module", grade="B", complete=True, counted=("a",),
    covers="all", misses="nothing", rate_hz=1.0,
)  # fmt: skip


def zone(root: Path, number: int, name: str, milli: str) -> None:
    folder = root / f"sys/class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(name + "\n")
    (folder / "temp").write_text(milli + "\n")


def by_name(readings: list[Reading]) -> dict[str, Reading]:
    return {reading.name: reading for reading in readings}


def test_the_processors_hottest_zone_is_the_temperature(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", "61500")
    zone(tmp_path, 1, "CPU-therm", "63000")
    zone(tmp_path, 2, "battery", "90000")
    reading = by_name(DeviceSensors(tmp_path, tmp_path, SteppedClock()).read())["temperature_c"]
    assert (reading.value, reading.source) == (63.0, "thermal CPU-therm")


def test_without_a_processors_zone_the_hottest_of_all_is_taken(tmp_path: Path) -> None:
    zone(tmp_path, 0, "acpitz", "40000")
    assert by_name(DeviceSensors(tmp_path, tmp_path, SteppedClock()).read())["temperature_c"].value == 40.0


def test_a_throttle_word_is_throttled_now_and_its_sticky_bit_counts_when_it_is_new(tmp_path: Path) -> None:
    word = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    word.parent.mkdir(parents=True)
    sensors = DeviceSensors(tmp_path, tmp_path, SteppedClock())
    seen = []
    for text in ("0", "4", "40000", "40000", "40004"):
        word.write_text(text + "\n")
        seen.append(by_name(sensors.read())["throttled"].value)
    assert seen[0] == 0.0
    assert seen[1] == 1.0
    assert seen[3] == 0.0
    assert seen[4] == 1.0


def test_a_machine_that_tells_nothing_is_unknown_not_cool_and_not_well(tmp_path: Path) -> None:
    readings = by_name(DeviceSensors(tmp_path, tmp_path, SteppedClock()).read())
    for name in ("temperature_c", "throttled"):
        assert readings[name].value is None
        assert readings[name].reason


class Source:
    """A power source that gives what it is told."""

    info = INFO

    def __init__(self) -> None:
        self.watts: list[float | None] = []

    def read(self, now: float) -> PowerReading:
        watts = self.watts.pop(0) if self.watts else None
        return PowerReading(
            t_s=now, watts=watts, info=INFO, rails=(), reason=None if watts is not None else "bus error"
        )

    def close(self) -> None:
        pass


def sensing(
    meter: PowerMeter,
    thread: Any,
    log: KeptLog,
    root: Path,
    ease: Any = lambda _: None,
    throttle_c: float | None = None,
) -> Sensing:
    clock = SteppedClock()
    return Sensing(
        DeviceSensors(root, root, clock), meter, thread, metrics_s=0.001, power_s=0.001, clock=clock, log=log,
        tell=lambda readings: None, ease=ease, throttle_c=throttle_c,
    )  # fmt: skip


def test_power_is_a_mean_with_its_gaps_counted_and_each_is_given_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        source = Source()
        source.watts = [1.0, 4.0, 3.0, None, 4.0]  # the first is the search's own look
        with ThreadPoolExecutor(1) as thread:
            part = sensing(PowerMeter(lambda: Discovery(sources=(source,))), thread, KeptLog(), tmp_path)
            running = asyncio.ensure_future(part.run_power(lambda: None))
            while source.watts:
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait({running})
        body = part.take_power()
        assert body["watts_max"] == 4.0
        assert body["n"] >= 2
        assert body["gaps"] >= 1
        assert (body["source"], body["scope"], body["grade"]) == ("test/rail", "module", "B")
        again = part.take_power()
        assert again["watts"] is None
        assert again["n"] == 0

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_without_a_source_power_is_unknown_with_every_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as thread:
            part = sensing(PowerMeter(lambda: Discovery()), thread, KeptLog(), tmp_path)
            running = asyncio.ensure_future(part.run_power(lambda: None))
            while part.why_no_power == "not read yet":
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait({running})
            body = part.take_power()
        assert body["watts"] is None
        assert body["source"] is None
        assert body["reason"]

    asyncio.run(asyncio.wait_for(scenario(), 10))


@pytest.mark.parametrize(("trip", "configured"), [(None, None), ("99000", None), ("99000", 70.0)])
def test_a_hot_board_eases_the_model_from_where_it_would_throttle(
    tmp_path: Path, trip: str | None, configured: float | None
) -> None:
    limit_c = configured or (99.0 if trip else 80.0)
    zone(tmp_path, 0, "cpu-thermal", str(int(limit_c * 1000) - 4000))
    if trip:
        (tmp_path / "sys/class/thermal/thermal_zone0/trip_point_0_type").write_text("passive\n")
        (tmp_path / "sys/class/thermal/thermal_zone0/trip_point_0_temp").write_text(trip + "\n")

    async def scenario() -> None:
        told: list[Easing] = []
        log = KeptLog()
        with ThreadPoolExecutor(1) as thread:
            part = sensing(PowerMeter(lambda: Discovery()), thread, log, tmp_path, told.append, configured)
            running = asyncio.ensure_future(part.run_metrics(lambda: None))
            while not told:
                await asyncio.sleep(0.001)
            (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text(str(int(limit_c * 1000)))
            while len(told) < 2:
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait({running})
        assert [easing.name for easing in told] == ["eased", "rules only"]
        assert f"the board throttles from {limit_c:g} C" in (told[0].reason or "")
        assert [entry["to"] for entry in log.named("device.eased")] == ["eased", "rules only"]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_an_absent_sensor_is_told_once_not_each_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = KeptLog()
        with ThreadPoolExecutor(1) as thread:
            part = sensing(PowerMeter(lambda: Discovery()), thread, log, tmp_path)
            rounds: list[int] = []
            running = asyncio.ensure_future(part.run_metrics(lambda: rounds.append(1)))
            while len(rounds) < 5:
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait({running})
        assert sorted(e["sensor"] for e in log.named("sensor.failed")) == ["temperature_c", "throttled"]

    asyncio.run(asyncio.wait_for(scenario(), 10))
