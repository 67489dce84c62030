"""Builds the C engine: one plain shared library that ctypes loads, so one wheel per platform serves every Python.

Everything else about the distribution stands in pyproject.toml. The compiler is CC or cc, the flags are exactly those
below: nothing of the Python that builds, and no feature of the CPU that builds, leaks into the library.

    python setup.py build_ext --inplace        # rebuild after a change in nis_edge/native
    CC=aarch64-linux-gnu-gcc python setup.py build_ext --build-lib build/arm64   # cross build
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = Path("nis_edge/native")
LIBRARY = "nis_edge.native.libnis_engine"

# Each instruction set opens its own target pragma, so the flags are the same for every file. Contraction is off and
# link-time optimisation is not used, because the float parts promise the same bits on every CPU.
COMPILE_FLAGS = [
    "-std=c11", "-O3", "-g1", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off",
    "-fno-fast-math", "-fno-lto", "-fstack-protector-strong", "-Wall", "-Wextra",
]  # fmt: skip
LINK_FLAGS = ["-shared", "-pthread", "-Wl,-z,relro,-z,now", "-Wl,--no-undefined", "-lm"]


class BuildEngine(build_ext):
    """Compiles nis_edge/native/*.c into libnis_engine.so."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the library plainly: it belongs to no Python version."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile and link, then replace the library whole: a running process may have the old one mapped."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        extra = shlex.split(os.environ.get("CFLAGS", ""))
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".engine-") as folder:
            built = Path(folder) / target.name
            command = [*compiler, *COMPILE_FLAGS, *extra, "-o", str(built), *ext.sources, *LINK_FLAGS]
            self.announce(shlex.join(command), level=2)
            subprocess.run(command, check=True)
            built.replace(target)

    def copy_extensions_to_source(self) -> None:
        """Serve `--inplace` and editable installs, replacing the library whole for the same reason."""
        for ext in self.extensions:
            filename = self.get_ext_filename(ext.name)
            staged = Path(filename + ".new")
            staged.write_bytes((Path(self.build_lib) / filename).read_bytes())
            staged.chmod(0o755)
            staged.replace(filename)


class PlatformWheel(bdist_wheel):
    """Tags the wheel py3-none-<platform>: the library needs no Python ABI."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag; only the platform part is the build's own."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            LIBRARY,
            sources=sorted(str(path) for path in NATIVE.glob("*.c")),
            depends=sorted(str(path) for path in NATIVE.glob("*.h")),
        )
    ],
    cmdclass={"build_ext": BuildEngine, "bdist_wheel": PlatformWheel},
)
