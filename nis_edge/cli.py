"""The `nis-edge` command: finds the subcommand, parses, runs, and turns errors into one clear line and an exit code.

Start-up is part of the contract: `--help` and `status` cost under 100 ms of CPU time, so this module imports nothing
heavy and a subcommand's module only when it runs.

Exit codes: 0 done; 1 failed; 2 wrong usage, configuration or input; 3 indeterminate; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from nis_edge import __version__
from nis_edge.errors import ConfigError, ModelError, NisEdgeError

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INDETERMINATE: Final = 3
EXIT_INTERRUPTED: Final = 130

# name -> (module that implements it, one line for the overview). The module offers
# DESCRIPTION, EXAMPLE (str), add_arguments(parser) and run(args) -> int.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("nis_edge.commands.run", "the daemon in the foreground; systemd runs the same"),
    "assess": ("nis_edge.commands.assess", "replay recorded agent events through the daemon's monitor"),
    "bench": ("nis_edge.commands.bench", "latency, throughput, memory, power and energy against gates"),
    "pack": ("nis_edge.commands.pack", "turn a checkpoint into a model package"),
    "inspect": ("nis_edge.commands.inspect", "header, tensors and hashes of a model package"),
    "verify": ("nis_edge.commands.verify", "check a model package and run its built-in golden self-test"),
    "logits": ("nis_edge.commands.logits", "float32 logits of given tokens, for comparison with an oracle"),
    "generate": ("nis_edge.commands.generate", "text from a model package"),
    "status": ("nis_edge.commands.status", "one screen about the running daemon"),
    "top": ("nis_edge.commands.top", "the running daemon on a live screen"),
    "events": ("nis_edge.commands.events", "follow the agents' events as they are judged"),
    "doctor": ("nis_edge.commands.doctor", "what is wrong with this machine, and the exact fix"),
    "config": ("nis_edge.commands.config", "check a configuration file"),
    "update": ("nis_edge.commands.update", "device side of model updates"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; None takes the process's.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="nis-edge",
        description="Watches AI agents and their device with a packed ternary model, offline, within a few watts.",
        epilog="Example: nis-edge run --demo   |   nis-edge COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"nis-edge {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        if name != chosen:
            subparsers.add_parser(name, help=summary, add_help=False)
            continue
        module = importlib.import_module(module_name)
        command_parser = subparsers.add_parser(
            name,
            help=summary,
            description=module.DESCRIPTION,
            epilog=f"Example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command_parser)
        command_parser.set_defaults(run=module.run)
    args = parser.parse_args(words)
    if args.command is None:
        parser.print_help()
        return EXIT_USAGE
    return run_to_exit_code(args)


def run_to_exit_code(args: argparse.Namespace) -> int:
    """Call ``args.run(args)`` and map what it raises to the exit codes above, with one line on stderr."""
    try:
        code = args.run(args)
        return EXIT_DONE if code is None else int(code)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_DONE
    except (ConfigError, ModelError) as error:
        print(f"nis-edge: {error}", file=sys.stderr)
        return EXIT_USAGE
    except NisEdgeError as error:
        print(f"nis-edge: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"nis-edge: {where}{error.strerror or error}; nothing was changed", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    raise SystemExit(main())
