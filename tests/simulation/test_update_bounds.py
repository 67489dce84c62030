"""The signed bounds of a trial: what breaks one is rolled back, what can't be measured is said.

A candidate may have to judge beside the running model before it may answer.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nis_edge.monitor.context import NO_DEVICE, Window
from nis_edge.selftest import Report
from nis_edge.trial import Gauges
from nis_edge.understudy import ShadowFailedError, Understudy
from nis_edge.update.facts import Bounds, Shadow, SignedFacts
from nis_edge.update.journal import ShadowTerms, Terms
from nis_edge.update.machine import State
from nis_edge.update.terms import Figures, Pair, judge_figures, judge_shadow, terms_of
from nis_edge.wire.messages import AgentEvent, ModelAnswer
from tests.support.update_world import World, world

MEASURED = Report(
    passed=True, reason="", golden_entries=1, latency_ms_p50=20.0, latency_tokens=10, tokens_per_s=500.0,
    peak_rss_bytes=10_000_000,
)  # fmt: skip


async def measured(_fd: int, _golden: str | None) -> Report:
    return MEASURED


@pytest.fixture
def w(first_release: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(first_release, tmp_path, symlinks=True, dirs_exist_ok=True)
    with world(tmp_path, self_test=measured) as made:
        yield made


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (Bounds(latency_ms_max=19.0), "latency of 20 ms, signed is at most 19"),
        (Bounds(tokens_per_s_min=501.0), "speed of 500 tokens/s, signed is at least 501"),
        (Bounds(rss_bytes_max=9e6), "memory of 1e+07 bytes"),
        (Bounds(watts_max=5.0), "power of 6 W, signed is at most 5"),
        (Bounds(temperature_c_max=79.0), "temperature of 80 degrees C"),
    ],
)
def test_case_39_a_slow_large_hot_or_power_hungry_model_is_rolled_back_once_and_denied(
    w: World, bounds: Bounds, said: str
) -> None:
    w.device.gauges = Gauges(watts=lambda: 6.0, temperature_c=lambda: 80.0)
    w.device.boot()
    w.publisher.release("2.0.0", 2, seed=1, bounds=bounds)
    for _ in range(2):
        w.device.check()
    assert w.device.installed == "1.0.0"
    assert len(w.device.logged("slot.rolled_back")) == 1
    assert said in w.device.logged("trial.failed")[0]["reason"]


def test_a_model_within_its_bounds_is_taken_and_what_cannot_be_measured_is_said(w: World) -> None:
    bounds = Bounds(
        latency_ms_max=21.0, tokens_per_s_min=400.0, rss_bytes_max=2e7, watts_max=5.0, temperature_c_max=70.0
    )
    w.publisher.release("2.0.0", 2, seed=1, bounds=bounds)
    assert w.device.check(), w.device.error
    assert w.device.logged("trial.unmeasured")[0]["figures"] == "power, temperature"
    active = w.device.loop.update.journal.active
    assert active is not None
    assert active.terms is None, "what was for the trial leaves the journal with it"


def test_the_running_model_is_unloaded_for_the_test_only_where_memory_has_no_room_and_says_so(w: World) -> None:
    unloaded: list[str] = []
    w.device.on_unload = unloaded.append
    w.device.gauges = Gauges(free_memory_bytes=lambda: 1 << 40)
    w.device.boot()
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error
    assert unloaded == []
    w.device.gauges = Gauges(free_memory_bytes=lambda: 50_000_000)
    w.device.boot()
    w.publisher.release("3.0.0", 3, seed=2)
    assert w.device.check(), w.device.error
    assert len(unloaded) == 1
    assert "bytes for its test" in w.device.logged("model.unloaded")[0]["reason"]


def test_an_unloaded_model_is_back_when_the_candidate_fails(w: World) -> None:
    w.device.on_unload = lambda _reason: w.device.in_service.append("none")
    w.device.gauges = Gauges(free_memory_bytes=lambda: 0)
    w.device.boot()
    before = w.device.running
    w.publisher.release("2.0.0", 2, seed=1, bounds=Bounds(latency_ms_max=1.0))
    assert not w.device.check()
    assert w.device.in_service[-2:] == ["none", before]


# --- beside the running model -----------------------------------------------------------------------------------------

CANDIDATE = """
    import json, sys
    print(json.dumps({"id": 0}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        %s
"""
ANSWER = """answer = {"model": "c", "probabilities": {"none": %s, "loop": %s}, "failure_probability": %s,
                  "tokens": 1, "latency_ms": %s}
        print(json.dumps({"id": question["id"], "answer": answer}), flush=True)"""


def candidate(body: str) -> Understudy:
    return Understudy((sys.executable, "-c", textwrap.dedent(CANDIDATE) % body), answer_s=20.0)


def answering(none: float, failure: float = 0.1, latency_ms: float = 5.0) -> Understudy:
    return candidate((ANSWER % (none, 1 - none, failure, latency_ms)).replace("\n        ", "\n    "))


def said(model: str, probabilities: dict[str, float], latency_ms: float | None) -> ModelAnswer:
    return ModelAnswer(
        model=model, probabilities=probabilities, failure_probability=0.1, tokens=10, latency_ms=latency_ms
    )


RUNNING = said("r", {"none": 0.9, "loop": 0.1}, 5.0)
SHADOW = Shadow(windows=3, seconds_max=60.0, agreement_min=0.9, calibration_gap_max=0.2, latency_ratio_max=2.0)


CALLS = tuple(
    AgentEvent(id=f"e{i}", ts=float(i), agent="pilot", kind="tool_call", tool="fly", text="fly home", args_hash="9f")
    for i in range(6)
)
WINDOW = Window("fly home", CALLS, NO_DEVICE, 6.0, time_known=True)


def stream(w: World, understudy: Understudy, answer: ModelAnswer = RUNNING) -> None:
    """What the daemon shows while the loop works: a question and the running model's answer, again and again."""

    async def go() -> None:
        checking = asyncio.ensure_future(w.device.loop.check())
        number = 0
        while not checking.done():
            number += 1
            understudy.see_question(number, WINDOW)
            understudy.see_answer(number, answer)
            await asyncio.wait({checking}, timeout=0.01)
        checking.result()

    asyncio.run(go())


def release_with_shadow(w: World, understudy: Understudy, shadow: Shadow = SHADOW) -> None:
    w.device.understudy = understudy
    w.device.boot()
    w.publisher.release("2.0.0", 2, seed=1, bounds=Bounds(shadow=shadow))


def test_a_candidate_that_agrees_beside_the_running_model_is_promoted(w: World) -> None:
    understudy = answering(0.8)
    release_with_shadow(w, understudy)
    stream(w, understudy)
    assert w.device.installed == "2.0.0", w.device.error
    assert w.device.logged("shadow.passed")[0]["windows"] == 3
    states = [status.state for status in w.device.statuses]
    assert states.index("SHADOW") < states.index("PROBATION")


@pytest.mark.parametrize(
    ("understudy", "said"),
    [
        (lambda: answering(0.2), "agreement of 0.000 over 3 windows"),
        (lambda: answering(0.8, failure=0.9), "calibration gap of 0.800"),
        (lambda: answering(0.8, latency_ms=50.0), "latency of 10.00 times"),
        (lambda: candidate("import os; os.abort()"), "it ended while it judged"),
        (lambda: candidate("print('nonsense', flush=True)"), "it ended while it judged"),
        (lambda: candidate('print(json.dumps({"id": question["id"], "error": "no"}), flush=True)'), "no answer: no"),
        (lambda: Understudy((sys.executable, "-c", 'print(\'{"id":0,"error":"too large"}\')')), "too large"),
    ],
    ids=["disagrees", "uncalibrated", "slow", "crashes", "nonsense", "errs", "does not load"],
)
def test_a_candidate_that_is_worse_beside_the_running_model_never_answers_and_is_denied(
    w: World, understudy: Any, said: str
) -> None:
    made = understudy()
    release_with_shadow(w, made)
    before = w.device.running
    stream(w, made)
    assert w.device.running == before
    assert said in w.device.error
    assert len(w.device.loop.update.journal.denied) == 1


@pytest.mark.parametrize(("on_few", "installed"), [("pass", "2.0.0"), ("fail", "1.0.0")])
def test_a_quiet_device_takes_the_model_or_not_as_its_publisher_signed(w: World, on_few: Any, installed: str) -> None:
    shadow = Shadow(windows=3, seconds_max=60.0, on_few=on_few)
    release_with_shadow(w, answering(0.8), shadow)
    ticks = iter(range(10_000))

    class Hurried(type(w.device.clock)):  # type: ignore[misc]
        def monotonic(self) -> float:
            return float(super().monotonic()) + 10 * next(ticks)

    w.device.clock = Hurried(wall=w.device.clock.wall())
    w.device.boot()
    w.device.check()
    assert w.device.installed == installed, w.device.error


def test_a_restart_in_the_middle_goes_on_beside_the_running_model_and_costs_no_try(w: World) -> None:
    understudy = answering(0.8)
    release_with_shadow(w, understudy)

    async def interrupted() -> None:
        checking = asyncio.ensure_future(w.device.loop.check())
        while w.device.loop.update.state is not State.SHADOW:
            await asyncio.wait({checking}, timeout=0.01)
        w.device.loop.stop()
        await checking

    asyncio.run(interrupted())
    tries = w.device.loop.update.journal.tries_left
    before = w.device.running
    w.device.boot()
    assert w.device.running == before
    assert w.device.loop.update.state is State.SHADOW

    async def go() -> None:
        taking_up = asyncio.ensure_future(w.device.loop._take_up())
        number = 0
        while not taking_up.done():
            number += 1
            understudy.see_question(number, WINDOW)
            understudy.see_answer(number, RUNNING)
            await asyncio.wait({taking_up}, timeout=0.01)

    assert w.device.loop.update.journal.tries_left == tries
    asyncio.run(go())
    assert w.device.installed == "2.0.0", w.device.error


# --- the judgement alone ----------------------------------------------------------------------------------------------


def test_terms_carry_every_signed_bound_and_none_when_none_was_signed() -> None:
    plain = SignedFacts(version="1", release_counter=1, hardware=("any",))
    assert terms_of(plain) == Terms()
    signed = SignedFacts(version="1", release_counter=1, hardware=("any",), bounds=Bounds(shadow=SHADOW, watts_max=3.0))
    terms = terms_of(signed)
    assert terms.watts_max == 3.0
    assert terms.shadow == ShadowTerms(
        windows=3, seconds_max=60.0, few_pass=True, agreement_min=0.9, calibration_gap_max=0.2, latency_ratio_max=2.0,
        joules_ratio_max=None,
    )  # fmt: skip


def test_a_bound_that_is_just_kept_is_kept() -> None:
    assert judge_figures(Terms(latency_ms_max=20.0), Figures(latency_ms=20.0)).breach is None
    pairs = [Pair(RUNNING, RUNNING)] * 9 + [Pair(RUNNING, said("c", {"loop": 1.0}, None))]
    assert terms_of(SignedFacts(version="1", release_counter=1, hardware=("any",), bounds=Bounds(shadow=SHADOW))).shadow
    shadow = ShadowTerms(
        windows=10, seconds_max=1.0, few_pass=False, agreement_min=0.9, calibration_gap_max=0.0,
        latency_ratio_max=None, joules_ratio_max=0.5,
    )  # fmt: skip
    judged = judge_shadow(shadow, pairs)
    assert (judged.breach, judged.unmeasured) == (None, ("energy",))


@pytest.mark.slow
def test_the_shipped_model_beside_itself_agrees_wholly() -> None:
    from nis_edge.clock import SystemClock
    from nis_edge.judgement import PromptJudge, shipped_package

    package = shipped_package()
    if package is None:
        pytest.skip("NOT RUN: the package that ships was not built in")
    judge = PromptJudge(package, clock=SystemClock())
    running = judge.answer_window(WINDOW)
    judge.close()

    async def go() -> list[Pair]:
        understudy = Understudy()
        with package.open("rb") as file:
            await understudy.begin(file.fileno())
            try:
                understudy.see_question(1, WINDOW)
                understudy.see_answer(1, running)
                terms = terms_of(
                    SignedFacts(version="1", release_counter=1, hardware=("any",), bounds=Bounds(shadow=SHADOW))
                ).shadow
                assert terms is not None
                await understudy.watch(terms, 2.0)
            finally:
                await understudy.end()
        return understudy.pairs

    (pair,) = asyncio.run(go())
    assert pair.candidate.probabilities == pair.running.probabilities


def test_a_candidate_that_hangs_has_failed() -> None:
    async def go() -> None:
        understudy = Understudy((sys.executable, "-c", "import time; time.sleep(60)"), answer_s=0.05)
        try:
            await understudy.begin(0)
        finally:
            await understudy.end()

    with pytest.raises(ShadowFailedError, match="no answer within"):
        asyncio.run(go())
