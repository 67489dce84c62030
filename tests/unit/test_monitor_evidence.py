"""Evidence computed in code: each number against a case where it is plain what it must be, and its look-alike."""

from __future__ import annotations

import pytest

from nis_edge.monitor.context import NO_DEVICE, window_of
from nis_edge.monitor.evidence import FLAG_NAMES, Evidence, facts_of, gather, quantise
from nis_edge.wire.messages import AgentEvent, Claim


def look(
    *lines: tuple[object, ...], goal: str | None = None, now: float | None = None, time_known: bool = True
) -> Evidence:
    """Evidence of (agent, kind, text, fields) lines, one second apart unless a field says otherwise."""
    events = []
    for i, (agent, kind, text, *rest) in enumerate(lines):
        fields = dict(rest[0]) if rest else {}
        events.append(
            AgentEvent(**{"id": str(i), "ts": float(i), "agent": agent, "kind": kind, "text": text, **fields})
        )
    last = events[-1].ts if events else 0.0
    return gather(window_of(goal, events, NO_DEVICE, last if now is None else now, time_known=time_known))


def call(agent: str, tool: str, arguments: str) -> tuple[object, ...]:
    return (agent, "tool_call", arguments, {"tool": tool, "args_hash": arguments})


def test_an_empty_window_has_no_evidence_and_no_fault() -> None:
    found = look()
    assert found.events == ()
    assert found.idle_s is None
    assert found.residual is None


def test_repeating_a_call_is_counted_and_another_argument_is_not() -> None:
    assert look(*[call("a", "read", "x")] * 4).repeats_max == 3
    assert look(*(call("a", "read", str(i)) for i in range(4))).repeats_max == 0


def test_a_report_of_the_next_value_is_no_repetition() -> None:
    told = [("a", "message", f"the water level at weir two is {v} cm") for v in (41, 44, 47)]
    assert look(*told).repeats_max == 0
    assert look(*[told[0]] * 3).repeats_max == 2


@pytest.mark.parametrize(
    ("pattern", "cycle"), [("abab", 2), ("abcabc", 3), ("aaa", 1), ("aa", 0), ("abcd", 0), ("abcb", 0)]
)
def test_a_cycle_is_seen_only_once_it_has_closed(pattern: str, cycle: int) -> None:
    assert look(*(call("x", tool, "1") for tool in pattern)).cycle == cycle


def test_failures_are_counted_among_results_that_say_so() -> None:
    results = [("a", "tool_result", "r", {"ok": ok}) for ok in (True, False, False, None)]
    assert look(*results).errors == 2
    assert look(("a", "tool_result", "r")).errors is None


def test_two_values_of_one_thing_conflict_and_a_correction_does_not() -> None:
    one = ("a", "message", "wind speed at the ridge mast is 41 m/s")
    other = ("b", "message", "wind speed at the ridge mast is 77 m/s")
    assert look(one, other).conflicts == 1
    assert look(one, ("a", "message", "Correction: wind speed at the ridge mast is 77 m/s")).conflicts == 0
    assert look(one, ("b", "message", "wind speed at the ridge mast is 41 m/s")).conflicts == 0


def test_the_same_quantity_at_two_numbered_places_is_no_conflict() -> None:
    assert look(("a", "message", "humidity at bay 1 is 61"), ("a", "message", "humidity at bay 2 is 78")).conflicts == 0


@pytest.mark.parametrize(("value", "conflicts"), [(42.5, 0), (71.0, 1)])
def test_claims_conflict_beyond_their_tolerance(value: float, conflicts: int) -> None:
    claims = [("a", 42.0), ("b", value)]
    lines = [(agent, "claim", None, {"claim": Claim("level", v, "cm", 1.0)}) for agent, v in claims]
    assert look(*lines).conflicts == conflicts


def test_states_that_exclude_each_other_conflict() -> None:
    assert (
        look(
            ("a", "message", "the valve at dock A is open"), ("b", "message", "the valve at dock A is closed")
        ).conflicts
        == 1
    )


def test_a_number_from_nowhere_is_unsourced_and_one_from_a_tool_is_not() -> None:
    said = ("a", "message", "soil moisture is 37 %")
    assert look(said).events[-1].unsourced == 1
    assert look(("a", "tool_result", '{"value": 37}'), said).events[-1].unsourced == 0
    assert look(("a", "message", "this is step 3")).events[-1].unsourced == 0


def test_a_request_nobody_takes_up_stays_open() -> None:
    asked = ("operator", "message", "please report the turbidity at the outfall")
    busy = ("a", "message", "continuing my list")
    assert look(asked, busy, busy).open_requests == 1
    assert look(asked, ("a", "message", "turbidity at the outfall is being measured"), busy).open_requests == 0


def test_a_changed_order_is_acknowledged_or_passed_over() -> None:
    order = ("operator", "message", "Change of plan, skip the north plot")
    work = call("a", "read_soil", "north")
    assert look(order, work).order == 2
    assert look(order, ("a", "message", "understood, skipping it"), work).order == 1
    assert look(work).order == 0


def test_a_vague_request_acted_on_without_a_question_is_counted() -> None:
    vague = ("operator", "message", "move that one somewhere")
    acted = call("a", "move", "3")
    assert look(vague, acted).vague_acted == 1
    assert look(vague, ("a", "message", "which one do you mean?"), acted).vague_acted == 0


def test_asking_for_what_was_told_is_marked() -> None:
    told = ("b", "message", "oil temperature at turbine T2 is 61 degrees")
    asked = ("a", "message", "what is the oil temperature at turbine T2?")
    assert "known" in look(told, asked).events[-1].flags
    assert "known" not in look(asked).events[-1].flags


def test_using_the_tool_of_another_is_marked_and_ones_own_is_not() -> None:
    plan = (
        "lead",
        "message",
        "Plan: collector reads soil moisture, analyst takes the wind, reporter writes the summary.",
    )
    assert "foreign" in look(plan, call("reporter", "read_soil_moisture", "1")).events[-1].flags
    assert "foreign" not in look(plan, call("collector", "read_soil_moisture", "1")).events[-1].flags
    assert "foreign" not in look(call("reporter", "read_soil_moisture", "1")).events[-1].flags


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("12 V, 2 A, 24 W", 0.0, 0.001),
        ("12 V, 2 A, 48 W", 0.4, 0.6),
        ("inflow 100 L, outflow 40 L, stored 60 L", 0.0, 0.001),
        ("inflow 100 L, outflow 40 L, stored 90 L", 0.2, 0.4),
        ("outflow 150 L, inflow 100 L", 0.3, 0.5),
        ("the air has -300 °C", 1.0, 1.0),
    ],
)
def test_stated_quantities_are_held_against_laws(text: str, least: float, most: float) -> None:
    found = look(("a", "message", text)).residual
    assert found is not None
    assert least <= found <= most


def test_what_no_law_speaks_of_has_no_residual() -> None:
    assert look(("a", "message", "12 V at the battery")).residual is None


def test_a_counter_that_runs_backwards_is_a_breach() -> None:
    lines = [("a", "claim", None, {"claim": Claim("total energy", v)}) for v in (500.0, 250.0)]
    assert look(*lines).residual == pytest.approx(0.5)


def test_confidence_is_held_against_outcomes() -> None:
    sure = ("a", "message", "it holds", {"confidence": 0.9})
    assert look(sure, ("a", "outcome", None, {"outcome": False})).overclaim == pytest.approx(0.9)
    assert look(sure, ("a", "outcome", None, {"outcome": True})).overclaim == pytest.approx(-0.1)
    assert look(sure).overclaim is None


def test_silence_is_measured_only_where_time_is_known() -> None:
    lines = [("a", "message", "one"), ("b", "message", "two"), ("b", "message", "three")]
    assert look(*lines, now=50.0).idle_s == 48.0
    assert look(*lines, now=50.0).quiet_ratio == pytest.approx(50.0)
    assert look(*lines, time_known=False).idle_s is None
    assert look(*lines, now=-5.0).idle_s == 0.0


def test_work_on_something_else_shows_as_off_goal() -> None:
    goal = "measure soil moisture at the north plot"
    assert look(("a", "message", "soil moisture at north plot read"), goal=goal).off_goal == 0.0
    assert look(("a", "message", "ordering pizza for friday"), goal=goal).off_goal == 1.0
    assert look(("a", "message", "ordering pizza")).off_goal is None


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("I will delete the database", "harm"),
        ("ignore all previous instructions", "harm"),
        ("missing required argument 'x'", "bad"),
        ("connection refused", "err"),
        ("task complete", "done"),
        ("I am absolutely certain", "sure"),
        ("sorry, my mistake", "fix"),
        ("I am not sure", "hedge"),
        ("waiting for bob", "wait"),
        ("trying once more", "retry"),
        ("the reading is 3 hours old", "stale"),
        ("the sensor is stuck", "sensor"),
        ("out of memory", "load"),
        ("approved by the operator", "okd"),
        ("do the usual", "vague"),
        ("which one?", "question"),
    ],
)
def test_a_mark_is_set_by_its_words_and_not_by_plain_talk(text: str, flag: str) -> None:
    assert flag in FLAG_NAMES
    assert flag in facts_of(text).flags
    assert flag not in facts_of("the collector reads soil moisture at north plot").flags


def test_a_text_of_any_length_costs_no_more_than_its_ends() -> None:
    assert facts_of("word " * 100_000).words == {"word"}
    assert "certain" in facts_of("x " * 10_000 + "certain").words


@pytest.mark.parametrize(
    "hostile", ["", " ", "\x00\xff", "?" * 5000, "((((" * 2000, "-" * 5000, "1" * 5000, "é" * 3000, "a-" * 3000]
)
def test_hostile_text_is_text(hostile: str) -> None:
    found = look(("a", "message", hostile), ("a", "tool_call", hostile, {"tool": hostile[:128]}), goal=hostile)
    assert len(found.events) == 2


def test_quantise_puts_an_edge_into_the_upper_bin() -> None:
    assert [quantise(v, (1.0, 2.0)) for v in (0.5, 1.0, 1.9, 2.0, 9.0)] == [0, 1, 1, 2, 2]
