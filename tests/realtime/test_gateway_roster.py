"""Another roster is no event of a meeting: whoever follows it is given the meeting anew."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from domain import sections
from domain.access import Author
from domain.events import meeting_topic
from domain.model import Enrolment, EnrolmentRole, Meeting, Role, table
from domain.store import StoreError
from domain.watching import grants
from realtime.snapshots import snapshot_of
from tests.factories import a_person
from tests.realtime.sockets import PATIENCE_S, Frame, Served, Socket
from tests.waiting import until


async def enrol(served: Served, name: str, section_id: str | None = None) -> str:
    """Somebody new in the class, as if from the beginning; the id."""
    klass, now = served.klass, served.muster.clock.now()

    def work(conn: Connection) -> str:
        student = a_person(conn, Role.STUDENT, name=name)
        sections.enrol(
            conn,
            Author(klass.admin),
            now=now,
            section_id=section_id or klass.section_id,
            person_id=student,
            role=EnrolmentRole.STUDENT,
            begins_at=klass.start - timedelta(days=1),
        )
        return student

    return await served.muster.store.write(work)


async def elsewhere(served: Served) -> tuple[str, str]:
    """The stranger's class: its section and its meeting's topic."""
    enrolments, meetings = table(Enrolment).c, table(Meeting).c

    def work(conn: Connection) -> tuple[str, str]:
        mine = select(enrolments.section_id).where(enrolments.person_id == served.klass.extra["stranger"])
        row = conn.execute(
            select(meetings.section_id, meetings.id).where(meetings.section_id.in_(mine))
        ).one()
        return row.section_id, meeting_topic(row.id)

    return await served.muster.store.read(work)


def ids(frame: Frame) -> set[str]:
    return {row["student_id"] for row in frame["snapshot"]["roster"]}


async def anew(socket: Socket) -> Frame:
    """The meeting as the server gives it of its own accord."""
    return await socket.get("subscribed", lambda frame: frame["id"] is None)


async def test_those_who_follow_a_meeting_are_given_its_new_roster(served: Served) -> None:
    async with served.socket("teacher") as teacher, served.socket("admin") as admin:
        for socket in (teacher, admin):
            await socket.subscribe(served.topic)
        await served.record(served.opening())

        newcomer = await enrol(served, "Newcomer")
        told = [await anew(socket) for socket in (teacher, admin)]
        await served.record(served.marking(student_id=newcomer))

        for socket, frame in zip((teacher, admin), told, strict=True):
            assert ids(frame) == {*served.klass.students, newcomer}
            event = await socket.get("event", lambda frame: frame["seq"] > 1)
            assert (frame["seq"], event["seq"], event["data"]["student_id"]) == (1, 2, newcomer)


async def test_those_who_follow_another_class_are_told_nothing(served: Served) -> None:
    _, topic = await elsewhere(served)
    async with served.socket("teacher") as teacher, served.socket("stranger") as stranger:
        await teacher.subscribe(served.topic)
        await stranger.subscribe(topic)

        await enrol(served, "Newcomer")
        await anew(teacher)
        await stranger.send({"type": "ping", "id": 1})
        await stranger.get("pong")

        assert [frame for frame in stranger.unread if frame["type"] == "subscribed"] == []


async def test_whoever_asks_just_after_the_change_sees_it(served: Served) -> None:
    async with served.socket("teacher") as teacher:
        before = await teacher.subscribe(served.topic)
        await teacher.send({"type": "unsubscribe", "id": 2, "topic": served.topic})
        await teacher.get("unsubscribed")
        newcomer = await enrol(served, "Newcomer")
        after = await teacher.subscribe(served.topic)

    assert ids(after) - ids(before) == {newcomer}
    assert after["seq"] == before["seq"]


async def test_a_change_that_comes_while_another_is_looked_after_is_not_forgotten(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    section_id, topic = await elsewhere(served)
    loop, newcomers = asyncio.get_running_loop(), list[str]()

    def asked_just_before(*args: Any, **how: Any) -> Any:  # in the store's thread
        found = grants(*args, **how)
        if not newcomers:
            enrolling = enrol(served, "Also New", section_id)
            newcomers.append(asyncio.run_coroutine_threadsafe(enrolling, loop).result(PATIENCE_S))
        return found

    async with served.socket("teacher") as teacher, served.socket("stranger") as stranger:
        await teacher.subscribe(served.topic)
        await stranger.subscribe(topic)
        monkeypatch.setattr("realtime.rights.grants", asked_just_before)

        newcomer = await enrol(served, "Newcomer")

        assert newcomer in ids(await anew(teacher))
        assert newcomers[0] in ids(await anew(stranger))


async def test_a_change_that_comes_while_one_joins_is_not_missed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The join has read the old roster, then it changes and is looked after, then the join is answered."""
    loop, newcomers = asyncio.get_running_loop(), list[str]()

    async def enrol_and_look_after() -> str:
        newcomer = await enrol(served, "Newcomer")
        await until(lambda: "muster-rights" not in [task.get_name() for task in asyncio.all_tasks()])
        return newcomer

    def read_just_before(*args: Any) -> Any:  # in the store's thread
        found = snapshot_of(*args)
        if not newcomers:
            changing = asyncio.run_coroutine_threadsafe(enrol_and_look_after(), loop)
            newcomers.append(changing.result(PATIENCE_S))
        return found

    monkeypatch.setattr("realtime.joins.snapshot_of", read_just_before)
    async with served.socket("teacher") as teacher:
        first = await teacher.subscribe(served.topic)
        last = first if newcomers[0] in ids(first) else await anew(teacher)

        assert newcomers[0] in ids(last)


async def test_while_the_database_is_away_nobody_loses_anything_and_then_the_change_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away, real = True, served.muster.store.read

    async def read(work: Any) -> Any:
        if is_away:
            raise StoreError("away")
        return await real(work)

    async with served.socket("teacher") as teacher:
        await teacher.subscribe(served.topic)
        monkeypatch.setattr(served.muster.store, "read", read)
        newcomer = await enrol(served, "Newcomer")
        await teacher.send({"type": "ping", "id": 1})
        await teacher.get("pong")
        is_away = False

        assert newcomer in ids(await anew(teacher))
        assert [frame for frame in teacher.unread if frame["type"] == "unsubscribed"] == []
