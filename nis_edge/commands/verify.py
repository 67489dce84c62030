"""`nis-edge verify`: every byte of a package against its hashes, and the golden self-test on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

DESCRIPTION = "Check every byte of a model package and run its built-in golden self-test on this machine."
EXAMPLE = "nis-edge verify models/nis-nano/nis-nano.nis"

EXIT_SELF_TEST_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("package", metavar="PKG", type=Path, help="the package")
    parser.add_argument("--isa", metavar="NAME", help="run the self-test with this instruction set (default: the best)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the self-test (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Check; 0 when all is well, 1 when the engine computes something else than the package records."""
    import msgspec

    from nis_edge.commands.progress import ByteProgress
    from nis_edge.engine import head_screen
    from nis_edge.pack.reader import open_package

    with open_package(args.package, check_content=False) as package:
        total = sum(array.nbytes for array in package.tensors.values())
        package.check_content(ByteProgress("checking", total))
        head_screen.check(package)
        screen = package.manifest.screen is not msgspec.UNSET
        digest, tensors, goldens = package.sha256(), len(package.tensors), len(package.manifest.golden)
    isa: str | None = None
    faults: list[str] = []
    if goldens:
        from nis_edge.engine import golden
        from nis_edge.engine.model import Model

        model = Model.open(args.package, threads=args.threads, isa=args.isa)
        try:
            isa = str(model.isa)
            faults = golden.differences(model)
        finally:
            model.close()
    if args.json:
        facts = {
            "package": str(args.package),
            "sha256": digest,
            "tensors_checked": tensors,
            "screen_checked": screen,
            "self_tests_run": goldens,
            "isa": isa,
            "faults": faults,
        }
        print(json.dumps(facts))
        return EXIT_SELF_TEST_FAILED if faults else 0
    print(f"{args.package}  sha256 {digest}")
    print(f"{tensors} tensors: hashes, ternary codes and values are right")
    if screen:
        print("the output head's screen, made again from the head, is the package's")
    if not goldens:
        print("self-test: not run, the package brings none")
    elif not faults:
        print(f"self-test: {goldens} of {goldens} passed with {isa}")
    for fault in faults:
        print(f"{fault} ({isa}); do not use this package with this engine: report it to whoever packed the model")
    return EXIT_SELF_TEST_FAILED if faults else 0
