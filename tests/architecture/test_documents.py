"""What the documents say is what the sources say: numbers from result files, the update diagram from its table."""

from __future__ import annotations

import json
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


def test_a_limit_that_the_daemon_missed_is_named_beside_its_figures() -> None:
    file = next(readme.RESULTS.glob("*.daemon.json"))
    report = json.loads(file.read_text())
    gates = report["results"]["gates"]
    gates |= {name: {"value": 1.0, "limit": 2.0, "pass": True} for name in gates}
    assert readme.daemon_part(report, file).endswith(f" All {len(gates)} limits are kept.")
    gates["rss_mb"] = {"value": 96.1, "limit": 80.0, "pass": False}
    assert readme.daemon_part(report, file).endswith(" Missed: rss_mb 96.1, limit 80.")
