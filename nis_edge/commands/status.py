"""`nis-edge status`: one screen about the running daemon, asked of its local API.

Light by design: the daemon itself puts its state into words, so that this costs little on a machine short of CPU.
"""

from __future__ import annotations

import argparse
import json

from nis_edge.commands import asking
from nis_edge.errors import DeviceError

DESCRIPTION = "Show how the running daemon is: verdict, findings, latency, power, broker, model, updates."
EXAMPLE = "nis-edge status --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    asking.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        DeviceError: no daemon answers.
    """
    shown = asking.ask(args, "/v1/status" if args.json else "/v1/status?format=text")
    if args.json:
        try:
            print(json.dumps(json.loads(shown), indent=1))
        except ValueError as error:
            raise DeviceError(f"{asking.address_of(args)} answers, but not as a daemon: {error}") from error
        return 0
    # Whoever answers on that port: nothing it says may control the terminal.
    print("".join(c if c.isprintable() or c == "\n" else "?" for c in shown.rstrip()))
    return 0
