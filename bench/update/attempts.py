"""What attackers try. Each attempt is as strong as its attacker can make it: real signatures wherever a key was stolen,
real servers, real bytes. What came of it is read off the device by `bench.update.attack_stage`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from nis_ota.repository import Repository
from nis_ota.roles import MODELS, ROLLOUT
from tuf.api.metadata import Key, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from bench.update.attack_stage import Attempt, Stage, ring
from nis_edge.block_pull import BlockPull
from nis_edge.limits import UPDATE_BUNDLE_BYTES_MAX
from nis_edge.update.blocks import Block, encode_block, read_request
from nis_edge.update.rollout import Rollout, encode_rollout
from nis_edge.update.time_floor import ISSUED_FIELD
from tests.support.update_world import NOW, Publisher, file_hash
from tests.support.web_folder import endless, status

BROKER, BUCKET, NETWORK = "broker owned", "bucket owned", "network owned"
ONLINE, OFFLINE = "online keys stolen", "one offline key stolen"
ALL = "online keys and one offline key of each role stolen"
CLOCK_1970, CLOCK_2099, TIME_SERVER = "clock at 1970", "clock at 2099", "time server owned: 2099"

YEAR_2099: Final = 4_070_908_800.0
OFFLINE_KEYS: Final = ("root-1", "targets-1")
"""Of three each; the targets keys also sign the list of models."""

ATTEMPTS: list[Attempt] = []


def attempt(attacker: str, tries: str, *, holds: bool = False) -> Callable[[Callable[[Stage], Any]], Any]:
    """List a function as what an attacker tries."""

    def listed(act: Callable[[Stage], Any]) -> Callable[[Stage], Any]:
        ATTEMPTS.append(Attempt(attacker, tries, act, holds))
        return act

    return listed


# --- the broker: any bytes as notice and as blocks; the server is honest ----------------------------------------------


@attempt(BROKER, "a bundle signed by keys of its own")
def _(s: Stage) -> None:
    s.look((s.tmp / "stranger.json").read_bytes())


@attempt(BROKER, "the oldest bundle again")
def _(s: Stage) -> None:
    s.look((s.tmp / "oldest.json").read_bytes())


@attempt(BROKER, "the newest timestamp over an old snapshot and old lists")
def _(s: Stage) -> None:
    new, old = json.loads(s.publisher.bundle()), json.loads((s.tmp / "oldest.json").read_bytes())
    for role in ("snapshot", "models", "rollout"):
        newest, older = ((name for name in b["files"] if name.endswith(f".{role}.json")) for b in (new, old))
        new["files"][next(newest)] = old["files"][next(older)]
    s.look(json.dumps(new).encode())


@attempt(BROKER, "another cohort's bundle, with its newer model")
def _(s: Stage) -> None:
    s.look(s.publisher.bundle("canary"))


@attempt(BROKER, "a bundle that names another device")
def _(s: Stage) -> None:
    s.look(json.dumps({**json.loads(s.publisher.bundle()), "device": "dev-2"}).encode())


@attempt(BROKER, "a bundle without end")
def _(s: Stage) -> None:
    s.look(b"[" * (UPDATE_BUNDLE_BYTES_MAX + 1))


@attempt(BROKER, "a file name that leads out of the folder")
def _(s: Stage) -> None:
    s.look(json.dumps({"v": 1, "cohort": "stable", "files": {"../../journal": "x"}}).encode())


@attempt(BROKER, "a bundle cut in its middle")
def _(s: Stage) -> None:
    s.look(s.publisher.bundle()[:3000])


@attempt(BROKER, "other bytes as blocks, to a device that has only the broker")
def _(s: Stage) -> None:
    def answer(request: bytes) -> None:
        asked = read_request(request)
        for index in asked.indices:
            pull.arrive(encode_block(Block(asked.sha256, asked.block_bytes, index, b"\x66" * asked.block_bytes)))

    pull = BlockPull(answer, lambda: True, answer_s=0.01)
    s.device.url, s.device.blocks = None, pull
    s.device.boot()
    s.look(s.publisher.bundle())


@attempt(BROKER, "silence", holds=True)
def _(s: Stage) -> int | None:
    return None if s.look() else s.days_until_said()


# --- the bucket: any bytes by HTTP; the broker says nothing -----------------------------------------------------------


def _served(s: Stage) -> Path:
    sha256 = file_hash(s.tmp / "3.0.0.nis")
    return next((s.www / "targets").rglob(f"{sha256}.*.nis"))


@attempt(BUCKET, "other bytes under the signed name")
def _(s: Stage) -> None:
    _served(s).write_bytes((s.tmp / "foreign.nis").read_bytes())
    s.look()


@attempt(BUCKET, "one changed byte in the model")
def _(s: Stage) -> None:
    data = bytearray(_served(s).read_bytes())
    data[-1] ^= 1
    _served(s).write_bytes(data)
    s.look()


@attempt(BUCKET, "a model without end")
def _(s: Stage) -> None:
    s.web.faults[_served(s).name] = endless()
    s.look()


@attempt(BUCKET, "metadata without end")
def _(s: Stage) -> None:
    s.web.faults["timestamp.json"] = endless()
    s.look()


@attempt(BUCKET, "a model at one byte a second")
def _(s: Stage) -> None:
    def drip(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.close_connection = True
        try:
            for at in range(len(data)):
                handler.wfile.write(data[at : at + 1])
                s.device.clock.advance(1.0)
        except OSError:
            pass
        return True

    s.web.faults[_served(s).name] = drip
    s.look()


@attempt(BUCKET, "a whole repository signed by keys of its own")
def _(s: Stage) -> None:
    s.replace_server(s.stranger)
    s.look()


@attempt(BUCKET, "the oldest state again")
def _(s: Stage) -> None:
    s.replace_server(s.oldest)
    s.look()


@attempt(BUCKET, "the oldest state again, to a device whose cache was lost")
def _(s: Stage) -> None:
    s.replace_server(s.oldest)
    s.lose_cache()
    s.look()


@attempt(BUCKET, "an old snapshot under the newest timestamp")
def _(s: Stage) -> None:
    _newest(s, "snapshot").write_bytes(_newest(s, "snapshot", s.oldest).read_bytes())
    s.look()


@attempt(BUCKET, "the list of models with one of its two signatures")
def _(s: Stage) -> None:
    _rewrite(_newest(s, MODELS), lambda d: d.update(signatures=d["signatures"][:1]))
    s.look()


@attempt(BUCKET, "the list of models with one signature twice")
def _(s: Stage) -> None:
    _rewrite(_newest(s, MODELS), lambda d: d.update(signatures=[d["signatures"][0]] * 2))
    s.look()


@attempt(BUCKET, "the state that the device knows, for ever", holds=True)
def _(s: Stage) -> int | None:
    s.replace_server(s.seen)
    return None if s.look() else s.days_until_said()


@attempt(NETWORK, "no answer to anything", holds=True)
def _(s: Stage) -> int | None:
    s.web.faults[".*"] = status(503)
    return 0 if not s.look() and s.device.error else s.days_until_said()


@attempt(NETWORK, "the state that the device knows, by broker and server, for ever", holds=True)
def _(s: Stage) -> int | None:
    s.replace_server(s.seen)
    bundle = (s.tmp / "seen.json").read_bytes()
    s.look(bundle)
    return s.days_until_said(lambda _day: s.look(bundle))


def _newest(s: Stage, role: str, folder: Path | None = None) -> Path:
    files = ((folder or s.www) / "metadata").glob(f"*.{role}.json")
    return max(files, key=lambda path: int(path.name.split(".")[0]))


def _rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# --- the online keys, and the bucket to bring what they sign ----------------------------------------------------------


def _publish(thief: Publisher) -> None:
    """As `Publisher.publish`, without the checks of an honest publisher."""
    thief.repository.sign_online()
    for kind in ("metadata", "targets"):
        shutil.copytree(thief.folder / kind, thief.web / kind, dirs_exist_ok=True)


def _sign_document(thief: Publisher, data: bytes, path: str = "rollout/stable.json", **models: TargetFile) -> None:
    """Any bytes as the cohort's rollout document, and any targets beside it in the rollout role."""
    repository = thief.repository
    role = repository._load(ROLLOUT, Targets)
    info = TargetFile.from_data(path, data, ["sha256"])
    role.signed.targets[path] = info
    role.signed.targets.update(models)
    repository._store_target(path, info.hashes["sha256"], data)
    repository._sign_next(ROLLOUT, role)
    _publish(thief)


def _point_at(thief: Publisher, version: str, **fields: Any) -> None:
    _sign_document(thief, encode_rollout(thief.document(version, 99, **fields)))


def _foreign(thief: Publisher) -> tuple[str, TargetFile]:
    """A model of the thief's, whose bytes lie where a device will look."""
    path, package = "models/tiny/6.6.6.nis", thief.folder.parent / "foreign.nis"
    info = TargetFile.from_file(path, str(package), ["sha256"])
    info.unrecognized_fields["custom"] = {"version": "6.6.6", "release_counter": 666, "hardware": ["any"]}
    file = thief.repository.target_file(path, info.hashes["sha256"])
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(package, file)
    return path, info


def _point_at_foreign(thief: Publisher, path: str, info: TargetFile, **models: TargetFile) -> None:
    document = Rollout(cohort="stable", serial=99, target=path, sha256=info.hashes["sha256"], length=info.length)
    _sign_document(thief, encode_rollout(document), **models)


@attempt(ONLINE, "a model of its own, listed by the rollout key")
def _(s: Stage) -> None:
    thief = s.thief("online")
    path, info = _foreign(thief)
    _point_at_foreign(thief, path, info, **{path: info})
    s.look()


@attempt(ONLINE, "a list of models signed by the online keys")
def _(s: Stage) -> None:
    thief = s.thief("online")
    path, info = _foreign(thief)
    _sign_models(thief, path, info, list(thief.repository.demands()[ROLLOUT].keys.values()))
    _point_at_foreign(thief, path, info)
    s.look()


@attempt(ONLINE, "other bytes under the name of a listed model")
def _(s: Stage) -> None:
    thief = s.thief("online")
    _, info = _foreign(thief)
    _point_at_foreign(thief, "models/tiny/3.0.0.nis", info)
    s.look()


@attempt(ONLINE, "a target name that leads out of the folder")
def _(s: Stage) -> None:
    _point_at(s.thief("online"), "3.0.0", target="../../../etc/cron.d/x")
    s.look()


@attempt(ONLINE, "a listed model that the device has left behind")
def _(s: Stage) -> None:
    _point_at(s.thief("online"), "1.0.0")
    s.look()


@attempt(ONLINE, "a listed, newer model that was meant for others")
def _(s: Stage) -> None:
    _point_at(s.thief("online"), "2.1.0")
    s.look()


@attempt(ONLINE, "another device's document in the cohort's place")
def _(s: Stage) -> None:
    _point_at(s.thief("online"), "2.1.0", device="dev-2")
    s.look()


@attempt(ONLINE, "a rollout document without end")
def _(s: Stage) -> None:
    _sign_document(s.thief("online"), b'{"v": 1, "x": "' + b"x" * 2_000_000 + b'"}')
    s.look()


@attempt(ONLINE, "the old list of models under a new snapshot")
def _(s: Stage) -> None:
    thief = s.thief("online")
    repository = thief.repository
    old = _newest(s, MODELS, s.oldest)
    snapshot = repository._load("snapshot", Snapshot)
    snapshot.signed.meta["models.json"] = MetaFile(int(old.name.split(".")[0]))
    repository._sign_next("snapshot", snapshot)
    for path in repository.metadata.glob(f"*.{MODELS}.json"):
        if path.name != old.name:
            path.unlink()
    _publish(thief)
    s.look()


@attempt(ONLINE, "a snapshot that no longer knows the list of models")
def _(s: Stage) -> None:
    thief = s.thief("online")
    repository = thief.repository
    snapshot = repository._load("snapshot", Snapshot)
    del snapshot.signed.meta["models.json"]
    repository._sign_next("snapshot", snapshot)
    _sign_timestamp(repository)
    shutil.copytree(thief.folder / "metadata", s.www / "metadata", dirs_exist_ok=True)
    s.look()


@attempt(ONLINE, "the highest version numbers there are, and then nothing", holds=True)
def _(s: Stage) -> int | None:
    thief = s.thief("online")
    repository = thief.repository
    repository.offer("stable", "models/tiny/2.0.0.nis")
    snapshot = repository._load("snapshot", Snapshot)
    snapshot.signed.version = 2**31 - 2
    snapshot.signed.meta["rollout.json"] = MetaFile(repository._newest(ROLLOUT))
    repository._sign_next("snapshot", snapshot)
    _sign_timestamp(repository, version=2**31 - 1)
    _copy(thief)
    return None if s.look() else s.days_until_said()


@attempt(ONLINE, "a date of 2099 in the timestamp, to a device without a clock", holds=True)
def _(s: Stage) -> int | None:
    thief = s.thief("online")
    thief.repository.offer("stable", "models/tiny/2.0.0.nis")
    thief.repository.sign_online()
    _sign_timestamp(thief.repository, issued=YEAR_2099)
    _copy(thief)
    s.device.synced = False
    s.look()
    return 0 if not s.look() and s.device.error else s.days_until_said()


@attempt(ONLINE, "the rollout aborted", holds=True)
def _(s: Stage) -> int | None:
    thief = s.thief("online")
    thief.repository.set_rollout("stable", state="aborted")
    _publish(thief)
    s.look()
    return s.days_until_said(lambda day: _renew_online(s, thief, day))


@attempt(ONLINE, "the state that the device knows, signed anew every day", holds=True)
def _(s: Stage) -> int | None:
    thief = s.thief("online")
    thief.repository.offer("stable", "models/tiny/2.0.0.nis")
    _publish(thief)
    s.look()
    return s.days_until_said(lambda day: _renew_online(s, thief, day))


def _renew_online(s: Stage, thief: Publisher, day: int) -> None:
    from datetime import timedelta

    thief.now = NOW + timedelta(days=day)
    thief.repository._sign_next(ROLLOUT, thief.repository._load(ROLLOUT, Targets))
    _publish(thief)


def _sign_timestamp(repository: Repository, version: int | None = None, issued: float | None = None) -> None:
    path = repository.metadata / "timestamp.json"
    timestamp = Metadata[Timestamp].from_file(str(path))
    timestamp.signed.version = version or timestamp.signed.version + 1
    timestamp.signed.snapshot_meta = MetaFile(repository._newest("snapshot"))
    if issued is not None:
        timestamp.signed.unrecognized_fields[ISSUED_FIELD] = int(issued)
    repository._sign_and_store("timestamp", timestamp)


def _copy(thief: Publisher) -> None:
    for kind in ("metadata", "targets"):
        shutil.copytree(thief.folder / kind, thief.web / kind, dirs_exist_ok=True)


# --- offline keys below their threshold -------------------------------------------------------------------------------


def _sign_with(thief: Publisher, metadata: Metadata[Any], keys: list[Key]) -> None:
    """As many right signatures as the thief has keys for."""
    metadata.signatures.clear()
    for key in keys:
        signer = ring(thief).signer(key)
        if signer is not None:
            metadata.sign(signer, append=True)
    assert metadata.signatures, "a thief without a key shows nothing"


def _sign_models(thief: Publisher, path: str, info: TargetFile, keys: list[Key]) -> None:
    listed = thief.repository._load(MODELS, Targets)
    listed.signed.targets[path] = info
    listed.signed.version += 1
    _sign_with(thief, listed, keys)
    (thief.folder / "metadata" / f"{listed.signed.version}.{MODELS}.json").write_bytes(listed.to_bytes())


def _models_keys(thief: Publisher) -> list[Key]:
    return list(thief.repository.demands()[MODELS].keys.values())


def _root_of(thief: Publisher, change: Callable[[Root], None]) -> None:
    """The next root, signed by whatever the thief holds, in the bucket."""
    metadata = thief.repository._load("root", Root)
    keys = [metadata.signed.keys[keyid] for keyid in metadata.signed.roles["root"].keyids]
    metadata.signed.version += 1
    change(metadata.signed)
    _sign_with(thief, metadata, keys)
    name = f"{metadata.signed.version}.root.json"
    for folder in (thief.folder, thief.web):
        (folder / "metadata" / name).write_bytes(metadata.to_bytes())


@attempt(OFFLINE, "in place of the list of models, one with its own and one signature")
def _(s: Stage) -> None:
    thief = s.thief("targets-1")
    path, info = _foreign(thief)
    version = thief.repository._newest(MODELS)
    _sign_models(thief, path, info, _models_keys(thief))
    made = json.loads((thief.folder / "metadata" / f"{version + 1}.{MODELS}.json").read_text())
    (s.www / "metadata" / f"{version}.{MODELS}.json").write_text(json.dumps(made))
    s.look()


@attempt(OFFLINE, "a root with keys of its own, signed once")
def _(s: Stage) -> None:
    stranger = Root.from_dict(json.loads((s.tmp / "stranger/metadata/1.root.json").read_text())["signed"])
    _root_of(s.thief("root-1"), lambda root: _adopt(root, stranger))
    s.look()


@attempt(OFFLINE, "a root that asks for one signature instead of two, signed once")
def _(s: Stage) -> None:
    def lower(root: Root) -> None:
        for role in ("root", "targets"):
            root.roles[role].threshold = 1

    _root_of(s.thief("root-1"), lower)
    s.look()


@attempt(OFFLINE, "a root signed by one key under two names")
def _(s: Stage) -> None:
    thief = s.thief("root-1")
    _root_of(thief, lambda _root: None)
    name = f"{thief.repository._newest('root')}.root.json"

    def twice(document: dict[str, Any]) -> None:
        others = document["signed"]["roles"]["root"]["keyids"]
        mine = document["signatures"][0]
        document["signatures"] = [{**mine, "keyid": keyid} for keyid in others]

    _rewrite(s.www / "metadata" / name, twice)
    s.look()


def _adopt(root: Root, stranger: Root) -> None:
    root.keys.update(stranger.keys)
    for role, entry in stranger.roles.items():
        root.roles[role].keyids = list(entry.keyids)
        root.roles[role].threshold = 1


@attempt(ALL, "a list with its own model, signed once, in a new snapshot")
def _(s: Stage) -> None:
    thief = s.thief("online", *OFFLINE_KEYS)
    path, info = _foreign(thief)
    _sign_models(thief, path, info, _models_keys(thief))
    _point_at_foreign(thief, path, info)
    s.look()


@attempt(ALL, "the same, the one signature under two names")
def _(s: Stage) -> None:
    thief = s.thief("online", *OFFLINE_KEYS)
    path, info = _foreign(thief)
    keys = _models_keys(thief)
    _sign_models(thief, path, info, keys)

    def twice(document: dict[str, Any]) -> None:
        mine = document["signatures"][0]
        document["signatures"] = [{**mine, "keyid": key.keyid} for key in keys]

    _rewrite(_newest(s, MODELS, thief.folder), twice)
    _point_at_foreign(thief, path, info)
    s.look()


@attempt(ALL, "new keys for the list of models, delegated by one of the targets keys")
def _(s: Stage) -> None:
    thief = s.thief("online", *OFFLINE_KEYS)
    repository = thief.repository
    path, info = _foreign(thief)
    targets = repository._load("targets", Targets)
    own = list(repository.demands()[ROLLOUT].keys.values())
    delegations = targets.signed.delegations
    assert delegations is not None and delegations.roles is not None
    delegations.roles[MODELS].keyids = [key.keyid for key in own]
    delegations.roles[MODELS].threshold = 1
    signing = list(repository.demands()["targets"].keys.values())
    targets.signed.version += 1
    _sign_with(thief, targets, signing)
    (thief.folder / "metadata" / f"{targets.signed.version}.targets.json").write_bytes(targets.to_bytes())
    _sign_models(thief, path, info, own)
    _point_at_foreign(thief, path, info)
    s.look()


@attempt(ALL, "a root with keys of its own, signed once, and everything below it")
def _(s: Stage) -> None:
    stranger = Root.from_dict(json.loads((s.tmp / "stranger/metadata/1.root.json").read_text())["signed"])
    s.replace_server(s.stranger)
    _root_of(s.thief("online", *OFFLINE_KEYS), lambda root: _adopt(root, stranger))
    s.look()


# --- clocks; each with the bucket -------------------------------------------------------------------------------------


@attempt(CLOCK_1970, "to keep the device from an honest update", holds=True)
def _(s: Stage) -> int | None:
    _set_clock(s, 0.0)
    return None if s.look() else s.days_until_said()


@attempt(CLOCK_1970, "the oldest state again, with a lost cache")
def _(s: Stage) -> None:
    _set_clock(s, 0.0)
    s.replace_server(s.oldest)
    s.lose_cache()
    s.look()


@attempt(CLOCK_1970, "the state that the device knows, for ever", holds=True)
def _(s: Stage) -> int | None:
    _set_clock(s, 0.0)
    s.replace_server(s.seen)
    s.look()
    return s.days_until_said()


@attempt(CLOCK_2099, "to keep the device from an honest update", holds=True)
def _(s: Stage) -> int | None:
    _set_clock(s, YEAR_2099)
    return None if s.look() else s.days_until_said()


@attempt(CLOCK_2099, "the oldest state again, with a lost cache")
def _(s: Stage) -> None:
    _set_clock(s, YEAR_2099)
    s.replace_server(s.oldest)
    s.lose_cache()
    s.look()


@attempt(TIME_SERVER, "to keep the device from updates for ever", holds=True)
def _(s: Stage) -> int | None:
    s.device.clock.jump_wall(YEAR_2099 - s.device.clock.wall())
    return 0 if not s.look() and s.device.error else s.days_until_said()


def _set_clock(s: Stage, wall: float) -> None:
    """A clock that nobody vouches for."""
    s.device.synced = False
    s.device.clock.jump_wall(wall - s.device.clock.wall())
    s.device.boot()
