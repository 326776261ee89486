"""Attendance as CSV: complete, only for those who may see it, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from domain.access import SYSTEM, Author, Denied
from domain.export import COLUMNS, AttendanceRow, attendance_rows, disarmed, to_csv
from domain.inputs import InvalidInput
from domain.model import Enrolment, EnrolmentRole, Kind, Meeting, Person, Role, table
from domain.operations import make
from domain.record import Submission, record_batch
from domain.store import Store
from tests.factories import NOW, ZONE, AClass, a_class, a_meeting, a_person, an_enrolment

pytestmark = pytest.mark.both_databases

TODAY = date(2026, 11, 23)
DAY = timedelta(days=1)
LATER = NOW + timedelta(hours=2)


@pytest.fixture
def lesson(store: Store) -> AClass:
    """A class of three whose meeting is over: one late, one absent with a remark, one without a record."""
    lesson = a_class(store)
    act(store, lesson.teacher, Kind.OPEN_MEETING, lesson)
    act(
        store, lesson.teacher, Kind.MARK, lesson, student_id=lesson.students[0], status="late", minutes_late=7
    )
    act(
        store,
        lesson.teacher,
        Kind.MARK,
        lesson,
        student_id=lesson.students[1],
        status="absent",
        remark="ill, says Bo",
    )
    return lesson


def act(store: Store, author: Author, kind: Kind, lesson: AClass, **fields: Any) -> None:
    operation = make(kind, meeting_id=lesson.meeting_id, **fields)
    (outcome,) = store.write_now(
        lambda conn: record_batch(conn, [Submission(operation, author, NOW)], now=NOW)
    ).outcomes
    assert str(outcome.outcome) == "accepted", outcome


def read(store: Store, viewer: Author, **values: Any) -> list[AttendanceRow]:
    asked: dict[str, Any] = {"begin_on": TODAY, "end_on": TODAY, "zone": ZONE, "now": LATER} | values
    return store.read_now(lambda conn: list(attendance_rows(conn, viewer=viewer, **asked)))


def test_each_record_is_a_row_with_everything_about_it(store: Store, lesson: AClass) -> None:
    late, absent = read(store, Author(lesson.admin))

    assert late == AttendanceRow(
        date="2026-11-23",
        start="10:00",
        section_code="10B-MA",
        section_title="Maths 10B",
        student_source_id="",
        student_name="Student 1 Test",
        status="late",
        code=late.code,
        counts_as="attended",
        minutes_late="7",
        source=late.source,
        contested="",
        unverified="",
        remark="",
        marked_by="Teacher 1 Test",
    )
    assert (late.code, late.source) != ("", "")
    assert (absent.status, absent.counts_as, absent.remark) == ("absent", "absent", "ill, says Bo")


def test_students_without_a_record_are_empty_rows_once_the_register_is_closed(
    store: Store, lesson: AClass
) -> None:
    assert len(read(store, SYSTEM)) == 2
    store.write_now(lambda conn: conn.execute(update(table(Meeting)).values(closed_at=NOW)))

    unmarked = read(store, SYSTEM)[2]

    assert (unmarked.student_name, unmarked.status, unmarked.code, unmarked.counts_as) == (
        "Student 3 Test",
        "",
        "",
        "",
    )


def test_closing_marks_the_rest_absent_by_muster_itself(store: Store, lesson: AClass) -> None:
    act(store, lesson.teacher, Kind.CLOSE_MEETING, lesson)

    assert [row.status for row in read(store, SYSTEM)] == ["late", "absent", "absent"]


def test_days_are_those_of_the_zone_and_both_are_inclusive(store: Store, lesson: AClass) -> None:
    assert read(store, SYSTEM, begin_on=TODAY - DAY, end_on=TODAY - DAY) == []
    assert len(read(store, SYSTEM, begin_on=TODAY - DAY, end_on=TODAY + DAY)) == 2
    far = read(store, SYSTEM, zone="Pacific/Kiritimati", begin_on=TODAY, end_on=TODAY)
    assert {(row.date, row.start) for row in far} == {("2026-11-23", "23:00")}
    with pytest.raises(InvalidInput):
        read(store, SYSTEM, begin_on=TODAY, end_on=TODAY - DAY)


@pytest.mark.parametrize("on", [date.min, date.max])
def test_a_day_at_the_end_of_the_calendar_is_refused(store: Store, lesson: AClass, on: date) -> None:
    with pytest.raises(InvalidInput):
        read(store, SYSTEM, begin_on=on, end_on=on)


def test_cancelled_meetings_are_left_out(store: Store, lesson: AClass) -> None:
    store.write_now(lambda conn: conn.execute(update(table(Meeting)).values(cancelled_at=NOW)))

    assert read(store, SYSTEM) == []


# --- Who sees what ---


def test_staff_see_their_sections_with_remarks_and_no_others(store: Store, lesson: AClass) -> None:
    other = a_class_beside(store, lesson)

    seen = read(store, lesson.teacher)

    assert {row.section_code for row in seen} == {"10B-MA"}
    assert "ill, says Bo" in {row.remark for row in seen}
    with pytest.raises(Denied):
        read(store, lesson.teacher, section_id=other.section_id)
    with pytest.raises(Denied):
        read(store, lesson.teacher, student_id=other.students[0])


def test_a_student_sees_the_own_rows_without_remarks(store: Store, lesson: AClass) -> None:
    (row,) = read(store, lesson.student(1))

    assert (row.student_name, row.status, row.remark) == ("Student 2 Test", "absent", "")
    assert read(store, lesson.student(1), section_id=lesson.section_id) == [row]
    with pytest.raises(Denied):
        read(store, lesson.student(1), student_id=lesson.students[0])


def test_a_guardian_sees_the_children(store: Store, lesson: AClass) -> None:
    (row,) = read(store, Author(lesson.guardian))

    assert row.student_name == "Student 1 Test"
    assert read(store, Author(lesson.guardian), student_id=lesson.students[0]) == [row]
    with pytest.raises(Denied):
        read(store, Author(lesson.guardian), student_id=lesson.students[1])


def test_an_admin_sees_all_and_may_ask_for_one_student(store: Store, lesson: AClass) -> None:
    a_class_beside(store, lesson)

    assert len({row.section_code for row in read(store, Author(lesson.admin))}) == 2
    (row,) = read(store, Author(lesson.admin), student_id=lesson.students[0])
    assert row.student_name == "Student 1 Test"


def test_somebody_of_no_class_unknown_inactive_or_no_longer_staff_sees_nothing(
    store: Store, lesson: AClass
) -> None:
    nobody = store.write_now(lambda conn: a_person(conn, Role.TEACHER, name="New"))
    people, enrolments = table(Person), table(Enrolment)
    store.write_now(
        lambda conn: conn.execute(
            update(enrolments).where(enrolments.c.person_id == lesson.teachers[0]).values(ends_at=NOW)
        )
    )
    store.write_now(
        lambda conn: conn.execute(
            update(people).where(people.c.id == lesson.teachers[1]).values(is_active=False)
        )
    )

    for viewer in (nobody, *lesson.teachers, "unknown", None):
        with pytest.raises(Denied):
            read(store, Author(viewer))


def test_rights_are_checked_before_the_first_row_is_taken(store: Store, lesson: AClass) -> None:
    with pytest.raises(Denied):
        store.read_now(
            lambda conn: attendance_rows(
                conn, viewer=Author("x"), begin_on=TODAY, end_on=TODAY, zone=ZONE, now=LATER
            )
        )


def a_class_beside(store: Store, lesson: AClass) -> AClass:
    """Another class with an absent student, of other people."""
    other = a_class(store, code="11A-PH")
    act(store, other.teacher, Kind.OPEN_MEETING, other)
    act(store, other.teacher, Kind.MARK, other, student_id=other.students[0], status="absent")
    return other


def test_a_term_is_read_in_parts(store: Store, lesson: AClass) -> None:
    def many(conn: Any) -> None:
        teacher = a_person(conn, Role.TEACHER, name="Extra")
        an_enrolment(conn, lesson.section_id, teacher, EnrolmentRole.CO_TEACHER)
        for week in range(1, 121):
            a_meeting(conn, lesson.section_id, start=NOW - week * timedelta(hours=12), closed_at=NOW)

    store.write_now(many)

    found = read(store, lesson.teacher, begin_on=TODAY - 90 * DAY)

    assert len(found) == 120 * 3 + 2
    assert [(row.date, row.start) for row in found] == sorted((row.date, row.start) for row in found)


# --- The file ---


def _row(**values: str) -> AttendanceRow:
    return AttendanceRow(**(dict.fromkeys(COLUMNS, "") | values))


def parsed(rows: list[AttendanceRow]) -> list[dict[str, str]]:
    text = "".join(to_csv(rows))
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def test_the_file_begins_with_a_bom_and_ends_its_lines_as_rfc_4180_says() -> None:
    text = "".join(to_csv([_row(student_name='Zoë "Z", X', remark="two\nlines")]))

    assert text == ("\ufeff" + ",".join(COLUMNS) + "\r\n" + ',,,,,"Zoë ""Z"", X",,,,,,,,"two\nlines",\r\n')


def test_a_long_export_is_written_while_it_is_read() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield _row(student_name=f"Student {taken}")

    parts = list(islice(to_csv(endless()), 3))

    assert taken == 1500
    assert "".join(parts).count("\r\n") == 1501


@pytest.mark.parametrize(
    "cell",
    ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", " =1", "\ufeff=1", "\x1f@"],
)
def test_a_formula_is_disarmed(cell: str) -> None:
    assert disarmed(cell) == f"'{cell}"


@given(st.lists(st.fixed_dictionaries({name: st.text(max_size=20) for name in COLUMNS}), max_size=4))
def test_no_cell_of_any_content_begins_a_formula_and_every_cell_comes_back(
    contents: list[dict[str, str]],
) -> None:
    rows = [
        _row(**{name: value.replace("\0", "") for name, value in content.items()}) for content in contents
    ]

    found = parsed(rows)

    assert len(found) == len(rows)
    for row, cells in zip(rows, found, strict=True):
        for name in COLUMNS:
            assert cells[name].removeprefix("'") == getattr(row, name).removeprefix("'")
            assert cells[name].lstrip()[:1] not in set("=+-@＝＋－＠")


def test_a_name_and_a_remark_with_a_formula_are_harmless_from_end_to_end(store: Store) -> None:
    lesson = a_class(store, students=1)
    people = table(Person)
    formula = '=HYPERLINK("http://evil.example","x")'
    store.write_now(
        lambda conn: conn.execute(
            update(people).where(people.c.id == lesson.students[0]).values(given_name=formula, family_name="")
        )
    )
    act(store, lesson.teacher, Kind.OPEN_MEETING, lesson)
    act(
        store, lesson.teacher, Kind.MARK, lesson, student_id=lesson.students[0], status="present", remark="+1"
    )

    (cells,) = parsed(read(store, lesson.teacher))

    assert cells["student_name"] == f"'{formula}"
    assert cells["remark"] == "'+1"
