"""`nis-edge update`: what an operator types, with no daemon running, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from nis_ota import publishing

from nis_edge import cli
from nis_edge.adapters.slot_store import SlotStore
from nis_edge.starting import take_state_folder
from tests.support.update_world import REFERENCE_SELF_TEST, World, file_hash, golden_package, world


@pytest.fixture
def w(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("nis_edge.trial.SubprocessSelfTest.__init__.__defaults__", (REFERENCE_SELF_TEST, 60.0))
    with world(tmp_path) as made:
        made.publisher.now = datetime.now(timezone.utc)
        (tmp_path / "edge.toml").write_text(
            f'[device]\nid = "dev-1"\nstate = "{tmp_path}/state"\n'
            f'[update]\nrepository = "{made.web.url}"\nroot = "{made.publisher.root}"\n'
        )
        yield made


def edge(w: World, *words: str) -> int:
    return cli.main(["update", *words, "--config", str(w.tmp / "edge.toml")])


def out(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out, captured.err


def test_the_way_of_a_model_under_the_operator_s_hand(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    package = w.publisher.release("1.0.0", 1)
    assert edge(w, "status") == 0
    assert "installed  factory" in out(capsys)[0]
    assert edge(w, "check") == 0
    assert out(capsys)[0] == "1.0.0 is new\n"
    assert not SlotStore(w.tmp / "state" / "update").holds(file_hash(package)), "check changes nothing"
    assert edge(w, "apply") == 0
    assert "loaded when the daemon starts next" in out(capsys)[0]
    assert edge(w, "status", "--json") == 0
    facts = json.loads(out(capsys)[0])
    assert (facts["journal"]["state"], facts["journal"]["trial"]["version"]) == ("PROBATION", "1.0.0")
    assert edge(w, "rollback") == 0
    assert edge(w, "status") == 0
    assert "rolled back by the operator" in out(capsys)[0]
    assert edge(w, "apply") == 0
    assert "failed here before" in out(capsys)[0]


def test_a_trial_that_a_power_cut_ended_goes_on_by_the_next_command(
    w: World, capsys: pytest.CaptureFixture[str]
) -> None:
    w.publisher.release("1.0.0", 1)
    assert edge(w, "apply") == 0
    store = SlotStore(w.tmp / "state" / "update")
    journal = store.read_journal()
    assert journal is not None
    cut = msgspec.structs.replace(journal, state="TRIAL", tries_left=3, generation=journal.generation + 1)
    store.write_journal(cut)
    out(capsys)
    assert edge(w, "apply") == 0
    assert "1.0.0 passed its self-test" in out(capsys)[0]
    after = store.read_journal()
    assert after is not None
    assert after.state == "PROBATION"
    assert edge(w, "apply") == 0
    assert out(capsys)[0].startswith("an update is under way (PROBATION)")


def test_import_takes_a_published_folder(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    w.publisher.release("1.0.0", 1)
    assert edge(w, "import", str(w.tmp / "web")) == 0
    assert "loaded when the daemon starts next" in out(capsys)[0]
    assert [path for path, _ in w.web.requests] == []


def test_a_stick_for_one_device_is_taken_by_it_whatever_its_link_costs(
    w: World, capsys: pytest.CaptureFixture[str]
) -> None:
    w.publisher.release("1.0.0", 1)
    package = golden_package(w.tmp / "2.nis", "2.0.0", 1)
    w.publisher.repository.offer("stable", w.publisher.add(package, "2.0.0", 2), device="dev-1")
    w.publisher.repository.sign_online()
    publishing.export(w.publisher.repository, "dev.dev-1", w.tmp / "stick")
    config = w.tmp / "edge.toml"
    config.write_text(config.read_text() + 'metered = "yes"\nmetered_mib_max = 0\n')
    assert edge(w, "import", str(w.tmp / "stick")) == 0, out(capsys)
    assert SlotStore(w.tmp / "state" / "update").holds(file_hash(package))


def test_the_configured_hardware_counts_with_and_without_the_daemon(
    w: World, capsys: pytest.CaptureFixture[str]
) -> None:
    config = w.tmp / "edge.toml"
    config.write_text(config.read_text() + 'hardware = "jetson-orin"\n')
    w.publisher.release("1.0.0", 1, hardware=("jetson-orin",))
    assert edge(w, "apply") == 0, out(capsys)


def test_a_model_that_needs_more_memory_than_there_is_is_refused_before_it_is_fetched(
    w: World, capsys: pytest.CaptureFixture[str]
) -> None:
    w.publisher.release("1.0.0", 1, memory_bytes=1 << 50)
    assert edge(w, "apply") == 1
    assert "memory" in out(capsys)[1]
    assert not any(path.startswith("/targets/models") for path, _ in w.web.requests)


def test_a_refusal_is_one_line_and_code_1(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    w.publisher.release("1.0.0", 1, hardware=("jetson-orin",))
    assert edge(w, "apply") == 1
    assert out(capsys)[1].startswith("nis-edge: 1.0.0 is for jetson-orin")
    w.web.close()
    assert edge(w, "check") == 1
    assert "does not answer" in out(capsys)[1]


@pytest.mark.parametrize("words", [["import"], ["check", "somewhere"], ["burn"], [], ["tuf-client", "init"]])
def test_wrong_usage_is_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["update", *words])
    assert ended.value.code == 2
    out(capsys)


def test_nothing_to_roll_back_is_said(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert edge(w, "rollback") == 1
    assert "nothing to roll back" in out(capsys)[1]


def test_a_journal_without_a_readable_record_is_reported(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    (w.tmp / "state" / "update").mkdir(parents=True)
    (w.tmp / "state" / "update" / "journal").write_bytes(b"\0" * 8192)
    assert edge(w, "status") == 1
    assert "no record is readable" in out(capsys)[1]


def test_a_running_daemon_is_asked_and_not_worked_around(
    w: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nis_edge.commands.update.PATIENCE_S", 0.3)
    w.publisher.release("1.0.0", 1)
    with take_state_folder(w.tmp / "state"):
        (w.tmp / "state" / "update").mkdir()
        assert edge(w, "apply") == 1
    assert "daemon did not answer" in out(capsys)[1]
    assert w.web.requests == []
    assert not (w.tmp / "state" / "update" / "request.json").exists()


def test_without_a_configured_root_nothing_is_trusted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(f'[device]\nstate = "{tmp_path}/state"\n')
    assert cli.main(["update", "check", "--config", str(tmp_path / "edge.toml")]) == 1
    assert "update.root" in out(capsys)[1]
