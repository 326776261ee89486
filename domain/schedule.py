"""The timetable: series and single meetings, laid out ahead, moved, cancelled.

A meeting of a series has an id derived from the series and the date, so laying out twice, or in two
processes, gives the same meetings. Nothing here touches a meeting that has been opened, except to
cancel one that is still open, and laying out never changes a meeting that exists.
Every change is an event on the log; the caller publishes what is returned once it is committed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.engine import RowMapping

from domain import access, events
from domain.clock import format_instant, local_date, to_millisecond
from domain.events import Draft, Event, meeting_topic
from domain.ids import derived_id, new_id
from domain.inputs import InvalidInput, clean_text, clean_zone
from domain.model import Meeting, Section, Series, table
from domain.operations import MAX_MEETING_HOURS
from domain.recurrence import (
    MAX_DATES,
    Occurrence,
    Pattern,
    check_pattern,
    format_dates,
    parse_dates,
    parse_local_time,
    parse_rule,
)

log = logging.getLogger("muster.schedule")

WEEKS_AHEAD = 4
MAX_REASON = 300
MAX_ROOM = 80

_MEETINGS, _SECTIONS, _SERIES = table(Meeting), table(Section), table(Series)
_CHUNK = 500  # ids in one question; SQLite's bound parameters end at 32,766


# -- series -----------------------------------------------------------------------------------


def add_series(
    conn: Connection,
    standing: access.Standing,
    *,
    section_id: str,
    starts_on: date,
    local_time: str,
    duration_min: int,
    rrule: str,
    now: datetime,
    zone: str | None = None,
    except_on: Collection[date] = (),
    extra_on: Collection[date] = (),
    room: str | None = None,
    series_id: str | None = None,
) -> tuple[Series, list[Event]]:
    """A recurring meeting of a section, laid out at once as far as ``materialise`` goes.

    ``local_time`` is ``09:00`` in ``zone`` (the section's if left out), ``duration_min`` real
    minutes, ``except_on`` and ``extra_on`` the local dates without and beyond the rule.
    Raises Denied, and InvalidInput for anything that could not be laid out, a time that the clocks
    skip on one of its dates included.
    """
    _require_timetable(standing)
    section = _section(conn, section_id)
    series = Series(
        id=series_id or new_id(now),
        section_id=section_id,
        starts_on=starts_on,
        local_time=f"{parse_local_time(local_time):%H:%M}",
        duration_min=duration_min,
        zone=clean_zone(zone or section["zone"]),
        rrule=str(parse_rule(rrule)),
        except_on=format_dates(except_on),
        extra_on=format_dates(extra_on),
        room=_room(section["room"] if room is None else room),
    )
    check_pattern(pattern_of(series))
    conn.execute(insert(_SERIES), [series.model_dump()])
    return series, _lay_out(conn, [series], now, WEEKS_AHEAD)


def end_series(
    conn: Connection, standing: access.Standing, series_id: str, *, last_on: date, now: datetime
) -> list[Event]:
    """Let a series meet for the last time on ``last_on``; what was laid out after it is cancelled.

    Meetings that have begun stay as they are. A series is never made longer by this; to change what
    follows, end it and add another. Raises Denied, InvalidInput.
    """
    _require_timetable(standing)
    series = _one_series(conn, series_id)
    pattern = pattern_of(series)
    rule = parse_rule(series.rrule)
    kept = pattern.dates(pattern.starts_on, last_on)
    if kept:
        # as UNTIL, since a COUNT says nothing of a date; the last kept date, so that nothing is prolonged
        text = ";".join(part for part in str(rule).split(";") if not part.startswith(("COUNT=", "UNTIL=")))
        values: dict[str, Any] = {"rrule": f"{text};UNTIL={kept[-1]:%Y%m%d}"}
    else:
        values = {"is_active": False}
    values["extra_on"] = format_dates(on for on in pattern.extra_on if on <= last_on)
    conn.execute(update(_SERIES).where(_SERIES.c.id == series_id).values(**values))
    rows = conn.execute(
        select(_MEETINGS).where(_MEETINGS.c.series_id == series_id, _MEETINGS.c.occurs_on > last_on)
    )
    return _cancel(conn, [row for row in rows.mappings() if _is_ahead(row, now)], "The series has ended", now)


def except_date(
    conn: Connection, standing: access.Standing, series_id: str, *, on: date, reason: str, now: datetime
) -> list[Event]:
    """Leave one date out of a series (a holiday) and cancel its meeting, if there is one ahead.

    Raises Denied, InvalidInput.
    """
    _require_timetable(standing)
    reason = _reason(reason)
    series = _one_series(conn, series_id)
    dates = parse_dates(series.except_on) | {on}
    if on < series.starts_on:
        raise InvalidInput("on", f"on must not be before the series starts ({series.starts_on}), got {on}")
    if len(dates) > MAX_DATES:
        raise InvalidInput("on", f"a series takes at most {MAX_DATES} exceptions")
    conn.execute(update(_SERIES).where(_SERIES.c.id == series_id).values(except_on=format_dates(dates)))
    rows = conn.execute(
        select(_MEETINGS).where(_MEETINGS.c.series_id == series_id, _MEETINGS.c.occurs_on == on)
    )
    return _cancel(conn, [row for row in rows.mappings() if _is_ahead(row, now)], reason, now)


def materialise(conn: Connection, now: datetime, weeks_ahead: int = WEEKS_AHEAD) -> list[Event]:
    """Lay out the meetings of all running series up to ``weeks_ahead`` from today in their zones.

    Idempotent: what is laid out already stays as it is, moved or cancelled though it may be. A
    meeting whose end has passed is never added.
    """
    query = (
        select(_SERIES)
        .join(_SECTIONS, _SECTIONS.c.id == _SERIES.c.section_id)
        .where(_SERIES.c.is_active, _SECTIONS.c.is_active)
        .order_by(_SERIES.c.id)
    )
    readable: list[Series] = []
    for row in conn.execute(query).mappings():
        series = Series(**row)
        try:
            pattern_of(series)
        except InvalidInput as error:  # spoiled by hand: not to the harm of the others
            log.error("series %s cannot be read and is not laid out: %s", series.id, error)
        else:
            readable.append(series)
    return _lay_out(conn, readable, now, weeks_ahead)


def series_of(conn: Connection, section_id: str) -> list[Series]:
    """The series of a section, the first to start first."""
    query = (
        select(_SERIES).where(_SERIES.c.section_id == section_id).order_by(_SERIES.c.starts_on, _SERIES.c.id)
    )
    return [Series(**row) for row in conn.execute(query).mappings()]


def pattern_of(series: Series) -> Pattern:
    """When a series meets, as values to reckon with."""
    return Pattern(
        starts_on=series.starts_on,
        local_time=parse_local_time(series.local_time),
        duration_min=series.duration_min,
        zone=series.zone,
        rule=parse_rule(series.rrule),
        except_on=parse_dates(series.except_on),
        extra_on=parse_dates(series.extra_on),
    )


# -- meetings ---------------------------------------------------------------------------------


def add_meeting(
    conn: Connection,
    standing: access.Standing,
    *,
    section_id: str,
    start: datetime,
    end: datetime,
    now: datetime,
    room: str | None = None,
    meeting_id: str | None = None,
) -> tuple[str, list[Event]]:
    """A single meeting that has not ended yet. Returns its id. Raises Denied, InvalidInput."""
    _require_timetable(standing)
    section = _section(conn, section_id)
    start, end = _span(start, end, now)
    row = _new_meeting(
        meeting_id or new_id(now),
        section_id,
        start,
        end,
        _room(section["room"] if room is None else room),
        now,
    )
    conn.execute(insert(_MEETINGS), [row])
    return row["id"], events.append(conn, [_on_wall("meeting.scheduled", row, now)])


def move_meeting(
    conn: Connection,
    standing: access.Standing,
    meeting_id: str,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    room: str | None = None,
) -> list[Event]:
    """Another time or room for a meeting that is still ahead; with a start alone it keeps its length.

    Of a series, only this meeting changes. Raises Denied, InvalidInput.
    """
    _require_timetable(standing)
    row = _meeting(conn, meeting_id)
    if not _is_ahead(row, now):
        raise InvalidInput(
            "meeting_id",
            "a meeting is moved before it is opened, ended or cancelled; this one is not ahead any more",
        )
    new_start = row["scheduled_start"] if start is None else _instant("start", start)
    length = row["scheduled_end"] - row["scheduled_start"]
    new_end = new_start + length if end is None else _instant("end", end)
    if new_start != row["scheduled_start"] and new_start < now:
        raise InvalidInput("start", f"start must not lie in the past, got {format_instant(new_start)}")
    new_start, new_end = _span(new_start, new_end, now)
    values = {
        "scheduled_start": new_start,
        "scheduled_end": new_end,
        "room": row["room"] if room is None else _room(room),
    }
    if all(row[name] == value for name, value in values.items()):
        return []
    conn.execute(update(_MEETINGS).where(_MEETINGS.c.id == meeting_id).values(**values))
    return events.append(conn, _told("meeting.changed", {**row, **values}, now))


def cancel_meeting(
    conn: Connection, standing: access.Standing, meeting_id: str, *, reason: str, now: datetime
) -> list[Event]:
    """Say that a meeting does not take place, or did not. What was recorded in it is kept.

    A meeting that was closed took place and cannot be cancelled. Cancelling twice changes nothing.
    Raises Denied, InvalidInput.
    """
    _require_timetable(standing)
    reason = _reason(reason)
    row = _meeting(conn, meeting_id)
    if row["cancelled_at"] is not None:
        return []
    if row["closed_at"] is not None:
        raise InvalidInput("meeting_id", "a meeting that has been closed took place and cannot be cancelled")
    return _cancel(conn, [row], reason, now)


def restore_meeting(
    conn: Connection, standing: access.Standing, meeting_id: str, *, now: datetime
) -> list[Event]:
    """Take a cancellation back. Its date is no longer left out of its series. Raises Denied, InvalidInput."""
    _require_timetable(standing)
    row = _meeting(conn, meeting_id)
    if row["cancelled_at"] is None:
        return []
    values = {"cancelled_at": None, "cancel_reason": ""}
    conn.execute(update(_MEETINGS).where(_MEETINGS.c.id == meeting_id).values(**values))
    if row["series_id"] is not None:
        series = _one_series(conn, row["series_id"])
        dates = parse_dates(series.except_on) - {row["occurs_on"]}
        conn.execute(update(_SERIES).where(_SERIES.c.id == series.id).values(except_on=format_dates(dates)))
    return events.append(conn, _told("meeting.changed", {**row, **values}, now))


def new_keys() -> dict[str, str]:
    """A fresh ``secret`` and ``link_token`` for a meeting."""
    return {"secret": secrets.token_hex(32), "link_token": secrets.token_urlsafe(16)}


# -- parts ------------------------------------------------------------------------------------


def _require_timetable(standing: access.Standing) -> None:
    if not access.may_change_timetable(standing):
        raise access.Denied("Only this section's teachers and admins may change its timetable")


def _section(conn: Connection, section_id: str) -> RowMapping:
    row = conn.execute(select(_SECTIONS).where(_SECTIONS.c.id == section_id)).mappings().first()
    if row is None:
        raise InvalidInput("section_id", "There is no such class.")
    if not row["is_active"]:
        raise InvalidInput("section_id", f"{row['code']} is no longer in use.")
    return row


def _one_series(conn: Connection, series_id: str) -> Series:
    row = conn.execute(select(_SERIES).where(_SERIES.c.id == series_id)).mappings().first()
    if row is None:
        raise InvalidInput("series_id", "There is no such series.")
    return Series(**row)


def _meeting(conn: Connection, meeting_id: str) -> RowMapping:
    row = conn.execute(select(_MEETINGS).where(_MEETINGS.c.id == meeting_id)).mappings().first()
    if row is None:
        raise InvalidInput("meeting_id", "There is no such meeting.")
    return row


def _is_ahead(row: RowMapping, now: datetime) -> bool:
    """Neither begun nor over nor cancelled: it may still be changed."""
    untouched = row["opened_at"] is None and row["closed_at"] is None and row["cancelled_at"] is None
    return untouched and row["scheduled_end"] > now


def _lay_out(conn: Connection, series: Sequence[Series], now: datetime, weeks_ahead: int) -> list[Event]:
    wanted: list[tuple[Series, Occurrence]] = []
    for one in series:
        today = local_date(now, one.zone)
        # from yesterday: a meeting over midnight may still be running
        occurrences = pattern_of(one).occurrences(
            today - timedelta(days=1), today + timedelta(weeks=weeks_ahead)
        )
        wanted += [(one, occurrence) for occurrence in occurrences if occurrence.end > now]
    known = _laid_out(conn, [one.id for one in series], min((o.on for _, o in wanted), default=date.max))
    rows = [
        _new_meeting(
            derived_id("meeting", one.id, occurrence.on.isoformat()),
            one.section_id,
            occurrence.start,
            occurrence.end,
            one.room,
            now,
        )
        | {"series_id": one.id, "occurs_on": occurrence.on}
        for one, occurrence in wanted
        if (one.id, occurrence.on) not in known
    ]
    if not rows:
        return []
    conn.execute(insert(_MEETINGS), rows)
    return events.append(conn, [_on_wall("meeting.scheduled", row, now) for row in rows])


def _laid_out(conn: Connection, series_ids: Sequence[str], since: date) -> set[tuple[str, date]]:
    found: set[tuple[str, date]] = set()
    for at in range(0, len(series_ids), _CHUNK):
        query = select(_MEETINGS.c.series_id, _MEETINGS.c.occurs_on).where(
            _MEETINGS.c.series_id.in_(series_ids[at : at + _CHUNK]), _MEETINGS.c.occurs_on >= since
        )
        found |= {(row.series_id, row.occurs_on) for row in conn.execute(query)}
    return found


def _new_meeting(
    meeting_id: str, section_id: str, start: datetime, end: datetime, room: str, now: datetime
) -> dict[str, Any]:
    return {
        "id": meeting_id,
        "section_id": section_id,
        "series_id": None,
        "occurs_on": None,
        "scheduled_start": start,
        "scheduled_end": end,
        "room": room,
        "is_link_on": True,
        "cancelled_at": None,
        "cancel_reason": "",
        "created_at": now,
        **new_keys(),
    }


def _cancel(conn: Connection, rows: Sequence[RowMapping], reason: str, now: datetime) -> list[Event]:
    values = {"cancelled_at": now, "cancel_reason": reason}
    ids = [row["id"] for row in rows]
    for at in range(0, len(ids), _CHUNK):
        conn.execute(update(_MEETINGS).where(_MEETINGS.c.id.in_(ids[at : at + _CHUNK])).values(**values))
    return events.append(
        conn, [d for row in rows for d in _told("meeting.cancelled", {**row, **values}, now)]
    )


def _told(name: str, row: dict[str, Any], now: datetime) -> list[Draft]:
    on_wall = _on_wall(name, row, now)
    return [Draft(meeting_topic(row["id"]), name, now, on_wall.data), on_wall]


def _on_wall(name: str, row: dict[str, Any], now: datetime) -> Draft:
    data = {
        "meeting_id": row["id"],
        "section_id": row["section_id"],
        "scheduled_start": format_instant(row["scheduled_start"]),
        "scheduled_end": format_instant(row["scheduled_end"]),
        "room": row["room"],
        "is_cancelled": row["cancelled_at"] is not None,
        "reason": row["cancel_reason"],
    }
    return Draft(events.WALL, name, now, data)


def _span(start: datetime, end: datetime, now: datetime) -> tuple[datetime, datetime]:
    start, end = _instant("start", start), _instant("end", end)
    if end <= start:
        raise InvalidInput("end", f"end must be after {format_instant(start)}, got {format_instant(end)}")
    if end - start > timedelta(hours=MAX_MEETING_HOURS):
        raise InvalidInput("end", f"a meeting lasts at most {MAX_MEETING_HOURS} hours, got {end - start}")
    if end <= now:
        raise InvalidInput("end", f"end must not lie in the past, got {format_instant(end)}")
    return start, end


def _instant(field: str, at: datetime) -> datetime:
    if at.tzinfo is None:
        raise InvalidInput(field, f"{field} needs a time zone, got {at.isoformat()}")
    return to_millisecond(at)


def _reason(text: str) -> str:
    return clean_text("reason", text, longest=MAX_REASON)


def _room(text: str) -> str:
    return clean_text("room", text, longest=MAX_ROOM, is_required=False)
