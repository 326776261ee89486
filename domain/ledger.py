"""What one batch of operations changes, written with a handful of bulk statements.

The ledger is the write path's unit of work: what it needs to know is read in known.py, decide.py
works on plain values, ``flush`` writes the result. Only record.py makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, and_, bindparam, delete, insert, text, update

from domain import events
from domain.access import Author, Authority
from domain.events import Draft, Event, meeting_topic, student_topic
from domain.known import Known, MeetingCase, Submission
from domain.model import Kind, Meeting, OperationRow, ParkedOperation, RecordRow, RegisterTaken, table
from domain.operations import Operation
from domain.outcomes import record_data
from domain.policies import policy_at
from domain.resolve import Entry, MeetingFacts, Resolved, resolve_meeting

_OPERATIONS, _RECORDS, _PARKED = table(OperationRow), table(RecordRow), table(ParkedOperation)
_MEETINGS, _TAKEN = table(Meeting), table(RegisterTaken)

_RECORD_COLUMNS = [c.name for c in _RECORDS.columns]
_PUT_RECORD = text(
    f"INSERT INTO records ({', '.join(_RECORD_COLUMNS)}) VALUES ({', '.join(':' + c for c in _RECORD_COLUMNS)}) "  # noqa: S608  # our own column names
    "ON CONFLICT (meeting_id, student_id) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in _RECORD_COLUMNS if c not in ("meeting_id", "student_id"))
).bindparams(bindparam("effective_at", type_=_RECORDS.c.effective_at.type))


class Ledger(Known):
    """One batch's changes, on top of what it knows."""

    def __init__(self, conn: Connection, submissions: Sequence[Submission], now: datetime) -> None:
        super().__init__(conn, submissions, now)
        self.drafts: list[Event] = []
        self._position = events.last_position(conn)
        self._new_meetings: list[dict[str, Any]] = []
        self._new_operations: list[dict[str, Any]] = []
        self._new_parked: dict[str, dict[str, Any]] = {}
        self._unparked: list[str] = []
        self._dirty: dict[tuple[str, str], None] = {}
        self._changed_meetings: set[str] = set()

    # -- what changes -------------------------------------------------------------------------

    def add_meeting(
        self, operation: Operation, section_id: str, start: datetime, end: datetime, keys: tuple[str, str]
    ) -> MeetingCase:
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
        meeting = MeetingCase(
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
        self._position += 1
        self.drafts.append(
            Event(draft.topic, seq, draft.name, draft.at, draft.data, draft.operation_id, self._position)
        )
        return seq

    def head(self, meeting: MeetingCase) -> int:
        """The last event number of a meeting."""
        return self._heads[meeting_topic(meeting.id)]

    def accept(
        self, submission: Submission, meeting: MeetingCase, entry: Entry, body: dict[str, Any]
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

    def _accept_on_student(self, meeting: MeetingCase, entry: Entry) -> Entry:
        assert entry.student_id is not None
        student_id = entry.student_id
        before = meeting.record(student_id)
        entry = replace(entry, seq=self.head(meeting) + 1)
        own = meeting.on.setdefault(student_id, [])
        own.append(entry)
        meeting.forget(student_id)
        self._tell_record(meeting, student_id, before, entry.id)
        return entry

    def _accept_about_meeting(self, meeting: MeetingCase, entry: Entry) -> Entry:
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
        self, meeting: MeetingCase, student_id: str, before: Resolved | None, cause: str
    ) -> None:
        record = meeting.record(student_id)
        self._dirty[(meeting.id, student_id)] = None
        data = meeting.data(student_id)
        is_news = (
            record is not None and record.is_contested and not (before is not None and before.is_contested)
        )
        name = "record.contested" if is_news else "record.changed"
        self.tell(Draft(meeting_topic(meeting.id), name, self.now, data, cause))
        self.tell(Draft(student_topic(student_id), name, self.now, data, cause))

    def _tell_meeting(self, meeting: MeetingCase, was: MeetingFacts, cause: str) -> None:
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

    # -- writing ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything that changed; the store tells of the events when they are committed."""
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
