"""The golden self-test: recorded when packing, repeated when verifying, and it fails when anything differs."""

import json

import msgspec
import pytest

from nis_edge.cli import main
from nis_edge.engine import golden
from nis_edge.engine.model import Model
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors, write_tiny_package


def with_golden(path, change=lambda record: record):
    """A tiny package that brings a self-test."""
    write_tiny_package(path)
    model = Model.open(path)
    record = change(golden.record(model))
    model.close()
    manifest = msgspec.structs.replace(tiny_manifest(), golden=(record,))
    write_package(path, manifest, tiny_tensors(manifest))
    return path


def test_verify_repeats_the_self_test_that_was_recorded(tmp_path, capsys):
    path = with_golden(tmp_path / "a.nis")
    assert main(["verify", str(path)]) == 0
    assert "self-test: 1 of 1 passed with" in capsys.readouterr().out
    assert main(["verify", str(path), "--isa", "scalar", "--threads", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["self_tests_run"] == 1
    assert facts["isa"] == "scalar"
    assert facts["faults"] == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda g: msgspec.structs.replace(g, logits_sha256="0" * 64), "the logits are not the recorded ones"),
        (lambda g: msgspec.structs.replace(g, tokens=g.tokens[:-1]), "the logits are not the recorded ones"),
        (
            lambda g: msgspec.structs.replace(g, heads_sha256={"consciousness": "0" * 64}),
            "the outputs of task head consciousness are not the recorded ones",
        ),
    ],
)
def test_verify_fails_when_the_engine_computes_something_else(tmp_path, capsys, change, fault):
    path = with_golden(tmp_path / "a.nis", change)
    assert main(["verify", str(path)]) == 1
    assert fault in capsys.readouterr().out
    assert main(["verify", str(path), "--json"]) == 1
    assert fault in json.loads(capsys.readouterr().out)["faults"][0]


def test_the_record_covers_every_task_head_and_stays_within_the_context(tmp_path):
    path = write_tiny_package(tmp_path / "a.nis", context=5)
    model = Model.open(path)
    try:
        record = golden.record(model)
    finally:
        model.close()
    assert len(record.tokens) == 5
    assert set(record.heads_sha256) == {"consciousness"}


def test_packing_adds_a_self_test_and_leaves_no_other_file(tmp_path, capsys):
    from tests.parity.test_recorded_oracle import CASES

    path = tmp_path / "a.nis"
    assert main(["pack", str(CASES[0]), "-o", str(path)]) == 0
    first = path.read_bytes()
    with open_package(path) as package:
        assert len(package.manifest.golden) == 1
    assert main(["verify", str(path)]) == 0
    assert main(["pack", str(CASES[0]), "-o", str(path)]) == 0
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nis"]
    assert "sha256" in capsys.readouterr().out
