"""`nis-edge update tuf-client`: the public suite's interface, seen from outside as the suite sees it.

The suite itself is run by hand, from its own checkout (`pytest tuf_conformance --entrypoint ...`); it is not part of
this project. These tests keep its interface working between such runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from nis_edge import cli
from tests.support.update_world import Publisher
from tests.support.web_folder import WebFolder, web_folder


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path / "repository", tmp_path / "web", datetime.now(timezone.utc))
    made.release("1.0.0", 1)
    return made


@pytest.fixture
def web(publisher: Publisher) -> Iterator[WebFolder]:
    with web_folder(publisher.web) as server:
        yield server


class Client:
    """What the suite does with a client."""

    def __init__(self, tmp: Path, web: WebFolder) -> None:
        self.metadata, self.targets, self.web = tmp / "metadata", tmp / "targets", web
        self.metadata.mkdir()
        self.targets.mkdir()

    def run(self, *words: str) -> int:
        return cli.main(["update", "tuf-client", "--metadata-dir", str(self.metadata), *words])

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self.web.url}/metadata", "refresh")

    def download(self, *names: str) -> int:
        words = [word for name in names for word in ("--target-name", name)]
        urls = ["--metadata-url", f"{self.web.url}/metadata", "--target-base-url", f"{self.web.url}/targets"]
        return self.run(*urls, "--target-dir", str(self.targets), *words, "download")

    def version(self, role: str) -> int:
        return int(json.loads((self.metadata / f"{role}.json").read_text())["signed"]["version"])


@pytest.fixture
def client(tmp_path: Path, web: WebFolder, publisher: Publisher) -> Client:
    made = Client(tmp_path, web)
    assert made.run("init", str(publisher.root)) == 0
    assert web.requests == [], "init asks nobody"
    return made


def test_refresh_stores_metadata_under_names_without_versions(client: Client) -> None:
    assert client.refresh() == 0
    assert {role: client.version(role) for role in ("root", "timestamp", "snapshot", "targets")} == {
        "root": 1, "timestamp": 2, "snapshot": 2, "targets": 1,
    }  # fmt: skip


def test_download_stores_what_was_signed_and_does_not_fetch_it_twice(client: Client, publisher: Publisher) -> None:
    assert client.download("models/tiny/1.0.0.nis") == 0
    (stored,) = client.targets.iterdir()
    assert stored.read_bytes() == (publisher.folder.parent / "1.0.0.nis").read_bytes()
    client.web.requests.clear()
    assert client.download("models/tiny/1.0.0.nis") == 0
    assert not [path for path, _ in client.web.requests if path.startswith("/targets")]


def test_a_target_that_is_not_what_was_signed_is_not_kept(client: Client, publisher: Publisher) -> None:
    served = next((publisher.web / "targets" / "models" / "tiny").iterdir())
    served.write_bytes(bytes(served.stat().st_size))
    assert client.download("models/tiny/1.0.0.nis") == 1
    assert list(client.targets.iterdir()) == []


def test_the_first_target_that_fails_ends_the_command(client: Client) -> None:
    assert client.download("models/tiny/absent.nis", "models/tiny/1.0.0.nis") == 1
    assert list(client.targets.iterdir()) == []


def test_case_4_a_lost_cache_does_not_make_a_replay_acceptable(client: Client, publisher: Publisher) -> None:
    old = (publisher.web / "metadata" / "timestamp.json").read_bytes()
    publisher.publish()
    assert client.refresh() == 0
    (publisher.web / "metadata" / "timestamp.json").write_bytes(old)
    (client.metadata / "timestamp.json").write_bytes(b"")
    assert client.refresh() == 1


def test_a_client_without_its_first_root_says_so(
    tmp_path: Path, web: WebFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = Client(tmp_path, web)
    assert fresh.refresh() == 2
    assert "init" in capsys.readouterr().err
