"""Easing: less work before the board throttles, back step by step, no swinging, nothing guessed from silence."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.power.easing import HOLD_S, HYSTERESIS_C, Easing, ease

LIMIT_C = 80.0


def run(*celsius: float | None, step_s: float = 1.0, start: Easing | None = None) -> Easing:
    state = start or Easing()
    for second, value in enumerate(celsius):
        state = ease(state, celsius=value, throttled=None, limit_c=LIMIT_C, now=second * step_s)
    return state


@pytest.mark.parametrize(("celsius", "level"), [(20.0, 0), (74.9, 0), (75.0, 1), (77.5, 2), (80.0, 3), (95.0, 3)])
def test_the_warmer_the_less_is_asked_of_the_model(celsius: float, level: int) -> None:
    state = run(celsius)
    assert state.level == level
    assert (state.reason is None) == (level == 0)


def test_a_board_that_throttles_is_left_to_the_rules_at_any_temperature() -> None:
    for celsius in (None, 40.0):
        state = ease(Easing(), celsius=celsius, throttled=True, limit_c=LIMIT_C, now=0.0)
        assert (state.level, state.rest_s, state.reason) == (3, math.inf, "the board throttles")


def test_cooling_gives_back_one_level_at_a_time_and_only_after_a_while() -> None:
    hot = run(81.0)
    just_cool = run(*[60.0] * int(HOLD_S), start=hot)
    assert just_cool.level == 3
    assert run(*[60.0] * int(HOLD_S + 1), start=hot).level == 2
    assert run(*[60.0] * int(3 * HOLD_S + 3), start=hot) == Easing()


def test_a_temperature_that_swings_by_less_than_the_hysteresis_does_not_swing_the_level() -> None:
    swinging = [75.0 - (second % 2) * (HYSTERESIS_C - 0.1) for second in range(300)]
    levels = {run(*swinging[: n + 1]).level for n in range(0, 300, 7)}
    assert levels == {1}


def test_silence_of_the_sensors_changes_nothing() -> None:
    assert run(None, None).level == 0
    assert run(*[None] * 500, start=run(78.0)).level == 2


@given(st.lists(st.one_of(st.none(), st.floats(-40, 130)), min_size=1, max_size=60))
def test_the_level_is_never_below_what_the_newest_temperature_demands(values: list[float | None]) -> None:
    state = run(*values, step_s=7.0)
    newest = values[-1]
    assert 0 <= state.level <= 3
    if newest is not None:
        assert state.level >= run(newest).level
