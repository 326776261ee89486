"""The demo school: the same each time, true to public figures, and written like everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, select

from domain import demo_model, demo_school, demo_term
from domain.access import Author
from domain.clock import ManualClock
from domain.demo import DEMO_PASSWORD, SeedReport, seed
from domain.demo_school import FIRST_SECTION, person_id
from domain.inputs import InvalidInput
from domain.ledger import Ledger
from domain.model import (
    Enrolment,
    EnrolmentRole,
    EventRow,
    Guardianship,
    Kind,
    Meeting,
    OperationRow,
    ParkedOperation,
    Person,
    RecordRow,
    RegisterTaken,
    Role,
    Section,
    Series,
    Status,
    table,
)
from domain.operations import make
from domain.passwords import verify_password
from domain.record import Submission
from domain.schedule import materialise
from domain.settings import Settings
from domain.store import Store, open_store
from tests.factories import NOW

_RECORDS, _MEETINGS, _OPERATIONS = table(RecordRow), table(Meeting), table(OperationRow)


def seeded(store: Store, *, students: int = 60, weeks: int = 0, now: datetime = NOW) -> SeedReport:
    return seed(store, ManualClock(now), students=students, weeks=weeks, seed=7, progress=lambda _text: None)


def rows(store: Store, model: Any, where: Any = None) -> list[Any]:
    query = select(table(model)) if where is None else select(table(model)).where(where)
    return list(store.read_now(lambda conn: conn.execute(query).mappings().all()))


@pytest.fixture(scope="module")
def term(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Ninety students and three weeks, seeded once for the tests that only look."""
    store = open_store(Settings(data=tmp_path_factory.mktemp("demo")))
    store.migrate()
    seeded(store, students=90, weeks=3)
    yield store
    store.close()


# -- who is there -----------------------------------------------------------------------------


def test_the_people_that_the_protocol_promises_are_there(term: Store) -> None:
    by_email = {row["email"]: row for row in rows(term, Person)}
    wanted = ["admin", "teacher1", "teacher2", "teacher3", "student1", "student30", "guardian1"]

    assert {f"{name}@demo.school" for name in wanted} <= by_email.keys()
    assert by_email["admin@demo.school"]["role"] == Role.ADMIN
    assert len({row["password_hash"] for row in by_email.values()}) == 1
    assert verify_password(by_email["student30@demo.school"]["password_hash"], DEMO_PASSWORD)


def test_teacher1_and_teacher2_teach_students_1_to_30_together(term: Store) -> None:
    enrolled = rows(term, Enrolment, table(Enrolment).c.section_id == FIRST_SECTION)
    by_role: dict[str, set[str]] = {}
    for row in enrolled:
        by_role.setdefault(row["role"], set()).add(row["person_id"])

    assert by_role == {
        EnrolmentRole.TEACHER: {person_id(Role.TEACHER, 1)},
        EnrolmentRole.CO_TEACHER: {person_id(Role.TEACHER, 2)},
        EnrolmentRole.STUDENT: {person_id(Role.STUDENT, n) for n in range(1, 31)},
    }
    children = rows(term, Guardianship, table(Guardianship).c.guardian_id == person_id(Role.GUARDIAN, 1))
    assert [row["student_id"] for row in children] == [person_id(Role.STUDENT, 1)]


def test_names_come_in_many_scripts_and_shapes(term: Store) -> None:
    students = [row for row in rows(term, Person) if row["role"] == Role.STUDENT]
    text = " ".join(f"{row['given_name']} {row['family_name']}" for row in students)
    names = [f"{row['given_name']} {row['family_name']}".strip() for row in students]

    for first, last in (
        ("А", "я"),
        ("ا", "ي"),
        ("א", "ת"),
        ("अ", "ह"),
        ("一", "龥"),
        ("가", "힣"),
        ("À", "ž"),
    ):
        assert any(first <= character <= last for character in text), first
    assert "’" in text
    assert max(len(name) for name in names) == 60
    assert any(not row["family_name"] for row in students)
    assert len(set(names)) < len(names)


def test_siblings_share_their_guardians(term: Store) -> None:
    children: dict[str, int] = {}
    for row in rows(term, Guardianship):
        children[row["guardian_id"]] = children.get(row["guardian_id"], 0) + 1

    assert max(children.values()) >= 2


@pytest.mark.parametrize("students", [36, 60, 100, 240, 1000])
def test_no_teacher_is_in_two_rooms_at_once(students: int) -> None:
    school = demo_school.lay_out(Random(7), students=students, weeks=4, today=NOW.date())

    taught = [(s.teacher_id, s.period, day) for s in school.sections for day in s.days]
    assert len(taught) == len(set(taught))
    attended = [
        (stay.person_id, s.period, day)
        for s in school.sections
        for day in s.days
        for stay in s.stays
        if stay.role is EnrolmentRole.STUDENT
    ]
    assert len(attended) == len(set(attended))
    assert len(school.sections[0].students_on(school.starts_on)) == 30


@pytest.mark.parametrize("students", [100, 1000])
def test_some_join_or_leave_in_mid_term_and_a_substitute_stands_in_for_a_week(students: int) -> None:
    school = demo_school.lay_out(Random(7), students=students, weeks=12, today=NOW.date())
    stays = [stay for section in school.sections for stay in section.stays]
    pupils = [stay for stay in stays if stay.role is EnrolmentRole.STUDENT]
    moved = [s for s in pupils if s.begins_on > school.starts_on or s.ends_on is not None]

    assert 0.02 < len(moved) / len(pupils) < 0.08
    substitutes = [stay for stay in stays if stay.role is EnrolmentRole.SUBSTITUTE]
    assert substitutes
    assert all(s.ends_on is not None and s.ends_on - s.begins_on == timedelta(weeks=1) for s in substitutes)


# -- how it was made --------------------------------------------------------------------------


def test_the_same_seed_and_moment_give_the_same_school(tmp_path: Any) -> None:
    models: tuple[Any, ...] = (
        OperationRow, RecordRow, EventRow, RegisterTaken, Person, Guardianship, Section, Enrolment, Series, Meeting
    )  # fmt: skip
    unguessable = {"password_hash", "secret", "link_token"}
    found: list[dict[Any, Any]] = []
    for name in ("one", "two"):
        store = open_store(Settings(data=tmp_path / name))
        store.migrate()
        seeded(store, students=40, weeks=2)
        found.append(
            {
                model: [
                    {key: value for key, value in row.items() if key not in unguessable}
                    for row in rows(store, model)
                ]
                for model in models
            }
        )
        store.close()

    for model, expected in found[0].items():
        assert found[1][model] == expected, model
    assert len(found[0][OperationRow]) > 500


def test_another_seed_gives_another_school() -> None:
    one, other = (
        demo_school.lay_out(Random(n), students=60, weeks=1, today=NOW.date()).people for n in (1, 2)
    )

    assert [p.id for p in one if p.role is Role.STUDENT] == [p.id for p in other if p.role is Role.STUDENT]
    assert [p.name for p in one] != [p.name for p in other]


def test_seeding_refuses_a_database_that_has_its_school(term: Store) -> None:
    before = len(rows(term, Person))

    with pytest.raises(InvalidInput, match="has its school already"):
        seeded(term)

    assert len(rows(term, Person)) == before


@pytest.mark.parametrize(("students", "weeks"), [(35, 1), (20_001, 1), (60, -1), (60, 41)])
def test_seeding_refuses_sizes_it_cannot_make(store: Store, students: int, weeks: int) -> None:
    with pytest.raises(InvalidInput, match="must be"):
        seeded(store, students=students, weeks=weeks)

    assert rows(store, Person) == []


# -- the term ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 7])
def test_a_term_of_a_thousand_students_has_the_figures_of_a_real_country(number: int) -> None:
    school = demo_school.lay_out(Random(number), students=1000, weeks=12, today=date(2026, 11, 23))
    held = demo_model.play(Random(f"{number} term"), school)

    figures = demo_model.figures(held)
    turns = [turn for meeting in held for turn in meeting.turns]
    assert 0.06 < figures.absence < 0.09
    assert 0.14 < figures.persistent < 0.24
    assert 0.018 < figures.late < 0.032
    assert 0.02 < share(turns, lambda t: t.status is Status.REMOTE) < 0.04
    assert 0.010 < share(turns, lambda t: t.correction is not None) < 0.020
    assert 0.003 < share(turns, lambda t: t.is_offline) < 0.007
    forgetful = [m for m in held if m.section.teacher_id == school.forgetful_teacher and not m.is_cancelled]
    assert 0.02 < share(forgetful, lambda m: not m.is_closed_by_staff) < 0.16
    assert {m.on for m in held if m.is_cancelled} == {school.closed_on}


def share(things: list[Any], holds: Any) -> float:
    return sum(1 for thing in things if holds(thing)) / len(things)


def test_a_tenth_of_the_students_make_about_half_of_the_lates() -> None:
    school = demo_school.lay_out(Random(3), students=1000, weeks=12, today=date(2026, 11, 23))
    lates: dict[str, int] = dict.fromkeys((p.id for p in school.people if p.role is Role.STUDENT), 0)
    for meeting in demo_model.play(Random(3), school):
        for turn in meeting.turns:
            lates[turn.student_id] += turn.status is Status.LATE

    most = sorted(lates.values(), reverse=True)[:100]
    assert 0.42 < sum(most) / sum(lates.values()) < 0.65


def test_the_seeded_registers_say_what_the_model_said(term: Store) -> None:
    counts = Counter(row["status"] for row in rows(term, RecordRow))
    total = sum(counts.values())

    assert 0.03 < (counts["absent"] + counts["excused"]) / total < 0.12
    assert 0.008 < counts["late"] / total < 0.045
    assert counts.keys() >= {"present", "late", "absent", "excused", "remote"}
    assert total > 2000


def test_the_report_counts_only_what_was_held(store: Store) -> None:
    before_the_first_bell = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)

    report = seeded(store, students=36, weeks=0, now=before_the_first_bell)

    assert (report.meetings, report.operations) == (0, 0)
    assert report.figures == demo_model.Figures(absence=0, persistent=0, late=0)


def test_every_record_equals_a_fresh_resolve_of_its_operations(term: Store) -> None:
    opened = rows(term, Meeting, _MEETINGS.c.opened_at.is_not(None))
    checked = 0
    for row in Random(5).sample(opened, 25):
        fresh = term.read_now(lambda conn, row=row: resolved_anew(conn, row["id"]))  # type: ignore[misc]
        kept = {r["student_id"]: r for r in rows(term, RecordRow, _RECORDS.c.meeting_id == row["id"])}
        assert fresh.keys() == kept.keys()
        for student_id, record in fresh.items():
            for name in ("status", "code", "minutes_late", "remark", "source", "author_id", "operation_id",
                         "effective_at", "is_contested", "is_unverified", "is_skewed", "version"):  # fmt: skip
                assert getattr(record, name) == kept[student_id][name], (student_id, name)
            checked += 1
    assert checked > 500


def resolved_anew(conn: Connection, meeting_id: str) -> dict[str, Any]:
    """All records of a meeting, folded from its operations (a close makes the ledger read them all)."""
    close = Submission(make(Kind.CLOSE_MEETING, meeting_id=meeting_id), Author(None), NOW)
    meeting = Ledger(conn, [close], NOW).meetings[meeting_id]
    students = set(meeting.on) | {s for entry in meeting.about for s in entry.roster}
    return {s: record for s in students if (record := meeting.record(s)) is not None}


def test_history_has_corrections_offline_check_ins_forgotten_registers_and_a_closed_day(term: Store) -> None:
    operations = rows(term, OperationRow)
    meetings = rows(term, Meeting)

    assert any('"remark"' in row["body"] and row["kind"] == Kind.MARK for row in operations)
    assert any(row["received_at"] - row["captured_at"] > timedelta(hours=1) for row in operations)
    assert all(row["is_verified"] for row in operations if row["kind"] == Kind.CHECK_IN)
    taken = {row["meeting_id"] for row in rows(term, RegisterTaken)}
    assert any(row["id"] not in taken and row["cancelled_at"] is None for row in meetings)
    cancelled = [row for row in meetings if row["cancelled_at"] is not None]
    assert len({row["occurs_on"] for row in cancelled}) == 1
    assert rows(term, ParkedOperation) == []
    assert all(row["received_at"] <= NOW for row in operations)


def test_laying_the_timetable_out_adds_nothing_to_the_past(store: Store) -> None:
    seeded(store, students=40, weeks=2)
    past = {row["id"] for row in rows(store, Meeting)}

    store.write_now(lambda conn: materialise(conn, NOW))

    added = [row for row in rows(store, Meeting) if row["id"] not in past]
    assert added
    assert all(row["scheduled_end"] > NOW for row in added)


def test_lessons_keep_their_local_time_over_the_clock_change(store: Store) -> None:
    after_change = datetime(2026, 10, 29, 20, 0, tzinfo=UTC)  # it was on the 25th
    seeded(store, students=36, weeks=1, now=after_change)

    hours = {
        row["occurs_on"]: row["scheduled_start"].time()
        for row in rows(store, Meeting, _MEETINGS.c.section_id == FIRST_SECTION)
        if row["series_id"] is not None
    }
    before = {at for on, at in hours.items() if on < date(2026, 10, 25)}
    after = {at for on, at in hours.items() if on > date(2026, 10, 25)}
    assert len(before) == len(after) == 1
    assert after.pop().hour == before.pop().hour + 1


def test_a_refusal_by_the_write_path_is_not_passed_over(store: Store) -> None:
    seeded(store, students=36)
    school = demo_school.lay_out(Random(7), students=36, weeks=0, today=NOW.date())
    meeting = demo_model.Held(school.sections[0], date(2026, 11, 16))  # before anybody was enrolled
    meeting.turns = [demo_model.Turn(person_id(Role.STUDENT, 1), Status.PRESENT)]

    with pytest.raises(demo_term.HistoryRefused):
        demo_term.write_term(store, Random(1), [meeting], now=NOW, progress=lambda _text: None)
