"""Which laws a text may speak of, and which number fills which slot: by units, and by the nearest cue word. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from nis_edge.physics import units
from nis_edge.physics.checks import Quantity
from nis_edge.physics.units import unit_of
from nis_models.physics_quantities import Found, of

Slots = Mapping[str, Quantity | Sequence[Quantity]]

CLOSE: Final = 14
"""A cue so many characters behind a number speaks of it."""

_EXACT_ONE: Final = Quantity(1.0, "kg", 0.0)
_NOTHING: Final = Quantity(0.0, "J", 0.0)
_MOMENTUM: Final[units.Dimension] = (1, 1, -1, 0, 0, 0, 0)
_FLOW: Final[frozenset[units.Dimension]] = frozenset({(0, 1, -1, 0, 0, 0, 0)})
Reader = Callable[[str, list[Found]], Iterator[Slots]]


def readers(line: str, found: list[Found]) -> Iterator[tuple[str, Reader]]:
    """Laws that the units and words may speak of, likeliest first."""
    has = {one.dimension for one in found}
    shares = units.DIMENSIONLESS in has or re.search(r"efficien|carnot|convert|heat engine|work", line)
    if len(of(found, units.TEMPERATURE)) == 2 and shares and units.MASS not in has:
        yield "carnot_bound", _carnot
    if units.MOMENT_OF_INERTIA in has:
        yield "angular_momentum", _spin
    if sum(one.dimension == _MOMENTUM for one in found) == 2:
        yield "momentum_1d", _total_momentum
    if units.CHARGE in has and units.CURRENT in has and units.TIME in has:
        yield "coulomb_count", _battery
    if units.ENERGY in has and units.POWER in has and units.TIME in has:
        yield "power_time", _consumption
    if {units.VOLTAGE, units.CURRENT, units.POWER} <= has:
        yield "power_vi", _watts
    if units.TEMPERATURE in has and units.MASS in has:
        yield "heat_balance", _heat
    if units.ENERGY in has and not has & {units.VELOCITY, units.LENGTH, units.POWER, units.TEMPERATURE}:
        yield "first_law", _first_law
    uphill = re.search(r"height|high|above|drop|climb|slope|ramp|hill|falls? (?:from|through)", line)
    if not uphill and (units.ACCELERATION in has or {units.LENGTH, units.VELOCITY, units.TIME} <= has):
        yield "kinematics_distance", _distance
        yield "kinematics_velocity", _speeds
    if units.VELOCITY in has and units.LENGTH in has:
        yield "mechanical_energy", _energy
        yield "kinematics_distance", _distance
    if units.MASS in has and units.VELOCITY in has:
        yield "momentum_1d", _momentum
    if units.CURRENT in has:
        yield "charge", _node
    if units.MASS in has or has & _FLOW:
        yield "mass_balance", _masses


_BEFORE: Final = re.compile(
    r"\b(?:before|initial(?:ly)?|at first|at the start|starts?|started|starting|beginning|originally|first|from|was"
    r"|were|had|held|until then|prior|upper|at the top|top|begins?|began|approach\w*|released|earlier"
    r"|in the morning|full)\b"
)
_AFTER: Final = re.compile(
    r"\b(?:after(?:wards?)?|final(?:ly)?|then|later|ends?|ended|end|to|reach\w*|now|settl\w*|leaves?|left over"
    r"|remain\w*|becomes?|became|until|down to|up to|resulting|at the bottom|bottom|lands?|arriv\w*|together|rebound\w*"
    r"|shows|reads|once|at last|equilibrium|mixture|common|comes out|still holds|is left|recoil\w*|spins? at"
    r"|turns? at)\b"
)
_OUT: Final = re.compile(
    r"\b(?:out|leav\w*|exit\w*|away|draw\w*|drain\w*|flow\w* out|discharg\w*|output|outgoing|outflow|product|removed"
    r"|off|branch\w*|carr\w* away|goes to|taken by|distillate|bottoms|permeate|retentate|waste|evaporat\w*|vented)\b"
)
_MAKES: Final = re.compile(r"\b(?:produc(?:es?|ed|ing)|yield\w*|forms?|gives?)\b")
"""Verbs that stand before what comes out, never behind it."""

_IN: Final = re.compile(
    r"\b(?:in|into|enter\w*|feed\w*|fed|inflow|incoming|arriv\w*|suppl\w*|received?|input|brought"
    r"|added|pour\w*|charged with)\b"
)
_NEGATIVE: Final = re.compile(
    r"\b(?:left(?!\s+over)|west(?:ward)?|backwards?|opposite|rebound\w*|bounces? back|recoil\w*|south|reverse)\b"
)


def _phase(one: Found, line: str, was: str | None) -> str | None:
    """``before`` or ``after``: by the nearest cue in front, in its sentence; else by the words behind; else as was."""
    start = max(line.rfind(". ", 0, one.start), line.rfind("; ", 0, one.start), 0)
    front = line[start : one.start]
    last = [(m.end(), "before") for m in _BEFORE.finditer(front)] + [(m.end(), "after") for m in _AFTER.finditer(front)]
    if last:
        return max(last)[1]
    behind = re.split(r"[.;]", one.after)[0]
    first = [(m.start(), "before") for m in _BEFORE.finditer(behind)] + [
        (m.start(), "after") for m in _AFTER.finditer(behind)
    ]
    return min(first)[1] if first else was


def _phases(found: Sequence[Found], line: str) -> list[str]:
    was: str | None = None
    said = []
    for one in found:
        was = _phase(one, line, was) or "before"
        said.append(was)
    return said


def _signed(one: Found) -> Quantity:
    """A velocity along the line: a word for the other direction turns it round, unless its sign is written."""
    value = one.quantity.value
    close = re.split(r"[.;,]| and | while ", one.after)[0]
    front = re.split(r"[.;,]| and | while ", one.before)[-1]
    if value > 0 and (_NEGATIVE.search(close) or _NEGATIVE.search(front)):
        return Quantity(-value, one.quantity.unit, one.quantity.half_width)
    return one.quantity


def _momentum(line: str, found: list[Found]) -> Iterator[Slots]:
    masses = of(found, units.MASS)
    moving = of(found, units.VELOCITY)
    n = len(masses)
    joined = re.search(r"\b(?:stick|stuck|together|coupl\w*|joined|lock\w*|common|combined|as one|cling)\b", line)
    phases = _phases(moving, line)
    before = [_signed(one) for one, phase in zip(moving, phases, strict=True) if phase == "before"]
    after = [_signed(one) for one, phase in zip(moving, phases, strict=True) if phase == "after"]
    signed = [_signed(one) for one in moving]
    options = [(before, after), (after, before)]
    if len(signed) == 2 * n:
        options += [(signed[:n], signed[n:]), (signed[0::2], signed[1::2])]
    elif len(signed) == n + 1:
        options += [(signed[:n], signed[n:]), (signed[1:], signed[:1])]
    for one, other in options:
        if len(other) == 1 < n and joined:
            other = other * n
        if len(one) == 1 < n and joined:
            one = one * n
        if n and len(one) == n and len(other) == n:
            yield {"mass": [m.quantity for m in masses], "velocity_before": one, "velocity_after": other}
            return


def _total_momentum(_line: str, found: list[Found]) -> Iterator[Slots]:
    """Both sums told as such: one kilogram carries them."""
    before, after = (
        Quantity(q.value * unit_of(q.unit).factor, "m/s", q.half_width * unit_of(q.unit).factor)
        for q in (one.quantity for one in of(found, _MOMENTUM))
    )
    yield {"mass": _EXACT_ONE, "velocity_before": before, "velocity_after": after}


def _spin(line: str, found: list[Found]) -> Iterator[Slots]:
    inertia, rates = of(found, units.MOMENT_OF_INERTIA), of(found, units.ANGULAR_VELOCITY)
    pairs = list(zip(inertia, rates, strict=False))
    as_one = re.search(r"\b(?:coupl\w*|together|common|stick|clutch|dropped (?:on|onto)|joined|locked)\b", line)
    if len(inertia) == len(rates) == 2 and not as_one:
        (i, w), (j, x) = pairs
        yield {
            "inertia_before": i.quantity, "rate_before": w.quantity,
            "inertia_after": j.quantity, "rate_after": x.quantity,
        }  # fmt: skip
    elif len(inertia) == len(rates) + 0 and len(pairs) > 2:
        phases = _phases([w for _, w in pairs], line)
        first = [pair for pair, phase in zip(pairs, phases, strict=True) if phase == "before"] or pairs[:-1]
        rest = [pair for pair in pairs if pair not in first] or pairs[-1:]
        yield {
            "inertia_before": [i.quantity for i, _ in first], "rate_before": [w.quantity for _, w in first],
            "inertia_after": [i.quantity for i, _ in rest], "rate_after": [w.quantity for _, w in rest],
        }  # fmt: skip
    elif len(inertia) == 2 and len(rates) in (2, 3):
        # Two discs that turn as one: the last rate is common to both.
        ahead = [rate.quantity for rate in rates[:-1]]
        ahead = ahead if len(ahead) == 2 else [*ahead, Quantity(0.0, "rad/s", 0.0)]
        both = [i.quantity for i in inertia]
        yield {
            "inertia_before": both, "rate_before": ahead,
            "inertia_after": both, "rate_after": [rates[-1].quantity] * 2,
        }  # fmt: skip


def _sides(line: str, found: Sequence[Found]) -> tuple[list[Quantity], list[Quantity]]:
    """In and out: what is listed together goes together, by the cue close behind the list, else in front of it."""
    into: list[Quantity] = []
    out: list[Quantity] = []
    was = "in"
    for group in _lists(found):
        start = max(line.rfind(". ", 0, group[0].start), line.rfind("; ", 0, group[0].start), 0)
        front, behind = line[start : group[0].start], re.split(r"[.;,]", group[-1].after)[0]
        near = [(m.start(), "out") for m in _OUT.finditer(behind)] + [(m.start(), "in") for m in _IN.finditer(behind)]
        last = [(m.end(), "out") for cue in (_OUT, _MAKES) for m in cue.finditer(front)]
        last += [(m.end(), "in") for m in _IN.finditer(front)]
        if near and min(near)[0] < CLOSE:
            was = min(near)[1]
        elif last:
            was = max(last)[1]
        elif near:
            was = min(near)[1]
        (into if was == "in" else out).extend(one.quantity for one in group)
    return into, out


def _lists(found: Sequence[Found]) -> list[list[Found]]:
    """Numbers with nothing but commas and *and* between them, together."""
    groups: list[list[Found]] = []
    for one in found:
        if groups and re.fullmatch(r"[\s,]*(?:and)?\s*", one.before) and one.before.strip():
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _node(line: str, found: list[Found]) -> Iterator[Slots]:
    amps = of(found, units.CURRENT)
    into, out = _sides(line, amps)
    if into and out:
        yield {"current_in": into, "current_out": out}
    elif len(amps) > 2:
        yield {"current_in": [amps[0].quantity], "current_out": [one.quantity for one in amps[1:]]}


_KEPT: Final = re.compile(
    r"\b(?:accumulat\w*|stays?|stor\w*|remain\w*|kept|build\w* up|gain\w*|holdup|left in|inventory|stock"
    r"|retain\w*|rises? by|fill\w*)\b"
)


def _masses(line: str, found: list[Found]) -> Iterator[Slots]:
    masses = [one for one in found if one.dimension == units.MASS or one.dimension in _FLOW]
    if len({one.dimension for one in masses}) > 1:
        return
    masses = [replace(one, quantity=_without_time(one.quantity)) for one in masses]
    clause = re.compile(r"[.;,]| and ")
    kept = [
        one for one in masses if _KEPT.search(clause.split(one.after)[0]) or _KEPT.search(clause.split(one.before)[-1])
    ]
    rest = [one for one in masses if one not in kept]
    into, out = _sides(line, rest)
    slots: dict[str, Quantity | Sequence[Quantity]] = {"mass_in": into, "mass_out": out}
    if kept:
        slots["accumulated"] = [one.quantity for one in kept]
    if into and out:
        yield slots
    elif len(rest) > 2:
        yield {**slots, "mass_in": [rest[0].quantity], "mass_out": [one.quantity for one in rest[1:]]}


def _without_time(one: Quantity) -> Quantity:
    """A flow of mass as the mass of one second: both sides of a balance are of the same time."""
    if unit_of(one.unit).dimension == units.MASS:
        return one
    factor = unit_of(one.unit).factor
    return Quantity(one.value * factor, "kg", one.half_width * factor)


def _battery(line: str, found: list[Found]) -> Iterator[Slots]:
    charges = of(found, units.CHARGE)
    amps, times = of(found, units.CURRENT), of(found, units.TIME)
    if len(charges) < 1 or not amps or len(amps) != len(times):
        return
    charging = re.search(
        r"\bcharg(?:es|ed|ing|er)\b|\bcharge[sd]? (?:it|at|with)\b|fills? up|topped", line
    ) and not re.search(r"discharg|draw|drain|suppl|load|consum", line)
    flowing = [
        Quantity(-one.quantity.value if charging else one.quantity.value, one.quantity.unit, one.quantity.half_width)
        for one in amps
    ]
    durations = [one.quantity for one in times]
    levels = of(found, units.DIMENSIONLESS)
    if len(charges) == 1 and len(levels) == 2:
        # The capacity, and the state of charge before and after as shares of it.
        capacity = charges[0].quantity
        start, end = (
            Quantity(
                capacity.value * share.value * unit_of(share.unit).factor,
                capacity.unit,
                capacity.value * share.half_width * unit_of(share.unit).factor,
            )
            for share in (one.quantity for one in levels)
        )
        yield {"charge_before": start, "charge_after": end, "current": flowing, "duration": durations}
        return
    if len(charges) == 1:
        # "... delivers 1.2 Ah": what flowed, told alone.
        start, end = charges[0].quantity, Quantity(0.0, charges[0].quantity.unit, 0.0)
        if charging:
            start, end = end, start
        yield {"charge_before": start, "charge_after": end, "current": flowing, "duration": durations}
        return
    phases = _phases(charges, line)
    first, last = charges[0].quantity, charges[-1].quantity
    if phases[0] == "after" and phases[-1] == "before":
        first, last = last, first
    yield {"charge_before": first, "charge_after": last, "current": flowing, "duration": durations}


def _consumption(_line: str, found: list[Found]) -> Iterator[Slots]:
    energy, power, times = of(found, units.ENERGY), of(found, units.POWER), of(found, units.TIME)
    if len(energy) == 1 and len(power) == len(times):
        yield {
            "energy": energy[0].quantity, "power": [p.quantity for p in power], "duration": [t.quantity for t in times],
        }  # fmt: skip


def _watts(_line: str, found: list[Found]) -> Iterator[Slots]:
    volts, amps, watts = of(found, units.VOLTAGE), of(found, units.CURRENT), of(found, units.POWER)
    if len(volts) == len(amps) == len(watts) == 1:
        yield {"power": watts[0].quantity, "voltage": volts[0].quantity, "current": amps[0].quantity}


def _heat(line: str, found: list[Found]) -> Iterator[Slots]:
    masses, capacity = of(found, units.MASS), of(found, units.HEAT_CAPACITY_SPECIFIC)
    degrees, heat = of(found, units.TEMPERATURE), of(found, units.ENERGY)
    if len(degrees) == len(masses) == 3 and len(capacity) < 3:
        masses = masses[:2]  # the third is that of the mixture
    n = len(masses)
    if len(degrees) == n == len(capacity) == len(heat) == 1 and re.search(r"\bby\s*\Z", degrees[0].before):
        # "warms by ten kelvin": a difference.
        rise = Quantity(degrees[0].quantity.value, "K", degrees[0].quantity.half_width)
        yield {
            "mass": masses[0].quantity, "heat_capacity": capacity[0].quantity, "heat_supplied": heat[0].quantity,
            "temperature_before": Quantity(0.0, "K", 0.0), "temperature_after": rise,
        }  # fmt: skip
        return
    if len(degrees) != n + 1 or len(capacity) not in (0, 1, n):
        return
    specific = [one.quantity for one in capacity]
    if not specific:
        # One substance: its heat capacity divides out, unless heat comes from outside.
        specific = [Quantity(4186.0, "J/(kg K)", 2.0 if heat else 0.0)]
    specific = specific * n if len(specific) == 1 else specific
    phases = _phases(degrees, line)
    final = next((at for at in range(n, -1, -1) if phases[at] == "after"), n)
    if phases.count("after") > 1:
        final = n
    supplied = [one.quantity for one in heat]
    if re.search(r"\b(?:cool|gives? off|loses?|removed|extracted)", line) and len(supplied) == 1 and n == 1:
        supplied = [Quantity(-supplied[0].value, supplied[0].unit, supplied[0].half_width)]
    slots: dict[str, Quantity | Sequence[Quantity]] = {
        "mass": [one.quantity for one in masses],
        "heat_capacity": specific,
        "temperature_before": [one.quantity for at, one in enumerate(degrees) if at != final],
        "temperature_after": degrees[final].quantity,
    }
    if supplied:
        slots["heat_supplied"] = supplied
    yield slots


def _first_law(line: str, found: list[Found]) -> Iterator[Slots]:
    energies = of(found, units.ENERGY)
    if len(energies) == 2 and re.search(r"kinetic|potential|mechanical|before|total energy", line):
        # Energy of two moments: nothing is taken in or done between them.
        yield {
            "internal_energy_change": energies[1].quantity, "heat_in": energies[0].quantity, "work_by_system": _NOTHING,
        }  # fmt: skip
    if len(energies) != 3:
        return
    roles: dict[str, Found] = {}
    cues = (
        (
            "internal_energy_change",
            r"internal energy|inner energy|energy of the gas|stored energy|\bu\b|[δ∆]\s?u\b|\bdu\b|own energy",
        ),
        ("work_by_system", r"\bwork\w*|\bw\b|expand\w*|compress\w*|piston|pushe?s?"),
        ("heat_in", r"heat\w*|\bq\b|absorb\w*|burner|warm\w*|reject\w*|flame|receives"),
    )
    for role, cue in cues:
        best: tuple[int, Found] | None = None
        for one in energies:
            if one in roles.values():
                continue
            front = re.split(r"[.;]", one.before)[-1]
            behind = re.split(r"[.;]", one.after)[0]
            near = [len(front) - m.end() for m in re.finditer(cue, front)] + [
                3 + m.start() for m in re.finditer(cue, behind)
            ]
            if near and (best is None or min(near) < best[0]):
                best = (min(near), one)
        if best is None:
            break
        roles[role] = best[1]
    left = [one for one in energies if one not in roles.values()]
    missing = [role for role, _ in cues if role not in roles]
    if len(missing) == 1 and len(left) == 1:
        roles[missing[0]] = left[0]
    if len(roles) != 3:
        return
    signs = {
        "internal_energy_change": r"drops?|falls?|decreas\w*|loses?|lost|reduc\w*|sinks?|lower\w*",
        "work_by_system": r"on (?:the|it|a)\b|compress\w*|done on|against the gas",
        "heat_in": r"reject\w*|gives? (?:off|up|away)|loses?|releas\w*|escap\w*|leaks?|dissipat\w*|removed|out",
    }
    slots = {}
    for role, one in roles.items():
        around = (
            re.split(r"[.;,]| and | while ", one.before)[-1] + " # " + re.split(r"[.;,]| and | while ", one.after)[0]
        )
        turned = one.quantity.value > 0 and re.search(signs[role], around)
        slots[role] = (
            Quantity(-one.quantity.value, one.quantity.unit, one.quantity.half_width) if turned else one.quantity
        )
    yield slots


def _carnot(line: str, found: list[Found]) -> Iterator[Slots]:
    degrees = of(found, units.TEMPERATURE)
    shares = [one for one in found if one.dimension == units.DIMENSIONLESS]
    if not shares:
        shares = [one for one in found if one.dimension is None and 0.0 < one.quantity.value < 1.0]
    if len(degrees) == 2 and shares:
        kelvin = sorted(
            degrees,
            key=lambda one: one.quantity.value * unit_of(one.quantity.unit).factor + unit_of(one.quantity.unit).offset,
        )
        yield {
            "efficiency": shares[0].quantity, "temperature_hot": kelvin[1].quantity,
            "temperature_cold": kelvin[0].quantity,
        }  # fmt: skip
        return
    energies = [*of(found, units.ENERGY), *of(found, units.POWER)]
    if len(degrees) == 2 and len(energies) >= 2:
        largest = max(energies, key=lambda one: one.quantity.value * unit_of(one.quantity.unit).factor)
        work = next(
            (one for one in energies if re.search(r"\bwork|deliver|output|produc|shaft", one.before + one.after)), None
        )
        if work is not None and work is not largest:
            kelvin = sorted(degrees, key=lambda one: one.quantity.value)
            share = (
                work.quantity.value
                * unit_of(work.quantity.unit).factor
                / (largest.quantity.value * unit_of(largest.quantity.unit).factor)
            )
            wide = share * (
                work.quantity.half_width / work.quantity.value + largest.quantity.half_width / largest.quantity.value
            )
            yield {
                "efficiency": Quantity(share, "1", wide), "temperature_hot": kelvin[1].quantity,
                "temperature_cold": kelvin[0].quantity,
            }  # fmt: skip
    _ = line


def _energy(line: str, found: list[Found]) -> Iterator[Slots]:
    speeds, lengths = of(found, units.VELOCITY), of(found, units.LENGTH)
    masses, works, pulls = of(found, units.MASS), of(found, units.ENERGY), of(found, units.ACCELERATION)
    if len(masses) > 1 or len(lengths) > 2 or not 1 <= len(speeds) <= 2:
        return
    phases = _phases(speeds, line)
    zero = Quantity(0.0, "m/s", 0.0)
    if len(speeds) == 2:
        u, w = speeds[0].quantity, speeds[1].quantity
        if phases == ["after", "before"]:
            u, w = w, u
    else:
        u, w = (zero, speeds[0].quantity)
        if phases == ["before"] and re.search(
            r"\b(?:throw\w*|thrown|launch\w*|up|rises?|climbs?|toss\w*|upwards?)\b", line
        ):
            u, w = w, u
    ground = Quantity(0.0, "m", 0.0)
    if len(lengths) == 2:
        a, b = lengths[0].quantity, lengths[1].quantity
        of_heights = _phases(lengths, line)
        if of_heights == ["after", "before"]:
            a, b = b, a
    else:
        rises = re.search(
            r"\b(?:rises?|climbs?|up|upwards?|reaches a height|rolls up|ascends?|throw\w*|thrown|toss\w*|launch\w*)\b",
            line,
        )
        falls = re.search(r"\b(?:falls?|drops?|dropped|down(?:wards?)?|slides? down|descends?|released|bottom)\b", line)
        a, b = (ground, lengths[0].quantity) if rises and not falls else (lengths[0].quantity, ground)
    if pulls and re.search(r"\b(?:accelerat|decelerat|brak|slow)", line):
        # Speeds over a distance under a constant acceleration: the same balance, with the way as height.
        a, b = (
            (ground, lengths[0].quantity)
            if _slowed(line, pulls[0].quantity).value < 0
            else (lengths[0].quantity, ground)
        )
        pulls = [replace(pulls[0], quantity=_absolute(pulls[0].quantity))]
    slots: dict[str, Quantity | Sequence[Quantity]] = {
        "mass": masses[0].quantity if masses else _EXACT_ONE,
        "speed_before": u, "speed_after": w, "height_before": a, "height_after": b,
    }  # fmt: skip
    if pulls:
        slots["gravity"] = pulls[0].quantity
    if works:
        lost = re.search(r"\b(?:friction|drag|lose[sd]?|lost|dissipat\w*|brak\w*|resist\w*|heat)\b", line)
        slots["work_on_body"] = [
            Quantity(-q.value if lost and q.value > 0 else q.value, q.unit, q.half_width)
            for q in (one.quantity for one in works)
        ]
    if works and not masses:
        return
    yield slots


def _distance(line: str, found: list[Found]) -> Iterator[Slots]:
    lengths, speeds = of(found, units.LENGTH), of(found, units.VELOCITY)
    pulls, times = of(found, units.ACCELERATION), of(found, units.TIME)
    if len(lengths) != 1 or len(times) != 1 or len(speeds) > 1 or len(pulls) > 1:
        return
    slots: dict[str, Quantity | Sequence[Quantity]] = {
        "distance": lengths[0].quantity,
        "speed_before": speeds[0].quantity if speeds else Quantity(0.0, "m/s", 0.0),
        "duration": times[0].quantity,
    }
    if pulls:
        slots["acceleration"] = _slowed(line, pulls[0].quantity)
    yield slots


def _speeds(line: str, found: list[Found]) -> Iterator[Slots]:
    speeds, pulls, times = of(found, units.VELOCITY), of(found, units.ACCELERATION), of(found, units.TIME)
    if len(pulls) != 1 or len(times) != 1 or not 1 <= len(speeds) <= 2:
        return
    u, w = (
        (speeds[0].quantity, speeds[1].quantity)
        if len(speeds) == 2
        else (Quantity(0.0, "m/s", 0.0), speeds[0].quantity)
    )
    if len(speeds) == 2 and _phases(speeds, line) == ["after", "before"]:
        u, w = w, u
    yield {
        "speed_before": u,
        "speed_after": w,
        "acceleration": _slowed(line, pulls[0].quantity),
        "duration": times[0].quantity,
    }


def _slowed(line: str, pull: Quantity) -> Quantity:
    if pull.value > 0 and re.search(r"\b(?:brak\w*|decelerat\w*|slow\w*|retard\w*)\b", line):
        return Quantity(-pull.value, pull.unit, pull.half_width)
    return pull


def _absolute(one: Quantity) -> Quantity:
    return Quantity(abs(one.value), one.unit, one.half_width)
