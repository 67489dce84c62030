"""The door of the room: one law on given quantities, decided as far as the digits allow. Pure.

*consistent*: zero lies within what the digits leave open, and the digits are fine enough for that to mean something.
*violation*: the residual is at least three times what rounding or measurement could explain.
*undecidable*: in between, too coarse, a role missing, a unit of another kind, or a number that is none. The reason says
which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from nis_edge.errors import EventFormatError
from nis_edge.physics.intervals import Interval
from nis_edge.physics.laws import LAWS, Law, Role
from nis_edge.physics.symbols import unbalanced
from nis_edge.physics.units import unit_of

VIOLATION_BOUNDS: Final = 3.0
"""A violation's residual in units of its error bound (design, monitor section 7)."""

COARSE: Final = 0.25
"""An error bound beyond this share of the scale hides even large violations: then agreement proves nothing."""

VALUES_MAX: Final = 64
"""Values in one role."""

BANDS: Final = (("low", 0.05), ("medium", 0.20), ("high", 0.50))
"""Residual against scale, by the protocol's words; beyond the last it is critical (design, monitor section 1)."""

EXPONENT_MAX: Final = 250
"""Powers of ten in a printed number: its half step must still be a number."""

Decision = Literal["consistent", "violation", "undecidable"]
Band = Literal["low", "medium", "high", "critical"]


class Quantity(msgspec.Struct, frozen=True):
    """A number with its unit; the truth lies within ``half_width`` of ``value``, in the same unit."""

    value: float
    unit: str = "1"
    half_width: float = 0.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, and on which numbers.

    Args:
        law: which law.
        decision: consistent, violation or undecidable.
        residual: what should be zero, in ``unit``; None where it could not be computed.
        bound: how much of it the given error could explain, in ``unit``.
        scale: the largest term of the balance, in ``unit``.
        severity: residual against scale, for a violation.
        reason: why it is undecidable.
    """

    law: str
    decision: Decision
    unit: str
    residual: float | None = None
    bound: float | None = None
    scale: float | None = None
    severity: Band | None = None
    reason: str | None = None


Given = Mapping[str, Quantity | Sequence[Quantity]]


def check(law: str, given: Given) -> Check:
    """Hold quantities against a law.

    Args:
        law: a name of ``laws.LAWS``.
        given: role -> its quantity, or several where the role takes many.

    Returns:
        The decision. What can't be used gives ``undecidable`` with the reason; nothing raises.
    """
    known = LAWS.get(law)
    if known is None:
        return Check(law=law, decision="undecidable", unit="", reason=f"no law is called {law!r}")
    try:
        values = _values(known, given)
    except EventFormatError as error:
        return Check(law=law, decision="undecidable", unit=known.unit, reason=str(error))
    residual, scale = known.balance(values)
    return _decide(law, known, residual, scale)


def check_dimensions(left: str, right: str) -> Check:
    """Whether two units, or the units of both sides of an equation, are of one kind."""
    law = "dimensions"
    try:
        agree = unit_of(left).dimension == unit_of(right).dimension
    except EventFormatError as error:
        return Check(law=law, decision="undecidable", unit="", reason=str(error))
    if agree:
        return Check(law=law, decision="consistent", unit="", residual=0.0, bound=0.0)
    return Check(law=law, decision="violation", unit="", severity="critical")


def check_reaction(reactants: Sequence[tuple[int, str]], products: Sequence[tuple[int, str]]) -> Check:
    """Whether a reaction keeps every atom; ``residual`` counts those that appear or vanish."""
    law = "stoichiometry"
    try:
        if not reactants or not products or len(reactants) + len(products) > VALUES_MAX:
            raise EventFormatError("a reaction has something on both sides")
        left = unbalanced(reactants, products)
    except EventFormatError as error:
        return Check(law=law, decision="undecidable", unit="atoms", reason=str(error))
    lost = float(sum(abs(count) for count in left.values()))
    if not left:
        return Check(law=law, decision="consistent", unit="atoms", residual=0.0, bound=0.0)
    said = ", ".join(f"{atom} {count:+d}" for atom, count in left.items())
    return Check(
        law=law, decision="violation", unit="atoms", residual=lost, bound=0.0, severity="critical", reason=said
    )


_DISPLAYED: Final = re.compile(r"([+-]?)(\d{1,30})(?:\.(\d{0,30}))?(?:[eE]([+-]?\d{1,3}))?\Z")


def displayed(text: str, unit: str = "1", *, exact: bool = False) -> Quantity:
    """A number as it was printed: the truth lies within half a step of its last digit.

    Args:
        text: such as ``3.20`` or ``1.5e3``.
        unit: its unit.
        exact: True for a count or a definition, which no rounding touched.

    Raises:
        EventFormatError: it is no number.
    """
    match = _DISPLAYED.match(text.strip().replace("−", "-"))
    if match is None or abs(int(match[4] or 0)) > EXPONENT_MAX:
        raise EventFormatError(f"{text[:40]!r} is no number")
    value = float(text.strip().replace("−", "-"))
    step = 10.0 ** (int(match[4] or 0) - len(match[3] or ""))
    return Quantity(value, unit, 0.0 if exact else step / 2.0)


def band_of(share: float) -> Band:
    """The protocol's word for a residual of this share of its scale."""
    for name, below in BANDS:
        if share < below:
            return name  # type: ignore[return-value]
    return "critical"


def _values(law: Law, given: Given) -> dict[str, list[Interval]]:
    unknown = sorted(set(given) - set(law.roles))
    if unknown:
        raise EventFormatError(f"the law has no role {unknown[0]!r}; it has {', '.join(law.roles)}")
    values = {name: _of_role(name, role, given.get(name)) for name, role in law.roles.items()}
    for group in law.same_length:
        if len({len(values[name]) for name in group}) > 1:
            raise EventFormatError(f"{', '.join(group)} need equally many values")
    return values


def _of_role(name: str, role: Role, given: Quantity | Sequence[Quantity] | None) -> list[Interval]:
    if given is None:
        if role.default is None:
            raise EventFormatError(f"no {name} is given")
        return [Interval(role.default, role.default)]
    quantities = [given] if isinstance(given, Quantity) else list(given)
    if not quantities or len(quantities) > (VALUES_MAX if role.many else 1):
        raise EventFormatError(f"{name} takes {f'1 to {VALUES_MAX} values' if role.many else 'one value'}")
    return [_in_si(name, role, quantity) for quantity in quantities]


def _in_si(name: str, role: Role, quantity: Quantity) -> Interval:
    unit = unit_of(quantity.unit)
    if unit.dimension != role.dimension:
        raise EventFormatError(f"{name} in {quantity.unit!r} is of another kind than the law's")
    if not (math.isfinite(quantity.value) and math.isfinite(quantity.half_width) and quantity.half_width >= 0.0):
        raise EventFormatError(f"{name} is no finite number with a finite error")
    low, high = quantity.value - quantity.half_width, quantity.value + quantity.half_width
    return Interval(low, high).scaled(unit.factor).plus(Interval(unit.offset, unit.offset))


def _decide(name: str, law: Law, interval: Interval, scale: float) -> Check:
    residual, bound = interval.middle, interval.half_width
    if not (math.isfinite(residual) and math.isfinite(bound) and math.isfinite(scale)):
        return Check(law=name, decision="undecidable", unit=law.unit, reason="the numbers leave the residual unbounded")
    reason: str | None = None
    severity: Band | None = None
    decision: Decision
    excess = residual if law.is_bound else abs(residual)
    if excess <= bound:
        decision = "consistent"
        if bound > COARSE * scale and scale > 0.0 and not (law.is_bound and interval.high <= 0.0):
            decision = "undecidable"
            reason = f"the given error ({bound:.3g}) is too coarse against {scale:.3g} to tell"
    elif excess >= VIOLATION_BOUNDS * bound:
        decision = "violation"
        severity = band_of(excess / max(scale, bound)) if max(scale, bound) > 0.0 else "critical"
    else:
        decision = "undecidable"
        reason = f"the residual ({residual:.3g}) is {excess / bound:.1f} times what the given error explains, not 3"
    return Check(
        law=name,
        decision=decision,
        unit=law.unit,
        residual=residual,
        bound=bound,
        scale=scale,
        severity=severity,
        reason=reason,
    )
