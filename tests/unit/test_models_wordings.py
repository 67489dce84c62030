"""Wordings: every template can be spoken, splits do not share phrases, and the test windows stay what they were."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping

import msgspec
import pytest
from nis_models import faults, injected_words, injections
from nis_models.domains import Split
from nis_models.phrases import BANKS, LEARNED, fill, templates
from nis_models.scenarios import draw_item

SPLITS: tuple[Split, ...] = ("train", "tune", "test")
USUAL = "a a1 a2 a3 b p p1 p2 q q1 q2 u u2 n act words tool report thing"
"""Slots that are filled wherever a bank is spoken, and what single banks are given beside them."""
GIVEN = {
    "balance": "x y z", "final": "v1 u1 v2 u2", "invalid": "k", "long_job": "k n", "power": "volt i w",
    "sensor_bad": "bad",
    **dict.fromkeys(
        ("check", "correction", "history", "modest", "readback", "renewed", "report", "result", "sensor_real", "stale",
         "sure", "unsourced"), "v"
    ),
}  # fmt: skip
TOGETHER = (("contra_state_a", "contra_state_b"), ("instruct", "instruct_ack"), ("cancel", "end_reason"))
"""Banks drawn with one seed: the second answers the first, line by line."""

PLAIN = re.findall(
    r"\w+",
    """a an the is are was were be been it its i im ill ive id we were weve you your my me our us and or but so to
of in on at for from with by as that this there here not no do does did dont doesnt have has had will would can could
should may might must let lets than then if into up out about what which who how when all any some one now just only
after before""",
)
"""Words that carry no template's meaning."""

OVERLAP_MAX = 0.5
"""Share of content words that templates of different splits may have in common."""


def slots_of(bank: str) -> dict[str, object]:
    """What a bank's templates may name."""
    names = "thing p" if bank.startswith("contra_state") else f"{USUAL} {GIVEN.get(bank, '')}"
    return dict.fromkeys(names.split(), "x")


def content(template: str) -> frozenset[str]:
    """Stems of the words that carry a template's meaning."""
    words = re.findall(r"[a-z]+", re.sub(r"\{\w+\}|'", "", template.lower()))
    return frozenset(re.sub(r"(ing|ed|es|s|e)$", "", word) for word in words if len(word) > 1 and word not in PLAIN)


def too_alike(one: str, other: str) -> bool:
    first, second = content(one), content(other)
    return bool(first | second) and len(first & second) / len(first | second) > OVERLAP_MAX


@pytest.mark.parametrize("bank", sorted({*BANKS, *LEARNED}))
def test_every_template_can_be_filled(bank: str) -> None:
    for split in SPLITS:
        for _, template in templates(bank, split):
            text = fill(random.Random(1), template, slots_of(bank))
            assert text.strip()
            assert not re.search(r"\{[a-z]\w*\}", text), template


@pytest.mark.parametrize("bank", sorted(LEARNED))
def test_what_a_split_learned_is_not_said_alike_in_another(bank: str) -> None:
    known = {split: [text for _, text in templates(bank, split)] for split in SPLITS}
    written = LEARNED[bank]
    alike = [
        (text, other)
        for split in ("train", "tune")
        for text in written[split]
        for elsewhere in SPLITS
        if elsewhere != split
        for other in known[elsewhere]
        if too_alike(text, other)
    ]
    assert not alike


def tables() -> Iterator[tuple[str, Mapping[Split, tuple[str, ...]]]]:
    for name, table in vars(injected_words).items():
        if name.isupper():
            yield name, table


def test_words_of_injections_differ_from_split_to_split() -> None:
    for name, table in tables():
        assert {"train", "tune"} <= set(table), name
        texts = [(split, text) for split, known in table.items() for text in known if text]
        alike = [(a, b) for s, a in texts for t, b in texts if s != t and (a == b or too_alike(a, b))]
        assert not alike, name


@pytest.mark.parametrize(("first", "second"), TOGETHER)
def test_banks_that_belong_together_keep_in_step(first: str, second: str) -> None:
    for split in SPLITS:
        assert len(templates(first, split)) == len(templates(second, split))


def test_the_test_split_shows_no_later_mechanism() -> None:
    assert injections.injections("test") == injections.INJECTIONS
    assert injections.hard_negatives("test") == injections.HARD_NEGATIVES
    assert faults.hard_negatives("test") == faults.HARD_NEGATIVES
    for split in ("train", "tune"):
        assert set(injections.injections(split)) == set(injections.INJECTIONS)
        assert len(sum(faults.hard_negatives(split).values(), ())) > len(sum(faults.HARD_NEGATIVES.values(), ()))


def test_the_test_windows_are_those_the_published_figures_rest_on() -> None:
    drawn = b"\n".join(msgspec.json.encode(draw_item(seed, "test")) for seed in range(300))
    assert hashlib.sha256(drawn).hexdigest() == "fc52b6c4a8cdf199c0794267a20b859fe642608e967e1712b6398eb3c27d22dd"
