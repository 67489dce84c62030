"""The workloads do what their names say, or are named as impossible."""

from __future__ import annotations

from pathlib import Path

import pytest

from nis_edge.bench_models import BACKENDS, open_model
from nis_edge.bench_workloads import Impossible, Task, tasks
from nis_edge.monitor.tables import Tables
from tests.support.bench_doubles import HollowModel

SHIPPED = Path(__file__).parents[2] / "models/nis-nano/nis-nano.nis"


def tasks_of(model: HollowModel) -> dict[str, Task | Impossible]:
    return {task.name: task for task in tasks(model)}


def run(task: Task | Impossible, times: int = 1) -> list[int]:
    assert isinstance(task, Task)
    tokens = []
    for _ in range(times):
        task.prepare()
        tokens.append(task.run())
    return tokens


def test_an_assessment_computes_a_whole_full_window_each_time() -> None:
    model = HollowModel()
    first, second = run(tasks_of(model)["assessment"], 2)
    assert min(first, second) > 100
    assert model.tokens_seen == [first, second]


def test_an_incremental_assessment_computes_only_what_changed() -> None:
    model = HollowModel()
    timed = run(tasks_of(model)["incremental assessment"], 3)
    prepared, measured = model.tokens_seen[0::2], model.tokens_seen[1::2]
    assert measured == timed
    # The window that is measured is longer by an event than the one before it, yet costs less.
    assert all(0 < after < before for before, after in zip(prepared, measured, strict=True))


def test_both_assessments_ask_the_packages_tables_as_the_daemon_does(monkeypatch) -> None:
    asked = []
    fused = Tables.fused
    monkeypatch.setattr(Tables, "fused", lambda self, *seen: asked.append(len(seen)) or fused(self, *seen))
    model = open_model(SHIPPED, "native", 1)
    found = {task.name: task for task in tasks(model)}
    run(found["assessment"], 2)
    assert len(asked) == 2
    run(found["incremental assessment"])
    assert len(asked) == 4, "the window before it, and the one that is measured"
    model.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_knows_the_packages_tables(backend) -> None:
    model = open_model(SHIPPED, backend, 1)
    assert model.tables is not None and len(model.tables) > 1000
    model.close()


def test_windows_differ_from_run_to_run() -> None:
    model = HollowModel()
    task = tasks_of(model)["assessment"]
    assert len(set(run(task, 13))) > 1


def test_decode_takes_one_token_a_run_and_begins_anew_at_the_end_of_the_context() -> None:
    model = HollowModel(context=64)
    assert run(tasks_of(model)["decode"], 100) == [1] * 100
    assert model.tokens_seen.count(32) > 1


@pytest.mark.parametrize(("context", "tokens"), [(256, 128), (64, 64)])
def test_prefill_takes_128_tokens_or_the_whole_context(context, tokens) -> None:
    assert run(tasks_of(HollowModel(context=context))["prefill"], 2) == [tokens, tokens]


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ({"tokenizer": False}, "no tokenizer"),
        ({"task_heads": {}}, "no task head 'consciousness'"),
        ({"context": 64}, "the package's context has 64"),
    ],
)
def test_what_a_package_lacks_for_an_assessment_is_a_reason_and_the_rest_still_runs(shape, told) -> None:
    found = tasks_of(HollowModel(**shape))
    for name in ("assessment", "incremental assessment"):
        impossible = found[name]
        assert isinstance(impossible, Impossible) and told in impossible.reason
    assert isinstance(found["decode"], Task) and isinstance(found["prefill"], Task)
