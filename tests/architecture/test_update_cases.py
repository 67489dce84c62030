"""The cases that the update design promises are tests that carry their number: the map from one to the other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

CASES = {
    1: "one of two needed signatures is rejected",
    2: "a duplicate key id counts once",
    3: "timestamp rollback is rejected",
    4: "and also with a cache of zero length",
    5: "snapshot and targets rollback",
    6: "fast-forward recovery after key rotation",
    7: "mixed snapshot and targets are rejected",
    8: "endless metadata and an endless target are cut at their length",
    9: "a root chain of five versions; a skipped one is rejected",
    10: "a revoked model key: target refused",
    11: "the online rollout key signs a model: refused",
    12: "a rollout hash other than the offline hash: refused",
    13: "another device's override: refused",
    14: "a lower release counter is refused; local fallback is allowed",
    15: "a tampered byte past 2 GiB and past 4 GiB is caught",
    16: "a file swapped between verification and load is caught",
    17: "a target name with .. stays inside the store",
    18: "1970 and valid metadata: updates, flagged",
    19: "1970 and metadata older than the floor: refused",
    20: "2099, then the clock is set: recovers, floor not poisoned",
    21: "a clock jump in mid-download is harmless",
    22: "expired metadata: inference continues",
    23: "a truncated body resumes",
    24: "Range answered by 200, wrong Content-Range, changed ETag: no corruption",
    25: "404 for ever: bounded tries, reported, cancellable",
    26: "a slow-loris of 1 B/s is aborted",
    27: "broker replay, duplicates, reordering, forged retained messages: harmless",
    28: "a silent broker: the HTTPS path finds the update",
    29: "a lost, duplicate or corrupt MQTT block: only it is fetched again",
    30: "a failed delta on a metered link: no silent full download",
    31: "SIGKILL at every system call: starts old or new, never neither",
    32: "unsynced pages dropped at each flush",
    33: "a torn journal write: the other record is used",
    34: "ENOSPC at every write: the model keeps running, space is freed",
    35: "EIO of a flush: not committed",
    36: "a bit flip in the active slot: falls back",
    37: "both slots bad: factory model",
    38: "a read-only file system: telemetry only",
    39: "a wrong, NaN, crashing, slow or power-hungry model: each rolled back once and denied",
    40: "a crash loop in a trial stops at the last try",
    41: "an abort seen between download and trial: not activated",
    42: "100,000 simulated devices: even starts, no peak above twice the mean, waves within 1 %, an abort reaches all",
    43: "a USB bundle runs the identical checks",
}


def names_by_case() -> dict[int, list[str]]:
    """Every test whose name carries numbers, by number."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_case((?:_[0-9]+)+)_", node.name)):
                for number in match[1].split("_")[1:]:
                    found[int(number)].append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def test_every_case_of_the_update_design_has_a_test_that_carries_its_number() -> None:
    found = names_by_case()
    assert [number for number in CASES if not found[number]] == []
    assert set(found) <= set(CASES)
    assert set(CASES) == set(range(1, 44))
