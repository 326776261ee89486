"""Who may connect: the ways to log in, the ways to be nobody, and log-ins that end while connected."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from domain.access import Author
from domain.clock import ManualClock
from domain.login_rows import LoginView
from domain.model import Role
from realtime.protocol import SUBPROTOCOL
from realtime.realtime import Realtime
from tests.realtime.conftest import email_of
from tests.realtime.sockets import PASSWORD, Served, Socket
from tests.waiting import until


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not say who they are is sent away soon."""
    monkeypatch.setattr("realtime.admission.AUTH_WITHIN_S", 0.05)


async def is_answered(socket: Socket) -> bool:
    """Whether a ping comes back."""
    await socket.send({"type": "ping", "id": 77})
    return bool((await socket.get("pong"))["id"] == 77)


async def another_login(served: Served, who: str) -> str:
    """The token of a second login of the same person."""
    granted = await served.muster.logins.log_in(email_of(who), PASSWORD, address="127.0.0.1")
    return granted.token


async def test_a_browser_is_known_by_its_cookie_on_our_own_pages(served: Served) -> None:
    async with Socket(served.base, cookie=await served.token("teacher"), origin=served.base) as socket:
        await socket.greeted()

        assert socket.hello["user"] == {
            "id": served.klass.teachers[0],
            "name": "Teacher 1 Test",
            "role": "teacher",
            "language": "en",
        }
        assert socket.hello["protocol"] == 1
        assert socket.hello["server_time"] == "2026-11-23T09:00:00.000Z"
        assert socket.ws.subprotocol == SUBPROTOCOL


async def test_a_program_that_sends_no_origin_is_known_by_its_cookie(served: Served) -> None:
    async with Socket(served.base, cookie=await served.token("teacher")) as socket:
        assert (await socket.greeted()).hello["user"]["role"] == "teacher"


async def test_a_program_is_known_by_its_bearer_token(served: Served) -> None:
    async with Socket(served.base, await served.token("student")) as socket:
        assert (await socket.greeted()).hello["user"]["id"] == served.klass.students[0]


async def test_a_bearer_token_goes_before_a_cookie(served: Served) -> None:
    student, teacher = await served.token("student"), await served.token("teacher")
    async with Socket(served.base, student, cookie=teacher) as socket:
        assert (await socket.greeted()).hello["user"]["role"] == "student"


async def test_a_client_without_headers_is_known_by_its_first_frame(served: Served) -> None:
    async with Socket(served.base) as socket:
        await socket.send({"type": "auth", "token": await served.token("guardian")})

        assert (await socket.greeted()).hello["user"]["role"] == "guardian"
        assert await is_answered(socket)


async def test_a_second_auth_frame_changes_nothing(served: Served) -> None:
    async with served.socket("student") as socket:
        await socket.send({"type": "auth", "token": await served.token("teacher")})
        refused = await socket.subscribe(served.topic)

        assert refused["code"] == "forbidden"


async def test_whoever_does_not_say_who_they_are_is_closed_in_time(
    served: Served, short_patience: None
) -> None:
    async with Socket(served.base) as socket:
        assert await socket.ended() == 4401
        assert socket.unread == []


@pytest.mark.parametrize(
    "first",
    [
        {"type": "ping", "id": 1},
        {"type": "auth"},
        {"type": "auth", "token": ""},
        {"type": "auth", "token": 7},
        "not JSON",
        b"\x00\x01",
    ],
)
async def test_a_first_frame_that_is_no_auth_closes_the_connection(served: Served, first: Any) -> None:
    async with Socket(served.base) as socket:
        await socket.send(first)

        assert await socket.ended() == 4401


@pytest.mark.parametrize("token", ["nobody's", "", "é", "x" * 199])
async def test_an_unknown_token_closes_the_connection(served: Served, token: str) -> None:
    async with Socket(served.base) as by_frame:
        await by_frame.send({"type": "auth", "token": token or "x"})
        assert await by_frame.ended() == 4401
    if token.isascii():
        async with Socket(served.base, token) as by_header:
            assert await by_header.ended() == 4401


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"]
)
async def test_a_page_of_another_site_cannot_even_connect(served: Served, origin: str) -> None:
    cookie = await served.token("teacher")
    with pytest.raises(InvalidStatus) as refused:
        async with Socket(served.base, cookie=cookie, origin=origin):
            pass

    assert refused.value.response.status_code == 403


async def test_a_client_that_speaks_other_subprotocols_only_is_refused(served: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with Socket(served.base, await served.token("teacher"), subprotocols=("muster.v0", "graphql")):
            pass

    assert refused.value.response.status_code == 403


async def test_ours_is_chosen_among_the_subprotocols_that_are_offered(served: Served) -> None:
    offered = ("graphql", SUBPROTOCOL)
    async with Socket(served.base, await served.token("teacher"), subprotocols=offered) as socket:
        assert (await socket.greeted()).ws.subprotocol == SUBPROTOCOL


async def test_a_client_need_not_offer_a_subprotocol(served: Served) -> None:
    async with Socket(served.base, await served.token("teacher"), subprotocols=()) as socket:
        assert (await socket.greeted()).ws.subprotocol is None


async def test_a_login_that_has_expired_does_not_let_one_in(served: Served, clock: ManualClock) -> None:
    token = await served.token("teacher")
    clock.advance(days=31)

    async with Socket(served.base, token) as socket:
        assert await socket.ended() == 4401


async def test_a_login_that_expires_closes_the_connection(served: Served, clock: ManualClock) -> None:
    async with served.socket("admin") as admin, served.socket("teacher") as teacher:
        clock.advance(days=0.5)  # an admin's login lasts twelve hours

        assert await admin.ended() == 4401
        assert await is_answered(teacher)


async def test_an_open_connection_keeps_its_login_from_expiring(
    served: Served, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.heartbeat._FIND_LOGIN_EVERY_S", 0.0)
    async with served.socket("admin") as admin:
        me = served.klass.admin
        clock.advance(minutes=11 * 60)

        async def expires_at() -> float:
            entries = await served.muster.logins.logins_of(me)
            await served.muster.logins.save_seen()
            return max(entry.expires_at.timestamp() for entry in entries)

        before = await expires_at()
        await until(lambda: _is_later(expires_at, before))
        clock.advance(minutes=11 * 60)
        await admin.get("heartbeat")
        await admin.get("heartbeat")

        assert await is_answered(admin)


async def _is_later(read: Any, before: float) -> bool:
    return bool(await read() > before)


async def test_logging_out_closes_the_connections_of_that_login_only(served: Served) -> None:
    other = await another_login(served, "teacher")
    async with served.socket("teacher") as here, Socket(served.base, other) as elsewhere:
        await elsewhere.greeted()
        async with httpx.AsyncClient(base_url=served.base) as client:
            answer = await client.post("/api/v1/logout", headers={"Authorization": f"Bearer {other}"})

        assert answer.status_code == 204
        assert await elsewhere.ended() == 4401
        assert await is_answered(here)


async def test_changing_the_password_closes_all_but_the_own_login(served: Served) -> None:
    other = await another_login(served, "teacher")
    mine = await served.muster.logins.find(await served.token("teacher"))
    assert mine is not None
    async with served.socket("teacher") as here, Socket(served.base, other) as elsewhere:
        await elsewhere.greeted()

        await served.muster.logins.change_password(
            mine.person_id, PASSWORD, "another long secret", mine.login_id
        )

        assert await elsewhere.ended() == 4401
        assert await is_answered(here)


async def test_somebody_who_is_deactivated_is_out_at_once(served: Served) -> None:
    async with served.socket("co-teacher") as socket, served.socket("teacher") as other:
        await socket.subscribe(served.topic)

        await served.muster.logins.deactivate_person(Author(served.klass.admin), served.klass.teachers[1])

        assert await socket.ended() == 4401
        assert await is_answered(other)


async def test_another_role_closes_the_connection_and_asks_for_a_new_login(served: Served) -> None:
    guardian = served.klass.extra["foreign guardian"]
    async with served.socket("foreign guardian") as socket:
        await served.muster.logins.update_person(Author(served.klass.admin), guardian, role=Role.TEACHER)

        assert await socket.ended() == 4403
    async with Socket(served.base, await served.token("foreign guardian")) as again:
        assert await again.ended() == 4401


async def test_a_login_that_ends_just_while_its_token_is_looked_up_lets_nobody_in(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, find = await served.token("teacher"), served.muster.logins.find

    async def found_just_before_it_ended(given: str | None) -> LoginView | None:
        login = await find(given)
        if login is not None:
            await served.muster.logins.revoke(login.login_id, login.author)
        return login

    monkeypatch.setattr(served.muster.logins, "find", found_just_before_it_ended)

    async with Socket(served.base, token) as socket:
        assert await socket.ended() == 4401
        assert socket.unread == []


async def test_nobody_who_is_refused_leaves_anything_behind(
    served: Served, realtime: Realtime, caplog: pytest.LogCaptureFixture
) -> None:
    for token in ("nobody's", None):
        async with Socket(served.base, token) as socket:
            await socket.send("nonsense")
            assert await socket.ended() == 4401

    await until(lambda: realtime.gateway._doors.count == 0)
    assert realtime.gateway.connection_count == realtime.gateway._admission._strangers == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
