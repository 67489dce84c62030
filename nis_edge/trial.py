"""Runs the self-test of a candidate in a subprocess and takes its word, or its death, for the result."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from nis_edge.booting import descriptor_path
from nis_edge.limits import KIB, UPDATE_SELFTEST_OUTPUT_BYTES_MAX, UPDATE_SELFTEST_SECONDS_MAX
from nis_edge.selftest import Report
from nis_edge.waiting import within

COMMAND: Final = (sys.executable, "-m", "nis_edge.selftest", "--json")
PIPE_BYTES: Final = 64 * KIB
"""What a pipe holds at most by default: pipe(7)."""


def _unknown() -> None:
    return None


@dataclass(frozen=True)
class Gauges:
    """What a device can measure during a trial; each call gives None where it can't."""

    watts: Callable[[], float | None] = _unknown
    temperature_c: Callable[[], float | None] = _unknown
    free_memory_bytes: Callable[[], int | None] = _unknown


class WattsWhile:
    """Mean power over a `with` block, sampled beside it.

    Args:
        watts: the newest reading.
        every_s: seconds between two samples.
    """

    def __init__(self, watts: Callable[[], float | None], every_s: float = 0.25) -> None:
        self._watts = watts
        self._every_s = every_s
        self._samples: list[float] = []
        self._sampling: asyncio.Task[None] | None = None

    @property
    def mean(self) -> float | None:
        """Watts; None when not one reading came."""
        return sum(self._samples) / len(self._samples) if self._samples else None

    async def __aenter__(self) -> None:
        """Begin."""
        self._sampling = asyncio.ensure_future(self._sample())

    async def __aexit__(self, *_error: object) -> None:
        """Take a last sample and end."""
        assert self._sampling is not None
        self._sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sampling
        self._take()

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self._take()

    def _take(self) -> None:
        value = self._watts()
        if value is not None:
            self._samples.append(value)


class SelfTest(Protocol):
    """Tests the package behind a descriptor of this process."""

    async def __call__(self, fd: int, golden_sha256: str | None) -> Report:
        """The report; a test that crashed, hung or said nonsense is a failed one."""
        ...


class SubprocessSelfTest:
    """The self-test as a child process with a time limit.

    Args:
        command: the program; the package's path and `--golden HASH` are appended.
        seconds_max: after that it is killed and counts as failed.
    """

    def __init__(self, command: Sequence[str] = COMMAND, seconds_max: float = UPDATE_SELFTEST_SECONDS_MAX) -> None:
        self._command = tuple(command)
        self._seconds_max = seconds_max

    async def __call__(self, fd: int, golden_sha256: str | None) -> Report:
        """Run it on the package behind `fd`, which the child inherits: nobody can put another file in its place."""
        words = [*self._command, str(descriptor_path(fd))]
        if golden_sha256 is not None:
            words += ["--golden", golden_sha256]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(fd,),
            limit=UPDATE_SELFTEST_OUTPUT_BYTES_MAX,
        )
        try:
            output = await within(_read_bounded(process), self._seconds_max)
        except asyncio.TimeoutError:
            return _failed(f"the self-test did not end within {self._seconds_max:.0f} s")
        finally:
            await end_process(process)
        return _report(process.returncode, output)


async def _read_bounded(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    output = bytearray()
    while chunk := await process.stdout.read(UPDATE_SELFTEST_OUTPUT_BYTES_MAX):
        output += chunk
        if len(output) > UPDATE_SELFTEST_OUTPUT_BYTES_MAX:
            break
    else:
        await process.wait()
    return bytes(output)


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill it if it lives, and drain its output's pipe: asyncio sees a process as ended only when its pipes are."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.stdout is not None
    while await process.stdout.read(PIPE_BYTES):
        continue
    await process.wait()


def _report(returncode: int | None, output: bytes) -> Report:
    if returncode is not None and returncode < 0:
        return _failed(f"the self-test crashed with {_signal_name(-returncode)}")
    try:
        report = msgspec.json.decode(output, type=Report)
    except (msgspec.MsgspecError, RecursionError):
        return _failed(f"the self-test ended with code {returncode} and no report")
    if report.passed != (returncode == 0):
        return _failed(f"the self-test ended with code {returncode}, but reported otherwise")
    return report


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _failed(reason: str) -> Report:
    return Report(passed=False, reason=reason)
