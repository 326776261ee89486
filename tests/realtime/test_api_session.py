"""Logging in, being known, and being out at once when a login ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from domain.clock import ManualClock
from domain.ids import new_id
from domain.muster import Muster
from realtime.app import create_app
from realtime.realtime import Realtime
from tests.factories import AClass
from tests.realtime.conftest import As, email_of, log_in, problem
from tests.realtime.sockets import PASSWORD

OWN = {"Origin": "http://muster.test"}


async def test_a_login_is_a_bearer_token_and_a_cookie_that_scripts_cannot_read(
    client_as: As, klass: AClass
) -> None:
    client = await client_as(None)
    body = {"email": email_of("teacher").upper(), "password": PASSWORD}

    answer = await client.post("/api/v1/login", json=body)

    granted, cookie = answer.json(), answer.headers["set-cookie"]
    assert granted["user"] == {
        "id": klass.teachers[0],
        "name": "Teacher 1 Test",
        "role": "teacher",
        "language": "en",
    }
    assert granted["expires_at"] == "2026-12-23T09:00:00.000Z"
    assert cookie.startswith(f"muster_login={granted['token']};")
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    assert "Secure" not in cookie
    me = (await client.get("/api/v1/me")).json()
    assert me["user"] == granted["user"]
    assert [login["is_current"] for login in me["logins"]] == [True]
    assert me["server_time"] == "2026-11-23T09:00:00.000Z"
    assert granted["token"] not in (await client.get("/api/v1/me")).text


async def test_over_tls_the_cookie_is_for_tls_alone(
    muster: Muster, realtime: Realtime, klass: AClass
) -> None:
    muster.settings = replace(muster.settings, public_url="https://muster.test")
    transport = httpx.ASGITransport(app=create_app(muster, realtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.1") as client:
        answer = await client.post("/api/v1/login", json={"email": email_of("teacher"), "password": PASSWORD})

    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("teacher@test.school", "wrong"),
        ("nobody@test.school", PASSWORD),
        ("", ""),
        ("' OR 1=1 --", "' OR 1=1 --"),
        ("a\u0000b@test.school", "\u0000"),
        ("<script>@test.school", "пароль"),
    ],
)
async def test_a_wrong_login_is_refused_alike_whatever_is_wrong(
    client_as: As, email: str, password: str
) -> None:
    client = await client_as(None)

    answer = await client.post("/api/v1/login", json={"email": email, "password": password})

    assert problem(answer) == (401, "invalid_credentials")
    assert answer.json()["detail"] == "E-mail or password is wrong. Check both and try again."
    assert "set-cookie" not in answer.headers


async def test_guessing_is_slowed_down_and_told_for_how_long(client_as: As, clock: ManualClock) -> None:
    client = await client_as(None)
    body = {"email": email_of("teacher"), "password": "wrong"}
    for _ in range(5):
        assert problem(await client.post("/api/v1/login", json=body)) == (401, "invalid_credentials")

    refused = await client.post("/api/v1/login", json=body | {"password": PASSWORD})

    assert problem(refused) == (429, "rate_limited")
    wait_s = int(refused.headers["retry-after"])
    assert 0 < refused.json()["retry_after"] <= wait_s
    clock.advance(seconds=wait_s)
    await log_in(client, "teacher")


async def test_logging_out_ends_the_login_everywhere(client_as: As) -> None:
    browser, program = await client_as(None), await client_as(None)
    token = (await log_in(browser, "teacher"))["token"]
    program.headers["Authorization"] = f"Bearer {token}"
    assert (await program.get("/api/v1/me")).status_code == 200

    answer = await browser.post("/api/v1/logout", headers=OWN)

    assert answer.status_code == 204
    assert 'muster_login=""' in answer.headers["set-cookie"]
    assert problem(await program.get("/api/v1/me")) == (401, "unauthenticated")
    assert problem(await program.post("/api/v1/operations", json={"operations": []})) == (
        401,
        "unauthenticated",
    )


async def test_one_ends_ones_own_log_ins_and_nobody_elses(client_as: As) -> None:
    lost, mine, other = await client_as("teacher"), await client_as("teacher"), await client_as("co-teacher")
    logins = (await mine.get("/api/v1/me")).json()["logins"]
    [lost_id] = [login["id"] for login in logins if not login["is_current"]]

    for strange in (lost_id, new_id(), "x"):
        assert problem(await other.delete(f"/api/v1/me/logins/{strange}")) == (404, "not_found")
    assert (await mine.delete(f"/api/v1/me/logins/{lost_id}")).status_code == 204

    assert problem(await lost.get("/api/v1/me")) == (401, "unauthenticated")
    assert len((await mine.get("/api/v1/me")).json()["logins"]) == 1


async def test_a_new_password_ends_all_other_log_ins(client_as: As) -> None:
    other, mine = await client_as("teacher"), await client_as("teacher")
    path, new = "/api/v1/me/password", "a wholly different horse"

    wrong = await mine.post(path, json={"old": "wrong", "new": new})
    weak = await mine.post(path, json={"old": PASSWORD, "new": "12345678"})
    changed = await mine.post(path, json={"old": PASSWORD, "new": new})

    assert problem(wrong) == (401, "invalid_credentials")
    assert problem(weak) == (422, "invalid")
    assert weak.json()["errors"][0]["where"] == "new"
    assert changed.status_code == 204
    assert (await mine.get("/api/v1/me")).status_code == 200
    assert problem(await other.get("/api/v1/me")) == (401, "unauthenticated")
    body = {"email": email_of("teacher"), "password": PASSWORD}
    assert problem(await other.post("/api/v1/login", json=body))[0] == 401
    assert (await other.post("/api/v1/login", json=body | {"password": new})).status_code == 200


async def test_a_login_is_over_when_its_time_is(client_as: As, clock: ManualClock) -> None:
    client = await client_as("admin")

    clock.advance(minutes=12 * 60 + 1)

    assert problem(await client.get("/api/v1/me")) == (401, "unauthenticated")


async def test_somebody_deactivated_is_out_at_once(client_as: As, muster: Muster, klass: AClass) -> None:
    teacher, admin = await client_as("teacher"), await client_as("admin")
    author = await muster.logins.find(admin.headers["Authorization"].split()[1])
    assert author is not None

    await muster.logins.deactivate_person(author.author, klass.teachers[0])

    assert problem(await teacher.get("/api/v1/me")) == (401, "unauthenticated")


async def test_a_whole_class_logs_in_at_once(client_as: As) -> None:
    clients = await asyncio.gather(*(client_as("student") for _ in range(30)))

    answers = await asyncio.gather(*(client.get("/api/v1/me") for client in clients))

    assert {answer.status_code for answer in answers} == {200}
