"""A whole update with a real process on a real disk, killed or failed by the kernel at the n-th call of each kind.

strace injects SIGKILL, ENOSPC or EIO. Killing shows that every moment is a safe one for the process; that unsynced data
may be lost besides is the business of tests/simulation/test_update_power_cut.py. By default a sample of the calls is
tried; NIS_UPDATE_KILL=all tries every one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import pytest

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.booting import boot_model
from tests.support.update_world import EdgeDevice, Publisher, file_hash, golden_package
from tests.support.web_folder import web_folder

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
KILLED = ("pwrite64", "write", "fsync", "fallocate", "rename", "mkdir", "openat")
FAILED = ("pwrite64", "fsync", "fallocate", "rename")
"""An interpreter that cannot open or write its own files proves nothing about updates."""
CASES = [
    *((call, "signal=KILL") for call in KILLED),
    *((call, fault) for call in FAILED for fault in ("error=ENOSPC", "error=EIO")),
]
SAMPLE_PER_CALL = 2
ALL = os.environ.get("NIS_UPDATE_KILL") == "all"

strace = shutil.which("strace")


def engine_golden(path: Path, version: str, seed: int) -> Path:
    """A tiny package whose golden entry the real engine recorded."""
    import msgspec

    from nis_edge.engine import golden
    from nis_edge.engine.model import Model
    from nis_edge.pack.reader import open_package
    from nis_edge.pack.writer import write_package
    from tests.support.tiny_models import tiny_tensors

    golden_package(path, version, seed)
    with open_package(path) as package:
        manifest = package.manifest
    with Model.open(path) as model:
        entry = golden.record(model)
    write_package(path, msgspec.structs.replace(manifest, golden=(entry,)), tiny_tensors(manifest, seed))
    return path


class Ground:
    """A device that runs 1.0.0, and a stick with 2.0.0; copied for every try."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        publisher = Publisher(folder / "repository", folder / "web", datetime.now(timezone.utc))
        first = engine_golden(folder / "1.0.0.nis", "1.0.0", 0)
        publisher.repository.offer("stable", publisher.add(first, "1.0.0", 1))
        publisher.publish()
        with web_folder(folder / "web") as web:
            device = EdgeDevice(folder / "state", publisher.root, web.url)
            device.clock._wall = datetime.now(timezone.utc).timestamp()
            assert device.check(), device.error
        second = engine_golden(folder / "2.0.0.nis", "2.0.0", 1)
        publisher.repository.offer("stable", publisher.add(second, "2.0.0", 2))
        publisher.publish()
        self.old, self.new = file_hash(first), file_hash(second)

    def try_update(self, tmp: Path, *tracing: str) -> subprocess.CompletedProcess[str]:
        """Run the update on a fresh copy of the device."""
        shutil.rmtree(tmp / "state", ignore_errors=True)
        shutil.copytree(self.folder / "state", tmp / "state", symlinks=True)
        config = tmp / "edge.toml"
        root = self.folder / "repository" / "metadata" / "1.root.json"
        config.write_text(f'[device]\nid = "dev-1"\nstate = "{tmp}/state"\n[update]\nroot = "{root}"\n')
        words = ["-m", "nis_edge.cli", "update", "import", str(self.folder / "web"), "--config", str(config)]
        return subprocess.run(
            [*tracing, sys.executable, *words],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    def boot(self, tmp: Path) -> str:
        """What the next start of the daemon would run."""
        return boot_model(SlotStore(tmp / "state" / "update"), file_hash, None, lambda *_a, **_f: None).model or "none"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    if strace is None:
        pytest.skip("NOT RUN: strace is not installed (sudo apt-get install -y strace)")
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def counts(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often the busiest thread makes each call in an undisturbed update; strace counts thread by thread."""
    tmp = tmp_path_factory.mktemp("counts")
    done = ground.try_update(tmp, "strace", "-f", "-o", str(tmp / "trace"), "-e", f"trace={','.join(KILLED)}", "-qq")
    assert done.returncode == 0, done.stderr
    assert ground.boot(tmp) == ground.new
    trace = (tmp / "trace").read_text(errors="replace")
    by_thread = Counter(re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE))
    found: Counter[str] = Counter()
    for (_thread, call), count in by_thread.items():
        found[call] = max(found[call], count)
    assert found["fsync"] > 10
    assert found["pwrite64"] > 3
    return found


@pytest.mark.parametrize(("call", "fault"), CASES)
def test_case_31_34_35_a_fault_at_any_call_of_an_update_leaves_a_device_that_starts_the_old_or_the_new_model(
    ground: Ground, counts: Counter[str], tmp_path: Path, call: str, fault: str
) -> None:
    total, hits = counts[call], 0
    assert total > 0, f"an update makes no call of {call}: take it off the list"
    # Most of an interpreter's openat calls are imports: those near the end belong to the update.
    first = max(1, total - 60) if call in ("openat", "write") else 1
    places = list(range(first, total + 1))
    if not ALL:
        places = sorted({places[len(places) * n // SAMPLE_PER_CALL] for n in range(SAMPLE_PER_CALL)} | {places[-1]})
    trace = tmp_path / "trace"
    for place in places:
        inject = f"inject={call}:{fault}:when={place}"
        tracing = ("strace", "-f", "-o", str(trace), "-qq", "-e", f"trace={call}", "-e", inject)
        done = ground.try_update(tmp_path, *tracing)
        where = f"{fault} at {call} number {place} of {total}: {done.stderr[-300:]}"
        assert "Traceback" not in done.stderr, where
        hits += done.returncode == -signal.SIGKILL or "(INJECTED)" in trace.read_text(errors="replace")
        assert ground.boot(tmp_path) in (ground.old, ground.new), where
    print(f"{fault} at {len(places)} of {total} calls of {call}: every start was whole; {hits} runs were hit")
    assert hits > 0, "no fault was injected, so nothing was shown"
