"""How physics items are put: two sets, so that what a reader of texts was written on is not what it is measured on.

law -> level -> wordings. ``_FIRST`` and ``_SECOND`` have been read to write and widen the reader, and make up ``DEV``;
``HELD_OUT`` was written after it, measured once, and did not change it (record 0036).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Wordings = Mapping[str, Mapping[str, tuple[str, ...]]]


def _both(*words: str) -> dict[str, tuple[str, ...]]:
    return {"1": words, "2": words}


_FIRST: Final[Wordings] = {
    "momentum_1d": _both(
        "A cart of {m1} moves at {u1} and hits a cart of {m2} moving at {u2}. After the collision the first moves at"
        " {w1} and the second at {w2}.",
        "Before the impact, ball A ({m1}) has a velocity of {u1} and ball B ({m2}) of {u2}; afterwards A has {w1} and"
        " B {w2}.",
    ),
    "mechanical_energy": {
        "1": (
            "A ball of {m} is dropped from a height of {h} and reaches the ground at {w}. Air drag is negligible.",
            "Released from rest at {h}, a {m} block slides down a smooth ramp and arrives at the bottom with {w}.",
        ),
        "2": (
            "A {m} sled passes the top of a hill, {h} above the valley, at {u}, and reaches the valley at {w} without"
            " friction.",
            "Thrown downwards at {u} from a height of {h}, a stone of {m} hits the ground at {w}.",
        ),
    },
    "charge": {
        "1": (
            "At a node {a} flows in, and {b} and {c} flow out.",
            "A supply rail feeds {a} into a junction; two branches carry away {b} and {c}.",
        ),
        "2": (
            "At a node {a} flows in, and {b}, {c} and {d} flow out.",
            "A supply rail feeds {a} into a junction; three branches carry away {b}, {c} and {d}.",
        ),
    },
    "coulomb_count": _both(
        "A battery holds {q}. A load draws {i} for {t}. Afterwards it holds {r}.",
        "Starting at {q}, the pack is discharged with {i} for {t} and ends at {r}.",
    ),
    "power_time": {
        "1": ("A device draws {p} for {t} and uses {e}.", "Running at {p} for {t} consumes {e} in total."),
        "2": (
            "A device draws {p} for {t}, then {q} for {s}, and uses {e} in all.",
            "After {t} at {p} and {s} at {q} the meter shows {e}.",
        ),
    },
    "power_vi": _both("At {v} a motor draws {i} and takes up {p}.", "The board reports {p} at {v} and {i}."),
    "heat_balance": {
        "1": (
            "{m1} of water at {hot} is mixed with {m2} of water at {cold}; the mixture settles at {end}.",
            "Pouring {m1} of water of {hot} into {m2} of water of {cold} gives a final temperature of {end}.",
        ),
        "2": (
            "A metal block of {m1} ({c1}) at {hot} is put into {m2} of water ({c2}) at {cold}; both settle at {end}.",
        ),
    },
    "first_law": _both(
        "A gas absorbs {q} of heat and does {w} of work; its internal energy rises by {u}.",
        "The internal energy of a gas grows by {u} while it takes in {q} of heat and does {w} of work.",
    ),
    "mass_balance": {
        "1": (
            "A column is fed {a}; {b} leaves as product and {c} as waste.",
            "Of {a} that enter a dryer, {b} leave as solids and {c} as vapour.",
        ),
        "2": ("A tank is fed {a}; {b} leaves as product, {c} leaves as waste, and {k} accumulates.",),
    },
    "angular_momentum": _both(
        "A skater with a moment of inertia of {i1} spins at {w1}; with her arms pulled in it is {i2} and she spins at"
        " {w2}.",
    ),
    "carnot_bound": _both(
        "An engine between {hot} and {cold} is said to have an efficiency of {eta}.",
        "A maker claims {eta} efficiency for a heat engine that runs between {hot} and {cold}.",
    ),
    "kinematics_distance": _both(
        "A car at {u} accelerates at {a} for {t} and covers {s}.",
        "Starting at {u} and gaining speed at {a}, a train travels {s} in {t}.",
    ),
    "kinematics_velocity": _both(
        "A car at {u} accelerates at {a} for {t} and then moves at {w}.",
        "Accelerating at {a} for {t}, a train goes from {u} to {w}.",
    ),
    "stoichiometry": {"1": ("The reaction {left} -> {right} is balanced.", "{left} → {right}")},
    "dimensions": {
        "1": (
            "{name} equals {words}.",
            "The {name} is {words}.",
            "A {name} in {unit} is the same as {units}: its units agree.",
        )
    },
}

_SECOND: Final[Wordings] = {
    "momentum_1d": _both(
        "Two gliders, {m1} and {m2}, run at {u1} and {u2} along one rail. They bump, and then run at {w1} and {w2}.",
        "Truck one weighs {m1} and goes {u1}; truck two weighs {m2} and goes {u2}. Once they have collided, truck one"
        " goes {w1} and truck two goes {w2}.",
        "The puck of {m1} slows from {u1} to {w1} while the {m2} puck changes from {u2} to {w2}.",
    ),
    "mechanical_energy": {
        "1": (
            "Let go at rest {h} above the floor, a {m} weight strikes it at {w}.",
            "A coaster car with a mass of {m} starts from rest, descends by {h} and then runs at {w}; ignore losses.",
        ),
        "2": (
            "A {m} skier going {u} descends {h} of slope without losses and is then going {w}.",
            "Speed at the upper mark: {u}. Speed {h} lower: {w}. Mass of the body: {m}. No friction.",
        ),
    },
    "charge": {
        "1": (
            "The sensor reads {a} arriving at the splitter; the two loads take {b} and {c}.",
            "Currents leaving a junction are {b} and {c}, while the current entering is {a}.",
        ),
        "2": (
            "The sensor reads {a} arriving at the splitter; the three loads take {b}, {c} and {d}.",
            "Currents leaving a junction are {b}, {c} and {d}, while the current entering is {a}.",
        ),
    },
    "coulomb_count": _both(
        "The gauge showed {q} in the morning; after {t} at a constant {i} it shows {r}.",
        "With {i} flowing out for {t}, the cell falls from {q} to {r}.",
    ),
    "power_time": {
        "1": ("Energy used over {t} at a steady {p}: {e}.", "The heater took {e} during {t}, at {p} throughout."),
        "2": (
            "First {p} over {t}, later {q} over {s}: altogether {e}.",
            "The pump ran {t} at {p} and another {s} at {q}, so {e} went in.",
        ),
    },
    "power_vi": _both("Voltage {v}, current {i}, power {p}.", "It takes {p} to drive {i} through a drop of {v}."),
    "heat_balance": {
        "1": (
            "A bath of {m2} water at {cold} receives {m1} of water at {hot} and comes to {end}.",
            "Hot water ({m1}, {hot}) meets cold water ({m2}, {cold}), and they end up at {end}.",
        ),
        "2": (
            "Into {m2} of water ({c2}, {cold}) goes a hot part of {m1} ({c1}, {hot}). They reach {end}.",
            "The part weighs {m1}, has {c1} and starts at {hot}; the bath weighs {m2}, has {c2} and starts at {cold};"
            " in the end both are at {end}.",
        ),
    },
    "first_law": _both(
        "Heating a cylinder with {q} lets it push the piston with {w} of work and leaves it with {u} more"
        " inner energy.",
        "Work done by the system: {w}. Heat supplied: {q}. Change of internal energy: {u}.",
    ),
    "mass_balance": {
        "1": (
            "The mixer got {a} in the shift, and sent {b} to line one and {c} to line two.",
            "Outflow one was {b}, outflow two {c}; inflow was {a}.",
        ),
        "2": (
            "The mixer got {a} in the shift, sent {b} to line one and {c} to line two, and {k} stayed in the vessel.",
            "Outflow one was {b}, outflow two {c}; inflow was {a}, and the stock rose by {k}.",
        ),
    },
    "angular_momentum": _both(
        "The platform turns at {w1} with {i1}; after the weights move inwards it has {i2} and turns at {w2}.",
        "Inertia goes from {i1} to {i2}, the rate from {w1} to {w2}, and no torque acts.",
    ),
    "carnot_bound": _both(
        "Taking heat at {hot} and dumping it at {cold}, this machine turns {eta} of the heat into work.",
        "Cold side {cold}, hot side {hot}: the plant converts {eta}.",
    ),
    "kinematics_distance": _both(
        "In {t}, with {a} of acceleration and {u} at the outset, a sled gets {s} far.",
        "The drone was flying {u}, sped up by {a} over {t}, and put {s} behind it.",
    ),
    "kinematics_velocity": _both(
        "With {u} at the outset and {a} of acceleration, a sled has {w} after {t}.",
        "The drone sped up by {a} over {t}; its speed went from {u} to {w}.",
    ),
    "stoichiometry": {
        "1": (
            "{left} yields {right}",
            "Burning goes by {left} = {right}, they say.",
            "We write {left} --> {right}.",
        )
    },
    "dimensions": {
        "1": (
            "To get a {name} you take {words}.",
            "{words} gives a {name}.",
            "The result of this formula for {name} comes out in {units}.",
        )
    },
}

DEV: Final[Wordings] = {
    law: {level: (*words, *_SECOND[law][level]) for level, words in levels.items()} for law, levels in _FIRST.items()
}

HELD_OUT: Final[Wordings] = {
    "momentum_1d": _both(
        "Wagon P ({m1}) rolls with {u1}, wagon Q ({m2}) with {u2}. Their buffers touch; P rolls on with {w1}, Q with"
        " {w2}.",
        "On an air track a {m1} slider and a {m2} slider have velocities {u1} and {u2} at first, and {w1} and {w2} in"
        " the end.",
    ),
    "mechanical_energy": {
        "1": (
            "A pendulum bob, {m}, is let go {h} above its lowest point, and passes that point with a speed of {w}.",
            "Starting from rest, {m} of rock drops {h} and has {w} when it lands.",
        ),
        "2": (
            "With {u} at the lip of the slide a child of {m} goes {h} down and comes off with {w}.",
            "A cyclist and bicycle, {m} together, roll down {h} of altitude: {u} at the top, {w} at the foot, no drag.",
        ),
    },
    "charge": {
        "1": (
            "Meter one, before the fork, says {a}. Meters two and three, behind it, say {b} and {c}.",
            "{a} comes into the busbar. Going out: {b} and {c}.",
        ),
        "2": (
            "Meter one, before the fork, says {a}. The three meters behind it say {b}, {c} and {d}.",
            "{a} comes into the busbar. Going out: {b}, {c} and {d}.",
        ),
    },
    "coulomb_count": _both(
        "We had {q} left when the camera began to pull {i}; {t} later {r} were left.",
        "State of charge at take-off {q}, at landing {r}; mean current {i}, flight time {t}.",
    ),
    "power_time": {
        "1": ("The pump needs {p}. In {t} that makes {e}.", "{e} were metered for {t} of work at {p}."),
        "2": (
            "{t} at {p} plus {s} at {q} makes {e}.",
            "The bill says {e}: the oven ran at {p} for {t} and at {q} for {s}.",
        ),
    },
    "power_vi": _both("A {v} supply that delivers {i} gives {p}.", "The panel makes {i} at {v}, that is {p}."),
    "heat_balance": {
        "1": (
            "One jug has {m1} of water at {hot}, the other {m2} of water at {cold}. Together they have {end}.",
            "Adding {m1} of {hot} water to {m2} of {cold} water makes the temperature {end}.",
        ),
        "2": (
            "We quench a {m1} casting ({c1}, {hot}) in {m2} of water ({c2}, {cold}) and measure {end} when nothing"
            " changes.",
        ),
    },
    "first_law": _both(
        "The working gas gets {q} from the burner, gives {w} as work to the shaft, and gains {u} of internal energy.",
        "Inner energy up by {u}, heat in {q}, work out {w}.",
    ),
    "mass_balance": {
        "1": (
            "{a} of brine went into the evaporator; {b} came out as salt and {c} as steam.",
            "The sieve splits {a} of gravel into {b} of fine and {c} of coarse.",
        ),
        "2": ("{a} of brine went into the evaporator; {b} came out as salt and {c} as steam, and {k} stayed behind.",),
    },
    "angular_momentum": _both(
        "A stool with a person on it has {i1} and turns at {w1}. She drops her arms: {i2} and {w2}.",
        "While its arms fold, a satellite with {i1} at {w1} becomes one with {i2} at {w2}.",
    ),
    "carnot_bound": _both(
        "Between a boiler at {hot} and a river at {cold} the turbine reaches {eta}.",
        "{eta} is what the brochure promises for a source at {hot} and a sink at {cold}.",
    ),
    "kinematics_distance": _both(
        "A tram at {u} speeds up with {a}; {t} later it is {s} further on.",
        "Covered in {t}: {s}, from {u} with a constant {a}.",
    ),
    "kinematics_velocity": _both(
        "A tram at {u} speeds up with {a}; {t} later its speed is {w}.",
        "{w} is reached from {u} in {t} with a constant {a}.",
    ),
    "stoichiometry": {"1": ("In the reactor {left} becomes {right}.", "Equation: {left} => {right}.")},
    "dimensions": {"1": ("{name} = {words}", "A {name} has the dimension of {words}.")},
}
