"""Lists of meetings with their counters: a teacher's day, a student's, everybody's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from domain.access import STAFF_ROLES
from domain.clock import day_bounds
from domain.model import (
    Enrolment,
    EnrolmentRole,
    Meeting,
    MeetingState,
    RecordRow,
    RegisterTaken,
    Section,
    table,
)
from domain.policies import load_policies, policy_at, state_of
from domain.standings import running

_MEETINGS, _SECTIONS, _ENROLMENTS = table(Meeting), table(Section), table(Enrolment)
_RECORDS, _TAKEN = table(RecordRow), table(RegisterTaken)


@dataclass(frozen=True, slots=True)
class MeetingSummary:
    """One line of a list of meetings. ``attended`` counts present, late, remote and left early."""

    id: str
    section_id: str
    section_code: str
    section_title: str
    room: str
    zone: str
    scheduled_start: datetime
    scheduled_end: datetime
    state: MeetingState
    is_register_taken: bool
    enrolled: int
    attended: int
    absent: int
    unmarked: int


def meetings_on(
    conn: Connection,
    person_id: str | None,
    on: date,
    now: datetime,
    *,
    zone: str,
    section_id: str | None = None,
    days: int = 1,
) -> list[MeetingSummary]:
    """The meetings that start on a local day: those the person teaches or attends (None: everybody's), by time."""
    begin, end = day_bounds(on, zone)
    if days > 1:
        end = day_bounds(on + timedelta(days=days - 1), zone)[1]
    return meetings_between(conn, person_id, begin, end, now, section_id=section_id)


def meetings_between(
    conn: Connection,
    person_id: str | None,
    begin: datetime,
    end: datetime,
    now: datetime,
    *,
    section_id: str | None = None,
) -> list[MeetingSummary]:
    """As ``meetings_on``, for a span of time."""
    query = (
        select(
            _MEETINGS,
            _SECTIONS.c.code,
            _SECTIONS.c.title,
            _SECTIONS.c.zone,
            _SECTIONS.c.room.label("section_room"),
        )
        .join(_SECTIONS)
        .where(_MEETINGS.c.scheduled_start >= begin, _MEETINGS.c.scheduled_start < end)
        .order_by(_MEETINGS.c.scheduled_start, _SECTIONS.c.code)
    )
    if section_id is not None:
        query = query.where(_MEETINGS.c.section_id == section_id)
    if person_id is not None:
        query = query.where(_takes_part(person_id, now))
    return _summaries(conn, conn.execute(query).all(), now)


def _takes_part(person_id: str, now: datetime) -> Any:
    """Enrolled at the meeting's start; staff also when they are of the section now (a substitute, a new teacher)."""
    return (
        select(_ENROLMENTS.c.id)
        .where(
            _ENROLMENTS.c.section_id == _MEETINGS.c.section_id,
            _ENROLMENTS.c.person_id == person_id,
            or_(
                and_(
                    _ENROLMENTS.c.begins_at <= _MEETINGS.c.scheduled_start,
                    or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > _MEETINGS.c.scheduled_start),
                ),
                and_(_ENROLMENTS.c.role.in_(STAFF_ROLES), running(now)),
            ),
        )
        .exists()
    )


def _summaries(conn: Connection, rows: Sequence[Any], now: datetime) -> list[MeetingSummary]:
    ids = [row.id for row in rows]
    policies = load_policies(conn, {row.section_id for row in rows})
    counted: dict[str, dict[str | None, int]] = {}
    enrolled: dict[str, int] = {}
    taken: set[str] = set()
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        for meeting_id, status, count in conn.execute(
            select(_RECORDS.c.meeting_id, _RECORDS.c.status, func.count())
            .where(_RECORDS.c.meeting_id.in_(some))
            .group_by(_RECORDS.c.meeting_id, _RECORDS.c.status)
        ):
            counted.setdefault(meeting_id, {})[status] = count
        enrolled |= {
            row.id: row.count_
            for row in conn.execute(
                select(_MEETINGS.c.id, func.count(func.distinct(_ENROLMENTS.c.person_id)).label("count_"))
                .join(_ENROLMENTS, _ENROLMENTS.c.section_id == _MEETINGS.c.section_id)
                .where(
                    _MEETINGS.c.id.in_(some),
                    _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
                    _ENROLMENTS.c.begins_at <= _MEETINGS.c.scheduled_start,
                    or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > _MEETINGS.c.scheduled_start),
                )
                .group_by(_MEETINGS.c.id)
            )
        }
        taken |= {
            row.meeting_id
            for row in conn.execute(select(_TAKEN.c.meeting_id).where(_TAKEN.c.meeting_id.in_(some)))
        }
    summaries = []
    for row in rows:
        by_status = counted.get(row.id, {})
        marked = sum(count for status, count in by_status.items() if status is not None)
        summaries.append(
            MeetingSummary(
                id=row.id,
                section_id=row.section_id,
                section_code=row.code,
                section_title=row.title,
                room=row.room or row.section_room,
                zone=row.zone,
                scheduled_start=row.scheduled_start,
                scheduled_end=row.scheduled_end,
                state=state_of(row, policy_at(policies, row.section_id, row.scheduled_start), now),
                is_register_taken=row.id in taken,
                enrolled=enrolled.get(row.id, 0),
                attended=sum(by_status.get(s, 0) for s in ("present", "late", "remote", "left_early")),
                absent=sum(by_status.get(s, 0) for s in ("absent", "excused")),
                unmarked=max(0, enrolled.get(row.id, 0) - marked),
            )
        )
    return summaries
