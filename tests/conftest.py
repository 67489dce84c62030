"""What tests of several rooms begin with."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a publisher and a device that runs its 1.0.0, made once: copy it, then let something happen."""
    from tests.support.update_world import world

    folder = tmp_path_factory.mktemp("first_release")
    with world(folder) as made:
        made.publisher.release("1.0.0", 1)
        assert made.device.check(), made.device.error
    return folder
