"""The window: what the model may look at when it judges, as one immutable value.

Rendering (``window.render``) and training both start from this value, so that the device and the laboratory cannot
differ in what they show the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from nis_edge.limits import WINDOW_EVENTS_MAX, WINDOW_TEXT_CHARS_MAX
from nis_edge.wire.messages import AgentEvent


@dataclass(frozen=True)
class DeviceView:
    """The device as the window shows it. Every field is None when it is unknown: never zero.

    Args:
        cpu_percent: busy share of all cores, 0..100.
        memory_percent: used share of memory, 0..100.
        temperature_c: the hottest zone, degrees Celsius.
        throttled: whether the board says that it slows itself down.
        z: robust z-score of the reading farthest from its own recent median; signed.
        trend: -1 falling, 0 level, 1 rising: the temperature over the last readings.
        stale_s: seconds since the newest reading.
    """

    cpu_percent: float | None = None
    memory_percent: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    z: float | None = None
    trend: int | None = None
    stale_s: float | None = None


NO_DEVICE: Final = DeviceView()


@dataclass(frozen=True)
class Window:
    """A goal, the last events, the device, and the time.

    Args:
        goal: the task as it was given, or None.
        events: oldest first, at most ``WINDOW_EVENTS_MAX``; each text at most ``WINDOW_TEXT_CHARS_MAX`` characters.
        device: the device's readings.
        now: seconds since the epoch, the time of the judgement.
        time_known: False when the events carry no real times (a recorded run without a clock): their ``ts`` give only
            the order.
    """

    goal: str | None
    events: tuple[AgentEvent, ...]
    device: DeviceView
    now: float
    time_known: bool


def window_of(
    goal: str | None, events: Iterable[AgentEvent], device: DeviceView, now: float, *, time_known: bool
) -> Window:
    """Build a window from any number of events: the newest are kept, long texts are cut, both as the device does.

    Args:
        goal: the task, or None.
        events: oldest first.
        device: the device's readings.
        now: seconds since the epoch.
        time_known: whether the events' times are real.
    """
    newest = tuple(events)[-WINDOW_EVENTS_MAX:]
    return Window(
        goal=None if goal is None else goal[:WINDOW_TEXT_CHARS_MAX],
        events=tuple(clip(event) for event in newest),
        device=device,
        now=now,
        time_known=time_known,
    )


def clip(event: AgentEvent) -> AgentEvent:
    """Return the event with its text cut to what a window keeps, without the sender's free-form fields."""
    text = event.text
    if text is not None and len(text) > WINDOW_TEXT_CHARS_MAX:
        text = text[:WINDOW_TEXT_CHARS_MAX]
    if text is event.text and event.data is None and event.extra is None:
        return event
    return msgspec.structs.replace(event, text=text, data=None, extra=None)
