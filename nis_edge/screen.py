"""The demonstration's screen: one overview, drawn live by rich on a terminal, or told in plain lines elsewhere.

Both show the same: the verdict and why, the agents, the findings with their evidence, latency, watts or why unknown,
the broker, the model, updates. Words of agents are shown so that they can't control the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TextIO, cast

from nis_edge.clock import Clock
from nis_edge.overview_words import (
    broker_words,
    finding_lines,
    header_lines,
    latency_words,
    model_words,
    power_words,
    summary_line,
    update_words,
)
from nis_edge.supervisor import Beat
from nis_edge.wire.codec import visible
from nis_edge.wire.messages import Assessment

REFRESH_S: Final = 0.5
SUMMARY_EVERY_S: Final = 5.0
LOG_LINES_KEPT: Final = 200
LOG_LINES_SHOWN: Final = 5
FINDINGS_SHOWN: Final = 6

View = dict[str, Any]

_COLOURS: Final = {"healthy": "green", "degraded": "yellow", "critical": "red", "unknown": "grey62"}
_SEVERITY_COLOURS: Final = {"low": "grey62", "medium": "yellow", "high": "dark_orange", "critical": "red"}


class RecentLines(io.TextIOBase):
    """A stream that keeps the newest lines: where the log goes while the screen has the terminal."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)

    def write(self, text: str) -> int:
        """Keep what is written, line by line."""
        self.lines.extend(line for line in text.splitlines() if line)
        return len(text)

    def grave(self) -> list[str]:
        """The errors among the lines kept."""
        return [line for line in self.lines if line[9:14] == "error"]


class Screen:
    """What every screen does. ``log_lines`` is where the log must go meanwhile, or None: it may go to stderr."""

    log_lines: RecentLines | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""

    def assessed(self, assessment: Assessment) -> None:
        """Hear of each assessment."""

    async def run(self, view: Callable[[], View], beat: Beat) -> None:
        """Show until cancelled."""
        raise NotImplementedError


def make_screen(clock: Clock, out: TextIO | None = None) -> Screen:
    """A live screen if rich is there and the output is a terminal, else plain lines."""
    stream = out if out is not None else sys.stdout
    if stream.isatty():
        with contextlib.suppress(ImportError):
            return LiveScreen(stream)
    return PlainScreen(stream, clock)


class PlainScreen(Screen):
    """One line for each thing that happens, and a summary now and then."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._changed: deque[tuple[str, ...]] = deque(maxlen=64)

    def assessed(self, assessment: Assessment) -> None:
        """Remember what changed, to say it with its evidence."""
        if assessment.changed:
            self._changed.append(assessment.changed)

    async def run(self, view: Callable[[], View], beat: Beat) -> None:
        """Say what changes until cancelled, then a last summary."""
        self._say(*header_lines(view()))
        next_summary = self._clock.monotonic() + SUMMARY_EVERY_S
        try:
            while True:
                beat()
                await asyncio.sleep(REFRESH_S)
                if self._changed:
                    self._say_changes(view())
                if self._clock.monotonic() >= next_summary:
                    next_summary += SUMMARY_EVERY_S
                    self._say(summary_line(view()))
        finally:
            self._say(summary_line(view()))

    def _say_changes(self, view: View) -> None:
        while self._changed:
            changed = self._changed.popleft()
            self._say(*(f"* {visible(text)}" for text in changed))
            raised = {text.removeprefix("raised: ") for text in changed if text.startswith("raised: ")}
            for finding in (view["verdict"] or {}).get("findings", ()):
                if f"{finding['label']} ({', '.join(finding['agents'])})" in raised:
                    self._say(*(f"    {line}" for line in finding_lines(finding)))

    def _say(self, *lines: str) -> None:
        stamp = time.strftime("%H:%M:%S", time.localtime(self._clock.wall()))
        with contextlib.suppress(BrokenPipeError):  # the reader has left; the daemon goes on
            self._out.write("".join(f"{stamp}  {line}\n" for line in lines))
            self._out.flush()


class LiveScreen(Screen):
    """A screen drawn again and again by rich.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self.log_lines = RecentLines()
        self._console = Console(file=out)
        self._live = Live(console=self._console, screen=False, auto_refresh=False, transient=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture standing and give the terminal back."""
        self._live.stop()

    async def run(self, view: Callable[[], View], beat: Beat) -> None:
        """Draw until cancelled, and once more at the end."""
        try:
            while True:
                beat()
                self._draw(view())
                await asyncio.sleep(REFRESH_S)
        finally:
            self._draw(view())

    def _draw(self, view: View) -> None:
        lines = list(self.log_lines.lines)[-LOG_LINES_SHOWN:] if self.log_lines else []
        self._live.update(picture(view, lines), refresh=True)


def picture(view: View, log_lines: list[str]) -> Any:
    """The whole screen as something rich can draw."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    verdict = view["verdict"] or {"status": "unknown", "level": None, "findings": [], "agents": {}, "action": "none"}
    status = verdict["status"]
    head = Text.assemble(
        (f" {status.upper()} ", f"bold white on {_COLOURS[status] if status != 'unknown' else 'grey37'}"),
        ("  level ", "grey62"), (str(verdict["level"] or "none"), "bold"),
        (f"  {verdict.get('level_reason', 'no verdict yet')}", "grey62"),
    )  # fmt: skip
    agents = Text("agents   ", style="grey62")
    for name, state in verdict["agents"].items():
        agents.append(f"{visible(name)} ", style="bold")
        agents.append(f"{state}   ", style=_COLOURS[state])
    findings = [_finding_text(finding) for finding in verdict["findings"][:FINDINGS_SHOWN]]
    hidden = len(verdict["findings"]) - FINDINGS_SHOWN
    if hidden > 0:
        findings.append(Text(f"and {hidden} more", style="grey62"))
    facts = Table.grid(padding=(0, 2))
    for name, words in (
        (
            "events",
            f"{view['events']['seen']} seen, {view['events']['refused']} refused, {view['events']['lost']} lost",
        ),
        ("latency", latency_words(view)),
        ("power", power_words(view)),
        ("model", model_words(view)),
        ("broker", broker_words(view)),
        ("update", update_words(view)),
        ("API", view["api"] or "off"),
    ):
        facts.add_row(Text(name, style="grey62"), Text(words))
    title = f"nis-edge {view['version']}  {view['site']}/{view['device']}  up {view['uptime_s']:.0f} s"
    return Group(
        Panel(Group(head, agents), title=title, title_align="left"),
        Panel(Group(*findings) if findings else Text("none", style="green"), title="findings", title_align="left"),
        Panel(facts, title="device", title_align="left"),
        *(Text(line, style="grey50", overflow="ellipsis", no_wrap=True) for line in log_lines),
    )


def _finding_text(finding: dict[str, Any]) -> Any:
    from rich.text import Text

    first, *rest = finding_lines(finding)
    label, _, words = first.partition("  ")
    text = Text.assemble((label, f"bold {_SEVERITY_COLOURS[finding['severity']]}"), "  ", words)
    for line in rest:
        text.append(f"\n{line}", style="cyan" if line.startswith("  ->") else "grey62")
    return cast(Any, text)
