"""Makers of test data with meaningful defaults: rows straight into the tables, attendance through record()."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert

from domain.access import Author
from domain.ids import new_id
from domain.model import (
    Enrolment,
    EnrolmentRole,
    Guardianship,
    Meeting,
    Person,
    Policy,
    Role,
    School,
    Section,
    table,
)
from domain.proofs import qr_token
from domain.store import Store

#: A Monday, 9:00 in UTC and 10:00 in the tests' school.
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ZONE = "Europe/Berlin"


@dataclass
class AClass:
    """A section with its people and one meeting."""

    section_id: str
    meeting_id: str
    secret: bytes
    link_token: str
    teachers: list[str]
    students: list[str]
    admin: str
    guardian: str
    start: datetime
    extra: dict[str, Any] = field(default_factory=dict)

    def qr(self, at: datetime) -> str:
        """What the projector shows at that instant."""
        return qr_token(self.secret, self.meeting_id, at)

    @property
    def teacher(self) -> Author:
        return Author(self.teachers[0])

    @property
    def co_teacher(self) -> Author:
        return Author(self.teachers[1])

    def student(self, number: int = 0) -> Author:
        return Author(self.students[number])


def a_school(conn: Connection, *, zone: str = ZONE, is_demo: bool = False) -> None:
    """The school, if there is none yet."""
    if conn.execute(table(School).select()).first() is None:
        conn.execute(
            insert(School),
            [
                School(
                    name="Test School", zone=zone, epoch=new_id(), is_demo=is_demo, created_at=NOW
                ).model_dump()
            ],
        )


def a_person(
    conn: Connection,
    role: Role = Role.STUDENT,
    *,
    name: str = "Ada",
    family_name: str = "Test",
    email: str | None = None,
    **values: Any,
) -> str:
    """A person; returns the id."""
    person = Person(
        id=new_id(),
        role=role,
        given_name=name,
        family_name=family_name,
        email=email,
        created_at=NOW,
        **values,
    )
    conn.execute(insert(Person), [person.model_dump()])
    return person.id


def a_section(conn: Connection, *, code: str = "10B-MA", title: str = "Maths 10B", room: str = "R12") -> str:
    """A section without people; returns the id."""
    section = Section(id=new_id(), code=code, title=title, room=room, zone=ZONE)
    conn.execute(insert(Section), [section.model_dump()])
    return section.id


def an_enrolment(
    conn: Connection,
    section_id: str,
    person_id: str,
    role: EnrolmentRole = EnrolmentRole.STUDENT,
    *,
    begins_at: datetime = NOW - timedelta(days=90),
    ends_at: datetime | None = None,
) -> str:
    """A person in a section; returns the id."""
    enrolment = Enrolment(
        id=new_id(),
        section_id=section_id,
        person_id=person_id,
        role=role,
        begins_at=begins_at,
        ends_at=ends_at,
    )
    conn.execute(insert(Enrolment), [enrolment.model_dump()])
    return enrolment.id


def a_meeting(
    conn: Connection, section_id: str, *, start: datetime = NOW, minutes: int = 50, **values: Any
) -> Meeting:
    """A scheduled meeting."""
    meeting = Meeting(
        id=new_id(),
        section_id=section_id,
        scheduled_start=start,
        scheduled_end=start + timedelta(minutes=minutes),
        secret=bytes(range(32)).hex(),
        link_token="link-token-of-a-test",
        created_at=NOW - timedelta(days=1),
        **values,
    )
    conn.execute(insert(Meeting), [meeting.model_dump()])
    return meeting


def a_policy(conn: Connection, **values: Any) -> str:
    """A school-wide policy, valid for ever unless said; returns the id."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "version": 1,
        "valid_from": NOW - timedelta(days=365),
        "created_at": NOW,
    }
    policy = Policy(**(fields | values))
    conn.execute(insert(Policy), [policy.model_dump()])
    return policy.id


def make_class(conn: Connection, *, students: int = 3, start: datetime = NOW, code: str = "10B-MA") -> AClass:
    """A section with two teachers, students, an admin, the first student's guardian, and a meeting at ``start``."""
    a_school(conn)
    section_id = a_section(conn, code=code)
    teachers = [a_person(conn, Role.TEACHER, name=f"Teacher {n}") for n in (1, 2)]
    pupils = [a_person(conn, Role.STUDENT, name=f"Student {n}") for n in range(1, students + 1)]
    an_enrolment(conn, section_id, teachers[0], EnrolmentRole.TEACHER)
    an_enrolment(conn, section_id, teachers[1], EnrolmentRole.CO_TEACHER)
    for pupil in pupils:
        an_enrolment(conn, section_id, pupil)
    guardian = a_person(conn, Role.GUARDIAN, name="Guardian")
    if pupils:
        conn.execute(
            insert(Guardianship), [Guardianship(guardian_id=guardian, student_id=pupils[0]).model_dump()]
        )
    meeting = a_meeting(conn, section_id, start=start)
    return AClass(
        section_id=section_id,
        meeting_id=meeting.id,
        secret=bytes.fromhex(meeting.secret),
        link_token=meeting.link_token,
        teachers=teachers,
        students=pupils,
        admin=a_person(conn, Role.ADMIN, name="Admin"),
        guardian=guardian,
        start=start,
    )


def a_class(store: Store, **values: Any) -> AClass:
    """``make_class`` in a transaction of its own."""
    return store.write_now(lambda conn: make_class(conn, **values))
