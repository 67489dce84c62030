"""False alarms per device-day: a simulated healthy week, and recorded runs that succeeded, by the daemon's monitor.

    python -m bench.monitor.false_alarms                                   # a week of ten agents, by rules
    python -m bench.monitor.false_alarms --days 0.1 --model PKG            # with the model's answers too
    python -m bench.monitor.false_alarms --runs tau_airline.jsonl.gz       # and recorded runs with outcome 1
    python -m bench.monitor.false_alarms --json bench/results/rules.false-alarms.json

An alarm is a finding that moves the status (severity medium or worse) when it is raised; a hint is one that does not. A
recorded run has no times: its share of a day is counted by events, at the pace of the simulated team, and the events
say how many days that makes. That a run reached its goal doesn't make each alarm in it false: ``true_alarms.json``
names those that were read and hold, such as a team that went on for twenty rounds after its answer stood; they are
counted apart. The limit is fewer than one false alarm per device-day (exit code 1 beyond it). Intervals: exact Poisson,
95 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from bench.monitor.healthy_week import DAY_S, HealthyTeam
from nis_edge.bench_machine import commit
from nis_edge.judgement import PromptJudge, shipped_options
from nis_edge.monitor.assess import is_alert
from nis_edge.monitor.machine import (
    AgentEvents,
    Ask,
    Effect,
    Input,
    JudgeChanged,
    ModelAnswers,
    Raised,
    Readings,
    Tick,
    step,
)
from nis_edge.monitor.rules import RuleOptions
from nis_edge.monitor.state import MonitorState
from nis_edge.recordings import BadLine, read_recording
from nis_edge.replay import Answering, Replay
from nis_edge.wire.messages import AgentEvent, Finding
from nis_edge.wire.traces import Run, canonical_events

LIMIT_PER_DAY: Final = 1.0
TICK_S: Final = 1.0
TRUE_ALARMS: Final = Path(__file__).with_name("true_alarms.json")


@dataclass
class Count:
    """What was watched and what was raised."""

    name: str
    days: float = 0.0
    runs: int = 0
    events: int = 0
    questions: int = 0
    alarms: int = 0
    true_alarms: int = 0
    hints: int = 0
    by_label: Counter[str] = field(default_factory=Counter)
    hints_by_label: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def add(self, finding: Finding, where: str) -> None:
        """Count one finding that was raised, at a time or in a run."""
        if not is_alert(finding):
            self.hints += 1
            self.hints_by_label[finding.label] += 1
            return
        if (where, finding.label) in true_alarms():
            self.true_alarms += 1
            return
        self.alarms += 1
        self.by_label[finding.label] += 1
        if len(self.first) < 10:
            self.first.append(f"{where}: {finding.label} {', '.join(finding.agents)}: {finding.text}")

    @property
    def per_day(self) -> float:
        """False alarms per device-day."""
        return self.alarms / self.days if self.days else math.nan

    @property
    def per_day_high(self) -> float:
        """Upper end of the exact 95 % Poisson interval of ``per_day``."""
        return poisson_interval(self.alarms)[1] / self.days if self.days else math.nan


def simulated(seed: int, days: float, agents: int = 10, model: Answering | None = None) -> Count:
    """Watch a healthy team for so long.

    Args:
        seed: of the team.
        days: simulated days.
        agents: how many.
        model: the second judge, or None.
    """
    team = HealthyTeam(seed, agents=agents, seconds=days * DAY_S)
    counted = Count(f"simulated, {agents} agents, seed {seed}", days=days)
    state, _ = step(MonitorState(), (JudgeChanged(model.judge if model else None, "rules alone"),), team.start)
    next_tick = team.start + TICK_S
    for at, what in team.moments():
        while next_tick < at:
            state = _put(state, Tick(), next_tick, model, counted)
            next_tick += TICK_S
        if isinstance(what[0], AgentEvent):
            counted.events += len(what)
            state = _put(state, AgentEvents(what), at, model, counted)  # type: ignore[arg-type]
        else:
            state = _put(state, Readings(what), at, model, counted)  # type: ignore[arg-type]
    return counted


def recorded(path: Path, events_per_day: float, model: Answering | None = None, most: int | None = None) -> Count:
    """Judge a file's runs that succeeded.

    Args:
        path: recorded runs with outcomes.
        events_per_day: the pace by which events make days.
        model: the second judge, or None.
        most: stop after so many runs.
    """
    counted = Count(f"recorded, {path.name}, runs that succeeded")
    for _, line in read_recording(path):
        if isinstance(line, (BadLine, AgentEvent)) or line.outcome != 1:
            continue
        if most is not None and counted.runs >= most:
            break
        counted.runs += 1
        replay = judged_run(line, model)
        counted.events += replay.events
        counted.questions += replay.asked
        for episode in replay.episodes:
            counted.add(episode.finding, line.id)
    counted.days = counted.events / events_per_day
    return counted


def judged_run(run: Run, model: Answering | None) -> Replay:
    """One recorded run through exactly the daemon's monitor."""
    options = replace(shipped_options(), rules=RuleOptions(time_known=run.is_timed))
    replay = Replay(options, model, "rules alone")
    for event in canonical_events(run):
        replay.feed(event)
    return replay


@cache
def true_alarms() -> frozenset[tuple[str, str]]:
    """Run and finding of the alarms that were read and hold."""
    return frozenset((alarm["run"], alarm["label"]) for alarm in json.loads(TRUE_ALARMS.read_text())["alarms"])


def _put(state: MonitorState, received: Input, now: float, model: Answering | None, counted: Count) -> MonitorState:
    state, effects = step(state, (received,), now, shipped_options())
    waiting: list[Effect] = list(effects)
    while waiting:
        effect = waiting.pop(0)
        if isinstance(effect, Raised):
            counted.add(effect.finding, f"{now:.0f}")
        elif isinstance(effect, Ask) and model is not None:
            counted.questions += 1
            answer = ModelAnswers(effect.id, model.answer_window(effect.window))
            state, more = step(state, (answer,), now, shipped_options())
            waiting += more
    return state


def poisson_interval(count: int) -> tuple[float, float]:
    """Exact 95 % interval (Garwood) of a mean of which so many were counted."""
    high = _mean_where(lambda mean: _at_most(count, mean), 0.025, count)
    return (_mean_where(lambda mean: _at_most(count - 1, mean), 0.975, count) if count else 0.0), high


def _mean_where(tail: Callable[[float], float], share: float, count: int) -> float:
    # Bisection: the tail falls as the mean grows.
    low, high = 1e-9, count + 10.0 + 5.0 * math.sqrt(count + 1.0)
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if tail(middle) > share else (low, middle)
    return high


def _at_most(count: int, mean: float) -> float:
    """P(N <= count) of a Poisson variable."""
    return math.fsum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(count + 1))


def main(argv: list[str] | None = None) -> int:
    """Count, print, and judge against the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m bench.monitor.false_alarms",
    )
    parser.add_argument("--days", type=float, default=7.0, help="simulated days (7)")
    parser.add_argument("--agents", type=int, default=10, help="agents of the simulated team (10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, action="append", default=[], metavar="FILE", help="recorded runs, too")
    parser.add_argument("--model", type=Path, metavar="PKG", help="ask this package as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts")
    args = parser.parse_args(argv)
    model = PromptJudge(args.model) if args.model else None
    counts: list[Count] = []
    try:
        counts.append(_shown(simulated(args.seed, args.days, args.agents, model)))
        pace = counts[0].events / counts[0].days
        counts += [_shown(recorded(path, pace, model)) for path in args.runs]
    finally:
        if model is not None:
            model.close()
    if args.json:
        record = {
            "commit": commit()[0],
            "judge": model.judge.model if model else "rules",
            "package_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest() if args.model else None,
            "seed": args.seed,
            "agents": args.agents,
            "limit_per_day": LIMIT_PER_DAY,
            "events_per_day": round(pace),
            "counts": [plain(count) for count in counts],
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(count.per_day < LIMIT_PER_DAY for count in counts) else 1


def plain(count: Count) -> dict[str, Any]:
    """A count as it stands in the file."""
    return {
        "name": count.name,
        "runs": count.runs or None,
        "days": round(count.days, 4),
        "events": count.events,
        "windows_judged": count.questions,
        "false_alarms": count.alarms,
        "false_alarms_per_day": _rate(count.alarms, count.days),
        "false_alarms_by_label": dict(count.by_label.most_common()),
        "true_alarms": count.true_alarms,
        "hints": count.hints,
        "hints_per_day": _rate(count.hints, count.days),
        "hints_by_label": dict(count.hints_by_label.most_common()),
        "first_false_alarms": count.first,
    }


def _rate(count: int, days: float) -> dict[str, Any]:
    if not days:
        return {"value": None, "ci95": None}  # no run of the file succeeded: nothing was watched
    low, high = poisson_interval(count)
    return {"value": round(count / days, 4), "ci95": [round(low / days, 4), round(high / days, 4)]}


def _shown(count: Count) -> Count:
    runs = f" ({count.runs})" if count.runs else ""
    print(
        f"{count.name}{runs}: {count.alarms} false alarms in {count.days:.2f} device-days, {count.events} events:"
        f" {count.per_day:.2f} a day (95 % at most {count.per_day_high:.2f}); {count.true_alarms} true alarms,"
        f" {count.hints} hints; {count.questions} windows put to the model"
    )
    for line in count.first:
        print(f"  {line}")
    return count


if __name__ == "__main__":
    sys.exit(main())
