"""`nis-edge doctor`: what keeps the daemon from its work on this machine, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

DESCRIPTION = (
    "Check processor, memory, heat, clock, disk, model, secrets, power sensors, broker and updates, as the daemon\n"
    "of this user would meet them; each fault comes with the command that mends it. Changes nothing. Exit code 0:\n"
    "nothing keeps the daemon from its work; 1: something does."
)
EXAMPLE = "sudo -u nis-edge nis-edge doctor --config /etc/nis-edge/nis-edge.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration (default: none)")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Examine and print; 1 when something must be mended.

    Raises:
        ConfigError: the configuration has faults (the operator acts).
    """
    from nis_edge.config import Config, load, state_folder
    from nis_edge.doctor import Patient, examine, report, to_builtins, worst
    from nis_edge.judgement import shipped_package
    from nis_edge.metering import sysroot

    config = Config() if args.config is None else load(args.config)
    patient = Patient(
        config=config,
        config_path=args.config,
        state=state_folder(config.device, os.environ),
        package=config.model.path or shipped_package(),
        root=sysroot(),
    )
    findings = examine(patient)
    print(json.dumps(to_builtins(findings)) if args.json else report(findings))
    return 1 if worst(findings) == "fail" else 0
