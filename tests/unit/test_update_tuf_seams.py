"""The private parts of python-tuf that `DurableUpdater` overrides are still what they were when it was written.

A failure here after a new release of python-tuf is not a fault of that release: read its changes, adapt
`adapters.tuf_client`, then set the new fingerprints.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import tuf
from nis_ota.roles import LIFE
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Timestamp
from tuf.ngclient import Updater
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.fetcher import FetcherInterface

from nis_edge.adapters import tuf_client
from nis_edge.adapters.tuf_client import BundleFetcher, DurableUpdater, HttpFetcher, TrustedRepository
from nis_edge.errors import CloudUnreachableError, RollbackRefusedError, SlotWriteError, UntrustedMetadataError
from nis_edge.update.bundle import Bundle
from nis_edge.update.journal import RoleFloor
from tests.support.update_world import NOW, Publisher
from tests.support.web_folder import body, cut_after, status, web_folder

SEAMS = {
    "_persist_file": "d59189eb20842eae",
    "_persist_root": "fcf25997ab2b2c5d",
    "_persist_metadata": "97c3d89bf3e1e55d",
    "_update_root_symlink": "340788103ae89a79",
    "_load_root": "40d2d97c2b57fece",
    "_load_timestamp": "97e5fcbabb1d0909",
    "_load_snapshot": "d7a0c6d855759a0a",
    "_load_targets": "5a55433c2c4544a2",
    "_load_local_metadata": "58de5b8bb0c1366d",
    "refresh": "5c978ac570fe495e",
}
"""Method of Updater -> first 16 digits of the SHA-256 of its source without blank space and comments."""


def fingerprint(function: Any) -> str:
    lines = (line.split("#")[0].strip() for line in inspect.getsource(function).splitlines())
    return hashlib.sha256("".join(line for line in lines if line).encode()).hexdigest()[:16]


def test_the_series_of_python_tuf_is_the_one_that_was_wrapped() -> None:
    assert tuf.__version__.startswith("7.0.")


@pytest.mark.parametrize("name", sorted(SEAMS))
def test_an_overridden_or_relied_upon_method_is_unchanged(name: str) -> None:
    assert fingerprint(getattr(Updater, name)) == SEAMS[name]


def test_every_override_has_something_to_override() -> None:
    ours = [name for name, value in vars(DurableUpdater).items() if callable(value) and not name.startswith("__")]
    inherited = [name for name in ours if hasattr(Updater, name)]
    assert set(ours) - set(inherited) == {"_hold_to_floor", "_vouching_keys"}


def test_the_reference_time_is_still_an_attribute_of_the_trusted_set() -> None:
    assert "self.reference_time = " in inspect.getsource(TrustedMetadataSet.__init__)


# --- what the wrap adds -----------------------------------------------------------------------------------------------


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path / "repository", tmp_path / "web")
    made.publish()
    return made


class WebFetcher(FetcherInterface):
    """The published folder without a server."""

    def __init__(self, web: Path) -> None:
        self.web = web

    def _fetch(self, url: str) -> Any:
        path = self.web / "metadata" / url.rpartition("/")[2]
        if not path.is_file():
            raise tuf_errors.DownloadHTTPError("absent", 404)
        return iter((path.read_bytes(),))


def trusted(publisher: Publisher, cache: Path, **more: Any) -> TrustedRepository:
    given: dict[str, Any] = {"floors": {}, "reference_time": NOW.timestamp() + 3600, **more}
    fetcher = given.pop("fetcher", WebFetcher(publisher.web))
    return TrustedRepository(cache, publisher.root.read_bytes(), "x:/metadata", "x:/targets", fetcher, **given)


def test_every_stored_file_and_its_folder_is_flushed(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    trusted(publisher, tmp_path / "cache").refresh()
    cache = tmp_path / "cache"
    stored = [path for path in cache.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(stored) == 4
    assert len([name for name in flushed if Path(name).name.startswith("tmp-")]) == len(stored)
    assert flushed.count(str(cache)) >= 4
    assert str(cache / "root_history") in flushed


def test_what_did_not_change_is_not_written_again(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted(publisher, tmp_path / "cache").refresh()

    def fsync(_fd: int) -> None:
        raise AssertionError("written again: flash wears out")

    monkeypatch.setattr(os, "fsync", fsync)
    trusted(publisher, tmp_path / "cache").refresh()


def test_temporary_files_of_a_killed_process_are_swept(publisher: Publisher, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "tmpabc123").write_bytes(b"half")
    (cache / "tmp-root-link").symlink_to("nowhere")
    trusted(publisher, cache).refresh()
    assert not [path for path in cache.iterdir() if path.name.startswith("tmp")]


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "root_history/1.root.json"])
def test_a_cache_cut_at_any_length_is_healed_by_a_refresh(publisher: Publisher, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    trusted(publisher, cache).refresh()
    whole = (cache / name).read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 12)):
        (cache / name).write_bytes(whole[:length])
        trusted(publisher, cache).refresh()
        assert (cache / name).read_bytes() == whole


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_a_role_below_its_floor_is_refused_and_not_stored(publisher: Publisher, tmp_path: Path, role: str) -> None:
    with pytest.raises(RollbackRefusedError, match=f"{role} metadata is version [12]"):
        trusted(publisher, tmp_path / "cache", floors={role: RoleFloor(3)}).refresh()
    if role != "root":
        assert not (tmp_path / "cache" / f"{role}.json").exists()


def test_a_floor_whose_key_left_the_root_is_void(publisher: Publisher, tmp_path: Path) -> None:
    repository = trusted(publisher, tmp_path / "cache", floors={"timestamp": RoleFloor(99, ("deadbeef",))})
    repository.refresh()
    assert repository.floors["timestamp"].version == 2


def test_expiry_is_judged_by_the_time_that_was_handed_in(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(UntrustedMetadataError, match="expired"):
        trusted(publisher, tmp_path / "cache", reference_time=NOW.timestamp() + 400 * 86400).refresh()


def test_an_unwritable_cache_is_one_clear_error(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file in the folder's place")
    with pytest.raises(SlotWriteError, match="cache"):
        trusted(publisher, tmp_path / "cache")


def test_the_signed_date_of_the_timestamp_is_read(publisher: Publisher, tmp_path: Path) -> None:
    repository = trusted(publisher, tmp_path / "cache")
    repository.refresh()
    assert repository.issued_at() == NOW.timestamp()


def test_a_connection_that_breaks_in_the_middle_of_a_file_is_a_link_error(publisher: Publisher, tmp_path: Path) -> None:
    with web_folder(publisher.web) as web:
        web.faults["timestamp.json"] = cut_after(50, times=99)
        repository = TrustedRepository(
            tmp_path / "cache", publisher.root.read_bytes(), f"{web.url}/metadata", web.url, HttpFetcher(),
            floors={}, reference_time=NOW.timestamp(),
        )  # fmt: skip
        with pytest.raises(CloudUnreachableError, match="broke off"):
            repository.refresh()


def test_a_server_that_dribbles_metadata_is_given_up_on(publisher: Publisher) -> None:
    ticks = iter(range(0, 100_000, 20))
    with web_folder(publisher.web) as web:
        web.faults["timestamp.json"] = body(b"x" * 400_000)
        with pytest.raises(tuf_errors.SlowRetrievalError):
            HttpFetcher(lambda: float(next(ticks))).download_bytes(f"{web.url}/metadata/timestamp.json", 1 << 20)


def test_a_forbidden_root_is_remembered_because_it_could_hide_a_new_one(publisher: Publisher) -> None:
    with web_folder(publisher.web) as web:
        web.faults["root.json"] = status(403)
        fetcher = HttpFetcher()
        with pytest.raises(tuf_errors.DownloadHTTPError):
            fetcher.download_bytes(f"{web.url}/metadata/2.root.json", 1000)
        assert fetcher.forbidden == [f"{web.url}/metadata/2.root.json"]


def test_a_server_that_is_not_there_is_a_link_error_that_names_it() -> None:
    with pytest.raises(tuf_errors.DownloadError, match=r"127\.0\.0\.1:9"):
        HttpFetcher().download_bytes("http://127.0.0.1:9/metadata/timestamp.json", 1000)


def test_a_bundle_is_held_to_the_same_lengths() -> None:
    bundle = Bundle(cohort="stable", files={"timestamp.json": "x" * 5000})
    with pytest.raises(tuf_errors.DownloadLengthMismatchError):
        BundleFetcher(bundle, "b:/metadata", targets_url="b:/targets").download_bytes("b:/metadata/timestamp.json", 100)


def test_the_metadata_config_is_bounded() -> None:
    assert tuf_client.CONFIG.targets_max_length <= 2_000_000
    assert tuf_client.CONFIG.timestamp_max_length <= 16_384


def test_new_timestamp_keys_make_a_time_floor_void_that_the_old_ones_pushed_ahead(
    publisher: Publisher, tmp_path: Path
) -> None:
    """The floor says 2099; the keys that vouched for the timestamp then are no longer in the root."""
    pushed = {"floors": {"timestamp": RoleFloor(9, ("0badc0de",))}, "reference_time": 4_070_908_800.0}
    with pytest.raises(UntrustedMetadataError, match="expired"):
        trusted(publisher, tmp_path / "cache", **pushed).refresh()
    repository = trusted(publisher, tmp_path / "cache", **pushed, unfloored_time=NOW.timestamp() + 3600)
    repository.refresh()
    assert repository.time_floor_is_void


def test_while_its_keys_stand_a_time_floor_counts(publisher: Publisher, tmp_path: Path) -> None:
    first = trusted(publisher, tmp_path / "cache")
    first.refresh()
    again = trusted(
        publisher,
        tmp_path / "cache",
        floors=first.floors,
        reference_time=4_070_908_800.0,
        unfloored_time=NOW.timestamp() + 3600,
    )
    with pytest.raises(UntrustedMetadataError, match="expired"):
        again.refresh()
    assert not again.time_floor_is_void


def test_a_signed_date_counts_at_most_until_what_the_offline_keys_signed_expires(
    publisher: Publisher, tmp_path: Path
) -> None:
    path = publisher.repository.metadata / "timestamp.json"
    timestamp = Metadata[Timestamp].from_file(str(path))
    timestamp.signed.version += 1
    timestamp.signed.unrecognized_fields["x-nis-issued"] = 4_070_908_800
    publisher.repository._sign_and_store("timestamp", timestamp)
    (publisher.web / "metadata" / "timestamp.json").write_bytes(path.read_bytes())
    repository = trusted(publisher, tmp_path / "cache")
    repository.refresh()
    assert repository.issued_at() == (NOW + LIFE["targets"]).timestamp()
