"""A page's socket needs the log-in that the page was opened with."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.ui.conftest import PageAs


def test_a_page_whose_login_has_ended_meanwhile_leads_to_the_log_in(page_as: PageAs) -> None:
    page = page_as("teacher2", "/teacher")
    page.context.clear_cookies()

    page.evaluate("window.socket.disconnect(); window.socket.connect()")

    expect(page).to_have_url(re.compile(r"/login\?next=%2Fteacher"))


def test_a_page_that_was_cut_off_comes_back_with_its_login(page_as: PageAs) -> None:
    page = page_as("teacher2", "/teacher")

    page.evaluate("window.kept = true; window.socket.disconnect(); window.socket.connect()")

    expect(page.get_by_test_id("connection-state")).to_have_attribute("data-state", "live")
    assert page.evaluate("window.kept") is True
