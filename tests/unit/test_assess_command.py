"""`nis-edge assess` from the outside: what it prints, what it refuses, and that it says the same thing twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import pytest

from nis_edge.cli import main
from nis_edge.monitor.window import SPECIALS
from nis_edge.pack.layout import Calibration
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors, write_tiny_package

GOOD = {
    "id": "good/1",
    "system": "unit",
    "outcome": 1,
    "events": [
        {"agent": "user", "kind": "user", "text": "What is on the shelf?"},
        {"agent": "helper", "kind": "agent", "text": 'CALL look {"at": "shelf"}'},
        {"agent": "tool:look", "kind": "tool", "text": '{"found": "a jar"}'},
        {"agent": "helper", "kind": "agent", "text": "There is a jar on the shelf."},
    ],
}
LOOPING = {
    "id": "bad/1",
    "system": "unit",
    "outcome": 0,
    "events": [
        GOOD["events"][0],
        *[
            line
            for _ in range(6)
            for line in (
                {"agent": "helper", "kind": "agent", "text": 'CALL look {"at": "shelf \u001b[31m"}'},
                {"agent": "tool:look", "kind": "tool", "text": "[]"},
            )
        ],
    ],
}


def written(path: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main(["assess", *map(str, words)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_a_run_with_a_loop_is_shown_with_its_evidence_and_a_good_one_is_only_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "runs.jsonl.gz", GOOD, LOOPING)
    code, out, _ = run(capsys, file, "--no-model")
    assert code == 0
    assert "DEGRADED  bad/1" in out and "good/1" not in out
    assert "looping  high  helper" in out and "-> interrupt the agent" in out
    assert '[12] helper tool call: CALL look {"at": "shelf' in out
    assert "2 judged, 17 events" in out and "runs with alerts recorded as failed: 1 of 1" in out
    assert "\x1b" not in out and "\\u001b" in out
    assert "good/1" in run(capsys, file, "--no-model", "--all")[1]


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "runs.jsonl", LOOPING, GOOD)
    outputs = []
    for name in ("one", "two"):
        verdicts = tmp_path / name
        _, out, _ = run(capsys, file, "--no-model", "--json", verdicts, "--every")
        outputs.append((out, verdicts.read_bytes()))
    assert outputs[0] == outputs[1]
    first = json.loads(outputs[0][1].splitlines()[0])
    assert (first["run"], first["worst"]) == ("bad/1", "degraded")
    assert first["findings"][0]["finding"]["label"] == "looping"
    assert len(first["assessments"]) == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "runs.jsonl", "two"]


def test_malformed_lines_are_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(
        tmp_path / "mixed.jsonl", "{nonsense", GOOD, "[1]", '{"id":"x","events":[{"agent":2}]}', "", '{"q":1}'
    )
    code, out, err = run(capsys, file, "--no-model")
    assert code == 0
    assert "1 judged, 4 events; 4 malformed lines left out" in out
    assert len(err.splitlines()) == 4 and "neither an event" in err
    assert f"{file}:1: no JSON" in err and f"{file}:3: a JSON list" in err and f"{file}:4: run refused" in err


@pytest.mark.parametrize("content", ["", "\n\n", "nonsense\n", "\x1f\x8bnot gzip at all"])
def test_a_file_without_a_readable_line_is_wrong_input(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_bytes(content.encode("latin-1"))
    code, _, err = run(capsys, file, "--no-model")
    assert code == 2
    assert "nothing was judged" in err


def test_a_truncated_gzip_is_judged_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = written(
        tmp_path / "whole.jsonl.gz", *[LOOPING | {"id": f"r{index}-{index * 7919}"} for index in range(300)]
    )
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    code, out, err = run(capsys, cut, "--no-model")
    assert code == 0
    assert "can't be read beyond here" in err and "malformed lines left out" in out


def test_a_missing_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path / "none.jsonl", "--no-model")
    assert code == 2
    assert len(err.splitlines()) == 1 and "none.jsonl" in err


def test_a_stream_of_events_has_a_clock_a_level_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def event(index: int, **fields: object) -> dict[str, object]:
        return {"id": f"e{index}", "ts": 1000.0 + index, "agent": "a", **fields}

    lines = [event(index, kind="heartbeat", ts=1000.0 + 30 * index) for index in range(8)]
    lines += [event(50, kind="step", ts=1400.0, ok=True, latency_ms=20.0, agent="b")]
    lines += [event(51 + index, kind="heartbeat", ts=1400.0 + index, agent="b") for index in range(4)]
    file = written(tmp_path / "events.jsonl", *lines, {"agent": "a", "kind": "message"})
    code, out, err = run(capsys, file, "--no-model")
    assert code == 0
    assert "lacks 'ts'" in err
    assert "stalled  high  a" in out and "its heartbeat allows 90 s" in out
    assert "success_rate" in out and "at the end: degraded; level none (no device readings)" in out


def test_limit_stops_early_and_options_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "runs.jsonl", *[GOOD] * 5)
    assert "2 judged" in run(capsys, file, "--no-model", "--limit", "2")[1]
    with pytest.raises(SystemExit) as caught:
        main(["assess", str(file), "--limit", "0"])
    assert caught.value.code == 2
    assert run(capsys, file, "--no-model", "--every")[0] == 2
    for out in (tmp_path, tmp_path / "none" / "x.json"):
        code, said, err = run(capsys, file, "--no-model", "--json", out)
        assert (code, said) == (2, "") and "nothing was read" in err


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model that can read windows, with a threshold that lets one finding through."""
    path = tmp_path_factory.mktemp("package") / "tiny.nis"
    manifest = tiny_manifest(specials=SPECIALS, vocab=256 + len(SPECIALS) + 64, context=256)
    manifest = msgspec.structs.replace(
        manifest, calibration=Calibration(thresholds={"goal_drift": 0.0}, temperature={"goal_drift": 1.0})
    )
    write_package(path, manifest, tiny_tensors(manifest))
    return path


def test_the_model_is_asked_for_each_event_and_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "runs.jsonl", GOOD, LOOPING)
    outputs = []
    for name in ("one", "two"):
        code, out, err = run(capsys, file, "--model", package, "--json", tmp_path / name)
        assert (code, err) == (0, "")
        outputs.append((out, (tmp_path / name).read_bytes()))
    assert outputs[0] == outputs[1]
    out, verdicts = outputs[0]
    assert "judged by the rules and the model tiny 0.0.1" in out
    assert "goal_drift  low  " in out and "DEGRADED  good/1" not in out and "(by the model, confidence" in out
    last = json.loads(verdicts.splitlines()[1])["last"]
    assert last["model"]["latency_ms"] is None and last["model"]["tokens"] > 20
    assert last["metrics"]["failure_probability"]["source"] == "modelled"


def test_a_package_made_for_other_windows_is_refused_before_anything_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tiny_package(tmp_path / "other.nis")
    code, out, err = run(capsys, written(tmp_path / "runs.jsonl", GOOD), "--model", other)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and "special token" in err


def test_a_broken_package_asked_for_by_name_is_one_clear_line(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.nis"
    broken.write_bytes(package.read_bytes()[:5000])
    code, _, err = run(capsys, written(tmp_path / "runs.jsonl", GOOD), "--model", broken)
    assert code == 2
    assert len(err.splitlines()) == 1 and "broken.nis" in err
