"""The judge of series: its file is checked first, its numbers are free of unit and offset, its word is kept."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nis_edge.errors import ModelError
from nis_edge.judgement import series_judge
from nis_edge.monitor import shapes
from nis_edge.monitor.device import LEARNED_READINGS, absorb_reading, device_verdicts
from nis_edge.monitor.series import WINDOW, look_at
from nis_edge.monitor.series_judge import LABELS, SeriesBytes, SeriesJudge, pack
from nis_edge.monitor.state import MonitorState
from nis_edge.monitor.tables import ForestBytes
from nis_edge.wire.messages import Reading


class Says:
    """A judge that always says one thing."""

    def __init__(self, label: str, probability: float) -> None:
        self.said = dict.fromkeys(LABELS, (1.0 - probability) / 7) | {label: probability}

    def probabilities(self, _values: Sequence[float | None]) -> dict[str, float]:
        return self.said


def packed(**changes: Any) -> SeriesBytes:
    forest = ForestBytes(
        features=("run",), outputs=LABELS, base=np.zeros(8, "<f4").tobytes(),
        trees=np.array([1] * 8, "<u2").tobytes(), nodes=bytes([1] * 8), feature=np.zeros(8, "<u2").tobytes(),
        value=np.array([3, 0, 0, 0, 0, 0, 0, 0], "<f4").tobytes(), left=bytes(8), right=bytes(8),
    )  # fmt: skip
    return SeriesBytes(forest=replace(forest, **changes), temperature=2.0)


def wave(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sin(np.arange(WINDOW) / 9.0) + 0.2 * rng.normal(size=WINDOW)


def test_scores_become_probabilities_under_the_temperature() -> None:
    said = SeriesJudge(pack(packed())).probabilities(wave().tolist())
    assert said is not None
    assert said["none"] == pytest.approx(np.exp(1.5) / (np.exp(1.5) + 7))
    assert sum(said.values()) == pytest.approx(1.0)
    assert SeriesJudge(pack(packed())).probabilities(wave().tolist()[:-1]) is None
    assert SeriesJudge(pack(packed())).probabilities([None] * 50 + [1.0] * 14) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        pack(packed())[:-3],
        pack(packed()) + b"x",
        zlib.compress(b"\0" * 5_000_000),
        zlib.compress(msgspec.msgpack.encode({"format": 1})),
        pack(replace(packed(), format=9)),
        pack(replace(packed(), temperature=0.0)),
        pack(packed(outputs=("none",) * 8)),
        pack(packed(features=("no such number",))),
        pack(packed(value=b"")),
        pack(packed(left=bytes([9] * 8))),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ModelError) as refused:
        SeriesJudge(data)
    assert "\n" not in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e300, -1e300, 5e-324])),
        min_size=WINDOW, max_size=WINDOW,
    )
)  # fmt: skip
def test_any_values_give_finite_numbers_without_a_warning(values: list[float]) -> None:
    window = np.array(values)
    if np.isfinite(window).sum() >= shapes.PRESENT_MIN:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = shapes.numbers(window[None, :])
        assert found.shape == (1, len(shapes.names()))
        assert np.isfinite(found).all()


def test_numbers_do_not_depend_on_unit_and_offset_but_for_zero() -> None:
    one, other = shapes.numbers(wave()[None, :]), shapes.numbers(1000.0 + 7.5 * wave()[None, :])
    free = [place for place, name in enumerate(shapes.names()) if not name.startswith("zero")]
    assert np.allclose(one[:, free], other[:, free], atol=1e-3)


def test_rows_are_judged_as_if_alone() -> None:
    windows = np.stack([wave(seed) for seed in range(5)])
    windows[2, 10:20] = np.nan
    windows[3] = 4.0
    together = shapes.numbers(windows)
    assert np.allclose(together, np.concatenate([shapes.numbers(row[None, :]) for row in windows]), atol=1e-5)


def test_the_shipped_judge_is_small_and_names_plain_faults() -> None:
    judge = series_judge()
    assert judge is not None
    rng = np.random.default_rng(4)
    calm = 20.0 + np.cumsum(rng.normal(size=WINDOW)) * 0.1 + rng.normal(size=WINDOW)
    faults = {label: calm.copy() for label in LABELS}
    faults["stuck"][30:] = calm[30]
    faults["drift"][24:] += np.linspace(0, 10, 40)
    faults["spike"][40] += 14
    faults["dropout"][[30, 33, 34, 41, 50, 51, 60]] = 0.0
    faults["saturation"] = np.minimum(calm, np.quantile(calm, 0.6))
    faults["noise"][30:] += rng.normal(0, 6, 34)
    faults["level_shift"][34:] += 9
    told = {label: look_at(values.tolist(), judge) for label, values in faults.items()}
    assert {label: one.kind if one else "none" for label, one in told.items()} == {label: label for label in LABELS}
    for label, onset in (("stuck", 30), ("spike", 40), ("dropout", 30), ("level_shift", 34)):
        found = told[label]
        assert found is not None
        assert abs(found.onset - onset) <= 4


def test_a_window_that_cannot_be_judged_is_left_to_the_thresholds() -> None:
    values = [*wave().tolist()[:30], *[0.5] * 20]
    found = look_at(values, SeriesJudge(pack(packed())))
    assert found is not None
    assert found == look_at(values)
    assert found.kind == "stuck"


def live(judge: Any, values: np.ndarray) -> list[str]:
    state, said = MonitorState(), []
    for place, value in enumerate(values.tolist()):
        reading = Reading(name="voltage_v", value=value, unit="V", ts=0.0, source="test")
        state = absorb_reading(state, reading, place * 2.0, judge)
        said += [verdict.text for verdict in device_verdicts(state)]
    return said


def shifted() -> np.ndarray:
    rng = np.random.default_rng(8)
    values = 12.0 + 0.1 * rng.normal(size=2 * LEARNED_READINGS + 60)
    values[-60:] += 3.0
    return values


def test_on_a_live_feed_the_judge_names_what_passed_a_threshold_and_spares_what_is_healthy() -> None:
    plain = live(None, shifted())
    assert plain and all("level shift" in text or "drift" in text for text in plain)
    assert all("noise since" in text for text in live(Says("noise", 0.9), shifted()))
    assert live(Says("noise", 0.4), shifted()) == plain
    assert live(Says("none", 0.9), shifted()) == []


def test_what_was_told_is_not_taken_back_while_it_stands() -> None:
    class Wavers(Says):
        asked = 0

        def probabilities(self, _values: Sequence[float | None]) -> dict[str, float]:
            self.asked += 1
            return Says("level_shift" if self.asked == 1 else "none", 0.9).said

    judge = Wavers("none", 0.9)
    assert len(live(judge, shifted())) == len(live(None, shifted())) > 0
    assert judge.asked > 1


def test_the_judge_never_raises_an_alarm_of_its_own_and_takes_no_standstill_back() -> None:
    healthy = 12.0 + 0.1 * np.random.default_rng(9).normal(size=1500)
    assert live(None, healthy) == [] == live(Says("spike", 1.0), healthy)
    healthy[-40:] = healthy[-40]
    assert any("stuck" in text for text in live(Says("none", 1.0), healthy))
