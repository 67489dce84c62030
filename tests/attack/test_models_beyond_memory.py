"""A model or a session that the machine can't hold is one clear error, and what runs goes on running."""

import subprocess
import sys

import pytest

from tests.support.tiny_models import write_tiny_package

CHILD = """
import resource, sys
from pathlib import Path
from nis_edge.engine.model import Model
from nis_edge.errors import DeviceError, ModelError, PackFormatError

def leave_room(mib):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

small, large = sys.argv[1:]
running = Model.open(small)
session = running.session()
before = session.forward([1, 2, 3]).tobytes()
leave_room(48)
try:
    model = Model.open(large)
    model.session()
except DeviceError as error:
    print(f"refused: {error}")
again = running.session()
assert again.forward([1, 2, 3]).tobytes() == before
print("still right")
"""


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        # Cosines and sines of 2**20 positions: 2 x 128 MiB.
        ({"context": 1 << 20, "head_dim": 64}, "buffers of a pass"),
        # Keys and values: 24 layers x 2 heads x 16 x 2**14 positions x 4 bytes, twice: 100 MiB.
        ({"context": 1 << 14, "layers": 24}, "a session of 16384 positions"),
    ],
    ids=["model", "session"],
)
def test_what_does_not_fit_is_refused_in_one_line_and_the_rest_stays_right(tmp_path, shape, what):
    small = write_tiny_package(tmp_path / "small.nis", tokenizer=False)
    large = write_tiny_package(tmp_path / "large.nis", tokenizer=False, task_heads={}, **shape)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(small), str(large)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, right = done.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert what in refused
    assert "not enough memory" in refused
    assert right == "still right"
