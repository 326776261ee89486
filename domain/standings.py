"""What somebody is towards a section or a student at an instant, read for access.py to judge."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, literal, or_, select

from domain import access
from domain.access import SYSTEM, Author, Denied, Standing
from domain.lists import chunks
from domain.model import Enrolment, EnrolmentRole, Guardianship, Login, Person, Role, table

_PEOPLE, _LOGINS, _ENROLMENTS, _GUARDIANSHIPS = (
    table(Person),
    table(Login),
    table(Enrolment),
    table(Guardianship),
)
_STAFF_ORDER = (EnrolmentRole.TEACHER, EnrolmentRole.CO_TEACHER, EnrolmentRole.SUBSTITUTE)


def load_standing(conn: Connection, person_id: str, section_id: str, at: datetime) -> Standing:
    """What a person is towards a section at an instant. Somebody unknown is nobody."""
    return load_standings(conn, [(person_id, section_id)], at)[person_id, section_id]


def load_standings(
    conn: Connection, pairs: Iterable[tuple[str, str]], at: datetime
) -> dict[tuple[str, str], Standing]:
    """The standing of each (person, section) at an instant, in a few statements for all of them."""
    wanted = list(dict.fromkeys(pairs))
    roles = {
        row.id: (row.role, row.is_active)
        for ids in chunks(sorted({person_id for person_id, _ in wanted}))
        for row in conn.execute(
            select(_PEOPLE.c.id, _PEOPLE.c.role, _PEOPLE.c.is_active).where(_PEOPLE.c.id.in_(ids))
        )
    }
    enrolled: dict[tuple[str, str], set[str]] = {}
    sections = {section_id for _, section_id in wanted}
    for ids in chunks(sorted(roles)):
        rows = select(_ENROLMENTS.c.person_id, _ENROLMENTS.c.section_id, _ENROLMENTS.c.role).where(
            _ENROLMENTS.c.person_id.in_(ids), running(at)
        )
        for row in conn.execute(rows):
            if row.section_id in sections:
                enrolled.setdefault((row.person_id, row.section_id), set()).add(row.role)
    return {
        (person_id, section_id): _standing(
            person_id, *roles[person_id], enrolled.get((person_id, section_id), set())
        )
        if person_id in roles
        else access.NOBODY
        for person_id, section_id in wanted
    }


def _standing(person_id: str, role: str, is_active: bool, enrolled_as: set[str]) -> Standing:
    return Standing(
        person_id=person_id,
        is_active=is_active,
        is_admin=role == Role.ADMIN,
        staff_role=next((staff for staff in _STAFF_ORDER if staff in enrolled_as), None),
        is_student=EnrolmentRole.STUDENT in enrolled_as,
    )


def running(at: datetime) -> ColumnElement[bool]:
    """The enrolments that hold at an instant: from their beginning up to, not including, their end."""
    return and_(
        _ENROLMENTS.c.begins_at <= at, or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > at)
    )


def is_guardian_of(conn: Connection, guardian_id: str, student_id: str) -> bool:
    """Whether one person is a guardian of the other."""
    pair = and_(_GUARDIANSHIPS.c.guardian_id == guardian_id, _GUARDIANSHIPS.c.student_id == student_id)
    return conn.execute(select(literal(1)).where(pair)).first() is not None


def teaches_student(conn: Connection, teacher_id: str, student_id: str, at: datetime) -> bool:
    """Whether somebody is staff, at that instant, of a section in which the student is enrolled then."""
    shared = select(_ENROLMENTS.c.section_id).where(
        _ENROLMENTS.c.person_id == student_id, _ENROLMENTS.c.role == EnrolmentRole.STUDENT, running(at)
    )
    own = select(_ENROLMENTS.c.section_id).where(
        _ENROLMENTS.c.person_id == teacher_id, _ENROLMENTS.c.section_id.in_(shared), running(at)
    )
    pairs = [(teacher_id, section_id) for section_id in conn.execute(own).scalars()]
    return any(standing.is_staff for standing in load_standings(conn, pairs, at).values())


def may_see_student(conn: Connection, viewer_id: str | None, student_id: str, at: datetime) -> bool:
    """Whether the viewer may see the student's record: the student, a guardian, staff, an admin."""
    viewer = conn.execute(
        select(_PEOPLE.c.role, _PEOPLE.c.is_active).where(_PEOPLE.c.id == viewer_id)
    ).one_or_none()
    if viewer_id is None or viewer is None or not viewer.is_active:
        return False
    return access.may_see_student(
        viewer_id=viewer_id,
        student_id=student_id,
        is_admin=viewer.role == Role.ADMIN,
        is_guardian_of=is_guardian_of(conn, viewer_id, student_id),
        teaches=teaches_student(conn, viewer_id, student_id, at),
    )


def require_admin(conn: Connection, author: Author, now: datetime) -> None:
    """Raise Denied unless the author is an active admin, logged in still, or Muster itself.

    Muster itself is the constant SYSTEM (command line, seed): an Author without a person that
    somebody else made is nobody.
    """
    if author is SYSTEM:
        return
    row = conn.execute(
        select(_PEOPLE.c.role, _PEOPLE.c.is_active).where(_PEOPLE.c.id == author.person_id)
    ).one_or_none()
    standing = Standing(author.person_id, row.is_active, row.role == Role.ADMIN) if row else access.NOBODY
    if not access.may_administer(standing) or not _is_logged_in(conn, author, now):
        raise Denied("Only an admin may do this.")


def _is_logged_in(conn: Connection, author: Author, now: datetime) -> bool:
    if author.login_id is None:
        return True  # made inside the house; every request's author carries its login
    alive = and_(
        _LOGINS.c.id == author.login_id,
        _LOGINS.c.person_id == author.person_id,
        _LOGINS.c.revoked_at.is_(None),
        _LOGINS.c.expires_at > now,
    )
    return conn.execute(select(literal(1)).where(alive)).first() is not None
