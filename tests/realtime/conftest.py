"""The API from outside, without a network: httpx straight into the application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text

from domain.muster import Muster
from domain.passwords import hash_password
from realtime.app import create_app
from realtime.bus import MemoryBus
from realtime.hub import Hub
from tests.factories import AClass, a_class

PASSWORD = "correct horse battery"
As = Callable[[str | None], Awaitable[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def hub(muster: Muster) -> Hub:
    bus = MemoryBus()
    muster.on_commit(bus.publish)
    return Hub(bus)


@pytest.fixture
def klass(muster: Muster, password_hash: str) -> AClass:
    """A class whose people can all log in: <name>@test.school, see ``emails``."""
    klass = a_class(muster.store, students=3)
    people = {
        "teacher": klass.teachers[0],
        "co-teacher": klass.teachers[1],
        "student": klass.students[0],
        "other student": klass.students[1],
        "guardian": klass.guardian,
        "admin": klass.admin,
        "stranger": a_class(muster.store, code="other").teachers[0],
    }

    def work(conn: Any) -> None:
        for name, person_id in people.items():
            conn.execute(
                text("UPDATE people SET email = :email, password_hash = :hash WHERE id = :id"),
                {"email": f"{name.replace(' ', '-')}@test.school", "hash": password_hash, "id": person_id},
            )

    muster.store.write_now(work)
    klass.extra = people
    return klass


@pytest.fixture
def app(muster: Muster, hub: Hub) -> FastAPI:
    return create_app(muster, hub)


async def log_in(client: httpx.AsyncClient, who: str) -> dict[str, Any]:
    """Log a client in by cookie; returns what was answered."""
    email = f"{who.replace(' ', '-')}@test.school"
    answer = await client.post("/api/v1/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


@pytest_asyncio.fixture
async def client_as(app: FastAPI, klass: AClass) -> AsyncIterator[As]:
    """Makes clients: ``await client_as("teacher")`` is logged in by bearer token, ``None`` is nobody."""
    clients: list[httpx.AsyncClient] = []

    async def make(who: str | None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://muster.test")
        clients.append(client)
        if who is not None:
            token = (await log_in(client, who))["token"]
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {token}"
        return client

    yield make
    for client in clients:
        await client.aclose()


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which must be a whole problem detail."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] and body["title"] and body["detail"]
    assert body["instance"].endswith(answer.headers["x-request-id"])
    return answer.status_code, body["code"]
