"""The API from outside, without a network: httpx straight into the application."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import Connection, text

from domain.model import EnrolmentRole, Role
from domain.muster import Muster
from domain.passwords import hash_password
from realtime.api import shapes
from realtime.app import create_app
from realtime.hub import Hub
from realtime.limits import Limits
from realtime.realtime import Realtime
from tests.factories import NOW, AClass, a_class, a_person, an_enrolment
from tests.realtime.sockets import PASSWORD, Served, serving

As = Callable[[str | None], Awaitable[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def limits(request: pytest.FixtureRequest) -> Limits | None:
    """The gateway's own limits, or a test's, given by ``parametrize(..., indirect=True)``."""
    return getattr(request, "param", None)


@pytest_asyncio.fixture
async def realtime(muster: Muster, limits: Limits | None) -> AsyncIterator[Realtime]:
    """The real-time room, started; its heart beats every second."""
    realtime = Realtime(muster, limits=limits, heartbeat_s=1)
    await realtime.start()
    yield realtime
    await realtime.stop()


@pytest.fixture
def hub(realtime: Realtime) -> Hub:
    return realtime.hub


#: When the substitute of ``klass`` takes over, and until when: long after everybody has logged in.
SUBSTITUTE_BEGINS, SUBSTITUTE_ENDS = NOW + timedelta(hours=1), NOW + timedelta(hours=2)


@pytest.fixture
def klass(muster: Muster, password_hash: str) -> AClass:
    """A class whose people can all log in: <name>@test.school, see ``extra``. A stranger teaches another."""
    klass, elsewhere = a_class(muster.store, students=3), a_class(muster.store, code="other")
    people = {
        "teacher": klass.teachers[0],
        "co-teacher": klass.teachers[1],
        "student": klass.students[0],
        "other student": klass.students[1],
        "guardian": klass.guardian,
        "admin": klass.admin,
        "stranger": elsewhere.teachers[0],
        "foreign student": elsewhere.students[0],
        "foreign guardian": elsewhere.guardian,
    }

    def work(conn: Connection) -> None:
        people["substitute"] = a_person(conn, Role.TEACHER, name="Substitute")
        an_enrolment(
            conn,
            klass.section_id,
            people["substitute"],
            EnrolmentRole.SUBSTITUTE,
            begins_at=SUBSTITUTE_BEGINS,
            ends_at=SUBSTITUTE_ENDS,
        )
        for name, person_id in people.items():
            conn.execute(
                text("UPDATE people SET email = :email, password_hash = :hash WHERE id = :id"),
                {"email": email_of(name), "hash": password_hash, "id": person_id},
            )

    muster.store.write_now(work)
    klass.extra = people
    return klass


def email_of(who: str) -> str:
    """The address that somebody of ``klass`` logs in with."""
    return f"{who.replace(' ', '-')}@test.school"


@pytest.fixture
def app(muster: Muster, realtime: Realtime) -> FastAPI:
    return create_app(muster, realtime)


@pytest_asyncio.fixture
async def served(app: FastAPI, muster: Muster, klass: AClass) -> AsyncIterator[Served]:
    """The class on a real server."""
    async with serving(app) as base:
        yield Served(base, muster, klass, email_of)


async def log_in(client: httpx.AsyncClient, who: str) -> dict[str, Any]:
    """Log a client in by cookie; returns what was answered."""
    body = {"email": email_of(who), "password": PASSWORD}
    answer = await client.post("/api/v1/login", json=body)
    assert answer.status_code == 200, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


@pytest_asyncio.fixture
async def client_as(app: FastAPI, klass: AClass) -> AsyncIterator[As]:
    """Makes clients: ``await client_as("teacher")`` is logged in by bearer token, ``None`` is nobody.

    Every answer that they get is held to the description of the API."""
    clients: list[httpx.AsyncClient] = []
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [partial(hold_to_description, app.openapi())]}

    async def make(who: str | None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://muster.test", event_hooks=hooks)
        clients.append(client)
        if who is not None:
            token = (await log_in(client, who))["token"]
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {token}"
        return client

    yield make
    for client in clients:
        await client.aclose()


async def hold_to_description(document: dict[str, Any], answer: httpx.Response) -> None:
    """Fail unless this is an answer that the description tells of, in its shape."""
    await answer.aread()
    path = answer.request.url.path
    for template, calls in document["paths"].items():
        call = calls.get(answer.request.method.lower())
        if call and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            break
    else:
        return  # a page, or nothing at all
    if answer.status_code in (413, 500):  # may befall every call
        return
    told = call["responses"].get(str(answer.status_code))
    assert told is not None, f"{answer.request.method} {template} gave {answer.status_code}: {answer.text}"
    for media_type, content in told.get("content", {}).items():
        assert answer.headers["content-type"] == media_type
        if "$ref" in content["schema"]:
            shape = getattr(shapes, content["schema"]["$ref"].rpartition("/")[2])
            shape.model_validate_json(answer.content)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which must be a whole problem detail."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] and body["title"] and body["detail"]
    assert body["instance"].endswith(answer.headers["x-request-id"])
    return answer.status_code, body["code"]
