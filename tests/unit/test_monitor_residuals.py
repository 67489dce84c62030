"""Sensors against each other: true ones agree whatever they measure, a scaled one breaks the law it stands in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from nis_edge.monitor.device import absorb_reading
from nis_edge.monitor.machine import AgentEvents, Options, Raised, Readings, Tick, step
from nis_edge.monitor.residuals import residuals
from nis_edge.monitor.state import MonitorState
from nis_edge.wire.messages import AgentEvent, Reading

World = dict[str, Callable[[float], float]]


def power(t: float) -> float:
    return 6.0 + 2.0 * math.sin(t / 9.0)


def voltage(t: float) -> float:
    return 5.1 - 0.02 * power(t)


def energy(t: float) -> float:
    return 1000.0 + 6.0 * t - 18.0 * math.cos(t / 9.0) + 18.0


def speed(t: float) -> float:
    return 1.0 + 0.5 * math.sin(t / 20.0)


def place(t: float) -> float:
    return t - 10.0 * math.cos(t / 20.0)


WORLD: World = {
    "power_w": power,
    "voltage_v": voltage,
    "current_a": lambda t: power(t) / voltage(t),
    "energy_j": energy,
    "battery_current_a": lambda t: power(t) / 12.0,
    "battery_charge_ah": lambda t: 10.0 - energy(t) / 12.0 / 3600.0,
    "position_m": place,
    "velocity_mps": speed,
    "temperature_c": lambda t: 55.0,
    "throttled": lambda t: 0.0,
}


def sensed(world: World, seconds: float = 130.0, every_s: float = 2.0, seed: int = 1, prefix: str = "") -> MonitorState:
    """Sensors with half a per cent of noise, not quite at the same moment."""
    r, state, t = random.Random(seed), MonitorState(), 0.0
    while t < seconds:
        for name, of in world.items():
            at = t + r.uniform(0.0, 0.1)
            is_counter = name in ("energy_j", "battery_charge_ah", "position_m", "rx_total")
            value = of(at) if is_counter else of(at) * (1.0 + r.gauss(0.0, 0.005))
            reading = Reading(name=prefix + name, value=value, unit="?", ts=at, source="test")
            state = absorb_reading(state, reading, at)
        t += every_s
    return state


def broken_laws(world: World) -> set[str]:
    return {found.law for found in residuals(sensed(world).sensors)}


@pytest.mark.parametrize("seed", range(5))
def test_sensors_that_tell_the_truth_break_no_law(seed: int) -> None:
    assert list(residuals(sensed(WORLD, seed=seed).sensors)) == []


@pytest.mark.parametrize(
    ("name", "factor", "laws"),
    [
        ("voltage_v", 1.5, {"power_vi"}),
        ("current_a", 0.5, {"power_vi"}),
        ("energy_j", 2.0, {"power_time"}),
        ("battery_charge_ah", 3.0, {"coulomb_count"}),
        ("battery_current_a", -1.0, {"coulomb_count"}),
        ("position_m", 1.6, {"kinematics_distance"}),
        ("velocity_mps", 0.4, {"kinematics_distance"}),
    ],
)
def test_a_scaled_sensor_breaks_the_law_it_stands_in(name: str, factor: float, laws: set[str]) -> None:
    true = WORLD[name]
    assert broken_laws({**WORLD, name: lambda t: factor * true(t)}) == laws


def test_a_sensor_off_by_what_its_kind_allows_breaks_none() -> None:
    for name in ("voltage_v", "current_a", "energy_j", "velocity_mps"):
        true = WORLD[name]
        assert broken_laws({**WORLD, name: lambda t, of=true: 1.04 * of(t)}) == set(), name  # type: ignore[misc]


def test_a_counter_that_falls_is_named_and_one_that_began_anew_is_not() -> None:
    assert broken_laws({"rx_total": lambda t: 500.0 + t if t < 120 else 400.0 + t}) == {"monotone_counter"}
    assert broken_laws({"rx_total": lambda t: 500.0 + t if t < 120 else t - 120.0}) == set()


def test_a_cool_board_that_slows_itself_down_is_worth_a_look() -> None:
    (found,) = residuals(sensed({**WORLD, "throttled": lambda t: 1.0, "temperature_c": lambda t: 41.0}).sensors)
    assert (found.law, found.severity) == ("heat_throttling", "low")


def test_alone_or_for_too_short_a_time_nothing_is_said() -> None:
    assert broken_laws({"power_w": power, "voltage_v": lambda t: 99.0}) == set()
    brief = sensed({**WORLD, "energy_j": lambda t: 9.0 * energy(t)}, seconds=15.0)
    assert [found.law for found in residuals(brief.sensors)] == []


def test_the_monitor_names_the_owner_the_law_and_both_numbers() -> None:
    state, raised, now = MonitorState(), [], 1.8e9
    for index in range(40):
        now += 2.0
        rover = {"power_w": 12.0, "voltage_v": 12.0, "current_a": 0.4}
        event = AgentEvent(id=str(index), ts=now, agent="rover", kind="step", data={"readings": rover})
        board = Reading(name="temperature_c", value=50.0, unit="Cel", ts=now, source="test")
        state, effects = step(state, (AgentEvents((event,)), Readings((board,)), Tick()), now, Options())
        raised += [effect.finding for effect in effects if isinstance(effect, Raised)]
    (finding,) = [found for found in raised if found.label == "physics_violation"]
    assert finding.agents == ("rover",) and finding.severity == "high"
    assert "12 W is told, but 12 V x 0.4 A = 4.8 W" in finding.text
    assert finding.evidence == ("rover/power_w", "rover/voltage_v", "rover/current_a")
    assert state.device_t is not None and "rover/power_w" in state.sensors
