"""Raw rail numbers to one honest power reading: which rails were counted, what they cover, how far to trust the sum.

Rules kept here: a total is never built from fewer rails than the board file names; a rail that could not be read, or
that reads something impossible, makes the total absent with the reason; nothing is replaced by zero, by the last value
or by a typical one. How a rail is read is the adapters' business, what a board has is a board file's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

Scope = Literal["input", "module", "rails", "core", "package", "model"]
Grade = Literal["A", "B", "C", "D"]

SCOPES: Final[tuple[Scope, ...]] = ("input", "module", "rails", "core", "package", "model")
"""input: the device's DC input; module: a compute module's own input; rails: a sum of some rails; core: the processor
core's rail; package: a processor package as it estimates itself; model: computed, not measured."""

GRADES: Final[tuple[Grade, ...]] = ("A", "B", "C", "D")
"""A: external meter on the DC input; B: total measured on board; C: sum of rails; D: a model."""

Z_95: Final = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How wrong one rail's numbers may be: steps of the converter and bounds from its data sheet or a calibration."""

    amps_step: float = 0.0
    volts_step: float = 0.0
    watts_step: float = 0.0
    amps_offset: float = 0.0
    gain: float = 0.0


class SourceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a power source is, apart from what it reads: the sentence that must stand beside every watt.

    ``complete`` says whether the scope takes in all that the device draws (for a module: all that the module draws);
    only a complete scope can pass a limit. ``lower_bound`` says that an incomplete sum counts nothing twice: the device
    surely draws no less. ``counted`` are the labels whose sum is the total.
    """

    source: str
    board: str
    kind: str
    scope: Scope
    grade: Grade
    complete: bool
    lower_bound: bool = False
    counted: tuple[str, ...]
    covers: str
    misses: str
    rate_hz: float
    where: str = ""


class RailSample(msgspec.Struct, frozen=True, kw_only=True):
    """One rail as read: ``watts`` is None exactly when ``reason`` says why. ``joules`` is a running counter, if any."""

    rail: str
    watts: float | None
    volts: float | None = None
    amps: float | None = None
    joules: float | None = None
    reason: str | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Watts of a wider scope computed from a narrower measurement by a published fit: modelled, never measured."""

    watts: float
    scope: Scope
    grade: Grade
    method: str


class PowerReading(msgspec.Struct, frozen=True, kw_only=True):
    """Power at ``t_s`` (seconds on the monotonic clock): ``watts`` is None exactly when ``reason`` says why.

    ``joules`` is the energy counted since the source was opened, where the hardware counts it. ``step_w`` is one step
    of the converter, ``offset_w`` and ``gain`` are bounds of the systematic errors, ``uncertainty_w`` the half width of
    the 95 % interval of this single reading.
    """

    t_s: float
    watts: float | None
    info: SourceInfo
    rails: tuple[RailSample, ...]
    step_w: float = 0.0
    offset_w: float = 0.0
    gain: float = 0.0
    uncertainty_w: float | None = None
    joules: float | None = None
    estimate: Estimate | None = None
    reason: str | None = None


class PowerSource(Protocol):
    """Something that gives power readings. ``read`` never raises for a broken sensor: its reading is absent."""

    info: SourceInfo

    def read(self, now: float) -> PowerReading:
        """Read once.

        Args:
            now: seconds on the monotonic clock, just before the call.
        """
        ...

    def close(self) -> None:
        """Give back what the source holds open."""
        ...


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """A source that was looked for and not found: which, and why."""

    source: str
    reason: str


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What one adapter found on this machine, and what it looked for in vain."""

    sources: tuple[PowerSource, ...] = ()
    absent: tuple[Absence, ...] = ()


def rail_sample(
    rail: str, *, volts: float | None, amps: float | None, watts: float | None, watts_max: float, amps_slack: float
) -> RailSample:
    """Judge one rail's raw numbers.

    Args:
        rail: the rail's label.
        volts: bus voltage in V, or None where the sensor gives none.
        amps: current in A, or None.
        watts: power in W computed by the sensor itself, or None: then volts times amps.
        watts_max: W; more than this cannot be on this rail.
        amps_slack: A; a current this little below zero is noise around zero, more is a fault.

    Returns:
        The sample; absent with a reason when the numbers can't be true.
    """

    def absent(reason: str) -> RailSample:
        return RailSample(rail=rail, watts=None, volts=volts, amps=amps, reason=reason)

    if any(number is not None and not math.isfinite(number) for number in (volts, amps, watts)):
        return absent(f"{rail}: the sensor gave something that is not a finite number")
    if amps is not None and amps < -amps_slack:
        return absent(
            f"{rail}: negative current {amps:.3f} A: the shunt is reversed or the board is fed from elsewhere"
        )
    if watts is None:
        if volts is None or amps is None:
            return absent(f"{rail}: neither power nor both voltage and current were given")
        watts = volts * amps
    if volts is not None and volts < 0:
        return absent(f"{rail}: negative voltage {volts:.3f} V")
    if abs(watts) > watts_max:
        return absent(f"{rail}: {watts:.1f} W is beyond the {watts_max:g} W that this board can draw")
    return RailSample(rail=rail, watts=watts, volts=volts, amps=amps)


def total(
    info: SourceInfo,
    samples: Sequence[RailSample],
    accuracies: Sequence[Accuracy],
    *,
    now: float,
    joules: float | None = None,
    fit: tuple[float, float, Scope, str] | None = None,
) -> PowerReading:
    """Add the counted rails, or say why there is no sum.

    Args:
        info: the source.
        samples: every rail read, in the order of ``accuracies``.
        accuracies: one for each sample.
        now: seconds on the monotonic clock.
        joules: the sum of the energy counters since opening, where the hardware counts.
        fit: (gain, offset in W, scope, method) of a published fit to a wider scope, or None.
    """
    counted = [
        (sample, accuracy) for sample, accuracy in zip(samples, accuracies, strict=True) if sample.rail in info.counted
    ]
    faults = [sample.reason or f"{sample.rail}: no power" for sample, _ in counted if sample.watts is None]
    seen = {sample.rail for sample, _ in counted}
    faults += [f"{label}: not read" for label in info.counted if label not in seen]
    if faults or not counted:
        return PowerReading(
            t_s=now, watts=None, info=info, rails=tuple(samples), reason="; ".join(faults) or "no rail is counted"
        )
    watts = math.fsum(sample.watts for sample, _ in counted if sample.watts is not None)
    if watts <= 0:
        reason = f"{watts:.3f} W: a machine that runs draws more than nothing, so the sensor is wrong or switched off"
        return PowerReading(t_s=now, watts=None, info=info, rails=tuple(samples), reason=reason)
    step_w = math.hypot(*(step for sample, accuracy in counted for step in _steps_w(sample, accuracy)))
    offset_w = math.fsum(accuracy.amps_offset * abs(sample.volts or 0.0) for sample, accuracy in counted)
    gain = max(accuracy.gain for _, accuracy in counted)
    estimate = None
    if fit is not None:
        fit_gain, fit_offset_w, scope, method = fit
        estimate = Estimate(watts=fit_gain * watts + fit_offset_w, scope=scope, grade="D", method=method)
    return PowerReading(
        t_s=now,
        watts=watts,
        info=info,
        rails=tuple(samples),
        step_w=step_w,
        offset_w=offset_w,
        gain=gain,
        uncertainty_w=uncertainty_95_w(watts, step_w=step_w, offset_w=offset_w, gain=gain),
        joules=joules,
        estimate=estimate,
    )


def uncertainty_95_w(watts: float, *, step_w: float, offset_w: float, gain: float) -> float:
    """Half width in W of the 95 % interval of one reading, noise left out.

    A step and a bound are rectangular distributions: standard deviations step/sqrt(12) and bound/sqrt(3)
    (Guide to the expression of uncertainty in measurement, JCGM 100, 4.3.7), added in quadrature.
    """
    return Z_95 * math.sqrt(step_w**2 / 12 + offset_w**2 / 3 + (gain * watts) ** 2 / 3)


def best_first(sources: Sequence[PowerSource]) -> tuple[PowerSource, ...]:
    """Order sources by what they are worth to a limit: complete scope first, then grade; ties keep their order."""
    return tuple(sorted(sources, key=lambda source: (not source.info.complete, GRADES.index(source.info.grade))))


def _steps_w(sample: RailSample, accuracy: Accuracy) -> tuple[float, ...]:
    """The power in W that one step of each converter is worth at this reading."""
    return (
        accuracy.watts_step,
        accuracy.amps_step * abs(sample.volts or 0.0),
        accuracy.volts_step * abs(sample.amps or 0.0),
    )
