"""Tables and closed sets of words. What each row means is said here; what may happen to it, elsewhere.

Attendance itself (operations, records, events, register_taken) is written by record.py alone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Table, Text, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class Role(StrEnum):
    """What a person is in the school at large."""

    ADMIN = "admin"
    TEACHER = "teacher"
    STUDENT = "student"
    GUARDIAN = "guardian"


class EnrolmentRole(StrEnum):
    """What a person is in one section."""

    TEACHER = "teacher"
    CO_TEACHER = "co_teacher"
    SUBSTITUTE = "substitute"
    STUDENT = "student"


class Status(StrEnum):
    """A student's attendance in one meeting. Unmarked is no status: there is no row."""

    PRESENT = "present"
    LATE = "late"
    ABSENT = "absent"
    EXCUSED = "excused"
    REMOTE = "remote"
    LEFT_EARLY = "left_early"


class CountsAs(StrEnum):
    """What a code means for rates; possible meetings = attended + absent (DfE's denominator)."""

    ATTENDED = "attended"
    ABSENT = "absent"
    EXCLUDED = "excluded"


class Kind(StrEnum):
    """The kinds of operation (protocol §1)."""

    OPEN_MEETING = "open_meeting"
    CHECK_IN = "check_in"
    MARK = "mark"
    REVERT = "revert"
    CLOSE_MEETING = "close_meeting"
    REOPEN_MEETING = "reopen_meeting"


class Via(StrEnum):
    """How a check-in was made."""

    QR = "qr"
    LINK = "link"
    CODE = "code"
    TAP = "tap"


class MeetingState(StrEnum):
    """Where a meeting stands; derived from its operations and the clock, never stored."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    LOCKED = "locked"
    CANCELLED = "cancelled"


class AfterCutoff(StrEnum):
    """What a check-in after the cut-off becomes."""

    ABSENT = "absent"
    REFUSE = "refuse"


class UtcInstant(TypeDecorator[datetime]):
    """An aware UTC instant. SQLite keeps no zone: it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is not UTC:
            if value.tzinfo is None:
                raise ValueError(f"an aware datetime was expected, got the naive {value.isoformat()}")
            value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _instant(*, nullable: bool = False, index: bool = False) -> Any:
    column: Column[datetime] = Column(UtcInstant, nullable=nullable, index=index)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


def table(model: type[SQLModel]) -> Table:
    """The Core table of a model, for the bulk statements of the hot path."""
    return cast(Table, cast(Any, model).__table__)


class School(SQLModel, table=True):
    """The one school of this database. ``epoch`` names this event log; a restore gives it a new one."""

    __tablename__ = "school"
    id: int = Field(default=1, primary_key=True)
    name: str
    zone: str
    epoch: str
    is_demo: bool = False
    created_at: datetime = _instant()


class Person(SQLModel, table=True):
    """Somebody of the school. ``source_id`` is their key in the roster system they came from."""

    __tablename__ = "people"
    id: str = Field(primary_key=True, max_length=36)
    source_id: str | None = Field(default=None, unique=True)
    role: str
    given_name: str = Field(max_length=120)
    family_name: str = Field(default="", max_length=120)
    email: str | None = Field(default=None, unique=True, max_length=254)
    password_hash: str | None = None
    language: str = Field(default="en", max_length=12)
    is_active: bool = True
    created_at: datetime = _instant()

    @property
    def name(self) -> str:
        """Given and family name; people with a single name have no family name."""
        return f"{self.given_name} {self.family_name}".strip()


class Guardianship(SQLModel, table=True):
    """A guardian may see this student's record."""

    __tablename__ = "guardianships"
    guardian_id: str = Field(primary_key=True, foreign_key="people.id", max_length=36)
    student_id: str = Field(primary_key=True, foreign_key="people.id", max_length=36, index=True)


class Login(SQLModel, table=True):
    """A login session: a random token, of which only the SHA-256 is kept."""

    __tablename__ = "logins"
    id: str = Field(primary_key=True, max_length=36)
    person_id: str = Field(foreign_key="people.id", max_length=36, index=True)
    token_hash: str = Field(unique=True, max_length=64)
    device: str = Field(default="", max_length=80)
    created_at: datetime = _instant()
    seen_at: datetime = _instant()
    expires_at: datetime = _instant(index=True)
    revoked_at: datetime | None = _instant(nullable=True)


class Section(SQLModel, table=True):
    """One class that is taught (OneRoster "class", Ed-Fi "section")."""

    __tablename__ = "sections"
    id: str = Field(primary_key=True, max_length=36)
    source_id: str | None = Field(default=None, unique=True)
    code: str = Field(max_length=40, index=True)
    title: str = Field(max_length=200)
    room: str = Field(default="", max_length=80)
    zone: str
    is_active: bool = True


class Enrolment(SQLModel, table=True):
    """A person in a section with a role, from ``begins_at`` up to but not including ``ends_at`` (None: open)."""

    __tablename__ = "enrolments"
    __table_args__ = (
        CheckConstraint("ends_at IS NULL OR ends_at > begins_at", name="enrolment_interval"),
        Index("ix_enrolments_section_person", "section_id", "person_id"),
    )
    id: str = Field(primary_key=True, max_length=36)
    source_id: str | None = Field(default=None, unique=True)
    section_id: str = Field(foreign_key="sections.id", max_length=36)
    person_id: str = Field(foreign_key="people.id", max_length=36, index=True)
    role: str
    begins_at: datetime = _instant()
    ends_at: datetime | None = _instant(nullable=True)


class Policy(SQLModel, table=True):
    """The rules of lateness and closing. Versions are never edited; the newest one that was valid
    before a meeting's start governs it, so a change works forward only."""

    __tablename__ = "policies"
    __table_args__ = (UniqueConstraint("section_id", "version"),)
    id: str = Field(primary_key=True, max_length=36)
    section_id: str | None = Field(
        default=None, foreign_key="sections.id", max_length=36
    )  # None: the whole school
    version: int
    valid_from: datetime = _instant()
    opens_before_min: int = 10
    late_after_min: int = 5  # inclusive: exactly 5:00.000 after the start is still present
    cutoff_min: int | None = 30  # None: a check-in is never too late while the meeting is open
    after_cutoff: str = AfterCutoff.ABSENT
    closing_grace_s: int = 10
    auto_close_after_min: int = 15  # after the scheduled end, a meeting left open closes by itself
    lock_after_days: int = 14
    created_at: datetime = _instant()
    created_by: str | None = Field(default=None, max_length=36)


class AttendanceCode(SQLModel, table=True):
    """An attendance code is data: a school adds its own, and each says how it counts and who may set it."""

    __tablename__ = "attendance_codes"
    symbol: str = Field(primary_key=True, max_length=8)
    label: str = Field(max_length=80)
    status: str
    counts_as: str
    set_by: str  # words of access.Setter, comma between: "student,staff,admin,system"
    is_default: bool = False  # the code that a bare status stands for; one for each status
    is_active: bool = True
    sort: int = 0


class Series(SQLModel, table=True):
    """A recurring meeting: local time + zone + RRULE (RFC 5545), with exceptions, laid out some weeks ahead."""

    __tablename__ = "series"
    id: str = Field(primary_key=True, max_length=36)
    section_id: str = Field(foreign_key="sections.id", max_length=36, index=True)
    starts_on: date
    local_time: str  # "09:00"
    duration_min: int
    zone: str
    rrule: str  # "FREQ=WEEKLY;BYDAY=MO,WE;UNTIL=20261218"
    except_on: str = ""  # ISO dates, comma between
    extra_on: str = ""
    room: str = Field(default="", max_length=80)
    is_active: bool = True


class Meeting(SQLModel, table=True):
    """One occurrence of a section. opened/closed are resolved from its operations by record.py."""

    __tablename__ = "meetings"
    __table_args__ = (
        UniqueConstraint("series_id", "occurs_on"),
        CheckConstraint("scheduled_end > scheduled_start", name="meeting_interval"),
        Index("ix_meetings_section_start", "section_id", "scheduled_start"),
    )
    id: str = Field(primary_key=True, max_length=36)
    section_id: str = Field(foreign_key="sections.id", max_length=36)
    series_id: str | None = Field(default=None, foreign_key="series.id", max_length=36)
    occurs_on: date | None = None  # the series' own date of this occurrence, kept when the meeting is moved
    scheduled_start: datetime = _instant(index=True)
    scheduled_end: datetime = _instant()
    room: str = Field(default="", max_length=80)
    late_after_min: int | None = None  # given with open_meeting; None: the policy's
    secret: str  # hex, 32 bytes; the QR tokens and codes come from it
    link_token: str
    is_link_on: bool = True
    cancelled_at: datetime | None = _instant(nullable=True)
    cancel_reason: str = ""
    opened_at: datetime | None = _instant(nullable=True)
    opened_by: str | None = Field(default=None, max_length=36)
    closed_at: datetime | None = _instant(nullable=True)
    closed_by: str | None = Field(default=None, max_length=36)
    created_at: datetime = _instant()


class RegisterTaken(SQLModel, table=True):
    """A member of staff took this register: a fact of its own (Ed-Fi SectionAttendanceTakenEvent).
    Without it "all present" and "nobody took it" look the same."""

    __tablename__ = "register_taken"
    meeting_id: str = Field(primary_key=True, foreign_key="meetings.id", max_length=36)
    taken_at: datetime = _instant()
    taken_by: str = Field(max_length=36)
    operation_id: str = Field(max_length=36)


class OperationRow(SQLModel, table=True):
    """One accepted operation. Append-only: triggers refuse update, delete and replace, also by hand."""

    __tablename__ = "operations"
    __table_args__ = (Index("ix_operations_meeting_student", "meeting_id", "student_id"),)
    id: str = Field(primary_key=True, max_length=36)
    kind: str
    meeting_id: str = Field(foreign_key="meetings.id", max_length=36)
    student_id: str | None = Field(default=None, foreign_key="people.id", max_length=36)
    author_id: str | None = Field(default=None, max_length=36)  # None: the system
    authority: int
    captured_at: datetime = _instant()
    received_at: datetime = _instant()
    effective_at: datetime = _instant()
    device_id: str | None = Field(default=None, max_length=36)
    device_seq: int | None = None
    clock_offset_ms: int | None = None
    seen_seq: int | None = None
    seq: int  # of the event on meeting:<id> that told of it
    reverts: str | None = Field(default=None, max_length=36)
    is_verified: bool = False
    is_skewed: bool = False
    body: str = Field(sa_column=Column(Text, nullable=False))  # what is particular to the kind, as JSON
    content_hash: str = Field(max_length=32)


class ParkedOperation(SQLModel, table=True):
    """An operation kept durably until what it speaks of (a meeting, an operation) has arrived."""

    __tablename__ = "parked_operations"
    id: str = Field(primary_key=True, max_length=36)
    awaits: str = Field(max_length=36, index=True)
    author_id: str = Field(max_length=36, index=True)
    received_at: datetime = _instant()
    body: str = Field(sa_column=Column(Text, nullable=False))  # the operation as it came, as JSON
    content_hash: str = Field(max_length=32)


class RecordRow(SQLModel, table=True):
    """The resolved attendance of one student in one meeting: a cache of resolve(operations)."""

    __tablename__ = "records"
    meeting_id: str = Field(primary_key=True, foreign_key="meetings.id", max_length=36)
    student_id: str = Field(primary_key=True, foreign_key="people.id", max_length=36, index=True)
    status: str | None = None  # None: only an unverified check-in so far
    code: str | None = Field(default=None, max_length=8)
    minutes_late: int | None = None
    remark: str = ""
    source: str = ""
    author_id: str | None = Field(default=None, max_length=36)
    operation_id: str | None = Field(default=None, max_length=36)
    effective_at: datetime | None = _instant(nullable=True)
    is_contested: bool = False
    is_unverified: bool = False
    is_skewed: bool = False
    proposal: str | None = Field(default=None, sa_column=Column(Text, nullable=True))  # JSON, when contested
    version: int = 0


class TopicHead(SQLModel, table=True):
    """The last sequence number given on a topic."""

    __tablename__ = "topics"
    topic: str = Field(primary_key=True, max_length=80)
    seq: int


class EventRow(SQLModel, table=True):
    """One committed event. ``seq`` starts at 1 on each topic and has no gaps (a trigger sees to it)."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("topic", "seq"), {"sqlite_autoincrement": True})
    id: int | None = Field(default=None, primary_key=True)
    topic: str = Field(max_length=80)
    seq: int
    name: str = Field(max_length=40)
    at: datetime = _instant()
    operation_id: str | None = Field(default=None, max_length=36)
    data: str = Field(sa_column=Column(Text, nullable=False))
