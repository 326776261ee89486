"""A class is taken, live: teacher and co-teacher, on a desk and on a phone, see the same at all times."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from domain.ids import new_id
from tests.ui.conftest import Api, LiveClass, PageAs


def row(page: Page, student: dict[str, Any]) -> Any:
    return page.get_by_test_id(f"roster-row-{student['student_id']}")


def shown(page: Page) -> dict[str, str | None]:
    """Every row's status as the page shows it."""
    found: dict[str, str | None] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('[data-testid^=roster-row-]')].map(
            (e) => [e.dataset.testid.slice('roster-row-'.length), e.dataset.status === 'unmarked' ? null : e.dataset.status]))"""
    )
    return found


def test_a_teacher_opens_a_class_in_two_taps_and_students_arrive(
    page_as: PageAs, api_as: Callable[[str], Api]
) -> None:
    page = page_as(None, "/login")
    page.get_by_test_id("login-email").fill("teacher1@demo.school")
    page.get_by_test_id("login-password").fill("muster-demo")

    page.get_by_test_id("login-submit").click()
    page.get_by_test_id("open-meeting").filter(visible=True).first.click()

    page.wait_for_url(re.compile("/meeting/"))
    expect(page.get_by_test_id("meeting-state")).to_have_text("Open")
    expect(page.get_by_test_id("count-here")).to_have_text("0 / 30")
    token = page.get_by_test_id("qr").get_attribute("data-url")
    assert token is not None
    meeting_id = page.url.rpartition("/")[2]
    student = api_as("student7")
    outcome = student.record("check_in", meeting_id=meeting_id, via="qr", proof=token.rpartition("/")[2])
    assert outcome["outcome"] == "accepted", outcome
    # The demo school's class began a while ago at most times of day: then whoever arrives now is late.
    expect(page.get_by_test_id(f"roster-row-{student.user['id']}")).to_have_attribute(
        "data-status", re.compile("^(present|late)$")
    )
    expect(page.get_by_test_id("count-here")).to_have_text("1 / 30")
    expect(page.get_by_test_id("feed")).to_contain_text("by QR code")

    page.get_by_test_id("close-meeting").click()
    expect(page.get_by_role("dialog")).to_contain_text("29 not marked become absent")
    page.get_by_test_id("confirm").click()
    expect(page.get_by_test_id("count-absent")).to_have_text("29")


def test_two_teachers_on_desk_and_phone_never_differ(page_as: PageAs, live_class: LiveClass) -> None:
    desk = page_as("teacher1", live_class.path)
    phone = page_as("teacher2", live_class.path, phone=True)
    first, second = live_class.students[0], live_class.students[1]

    row(desk, first).get_by_test_id("mark-late").click()
    row(phone, second).get_by_test_id("mark-excused").click()

    for page in (desk, phone):
        expect(row(page, first)).to_have_attribute("data-status", "late")
        expect(row(page, second)).to_have_attribute("data-status", "excused")

    desk.get_by_test_id("mark-rest").click()
    expect(desk.get_by_role("dialog")).to_contain_text("Mark 28 present?")
    desk.get_by_test_id("confirm").click()

    for page in (desk, phone):
        expect(page.get_by_test_id("count-unmarked")).to_have_text("0")
        expect(page.get_by_test_id("count-here")).to_have_text("29 / 30")
    assert shown(desk) == shown(phone) == live_class.statuses()


def test_undo_takes_back_a_bulk_but_leaves_what_a_colleague_has_changed(
    page_as: PageAs, live_class: LiveClass
) -> None:
    desk = page_as("teacher1", live_class.path)
    phone = page_as("teacher2", live_class.path, phone=True)
    kept, other = live_class.students[3], live_class.students[4]
    desk.get_by_test_id("mark-rest").click()
    desk.get_by_test_id("confirm").click()
    expect(phone.get_by_test_id("count-here")).to_have_text("30 / 30")
    row(phone, kept).get_by_test_id("mark-absent").click()
    row(phone, other).get_by_test_id("mark-left_early").click()
    expect(row(desk, other)).to_have_attribute("data-status", "left_early")

    desk.get_by_test_id("undo").click()

    for page in (desk, phone):
        expect(page.get_by_test_id("count-unmarked")).to_have_text("28")
        expect(row(page, kept)).to_have_attribute("data-status", "absent")
        expect(row(page, other)).to_have_attribute("data-status", "left_early")
    assert shown(desk) == shown(phone) == live_class.statuses()
    expect(desk.get_by_test_id("undo")).to_be_disabled()


def test_failed_tries_stand_in_the_feed_with_the_remedy(page_as: PageAs, live_class: LiveClass) -> None:
    desk = page_as("teacher1", live_class.path)

    live_class.api_as("student9").record("check_in", meeting_id=live_class.id, via="code", proof="000000")

    line = desk.get_by_test_id("feed").locator("[data-code=bad_proof]")
    expect(line).to_contain_text("wrong code")
    expect(line).to_contain_text("mark by hand")
    expect(line.locator("b")).to_have_text(live_class.student(9)["name"])


def test_a_contested_record_shows_both_sides_and_one_tap_decides(
    page_as: PageAs, live_class: LiveClass
) -> None:
    desk = page_as("teacher1", live_class.path)
    student = live_class.student(5)
    teacher = live_class.api_as("teacher2")
    teacher.record("mark", meeting_id=live_class.id, student_id=student["student_id"], status="absent")
    live_class.check_in(5)

    card = row(desk, student)
    expect(card).to_contain_text("Two entries disagree")
    desk.get_by_test_id(f"contested-{student['student_id']}").click()

    expect(card).to_have_attribute("data-status", "present")
    expect(card).not_to_contain_text("Two entries disagree")


def test_a_page_that_was_cut_off_catches_up_without_a_reload(page_as: PageAs, live_class: LiveClass) -> None:
    desk = page_as("teacher1", live_class.path)
    desk.evaluate("window.sameDocument = true")
    state = desk.get_by_test_id("connection-state")

    desk.context.set_offline(True)
    desk.evaluate("window.socket.io.engine.close()")
    expect(state).not_to_have_attribute("data-state", "live")
    for number in (11, 12, 13):
        live_class.check_in(number)
    desk.context.set_offline(False)

    expect(state).to_have_attribute("data-state", "live", timeout=30_000)
    expect(desk.get_by_test_id("count-here")).to_have_text("3 / 30")
    assert shown(desk) == live_class.statuses()
    assert desk.evaluate("window.sameDocument") is True


def test_closing_reopening_and_the_projector(page_as: PageAs, live_class: LiveClass) -> None:
    desk = page_as("teacher1", live_class.path)
    wall = page_as("teacher1", f"{live_class.path}/projector")
    code = desk.get_by_test_id("code").inner_text().replace("\n", "").replace(" ", "")
    expect(wall.get_by_test_id("code")).to_have_text(code)
    live_class.check_in(1)
    expect(wall.get_by_test_id("projector-count")).to_have_text("1 of 30 here")
    assert live_class.student(1)["name"] not in wall.content()

    desk.get_by_test_id("close-meeting").click()
    desk.get_by_test_id("confirm").click()
    expect(wall.get_by_text("Check-in is closed.")).to_be_visible()
    expect(desk.get_by_test_id("count-absent")).to_have_text("29")

    desk.get_by_test_id("reopen-meeting").click()
    desk.get_by_test_id("reopen-reason").fill("closed by mistake")
    desk.get_by_test_id("confirm").click()
    expect(desk.get_by_test_id("meeting-state")).to_have_text("Open")
    expect(desk.get_by_test_id("count-unmarked")).to_have_text("29")
    expect(wall.get_by_test_id("code")).to_be_visible()


def test_who_does_not_teach_the_class_sees_nothing_of_it(page_as: PageAs, live_class: LiveClass) -> None:
    stranger = page_as("teacher3", live_class.path)

    expect(stranger.get_by_role("heading", name="This class is not here")).to_be_visible()
    assert live_class.student(1)["name"] not in stranger.content()


def test_a_days_list_changes_when_a_colleague_opens(page_as: PageAs, api_as: Callable[[str], Api]) -> None:
    page = page_as("teacher2", "/teacher")
    teacher = api_as("teacher1")
    shared = {s["id"] for s in api_as("teacher2").get("/sections")["sections"]}
    section = next(s for s in teacher.get("/sections")["sections"] if s["id"] in shared)
    meeting_id = new_id()  # outside the timetable, so that it is there at every time of day
    card = page.get_by_test_id(f"meeting-{meeting_id}")
    expect(card).to_have_count(0)

    opened = teacher.record("open_meeting", meeting_id=meeting_id, section_id=section["id"])

    assert opened["outcome"] == "accepted"
    expect(card.locator("[data-state=open]")).to_be_visible()


def test_a_student_who_joins_meanwhile_appears_without_a_reload(
    page_as: PageAs, api_as: Callable[[str], Api]
) -> None:
    teacher = api_as("teacher3")
    section = teacher.get("/sections")["sections"][-1]
    meeting_id = new_id()
    teacher.record("open_meeting", meeting_id=meeting_id, section_id=section["id"])
    page = page_as("teacher3", f"/meeting/{meeting_id}")
    rows = page.locator("[data-testid^=roster-row-]")
    before = rows.count()
    roster = (
        "role,given_name,family_name,email,section_code,begin_on\n"
        f"student,New,Comer,{meeting_id}@demo.school,{section['code']},2026-01-01\n"
    )

    answer = api_as("admin").client.post("/api/v1/import/roster?dry_run=false", content=roster.encode())

    assert answer.json().get("is_applied"), answer.text
    expect(rows).to_have_count(before + 1)
    expect(page.get_by_text("New Comer")).to_be_visible()


def test_a_double_click_counts_once(
    page_as: PageAs, live_class: LiveClass, api_as: Callable[[str], Api]
) -> None:
    desk = page_as("teacher1", live_class.path)
    first, second = live_class.students[0], live_class.students[1]
    row(desk, first).get_by_test_id("mark-late").click()
    row(desk, second).get_by_test_id("mark-absent").dblclick()
    expect(row(desk, second)).to_have_attribute("data-status", "absent")
    expect(desk.get_by_test_id("undo")).to_contain_text(second["name"])

    desk.get_by_test_id("undo").dblclick()

    expect(row(desk, second)).to_have_attribute("data-status", "unmarked")
    expect(desk.get_by_test_id("undo")).to_contain_text(first["name"])
    expect(row(desk, first)).to_have_attribute("data-status", "late")

    teacher = api_as("teacher2")
    before = len(teacher.get("/meetings")["meetings"])
    page = page_as("teacher2", "/teacher")
    page.get_by_test_id("open-extra").evaluate("(button) => { button.click(); button.click(); }")
    page.wait_for_url(re.compile("/meeting/"))
    assert len(teacher.get("/meetings")["meetings"]) == before + 1


def test_a_register_is_taken_without_a_mouse(page_as: PageAs, live_class: LiveClass) -> None:
    desk = page_as("teacher1", live_class.path)
    first, second = live_class.students[0], live_class.students[1]

    desk.get_by_test_id("mark-rest").focus()
    desk.keyboard.press("Tab")
    expect(row(desk, first)).to_be_focused()
    desk.keyboard.press("p")
    desk.keyboard.press("ArrowDown")
    expect(row(desk, second)).to_be_focused()
    desk.keyboard.press("l")

    expect(row(desk, first)).to_have_attribute("data-status", "present")
    expect(row(desk, second)).to_have_attribute("data-status", "late")
    desk.get_by_test_id("search").fill("pa")  # letters typed elsewhere mark nobody
    expect(desk.get_by_test_id("count-unmarked")).to_have_text("28")


def test_a_page_says_that_it_catches_up_before_it_says_that_it_is_live(
    page_as: PageAs, live_class: LiveClass
) -> None:
    desk = page_as("teacher1", live_class.path)
    desk.evaluate(
        """() => {
            const state = document.querySelector('[data-testid=connection-state]');
            window.states = [];
            new MutationObserver(() => window.states.at(-1) === state.dataset.state || window.states.push(state.dataset.state))
                .observe(state, {attributes: true});
            window.socket.disconnect();
            window.socket.connect();
        }"""
    )

    desk.wait_for_function("window.states.at(-1) === 'live'")

    assert desk.evaluate("window.states") == ["reconnecting", "syncing", "live"]


def test_a_teacher_who_is_taken_out_of_a_class_loses_its_pages(
    page_as: PageAs, api_as: Callable[[str], Api]
) -> None:
    teacher, guest = api_as("teacher3"), api_as("teacher2").user
    section = teacher.get("/sections")["sections"][-1]
    admin = page_as("admin", f"/admin/sections/{section['id']}")
    staff = admin.get_by_test_id("staff")
    staff.get_by_label("Find a teacher by name").fill(guest["name"])
    staff.get_by_role("button", name=f"Add {guest['name']}").click()
    end = staff.get_by_role("button", name=f"End the enrolment of {guest['name']}")
    expect(end).to_be_visible()
    meeting_id = new_id()
    teacher.record("open_meeting", meeting_id=meeting_id, section_id=section["id"])
    desk = page_as("teacher2", f"/meeting/{meeting_id}")
    wall = page_as("teacher2", f"/meeting/{meeting_id}/projector")
    expect(wall.get_by_test_id("code")).to_be_visible()
    expect(desk.get_by_test_id("code")).to_be_visible()

    end.click()
    admin.get_by_role("alertdialog").get_by_role("button", name="Take out").click()

    for page in (desk, wall):
        expect(page.get_by_role("heading", name="This class is not here")).to_be_visible()
        expect(page.get_by_test_id("code")).to_have_count(0)
