"""The publisher's command: what it makes is what devices take, and every error names the fix."""

from __future__ import annotations

import argparse
import json
import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from nis_ota import cli, destinations, publishing
from nis_ota.keys import PASSPHRASE_VARIABLE, KeyRing
from nis_ota.repository import Repository
from nis_ota.roles import LIFE, Quorum
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from nis_edge.update.bundle import decode_bundle
from tests.support.update_world import golden_package


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    monkeypatch.setattr("os.fsync", lambda _fd: None)  # durability is what other tests are about


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_package(tmp_path_factory.mktemp("package") / "tiny.nis", "1.0.0")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_package(tmp_path_factory.mktemp("package") / "tiny.nis", "1.1.0", seed=1)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    assert cli.main(["init-repo", str(tmp_path / "fleet"), "--plain-keys"]) == 0
    return tmp_path / "fleet"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def publish(fleet: Path, package: Path, www: Path, counter: int = 1) -> None:
    words = ["add-target", str(fleet), str(package), "--release-counter", str(counter), "--offer-to", "stable"]
    assert cli.main(words) == 0
    assert cli.main(["publish", str(fleet), "--to", str(www)]) == 0


def test_what_is_published_passes_the_device_s_own_check(
    fleet: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(fleet, package, tmp_path / "www")
    capsys.readouterr()
    root = str(fleet / "metadata" / "1.root.json")
    assert cli.main(["verify", str(tmp_path / "www"), "--root", root, "--json"]) == 0
    (seen,) = json.loads(capsys.readouterr().out)
    assert (seen["name"], seen["target"], seen["release_counter"]) == ("stable", "models/tiny/1.0.0.nis", 1)


def test_root_and_models_need_two_of_three_offline_keys_and_online_roles_have_keys_of_their_own(fleet: Path) -> None:
    root = Metadata[Root].from_file(str(fleet / "metadata" / "1.root.json")).signed
    assert {role: (entry.threshold, len(entry.keyids)) for role, entry in root.roles.items()} == {
        "root": (2, 3), "targets": (2, 3), "snapshot": (1, 1), "timestamp": (1, 1),
    }  # fmt: skip
    delegations = Metadata[Targets].from_file(str(fleet / "metadata" / "1.targets.json")).signed.delegations
    assert delegations is not None and delegations.roles is not None
    roles = delegations.roles
    assert (roles["models"].threshold, roles["models"].paths, roles["models"].terminating) == (2, ["models/*/*"], True)
    assert (roles["rollout"].threshold, roles["rollout"].paths, roles["rollout"].terminating) == (
        1,
        ["rollout/*"],
        True,
    )
    online = {*root.roles["snapshot"].keyids, *root.roles["timestamp"].keyids, *roles["rollout"].keyids}
    assert len(online) == 3
    assert not online & {*root.roles["root"].keyids, *root.roles["targets"].keyids, *roles["models"].keyids}


def test_files_are_written_in_the_safe_order_and_the_timestamp_comes_after_everything_it_vouches_for(
    fleet: Path, package: Path, tmp_path: Path
) -> None:
    assert cli.main(["add-target", str(fleet), str(package), "--release-counter", "1", "--offer-to", "stable"]) == 0
    repository = Repository(fleet, KeyRing([fleet / "keys"]))
    repository.sign_online()
    written = publishing.publish(repository, tmp_path / "www")
    kinds = [name.split("/")[0] if name[:9] != "metadata/" else name.split(".", 1)[-1] for name in written]
    assert kinds == [
        "targets", "targets", "targets", "root.json", "models.json", "rollout.json", "targets.json", "snapshot.json",
        "json", "bundles",
    ]  # fmt: skip
    assert written[-2] == "metadata/timestamp.json"


def test_published_targets_carry_their_hash_in_their_name_and_are_not_written_twice(
    fleet: Path, package: Path, tmp_path: Path
) -> None:
    publish(fleet, package, tmp_path / "www")
    targets = {path: path.stat().st_ino for path in (tmp_path / "www" / "targets").rglob("*") if path.is_file()}
    assert all(len(path.name.split(".")[0]) == 64 for path in targets)
    assert cli.main(["publish", str(fleet), "--to", str(tmp_path / "www")]) == 0
    assert {path: path.stat().st_ino for path in targets} == targets


def test_a_check_costs_at_most_8_kib_with_six_models_listed_deltas_bounds_and_a_rotated_root(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a device that knows the newest root reads: timestamp, snapshot, targets, models, rollout, document."""
    www, counters = tmp_path / "www", range(1, 7)
    for n in counters:
        package = golden_package(tmp_path / f"{n}.nis", f"1.{n}.0", seed=n)
        words = ["add-target", str(fleet), str(package), "--release-counter", str(n), "--watts-max", "9.5"]
        if n == 6:
            words += ["--delta-from", "models/tiny/1.5.0.nis", "--delta-from", "models/tiny/1.4.0.nis"]
            words += ["--shadow-windows", "50", "--agreement-min", "0.9", "--offer-to", "stable"]
        assert cli.main(words) == 0
    assert cli.main(["key", "rotate", str(fleet), "timestamp", "snapshot"]) == 0
    capsys.readouterr()
    assert cli.main(["publish", str(fleet), "--to", str(www), "--json"]) == 0
    assert "WARNING" not in capsys.readouterr().err
    files = decode_bundle((www / "bundles" / "stable.json").read_bytes()).files
    check = sum(len(text) for name, text in files.items() if not name.endswith("root.json"))
    assert check <= 8192, check
    assert check > 5000  # so that the assertion above is about a full list


def test_a_check_that_outgrows_8_kib_is_said_with_the_cure(
    fleet: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware = [f"board-{n:02}-{'x' * 50}" for n in range(32)]
    for n in range(1, 5):
        words = ["add-target", str(fleet), str(package), "--release-counter", str(n), "--version", f"2.{n}.0"]
        assert cli.main([*words, "--hardware", *hardware]) == 0
    capsys.readouterr()
    assert cli.main(["publish", str(fleet), "--to", str(tmp_path / "www")]) == 0
    assert "nis-ota revoke target" in said(capsys)


def test_the_bundle_holds_the_chain_and_the_rollout_but_not_the_root_everyone_has(
    fleet: Path, package: Path, tmp_path: Path
) -> None:
    publish(fleet, package, tmp_path / "www")
    files = decode_bundle((tmp_path / "www" / "bundles" / "stable.json").read_bytes()).files
    assert {name.split(".", 1)[-1] if "/" not in name else "rollout/" for name in files} == {
        "json", "snapshot.json", "targets.json", "models.json", "rollout.json", "rollout/",
    }  # fmt: skip


def test_encrypted_keys_need_their_passphrase(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = str(tmp_path / "fleet")
    assert cli.main(["init-repo", fleet]) == 1
    assert PASSPHRASE_VARIABLE in said(capsys)
    assert not Path(fleet).exists()
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    assert cli.main(["init-repo", fleet]) == 0
    assert b"ENCRYPTED" in (tmp_path / "fleet" / "keys" / "root-1.pem").read_bytes()
    assert b"ENCRYPTED" not in (tmp_path / "fleet" / "keys" / "online" / "timestamp.pem").read_bytes()
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    assert cli.main(["add-target", fleet, str(package), "--release-counter", "1"]) == 1
    assert "wrong passphrase" in said(capsys)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    assert cli.main(["add-target", fleet, str(package), "--release-counter", "1"]) == 0


def test_keys_are_readable_by_their_owner_only_and_plain_ones_come_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init-repo", str(tmp_path / "fleet"), "--plain-keys"]) == 0
    assert "WARNING: the offline keys are not encrypted" in said(capsys)
    for path in (tmp_path / "fleet" / "keys").rglob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_offline_keys_may_be_elsewhere_and_online_work_needs_none_of_them(
    fleet: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = tmp_path / "safe"
    away.mkdir()
    for path in (fleet / "keys").glob("*.pem"):
        path.rename(away / path.name)
    capsys.readouterr()
    add = ["add-target", str(fleet), str(package), "--release-counter", "1", "--offer-to", "stable"]
    assert cli.main(add) == 1
    message = said(capsys)
    assert "needs 2 signatures, 0 of its keys are here (targets-1, targets-2, targets-3)" in message
    assert "--keys" in message
    assert cli.main([*add, "--keys", str(away)]) == 0
    assert cli.main(["publish", str(fleet), "--to", str(tmp_path / "www")]) == 0
    assert cli.main(["refresh-online", str(fleet), "--to", str(tmp_path / "www")]) == 0


def test_refreshing_renews_the_timestamp_each_time_and_the_snapshot_when_half_its_life_is_over(fleet: Path) -> None:
    now = datetime.now(timezone.utc)
    versions = []
    for days in (0, 1, 4):
        repository = Repository(fleet, KeyRing([fleet / "keys"]), now + timedelta(days=days))
        repository.sign_online()
        timestamp = Metadata[Timestamp].from_file(str(fleet / "metadata" / "timestamp.json")).signed
        snapshot = (
            Metadata[Snapshot]
            .from_file(str(fleet / "metadata" / f"{timestamp.snapshot_meta.version}.snapshot.json"))
            .signed
        )
        versions.append((timestamp.version, snapshot.version))
        assert timestamp.expires - LIFE["timestamp"] == (now + timedelta(days=days)).replace(microsecond=0)
    assert versions == [(2, 1), (3, 1), (4, 2)]


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["add-target", "FLEET", "nowhere.nis", "--release-counter", "1"], "check the path"),
        (["add-target", "FLEET", "JUNK", "--release-counter", "1"], ""),
        (["add-target", "FLEET", "PACKAGE", "--release-counter", "1", "--version", "../1"], "cannot be signed"),
        (["add-target", "FLEET", "PACKAGE", "--release-counter", "0"], "cannot be signed"),
        (["add-target", "FLEET", "PACKAGE", "--release-counter", "1", "--name", "../x"], "lower-case letters"),
        (["add-target", "FLEET", "PACKAGE", "--release-counter", "1", "--offer-to", "Stable!"], "a-z, 0-9"),
        (["add-target", "FLEET", "PACKAGE", "--release-counter", "1", "--minimum-agent", "new"], "cannot be signed"),
        (["rollout", "start", "FLEET", "models/tiny/9.nis"], "nis-ota add-target"),
        (["publish", "NOWHERE", "--to", "WWW"], "nis-ota init-repo"),
        (["verify", "NOWHERE", "--root", "ROOT"], "nis-ota publish"),
        (["publish-bundle", "FLEET", "--mqtt", "127.0.0.1:9", "--cohort", "stable"], "nis-ota rollout start"),
        (["init-repo", "FLEET", "--plain-keys"], "choose a new folder"),
    ],
)
def test_an_error_is_one_line_that_names_the_fix(
    fleet: Path, package: Path, tmp_path: Path, words: list[str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    names = {
        "FLEET": fleet, "PACKAGE": package, "JUNK": tmp_path / "junk", "NOWHERE": tmp_path / "nowhere",
        "WWW": tmp_path / "www", "ROOT": fleet / "metadata" / "1.root.json",
    }  # fmt: skip
    capsys.readouterr()
    assert cli.main([str(names.get(word, word)) for word in words]) == 1
    message = said(capsys)
    assert message.startswith("nis-ota: ")
    assert message.count("\n") == 1
    assert fix in message


@pytest.mark.parametrize(
    "words",
    [
        ["init-repo"],
        ["init-repo", "x", "--root", "3/2"],
        ["init-repo", "x", "--root", "two"],
        ["publish", "x", "--to", "y", "--mqtt", "broker"],
        ["publish", "x", "--to", "y", "--mqtt", "broker:99999"],
        ["burn"],
    ],
)
def test_wrong_words_end_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    capsys.readouterr()


def every_command() -> list[list[str]]:
    """The words of every command, from the parser itself."""

    def below(parser: argparse.ArgumentParser, words: list[str]) -> list[list[str]]:
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not groups:
            return [words]
        return [found for name, sub in groups[0].choices.items() for found in below(sub, [*words, name])]

    return below(cli._parser(), [])


def test_every_command_shows_an_example_and_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    for command in every_command():
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        shown = capsys.readouterr().out
        assert "Example: " in shown
        assert f"nis-ota {' '.join(command)}" in shown.split("Example: ")[1]
        assert "--json" in shown
    assert cli.main([]) == 2
    assert "The first update in five lines" in capsys.readouterr().out


def test_a_version_never_changes_its_bytes_and_counters_rise(
    fleet: Path, package: Path, newer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add = ["add-target", str(fleet), str(package), "--release-counter", "4"]
    assert cli.main(add) == 0
    assert cli.main([*add[:2], str(newer), "--release-counter", "5", "--version", "1.0.0"]) == 1
    assert "a version never changes" in said(capsys)
    assert cli.main([*add[:2], str(newer), "--release-counter", "4"]) == 1
    assert "use --release-counter 5" in said(capsys)
    assert cli.main([*add[:2], str(newer), "--release-counter", "5"]) == 0


def test_a_package_without_golden_entries_is_not_listed(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.tiny_models import write_tiny_package

    write_tiny_package(tmp_path / "p.nis", tokenizer=False)
    assert cli.main(["add-target", str(fleet), str(tmp_path / "p.nis"), "--release-counter", "1"]) == 1
    assert "no device could test it" in said(capsys)


@pytest.mark.parametrize("damage", ["target", "missing target", "timestamp", "bundle"])
def test_verify_finds_what_a_device_would_refuse(
    fleet: Path, package: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    www = tmp_path / "www"
    publish(fleet, package, www)
    target = next((www / "targets" / "models" / "tiny").glob("*.nis"))
    if damage == "target":
        target.write_bytes(target.read_bytes()[:-1] + b"!")
    elif damage == "missing target":
        target.unlink()
    elif damage == "timestamp":
        path = www / "metadata" / "timestamp.json"
        path.write_text(path.read_text().replace('"version":', '"version":9'))
    else:
        stale = (www / "bundles" / "stable.json").read_bytes()
        assert cli.main(["publish", str(fleet), "--to", str(www)]) == 0
        (www / "bundles" / "stable.json").write_bytes(stale)
    capsys.readouterr()
    assert cli.main(["verify", str(www), "--root", str(fleet / "metadata" / "1.root.json")]) == 1
    assert said(capsys).count("\n") == 1


def test_a_full_disk_while_publishing_leaves_the_old_timestamp_in_place(
    fleet: Path, package: Path, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    www = tmp_path / "www"
    publish(fleet, package, www)
    before = (www / "metadata" / "timestamp.json").read_bytes()
    assert cli.main(["add-target", str(fleet), str(newer), "--release-counter", "2", "--offer-to", "stable"]) == 0

    def full(*_args: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(destinations, "copy_durably", full)
    capsys.readouterr()
    assert cli.main(["publish", str(fleet), "--to", str(www)]) == 1
    assert "No space left" in said(capsys)
    monkeypatch.undo()
    assert (www / "metadata" / "timestamp.json").read_bytes() == before
    assert cli.main(["verify", str(www), "--root", str(fleet / "metadata" / "1.root.json")]) == 0


def test_a_quorum_is_m_of_n() -> None:
    assert Quorum.parse("1/1") == Quorum(1, 1)
    for text in ("0/1", "2/1", "1/10", "1", "a/b", ""):
        with pytest.raises(ValueError):
            Quorum.parse(text)
