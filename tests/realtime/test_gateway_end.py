"""Going away: everybody is told when to come back, nothing that was asked for is lost, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from domain import events
from domain.muster import Muster
from realtime.connection import Connection, Following
from realtime.gateway import Gateway
from realtime.realtime import Realtime
from tests.factories import AClass
from tests.realtime.conftest import email_of
from tests.realtime.lines import TEXT, line
from tests.realtime.sockets import Served, Socket, serving
from tests.waiting import until


def tasks_of_ours() -> list[str]:
    """What runs for connections and topics at the moment, by name."""
    passing = ("muster-socket", "muster-joins", "muster-operations", "muster-seen", "muster-rights")
    names = [task.get_name() for task in asyncio.all_tasks()]
    return sorted(name for name in names if name.startswith(passing))


async def log_of(served: Served) -> list[str | None]:
    found = await served.muster.store.read(lambda conn: events.read_after(conn, served.topic, 0, 1000))
    return [event.operation_id for event in found]


async def test_everybody_is_told_when_to_come_back_and_then_closed(
    served: Served, realtime: Realtime
) -> None:
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(served.socket("teacher")) for _ in range(20)]
        await sockets[0].subscribe(served.topic)

        await realtime.drain()

        assert [await socket.ended() for socket in sockets] == [1012] * 20
        byes = [socket.unread[-1] for socket in sockets]
    assert {bye["type"] for bye in byes} == {"bye"}
    assert all(50 <= bye["retry_ms"] <= 1000 for bye in byes)
    assert len({bye["retry_ms"] for bye in byes}) > 5
    assert realtime.metrics.value("muster_closed_total", {"code": "1012"}) == 20


async def test_whoever_comes_while_it_ends_is_asked_to_come_again(served: Served, realtime: Realtime) -> None:
    token = await served.token("teacher")
    async with httpx.AsyncClient(base_url=served.base) as client, Socket(served.base) as stranger:
        before = await client.get("/readyz")
        await realtime.drain()
        ready = await client.get("/readyz")
        alive = await client.get("/healthz")
        await stranger.send({"type": "auth", "token": token})
        async with Socket(served.base, token) as late:
            ends = [await late.ended(), await stranger.ended()]

    assert before.json()["checks"]["not_draining"] is True
    assert (ready.status_code, ready.json()["checks"]["not_draining"]) == (503, False)
    assert alive.status_code == 200
    assert ends == [1012, 1012]
    for socket in (late, stranger):
        assert [frame["type"] for frame in socket.unread] == ["bye"]


async def test_what_was_asked_for_is_finished_first(
    served: Served, realtime: Realtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, record = asyncio.Event(), served.muster.recorder.record

    async def record_later(*args: Any, **how: Any) -> Any:
        await may_go_on.wait()
        return await record(*args, **how)

    monkeypatch.setattr(served.muster.recorder, "record", record_later)
    operations = [served.opening(), served.marking()]
    async with served.socket("teacher") as socket:
        await socket.send({"type": "operations", "id": 1, "operations": operations})
        await socket.send({"type": "ping", "id": 2})
        await socket.get("pong")
        draining = asyncio.create_task(realtime.drain())
        code = await socket.ended()
        was_waiting = not draining.done()
        may_go_on.set()
        await draining

    assert (code, was_waiting) == (1012, True)
    assert await log_of(served) == [operation["id"] for operation in operations]


async def test_a_server_that_stops_says_goodbye_to_its_clients(
    app: FastAPI, muster: Muster, klass: AClass
) -> None:
    async with AsyncExitStack() as stack:
        async with serving(app) as base:
            served = Served(base, muster, klass, email_of)
            sockets = [await stack.enter_async_context(served.socket("teacher")) for _ in range(3)]
            silent = await stack.enter_async_context(line(base, await served.token("teacher")))

        assert [await socket.ended() for socket in sockets] == [1012] * 3
        assert [socket.unread[-1]["type"] for socket in sockets] == ["bye"] * 3
        kinds = [(await silent.read_until(TEXT)).document["type"] for _ in range(2)]
        assert (kinds, await silent.code()) == (["hello", "bye"], 1012)


async def test_nothing_is_left_behind_by_those_who_have_gone(
    served: Served, realtime: Realtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.presence.GRACE_S", 0.0)
    for who in ("teacher", "student"):
        await served.token(who)
    await served.record(served.opening())
    tasks, topics = len(asyncio.all_tasks()), realtime.hub.topic_count

    async def come_and_go(number: int) -> None:
        async with served.socket(("teacher", "student", "admin", "guardian")[number % 4]) as socket:
            for topic in (served.topic, "inbox", f"student:{served.klass.students[0]}", "wall"):
                await socket.send({"type": "subscribe", "id": 1, "topics": {topic: None}})
            await socket.send({"type": "seen", "topics": {served.topic: 1}, "unsent": number % 3})
            await socket.send({"type": "operations", "id": 2, "operations": [served.marking(number % 3)]})
            if number % 3:
                await socket.get("outcomes")
            match number % 5:
                case 0:
                    socket.ws.transport.abort()
                case 1:
                    await socket.send({"type": "unsubscribe", "id": 3, "topic": served.topic})
                case 2:
                    await socket.send("nonsense")

    async with served.socket("teacher") as staying:
        await staying.subscribe("inbox")
        await asyncio.gather(*(come_and_go(number) for number in range(40)))
        await until(lambda: realtime.gateway.connection_count == 1)
        assert len(realtime.gateway._fanout.channels()) == 1

    gateway: Gateway = realtime.gateway
    await until(lambda: gateway.connection_count == gateway._doors.count == 0)
    await until(lambda: not tasks_of_ours())
    await until(lambda: not realtime.presence._own)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert gateway._fanout.channels() == () and not gateway._of_person
    assert not gateway._presence_frames._rooms
    assert realtime.hub.topic_count == topics
    gc.collect()
    assert [thing for thing in gc.get_objects() if isinstance(thing, Connection | Following)] == []


async def test_a_room_that_is_stopped_runs_nothing_any_more(muster: Muster) -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    realtime = Realtime(muster)
    await realtime.start()
    during = {task.get_name() for task in asyncio.all_tasks()}

    await realtime.drain()
    await realtime.stop()

    assert during - before
    assert {task.get_name() for task in asyncio.all_tasks()} == before
    assert realtime.hub.topic_count == 0
