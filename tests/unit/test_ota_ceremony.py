"""Keys that are never in one place: made apart, signing files that are carried, replaced when lost or stolen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from nis_ota import ceremony, cli, keys
from nis_ota.errors import PublisherError
from nis_ota.keys import PASSPHRASE_FILE_VARIABLE, PASSPHRASE_VARIABLE, KeyRing
from nis_ota.repository import Repository
from nis_ota.rotation import next_name
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from tests.support.update_world import World, file_hash, golden_package, world


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No passphrase from outside, and no flushing: durability is tested elsewhere."""
    for name in (PASSPHRASE_VARIABLE, PASSPHRASE_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.fsync", lambda _fd: None)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_package(tmp_path_factory.mktemp("package") / "tiny.nis", "1.0.0")


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


class Holders:
    """Six people, each with a medium of their own that never meets the others."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.media = {}
        for role in ("root", "targets"):
            for person in ("ann", "ben", "cho"):
                name = f"{role}-{person}"
                self.media[name] = tmp / "media" / name
                assert run("key", "gen", name, "--out", self.media[name], "--plain-keys") == 0

    def found(self) -> Path:
        fleet = self.tmp / "fleet"
        words = []
        for name, medium in self.media.items():
            words += [f"--{name.split('-')[0]}-key", medium / f"{name}.pub"]
        assert run("init-repo", fleet, *words) == 0
        return fleet

    def carry(self, name: str, *files: Path) -> tuple[int, list[Path]]:
        """Bring copies of files to a person, who signs; return the exit code and the signed copies."""
        copies = [Path(shutil.copy(file, self.media[name])) for file in files]
        return run("sign", *copies, "--keys", self.media[name]), copies


@pytest.fixture
def holders(tmp_path: Path) -> Holders:
    return Holders(tmp_path)


def test_a_fleet_is_founded_listed_and_published_by_people_whose_keys_never_meet(
    holders: Holders, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = holders.found()
    assert not list((fleet / "keys").glob("*.pem"))
    waiting = sorted((fleet / "staged").glob("*.json"))
    assert [path.name for path in waiting] == ["1.models.json", "1.rollout.json", "1.root.json", "1.targets.json"]
    roots, others = [fleet / "staged" / "1.root.json"], [p for p in waiting if p.name != "1.root.json"]
    codes, signed = [], []
    for name, files in (("root-ann", roots), ("root-cho", roots), ("targets-ben", others), ("targets-cho", others)):
        code, copies = holders.carry(name, *files)
        codes.append(code)
        signed += copies
    assert codes == [3, 3, 3, 3]  # each alone is not enough
    assert run("merge", "--into", fleet, *signed) == 0
    assert not list((fleet / "staged").iterdir())
    add = ["add-target", fleet, package, "--release-counter", 1]
    capsys.readouterr()
    assert run(*add) == 1
    assert "--stage" in said(capsys)
    assert run(*add, "--stage", "--json") == 3
    assert json.loads(capsys.readouterr().out)["staged"].endswith("staged/2.models.json")
    run("sign", fleet / "staged" / "2.models.json")  # without a key: only to read what is to be signed
    shown = capsys.readouterr().out
    assert f"models/tiny/1.0.0.nis: {package.stat().st_size} bytes, sha256 {file_hash(package)}" in shown
    assert '"release_counter": 1' in shown
    signed = [holders.carry(name, fleet / "staged" / "2.models.json")[1][0] for name in ("targets-ann", "targets-ben")]
    assert run("merge", "--into", fleet, *signed) == 0
    assert run("rollout", "start", fleet, "models/tiny/1.0.0.nis", "--waves", "100%") == 0
    assert run("publish", fleet, "--to", tmp_path / "www") == 0
    assert run("verify", tmp_path / "www", "--root", fleet / "metadata" / "1.root.json") == 0


def test_with_one_signature_too_few_nothing_is_taken_in_and_those_who_may_still_sign_are_named(
    holders: Holders, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = holders.found()
    _, copies = holders.carry("root-ann", fleet / "staged" / "1.root.json")
    capsys.readouterr()
    assert run("merge", "--into", fleet, *copies) == 1
    message = said(capsys)
    assert "1 of 2 signatures (root-ann)" in message
    assert "root-ben, root-cho" in message
    assert not list((fleet / "metadata").iterdir())
    _, more = holders.carry("root-ben", fleet / "staged" / "1.root.json")  # the first signature was kept with it
    assert run("merge", "--into", fleet, *more) == 0


def test_a_file_that_was_changed_on_its_way_is_not_merged(holders: Holders, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = holders.found()
    _, (ann,) = holders.carry("root-ann", fleet / "staged" / "1.root.json")
    _, (ben,) = holders.carry("root-ben", fleet / "staged" / "1.root.json")
    staged = ceremony.Staged.read(ben)
    staged.metadata.signed.expires += timedelta(days=3650)
    staged.write(ben)
    assert run("merge", "--into", fleet, ann, ben) == 1
    assert "do not say the same" in said(capsys)


def test_a_stranger_who_names_himself_as_the_one_who_must_sign_is_not_believed(
    holders: Holders, tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "other"
    assert run("init-repo", fleet, "--plain-keys") == 0
    away = tmp_path / "away"
    away.mkdir()
    for path in (fleet / "keys").glob("targets-*.pem"):
        path.rename(away / path.name)
    assert run("add-target", fleet, package, "--release-counter", 1, "--stage") == 3
    path = fleet / "staged" / "2.models.json"
    staged = ceremony.Staged.read(path)
    mallory = keys.generate(tmp_path / "mallory", "mallory", None)
    staged.wanted = [ceremony.Wanted("targets version 1", 1, {mallory.keyid: mallory})]
    assert staged.sign(KeyRing([tmp_path / "mallory"])) == ["mallory"]
    assert staged.complete
    staged.write(path)
    capsys.readouterr()
    assert run("merge", "--into", fleet, path) == 1
    assert "0 of 2 signatures" in said(capsys)


def test_a_second_change_does_not_overwrite_one_that_still_waits(
    tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "fleet"
    assert run("init-repo", fleet, "--plain-keys") == 0
    for path in (fleet / "keys").glob("targets-*.pem"):
        path.unlink()
    assert run("add-target", fleet, package, "--release-counter", 1, "--stage") == 3
    before = (fleet / "staged" / "2.models.json").read_bytes()
    assert run("add-target", fleet, package, "--release-counter", 2, "--version", "1.0.1", "--stage") == 1
    assert "waits for signatures already" in said(capsys)
    assert (fleet / "staged" / "2.models.json").read_bytes() == before


def test_the_root_of_trust_is_edited_signed_and_merged_with_files_alone_and_devices_follow(
    w: World, tmp_path: Path
) -> None:
    """Ann loses her key; the next root names another; the old keys and the new ones sign it, apart."""
    metadata, air = w.publisher.folder / "metadata", tmp_path / "air"
    assert run("key", "gen", "root-3", "--out", air, "--plain-keys") == 0
    shutil.copy(metadata / "1.root.json", air)
    edit = ["root", "edit", air / "1.root.json", "-o", air / "2.root.json"]
    assert run(*edit, "--add", "root", air / "root-3.pub", "--remove", "root", "root-1", "--threshold", "root", 2) == 0
    assert run("root", "sign", air / "2.root.json", "--keys", air) == 3
    assert run("root", "sign", air / "2.root.json", "--keys", w.publisher.folder / "keys") == 0
    assert run("root", "merge", "--into", w.publisher.folder, air / "2.root.json") == 0
    root = Metadata[Root].from_file(str(metadata / "2.root.json"))
    assert not root.unrecognized_fields  # the hint stays behind
    assert (root.signed.roles["root"].threshold, len(root.signed.roles["root"].keyids)) == (2, 2)
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error
    assert w.device.store.read_journal().floors.roles["root"].version == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--remove", "root", "nobody"], "root has no key 'nobody'"),
        (["--remove", "timestamp", "timestamp"], "timestamp would have 0 keys"),
        (["--threshold", "root", "3"], "root would have 2 keys and need 3"),
        (["--threshold", "root", "0"], "root would have 2 keys and need 0"),
        (["--threshold", "root", "x"], "a role and a number"),
        (["--threshold", "models", "1"], "'models' is no role of the root"),
    ],
)
def test_a_root_that_could_never_be_signed_again_is_not_written(
    w: World, tmp_path: Path, words: list[str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = w.publisher.folder / "metadata" / "1.root.json"
    assert run("root", "edit", first, "-o", tmp_path / "2.root.json", *words) == 1
    assert fix in said(capsys)
    assert not (tmp_path / "2.root.json").exists()


def test_a_thief_of_all_online_keys_who_ran_ahead_is_healed_by_rotating_them(w: World) -> None:
    """He signs versions in the millions; the device believes; new keys void what the old ones said."""
    ota = w.publisher.repository
    for role, kind in (("snapshot", Snapshot), ("timestamp", Timestamp)):
        name = "timestamp.json" if role == "timestamp" else f"{ota._newest(role)}.{role}.json"
        stolen: Metadata[Any] = Metadata[kind].from_file(str(ota.metadata / name))  # type: ignore[valid-type]
        stolen.signed.version = 5_000_000
        if role == "timestamp":
            stolen.signed.snapshot_meta.version = 5_000_000
        ota._sign_and_store(role, stolen)
        path = ota.metadata / ("timestamp.json" if role == "timestamp" else f"5000000.{role}.json")
        shutil.copy(path, w.tmp / "web" / "metadata" / path.name)
        if role == "snapshot":
            path.unlink()
    w.device.check()
    assert w.device.store.read_journal().floors.roles["timestamp"].version == 5_000_000  # type: ignore[union-attr]
    (w.tmp / "web" / "metadata" / "5000000.snapshot.json").unlink()
    honest = Metadata[Timestamp].from_file(str(ota.metadata / "timestamp.json"))
    honest.signed.version, honest.signed.snapshot_meta.version = 2, ota._newest("snapshot")
    ota._sign_and_store("timestamp", honest)
    w.publisher.release("2.0.0", 2, seed=1)
    assert not w.device.check()
    assert "5000000" in w.device.error or "version" in w.device.error
    assert run("key", "rotate", w.publisher.folder, "timestamp", "snapshot", "rollout") == 0
    w.publisher.publish()
    assert w.device.check(), w.device.error
    assert w.device.installed == "2.0.0"


def test_after_rotation_the_old_online_keys_sign_nothing_that_a_device_takes(w: World) -> None:
    old = shutil.copytree(w.publisher.folder / "keys", w.tmp / "stolen")
    before = shutil.copytree(w.publisher.folder, w.tmp / "before")
    assert run("key", "rotate", w.publisher.folder, "timestamp", "snapshot", "rollout") == 0
    w.publisher.publish()
    assert w.device.check() or not w.device.error
    thief = Repository(before, KeyRing([old]), w.publisher.now)
    thief.offer("stable", "models/tiny/1.0.0.nis")
    thief.sign_online()
    for path in thief.current_files():
        if "root" not in path.name:
            shutil.copy(path, w.tmp / "web" / "metadata" / path.name)
    assert not w.device.check()
    assert "metadata refused" in w.device.error


def test_an_offline_key_is_replaced_in_every_role_it_signs_and_devices_go_on(w: World) -> None:
    assert run("key", "rotate", w.publisher.folder, "targets-1", "--plain-keys") == 0
    names = {
        role: {keys.name_of(key) for key in demand.keys.values()}
        for role, demand in w.publisher.repository.demands().items()
    }
    assert names["targets"] == names["models"] == {"targets-1-r2", "targets-2", "targets-3"}
    (w.publisher.folder / "keys" / "targets-1.pem").unlink()
    (w.publisher.folder / "keys" / "targets-2.pem").unlink()
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error


def test_a_rotation_whose_signatures_are_missing_can_be_tried_again(
    w: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    for path in (w.publisher.folder / "keys").glob("root-*.pem"):
        path.rename(away / path.name)
    assert run("key", "rotate", w.publisher.folder, "timestamp") == 1
    assert "role root needs" in said(capsys)
    assert run("key", "rotate", w.publisher.folder, "timestamp", "--stage") == 3
    staged = w.publisher.folder / "staged" / "2.root.json"
    assert run("sign", staged, "--keys", away) == 0
    assert run("merge", "--into", w.publisher.folder, staged) == 0
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error
    assert (w.publisher.folder / "keys" / "online" / "timestamp-r2.pem").is_file()


def test_a_key_is_revoked_only_while_enough_others_are_left(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("revoke", "key", w.publisher.folder, "targets-3") == 0
    assert run("revoke", "key", w.publisher.folder, "targets-2") == 1
    assert "would have 1 keys and need 2" in said(capsys)
    assert run("revoke", "key", w.publisher.folder, "nobody") == 1
    assert "there are: " in said(capsys)


def test_roles_left_unsigned_by_a_rotation_are_not_published(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a root that was edited by hand: the targets keys are new, the targets metadata is not."""
    fleet = w.publisher.folder
    for n in (4, 5):
        assert run("key", "gen", f"targets-{n}", "--out", fleet / "keys", "--plain-keys") == 0
    words = [w for n in (4, 5) for w in ("--add", "targets", str(fleet / "keys" / f"targets-{n}.pub"))]
    words += [w for n in (1, 2) for w in ("--remove", "targets", f"targets-{n}")]
    assert run("root", "edit", fleet / "metadata" / "1.root.json", "-o", fleet / "2.root.json", *words) == 0
    assert run("sign", fleet / "2.root.json", "--keys", fleet / "keys") == 0
    assert run("merge", "--into", fleet, fleet / "2.root.json") == 0
    capsys.readouterr()
    assert run("publish", fleet, "--to", w.tmp / "elsewhere") == 1
    assert f"nis-ota sign {fleet} targets" in said(capsys)
    assert run("sign", fleet, "targets") == 0
    assert run("publish", fleet, "--to", w.tmp / "elsewhere") == 0


def test_a_public_key_under_a_foreign_id_is_refused_so_that_nobody_signs_twice(tmp_path: Path) -> None:
    key = keys.generate(tmp_path, "a", None)
    data = json.loads((tmp_path / "a.pub").read_text())
    data["keyid"] = "0" * 64
    (tmp_path / "b.pub").write_text(json.dumps(data))
    assert keys.read_public(tmp_path / "a.pub").keyid == key.keyid
    with pytest.raises(PublisherError, match="another key"):
        keys.read_public(tmp_path / "b.pub")
    for junk in (b"", b"{}", b"[1]", b'{"keyid": 1}', b"\xff" * 20000):
        (tmp_path / "b.pub").write_bytes(junk)
        with pytest.raises(PublisherError, match="no public key"):
            keys.read_public(tmp_path / "b.pub")


def test_each_holder_may_have_a_passphrase_of_his_own_and_is_asked_for_it(tmp_path: Path) -> None:
    one, two = keys.generate(tmp_path, "one", b"first"), keys.generate(tmp_path, "two", b"second")
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "first" if "one" in prompt else "second"

    ring = KeyRing([tmp_path], ask)
    assert [ring.signer(key) is not None for key in (one, two, one)] == [True, True, True]
    assert asked == ["Passphrase of one.pem: ", "Passphrase of two.pem: ", "Passphrase of one.pem: "]


def test_a_passphrase_comes_from_a_file_where_no_person_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "word").write_text("correct horse\n")
    monkeypatch.setenv(PASSPHRASE_FILE_VARIABLE, str(tmp_path / "word"))
    assert run("init-repo", tmp_path / "fleet") == 0
    pem = (tmp_path / "fleet" / "keys" / "root-1.pem").read_bytes()
    assert serialization.load_pem_private_key(pem, b"correct horse")


def test_an_existing_p256_key_is_taken_over_and_signs_and_an_rsa_key_is_not(
    w: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, private in (
        ("p256", ec.generate_private_key(ec.SECP256R1())),
        ("rsa", rsa.generate_private_key(65537, 2048)),
    ):
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / f"{name}.key").write_bytes(pem)
    fleet = w.publisher.folder
    words = ["--out", fleet / "keys" / "online", "--plain-keys"]
    assert run("key", "import", "ci", "--pem", tmp_path / "p256.key", *words) == 0
    assert run("key", "rotate", fleet, "timestamp", "--by", fleet / "keys" / "online" / "ci.pub") == 0
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error
    capsys.readouterr()
    assert run("key", "import", "x", "--pem", tmp_path / "rsa.key", *words) == 1
    assert "no Ed25519 or ECDSA P-256 key" in said(capsys)
    assert run("key", "import", "x", "--uri", "file:/etc/passwd", *words[:2]) == 1
    assert "unknown scheme" in said(capsys)
    assert run("key", "gen", "../x", "--plain-keys") == 1
    assert "inner hyphens" in said(capsys)


def test_a_hostile_file_to_sign_is_refused_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = keys.generate(tmp_path, "k", None)
    files = [
        b"",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
        b"x" * (2 << 20),
        json.dumps({"signed": {"_type": "root"}}).encode(),
    ]
    wanted = {"by": "x", "threshold": 1, "keys": {first.keyid: {"keytype": "ed25519"}}}
    files += [json.dumps({"signatures": [], "signed": {}, ceremony.WANTED_FIELD: [wanted]}).encode()]
    for data in files:
        (tmp_path / "2.models.json").write_bytes(data)
        assert run("sign", tmp_path / "2.models.json", "--keys", tmp_path) == 1
        message = said(capsys)
        assert message.count("\n") == 1
        assert "Traceback" not in message


def test_names_of_replaced_keys_count_up() -> None:
    assert [next_name(name) for name in ("timestamp", "timestamp-r2", "root-1", "a-r9")] == [
        "timestamp-r2", "timestamp-r3", "root-1-r2", "a-r10",
    ]  # fmt: skip


@pytest.fixture
def w(first_release: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(first_release, tmp_path / "world", symlinks=True)
    with world(tmp_path / "world") as made:
        yield made
