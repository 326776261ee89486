"""Attendance as CSV for spreadsheets: only what the viewer may see, and nothing a spreadsheet would run.

One row for each student and meeting: what is recorded, and, once the register is closed, an empty
status for those who were enrolled and have no record.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, Row, and_, false, or_, select

from domain.access import STAFF_ROLES, Author, Denied
from domain.clock import FIRST_DAY, LAST_DAY, day_bounds
from domain.inputs import InvalidInput
from domain.model import (
    AttendanceCode,
    Enrolment,
    EnrolmentRole,
    Guardianship,
    Meeting,
    Person,
    RecordRow,
    Role,
    Section,
    table,
)
from domain.standings import load_standing, require_admin, running

_MEETINGS, _SECTIONS, _PEOPLE, _RECORDS = table(Meeting), table(Section), table(Person), table(RecordRow)
_ENROLMENTS, _GUARDIANSHIPS, _CODES = table(Enrolment), table(Guardianship), table(AttendanceCode)
_MEETINGS_AT_ONCE = 50
_ROWS_AT_ONCE = 500
#: What makes a spreadsheet take a cell for a formula (OWASP, CSV injection), full-width forms included.
#: Some look past white space and control characters, which are as good as not there.
_FORMULA = re.compile(r"[ \ufeff\u00a0]*[\t\r\n]|[\s\x00-\x1f\x7f\ufeff]*[=+\-@＝＋－＠]")


@dataclass(frozen=True, slots=True)
class AttendanceRow:
    """One student in one meeting; the fields are the columns of the CSV, in this order."""

    date: str  # of the meeting's start, in the zone that was asked for
    start: str  # 09:00, local
    section_code: str
    section_title: str
    student_source_id: str
    student_name: str
    status: str  # "" for unmarked
    code: str
    counts_as: str  # attended | absent | excluded
    minutes_late: str
    source: str
    contested: str  # yes | ""
    unverified: str  # yes | ""
    remark: str  # for staff only
    marked_by: str  # "" for Muster itself


COLUMNS = tuple(column.name for column in fields(AttendanceRow))


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a viewer may see: everything, or some sections whole and some students everywhere."""

    is_admin: bool
    sections: frozenset[str] = frozenset()
    students: frozenset[str] = frozenset()


def attendance_rows(
    conn: Connection,
    *,
    section_id: str | None = None,
    student_id: str | None = None,
    begin_on: date,
    end_on: date,
    zone: str,
    viewer: Author,
    now: datetime,
) -> Iterator[AttendanceRow]:
    """The attendance of the meetings that start from ``begin_on`` to ``end_on`` (local days, both inclusive).

    Admins see all, staff the sections that they teach now, students themselves, guardians their
    children; somebody who is several of these sees all of it together. Without a section and a
    student it is everything that the viewer may see. Rights are checked before this returns; rows
    are read while they are taken, inside the caller's transaction. Raises Denied, InvalidInput.
    """
    for name, on in (("begin_on", begin_on), ("end_on", end_on)):
        if not FIRST_DAY <= on <= LAST_DAY:
            years = f"{FIRST_DAY.year}-{LAST_DAY.year}"
            raise InvalidInput(name, f"{name} must be in the years {years}, got {on}.")
    if end_on < begin_on:
        raise InvalidInput("end_on", f"end_on must not be before begin_on ({begin_on}), got {end_on}.")
    scope = _scope(conn, viewer, now)
    if not _may_ask(scope, section_id, student_id, conn):
        raise Denied("You may not see this attendance.")
    wanted = [
        _MEETINGS.c.scheduled_start >= day_bounds(begin_on, zone)[0],
        _MEETINGS.c.scheduled_start < day_bounds(end_on, zone)[1],
        _MEETINGS.c.cancelled_at.is_(None),
    ]
    if section_id is not None:
        wanted.append(_MEETINGS.c.section_id == section_id)
    return _rows(conn, wanted, scope, student_id, ZoneInfo(zone))


def to_csv(rows: Iterable[AttendanceRow]) -> Iterator[str]:
    """The rows as RFC 4180 text, in parts. The first part begins with the BOM that Excel needs for UTF-8."""
    part = io.StringIO(newline="")
    part.write("\ufeff")
    writer = csv.writer(part, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for count, row in enumerate(rows, start=1):
        writer.writerow(disarmed(cell) for cell in astuple(row))
        if count % _ROWS_AT_ONCE == 0:
            yield part.getvalue()
            part.seek(0)
            part.truncate()
    yield part.getvalue()


def disarmed(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before what would begin one."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _scope(conn: Connection, viewer: Author, now: datetime) -> _Scope:
    try:
        require_admin(conn, viewer, now)
        return _Scope(is_admin=True)
    except Denied:
        if viewer.person_id is None or not load_standing(conn, viewer.person_id, "", now).is_active:
            raise
    taught = select(_ENROLMENTS.c.section_id).where(
        _ENROLMENTS.c.person_id == viewer.person_id, _ENROLMENTS.c.role.in_(STAFF_ROLES), running(now)
    )
    children = select(_GUARDIANSHIPS.c.student_id).where(_GUARDIANSHIPS.c.guardian_id == viewer.person_id)
    own = select(_PEOPLE.c.id).where(_PEOPLE.c.id == viewer.person_id, _PEOPLE.c.role == Role.STUDENT)
    return _Scope(
        is_admin=False,
        sections=frozenset(conn.execute(taught).scalars()),
        students=frozenset(conn.execute(children.union(own)).scalars()),
    )


def _may_ask(scope: _Scope, section_id: str | None, student_id: str | None, conn: Connection) -> bool:
    """Whether the question as such is the viewer's to ask; what is not theirs is left out of the answer too."""
    if scope.is_admin:
        return True
    if student_id is not None and student_id not in scope.students:
        taught = scope.sections if section_id is None else scope.sections & {section_id}
        query = select(_ENROLMENTS.c.section_id).where(
            _ENROLMENTS.c.person_id == student_id, _ENROLMENTS.c.role == EnrolmentRole.STUDENT
        )
        return any(found in taught for found in conn.execute(query).scalars())
    if section_id is not None and section_id not in scope.sections:
        return bool(scope.students)
    return bool(scope.sections or scope.students)


def _rows(
    conn: Connection,
    wanted: Sequence[ColumnElement[bool]],
    scope: _Scope,
    student_id: str | None,
    zone: ZoneInfo,
) -> Iterator[AttendanceRow]:
    if not scope.is_admin:
        of_students = select(_ENROLMENTS.c.section_id).where(_ENROLMENTS.c.person_id.in_(scope.students))
        recorded = select(_RECORDS.c.meeting_id).where(_RECORDS.c.student_id.in_(scope.students))
        mine = or_(
            _MEETINGS.c.section_id.in_(scope.sections),
            _MEETINGS.c.section_id.in_(of_students),
            _MEETINGS.c.id.in_(recorded),
        )
        wanted = [*wanted, mine]
    meetings = conn.execute(
        select(
            _MEETINGS.c.id,
            _MEETINGS.c.section_id,
            _MEETINGS.c.scheduled_start,
            _MEETINGS.c.closed_at,
            _SECTIONS.c.code,
            _SECTIONS.c.title,
        )
        .join(_SECTIONS, _SECTIONS.c.id == _MEETINGS.c.section_id)
        .where(*wanted)
        .order_by(_MEETINGS.c.scheduled_start, _SECTIONS.c.code, _MEETINGS.c.id)
    ).all()
    codes = {row.symbol: row for row in conn.execute(select(_CODES))}
    defaults = {row.status: row for row in codes.values() if row.is_default}
    authors: dict[str, str] = {}
    for start in range(0, len(meetings), _MEETINGS_AT_ONCE):
        some = {meeting.id: meeting for meeting in meetings[start : start + _MEETINGS_AT_ONCE]}
        seen = _students(conn, list(some), scope, student_id)
        _add_names(conn, authors, {row.author_id for row in seen if row.author_id})
        by_meeting: dict[str, list[Row[Any]]] = {}
        for row in seen:
            by_meeting.setdefault(row.meeting_id, []).append(row)
        for meeting in some.values():
            is_staff = scope.is_admin or meeting.section_id in scope.sections
            for row in by_meeting.get(meeting.id, ()):
                code = codes.get(row.code) or defaults.get(row.status)
                yield AttendanceRow(
                    date=meeting.scheduled_start.astimezone(zone).date().isoformat(),
                    start=meeting.scheduled_start.astimezone(zone).strftime("%H:%M"),
                    section_code=meeting.code,
                    section_title=meeting.title,
                    student_source_id=row.source_id or "",
                    student_name=f"{row.given_name} {row.family_name}".strip(),
                    status=row.status or "",
                    code=row.code or (code.symbol if code is not None and row.status else ""),
                    counts_as=code.counts_as if code is not None and row.status else "",
                    minutes_late="" if row.minutes_late is None else str(row.minutes_late),
                    source=row.source or "",
                    contested="yes" if row.is_contested else "",
                    unverified="yes" if row.is_unverified else "",
                    remark=(row.remark or "") if is_staff else "",
                    marked_by=authors.get(row.author_id or "", ""),
                )


def _students(
    conn: Connection, meeting_ids: list[str], scope: _Scope, student_id: str | None
) -> list[Row[Any]]:
    """Of each meeting: who has a record, and, if it is closed, who was enrolled at its start; by name."""
    enrolled = (
        select(_MEETINGS.c.id.label("meeting_id"), _ENROLMENTS.c.person_id.label("student_id"))
        .join(_ENROLMENTS, _ENROLMENTS.c.section_id == _MEETINGS.c.section_id)
        .where(
            _MEETINGS.c.id.in_(meeting_ids),
            _MEETINGS.c.closed_at.is_not(None),
            _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
            _ENROLMENTS.c.begins_at <= _MEETINGS.c.scheduled_start,
            or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > _MEETINGS.c.scheduled_start),
        )
    )
    recorded = select(_RECORDS.c.meeting_id, _RECORDS.c.student_id).where(
        _RECORDS.c.meeting_id.in_(meeting_ids)
    )
    who = enrolled.union(recorded).subquery()
    query = (
        select(
            who.c.meeting_id,
            _PEOPLE.c.source_id,
            _PEOPLE.c.given_name,
            _PEOPLE.c.family_name,
            _RECORDS.c.status,
            _RECORDS.c.code,
            _RECORDS.c.minutes_late,
            _RECORDS.c.source,
            _RECORDS.c.is_contested,
            _RECORDS.c.is_unverified,
            _RECORDS.c.remark,
            _RECORDS.c.author_id,
        )
        .select_from(who)
        .join(_MEETINGS, _MEETINGS.c.id == who.c.meeting_id)
        .join(_PEOPLE, _PEOPLE.c.id == who.c.student_id)
        .outerjoin(
            _RECORDS,
            and_(_RECORDS.c.meeting_id == who.c.meeting_id, _RECORDS.c.student_id == who.c.student_id),
        )
        .order_by(_PEOPLE.c.family_name, _PEOPLE.c.given_name, _PEOPLE.c.id)
    )
    if not scope.is_admin:
        of_section = _MEETINGS.c.section_id.in_(scope.sections) if scope.sections else false()
        of_student = who.c.student_id.in_(scope.students) if scope.students else false()
        query = query.where(or_(of_section, of_student))
    if student_id is not None:
        query = query.where(who.c.student_id == student_id)
    return list(conn.execute(query))


def _add_names(conn: Connection, names: dict[str, str], ids: set[str]) -> None:
    unknown = sorted(ids - names.keys())
    for start in range(0, len(unknown), 400):
        query = select(_PEOPLE.c.id, _PEOPLE.c.given_name, _PEOPLE.c.family_name)
        for row in conn.execute(query.where(_PEOPLE.c.id.in_(unknown[start : start + 400]))):
            names[row.id] = f"{row.given_name} {row.family_name}".strip()
