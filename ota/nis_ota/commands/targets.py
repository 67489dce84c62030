"""`add-target`, `make-delta`, `add-agent`: what exists, signed offline with everything a device must know of it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nis_ota.commands import shared
from nis_ota.errors import PublisherError

if TYPE_CHECKING:
    from nis_edge.update.facts import SignedFacts

BOUNDS = {
    "latency-ms-max": "median latency of the longest golden entry on the device",
    "tokens-per-s-min": "least speed on the device",
    "rss-bytes-max": "most memory the self-test may take",
    "watts-max": "most mean power while the self-test computes",
    "temperature-c-max": "hottest sensor at the end of the self-test",
}
SHADOW = {
    "agreement-min": "least share of windows in which both models name the same label (0 to 1)",
    "calibration-gap-max": "largest mean difference of their failure probabilities (0 to 1)",
    "latency-ratio-max": "largest ratio of median latencies, new to old",
    "joules-ratio-max": "largest ratio of mean energies, new to old "
    "(no device can tell yet; it is said to be unmeasured)",
}


def register(commands: shared.Commands) -> None:
    """Declare the commands."""
    command = shared.add(
        commands,
        "add-target",
        add_target,
        "list a model package, signed with the offline keys",
        "nis-ota add-target fleet nis-nano.nis --release-counter 4 --hardware aarch64 --watts-max 8 --offer-to stable",
    )
    shared.repository_argument(command)
    command.add_argument("package", type=Path, help="a .nis package")
    command.add_argument("--name", help="name of the model (default: from the package)")
    command.add_argument("--version", help="version (default: from the package)")
    command.add_argument("--release-counter", type=int, required=True, help="rises with every release; never reused")
    command.add_argument("--security-epoch", type=int, default=0, help="raise it to forbid everything older for good")
    command.add_argument("--hardware", nargs="+", default=["any"], help="hardware classes (default: any)")
    command.add_argument("--minimum-agent", default="0", help="oldest nis-edge that can run it")
    command.add_argument("--kernel-abi", type=int, default=0, help="lowest engine interface number (default: any)")
    command.add_argument("--memory-bytes", type=int, default=0, help="memory it needs (default: not stated)")
    command.add_argument(
        "--delta-from", action="append", default=[], metavar="TARGET", help="also make a delta from this listed model"
    )
    command.add_argument("--offer-to", action="append", default=[], metavar="COHORT", help="offer it to all at once")
    trial = command.add_argument_group("trial on the device; what is not given is not bounded")
    for name, text in BOUNDS.items():
        trial.add_argument(f"--{name}", type=number, metavar="X", help=text)
    shadow = command.add_argument_group("shadow: the new model judges beside the old one before it may answer")
    shadow.add_argument("--shadow-windows", type=int, metavar="N", help="windows that both must have judged")
    shadow.add_argument("--shadow-seconds-max", type=float, default=86400.0, metavar="S", help="default: a day")
    shadow.add_argument("--shadow-on-few", choices=("pass", "fail"), default="pass", help="fewer windows by then mean")
    for name, text in SHADOW.items():
        shadow.add_argument(f"--{name}", type=number, metavar="X", help=text)
    shared.keys_argument(command, stage=True)

    command = shared.add(
        commands,
        "make-delta",
        make_delta,
        "let devices that run one listed model fetch another as a difference",
        "nis-ota make-delta fleet models/nis-nano/1.3.0.nis --from models/nis-nano/1.2.0.nis",
    )
    shared.repository_argument(command)
    command.add_argument("target", help="the newer model, as add-target printed it")
    command.add_argument("--from", dest="base", required=True, metavar="TARGET", help="the older one")
    shared.keys_argument(command, stage=True)

    command = shared.add(
        commands,
        "add-agent",
        add_agent,
        "list a release of the runtime itself, signed by the agent role",
        "nis-ota add-agent fleet nis_edge-0.2.0-py3-none-manylinux_2_17_aarch64.whl",
    )
    shared.repository_argument(command)
    command.add_argument("file", type=Path, help="a wheel, or any file an installer takes")
    shared.keys_argument(command, stage=True)


def number(text: str) -> float:
    """A finite number, for argparse."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def add_target(args: argparse.Namespace) -> None:
    """`nis-ota add-target`."""
    from nis_edge.engine import head_screen
    from nis_edge.pack.reader import open_package
    from nis_edge.update.offer import golden_hash
    from nis_edge.update.rollout import ROLLOUT_PARTS
    from nis_ota import rollouts

    if args.stage and args.offer_to:
        raise PublisherError(
            "a model that waits for signatures cannot be offered; leave out --offer-to and offer it then"
        )
    with open_package(args.package, check_content=True) as package:
        manifest = package.manifest
        head_screen.check(package)
    if not manifest.golden:
        raise PublisherError(
            f"{args.package} carries no golden entries, so no device could test it; pack it with nis-edge pack"
        )
    facts = facts_of(args, args.version or manifest.model.version, golden_hash(manifest.golden))
    repository = shared.open_repository(args)
    target = repository.add_model(args.package, args.name or manifest.model.id, facts, args.delta_from)
    signed = repository.facts_of(repository.listed(target))
    at_once = rollouts.Plan(waves=(ROLLOUT_PARTS,))
    offered = {cohort: rollouts.start(repository, cohort, target, at_once).serial for cohort in args.offer_to}
    shared.tell(
        args,
        {"target": target, "sha256": repository.listed(target).hashes["sha256"], "offered": offered,
         "deltas": [{"from": delta.base_sha256, "bytes": delta.length} for delta in signed.deltas]},
        f"listed {target} (release counter {facts.release_counter}, for {', '.join(facts.hardware)})",
        *(f"delta from {delta.base_sha256[:12]}: {delta.length} bytes" for delta in signed.deltas),
        *(f"offered to cohort {cohort} (serial {serial})" for cohort, serial in offered.items()),
        f"next: nis-ota publish {args.folder} --to PLACE",
    )  # fmt: skip


def facts_of(args: argparse.Namespace, version: str, golden: str) -> SignedFacts:
    """The facts that the command's options amount to.

    Raises:
        PublisherError: a device would refuse them.
    """
    import msgspec

    from nis_edge.update.facts import SignedFacts

    bounds: dict[str, Any] = {name.replace("-", "_"): _given(args, name) for name in BOUNDS}
    judged = {name.replace("-", "_"): _given(args, name) for name in SHADOW}
    judged = {name: value for name, value in judged.items() if value is not None}
    if args.shadow_windows is not None:
        bounds["shadow"] = {
            "windows": args.shadow_windows, "seconds_max": args.shadow_seconds_max, "on_few": args.shadow_on_few,
            **judged,
        }  # fmt: skip
    elif judged:
        raise PublisherError(f"--{next(iter(judged)).replace('_', '-')} bounds a shadow; say --shadow-windows N too")
    raw = {
        "version": version,
        "release_counter": args.release_counter,
        "security_epoch": args.security_epoch,
        "hardware": args.hardware,
        "minimum_agent": args.minimum_agent,
        "kernel_abi": args.kernel_abi,
        "memory_bytes": args.memory_bytes,
        "golden_sha256": golden,
        "bounds": bounds,
    }
    try:
        return msgspec.convert(raw, SignedFacts)
    except msgspec.ValidationError as error:
        raise PublisherError(f"these facts cannot be signed: {error}") from error


def _given(args: argparse.Namespace, option: str) -> float | None:
    value: float | None = getattr(args, option.replace("-", "_"))
    return value


def make_delta(args: argparse.Namespace) -> None:
    """`nis-ota make-delta`."""
    repository = shared.open_repository(args)
    length = repository.listed(args.target).length
    delta = repository.add_delta(args.target, args.base)
    shared.tell(
        args,
        {"target": args.target, "base": args.base, "bytes": delta.length, "of": length},
        f"delta of {delta.length} bytes, {100 * delta.length / length:.1f} % of {args.target}",
        f"next: nis-ota publish {args.folder} --to PLACE",
    )


def add_agent(args: argparse.Namespace) -> None:
    """`nis-ota add-agent`."""
    target = shared.open_repository(args).add_agent(args.file, args.file.name)
    shared.tell(args, {"target": target}, f"listed {target}", f"next: nis-ota publish {args.folder} --to PLACE")
