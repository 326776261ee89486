"""Importing rosters: whatever the file is, the list of problems is whole and the school stays sound."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select

from domain import people
from domain.access import SYSTEM, Author, Denied
from domain.inputs import InvalidInput, clean_name
from domain.model import (
    Enrolment,
    Guardianship,
    Kind,
    Login,
    OperationRow,
    Person,
    RecordRow,
    Role,
    Section,
    table,
)
from domain.operations import make
from domain.record import Submission, record_batch
from domain.roster_import import (
    MAX_UPLOAD_BYTES,
    Action,
    ImportPlan,
    ImportRefused,
    ImportResult,
    Problem,
    Severity,
    Thing,
    apply_import,
    plan_import,
)
from domain.settings import Settings
from domain.store import Store, open_store
from tests.factories import NOW, a_class, a_meeting, a_person, a_school, a_section, an_enrolment

HEADER = (
    "role,given_name,family_name,email,source_id,section_code,section_title,begin_on,end_on,guardian_of\n"
)
ZOE = "student,Zoë,O’Kafor-Łuk,zoe@example.edu,S1,10B-MA,Maths 10B,2026-09-07,,\n"
ALI = "student,Ali,Can,ali@example.edu,S2,10B-MA,Maths 10B,2026-09-07,,\n"
TEACHER = "teacher,Rosa,Luz,rosa@example.edu,T1,10B-MA,Maths 10B,2026-09-07,,\n"
PARENT = "guardian,Ama,O’Kafor,ama@example.edu,G1,,,,,S1\n"
DAY = timedelta(days=1)


@pytest.fixture
def school(store: Store) -> Store:
    """A school without people."""
    store.write_now(a_school)
    return store


def plan(store: Store, text: str | bytes, *, filename: str = "roster.csv", now: datetime = NOW) -> ImportPlan:
    data = text.encode() if isinstance(text, str) else text
    return store.read_now(lambda conn: plan_import(conn, SYSTEM, data, filename=filename, now=now))


def run(store: Store, text: str | bytes, *, skip: bool = False, now: datetime = NOW) -> ImportResult:
    made = plan(store, text, now=now)
    return store.write_now(lambda conn: apply_import(conn, SYSTEM, made, now=now, skip_bad_rows=skip))


def rows(store: Store, model: Any) -> list[Any]:
    return list(store.read_now(lambda conn: conn.execute(select(table(model))).all()))


def person(store: Store, source_id: str) -> Any:
    return next(row for row in rows(store, Person) if row.source_id == source_id)


def only(made: ImportPlan, severity: Severity = Severity.ERROR) -> Problem:
    """The one problem of a plan of that severity."""
    found = [problem for problem in made.problems if problem.severity is severity]
    assert len(found) == 1, made.problems
    return found[0]


# --- The spreadsheet ---


def test_a_spreadsheet_brings_people_classes_enrolments_and_guardians(school: Store) -> None:
    run(school, HEADER + ZOE + ALI + TEACHER + PARENT)

    assert {(p.given_name, p.role) for p in rows(school, Person)} == {
        ("Zoë", "student"),
        ("Ali", "student"),
        ("Rosa", "teacher"),
        ("Ama", "guardian"),
    }
    (section,) = rows(school, Section)
    assert (section.code, section.title, section.zone) == ("10B-MA", "Maths 10B", "Europe/Berlin")
    assert sorted(e.role for e in rows(school, Enrolment)) == ["student", "student", "teacher"]
    (guardianship,) = rows(school, Guardianship)
    assert guardianship.student_id == person(school, "S1").id
    assert all(p.password_hash is None for p in rows(school, Person))


@pytest.mark.parametrize("student", ["S1", "zoe@example.edu", "ZOE@example.edu", '"S2; S1"', '"S1,S2"'])
def test_a_guardian_names_students_by_source_id_or_e_mail_before_or_after_their_rows(
    school: Store, student: str
) -> None:
    guardian = PARENT.replace("S1", student)
    run(school, HEADER + guardian + ZOE + ALI)

    assert person(school, "S1").id in {g.student_id for g in rows(school, Guardianship)}


def test_a_dry_run_writes_nothing(school: Store) -> None:
    made = plan(school, HEADER + ZOE + PARENT)

    assert made.counts[Thing.PERSON].create == 2
    assert rows(school, Person) == []


def test_the_same_file_again_changes_nothing_also_on_a_later_day(school: Store) -> None:
    text = HEADER + ZOE + ALI + TEACHER + PARENT + "student,Bo,,bo@x.example,,10B-MA,,,,\n"
    run(school, text)
    before = [rows(school, model) for model in (Person, Section, Enrolment, Guardianship)]

    for now in (NOW, NOW + 3 * DAY):
        made = plan(school, text, now=now)
        assert made.is_empty
        assert made.changes == ()
        assert made.counts[Thing.PERSON].unchanged == 5
        run(school, text, now=now)

    assert before == [rows(school, model) for model in (Person, Section, Enrolment, Guardianship)]


def test_dates_are_local_days_and_both_are_inclusive(school: Store) -> None:
    run(school, HEADER + "student,Zoë,,z@x.example,,M,Maths,2026-10-01,2026-10-25,\n")

    (enrolment,) = rows(school, Enrolment)
    assert enrolment.begins_at == datetime(2026, 9, 30, 22, tzinfo=UTC)  # summer time
    assert enrolment.ends_at == datetime(2026, 10, 25, 23, tzinfo=UTC)  # the clocks went back that night


def test_columns_come_in_any_order_and_case_and_unknown_ones_are_told(school: Store) -> None:
    made = plan(school, "Given Name,E-Mail,ROLE,Shoe size\nZoë,zoe@x.example,Student,38\n")

    assert not made.has_errors
    problem = only(made, Severity.WARNING)
    assert (problem.line, problem.column) == (1, "Shoe size")
    assert made.counts[Thing.PERSON].create == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_spreadsheet_program_may_have_saved_it(
    school: Store, delimiter: str, ending: str, encoding: str
) -> None:
    text = (HEADER + ZOE + ALI).replace(",", delimiter).replace("\n", ending)

    made = plan(school, text.encode(encoding))

    assert made.problems == ()
    assert {c.label for c in made.changes if c.thing is Thing.PERSON} == {
        "Zoë O’Kafor-Łuk (zoe@example.edu)",
        "Ali Can (ali@example.edu)",
    }


def test_windows_1252_is_recognised_and_told(school: Store) -> None:
    made = plan(school, (HEADER + "student,Zoë,Müller,z@x.example,,,,,,\n").encode("cp1252"))

    assert "Windows-1252" in only(made, Severity.WARNING).message
    assert made.changes[0].label == "Zoë Müller (z@x.example)"


def test_a_few_broken_characters_in_utf8_are_errors_of_their_rows(school: Store) -> None:
    data = (HEADER + ZOE).encode() + b"student,Bro\xffken,X,b@x.example,,,,,,\n"

    problem = only(plan(school, data))

    assert (problem.line, problem.column) == (3, "given_name")


def test_quoted_commas_and_line_breaks_are_part_of_a_cell_and_lines_are_those_of_an_editor(
    school: Store,
) -> None:
    text = (
        "role,given_name,email,note,section_code,section_title\n"
        'student,Zoë,z@x.example,"two\nlines, here",M,"Maths, upper"\n'
        "student,,nobody@x.example,,,\n"
    )

    made = plan(school, text)

    assert only(made).line == 4
    assert any(c.label == "M Maths, upper" for c in made.changes)


def test_every_problem_is_listed_with_its_line_and_column(school: Store) -> None:
    text = HEADER + (
        "wizard,Zoë,A,a@x.example,,,,,,\n"  # 2
        "student,,,b@x.example,,,,,,\n"  # 3
        "student,Zoë,C,not an address,,,,,,\n"  # 4
        "student,Zoë,D,d@x.example,,M,Maths,07/09/2026,,\n"  # 5
        "student,Zoë,E,e@x.example,,M,Maths,2026-09-07,2026-09-01,\n"  # 6
        "student,Zoë,F,,,,,,,\n"  # 7
        "guardian,Zoë,G,g@x.example,,,,,,nobody@x.example\n"  # 8
        "admin,Zoë,H,h@x.example,,,,,,\n"  # 9
        "substitute,Zoë,I,i@x.example,,M,Maths,2026-09-07,,\n"  # 10
        "student,Zoë,J,j@x.example,,,Maths,,,\n"  # 11
        "student,Zoë,K,k@x.example,,M,Maths,,,S1\n"  # 12
        "student,Zoë,L,l@x.example,,M,Maths,,,,extra\n"  # 13
        "student,Zoë,M,m@x.example,\0,,,,,\n"  # 14
        'student,"Zoë"y,N,n@x.example,,,,,,\n'  # 15
        "student,Zoë,O,o@x.example,,M,Maths,2026-02-30,,\n"  # 16
    )

    made = plan(school, text)

    found = {(p.line, p.column) for p in made.problems if p.severity is Severity.ERROR}
    assert found == {
        (2, "role"),
        (3, "given_name"),
        (4, "email"),
        (5, "begin_on"),
        (6, "end_on"),
        (7, "source_id"),
        (8, "guardian_of"),
        (9, "role"),
        (10, "end_on"),
        (11, "section_code"),
        (12, "guardian_of"),
        (13, ""),
        (14, "source_id"),
        (15, ""),
        (16, "begin_on"),
    }
    assert made.error_count == 15
    assert all(p.message and p.hint and p.file == "roster.csv" for p in made.problems)


def test_a_quotation_mark_that_is_never_closed_hides_no_later_problem(school: Store) -> None:
    text = HEADER + 'student,"Zoë,A,a@x.example,,,,,,\n' + ALI + "wizard,B,B,b@x.example,,,,,,\n"

    made = plan(school, text)

    assert [(p.line, p.column) for p in made.problems] == [(2, ""), (4, "role")]
    assert made.counts[Thing.PERSON].create == 1


def test_nothing_is_written_while_there_are_errors_unless_bad_rows_are_left_out(school: Store) -> None:
    text = HEADER + ZOE + "wizard,Bad,Row,bad@x.example,,,,,,\n" + ALI

    with pytest.raises(ImportRefused) as refusal:
        run(school, text)
    assert refusal.value.code == "roster_has_errors"
    assert rows(school, Person) == []

    result = run(school, text, skip=True)
    assert (result.counts[Thing.PERSON].create, result.skipped_count) == (2, 1)


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        ("Zoë,A,a@x.example,S1", "Ali,B,b@x.example,S1", "source_id"),
        ("Zoë,A,a@x.example,", "Ali,B,A@X.example,", "email"),
        ("Zoë,A,a@x.example,S1", "Ali,B,a@x.example,S2", "email"),
        ("Zoë,A,a@x.example,S1", "Zoë,A,b@x.example,S1", "email"),
    ],
)
def test_two_people_with_one_key_are_an_error_of_the_second_row(
    school: Store, first: str, second: str, column: str
) -> None:
    made = plan(school, HEADER + f"student,{first},,,,,\nstudent,{second},,,,,\n")

    problem = only(made)
    assert (problem.line, problem.column) == (3, column)


def test_rows_of_one_person_are_put_together_whichever_key_they_use(school: Store) -> None:
    text = HEADER + ZOE + "student,Zoë,O’Kafor-Łuk,zoe@example.edu,,10B-PH,Physics,,,\n"

    run(school, text)

    assert len(rows(school, Person)) == 1
    assert len(rows(school, Enrolment)) == 2


def test_a_file_changes_what_it_says_and_leaves_the_rest(school: Store) -> None:
    run(school, HEADER + ZOE + ALI)

    run(school, HEADER + "student,Zoë,Newname,,S1,,,,,\n")

    zoe = person(school, "S1")
    assert (zoe.family_name, zoe.email, zoe.is_active) == ("Newname", "zoe@example.edu", True)
    assert person(school, "S2").is_active


def test_two_people_may_swap_their_addresses(school: Store) -> None:
    run(school, HEADER + ZOE + ALI)

    run(
        school,
        HEADER + ZOE.replace("zoe@", "tmp@").replace("tmp@", "ali@") + ALI.replace("ali@", "zoe@"),
    )

    assert person(school, "S1").email == "ali@example.edu"
    assert person(school, "S2").email == "zoe@example.edu"


def test_an_address_of_somebody_else_in_the_school_is_an_error(school: Store) -> None:
    run(school, HEADER + ZOE)

    made = plan(school, HEADER + "student,Mia,X,zoe@example.edu,S9,,,,,\n")

    assert only(made).column == "email"


def test_an_admin_is_never_changed_and_never_made(school: Store) -> None:
    school.write_now(lambda conn: a_person(conn, Role.ADMIN, name="Head", email="head@x.example"))

    made = plan(school, HEADER + "student,Head,Test,head@x.example,S1,,,,,\n")

    assert made.is_empty
    assert "admin" in only(made, Severity.WARNING).message


def test_somebody_deactivated_by_hand_does_not_come_back_by_an_old_spreadsheet(school: Store) -> None:
    run(school, HEADER + ZOE)
    school.write_now(lambda conn: people.deactivate_person(conn, SYSTEM, person(school, "S1").id, now=NOW))

    assert "deactivated" in only(plan(school, HEADER + ZOE)).message


def test_a_student_who_left_and_came_back_has_two_enrolments(school: Store) -> None:
    left = HEADER + "student,Zoë,A,,S1,M,Maths,2026-09-07,2026-10-02,\n"
    run(school, left)

    run(school, left + "student,Zoë,A,,S1,M,Maths,2026-11-02,,\n")

    found = sorted((e.begins_at, e.ends_at is None) for e in rows(school, Enrolment))
    assert [is_open for _, is_open in found] == [False, True]


def test_one_person_has_one_place_in_a_class_at_a_time(school: Store) -> None:
    text = "teacher,Rosa,Luz,r@x.example,,M,Maths,2026-09-07,,\nco_teacher,Rosa,Luz,r@x.example,,M,,2026-10-01,,\n"

    assert only(plan(school, HEADER + text)).line == 3


def test_a_role_may_change_within_a_class(school: Store) -> None:
    run(school, HEADER + TEACHER)

    run(school, HEADER + TEACHER.replace("teacher,", "co_teacher,"))

    assert [e.role for e in rows(school, Enrolment)] == ["co_teacher"]


def test_a_class_keeps_its_title_when_rows_disagree(school: Store) -> None:
    made = plan(school, HEADER + ZOE + ALI.replace("Maths 10B", "Mathematics"))

    assert only(made, Severity.WARNING).line == 3
    assert any(c.label == "10B-MA Maths 10B" for c in made.changes)


def test_a_plan_of_a_school_that_has_changed_since_is_refused(school: Store) -> None:
    made = plan(school, HEADER + ZOE)
    school.write_now(lambda conn: a_person(conn, name="Somebody", email="zoe@example.edu"))

    with pytest.raises(ImportRefused) as refusal:
        school.write_now(lambda conn: apply_import(conn, SYSTEM, made, now=NOW))

    assert refusal.value.code == "roster_stale"
    assert len(rows(school, Person)) == 1


def test_only_an_admin_may_look_or_import(store: Store) -> None:
    lesson = a_class(store)
    outsiders = [lesson.teacher, lesson.student(), Author(lesson.guardian), Author(None), Author("nobody")]

    for author in outsiders:
        with pytest.raises(Denied):
            store.read_now(
                lambda conn, a=author: plan_import(conn, a, b"x", filename="x.csv", now=NOW)  # type: ignore[misc]
            )
    made = store.read_now(
        lambda conn: plan_import(conn, Author(lesson.admin), (HEADER + ZOE).encode(), filename="x", now=NOW)
    )
    for author in outsiders:
        with pytest.raises(Denied):
            store.write_now(lambda conn, a=author: apply_import(conn, a, made, now=NOW))  # type: ignore[misc]
    store.write_now(lambda conn: apply_import(conn, Author(lesson.admin), made, now=NOW))


# --- What is no roster at all ---


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf  \r\n", "empty"),
        (b"hello, world\n", "no column role"),
        (HEADER.encode(), "no rows"),
        (bytes(range(256)) * 40, "not a text file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
        (b"PK\x03\x04 xl/workbook.xml", "Excel"),
        (b"PK\x03\x04 cut off", "cannot be read"),
        (b"%PDF-1.7", "PDF"),
        (b"role," * 30_000 + b"\n", "columns"),
        (b"role,role,given_name,email\n", "twice"),
        (b'"' + b"x" * 200_000, "can"),
        (b"role,given_name,email\n" * 500_000, "MB"),
    ],
)
def test_what_is_no_roster_gets_one_clear_answer(school: Store, data: bytes, said: str) -> None:
    made = plan(school, data)

    assert not made.is_readable
    assert said in " ".join(problem.message for problem in made.problems)
    with pytest.raises(ImportRefused) as refusal:
        school.write_now(lambda conn: apply_import(conn, SYSTEM, made, now=NOW, skip_bad_rows=True))
    assert refusal.value.code == "roster_unreadable"


def test_a_file_of_ten_megabytes_of_rubbish_rows_is_answered_in_seconds(school: Store) -> None:
    started = time.monotonic()

    made = plan(school, (HEADER.encode() + b'"\n' * 5_000_000)[:MAX_UPLOAD_BYTES])

    assert made.has_errors or not made.is_readable
    assert time.monotonic() - started < 20


# --- OneRoster ---

MANIFEST = (
    "propertyName,value\nmanifest.version,1.0\noneroster.version,1.1\nfile.users,bulk\nfile.classes,bulk\n"
    "file.enrollments,bulk\nfile.orgs,bulk\nfile.demographics,absent\n"
)
USERS_11 = (
    "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,username,userIds,givenName,familyName,"
    "middleName,identifier,email,sms,phone,agentSourcedIds,grades,password,metadata.jp.kana\n"
)
USERS = [
    'U1001,,,true,S01,Student,zoe.okafor,"{SIS:1001}",Zoë,O’Kafor-Łuk,,1001,zoe@example.edu,,,G2001,"10,11",pw1,x',
    'U1002,,,true,"S01,S02",student,ali,,Ali,Can,,1002,,,,,10,pw2,',
    "U0007,,,TRUE,S01,teacher,rosa,,Rosa,Luz,,7,rosa@example.edu,,,,,pw3,",
    "G2001,,,true,S01,parent,ama,,Ama,O’Kafor,,2001,ama@example.edu,,,U1001,,pw4,",
]
CLASSES = (
    "sourcedId,status,dateLastModified,title,grades,courseSourcedId,classCode,classType,location,schoolSourcedId,"
    "termSourcedIds,subjects,subjectCodes,periods\n"
    'C-10B-MA,,,Maths 10B,10,MA10,10B/Ma,Scheduled,R12,S01,T1,Mathematics,02052,"P1,P4"\n'
)
ENROLLMENTS_HEADER = "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,beginDate,endDate\n"
ENROLLMENTS = [
    "E1,,,C-10B-MA,S01,U1001,student,,2026-09-07,",
    "E2,,,C-10B-MA,S01,U0007,TEACHER,true,,",
    "E3,,,C-10B-MA,S01,U1002,student,,2026-09-07,2026-12-18",
]


def oneroster(
    users: list[str] | None = None,
    enrollments: list[str] | None = None,
    *,
    ending: str = "\r\n",
    bom: str = "\ufeff",
    **others: str | None,
) -> bytes:
    """A zip as a roster system exports it; a file given as None is left out."""
    files: dict[str, str | None] = {
        "manifest": MANIFEST,
        "orgs": "sourcedId,name,type\nS01,Northgate School,school\n",
        "users": USERS_11 + "\n".join(USERS if users is None else users) + "\n",
        "classes": CLASSES,
        "enrollments": ENROLLMENTS_HEADER
        + "\n".join(ENROLLMENTS if enrollments is None else enrollments)
        + "\n",
        **others,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            if text is not None:
                archive.writestr(f"{name}.csv", bom + text.replace("\n", ending))
    return packed.getvalue()


def test_a_oneroster_zip_brings_the_school_and_no_passwords(school: Store) -> None:
    made = plan(school, oneroster())
    run(school, oneroster())

    assert made.problems == ()
    zoe = person(school, "U1001")
    assert (zoe.given_name, zoe.family_name, zoe.email) == ("Zoë", "O’Kafor-Łuk", "zoe@example.edu")
    assert {p.password_hash for p in rows(school, Person)} == {None}
    (section,) = rows(school, Section)
    assert (section.source_id, section.code, section.title, section.room) == (
        "C-10B-MA",
        "10B/Ma",
        "Maths 10B",
        "R12",
    )
    assert {e.source_id: e.role for e in rows(school, Enrolment)} == {
        "E1": "student",
        "E2": "teacher",
        "E3": "student",
    }
    assert len(rows(school, Guardianship)) == 1


def test_oneroster_1_2_takes_roles_from_their_own_file_and_preferred_names(school: Store) -> None:
    users = (
        "sourcedId,enabledUser,givenName,familyName,email,agentSourcedIds,userMasterIdentifier,resourceSourcedIds,"
        "preferredGivenName,pronouns\n"
        "U1001,true,Zoé,K,zoe@example.edu,,,r1,Zo,they\nU1002,true,Ali,C,,,,,,\nU0007,true,Rosa,L,,,,,,\n"
        "X1,true,Odd,One,,,,,,\n"
    )
    roles = (
        "sourcedId,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId\n"
        "R1,U1001,primary,STUDENT,,,S01\nR2,U1002,primary,student,,,S01\nR3,U0007,primary,teacher,,,S01\n"
        "R4,U0007,secondary,guardian,,,S01\nR5,X1,primary,counselor,,,S01\n"
    )

    made = plan(school, _with_users(users, roles))

    assert not made.has_errors
    assert "counselor" in only(made, Severity.WARNING).message
    labels = {c.label for c in made.changes if c.thing is Thing.PERSON}
    assert labels == {"Zo K (zoe@example.edu)", "Ali C (U1002)", "Rosa L (U0007)"}


def _with_users(users: str, roles: str) -> bytes:
    """``oneroster`` of version 1.2."""
    packed = io.BytesIO(oneroster(manifest=MANIFEST.replace("1.1", "1.2.1"), roles=roles))
    unpacked = {
        info.filename: zipfile.ZipFile(packed).read(info) for info in zipfile.ZipFile(packed).infolist()
    }
    unpacked["users.csv"] = users.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in unpacked.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_an_export_with_faults_is_listed_whole_and_the_good_rows_come_in_twice_the_same(
    school: Store,
) -> None:
    run(school, oneroster())
    lesson = school.read_now(lambda conn: conn.execute(select(table(Section))).one())
    marks = school.write_now(lambda conn: _mark_absent(conn, lesson.id, "U1002"))
    users = [
        USERS[0],
        USERS[2],
        USERS[3],
        USERS[0].replace("Zoë", "Someone"),
    ]  # Ali left; U1001 is there twice
    enrollments = [
        ENROLLMENTS[0],
        ENROLLMENTS[1],
        "E8,,,C-10B-MA,S01,U9999,student,,,",
        "E9,,,C-NONE,S01,U1001,student,,,",
    ]
    data = oneroster(users, enrollments)

    made = plan(school, data)
    result = run(school, data, skip=True)

    assert [(p.file, p.line, p.column) for p in made.problems if p.severity is Severity.ERROR] == [
        ("enrollments.csv", 4, "userSourcedId"),
        ("enrollments.csv", 5, "classSourcedId"),
        ("users.csv", 5, "sourcedId"),
    ]
    assert result.counts[Thing.PERSON].deactivate == 1
    assert not person(school, "U1002").is_active
    ended = next(e for e in rows(school, Enrolment) if e.source_id == "E3")
    assert ended.ends_at == NOW
    assert marks == school.read_now(_marks)
    later = NOW + timedelta(hours=2)
    assert plan(school, data, now=later).is_empty
    assert run(school, data, skip=True, now=later).counts[Thing.PERSON].deactivate == 0


def _mark_absent(conn: Connection, section_id: str, source_id: str) -> list[Any]:
    people_ = table(Person)
    student = conn.execute(select(people_.c.id).where(people_.c.source_id == source_id)).scalar_one()
    admin = a_person(conn, Role.ADMIN, name="Admin")
    meeting = a_meeting(conn, section_id)
    ops = [
        make(Kind.OPEN_MEETING, meeting_id=meeting.id),
        make(Kind.MARK, meeting_id=meeting.id, student_id=student, status="absent"),
    ]
    outcomes = record_batch(conn, [Submission(op, Author(admin), NOW) for op in ops], now=NOW).outcomes
    assert {str(outcome.outcome) for outcome in outcomes} == {"accepted"}
    return _marks(conn)


def _marks(conn: Connection) -> list[Any]:
    return [*conn.execute(select(table(RecordRow))), *conn.execute(select(table(OperationRow)))]


def test_somebody_who_comes_back_is_active_and_enrolled_again(school: Store) -> None:
    run(school, oneroster())
    run(school, oneroster([USERS[0], USERS[2], USERS[3]], ENROLLMENTS[:2]), now=NOW + DAY)

    run(school, oneroster(), now=NOW + 2 * DAY)

    assert person(school, "U1002").is_active
    assert next(e for e in rows(school, Enrolment) if e.source_id == "E3").ends_at > NOW + 2 * DAY


def test_people_who_did_not_come_by_an_import_stay(school: Store) -> None:
    by_hand = school.write_now(lambda conn: a_person(conn, name="Guest", email="guest@x.example"))
    admin = school.write_now(lambda conn: a_person(conn, Role.ADMIN, name="Head", source_id="ADM"))
    run(school, oneroster())

    assert {p.id: p.is_active for p in rows(school, Person)}[by_hand]
    assert {p.id: p.is_active for p in rows(school, Person)}[admin]


def test_deactivating_ends_the_log_ins(school: Store) -> None:
    run(school, oneroster())
    login = Login(
        id="login-1",
        person_id=person(school, "U1002").id,
        token_hash="x",
        created_at=NOW,
        seen_at=NOW,
        expires_at=NOW + DAY,
    )
    school.write_now(lambda conn: conn.execute(insert(table(Login)), [login.model_dump()]))

    result = run(school, oneroster([USERS[0], USERS[2], USERS[3]], ENROLLMENTS[:2]))

    assert result.ended_logins == ("login-1",)
    assert rows(school, Login)[0].revoked_at == NOW


@pytest.mark.parametrize(
    "manifest",
    [None, MANIFEST.replace("bulk", "delta"), "propertyName,value\n"],
    ids=["none", "delta", "empty"],
)
def test_what_is_missing_from_a_partial_export_stays(school: Store, manifest: str | None) -> None:
    run(school, oneroster())

    run(school, oneroster([USERS[0]], ENROLLMENTS[:1], manifest=manifest))

    assert all(p.is_active for p in rows(school, Person))
    assert {e.source_id for e in rows(school, Enrolment) if e.ends_at is None} == {"E1", "E2"}


def test_nobody_is_taken_out_when_rows_could_not_be_read(school: Store) -> None:
    run(school, oneroster())

    made = plan(school, oneroster([USERS[0], '"U1002,broken', USERS[2], USERS[3]]))

    assert made.counts[Thing.PERSON].deactivate == 0
    assert any("nothing that is missing" in p.message for p in made.problems)


def test_a_row_with_a_fault_is_not_missing(school: Store) -> None:
    run(school, oneroster())

    faulty = USERS[1].replace("student", "wizard")
    run(school, oneroster([USERS[0], faulty, USERS[2], USERS[3]]), skip=True)

    assert person(school, "U1002").is_active


def test_rows_marked_to_be_deleted_are_taken_out_of_use(school: Store) -> None:
    run(school, oneroster())
    delta = MANIFEST.replace("bulk", "delta")
    gone = USERS[1].replace("U1002,,", "U1002,ToBeDeleted,")

    run(school, oneroster([gone], ["E3,tobedeleted,,C-10B-MA,S01,U1002,student,,,"], manifest=delta))

    assert not person(school, "U1002").is_active
    assert next(e for e in rows(school, Enrolment) if e.source_id == "E3").ends_at == NOW


def test_a_class_that_is_gone_is_out_of_use_and_its_enrolments_end(school: Store) -> None:
    run(school, oneroster())
    other = CLASSES.replace("C-10B-MA", "C-11").replace("10B/Ma", "11/Ma")

    run(school, oneroster(enrollments=["E7,,,C-11,S01,U1001,student,,,"], classes=other))

    assert {s.source_id: s.is_active for s in rows(school, Section)} == {"C-10B-MA": False, "C-11": True}
    assert {e.source_id for e in rows(school, Enrolment) if e.ends_at is None} == {"E7"}


def test_a_guardian_who_is_one_no_longer_may_see_the_child_no_longer(school: Store) -> None:
    run(school, oneroster([*USERS, "G3,,,true,S01,guardian,,,Li,,,,,,,U1002,,,"]))
    assert len(rows(school, Guardianship)) == 2

    users = [USERS[0].replace("G2001", ""), *USERS[1:3], USERS[3].replace("U1001", "")]
    run(school, oneroster([*users, "G3,,,true,S01,guardian,,,Li,,,,,,,U1002,,,"]))

    (left,) = rows(school, Guardianship)
    assert left.student_id == person(school, "U1002").id


def test_new_enrolment_ids_for_the_same_places_keep_the_enrolments(school: Store) -> None:
    run(school, oneroster())
    before = {e.id for e in rows(school, Enrolment)}

    run(school, oneroster(enrollments=[row.replace("E", "N", 1) for row in ENROLLMENTS]))

    assert {e.id for e in rows(school, Enrolment)} == before
    assert {e.source_id for e in rows(school, Enrolment)} == {"N1", "N2", "N3"}


def test_what_was_entered_by_hand_is_recognised_and_not_doubled(school: Store) -> None:
    def by_hand(conn: Connection) -> None:
        section = a_section(conn, code="10B/Ma", title="Old title", room="")
        an_enrolment(conn, section, a_person(conn, name="Zoë", email="zoe@example.edu"))

    school.write_now(by_hand)

    made = plan(school, oneroster())
    run(school, oneroster())

    assert made.counts[Thing.SECTION].update == 1
    assert [(e.source_id) for e in rows(school, Enrolment)].count("E1") == 1
    assert len(rows(school, Enrolment)) == 3
    assert person(school, "U1001").email == "zoe@example.edu"


def test_leaving_out_half_of_the_school_is_warned_of(school: Store) -> None:
    many = [f"P{n},,,true,S01,student,,,Kid {n},X,,,,,,,,," for n in range(20)]
    run(school, oneroster([*USERS, *many]))

    made = plan(school, oneroster())

    assert "20 of 24" in only(made, Severity.WARNING).message


def test_a_zip_bomb_is_refused_and_nothing_touches_the_disk(
    school: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    bomb = oneroster(users=["x" * 40_000_000])
    assert len(bomb) < 1_000_000
    crowd = io.BytesIO()
    with zipfile.ZipFile(crowd, "w") as archive:
        for number in range(101):
            archive.writestr(f"../../evil{number}.csv", "")
    climber = io.BytesIO()
    with zipfile.ZipFile(climber, "w") as archive:
        archive.writestr("../../users.csv", "sourcedId\n")

    for data in (bomb, crowd.getvalue(), climber.getvalue()):
        made = plan(school, data)
        assert not made.is_readable
        assert made.has_errors
    assert sorted(tmp_path.iterdir()) == before


# --- Laws ---


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Any:
    """A school that all examples of a law share; dry runs leave it as it is."""
    store = open_store(Settings(data=tmp_path_factory.mktemp("laws")))
    store.migrate()
    store.write_now(a_school)
    run(store, HEADER + ZOE + ALI + TEACHER + PARENT)
    run(store, oneroster(manifest=None, users=[u.replace("@example", "@two") for u in USERS]))
    yield store
    store.close()


relaxed = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCRAPS = st.sampled_from(
    [b'"', b",", b";", b"\n", b"\r\n", b"\0", b"\xff", b"\xe9", b"\xef\xbb\xbf", b"'", b"student", b"role", b"S1"]
    + [text.encode() for text in (HEADER, ZOE, TEACHER, PARENT, "Zoë", "\u202e", "guardian", "zoe@example.edu")]
    + [b"2026-09-07", b"9999-12-31", b"0000-00-00", b"-1", b"=1+1"]
)  # fmt: skip


@relaxed
@given(
    st.one_of(
        st.binary(max_size=400),
        st.lists(SCRAPS, max_size=40).map(b"".join),
        st.lists(SCRAPS, max_size=40).map(lambda parts: HEADER.encode() + b"".join(parts)),
        st.text(max_size=200).map(lambda text: text.encode("utf-16", errors="surrogatepass")),
    )
)
def test_any_bytes_give_a_plan_whose_problems_can_be_shown(lasting: Store, data: bytes) -> None:
    made = plan(lasting, data)

    assert made.is_readable or made.error_count > 0
    for problem in made.problems:
        assert problem.message
        assert problem.hint
        assert problem.line is None or problem.line >= 1


@relaxed
@given(
    st.sampled_from(["users", "classes", "enrollments", "manifest", "roles", "courses"]),
    st.lists(SCRAPS, max_size=30).map(b"".join),
    st.booleans(),
)
def test_any_bytes_inside_a_zip_give_a_plan(
    lasting: Store, name: str, data: bytes, is_appended: bool
) -> None:
    text = data.decode("latin-1")
    base = {"users": USERS_11 + USERS[0], "classes": CLASSES, "enrollments": ENROLLMENTS_HEADER}.get(name, "")
    packed = io.BytesIO(oneroster())
    source = zipfile.ZipFile(packed)
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for info in source.infolist():
            if info.filename != f"{name}.csv":
                archive.writestr(info.filename, source.read(info))
        archive.writestr(f"{name}.csv", (base + text if is_appended else text).encode("latin-1", "replace"))

    made = plan(lasting, changed.getvalue())

    assert made.is_readable or made.error_count > 0


@relaxed
@given(st.data())
def test_a_damaged_zip_gives_a_plan(lasting: Store, data: st.DataObject) -> None:
    packed = bytearray(oneroster())
    for position in data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=8)):
        packed[position] = data.draw(st.integers(0, 255))

    plan(lasting, bytes(packed[: data.draw(st.integers(0, len(packed)))]))


def _is_name(text: str) -> bool:
    try:
        return clean_name("given_name", text) == text
    except InvalidInput:
        return False


NAMES = st.text(min_size=1, max_size=40).filter(lambda text: _is_name(text) and "\ufffd" not in text)


@relaxed
@given(
    st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=6),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_names_in_all_scripts_come_through_unchanged(
    lasting: Store, names: list[tuple[str, str]], encoding: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["role", "given_name", "family_name", "source_id"])
    writer.writerows(["student", given, family, f"law-{n}"] for n, (given, family) in enumerate(names))

    made = plan(lasting, text.getvalue().encode(encoding))

    assert made.problems == ()
    found = [
        tuple({f.field: f.after for f in change.fields}[name] for name in ("given_name", "family_name"))
        for change in made.changes
        if change.action is Action.CREATE
    ]
    assert found == names


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["student", "teacher", "co_teacher", "substitute", "guardian"]),
        st.sampled_from(["A", "B", "C", "D"]),
        st.sampled_from(["", "A", "B", "M"]),
        st.sampled_from(["", "2026-09-07", "2026-10-05", "2026-11-23", "2027-01-11"]),
        st.sampled_from(["", "2026-09-30", "2026-11-22", "2026-12-18", "2027-02-01"]),
        st.sampled_from(["", "A", "b@x.example"]),
    ),
    max_size=10,
)


class _Undo(Exception):
    """Takes everything back that an example wrote."""


@settings(relaxed, max_examples=300)
@given(ENTRIES, ENTRIES, st.integers(0, 40))
def test_importing_twice_is_importing_once_whatever_was_there(
    lasting: Store, first: Any, second: Any, days: int
) -> None:
    def text(entries: Any) -> bytes:
        lines = (
            f"{role},Kid {who},,{who.lower()}@x.example,{who},{code},,{begin},{end},{of}\n"
            for role, who, code, begin, end, of in entries
        )
        return (HEADER + "".join(lines)).encode()

    def example(conn: Connection) -> None:
        def go(entries: Any, now: datetime) -> ImportPlan:
            made = plan_import(conn, SYSTEM, text(entries), filename="x.csv", now=now)
            if made.is_readable:
                apply_import(conn, SYSTEM, made, now=now, skip_bad_rows=True)
            return made

        go(first, NOW)
        go(second, NOW + days * DAY)
        _check_places(conn)
        again = go(second, NOW + days * DAY)
        assert again.is_empty, again.changes
        raise _Undo

    with pytest.raises(_Undo):
        lasting.write_now(example)


EXPORTS = st.tuples(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B", "C", "D"]),
            st.sampled_from(["student", "student", "teacher", "parent", "proctor"]),
            st.sampled_from(["true", "true", "false"]),
            st.sampled_from(["", "", "tobedeleted"]),
            st.sampled_from(["", "a@x.example", "b@x.example"]),
            st.sampled_from(["", "A", "B", "X"]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["E1", "E2", "E3", "E4"]),
            st.sampled_from(["A", "B", "C"]),
            st.sampled_from(["student", "student", "teacher"]),
            st.sampled_from(["", "2026-09-07", "2026-11-23", "2027-01-11"]),
            st.sampled_from(["", "2026-10-30", "2026-12-18"]),
            st.sampled_from(["", "", "tobedeleted"]),
        ),
        max_size=5,
    ),
    st.sampled_from([MANIFEST, MANIFEST, MANIFEST.replace("bulk", "delta")]),
)


@settings(relaxed, max_examples=150)
@given(st.lists(EXPORTS, min_size=1, max_size=3), st.integers(0, 40))
def test_importing_an_export_twice_is_importing_it_once(lasting: Store, exports: Any, days: int) -> None:
    def packed(export: Any) -> bytes:
        users = [
            f"{who},{status},,{enabled},S01,{role},,,Kid {who},,,,{email},,,{agent},,,"
            for who, role, enabled, status, email, agent in export[0]
        ]
        enrollments = [
            f"{key},{status},,C-10B-MA,S01,{who},{role},,{begin},{end}"
            for key, who, role, begin, end, status in export[1]
        ]
        return oneroster(users, enrollments, manifest=export[2])

    def example(conn: Connection) -> None:
        for number, export in enumerate(exports):
            for _ in range(2):
                now = NOW + number * days * DAY
                made = plan_import(conn, SYSTEM, packed(export), filename="x.zip", now=now)
                apply_import(conn, SYSTEM, made, now=now, skip_bad_rows=True)
                _check_places(conn)
        again = plan_import(conn, SYSTEM, packed(exports[-1]), filename="x.zip", now=now + DAY / 2)
        assert again.is_empty, again.changes
        raise _Undo

    with pytest.raises(_Undo):
        lasting.write_now(example)


def _check_places(conn: Connection) -> None:
    """One person has one place in a section at a time."""
    open_end = datetime.max.replace(tzinfo=UTC)
    places: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for row in conn.execute(select(table(Enrolment))):
        places.setdefault((row.person_id, row.section_id), []).append(
            (row.begins_at, row.ends_at or open_end)
        )
    for spans in places.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_sixty_thousand_rows_are_planned_and_imported_in_seconds(school: Store) -> None:
    lines = [
        f"student,Zoë{n},Kafor{n},s{n}@x.example,S{n},C{c}-{n // 30},Title {c},2026-09-07,,\n"
        for n in range(6_000)
        for c in range(10)
    ]
    data = (HEADER + "".join(lines)).encode()
    started = time.monotonic()

    made = plan(school, data)
    planned = time.monotonic()
    school.write_now(lambda conn: apply_import(conn, SYSTEM, made, now=NOW))

    assert made.counts[Thing.ENROLMENT].create == 60_000
    assert planned - started < 20  # about 3 s on two quiet cores
    assert time.monotonic() - planned < 10  # about 1 s, the time that the writer is held
