"""Comparing results: noise is not a regression, a real one is found, unlike runs are refused; the picture is drawn."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from nis_edge import cli
from nis_edge.bench_compare import compare, comparison_table
from nis_edge.bench_figures import Timed, workload_of
from nis_edge.bench_machine import machine
from nis_edge.bench_records import (
    Energy,
    Memory,
    Phase,
    Power,
    Report,
    SamplerCost,
    Subject,
    Thermal,
    Trace,
    TracePoint,
    from_json,
    to_json,
)
from nis_edge.bench_workloads import Task
from nis_edge.errors import ConfigError
from nis_edge.power.energy import Interval
from nis_edge.power.gate import Limits
from tests.support.bench_doubles import meter_info

TASK = Task("assessment", "what", lambda: 1, lambda: None)


def result(scale: float = 1.0, seed: int = 1, noise: float = 0.1, joules: float | None = 0.02) -> Report:
    """A run of 1200 assessments around 10 ms, times ``scale``."""
    rng = np.random.default_rng(seed)
    durations_s = 0.010 * scale * np.exp(rng.normal(0.0, noise, 1200))
    workload = workload_of(TASK, Timed(0.0, float(durations_s.sum()), 1200, durations_s))
    interval = None if joules is None else Interval(joules, 0.98 * joules, 1.02 * joules)
    power = Power(
        info=None if joules is None else meter_info(), samples=10, looked_for=(),
        reason=None if joules else "no source",
        load_w=None if joules is None else Interval(5.0, 4.9, 5.1),
        energy_per_assessment=None if interval is None else Energy(gross_j=interval, net_j=None, net_reason="idle"),
    )  # fmt: skip
    return Report(
        started="2026-01-01T00:00:00+00:00", mode="quick", seconds=30.0, seed=1,
        machine=replace(machine(), cpu_model="A76"),
        subject=Subject(
            version="1", commit="c", commit_reason=None, backend="native", isa="neon", threads=1, package="p.nis",
            package_sha256="0" * 64, package_bytes=1000, model="m 1",
        ),
        limits=Limits(),
        memory=Memory(
            rss_before_load_bytes=1, rss_after_load_bytes=2, peak_rss_bytes=60_000_000, load_ms_first=1.0,
            load_ms_p50=1.0, loads=5,
        ),
        workloads=(workload,), power=power,
        thermal=Thermal(celsius_start={}, celsius_end={}, throttle_known=True, throttled=(), reason=None),
        sampler=SamplerCost(rate_hz=1, cpu_percent_of_core=0.1, latency_ratio=1.0, n_on=1, n_off=1, reason=None),
        gates=(), verdict="pass", notes=(),
        trace=Trace(
            phases=(
                Phase(name="idle before", start_s=0.0, end_s=5.0), Phase(name="assessment", start_s=5.0, end_s=20.0),
            ),
            power=tuple(
                TracePoint(t_s=float(t), mean_w=None if t == 7 else 5.0, low_w=4.9, high_w=5.1) for t in range(20)
            ),
            hottest_celsius=((0.0, 50.0),),
        ),
    )  # fmt: skip


def changes(old: Report, new: Report) -> dict[str, str]:
    return {one.name: one.change for one in compare(old, new).differences}


def test_two_runs_of_the_same_program_are_the_same() -> None:
    verdicts = [compare(result(seed=2 * n), result(seed=2 * n + 1)).verdict for n in range(40)]
    assert verdicts == ["pass"] * 40


def test_an_assessment_that_became_a_fifth_slower_is_worse_and_a_fifth_faster_better() -> None:
    assert changes(result(), result(1.2, seed=2))["assessment p50"] == "worse"
    assert compare(result(), result(1.2, seed=2)).verdict == "fail"
    assert changes(result(), result(0.8, seed=2))["assessment p50"] == "better"


def test_an_unsteady_run_hides_a_change_of_its_own_size() -> None:
    shaky = result(1.1, seed=2)
    spread = shaky.workloads[0].spread
    assert spread is not None
    blocks = tuple(value * (1.5 if index % 2 else 1 / 1.5) for index, value in enumerate(spread.p50_ms))
    shaky = replace(shaky, workloads=(replace(shaky.workloads[0], spread=replace(spread, p50_ms=blocks)),))
    assert changes(result(), shaky)["assessment p50"] == "same"


def test_energy_is_compared_by_its_intervals_and_only_with_the_same_source() -> None:
    assert changes(result(joules=0.02), result(joules=0.03))["energy per assessment"] == "worse"
    assert changes(result(joules=0.02), result(joules=0.0205))["energy per assessment"] == "same"
    assert changes(result(joules=None), result())["energy per assessment"] == "unknown"
    other = result()
    other = replace(other, power=replace(other.power, info=meter_info("rails", "C")))
    assert changes(result(), other)["energy per assessment"] == "unknown"


def test_memory_that_grew_is_worse() -> None:
    grown = result()
    grown = replace(grown, memory=replace(grown.memory, peak_rss_bytes=80_000_000))
    assert changes(result(), grown)["peak memory"] == "worse"


def test_runs_of_other_machines_or_settings_are_not_compared() -> None:
    other = replace(result(), subject=replace(result().subject, threads=4), machine=replace(machine(), cpu_model="A72"))
    comparison = compare(result(), other)
    assert comparison.verdict == "indeterminate" and not comparison.differences
    shown = comparison_table(comparison)
    assert "threads: 1 then, 4 now" in shown and "processor: A76 then, A72 now" in shown


def test_throttling_and_another_model_are_told() -> None:
    hot = replace(result(), thermal=replace(result().thermal, throttled=("throttled (active)",)))
    assert "throttled now: throttled (active)" in comparison_table(compare(result(), hot))


@pytest.mark.parametrize(("scale", "code"), [(1.0, 0), (1.3, 1)])
def test_the_command_prints_the_comparison_and_its_exit_code_tells_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture, scale: float, code: int
) -> None:
    for name, report in (("old", result()), ("new", result(scale, seed=2))):
        (tmp_path / name).write_bytes(to_json(report))
    words = ["bench", "--compare", str(tmp_path / "old"), str(tmp_path / "new")]
    assert cli.main(words) == code
    assert ("WORSE" if code else "nothing became worse").lower() in capsys.readouterr().out.lower()
    assert cli.main([*words, "--json", "-"]) == code
    assert msgspec.json.decode(capsys.readouterr().out)["verdict"] == ("fail" if code else "pass")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"schema": "nis.bench/9"}', b"\xff" * 10])
def test_a_file_that_is_no_result_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, text: bytes) -> None:
    (tmp_path / "x").write_bytes(text)
    assert cli.main(["bench", "--compare", str(tmp_path / "x"), str(tmp_path / "missing")]) == 2
    error = capsys.readouterr().err
    assert "no result of nis-edge bench" in error and error.count("\n") == 1


def test_a_result_of_another_schema_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"schema 'nis\.bench/9'"):
        from_json(to_json(replace(result(), schema="nis.bench/9")), "x")


@pytest.mark.parametrize("report", [result(), replace(result(joules=None), trace=None)], ids=["metered", "no power"])
def test_the_picture_is_a_png(tmp_path: Path, report: Report) -> None:
    pytest.importorskip("matplotlib")
    from nis_edge.bench_plot import plot

    plot(report, tmp_path / "p.png")
    header = (tmp_path / "p.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and struct.unpack(">II", header[16:24]) == (1200, 840)
    with pytest.raises(ConfigError, match="--plot"):
        plot(report, tmp_path / "missing" / "p.png")
