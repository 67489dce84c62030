"""Where a repository is published: buckets (moto's server), folders elsewhere (rsync), and always in the safe order."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nis_ota import cli, destinations, publishing
from nis_ota.errors import PublisherError
from nis_ota.keys import KeyRing
from nis_ota.repository import Repository

from tests.support.update_world import golden_package, world


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _fd: None)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    package = golden_package(folder / "tiny.nis", "1.0.0")
    assert run("init-repo", folder / "fleet", "--quick") == 0
    assert run("add-target", folder / "fleet", package, "--release-counter", 1, "--offer-to", "stable") == 0
    return folder / "fleet"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


class Recorder:
    """A destination that remembers the order, and may fail."""

    name = "recorder"

    def __init__(self, fail_at: int = -1) -> None:
        self.held: dict[str, bytes] = {}
        self.order: list[str] = []
        self.caches: dict[str, str] = {}
        self._fail_at = fail_at

    def put(self, name: str, content: Path | bytes, cache: str) -> bool:
        if len(self.order) == self._fail_at:
            raise PublisherError("the line is down")
        self.order.append(name)
        self.caches[name] = cache
        self.held[name] = content if isinstance(content, bytes) else content.read_bytes()
        return True

    def remove(self, name: str) -> None:
        self.held.pop(name, None)

    def flush(self) -> None:
        self.order.append("--")


def test_a_failure_at_any_step_leaves_what_a_device_sees_whole(fleet: Path, tmp_path: Path) -> None:
    """Whatever the timestamp vouches for is there before it, for a first and for a second publication."""
    repository = Repository(fleet, KeyRing([fleet / "keys"]))
    repository.sign_online()
    whole = Recorder()
    publishing.publish(repository, whole)
    steps = len([name for name in whole.order if name != "--"])
    old_timestamp = whole.held["metadata/timestamp.json"]
    repository.offer("stable", "models/tiny/1.0.0.nis")
    repository.sign_online()
    for fail_at in range(len(whole.order)):
        place = Recorder(fail_at)
        place.held = dict(whole.held)
        with contextlib.suppress(PublisherError):
            publishing.publish(repository, place)
        snapshot = json.loads(place.held["metadata/timestamp.json"])["signed"]["meta"]["snapshot.json"]["version"]
        meta = json.loads(place.held[f"metadata/{snapshot}.snapshot.json"])["signed"]["meta"]
        for role, entry in meta.items():
            assert f"metadata/{entry['version']}.{role}" in place.held
        rollout = json.loads(place.held[f"metadata/{meta['rollout.json']['version']}.rollout.json"])["signed"]
        for path, info in rollout["targets"].items():
            assert f"targets/rollout/{info['hashes']['sha256']}.{path[8:]}" in place.held
    assert steps >= 9
    assert place.held["metadata/timestamp.json"] != old_timestamp


def test_only_the_timestamp_and_the_bundles_may_change_so_only_they_are_cached_briefly(fleet: Path) -> None:
    repository = Repository(fleet, KeyRing([fleet / "keys"]))
    repository.sign_online()
    place = Recorder()
    publishing.publish(repository, place)
    brief = {name for name, cache in place.caches.items() if cache == destinations.CACHE_BRIEFLY}
    assert brief == {"metadata/timestamp.json", "bundles/stable.json"}
    assert {cache for name, cache in place.caches.items() if name not in brief} == {destinations.CACHE_FOR_EVER}


def test_what_a_timer_renews_needs_the_online_keys_only_and_sends_no_model(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = shutil.copytree(fleet, tmp_path / "fleet")
    assert run("publish", here, "--to", tmp_path / "www") == 0
    for path in (here / "keys").glob("*.pem"):
        path.unlink()
    shutil.rmtree(here / "targets" / "models")  # not even the packages need to be on that machine
    capsys.readouterr()
    assert run("refresh-online", here, "--to", tmp_path / "www", "--json") == 0
    said = capsys.readouterr()
    written = json.loads(said.out)["written"]
    assert written[0].startswith("metadata/") or written == ["metadata/timestamp.json", "bundles/stable.json"]
    assert not [name for name in written if name.startswith("targets/models")]
    assert "WARNING" not in said.err
    issued = json.loads((tmp_path / "www" / "metadata" / "timestamp.json").read_bytes())["signed"]["x-nis-issued"]
    assert isinstance(issued, int)
    assert run("verify", tmp_path / "www", "--root", here / "metadata" / "1.root.json") == 0


def test_expiring_offline_roles_are_warned_about_two_weeks_ahead(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import datetime, timedelta, timezone

    here = shutil.copytree(fleet, tmp_path / "fleet")
    later = datetime.now(timezone.utc) + timedelta(days=80)
    monkeypatch.setattr("nis_ota.repository.moment", lambda _now: later.replace(microsecond=0))
    assert run("refresh-online", here, "--to", tmp_path / "www") == 0
    warned = capsys.readouterr().err
    assert "targets expires on" in warned
    assert f"nis-ota sign {here} models" in warned
    assert "root expires" not in warned
    rollout = json.loads(sorted((here / "metadata").glob("*.rollout.json"))[-1].read_bytes())["signed"]
    assert rollout["expires"] > later.isoformat()  # the online role was signed again by itself


def test_a_stick_holds_what_one_cohort_needs_and_passes_the_device_s_checks(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = shutil.copytree(fleet, tmp_path / "fleet")
    assert run("rollout", "start", here, "models/tiny/1.0.0.nis", "--cohort", "canary") == 0
    assert run("publish", here, "--to", tmp_path / "www") == 0
    capsys.readouterr()
    assert run("export-usb", here, "--cohort", "stable", "--to", tmp_path / "stick", "--json") == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written[-1] == "bundles/stable.json"
    assert not [name for name in written if "canary" in name]
    assert len([name for name in written if name.endswith(".nis")]) == 1
    with world(tmp_path / "world") as w:
        w.device.root = here / "metadata" / "1.root.json"
        w.device.clock._wall = time.time()
        w.device.url = None
        w.device.boot()
        assert w.device.check(folder=tmp_path / "stick"), w.device.error
        assert w.device.installed == "1.0.0"


def test_rsync_sends_the_timestamp_in_a_pass_of_its_own_after_everything_else(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("NOT RUN: rsync is not installed (sudo apt-get install -y rsync)")
    passes: list[list[str]] = []
    really = subprocess.run

    def record(command: list[str], **options: Any) -> Any:
        passes.append(sorted(str(p.relative_to(command[-2])) for p in Path(command[-2]).rglob("*") if p.is_file()))
        return really(command, **options)

    monkeypatch.setattr(destinations.subprocess, "run", record)
    assert run("publish", fleet, "--to", f"rsync:{tmp_path / 'www' / 'nis'}") == 0
    monkeypatch.undo()
    at = passes.index(["metadata/timestamp.json"])
    assert sum(name.startswith("metadata/") for one in passes[:at] for name in one) >= 5
    assert passes[at + 1] == ["bundles/stable.json"]
    assert run("verify", tmp_path / "www" / "nis", "--root", fleet / "metadata" / "1.root.json") == 0


def test_an_rsync_that_fails_says_why_in_one_line(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("NOT RUN: rsync is not installed (sudo apt-get install -y rsync)")
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert run("publish", fleet, "--to", f"rsync:{tmp_path / 'file' / 'x'}") == 1
    message = capsys.readouterr().err
    assert "what was published before is whole" in message
    assert message.count("\n") == 1


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """moto's server with one bucket that anyone may read, and one that nobody may write."""
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):  # fmt: skip
        patch.setenv(name, value)
    import boto3

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host if host != '0.0.0.0' else '127.0.0.1'}:{port}"
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="models", ACL="public-read")
    yield url, client
    server.stop()
    patch.undo()


@pytest.mark.slow
def test_a_bucket_gets_everything_with_its_cache_headers_and_devices_verify_it_over_http(
    fleet: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url, client = s3
    words = ["publish", fleet, "--to", "s3://models/nis", "--endpoint-url", url, "--json"]
    assert run(*words) == 0
    first = json.loads(capsys.readouterr().out)["written"]
    assert first[-2:] == ["metadata/timestamp.json", "bundles/stable.json"]
    for name in first:
        head = client.head_object(Bucket="models", Key=f"nis/{name}")
        brief = name in first[-2:]
        assert head["CacheControl"] == (destinations.CACHE_BRIEFLY if brief else destinations.CACHE_FOR_EVER)
    assert run(*words) == 0  # nothing that is there is sent again
    again = json.loads(capsys.readouterr().out)["written"]
    assert again == ["metadata/timestamp.json", "bundles/stable.json"]
    root = fleet / "metadata" / "1.root.json"
    for path in client.list_objects_v2(Bucket="models")["Contents"]:
        client.put_object_acl(Bucket="models", Key=path["Key"], ACL="public-read")
    assert run("verify", f"{url}/models/nis", "--root", root, "--cohort", "stable") == 0


@pytest.mark.slow
def test_a_bucket_that_refuses_is_named_in_one_line(fleet: Path, s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    url, _ = s3
    capsys.readouterr()
    assert run("publish", fleet, "--to", "s3://absent/nis", "--endpoint-url", url) == 1
    message = capsys.readouterr().err
    assert "check bucket, endpoint and credentials" in message
    assert message.count("\n") == 1
