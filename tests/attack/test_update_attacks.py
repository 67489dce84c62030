"""What somebody who owns the broker, the bucket or a key can do to a device: nothing that loads other bytes.

Numbers are those of the case list in the update design. In every refusal the old model keeps running, the log gets one
event, and the status says why.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nis_ota.keys import KeyRing, generate
from nis_ota.repository import Repository
from nis_ota.roles import MODELS, ROLLOUT
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from nis_edge.limits import UPDATE_BUNDLE_BYTES_MAX
from nis_edge.update.bundle import Bundle, encode_bundle
from tests.support.update_world import NOW, World, file_hash, world
from tests.support.web_folder import body, endless, status


@pytest.fixture
def w(first_release: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of that world, whose publisher is about to do, or suffer, something."""
    shutil.copytree(first_release, tmp_path, symlinks=True, dirs_exist_ok=True)
    with world(tmp_path) as made:
        assert made.device.installed == "1.0.0"
        yield made


def refused(w: World, kind: str, *, bundle: bytes | None = None, url: bool = True) -> str:
    """Look once; the old model must keep running, with one refusal of that kind; return what was said."""
    before = w.device.running
    if not url:
        w.device.url = None
        w.device.boot()
    assert not w.device.check(bundle=bundle)
    assert w.device.running == before
    assert w.device.installed == "1.0.0"
    events = [(n, f) for n, f in w.device.events if n in ("update.refused", "update.failed")]
    assert [(n, f["kind"]) for n, f in events] == [("update.refused", kind)], events
    assert w.device.error == events[0][1]["reason"]
    assert "\n" not in w.device.error
    assert "old model" in w.device.error or "running model stays" in w.device.error
    return w.device.error


def rewrite(path: Path, change: Any) -> None:
    """Change a metadata file without the keys to sign it."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def newest(w: World, role: str) -> Path:
    files = (w.tmp / "web" / "metadata").glob(f"*.{role}.json")
    return max(files, key=lambda path: int(path.name.split(".")[0]))


# --- signatures -------------------------------------------------------------------------------------------------------


def test_an_unsigned_notice_is_refused(w: World) -> None:
    bundle = json.loads(w.publisher.bundle())
    for name, text in bundle["files"].items():
        document = json.loads(text)
        if "signatures" in document:
            document["signatures"] = []
            document["signed"]["version"] += name == "timestamp.json"
        bundle["files"][name] = json.dumps(document)
    assert "timestamp" in refused(w, "UntrustedMetadataError", bundle=json.dumps(bundle).encode())


def test_case_27_a_forged_notice_signed_by_a_stranger_is_refused(w: World, tmp_path: Path) -> None:
    from tests.support.update_world import Publisher

    stranger = Publisher(tmp_path / "stranger", tmp_path / "stranger-web")
    stranger.release("6.6.6", 666)
    timestamp = stranger.repository.metadata / "timestamp.json"
    forged = Metadata[Timestamp].from_file(str(timestamp))
    forged.signed.version = 99
    timestamp.write_bytes(forged.to_bytes())
    refused(w, "UntrustedMetadataError", bundle=stranger.bundle())


def test_case_1_one_of_two_needed_signatures_is_refused(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    rewrite(newest(w, MODELS), lambda d: d["signatures"].pop())
    rewrite(newest(w, MODELS), lambda d: d["signatures"].pop())
    assert "models" in refused(w, "UntrustedMetadataError")


def test_case_2_a_signature_given_twice_counts_once(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)

    def double(document: Any) -> None:
        document["signatures"] = [document["signatures"][0]] * 2

    rewrite(newest(w, MODELS), double)
    refused(w, "UntrustedMetadataError")


def test_case_10_a_model_signed_by_a_revoked_key_is_refused(w: World) -> None:
    """The thief holds two of three old keys; the owner has replaced them; the thief signs a model with the old ones."""
    publisher = w.publisher
    thief = w.tmp / "thief"
    shutil.copytree(publisher.folder / "keys", thief)
    rotate_model_keys(w)
    publisher.publish()
    stolen = Repository(publisher.folder, KeyRing([thief]), publisher.now)
    listed = Metadata[Targets].from_file(str(newest_of(publisher.folder, MODELS)))
    listed.signed.version += 1
    listed.signatures.clear()
    old_targets = Metadata[Targets].from_file(str(publisher.folder / "metadata" / "1.targets.json"))
    assert old_targets.signed.delegations is not None
    for key in old_targets.signed.delegations.keys.values():
        signer = stolen._ring.signer(key)
        if signer is not None:
            listed.sign(signer, append=True)
    (publisher.folder / "metadata" / f"{listed.signed.version}.models.json").write_bytes(listed.to_bytes())
    publisher.publish()
    assert "models" in refused(w, "UntrustedMetadataError")


def rotate_model_keys(w: World) -> None:
    """Give the models role new keys, signed by the targets role."""
    publisher = w.publisher
    repository = publisher.repository
    metadata = repository._load("targets", Targets)
    delegations = metadata.signed.delegations
    assert delegations is not None and delegations.roles is not None
    for keyid in list(delegations.roles[MODELS].keyids):
        metadata.signed.revoke_key(keyid, MODELS)
    for n in range(3):
        metadata.signed.add_key(generate(publisher.folder / "keys", f"models-{n + 1}", None), MODELS)
    repository._sign_next("targets", metadata)
    repository._sign_next(MODELS, repository._load(MODELS, Targets))


def newest_of(folder: Path, role: str) -> Path:
    return max((folder / "metadata").glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))


def test_case_11_the_online_rollout_key_cannot_sign_a_model(w: World) -> None:
    """The thief of the online keys lists a model in the rollout role itself."""
    repository = w.publisher.repository
    evil = w.tmp / "evil.nis"
    evil.write_bytes(b"evil bytes")
    path = "models/tiny/6.6.6.nis"
    info = TargetFile.from_file(path, str(evil), ["sha256"])
    info.unrecognized_fields["custom"] = {"version": "6.6.6", "release_counter": 666, "hardware": ["any"]}
    role = repository._load(ROLLOUT, Targets)
    role.signed.targets[path] = info
    offer_by_hand(w, role, path, info.hashes["sha256"], info.length)
    assert "not signed offline" in refused(w, "UntrustedMetadataError")


def test_case_12_a_rollout_with_another_hash_than_the_offline_one_is_refused(w: World) -> None:
    role = w.publisher.repository._load(ROLLOUT, Targets)
    offer_by_hand(w, role, "models/tiny/1.0.0.nis", "6" * 64, 10)
    assert "differs from what is signed offline" in refused(w, "UntrustedMetadataError")


def offer_by_hand(
    w: World, role: Metadata[Targets], path: str, sha256: str, length: int, cohort: str = "stable"
) -> None:
    """What a thief of the online keys can sign: any rollout document, snapshot and timestamp."""
    repository = w.publisher.repository
    document = {"v": 1, "cohort": cohort, "serial": 99, "target": path, "sha256": sha256, "length": length}
    data = json.dumps(document).encode()
    info = TargetFile.from_data("rollout/stable.json", data, ["sha256"])
    role.signed.targets["rollout/stable.json"] = info
    repository._store_target("rollout/stable.json", info.hashes["sha256"], data)
    repository._sign_next(ROLLOUT, role)
    w.publisher.publish()


@pytest.mark.parametrize(
    "path", ["../../etc/cron.d/evil", "models/../../evil.nis", "/etc/passwd", "models/tiny/..", "models/a/b/c.nis", ""]
)
def test_case_17_a_target_name_with_dots_or_slashes_is_refused_and_touches_nothing(w: World, path: str) -> None:
    offer_by_hand(w, w.publisher.repository._load(ROLLOUT, Targets), path, "6" * 64, 10)
    before = sorted(str(p) for p in w.tmp.rglob("*") if "device" not in p.parts)
    assert "target name" in refused(w, "UntrustedMetadataError")
    assert sorted(str(p) for p in w.tmp.rglob("*") if "device" not in p.parts) == before


def test_case_13_a_rollout_meant_for_another_cohort_is_refused(w: World) -> None:
    role = w.publisher.repository._load(ROLLOUT, Targets)
    offer_by_hand(w, role, "models/tiny/1.0.0.nis", "6" * 64, 10, cohort="canary")
    assert "cohort" in refused(w, "UntrustedMetadataError")


# --- time and versions ------------------------------------------------------------------------------------------------


def snapshot_of_web(w: World) -> Path:
    saved = w.tmp / "saved"
    shutil.copytree(w.tmp / "web", saved)
    return saved


def replay(w: World, saved: Path) -> None:
    shutil.rmtree(w.tmp / "web")
    shutil.copytree(saved, w.tmp / "web")


def test_case_3_a_replayed_timestamp_is_refused(w: World) -> None:
    saved = snapshot_of_web(w)
    w.publisher.publish()
    assert not w.device.check()
    replay(w, saved)
    refused(w, "RollbackRefusedError")


@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage"])
def test_case_4_a_replayed_timestamp_is_refused_with_a_cache_that_was_lost(w: World, damage: str) -> None:
    """python-tuf alone accepts this: its cache is its only memory. Ours is the journal."""
    saved = snapshot_of_web(w)
    w.publisher.publish()
    assert not w.device.check()
    replay(w, saved)
    for path in (w.device.folder / "update" / "tuf").glob("*.json"):
        if not path.is_symlink():
            path.unlink() if damage == "missing" else path.write_bytes(b"" if damage == "truncated" else b"\0" * 99)
    assert "already seen" in refused(w, "RollbackRefusedError")


def test_a_stale_notice_is_refused(w: World) -> None:
    stale = w.publisher.bundle()
    w.publisher.publish()
    assert not w.device.check()
    refused(w, "RollbackRefusedError", bundle=stale)


def test_case_5_an_older_list_of_models_under_a_newer_timestamp_is_refused(w: World) -> None:
    old = (w.publisher.folder / "metadata" / "2.models.json").read_bytes()
    w.publisher.release("1.1.0", 2, seed=1)
    assert w.device.check(), w.device.error
    w.device.events.clear()
    repository = w.publisher.repository
    (repository.metadata / f"{repository._newest(MODELS)}.models.json").write_bytes(old)
    snapshot = repository._load("snapshot", Snapshot)
    snapshot.signed.meta["models.json"].version = 2
    repository._sign_next("snapshot", snapshot)
    for path in repository.metadata.glob("[3-9].models.json"):
        path.unlink()
    w.publisher.publish()
    w.device.in_service.append(w.device.running)
    assert not w.device.check()
    assert w.device.installed == "1.1.0"
    assert [f["kind"] for n, f in w.device.events if n == "update.refused"] == ["RollbackRefusedError"]


def test_case_6_after_rotating_its_keys_a_role_may_start_from_a_low_version_again(w: World) -> None:
    """A thief of the timestamp key made it version 1000000; the owner rotates the key and goes on from 1."""
    repository = w.publisher.repository
    path = repository.metadata / "timestamp.json"
    timestamp = Metadata[Timestamp].from_file(str(path))
    timestamp.signed.version = 1_000_000
    repository._sign_and_store("timestamp", timestamp)
    w.publisher.publish()
    assert not w.device.check()
    assert w.device.store.read_journal().floors.roles["timestamp"].version > 1_000_000  # type: ignore[union-attr]

    root = repository._load("root", Root)
    old = root.signed.roles["timestamp"].keyids[0]
    root.signed.revoke_key(old, "timestamp")
    root.signed.add_key(generate(w.publisher.folder / "keys" / "online", "timestamp-2", None), "timestamp")
    repository._sign_next("root", root)
    path.unlink()
    w.publisher.release("2.0.0", 2, seed=1)
    assert json.loads(path.read_text())["signed"]["version"] < 10
    assert w.device.check(), w.device.error
    assert w.device.installed == "2.0.0"


def test_case_7_a_mixed_snapshot_is_refused(w: World) -> None:
    old = newest(w, "snapshot").read_bytes()
    w.publisher.release("2.0.0", 2, seed=1)
    newest(w, "snapshot").write_bytes(old)
    refused(w, "RollbackRefusedError")


def test_case_9_a_chain_of_five_roots_is_followed_and_a_skipped_one_refused(w: World) -> None:
    repository = w.publisher.repository
    for _ in range(4):
        repository._sign_next("root", repository._load("root", Root))
    w.publisher.publish()
    assert not w.device.check()
    assert w.device.error == ""
    assert w.device.store.read_journal().floors.roles["root"].version == 5  # type: ignore[union-attr]
    root = repository._load("root", Root)
    root.signed.version += 1
    repository._sign_next("root", root)
    (w.tmp / "web" / "metadata" / "6.root.json").write_bytes((repository.metadata / "7.root.json").read_bytes())
    refused(w, "RollbackRefusedError")


def test_case_22_expired_metadata_is_refused_and_inference_goes_on(w: World) -> None:
    w.device.clock.advance(timedelta(days=400).total_seconds())
    assert "expired" in refused(w, "UntrustedMetadataError")


def test_case_18_a_device_in_1970_is_updated_and_says_that_time_is_unverified(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.device.synced = False
    w.device.clock._wall = 0.0
    assert w.device.check(), w.device.error
    assert w.device.installed == "2.0.0"
    assert w.device.loop.status.time_unverified
    assert w.device.loop.status.clock_state == "bounded"


def test_case_19_a_device_in_1970_refuses_metadata_that_expired_before_its_floor(w: World) -> None:
    saved = snapshot_of_web(w)
    w.publisher.now = NOW + timedelta(days=60)
    w.device.clock.advance(timedelta(days=60).total_seconds())
    w.publisher.repository.offer("stable", "models/tiny/1.0.0.nis")
    w.publisher.publish()
    assert not w.device.check()
    assert w.device.error == ""
    journal = w.device.store.read_journal()
    assert journal is not None
    w.device.store.write_journal(
        msgspec.structs.replace(
            journal, generation=journal.generation + 1, floors=msgspec.structs.replace(journal.floors, roles={})
        )
    )
    shutil.rmtree(w.device.folder / "update" / "tuf")
    w.device.clock._wall, w.device.synced = 0.0, False
    w.device.boot()
    replay(w, saved)
    assert "expired" in refused(w, "UntrustedMetadataError")


def test_case_20_a_device_that_thought_it_was_2099_recovers_when_its_clock_is_set(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.device.clock._wall, w.device.synced = 4_070_908_800.0, False
    assert w.device.check(), w.device.error
    floor = w.device.store.read_journal().floors.time_s  # type: ignore[union-attr]
    assert floor < NOW.timestamp() + 86400, "the bogus clock must not be remembered"
    w.device.clock._wall, w.device.synced = NOW.timestamp() + 7200, True
    w.publisher.release("3.0.0", 3, seed=2)
    assert w.device.check(), w.device.error


def test_case_14_a_lower_release_counter_is_refused(w: World) -> None:
    w.publisher.release("2.0.0", 5, seed=1)
    assert w.device.check(), w.device.error
    w.device.events.clear()
    w.publisher.repository.offer("stable", "models/tiny/1.0.0.nis")
    w.publisher.publish()
    assert not w.device.check()
    assert w.device.installed == "2.0.0"
    assert [f["kind"] for n, f in w.device.events if n == "update.refused"] == ["RollbackRefusedError"]
    assert "release counter 1" in w.device.error


def test_a_lower_security_epoch_is_refused(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1, security_epoch=1)
    assert w.device.check(), w.device.error
    w.publisher.release("3.0.0", 3, seed=2)
    assert not w.device.check()
    assert "security epoch" in w.device.error


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"hardware": ("jetson-orin",)}, "is for jetson-orin"),
        ({"minimum_agent": "99.0"}, "needs nis-edge 99.0"),
    ],
)
def test_a_model_for_another_machine_or_agent_is_refused(w: World, facts: dict[str, Any], said: str) -> None:
    w.publisher.release("2.0.0", 2, seed=1, **facts)
    assert said in refused(w, "UpdateError")


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_tampered_target_is_refused(w: World) -> None:
    package = w.publisher.release("2.0.0", 2, seed=1)
    served = next((w.tmp / "web" / "targets").rglob(f"{file_hash(package)}.*"))
    data = bytearray(served.read_bytes())
    data[len(data) // 2] ^= 1
    served.write_bytes(data)
    assert "not" in refused(w, "DamagedDownloadError") or "dropped" in w.device.error


def test_case_8_a_target_longer_than_signed_is_cut_off(w: World) -> None:
    package = w.publisher.release("2.0.0", 2, seed=1)
    w.web.faults[file_hash(package)] = endless()
    assert not w.device.check()
    assert w.device.installed == "1.0.0"
    assert "more than the signed" in w.device.error
    partial = w.device.folder / "update" / "partial" / file_hash(package)
    assert partial.stat().st_size <= package.stat().st_size


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json", r"\d+\.snapshot.json", r"\d+\.models.json"])
def test_case_8_endless_metadata_is_cut_off(w: World, name: str) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.web.faults[f"/metadata/{name}"] = endless()
    assert "longer than" in refused(w, "UntrustedMetadataError")


@pytest.mark.parametrize("junk", [b"", b"{}", b"[" * 100_000, b"\xff" * 100, b'{"signed": {}, "signatures": []}'])
@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json"])
def test_junk_in_place_of_metadata_is_refused(w: World, name: str, junk: bytes) -> None:
    if name == "2.root.json":
        w.publisher.repository._sign_next("root", w.publisher.repository._load("root", Root))
    w.publisher.publish()
    w.web.faults[f"/metadata/{name}"] = body(junk)
    refused(w, "UntrustedMetadataError")


@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"{}",
        b"not json",
        b"[" * 100_000,
        b"x" * (UPDATE_BUNDLE_BYTES_MAX + 1),
        b'{"v": 2, "cohort": "stable", "files": {}}',
        b'{"v": 1, "cohort": "stable", "files": {"../../journal": "x"}}',
        b'{"v": 1, "cohort": "stable", "files": {"timestamp.json": 5}}',
        b'{"v": 1, "cohort": "canary", "files": {}}',
        json.dumps({"v": 1, "cohort": "stable", "files": {f"{n}.root.json": "" for n in range(99)}}).encode(),
    ],
)
def test_a_malformed_notice_is_refused(w: World, bundle: bytes) -> None:
    refused(w, "UntrustedMetadataError", bundle=bundle)


def test_a_notice_cut_anywhere_is_refused_or_harmless(w: World) -> None:
    whole = w.publisher.bundle()
    for length in range(0, len(whole), len(whole) // 40):
        w.device.events.clear()
        refused(w, "UntrustedMetadataError", bundle=whole[:length])


def test_case_27_duplicate_and_repeated_notices_change_nothing(w: World) -> None:
    bundle, journal = w.publisher.bundle(), w.device.store.read_journal()
    for _ in range(3):
        assert not w.device.check(bundle=bundle)
    assert w.device.store.read_journal() == journal
    assert w.device.error == ""


def test_a_notice_that_lacks_files_is_completed_over_http(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    bundle = msgspec.json.decode(w.publisher.bundle(), type=Bundle)
    slim = encode_bundle(Bundle(cohort="stable", files={"timestamp.json": bundle.files["timestamp.json"]}))
    assert w.device.check(bundle=slim), w.device.error
    assert w.device.installed == "2.0.0"


def test_a_notice_alone_is_enough_to_decide_when_metadata_by_http_is_out_of_reach(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.web.faults["/metadata/"] = status(503)
    w.web.faults["/targets/rollout/"] = status(503)
    bundle = w.publisher.bundle()
    w.web.requests.clear()
    assert not w.device.check()
    assert "503" in w.device.error
    w.web.faults[r"/metadata/2.root.json"] = status(404)
    w.web.faults = {r"root\.json": status(404), **w.web.faults}
    assert w.device.check(bundle=bundle), w.device.error
    assert w.device.installed == "2.0.0"


def test_a_server_that_forbids_the_next_root_is_named_once_because_it_could_hide_new_keys(w: World) -> None:
    w.web.faults[r"root\.json"] = status(403)
    for _ in range(2):
        assert not w.device.check()
    assert w.device.error == ""
    (warning,) = w.device.logged("repository.forbade")
    assert "2.root.json is forbidden" in warning["reason"]


def test_case_28_with_a_silent_broker_the_poll_finds_the_update(w: World) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    assert w.device.check(), w.device.error
    assert w.device.installed == "2.0.0"


def test_case_41_a_rollout_aborted_during_the_download_is_not_activated(w: World) -> None:
    package = w.publisher.release("2.0.0", 2, seed=1)

    def abort(_handler: Any, _data: bytes) -> bool:
        if not aborted:
            aborted.append(True)
            w.publisher.repository.offer("stable", "models/tiny/2.0.0.nis", state="aborted")
            w.publisher.publish()
        return False

    aborted: list[bool] = []
    w.web.faults[file_hash(package)] = abort
    assert not w.device.check()
    assert w.device.installed == "1.0.0"
    assert "no longer offered" in (w.device.loop.status.detail or "")
    assert w.device.logged("slot.activated") == []


@pytest.mark.parametrize("state", ["paused", "aborted"])
def test_a_rollout_that_is_not_open_is_left_alone_without_an_error(w: World, state: str) -> None:
    w.publisher.release("2.0.0", 2, seed=1)
    w.publisher.repository.offer("stable", "models/tiny/2.0.0.nis", state=state)
    w.publisher.publish()
    assert not w.device.check()
    assert w.device.error == ""
    assert w.device.installed == "1.0.0"


def test_case_43_a_folder_on_a_stick_runs_the_same_checks(w: World, tmp_path: Path) -> None:
    saved = snapshot_of_web(w)
    package = w.publisher.release("2.0.0", 2, seed=1)
    stick = tmp_path / "stick"
    shutil.copytree(w.tmp / "web", stick)
    w.device.url = None
    w.device.boot()
    assert not w.device.check(folder=tmp_path / "nowhere")
    assert "nis-ota publish" in w.device.error
    assert w.device.check(folder=stick), w.device.error
    assert w.device.running == file_hash(package)
    assert not w.device.check(folder=saved)
    assert "RollbackRefusedError" in [f.get("kind") for _, f in w.device.events]
