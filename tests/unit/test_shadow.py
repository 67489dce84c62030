"""The configuration sent from afar: refused whole, tried, kept, undone, remembered; harm is not within its reach."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nis_edge import shadow as module
from nis_edge.config import Config, ConfigFileError, changed_sections, overlaid
from nis_edge.errors import DeviceError
from nis_edge.shadow import Shadow, hash_of
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog


class Device:
    """A daemon as the shadow sees it."""

    def __init__(self, folder: Path, thread: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.file = Config()
        self.config = Config()
        self.ill: str | None = None
        self.reports: list[dict[str, Any]] = []
        self.log = KeptLog()
        self.clock = SteppedClock()
        self.thread = thread
        self.shadow = self.make()

    def make(self) -> Shadow:
        return Shadow(
            self.folder / "desired.json", apply=self.apply, file_config=lambda: self.file,
            ailing=lambda begin: None if begin else self.ill, report=self.reports.append, thread=self.thread,
            clock=self.clock, log=self.log, trial_s=10.0,
        )  # fmt: skip

    def apply(self, config: Config) -> tuple[str, ...]:
        changed = changed_sections(self.config, config)
        self.config = config
        return changed

    def desire(self, version: int, **config: dict[str, Any]) -> None:
        self.shadow.desire(json.dumps({"version": version, "config": config}).encode())

    async def until(self, state: str, version: int | None = None) -> dict[str, Any]:
        while not any(r["state"] == state and (version is None or r["version"] == version) for r in self.reports):
            await asyncio.sleep(0.002)
        return self.reports[-1]

    async def pass_trial(self) -> None:
        self.clock.advance(11.0)
        self.shadow._wake.set()


Scenario = Callable[[Device], Awaitable[None]]


def run(tmp_path: Path, scenario: Scenario) -> None:
    async def body() -> None:
        with ThreadPoolExecutor(1) as thread:
            device = Device(tmp_path, thread)
            device.config = device.shadow.recall()
            task = asyncio.ensure_future(device.shadow.run(lambda: None))
            try:
                await asyncio.wait_for(scenario(device), 20)
            finally:
                task.cancel()
                await asyncio.wait({task})

    asyncio.run(body())


def test_a_good_one_is_applied_at_once_tried_and_kept(tmp_path: Path) -> None:
    async def scenario(device: Device) -> None:
        device.desire(1, monitor={"tick_s": 2}, log={"level": "debug"})
        report = await device.until("on_trial")
        assert device.config.monitor.tick_s == 2.0
        assert report["hash"] == hash_of({"monitor": {"tick_s": 2}, "log": {"level": "debug"}})
        await device.pass_trial()
        report = await device.until("accepted")
        assert (report["version"], report["in_force_version"]) == (1, 1)
        assert report["config"]["monitor"]["tick_s"] == 2.0
        again = Device(device.folder, device.thread)
        assert again.shadow.recall().monitor.tick_s == 2.0

    run(tmp_path, scenario)


def test_one_fault_refuses_all_of_it_with_every_fault_named(tmp_path: Path) -> None:
    async def scenario(device: Device) -> None:
        device.desire(1, monitor={"tick_s": 2, "paec_s": 1}, power={"interval_s": 1e9})
        report = await device.until("rejected", 1)
        assert "did you mean 'pace_s'?" in report["reason"]
        assert "power.interval_s must be" in report["reason"]
        assert device.config == Config()
        assert report["in_force_version"] is None

    run(tmp_path, scenario)


@pytest.mark.parametrize("section", ["mqtt", "device", "update", "api", "model", "spool"])
def test_nothing_that_could_take_the_device_away_is_within_reach(section: str) -> None:
    with pytest.raises(ConfigFileError, match="own file only"):
        overlaid(Config(), {section: {}})


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"x", b'{"version":"1","config":{}}', b'{"version":-1,"config":{}}',
                                     b'{"version":1,"config":{"monitor":3}}', b'{"version":1,"config":{},"x":1}',
                                     b" " * 70_000])  # fmt: skip
def test_what_has_not_the_form_is_refused_and_the_next_one_served(tmp_path: Path, payload: bytes) -> None:
    async def scenario(device: Device) -> None:
        device.shadow.desire(payload)
        await device.until("rejected")
        device.desire(1, monitor={"tick_s": 3})
        await device.until("on_trial", 1)

    run(tmp_path, scenario)


def test_a_daemon_that_ails_gets_its_options_back_and_the_version_is_not_tried_again(tmp_path: Path) -> None:
    async def scenario(device: Device) -> None:
        device.desire(1, monitor={"tick_s": 2})
        await device.until("on_trial", 1)
        await device.pass_trial()
        await device.until("accepted", 1)
        device.desire(2, monitor={"tick_s": 5})
        await device.until("on_trial", 2)
        assert device.config.monitor.tick_s == 5.0
        device.ill = "the judging loop stalled"
        device.shadow._wake.set()
        report = await device.until("rolled_back", 2)
        assert report["reason"] == "the judging loop stalled"
        assert report["in_force_version"] == 1
        assert device.config.monitor.tick_s == 2.0
        device.ill = None
        device.desire(2, monitor={"tick_s": 5})  # the broker hands it out at the next connection
        while len([r for r in device.reports if r["state"] == "rolled_back"]) < 2:
            await asyncio.sleep(0.002)
        assert device.config.monitor.tick_s == 2.0

    run(tmp_path, scenario)


def test_versions_count_upwards_and_one_version_has_one_content(tmp_path: Path) -> None:
    async def scenario(device: Device) -> None:
        device.desire(5, monitor={"tick_s": 2})
        await device.until("on_trial", 5)
        await device.pass_trial()
        await device.until("accepted", 5)
        device.desire(4, monitor={"tick_s": 9})
        assert "older than 5" in (await device.until("rejected", 4))["reason"]
        device.desire(5, monitor={"tick_s": 9})
        assert "other content" in (await device.until("rejected", 5))["reason"]
        assert device.config.monitor.tick_s == 2.0
        assert device.shadow.memory.phase == "accepted"

    run(tmp_path, scenario)


def test_an_end_without_farewell_on_trial_undoes_it_and_a_clean_one_goes_on_with_the_trial(tmp_path: Path) -> None:
    async def scenario(device: Device) -> None:
        device.desire(1, monitor={"tick_s": 2})
        await device.until("on_trial", 1)
        killed = Device(device.folder, device.thread)
        assert killed.shadow.recall().monitor.tick_s == 1.0
        assert killed.shadow.memory.phase == "rolled_back"
        assert "without a farewell" in (killed.shadow.memory.reason or "")

    run(tmp_path, scenario)

    async def clean(device: Device) -> None:
        device.desire(2, monitor={"tick_s": 2})
        await device.until("on_trial", 2)

    run(tmp_path, clean)

    async def after(device: Device) -> None:
        assert device.config.monitor.tick_s == 2.0
        await device.until("on_trial", 2)
        await device.pass_trial()
        await device.until("accepted", 2)

    run(tmp_path, after)


def test_a_disk_that_refuses_means_that_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DeviceError("disk full")

    async def scenario(device: Device) -> None:
        monkeypatch.setattr(module, "_write", refuse)
        device.desire(1, monitor={"tick_s": 2})
        report = await device.until("rejected", 1)
        assert "disk" in report["reason"]
        assert device.config == Config()

    run(tmp_path, scenario)


def test_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "desired.json").write_bytes(b"\x00rubbish")

    async def scenario(device: Device) -> None:
        assert device.config == Config()
        await device.until("none")

    run(tmp_path, scenario)
