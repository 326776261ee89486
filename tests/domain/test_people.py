"""People, sections and enrolments: who may change them, what is refused, and who stands where when."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select

from domain import people, sections
from domain.access import NOBODY, SYSTEM, Author, Denied
from domain.clock import ManualClock
from domain.inputs import InvalidInput, clean_email, clean_name
from domain.model import Enrolment, EnrolmentRole, Guardianship, Login, Person, Role, Section, table
from domain.people import PersonView
from domain.store import Store, Work
from tests.factories import NOW, AClass, a_class, a_person, a_school, a_section, an_enrolment

pytestmark = pytest.mark.both_databases

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def create(store: Store, author: Author = SYSTEM, **values: Any) -> PersonView:
    """``people.create_person`` with defaults."""
    values = {"role": Role.STUDENT, "given_name": "Ada"} | values
    return store.write_now(lambda conn: people.create_person(conn, author, now=NOW, **values))


def refused(store: Store, work: Work[Any]) -> InvalidInput:
    """The refusal of a write."""
    with pytest.raises(InvalidInput) as error:
        store.write_now(work)
    return error.value


def enrol(
    store: Store, section_id: str, person_id: str, role: EnrolmentRole = EnrolmentRole.STUDENT, **values: Any
) -> sections.EnrolmentView:
    """``sections.enrol`` with defaults."""
    values = {"begins_at": NOW} | values
    return store.write_now(
        lambda conn: sections.enrol(
            conn, SYSTEM, now=NOW, section_id=section_id, person_id=person_id, role=role, **values
        )
    )


# --- Names and e-mails ---


@pytest.mark.parametrize(
    "name",
    [
        "O’Brien-D'Angelo",
        "李小龍",
        "محمد بن سلمان",
        "José",
        "Дмитрий",
        "X",
        "👩‍🏫 Ms. Frizzle",
        "می‌خواهم",
        "N" * 120,
        "Robert'); DROP TABLE people;--",
        "<b>Ada</b>",
    ],
)
def test_a_name_is_kept_as_its_owner_writes_it(store: Store, name: str) -> None:
    person = create(store, given_name=f"  {name} ")

    assert store.read_now(lambda conn: people.find_person(conn, person.id)) == person
    assert person.given_name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "\u200d",
        "a\x00b",
        "a\nb",
        "a\x1bb",
        "\u202eevil",
        "a\u2028b",
        "\ud800",
        "N" * 121,
        "N" * 10**6,
    ],
)
def test_a_name_that_cannot_be_shown_is_refused(store: Store, name: str) -> None:
    error = refused(
        store, lambda conn: people.create_person(conn, SYSTEM, now=NOW, role=Role.STUDENT, given_name=name)
    )

    assert error.field == "given_name"
    assert error.message.startswith("Given name")


@given(st.text(max_size=200))
def test_any_text_is_a_clean_name_or_a_refusal(text: str) -> None:
    try:
        name = clean_name("given_name", text)
    except InvalidInput:
        return

    assert 1 <= len(name) <= 120
    assert clean_name("given_name", name) == name


def test_one_name_written_in_two_unicode_forms_is_one_name() -> None:
    assert clean_name("given_name", "Jose\u0301") == clean_name("given_name", "Jos\u00e9")


@pytest.mark.parametrize(
    "email", ["a@b.co", "Ada.Lovelace+x@Sub.Demo.School", "jörg@schule.example", "o'neil@demo.school"]
)
def test_an_email_is_stored_in_lower_case(email: str) -> None:
    assert clean_email(f" {email} ") == email.lower()


@pytest.mark.parametrize(
    "email",
    [
        "ada",
        "@demo.school",
        "ada@",
        "ada@demo",
        "a b@demo.school",
        "ada@demo..school",
        "ada@-demo.school",
        "a@b@c.de",
        "x" * 65 + "@demo.school",
        "a@" + "d" * 300 + ".school",
        "ada@demo.school\u202e",
    ],
)
def test_what_is_no_email_is_refused(email: str) -> None:
    with pytest.raises(InvalidInput) as error:
        clean_email(email)

    assert error.value.field == "email"


def test_two_people_cannot_have_one_email_whatever_its_case(store: Store) -> None:
    create(store, given_name="Ada", email="ada@demo.school")
    other = create(store, given_name="Bob")

    taken = refused(
        store,
        lambda conn: people.create_person(
            conn, SYSTEM, now=NOW, role=Role.STUDENT, given_name="Eve", email="ADA@demo.school"
        ),
    )
    moved = refused(
        store, lambda conn: people.update_person(conn, SYSTEM, other.id, now=NOW, email="Ada@Demo.School")
    )

    assert (taken.field, taken.message) == ("email", "Ada has this e-mail already.")
    assert moved.field == "email"


def test_people_may_have_no_email(store: Store) -> None:
    assert [create(store, email=email).email for email in (None, "", " ")] == [None] * 3


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("role", {"role": "principal"}),
        ("language", {"language": "english"}),
        ("source_id", {"source_id": "x" * 121}),
    ],
)
def test_other_fields_are_checked_by_name(store: Store, field: str, values: dict[str, Any]) -> None:
    values = {"role": Role.STUDENT, "given_name": "Ada"} | values

    assert refused(store, lambda conn: people.create_person(conn, SYSTEM, now=NOW, **values)).field == field


# --- Who may change people ---


def all_writes(school: AClass) -> list[Any]:
    """Every write of people, sections and enrolments, as functions of (conn, author)."""
    student, section = school.students[0], school.section_id
    return [
        lambda c, a: people.create_person(c, a, now=NOW, role=Role.ADMIN, given_name="Eve"),
        lambda c, a: people.update_person(c, a, student, now=NOW, role=Role.ADMIN),
        lambda c, a: people.deactivate_person(c, a, student, now=NOW),
        lambda c, a: people.reactivate_person(c, a, student, now=NOW),
        lambda c, a: people.set_password_hash(c, a, student, "x", now=NOW),
        lambda c, a: people.add_guardian(
            c, a, guardian_id=school.guardian, student_id=school.students[1], now=NOW
        ),
        lambda c, a: people.remove_guardian(c, a, guardian_id=school.guardian, student_id=student, now=NOW),
        lambda c, a: people.list_people(c, a, now=NOW),
        lambda c, a: sections.create_section(c, a, now=NOW, code="X", title="X"),
        lambda c, a: sections.update_section(c, a, section, now=NOW, title="X"),
        lambda c, a: sections.enrol(
            c,
            a,
            now=NOW,
            section_id=section,
            person_id=school.admin,
            role=EnrolmentRole.TEACHER,
            begins_at=NOW,
        ),
        lambda c, a: sections.change_enrolment(c, a, "x", now=NOW, begins_at=NOW, ends_at=None),
        lambda c, a: sections.end_enrolment(c, a, "x", now=NOW),
        lambda c, a: sections.list_sections(c, a, now=NOW),
    ]


def dump(conn: Connection) -> list[Any]:
    """Everything that could have changed."""
    return [conn.execute(select(table(model))).all() for model in (Person, Section, Enrolment, Guardianship)]


def test_nobody_but_an_admin_changes_people_sections_or_enrolments(store: Store) -> None:
    school = a_class(store)
    before = store.read_now(dump)
    strangers = [
        school.teacher,
        school.co_teacher,
        school.student(),
        Author(school.guardian),
        Author(None),
        Author("unknown"),
    ]

    for write in all_writes(school):
        for author in strangers:
            with pytest.raises(Denied):
                store.write_now(partial(write, a=author))

    assert store.read_now(dump) == before


def test_an_admin_who_was_deactivated_or_logged_out_changes_nothing_more(store: Store) -> None:
    school = a_class(store)
    other = create(store, role=Role.ADMIN)

    def add_login(conn: Connection) -> None:
        login = Login(
            id="login", person_id=other.id, token_hash="x", created_at=NOW, seen_at=NOW, expires_at=NOW + HOUR
        )
        conn.execute(insert(Login), [login.model_dump()])

    store.write_now(add_login)
    author = Author(other.id, "login")
    person = create(store, author)
    with pytest.raises(Denied):
        store.write_now(
            lambda conn: people.create_person(
                conn, author, now=NOW + HOUR, role=Role.STUDENT, given_name="Late"
            )
        )
    with pytest.raises(Denied):
        create(store, Author(school.admin, "login"))
    change = store.write_now(lambda conn: people.deactivate_person(conn, SYSTEM, other.id, now=NOW))

    assert person.given_name == "Ada"
    assert change.ended_logins == ("login",)
    with pytest.raises(Denied):
        create(store, Author(other.id))


def test_the_last_admin_stays(store: Store) -> None:
    admin = create(store, role=Role.ADMIN)

    assert (
        refused(store, lambda conn: people.deactivate_person(conn, SYSTEM, admin.id, now=NOW)).field
        == "is_active"
    )
    assert (
        refused(
            store, lambda conn: people.update_person(conn, SYSTEM, admin.id, now=NOW, role=Role.TEACHER)
        ).field
        == "role"
    )
    create(store, role=Role.ADMIN)
    assert not store.write_now(
        lambda conn: people.deactivate_person(conn, Author(admin.id), admin.id, now=NOW)
    ).person.is_active


def test_an_update_changes_what_is_named_and_nothing_else(store: Store) -> None:
    person = create(store, family_name="King", email="ada@demo.school", language="de")

    changed = store.write_now(
        lambda conn: people.update_person(conn, SYSTEM, person.id, now=NOW, family_name="Lovelace")
    ).person

    assert changed == store.read_now(lambda conn: people.find_person(conn, person.id))
    assert (changed.name, changed.email, changed.language) == ("Ada Lovelace", "ada@demo.school", "de")


def test_somebody_unknown_is_refused_by_name(store: Store) -> None:
    assert (
        refused(store, lambda conn: people.update_person(conn, SYSTEM, "nobody", now=NOW)).field
        == "person_id"
    )
    assert (
        refused(store, lambda conn: people.deactivate_person(conn, SYSTEM, "nobody", now=NOW)).field
        == "person_id"
    )


def test_whoever_teaches_or_is_taught_keeps_the_role_until_that_ends(store: Store) -> None:
    school = a_class(store)

    assert (
        refused(
            store,
            lambda conn: people.update_person(conn, SYSTEM, school.teachers[0], now=NOW, role=Role.STUDENT),
        ).field
        == "role"
    )
    assert (
        refused(
            store,
            lambda conn: people.update_person(conn, SYSTEM, school.students[0], now=NOW, role=Role.TEACHER),
        ).field
        == "role"
    )


def test_people_choose_their_own_language_themselves(store: Store) -> None:
    ada, bob = create(store), create(store)

    store.write_now(lambda conn: people.choose_language(conn, Author(ada.id), "pt-BR"))

    languages = {
        person.id: person.language
        for person in store.read_now(lambda conn: people.list_people(conn, SYSTEM, now=NOW)).items
    }
    assert languages == {ada.id: "pt-BR", bob.id: "en"}


# --- Lists ---


def found(store: Store, **values: Any) -> list[str]:
    return [
        person.name
        for person in store.read_now(lambda conn: people.list_people(conn, SYSTEM, now=NOW, **values)).items
    ]


def test_people_are_found_by_parts_of_name_and_email_in_any_case(store: Store) -> None:
    create(store, given_name="Ada", family_name="Lovelace", email="countess@demo.school")
    create(store, given_name="Zoë", family_name="Öztürk", role=Role.TEACHER)
    create(store, given_name="李", family_name="小龍")

    assert found(store, search="LOVE") == ["Ada Lovelace"]
    assert found(store, search="ada lace") == found(store, search="countess@") == ["Ada Lovelace"]
    assert found(store, search="öztürk") == found(store, search="ÖZTÜRK") == ["Zoë Öztürk"]
    assert found(store, search="小龍") == ["李 小龍"]
    assert found(store, search="ada öztürk") == []
    assert found(store, role=Role.TEACHER) == ["Zoë Öztürk"]


@pytest.mark.parametrize("search", ["%", "_", "\\", "' OR '1'='1", "[a]"])
def test_a_search_has_no_special_characters(store: Store, search: str) -> None:
    create(store)

    assert found(store, search=search) == []


def test_a_list_comes_in_pages_with_the_length_of_the_whole(store: Store) -> None:
    for number in range(25):
        create(store, given_name=f"Student {number:02}", family_name="Same")

    page = store.read_now(
        lambda conn: people.list_people(conn, SYSTEM, now=NOW, search="same", offset=10, limit=10)
    )
    beyond = store.read_now(lambda conn: people.list_people(conn, SYSTEM, now=NOW, offset=10**12, limit=-5))

    assert [person.given_name for person in page.items] == [f"Student {number}" for number in range(10, 20)]
    assert page.total == 25
    assert (beyond.items, beyond.total) == ([], 25)


def test_deactivated_people_can_be_left_out_of_a_list(store: Store) -> None:
    person = create(store)
    store.write_now(lambda conn: people.deactivate_person(conn, SYSTEM, person.id, now=NOW))

    assert found(store, is_active=True) == []
    assert found(store, is_active=False) == ["Ada"]


def test_sections_are_listed_with_their_staff_and_number_of_students(store: Store) -> None:
    school = a_class(store, students=3)
    store.write_now(
        lambda conn: an_enrolment(conn, school.section_id, a_person(conn), ends_at=NOW)
    )  # has left
    store.write_now(lambda conn: a_section(conn, code="EMPTY", title="Nobody here"))

    page = store.read_now(lambda conn: sections.list_sections(conn, SYSTEM, now=NOW))

    assert [(s.section.code, [role for _, _, role in s.staff], s.student_count) for s in page.items] == [
        ("10B-MA", ["teacher", "co_teacher"], 3),
        ("EMPTY", [], 0),
    ]
    assert page.total == 2


# --- Enrolments and standing ---


def test_an_enrolment_holds_from_its_beginning_up_to_its_end(store: Store) -> None:
    school = a_class(store, students=0)
    student = create(store)
    enrol(store, school.section_id, student.id, begins_at=NOW, ends_at=NOW + DAY)

    def is_student(at: datetime) -> bool:
        return store.read_now(
            lambda conn: people.load_standing(conn, student.id, school.section_id, at)
        ).is_student

    millisecond = timedelta(milliseconds=1)
    assert [is_student(at) for at in (NOW - millisecond, NOW, NOW + DAY - millisecond, NOW + DAY)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_substitute_is_staff_inside_the_time_box_only(store: Store) -> None:
    school = a_class(store)
    substitute = create(store, role=Role.TEACHER)
    enrol(store, school.section_id, substitute.id, EnrolmentRole.SUBSTITUTE, ends_at=NOW + HOUR)

    def is_staff(at: datetime) -> bool:
        return store.read_now(
            lambda conn: people.load_standing(conn, substitute.id, school.section_id, at)
        ).is_staff

    assert [is_staff(NOW - HOUR), is_staff(NOW), is_staff(NOW + HOUR)] == [False, True, False]
    endless = refused(
        store,
        lambda conn: sections.enrol(
            conn,
            SYSTEM,
            now=NOW,
            section_id=school.section_id,
            person_id=create_in(conn),
            role=EnrolmentRole.SUBSTITUTE,
            begins_at=NOW,
        ),
    )
    assert endless.field == "ends_at"


def create_in(conn: Connection) -> str:
    return a_person(conn, Role.TEACHER)


def test_somebody_inactive_is_staff_of_nothing(store: Store) -> None:
    school = a_class(store)
    store.write_now(lambda conn: people.deactivate_person(conn, SYSTEM, school.teachers[0], now=NOW))

    standing = store.read_now(
        lambda conn: people.load_standing(conn, school.teachers[0], school.section_id, NOW)
    )

    assert not standing.is_staff
    assert not store.read_now(
        lambda conn: people.may_see_student(conn, school.teachers[0], school.students[0], NOW)
    )


def test_many_standings_are_the_same_as_one_by_one(store: Store) -> None:
    school = a_class(store, students=450)
    other = store.write_now(lambda conn: a_section(conn, code="OTHER"))
    pairs = [
        (p, s)
        for p in [*school.teachers, *school.students, school.admin, "nobody"]
        for s in (school.section_id, other)
    ]

    together = store.read_now(lambda conn: people.load_standings(conn, pairs, NOW))
    sample = pairs[:6] + pairs[-6:]

    assert len(together) == len(pairs)
    assert {pair: together[pair] for pair in sample} == {
        (person, section): store.read_now(
            partial(people.load_standing, person_id=person, section_id=section, at=NOW)
        )
        for person, section in sample
    }
    assert together["nobody", other] == NOBODY
    assert together[school.admin, other].is_admin


def test_nobody_is_in_one_section_twice_at_a_time(store: Store) -> None:
    school = a_class(store)
    student = create(store)
    enrol(store, school.section_id, student.id, begins_at=NOW, ends_at=NOW + DAY)

    for begins_at, ends_at in [
        (NOW, None),
        (NOW - DAY, NOW + HOUR),
        (NOW - DAY, None),
        (NOW + HOUR, NOW + 2 * HOUR),
    ]:
        with pytest.raises(InvalidInput) as error:
            enrol(store, school.section_id, student.id, begins_at=begins_at, ends_at=ends_at)
        assert error.value.field == "begins_at"

    enrol(store, school.section_id, student.id, begins_at=NOW + DAY)
    enrol(store, school.section_id, student.id, begins_at=NOW - DAY, ends_at=NOW)


def test_an_enrolment_must_fit_the_person_and_have_a_real_interval(store: Store) -> None:
    school = a_class(store)

    def try_to(**values: Any) -> str:
        values = {
            "section_id": school.section_id,
            "person_id": school.admin,
            "role": EnrolmentRole.TEACHER,
        } | values
        with pytest.raises(InvalidInput) as error:
            enrol(store, **values)
        return error.value.field

    assert try_to(ends_at=NOW) == "ends_at"
    assert try_to(ends_at=NOW - HOUR) == "ends_at"
    assert try_to(begins_at=NOW.replace(tzinfo=None)) == "begins_at"
    assert try_to(person_id="nobody") == "person_id"
    assert try_to(section_id="nowhere") == "section_id"
    assert try_to(role="principal") == "role"
    assert try_to(role=EnrolmentRole.STUDENT) == "role"
    assert (
        try_to(
            person_id=school.students[0], section_id=store.write_now(lambda conn: a_section(conn, code="B"))
        )
        == "role"
    )


def test_an_enrolment_is_ended_and_stays_known(store: Store) -> None:
    school = a_class(store)
    student = create(store)
    enrolment = enrol(store, school.section_id, student.id, begins_at=NOW - DAY)

    store.write_now(lambda conn: sections.end_enrolment(conn, SYSTEM, enrolment.id, now=NOW))

    (kept,) = store.read_now(
        lambda conn: sections.enrolments_of(conn, Author(student.id), student.id, now=NOW)
    )
    assert (kept.begins_at, kept.ends_at, kept.section_code) == (NOW - DAY, NOW, "10B-MA")
    assert kept.holds(NOW - HOUR)
    assert not kept.holds(NOW)


def test_an_enrolment_that_has_not_begun_can_be_taken_out(store: Store) -> None:
    school = a_class(store)
    student = create(store)
    enrolment = enrol(store, school.section_id, student.id, begins_at=NOW + DAY)

    assert store.write_now(lambda conn: sections.end_enrolment(conn, SYSTEM, enrolment.id, now=NOW)) is None
    assert store.read_now(lambda conn: sections.enrolments_of(conn, SYSTEM, student.id, now=NOW)) == []


def test_the_roster_of_an_instant_is_seen_by_staff_and_admins(store: Store) -> None:
    school = a_class(store, students=2)
    later = create(store, given_name="Later")
    enrol(store, school.section_id, later.id, begins_at=NOW + DAY)

    def roster(author: Author, at: datetime) -> list[str]:
        views = store.read_now(
            lambda conn: sections.roster_of(conn, author, school.section_id, at=at, now=NOW)
        )
        return sorted(view.person_name for view in views if view.role is EnrolmentRole.STUDENT)

    assert roster(school.teacher, NOW) == ["Student 1 Test", "Student 2 Test"]
    assert roster(Author(school.admin), NOW + DAY) == ["Later", "Student 1 Test", "Student 2 Test"]
    for author in (school.student(), Author(school.guardian), Author(None)):
        with pytest.raises(Denied):
            roster(author, NOW)


def test_a_students_record_is_seen_by_the_student_guardians_staff_and_admins(store: Store) -> None:
    school, elsewhere = a_class(store), a_class(store, code="OTHER")
    ada = school.students[0]
    may = [ada, school.guardian, *school.teachers, school.admin]
    may_not = [
        school.students[1],
        elsewhere.guardian,
        elsewhere.teachers[0],
        elsewhere.students[0],
        "nobody",
        None,
    ]

    def sees(viewer: str | None) -> bool:
        return store.read_now(lambda conn: people.may_see_student(conn, viewer, ada, NOW))

    assert [sees(viewer) for viewer in may] == [True] * len(may)
    assert [sees(viewer) for viewer in may_not] == [False] * len(may_not)


def test_a_teacher_teaches_a_student_while_both_are_in_the_section(store: Store) -> None:
    school = a_class(store)
    student = create(store)
    enrol(store, school.section_id, student.id, begins_at=NOW, ends_at=NOW + DAY)

    def teaches(at: datetime) -> bool:
        return store.read_now(lambda conn: people.teaches_student(conn, school.teachers[0], student.id, at))

    assert [teaches(NOW - HOUR), teaches(NOW), teaches(NOW + DAY)] == [False, True, False]


def test_guardians_are_given_and_taken_by_an_admin(store: Store) -> None:
    school = a_class(store, students=1)
    second = create(store, given_name="Second", role=Role.GUARDIAN)

    for _ in range(2):  # twice changes nothing
        store.write_now(
            lambda conn: people.add_guardian(
                conn, SYSTEM, guardian_id=second.id, student_id=school.students[0], now=NOW
            )
        )
    both = store.read_now(lambda conn: people.guardians_of(conn, school.students[0]))
    store.write_now(
        lambda conn: people.remove_guardian(
            conn, SYSTEM, guardian_id=second.id, student_id=school.students[0], now=NOW
        )
    )

    assert [guardian.name for guardian in both] == ["Second", "Guardian Test"]
    assert store.read_now(lambda conn: people.students_of(conn, second.id)) == []
    assert [
        s.id for s in store.read_now(lambda conn: people.students_of(conn, school.guardian))
    ] == school.students
    for guardian, student, field in [
        (school.students[0], school.students[0], "guardian_id"),
        (second.id, school.admin, "student_id"),
    ]:
        give = partial(people.add_guardian, guardian_id=guardian, student_id=student, now=NOW)
        error = refused(store, partial(give, author=SYSTEM))
        assert error.field == field


def test_people_see_their_active_sections_of_now(store: Store, clock: ManualClock) -> None:
    school = a_class(store)

    def own(at: datetime) -> list[tuple[str, EnrolmentRole]]:
        return [
            (s.code, role)
            for s, role in store.read_now(lambda conn: sections.sections_of(conn, school.teachers[0], at))
        ]

    assert own(NOW) == [("10B-MA", EnrolmentRole.TEACHER)]
    assert own(NOW - 365 * DAY) == []
    store.write_now(
        lambda conn: sections.update_section(conn, SYSTEM, school.section_id, now=NOW, is_active=False)
    )
    assert own(NOW) == []


def test_a_section_lives_in_the_schools_zone_unless_said(store: Store) -> None:
    store.write_now(a_school)

    def create_section(**values: Any) -> sections.SectionView:
        return store.write_now(
            lambda conn: sections.create_section(
                conn, SYSTEM, now=NOW, **({"code": "7A", "title": "Art"} | values)
            )
        )

    assert create_section().zone == "Europe/Berlin"
    assert create_section(code="7B", zone="Asia/Tokyo").zone == "Asia/Tokyo"
    for field, value in [
        ("code", ""),
        ("code", "x" * 41),
        ("title", "x" * 201),
        ("room", "a\nb"),
        ("zone", "Mars/Olympus"),
        ("zone", "../etc"),
    ]:
        with pytest.raises(InvalidInput) as error:
            create_section(**{field: value})
        assert error.value.field == field
