"""Verdicts: only a complete, measured, undisturbed figure can pass."""

from __future__ import annotations

import msgspec
import pytest

from nis_edge.power.energy import Interval
from nis_edge.power.gate import Limits, judge_latency, judge_package, judge_power, overall
from nis_edge.power.rails import SourceInfo

LIMITS = Limits()
METER = SourceInfo(
    source="in", board="b", kind="hwmon", scope="input", grade="A", complete=True, counted=("IN",), covers="all",
    misses="", rate_hz=10.0,
)  # fmt: skip
RAILS = msgspec.structs.replace(METER, scope="rails", grade="C", complete=False, lower_bound=True, misses="USB")
MODEL = msgspec.structs.replace(METER, scope="model", grade="D", complete=False)


@pytest.mark.parametrize(
    ("interval", "info", "throttled", "verdict", "told"),
    [
        (Interval(8.0, 7.0, 9.99), METER, (), "pass", "8.00 W [7.00, 9.99], scope input, grade A"),
        (Interval(9.9, 9.7, 10.1), METER, (), "fail", "the upper end is not below 10 W"),
        (Interval(12.0, 11.0, 13.0), METER, (), "fail", "is not below 10 W"),
        (Interval(8.0, 7.0, 9.0), METER, ("throttled (active)",), "indeterminate", "throttled"),
        (Interval(3.0, 2.0, 4.0), RAILS, (), "indeterminate", "leaves out USB"),
        (Interval(9.9, 9.7, 10.1), RAILS, (), "indeterminate", "leaves out USB"),
        (Interval(10.8, 10.2, 11.4), RAILS, (), "fail", "even without USB"),
        (Interval(10.8, 10.2, 11.4), msgspec.structs.replace(RAILS, lower_bound=False), (), "indeterminate", "USB"),
        (Interval(3.0, 2.0, 4.0), MODEL, (), "indeterminate", "a model decides nothing"),
        (Interval(30.0, 20.0, 40.0), MODEL, (), "indeterminate", "a model decides nothing"),
        (None, None, (), "indeterminate", "no sensor"),
        (None, METER, (), "indeterminate", "no sensor"),
    ],
)
def test_power_is_judged_by_interval_scope_and_grade(interval, info, throttled, verdict, told) -> None:
    gate = judge_power(interval, info, LIMITS, throttled=throttled, missing="no sensor")
    assert gate.verdict == verdict and told in gate.reason
    assert gate.value == (None if interval is None else interval.high)


@pytest.mark.parametrize(
    ("p99_ms", "samples", "throttled", "verdict"),
    [
        (49.9, 1000, (), "pass"),
        (50.0, 1000, (), "fail"),
        (49.9, 99, (), "indeterminate"),
        (49.9, 1000, ("x",), "indeterminate"),
        (None, 0, (), "indeterminate"),
    ],
)
def test_latency_is_judged_by_its_99th_percentile(p99_ms, samples, throttled, verdict) -> None:
    assert judge_latency(p99_ms, samples, LIMITS, throttled=throttled).verdict == verdict


@pytest.mark.parametrize(
    ("size", "verdict"), [(4_999_999_999, "pass"), (5_000_000_000, "fail"), (None, "indeterminate")]
)
def test_a_package_is_judged_by_its_bytes(size, verdict) -> None:
    assert judge_package(size, LIMITS).verdict == verdict


def test_overall_a_fail_outweighs_and_nothing_passes_without_gates() -> None:
    passed = judge_package(1, LIMITS)
    failed = judge_package(10**10, LIMITS)
    unknown = judge_package(None, LIMITS)
    assert overall([passed, passed]) == "pass"
    assert overall([passed, unknown]) == "indeterminate"
    assert overall([passed, unknown, failed]) == "fail"
    assert overall([]) == "indeterminate"
