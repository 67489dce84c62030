"""Real update clients by the dozen or the hundred on one mosquitto and one web server (`bench.update.clients`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.update.clients import Figures, update_fleet
from tests.support.broker import mosquitto_path

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(mosquitto_path() is None, reason="NOT RUN: mosquitto is not installed"),
]


def hold_to_the_promise(figures: Figures) -> None:
    assert figures.updated == figures.clients, figures
    assert figures.reported == figures.clients, figures
    assert figures.served_model_bytes == figures.clients * figures.model_bytes, "each downloads the model once"
    assert figures.failures == ()


@pytest.mark.timeout(900)
def test_many_real_clients_complete_an_update_by_one_broker_and_one_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NIS_FLEET_CLIENTS says how many; 20 unless told."""
    figures = update_fleet(int(os.environ.get("NIS_FLEET_CLIENTS", "20")), tmp_path, spread_s=2)
    with capsys.disabled():
        print(f"\n{figures.text()}")
    hold_to_the_promise(figures)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_200_real_clients_complete_an_update_by_one_broker_and_one_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = update_fleet(200, tmp_path, spread_s=10)
    with capsys.disabled():
        print(f"\n{figures.text()}")
    hold_to_the_promise(figures)
