"""The data of the models room: labelled by construction, drawn by seed, split so that nothing leaks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from nis_models import data, demo, recorded
from nis_models.domains import TRADES, trades_of
from nis_models.faults import FAULTS, HARD_NEGATIVES
from nis_models.phrases import BANKS, templates
from nis_models.scenarios import draw_item

from nis_edge.errors import ConfigError
from nis_edge.limits import WINDOW_EVENTS_MAX
from nis_edge.monitor.evidence import gather
from nis_edge.monitor.labels import LABELS

SPLITS = ("train", "tune", "test")


def test_every_finding_has_a_fault_and_a_hard_negative() -> None:
    assert set(FAULTS) == set(HARD_NEGATIVES) == set(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_a_fault_is_labelled_and_shown_in_every_split(label: str) -> None:
    for split in SPLITS:
        for seed in range(12):
            item = draw_item(seed, split, label=label)
            assert label in item.labels
            assert len(item.window.events) <= WINDOW_EVENTS_MAX
            assert all(0 <= place < len(item.window.events) for place in item.locus)


@pytest.mark.parametrize("label", LABELS)
def test_a_hard_negative_holds_no_finding(label: str) -> None:
    item = draw_item(3, "train", hard=label)
    assert item.labels == ()
    assert item.hard_negative_for == label


def test_one_seed_gives_one_item() -> None:
    assert draw_item(7, "train") == draw_item(7, "train")
    assert draw_item(7, "train") != draw_item(8, "train")


def test_no_wording_and_no_trade_is_in_two_splits() -> None:
    for bank in BANKS:
        shares = [{name for name, _ in templates(bank, split)} for split in SPLITS]
        assert all(shares), bank
        assert not shares[0] & shares[1] | shares[0] & shares[2] | shares[1] & shares[2]
    assert sum(len(trades_of(split)) for split in SPLITS) == len(TRADES)


def test_windows_hold_no_heartbeats_as_the_monitor_keeps_them_out() -> None:
    for seed in range(100):
        assert all(event.kind not in ("heartbeat", "lifecycle") for event in draw_item(seed, "train").window.events)


def test_a_broken_law_shows_a_residual_and_its_twin_does_not() -> None:
    broken = [gather(draw_item(seed, "train", label="physics_violation").window).residual for seed in range(40)]
    kept = [gather(draw_item(seed, "train", hard="physics_violation").window).residual for seed in range(40)]
    assert sum(value is not None and value > 0.06 for value in broken) >= 30
    assert sum(value is not None and value > 0.06 for value in kept) <= 4


def _runs(folder: Path) -> None:
    with (folder / recorded.ANSWERS).open("w") as out:
        for number in range(120):
            row = {
                "user_query": f"How many moons does planet number {number} have?",
                "chatgpt_response": f"Planet number {number} has {number} moons as far as anyone knows.",
                "hallucination": "no",
            }
            out.write(json.dumps(row) + "\n")
    for name in recorded.FILES.values():
        with gzip.open(folder / name, "wt") as out:
            for number in range(60):
                events = [
                    {"agent": "user", "kind": "user", "text": f"please book flight {number} to Oslo for 2 people"}
                ]
                for step in range(4):
                    events.append({"agent": "assistant", "kind": "agent", "text": f'CALL search {{"page": {step}}}'})
                    events.append({"agent": "tool:search", "kind": "tool", "text": f'{{"price": {100 + step}}}'})
                    events.append(
                        {
                            "agent": "assistant",
                            "kind": "agent",
                            "text": f"Flight {step} costs {100 + step} euros. Which date?",
                        }
                    )
                    events.append({"agent": "user", "kind": "user", "text": "the first of May"})
                out.write(
                    json.dumps(
                        {
                            "id": f"{number}",
                            "source": name.split(".")[0],
                            "system": "s",
                            "group": f"g{number}",
                            "events": events,
                            "outcome": number % 2,
                        }
                    )
                    + "\n"
                )


def test_faults_go_into_real_runs_and_groups_stay_in_their_split(tmp_path: Path) -> None:
    _runs(tmp_path)
    corpora = recorded.load(tmp_path)
    groups = {split: {run.group for run in corpora[split].runs} for split in SPLITS}
    assert not groups["train"] & groups["test"] | groups["train"] & groups["tune"] | groups["tune"] & groups["test"]
    for label in recorded.INJECTABLE:
        item = recorded.draw_injected(1, corpora["train"], label)
        assert item.labels == (label,)
    outcomes = [recorded.draw_outcome(seed, corpora["train"]) for seed in range(20)]
    assert {item.failure for item in outcomes} == {True, False}
    assert all(item.known == () for item in outcomes), "a failed run's findings are not known"


def test_a_data_set_is_the_same_to_the_byte_and_reads_back(tmp_path: Path) -> None:
    sizes: dict[data.Split, int] = {"train": 30, "tune": 5, "test": 5}
    first = data.build(tmp_path / "a", sizes, None)
    second = data.build(tmp_path / "b", sizes, None)
    assert first == second
    assert data.read(tmp_path / "a", "train") == list(data.draw("train", 30, None, 0))


def test_a_missing_data_set_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nis-models data build"):
        data.read(tmp_path, "train")
    with pytest.raises(ConfigError, match="--data"):
        recorded.load(tmp_path)


def test_the_committed_demonstration_is_what_the_generator_writes(tmp_path: Path) -> None:
    demo.write(tmp_path)
    root = Path(__file__).parents[2] / "nis_edge" / "demo"
    for name in ("team.jsonl", "team.faults.json"):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


def test_the_demonstration_holds_its_four_faults_in_order() -> None:
    events, faults = demo.build()
    ids = {event["id"] for event in events}
    times = [float(str(event["t"])) for event in events]
    assert [fault["label"] for fault in faults] == ["looping", "error_burst", "contradiction", "stalled"]
    assert all(set(fault["events"]) <= ids for fault in faults)  # type: ignore[arg-type]
    assert times == sorted(times)
    assert times[-1] <= demo.LENGTH_S
