"""`nis-edge run`: the daemon in the foreground; systemd runs the same."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from pathlib import Path
from typing import TextIO, cast

from nis_edge import logs
from nis_edge.adapters import heap
from nis_edge.clock import SystemClock
from nis_edge.config import Config, load
from nis_edge.daemon import Daemon, Start
from nis_edge.errors import ConfigError
from nis_edge.screen import RecentLines, Screen, make_screen
from nis_edge.starting import for_demo
from nis_edge.supervisor import Beat

DESCRIPTION = """Run the daemon in the foreground.

Without --config: the model that ships, no broker (records are kept locally), the local API on loopback, state under
$XDG_STATE_HOME/nis-edge. --demo adds a replayed team of agents with injected faults and a live screen; it uses a broker
that answers on localhost, and names it. SIGTERM and Ctrl-C stop cleanly; SIGHUP reads the configuration again."""
EXAMPLE = "nis-edge run --demo --for 30"

SECONDS_MAX = 10 * 365 * 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration (nis-edge config check FILE)")
    parser.add_argument("--demo", action="store_true", help="replay a team of agents with injected faults, live")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end cleanly after this time")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.seconds is not None and not 0.0 < args.seconds <= SECONDS_MAX:
        raise ConfigError(f"--for {args.seconds:g}: give a positive number of seconds")
    heap.keep_small()
    config = load(args.config) if args.config is not None else Config()
    clock = SystemClock()
    screen: Screen | None = None
    if args.demo:
        config = for_demo(config, os.environ)
        screen = make_screen(clock)
    lines = screen.log_lines if screen is not None else None
    log = logs.configure(config.log.level, cast(TextIO, lines), plain=True if lines is not None else None)
    if args.config is not None:
        log.info("config.loaded", path=str(args.config))
    start = Start(config, args.config, args.demo, args.seconds)
    daemon = Daemon(
        start,
        clock=clock,
        log=log,
        environ=os.environ,
        uniform=random.uniform,
        shown=screen.assessed if screen is not None else None,
    )
    if screen is None:
        return asyncio.run(daemon.run())
    shown_screen = screen

    async def draw(beat: Beat) -> None:
        await shown_screen.run(daemon.view, beat)

    daemon.supervisor.add("screen", draw, unharmed="the daemon itself", stall_s=60.0)
    with screen:
        code = asyncio.run(daemon.run())
    for line in _last_words(lines):
        print(line, file=sys.stderr)
    return code


def _last_words(lines: RecentLines | None) -> list[str]:
    """What the log said while the screen had the terminal, as far as it is grave."""
    return [] if lines is None else lines.grave()
