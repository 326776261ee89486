"""Sections and who is in them, when: enrolments are half-open intervals and are ended, not deleted.

What an admin may change is checked here, as in people.py. Who was enrolled at an instant stays
answerable for ever, which is what closing a register of last week rests on.
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

from domain import access, events
from domain.access import STAFF_ROLES, Author
from domain.events import Draft
from domain.ids import new_id
from domain.inputs import InvalidInput, clean_interval, clean_text, clean_zone
from domain.lists import PAGE, Page, chunks, matching, paged
from domain.model import Enrolment, EnrolmentRole, Person, Role, School, Section, table
from domain.people import MAY_TEACH, find_person
from domain.standings import load_standing, require_admin, running

_SECTIONS, _ENROLMENTS, _PEOPLE, _SCHOOL = table(Section), table(Enrolment), table(Person), table(School)


@dataclass(frozen=True, slots=True)
class SectionView:
    """A section as it stands."""

    id: str
    source_id: str | None
    code: str
    title: str
    room: str
    zone: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class SectionSummary:
    """A section in a list, with its staff and the number of its students at one instant."""

    section: SectionView
    staff: tuple[tuple[str, str, EnrolmentRole], ...]  # person id, name, role
    student_count: int


@dataclass(frozen=True, slots=True)
class EnrolmentView:
    """One enrolment with the names that are shown beside it."""

    id: str
    source_id: str | None
    section_id: str
    section_code: str
    section_title: str
    person_id: str
    person_name: str
    role: EnrolmentRole
    begins_at: datetime
    ends_at: datetime | None

    def holds(self, at: datetime) -> bool:
        """Whether the person is enrolled at an instant."""
        return self.begins_at <= at and (self.ends_at is None or at < self.ends_at)


class SectionChanges(TypedDict, total=False):
    """What ``update_section`` can change; what is left out stays."""

    code: str
    title: str
    room: str
    zone: str
    source_id: str | None
    is_active: bool


# --- Reading ---

_SECTION_COLUMNS = tuple(_SECTIONS.c[name] for name in SectionView.__dataclass_fields__)
_ENROLMENT = (
    select(
        _ENROLMENTS.c.id,
        _ENROLMENTS.c.source_id,
        _ENROLMENTS.c.section_id,
        _SECTIONS.c.code.label("section_code"),
        _SECTIONS.c.title.label("section_title"),
        _ENROLMENTS.c.person_id,
        _PEOPLE.c.given_name,
        _PEOPLE.c.family_name,
        _ENROLMENTS.c.role,
        _ENROLMENTS.c.begins_at,
        _ENROLMENTS.c.ends_at,
    )
    .join(_SECTIONS, _SECTIONS.c.id == _ENROLMENTS.c.section_id)
    .join(_PEOPLE, _PEOPLE.c.id == _ENROLMENTS.c.person_id)
)
_BY_NAME = (func.lower(_PEOPLE.c.family_name), func.lower(_PEOPLE.c.given_name), _PEOPLE.c.id)


def find_section(conn: Connection, section_id: str) -> SectionView | None:
    """One section by id."""
    return _one(conn, _SECTIONS.c.id == section_id)


def find_section_by_source(conn: Connection, source_id: str) -> SectionView | None:
    """One section by the key of the roster system it came from."""
    return _one(conn, _SECTIONS.c.source_id == source_id)


def sections_of(conn: Connection, person_id: str, at: datetime) -> list[tuple[SectionView, EnrolmentRole]]:
    """The active sections in which a person is enrolled at an instant, and as what, by code."""
    rows = conn.execute(
        select(*_SECTION_COLUMNS, _ENROLMENTS.c.role)
        .join(_ENROLMENTS, _ENROLMENTS.c.section_id == _SECTIONS.c.id)
        .where(_ENROLMENTS.c.person_id == person_id, _SECTIONS.c.is_active, running(at))
        .order_by(_SECTIONS.c.code, _SECTIONS.c.id)
    )
    return [(_section(row), EnrolmentRole(row["role"])) for row in rows.mappings()]


def list_sections(
    conn: Connection,
    author: Author,
    *,
    now: datetime,
    search: str = "",
    is_active: bool | None = True,
    offset: int = 0,
    limit: int = PAGE,
) -> Page[SectionSummary]:
    """Sections by code; each word of ``search`` must occur in code, title or room. Admins only."""
    require_admin(conn, author, now)
    wanted = matching(search, _SECTIONS.c.code, _SECTIONS.c.title, _SECTIONS.c.room)
    if is_active is not None:
        wanted.append(_SECTIONS.c.is_active == is_active)
    total = conn.execute(select(func.count()).select_from(_SECTIONS).where(*wanted)).scalar_one()
    query = select(*_SECTION_COLUMNS).where(*wanted).order_by(func.lower(_SECTIONS.c.code), _SECTIONS.c.id)
    found = [_section(row) for row in conn.execute(paged(query, offset, limit)).mappings()]
    staff, students = _who(conn, [section.id for section in found], now)
    return Page([SectionSummary(s, tuple(staff.get(s.id, ())), students.get(s.id, 0)) for s in found], total)


def enrolments_of(conn: Connection, author: Author, person_id: str, *, now: datetime) -> list[EnrolmentView]:
    """All enrolments of a person, past ones included, the newest first. Admins, and the person."""
    if author.person_id is None or author.person_id != person_id:
        require_admin(conn, author, now)
    newest = (_ENROLMENTS.c.begins_at.desc(), _SECTIONS.c.code, _ENROLMENTS.c.id)
    query = _ENROLMENT.where(_ENROLMENTS.c.person_id == person_id).order_by(*newest)
    return [_enrolment(row) for row in conn.execute(query).mappings()]


def roster_of(
    conn: Connection, author: Author, section_id: str, *, at: datetime, now: datetime
) -> list[EnrolmentView]:
    """Who is enrolled in a section at an instant, staff included, by name. Admins, and its staff of now."""
    own = author.person_id and access.may_see_meeting(load_standing(conn, author.person_id, section_id, now))
    if not own:
        require_admin(conn, author, now)
    query = _ENROLMENT.where(_ENROLMENTS.c.section_id == section_id, running(at)).order_by(*_BY_NAME)
    return [_enrolment(row) for row in conn.execute(query).mappings()]


def _who(
    conn: Connection, section_ids: list[str], at: datetime
) -> tuple[dict[str, list[tuple[str, str, EnrolmentRole]]], dict[str, int]]:
    staff: dict[str, list[tuple[str, str, EnrolmentRole]]] = {}
    students: dict[str, int] = {}
    for ids in chunks(section_ids):
        here = and_(_ENROLMENTS.c.section_id.in_(ids), running(at))
        teachers = _ENROLMENT.where(here, _ENROLMENTS.c.role.in_(STAFF_ROLES)).order_by(*_BY_NAME)
        for view in map(_enrolment, conn.execute(teachers).mappings()):
            staff.setdefault(view.section_id, []).append((view.person_id, view.person_name, view.role))
        counts = (
            select(_ENROLMENTS.c.section_id, func.count(_ENROLMENTS.c.person_id.distinct()))
            .where(here, _ENROLMENTS.c.role == EnrolmentRole.STUDENT)
            .group_by(_ENROLMENTS.c.section_id)
        )
        for section_id, count in conn.execute(counts):
            students[section_id] = count
    return staff, students


def _one(conn: Connection, wanted: ColumnElement[bool]) -> SectionView | None:
    row = conn.execute(select(*_SECTION_COLUMNS).where(wanted)).mappings().one_or_none()
    return None if row is None else _section(row)


def _section(row: RowMapping) -> SectionView:
    return SectionView(**{name: row[name] for name in SectionView.__dataclass_fields__})


def _enrolment(row: RowMapping) -> EnrolmentView:
    values = dict(row)
    name = f"{values.pop('given_name')} {values.pop('family_name')}".strip()
    return EnrolmentView(**{**values, "person_name": name, "role": EnrolmentRole(row["role"])})


# --- Changing ---


def create_section(
    conn: Connection,
    author: Author,
    *,
    now: datetime,
    code: str,
    title: str,
    room: str = "",
    zone: str | None = None,
    source_id: str | None = None,
) -> SectionView:
    """Add a section; without a zone it lives in the school's. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    section_id = new_id(now)
    zone = zone or conn.execute(select(_SCHOOL.c.zone)).scalar_one()
    changes = SectionChanges(
        code=code, title=title, room=room, zone=zone, source_id=source_id, is_active=True
    )
    conn.execute(insert(_SECTIONS).values(id=section_id, **_cleaned(conn, section_id, changes)))
    return _existing(conn, section_id)


def update_section(
    conn: Connection, author: Author, section_id: str, *, now: datetime, **changes: Unpack[SectionChanges]
) -> SectionView:
    """Change a section, or take it out of use with ``is_active=False``. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    _existing(conn, section_id)
    values = _cleaned(conn, section_id, changes)
    if values:
        conn.execute(update(_SECTIONS).where(_SECTIONS.c.id == section_id).values(**values))
    return _existing(conn, section_id)


def enrol(
    conn: Connection,
    author: Author,
    *,
    now: datetime,
    section_id: str,
    person_id: str,
    role: EnrolmentRole,
    begins_at: datetime,
    ends_at: datetime | None = None,
    source_id: str | None = None,
) -> EnrolmentView:
    """Enrol somebody from ``begins_at`` up to, not including, ``ends_at``. A substitute needs an end.

    Raises Denied; InvalidInput also when the person is in the section already for part of that time.
    """
    require_admin(conn, author, now)
    role = _role(role)
    section, person = _existing(conn, section_id), find_person(conn, person_id)
    if person is None or not person.is_active:
        raise InvalidInput("person_id", "There is no such active person.")
    if not section.is_active:
        raise InvalidInput("section_id", f"{section.code} is no longer in use.")
    if role in STAFF_ROLES and person.role not in MAY_TEACH:
        raise InvalidInput("role", f"{person.name} is not a teacher of the school.")
    if role is EnrolmentRole.STUDENT and person.role is not Role.STUDENT:
        raise InvalidInput("role", f"{person.name} is not a student of the school.")
    if role is EnrolmentRole.SUBSTITUTE and ends_at is None:
        raise InvalidInput("ends_at", "A substitute needs an end: until when may they run this class?")
    begins_at, ends_at = clean_interval(begins_at, ends_at)
    _keep_apart(conn, section_id, person_id, begins_at, ends_at)
    enrolment_id = new_id(now)
    conn.execute(
        insert(_ENROLMENTS).values(
            id=enrolment_id,
            source_id=_source(source_id),
            section_id=section_id,
            person_id=person_id,
            role=role.value,
            begins_at=begins_at,
            ends_at=ends_at,
        )
    )
    _tell(conn, section_id, now)
    return _existing_enrolment(conn, enrolment_id)


def change_enrolment(
    conn: Connection,
    author: Author,
    enrolment_id: str,
    *,
    now: datetime,
    begins_at: datetime,
    ends_at: datetime | None,
) -> EnrolmentView:
    """Give an enrolment another interval: correct it, prolong it, end it. Raises Denied, InvalidInput."""
    require_admin(conn, author, now)
    enrolment = _existing_enrolment(conn, enrolment_id)
    if enrolment.role is EnrolmentRole.SUBSTITUTE and ends_at is None:
        raise InvalidInput("ends_at", "A substitute needs an end: until when may they run this class?")
    begins_at, ends_at = clean_interval(begins_at, ends_at)
    _keep_apart(conn, enrolment.section_id, enrolment.person_id, begins_at, ends_at, but=enrolment_id)
    conn.execute(
        update(_ENROLMENTS)
        .where(_ENROLMENTS.c.id == enrolment_id)
        .values(begins_at=begins_at, ends_at=ends_at)
    )
    _tell(conn, enrolment.section_id, now)
    return _existing_enrolment(conn, enrolment_id)


def end_enrolment(
    conn: Connection, author: Author, enrolment_id: str, *, now: datetime, ends_at: datetime | None = None
) -> EnrolmentView | None:
    """End an enrolment, now unless said otherwise. One that would end before it began is taken out: None.

    Only one that has not begun yet can be taken out. Raises Denied, InvalidInput.
    """
    require_admin(conn, author, now)
    enrolment = _existing_enrolment(conn, enrolment_id)
    ends_at = ends_at or now
    if enrolment.begins_at >= now and ends_at <= enrolment.begins_at:
        conn.execute(delete(_ENROLMENTS).where(_ENROLMENTS.c.id == enrolment_id))
        _tell(conn, enrolment.section_id, now)
        return None
    return change_enrolment(
        conn, author, enrolment_id, now=now, begins_at=enrolment.begins_at, ends_at=ends_at
    )


def _tell(conn: Connection, section_id: str, now: datetime) -> None:
    """Open registers of the section show the change without a reload."""
    events.append(conn, [Draft(events.WALL, events.ROSTER_CHANGED, now, {"section_id": section_id})])


def _existing(conn: Connection, section_id: str) -> SectionView:
    section = find_section(conn, section_id)
    if section is None:
        raise InvalidInput("section_id", "There is no such class.")
    return section


def _existing_enrolment(conn: Connection, enrolment_id: str) -> EnrolmentView:
    row = conn.execute(_ENROLMENT.where(_ENROLMENTS.c.id == enrolment_id)).mappings().one_or_none()
    if row is None:
        raise InvalidInput("enrolment_id", "There is no such enrolment.")
    return _enrolment(row)


def _keep_apart(
    conn: Connection,
    section_id: str,
    person_id: str,
    begins_at: datetime,
    ends_at: datetime | None,
    *,
    but: str = "",
) -> None:
    """One person has one place in a section at a time."""
    overlapping = and_(
        _ENROLMENTS.c.section_id == section_id,
        _ENROLMENTS.c.person_id == person_id,
        _ENROLMENTS.c.id != but,
        or_(_ENROLMENTS.c.ends_at.is_(None), _ENROLMENTS.c.ends_at > begins_at),
        literal(True) if ends_at is None else _ENROLMENTS.c.begins_at < ends_at,
    )
    row = conn.execute(_ENROLMENT.where(overlapping).limit(1)).mappings().one_or_none()
    if row is not None:
        other = _enrolment(row)
        raise InvalidInput(
            "begins_at",
            f"{other.person_name} is in {other.section_code} for part of that time already, as {other.role}.",
        )


def _role(role: EnrolmentRole) -> EnrolmentRole:
    try:
        return EnrolmentRole(role)
    except ValueError:
        raise InvalidInput("role", f"Role must be one of {', '.join(EnrolmentRole)}.") from None


def _source(source_id: str | None) -> str | None:
    return clean_text("source_id", source_id or "", longest=120, is_required=False) or None


def _cleaned(conn: Connection, section_id: str, changes: SectionChanges) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "code" in changes:
        values["code"] = clean_text("code", changes["code"], longest=40)
    if "title" in changes:
        values["title"] = clean_text("title", changes["title"], longest=200)
    if "room" in changes:
        values["room"] = clean_text("room", changes["room"], longest=80, is_required=False)
    if "zone" in changes:
        values["zone"] = clean_zone(changes["zone"])
    if "is_active" in changes:
        values["is_active"] = changes["is_active"]
    if "source_id" in changes:
        values["source_id"] = _source(changes["source_id"])
        taken = find_section_by_source(conn, values["source_id"]) if values["source_id"] else None
        if taken is not None and taken.id != section_id:
            raise InvalidInput("source_id", f"{taken.code} has this key already.")
    return values
