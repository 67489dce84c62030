"""What the documents say is what the sources say: numbers from result files, the update diagram from its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import readme

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    file for file in ROOT.rglob("*.md") if not {".venv", ".cache", ".pytest_cache"} & set(file.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("name", sorted(readme.PARTS))
def test_marked_parts_are_in_step_with_their_sources(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == readme.rewritten(name), "run: python -m bench.readme"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_to_a_file_of_the_repository_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    broken = [link for link in links if not (document.parent / link).exists()]
    assert not broken


def test_the_apt_line_is_the_same_in_readme_and_makefile() -> None:
    packages = re.search(r"apt-get install -y (.+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert packages
    assert (ROOT / "Makefile").read_text(encoding="utf-8").count(packages.group(1)) == 2
