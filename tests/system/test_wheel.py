"""The wheel and the plain C library in it: one for every Python, for CPUs old and new, for x86-64 and aarch64."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nis_edge.engine.library import ABI

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "embedding" / "greedy.c"
MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of an ELF header (System V ABI supplements)."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
ARM64_CPUS = ("cortex-a72", "cortex-a76", "max")


def run(*command: str | Path, **environment: str) -> str:
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout


def needed(tool: str) -> str:
    found = shutil.which(tool)
    if not found:
        pytest.skip(f"not run: {tool} is missing")
    return found


def build_wheel(folder: Path, *options: str, **environment: str) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, *options, ".", **environment)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "content")
    return wheel


def library_of(wheel: Path) -> Path:
    return wheel.parent / "content" / "nis_edge" / "native" / "libnis_engine.so"


def machine_of(library: Path) -> int:
    return int(struct.unpack_from("<H", library.read_bytes(), 18)[0])


def build_example(folder: Path, compiler: str, library: Path, *flags: str) -> Path:
    program = folder / "greedy"
    header = library.parent
    warnings = ("-Wall", "-Wextra", "-Werror")
    run(compiler, "-std=c11", *warnings, EXAMPLE, "-I", header, "-o", program, library, f"-Wl,-rpath,{header}", *flags)
    return program


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed("gcc")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def words(wheel: Path) -> str:
    """What the example prints here: tokens, and a hash of logits."""
    return run(build_example(wheel.parent, "gcc", library_of(wheel)))


def pythons() -> list[Path]:
    """Interpreters of other versions: in the path, or where pyenv keeps them."""
    found = [Path(p) for version in PYTHONS if (p := shutil.which(f"python{version}"))]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [p for version in PYTHONS for p in sorted(versions.glob(f"{version}.*/bin/python"))]
    works = [p for p in found if subprocess.run([p, "-c", ""], capture_output=True).returncode == 0]
    return [Path(sys.executable), *works]


def test_one_wheel_serves_every_python(wheel: Path) -> None:
    assert re.fullmatch(r"nis_edge-[\w.]+-py3-none-linux_\w+\.whl", wheel.name)
    ask = f"import ctypes, sys; print(ctypes.CDLL({str(library_of(wheel))!r}).nis_abi(), *sys.version_info[:2])"
    answers = {run(python, "-c", ask).strip() for python in pythons()}
    assert {answer.split()[0] for answer in answers} == {str(ABI)}
    print("loaded by Python", ", ".join(sorted(".".join(answer.split()[1:]) for answer in answers)))


def test_the_library_exports_its_header_and_nothing_else(wheel: Path) -> None:
    needed("nm")
    listed = run("nm", "-D", "--defined-only", library_of(wheel)).split()[2::3]
    headers = "".join((library_of(wheel).parent / name).read_text() for name in ("nis_engine.h", "nis_probe.h"))
    declared = set(re.findall(r"NIS_API[^;]*?\b(nis_\w+)\(", headers))
    assert set(listed) == declared
    assert ctypes.CDLL(str(library_of(wheel))).nis_abi() == ABI


def test_a_library_built_by_clang_computes_the_same_bits(tmp_path: Path, words: str) -> None:
    clang = needed("clang")
    built = tmp_path / "libnis_engine.so"
    sources = sorted((ROOT / "nis_edge" / "native").glob("*.c"))
    flags = ("-std=c11", "-O3", "-fPIC", "-pthread", "-ffp-contract=off", "-fno-math-errno", "-Werror", "-shared")
    run(clang, *flags, "-o", built, *sources, "-lm")
    for header in sources[0].parent.glob("*.h"):
        shutil.copy(header, tmp_path)
    assert run(build_example(tmp_path, clang, built)) == words


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an x86-64 without AVX2 is emulated on x86-64 only")
def test_an_x86_64_without_avx2_computes_the_same_bits(wheel: Path, words: str, tmp_path: Path) -> None:
    emulator = (needed("qemu-x86_64"), "-cpu", "Nehalem")
    assert run(*emulator, build_example(tmp_path, "gcc", library_of(wheel))) == words
    package = wheel.parent / "content" / "nis_edge" / "shipped" / "nis-nano.nis"
    command = (sys.executable, "-m", "nis_edge.cli", "logits", "-m", package, "--tokens", "1,2,3", "-o")
    at_home = {"PYTHONPATH": str(wheel.parent / "content"), "PYTHONSAFEPATH": "1"}
    here = run(*command, tmp_path / "here.npy", **at_home)
    there = run(*emulator, *command, tmp_path / "there.npy", **at_home)
    assert "scalar" in there
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes(), (here, there)


@pytest.mark.arm64
def test_a_wheel_for_aarch64_computes_the_same_bits_on_each_arm_level(tmp_path: Path, words: str) -> None:
    compiler, emulator = needed("aarch64-linux-gnu-gcc"), needed("qemu-aarch64")
    options = "--config-settings=--build-option=--plat-name=linux_aarch64"
    wheel = build_wheel(tmp_path, options, CC=compiler)
    assert wheel.name.endswith("-py3-none-linux_aarch64.whl")
    assert machine_of(library_of(wheel)) == MACHINES["aarch64"]
    program = build_example(tmp_path, compiler, library_of(wheel))
    for cpu in ARM64_CPUS:
        assert run(emulator, "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", program) == words


def test_the_words_of_the_documentation_build_the_example(words: str, tmp_path: Path) -> None:
    text = (EXAMPLE.parent / "README.md").read_text()
    (line,) = re.findall(r"^    (cc .*greedy\.c.*)$", text, re.MULTILINE)
    run("sh", "-c", line.replace("-o greedy", f"-o {tmp_path}/greedy"))
    assert run(tmp_path / "greedy") == words
