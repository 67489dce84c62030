"""The measurement of judging, run for a moment: every event is judged, the model answers, the figures are complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_measurement_judges_every_event_and_tells_all_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "monitor.json"
    command = [sys.executable, "-m", "bench.monitor", "--seconds", "3", "--skip-base", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    # Whether the gate passes depends on what else the machine does; that it is told does not.
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(out.read_text())
    rules, nano = said["results"]
    for result in (rules, nano):
        assert result["events"] == 150 and result["events_lost"] == 0
        assert result["assessed_ms"]["n"] >= 95 and result["assessed_ms"]["p99_ms"] > 0
        assert result["gate"] in ("pass", "fail")
    assert rules["questions"] == 0 and nano["answers"] > 0
    assert nano["questions"] + nano["windows_shed"] >= nano["answers"]
    assert said["rate_per_s"] == 50.0 and said["machine"]["architecture"]
