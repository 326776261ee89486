"""Muster's own gateway in the fan-out scenarios: the product's server, whole, with log-ins and rights.

Each connection is another person's, logged in by a bearer token, who may see the meeting (as admins do: a
class with a thousand teachers would begin with a list of them) and follows it by a first frame. Messages are events of 200 bytes, told on the bus as the store tells of commits.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Connection, insert
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from domain.events import Event, meeting_topic
from domain.ids import new_id
from domain.login_rows import hash_token
from domain.model import Login, Person, Role, table
from domain.muster import Muster
from domain.settings import Settings
from domain.store import open_store
from main import build
from realtime.server import Server, listen
from tests.bench.fanout import Seat, Target
from tests.bench.peers.flow import flow
from tests.factories import make_class

#: Connections of each room may be so many at most, with one spare for the harness.
SPARE = 1


def target() -> Target:
    """Muster as a server under test."""
    return Target(
        "Muster",
        argv=lambda scenario: [
            sys.executable, "-m", "tests.bench.gateway", str(scenario.connections + SPARE), str(scenario.rooms),
        ],
        path=lambda seat: "/ws",
        subprotocol="muster.v1",
        headers=lambda seat: {"Authorization": f"Bearer {_token(seat.i)}"},
        first_frames=_subscribe,
        is_ready=lambda payload: b'"type":"subscribed"' in payload,
    )  # fmt: skip


def _token(number: int) -> str:
    return f"token-of-bench-{number}"


def _subscribe(seat: Seat) -> list[str]:
    topic = seat.facts["topics"][seat.room]
    return [json.dumps({"type": "subscribe", "id": 1, "topics": {topic: None}})]


def main(people: int, rooms: int) -> None:
    """Serve until killed; prints one line of JSON: the port, the process and the rooms' topics."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), port=0)
        store = open_store(settings)
        store.migrate()
        topics = store.write_now(lambda conn: _school(conn, people, rooms))
        app = build(Muster(settings, store=store))
        _add_flow(app, topics)
        listener = listen("127.0.0.1", 0)
        print(
            json.dumps({"port": listener.getsockname()[1], "pid": os.getpid(), "topics": topics}), flush=True
        )
        Server(app, sockets=app.state.realtime.gateway, drain=app.state.realtime.drain).run(
            sockets=[listener]
        )
        store.close()


def _school(conn: Connection, people: int, rooms: int) -> list[str]:
    now = datetime.now(UTC).replace(microsecond=0)
    classes = [make_class(conn, students=0, start=now, code=f"C{room}") for room in range(rooms)]
    persons, logins = [], []
    for number in range(people):
        person_id = new_id()
        persons.append(
            Person(
                id=person_id, role=Role.ADMIN.value, given_name=f"Admin {number}", created_at=now
            ).model_dump()
        )
        logins.append(
            Login(
                id=new_id(), person_id=person_id, token_hash=hash_token(_token(number)), device="bench",
                created_at=now, seen_at=now, expires_at=now + timedelta(days=1),
            ).model_dump()
        )  # fmt: skip
    conn.execute(insert(table(Person)), persons)
    conn.execute(insert(table(Login)), logins)
    return [meeting_topic(klass.meeting_id) for klass in classes]


def _add_flow(app: FastAPI, topics: list[str]) -> None:
    tell = app.state.muster.tell

    async def send(room: int, n: int, t: int, size: int) -> None:
        data: dict[str, Any] = {"n": n, "t": t}
        tell([Event(topics[room], n, "record.changed", datetime.now(UTC), data)])

    post = flow(send)

    async def endpoint(request: Request) -> Response:
        return await post(request)

    app.router.routes.insert(0, Route("/flow", endpoint, methods=["POST"]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
