"""Damaged packages, GGUF files and folders: every one ends as a whole package or as one clear line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nis_edge.errors import PackFormatError
from nis_edge.pack.gguf_checkpoint import read_gguf_checkpoint
from nis_edge.pack.reader import open_package
from tests.fuzz.mutations import KINDS

ROOT = Path(__file__).parents[2]
CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def drive(cases: int, seed: int, *options: str) -> str:
    words = [sys.executable, "-m", "tests.fuzz.readers", "--cases", str(cases), "--seed", str(seed), *options]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_a_few_hundred_damaged_inputs_are_refused_or_packed_whole():
    found = drive(450, 0)
    assert "450 cases from seed 0: no finding" in found
    for kind in KINDS:
        assert f"{kind} PackFormatError" in found  # the damage is real
    assert " package " in found  # and not all of it fatal


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_found_once_is_one_clear_line_now(path):
    """Each file of the corpus once ended in a traceback, a message of several lines, or never."""
    with pytest.raises(PackFormatError) as caught:
        if path.suffix == ".gguf":
            read_gguf_checkpoint(path)
        else:
            open_package(path, check_content=True)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_damaged_inputs_of_today():
    """20 000 cases with seeds that no other day has: fifty runs see a million. NIS_FUZZ_CASES and NIS_FUZZ_SEED say
    otherwise; the seed stands in the output."""
    cases = int(os.environ.get("NIS_FUZZ_CASES", "20000"))
    seed = int(os.environ.get("NIS_FUZZ_SEED") or time.time() // 86_400 * 1_000_000)
    print(drive(cases, seed))
