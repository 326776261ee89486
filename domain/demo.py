"""The demo school: made on the first start of a demo, never outside of it.

Deterministic: the same seed and the same moment give the same people, classes and attendance. Only
what must be unguessable in every database differs: the epoch, the hash's salt, the keys of meetings
that are still ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from random import Random
from typing import Any

from sqlalchemy import Connection, insert

from domain import demo_model, demo_school, demo_term, school
from domain.clock import Clock, local_date, local_instant
from domain.demo_model import Figures
from domain.demo_now import RunningClass, ensure_today
from domain.demo_school import ZONE, DemoSchool, DemoSection
from domain.ids import derived_id
from domain.inputs import InvalidInput
from domain.model import Enrolment, Guardianship, Person, Role, Section, Series, table
from domain.passwords import hash_password
from domain.store import Store

__all__ = ["DEMO_PASSWORD", "RunningClass", "SeedReport", "ensure_today", "seed"]

DEMO_PASSWORD = "muster-demo"  # noqa: S105  # shown on the log-in page of every demo


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What was made."""

    students: int
    teachers: int
    guardians: int
    sections: int
    meetings: int
    operations: int
    figures: Figures

    def __str__(self) -> str:
        return (
            f"The demo school has {self.students} students, {self.teachers} teachers, {self.guardians} guardians "
            f"and {self.sections} classes; {self.meetings:,} meetings were held, {self.operations:,} operations recorded "
            f"(absence {self.figures.absence:.1%}, persistent absence {self.figures.persistent:.1%}, "
            f"late {self.figures.late:.1%}).\n"
            f"Log in as admin@demo.school, teacher1@demo.school or student1@demo.school: {DEMO_PASSWORD}"
        )


def seed(
    store: Store, clock: Clock, *, students: int, weeks: int, seed: int, progress: Callable[[str], None]
) -> SeedReport:
    """Make the demo school in an empty database, with a term of history up to now.

    Raises InvalidInput when there is a school already or a size cannot be had. Blocks for seconds to
    minutes; ``progress`` is told what is being done.
    """
    for name, value, least, most in (
        ("students", students, demo_school.LEAST_STUDENTS, demo_school.MOST_STUDENTS),
        ("weeks", weeks, 0, demo_school.MOST_WEEKS),
    ):
        if not least <= value <= most:
            raise InvalidInput(name, f"{name} must be {least}-{most}, got {value}")
    now = clock.now()
    random = Random(seed)  # noqa: S311  # a made-up school, not a secret
    plan = demo_school.lay_out(random, students=students, weeks=weeks, today=local_date(now, ZONE))
    progress(f"{students} students in {len(plan.sections)} classes")
    store.write_now(lambda conn: _write_school(conn, plan, now))
    term = demo_model.play(Random(f"{seed} term"), plan)  # noqa: S311  # as above
    written = demo_term.write_term(
        store,
        Random(f"{seed} operations"),  # noqa: S311  # as above
        term,
        now=now,
        progress=progress,
    )
    store.write_now(lambda conn: ensure_today(conn, now))
    return SeedReport(
        students=students,
        teachers=sum(1 for person in plan.people if person.role is Role.TEACHER),
        guardians=sum(1 for person in plan.people if person.role is Role.GUARDIAN),
        sections=len(plan.sections),
        meetings=written.meetings,
        operations=written.operations,
        figures=written.figures,
    )


def _write_school(conn: Connection, plan: DemoSchool, now: datetime) -> None:
    if school.read_school(conn) is not None:
        raise InvalidInput(
            "database",
            "this database has its school already; the demo school is made in an empty one. "
            "Choose another folder with MUSTER_DATA",
        )
    school.make_school(conn, name=demo_school.SCHOOL_NAME, zone=ZONE, now=now, is_demo=True)
    since = local_instant(plan.starts_on, time(0), ZONE) - timedelta(days=7)
    # One hash for everybody: the password is known to all, and a thousand Argon2 hashes take half a minute.
    password_hash = hash_password(DEMO_PASSWORD)
    conn.execute(
        insert(table(Person)),
        [
            {
                "id": person.id,
                "role": person.role.value,
                "given_name": person.name.given,
                "family_name": person.name.family,
                "email": person.email,
                "password_hash": password_hash,
                "language": "en",
                "is_active": True,
                "created_at": since,
            }
            for person in plan.people
        ],
    )
    conn.execute(
        insert(table(Guardianship)), [{"guardian_id": g, "student_id": s} for g, s in plan.guardianships]
    )
    conn.execute(insert(table(Section)), [_section_row(section) for section in plan.sections])
    conn.execute(
        insert(table(Enrolment)), [row for section in plan.sections for row in _enrolment_rows(section)]
    )
    conn.execute(insert(table(Series)), [_series_row(plan, section) for section in plan.sections])


def _section_row(section: DemoSection) -> dict[str, Any]:
    return {
        "id": section.id,
        "code": section.code,
        "title": section.title,
        "room": section.room,
        "zone": ZONE,
        "is_active": True,
    }


def _enrolment_rows(section: DemoSection) -> list[dict[str, Any]]:
    return [
        {
            "id": derived_id("demo", "enrolment", section.id, stay.person_id, stay.role.value),
            "section_id": section.id,
            "person_id": stay.person_id,
            "role": stay.role.value,
            "begins_at": local_instant(stay.begins_on, time(0), ZONE),
            "ends_at": None if stay.ends_on is None else local_instant(stay.ends_on, time(0), ZONE),
        }
        for stay in section.stays
    ]


def _series_row(plan: DemoSchool, section: DemoSection) -> dict[str, Any]:
    is_closed_day = plan.closed_on is not None and plan.closed_on.weekday() in section.days
    return {
        "id": section.series_id,
        "section_id": section.id,
        "starts_on": plan.starts_on,
        "local_time": f"{demo_school.PERIODS[section.period]:%H:%M}",
        "duration_min": demo_school.PERIOD_MIN,
        "zone": ZONE,
        "rrule": section.rrule,
        "except_on": plan.closed_on.isoformat() if is_closed_day and plan.closed_on is not None else "",
        "extra_on": "",
        "room": section.room,
        "is_active": True,
    }
