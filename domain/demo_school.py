"""The demo school as values: who is there, what is taught when, and who attends what. Pure.

Everything follows from the random numbers passed in; ids follow from what a thing is ("student 1"), so
that they are the same in every demo school.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from random import Random

from domain import demo_people
from domain.demo_people import Name
from domain.ids import derived_id
from domain.model import EnrolmentRole, Role

ZONE = "Europe/Berlin"
SCHOOL_NAME = "Northgate School (demo)"
EMAIL_DOMAIN = "demo.school"
FORM_SIZE = 30
LEAST_STUDENTS = 36
MOST_STUDENTS = 20_000
MOST_WEEKS = 40

#: The bells of the day, and the weekdays (0 is Monday) on which a section meets.
PERIODS = (time(8, 0), time(8, 50), time(9, 55), time(10, 45), time(11, 50), time(12, 40))
PERIOD_MIN = 45
_DAYS = ((0, 2, 4), (1, 3, 4), (0, 1, 3), (0, 3), (1, 4), (0, 2, 3), (1, 2, 4), (2, 4))
_BYDAY = ("MO", "TU", "WE", "TH", "FR")
_SUBJECTS = (
    ("MA", "Mathematics"),
    ("PH", "Physics"),
    ("EN", "English"),
    ("HI", "History"),
    ("DE", "German"),
    ("BI", "Biology"),
    ("AR", "Art"),
    ("CS", "Computer science"),
)
_SECTIONS_PER_FORM = 4
_SECTIONS_PER_TEACHER = 5

#: The sections that the demo is about: teacher1 and teacher2's, and the one that is always running.
FIRST_SECTION = derived_id("demo", "section", "1")
RUNNING_SECTION = derived_id("demo", "section", str(_SECTIONS_PER_FORM + 1))


def person_id(role: Role, number: int = 1) -> str:
    """The id of the demo school's person with this role and number."""
    return derived_id("demo", role.value, str(number))


@dataclass(frozen=True, slots=True)
class DemoPerson:
    """Somebody of the demo school."""

    id: str
    role: Role
    name: Name
    email: str


@dataclass(frozen=True, slots=True)
class Stay:
    """A person in a section, from a day up to but not including another (None: to the end)."""

    person_id: str
    role: EnrolmentRole
    begins_on: date
    ends_on: date | None = None

    def covers(self, on: date) -> bool:
        """Whether the person belongs to the section on that day."""
        return self.begins_on <= on and (self.ends_on is None or on < self.ends_on)


@dataclass(slots=True)
class DemoSection:
    """A section with its place in the week."""

    id: str
    number: int
    code: str
    title: str
    room: str
    teacher_id: str
    period: int  # index into PERIODS
    days: tuple[int, ...]
    stays: list[Stay] = field(default_factory=list)

    @property
    def series_id(self) -> str:
        return derived_id("demo", "series", str(self.number))

    @property
    def rrule(self) -> str:
        return f"FREQ=WEEKLY;BYDAY={','.join(_BYDAY[day] for day in self.days)}"

    def students_on(self, on: date) -> list[str]:
        """Who is on the roster that day."""
        return [
            stay.person_id for stay in self.stays if stay.role is EnrolmentRole.STUDENT and stay.covers(on)
        ]

    def teacher_on(self, on: date) -> str:
        """Who takes the register that day: the substitute, if one is there."""
        for stay in self.stays:
            if stay.role is EnrolmentRole.SUBSTITUTE and stay.covers(on):
                return stay.person_id
        return self.teacher_id


@dataclass(slots=True)
class DemoSchool:
    """Everybody and everything, before anybody came or stayed away."""

    starts_on: date  # a Monday
    ends_on: date  # the first day after today
    people: list[DemoPerson]
    guardianships: list[tuple[str, str]]  # guardian, student
    sections: list[DemoSection]
    closed_on: date | None
    forgetful_teacher: str

    def dates_of(self, section: DemoSection) -> Iterable[date]:
        """The days on which a section would meet, the closed one included."""
        on = self.starts_on
        while on < self.ends_on:
            if on.weekday() in section.days:
                yield on
            on += timedelta(days=1)


def lay_out(random: Random, *, students: int, weeks: int, today: date) -> DemoSchool:
    """A school of so many students whose term began so many weeks ago, on a Monday."""
    starts_on = today - timedelta(days=today.weekday(), weeks=weeks)
    pupils = [_person(Role.STUDENT, n, demo_people.student_name(random, n)) for n in range(1, students + 1)]
    guardians, guardianships = _families(random, pupils)
    forms = _forms(pupils)
    sections, teacher_count = _sections(random, forms, starts_on, weeks)
    teachers = [
        _person(Role.TEACHER, n, demo_people.teacher_name(random, n)) for n in range(1, teacher_count + 1)
    ]
    admin = DemoPerson(person_id(Role.ADMIN), Role.ADMIN, Name("Ines", "Albrecht"), f"admin@{EMAIL_DOMAIN}")
    _add_substitute(sections, teachers, starts_on, weeks)
    return DemoSchool(
        starts_on=starts_on,
        ends_on=today + timedelta(days=1),
        people=[admin, *teachers, *pupils, *guardians],
        guardianships=guardianships,
        sections=sections,
        # a Wednesday halfway, when the heating failed
        closed_on=starts_on + timedelta(weeks=weeks // 2, days=2) if weeks >= 2 else None,
        forgetful_teacher=person_id(Role.TEACHER, 4),
    )


def _person(role: Role, number: int, name: Name) -> DemoPerson:
    return DemoPerson(person_id(role, number), role, name, f"{role.value}{number}@{EMAIL_DOMAIN}")


def _forms(pupils: list[DemoPerson]) -> list[list[str]]:
    """Forms of thirty; what is left over makes one more, or is spread over the last ones if it is few."""
    ids = [pupil.id for pupil in pupils]
    forms = [ids[at : at + FORM_SIZE] for at in range(0, len(ids), FORM_SIZE)]
    if len(forms) > 3 and len(forms[-1]) < FORM_SIZE // 2:
        for at, left_over in enumerate(forms.pop()):
            forms[2 + at % (len(forms) - 2)].append(left_over)  # never the two forms the demo is about
    return forms


def _families(random: Random, pupils: list[DemoPerson]) -> tuple[list[DemoPerson], list[tuple[str, str]]]:
    """Guardians for two students in three. One family in eight has a second child, in another form."""
    guardians: list[DemoPerson] = []
    pairs: list[tuple[str, str]] = []
    homes: list[tuple[str, list[str]]] = []  # family name, guardians
    for at, pupil in enumerate(pupils):
        if at >= FORM_SIZE and random.random() < 0.125:
            family, own = random.choice(homes[1:])
            name = demo_people.sibling_name(random, at + 1, family)
            pupils[at] = DemoPerson(pupil.id, pupil.role, name, pupil.email)
            pairs += [(guardian, pupil.id) for guardian in own]
            continue
        if at > 0 and random.random() < 1 / 3:
            continue
        own = []
        for _ in range(1 if at == 0 or random.random() < 0.7 else 2):
            name = demo_people.guardian_name(random, pupil.name.family)
            guardians.append(_person(Role.GUARDIAN, len(guardians) + 1, name))
            own.append(guardians[-1].id)
        homes.append((pupil.name.family, own))
        pairs += [(guardian, pupil.id) for guardian in own]
    return guardians, pairs


def _sections(
    random: Random, forms: list[list[str]], starts_on: date, weeks: int
) -> tuple[list[DemoSection], int]:
    """Four sections for each form, and how many teachers it takes to teach them."""
    sections: list[DemoSection] = []
    taught: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for form_at, form in enumerate(forms):
        form_code = f"{5 + (form_at + 5) % 8}{'ABCDEFGH'[(form_at // 8) % 8]}{form_at // 64 or ''}"
        for at in range(_SECTIONS_PER_FORM):
            number = len(sections) + 1
            subject, title = _SUBJECTS[(at + form_at * 3) % len(_SUBJECTS)]
            period = (at + at // 2 + form_at) % len(PERIODS)  # four different ones
            days = _DAYS[(at + form_at * 3) % len(_DAYS)]
            teacher = _free_teacher(taught, number, period, days)
            section = DemoSection(
                id=derived_id("demo", "section", str(number)),
                number=number,
                code=f"{form_code}-{subject}",
                title=f"{title} {form_code}",
                room=f"R{101 + (form_at * 7 + at * 3) % 60}",
                teacher_id=person_id(Role.TEACHER, teacher),
                period=period,
                days=days,
            )
            section.stays.append(Stay(section.teacher_id, EnrolmentRole.TEACHER, starts_on))
            is_fixed = number in (1, _SECTIONS_PER_FORM + 1)
            section.stays += _pupils_stays(random, form, starts_on, weeks, is_fixed=is_fixed)
            sections.append(section)
    sections[0].stays.append(Stay(person_id(Role.TEACHER, 2), EnrolmentRole.CO_TEACHER, starts_on))
    teacher_count = max(4, *taught)
    for section in sections[9::12]:  # teacher1 has one class alone, so that a newcomer finds it at once
        helper = person_id(Role.TEACHER, 2 + section.number % (teacher_count - 1))
        if helper != section.teacher_id:
            section.stays.append(Stay(helper, EnrolmentRole.CO_TEACHER, starts_on))
    return sections, teacher_count


def _free_teacher(
    taught: dict[int, list[tuple[int, tuple[int, ...]]]], number: int, period: int, days: tuple[int, ...]
) -> int:
    """The first teacher with room who is not elsewhere then; teacher3 has the section that is always running."""
    given = {1: 1, _SECTIONS_PER_FORM + 1: 3, 2: 4}.get(number)
    teacher = given or 2
    while given is None:
        own = taught.get(teacher, [])
        is_elsewhere = any(other == period and set(on) & set(days) for other, on in own)
        if len(own) < _SECTIONS_PER_TEACHER and not is_elsewhere:
            break
        teacher += 1
    taught.setdefault(teacher, []).append((period, days))
    return teacher


def _pupils_stays(
    random: Random, form: list[str], starts_on: date, weeks: int, *, is_fixed: bool
) -> list[Stay]:
    """A form's students in one section: one in twenty joins or leaves in mid-term, unless it is fixed."""
    stays: list[Stay] = []
    for student in form:
        begins_on, ends_on = starts_on, None
        if not is_fixed and weeks >= 2 and random.random() < 0.05:
            middle = starts_on + timedelta(days=random.randrange(4, weeks * 7 - 4))
            if random.random() < 0.6:
                begins_on = middle
            else:
                ends_on = middle
        stays.append(Stay(student, EnrolmentRole.STUDENT, begins_on, ends_on))
    return stays


def _add_substitute(
    sections: list[DemoSection], teachers: list[DemoPerson], starts_on: date, weeks: int
) -> None:
    """One teacher is away for a week, and another one stands in with rights for that week alone."""
    if weeks < 2:
        return
    away_from = starts_on + timedelta(weeks=weeks - 2)
    absent = teachers[-1].id
    for section in sections:
        if section.teacher_id == absent:
            substitute = teachers[1].id if absent != teachers[1].id else teachers[0].id
            section.stays.append(
                Stay(substitute, EnrolmentRole.SUBSTITUTE, away_from, away_from + timedelta(weeks=1))
            )
