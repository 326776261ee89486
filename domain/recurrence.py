"""When a series meets (pure): a local time in a zone on the dates that an RRULE (RFC 5545 §3.3.10) gives.

Dates are expanded first and turned into instants one by one, so that a lesson at 09:00 is at 09:00
on both sides of a daylight-saving change. Lengths are real minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from dateutil import rrule, tz

from domain.clock import local_instant
from domain.inputs import InvalidInput, shown

MAX_RULE = 200  # characters
MAX_COUNT = 1000
MAX_INTERVAL = 52
MAX_DATES = 400  # exceptions, and extra dates, of one series
MAX_DURATION_MIN = 24 * 60
HORIZON_DAYS = 5 * 366  # how far a rule may reach, and how far it is tried out before it is taken
_EARLIEST, _LATEST = date(2020, 1, 1), date(2100, 1, 1)

_FREQUENCIES = {"DAILY": rrule.DAILY, "WEEKLY": rrule.WEEKLY, "MONTHLY": rrule.MONTHLY}
_DAYS = (rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU)
_WEEKDAYS = {str(day): index for index, day in enumerate(_DAYS)}
_PARTS = ("FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "WKST", "COUNT", "UNTIL")
_MONTHLY_ONLY = ("BYMONTHDAY", "BYSETPOS")
_NTH_DAY = re.compile(r"([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,4}", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The part of RFC 5545's recurrence rules that a timetable needs; at most one occurrence a date."""

    frequency: str
    interval: int = 1
    by_day: tuple[
        tuple[int | None, int], ...
    ] = ()  # (which one of the month, or None for every; weekday, 0 = Monday)
    by_month_day: tuple[int, ...] = ()
    by_month: tuple[int, ...] = ()
    by_position: tuple[int, ...] = ()
    week_start: int = 0
    count: int | None = None
    until: date | None = None  # the last local date that may be given

    def dates(self, starts_on: date, last: date) -> Iterator[date]:
        """The dates of this rule from ``starts_on`` to ``last``, both inclusive, in order."""
        end = last if self.until is None else min(last, self.until)
        if end < starts_on:
            return iter(())
        # COUNT stays with us: a rule that never matches must end at ``last``, not in the year 9999
        found = rrule.rrule(
            _FREQUENCIES[self.frequency],  # type: ignore[arg-type]  # the stubs want a literal
            dtstart=datetime.combine(starts_on, time.min),
            until=datetime.combine(end, time.min),
            interval=self.interval,
            wkst=self.week_start,
            byweekday=[_DAYS[day](nth) if nth else _DAYS[day] for nth, day in self.by_day] or None,
            bymonthday=self.by_month_day or None,
            bymonth=self.by_month or None,
            bysetpos=self.by_position or None,
        )
        return islice((at.date() for at in found), self.count)

    def __str__(self) -> str:
        names = list(_WEEKDAYS)
        parts = {
            "FREQ": self.frequency,
            "INTERVAL": str(self.interval) if self.interval != 1 else "",
            "BYDAY": ",".join(f"{nth or ''}{names[day]}" for nth, day in self.by_day),
            "BYMONTHDAY": ",".join(map(str, self.by_month_day)),
            "BYMONTH": ",".join(map(str, self.by_month)),
            "BYSETPOS": ",".join(map(str, self.by_position)),
            "WKST": names[self.week_start] if self.week_start else "",
            "COUNT": str(self.count or ""),
            "UNTIL": f"{self.until:%Y%m%d}" if self.until else "",
        }
        return ";".join(f"{name}={value}" for name, value in parts.items() if value)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One date of a series and the instants between which it meets."""

    on: date
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """When a series meets: the rule's dates without the exceptions, and the extra dates."""

    starts_on: date
    local_time: time
    duration_min: int
    zone: str
    rule: Rule
    except_on: frozenset[date] = field(default_factory=frozenset)
    extra_on: frozenset[date] = field(default_factory=frozenset)

    def dates(self, first: date, last: date) -> list[date]:
        """The dates between two dates, both inclusive, in order. An exception beats an extra date."""
        ruled = {on for on in self.rule.dates(self.starts_on, last) if on >= first}
        extra = {on for on in self.extra_on if first <= on <= last}
        return sorted((ruled | extra) - self.except_on)

    def occurrences(self, first: date, last: date) -> list[Occurrence]:
        """As ``dates``, with instants.

        A wall-clock time that does not exist on its date was refused when the series was made; one
        that has come about since (the zone's law was changed) moves forward by what the clocks skip.
        """
        return [self._occurrence(on) for on in self.dates(first, last)]

    def _occurrence(self, on: date) -> Occurrence:
        try:
            start = local_instant(on, self.local_time, self.zone)
        except ValueError:
            start = tz.resolve_imaginary(
                datetime.combine(on, self.local_time, ZoneInfo(self.zone))
            ).astimezone(UTC)
        return Occurrence(on, start, start + timedelta(minutes=self.duration_min))


def check_pattern(pattern: Pattern) -> None:
    """Try a pattern out. Raises InvalidInput if it never meets, or at a time that the clocks skip."""
    if not _EARLIEST <= pattern.starts_on < _LATEST:
        raise InvalidInput("starts_on", f"starts_on must lie between 2020 and 2100, got {pattern.starts_on}")
    if not 1 <= pattern.duration_min <= MAX_DURATION_MIN:
        raise InvalidInput(
            "duration_min", f"duration_min must be 1-{MAX_DURATION_MIN}, got {pattern.duration_min}"
        )
    last = pattern.starts_on + timedelta(days=HORIZON_DAYS)
    for name, listed in (("except_on", pattern.except_on), ("extra_on", pattern.extra_on)):
        if len(listed) > MAX_DATES:
            raise InvalidInput(name, f"{name} takes at most {MAX_DATES} dates, got {len(listed)}")
        for on in listed:
            if not pattern.starts_on <= on <= last:
                raise InvalidInput(name, f"{name} must lie between {pattern.starts_on} and {last}, got {on}")
    until = pattern.rule.until
    if until is not None and not pattern.starts_on <= until <= last:
        raise InvalidInput("rrule", f"UNTIL must lie between {pattern.starts_on} and {last}, got {until}")
    dates = pattern.dates(pattern.starts_on, last)
    if not dates:
        raise InvalidInput("rrule", f"the rule {pattern.rule} gives no date after {pattern.starts_on}")
    for on in dates:
        try:
            local_instant(on, pattern.local_time, pattern.zone)
        except ValueError as error:
            raise InvalidInput(
                "local_time", f"{error}; choose another time or leave {on} out (except_on)"
            ) from None


def parse_rule(text: str) -> Rule:
    """Read an RRULE such as ``FREQ=WEEKLY;BYDAY=MO,WE;UNTIL=20261218``.

    Only FREQ DAILY, WEEKLY and MONTHLY; UNTIL is the last local date. Raises InvalidInput naming the
    part, what was expected and what came.
    """
    if not isinstance(text, str) or len(text) > MAX_RULE:
        raise InvalidInput("rrule", f"rrule must be text of at most {MAX_RULE} characters, got {shown(text)}")
    parts = _split(text)
    frequency = parts.get("FREQ", "")
    if frequency not in _FREQUENCIES:
        expected = ", ".join(_FREQUENCIES)
        raise InvalidInput("rrule", f"FREQ must be one of {expected}, got {frequency or 'none'}")
    if frequency != "MONTHLY":
        for name in _MONTHLY_ONLY:
            if name in parts:
                raise InvalidInput("rrule", f"{name} goes with FREQ=MONTHLY, got FREQ={frequency}")
    if "BYSETPOS" in parts and not {"BYDAY", "BYMONTHDAY"} & parts.keys():
        raise InvalidInput("rrule", "BYSETPOS chooses among the days of BYDAY or BYMONTHDAY, got neither")
    if "COUNT" in parts and "UNTIL" in parts:
        raise InvalidInput("rrule", "a rule has COUNT or UNTIL, not both")
    return Rule(
        frequency=frequency,
        interval=_number("INTERVAL", parts["INTERVAL"], 1, MAX_INTERVAL) if "INTERVAL" in parts else 1,
        by_day=_days(parts["BYDAY"], may_choose=frequency == "MONTHLY") if "BYDAY" in parts else (),
        by_month_day=_numbers(parts, "BYMONTHDAY", -31, 31),
        by_month=_numbers(parts, "BYMONTH", 1, 12),
        by_position=_numbers(parts, "BYSETPOS", -31, 31),
        week_start=_week_start(parts["WKST"]) if "WKST" in parts else 0,
        count=_number("COUNT", parts["COUNT"], 1, MAX_COUNT) if "COUNT" in parts else None,
        until=_until(parts["UNTIL"]) if "UNTIL" in parts else None,
    )


def parse_local_time(text: str) -> time:
    """``09:00`` to a time. Raises InvalidInput."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise InvalidInput("local_time", f"local_time must look like 09:00, got {shown(text)}")
    return time.fromisoformat(text)


def parse_dates(text: str) -> frozenset[date]:
    """ISO dates with commas between, as a series keeps them; empty text is no date. Raises InvalidInput."""
    found: set[date] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            found.add(date.fromisoformat(part))
        except ValueError:
            raise InvalidInput("dates", f"a date must look like 2026-12-18, got {shown(part)}") from None
    return frozenset(found)


def format_dates(dates: Iterable[date]) -> str:
    """The dates in order, as a series keeps them."""
    return ",".join(on.isoformat() for on in sorted(dates))


def _split(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for piece in text.strip().upper().removeprefix("RRULE:").split(";"):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not equals or not value:
            raise InvalidInput("rrule", f"a rule is made of NAME=value with ; between, got {shown(piece)}")
        if name not in _PARTS:
            raise InvalidInput("rrule", f"a rule may have {', '.join(_PARTS)}, got {shown(name)}")
        if name in parts:
            raise InvalidInput("rrule", f"{name} is given twice")
        parts[name] = value
    return parts


def _number(name: str, text: str, least: int, most: int) -> int:
    value = int(text) if _WHOLE_NUMBER.fullmatch(text) else None
    if value is None or not least <= value <= most:
        raise InvalidInput("rrule", f"{name} must be {least}-{most}, got {text}")
    return value


def _numbers(parts: dict[str, str], name: str, least: int, most: int) -> tuple[int, ...]:
    if name not in parts:
        return ()
    found = tuple(_number(name, text.strip(), least, most) for text in parts[name].split(","))
    if 0 in found:
        raise InvalidInput("rrule", f"{name} counts from 1, or from the end from -1, got 0")
    return found


def _days(text: str, *, may_choose: bool) -> tuple[tuple[int | None, int], ...]:
    found: list[tuple[int | None, int]] = []
    for part in text.split(","):
        match = _NTH_DAY.fullmatch(part.strip())
        if match is None or (match[1] and not may_choose):
            example = "MO, 1MO or -1FR" if may_choose else "MO"
            raise InvalidInput("rrule", f"BYDAY must hold days such as {example}, got {shown(part)}")
        found.append((int(match[1]) if match[1] else None, _WEEKDAYS[match[2]]))
    return tuple(found)


def _week_start(text: str) -> int:
    if text not in _WEEKDAYS:
        raise InvalidInput("rrule", f"WKST must be one of {', '.join(_WEEKDAYS)}, got {text}")
    return _WEEKDAYS[text]


def _until(text: str) -> date:
    if re.fullmatch(r"\d{8}", text, re.ASCII):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise InvalidInput("rrule", f"UNTIL must be the last date, such as 20261218, got {text}")
