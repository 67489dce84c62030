"""A release reaches a device: publish, HTTP, verification, store, journal, self-test, probation, commit."""

from __future__ import annotations

from pathlib import Path

from tests.support.update_world import file_hash, subprocess_self_test, world


def test_a_published_model_is_verified_stored_tested_and_committed(tmp_path: Path) -> None:
    with world(tmp_path, self_test=subprocess_self_test()) as w:
        package = w.publisher.release("1.0.0", 1)
        assert w.device.check(), w.device.error
        assert w.device.running == file_hash(package)
        assert w.device.installed == "1.0.0"
        journal = w.device.store.read_journal()
        assert journal is not None and journal.active is not None
        assert (journal.active.version, journal.floors.release_counter, journal.trial) == ("1.0.0", 1, None)
        assert [name for name, _ in w.device.events if name.startswith(("slot", "trial", "target"))] == [
            "target.verified", "slot.written", "trial.passed", "slot.activated", "slot.committed",
        ]  # fmt: skip
