"""Log-in and check-in over HTTP with a clock moved by hand: what a phone sends, and what it is told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from domain.access import Author
from domain.clock import ManualClock
from domain.model import Kind, Role
from domain.muster import Muster
from domain.operations import make
from domain.passwords import hash_password
from domain.proofs import link_proof
from domain.store import Store
from tests.factories import NOW, AClass, a_person, a_section, an_enrolment, make_class
from ui import check_in, login, plain
from ui.login import safe_next

PASSWORD = "long enough words"


@dataclass
class Scene:
    """A running class, a site, and people who can log in."""

    muster: Muster
    clock: ManualClock
    klass: AClass
    site: FastAPI

    def phone(self) -> httpx.AsyncClient:
        """A browser of its own, with its own cookies."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.site), base_url="http://muster.test")

    async def say(self, kind: Kind, **fields: Any) -> None:
        """The teacher does something."""
        author = Author(self.klass.teachers[0])
        (outcome,) = await self.muster.recorder.record(
            [make(kind, meeting_id=self.klass.meeting_id, **fields)], author
        )
        assert outcome.outcome == "accepted"

    def qr(self) -> str:
        """The path of the QR code that is on the board now."""
        return f"/j/{self.klass.qr(self.clock.now())}"

    def link(self) -> str:
        """The path of the shareable link."""
        return f"/j/{link_proof(self.klass.meeting_id, self.klass.link_token)}"


@pytest_asyncio.fixture
async def scene(muster: Muster, store: Store, clock: ManualClock) -> AsyncIterator[Scene]:
    hashed = hash_password(PASSWORD)

    def people(conn: Any) -> AClass:
        klass = make_class(conn, students=1)
        for name, role in (
            ("anna", Role.STUDENT),
            ("ben", Role.STUDENT),
            ("olga", Role.STUDENT),
            ("tom", Role.TEACHER),
        ):
            person = a_person(
                conn, role, name=name.capitalize(), email=f"{name}@test.school", password_hash=hashed
            )
            if name in ("anna", "ben"):
                an_enrolment(conn, klass.section_id, person)
                klass.extra[name] = person
        a_section(conn, code="other")
        return klass

    klass = store.write_now(people)
    site = FastAPI()
    plain.install(site)
    login.install(site, muster)
    check_in.install(site, muster)
    yield Scene(muster, clock, klass, site)


async def log_in(phone: httpx.AsyncClient, name: str, *, target: str = "") -> httpx.Response:
    form = {"email": f"{name}@test.school", "password": PASSWORD, "next": target}
    return await phone.post("/login", data=form)


def told(response: httpx.Response) -> tuple[str, str, str]:
    """What the result says: outcome, code, status."""
    found = re.search(r'data-outcome="(\w+)" data-code="(\w*)" data-status="(\w*)"', response.text)
    assert found, response.text
    return found[1], found[2], found[3]


async def test_a_scan_in_time_counts_even_if_logging_in_takes_a_minute(scene: Scene) -> None:
    await scene.say(Kind.OPEN_MEETING)
    qr = scene.qr()
    async with scene.phone() as phone:
        sent_to_log_in = await phone.get(qr)
        scene.clock.advance(seconds=60)
        back = await log_in(phone, "anna", target=qr)
        scene.clock.advance(seconds=5)
        shown = await phone.get(qr)
        scene.clock.advance(seconds=90)
        answer = await phone.post(qr)

    assert sent_to_log_in.headers["location"].startswith("/login?next=%2Fj%2F")
    assert back.headers["location"] == qr
    assert "Maths 10B" in shown.text
    assert "R12" in shown.text
    assert "10:00–10:50" in shown.text
    assert told(answer) == ("accepted", "", "present")
    assert "Checked in at 10:00, on time." in answer.text


async def test_a_photographed_code_is_expired_when_it_is_used_after_its_slot(scene: Scene) -> None:
    await scene.say(Kind.OPEN_MEETING)
    qr = scene.qr()
    async with scene.phone() as phone:
        await log_in(phone, "anna")
        scene.clock.advance(seconds=35)
        await phone.get(qr)
        answer = await phone.post(qr)

    assert told(answer)[:2] == ("rejected", "proof_expired")
    assert "on the board right now" in answer.text


async def test_a_scan_is_worth_one_check_in_so_passing_it_on_gains_nothing(scene: Scene) -> None:
    await scene.say(Kind.OPEN_MEETING)
    qr = scene.qr()
    async with scene.phone() as anna, scene.phone() as ben:
        await anna.get(qr)
        passed_on = anna.cookies["muster_scan"]
        await log_in(anna, "anna")
        await log_in(ben, "ben")
        scene.clock.advance(seconds=90)
        first = await anna.post(qr)
        ben.cookies.set("muster_scan", passed_on)
        second = await ben.post(qr)

    assert told(first)[0] == "accepted"
    assert told(second)[:2] == ("rejected", "id_reused")


async def test_the_scan_of_a_log_in_cannot_be_used_by_another_person(scene: Scene) -> None:
    await scene.say(Kind.OPEN_MEETING)
    qr = scene.qr()
    async with scene.phone() as anna, scene.phone() as ben:
        await log_in(anna, "anna")
        await anna.get(qr)
        await log_in(ben, "ben")
        scene.clock.advance(seconds=90)
        ben.cookies.set("muster_scan", anna.cookies["muster_scan"])
        answer = await ben.post(qr)

    assert told(answer)[:2] == ("rejected", "proof_expired")


async def test_a_double_tap_is_answered_twice_with_the_same_record(scene: Scene) -> None:
    await scene.say(Kind.OPEN_MEETING)
    qr = scene.qr()
    async with scene.phone() as phone:
        await log_in(phone, "anna")
        await phone.get(qr)
        scan = phone.cookies["muster_scan"]
        first = await phone.post(qr)
        phone.cookies.set("muster_scan", scan)
        second = await phone.post(qr)
        phone.cookies.delete("muster_scan")
        later = await phone.post(qr)

    assert told(first)[0] == "accepted"
    assert told(second)[0] == "duplicate"
    assert "Checked in at 10:00" in second.text
    assert told(later)[1] == "already_checked_in"
    assert "Checked in at 10:00" in later.text


async def test_each_failure_is_a_sentence_of_its_own(scene: Scene) -> None:
    answers: dict[str, str] = {}
    async with scene.phone() as anna, scene.phone() as olga:
        await log_in(anna, "anna")
        await log_in(olga, "olga")
        answers["not_open"] = (await anna.post(scene.link())).text
        await scene.say(Kind.OPEN_MEETING)
        answers["not_enrolled"] = (await olga.post(scene.qr())).text
        answers["bad_proof"] = (await anna.post(scene.qr()[:-2] + "AA")).text
        scene.clock.advance(seconds=1)
        await scene.say(Kind.CLOSE_MEETING)
        scene.clock.advance(minutes=1)
        answers["meeting_closed"] = (await anna.post(scene.qr())).text
        for _ in range(25):
            last = await anna.post(scene.qr()[:-2] + "AA")
        answers["rate_limited"] = last.text

    for code, text in answers.items():
        assert f'data-code="{code}"' in text, code
    assert re.search(r"Wait \d+ seconds?, then try again", answers["rate_limited"])
    assert last.status_code == 429


async def test_too_early_says_from_when(scene: Scene) -> None:
    scene.clock.set(NOW - timedelta(minutes=30))
    await scene.say(Kind.OPEN_MEETING)
    async with scene.phone() as phone:
        await log_in(phone, "anna")
        answer = await phone.post(scene.link())

    assert told(answer)[1] == "too_early"
    assert "opens at 9:50" in answer.text


async def test_after_the_grace_the_student_is_told_how_late(scene: Scene) -> None:
    await scene.say(Kind.OPEN_MEETING)
    scene.clock.advance(minutes=7)
    async with scene.phone() as phone:
        await log_in(phone, "anna")
        answer = await phone.post(scene.qr())

    assert told(answer) == ("accepted", "", "late")
    assert "7 minutes late" in answer.text


async def test_staff_who_open_the_page_are_told_whom_it_is_for(scene: Scene) -> None:
    async with scene.phone() as phone:
        await log_in(phone, "tom")
        shown, posted = await phone.get(scene.qr()), await phone.post(scene.qr())

    for response in (shown, posted):
        assert "for students" in response.text
        assert "checkin-submit" not in response.text


async def test_a_token_that_nobody_made_does_not_break_the_page(scene: Scene) -> None:
    async with scene.phone() as phone:
        await log_in(phone, "anna")
        for token in ("x", "..", "%00%ff", "a.b.c", "<script>alert(1)</script>", "9" * 5000):
            shown, posted = await phone.get(f"/j/{token}"), await phone.post(f"/j/{token}")

            assert {shown.status_code, posted.status_code} <= {200, 404}, token
            assert "<script>alert" not in shown.text + posted.text


async def test_a_wrong_password_and_an_unknown_address_are_told_the_same(scene: Scene) -> None:
    async with scene.phone() as phone:
        wrong = await phone.post("/login", data={"email": "anna@test.school", "password": "no"})
        unknown = await phone.post("/login", data={"email": "nobody@test.school", "password": "no"})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text == unknown.text.replace("nobody@test.school", "anna@test.school")
    assert "E-mail or password is wrong" in wrong.text


async def test_guessing_is_slowed_with_the_seconds_to_wait(scene: Scene) -> None:
    async with scene.phone() as phone:
        for _ in range(6):
            answer = await phone.post("/login", data={"email": "anna@test.school", "password": "no"})

    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert re.search(r"Wait \d+ seconds", answer.text)


async def test_the_cookie_cannot_be_read_by_scripts_and_logging_out_ends_it(scene: Scene) -> None:
    async with scene.phone() as phone:
        response = await log_in(phone, "anna")
        token = phone.cookies["muster_login"]
        out = await phone.post("/logout")
        phone.cookies.set("muster_login", token)
        after = await phone.get("/login")

    assert "HttpOnly" in response.headers["set-cookie"]
    assert "SameSite=lax" in response.headers["set-cookie"]
    assert out.headers["location"] == "/login?notice=logged_out"
    assert "Your log-in has ended" in after.text


async def test_a_form_that_is_no_log_in_is_refused(scene: Scene) -> None:
    async with scene.phone() as phone:
        huge = await phone.post("/login", data={"email": "a" * 100_000, "password": "b"})
        binary = await phone.post("/login", content=b"\xff\xfe\x00", headers={"content-type": "text/plain"})

    assert huge.status_code == 413
    assert binary.status_code == 401


@pytest.mark.parametrize("target", ["/student", "/j/abc.1.x", "/meetings/1?tab=2", "/admin/people"])
def test_the_way_back_may_be_any_page_of_this_site(target: str) -> None:
    assert safe_next(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "student",
        "//evil.example",
        "/\\evil.example",
        "/%5Cevil.example",
        "/%2Fevil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/login?next=/login",
        "/logout",
        "/api/v1/me",
        "/" + "a" * 600,
    ],
)
def test_the_way_back_is_never_another_site_nor_a_loop(target: str) -> None:
    assert safe_next(target) is None
