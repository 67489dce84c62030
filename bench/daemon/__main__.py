"""What the daemon costs while nothing happens, and what a record costs: memory, idle CPU, CPU of a stream of records.

    python -m bench.daemon [--minutes 10] [--seconds 30] [--json FILE]

Idle: the daemon as systemd runs it, with the shipped model, its local API and a connected mosquitto on loopback; CPU
time of all its threads over the minutes, after a settling time. Demo: the same with the replayed team. Updates: idle
again, after a look at a signed repository on loopback, for what checking and signing keeps in memory. Memory is Rss of
/proc/PID/smaps less the pages of the mapped model package, which are the page cache's. Records: the real outbox, spool
(fsync on this disk) and link in a process of its own that makes 2100 records of about 150 bytes a second; its whole CPU
time counts, mosquitto's does not. Beside the mean stands the range over windows of one second; the load average in the
file says what else was going on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from nis_edge import bench_machine
from tests.support.broker import Mosquitto
from tests.support.daemon import DaemonProcess
from tests.support.web_folder import web_folder

RATE = 2000
OFFERED = 2100
"""Somewhat more than must be delivered: what is counted comes in steps of one commit."""

SETTLE_S = 10.0
LIMITS = {"rss_mb": 80.0, "idle_percent_of_core": 0.5, "records_percent_of_core": 15.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="how long the idle daemon, and then the one with the demo team, is watched",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long records flow")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "broker").mkdir()
        broker = Mosquitto(folder / "broker")
        broker.start()
        try:
            results = {
                "idle": idle(folder / "idle", broker.port, args.minutes),
                "demo": demo(folder / "demo", broker.port, args.minutes),
                "updates": updates(folder / "updates", broker.port),
                "records": records(folder, broker.port, args.seconds),
            }
        finally:
            broker.stop()
    results["gates"] = gates(results)
    commit, why = bench_machine.commit()
    about = {
        "machine": msgspec.to_builtins(bench_machine.machine()),
        "commit": commit or why,
        "state_file_system": file_system(Path(tempfile.gettempdir())),
    }
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")


def idle(folder: Path, port: int, minutes: float) -> dict[str, Any]:
    """The daemon with nothing to do."""
    config = f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
    with DaemonProcess(folder, config).start() as daemon:
        daemon.wait(lambda: daemon.status()["broker"]["connected"], "the broker is connected")
        model = daemon.status()["model"]["name"]
        time.sleep(SETTLE_S)
        assert daemon.process is not None
        pid = daemon.process.pid
        windows = cpu_windows(pid, minutes * 60.0)
        memory = memory_mb(pid)
        # The CPU of each thread, so that who idles too busily can be named.
        threads = thread_seconds(pid)
        assert daemon.end() == 0
    share = sum(windows) / len(windows)
    return {
        "minutes": minutes,
        "model": model,
        "cpu_percent_of_core": round(100.0 * share, 3),
        "cpu_percent_of_core_by_second": spread([100.0 * w for w in windows]),
        "rss_mb_without_package": memory["rss_without_package"],
        "rss_mb": memory["rss"],
        "package_pages_mb": memory["package"],
        "thread_cpu_seconds": threads,
    }


def demo(folder: Path, port: int, minutes: float) -> dict[str, Any]:
    """The daemon with the replayed team of agents: its memory at the end, and what judging costs."""
    config = f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
    with DaemonProcess(folder, config, "--demo").start() as daemon:
        time.sleep(SETTLE_S)
        assert daemon.process is not None
        windows = cpu_windows(daemon.process.pid, minutes * 60.0)
        memory = memory_mb(daemon.process.pid)
        events = daemon.status()["events"]["seen"]
        assert daemon.end() == 0
    return {
        "minutes": minutes,
        "events_seen": events,
        "cpu_percent_of_core": round(100.0 * sum(windows) / len(windows), 3),
        "rss_mb_without_package": memory["rss_without_package"],
        "rss_mb": memory["rss"],
        "package_pages_mb": memory["package"],
    }


def updates(folder: Path, port: int) -> dict[str, Any]:
    """The idle daemon once it has checked signed metadata and signed a report: its memory."""
    repository = folder / "fleet"
    subprocess.run(
        [sys.executable, "-m", "nis_ota.cli", "init-repo", str(repository), "--plain-keys"],
        check=True,
        capture_output=True,
    )
    with web_folder(repository) as web:
        config = (
            f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
            f'[update]\nrepository = "{web.url}"\nroot = "{repository}/metadata/1.root.json"\n'
        )
        with DaemonProcess(folder, config).start() as daemon:
            daemon.wait(lambda: daemon.status()["broker"]["connected"], "the broker is connected")
            daemon.wait(lambda: any(path.endswith("timestamp.json") for path, _ in web.requests), "it has looked")
            time.sleep(SETTLE_S)
            assert daemon.process is not None
            memory = memory_mb(daemon.process.pid)
            assert daemon.end() == 0
    return {"rss_mb_without_package": memory["rss_without_package"], "rss_mb": memory["rss"]}


def records(folder: Path, port: int, seconds: float) -> dict[str, Any]:
    """The way of a record from the outbox to the broker's acknowledgement."""
    state = folder / "records"
    state.mkdir()
    words = [sys.executable, "-m", "tests.support.outbox_process", str(state), str(port), str(OFFERED), "0", "250"]
    with (state / "log").open("ab") as log:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    try:
        time.sleep(5.0)  # imports, the first connection
        before = last_told(process)
        started = time.monotonic()
        windows = cpu_windows(process.pid, seconds)
        elapsed = time.monotonic() - started
        after = last_told(process)
        threads = thread_seconds(process.pid)
    finally:
        process.kill()
        process.wait()
    return {
        "seconds": round(elapsed, 1),
        "kept_per_second": round((after[0] - before[0]) / elapsed, 1),
        "delivered_per_second": round((after[1] - before[1]) / elapsed, 1),
        "behind_at_the_end": after[0] - after[1],
        "cpu_percent_of_core": round(100.0 * sum(windows) / len(windows), 2),
        "cpu_percent_of_core_by_second": spread([100.0 * w for w in windows]),
        "cpu_us_per_record": round(1e6 * sum(windows) / len(windows) * elapsed / max(1, after[1] - before[1]), 1),
        "thread_cpu_seconds": threads,
    }


def last_told(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """What it kept and delivered, by its newest line."""
    assert process.stdout is not None
    text = b""
    while chunk := process.stdout.read(1 << 16):
        text += chunk
    kept, delivered = text.splitlines()[-2].split()[1:]
    return int(kept), int(delivered)


def cpu_windows(pid: int, seconds: float) -> list[float]:
    """Share of one core in each second."""
    windows = []
    end = time.monotonic() + seconds
    at, used = time.monotonic(), cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(1.0)
        now, total = time.monotonic(), cpu_seconds(pid)
        windows.append((total - used) / (now - at))
        at, used = now, total
    return windows


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, those of its threads included that are gone: its CPU clock (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def thread_seconds(pid: int) -> dict[str, float]:
    """CPU time by thread."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        found[name] = round(found.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9, 3)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory, and how much of it is the mapped package."""
    package = rss = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line[:1] in "0123456789abcdef" and "-" in line.split(" ", 1)[0]:
            inside = line.endswith(".nis")
        elif line.startswith("Rss:"):
            kib = int(line.split()[1])
            rss += kib
            package += kib if inside else 0
    return {
        "rss": round(rss / 1024, 1),
        "package": round(package / 1024, 1),
        "rss_without_package": round((rss - package) / 1024, 1),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "lowest": round(min(values), 3),
            "highest": round(max(values), 3)}  # fmt: skip


def gates(results: dict[str, Any]) -> dict[str, Any]:
    """Each promise with its figure."""
    figures = {
        "rss_mb": max(results[part]["rss_mb_without_package"] for part in ("idle", "demo")),
        "idle_percent_of_core": results["idle"]["cpu_percent_of_core"],
        "records_percent_of_core": results["records"]["cpu_percent_of_core"],
    }
    verdicts = {name: {"value": value, "limit": LIMITS[name], "pass": value < LIMITS[name]}
                for name, value in figures.items()}  # fmt: skip
    sustained = results["records"]["delivered_per_second"]
    verdicts["records_per_second"] = {"value": sustained, "limit": RATE, "pass": sustained >= RATE}
    return verdicts


def table(results: dict[str, Any]) -> str:
    """For people."""
    rows = [
        f"{name:<26} {gate['value']:>9} {'of at least' if name.endswith('_second') else 'of at most'} {gate['limit']}"
        f"  {'pass' if gate['pass'] else 'FAIL'}"
        for name, gate in results["gates"].items()
    ]
    return "\n".join([*rows, f"idle by thread    {results['idle']['thread_cpu_seconds']}",
                      f"records by thread {results['records']['thread_cpu_seconds']}",
                      f"{results['records']['cpu_us_per_record']} us of CPU a record"])  # fmt: skip


def file_system(path: Path) -> str | None:
    """What kind of file system holds ``path``."""
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    main()
