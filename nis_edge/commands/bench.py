"""`nis-edge bench`: latency, throughput, memory, power and energy of a model package on this machine, against gates."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from nis_edge.cli import EXIT_DONE, EXIT_FAILED, EXIT_INDETERMINATE
from nis_edge.errors import ConfigError

DESCRIPTION = (
    "Measures this machine with a model package and holds the figures against limits: assessment latency p99 < 50 ms,\n"
    "power upper bound < 10 W, package < 5 GB. Exit code 0: all pass; 1: one failed; 3: one could not be judged,\n"
    "for example because no trustworthy power source is here. docs/bench.md explains every figure."
)
EXAMPLE = (
    "nis-edge bench --quick --json result.json --plot result.png\n"
    "  nis-edge bench --compare last-week.json result.json    # exit code 1: something became worse"
)

EXIT_OF_VERDICT: Final = {"pass": EXIT_DONE, "fail": EXIT_FAILED, "indeterminate": EXIT_INDETERMINATE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument(
        "--model", type=Path, metavar="PKG", help="package to measure (default: the configured or shipped)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="about 45 seconds")
    length.add_argument("--strict", action="store_true", help="about 15 minutes, 600 s of assessments")
    parser.add_argument("--threads", type=int, metavar="N", help="worker threads (default: as configured, else 1)")
    parser.add_argument(
        "--backend",
        choices=("native", "onnx", "reference"),
        default="native",
        help="onnx: ONNX Runtime, needs the extra; reference: numpy, slow",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration with [bench] limits and [model]")
    parser.add_argument(
        "--json", metavar="FILE", help="also write the result as JSON; - prints it instead of the table"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="also draw latencies and power over time; needs the plot extra"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("OLD.json", "NEW.json"),
        help="measure nothing: hold one result against another; exit code 3 when they can't be compared",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, judge.

    Raises:
        ConfigError: a flag is wrong (the operator acts).
        ModelError: the package can't be used.
    """
    from nis_edge.bench_records import to_json
    from nis_edge.bench_report import table
    from nis_edge.benching import PLANS, Request, require_package, run_bench
    from nis_edge.config import Config, load
    from nis_edge.judgement import shipped_package
    from nis_edge.power.gate import Limits

    if args.compare:
        return _compare(*args.compare, as_json=args.json == "-")
    config = Config() if args.config is None else load(args.config)
    threads = config.model.threads if args.threads is None else args.threads
    if not 1 <= threads <= 64:
        raise ConfigError(f"--threads {threads}: 1 to 64 are allowed")
    target = _json_target(args.json)
    if args.plot is not None:
        _require_folder("--plot", args.plot)
    package = args.model or config.model.path or shipped_package()
    request = Request(
        package=require_package(package),
        plan=PLANS["quick" if args.quick else "strict" if args.strict else "standard"],
        backend=args.backend,
        threads=threads,
        limits=Limits(
            latency_ms=config.bench.latency_ms_p99_max,
            power_w=config.bench.power_w_max,
            package_bytes=round(config.bench.package_gb_max * 1e9),
        ),
    )
    progress = _Progress()
    try:
        report = run_bench(request, progress)
    finally:
        progress.end()
    if target is not None:
        target.write_bytes(to_json(report))
    if args.json == "-":
        sys.stdout.write(to_json(report).decode())
    else:
        print(table(report))
        if target is not None:
            print(f"\nwritten: {target}")
    if args.plot is not None:
        from nis_edge.bench_plot import plot

        plot(report, args.plot)
    return EXIT_OF_VERDICT[report.verdict]


def _compare(old: Path, new: Path, *, as_json: bool) -> int:
    """Print what changed between two result files."""
    import msgspec

    from nis_edge.bench_compare import compare, comparison_table
    from nis_edge.bench_records import from_json
    from nis_edge.limits import BENCH_RESULT_BYTES_MAX

    reports = []
    for path in (old, new):
        try:
            with path.open("rb") as file:
                text = file.read(BENCH_RESULT_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
        if len(text) > BENCH_RESULT_BYTES_MAX:
            raise ConfigError(f"{path}: larger than {BENCH_RESULT_BYTES_MAX} bytes, no result of nis-edge bench")
        reports.append(from_json(text, str(path)))
    comparison = compare(reports[0], reports[1])
    if as_json:
        print(msgspec.json.encode({**msgspec.to_builtins(comparison), "verdict": comparison.verdict}).decode())
    else:
        print(comparison_table(comparison))
    return EXIT_OF_VERDICT[comparison.verdict]


def _json_target(name: str | None) -> Path | None:
    """Where the JSON goes; checked before minutes are spent.

    Raises:
        ConfigError: it can't be written there.
    """
    if name is None or name == "-":
        return None
    _require_folder("--json", Path(name))
    return Path(name)


def _require_folder(flag: str, target: Path) -> None:
    if target.is_dir() or not target.parent.is_dir():
        raise ConfigError(f"{flag} {target}: no file can be written there; nothing was measured")


class _Progress:
    """One line that is overwritten on a terminal, plain lines elsewhere; on stderr, so that stdout holds the result."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._start_s = time.monotonic()

    def __call__(self, text: str) -> None:
        line = f"[{time.monotonic() - self._start_s:5.1f} s] {text}"
        print(
            f"\r\x1b[K{line}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        """Leave a clean line."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
