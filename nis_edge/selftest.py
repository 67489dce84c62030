"""The self-test of a candidate model, as a process of its own: `python -m nis_edge.selftest PKG --json`.

It limits itself before it touches the package, opens the package with every check, runs its golden entries through the
engine, looks for numbers that are none, measures the latency, and prints one report. A crash of the engine is then
just a failed test: the process that started this one goes on. Exit codes: 0 passed, 1 failed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from nis_edge.engine import golden, head_screen
from nis_edge.errors import NisEdgeError
from nis_edge.limits import GIB, UPDATE_SELFTEST_OUTPUT_BYTES_MAX, UPDATE_SELFTEST_SECONDS_MAX
from nis_edge.pack.layout import Golden
from nis_edge.pack.reader import open_package
from nis_edge.update.offer import golden_hash

LATENCY_RUNS: Final = 5
OPEN_FILES_MAX: Final = 256


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the self-test found. `reason` is empty exactly when it passed; a figure it did not get to is None."""

    passed: bool
    reason: str
    model: str | None = None
    version: str | None = None
    golden_entries: int = 0
    latency_ms_p50: float | None = None
    """Median of five runs of the longest golden entry; wall time in this process."""
    latency_tokens: int | None = None
    tokens_per_s: float | None = None
    """Derived: tokens of the longest golden entry over its median latency."""
    load_ms: float | None = None
    peak_rss_bytes: int | None = None


class CandidateError(NisEdgeError):
    """The candidate does not do what its publisher signed."""


def examine(
    path: Path,
    expected_golden: str | None,
    open_model: Callable[[Path], Any],
    monotonic: Callable[[], float] = time.perf_counter,
) -> Report:
    """Run the test in this process.

    Args:
        path: the package.
        expected_golden: signed hash of its golden list, 64 hex digits; None: not signed, so not compared.
        open_model: opens the package with the engine; gives an object with `manifest`, `session()` and `close()`.
        monotonic: seconds.

    Returns:
        The report; never raises for a bad candidate.
    """
    try:
        with open_package(path, check_content=True) as package:
            manifest = package.manifest
            head_screen.check(package)
        if not manifest.golden:
            raise CandidateError("the package carries no golden entries")
        if expected_golden is not None and golden_hash(manifest.golden) != expected_golden:
            raise CandidateError("the package's golden entries are not the signed ones")
        start = monotonic()
        model = open_model(path)
        load_ms = 1000 * (monotonic() - start)
        try:
            for number, entry in enumerate(manifest.golden, start=1):
                _check_numbers(model.session(), entry, number)
            for difference in golden.differences(model):
                raise CandidateError(difference)
            longest = max(manifest.golden, key=lambda entry: len(entry.tokens))
            latencies = [_timed(model, longest.tokens, monotonic) for _ in range(LATENCY_RUNS)]
        finally:
            model.close()
    except (NisEdgeError, OSError, MemoryError, ValueError) as error:
        return Report(passed=False, reason=" ".join(str(error).split())[:300] or type(error).__name__)
    return Report(
        passed=True,
        reason="",
        model=manifest.model.id,
        version=manifest.model.version,
        golden_entries=len(manifest.golden),
        latency_ms_p50=1000 * statistics.median(latencies),
        latency_tokens=len(longest.tokens),
        tokens_per_s=len(longest.tokens) / max(statistics.median(latencies), 1e-9),
        load_ms=load_ms,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _check_numbers(session: Any, entry: Golden, number: int) -> None:
    """NaN and infinity have hashes too; a package that recorded one would reproduce it."""
    if not np.isfinite(session.forward(entry.tokens)).all():
        raise CandidateError(f"self-test {number}: the logits hold NaN or infinity")
    for name in entry.heads_sha256:
        if not np.isfinite(session.head(name)).all():
            raise CandidateError(f"self-test {number}: task head {name} gives NaN or infinity")


def _timed(model: Any, tokens: Sequence[int], monotonic: Callable[[], float]) -> float:
    session = model.session()
    start = monotonic()
    session.forward(tokens)
    return monotonic() - start


def limit_this_process(package_bytes: int, cpu_s: float | None = UPDATE_SELFTEST_SECONDS_MAX) -> None:
    """Bound memory, CPU time (None: not), files and core dumps of this process, and forbid large files."""
    memory = 2 * GIB + 3 * package_bytes
    for kind, bound in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, UPDATE_SELFTEST_OUTPUT_BYTES_MAX),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_CPU, int(cpu_s) if cpu_s is not None else resource.RLIM_INFINITY),
        (resource.RLIMIT_AS, memory),
    ):
        _, hard = resource.getrlimit(kind)
        if bound == resource.RLIM_INFINITY:
            continue
        allowed = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (allowed, allowed))


def main(argv: Sequence[str] | None = None) -> int:
    """Test one package and print the report."""
    parser = argparse.ArgumentParser(
        prog="nis-edge-selftest",
        description="Tests a model package in this process: all checks, golden entries, latency.",
        epilog="Example: python -m nis_edge.selftest model.nis --json",
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--golden", metavar="SHA256", help="signed hash of the golden list")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(argv)
    try:
        limit_this_process(args.package.stat().st_size)
    except (OSError, ValueError) as error:
        report = Report(passed=False, reason=f"{args.package}: {error}")
    else:
        report = examine(args.package, args.golden, _open_with_engine)
    if args.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    elif report.passed:
        print(f"passed: {report.model} {report.version}, {report.golden_entries} golden entries")
    else:
        print(f"failed: {report.reason}", file=sys.stderr)
    return 0 if report.passed else 1


def _open_with_engine(path: Path) -> Any:
    from nis_edge.engine.model import Model

    return Model.open(path, threads=1)


if __name__ == "__main__":
    raise SystemExit(main())
