"""What one batch of operations needs to know: a handful of questions to the database for all of it.

The reading half of the write path's unit of work; what a batch changes is ledger.py's. decide.py works
on the plain values gathered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, or_, select

from domain import events, ids
from domain.access import NOBODY, Author, Authority, Standing
from domain.events import meeting_topic, student_topic
from domain.model import (
    AfterCutoff,
    AttendanceCode,
    Enrolment,
    EnrolmentRole,
    Kind,
    Login,
    Meeting,
    OperationRow,
    ParkedOperation,
    Person,
    Policy,
    Role,
    Section,
    Status,
    Via,
    table,
)
from domain.operations import InvalidOperation, Operation, parse
from domain.outcomes import record_data
from domain.policies import late_after_min, load_policies, policy_at
from domain.resolve import Entry, MeetingFacts, Resolved, Timing, resolve, resolve_meeting

_OPERATIONS, _PARKED = table(OperationRow), table(ParkedOperation)
_MEETINGS, _SECTIONS, _ENROLMENTS = table(Meeting), table(Section), table(Enrolment)
_PEOPLE, _LOGINS, _CODES = table(Person), table(Login), table(AttendanceCode)

#: Kinds that are about the meeting as a whole: they may change everybody's record.
MEETING_KINDS = frozenset({Kind.OPEN_MEETING, Kind.CLOSE_MEETING, Kind.REOPEN_MEETING})
#: How long after its id was made a meeting or operation that has not arrived may still arrive.
ARRIVAL_DAYS = 90
MAX_PARKED_PER_AUTHOR = 2000
_CODE_SEARCH = timedelta(hours=12)


@dataclass(slots=True)
class Submission:
    """One operation on its way in: who sent it, from where, and when it was first received."""

    operation: Operation | InvalidOperation
    author: Author
    received_at: datetime
    address: str = ""


@dataclass(slots=True)
class MeetingCase:
    """One meeting of the batch, with everything its records are resolved from."""

    id: str
    section_id: str
    scheduled_start: datetime
    scheduled_end: datetime
    secret: bytes
    link_token: str | None
    cancelled_at: datetime | None
    policy: Policy
    facts: MeetingFacts = field(default_factory=MeetingFacts)
    about: list[Entry] = field(default_factory=list)  # operations about the meeting itself
    on: dict[str, list[Entry]] = field(default_factory=dict)  # student -> operations
    resolved: dict[str, Resolved | None] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    timing: Timing | None = None

    @property
    def late_after_min(self) -> int | None:
        return self.facts.late_after_min

    @property
    def opened_at(self) -> datetime | None:
        return self.facts.opened_at

    @property
    def closed_at(self) -> datetime | None:
        return self.facts.closed_at

    def record(self, student_id: str) -> Resolved | None:
        """The record of one student as it stands now."""
        if student_id not in self.resolved:
            if self.timing is None:
                self.timing = Timing(
                    self.scheduled_start,
                    late_after_min(self, self.policy),
                    self.policy.cutoff_min,
                    AfterCutoff(self.policy.after_cutoff),
                )
            entries = self.on.get(student_id, [])
            if self.facts.closed_at is not None:
                entries = [*entries, *self.about]
            self.resolved[student_id] = resolve(student_id, entries, self.timing) if entries else None
        return self.resolved[student_id]

    def data(self, student_id: str) -> dict[str, Any]:
        """The record of one student as it is told."""
        if student_id not in self.told:
            version = len(self.on.get(student_id, ()))
            self.told[student_id] = record_data(self.id, student_id, self.record(student_id), version)
        return self.told[student_id]

    def forget(self, student_id: str | None = None) -> None:
        """Something changed: what was resolved no longer holds, for one student or for all."""
        if student_id is not None:
            self.resolved.pop(student_id, None)
            self.told.pop(student_id, None)
        else:
            self.resolved.clear()
            self.told.clear()
            self.timing = None


class Known:
    """One batch's view of the database."""

    def __init__(self, conn: Connection, submissions: Sequence[Submission], now: datetime) -> None:
        self.conn = conn
        self.now = now
        self.submissions = submissions
        self.known: dict[str, tuple[str, Entry, str | None]] = {}  # id -> (hash, entry, meeting)
        self.parked: dict[str, str] = {}  # id -> hash
        self.waiting: dict[str, list[Submission]] = {}  # what it awaits -> who waits
        self.meetings: dict[str, MeetingCase] = {}
        self.codes: dict[str, AttendanceCode] = {}
        self._people: dict[str, tuple[str, bool]] = {}
        self._staff: dict[tuple[str, str], EnrolmentRole] = {}
        self._students: dict[tuple[str, str], list[tuple[datetime, datetime | None]]] = {}
        self._sections: set[str] = set()
        self._valid_logins: set[str] = set()
        self._policies: list[Policy] = []
        self._heads: dict[str, int] = {}
        self._parked_counts: dict[str, int] = {}
        self._load()

    # -- what is known ------------------------------------------------------------------------

    def is_login_valid(self, author: Author) -> bool:
        """The log-in that the author acts with still holds (authors without one are our own code)."""
        return author.login_id is None or author.login_id in self._valid_logins

    def standing(self, author: Author, section_id: str) -> Standing:
        """What the author is towards a section at the time of this batch."""
        if author.person_id is None or author.person_id not in self._people:
            return NOBODY
        role, is_active = self._people[author.person_id]
        return Standing(
            person_id=author.person_id,
            is_active=is_active,
            is_admin=role == Role.ADMIN,
            staff_role=self._staff.get((section_id, author.person_id)),
            is_student=(section_id, author.person_id) in self._students,
        )

    def has_section(self, section_id: str) -> bool:
        """Whether there is such a section."""
        return section_id in self._sections

    def is_enrolled(self, meeting: MeetingCase, student_id: str) -> bool:
        """Whether the student was on the roster at the time of the meeting."""
        spans = self._students.get((meeting.section_id, student_id), ())
        at = meeting.scheduled_start
        return any(begins <= at and (ends is None or at < ends) for begins, ends in spans)

    def roster(self, meeting: MeetingCase) -> list[str]:
        """Everybody enrolled as a student at the time of the meeting."""
        at = meeting.scheduled_start
        rows = self.conn.execute(
            select(_ENROLMENTS.c.person_id)
            .where(
                _ENROLMENTS.c.section_id == meeting.section_id,
                _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
                _ENROLMENTS.c.begins_at <= at,
                or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > at),
            )
            .distinct()
        )
        return sorted(row.person_id for row in rows)

    def meetings_for_code(self, student_id: str, at: datetime) -> list[MeetingCase]:
        """The meetings that a check-in by code alone could mean: the student's own, open, near that time."""
        return [
            m
            for m in self.meetings.values()
            if m.opened_at is not None
            and m.cancelled_at is None
            and abs(m.scheduled_start - at) <= _CODE_SEARCH
            and self.is_enrolled(m, student_id)
        ]

    def may_arrive(self, identifier: str) -> bool:
        """Whether something unknown may still come: its id was made by a client (UUIDv7), not long ago."""
        made = ids.made_at(identifier)
        return made is not None and abs(self.now - made) < timedelta(days=ARRIVAL_DAYS)

    def may_park(self, author: Author) -> bool:
        """Whether the author has room left for operations that wait."""
        return self._parked_counts.get(author.person_id or "", 0) < MAX_PARKED_PER_AUTHOR

    # -- reading ------------------------------------------------------------------------------

    def _load(self) -> None:
        operations = [s.operation for s in self.submissions if isinstance(s.operation, Operation)]
        parked = self._load_parked(operations)
        operations += [s.operation for s in parked if isinstance(s.operation, Operation)]
        everyone = [*self.submissions, *parked]
        self._load_known(operations)
        self._load_meetings(operations, everyone)
        self._load_people(operations, everyone)
        self._load_entries(operations)
        rows = self.conn.execute(select(_CODES).where(_CODES.c.is_active)).mappings()
        self.codes = {row["symbol"]: AttendanceCode(**row) for row in rows}
        topics = [meeting_topic(m) for m in self.meetings]
        topics += [student_topic(s) for m in self.meetings.values() for s in m.on]
        topics += [student_topic(o.student_id) for o in operations if o.student_id]
        topics += [student_topic(s.author.person_id) for s in everyone if s.author.person_id]
        self._heads = events.heads(self.conn, [*topics, events.WALL])

    def _load_parked(self, operations: Sequence[Operation]) -> list[Submission]:
        found: list[Submission] = []
        arriving = {o.id for o in operations} | {
            o.meeting_id for o in operations if o.kind is Kind.OPEN_MEETING and o.meeting_id
        }
        own = {o.id for o in operations}
        if own:
            rows = self.conn.execute(
                select(_PARKED.c.id, _PARKED.c.content_hash).where(_PARKED.c.id.in_(own))
            )
            self.parked = {row.id: row.content_hash for row in rows}
        while arriving:
            rows = self.conn.execute(select(_PARKED).where(_PARKED.c.awaits.in_(arriving)))
            arriving = set()
            for row in rows:
                submission = Submission(parse(orjson.loads(row.body)), Author(row.author_id), row.received_at)
                self.waiting.setdefault(row.awaits, []).append(submission)
                self.parked[row.id] = row.content_hash
                found.append(submission)
                arriving.add(row.id)
        authors = {s.author.person_id for s in self.submissions if s.author.person_id}
        if self.parked or any(o.meeting_id and self.may_arrive(o.meeting_id) for o in operations):
            counts = self.conn.execute(select(_PARKED.c.author_id).where(_PARKED.c.author_id.in_(authors)))
            for row in counts:
                self._parked_counts[row.author_id] = self._parked_counts.get(row.author_id, 0) + 1
        return found

    def _load_known(self, operations: Sequence[Operation]) -> None:
        wanted = {o.id for o in operations} | {o.reverts for o in operations if o.reverts}
        for row in _in_chunks(self.conn, select(_OPERATIONS), _OPERATIONS.c.id, wanted):
            self.known[row["id"]] = (row["content_hash"], _entry(row), row["meeting_id"])

    def _load_meetings(self, operations: Sequence[Operation], everyone: Sequence[Submission]) -> None:
        wanted = {o.meeting_id for o in operations if o.meeting_id}
        wanted |= {meeting for _hash, _entry, meeting in self.known.values() if meeting}
        rows = list(_in_chunks(self.conn, select(_MEETINGS), _MEETINGS.c.id, wanted))
        by_code = [
            s for s in everyone if isinstance(s.operation, Operation) and s.operation.meeting_id is None
        ]
        if by_code:
            rows += self._meetings_open_to(by_code, wanted)
        self._sections = {o.section_id for o in operations if o.section_id}
        if self._sections:
            found = self.conn.execute(select(_SECTIONS.c.id).where(_SECTIONS.c.id.in_(self._sections)))
            self._sections = {row.id for row in found}
        self._policies = load_policies(self.conn, {row["section_id"] for row in rows} | self._sections)
        for row in rows:
            self.meetings[row["id"]] = MeetingCase(
                id=row["id"],
                section_id=row["section_id"],
                scheduled_start=row["scheduled_start"],
                scheduled_end=row["scheduled_end"],
                secret=bytes.fromhex(row["secret"]),
                link_token=row["link_token"] if row["is_link_on"] else None,
                cancelled_at=row["cancelled_at"],
                policy=policy_at(self._policies, row["section_id"], row["scheduled_start"]),
            )

    def _meetings_open_to(self, submissions: Sequence[Submission], known: set[str]) -> list[Any]:
        times = [_captured(s) for s in submissions]
        authors = {s.author.person_id for s in submissions if s.author.person_id}
        rows = self.conn.execute(
            select(_MEETINGS)
            .join(_ENROLMENTS, _ENROLMENTS.c.section_id == _MEETINGS.c.section_id)
            .where(
                _MEETINGS.c.scheduled_start.between(min(times) - _CODE_SEARCH, max(times) + _CODE_SEARCH),
                _MEETINGS.c.opened_at.is_not(None),
                _ENROLMENTS.c.person_id.in_(authors),
                _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
            )
            .distinct()
        ).mappings()
        return [row for row in rows if row["id"] not in known]

    def _load_people(self, operations: Sequence[Operation], everyone: Sequence[Submission]) -> None:
        authors = {s.author.person_id for s in everyone if s.author.person_id}
        logins = {s.author.login_id for s in everyone if s.author.login_id}
        for row in _in_chunks(
            self.conn, select(_PEOPLE.c.id, _PEOPLE.c.role, _PEOPLE.c.is_active), _PEOPLE.c.id, authors
        ):
            self._people[row["id"]] = (row["role"], row["is_active"])
        valid = select(_LOGINS.c.id).where(_LOGINS.c.revoked_at.is_(None), _LOGINS.c.expires_at > self.now)
        self._valid_logins = {row["id"] for row in _in_chunks(self.conn, valid, _LOGINS.c.id, logins)}
        sections = {m.section_id for m in self.meetings.values()} | self._sections
        people = authors | {o.student_id for o in operations if o.student_id}
        spans = select(_ENROLMENTS).where(_ENROLMENTS.c.section_id.in_(sections))
        for row in _in_chunks(self.conn, spans, _ENROLMENTS.c.person_id, people) if sections else ():
            key = (row["section_id"], row["person_id"])
            if row["role"] == EnrolmentRole.STUDENT:
                self._students.setdefault(key, []).append((row["begins_at"], row["ends_at"]))
            elif row["begins_at"] <= self.now and (row["ends_at"] is None or self.now < row["ends_at"]):
                self._staff[key] = EnrolmentRole(row["role"])

    def _load_entries(self, operations: Sequence[Operation]) -> None:
        """All of a meeting's operations if something about the meeting itself may change, else those on
        the students spoken of, and always those about the meeting."""
        if not self.meetings:
            return
        whole = {o.meeting_id for o in operations if o.kind in MEETING_KINDS and o.meeting_id}
        students = {o.student_id for o in operations if o.student_id}
        students |= {s.author.person_id for s in self.submissions if s.author.person_id}
        for waiting in self.waiting.values():
            students |= {s.author.person_id for s in waiting if s.author.person_id}
        for operation in operations:
            if operation.reverts and operation.reverts in self.known:
                _hash, target, meeting_id = self.known[operation.reverts]
                if target.student_id is None and meeting_id:
                    whole.add(meeting_id)
                elif target.student_id:
                    students.add(target.student_id)
        in_part = set(self.meetings) - whole
        rows: list[Any] = list(_in_chunks(self.conn, select(_OPERATIONS), _OPERATIONS.c.meeting_id, whole))
        if in_part:
            about = select(_OPERATIONS).where(_OPERATIONS.c.student_id.is_(None))
            rows += _in_chunks(self.conn, about, _OPERATIONS.c.meeting_id, in_part)
            some = select(_OPERATIONS).where(_OPERATIONS.c.meeting_id.in_(in_part))
            rows += _in_chunks(self.conn, some, _OPERATIONS.c.student_id, students)
        for row in rows:
            entry, meeting = _entry(row), self.meetings[row["meeting_id"]]
            (
                meeting.about if entry.student_id is None else meeting.on.setdefault(entry.student_id, [])
            ).append(entry)
        for meeting in self.meetings.values():
            meeting.facts = resolve_meeting(meeting.about)


def _in_chunks(conn: Connection, query: Any, column: Any, values: Iterable[str | None]) -> list[Any]:
    """The rows whose column is among the values, asked for 500 at a time (SQLite's bound parameters end at 32,766)."""
    wanted = [v for v in values if v]
    rows: list[Any] = []
    for start in range(0, len(wanted), 500):
        rows += conn.execute(query.where(column.in_(wanted[start : start + 500]))).mappings()
    return rows


def _captured(submission: Submission) -> datetime:
    assert isinstance(submission.operation, Operation)
    return min(submission.operation.captured_at or submission.received_at, submission.received_at)


def _entry(row: Any) -> Entry:
    body = orjson.loads(row["body"])
    return Entry(
        id=row["id"],
        kind=Kind(row["kind"]),
        authority=Authority(row["authority"]),
        effective_at=row["effective_at"],
        author_id=row["author_id"],
        student_id=row["student_id"],
        device_id=row["device_id"],
        device_seq=row["device_seq"],
        seen_seq=row["seen_seq"],
        seq=row["seq"],
        reverts=row["reverts"],
        is_skewed=row["is_skewed"],
        status=Status(body["status"]) if body.get("status") else None,
        code=body.get("code"),
        minutes_late=body.get("minutes_late"),
        late_after_min=body.get("late_after_min"),
        remark=body.get("remark"),
        via=Via(body["via"]) if body.get("via") else None,
        is_final=bool(body.get("final")),
        roster=frozenset(body.get("roster", ())),
    )
