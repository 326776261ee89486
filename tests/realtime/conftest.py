"""The API from outside, without a network: httpx straight into the application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
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


@pytest_asyncio.fixture
async def client_as(muster: Muster, hub: Hub, klass: AClass) -> AsyncIterator[As]:
    """Makes clients: ``await client_as("teacher")`` is logged in by bearer token, ``None`` is nobody."""
    app = create_app(muster, hub)
    clients: list[httpx.AsyncClient] = []

    async def make(who: str | None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://muster.test")
        clients.append(client)
        if who is not None:
            email = f"{who.replace(' ', '-')}@test.school"
            answer = await client.post("/api/v1/login", json={"email": email, "password": PASSWORD})
            assert answer.status_code == 200, answer.text
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return client

    yield make
    for client in clients:
        await client.aclose()
