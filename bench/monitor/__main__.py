"""How soon an event is judged: a steady stream through the daemon's own path, on one core, in real time.

    python -m bench.monitor --json monitor.json             # nis-nano and the nis-base shape, 50 events a second
    python -m bench.monitor --rate 100 --flood 2000         # and with one agent flooding in the middle third

The path is the daemon's: bytes, inbox, decoding, rules, assessment, JSON; the model answers in its own thread. Events
come on a fixed schedule, whether or not the one before was done (open loop), so a stall is charged to every event that
waited. *assessed*: from arrival to the assessment that holds the event, by rules and the model's newest word.
*model*: from arrival to the model's answer on a window that holds the event. Windows that the model was not asked about
because newer ones came are counted. The gate is p99 of *assessed* below 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.monitor.healthy_week import HealthyTeam
from bench.monitor.random_judge import write_random_judge
from nis_edge.bench_machine import commit, machine, rss_bytes
from nis_edge.clock import SystemClock
from nis_edge.config import MonitorOptions
from nis_edge.engine_room import EngineRoom
from nis_edge.judgement import shipped_package
from nis_edge.judging import Arrival, Judging
from nis_edge.latency import Latencies
from nis_edge.monitor.absorb import CONTROL_KINDS
from nis_edge.monitor.machine import Ask, JudgeChanged, ModelAnswers, Readings
from nis_edge.wire.codec import encode
from nis_edge.wire.messages import AgentEvent, Assessment, Finding

GATE_MS: Final = 50.0
WARM_UP_S: Final = 1.0
FLOODER: Final = "flooder"


class QuietLog:
    """The daemon's log, unheard."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_fields: None


class Daemonlike:
    """The daemon's judging path with its surroundings cut off at the spool."""

    def __init__(self, package: Path | None, threads: int) -> None:
        self.clock = SystemClock()
        self.assessed, self.modelled, self.flooded = Latencies(), Latencies(), Latencies()
        self.encoded_bytes = 0
        self.asked = self.answered = 0
        self._waiting: dict[str, float] = {}
        self._unmodelled: deque[tuple[str, float]] = deque()
        self._windows: dict[int, str] = {}
        self.judging = Judging(
            MonitorOptions(), clock=self.clock, log=QuietLog(), ask=self._ask, emit=self._emit, tell=self._tell
        )
        self._thread = ThreadPoolExecutor(1)
        self.engine = EngineRoom(self._thread, threads=threads, clock=self.clock, log=QuietLog(), tell=self._answer)
        self._package = package

    async def run(self, schedule: list[tuple[float, AgentEvent]], readings: Readings, seconds: float) -> None:
        """Play a schedule (seconds from the start, event) in real time."""
        if self._package is not None:
            await self.engine.load(self._package)
        else:
            self.judging.tell(JudgeChanged(None, "measured without a model"))
        loops = [asyncio.create_task(self.engine.run(_no_beat)), asyncio.create_task(self.judging.run(_no_beat))]
        gc.collect()
        start = self.clock.monotonic()
        told = start
        for due, event in schedule:
            wait = start + due - self.clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if start + due >= told + 2.0:
                told = start + due
                self.judging.tell(readings)
            raw = encode(event)
            at = start + due  # when it was to come: waiting for its turn counts
            if due >= WARM_UP_S:
                self._waiting[event.id] = at
                if event.agent != FLOODER:
                    self._unmodelled.append((event.id, at))
            self.judging.arrive(Arrival(raw, event.agent, at), event.agent)
        await asyncio.sleep(max(0.0, start + seconds - self.clock.monotonic()) + 0.5)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self.engine.close()
        self._thread.shutdown()

    def _emit(self, assessment: Assessment) -> None:
        self.encoded_bytes += len(encode(assessment))
        now = self.clock.monotonic()
        for identity in reversed(self.judging.excerpts):
            at = self._waiting.pop(identity, None)
            if at is None:
                break  # older ones were judged before
            (self.flooded if identity.startswith("f") else self.assessed).add((now - at) * 1e3, now)

    def _ask(self, question: Ask) -> None:
        self.asked += 1
        others = [event.id for event in question.window.events if event.agent != FLOODER]
        if others:
            self._windows[question.id] = others[-1]
        self.engine.ask(question)

    def _answer(self, received: ModelAnswers | JudgeChanged) -> None:
        self.judging.tell(received)
        if not isinstance(received, ModelAnswers) or received.answer is None:
            return
        self.answered += 1
        newest = self._windows.pop(received.id, None)
        now = self.clock.monotonic()
        if newest is not None and any(identity == newest for identity, _ in self._unmodelled):
            while True:
                identity, at = self._unmodelled.popleft()
                self.modelled.add((now - at) * 1e3, now)
                if identity == newest:
                    break

    def _tell(self, _finding: Finding, _change: str) -> None:
        pass


def _no_beat() -> None:
    pass


def schedule_of(rate: float, seconds: float, agents: int, flood: float) -> list[tuple[float, AgentEvent]]:
    """Events of a healthy team at a fixed rate, and of one agent that floods in the middle third."""
    team = HealthyTeam(1, agents=agents, seconds=30 * 86_400.0)
    stream: Iterator[AgentEvent] = (
        one
        for _, what in team.moments()
        for one in what
        if isinstance(one, AgentEvent) and one.kind not in CONTROL_KINDS
    )
    wanted = [(index / rate, next(stream)) for index in range(int(rate * seconds))]
    if flood:
        wanted += [
            (
                seconds / 3 + index / flood,
                AgentEvent(id=f"f{index}", ts=0.0, agent=FLOODER, kind="message", text=f"flood {index} " * 20),
            )
            for index in range(int(flood * seconds / 3))
        ]
    return sorted(wanted, key=lambda entry: entry[0])


def measure(name: str, package: Path | None, args: argparse.Namespace) -> dict[str, Any]:
    """One run; what came out of it."""
    team = HealthyTeam(2)
    readings = Readings(next(what for _, what in team.moments() if not isinstance(what[0], AgentEvent)))  # type: ignore[arg-type]
    schedule = schedule_of(args.rate, args.seconds, args.agents, args.flood)
    path = Daemonlike(package, threads=1)
    asyncio.run(path.run(schedule, readings, args.seconds))
    counts, state = path.judging.counts(), path.judging.state.counts
    p99 = path.assessed.summary()["p99_ms"]
    result = {
        "workload": name,
        "events": counts.events,
        "assessed_ms": path.assessed.summary(),
        "model_ms": path.modelled.summary(),
        "model_call_ms": path.engine.latencies.summary(),
        "flooder_ms": path.flooded.summary() if args.flood else None,
        "questions": path.asked,
        "answers": path.answered,
        "windows_shed": state.overtaken + state.shed,
        "events_lost": counts.lost,
        "rss_bytes": rss_bytes(),
        "gate": "pass" if p99 is not None and p99 < GATE_MS else "fail",
    }
    shown = "assessed p50 {p50_ms} p90 {p90_ms} p99 {p99_ms} max {max_ms} ms".format(**path.assessed.summary())
    modelled = path.modelled.summary()
    print(
        f"{name}: {shown} (n={path.assessed.count}); model p50 {modelled['p50_ms']} p99 {modelled['p99_ms']} ms"
        f" (n={path.modelled.count}); asked {path.asked} of {path.asked + result['windows_shed']} windows;"
        f" {counts.lost} events lost: {result['gate']}"
    )
    return result


@contextlib.contextmanager
def _one_core(wanted: bool) -> Iterator[int | None]:
    """This process on one core, where the system allows that."""
    if not wanted or not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; 1 when the gate of nis-nano fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench.monitor"
    )
    parser.add_argument("--rate", type=float, default=50.0, help="events a second (50)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run (20)")
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--flood", type=float, default=0.0, help="events a second of a flooding agent beside (0)")
    parser.add_argument("--model", type=Path, metavar="PKG", help="instead of the shipped package")
    parser.add_argument("--skip-base", action="store_true", help="leave out the nis-base shape")
    parser.add_argument("--all-cores", action="store_true", help="do not pin the process to one core")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    package = args.model or shipped_package()
    results = []
    with _one_core(not args.all_cores) as core, tempfile.TemporaryDirectory() as folder:
        results.append(measure("rules alone", None, args))
        if package is not None:
            results.append(measure("nis-nano", package, args))
        if package is not None and not args.skip_base:
            base = Path(folder) / "nis-base.nis"
            write_random_judge(base, package)
            results.append(measure("nis-base shape, random weights", base, args))
    if args.json:
        about = {
            "machine": msgspec.to_builtins(machine()),
            "commit": commit()[0],
            "cores": 1 if core is not None else os.cpu_count(),
            "rate_per_s": args.rate,
            "seconds": args.seconds,
            "agents": args.agents,
            "flood_per_s": args.flood,
            "gate_ms": GATE_MS,
        }
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    return 0 if all(result["gate"] == "pass" for result in results[:2]) else 1


if __name__ == "__main__":
    sys.exit(main())
