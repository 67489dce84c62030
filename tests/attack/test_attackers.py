"""Every attacker of `bench.update.attempts` against the device: promises hold, and the table says what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.update import attackers, attempts
from bench.update.attack_stage import Attempt, Stage, build, run

SAMPLE = (
    "the newest timestamp over an old snapshot and old lists",
    "one changed byte in the model",
    "a list of models signed by the online keys",
    "a listed, newer model that was meant for others",
    "a root that asks for one signature instead of two, signed once",
    "the same, the one signature under two names",
    "to keep the device from updates for ever",
    "a date of 2099 in the timestamp, to a device without a clock",
)
"""One or two of each attacker; the whole list runs with the slow tests."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.mark.parametrize("tries", SAMPLE)
def test_an_attacker_gets_no_further_than_promised(built: Path, tmp_path: Path, tries: str) -> None:
    attempt = next(attempt for attempt in attempts.ATTEMPTS if attempt.tries == tries)
    tried = [(attempt, run(attempt, built, tmp_path / "stage"))]
    assert attackers.broken_promises(tried) == []


def test_a_promise_that_is_not_kept_is_seen(built: Path, tmp_path: Path) -> None:
    """A thief with both signatures does get his model in: the stage can tell."""

    def with_both_keys(s: Stage) -> None:
        thief = s.thief("online", "targets-1", "targets-2")
        path, info = attempts._foreign(thief)
        attempts._sign_models(thief, path, info, attempts._models_keys(thief))
        attempts._point_at_foreign(thief, path, info)
        s.look()

    attempt = Attempt("a thief of the whole threshold", "his own model", with_both_keys)
    tried = [(attempt, run(attempt, built, tmp_path / "stage"))]
    assert tried[0][1].ran == "foreign"
    assert any("no offline key signed" in line for line in attackers.broken_promises(tried))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_each_attacker_can_and_cannot_do_is_as_promised_and_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    tried = attackers.try_all()
    with capsys.disabled():
        print(f"\n{attackers.tables(tried)}")
    assert attackers.broken_promises(tried) == []
    document = attackers.DOCUMENT.read_text(encoding="utf-8")
    assert document == attackers.written(document, tried), "run: python -m bench.update.attackers --write"


def test_the_written_table_lists_every_attempt() -> None:
    document = attackers.DOCUMENT.read_text(encoding="utf-8")
    missing = [
        (attempt.attacker, attempt.tries)
        for attempt in attempts.ATTEMPTS
        if f"| {attempt.attacker} | {attempt.tries} |" not in document
    ]
    assert missing == [], "run: python -m bench.update.attackers --write"
