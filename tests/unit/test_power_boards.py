"""Board files: valid ones become records, others are refused with every fault named."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nis_edge.errors import ConfigError
from nis_edge.metering import load_boards
from nis_edge.power.boards import parse_board

GOOD: dict[str, Any] = {
    "format": 1,
    "id": "my-board",
    "title": "Mine",
    "source": [
        {
            "id": "in",
            "kind": "hwmon",
            "chips": ["ina226"],
            "scope": "input",
            "grade": "A",
            "complete": True,
            "covers": "all",
            "rail": [{"label": "VIN", "counted": True, "amps_scale": 2.0}],
        }
    ],
}


def faults_of(change) -> str:
    data = deepcopy(GOOD)
    change(data)
    with pytest.raises(ConfigError) as caught:
        parse_board(data, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ") and "\n" not in message
    return message


def test_a_valid_file_becomes_a_board_with_defaults() -> None:
    board = parse_board(GOOD, "my.toml")
    source = board.sources[0]
    assert (board.id, source.rate_hz, source.stuck_after_s, source.fit) == ("my-board", 10.0, 60.0, None)
    assert source.rails[0].amps_scale == 2.0 and source.rails[0].counted


def test_every_fault_is_named_at_once_with_the_nearest_key() -> None:
    def change(data) -> None:
        data["formt"] = 2
        data["source"][0]["scope"] = "wall"
        data["source"][0]["rate_hz"] = 0
        data["source"][0]["rail"][0]["cuonted"] = True

    message = faults_of(change)
    for told in ("did you mean 'format'", "source[0].scope: 'wall'", "rate_hz: 0 is outside", "did you mean 'counted'"):
        assert told in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.update(format=2), "format: '2' is not one of 1"),
        (lambda data: data.update(source=[]), "at least one [[source]]"),
        (lambda data: data["source"].append(data["source"][0]), "'in' stands more than once"),
        (lambda data: data["source"][0].pop("chips"), "chips: is missing"),
        (lambda data: data["source"][0]["rail"][0].update(counted=False), "no rail is counted"),
        (lambda data: data["source"][0].update(scope="rails"), "'rails' cannot be complete"),
        (lambda data: data["source"][0].update(grade="D"), "grade D is a model"),
        (lambda data: data["source"][0].update(complete="yes"), "true or false"),
        (lambda data: data["source"][0].update(accuracy={"gain": 2.0}), "accuracy.gain: 2 is outside"),
        (lambda data: data["source"][0].update(accuracy=3), "accuracy: '3' is not a table"),
        (lambda data: data["source"][0].update(watts_max=float("nan")), "watts_max: 'nan' is not a number"),
        (lambda data: data.update(title="two\nlines"), "title"),
        (lambda data: data["source"][0].update(rail=[{"label": f"R{n}"} for n in range(65)]), "65 entries, at most 64"),
    ],
)
def test_a_fault_is_refused_by_name(change, told) -> None:
    assert told in faults_of(change)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.sampled_from(["id", "kind", "rail", "label", "fit", "accuracy", "chips", "x"])
tables = st.dictionaries(keys, leaves | st.lists(st.dictionaries(keys, leaves, max_size=3), max_size=2), max_size=5)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {"format": leaves, "source": leaves | st.lists(leaves | tables, max_size=2)},
        optional={"id": leaves, "y": leaves},
    )
)
def test_any_table_is_a_board_or_a_config_error(data) -> None:
    try:
        parse_board(data, "fuzz.toml")
    except ConfigError as error:
        assert "fuzz.toml" in str(error)


def test_a_file_of_the_owner_takes_the_place_of_a_shipped_one_and_a_broken_one_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'format = 1\nid = "jetson-nano"\ntitle = "Mine"\n[[source]]\nid = "in"\nkind = "iio"\nchips = ["ina3221x"]\n'
        'scope = "input"\ngrade = "A"\ncomplete = true\ncovers = "all"\n'
        '[[source.rail]]\nlabel = "POM_5V_IN"\ncounted = true\n'
    )
    (tmp_path / "broken.toml").write_text("format = = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "huge.toml").write_text("#" * 70_000)
    boards, faults = load_boards(tmp_path)
    by_id = {board.id: board for board in boards}
    assert by_id["jetson-nano"].title == "Mine"
    assert "raspberry-pi-5" in by_id
    assert len(faults) == 3 and all("other board files serve" in str(fault) for fault in faults)
