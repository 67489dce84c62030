"""The C checks of tests/kernels/check_engine.c: here, as aarch64 under qemu-user, and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOT_RUN = 77


def run(*command: str | Path) -> str:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode == NOT_RUN:
        pytest.skip(result.stdout.strip().splitlines()[-1])
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_and_forward_pass_here(tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("not run: gcc is missing")
    run(HERE / "build_check.sh", "gcc", tmp_path / "check_engine")
    output = run(tmp_path / "check_engine")
    hashes = "".join(
        line + "\n" for line in output.splitlines() if line.startswith(("forward ", "rolling ", "choosing ", "screen "))
    )
    assert hashes == (HERE.parent / "golden" / "forward_hashes.txt").read_text()


@pytest.mark.slow
@pytest.mark.arm64
@pytest.mark.timeout(900)
def test_aarch64_computes_the_same_bits() -> None:
    output = run(HERE / "run_arm64.sh", "--two")
    for line in ("absent, and refused when forced: neondot", "kernels neondot:", "kernels neon:", "kernels scalar:"):
        assert line in output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sanitizers_find_nothing() -> None:
    run(HERE / "run_sanitizers.sh")
