"""The self-test: a good package passes, and whatever a bad one does, the process that asked lives on with a reason."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nis_edge.engine.reference import reference_head, reference_logits
from nis_edge.pack.layout import Golden
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from nis_edge.selftest import Report, examine
from nis_edge.trial import SubprocessSelfTest
from nis_edge.update.offer import golden_hash
from tests.support.selftest_reference import ReferenceModel
from tests.support.tiny_models import tiny_manifest, tiny_tensors
from tests.support.update_world import REFERENCE_SELF_TEST, float_hash, golden_package


def run(package: Path, golden: str | None = None, command: Any = REFERENCE_SELF_TEST, seconds: float = 60) -> Report:
    fd = os.open(package, os.O_RDONLY)
    try:
        return asyncio.run(SubprocessSelfTest(command, seconds)(fd, golden))
    finally:
        os.close(fd)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_package(tmp_path_factory.mktemp("good") / "good.nis", "1.0.0")


def golden_of(package: Path) -> str:
    with open_package(package) as opened:
        return golden_hash(opened.manifest.golden)


def test_a_good_package_passes_and_its_figures_are_reported(good: Path) -> None:
    report = run(good, golden_of(good))
    assert report.passed, report.reason
    assert (report.model, report.version, report.golden_entries) == ("tiny", "1.0.0", 1)
    assert report.latency_ms_p50 is not None
    assert report.load_ms is not None


def test_a_package_without_golden_entries_fails(tmp_path: Path) -> None:
    manifest = tiny_manifest(tokenizer=False)
    write_package(tmp_path / "p.nis", manifest, tiny_tensors(manifest))
    assert "no golden" in examine(tmp_path / "p.nis", None, ReferenceModel).reason


def test_case_39_a_model_that_computes_something_else_fails(tmp_path: Path) -> None:
    package = golden_package(tmp_path / "p.nis", "1.0.0", wrong_golden=True)
    assert "not the recorded ones" in examine(package, None, ReferenceModel).reason


def test_golden_entries_other_than_the_signed_ones_fail(good: Path) -> None:
    assert "not the signed ones" in examine(good, "0" * 64, ReferenceModel).reason


def test_case_39_a_model_whose_numbers_overflow_fails_even_when_its_publisher_recorded_them(tmp_path: Path) -> None:
    manifest = tiny_manifest(tokenizer=False, context=32)
    tensors = tiny_tensors(manifest)
    tensors["norm"] = np.full_like(tensors["norm"], 3e38)
    write_package(tmp_path / "p.nis", manifest, tensors)
    with open_package(tmp_path / "p.nis") as package, np.errstate(all="ignore"):
        heads = {"consciousness": float_hash(reference_head(package, (1, 2), "consciousness"))}
        logits = reference_logits(package, (1, 2))
    assert not np.isfinite(logits).all()
    golden = (Golden((1, 2), float_hash(logits), heads),)
    write_package(tmp_path / "p.nis", msgspec.structs.replace(manifest, golden=golden), tensors)
    with np.errstate(all="ignore"):
        assert "NaN or infinity" in examine(tmp_path / "p.nis", None, ReferenceModel).reason


def test_a_flipped_bit_in_a_tensor_fails(good: Path, tmp_path: Path) -> None:
    data = bytearray(good.read_bytes())
    data[-5] ^= 1
    (tmp_path / "p.nis").write_bytes(data)
    report = examine(tmp_path / "p.nis", None, ReferenceModel)
    assert not report.passed
    assert report.reason


def test_an_engine_that_cannot_open_it_fails(good: Path) -> None:
    def refuse(_path: Path) -> Any:
        raise MemoryError("no room")

    assert examine(good, None, refuse).reason == "no room"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit(3)", "no report"),
        ("print('lies')", "no report"),
        ("print('{\"passed\": true}')", "no report"),
        ('print(\'{"passed": true, "reason": ""}\'); raise SystemExit(1)', "reported otherwise"),
        ('print(\'{"passed": false, "reason": "x"}\')', "reported otherwise"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "SIGKILL"),
    ],
)
def test_case_39_a_test_that_crashes_or_lies_is_a_failed_test(good: Path, code: str, said: str) -> None:
    report = run(good, command=python(code))
    assert not report.passed
    assert said in report.reason


def test_case_39_a_test_that_hangs_is_ended_and_failed(good: Path) -> None:
    report = run(good, command=python("import time; time.sleep(600)"), seconds=0.3)
    assert (report.passed, report.reason) == (False, "the self-test did not end within 0 s")


def test_the_test_process_can_write_no_large_file_and_leaves_no_core_dump(good: Path, tmp_path: Path) -> None:
    code = f"""
import pathlib, signal, sys
from nis_edge.selftest import limit_this_process
import resource
limit_this_process(1000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    pathlib.Path({str(tmp_path / "written")!r}).write_text("x" * 65537)
    reason = "wrote"
except OSError as error:
    reason = f"{{error.strerror}} {{resource.getrlimit(resource.RLIMIT_CORE)[0]}}"
print('{{"passed": false, "reason": "%s"}}' % reason)
raise SystemExit(1)
"""
    assert run(good, command=python(code)).reason == "File too large 0"


def test_the_program_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "nis_edge.selftest", str(tmp_path / "absent.nis"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert not msgspec.json.decode(done.stdout, type=Report).passed
    assert done.stderr == ""
