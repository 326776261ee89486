"""Who may watch which topic, and until when: asked for many at once, decided by access.py, deny by default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from domain import access, events
from domain.ids import parse_id
from domain.lists import chunks
from domain.model import Enrolment, Meeting, Person, Role, table
from domain.standings import load_standings, may_see_student, running

_PEOPLE, _MEETINGS, _ENROLMENTS = table(Person), table(Meeting), table(Enrolment)
MEETING, STUDENT, INBOX = "meeting:", "student:", "inbox:"
#: A right that hangs on somebody else's timetable is looked at again after this long.
_LOOK_AGAIN = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to watch a topic. ``role``: as what; ``until``: when it ends, or has to be looked at again."""

    role: str
    section_id: str | None = None
    until: datetime | None = None


def inbox_topic(person_id: str) -> str:
    """What one person is to be told."""
    return f"{INBOX}{person_id}"


def grants(
    conn: Connection, pairs: Iterable[tuple[str, str]], now: datetime
) -> dict[tuple[str, str], Grant | None]:
    """For each (person, topic) the right to watch it; None when there is none, or no such topic."""
    wanted = list(dict.fromkeys(pairs))
    roles = _roles(conn, {person_id for person_id, _ in wanted})
    found: dict[tuple[str, str], Grant | None] = dict.fromkeys(wanted)
    of_meetings: list[tuple[str, str]] = []
    for person_id, topic in wanted:
        role = roles.get(person_id)
        if role is None:
            continue
        if topic.startswith(MEETING):
            of_meetings.append((person_id, topic))
        elif topic.startswith(STUDENT):
            found[person_id, topic] = _of_student(conn, person_id, role, topic.removeprefix(STUDENT), now)
        elif (topic == events.WALL and role is Role.ADMIN) or topic == inbox_topic(person_id):
            found[person_id, topic] = Grant(role.value)
    return found | _of_meetings(conn, of_meetings, now)


def _roles(conn: Connection, person_ids: set[str]) -> dict[str, Role]:
    return {
        row.id: Role(row.role)
        for ids in chunks(sorted(person_ids))
        for row in conn.execute(
            select(_PEOPLE.c.id, _PEOPLE.c.role).where(_PEOPLE.c.id.in_(ids), _PEOPLE.c.is_active)
        )
    }


def _of_student(conn: Connection, person_id: str, role: Role, student_id: str, now: datetime) -> Grant | None:
    if person_id == student_id:
        return Grant(role.value) if role is Role.STUDENT else None
    if parse_id(student_id) is None or not may_see_student(conn, person_id, student_id, now):
        return None
    return Grant(role.value, until=now + _LOOK_AGAIN)


def _of_meetings(
    conn: Connection, pairs: list[tuple[str, str]], now: datetime
) -> dict[tuple[str, str], Grant | None]:
    sections = {
        row.id: row.section_id
        for ids in chunks(sorted({topic.removeprefix(MEETING) for _, topic in pairs}))
        for row in conn.execute(select(_MEETINGS.c.id, _MEETINGS.c.section_id).where(_MEETINGS.c.id.in_(ids)))
    }
    in_sections = {
        pair: (pair[0], section_id)
        for pair in pairs
        if (section_id := sections.get(pair[1].removeprefix(MEETING))) is not None
    }
    standings = load_standings(conn, in_sections.values(), now)
    allowed = {pair: key for pair, key in in_sections.items() if access.may_see_meeting(standings[key])}
    ends = _ends(conn, {key for key in allowed.values() if not standings[key].is_admin}, now)
    return {
        pair: Grant(
            "admin" if standings[key].is_admin else str(standings[key].staff_role), key[1], ends.get(key)
        )
        for pair, key in allowed.items()
    }


def _ends(conn: Connection, keys: set[tuple[str, str]], now: datetime) -> dict[tuple[str, str], datetime]:
    """When the enrolment of a (person, section) as staff ends; those without an end are left out."""
    latest: dict[tuple[str, str], datetime | None] = {}
    for ids in chunks(sorted({person_id for person_id, _ in keys})):
        rows = conn.execute(
            select(_ENROLMENTS.c.person_id, _ENROLMENTS.c.section_id, _ENROLMENTS.c.ends_at).where(
                _ENROLMENTS.c.person_id.in_(ids),
                _ENROLMENTS.c.role.in_(access.STAFF_ROLES),
                running(now),
            )
        )
        for row in rows:
            key = (row.person_id, row.section_id)
            if key in keys:
                known = latest.get(key, row.ends_at)
                latest[key] = None if known is None or row.ends_at is None else max(known, row.ends_at)
    return {key: ends_at for key, ends_at in latest.items() if ends_at is not None}
