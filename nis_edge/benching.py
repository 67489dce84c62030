"""The benchmark: one run that gives latency, throughput, memory, power and energy, and holds them against limits.

Order of a run. Load the package a few times; warm up; rest with the agent up and the model loaded (idle before); the
assessment, back to back; rest again (idle after); the other workloads; what sampling itself costs. Power and the
assessment's latency come from the same seconds. Idle windows make sense only where power is measured, so without a
source they are left out. Any throttling during the run makes latency and power verdicts indeterminate.

Nothing here prints: progress goes to a callable, the result is a ``Report``.
"""

from __future__ import annotations

import statistics
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from nis_edge import __version__, bench_machine
from nis_edge.adapters import sysfs
from nis_edge.bench_figures import Timed, notes_of, power_of, thermal_of, trace_of, workload_of
from nis_edge.bench_models import Model, open_model
from nis_edge.bench_records import Machine, Memory, Power, Report, SamplerCost, Subject, Thermal, Trace, Workload
from nis_edge.bench_workloads import Impossible, Task, tasks
from nis_edge.clock import Clock, SystemClock
from nis_edge.errors import ModelError, SensorUnavailableError
from nis_edge.limits import BENCH_RUNS_MAX
from nis_edge.metering import find_power, find_throttle, sysroot
from nis_edge.pack.reader import open_package
from nis_edge.power.gate import P99_SAMPLES_MIN, Limits, judge_latency, judge_package, judge_power, overall
from nis_edge.power.rails import Discovery, PowerSource
from nis_edge.power.throttle import ThrottleState
from nis_edge.sampling import STATE_PERIOD_S, Sampler

RATE_HZ_MAX: Final = 10.0
"""Power readings per second: window averages need no more, and faster polling slows what is measured."""

COST_TURNS: Final = 8
"""Turns with the sampler on and off, alternating, so that drift of the machine hits both alike."""

STRETCH: Final = 4
"""How many times its planned length the gated workload may take to reach the runs that a percentile needs."""

GATED: Final = "assessment"


@dataclass(frozen=True)
class Plan:
    """How long each part of a run takes, in seconds."""

    mode: str
    warm_s: float
    idle_s: float
    gated_s: float
    other_s: float
    cost_s: float
    loads: int


PLANS: Final = {
    plan.mode: plan
    for plan in (
        Plan("quick", warm_s=1.0, idle_s=8.0, gated_s=14.0, other_s=3.0, cost_s=4.0, loads=5),
        Plan("standard", warm_s=3.0, idle_s=20.0, gated_s=60.0, other_s=10.0, cost_s=8.0, loads=9),
        # Whole-system practice (edge.md 2.4, point 2): at least 600 s of back-to-back work.
        Plan("strict", warm_s=10.0, idle_s=60.0, gated_s=600.0, other_s=60.0, cost_s=20.0, loads=15),
    )
}


@dataclass(frozen=True)
class Request:
    """What to measure.

    Args:
        package: the `.nis` file.
        plan: one of PLANS.
        backend: one of ``bench_models.BACKENDS``.
        threads: worker threads.
        limits: what the gates hold the figures against.
        seed: of the bootstrap.
    """

    package: Path
    plan: Plan
    backend: str = "native"
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    seed: int = 20


@dataclass(frozen=True)
class Surroundings:
    """Everything of the machine that a test replaces."""

    find_power: Callable[[], Discovery] = find_power
    throttle: Callable[[], ThrottleState] = find_throttle
    temperatures: Callable[[], dict[str, float]] = lambda: sysfs.temperatures(sysroot())
    open_model: Callable[[Path, str, int], Model] = open_model
    sampler: type[Sampler] = Sampler
    clock: Clock = field(default_factory=SystemClock)
    rest: Callable[[float], object] = lambda seconds: threading.Event().wait(seconds)


Progress = Callable[[str], None]


def run_bench(request: Request, progress: Progress, surroundings: Surroundings | None = None) -> Report:
    """Measure once.

    Args:
        request: what to measure.
        progress: told of each part before it begins, one line.
        surroundings: the machine; None is this one.

    Raises:
        ModelError: the package can't be used with this backend; the builder of the model acts.
        SensorUnavailableError: the sampler broke down.
    """
    around = surroundings or Surroundings()
    plan, clock = request.plan, around.clock
    started_s, started = clock.monotonic(), datetime.fromtimestamp(clock.wall(), timezone.utc)
    machine = bench_machine.machine()
    progress(f"loading {request.package.name} {plan.loads} times")
    model, memory = _load(request, around)
    found = Discovery()
    try:
        subject = _subject(request, model)
        found = around.find_power()
        source = _first_that_speaks(found.sources, clock, around.rest)
        sampler = around.sampler(source, around.throttle, around.temperatures, clock, _rate_hz(source))
        todo = tasks(model)
        sampler.start()
        try:
            timed, idle = _measure(todo, plan, source is not None, around, progress)
        finally:
            sampler.stop()
        cost = _sampler_cost(todo, plan, source, around, progress)
        peak = bench_machine.peak_rss_bytes()
    finally:
        model.close()
        for one in found.sources:
            one.close()
    if sampler.fault:
        raise SensorUnavailableError(f"{sampler.fault}; no figure of this run is used, run it again")
    thermal = thermal_of(sampler)
    workloads = tuple(workload_of(task, timed.get(task.name)) for task in todo)
    power = power_of(found, source, sampler, timed.get(GATED), idle, request.seed)
    return _judged(
        request,
        machine=machine,
        subject=subject,
        memory=replace(memory, peak_rss_bytes=peak),
        workloads=workloads,
        power=power,
        thermal=thermal,
        trace=trace_of(sampler, _phases(timed, idle), started_s),
        sampler=replace(cost, cpu_percent_of_core=sampler.cpu_percent),
        started=started.isoformat(timespec="seconds"),
        seconds=clock.monotonic() - started_s,
    )


def _load(request: Request, around: Surroundings) -> tuple[Model, Memory]:
    """Open the package ``plan.loads`` times; the last stays open."""
    before = bench_machine.rss_bytes()
    durations_ms: list[float] = []
    model: Model | None = None
    for _ in range(request.plan.loads):
        if model is not None:
            model.close()
        start_s = around.clock.monotonic()
        model = around.open_model(request.package, request.backend, request.threads)
        durations_ms.append(1000 * (around.clock.monotonic() - start_s))
    assert model is not None
    return model, Memory(
        rss_before_load_bytes=before,
        rss_after_load_bytes=bench_machine.rss_bytes(),
        peak_rss_bytes=None,
        load_ms_first=durations_ms[0],
        load_ms_p50=statistics.median(durations_ms),
        loads=len(durations_ms),
    )


def _subject(request: Request, model: Model) -> Subject:
    commit, commit_reason = bench_machine.commit()
    with open_package(request.package, check_content=False) as package:
        sha256, size_bytes = package.sha256(), package.size_bytes
    return Subject(
        version=__version__,
        commit=commit,
        commit_reason=commit_reason,
        backend=request.backend,
        isa=model.isa,
        threads=request.threads,
        package=request.package.name,
        package_sha256=sha256,
        package_bytes=size_bytes,
        model=f"{model.manifest.model.id} {model.manifest.model.version}",
    )


def _first_that_speaks(
    sources: Sequence[PowerSource], clock: Clock, rest: Callable[[float], object]
) -> PowerSource | None:
    """The best source that gives a figure now; a counter needs two looks. The best silent one if none speaks."""
    for source in sources:
        for _ in range(2):
            if source.read(clock.monotonic()).watts is not None:
                return source
            rest(0.1)
    return sources[0] if sources else None


def _rate_hz(source: PowerSource | None) -> float:
    return 1.0 / STATE_PERIOD_S if source is None else min(RATE_HZ_MAX, source.info.rate_hz)


def _measure(
    todo: Sequence[Task | Impossible], plan: Plan, metered: bool, around: Surroundings, progress: Progress
) -> tuple[dict[str, Timed], list[tuple[float, float]]]:
    """Run everything that can run; the idle windows stand right before and after the gated workload."""
    timed: dict[str, Timed] = {}
    idle: list[tuple[float, float]] = []
    for task in todo:
        if isinstance(task, Impossible):
            progress(f"{task.name}: not run ({task.reason})")
            continue
        gated = task.name == GATED
        progress(f"{task.name}: warming up {plan.warm_s:g} s")
        _time(task, plan.warm_s, around.clock)
        if gated and metered:
            idle.append(_rest(plan, around, progress, "before"))
        seconds = plan.gated_s if gated else plan.other_s
        progress(f"{task.name}: measuring {seconds:g} s")
        timed[task.name] = _time(task, seconds, around.clock, least=P99_SAMPLES_MIN if gated else 1)
        if gated and metered:
            idle.append(_rest(plan, around, progress, "after"))
    return timed, idle


def _rest(plan: Plan, around: Surroundings, progress: Progress, when: str) -> tuple[float, float]:
    progress(f"idle {when}: {plan.idle_s:g} s")
    start_s = around.clock.monotonic()
    around.rest(plan.idle_s)
    return start_s, around.clock.monotonic()


def _time(task: Task, seconds: float, clock: Clock, least: int = 1) -> Timed:
    """Run a task back to back for a while; ``least`` times if that takes no more than STRETCH times as long."""
    durations_s = array("d")
    tokens = 0
    start_s = now = clock.monotonic()
    while len(durations_s) < BENCH_RUNS_MAX:
        passed_s = now - start_s
        if durations_s and passed_s >= seconds and (len(durations_s) >= least or passed_s >= STRETCH * seconds):
            break
        task.prepare()
        begun_s = clock.monotonic()
        tokens += task.run()
        now = clock.monotonic()
        durations_s.append(now - begun_s)
    return Timed(start_s, now, tokens, durations_s)


def _phases(timed: dict[str, Timed], idle: Sequence[tuple[float, float]]) -> list[tuple[str, float, float]]:
    """Name, start and end of each part that was measured, in order of time."""
    rests = [(f"idle {when}", *span) for when, span in zip(("before", "after"), idle, strict=False)]
    return sorted([*rests, *((name, one.start_s, one.end_s) for name, one in timed.items())], key=lambda one: one[1])


def _sampler_cost(
    todo: Sequence[Task | Impossible],
    plan: Plan,
    source: PowerSource | None,
    around: Surroundings,
    progress: Progress,
) -> SamplerCost:
    """The gated workload with a sampler running and without, in turns."""
    rate_hz = _rate_hz(source)
    task = next((task for task in todo if isinstance(task, Task)), None)
    if task is None:
        return SamplerCost(
            rate_hz=rate_hz, cpu_percent_of_core=None, latency_ratio=None, n_on=0, n_off=0, reason="no workload ran"
        )
    progress(f"cost of sampling: {plan.cost_s:g} s")
    durations: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(COST_TURNS):
        on = turn % 2 == 0
        sampler = around.sampler(source, around.throttle, around.temperatures, around.clock, rate_hz)
        if on:
            sampler.start()
        try:
            durations[on] += _time(task, plan.cost_s / COST_TURNS, around.clock).durations_s
        finally:
            sampler.stop()
    return SamplerCost(
        rate_hz=rate_hz,
        cpu_percent_of_core=None,
        latency_ratio=statistics.median(durations[True]) / statistics.median(durations[False]),
        n_on=len(durations[True]),
        n_off=len(durations[False]),
        reason=None,
    )


def _judged(
    request: Request,
    *,
    machine: Machine,
    subject: Subject,
    memory: Memory,
    workloads: tuple[Workload, ...],
    power: Power,
    thermal: Thermal,
    trace: Trace,
    sampler: SamplerCost,
    started: str,
    seconds: float,
) -> Report:
    gated = next(workload for workload in workloads if workload.name == GATED)
    gates = (
        judge_latency(
            None if gated.latency is None else gated.latency.p99_ms,
            gated.n,
            request.limits,
            throttled=thermal.throttled,
            missing=gated.reason or "",
        ),
        judge_power(power.load_w, power.info, request.limits, throttled=thermal.throttled, missing=power.reason or ""),
        judge_package(subject.package_bytes, request.limits),
    )
    return Report(
        started=started,
        mode=request.plan.mode,
        seconds=seconds,
        seed=request.seed,
        machine=machine,
        subject=subject,
        limits=request.limits,
        memory=memory,
        workloads=workloads,
        power=power,
        thermal=thermal,
        sampler=sampler,
        gates=gates,
        verdict=overall(gates),
        notes=tuple(notes_of(request.plan.mode, machine, workloads, thermal)),
        trace=trace,
    )


def require_package(path: Path | None) -> Path:
    """The path, if a package file stands there.

    Raises:
        ModelError: none does, or no model was built into this installation; the operator acts.
    """
    if path is None:
        raise ModelError("no model is built into this installation; name a package with --model")
    if not path.is_file():
        raise ModelError(f"{path}: no model package there; name one with --model")
    return path
