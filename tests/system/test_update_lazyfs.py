"""A whole update on LazyFS: before the n-th flush, what was not flushed is dropped and the process killed.

LazyFS (a FUSE file system that forgets, github.com/dsrhaslab/lazyfs) is not packaged: build it and name
its binary in NIS_LAZYFS. Where it is missing, tests/simulation/test_update_power_cut.py does the same, more nastily
(torn sectors, lost names), on a simulated disk in the store's place; LazyFS adds the metadata cache and the kernel.
By default a sample of the flushes is tried; NIS_UPDATE_KILL=all tries every one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.test_update_kill import ALL, ROOT, Ground

LAZYFS = os.environ.get("NIS_LAZYFS", "")

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not LAZYFS, reason="NOT RUN: NIS_LAZYFS names no LazyFS binary; the simulated disk stands in"),
]

SAMPLE = 6
CHILD = """
import os, signal, sys
flush, count = os.fsync, 0
def fsync(fd):
    global count
    count += 1
    if count == {cut_at}:
        with open({orders!r}, "w") as orders:
            orders.write("lazyfs::clear-cache\\n")
        with open({done!r}) as done:
            done.readline()
        os.kill(os.getpid(), signal.SIGKILL)
    flush(fd)
os.fsync = fsync
below = os.statvfs({below!r})
os.statvfs = lambda path: below  # LazyFS answers no statvfs
from nis_edge.cli import main
code = main(sys.argv[1:])
print("flushes", count, file=sys.stderr)
sys.exit(code)
"""


@contextmanager
def forgetful(folder: Path, ground: Ground) -> Iterator[Path]:
    """A mounted LazyFS that holds a copy of the ground's device, all of it durable."""
    shutil.rmtree(folder, ignore_errors=True)
    root, mount = folder / "root", folder / "mount"
    for path in (root, mount):
        path.mkdir(parents=True)
    shutil.copytree(ground.folder / "state", root / "state", symlinks=True)
    config = folder / "lazyfs.toml"
    config.write_text(
        f'[faults]\nfifo_path="{folder}/orders"\nfifo_path_completed="{folder}/done"\n'
        '[cache]\napply_eviction=false\n[cache.simple]\ncustom_size="64mb"\nblocks_per_page=1\n'
        f'[filesystem]\nlog_all_operations=false\nlogfile="{folder}/log"\n'
    )
    words = [LAZYFS, str(mount), "--config-path", config.name, "-o", "modules=subdir", "-o", f"subdir={root}", "-f"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, cwd=folder)
    try:
        ends_at = time.monotonic() + 20
        while not (mount / "state").is_dir():
            assert process.poll() is None and time.monotonic() < ends_at, (folder / "output").read_text()
            time.sleep(0.05)
        yield mount
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=False, capture_output=True)
        process.terminate()
        process.wait(20)


def update(folder: Path, mount: Path, ground: Ground, cut_at: int) -> subprocess.CompletedProcess[str]:
    config = folder / "edge.toml"
    root = ground.folder / "repository" / "metadata" / "1.root.json"
    config.write_text(f'[device]\nid = "dev-1"\nstate = "{mount}/state"\n[update]\nroot = "{root}"\n')
    program = CHILD.format(cut_at=cut_at, orders=f"{folder}/orders", done=f"{folder}/done", below=str(folder))
    words = ["update", "import", str(ground.folder / "web"), "--config", str(config)]
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
    )


def test_case_32_on_lazyfs_what_was_not_flushed_is_dropped_at_each_flush_and_the_old_or_the_new_model_starts(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ground = Ground(tmp_path_factory.mktemp("ground"))
    place = tmp_path / "lazyfs"
    with forgetful(place, ground) as mount:
        done = update(place, mount, ground, cut_at=0)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ground.boot(mount) == ground.new
    found = re.search(r"flushes (\d+)", done.stderr)
    assert found is not None, done.stderr[-2000:]
    total = int(found[1])
    assert total > 10
    places = range(1, total + 1) if ALL else sorted({1 + (total - 1) * n // (SAMPLE - 1) for n in range(SAMPLE)})
    started = {ground.old: 0, ground.new: 0}
    for cut_at in places:
        with forgetful(place, ground) as mount:
            done = update(place, mount, ground, cut_at)
            assert done.returncode == -signal.SIGKILL, f"flush {cut_at}: {done.stderr[-500:]}"
            model = ground.boot(mount)
            assert model in started, f"flush {cut_at} of {total}: neither the old nor the new model starts: {model}"
            started[model] += 1
            again = update(place, mount, ground, cut_at=0)
            assert "Traceback" not in again.stderr, again.stderr[-2000:]
            again = update(place, mount, ground, cut_at=0)
            assert ground.boot(mount) == ground.new, f"flush {cut_at}: the update never came to its end: {again.stderr}"
    tried, old, new = sum(started.values()), started[ground.old], started[ground.new]
    print(f"unflushed data dropped at {tried} of {total} flushes: the old model started {old} times, the new one {new}")


def test_this_lazyfs_drops_what_was_not_flushed_and_keeps_what_was(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path / "lazyfs"
    with forgetful(place, Ground(tmp_path_factory.mktemp("ground"))) as mount:
        for name in ("kept", "lost"):
            with (mount / name).open("wb") as file:
                file.write(b"x" * 5000)
                file.flush()
                if name == "kept":
                    os.fsync(file.fileno())
        (place / "orders").write_text("lazyfs::clear-cache\n")
        with (place / "done").open() as done:
            done.readline()
        assert (mount / "kept").read_bytes() == b"x" * 5000
        assert (mount / "lost").read_bytes() != b"x" * 5000
