"""How the demo school's students behave: who is away, ill, late or remote, meeting by meeting. Pure.

The figures are those of a real country: England's schools in 2025/26 missed 6.9 % of their sessions,
18.8 % of the students missed a tenth or more, 2.1 % came late (DfE, pupil attendance in schools). One
distribution cannot give both the mean and the persistent tail; a mixture of four kinds of student with
spells of illness on top does. tests/domain/test_demo.py holds the model to these figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

from domain.demo_school import DemoSchool, DemoSection
from domain.model import Status

#: Four kinds of student: their share, and the Beta distribution of how often one of them stays away.
_KINDS = ((0.84, 2.2, 52.0), (0.10, 6.0, 38.0), (0.04, 6.0, 16.0), (0.02, 12.0, 8.0))
_HABIT_SCALE = 0.78
_SPELL_START = 0.0035  # a day
_SPELL_END = 0.45  # a day
_SPELL_MOST = 8  # days
_FLU = 5.0  # times the spells, which about doubles all absence
_DAY_SHARE = 0.5  # of a habit, whole days; the rest single lessons
_WEEKDAY = (1.01, 0.96, 0.96, 0.96, 1.11)  # Friday 16 %, Monday 5 % above the rest; 1 on average
_LATE = (0.35, 14.0)  # the tenth of the students who are late most make half of all lates
_FIRST_PERIOD_LATE = 1.6
_LAST_PERIOD_SKIP = 2.0
_REMOTE = 0.03
_OFFLINE = 0.005
_CORRECTED = 0.015
_NOT_TAKEN = 0.08  # of the forgetful teacher's meetings

_ILL_REMARKS = ("Note from guardian", "Doctor's certificate handed in", "Called in ill, message was missed")
_LATE_REMARKS = ("The bus was late", "Was with the school office", "Helped to carry chairs")
_PRESENT_REMARKS = ("Was in the room, phone was empty", "Sat at the back, overlooked")


@dataclass(frozen=True, slots=True)
class Correction:
    """What the teacher set right some days later, and why."""

    status: Status
    code: str | None
    remark: str
    days_later: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One student in one meeting. ``arrives_min`` counts from the start of the meeting."""

    student_id: str
    status: Status
    code: str | None = None
    arrives_min: float = 0.0
    is_marked: bool = False  # the teacher says so; an absence is otherwise found at the close
    is_offline: bool = False  # the phone had no network: the check-in arrives hours later
    correction: Correction | None = None

    @property
    def final(self) -> Status:
        """The status in the end."""
        return self.status if self.correction is None else self.correction.status


@dataclass(slots=True)
class Held:
    """One meeting of the past."""

    section: DemoSection
    on: date
    is_cancelled: bool = False
    is_opened: bool = True
    is_closed_by_staff: bool = True
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of what was possible (attended + absent)."""

    absence: float
    persistent: float  # students who missed a tenth or more
    late: float


@dataclass(slots=True)
class _Student:
    away: float  # chance, a day or lesson
    late: float
    ill_on: set[date]
    away_on: set[date] = field(default_factory=set)
    remote_on: set[date] = field(default_factory=set)


def play(random: Random, school: DemoSchool) -> list[Held]:
    """Every meeting of the term in order of day and period, with every student's turn in it."""
    days = [
        school.starts_on + timedelta(days=n)
        for n in range((school.ends_on - school.starts_on).days)
        if (school.starts_on + timedelta(days=n)).weekday() < 5
    ]
    flu = _flu_wave(random, days)
    ids = dict.fromkeys(stay.person_id for section in school.sections for stay in section.stays)
    students = {student_id: _student(random, days, flu) for student_id in ids}
    held: list[Held] = []
    for on in days:
        meeting_now = sorted(
            (s for s in school.sections if on.weekday() in s.days), key=lambda s: (s.period, s.number)
        )
        held += [_hold(random, school, section, on, students) for section in meeting_now]
    return held


def figures(held: Iterable[Held]) -> Figures:
    """What the registers that were taken come to."""
    possible: dict[str, int] = {}
    missed: dict[str, int] = {}
    late = 0
    for meeting in held:
        for turn in meeting.turns if meeting.is_opened else ():
            possible[turn.student_id] = possible.get(turn.student_id, 0) + 1
            if turn.final in (Status.ABSENT, Status.EXCUSED):
                missed[turn.student_id] = missed.get(turn.student_id, 0) + 1
            late += turn.final is Status.LATE
    total = sum(possible.values()) or 1
    persistent = sum(1 for student, count in missed.items() if count >= 0.1 * possible[student])
    return Figures(sum(missed.values()) / total, persistent / (len(possible) or 1), late / total)


def _flu_wave(random: Random, days: list[date]) -> set[date]:
    """Eight days of a term of twelve weeks, in proportion in a shorter one."""
    if len(days) < 10:
        return set()
    first = random.choice(days[len(days) // 3 : 2 * len(days) // 3])
    length = max(2, min(8, round(8 * len(days) / 60)))
    return {first + timedelta(days=n) for n in range(length)}


def _student(random: Random, days: list[date], flu: set[date]) -> _Student:
    _share, alpha, beta = random.choices(_KINDS, [kind[0] for kind in _KINDS])[0]
    away = random.betavariate(alpha, beta) * _HABIT_SCALE
    student = _Student(away=away, late=random.betavariate(*_LATE), ill_on=set())
    left = 0
    for on in days:
        if left == 0 and random.random() < _SPELL_START * (_FLU if on in flu else 1.0):
            left = 1
            while left < _SPELL_MOST and random.random() >= _SPELL_END:
                left += 1
        if left:
            student.ill_on.add(on)
            left -= 1
        elif random.random() < away * _DAY_SHARE * _WEEKDAY[on.weekday()]:
            student.away_on.add(on)
        elif random.random() < _REMOTE:
            student.remote_on.add(on)
    return student


def _hold(
    random: Random, school: DemoSchool, section: DemoSection, on: date, students: dict[str, _Student]
) -> Held:
    if on == school.closed_on:
        return Held(section, on, is_cancelled=True, is_opened=False)
    meeting = Held(section, on)
    if section.teacher_id == school.forgetful_teacher and random.random() < _NOT_TAKEN:
        meeting.is_closed_by_staff = False
        meeting.is_opened = random.random() < 0.5
    if meeting.is_opened:
        meeting.turns = [
            _turn(random, section, on, student_id, students[student_id])
            for student_id in section.students_on(on)
        ]
    return meeting


def _turn(random: Random, section: DemoSection, on: date, student_id: str, student: _Student) -> Turn:
    is_corrected = random.random() < _CORRECTED
    if on in student.ill_on:
        return _away(random, student_id, excused=0.85, code="I", is_corrected=is_corrected)
    if on in student.away_on:
        return _away(random, student_id, excused=0.5, code=None, is_corrected=is_corrected)
    skip = student.away * (1 - _DAY_SHARE) * _WEEKDAY[on.weekday()]
    if random.random() < skip * (_LAST_PERIOD_SKIP if section.period == 5 else 1.0):
        return _away(random, student_id, excused=0.1, code=None, is_corrected=is_corrected)
    if on in student.remote_on:
        return Turn(student_id, Status.REMOTE, is_marked=True)
    is_offline = random.random() < _OFFLINE
    if random.random() < student.late * (_FIRST_PERIOD_LATE if section.period == 0 else 1.0):
        arrives_min = min(27.0, 5.1 + random.lognormvariate(1.5, 0.8))
        correction = None
        if is_corrected:
            correction = Correction(Status.PRESENT, None, random.choice(_LATE_REMARKS), random.randint(0, 3))
        return Turn(
            student_id,
            Status.LATE,
            arrives_min=arrives_min,
            is_offline=is_offline and not is_corrected,
            correction=correction,
        )
    # log-normal too: seven in ten are there before the bell, nobody more than five minutes before it
    arrives_min = min(4.8, random.lognormvariate(1.295, 0.6) - 4.9)
    if is_corrected and random.random() < 0.4:
        correction = Correction(Status.LEFT_EARLY, None, "Went home ill", 0)
        return Turn(student_id, Status.PRESENT, arrives_min=arrives_min, correction=correction)
    is_overlooked = is_offline and random.random() < 0.4  # then the teacher marks absent, and both are right
    return Turn(
        student_id, Status.PRESENT, arrives_min=arrives_min, is_offline=is_offline, is_marked=is_overlooked
    )


def _away(random: Random, student_id: str, *, excused: float, code: str | None, is_corrected: bool) -> Turn:
    """An absence: excused in the register, or not; many an excuse comes some days later."""
    is_corrected = is_corrected or random.random() < 0.12
    if not is_corrected and random.random() < excused:
        return Turn(student_id, Status.EXCUSED, code=code, is_marked=True)
    correction = None
    if is_corrected and random.random() < 0.06:
        correction = Correction(Status.PRESENT, None, random.choice(_PRESENT_REMARKS), random.randint(0, 1))
    elif is_corrected:
        correction = Correction(
            Status.EXCUSED, code or "E", random.choice(_ILL_REMARKS), random.randint(1, 4)
        )
    return Turn(student_id, Status.ABSENT, is_marked=random.random() < 0.3, correction=correction)
