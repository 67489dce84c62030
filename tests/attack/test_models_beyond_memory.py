"""A model that the machine can't hold is one clear error, and what runs goes on running."""

import subprocess
import sys

from tests.support.tiny_models import write_tiny_package

CHILD = """
import resource, sys
from pathlib import Path
from nis_edge.engine.model import Model
from nis_edge.errors import DeviceError

small, large = sys.argv[1:]
running = Model.open(small)
before = running.session().forward([1, 2, 3]).tobytes()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (48 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    Model.open(large)
except DeviceError as error:
    print(f"refused: {error}")
assert running.session().forward([1, 2, 3]).tobytes() == before
print("still right")
"""


def test_a_model_that_does_not_fit_is_refused_in_one_line_and_the_rest_stays_right(tmp_path):
    """Cosines and sines of 2**20 positions are 2 x 128 MiB; the process may take 48 more."""
    small = write_tiny_package(tmp_path / "small.nis", tokenizer=False)
    large = write_tiny_package(tmp_path / "large.nis", tokenizer=False, task_heads={}, context=1 << 20, head_dim=64)
    words = [sys.executable, "-c", CHILD, str(small), str(large)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, right = done.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert "not enough memory" in refused
    assert right == "still right"
