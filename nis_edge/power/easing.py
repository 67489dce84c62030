"""Doing less before the board does it for us: a hot device asks the model more seldom, then not at all; rules go on.

Theory of operation. Four levels: full, eased, sparing, rules only. A level is entered as soon as the processor is warm
enough for it, or at once to the last one when the board throttles; it is left one step at a time, only after the
temperature has stayed ``HYSTERESIS_C`` below the level's threshold for ``HOLD_S``: so the device settles instead of
swinging. A temperature that is unknown changes nothing by itself; throttling alone still counts. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

HYSTERESIS_C: Final = 3.0
HOLD_S: Final = 30.0
"""A small board's heat sink answers within some ten seconds; less would swing."""

REST_S: Final = (0.0, 1.0, 5.0, float("inf"))
"""Least seconds between two questions to the model, by level; at the last one it is not asked."""

NAMES: Final = ("full", "eased", "sparing", "rules only")

BELOW_LIMIT_C: Final = (5.0, 2.5, 0.0)
"""How far below the limit levels 1, 2 and 3 begin."""


class Easing(msgspec.Struct, frozen=True):
    """How much the device does: ``level`` 0 (all) to 3 (rules only), since when it could do more, why it does less."""

    level: int = 0
    cool_since_s: float | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """The level in words."""
        return NAMES[self.level]

    @property
    def rest_s(self) -> float:
        """Least seconds between two questions to the model; infinite: it is not asked."""
        return REST_S[self.level]


def ease(state: Easing, *, celsius: float | None, throttled: bool | None, limit_c: float, now: float) -> Easing:
    """Take one look at the device into account.

    Args:
        state: the level so far.
        celsius: the processor's temperature; None: unknown.
        throttled: whether the board slows itself down now; None: unknown.
        limit_c: degrees Celsius at which the board would begin to throttle.
        now: seconds on the monotonic clock.
    """
    wanted, reason = _wanted(celsius, throttled, limit_c)
    if wanted > state.level:
        return Easing(level=wanted, reason=reason)
    if state.level == 0:
        return state
    if celsius is None and throttled is None:
        return state  # nothing can be told: neither worse nor better
    if throttled or (celsius is not None and celsius > limit_c - BELOW_LIMIT_C[state.level - 1] - HYSTERESIS_C):
        return Easing(level=state.level, reason=reason or state.reason)
    since = now if state.cool_since_s is None else state.cool_since_s
    if now - since < HOLD_S:
        return Easing(level=state.level, cool_since_s=since, reason=state.reason)
    level = state.level - 1
    return Easing(level=level, cool_since_s=now if level else None, reason=state.reason if level else None)


def _wanted(celsius: float | None, throttled: bool | None, limit_c: float) -> tuple[int, str | None]:
    if throttled:
        return 3, "the board throttles"
    if celsius is None:
        return 0, None
    level = sum(celsius >= limit_c - below for below in BELOW_LIMIT_C)
    return level, f"the processor is at {celsius:.1f} C, the board throttles from {limit_c:g} C" if level else None
