"""The model that answers windows: what it keeps between windows changes no answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nis_edge.errors import ModelError
from nis_edge.judgement import PromptJudge
from nis_edge.monitor.context import NO_DEVICE, Window, window_of
from nis_edge.monitor.labels import LABELS
from nis_edge.monitor.window import SPECIALS
from nis_edge.wire.messages import AgentEvent
from tests.support.clock import SteppedClock
from tests.support.tiny_models import write_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judgement") / "tiny.nis"
    return write_tiny_package(path, specials=SPECIALS, vocab=256 + len(SPECIALS) + 64, context=256)


def windows() -> Iterator[Window]:
    texts = ("go to the field", "the pump is dry", "the pump is dry", "look again", "all done here", "ende", "α" * 400)
    events = [
        AgentEvent(id=str(index), ts=float(index), agent=f"a{index % 3}", kind="message", text=text)
        for index, text in enumerate(texts * 3)
    ]
    for count in range(1, len(events) + 1):
        yield window_of("water the field", events[:count], NO_DEVICE, float(count), time_known=True)


def test_what_is_kept_of_one_window_changes_no_answer_to_the_next(package: Path) -> None:
    kept = PromptJudge(package)
    for window in windows():
        fresh = PromptJudge(package)
        assert kept.answer_window(window) == fresh.answer_window(window)
        fresh.close()
    kept.close()


def test_an_answer_names_every_label_and_takes_the_time_the_clock_says(package: Path) -> None:
    judge = PromptJudge(package, clock=SteppedClock())
    answer = judge.answer_window(next(windows()))
    assert tuple(answer.probabilities) == LABELS
    assert answer.failure_probability is not None and answer.latency_ms == 0.0
    judge.close()
    assert PromptJudge(package).answer_window(next(windows())).latency_ms is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tokenizer": False}, "tokenizer"),
        ({"task_heads": {}, "specials": SPECIALS, "vocab": 640, "context": 256}, "task head"),
        ({"specials": SPECIALS, "vocab": 640, "context": 64}, "positions"),
    ],
)
def test_a_package_that_cannot_judge_is_refused_and_closed(
    options: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = write_tiny_package(tmp_path / "other.nis", **options)
    with pytest.raises(ModelError, match=reason):
        PromptJudge(path)
