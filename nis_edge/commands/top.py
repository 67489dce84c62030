"""`nis-edge top`: the running daemon on a live screen, asked of its local API; needs the tui extra."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any

from nis_edge.commands import asking
from nis_edge.errors import ConfigError, DeviceError

DESCRIPTION = (
    "Show the running daemon live: verdict and why, findings with evidence, agents, latency, power, model, updates.\n"
    "Ctrl-C leaves. Needs the tui extra; without it, nis-edge status shows the same once."
)
EXAMPLE = "nis-edge top --every 2"

EVERY_S_MIN, EVERY_S_MAX = 0.2, 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two looks (default: 1)")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="leave after this time")
    asking.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show until interrupted.

    Raises:
        ConfigError: a flag is wrong, or rich is not installed (the operator acts).
        DeviceError: no daemon answers at the start.
    """
    if not EVERY_S_MIN <= args.every <= EVERY_S_MAX:
        raise ConfigError(f"--every {args.every:g}: {EVERY_S_MIN:g} to {EVERY_S_MAX:g} seconds are allowed")
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ModuleNotFoundError:
        raise ConfigError("top needs rich; pip install 'nis-edge[tui]' brings it, or: nis-edge status") from None
    from nis_edge.screen import picture

    view = _view(args)
    console = Console()
    end_s = None if args.seconds is None else time.monotonic() + args.seconds
    rest = threading.Event()
    trends: dict[str, list[float | None]] = {"latency": [], "watts": []}
    try:
        with Live(console=console, screen=sys.stdout.isatty(), auto_refresh=False) as live:
            lost: str | None = None
            while True:
                _remember(trends, view)
                lines = [*trend_lines(trends), *([f"LOST: {lost}; what stands here is old"] if lost else [])]
                live.update(picture(view, lines) if console.width >= 40 else Text("too narrow"), refresh=True)
                if end_s is not None and time.monotonic() >= end_s:
                    return 0
                rest.wait(args.every)
                try:
                    view, lost = _view(args), None
                except DeviceError as error:
                    lost = str(error)
    except KeyboardInterrupt:
        return 0


def _view(args: argparse.Namespace) -> dict[str, Any]:
    try:
        view: dict[str, Any] = json.loads(asking.ask(args, "/v1/status"))
        view["verdict"], view["latency"], view["power"]
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"{asking.address_of(args)} answers, but not as this version's daemon: {error}") from error
    return view


BARS = "▁▂▃▄▅▆▇█"
TREND_POINTS = 60


def _remember(trends: dict[str, list[float | None]], view: dict[str, Any]) -> None:
    for name, value in (("latency", view["latency"]["assessment"].get("p99_ms")), ("watts", view["power"]["watts"])):
        trends[name] = [*trends[name][-TREND_POINTS + 1 :], value]


def trend_lines(trends: dict[str, list[float | None]]) -> list[str]:
    """Latency and watts since this screen began, each as one line of bars; a gap where a value is unknown."""
    lines = []
    for name, unit in (("latency", "ms p99"), ("watts", "W")):
        values = [value for value in trends[name] if value is not None]
        if len(values) < 2:
            continue
        most = max(values) or 1.0
        bars = "".join(" " if v is None else BARS[min(7, int(8 * v / most))] for v in trends[name])
        lines.append(f"{name:<8} {bars}  0 to {most:.2f} {unit}")
    return lines
