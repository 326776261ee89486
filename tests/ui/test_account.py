"""One's own account: where one is logged in, and ending that."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

from tests.ui.conftest import DemoServer, PageAs


def answer_to(server: DemoServer, email: str, password: str) -> int:
    """The status of a log-in over HTTP."""
    return httpx.post(f"{server.url}/api/v1/login", json={"email": email, "password": password}).status_code


def test_ending_another_log_in_logs_that_browser_out_at_once(server: DemoServer, page_as: PageAs) -> None:
    lost = page_as("student40", "/student", phone=True)
    mine = page_as("student40", "/account")
    entries = mine.get_by_test_id("logins").get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(mine.get_by_text("This device")).to_have_count(1)

    mine.get_by_role("button", name="End the log-in on").click()

    expect(entries).to_have_count(1)
    expect(lost).to_have_url(f"{server.url}/login?notice=ended")
    expect(lost.get_by_text("Your log-in has ended")).to_be_visible()
    lost.goto("/student")
    expect(lost).to_have_url(f"{server.url}/login?next=%2Fstudent")


def test_a_new_password_holds_at_once_and_a_weak_one_is_refused_beside_its_field(
    server: DemoServer, page_as: PageAs
) -> None:
    page = page_as("student41", "/account", phone=True)
    old, new = page.get_by_label("Present password"), page.get_by_label("New password")
    change = page.get_by_role("button", name="Change password")

    old.fill("muster-demo")
    new.fill("12345678")
    change.click()
    expect(page.get_by_text("one of the first that are tried")).to_be_visible()
    old.fill("not mine")
    new.fill("four words in a row")
    change.click()
    expect(page.get_by_text("This is not your present password")).to_be_visible()
    old.fill("muster-demo")
    change.click()

    expect(page.get_by_text("Your password is changed")).to_be_visible()
    assert answer_to(server, "student41@demo.school", "muster-demo") == 401
    assert answer_to(server, "student41@demo.school", "four words in a row") == 200


def test_logging_out_leads_to_the_log_in(server: DemoServer, page_as: PageAs) -> None:
    page = page_as("student42", "/student")
    page.get_by_role("button", name="Log out").click()

    expect(page).to_have_url(f"{server.url}/login?notice=logged_out")
    page.goto("/student")
    expect(page).to_have_url(f"{server.url}/login?next=%2Fstudent")
