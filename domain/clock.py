"""Time: aware UTC inside, the school's zone at the edge, the clock passed in.

Instants are kept with millisecond precision, the precision of the protocol (RFC 3339 UTC with
milliseconds), so that what is stored, hashed, sent and compared is the same value.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from dateutil import tz

#: The days that can be asked for: at the ends of the calendar a local day has no UTC instant.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2200, 12, 31)


class Clock(Protocol):
    """Anything that tells the time; tests pass one they move by hand."""

    def now(self) -> datetime:
        """The current instant: aware, UTC, whole milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current instant: aware, UTC, whole milliseconds."""
        return to_millisecond(datetime.now(UTC))


class ManualClock:
    """A clock that moves only when told to: for tests and for replaying a term of history."""

    def __init__(self, at: datetime) -> None:
        self._at = to_millisecond(at)

    def now(self) -> datetime:
        """The instant this clock was last set to."""
        return self._at

    def set(self, at: datetime) -> None:
        """Move to an instant, forwards or backwards."""
        self._at = to_millisecond(at)

    def advance(self, *, seconds: float = 0, minutes: float = 0, days: float = 0) -> datetime:
        """Move forwards and return the new instant."""
        self.set(self._at + timedelta(days=days, minutes=minutes, seconds=seconds))
        return self._at


def to_millisecond(at: datetime) -> datetime:
    """The instant in UTC, cut down to whole milliseconds. Raises ValueError for a naive datetime."""
    if at.tzinfo is None:
        raise ValueError(f"an aware datetime was expected, got the naive {at.isoformat()}")
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def parse_instant(text: str) -> datetime:
    """RFC 3339 text with an offset to an aware UTC instant. Raises ValueError otherwise."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"an instant needs an offset such as Z, got {text!r}")
    try:
        return to_millisecond(at)
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the calendar") from error


def format_instant(at: datetime) -> str:
    """An aware instant as RFC 3339 UTC with milliseconds: ``2026-11-23T09:01:02.345Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def minutes_late(arrived_at: datetime, scheduled_start: datetime) -> int:
    """Whole minutes after the start, rounded up; 0 for on time.

    Both instants are UTC: subtracting two times inside one zone is an hour wrong across a
    daylight-saving change.
    """
    seconds = (arrived_at.astimezone(UTC) - scheduled_start.astimezone(UTC)).total_seconds()
    return max(0, math.ceil(seconds / 60))


def local_date(at: datetime, zone: str) -> date:
    """The calendar date of an instant in a zone: "today" is the school's, not the server's."""
    return at.astimezone(ZoneInfo(zone)).date()


def local_instant(on: date, at: time, zone: str) -> datetime:
    """The UTC instant of a wall-clock time in a zone.

    Raises ValueError for a wall-clock time that daylight saving skips on that date. A time that
    occurs twice means the first of the two.
    """
    local = datetime.combine(on, at, ZoneInfo(zone))
    if not tz.datetime_exists(local):
        raise ValueError(
            f"{at:%H:%M} does not exist on {on.isoformat()} in {zone}: the clocks go forward over it"
        )
    return local.astimezone(UTC)


def day_bounds(on: date, zone: str) -> tuple[datetime, datetime]:
    """The UTC instants at which a local calendar day begins and ends (23, 24 or 25 hours apart)."""
    info = ZoneInfo(zone)
    begin = tz.resolve_imaginary(datetime.combine(on, time.min, info))
    end = tz.resolve_imaginary(datetime.combine(on + timedelta(days=1), time.min, info))
    return begin.astimezone(UTC), end.astimezone(UTC)
