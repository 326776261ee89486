"""A student's story on a phone: scan, log in, tap; the code; and what is said when it does not work."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from domain.proofs import qr_token
from tests.ui.conftest import Api, DemoServer, LiveClass, PageAs

ApiAs = Callable[[str], Api]


def failures(live_class: LiveClass) -> set[tuple[str, str]]:
    """What the teacher's feed has heard of: (student id, code)."""
    events = live_class.api_as("teacher1").get(f"/meetings/{live_class.id}/events")["events"]
    return {(e["data"]["student_id"], e["data"]["code"]) for e in events if e["name"] == "check_in.failed"}


def scan(page: Page, url: str) -> None:
    """Open what the QR code of that address says, on the server under test."""
    page.goto("/j/" + url.rpartition("/j/")[2])


def log_in(page: Page, who: str) -> None:
    """Fill the log-in form by hand."""
    page.get_by_label("E-mail").fill(f"{who}@demo.school")
    page.get_by_label("Password").fill("muster-demo")
    page.get_by_test_id("login-submit").click()


def test_a_scan_leads_through_the_log_in_to_one_tap(live_class: LiveClass, page_as: PageAs) -> None:
    page = page_as(None, "/login", phone=True)
    scan(page, live_class.codes()["qr_url"])

    log_in(page, "student1")
    meeting = live_class.api_as("teacher1").get(f"/meetings/{live_class.id}")["meeting"]
    expect(page.get_by_role("heading", name=meeting["section"]["title"])).to_be_visible()
    expect(page.get_by_text(meeting["room"], exact=True)).to_be_visible()
    page.get_by_test_id("checkin-submit").click()

    result = page.get_by_test_id("checkin-result")
    expect(result).to_have_attribute("data-outcome", "accepted")
    expect(result).to_contain_text("Checked in at")
    assert live_class.statuses()[live_class.student(1)["student_id"]] == "present"

    scan(page, live_class.codes()["qr_url"])
    page.get_by_test_id("checkin-submit").click()
    expect(result).to_have_attribute("data-code", "already_checked_in")
    expect(result).to_contain_text("Checked in at")


def test_the_code_is_typed_with_a_space_and_the_day_changes_at_once(
    live_class: LiveClass, page_as: PageAs
) -> None:
    page = page_as("student2", "/student", phone=True)
    today = page.get_by_test_id(f"today-{live_class.id}")
    expect(today).to_have_attribute("data-status", "unmarked")

    code = live_class.codes()["code"]
    page.get_by_label("Six-digit code").fill(f"{code[:3]} {code[3:]}")
    page.keyboard.press("Enter")

    expect(page.get_by_test_id("checkin-result")).to_have_attribute("data-outcome", "accepted")
    expect(today).to_have_attribute("data-status", "present")
    expect(page.get_by_test_id(f"record-{live_class.id}")).to_contain_text("Present")


def test_a_wrong_code_says_so_and_the_teacher_hears_of_it(live_class: LiveClass, page_as: PageAs) -> None:
    page = page_as("student3", "/student", phone=True)
    page.get_by_label("Six-digit code").fill("12345")
    page.get_by_test_id("checkin-submit").click()
    expect(page.get_by_text("The code has six digits")).to_be_visible()

    right = int(live_class.codes()["code"])
    page.get_by_label("Six-digit code").fill(f"{(right + 500_000) % 1_000_000:06d}")
    page.get_by_test_id("checkin-submit").click()

    expect(page.get_by_test_id("checkin-result")).to_have_attribute("data-code", "bad_proof")
    assert (live_class.student(3)["student_id"], "bad_proof") in failures(live_class)


def test_an_old_picture_of_the_code_is_expired(
    server: DemoServer, live_class: LiveClass, page_as: PageAs
) -> None:
    with closing(sqlite3.connect(server.data / "muster.db")) as database:
        (secret,) = database.execute("SELECT secret FROM meetings WHERE id = ?", [live_class.id]).fetchone()
    five_minutes_ago = datetime.now(UTC) - timedelta(minutes=5)
    page = page_as(
        "student4", f"/j/{qr_token(bytes.fromhex(secret), live_class.id, five_minutes_ago)}", phone=True
    )

    page.get_by_test_id("checkin-submit").click()

    result = page.get_by_test_id("checkin-result")
    expect(result).to_have_attribute("data-code", "proof_expired")
    expect(result).to_contain_text("on the board right now")
    expect(page.get_by_role("link", name="Type the code instead")).to_be_visible()
    student_id = live_class.student(4)["student_id"]
    assert (student_id, "proof_expired") in failures(live_class)
    assert live_class.statuses()[student_id] is None


def test_a_student_of_another_class_is_told_so(live_class: LiveClass, page_as: PageAs) -> None:
    stranger = live_class.api_as("student31").user["id"]
    assert stranger not in live_class.statuses()
    page = page_as("student31", "/student", phone=True)
    scan(page, live_class.codes()["qr_url"])

    page.get_by_test_id("checkin-submit").click()

    expect(page.get_by_test_id("checkin-result")).to_have_attribute("data-code", "not_enrolled")
    assert (stranger, "not_enrolled") in failures(live_class)


@pytest.mark.parametrize(("who", "path"), [("student1", "/student"), ("guardian1", "/guardian")])
def test_what_the_teacher_marks_shows_without_a_reload(
    live_class: LiveClass, page_as: PageAs, who: str, path: str
) -> None:
    page = page_as(who, path, phone=True)
    today = page.get_by_test_id(f"today-{live_class.id}")
    expect(today).to_be_visible()

    for status in ("excused", "remote"):
        student_id = live_class.student(1)["student_id"]
        outcome = live_class.api_as("teacher1").record(
            "mark", meeting_id=live_class.id, student_id=student_id, status=status
        )
        assert outcome["outcome"] == "accepted", outcome
        expect(today).to_have_attribute("data-status", status)


def test_staff_are_told_whom_the_page_is_for(live_class: LiveClass, page_as: PageAs) -> None:
    page = page_as("teacher1", "/teacher")
    scan(page, live_class.codes()["qr_url"])

    expect(page.get_by_text("This page is for students")).to_be_visible()
    expect(page.get_by_test_id("checkin-submit")).to_have_count(0)


def test_logging_in_works_by_keyboard_and_says_what_is_wrong(server: DemoServer, page_as: PageAs) -> None:
    page = page_as(None, "/login?next=//evil.example", phone=True)
    page.get_by_label("E-mail").fill("student5@demo.school")
    page.get_by_label("Password").fill("not this one")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("E-mail or password is wrong")
    expect(page.get_by_label("E-mail")).to_have_value("student5@demo.school")

    page.get_by_label("Password").fill("muster-demo")
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{server.url}/student")


def test_one_tap_on_a_demo_log_in_fills_the_form(server: DemoServer, page_as: PageAs) -> None:
    page = page_as(None, "/login", phone=True)

    page.get_by_role("button", name="Guardian").click()
    page.keyboard.press("Enter")

    expect(page).to_have_url(f"{server.url}/guardian")
