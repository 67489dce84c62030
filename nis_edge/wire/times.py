"""What senders write as a time, as seconds since the Unix epoch. Pure arithmetic: no clock is asked."""

from __future__ import annotations

import math
import re
from typing import Final

from nis_edge.errors import EventFormatError

SECONDS_MAX: Final = 1e11
"""Above this a number can't be seconds (it would be the year 5138): it is read as milliseconds."""

MILLISECONDS_MAX: Final = 1e14
"""Above this a number can't be milliseconds either: it is read as microseconds."""

MICROSECONDS_MAX: Final = 1e17
"""Above this a number is read as nanoseconds, the unit of OpenTelemetry."""

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,12})?(?:([Zz])|([+-])(\d\d):?(\d\d))?", re.ASCII
)


def seconds_since_epoch(value: object) -> float:
    """Read a time: a number of seconds, milli-, micro- or nanoseconds (told apart by size), or an RFC 3339 text.

    A text without a zone is read as UTC.

    Raises:
        EventFormatError: it is neither, or lies before 1970 (the sender acts).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise EventFormatError(f"ts is {type(value).__name__}, not a number of seconds or an RFC 3339 text")
    if isinstance(value, str):
        return _seconds_of_text(value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0.0 <= number < 1e20:
        raise EventFormatError(f"ts {number:.6g} is no time since 1970")
    if number < SECONDS_MAX:
        return number
    if number < MILLISECONDS_MAX:
        return number / 1e3
    if number < MICROSECONDS_MAX:
        return number / 1e6
    return number / 1e9


def _seconds_of_text(text: str) -> float:
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise EventFormatError(f"ts {text[:40]!r} is no RFC 3339 time such as 2026-01-31T12:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= _days_in_month(year, month)):
        raise EventFormatError(f"ts {text[:40]!r} names no day since 1970")
    if not (hour < 24 and minute < 60 and second <= 60):
        raise EventFormatError(f"ts {text[:40]!r} names no time of day")
    fraction = float(match[7]) if match[7] else 0.0
    zone_minutes = 0
    if match[9]:
        zone_minutes = int(match[10]) * 60 + int(match[11])
        zone_minutes = zone_minutes if match[9] == "+" else -zone_minutes
    whole = _days_since_epoch(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone_minutes * 60
    return max(0.0, whole + fraction)


def _days_in_month(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 28 + leap if month == 2 else 30 if month in (4, 6, 9, 11) else 31


def _days_since_epoch(year: int, month: int, day: int) -> int:
    # The year is taken to begin in March, so that the leap day is its last and the months follow a linear rule.
    march_year = year - (month <= 2)
    march_month = (month + 9) % 12
    day_of_year = (153 * march_month + 2) // 5 + day - 1
    leap_days = march_year // 4 - march_year // 100 + march_year // 400
    return march_year * 365 + leap_days + day_of_year - 719_468
