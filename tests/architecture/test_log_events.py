"""Every log event that the code writes is declared in nis_edge/events.py, so that no name reaches a log unexplained."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from nis_edge.events import REQUIRED_FIELDS, check

ROOT = Path(__file__).resolve().parents[2]
EVENT_NAME = re.compile(r"^[a-z]+\.[a-z_]+$")
LOG_METHODS = {"debug", "info", "warning", "error", "critical"}


def logged_names() -> dict[str, str]:
    found = {}
    for file in sorted((ROOT / "nis_edge").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOG_METHODS
            ):
                continue
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and EVENT_NAME.match(first.value):
                found[first.value] = f"{file.relative_to(ROOT)}:{node.lineno}"
    return found


def test_every_logged_event_is_declared() -> None:
    undeclared = {name: where for name, where in logged_names().items() if name not in REQUIRED_FIELDS}
    assert not undeclared


def test_names_are_noun_and_past_verb() -> None:
    assert all(EVENT_NAME.match(name) for name in REQUIRED_FIELDS)


def test_a_missing_field_is_named() -> None:
    assert "lacks reason" in (check("daemon.stopped", {}) or "")


def test_an_undeclared_name_is_refused() -> None:
    assert "not declared" in (check("kettle.boiled", {}) or "")
