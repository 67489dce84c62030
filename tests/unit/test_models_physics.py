"""Physics items: labels come from how an item was made, the validator never errs, the reader of texts is bounded."""

from __future__ import annotations

import random

import pytest
from nis_models import physics_items, physics_text
from nis_models.physics_items import LAWS, Item, decided, draw, draw_many
from nis_models.physics_quantities import plain, quantities
from nis_models.physics_text import decide

ITEMS = list(draw_many(450, "dev", seed=10_000))


def test_every_law_of_the_design_makes_items_of_both_labels_and_all_sizes() -> None:
    assert {(item.law, item.label) for item in ITEMS} == {
        (law, side) for law in LAWS for side in ("consistent", "violation")
    }
    assert {item.size for item in ITEMS} == {"none", "small", "medium", "large"}
    assert len(LAWS) == 15


def test_the_validator_is_right_on_every_item_in_structured_form() -> None:
    wrong = [item for item in ITEMS if decided(item).decision != item.label]
    assert wrong == []


def test_an_items_label_is_not_the_validators_word(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = [item.label for item in draw_many(60, "dev", seed=500)]

    def contrary(item: Item) -> physics_items.Check:
        said = decided(item)
        other = {"consistent": "violation", "violation": "consistent"}.get(said.decision, said.decision)
        return physics_items.Check(law=said.law, decision=other, unit=said.unit)  # type: ignore[arg-type]

    monkeypatch.setattr(physics_items, "decided", contrary)
    assert [item.label for item in draw_many(60, "dev", seed=500)] == truth


def test_a_violation_lies_three_bounds_from_agreement() -> None:
    for item in ITEMS:
        check = decided(item)
        if item.label == "violation" and check.bound:
            assert check.residual is not None
            assert abs(check.residual) >= 3 * check.bound


def test_one_seed_makes_one_item() -> None:
    assert draw(7, "held_out") == draw(7, "held_out")
    assert draw(7, "held_out") != draw(8, "held_out")


def test_the_reader_knows_the_wordings_it_was_written_on() -> None:
    wrong = [item for item in ITEMS if decide(item.text).label != item.label]
    assert len(wrong) <= len(ITEMS) // 50, wrong[:3]


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        (
            "A 2.00 kg cart at 3.00 m/s hits a 1.00 kg cart at rest. They stick together and move at 2.00 m/s.",
            "consistent",
        ),
        (
            "A 2.00 kg cart at 3.00 m/s hits a 1.00 kg cart at rest. They stick together and move at 2.40 m/s.",
            "violation",
        ),
        ("A heater of 1500 W runs for 20.0 minutes and uses 1.80 MJ.", "consistent"),
        ("CH4 + 2 O2 → CO2 + 2 H2O", "consistent"),
        ("H2 + O2 -> H2O", "violation"),
        ("Total momentum before: 12.0 kg m/s. Total momentum after: 14.0 kg m/s.", "violation"),
        ("I1 = 2.50 A entering, I2 = 1.20 A entering, I3 = 3.70 A leaving.", "consistent"),
        ("A 10.0 Ah pack at 90 % is discharged at 2.00 A for 2.00 h and is then at 50 %.", "consistent"),
        ("A 10.0 Ah pack at 90 % is discharged at 2.00 A for 2.00 h and is then at 70 %.", "violation"),
        ("Mixing 1.00 kg of water at 80.0 C with 1.00 kg at 20.0 C yields 2.00 kg at 60.0 C.", "violation"),
        ("Heating 2.00 kg (c = 4186 J/(kg K)) from 20.0 °C to 30.0 °C requires 83720 J.", "consistent"),
        ("A body of 1.50 kg with 900 J/(kg K) absorbs 13.5 kJ and warms by 10.0 K.", "consistent"),
        ("Q = 500 J, W = 200 J (done by the gas), dU = 390 J.", "violation"),
        ("16.0 g of methane with 64.0 g of oxygen produces 44.0 g of CO2 and 36.0 g of water.", "consistent"),
        (
            "A disc of 2.0 kg·m² at 10.0 rad/s is coupled to one of 3.0 kg·m²; together they turn at 4.0 rad/s.",
            "consistent",
        ),
        ("An engine takes 1000 J at 500 K, rejects heat at 300 K and delivers 500 J of work.", "violation"),
        ("It brakes from 20.0 m/s to rest with a deceleration of 5.00 m/s^2 over 40.0 m.", "consistent"),
        ("F = m * a has units kg*m/s^2.", "consistent"),
        ("P = V * I", "consistent"),
        ("E = m * v", "violation"),
        ("Nothing here can be checked.", "unread"),
        ("", "unread"),
    ],
)
def test_a_text_is_decided_by_its_numbers_or_said_to_be_unread(text: str, decision: str) -> None:
    assert decide(text).decision == decision


def test_numbers_are_read_in_the_forms_that_people_write() -> None:
    found = quantities(
        plain("1,200 W, 3.0 x 10^4 J, 2.5e-3 A, −4.0 m/s, 20 degrees Celsius, 3 metres per second squared")
    )
    assert [(one.quantity.value, one.quantity.unit) for one in found] == [
        (1200.0, "W"), (3.0e4, "J"), (2.5e-3, "A"), (-4.0, "m/s"), (20.0, "degC"), (3.0, "m/s^2"),
    ]  # fmt: skip


def test_hostile_text_costs_no_more_than_a_bounded_reading() -> None:
    rng = random.Random(3)
    pieces = [
        "1.0 kg",
        "2 m/s",
        "->",
        "=",
        "H2",
        "((((",
        "is",
        "∞",
        "\x00",
        "9" * 50,
        "1e999",
        "-",
        "at rest",
        "\n",
        "°C",
        "%",
    ]
    for _ in range(150):
        text = " ".join(rng.choice(pieces) for _ in range(rng.randint(1, 60)))
        assert decide(text).label in ("consistent", "violation")
    long = plain("1 kg " * 100_000)
    assert len(quantities(long)) <= 40
    assert physics_text.decide("(" * 1_000_000).decision == "unread"
