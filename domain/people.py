"""Persons: who somebody is in the school and towards a section, and how admins keep that list.

Whoever changes people acts as an ``Author``, and only an admin may: it is checked here, in the same
transaction, and not in a page. Sections and enrolments follow the same rule in sections.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from domain import events
from domain.access import STAFF_ROLES, SYSTEM, Author
from domain.events import Draft
from domain.ids import new_id
from domain.inputs import InvalidInput as InvalidInput
from domain.inputs import clean_email, clean_language, clean_name, clean_text, fold_email
from domain.lists import PAGE, Page, matching, paged
from domain.model import Enrolment, EnrolmentRole, Guardianship, Login, Person, Role, table
from domain.passwords import clean_password, hash_password
from domain.standings import is_guardian_of as is_guardian_of
from domain.standings import load_standing as load_standing
from domain.standings import load_standings as load_standings
from domain.standings import may_see_student as may_see_student
from domain.standings import require_admin as require_admin
from domain.standings import running as running
from domain.standings import teaches_student as teaches_student

_PEOPLE, _LOGINS, _ENROLMENTS, _GUARDIANSHIPS = (
    table(Person),
    table(Login),
    table(Enrolment),
    table(Guardianship),
)
MAY_TEACH = frozenset({Role.TEACHER, Role.ADMIN})


@dataclass(frozen=True, slots=True)
class PersonView:
    """A person as others may read them. Never holds the password's hash."""

    id: str
    role: Role
    given_name: str
    family_name: str
    email: str | None
    language: str
    is_active: bool
    source_id: str | None
    has_password: bool
    created_at: datetime

    @property
    def name(self) -> str:
        """Given and family name; people with a single name have no family name."""
        return f"{self.given_name} {self.family_name}".strip()


@dataclass(frozen=True, slots=True)
class Change:
    """A changed person, and the log-ins that the change ended (Logins tells those who watch them)."""

    person: PersonView
    ended_logins: tuple[str, ...] = ()


class PersonChanges(TypedDict, total=False):
    """What ``update_person`` can change; what is left out stays."""

    role: Role
    given_name: str
    family_name: str
    email: str | None
    language: str
    source_id: str | None


# --- Reading ---

_VIEW = select(
    _PEOPLE.c.id,
    _PEOPLE.c.role,
    _PEOPLE.c.given_name,
    _PEOPLE.c.family_name,
    _PEOPLE.c.email,
    _PEOPLE.c.language,
    _PEOPLE.c.is_active,
    _PEOPLE.c.source_id,
    _PEOPLE.c.password_hash.is_not(None).label("has_password"),
    _PEOPLE.c.created_at,
)
_BY_NAME = (func.lower(_PEOPLE.c.family_name), func.lower(_PEOPLE.c.given_name), _PEOPLE.c.id)


def find_person(conn: Connection, person_id: str) -> PersonView | None:
    """One person by id."""
    return _one(conn, _PEOPLE.c.id == person_id)


def find_by_email(conn: Connection, email: str) -> PersonView | None:
    """One person by e-mail, whatever its case."""
    return _one(conn, _PEOPLE.c.email == fold_email(email))


def find_by_source(conn: Connection, source_id: str) -> PersonView | None:
    """One person by the key of the roster system they came from."""
    return _one(conn, _PEOPLE.c.source_id == source_id)


def list_people(
    conn: Connection,
    author: Author,
    *,
    now: datetime,
    search: str = "",
    role: Role | None = None,
    is_active: bool | None = None,
    offset: int = 0,
    limit: int = PAGE,
) -> Page[PersonView]:
    """People by family name; each word of ``search`` must occur in the name or e-mail. Admins only."""
    require_admin(conn, author, now)
    wanted = matching(
        search, _PEOPLE.c.given_name + " " + _PEOPLE.c.family_name, func.coalesce(_PEOPLE.c.email, "")
    )
    if role is not None:
        wanted.append(_PEOPLE.c.role == role)
    if is_active is not None:
        wanted.append(_PEOPLE.c.is_active == is_active)
    total = conn.execute(select(func.count()).select_from(_PEOPLE).where(*wanted)).scalar_one()
    rows = conn.execute(paged(_VIEW.where(*wanted).order_by(*_BY_NAME), offset, limit)).mappings()
    return Page([_view(row) for row in rows], total)


def students_of(conn: Connection, guardian_id: str) -> list[PersonView]:
    """The students whose guardian this person is, by name."""
    of = select(_GUARDIANSHIPS.c.student_id).where(_GUARDIANSHIPS.c.guardian_id == guardian_id)
    return [
        _view(row) for row in conn.execute(_VIEW.where(_PEOPLE.c.id.in_(of)).order_by(*_BY_NAME)).mappings()
    ]


def guardians_of(conn: Connection, student_id: str) -> list[PersonView]:
    """The guardians of a student, by name."""
    of = select(_GUARDIANSHIPS.c.guardian_id).where(_GUARDIANSHIPS.c.student_id == student_id)
    return [
        _view(row) for row in conn.execute(_VIEW.where(_PEOPLE.c.id.in_(of)).order_by(*_BY_NAME)).mappings()
    ]


def _one(conn: Connection, wanted: ColumnElement[bool]) -> PersonView | None:
    row = conn.execute(_VIEW.where(wanted)).mappings().one_or_none()
    return None if row is None else _view(row)


def _view(row: RowMapping) -> PersonView:
    return PersonView(**{**row, "role": Role(row["role"])})


# --- Changing ---


def create_person(
    conn: Connection,
    author: Author,
    *,
    now: datetime,
    role: Role,
    given_name: str,
    family_name: str = "",
    email: str | None = None,
    password_hash: str | None = None,
    language: str = "en",
    source_id: str | None = None,
) -> PersonView:
    """Add a person. The password comes hashed (passwords.py), since hashing must not hold up the writer.

    Raises Denied, InvalidInput.
    """
    require_admin(conn, author, now)
    person_id = new_id(now)
    changes = PersonChanges(
        role=role,
        given_name=given_name,
        family_name=family_name,
        email=email,
        language=language,
        source_id=source_id,
    )
    values = {"id": person_id, "is_active": True, "created_at": now, "password_hash": password_hash}
    conn.execute(insert(_PEOPLE).values(**values, **_cleaned(conn, person_id, changes)))
    return _existing(conn, person_id)


def make_admin(conn: Connection, *, email: str, name: str, password: str, now: datetime) -> PersonView:
    """An admin who can log in, from the command line: it hashes here, which takes a moment. Raises InvalidInput."""
    if not fold_email(email):
        raise InvalidInput("email", "E-mail is required.")
    return create_person(
        conn,
        SYSTEM,
        now=now,
        role=Role.ADMIN,
        given_name=name,
        email=email,
        password_hash=hash_password(clean_password(password, about=(email, name))),
    )


def update_person(
    conn: Connection, author: Author, person_id: str, *, now: datetime, **changes: Unpack[PersonChanges]
) -> Change:
    """Change a person. A new role ends the person's log-ins. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    before = _existing(conn, person_id)
    values = _cleaned(conn, person_id, changes)
    if before.role is Role.ADMIN and before.is_active and values.get("role", Role.ADMIN) != Role.ADMIN:
        _keep_an_admin(conn, person_id, "role")
    if values.get("role", before.role) != before.role:
        _keep_role_of_enrolments(conn, before, Role(values["role"]), now)
    if values:
        conn.execute(update(_PEOPLE).where(_PEOPLE.c.id == person_id).values(**values))
    after = _existing(conn, person_id)
    is_other_role = after.role is not before.role
    return Change(after, end_logins(conn, person_id, now=now, why="role") if is_other_role else ())


def deactivate_person(conn: Connection, author: Author, person_id: str, *, now: datetime) -> Change:
    """Take away all access and end the log-ins; what the person did stays. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    before = _existing(conn, person_id)
    if before.role is Role.ADMIN and before.is_active:
        _keep_an_admin(conn, person_id, "is_active")
    conn.execute(update(_PEOPLE).where(_PEOPLE.c.id == person_id).values(is_active=False))
    return Change(_existing(conn, person_id), end_logins(conn, person_id, now=now))


def reactivate_person(conn: Connection, author: Author, person_id: str, *, now: datetime) -> PersonView:
    """Give access back. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    _existing(conn, person_id)
    conn.execute(update(_PEOPLE).where(_PEOPLE.c.id == person_id).values(is_active=True))
    return _existing(conn, person_id)


def set_password_hash(
    conn: Connection, author: Author, person_id: str, password_hash: str | None, *, now: datetime
) -> Change:
    """Give somebody another password, or none, and end their log-ins. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    _existing(conn, person_id)
    conn.execute(update(_PEOPLE).where(_PEOPLE.c.id == person_id).values(password_hash=password_hash))
    return Change(_existing(conn, person_id), end_logins(conn, person_id, now=now))


def choose_language(conn: Connection, author: Author, language: str) -> None:
    """Set one's own language: the one thing people change about themselves. Raises InvalidInput."""
    language = clean_language(language)
    conn.execute(update(_PEOPLE).where(_PEOPLE.c.id == author.person_id).values(language=language))


def add_guardian(
    conn: Connection, author: Author, *, guardian_id: str, student_id: str, now: datetime
) -> None:
    """Let a guardian see a student's record. Doing it twice changes nothing. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    guardian, student = find_person(conn, guardian_id), find_person(conn, student_id)
    if guardian is None or guardian.role is Role.STUDENT:
        raise InvalidInput("guardian_id", "The guardian must be a person of the school who is not a student.")
    if student is None or student.role is not Role.STUDENT:
        raise InvalidInput("student_id", "Guardians are given to students only.")
    if not is_guardian_of(conn, guardian_id, student_id):
        conn.execute(insert(_GUARDIANSHIPS).values(guardian_id=guardian_id, student_id=student_id))


def remove_guardian(
    conn: Connection, author: Author, *, guardian_id: str, student_id: str, now: datetime
) -> None:
    """Take that away again. Raises Denied."""
    require_admin(conn, author, now)
    pair = and_(_GUARDIANSHIPS.c.guardian_id == guardian_id, _GUARDIANSHIPS.c.student_id == student_id)
    if conn.execute(delete(_GUARDIANSHIPS).where(pair)).rowcount:
        draft = Draft(events.RIGHTS, events.GUARDIANS_CHANGED, now, {"student_id": student_id})
        events.append(conn, [draft])


def end_logins(
    conn: Connection, person_id: str, *, now: datetime, except_login_id: str | None = None, why: str = "ended"
) -> tuple[str, ...]:
    """Revoke a person's log-ins and return their ids. Logins says it to those who watch, after the commit.

    ``why`` is told to every process: "ended", or "role" when the person is something else now."""
    open_ones = and_(
        _LOGINS.c.person_id == person_id,
        _LOGINS.c.revoked_at.is_(None),
        _LOGINS.c.id != (except_login_id or ""),
    )
    ended = tuple(conn.execute(select(_LOGINS.c.id).where(open_ones)).scalars())
    conn.execute(update(_LOGINS).where(open_ones).values(revoked_at=now))
    events.tell_logins_ended(conn, ended, now, why=why)
    return ended


def _existing(conn: Connection, person_id: str) -> PersonView:
    person = find_person(conn, person_id)
    if person is None:
        raise InvalidInput("person_id", "There is no such person.")
    return person


def _keep_an_admin(conn: Connection, person_id: str, field: str) -> None:
    others = and_(_PEOPLE.c.role == Role.ADMIN, _PEOPLE.c.is_active, _PEOPLE.c.id != person_id)
    if conn.execute(select(literal(1)).where(others)).first() is None:
        raise InvalidInput(field, "This is the last admin. Make somebody else an admin first.")


def _keep_role_of_enrolments(conn: Connection, person: PersonView, role: Role, now: datetime) -> None:
    """Somebody who teaches, or is taught, is a teacher, or a student, of the school."""
    not_over = or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > now)
    query = select(_ENROLMENTS.c.role).where(_ENROLMENTS.c.person_id == person.id, not_over)
    held = set(conn.execute(query).scalars())
    may_teach, may_learn = role in MAY_TEACH, role is Role.STUDENT
    if (held & STAFF_ROLES and not may_teach) or (EnrolmentRole.STUDENT in held and not may_learn):
        what = f"{person.name} is enrolled in classes as {person.role}."
        raise InvalidInput("role", f"{what} End these enrolments first.")


def _cleaned(conn: Connection, person_id: str, changes: PersonChanges) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "role" in changes:
        try:
            values["role"] = Role(changes["role"])
        except ValueError:
            raise InvalidInput("role", f"Role must be one of {', '.join(Role)}.") from None
    if "given_name" in changes:
        values["given_name"] = clean_name("given_name", changes["given_name"])
    if "family_name" in changes:
        values["family_name"] = clean_name("family_name", changes["family_name"], is_required=False)
    if "language" in changes:
        values["language"] = clean_language(changes["language"])
    if "email" in changes:
        values["email"] = clean_email(changes["email"])
        taken = find_by_email(conn, values["email"]) if values["email"] else None
        if taken is not None and taken.id != person_id:
            raise InvalidInput("email", f"{taken.name} has this e-mail already.")
    if "source_id" in changes:
        source = clean_text("source_id", changes["source_id"] or "", longest=120, is_required=False) or None
        values["source_id"] = source
        taken = find_by_source(conn, source) if source else None
        if taken is not None and taken.id != person_id:
            raise InvalidInput("source_id", f"{taken.name} has this key already.")
    return values
