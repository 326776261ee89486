"""What the API takes and gives, as types for its description. tests hold real answers to them.

Nothing is checked with these while requests are answered: operations are read by domain.operations,
and answers are written straight from the domain's values. Where a value goes out as it is, the
domain's own type stands here.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.login_rows import LoginEntry
from domain.model import MeetingState, Role, Status, Via
from domain.operations import MAX_LATE_AFTER_MIN, MAX_MINUTES_LATE, MAX_PROOF, MAX_REMARK
from domain.outcomes import Verdict
from domain.register import HistoryEntry, RosterRow, StaffMember, StudentMeeting
from domain.roster_csv import Problem
from domain.roster_drafts import Change, Counts
from domain.roster_entries import Thing

MAX_OPERATIONS = 500
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


class Shape(BaseModel):
    """Nothing else than what is named."""

    model_config = ConfigDict(extra="forbid")


class ProblemDetails(BaseModel):
    """An error (RFC 9457). ``code`` is stable, ``detail`` and ``hint`` are for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:muster:problem:not_found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "There is no such thing here, or not for you.",
                    "code": "not_found",
                    "hint": "Check the address.",
                    "instance": "urn:muster:request:019ab6a0-5f2a-7c11-9d7e-1f0b6d1c2a33",
                }
            ]
        }
    )
    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None
    instance: Annotated[str, Field(description="names the request, as X-Request-ID does")]
    retry_after: Annotated[float | None, Field(description="seconds, with 429 and 503")] = None
    errors: Annotated[list[dict[str, Any]] | None, Field(description="with 422: where and what")] = None
    problems: Annotated[list[Problem] | None, Field(description="with a refused import")] = None


# --- Log-in ---


class Credentials(BaseModel):
    """An account and its password."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "teacher1@demo.school", "password": "muster-demo"}]}
    )
    email: Annotated[str, Field(max_length=254)]
    password: Annotated[str, Field(max_length=1000)]


class NewPassword(BaseModel):
    """The password that holds and the one that shall."""

    old: Annotated[str, Field(max_length=1000)]
    new: Annotated[str, Field(max_length=1000)]


class User(Shape):
    """Somebody logged in."""

    id: Id
    name: str
    role: Role
    language: str


class Granted(Shape):
    """A new login. ``token`` goes into ``Authorization: Bearer``."""

    token: str
    expires_at: datetime
    user: User


class Me(Shape):
    """Who one is, and every login that still holds."""

    user: User
    logins: list[LoginEntry]
    expires_at: datetime
    server_time: datetime


# --- Sections and meetings ---


class SectionOfMine(Shape):
    """A class and what one is in it."""

    id: Id
    source_id: str | None
    code: str
    title: str
    room: str
    zone: str
    is_active: bool
    role: Literal["admin", "teacher", "co_teacher", "substitute", "student"]


class Sections(Shape):
    """The classes one teaches or attends."""

    sections: list[SectionOfMine]


class SectionName(Shape):
    """How a class is called."""

    id: Id
    code: str
    title: str


class MeetingLine(Shape):
    """One line of a list of meetings. ``attended`` counts present, late, remote and left early."""

    id: Id
    section_id: Id
    section: SectionName
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


class Meetings(Shape):
    """Meetings by time."""

    meetings: list[MeetingLine]


class MeetingsOfDay(Meetings):
    """The meetings of a local day."""

    on: date


class Meeting(Shape):
    """A meeting's facts. Who opened and closed it is for staff."""

    id: Id
    section_id: Id
    section: SectionName
    room: str
    zone: str
    scheduled_start: datetime
    scheduled_end: datetime
    state: MeetingState
    opened_at: datetime | None
    opened_by: Id | None = None
    closed_at: datetime | None
    closed_by: Id | None = None
    closing_until: datetime | None
    is_register_taken: bool
    late_after_min: int
    cutoff_min: int | None
    opens_at: datetime
    is_link_on: bool
    cancel_reason: str
    staff: list[StaffMember]


class Snapshot(Shape):
    """A meeting as it is at ``seq`` of its log; the events after ``seq`` go on top."""

    meeting: Meeting
    roster: list[RosterRow]
    seq: int
    epoch: Id


class Codes(Shape):
    """What to show to the class now. A check-in's proof is the code, or what the QR address ends in."""

    model_config = _example(
        qr_url="https://muster.example/j/019ab69f-0000-7000-8000-000000000001.119695560.6NXQ9AOazkSA7K6eJH84pw",
        code="299162",
        link="https://muster.example/j/019ab69f-0000-7000-8000-000000000001.l.5nX0oLkq3rYw",
        expires_at="2026-11-23T09:00:15.000Z",
        code_expires_at="2026-11-23T09:01:00.000Z",
        step_s=15,
        server_time="2026-11-23T09:00:02.345Z",
    )
    qr_url: str
    code: str
    link: str | None
    expires_at: Annotated[datetime, Field(description="when the QR turns")]
    code_expires_at: datetime
    step_s: int
    server_time: datetime


class Event(Shape):
    """Something that was committed. ``seq`` counts up by one in each topic."""

    type: Literal["event"]
    topic: str
    seq: int
    name: Annotated[str, Field(examples=["record.changed", "meeting.opened", "check_in.failed"])]
    at: datetime
    data: dict[str, Any]


class Events(Shape):
    """Either the events after the number that was given, or a snapshot to start anew from."""

    topic: str
    epoch: Id
    seq: Annotated[int, Field(description="of the last event, or of the snapshot")]
    events: list[Event] | None = None
    snapshot: Snapshot | None = None


class RecordWithHistory(Shape):
    """One student's record and every operation that it was made from, in the order in which they count."""

    record: RosterRow
    history: list[HistoryEntry]


class OwnRecord(Shape):
    """A student's attendance, newest first. The rate is ``attended`` over ``possible``."""

    student_id: Id
    meetings: list[StudentMeeting]
    attended: int
    possible: int


# --- Operations ---


class Said(BaseModel):
    """What every operation says. Fields that are not known are let be."""

    id: Annotated[Id, Field(description="a UUIDv7, made where the operation is made; a retry repeats it")]
    meeting_id: Id
    captured_at: Annotated[datetime | None, Field(description="left out: the moment of receipt")] = None
    clock_offset_ms: Annotated[int | None, Field(description="null: the device never learned one")] = None
    device_id: Id | None = None
    device_seq: Annotated[int | None, Field(ge=0)] = None
    seen_seq: Annotated[int | None, Field(ge=0, description="last event that the author had seen")] = None


class OpenMeeting(Said):
    """Open a scheduled meeting, or a new one of a section: then ``meeting_id`` is made by the client."""

    kind: Literal["open_meeting"]
    section_id: Id | None = None
    scheduled_start: datetime | None = None
    scheduled_end: datetime | None = None
    late_after_min: Annotated[int | None, Field(ge=0, le=MAX_LATE_AFTER_MIN)] = None


class CheckIn(Said):
    """A student's own. The proof is the code, or what the QR address or link ends in; a tap has none."""

    kind: Literal["check_in"]
    meeting_id: Annotated[Id | None, Field(description="may be left out with via code")] = None  # type: ignore[assignment]  # as the protocol has it
    student_id: Annotated[Id | None, Field(description="the author, if given")] = None
    via: Via
    proof: Annotated[str | None, Field(max_length=MAX_PROOF)] = None


class Mark(Said):
    """What staff say of a student. ``code`` is an attendance code's symbol."""

    kind: Literal["mark"]
    student_id: Id
    status: Status
    code: Annotated[str | None, Field(max_length=8)] = None
    minutes_late: Annotated[int | None, Field(ge=0, le=MAX_MINUTES_LATE)] = None
    remark: Annotated[str | None, Field(max_length=MAX_REMARK)] = None


class Revert(Said):
    """Take one operation back; a revert can be taken back itself."""

    kind: Literal["revert"]
    reverts: Id


class CloseMeeting(Said):
    """Close; with ``final`` every unmarked student becomes absent."""

    kind: Literal["close_meeting"]
    final: bool = True


class ReopenMeeting(Said):
    """Open again what was closed, with the reason."""

    kind: Literal["reopen_meeting"]
    remark: Annotated[str, Field(min_length=1, max_length=MAX_REMARK)]


AnyOperation = Annotated[
    OpenMeeting | CheckIn | Mark | Revert | CloseMeeting | ReopenMeeting, Field(discriminator="kind")
]


class Operations(BaseModel):
    """Operations to record, in any order."""

    operations: Annotated[list[AnyOperation], Field(max_length=MAX_OPERATIONS)]


class Outcome(Shape):
    """What became of one operation. ``accepted`` and ``duplicate``: it is durable."""

    id: Id | None
    outcome: Verdict
    code: Annotated[str | None, Field(examples=["bad_proof"])]
    hint: Annotated[str | None, Field(description="what a person can do now")]
    record: Annotated[dict[str, Any] | None, Field(description="the student's record now")]
    seq: int | None
    contested: bool
    retry_after: Annotated[float | None, Field(description="seconds, with rate_limited")] = None


class Outcomes(Shape):
    """One outcome for each operation, in order."""

    model_config = _example(
        outcomes=[
            {
                "id": "019ab6a0-5f2a-7c11-9d7e-1f0b6d1c2a33",
                "outcome": "accepted",
                "code": "already_checked_in",
                "hint": "You are already checked in. There is nothing more to do.",
                "record": {"status": "present", "code": "P", "source": "qr", "version": 1},
                "seq": 42,
                "contested": False,
            }
        ],
        server_time="2026-11-23T09:01:02.401Z",
    )
    outcomes: list[Outcome]
    server_time: datetime


# --- Files and health ---


class ImportReport(Shape):
    """What an import did or would do, and everything that is wrong with its file. At most 1,000 changes."""

    is_applied: bool
    form: Literal["table", "oneroster", ""]
    error_count: int
    warning_count: int
    problems: list[Problem]
    counts: dict[Thing, Counts]
    changes: list[Change]
    skipped_count: int | None = None


class Health(Shape):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether the process may be sent work."""

    status: Literal["ok", "unready"]
    checks: dict[str, bool]
