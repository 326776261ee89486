"""What is read of a meeting: its facts, its roster with every record, and the seq it is true at.

Lists of meetings and a student's own record are read in meeting_lists.py and student_record.py.

Each function is one consistent snapshot of the transaction it is given; views add the events after
``seq`` to it. Whether the asker may see it is asked of access.py before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, and_, or_, select

from domain import events
from domain.events import meeting_topic
from domain.lists import chunks
from domain.meeting_lists import MeetingSummary as MeetingSummary
from domain.meeting_lists import meetings_between as meetings_between
from domain.meeting_lists import meetings_on as meetings_on
from domain.model import (
    Enrolment,
    EnrolmentRole,
    Kind,
    Meeting,
    MeetingState,
    OperationRow,
    Person,
    RecordRow,
    RegisterTaken,
    Section,
    table,
)
from domain.policies import late_after_min, load_policies, opens_at, policy_at, state_of
from domain.standings import running
from domain.student_record import Rate as Rate
from domain.student_record import StudentMeeting as StudentMeeting
from domain.student_record import attendance_codes as attendance_codes
from domain.student_record import rate_of as rate_of
from domain.student_record import record_of_student as record_of_student

_MEETINGS, _SECTIONS, _ENROLMENTS, _PEOPLE = table(Meeting), table(Section), table(Enrolment), table(Person)
_RECORDS, _OPERATIONS, _TAKEN = table(RecordRow), table(OperationRow), table(RegisterTaken)

STAFF_ROLES = (EnrolmentRole.TEACHER, EnrolmentRole.CO_TEACHER, EnrolmentRole.SUBSTITUTE)


@dataclass(frozen=True, slots=True)
class RosterRow:
    """One student of a meeting, with the record as it stands; status None: unmarked."""

    student_id: str
    name: str
    status: str | None = None
    code: str | None = None
    minutes_late: int | None = None
    remark: str = ""
    source: str = ""
    contested: bool = False
    unverified: bool = False
    skewed: bool = False
    version: int = 0
    operation_id: str | None = None
    author_id: str | None = None
    effective_at: datetime | None = None
    proposal: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StaffMember:
    """Somebody who teaches the section at the time of the meeting or now."""

    person_id: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class MeetingView:
    """One meeting as its staff see it, true at ``seq`` of topic meeting:<id>."""

    id: str
    section_id: str
    section_code: str
    section_title: str
    room: str
    zone: str
    scheduled_start: datetime
    scheduled_end: datetime
    state: MeetingState
    opened_at: datetime | None
    opened_by: str | None
    closed_at: datetime | None
    closed_by: str | None
    closing_until: datetime | None
    is_register_taken: bool
    late_after_min: int
    cutoff_min: int | None
    opens_at: datetime
    is_link_on: bool
    cancel_reason: str
    staff: tuple[StaffMember, ...]
    roster: tuple[RosterRow, ...]
    seq: int
    epoch: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One operation of a record's history, in the order in which it counts."""

    id: str
    kind: str
    author_id: str | None
    author_name: str  # "" for the system
    effective_at: datetime
    captured_at: datetime
    received_at: datetime
    is_verified: bool
    is_skewed: bool
    seq: int
    reverts: str | None
    is_reverted: bool
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MeetingKey:
    """What has to be known of a meeting before anything of it may be shown, and to show its codes."""

    id: str
    section_id: str
    scheduled_start: datetime
    state: MeetingState
    secret: bytes
    link_token: str | None


def find_meeting(conn: Connection, meeting_id: str, now: datetime) -> MeetingKey | None:
    """The meeting's section, time, state and secret; None if there is none."""
    row = conn.execute(select(_MEETINGS).where(_MEETINGS.c.id == meeting_id)).first()
    if row is None:
        return None
    policy = policy_at(load_policies(conn, [row.section_id]), row.section_id, row.scheduled_start)
    return MeetingKey(
        row.id,
        row.section_id,
        row.scheduled_start,
        state_of(row, policy, now),
        bytes.fromhex(row.secret),
        row.link_token if row.is_link_on else None,
    )


def is_on_roster(conn: Connection, meeting: MeetingKey, student_id: str) -> bool:
    """Whether somebody was enrolled as a student at the time of the meeting."""
    found = conn.execute(
        select(_ENROLMENTS.c.id).where(
            _ENROLMENTS.c.section_id == meeting.section_id,
            _ENROLMENTS.c.person_id == student_id,
            _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
            running(meeting.scheduled_start),
        )
    )
    return found.first() is not None


def read_meeting(conn: Connection, meeting_id: str, now: datetime) -> MeetingView | None:
    """Everything about one meeting, or None if there is none."""
    query = select(
        _MEETINGS,
        _SECTIONS.c.code,
        _SECTIONS.c.title,
        _SECTIONS.c.zone,
        _SECTIONS.c.room.label("section_room"),
    )
    row = conn.execute(query.join(_SECTIONS).where(_MEETINGS.c.id == meeting_id)).first()
    if row is None:
        return None
    policy = policy_at(load_policies(conn, [row.section_id]), row.section_id, row.scheduled_start)
    taken = conn.execute(select(_TAKEN.c.meeting_id).where(_TAKEN.c.meeting_id == meeting_id)).first()
    return MeetingView(
        id=row.id,
        section_id=row.section_id,
        section_code=row.code,
        section_title=row.title,
        room=row.room or row.section_room,
        zone=row.zone,
        scheduled_start=row.scheduled_start,
        scheduled_end=row.scheduled_end,
        state=state_of(row, policy, now),
        opened_at=row.opened_at,
        opened_by=row.opened_by,
        closed_at=row.closed_at,
        closed_by=row.closed_by,
        closing_until=row.closed_at and row.closed_at + timedelta(seconds=policy.closing_grace_s),
        is_register_taken=taken is not None,
        late_after_min=late_after_min(row, policy),
        cutoff_min=policy.cutoff_min,
        opens_at=opens_at(row, policy),
        is_link_on=row.is_link_on,
        cancel_reason=row.cancel_reason,
        staff=_staff(conn, row.section_id, row.scheduled_start, now),
        roster=_roster(conn, row.id, row.section_id, row.scheduled_start),
        seq=events.head(conn, meeting_topic(meeting_id)),
        epoch=events.epoch(conn),
    )


def _staff(conn: Connection, section_id: str, *moments: datetime) -> tuple[StaffMember, ...]:
    rows = conn.execute(
        select(_PEOPLE.c.id, _PEOPLE.c.given_name, _PEOPLE.c.family_name, _ENROLMENTS.c.role)
        .join(_ENROLMENTS, _ENROLMENTS.c.person_id == _PEOPLE.c.id)
        .where(
            _ENROLMENTS.c.section_id == section_id,
            _ENROLMENTS.c.role.in_(STAFF_ROLES),
            or_(*(running(at) for at in moments)),
        )
        .order_by(_ENROLMENTS.c.role.desc(), _PEOPLE.c.family_name)
    )
    unique = {row.id: StaffMember(row.id, _name(row), row.role) for row in rows}
    return tuple(unique.values())


def _roster(conn: Connection, meeting_id: str, section_id: str, start: datetime) -> tuple[RosterRow, ...]:
    enrolled = (
        select(_ENROLMENTS.c.person_id)
        .where(
            _ENROLMENTS.c.section_id == section_id,
            _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
            running(start),
        )
        .distinct()
    )
    known = select(_RECORDS.c.student_id).where(_RECORDS.c.meeting_id == meeting_id)
    of_meeting = and_(_RECORDS.c.student_id == _PEOPLE.c.id, _RECORDS.c.meeting_id == meeting_id)
    rows = conn.execute(
        select(_PEOPLE.c.id, _PEOPLE.c.given_name, _PEOPLE.c.family_name, _RECORDS)
        .outerjoin_from(_PEOPLE, _RECORDS, of_meeting)
        .where(or_(_PEOPLE.c.id.in_(enrolled), _PEOPLE.c.id.in_(known)))
    )
    found = [
        RosterRow(
            student_id=row.id,
            name=_name(row),
            status=row.status,
            code=row.code,
            minutes_late=row.minutes_late,
            remark=row.remark or "",
            source=row.source or "",
            contested=bool(row.is_contested),
            unverified=bool(row.is_unverified),
            skewed=bool(row.is_skewed),
            version=row.version or 0,
            operation_id=row.operation_id,
            author_id=row.author_id,
            effective_at=row.effective_at,
            proposal=None if row.proposal is None else orjson.loads(row.proposal),
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda r: (r.name.casefold(), r.student_id)))


def record_states(
    conn: Connection, meeting_ids: Sequence[str]
) -> dict[str, list[tuple[str, str, int | None, bool]]]:
    """Of each meeting the records that have a status: (student, status, minutes late, contested)."""
    found: dict[str, list[tuple[str, str, int | None, bool]]] = {meeting_id: [] for meeting_id in meeting_ids}
    columns = (_RECORDS.c.student_id, _RECORDS.c.status, _RECORDS.c.minutes_late, _RECORDS.c.is_contested)
    for ids in chunks(meeting_ids):
        rows = select(_RECORDS.c.meeting_id, *columns).where(
            _RECORDS.c.meeting_id.in_(ids), _RECORDS.c.status.is_not(None)
        )
        for meeting_id, *record in conn.execute(rows):
            found[meeting_id].append(tuple(record))
    return found


def history(conn: Connection, meeting_id: str, student_id: str) -> list[HistoryEntry]:
    """Every operation on a student's record and those about the meeting that touch it, as they count."""
    rows = conn.execute(
        select(_OPERATIONS, _PEOPLE.c.given_name, _PEOPLE.c.family_name)
        .outerjoin_from(_OPERATIONS, _PEOPLE, _PEOPLE.c.id == _OPERATIONS.c.author_id)
        .where(
            _OPERATIONS.c.meeting_id == meeting_id,
            or_(
                _OPERATIONS.c.student_id == student_id,
                and_(_OPERATIONS.c.student_id.is_(None), _OPERATIONS.c.kind != Kind.OPEN_MEETING),
            ),
        )
        .order_by(_OPERATIONS.c.effective_at, _OPERATIONS.c.id)
    ).all()
    undone = _undone({row.id: row.reverts for row in rows if row.reverts is not None})
    entries = []
    for row in rows:
        details = orjson.loads(row.body)
        roster = details.pop("roster", None)
        if row.kind == Kind.CLOSE_MEETING and student_id not in (roster or ()):
            continue
        entries.append(
            HistoryEntry(
                id=row.id,
                kind=row.kind,
                author_id=row.author_id,
                author_name=_name(row) if row.given_name else "",
                effective_at=row.effective_at,
                captured_at=row.captured_at,
                received_at=row.received_at,
                is_verified=row.is_verified,
                is_skewed=row.is_skewed,
                seq=row.seq,
                reverts=row.reverts,
                is_reverted=row.id in undone,
                details=details,
            )
        )
    return entries


def _undone(reverts: dict[str, str]) -> set[str]:
    """The ids taken out by reverts that are not themselves taken out."""
    by_target: dict[str, list[str]] = {}
    for revert, target in reverts.items():
        by_target.setdefault(target, []).append(revert)

    def is_out(identifier: str) -> bool:
        return any(not is_out(revert) for revert in by_target.get(identifier, ()))

    return {target for target in by_target if is_out(target)}


def read_row(conn: Connection, meeting_id: str, student_id: str) -> RosterRow | None:
    """One student's row of a meeting; None for somebody who is neither enrolled nor recorded there."""
    meeting = conn.execute(
        select(_MEETINGS.c.section_id, _MEETINGS.c.scheduled_start).where(_MEETINGS.c.id == meeting_id)
    ).first()
    if meeting is None:
        return None
    rows = _roster(conn, meeting_id, meeting.section_id, meeting.scheduled_start)
    return next((row for row in rows if row.student_id == student_id), None)


def names(conn: Connection, ids: Iterable[str | None]) -> dict[str, str]:
    """People's names by id; unknown ids are left out."""
    wanted = sorted({i for i in ids if i})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), 500):
        query = select(_PEOPLE.c.id, _PEOPLE.c.given_name, _PEOPLE.c.family_name)
        rows = conn.execute(query.where(_PEOPLE.c.id.in_(wanted[start : start + 500])))
        found |= {row.id: _name(row) for row in rows}
    return found


def _name(row: Any) -> str:
    return f"{row.given_name} {row.family_name}".strip()
