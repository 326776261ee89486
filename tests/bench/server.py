"""The product's server on core 0 with a class of 1,000, plus a probe of how late its event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import insert

from domain.access import Author
from domain.ids import new_id
from domain.login_rows import hash_token
from domain.model import Login, table
from domain.muster import Muster
from domain.operations import make
from domain.record import Submission, record_batch
from domain.settings import Settings
from domain.store import open_store
from main import build, tame_collector
from realtime.server import Server, listen
from tests.bench.machine import pin
from tests.factories import a_class

STUDENTS = 1000


def main(folder: Path) -> None:
    """Serve until killed; prints one line of JSON: the port, the class and everybody's token."""
    pin(0)
    settings = Settings(data=folder, port=0)
    store = open_store(settings)
    store.migrate()
    now = datetime.now(UTC).replace(microsecond=0)
    klass = a_class(store, students=STUDENTS, start=now)
    tokens = {student: f"token-of-{student}" for student in [*klass.students, klass.teachers[0]]}
    logins = [
        Login(
            id=new_id(), person_id=person, token_hash=hash_token(token), device="bench", created_at=now, seen_at=now,
            expires_at=now + timedelta(days=1),
        ).model_dump()
        for person, token in tokens.items()
    ]  # fmt: skip
    store.write_now(lambda conn: conn.execute(insert(table(Login)), logins))
    opening = Submission(
        make("open_meeting", meeting_id=klass.meeting_id, captured_at=now), klass.teacher, now
    )
    store.write_now(lambda conn: record_batch(conn, [opening], now=now))
    assert isinstance(opening.author, Author)

    app = build(Muster(settings, store=store))
    late: list[float] = []
    _probe(app, late)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    print(
        json.dumps(
            {"port": port, "meeting": klass.meeting_id, "tokens": tokens, "teacher": klass.teachers[0]}
        ),
        flush=True,
    )
    Server(app, sockets=app.state.realtime.gateway, drain=app.state.realtime.drain).run(sockets=[listener])


def _probe(app: FastAPI, late: list[float]) -> None:
    """Every 2 ms, how much later than asked the loop came back; /bench/late gives and forgets what it saw."""

    async def watch() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(0.002)
            late.append((time.perf_counter() - asked - 0.002) * 1000)

    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):
            tame_collector()
            task = asyncio.create_task(watch())
            yield
            task.cancel()

    async def lateness() -> list[float]:
        found = late[:]
        late.clear()
        return found

    app.router.lifespan_context = lifespan
    app.add_api_route("/bench/late", lateness)
    app.router.routes.insert(0, app.router.routes.pop())  # before the pages, which are mounted at /


if __name__ == "__main__":
    main(Path(sys.argv[1]))
