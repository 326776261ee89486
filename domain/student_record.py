"""One student's own record: meetings with what is recorded, and attended over possible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, or_, select

from domain.model import (
    AttendanceCode,
    CountsAs,
    Enrolment,
    EnrolmentRole,
    Meeting,
    MeetingState,
    RecordRow,
    Section,
    table,
)
from domain.policies import load_policies, policy_at, state_of

_MEETINGS, _SECTIONS, _ENROLMENTS = table(Meeting), table(Section), table(Enrolment)
_RECORDS, _CODES = table(RecordRow), table(AttendanceCode)


@dataclass(frozen=True, slots=True)
class StudentMeeting:
    """One meeting in a student's own record."""

    meeting_id: str
    section_id: str
    section_code: str
    section_title: str
    room: str
    zone: str
    scheduled_start: datetime
    scheduled_end: datetime
    state: MeetingState
    status: str | None
    code: str | None
    minutes_late: int | None
    source: str
    contested: bool
    unverified: bool
    counts_as: str | None  # attended | absent | excluded; None while unmarked
    effective_at: datetime | None


@dataclass(frozen=True, slots=True)
class Rate:
    """Attendance over the meetings that count: possible = attended + absent; excluded codes are left out."""

    attended: int
    possible: int

    @property
    def value(self) -> float | None:
        """Attended over possible; None when nothing counts yet."""
        return self.attended / self.possible if self.possible else None


def record_of_student(
    conn: Connection,
    student_id: str,
    now: datetime,
    *,
    begin: datetime | None = None,
    end: datetime | None = None,
) -> list[StudentMeeting]:
    """A student's meetings with what is recorded, newest first, up to the end of the last two days unless said."""
    end = end or now + timedelta(days=1)
    of_student = and_(_RECORDS.c.meeting_id == _MEETINGS.c.id, _RECORDS.c.student_id == student_id)
    enrolled = (
        select(_ENROLMENTS.c.id)
        .where(
            _ENROLMENTS.c.section_id == _MEETINGS.c.section_id,
            _ENROLMENTS.c.person_id == student_id,
            _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
            _ENROLMENTS.c.begins_at <= _MEETINGS.c.scheduled_start,
            or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > _MEETINGS.c.scheduled_start),
        )
        .exists()
    )
    query = (
        select(
            _MEETINGS,
            _SECTIONS.c.code.label("section_code"),
            _SECTIONS.c.title,
            _SECTIONS.c.zone,
            _SECTIONS.c.room.label("section_room"),
            _RECORDS.c.status,
            _RECORDS.c.code,
            _RECORDS.c.minutes_late,
            _RECORDS.c.source,
            _RECORDS.c.is_contested,
            _RECORDS.c.is_unverified,
            _RECORDS.c.effective_at,
            _CODES.c.counts_as,
        )
        .join(_SECTIONS, _SECTIONS.c.id == _MEETINGS.c.section_id)
        .outerjoin(_RECORDS, of_student)
        .outerjoin(_CODES, _CODES.c.symbol == _RECORDS.c.code)
        .where(or_(enrolled, _RECORDS.c.student_id.is_not(None)), _MEETINGS.c.scheduled_start < end)
        .order_by(_MEETINGS.c.scheduled_start.desc(), _MEETINGS.c.id)
    )
    if begin is not None:
        query = query.where(_MEETINGS.c.scheduled_start >= begin)
    rows = conn.execute(query).all()
    policies = load_policies(conn, {row.section_id for row in rows})
    defaults = default_counts(conn)
    return [
        StudentMeeting(
            meeting_id=row.id,
            section_id=row.section_id,
            section_code=row.section_code,
            section_title=row.title,
            room=row.room or row.section_room,
            zone=row.zone,
            scheduled_start=row.scheduled_start,
            scheduled_end=row.scheduled_end,
            state=state_of(row, policy_at(policies, row.section_id, row.scheduled_start), now),
            status=row.status,
            code=row.code,
            minutes_late=row.minutes_late,
            source=row.source or "",
            contested=bool(row.is_contested),
            unverified=bool(row.is_unverified),
            counts_as=row.counts_as or defaults.get(row.status),
            effective_at=row.effective_at,
        )
        for row in rows
    ]


def rate_of(meetings: Iterable[StudentMeeting]) -> Rate:
    """Attendance over closed or running meetings that carry a status; cancelled and unmarked ones do not count."""
    counted = [m.counts_as for m in meetings if m.counts_as in (CountsAs.ATTENDED, CountsAs.ABSENT)]
    return Rate(sum(1 for c in counted if c == CountsAs.ATTENDED), len(counted))


def default_counts(conn: Connection) -> dict[str, str]:
    """How a status counts when the record names no code of its own (a check-in, the close)."""
    rows = conn.execute(select(_CODES.c.status, _CODES.c.counts_as).where(_CODES.c.is_default))
    return {row.status: row.counts_as for row in rows}


def attendance_codes(conn: Connection) -> list[AttendanceCode]:
    """The active attendance codes, in their order."""
    rows = conn.execute(select(_CODES).where(_CODES.c.is_active).order_by(_CODES.c.sort)).mappings()
    return [AttendanceCode(**row) for row in rows]
