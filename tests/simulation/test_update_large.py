"""A model of more than 4 GiB: offsets and lengths beyond 31 and 32 bits are not where checking ends."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from nis_edge.adapters.slot_store import MODEL_NAME, SlotStore
from nis_edge.limits import GIB, MIB


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_case_15_a_tampered_byte_past_2_and_past_4_gib_is_caught(tmp_path: Path) -> None:
    length = 4 * GIB + 3 * MIB
    if shutil.disk_usage(tmp_path).free < GIB:
        pytest.skip("NOT RUN: needs 1 GiB of free disk for a sparse file")
    digest, zeros = hashlib.sha256(), bytes(4 * MIB)
    for start in range(0, length, len(zeros)):
        digest.update(zeros[: min(len(zeros), length - start)])
    sha256 = digest.hexdigest()
    store = SlotStore(tmp_path / "update")
    store.prepare()
    path = tmp_path / "update" / "store" / sha256 / MODEL_NAME
    path.parent.mkdir()
    path.touch()
    os.truncate(path, length)
    fd = store.open_verified(sha256, length)
    assert fd is not None, "the untouched file is whole"
    store.close(fd)
    for place in (2 * GIB + 5, 4 * GIB + 5):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\x01")
        assert store.open_verified(sha256, length) is None, f"a changed byte at {place} went unseen"
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\x00")
