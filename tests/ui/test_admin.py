"""An admin's work: people, classes with their timetable, the import, the rules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import httpx
from playwright.sync_api import Locator, expect

from tests.ui.conftest import Api, DemoServer, LiveClass, PageAs

ROSTER = """role,given_name,family_name,email,source_id,section_code,section_title
student,Zoë,Ångström,zoe@import.school,IMP-1,11X-PH,Physics 11X
studnet,Typo,Role,typo@import.school,IMP-2,11X-PH,Physics 11X
student,小龙,李,li@import.school,IMP-3,11X-PH,Physics 11X
student,Bad,Mail,not-a-mail,IMP-4,11X-PH,Physics 11X
teacher,Maria,Curie,curie@import.school,IMP-5,11X-PH,Physics 11X
"""


def imported(page_as: PageAs) -> Locator:
    """How many of the imported people the list finds, in its own words."""
    page = page_as("admin", "/admin/people")
    page.get_by_label("Search by name or e-mail").fill("import.school")
    return page.get_by_test_id("count")


def test_a_person_is_added_found_corrected_and_logged_out_when_access_is_taken(
    server: DemoServer, page_as: PageAs
) -> None:
    page = page_as("admin", "/admin/people", phone=True)
    page.get_by_role("button", name="Add a person").click()
    page.get_by_label("Given name").fill("Ayşe <b>")
    page.get_by_label("Family name").fill("O'Neil")
    page.get_by_label("E-mail").fill("student1@demo.school")
    page.get_by_label("First password").fill("four words in a row")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("has this e-mail already")).to_be_visible()
    page.get_by_label("E-mail").fill("ayse@demo.school")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("heading", name="Ayşe <b> O'Neil")).to_be_visible()

    theirs = page_as(None, "/login", phone=True)
    theirs.get_by_label("E-mail").fill("ayse@demo.school")
    theirs.get_by_label("Password").fill("four words in a row")
    theirs.get_by_test_id("login-submit").click()
    expect(theirs.get_by_text("You have no classes today")).to_be_visible()

    page.goto("/admin/people")
    page.get_by_label("Search by name or e-mail").fill("ayşe neil")
    expect(page.get_by_text("1–1 of 1 people")).to_be_visible()
    page.get_by_role("link", name="Ayşe <b> O'Neil").click()
    page.get_by_role("button", name="Take access away").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Take access away").click()

    expect(page.get_by_text("This person has no access at the moment")).to_be_visible()
    expect(theirs).to_have_url(f"{server.url}/login?notice=ended")
    body = {"email": "ayse@demo.school", "password": "four words in a row"}
    assert httpx.post(f"{server.url}/api/v1/login", json=body).status_code == 401


def test_a_class_gets_people_and_a_timetable_and_a_meeting_is_cancelled(
    api_as: Callable[[str], Api], page_as: PageAs
) -> None:
    page = page_as("admin", "/admin/sections/new")
    page.get_by_label("Code", exact=True).fill("9Z-ART")
    page.get_by_label("Title").fill("Art 9Z")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("heading", name="Art 9Z")).to_be_visible()

    students = page.get_by_test_id("students")
    someone = api_as("student7").user["name"]
    students.get_by_label("Add a student by name").fill(someone)
    students.get_by_role("button", name=f"Add {someone}").first.click()
    expect(students.get_by_role("button", name=f"End the enrolment of {someone}")).to_be_visible()

    staff = page.get_by_test_id("staff")
    teacher = api_as("teacher2").user["name"]
    staff.get_by_label("As", exact=True).click()
    page.get_by_role("option", name="Substitute").click()
    staff.get_by_label("Find a teacher by name").fill(teacher)
    staff.get_by_role("button", name=f"Add {teacher}").click()
    expect(staff.get_by_text("A substitute needs an end")).to_be_visible()
    staff.get_by_label("Last day").fill((date.today() + timedelta(days=7)).isoformat())
    staff.get_by_role("button", name=f"Add {teacher}").click()
    expect(staff.get_by_text("Substitute, since today, until")).to_be_visible()

    timetable = page.get_by_test_id("timetable")
    timetable.get_by_text("Add a weekly meeting").click()
    timetable.get_by_label("Days").click()
    page.get_by_role("option", name="Monday").click()
    page.get_by_role("option", name="Thursday").click()
    page.keyboard.press("Escape")
    timetable.get_by_role("button", name="Add to the timetable").click()
    expect(timetable.get_by_text("Monday, Thursday 09:00, 45 min")).to_be_visible()

    meetings = page.get_by_test_id("meetings")
    meetings.get_by_role("button", name="Cancel").last.click()
    dialog = page.get_by_role("alertdialog")
    dialog.get_by_role("button", name="Cancel the meeting").click()
    expect(dialog.get_by_text("required")).to_be_visible()
    dialog.get_by_label("Reason").fill("Trip to the museum")
    dialog.get_by_role("button", name="Cancel the meeting").click()
    expect(meetings.get_by_role("button", name="Restore")).to_have_count(1)


def test_the_import_lists_every_problem_by_line_before_anything_changes(
    page_as: PageAs, tmp_path: Path
) -> None:
    file = tmp_path / "roster.csv"
    file.write_text(ROSTER, encoding="utf-8")
    page = page_as("admin", "/admin/import")

    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files(file)
    problems = page.get_by_test_id("problem")
    expect(problems).to_have_count(2)
    expect(problems.nth(0)).to_have_attribute("data-line", "3")
    expect(problems.nth(0)).to_contain_text("studnet")
    expect(problems.nth(1)).to_have_attribute("data-line", "5")
    expect(imported(page_as)).to_have_text("Nobody matches.")

    page.get_by_test_id("import-apply").click()
    expect(page.get_by_role("alert")).to_contain_text("correct the file")
    page.get_by_role("checkbox", name="Leave out the rows with errors").click()
    page.get_by_test_id("import-apply").click()

    expect(page.get_by_test_id("import-done")).to_contain_text("The import is applied")
    expect(imported(page_as)).to_have_text("1–3 of 3 people")


def test_a_new_rule_works_forward_only(page_as: PageAs) -> None:
    page = page_as("admin", "/admin/policy", phone=True)
    late = page.get_by_label("Late after")
    late.fill("7")
    page.get_by_label("Cut-off, minutes").fill("3")
    page.get_by_role("button", name="Make this version").click()
    expect(page.get_by_text("must not be less than")).to_be_visible()
    page.get_by_label("Cut-off, minutes").fill("20")
    page.get_by_role("button", name="Make this version").click()

    expect(page.get_by_text("is made")).to_be_visible()
    expect(page.get_by_text("Up to and including 7 minutes")).to_have_count(0)


def test_the_overview_counts_along(live_class: LiveClass, page_as: PageAs) -> None:
    page = page_as("admin", "/admin")
    count = page.get_by_test_id(f"count-{live_class.id}")
    expect(count).to_have_text("0 of 30 here")

    for number in (8, 9):
        assert live_class.check_in(number)["outcome"] == "accepted"

    expect(count).to_have_text("2 of 30 here")
