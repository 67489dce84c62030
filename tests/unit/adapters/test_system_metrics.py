"""The machine's figures: right from a known tree, absent with a reason where the tree lacks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nis_edge.adapters.system_metrics import SystemMetrics, own_memory_bytes
from nis_edge.wire.messages import Reading
from tests.support.clock import SteppedClock

MEMINFO = (
    "MemTotal:       1000000 kB\nMemFree:         100000 kB\nMemAvailable:    250000 kB\nBuffers: 0 kB\nCached: 0 kB\n"
)


def write(root: Path, name: str, text: str) -> None:
    path = root / "proc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tree(root: Path) -> None:
    write(root, "stat", "cpu  100 0 100 800 0 0 0 0 0 0\n")
    write(root, "meminfo", MEMINFO)
    write(root, "loadavg", "1.50 1.00 0.50 1/100 4242\n")
    for name in ("cpu", "memory", "io"):
        write(root, f"pressure/{name}", "some avg10=12.34 avg60=1.00 avg300=0.50 total=99\n")


def readings(metrics: SystemMetrics) -> dict[str, Reading]:
    return {reading.name: reading for reading in metrics.read()}


def test_figures_are_those_of_the_tree(tmp_path: Path) -> None:
    tree(tmp_path)
    metrics = SystemMetrics(tmp_path, tmp_path, SteppedClock(wall=5.0))
    first = readings(metrics)
    assert first["cpu_percent"].value is None
    assert "two looks" in (first["cpu_percent"].reason or "")
    assert first["memory_percent"].value == pytest.approx(75.0)
    assert first["load_1m"].value == 1.5
    assert first["psi_io_percent"].value == 12.34
    assert first["memory_percent"].ts == 5.0
    assert 0.0 < (first["disk_percent"].value or 0.0) <= 100.0
    # 100 ticks later, 30 of them idle and 10 waiting for a disk
    write(tmp_path, "stat", "cpu  140 0 120 830 10 0 0 0 0 0\n")
    assert readings(metrics)["cpu_percent"].value == pytest.approx(60.0)


def test_time_of_guests_is_not_counted_twice(tmp_path: Path) -> None:
    tree(tmp_path)
    metrics = SystemMetrics(tmp_path, tmp_path, SteppedClock())
    metrics.read()
    write(tmp_path, "stat", "cpu  150 0 100 850 0 0 0 0 50 0\n")
    assert readings(metrics)["cpu_percent"].value == pytest.approx(50.0)


def test_what_the_kernel_does_not_show_is_absent_with_the_reason(tmp_path: Path) -> None:
    metrics = SystemMetrics(tmp_path, tmp_path / "none", SteppedClock())
    for _ in range(2):
        for reading in metrics.read():
            assert reading.value is None, reading.name
            assert reading.reason, reading.name


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu a b c\n", "\x00" * 99, "cpu  1e999 0 0 0 0 0 0 0 0 0\n"])
def test_nonsense_is_absent_never_a_number(tmp_path: Path, text: str) -> None:
    tree(tmp_path)
    metrics = SystemMetrics(tmp_path, tmp_path, SteppedClock())
    metrics.read()
    for name in ("stat", "meminfo", "loadavg", "pressure/cpu"):
        write(tmp_path, name, text)
    got = readings(metrics)
    for name in ("cpu_percent", "memory_percent", "load_1m", "psi_cpu_percent"):
        assert got[name].value is None, name
        assert got[name].reason, name


def test_a_counter_that_runs_backwards_gives_no_share(tmp_path: Path) -> None:
    tree(tmp_path)
    metrics = SystemMetrics(tmp_path, tmp_path, SteppedClock())
    metrics.read()
    write(tmp_path, "stat", "cpu  1 0 1 8 0 0 0 0 0 0\n")
    assert readings(metrics)["cpu_percent"].value is None


def test_this_process_has_memory() -> None:
    assert own_memory_bytes() > 1_000_000
