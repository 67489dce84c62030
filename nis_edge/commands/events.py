"""`nis-edge events tail`: the agents' events as the running daemon judges them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from nis_edge.commands import asking

DESCRIPTION = "Follow the agents' events as they are judged, one line each, until interrupted."
EXAMPLE = "nis-edge events tail --agent planner"

TEXT_CHARS_SHOWN = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    tail = actions.add_parser("tail", help="follow the events", description=DESCRIPTION, epilog=f"Example: {EXAMPLE}")
    tail.add_argument("--agent", metavar="NAME", help="only those of this agent")
    tail.add_argument("--count", type=int, metavar="N", help="leave after so many")
    tail.add_argument("--json", action="store_true", help="each event as a line of JSON")
    asking.add_arguments(tail)


def run(args: argparse.Namespace) -> int:
    """Follow; 0 when the count is reached or the user leaves.

    Raises:
        DeviceError: no daemon answers, or it went away.
    """
    shown = 0
    for data in asking.follow(args, "/v1/events?follow=1"):
        try:
            event = json.loads(data)
        except ValueError:
            continue
        if not isinstance(event, dict) or (args.agent is not None and event.get("agent") != args.agent):
            continue
        print(_plain(data) if args.json else line_of(event), flush=True)
        shown += 1
        if args.count is not None and shown >= args.count:
            break
    return 0


def line_of(event: dict[str, Any]) -> str:
    """One event in one line that can't control the terminal."""
    import time

    stamp = time.strftime("%H:%M:%S", time.localtime(float(event.get("ts") or 0.0)))
    outcome = {True: " ok", False: " FAILED"}.get(event.get("ok"), "")  # type: ignore[arg-type]
    tool = f" {event['tool']}" if event.get("tool") else ""
    text = " ".join(str(event.get("text") or "").split())
    cut = text if len(text) <= TEXT_CHARS_SHOWN else text[: TEXT_CHARS_SHOWN - 1] + "…"
    return _plain(f"{stamp}  {event.get('agent')}  {event.get('kind')}{tool}{outcome}  {cut}".rstrip())


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
