"""What an installation brings: every package of the tree, and the files beside the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"nis_edge": ROOT / "nis_edge", "nis_models": ROOT / "models/nis_models", "nis_ota": ROOT / "ota/nis_ota"}


def test_every_package_of_the_tree_is_named_for_installation() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^\[tool\.setuptools\]$.*?^packages = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert listed
    named = set(re.findall(r'"([\w.]+)"', listed.group(1)))
    there = {
        ".".join([name, *file.parent.relative_to(place).parts])
        for name, place in PLACES.items()
        for file in place.rglob("__init__.py")
    }
    assert there <= named, f"add to packages in pyproject.toml: {sorted(there - named)}"
