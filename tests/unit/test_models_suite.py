"""The evaluation suite: same verdicts on the same, probes that are set and not set, figures by hand, one whole page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from nis_models import report_html, suite, suite_self, suite_windows
from nis_models.cli import main
from nis_models.measures import sigmoid
from nis_models.scenarios import Item, draw_item

from nis_edge.judgement import PromptJudge
from nis_edge.monitor.labels import HEAD_OUTPUTS, LABELS
from nis_edge.monitor.window import render

PACKAGE = Path("models/nis-nano/nis-nano.nis")
ITEMS = [draw_item(seed, "test") for seed in range(24)]


@pytest.fixture(scope="module")
def judge() -> PromptJudge:
    return PromptJudge(PACKAGE)


def test_divergence_is_nothing_for_one_verdict_and_whole_for_opposite_ones() -> None:
    sure, other = np.zeros(17), np.zeros(17)
    sure[0], other[1] = 1.0, 1.0
    assert suite_self.divergence(sure, sure) == 0.0
    assert suite_self.divergence(sure, other) == pytest.approx(1.0)
    assert 0.0 < suite_self.divergence(np.full(17, 0.1), np.full(17, 0.2)) < 0.2


def test_a_shifted_clock_and_renamed_agents_leave_the_prompt_as_it_was() -> None:
    for item in ITEMS:
        for name in ("shift_clock", "rename_agents"):
            pair = suite_self.TRANSFORMATIONS[name](item.window, Random(1))
            assert pair is not None
            if name == "shift_clock":
                assert render(pair[1]) == render(item.window)
            assert [event.kind for event in pair[1].events] == [event.kind for event in item.window.events]


def test_only_events_of_one_moment_change_places() -> None:
    pairs = [
        pair for item in ITEMS if (pair := suite_self.TRANSFORMATIONS["shuffle_simultaneous"](item.window, Random(1)))
    ]
    assert pairs
    for one, other in pairs:
        moved = [i for i, (a, b) in enumerate(zip(one.events, other.events, strict=True)) if a.id != b.id]
        assert len(moved) == 2
        assert one.events[moved[0]].ts == one.events[moved[1]].ts


@pytest.mark.parametrize("name", sorted(suite_self.PROBES))
def test_the_monitor_says_its_own_state_when_it_holds_and_only_then(name: str, judge: PromptJudge) -> None:
    probe = suite_self.PROBES[name]
    assert probe(judge, True)
    assert not probe(judge, False)


def test_consistency_covers_every_transformation_and_every_assessment_agrees_with_itself(judge: PromptJudge) -> None:
    figures = suite_self.consistency(judge, ITEMS[:10])
    assert set(figures["by_transformation"]) == set(suite_self.TRANSFORMATIONS)
    assert figures["by_transformation"]["shift_clock"]["value"] == 1.0
    assert figures["fields_agree"]["value"] == 1.0
    assert 0.5 < figures["metacognitive_consistency"] <= 1.0


def test_m_ratio_is_not_stated_for_a_confidence_that_is_the_classifiers_own(judge: PromptJudge) -> None:
    figures = suite_self.awareness(judge, ITEMS)
    assert figures["metacognitive_sensitivity"]["m_ratio"] is None
    assert "by construction" in figures["metacognitive_sensitivity"]["reason"]
    depth = figures["introspection_depth"]
    assert depth["finding_right"] >= depth["and_locus"] >= depth["and_action"]
    assert depth["value"] == pytest.approx(
        (depth["finding_right"] + depth["and_locus"] + depth["and_action"]) / 3, abs=1e-3
    )


def said(items: list[Item], right: bool) -> np.ndarray:
    """A judge that is always right, or never sees anything."""
    z = np.full((len(items), len(HEAD_OUTPUTS)), -4.0)
    for row, item in enumerate(items):
        for label in item.labels if right else ():
            z[row, LABELS.index(label)] = 4.0
        z[row, -1] = 2.0 if right and item.failure else -2.0
    return np.concatenate([sigmoid(z), np.full((1, len(HEAD_OUTPUTS)), 0.5)], axis=0)


def test_figures_tell_a_judge_that_sees_from_one_that_does_not() -> None:
    items = [replace(item, failure=bool(i % 2), group=f"g{i}") for i, item in enumerate(ITEMS)]
    tables = {"fused": said(items, True), "rules": said(items, False)}
    found = suite_windows.injected(tables, items)
    assert found["fused"]["all"]["balanced_accuracy"]["value"] == 1.0
    assert found["rules"]["all"]["injected_recall_mean"]["value"] == 0.0
    assert found["fused"]["all"]["confidence"]["accuracy_at_80_coverage"] == 1.0
    outcome = suite_windows.outcome(tables, items)
    assert outcome["fused"]["all"]["auroc"] == 1.0
    assert set(outcome["fused"]["by_system"]) == {"simulated"}
    assert suite_windows.outcome(tables, ITEMS)["fused"]["all"] is None


def test_evidence_taken_away_leaves_the_words(judge: PromptJudge) -> None:
    window = draw_item(3, "test", label="looping").window
    full = suite_windows.gather(window)
    empty = suite_windows.bare(full)
    shown = [str(piece) for piece in suite_windows.render_with(window, empty).pieces]
    assert not any("<rep" in piece for piece in shown)
    assert any("<rep" in str(piece) for piece in suite_windows.render_with(window, full).pieces)
    texts = [piece for piece in suite_windows.render_with(window, empty).pieces if hasattr(piece, "text")]
    assert texts == [piece for piece in render(window).pieces if hasattr(piece, "text")]


def test_a_suite_is_one_json_and_one_page_that_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "suite.json", tmp_path / "suite.html"
    pytest.importorskip("sklearn")
    assert main(["evaluate", "--suite", "physics", "--sample", "30", "--json", str(out), "--html", str(page)]) == 0
    assert "validator 1.0 of 60" in capsys.readouterr().out
    figures = json.loads(out.read_text(encoding="utf-8"))["suites"]["physics"]
    assert figures["validator"]["accuracy"] == 1.0
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<script|src=|https?://|@import|url\(", text)


def test_a_page_shows_what_others_wrote_as_text() -> None:
    items = [replace(item, source="<b>x</b>", group="g", failure=True) for item in ITEMS]
    tables = {"fused": said(items, True)}
    record = {
        "model": {"id": "<i>", "version": "1", "sha256": "0", "isa": "x"}, "sample": {}, "intervals": "none",
        "suites": {"injected": suite_windows.injected(tables, items), "outcome": suite_windows.outcome(tables, items)},
    }  # fmt: skip
    page = report_html.page(record)
    assert "<b>x" not in page
    assert "<i>" not in page
    assert page.count("<svg") >= 3
    assert msgspec.json.encode(record)


def test_the_device_suite_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--suite", "device"]) == 2
    assert "--runs" in capsys.readouterr().err
    assert set(suite.SUITES) >= {"injected", "outcome", "device", "consistency", "self", "physics"}
