"""Bounds, each with its why. Every size, count, queue and time that input can drive is capped by a name from here.

A room's bounds stand under its heading; a number that is not a bound (a formula's constant, a default of the
configuration) lives where it is used.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- wire: what senders may send -------------------------------------------------------------------------------------

EVENT_BYTES_MAX: Final = 64 * KIB
"""One agent event as JSON. The contract of docs (interfaces): longer texts are refused, not cut."""

NAME_CHARS_MAX: Final = 128
"""Agent names, tool names, ids and topics: they become map keys and MQTT topic levels."""

# --- monitor: what one judgement may hold -----------------------------------------------------------------------------

WINDOW_EVENTS_MAX: Final = 12
"""Events in a model window: at about 20 tokens each they fill the 256 positions of the smallest model."""

WINDOW_TEXT_CHARS_MAX: Final = 8 * KIB
"""Characters of one event's text a window keeps: room for a long tool result, while evidence stays cheap to compute."""
