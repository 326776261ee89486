"""One whole meeting, by everybody it concerns: teacher, co-teacher, two students and an admin, on desk and phone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import expect

from domain.ids import new_id
from tests.ui.conftest import Api, DemoServer, LiveClass, PageAs


@pytest.mark.parametrize("is_phone", [False, True], ids=["teacher at a desk", "teacher on a phone"])
def test_a_class_is_taken_from_opening_to_record(
    page_as: PageAs, live_class: LiveClass, api_as: Callable[[str], Api], is_phone: bool
) -> None:
    offset = 12 if is_phone else 2  # other students for the other size
    by_qr, by_code, absent = offset + 1, offset + 2, offset + 3
    admin = page_as("admin", "/admin", phone=not is_phone)
    teacher = page_as("teacher1", live_class.path, phone=is_phone)
    colleague = page_as("teacher2", live_class.path, phone=not is_phone)
    ids = {n: api_as(f"student{n}").user["id"] for n in (by_qr, by_code, absent)}

    # A student scans what is on the board.
    phone = page_as(f"student{by_qr}", "/student", phone=True)
    address = teacher.get_by_test_id("qr").get_attribute("data-url")
    assert address is not None
    phone.goto(f"/j/{address.rpartition('/j/')[2]}")
    phone.get_by_test_id("checkin-submit").click()
    expect(phone.get_by_test_id("checkin-result")).to_have_attribute("data-outcome", "accepted")

    # Another mistypes the code, then types it.
    other = page_as(f"student{by_code}", "/student", phone=True)
    code = teacher.get_by_test_id("code").inner_text().replace("\n", "").replace(" ", "")
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for digits, outcome in ((wrong, "rejected"), (code, "accepted")):
        other.get_by_test_id("code-input").fill(digits)
        other.get_by_test_id("checkin-submit").click()
        expect(other.get_by_test_id("checkin-result")).to_have_attribute("data-outcome", outcome)

    # Both teachers see both arrivals and the mistyped code, at once and the same.
    for page in (teacher, colleague):
        for number in (by_qr, by_code):
            expect(page.get_by_test_id(f"roster-row-{ids[number]}")).to_have_attribute(
                "data-status", "present"
            )
        expect(page.get_by_test_id("count-here")).to_have_text("2 / 30")
        expect(page.get_by_test_id("feed").locator("[data-code=bad_proof]")).to_have_count(1)

    # One is marked late by hand, the colleague makes it absent, undo of the own mark leaves that.
    row = f"roster-row-{ids[absent]}"
    teacher.get_by_test_id(row).get_by_test_id("mark-late").click()
    expect(colleague.get_by_test_id(row)).to_have_attribute("data-status", "late")
    colleague.get_by_test_id(row).get_by_test_id("mark-absent").click()
    expect(teacher.get_by_test_id(row)).to_have_attribute("data-status", "absent")
    teacher.get_by_test_id("undo").click()
    expect(teacher.get_by_role("status").filter(has_text="Taken back")).to_be_visible()
    expect(teacher.get_by_test_id(row)).to_have_attribute("data-status", "absent")

    # The rest is here; the class is closed; the record stands everywhere.
    teacher.get_by_test_id("mark-rest").click()
    teacher.get_by_test_id("confirm").click()
    expect(colleague.get_by_test_id("count-here")).to_have_text("29 / 30")
    teacher.get_by_test_id("close-meeting").click()
    expect(teacher.get_by_role("dialog")).to_contain_text("Everybody has a mark")
    teacher.get_by_test_id("confirm").click()
    for page in (teacher, colleague):
        expect(page.get_by_test_id("qr")).to_have_count(0)
        expect(page.get_by_test_id("count-absent")).to_have_text("1")
    phone.goto("/student")
    expect(phone.get_by_text("Present").first).to_be_visible()
    expect(admin.get_by_text("registers taken today")).to_be_visible()
    statuses = live_class.statuses()
    assert statuses[ids[absent]] == "absent"
    assert list(statuses.values()).count("present") == 29


def test_thirty_students_within_two_seconds_some_twice_some_retried(
    page_as: PageAs, live_class: LiveClass, api_as: Callable[[str], Api], server: DemoServer
) -> None:
    desk = page_as("teacher1", live_class.path)
    phone = page_as("teacher2", live_class.path, phone=True)
    token = live_class.codes()["qr_url"].rpartition("/")[2]
    sends: list[tuple[str, dict[str, object]]] = []
    for number in range(1, 31):
        bearer = api_as(f"student{number}").client.headers["Authorization"]

        def operation() -> dict[str, object]:
            return {
                "id": new_id(), "kind": "check_in", "meeting_id": live_class.id, "via": "qr", "proof": token,
                "clock_offset_ms": 0,
            }  # fmt: skip

        first = operation()
        sends.append((bearer, first))
        if number <= 5:
            sends.append((bearer, operation()))  # a double tap
        if 6 <= number <= 8:
            sends.append((bearer, first))  # a retry: the answer got lost

    def send(work: tuple[str, dict[str, object]]) -> dict[str, object]:
        bearer, body = work
        answer = httpx.post(
            f"{server.url}/api/v1/operations", json={"operations": [body]}, headers={"Authorization": bearer}
        )
        assert answer.status_code == 200
        outcome: dict[str, object] = answer.json()["outcomes"][0]
        return outcome

    with ThreadPoolExecutor(len(sends)) as pool:
        outcomes = list(pool.map(send, sends))

    assert [o["outcome"] for o in outcomes].count("duplicate") == 3
    assert {o["outcome"] for o in outcomes} == {"accepted", "duplicate"}
    for page in (desk, phone):
        expect(page.get_by_test_id("count-here")).to_have_text("30 / 30")
    assert list(live_class.statuses().values()) == ["present"] * 30
