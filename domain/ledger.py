"""What one batch of operations needs to know and what it changes: read in bulk, written in bulk.

The ledger is the write path's unit of work: ``load`` asks the database a handful of questions for
the whole batch, decide.py works on plain values, ``flush`` writes the result with a handful of bulk
statements. Only record.py makes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, text, update

from domain import events, ids
from domain.access import NOBODY, Author, Authority, Standing
from domain.events import Draft, Event, meeting_topic, student_topic
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
    RecordRow,
    RegisterTaken,
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

_OPERATIONS, _RECORDS, _PARKED = table(OperationRow), table(RecordRow), table(ParkedOperation)
_MEETINGS, _SECTIONS, _ENROLMENTS = table(Meeting), table(Section), table(Enrolment)
_PEOPLE, _LOGINS, _CODES, _TAKEN = table(Person), table(Login), table(AttendanceCode), table(RegisterTaken)

#: Kinds that are about the meeting as a whole: they may change everybody's record.
MEETING_KINDS = frozenset({Kind.OPEN_MEETING, Kind.CLOSE_MEETING, Kind.REOPEN_MEETING})
#: How long after its id was made a meeting or operation that has not arrived may still arrive.
ARRIVAL_DAYS = 90
MAX_PARKED_PER_AUTHOR = 2000
_CODE_SEARCH = timedelta(hours=12)

_RECORD_COLUMNS = [c.name for c in _RECORDS.columns]
_PUT_RECORD = text(
    f"INSERT INTO records ({', '.join(_RECORD_COLUMNS)}) VALUES ({', '.join(':' + c for c in _RECORD_COLUMNS)}) "  # noqa: S608  # our own column names
    "ON CONFLICT (meeting_id, student_id) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in _RECORD_COLUMNS if c not in ("meeting_id", "student_id"))
).bindparams(bindparam("effective_at", type_=_RECORDS.c.effective_at.type))


@dataclass(slots=True)
class Submission:
    """One operation on its way in: who sent it, from where, and when it was first received."""

    operation: Operation | InvalidOperation
    author: Author
    received_at: datetime
    address: str = ""


@dataclass(slots=True)
class MeetingState:
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

    def forget(self, student_id: str | None = None) -> None:
        """Something changed: what was resolved no longer holds, for one student or for all."""
        if student_id is not None:
            self.resolved.pop(student_id, None)
        else:
            self.resolved.clear()
            self.timing = None


class Ledger:
    """One batch's view of the database and its changes to it."""

    def __init__(self, conn: Connection, submissions: Sequence[Submission], now: datetime) -> None:
        self.conn = conn
        self.now = now
        self.submissions = submissions
        self.drafts: list[Event] = []
        self.known: dict[str, tuple[str, Entry, str | None]] = {}  # id -> (hash, entry, meeting)
        self.parked: dict[str, str] = {}  # id -> hash
        self.waiting: dict[str, list[Submission]] = {}  # what it awaits -> who waits
        self.meetings: dict[str, MeetingState] = {}
        self.codes: dict[str, AttendanceCode] = {}
        self._people: dict[str, tuple[str, bool]] = {}
        self._staff: dict[tuple[str, str], EnrolmentRole] = {}
        self._students: dict[tuple[str, str], list[tuple[datetime, datetime | None]]] = {}
        self._sections: set[str] = set()
        self._valid_logins: set[str] = set()
        self._policies: list[Policy] = []
        self._heads: dict[str, int] = {}
        self._parked_counts: dict[str, int] = {}
        self._new_meetings: list[dict[str, Any]] = []
        self._new_operations: list[dict[str, Any]] = []
        self._new_parked: dict[str, dict[str, Any]] = {}
        self._unparked: list[str] = []
        self._dirty: dict[tuple[str, str], None] = {}
        self._changed_meetings: set[str] = set()
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

    def is_enrolled(self, meeting: MeetingState, student_id: str) -> bool:
        """Whether the student was on the roster at the time of the meeting."""
        spans = self._students.get((meeting.section_id, student_id), ())
        at = meeting.scheduled_start
        return any(begins <= at and (ends is None or at < ends) for begins, ends in spans)

    def roster(self, meeting: MeetingState) -> list[str]:
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

    def meetings_for_code(self, student_id: str, at: datetime) -> list[MeetingState]:
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

    # -- what changes -------------------------------------------------------------------------

    def add_meeting(
        self, operation: Operation, section_id: str, start: datetime, end: datetime, keys: tuple[str, str]
    ) -> MeetingState:
        """A meeting that begins to exist by being opened."""
        assert operation.meeting_id is not None
        secret, link_token = keys
        self._new_meetings.append(
            {
                "id": operation.meeting_id,
                "section_id": section_id,
                "scheduled_start": start,
                "scheduled_end": end,
                "secret": secret,
                "link_token": link_token,
                "is_link_on": True,
                "room": "",
                "cancel_reason": "",
                "created_at": self.now,
            }
        )
        meeting = MeetingState(
            id=operation.meeting_id,
            section_id=section_id,
            scheduled_start=start,
            scheduled_end=end,
            secret=bytes.fromhex(secret),
            link_token=link_token,
            cancelled_at=None,
            policy=policy_at(self._policies, section_id, start),
        )
        self.meetings[meeting.id] = meeting
        self._heads.setdefault(meeting_topic(meeting.id), 0)
        return meeting

    def tell(self, draft: Draft) -> int:
        """Number an event; it is stored with the batch."""
        if draft.topic not in self._heads:
            self._heads |= events.heads(self.conn, [draft.topic])
        seq = self._heads[draft.topic] + 1
        self._heads[draft.topic] = seq
        self.drafts.append(Event(draft.topic, seq, draft.name, draft.at, draft.data, draft.operation_id))
        return seq

    def head(self, meeting: MeetingState) -> int:
        """The last event number of a meeting."""
        return self._heads[meeting_topic(meeting.id)]

    def accept(
        self, submission: Submission, meeting: MeetingState, entry: Entry, body: dict[str, Any]
    ) -> Entry:
        """Put an operation into the log, resolve what it touches, and tell of it. Returns it numbered."""
        operation = submission.operation
        assert isinstance(operation, Operation)
        if entry.student_id is not None:
            entry = self._accept_on_student(meeting, entry)
        else:
            entry = self._accept_about_meeting(meeting, entry)
        digest = operation.content_hash
        self.known[entry.id] = (digest, entry, meeting.id)
        self._new_operations.append(
            {
                "id": entry.id,
                "kind": entry.kind.value,
                "meeting_id": meeting.id,
                "student_id": entry.student_id,
                "author_id": entry.author_id,
                "authority": int(entry.authority),
                "captured_at": operation.captured_at or submission.received_at,
                "received_at": submission.received_at,
                "effective_at": entry.effective_at,
                "device_id": entry.device_id,
                "device_seq": entry.device_seq,
                "clock_offset_ms": operation.clock_offset_ms,
                "seen_seq": entry.seen_seq,
                "seq": entry.seq,
                "reverts": entry.reverts,
                "is_verified": entry.kind is Kind.CHECK_IN and entry.authority is Authority.PROVEN,
                "is_skewed": entry.is_skewed,
                "body": orjson.dumps(body).decode(),
                "content_hash": digest,
            }
        )
        return entry

    def park(self, submission: Submission, awaits: str) -> None:
        """Keep an operation durably until what it speaks of has arrived."""
        operation, author = submission.operation, submission.author
        assert isinstance(operation, Operation) and author.person_id is not None
        digest = operation.content_hash
        self.parked[operation.id] = digest
        self._parked_counts[author.person_id] = self._parked_counts.get(author.person_id, 0) + 1
        self.waiting.setdefault(awaits, []).append(
            Submission(operation, Author(author.person_id), submission.received_at, submission.address)
        )
        self._new_parked[operation.id] = {
            "id": operation.id,
            "awaits": awaits,
            "author_id": author.person_id,
            "received_at": submission.received_at,
            "body": orjson.dumps(operation.as_dict()).decode(),
            "content_hash": digest,
        }

    def take_waiting(self, *arrived: str) -> list[Submission]:
        """Whoever waited for what has now arrived, oldest first; they are parked no longer."""
        found = [s for identifier in arrived for s in self.waiting.pop(identifier, [])]
        for submission in found:
            assert isinstance(submission.operation, Operation)
            self.parked.pop(submission.operation.id, None)
            if self._new_parked.pop(submission.operation.id, None) is None:
                self._unparked.append(submission.operation.id)
        return sorted(found, key=lambda s: (s.received_at, s.operation.id or ""))

    def _accept_on_student(self, meeting: MeetingState, entry: Entry) -> Entry:
        assert entry.student_id is not None
        student_id = entry.student_id
        before = meeting.record(student_id)
        entry = replace(entry, seq=self.head(meeting) + 1)
        own = meeting.on.setdefault(student_id, [])
        own.append(entry)
        meeting.forget(student_id)
        self._tell_record(meeting, student_id, before, entry.id)
        return entry

    def _accept_about_meeting(self, meeting: MeetingState, entry: Entry) -> Entry:
        touched = set(meeting.on) | {s for e in (*meeting.about, entry) for s in e.roster}
        before = {student_id: meeting.record(student_id) for student_id in touched}
        was = meeting.facts
        entry = replace(entry, seq=self.head(meeting) + 1)
        meeting.about.append(entry)
        meeting.facts = resolve_meeting(meeting.about)
        meeting.forget()
        if meeting.facts != was:
            self._changed_meetings.add(meeting.id)
            self._tell_meeting(meeting, was, entry.id)
        for student_id in sorted(touched):
            if meeting.record(student_id) != before[student_id]:
                self._tell_record(meeting, student_id, before[student_id], entry.id)
        return entry

    def _tell_record(
        self, meeting: MeetingState, student_id: str, before: Resolved | None, cause: str
    ) -> None:
        record = meeting.record(student_id)
        self._dirty[(meeting.id, student_id)] = None
        data = record_data(meeting.id, student_id, record, version=len(meeting.on.get(student_id, ())))
        is_news = (
            record is not None and record.is_contested and not (before is not None and before.is_contested)
        )
        name = "record.contested" if is_news else "record.changed"
        self.tell(Draft(meeting_topic(meeting.id), name, self.now, data, cause))
        self.tell(Draft(student_topic(student_id), name, self.now, data, cause))

    def _tell_meeting(self, meeting: MeetingState, was: MeetingFacts, cause: str) -> None:
        facts = meeting.facts
        if facts.closed_at is not None and facts.closed_at != was.closed_at:
            name = "meeting.closed"
        elif facts.closed_at is None and was.closed_at is not None:
            name = "meeting.reopened"
        elif facts.opened_at is not None and was.opened_at is None:
            name = "meeting.opened"
        else:
            name = "meeting.changed"
        data = {
            "meeting_id": meeting.id,
            "section_id": meeting.section_id,
            "opened_by": facts.opened_by,
            "closed_by": facts.closed_by,
            "is_register_taken": facts.taken_by is not None,
        }
        self.tell(Draft(meeting_topic(meeting.id), name, self.now, data, cause))
        self.tell(Draft(events.WALL, name, self.now, data, cause))

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
            self.meetings[row["id"]] = MeetingState(
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

    # -- writing ------------------------------------------------------------------------------

    def flush(self) -> list[Event]:
        """Write everything that changed; the events are as good as committed when the transaction is."""
        conn = self.conn
        if self._new_meetings:
            conn.execute(insert(_MEETINGS), self._new_meetings)
        if self._new_operations:
            conn.execute(insert(_OPERATIONS), self._new_operations)
        if self._unparked:
            conn.execute(delete(_PARKED).where(_PARKED.c.id.in_(self._unparked)))
        if self._new_parked:
            conn.execute(insert(_PARKED), list(self._new_parked.values()))
        self._flush_records()
        self._flush_meetings()
        events.store(conn, self.drafts, self._heads)
        return self.drafts

    def _flush_records(self) -> None:
        kept: list[dict[str, Any]] = []
        for meeting_id, student_id in self._dirty:
            record = self.meetings[meeting_id].record(student_id)
            if record is None:
                self.conn.execute(
                    delete(_RECORDS).where(
                        and_(_RECORDS.c.meeting_id == meeting_id, _RECORDS.c.student_id == student_id)
                    )
                )
            else:
                kept.append(_record_row(meeting_id, student_id, record))
        if kept:
            self.conn.execute(_PUT_RECORD, kept)

    def _flush_meetings(self) -> None:
        for meeting_id in self._changed_meetings:
            facts = self.meetings[meeting_id].facts
            self.conn.execute(
                update(_MEETINGS)
                .where(_MEETINGS.c.id == meeting_id)
                .values(
                    opened_at=facts.opened_at,
                    opened_by=facts.opened_by,
                    closed_at=facts.closed_at,
                    closed_by=facts.closed_by,
                    late_after_min=facts.late_after_min,
                )
            )
            self.conn.execute(delete(_TAKEN).where(_TAKEN.c.meeting_id == meeting_id))
            if (taken := facts.taken_by) is not None:
                self.conn.execute(
                    insert(_TAKEN).values(
                        meeting_id=meeting_id,
                        taken_at=taken.effective_at,
                        taken_by=taken.author_id,
                        operation_id=taken.id,
                    )
                )


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


def _record_row(meeting_id: str, student_id: str, record: Resolved) -> dict[str, Any]:
    proposal = record_data(meeting_id, student_id, record)["proposal"] if record.proposal else None
    return {
        "meeting_id": meeting_id,
        "student_id": student_id,
        "status": None if record.status is None else record.status.value,
        "code": record.code,
        "minutes_late": record.minutes_late,
        "remark": record.remark,
        "source": record.source,
        "author_id": record.author_id,
        "operation_id": record.operation_id,
        "effective_at": record.effective_at,
        "is_contested": record.is_contested,
        "is_unverified": record.is_unverified,
        "is_skewed": record.is_skewed,
        "proposal": None if proposal is None else orjson.dumps(proposal).decode(),
        "version": record.version,
    }
