"""A whole benchmark with a hollow model: order, verdicts, result file, exit codes, bad flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from nis_edge import cli
from nis_edge.bench_machine import machine
from nis_edge.bench_models import open_model
from nis_edge.bench_records import Report, to_json
from nis_edge.bench_report import table
from nis_edge.benching import PLANS, Plan, Request, Surroundings, run_bench
from nis_edge.clock import SystemClock
from nis_edge.engine.library import offered_isas
from nis_edge.errors import SensorUnavailableError
from nis_edge.metering import find_power, load_boards
from nis_edge.monitor.window import SPECIALS
from nis_edge.power.gate import Limits
from nis_edge.power.rails import Discovery
from nis_edge.power.throttle import ThrottleState
from nis_edge.sampling import Sampler
from tests.support.bench_doubles import GridSampler, HollowModel, SimulatedMeter, about, calm, meter_info, one_source
from tests.support.clock import TickingClock
from tests.support.tiny_models import write_tiny_package

BRIEF = Plan("quick", warm_s=0.0, idle_s=0.2, gated_s=0.4, other_s=0.02, cost_s=0.08, loads=2)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("bench") / "tiny.nis")


def measure(
    package: Path, limits: Limits | None = None, backend: str = "native", **around: Any
) -> tuple[Report, list[str]]:
    said: list[str] = []
    clock = TickingClock()
    surroundings = Surroundings(
        **{
            "clock": clock,
            "rest": clock.advance,
            "find_power": one_source(SimulatedMeter(about(5.0))),
            "throttle": calm,
            "temperatures": lambda: {"cpu": 50.0},
            "open_model": lambda *_: HollowModel(),
            "sampler": GridSampler,
            **around,
        }
    )
    request = Request(package=package, plan=BRIEF, limits=limits or Limits(), backend=backend)
    return run_bench(request, said.append, surroundings), said


@pytest.fixture(scope="module")
def metered(package: Path) -> tuple[Report, list[str]]:
    """A run with a meter at 5 W, and what it said of its progress."""
    return measure(package)


def verdicts(report: Report) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in report.gates}


def test_a_run_with_a_meter_passes_all_gates_and_rests_before_and_after_the_load(metered) -> None:
    report, said = metered
    assert set(verdicts(report).values()) == {"pass"} and report.verdict == "pass"
    order = [line for line in said if "idle" in line or line.startswith("assessment: measuring")]
    assert [line.split(":")[0] for line in order] == ["idle before", "assessment", "idle after"]
    assert report.power.load_w is not None and report.power.load_w.value == pytest.approx(5.0)
    assert [workload.name for workload in report.workloads] == [
        "assessment",
        "incremental assessment",
        "decode",
        "prefill",
    ]
    assert all(workload.latency is not None for workload in report.workloads)
    assert report.memory.peak_rss_bytes is not None and report.memory.loads == 2
    assert report.sampler.latency_ratio is not None and report.sampler.cpu_percent_of_core is not None


def test_a_run_without_a_meter_is_indeterminate_names_every_source_and_does_not_rest(package, tmp_path) -> None:
    boards, _ = load_boards(Path("/nonexistent"))
    report, said = measure(package, find_power=lambda: find_power(tmp_path, boards))
    assert report.verdict == "indeterminate" and verdicts(report)["power upper bound"] == "indeterminate"
    reason = next(gate.reason for gate in report.gates if gate.name == "power upper bound")
    for looked_for in ("no hwmon device", "no energy counter (RAPL)", "no Raspberry Pi firmware"):
        assert looked_for in reason
    assert not any("idle" in line for line in said)


def test_one_failed_gate_fails_the_run(package) -> None:
    report, _ = measure(package, Limits(power_w=4.0))
    assert verdicts(report)["power upper bound"] == "fail" and report.verdict == "fail"


def test_throttling_makes_latency_and_power_indeterminate(package) -> None:
    report, _ = measure(package, throttle=lambda: ThrottleState(known=True, active=("throttled",)))
    assert verdicts(report) == {
        "assessment latency p99": "indeterminate",
        "power upper bound": "indeterminate",
        "package size": "pass",
    }


def test_an_incomplete_scope_cannot_pass(package) -> None:
    meter = SimulatedMeter(about(5.0), meter_info("rails", "C", complete=False))
    report, _ = measure(package, find_power=one_source(meter))
    assert verdicts(report)["power upper bound"] == "indeterminate"


def test_a_package_without_a_tokenizer_is_measured_as_far_as_it_goes(package) -> None:
    report, _ = measure(package, open_model=lambda *_: HollowModel(tokenizer=False))
    gate = report.gates[0]
    assert gate.verdict == "indeterminate" and "no tokenizer" in gate.reason
    assert report.workloads[2].latency is not None


def test_a_sampler_that_breaks_makes_the_run_an_error_not_a_figure(package) -> None:
    def broken() -> ThrottleState:
        raise RuntimeError("the hardware bit back")

    with pytest.raises(SensorUnavailableError, match="the hardware bit back"):
        measure(package, throttle=broken, sampler=Sampler)


def test_the_model_is_closed_whatever_happens(package) -> None:
    opened: list[HollowModel] = []

    def open_model(*_: object) -> HollowModel:
        opened.append(HollowModel())
        return opened[-1]

    def broken() -> Discovery:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        measure(package, open_model=open_model, find_power=broken)
    assert len(opened) == 2 and all(model.closed for model in opened)


def test_the_result_file_is_json_of_the_documented_schema_and_the_table_shows_the_verdicts(metered) -> None:
    report, _ = metered
    text = to_json(report)
    assert msgspec.json.decode(text, type=Report) == report
    plain = msgspec.json.decode(text)
    assert plain["schema"] == "nis.bench/1"
    assert plain["workloads"][0]["latency"].keys() >= {"p50_ms", "p90_ms", "p99_ms"}
    assert plain["memory"].keys() >= {"peak_rss_bytes", "load_ms_p50"}
    shown = table(report)
    for told in ("PASS", "assessment latency p99 < 50 ms", "scope input, grade A", "per assessment", "tokens/s"):
        assert told in shown


def test_quick_and_strict_keep_their_promised_lengths() -> None:
    quick, strict = PLANS["quick"], PLANS["strict"]
    total_s = 4 * quick.warm_s + 2 * quick.idle_s + quick.gated_s + 3 * quick.other_s + quick.cost_s
    assert 30 <= total_s <= 60
    assert strict.gated_s >= 600


def test_an_arm_machine_is_described_from_its_files(tmp_path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:        8256000 kB\n")
    found = machine(tmp_path)
    assert (found.board, found.cpu_model) == ("Raspberry Pi 5 Model B Rev 1.0", "Cortex-A76")
    assert found.memory_bytes == 8256000 * 1024
    assert (found.governor, found.frequency_mhz_max, found.system) == (None, None, None)


def test_an_installation_without_a_model_asks_for_one(monkeypatch, capsys) -> None:
    monkeypatch.setattr("nis_edge.judgement.shipped_package", lambda: None)
    assert cli.main(["bench", "--quick"]) == 2
    assert "name a package with --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "/nonexistent/x.nis"], "no model package there"),
        (["--json", "/nonexistent/folder/b.json"], "no file can be written there"),
        (["--threads", "0"], "1 to 64"),
        (["--config", "/nonexistent/nis.toml"], "can't be read"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(words, told, capsys) -> None:
    assert cli.main(["bench", "--quick", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("indeterminate", 3)])
def test_the_exit_code_tells_the_verdict_and_the_json_goes_where_it_was_asked(
    package, metered, tmp_path, monkeypatch, capsys, verdict, code
) -> None:
    report = msgspec.structs.replace(metered[0], verdict=verdict)
    asked: list[Request] = []

    def instead(request: Request, progress: Any) -> Report:
        asked.append(request)
        return report

    monkeypatch.setattr("nis_edge.benching.run_bench", instead)
    config = tmp_path / "nis.toml"
    config.write_text("[bench]\npower_w_max = 7.5\npackage_gb_max = 2\n")
    target = tmp_path / "b.json"
    words = ["bench", "--quick", "--model", str(package), "--config", str(config), "--json"]
    assert cli.main([*words, str(target)]) == code
    assert msgspec.json.decode(target.read_bytes(), type=Report) == report
    assert f"written: {target}" in capsys.readouterr().out
    assert asked[0].limits == Limits(latency_ms=50.0, power_w=7.5, package_bytes=2_000_000_000)
    assert asked[0].plan.mode == "quick"
    assert cli.main([*words, "-"]) == code
    assert msgspec.json.decode(capsys.readouterr().out, type=Report) == report


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_both_backends_run_all_workloads_of_a_real_package(tmp_path, backend) -> None:
    real = write_tiny_package(tmp_path / "real.nis", specials=SPECIALS, vocab=600, context=256)
    report, _ = measure(real, open_model=open_model, backend=backend, clock=SystemClock())
    assert [workload.reason for workload in report.workloads] == [None] * 4
    assert report.subject.isa == ("numpy" if backend == "reference" else offered_isas()[0])


def test_a_package_that_is_none_is_one_line_and_exit_code_2(tmp_path, capsys) -> None:
    broken = tmp_path / "broken.nis"
    broken.write_bytes(b"\x10" * 100)
    assert cli.main(["bench", "--quick", "--backend", "reference", "--model", str(broken)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert str(broken) in lines[-1] and not any("Traceback" in line for line in lines)
