"""`nis-edge config check FILE`: every fault of a configuration at once."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from nis_edge.cli import EXIT_DONE, EXIT_USAGE
from nis_edge.config import ConfigFileError, load

DESCRIPTION = "Check a configuration file: every fault at once, with its line and the nearest known key."
EXAMPLE = "nis-edge config check /etc/nis-edge/nis-edge.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say everything that is wrong with a file")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="faults as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    faults = []
    try:
        load(args.file)
    except ConfigFileError as error:
        faults = error.faults
        if not args.json:
            print("\n".join(error.lines), file=sys.stderr)
    if args.json:
        print(json.dumps({"file": str(args.file), "faults": [{"line": f.line, "text": f.text} for f in faults]}))
    elif not faults:
        print(f"{args.file}: no fault")
    return EXIT_USAGE if faults else EXIT_DONE
