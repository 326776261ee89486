"""What is read of a meeting: its facts, its roster with every record, and the seq it is true at.

Each function is one consistent snapshot of the transaction it is given; views add the events after
``seq`` to it. Whether the asker may see it is asked of access.py before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, and_, func, or_, select

from domain import events
from domain.clock import day_bounds
from domain.events import meeting_topic
from domain.model import (
    AttendanceCode,
    CountsAs,
    Enrolment,
    EnrolmentRole,
    Kind,
    Meeting,
    MeetingState,
    OperationRow,
    Person,
    Policy,
    RecordRow,
    RegisterTaken,
    Section,
    table,
)
from domain.policies import late_after_min, load_policies, opens_at, policy_at, state_of

_MEETINGS, _SECTIONS, _ENROLMENTS, _PEOPLE = table(Meeting), table(Section), table(Enrolment), table(Person)
_RECORDS, _OPERATIONS, _TAKEN, _CODES = (
    table(RecordRow),
    table(OperationRow),
    table(RegisterTaken),
    table(AttendanceCode),
)

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
            _valid_at(meeting.scheduled_start),
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
            or_(*(_valid_at(at) for at in moments)),
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
            _valid_at(start),
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
                and_(_ENROLMENTS.c.role.in_(STAFF_ROLES), _valid_at(now)),
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
    policies: list[Policy] = load_policies(conn, {row.section_id for row in rows})
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


def names(conn: Connection, ids: Iterable[str | None]) -> dict[str, str]:
    """People's names by id; unknown ids are left out."""
    wanted = sorted({i for i in ids if i})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), 500):
        query = select(_PEOPLE.c.id, _PEOPLE.c.given_name, _PEOPLE.c.family_name)
        rows = conn.execute(query.where(_PEOPLE.c.id.in_(wanted[start : start + 500])))
        found |= {row.id: _name(row) for row in rows}
    return found


def _valid_at(at: datetime) -> Any:
    return and_(
        _ENROLMENTS.c.begins_at <= at, or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > at)
    )


def _name(row: Any) -> str:
    return f"{row.given_name} {row.family_name}".strip()
