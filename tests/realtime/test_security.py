"""What holds for every request and socket: same origin, log-in of sockets, headers, limits, log lines."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from domain.muster import Muster
from realtime.app import create_app
from realtime.logs import JsonLines
from realtime.realtime import Realtime
from tests.factories import AClass
from tests.realtime.conftest import As, log_in, problem

SOCKET = "/_nicegui_ws/socket.io/"
FOREIGN = ["https://evil.test", "null", "http://[", "muster.test", "http://muster.test.evil.test", "http://"]


@pytest.mark.parametrize("header", ["Origin", "Referer"])
@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_cannot_act_with_our_cookie(
    client_as: As, klass: AClass, header: str, origin: str
) -> None:
    client = await client_as(None)
    await log_in(client, "teacher")
    operation = {
        "id": "01939f2e-7c00-7000-8000-000000000001",
        "kind": "open_meeting",
        "meeting_id": klass.meeting_id,
    }

    answer = await client.post(
        "/api/v1/operations", json={"operations": [operation]}, headers={header: origin}
    )

    assert problem(answer) == (403, "foreign_origin")
    assert (await client.get(f"/api/v1/meetings/{klass.meeting_id}")).json()["meeting"][
        "state"
    ] == "scheduled"


async def test_a_cookie_without_an_origin_is_not_enough_and_a_bearer_token_is(client_as: As) -> None:
    by_cookie, by_token = await client_as(None), await client_as("teacher")
    await log_in(by_cookie, "teacher")
    body: dict[str, Any] = {"operations": []}

    assert problem(await by_cookie.post("/api/v1/operations", json=body)) == (403, "foreign_origin")
    assert (await by_token.post("/api/v1/operations", json=body)).status_code == 200


@pytest.mark.parametrize("header", ["Origin", "Referer"])
async def test_our_own_pages_act_with_the_cookie(client_as: As, header: str) -> None:
    client = await client_as(None)
    await log_in(client, "teacher")

    answer = await client.post(
        "/api/v1/operations", json={"operations": []}, headers={header: "http://muster.test"}
    )

    assert answer.status_code == 200


async def test_behind_a_proxy_the_public_address_is_our_own(
    muster: Muster, realtime: Realtime, klass: AClass
) -> None:
    muster.settings = replace(muster.settings, public_url="https://school.example")
    transport = httpx.ASGITransport(app=create_app(muster, realtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.1:8080") as client:
        await log_in(client, "teacher")
        login = await client.post("/api/v1/login", json={}, headers={"Origin": "https://school.example"})

        assert login.status_code == 422
        assert login.headers["strict-transport-security"].startswith("max-age=")


async def test_a_foreign_page_cannot_log_its_visitor_in(client_as: As) -> None:
    client = await client_as(None)
    body = {"email": "teacher@test.school", "password": "correct horse battery"}

    answer = await client.post("/api/v1/login", json=body, headers={"Origin": "https://evil.test"})

    assert problem(answer) == (403, "foreign_origin")
    assert "set-cookie" not in answer.headers


# --- Sockets ---


async def knock(app: FastAPI, path: str, **headers: str) -> tuple[str, int]:
    """Ask for a socket; what is answered first, and the code if it is a refusal."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"muster.test")]
        + [(name.encode(), value.encode()) for name, value in headers.items()],
        "subprotocols": [],
    }
    await app(scope, receive, send)
    return sent[0]["type"], sent[0].get("code", 0)


@pytest.fixture
def app_with_sockets(app: FastAPI) -> FastAPI:
    async def accept(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    app.add_api_websocket_route(SOCKET, accept)
    app.add_api_websocket_route("/ws", accept)
    app.add_route(SOCKET, lambda _request: PlainTextResponse("polled"), methods=["GET", "POST"])
    return app


@pytest.mark.parametrize("path", [SOCKET, "/ws"])
@pytest.mark.parametrize("origin", FOREIGN)
async def test_no_foreign_page_opens_a_socket(
    app_with_sockets: FastAPI, client_as: As, path: str, origin: str
) -> None:
    client = await client_as(None)
    cookie = f"muster_login={(await log_in(client, 'teacher'))['token']}"

    assert await knock(app_with_sockets, path, origin=origin, cookie=cookie) == ("websocket.close", 4403)


async def test_the_pages_socket_opens_to_those_who_are_logged_in_alone(
    app_with_sockets: FastAPI, client_as: As
) -> None:
    client = await client_as(None)
    token = (await log_in(client, "teacher"))["token"]
    own = {"origin": "http://muster.test"}

    assert await knock(app_with_sockets, SOCKET, **own) == ("websocket.close", 4401)
    assert await knock(app_with_sockets, SOCKET, **own, cookie="muster_login=x") == ("websocket.close", 4401)
    opened = await knock(app_with_sockets, SOCKET, **own, cookie=f"other=1; muster_login={token}")
    assert opened == ("websocket.accept", 0)

    await client.post("/api/v1/logout", headers=own)
    refused = await knock(app_with_sockets, SOCKET, **own, cookie=f"muster_login={token}")
    assert refused == ("websocket.close", 4401)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_pages_socket_by_polling_is_held_to_the_same(
    app_with_sockets: FastAPI, client_as: As, method: str
) -> None:
    client = await client_as(None)
    assert problem(await client.request(method, SOCKET)) == (401, "unauthenticated")

    await log_in(client, "teacher")
    own, foreign = {"Origin": "http://muster.test"}, {"Origin": "https://evil.test"}
    assert (await client.request(method, SOCKET, headers=own)).text == "polled"
    assert problem(await client.request(method, SOCKET, headers=foreign)) == (403, "foreign_origin")


# --- Headers and request ids ---


async def test_answers_carry_the_headers_that_keep_browsers_safe(app: FastAPI, client_as: As) -> None:
    app.add_route("/page", lambda _request: HTMLResponse("<p>"))
    client = await client_as("teacher")

    for answer in (await client.get("/api/v1/me"), await client.get("/api/v1/x"), await client.get("/page")):
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "microphone=()" in answer.headers["permissions-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers


async def test_a_sane_request_id_is_kept_and_any_other_replaced(client_as: As) -> None:
    client = await client_as(None)

    kept = await client.get("/healthz", headers={"X-Request-ID": "abcdef-0123_ABC"})
    made = [
        (await client.get("/healthz", headers={"X-Request-ID": strange})).headers["x-request-id"]
        for strange in ("short", "x" * 65, "a b c d e f g", "<script>alert(1)</script>")
    ]

    assert kept.headers["x-request-id"] == "abcdef-0123_ABC"
    assert len(set(made)) == 4
    assert all(len(identifier) == 36 for identifier in made)


# --- Bodies ---


async def test_files_may_be_large_for_those_who_are_logged_in_alone(client_as: As) -> None:
    file = b"x" * 3_000_000
    path = "/api/v1/import/roster"

    assert problem(await (await client_as(None)).post(path, content=file)) == (413, "too_large")
    assert problem(await (await client_as("teacher")).post(path, content=file)) == (403, "forbidden")
    assert (await (await client_as("admin")).post(path, content=file)).status_code == 200
    too_much = b"x" * 12_000_000
    assert problem(await (await client_as("admin")).post(path, content=too_much)) == (413, "too_large")


async def test_a_body_that_breaks_off_is_acted_upon_by_nobody(app: FastAPI, client_as: As) -> None:
    token = (await log_in(await client_as(None), "teacher"))["token"]
    parts: list[Message] = [
        {"type": "http.request", "body": b'{"operations": []}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/operations",
        "query_string": b"",
        "headers": [(b"host", b"muster.test"), (b"authorization", f"Bearer {token}".encode())],
    }
    await app(scope, receive, send)

    assert sent == []


# --- The API beside the pages ---


async def test_what_the_api_does_not_know_never_reaches_the_pages(app: FastAPI, client_as: As) -> None:
    async def pages(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("a page")(scope, receive, send)

    app.mount("/", pages)
    client = await client_as(None)

    assert (await client.get("/anything")).text == "a page"
    assert problem(await client.get("/api/v1/nothing")) == (404, "not_found")
    assert problem(await client.get("/api/v1/push/key")) == (404, "not_found")
    refused = await client.patch("/api/v1/operations")
    assert problem(refused) == (405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
    assert problem(await client.request("PROPFIND", "/api/v1/me")) == (405, "method_not_allowed")


# --- Log lines ---


async def test_a_log_line_names_the_route_and_nothing_about_anybody(
    client_as: As, klass: AClass, caplog: pytest.LogCaptureFixture
) -> None:
    client = await client_as("teacher")
    with caplog.at_level(logging.INFO, "muster.requests"):
        await client.get(f"/api/v1/meetings/{klass.meeting_id}?name=Ada&token=secret")

    [record] = caplog.records
    line: dict[str, Any] = json.loads(JsonLines().format(record))
    assert line["route"] == "/api/v1/meetings/{meeting_id}"
    assert (line["method"], line["status"]) == ("GET", 200)
    assert line["ms"] > 0
    assert len(line["request_id"]) == 36
    for secret in (klass.meeting_id, "Ada", "secret", client.headers["Authorization"].split()[1]):
        assert secret not in json.dumps(line)


async def test_a_fault_of_ours_is_logged_under_the_number_that_was_answered(
    client_as: As, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await client_as("teacher")

    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("realtime.api.meetings.register.meetings_on", explode)
    answer = await client.get("/api/v1/meetings")

    assert problem(answer) == (500, "internal")
    [line] = [json.loads(JsonLines().format(r)) for r in caplog.records if r.exc_info]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "RuntimeError: broken" in line["traceback"]
