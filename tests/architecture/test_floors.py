"""The house rule: a module imports only from floors below its own, and floors 0 to 3 are pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.floors import violations

ROOT = Path(__file__).resolve().parents[2]


def modules() -> list[tuple[str, Path]]:
    files = sorted((ROOT / "nis_edge").rglob("*.py"))
    return [(".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), f) for f in files]


def test_no_module_of_nis_edge_violates_its_floor() -> None:
    found = [fault for name, file in modules() for fault in violations(name, file.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_the_check_reads_the_whole_package() -> None:
    names = {name for name, _ in modules()}
    assert {"nis_edge", "nis_edge.errors", "nis_edge.wire.messages", "nis_edge.cli"} <= names


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("nis_edge.wire.codec", "from nis_edge.monitor import machine", "may not import"),
        ("nis_edge.pack.layout", "from nis_edge.wire.messages import AgentEvent", "may not import"),
        ("nis_edge.monitor.machine", "import time", "may not import time"),
        ("nis_edge.monitor.machine", "def f():\n    import random", "may not import random"),
        ("nis_edge.monitor.machine", "from nis_edge.power.rails import x", "may not import"),
        ("nis_edge.update.machine", "from nis_edge.adapters.mqtt import Link", "may not import"),
        ("nis_edge.update.machine", "data = open('journal').read()", "may not open files"),
        ("nis_edge.adapters.spool", "from nis_edge.adapters.mqtt import Link", "adapters never import each other"),
        ("nis_edge.adapters.spool", "from nis_edge.adapters import mqtt", "adapters never import each other"),
        ("nis_edge.adapters.spool", "from nis_edge.daemon import Daemon", "may not import"),
        ("nis_edge.errors", "from nis_edge.limits import KIB", "imports nothing of ours"),
        ("nis_edge.daemon", "from nis_models import train", "never imports nis_models"),
        ("nis_edge.wire.codec", "from . import messages", "relative import"),
    ],
)
def test_a_violated_floor_is_named(module: str, source: str, complaint: str) -> None:
    assert any(complaint in fault for fault in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nis_edge.wire.codec", "from nis_edge.errors import EventFormatError\nimport msgspec"),
        ("nis_edge.engine.model", "from nis_edge.native.binding import Library"),
        (
            "nis_edge.monitor.machine",
            "from nis_edge.monitor.rules import RULES\nfrom nis_edge.wire.messages import Finding",
        ),
        ("nis_edge.adapters.mqtt", "import socket\nfrom nis_edge.wire.topics import topic"),
        ("nis_edge.daemon", "from nis_edge.adapters.mqtt import Link\nimport asyncio"),
    ],
)
def test_a_kept_floor_is_left_alone(module: str, source: str) -> None:
    assert violations(module, source) == []
