"""A person's verdicts on labels: shown with their proof, recorded once."""

from __future__ import annotations

import io
import json
from pathlib import Path

from nis_models.hand_check import check, text_of
from nis_models.scenarios import draw_item

ITEMS = [draw_item(seed, "test", label="looping") for seed in range(12)]


def _check(out: Path, answers: str, per_kind: int = 2) -> tuple[tuple[int, int], str]:
    shown = io.StringIO()
    return check(
        ITEMS, out, per_kind=per_kind, label="looping", answers=io.StringIO(answers), shown=shown
    ), shown.getvalue()


def test_a_window_is_shown_with_label_proof_and_marked_events() -> None:
    text = text_of(ITEMS[0])
    assert "looping" in text and ITEMS[0].proof in text
    assert sum(line.startswith(">") for line in text.splitlines()) == len(ITEMS[0].locus) > 0


def test_answers_are_recorded_once_and_not_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    (count, wrong), _ = _check(out, "y\nn it only polls\nq\n")
    assert (count, wrong) == (2, 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["holds", "wrong"] and rows[1]["note"] == "it only polls"
    (count, _), shown = _check(out, "u\n")
    assert count == 3
    assert shown.count("===") == len({row["window"] for row in rows}) or shown.count("===") >= 1


def test_an_answer_that_is_none_is_asked_for_again(tmp_path: Path) -> None:
    (count, _), shown = _check(tmp_path / "v.jsonl", "what?\ny\n")
    assert count == 1 and "y, n, u or q" in shown


def test_no_more_than_asked_for_of_one_mechanism(tmp_path: Path) -> None:
    (count, _), _ = _check(tmp_path / "v.jsonl", "y\n" * 50, per_kind=1)
    assert count == len({item.template for item in ITEMS})
