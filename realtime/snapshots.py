"""What a topic looks like at a seq: what one begins with, and what proves that two views are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from domain import register, school
from domain.clock import local_date
from domain.events import WALL
from domain.register import MeetingView
from domain.watching import INBOX, MEETING, STUDENT
from realtime.api import wire

#: A student's topic begins with so many days of the own record.
RECORD_DAYS = 60


def meeting_snapshot(view: MeetingView, own: Collection[str] | None = None) -> dict[str, Any]:
    """A meeting and its roster; for others than staff only their ``own`` rows, and nobody's remarks."""
    rows = [
        wire.roster_row(row, is_staff=own is None)
        for row in view.roster
        if own is None or row.student_id in own
    ]
    facts = wire.meeting(view)
    if own is not None:
        facts.pop("opened_by"), facts.pop("closed_by")
    return {"meeting": facts, "roster": rows, "seq": view.seq, "epoch": view.epoch}


def snapshot_of(conn: Connection, topic: str, now: datetime) -> dict[str, Any]:
    """A topic as whoever may watch it sees it. Raises LookupError for a meeting that is not there."""
    for kind, read in _READERS.items():
        if topic.startswith(kind):
            return read(conn, topic.removeprefix(kind), now)
    raise LookupError(topic)


def _of_meeting(conn: Connection, meeting_id: str, now: datetime) -> dict[str, Any]:
    view = register.read_meeting(conn, meeting_id, now)
    if view is None:
        raise LookupError(meeting_id)
    return meeting_snapshot(view)


def _of_student(conn: Connection, student_id: str, now: datetime) -> dict[str, Any]:
    found = register.record_of_student(conn, student_id, now, begin=now - timedelta(days=RECORD_DAYS))
    rate = register.rate_of(found)
    return {
        "student_id": student_id,
        "meetings": wire.plain(found),
        "attended": rate.attended,
        "possible": rate.possible,
    }


def _of_wall(conn: Connection, _rest: str, now: datetime) -> dict[str, Any]:
    found = school.read_school(conn)
    zone = found.zone if found is not None else "UTC"
    on = local_date(now, zone)
    lines = register.meetings_on(conn, None, on, now, zone=zone)
    return {"on": on.isoformat(), "meetings": [wire.summary(line) for line in lines]}


def _of_inbox(_conn: Connection, _person_id: str, _now: datetime) -> dict[str, Any]:
    return {"notices": []}  # nothing is put into an inbox yet


_READERS: dict[str, Callable[[Connection, str, datetime], dict[str, Any]]] = {
    MEETING: _of_meeting,
    STUDENT: _of_student,
    WALL: _of_wall,
    INBOX: _of_inbox,
}


def digest(records: Iterable[tuple[str, str, int | None, bool]]) -> str:
    """What proves that two views of a meeting are equal (protocol §5): of the records that have a status,
    the lines "student_id status minutes_late contested", sorted, "-" for no minutes, contested as true or
    false; of their UTF-8 text, joined by line feeds, the first 8 hexadecimal digits of SHA-256."""
    lines = sorted(
        f"{student_id} {status} {'-' if minutes is None else minutes} {'true' if contested else 'false'}"
        for student_id, status, minutes, contested in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
