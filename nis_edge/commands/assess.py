"""`nis-edge assess`: recorded agent events judged by exactly the daemon's monitor, on a simulated clock.

Prints what an operator wants to read: what is wrong, who, on which evidence, what to do; then a summary. The output
depends on the recording, the package and the options alone: run twice, it is the same to the byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from msgspec.structs import replace

from nis_edge.cli import EXIT_DONE, EXIT_USAGE
from nis_edge.errors import ConfigError, ModelError, NisEdgeError
from nis_edge.judgement import shipped_options
from nis_edge.monitor.assess import is_alert
from nis_edge.monitor.explain import coordination_lines, finding_lines, metric_text
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.rules import RuleOptions
from nis_edge.recordings import BadLine, read_recording
from nis_edge.replay import Answering, Episode, Replay
from nis_edge.wire.codec import encode, visible
from nis_edge.wire.messages import AgentEvent, Assessment, Finding, Status
from nis_edge.wire.traces import Run, canonical_events

DESCRIPTION = """Judge recorded agent events as the daemon would have judged them live.

FILE holds JSON lines, plain or gzip: agent events in canonical form (with ts), NIS v3 messages, or recorded runs
(events[{agent, kind, text}], one run a line; each is judged afresh, and what needs time is reported as unavailable).
A malformed line is named and counted; the rest goes on."""
EXAMPLE = "nis-edge assess runs.jsonl.gz --json verdicts.jsonl"

BAD_LINES_SHOWN: Final = 20
PROGRESS_EVERY: Final = 100
PROGRESS_EVERY_PLAIN: Final = 1000

METRICS_SHOWN: Final = (
    "success_rate",
    "latency_p50_ms",
    "latency_p95_ms",
    "new_call_share",
    "coherence",
    "overconfidence",
    "pressure",
    "agents_silent",
    "event_rate_per_s",
    "failure_probability",
)


class EpisodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of a recording, for machines: at which event it was raised and cleared (counted from 1)."""

    raised_at: int
    cleared_at: int | None
    finding: Finding


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One recording's verdict, for machines: the worst status it reached, every finding, the last assessment."""

    run: str
    system: str
    events: int
    worst: Status
    findings: tuple[EpisodeRecord, ...]
    last: Assessment | None
    assessments: tuple[Assessment, ...] | None = None


@dataclass
class Tally:
    """What the summary adds up."""

    runs: int = 0
    events: int = 0
    bad_lines: int = 0
    asked: int = 0
    unanswered: int = 0
    worst: Counter[str] = field(default_factory=Counter)
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    recorded: Counter[str] = field(default_factory=Counter)
    recorded_failed: Counter[str] = field(default_factory=Counter)
    unavailable: dict[str, Counter[str]] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON lines, plain or gzip")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write one JSON line for each verdict")
    parser.add_argument("--every", action="store_true", help="with --json: every assessment, not only the last")
    parser.add_argument("--all", action="store_true", help="print runs without findings too")
    parser.add_argument("--limit", type=_count, metavar="N", help="stop after N runs (or N events of a stream)")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, metavar="PKG", help="judge with this package instead of the shipped one")
    model.add_argument("--no-model", action="store_true", help="judge by the rules alone")


def run(args: argparse.Namespace) -> int:
    """Judge the recording; returns the exit code."""
    if args.every and args.json is None:
        raise ConfigError("--every writes to the file of --json, which is missing; nothing was read")
    if args.json is not None and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise ConfigError(f"{args.json}: is a folder, or its folder does not exist; nothing was read")
    with contextlib.ExitStack() as stack:
        model, model_line = _open_model(args, stack)
        lines = read_recording(args.file)
        out = stack.enter_context(_replacing(args.json)) if args.json else None
        print(f"{visible(args.file.name)}: {model_line}")
        tally = _judge(args, lines, model, model_line, out)
    if tally.runs == 0:
        _fail(f"{args.file}: no line of it could be read as an event or a run; nothing was judged")
        return EXIT_USAGE
    _print_summary(tally)
    return EXIT_DONE


def _judge(
    args: argparse.Namespace,
    lines: Iterator[tuple[int, Any]],
    model: Answering | None,
    model_line: str,
    out: IO[bytes] | None,
) -> Tally:
    tally = Tally()
    stream: Replay | None = None
    stream_assessments: list[Assessment] = []
    progress = _Progress()
    as_shipped = shipped_options()
    for number, line in lines:
        if isinstance(line, BadLine):
            tally.bad_lines += 1
            if tally.bad_lines <= BAD_LINES_SHOWN:
                _fail(f"{args.file}:{number}: {visible(line.reason)}; this line was left out")
            elif tally.bad_lines == BAD_LINES_SHOWN + 1:
                _fail(f"{args.file}: more malformed lines follow; they are counted below")
        elif isinstance(line, Run):
            options = replace(as_shipped, rules=RuleOptions(time_known=line.is_timed))
            replay = Replay(options, model, model_line)
            assessments = [spoken for event in canonical_events(line) for spoken in replay.feed(event)]
            _report(args, line.id or f"line {number}", line.system, replay, assessments, tally, out, line.outcome)
            progress.step(tally.runs, "runs")
            if args.limit is not None and tally.runs >= args.limit:
                break
        elif isinstance(line, AgentEvent):
            if stream is None:
                stream = Replay(as_shipped, model, model_line)
            spoken = stream.feed(line)
            if args.every:
                stream_assessments += spoken
            progress.step(stream.events, "events")
            if args.limit is not None and stream.events >= args.limit:
                break
    progress.end()
    if stream is not None:
        _report(args, "stream", "", stream, stream_assessments, tally, out, None, is_stream=True)
    return tally


def _report(
    args: argparse.Namespace,
    name: str,
    system: str,
    replay: Replay,
    assessments: list[Assessment],
    tally: Tally,
    out: IO[bytes] | None,
    outcome: int | None,
    *,
    is_stream: bool = False,
) -> None:
    tally.runs += 1
    tally.events += replay.events
    tally.asked += replay.asked
    tally.unanswered += replay.unanswered
    tally.worst[replay.worst] += 1
    for label in dict.fromkeys(episode.finding.label for episode in replay.episodes):
        sources = {episode.finding.source for episode in replay.episodes if episode.finding.label == label}
        tally.labels[label, "+".join(sorted({part for source in sources for part in source.split("+")}))] += 1
    if outcome is not None:
        group = "with" if any(is_alert(episode.finding) for episode in replay.episodes) else "without"
        tally.recorded[group] += 1
        tally.recorded_failed[group] += outcome == 0
    if replay.last is not None:
        for metric_name in METRICS_SHOWN:
            reason = replay.last.metrics[metric_name].reason
            if reason is not None:
                tally.unavailable.setdefault(metric_name, Counter())[reason] += 1
    if out is not None:
        verdict = Verdict(
            run=name,
            system=system,
            events=replay.events,
            worst=replay.worst,
            findings=tuple(
                EpisodeRecord(raised_at=episode.raised_at, cleared_at=episode.cleared_at, finding=episode.finding)
                for episode in replay.episodes
            ),
            last=replay.last,
            assessments=tuple(assessments) if args.every else None,
        )
        out.write(encode(verdict) + b"\n")
    if replay.episodes or args.all or is_stream:
        _print_verdict(name, system, replay, outcome, is_timed=replay.is_timed, is_stream=is_stream)


def _print_verdict(
    name: str, system: str, replay: Replay, outcome: int | None, *, is_timed: bool, is_stream: bool
) -> None:
    last = replay.last
    facts = [f"{replay.events} events"]
    if system:
        facts.insert(0, visible(system))
    if outcome is not None:
        facts.append("recorded as failed" if outcome == 0 else "recorded as succeeded")
    print(f"\n{replay.worst.upper():9} {visible(name)}  ({', '.join(facts)})")
    for episode in replay.episodes:
        for index, line in enumerate(finding_lines(episode.finding, episode.excerpts)):
            print(f"  {line}{_span(episode, is_timed) if index == 0 else ''}")
    if last is None:
        return
    if last.model is not None and last.model.failure_probability is not None:
        print(f"  model: the run fails with probability {last.model.failure_probability:.0%}")
    if is_stream:
        print(f"  at the end: {last.status}; level {last.level or 'none'} ({last.level_reason})")
        for agent, status in last.agents.items():
            print(f"    {visible(agent):24} {status}")
        for metric_name in METRICS_SHOWN:
            print(f"    {metric_name:24} {metric_text(last.metrics[metric_name])}")
        for line in coordination_lines(last.coordination) if last.coordination is not None else ():
            print(f"    {line}")


def _span(episode: Episode, is_timed: bool) -> str:
    """When a finding held: by the clock where the recording has one, and by the count of events."""
    if not is_timed:
        until = "to the end" if episode.cleared_at is None else f"to event {episode.cleared_at}"
        return f"  from event {episode.raised_at} {until}"
    until = "to the end" if episode.cleared_ts is None else f"to {_utc(episode.cleared_ts)}"
    return f"  from {_utc(episode.finding.since)} {until}"


def _utc(ts: float) -> str:
    try:
        return datetime.fromtimestamp(ts, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{ts:.0f} s"


def _print_summary(tally: Tally) -> None:
    print("\nSummary")
    skipped = f"; {tally.bad_lines} malformed lines left out" if tally.bad_lines else ""
    print(f"  {tally.runs} judged, {tally.events} events{skipped}")
    if tally.asked:
        missing = f"; it gave no answer to {tally.unanswered}" if tally.unanswered else ""
        print(f"  {tally.asked} questions put to the model{missing}")
    for status in ("critical", "degraded", "healthy", "unknown"):
        if tally.worst[status]:
            print(f"  {status:12} {tally.worst[status]:6}  {tally.worst[status] / tally.runs:6.1%}")
    if tally.labels:
        print("  finding                  runs   judged by")
        for (label, source), runs in sorted(tally.labels.items(), key=lambda item: (LABELS.index(item[0][0]), item[0])):
            print(f"    {label:20} {runs:6}   {source.replace('+', ' and ')}")
    if tally.recorded:
        for group in ("with", "without"):
            total, failed = tally.recorded[group], tally.recorded_failed[group]
            if total:
                print(f"  runs {group} alerts recorded as failed: {failed} of {total} ({failed / total:.0%})")
    never = {name: reasons for name, reasons in tally.unavailable.items() if sum(reasons.values()) == tally.runs}
    if never:
        print("  never available:")
        for name, reasons in never.items():
            print(f"    {name:20} {reasons.most_common(1)[0][0]}")


def _open_model(args: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[Answering | None, str]:
    """The second judge, or None with the reason; a package asked for by name must be usable."""
    if args.no_model:
        return None, "judged by the rules alone, as asked (--no-model)"
    path = args.model
    try:
        from nis_edge.judgement import PromptJudge, shipped_package
    except ImportError as error:
        if path is not None:
            raise ModelError(f"{path}: the engine is not built ({error}); run `make setup`") from error
        return None, "judged by the rules alone: the engine is not built"
    if path is None:
        path = shipped_package()
        if path is None:
            return None, "judged by the rules alone: no model ships with this build"
    try:
        model = PromptJudge(path)
    except NisEdgeError as error:
        if args.model is not None:
            raise
        return None, f"judged by the rules alone: the shipped model can't be used ({error})"
    stack.callback(model.close)
    return model, f"judged by the rules and the model {model.judge.model}"


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when it is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Progress:
    """How far the work is, on stderr: one moving line on a terminal, a plain line now and then otherwise."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()

    def step(self, count: int, what: str) -> None:
        if self._is_terminal and count % PROGRESS_EVERY == 0:
            print(f"\r{count} {what} ...", end="", file=sys.stderr, flush=True)
        elif not self._is_terminal and count % PROGRESS_EVERY_PLAIN == 0:
            print(f"{count} {what} judged", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _fail(line: str) -> None:
    print(f"nis-edge: {line}", file=sys.stderr)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
