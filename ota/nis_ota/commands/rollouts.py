"""`rollout`: who is offered what, in waves that devices' own reports widen or halt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nis_ota.commands import shared
from nis_ota.errors import PublisherError

if TYPE_CHECKING:
    from nis_edge.update.rollout import Rollout

HALTED = 1
"""Exit code of `rollout advance --if-healthy` that halted: somebody must look."""


def register(commands: shared.Commands) -> None:
    """Declare the commands."""
    group = shared.group(commands, "rollout", "offer a model to a cohort in waves, watch it, stop it")
    command = shared.add(
        group, "start", start, "offer a listed model to the first wave of a cohort, or to one device",
        "nis-ota rollout start fleet models/nis-nano/1.3.0.nis --cohort stable --waves 1%,10%,100%",
    )  # fmt: skip
    shared.repository_argument(command)
    command.add_argument("target", help="name as add-target printed it")
    _cohort(command)
    command.add_argument(
        "--waves", type=waves, default=None, metavar="A,B,...",
        help="shares of the cohort, in per cent with a sign or in ten-thousandths (default 1%%,10%%,50%%,100%%)",
    )  # fmt: skip
    command.add_argument("--halt-percent", type=float, metavar="X", help="halt at this share of failures (default 5)")
    command.add_argument("--halt-after", type=int, metavar="N", help="... once so many devices tried it (default 5)")
    command.add_argument(
        "--advance-percent", type=float, metavar="Y", help="next wave at this share of success (default 90)"
    )
    command.add_argument("--advance-after", type=int, metavar="N", help="... and so many successes (default 1)")
    command.add_argument("--not-before", metavar="TIME", help="no device starts earlier, e.g. 2027-01-31T02:00:00Z")
    command.add_argument(
        "--spread", type=int, default=0, metavar="S", help="spread the starts of a wave over S seconds"
    )
    command.add_argument(
        "--window", type=window, metavar="HH:MM+MIN", help="try the model only then, daily, UTC; e.g. 02:00+120"
    )
    shared.keys_argument(command)

    command = shared.add(
        group, "advance", advance, "open the next wave; with --if-healthy only if the devices' reports allow it",
        "nis-ota rollout advance fleet --cohort stable --if-healthy --mqtt broker:1883 --site lab",
    )  # fmt: skip
    shared.repository_argument(command)
    _cohort(command)
    command.add_argument("--if-healthy", action="store_true", help="look at the reports; halt when too many failed")
    command.add_argument("--reports", action="append", default=[], metavar="FILE", help="signed reports, one a line")
    command.add_argument("--listen", type=float, default=5.0, metavar="S", help="seconds to listen on the broker")
    shared.broker_arguments(command, required=False)
    shared.keys_argument(command)
    for name, summary in (
        ("pause", "let no further device start; those on their way stop before the trial"),
        ("resume", "open a paused rollout again"),
        ("abort", "stop it for good: every device drops what it has not committed"),
        ("withdraw", "take back the rollout of one device: it follows its cohort again"),
    ):
        command = shared.add(
            group, name, _changer(name), summary,
            f"nis-ota rollout {name} fleet {'--device gw-7' if name == 'withdraw' else '--cohort stable'}",
        )  # fmt: skip
        shared.repository_argument(command)
        _cohort(command)
        shared.keys_argument(command)
    command = shared.add(group, "status", status, "how every rollout goes", "nis-ota rollout status fleet")
    shared.repository_argument(command)
    _cohort(command, default=None)


def _cohort(command: argparse.ArgumentParser, default: str | None = "stable") -> None:
    command.add_argument("--cohort", default=default, help=f"default: {default or 'all'}")
    command.add_argument("--device", help="one device of it, with a rollout of its own")


def waves(text: str) -> tuple[int, ...]:
    """`1%,10%,10000` -> ten-thousandths, for argparse."""
    from nis_edge.update.rollout import ROLLOUT_PARTS

    found = []
    for part in text.split(","):
        try:
            share = round(100 * float(part[:-1])) if part.endswith("%") else int(part)
        except (ValueError, OverflowError):
            share = 0
        if not 1 <= share <= ROLLOUT_PARTS:
            raise argparse.ArgumentTypeError(f"{part!r} is no share of a cohort; write 10% or 1000 (ten-thousandths)")
        found.append(share)
    return tuple(found)


def window(text: str) -> dict[str, int]:
    """`02:00+120` for argparse."""
    import re

    from nis_edge.update.rollout import DAY_MINUTES

    match = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])\+([0-9]{1,4})", text)
    if match is None or not 1 <= int(match[3]) <= DAY_MINUTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not HH:MM+MINUTES in UTC, e.g. 02:00+120")
    return {"start_minute": 60 * int(match[1]) + int(match[2]), "minutes": int(match[3])}


def start(args: argparse.Namespace) -> None:
    """`nis-ota rollout start`."""
    import msgspec

    from nis_edge.update.rollout import ROLLOUT_PARTS, Window
    from nis_ota import rollouts

    fields = ("waves", "halt_percent", "halt_after", "advance_percent", "advance_after")
    given = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
    if args.device and not args.waves:
        given["waves"] = (ROLLOUT_PARTS,)
    try:
        plan = msgspec.convert(given, rollouts.Plan)
    except msgspec.ValidationError as error:
        raise PublisherError(f"this rollout cannot be planned: {error}") from error
    more: dict[str, Any] = {"spread_s": args.spread}
    if args.window:
        more["window"] = Window(**args.window)
    if args.not_before:
        more["not_before"] = _moment(args.not_before)
    rollout = rollouts.start(shared.open_repository(args), args.cohort, args.target, plan, device=args.device, **more)
    _tell_next(args, rollout, f"{_name(args)} is offered {rollout.target} (serial {rollout.serial})")


def advance(args: argparse.Namespace) -> int:
    """`nis-ota rollout advance`."""
    from nis_ota import rollouts

    repository, name = shared.open_repository(args), _name(args)
    if not args.if_healthy:
        rollout = rollouts.advance(repository, name)
        _tell_next(args, rollout, f"{name}: wave {rollout.wave}")
        return 0
    from nis_ota.commands.fleet import gather

    fleet, refused = gather(args)
    for line in refused:
        shared.warn(f"not counted: {line}")
    rollout, plan = rollouts.current(repository, name)
    progress = fleet.progress(rollout)
    decision = rollouts.judge(rollout, plan, progress)
    if decision.act == "halt" and rollout.state != "aborted":
        rollout = rollouts.halt(repository, name, decision.why)
    elif decision.act == "advance":
        rollout = rollouts.advance(repository, name)
    facts = {"act": decision.act, "why": decision.why, **_facts(rollout), **_progress(progress)}
    shared.tell(args, facts, f"{name}: {decision.act}: {decision.why}", *_next_lines(args, rollout))
    return HALTED if decision.act == "halt" else 0


def _changer(name: str) -> Any:
    def change(args: argparse.Namespace) -> None:
        from nis_ota import rollouts

        repository = shared.open_repository(args)
        if name == "withdraw":
            if not args.device:
                raise PublisherError("a cohort's rollout is aborted, not withdrawn; name a --device")
            repository.withdraw_override(args.device)
            shared.tell(
                args, {"device": args.device},
                f"{args.device} follows its cohort again", f"next: nis-ota publish {args.folder} --to PLACE",
            )  # fmt: skip
            return
        states: dict[str, Any] = {"pause": "paused", "resume": "open", "abort": "aborted"}
        rollout = rollouts.set_state(repository, _name(args), states[name])
        _tell_next(args, rollout, f"{_name(args)} is {rollout.state}")

    return change


def status(args: argparse.Namespace) -> None:
    """`nis-ota rollout status`."""
    from nis_ota import rollouts
    from nis_ota.fleet import Fleet

    repository, fleet = shared.open_repository(args), Fleet(args.folder)
    names = [_name(args)] if args.cohort or args.device else sorted(repository.documents())
    facts, lines = {}, []
    for name in names:
        rollout, plan = rollouts.current(repository, name)
        progress = fleet.progress(rollout)
        decision = rollouts.judge(rollout, plan, progress)
        facts[name] = {
            **_facts(rollout), **_progress(progress), "waves": plan.waves, "halted": plan.halted,
            "next": decision.act, "why": decision.why,
        }  # fmt: skip
        lines += [
            f"{name}: {rollout.target} serial {rollout.serial}, {rollout.state}, wave {rollout.wave} of "
            f"{len(plan.waves)}, open to {rollout.open_bp / 100:g} %",
            f"  reported: {progress.succeeded} run it, {progress.failed} failed, {progress.refused} refused it, "
            f"{progress.waiting} to come",
            f"  {'halted: ' + plan.halted if plan.halted else 'next: ' + decision.act + ', ' + decision.why}",
        ]
    shared.tell(args, facts, *(lines or ["nothing is offered to anyone"]))


def _name(args: argparse.Namespace) -> str:
    from nis_edge.update.rollout import override_name

    return override_name(args.device) if args.device else str(args.cohort)


def _facts(rollout: Rollout) -> dict[str, Any]:
    return {
        "cohort": rollout.cohort, "device": rollout.device, "target": rollout.target, "serial": rollout.serial,
        "state": rollout.state, "wave": rollout.wave, "open_bp": rollout.open_bp,
    }  # fmt: skip


def _progress(progress: Any) -> dict[str, Any]:
    return {**vars(progress), "waiting": progress.waiting}


def _tell_next(args: argparse.Namespace, rollout: Rollout, line: str) -> None:
    shared.tell(args, _facts(rollout), line, *_next_lines(args, rollout))


def _next_lines(args: argparse.Namespace, rollout: Rollout) -> list[str]:
    return [
        f"open to {rollout.open_bp / 100:g} % of the devices, {rollout.state}",
        f"next: nis-ota publish {args.folder} --to PLACE",
    ]


def _moment(text: str) -> float:
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise PublisherError(f"--not-before {text!r} is no moment; write 2027-01-31T02:00:00Z") from error
    if moment.tzinfo is None:
        raise PublisherError(f"--not-before {text!r} has no zone; write 2027-01-31T02:00:00Z")
    return moment.timestamp()
