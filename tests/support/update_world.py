"""A publisher, a web server and a device in one temporary folder: the smallest world in which an update happens.

The repository is made by the real `nis-ota` code, the packages are real, the client is the real one. Two doubles: the
self-test's engine is the numpy reference, so that no compiled library is needed here, and its process may be replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
from nis_ota import publishing
from nis_ota.keys import KeyRing
from nis_ota.repository import Repository
from nis_ota.roles import ROLLOUT, Quorum
from tuf.api.metadata import TargetFile, Targets

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.booting import Booted, boot_model
from nis_edge.engine.reference import reference_head, reference_logits
from nis_edge.fetching import FetchPolicy
from nis_edge.pack.layout import Golden, ModelIdentity
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from nis_edge.reporting import Reporter
from nis_edge.selftest import Report
from nis_edge.trial import SelfTest, SubprocessSelfTest
from nis_edge.update.facts import SignedFacts
from nis_edge.update.offer import Device, golden_hash
from nis_edge.update.rollout import Rollout, encode_rollout, override_path, rollout_path
from nis_edge.update.status import UpdateStatus
from nis_edge.update_settings import Activation, UpdateSettings
from nis_edge.updating import UpdateLoop
from tests.support.clock import SteppedClock
from tests.support.tiny_models import tiny_manifest, tiny_tensors
from tests.support.web_folder import WebFolder, web_folder

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
"""The moment these worlds live in: after the release, before anything expires."""

DEVICE = Device(id="dev-1", cohort="stable", hardware=frozenset({"x86_64"}), agent_version="0.1.0")

GOLDEN_TOKENS = (1, 5, 9, 2)

REFERENCE_SELF_TEST = (sys.executable, "-m", "tests.support.selftest_reference", "--json")
"""The real self-test's program with the numpy reference as its engine."""


def golden_package(path: Path, version: str, seed: int = 0, *, wrong_golden: bool = False) -> Path:
    """Write a tiny package with a golden entry computed by the reference (or with a wrong one)."""
    manifest = msgspec.structs.replace(tiny_manifest(tokenizer=False, context=32), model=ModelIdentity("tiny", version))
    tensors = tiny_tensors(manifest, seed)
    write_package(path, manifest, tensors)
    with open_package(path) as package:
        logits = reference_logits(package, GOLDEN_TOKENS)
        heads = {name: reference_head(package, GOLDEN_TOKENS, name) for name in manifest.architecture.task_heads}
    entry = Golden(
        GOLDEN_TOKENS,
        "0" * 64 if wrong_golden else float_hash(logits),
        {name: float_hash(outputs) for name, outputs in heads.items()},
    )
    write_package(path, msgspec.structs.replace(manifest, golden=(entry,)), tensors)
    return path


def float_hash(values: Any) -> str:
    """SHA-256 of float32 little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


async def passing_self_test(_fd: int, _golden: str | None) -> Report:
    """A self-test that always passes, where the test is about something else."""
    return Report(passed=True, reason="", golden_entries=1)


@dataclass
class Publisher:
    """The publisher's side: a repository, and the folder it publishes to."""

    folder: Path
    web: Path
    now: datetime = NOW

    def __post_init__(self) -> None:
        if self.folder.exists():
            return
        Repository.create(self.folder, root=Quorum(1, 2), targets=Quorum(2, 3), passphrase=None, now=self.now)

    @property
    def repository(self) -> Repository:
        return Repository(self.folder, KeyRing([self.folder / "keys"]), self.now)

    @property
    def root(self) -> Path:
        return self.folder / "metadata" / "1.root.json"

    def add(self, package: Path, version: str, counter: int, **facts: Any) -> str:
        with open_package(package) as opened:
            golden = golden_hash(opened.manifest.golden)
        signed = SignedFacts(
            **{"version": version, "release_counter": counter, "hardware": ("any",), "golden_sha256": golden, **facts}
        )
        return self.repository.add_model(package, "tiny", signed)

    def publish(self) -> None:
        self.repository.sign_online()
        publishing.publish(self.repository, self.web)

    def release(self, version: str, counter: int, *, seed: int = 0, cohort: str = "stable", **facts: Any) -> Path:
        """Pack, list, offer and publish in one go."""
        wrong = facts.pop("wrong_golden", False)
        package = golden_package(self.folder.parent / f"{version}.nis", version, seed, wrong_golden=wrong)
        self.repository.offer(cohort, self.add(package, version, counter, **facts))
        self.publish()
        return package

    def sign_document(self, rollout: Rollout, name: str | None = None) -> None:
        """Sign any rollout document with the online keys, as their owner or their thief can, and publish it."""
        repository = self.repository
        role = repository._load(ROLLOUT, Targets)
        path = name or (override_path(rollout.device) if rollout.device else rollout_path(rollout.cohort))
        data = encode_rollout(rollout)
        info = TargetFile.from_data(path, data, ["sha256"])
        info.unrecognized_fields["custom"] = {"serial": rollout.serial}
        role.signed.targets[path] = info
        repository._store_target(path, info.hashes["sha256"], data)
        repository._sign_next(ROLLOUT, role)
        self.publish()
        shutil.copytree(self.folder / "targets" / "rollout", self.web / "targets" / "rollout", dirs_exist_ok=True)

    def document(self, version: str, serial: int, **fields: Any) -> Rollout:
        """A rollout document for a listed model."""
        path = f"models/tiny/{version}.nis"
        info = self.repository.listed_models()[path]
        known = {"cohort": "stable", "serial": serial, "target": path, "sha256": info.hashes["sha256"]}
        return Rollout(**{**known, "length": info.length, **fields})

    def bundle(self, cohort: str = "stable") -> bytes:
        return publishing.bundle_bytes(self.repository, cohort)


@dataclass
class EdgeDevice:
    """One device: what the daemon would hold."""

    folder: Path
    root: Path
    url: str | None
    clock: SteppedClock = field(default_factory=lambda: SteppedClock(wall=NOW.timestamp() + 3600))
    synced: bool = True
    device: Device = DEVICE
    self_test: SelfTest = passing_self_test
    probation_s: float = 0.0
    health: Any = None
    policy: FetchPolicy | None = None
    blocks: Any = None
    gauges: Any = None
    understudy: Any = None
    on_unload: Any = None
    reports: list[bytes] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    statuses: list[UpdateStatus] = field(default_factory=list)
    in_service: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = SlotStore(self.folder / "update")
        self.boot()

    def log(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def boot(self) -> Booted[str]:
        """What a start of the daemon does; a model is loaded by reading its hash."""
        booted = boot_model(self.store, lambda path: path.read_bytes()[:0].decode() + file_hash(path), None, self.log)
        self.booted = booted
        self.in_service.append(booted.model or "none")
        self.loop = UpdateLoop(
            UpdateSettings(
                folder=self.folder / "update",
                device=self.device,
                repository=self.url,
                root=self.root,
                probation_s=self.probation_s,
                tick_s=0.01,
            ),
            self.store,
            booted.update,
            on_activate=self.activate,
            log=self.log,
            publish_status=self.statuses.append,
            health=self.health or (lambda: None),
            self_test=self.self_test,
            clock=self.clock,
            clock_synced=lambda: self.synced,
            sleep=self.sleep,
            policy=self.policy,
            blocks=self.blocks,
            gauges=self.gauges,
            understudy=self.understudy,
            on_unload=self.on_unload,
            reporter=Reporter(self.folder / "update", self.log, self.clock, self.reports.append),
        )
        return booted

    async def activate(self, activation: Activation) -> None:
        self.in_service.append("factory" if activation.path is None else file_hash(activation.path))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def check(self, bundle: bytes | None = None, folder: Path | None = None) -> bool:
        """One look, driven to its end."""
        return asyncio.run(self.loop.check(bundle=bundle, folder=folder))

    @property
    def running(self) -> str:
        return self.in_service[-1]

    @property
    def installed(self) -> str:
        return self.loop.status.installed_version

    @property
    def error(self) -> str:
        return self.loop.status.error or ""

    def logged(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class World:
    """One publisher, its web server, one device."""

    publisher: Publisher
    web: WebFolder
    device: EdgeDevice
    tmp: Path


@contextmanager
def world(tmp: Path, **device: Any) -> Iterator[World]:
    """A world with nothing released yet. Its disk is not flushed: durability is what other tests are about."""
    with mock.patch("os.fsync"):
        yield from _world(tmp, **device)


def _world(tmp: Path, **device: Any) -> Iterator[World]:
    publisher = Publisher(tmp / "repository", tmp / "web")
    (tmp / "web").mkdir(exist_ok=True)
    with web_folder(tmp / "web") as web:
        edge = EdgeDevice(tmp / "device", publisher.root, web.url, **device)
        yield World(publisher, web, edge, tmp)


def subprocess_self_test(command: tuple[str, ...] = REFERENCE_SELF_TEST, seconds: float = 60.0) -> SubprocessSelfTest:
    return SubprocessSelfTest(command, seconds)
