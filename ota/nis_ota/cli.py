"""The `nis-ota` command: make a signed repository, list models in it, roll them out, publish, watch the fleet.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 waits for signatures of keys that are elsewhere; 130 interrupted. Every
error is one line that names the fix.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from nis_edge import __version__
from nis_edge.errors import NisEdgeError
from nis_ota.commands import fleet, making, publishing, rollouts, shared, signing, targets
from nis_ota.commands.signing import WAITING
from nis_ota.errors import StagedError

EXAMPLES: Final = """\
The first update in five lines:
  nis-ota init-repo fleet
  nis-ota add-target fleet nis-nano.nis --release-counter 1 --offer-to stable
  nis-ota publish fleet --to /srv/www/nis
  nis-ota verify /srv/www/nis --root fleet/metadata/1.root.json
  nis-ota publish-bundle fleet --mqtt broker:1883 --site lab --cohort stable
Give each device fleet/metadata/1.root.json by a way you trust: it is the anchor of all trust.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        return 130
    except StagedError as staged:
        shared.tell(
            args,
            {"staged": str(staged.path), "waits": staged.status},
            f"staged {staged.path}",
            *(f"  {line}" for line in staged.status),
            f"next, at each key holder: nis-ota sign {staged.path.name} --keys FOLDER; then nis-ota merge --into ...",
        )
        return WAITING
    except NisEdgeError as error:
        print(f"nis-ota: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"nis-ota: {where}{error.strerror or error}; nothing more was done", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nis-ota",
        description="Publishes signed model updates: a TUF repository that any web server or bucket can serve.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nis-ota {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in (making, targets, publishing, rollouts, fleet, signing):
        module.register(commands)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
