"""Damaged and hostile update files: read, or refused with one clear line, in bounded memory; the old model runs on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from nis_edge.limits import MIB
from nis_edge.update.bundle import decode_bundle
from tests.fuzz import updates
from tests.fuzz.mutations import change_json
from tests.support.update_world import World, world

ROOT = Path(__file__).parents[2]
GIGABYTE = 1_000_000_000


def drive(cases: int, seed: int) -> str:
    words = [sys.executable, "-m", "tests.fuzz.updates", "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_damaged_files_of_every_parser_are_read_or_refused_with_one_clear_line() -> None:
    found = drive(2400, 0)
    assert "2400 cases from seed 0: no finding" in found
    for kind in updates.KINDS:
        refusal = "none" if kind in ("journal", "download map", "audit line") else "UntrustedMetadataError"
        assert f"{kind}: {refusal}" in found  # the damage is real
        assert f"{kind}: read" in found  # and not all of it fatal


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_damaged_update_files_of_today() -> None:
    """Seeds that no other day has. NIS_FUZZ_CASES and NIS_FUZZ_SEED say otherwise; the seed stands in the output."""
    cases = int(os.environ.get("NIS_FUZZ_CASES", "60000"))
    seed = int(os.environ.get("NIS_FUZZ_SEED") or time.time() // 86_400 * 1_000_000)
    print(drive(cases, seed))


# --- on a whole device ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that runs 1.0.0 while 2.0.0 is offered."""
    folder = tmp_path_factory.mktemp("offered")
    with world(folder) as made:
        made.publisher.release("1.0.0", 1)
        assert made.device.check(), made.device.error
        made.publisher.release("2.0.0", 2, seed=1)
    return folder


@pytest.fixture
def w(offered: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(offered, tmp_path, symlinks=True, dirs_exist_ok=True)
    with world(tmp_path) as made:
        yield made


def refused(w: World, **how: Any) -> str:
    """Look once; the old model keeps running, and one clear line says why."""
    assert not w.device.check(**how)
    assert w.device.installed == "1.0.0"
    assert len(w.device.in_service) == 1, "nothing was switched"
    assert w.device.error.isprintable()
    assert "old model" in w.device.error or "running model stays" in w.device.error
    return w.device.error


def test_a_bundle_cut_at_every_byte_is_refused_and_the_old_model_runs(w: World) -> None:
    whole = w.publisher.bundle()
    assert {updates.outcome(decode_bundle, whole[:length]) for length in range(len(whole))} == {
        "UntrustedMetadataError"
    }
    for length in range(0, len(whole), len(whole) // 12):
        refused(w, bundle=whole[:length])
    assert w.device.check(bundle=whole), w.device.error
    assert w.device.installed == "2.0.0"


@pytest.mark.parametrize("announced", [True, False], ids=["declared", "streamed"])
@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json", r"\d+\.snapshot\.json", r"\d+\.models\.json"])
def test_a_gigabyte_of_metadata_is_cut_off_at_its_bound(w: World, name: str, announced: bool) -> None:
    """Counted at the server: what the client took, and what the sockets between them hold."""
    sent = [0]

    def flood(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        handler.send_response(200)
        if announced:
            handler.send_header("Content-Length", str(GIGABYTE))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        piece = b" " * 65536
        try:
            while sent[0] < GIGABYTE:
                handler.wfile.write(piece)
                sent[0] += len(piece)
        except OSError:
            pass
        return True

    w.web.faults[f"/metadata/{name}"] = flood
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "longer than" in refused(w)
    assert sent[0] < 32 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_gigabyte_of_bundle_on_a_stick_is_refused_without_being_read(w: World, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / "bundles").mkdir(parents=True)
    path = stick / "bundles" / "stable.json"
    path.touch()
    os.truncate(path, GIGABYTE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "at most" in refused(w, folder=stick)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_a_stick_s_bundle_or_model_does_not_hold_the_device_up(w: World, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    shutil.copytree(w.tmp / "web", stick)
    bundle = stick / "bundles" / "stable.json"
    whole = bundle.read_bytes()
    bundle.unlink()
    os.mkfifo(bundle)
    assert not w.device.check(folder=stick)
    assert "not a plain file" in w.device.error
    bundle.unlink()
    bundle.write_bytes(whole)
    for model in stick.rglob("*.2.0.0.nis"):
        model.unlink()
        os.mkfifo(model)
    assert "not a plain file" in refused(w, folder=stick)


CASES_ON_DEVICE = int(os.environ.get("NIS_FUZZ_METADATA", "40"))


def test_metadata_with_one_changed_value_is_refused_even_when_it_is_signed_again(w: World) -> None:
    """One value of a signed file changed, then signed again with the online keys when they may sign it at all."""
    whole = json.loads(w.publisher.bundle())
    names = sorted(name for name in whole["files"])
    w.device.url = None  # only what the bundle brings
    w.device.boot()
    w.device.in_service[:] = w.device.in_service[-1:]
    cache, saved, refusals = w.device.folder / "update" / "tuf", w.tmp / "saved", 0
    shutil.copytree(cache, saved, symlinks=True)
    for seed in range(CASES_ON_DEVICE):
        random = Random(f"metadata {seed}")
        name = random.choice(names)
        text = json.dumps(change_json(json.loads(whole["files"][name]), random))
        if name == "timestamp.json" and random.randrange(2):
            text = signed_online(w, text) or text
        shutil.rmtree(cache)  # what verified before must not stand in for what was changed
        shutil.copytree(saved, cache, symlinks=True)
        refused_or_known(w, {**whole, "files": {**whole["files"], name: text}})
        refusals += "metadata" in w.device.error or "rollout" in w.device.error
    assert refusals > CASES_ON_DEVICE / 2, "most changes must be fatal"


def signed_online(w: World, text: str) -> str | None:
    """The changed timestamp under a right signature; None when it is no timestamp any more."""
    repository = w.publisher.repository
    try:
        metadata = Metadata.from_bytes(text.encode())
        metadata.signatures.clear()
        key = next(iter(repository.demands()["timestamp"].keys.values()))
        signer = repository._ring.signer(key)
        assert signer is not None
        metadata.sign(signer)
        return metadata.to_bytes().decode()
    except Exception:
        return None


def refused_or_known(w: World, bundle: dict[str, Any]) -> None:
    """Without a server the model itself can't come, so whatever verified, the old one runs."""
    try:
        data = json.dumps(bundle).encode("utf-8", "surrogatepass")
    except ValueError:
        return
    assert not w.device.check(bundle=data)
    assert w.device.installed == "1.0.0"
    assert w.device.error.isprintable()
    assert w.device.error == "" or "old model" in w.device.error or "running model stays" in w.device.error
    assert len(w.device.in_service) == 1
