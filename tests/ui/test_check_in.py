"""A student's story on a phone: scan, log in, tap; the code; and what is said when it does not work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import Lesson, OpenPage, Site, log_in


def test_a_scan_leads_through_the_log_in_to_one_tap(
    site: Site, lesson: Lesson, open_page: OpenPage
) -> None:
    page = open_page("phone")
    page.goto(lesson.codes()["qr_url"])

    log_in(page, "student1")
    expect(page.get_by_role("heading", name=lesson.title)).to_be_visible()
    expect(page.get_by_text(lesson.room)).to_be_visible()
    page.get_by_test_id("checkin-submit").click()

    result = page.get_by_test_id("checkin-result")
    expect(result).to_have_attribute("data-outcome", "accepted")
    expect(result).to_contain_text("Checked in at")
    assert lesson.status_of("student1") in ("present", "late")

    page.goto(lesson.codes()["qr_url"])
    page.get_by_test_id("checkin-submit").click()
    expect(result).to_have_attribute("data-code", "already_checked_in")
    expect(result).to_contain_text("Checked in at")


def test_the_code_is_typed_with_a_space_and_the_day_changes_at_once(
    lesson: Lesson, open_page: OpenPage
) -> None:
    page = open_page("phone", "student2", "/student")
    today = page.get_by_test_id(f"today-{lesson.meeting_id}")
    expect(today).to_have_attribute("data-status", "unmarked")

    code = lesson.codes()["code"]
    page.get_by_label("Six-digit code").fill(f"{code[:3]} {code[3:]}")
    page.keyboard.press("Enter")

    expect(page.get_by_test_id("checkin-result")).to_have_attribute("data-outcome", "accepted")
    expect(today).to_have_attribute("data-status", lesson.status_of("student2") or "")


def test_a_wrong_code_says_so_and_the_teacher_hears_of_it(lesson: Lesson, open_page: OpenPage) -> None:
    page = open_page("phone", "student3", "/student")
    page.get_by_label("Six-digit code").fill("12345")
    page.get_by_test_id("code-submit").click()
    expect(page.get_by_text("The code has six digits")).to_be_visible()

    right = lesson.codes()["code"]
    page.get_by_label("Six-digit code").fill(f"{(int(right) + 500_000) % 1_000_000:06d}")
    page.get_by_test_id("code-submit").click()

    expect(page.get_by_test_id("checkin-result")).to_have_attribute("data-code", "bad_proof")
    assert ("student3", "bad_proof") in lesson.failures()


def test_an_old_picture_of_the_code_is_expired(lesson: Lesson, open_page: OpenPage) -> None:
    page = open_page("phone", "student4")
    page.goto(lesson.qr_url(datetime.now(UTC) - timedelta(minutes=5)))
    page.get_by_test_id("checkin-submit").click()

    result = page.get_by_test_id("checkin-result")
    expect(result).to_have_attribute("data-code", "proof_expired")
    expect(result).to_contain_text("on the board right now")
    expect(page.get_by_role("link", name="Type the code instead")).to_be_visible()
    assert ("student4", "proof_expired") in lesson.failures()
    assert lesson.status_of("student4") is None


def test_a_student_of_another_class_is_told_so(lesson: Lesson, open_page: OpenPage) -> None:
    page = open_page("phone", lesson.stranger)
    page.goto(lesson.codes()["qr_url"])
    page.get_by_test_id("checkin-submit").click()

    expect(page.get_by_test_id("checkin-result")).to_have_attribute("data-code", "not_enrolled")
    assert (lesson.stranger, "not_enrolled") in lesson.failures()


@pytest.mark.parametrize(("who", "path"), [("student1", "/student"), ("guardian1", "/guardian")])
def test_what_the_teacher_marks_shows_without_a_reload(
    lesson: Lesson, open_page: OpenPage, who: str, path: str
) -> None:
    page = open_page("phone", who, path)
    today = page.get_by_test_id(f"today-{lesson.meeting_id}")
    expect(today).to_be_visible()

    for status in ("excused", "remote"):
        lesson.mark("student1", status)
        expect(today).to_have_attribute("data-status", status)


def test_staff_are_told_whom_the_page_is_for(lesson: Lesson, open_page: OpenPage) -> None:
    page = open_page("phone", "teacher1")
    page.goto(lesson.codes()["qr_url"])

    expect(page.get_by_text("This page is for students")).to_be_visible()
    expect(page.get_by_test_id("checkin-submit")).to_have_count(0)


def test_logging_in_works_by_keyboard_and_says_what_is_wrong(site: Site, open_page: OpenPage) -> None:
    page: Page = open_page("phone")
    page.goto(f"{site.url}/login?next=//evil.example")
    page.get_by_label("E-mail").fill("student5@demo.school")
    page.get_by_label("Password").fill("not this one")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("E-mail or password is wrong")
    expect(page.get_by_label("E-mail")).to_have_value("student5@demo.school")

    page.get_by_label("Password").fill("muster-demo")
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{site.url}/student")
