"""What each attacker could and could not do, tried against the device's own code and read off the device.

python -m bench.update.attackers            try everything, print the tables
python -m bench.update.attackers --write    and write them into docs/update-attacks.md
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.update.attack_stage import Attempt, Outcome, build, run
from bench.update.attempts import ATTEMPTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "update-attacks.md"
BEGIN, END = "<!-- tables: python -m bench.update.attackers --write -->", "<!-- end of tables -->"
GROWTH_BYTES_MAX = 2 << 20
"""What an attempt may leave behind on the disk: a model of this world and its metadata are under 1 MiB."""

Tried = list[tuple[Attempt, Outcome]]

SAID = {
    "": "nothing",
    "UntrustedMetadataError": "not signed by those who must",
    "RollbackRefusedError": "older than what was seen",
    "DamagedDownloadError": "not the bytes that were signed",
    "SlotWriteError": "longer than what was signed",
    "CloudUnreachableError": "server out of reach",
    "DownloadInterruptedError": "the download broke off",
}


def try_all(attempts: list[Attempt] | None = None, progress: Callable[[str], None] = lambda _line: None) -> Tried:
    """Let every attempt happen, each in a world of its own."""
    tried: Tried = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "built").mkdir()
        built = build(folder / "built")
        for n, attempt in enumerate(attempts or ATTEMPTS):
            progress(f"{attempt.attacker}: {attempt.tries}")
            tried.append((attempt, run(attempt, built, folder / str(n))))
    return tried


def broken_promises(tried: Tried) -> list[str]:
    """Where an attempt came to more than its attacker is conceded; empty is the promise kept."""
    found = []
    for attempt, outcome in tried:
        where = f"{attempt.attacker}: {attempt.tries}: {outcome}"
        if outcome.ran in ("foreign", "nothing", "1.0.0"):
            found.append(f"runs what no offline key signed, an older model, or nothing: {where}")
        if outcome.ran == "2.1.0" and "online" not in attempt.attacker:
            found.append(f"chose among listed models without the online keys: {where}")
        if not outcome.stands:
            found.append(f"does not start again as it was: {where}")
        if outcome.grown > GROWTH_BYTES_MAX:
            found.append(f"filled the disk: {where}")
        if outcome.healed == "not" or (outcome.healed != "at once" and "online" not in attempt.attacker):
            found.append(f"did harm that outlasts it: {where}")
        if outcome.ran == "2.0.0" and not attempt.holds and not outcome.said:
            found.append(f"refused without a word: {where}")
    return found


def summary(tried: Tried) -> str:
    """One row for each attacker: what at least one of its attempts achieved."""
    rows = [
        "| attacker | tried | runs unsigned bytes | an older model | another listed model "
        "| holds updates back, until the device says so | stops the model that runs | outlasts the attack |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for attacker in dict.fromkeys(attempt.attacker for attempt, _ in tried):
        own = [(attempt, outcome) for attempt, outcome in tried if attempt.attacker == attacker]
        ran = {outcome.ran for _, outcome in own}
        stopped = any(not outcome.stands or outcome.ran == "nothing" for _, outcome in own)
        heals = {outcome.healed for _, outcome in own}
        lasting = "YES" if "not" in heals else "until new online keys" if "with new keys" in heals else "no"
        rows.append(
            f"| {attacker} | {len(own)} | {_yes('foreign' in ran)} | {_yes('1.0.0' in ran)} "
            f"| {'yes' if '2.1.0' in ran else 'no'} | {_held(own)} | {_yes(stopped)} | {lasting} |"
        )
    return "\n".join(rows)


def details(tried: Tried) -> str:
    """One row for each attempt."""
    rows = [
        "| attacker | tries | runs afterwards | the device says | the next release comes |",
        "|---|---|---|---|---|",
    ]
    for attempt, outcome in tried:
        said = SAID.get(outcome.said, outcome.said)
        if attempt.holds and outcome.ran == "2.0.0":
            said += f" ({_after(outcome)})"
        rows.append(f"| {attempt.attacker} | {attempt.tries} | {outcome.ran} | {said} | {outcome.healed} |")
    return "\n".join(rows)


def tables(tried: Tried) -> str:
    """Both tables, as the document holds them."""
    return f"{summary(tried)}\n\n{details(tried)}"


def written(document: str, tried: Tried) -> str:
    """The document with the tables of a run between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables(tried)}\n{END}{after}"


def _yes(is_so: bool) -> str:
    return "YES" if is_so else "no"


def _held(own: Tried) -> str:
    holding = [outcome for attempt, outcome in own if attempt.holds and outcome.ran == "2.0.0"]
    if not holding:
        return "no"
    return f"yes; {_after(max(holding, key=lambda outcome: math.inf if outcome.days is None else outcome.days))}"


def _after(outcome: Outcome) -> str:
    if outcome.days is None:
        return "never" if outcome.believes else "never, but that its clock can't be believed, at once"
    return "at once" if outcome.days == 0 else f"after {outcome.days} days"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/update-attacks.md")
    args = parser.parse_args()
    tried = try_all(progress=lambda line: print(f"... {line}", flush=True))
    print(tables(tried))
    if args.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), tried), encoding="utf-8")
    broken = broken_promises(tried)
    for line in broken:
        print(f"PROMISE BROKEN: {line}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
