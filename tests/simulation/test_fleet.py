"""A fleet of 100,000 devices in simulated time, each decision by the device's own code (`bench.update.fleet`)."""

from __future__ import annotations

import pytest

from bench.update import fleet

FLEET = 100_000


def test_case_42_start_times_of_100000_devices_are_even_and_no_second_has_twice_the_mean() -> None:
    begun = fleet.starts(FLEET)
    assert begun.peak <= 2 * begun.mean, begun
    assert begun.distance < begun.distance_by_chance, begun


def test_case_42_each_wave_of_100000_devices_is_as_wide_as_asked_within_a_hundredth_of_the_fleet() -> None:
    waves = fleet.waves(FLEET)
    assert [wave.asked for wave in waves] == pytest.approx([n / 10 for n in range(1, 11)])
    assert max(abs(wave.opened - wave.asked) for wave in waves) < 0.01
    assert waves[-1].opened == 1.0


def test_case_42_an_abort_reaches_every_device_that_can_be_reached_before_its_trial() -> None:
    hold_to_the_promise(fleet.abort(3000))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_case_42_an_abort_reaches_100000_devices_before_their_trial(capsys: pytest.CaptureFixture[str]) -> None:
    ended = fleet.abort(FLEET)
    with capsys.disabled():
        print(f"\n{ended}")
    hold_to_the_promise(ended)


def hold_to_the_promise(ended: fleet.Abort) -> None:
    assert ended.tried_after == 0, ended
    found = ended.committed_before + ended.never_began + ended.cut_short + ended.held_at_the_door
    assert found + ended.tried_unreached == ended.devices, ended
    assert min(ended.committed_before, ended.never_began, ended.cut_short, ended.tried_unreached) > 0, ended
