"""The transition table: what may follow what, and what the journal says after each step."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.limits import UPDATE_DENIED_MAX, UPDATE_TRANSITIONS_MAX, UPDATE_TRIES
from nis_edge.update.journal import Journal, Slot, decode_record, encode_record
from nis_edge.update.machine import (
    TABLE,
    Effect,
    Event,
    NotInTableError,
    State,
    Update,
    deny,
    next_try,
    render_mermaid,
    resume,
    step,
)

OLD = Slot(sha256="0" * 64, version="1.0.0", release_counter=1)
NEW = Slot(sha256="1" * 64, version="2.0.0", release_counter=2, security_epoch=1, serial=7)
HAPPY = (
    Event.OFFERED,
    Event.ACCEPTED,
    Event.DOWNLOADED,
    Event.INTACT,
    Event.APPROVED,
    Event.TRY,
    Event.PASSED,
    Event.HEALTHY,
    Event.SETTLED,
)


def walk(update: Update, *events: Event) -> tuple[Update, list[Effect]]:
    effects: list[Effect] = []
    for event in events:
        update, now = step(update, event, reason="for a test", candidate=NEW if event is Event.ACCEPTED else None)
        effects += now
    return update, effects


def on_probation() -> Update:
    return walk(Update(journal=Journal(active=OLD)), *HAPPY[:7])[0]


def test_the_way_of_a_good_model_ends_with_it_active_and_the_old_one_kept() -> None:
    update, _ = walk(Update(journal=Journal(active=OLD)), *HAPPY)
    assert (update.state, update.journal.active, update.journal.previous) == (State.IDLE, NEW, OLD)
    assert update.journal.trial is None


def test_the_journal_first_names_a_model_when_its_bytes_are_whole_and_verified() -> None:
    update = Update(journal=Journal(active=OLD))
    for event in HAPPY[:4]:
        update, effects = step(update, event, candidate=NEW)
        assert Effect.PERSIST not in effects
        assert update.journal == Journal(active=OLD)
    update, effects = step(update, Event.APPROVED)
    assert effects[0] is Effect.PERSIST
    assert update.journal.trial == NEW


def test_case_14_the_counter_floor_rises_only_when_a_model_is_committed() -> None:
    update = on_probation()
    assert update.journal.floors.release_counter == 0
    update, _ = step(update, Event.HEALTHY)
    assert (update.journal.floors.release_counter, update.journal.floors.security_epoch) == (2, 1)


def test_the_journal_is_written_before_any_other_effect_of_a_step() -> None:
    for (state, event), row in TABLE.items():
        if row.change is not None:
            update = Update(state=state, candidate=NEW, journal=Journal(active=OLD, trial=NEW, tries_left=2))
            _, effects = step(update, event)
            assert effects[0] is Effect.PERSIST, (state, event)


def test_every_journal_write_has_a_new_generation() -> None:
    update, generations = Update(journal=Journal(active=OLD)), []
    for event in HAPPY:
        update, effects = step(update, event, candidate=NEW if event is Event.ACCEPTED else None)
        if Effect.PERSIST in effects:
            generations.append(update.journal.generation)
    assert generations == sorted(set(generations))
    assert len(generations) == 4


def test_case_40_a_self_test_that_takes_the_device_down_is_run_no_more_often_than_there_are_tries() -> None:
    update, runs = walk(Update(journal=Journal(active=OLD)), *HAPPY[:5])[0], 0
    while next_try(update) is Event.TRY:
        update, effects = step(update, Event.TRY)
        assert Effect.SELF_TEST in effects
        runs += 1
        written = decode_record(encode_record(update.journal))  # the power goes here, in the middle of the self-test
        assert written is not None
        update, event = resume(written)
        assert event is not None
        update, _ = step(update, event)
    assert runs == UPDATE_TRIES
    update, _ = step(update, Event.EXHAUSTED, reason="no tries left")
    assert (update.journal.active, update.journal.trial) == (OLD, None)
    assert update.journal.denial(NEW.sha256, NEW.serial) is not None


def test_case_40_a_model_that_crashes_the_daemon_on_probation_is_started_no_more_often_than_there_are_tries() -> None:
    update, starts = on_probation(), 1
    while True:
        update, event = resume(update.journal)
        assert event is not None
        update, _ = step(update, event, reason="no tries left")
        if event is Event.EXHAUSTED:
            break
        starts += 1
    assert starts == UPDATE_TRIES
    assert update.journal.active == OLD


@pytest.mark.parametrize("event", [Event.UNHEALTHY, Event.ROLLBACK_ASKED, Event.EXHAUSTED])
def test_a_model_that_fails_on_probation_is_replaced_by_the_old_one_and_denied(event: Event) -> None:
    update, effects = step(on_probation(), event, reason='it said "no"\n')
    assert effects == (Effect.PERSIST, Effect.RESTORE, Effect.SETTLE)
    assert (update.journal.active, update.journal.trial) == (OLD, None)
    denial = update.journal.denial(NEW.sha256, NEW.serial)
    assert denial is not None
    assert denial.reason == "it said ?no??"


def test_falling_back_to_the_previous_model_is_allowed_below_the_counter_floor() -> None:
    committed, _ = walk(Update(journal=Journal(active=OLD)), *HAPPY)
    update, effects = step(committed, Event.ROLLBACK_ASKED, reason="operator")
    assert update.journal.active == OLD
    assert update.journal.floors.release_counter == NEW.release_counter
    assert Effect.RESTORE in effects


def test_a_damaged_active_model_makes_way_without_being_denied() -> None:
    committed, _ = walk(Update(journal=Journal(active=OLD)), *HAPPY)
    update, effects = step(committed, Event.DAMAGED)
    assert (update.state, update.journal.active, update.journal.denied) == (State.IDLE, OLD, ())
    assert effects == (Effect.PERSIST,)


def test_an_update_that_goes_round_in_circles_is_ended_at_the_cap() -> None:
    update = walk(Update(journal=Journal(active=OLD)), *HAPPY[:5])[0]
    steps = 0
    while update.state is not State.ROLLED_BACK:
        update, effects = step(update, Event.RESTARTED)
        steps += 1
        assert steps <= UPDATE_TRANSITIONS_MAX
    assert effects[0] is Effect.PERSIST
    assert (update.journal.active, update.journal.trial) == (OLD, None)


def test_the_cap_never_keeps_an_update_from_ending() -> None:
    update = Update(
        state=State.PROBATION,
        candidate=NEW,
        journal=Journal(active=OLD, trial=NEW, tries_left=2, transitions=UPDATE_TRANSITIONS_MAX),
        transitions=UPDATE_TRANSITIONS_MAX,
    )
    assert step(update, Event.HEALTHY)[0].journal.active == NEW


def test_what_is_not_in_the_table_does_not_happen() -> None:
    with pytest.raises(NotInTableError, match="IDLE"):
        step(Update(), Event.PASSED)


@given(st.lists(st.sampled_from(list(Event)), max_size=60))
def test_whatever_happens_there_is_always_a_model_to_run_and_floors_never_fall(events: list[Event]) -> None:
    update = Update(journal=Journal(active=OLD))
    for event in events:
        floors = update.journal.floors
        try:
            update, _ = step(update, event, reason="r", candidate=NEW if event is Event.ACCEPTED else None)
        except NotInTableError:
            continue
        except AssertionError:
            assert event is Event.ROLLBACK_ASKED or event is Event.DAMAGED
            continue
        assert update.journal.floors.release_counter >= floors.release_counter
        assert decode_record(encode_record(update.journal)) == update.journal
        assert update.journal.tries_left >= 0
        if update.state in (State.TRIAL, State.SELFTEST, State.PROBATION):
            assert update.journal.trial == NEW


def test_the_denylist_forgets_the_oldest_when_it_is_full() -> None:
    denied = ()
    for n in range(UPDATE_DENIED_MAX + 1):
        denied = deny(denied, msgspec.structs.replace(NEW, sha256=f"{n:064x}"), "failed")
    assert len(denied) == UPDATE_DENIED_MAX
    assert denied[0].sha256 == f"{1:064x}"


def test_the_diagram_shows_every_row_of_the_table_once() -> None:
    lines = render_mermaid().splitlines()
    assert len(lines) == len(TABLE) + 2
    assert "    PROBATION --> COMMITTED: healthy [journal] / report, tidy the store" in lines
