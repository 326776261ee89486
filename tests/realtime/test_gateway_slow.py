"""Clients that do not read: nobody waits for them, they cost a bounded amount of memory, and they may catch up."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection as Database

from domain.access import Author
from domain.events import meeting_topic
from domain.ids import new_id
from domain.model import EnrolmentRole
from domain.muster import Muster
from domain.operations import Operation, parse
from realtime.connection import Connection
from realtime.fanout import RING, WRITE_AT_ONCE
from realtime.limits import Limits
from realtime.realtime import Realtime
from tests.factories import AClass, a_class, an_enrolment
from tests.realtime.lines import PING, TEXT, Line, line, masked
from tests.realtime.sockets import Frame, Served
from tests.waiting import until

#: asyncio's transports, and uvloop's, say that they are full from here on.
HIGH_WATER = 64 * 1024
SMALL = 4096
#: So many bytes are taken from a client at once.
READ_AT_ONCE = 256 * 1024


class Crowd:
    """A meeting of a hundred students, and what happens in it."""

    def __init__(self, muster: Muster, klass: AClass) -> None:
        self._muster, self._klass = muster, klass
        self._students = itertools.cycle(klass.students)
        self.topic = meeting_topic(klass.meeting_id)
        self.head = 0

    async def record(self, count: int) -> None:
        """As many events of about a kilobyte each, in groups that are not put together."""
        for start in range(0, count, 50):
            operations = [self._marking() for _ in range(start, min(start + 50, count))]
            await self._muster.recorder.record(operations, Author(self._klass.teachers[0]))
            self.head += len(operations)

    def _marking(self) -> Operation:
        marked = {"meeting_id": self._klass.meeting_id, "student_id": next(self._students)}
        remark = secrets.token_hex(250)
        return parse({"id": new_id(), "kind": "mark", "status": "present", "remark": remark, **marked})

    async def follow(self, raw: Line) -> None:
        """Begin to follow the meeting, and read no further than that."""
        raw.write(TEXT, {"type": "subscribe", "id": 1, "topics": {self.topic: None}})
        while (await raw.read_until(TEXT)).document["type"] != "subscribed":
            pass

    async def until_somebody_is_behind(self, realtime: Realtime) -> None:
        """Let so much happen that a client that does not read is behind."""
        while not realtime.metrics.value("muster_slow_connections"):
            await self.record(50)


@pytest.fixture
def crowd(muster: Muster, klass: AClass) -> Crowd:
    """The teachers of ``klass`` teach there too."""
    crowd = a_class(muster.store, students=100, code="crowd")

    def work(conn: Database) -> None:
        for teacher in klass.teachers:
            an_enrolment(conn, crowd.section_id, teacher, EnrolmentRole.TEACHER)

    muster.store.write_now(work)
    return Crowd(muster, crowd)


def connection_of(realtime: Realtime, who: str) -> Connection:
    [connection] = [c for c in realtime.gateway.connections() if c.login.person_id == who]
    return connection


@asynccontextmanager
async def narrow_line(served: Served, realtime: Realtime, who: str) -> AsyncIterator[Line]:
    """A greeted connection of which the system keeps but a few kilobytes on their way."""
    async with line(served.base, await served.token(who), receive_buffer=SMALL) as raw:
        await raw.read_until(TEXT)
        wire: Any = connection_of(realtime, served.klass.extra[who]).wire
        wire.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        yield raw


def unread_bytes(connection: Connection) -> int:
    """What waits in our memory for a client."""
    wire: Any = connection.wire
    size: int = wire.transport.get_write_buffer_size()
    return size


@pytest.mark.parametrize("limits", [Limits(slow_s=0.2)], indirect=True)
async def test_a_client_that_does_not_read_is_cut_off_and_nobody_waits_for_it(
    served: Served, realtime: Realtime, crowd: Crowd
) -> None:
    async with served.socket("teacher") as quick, narrow_line(served, realtime, "co-teacher") as slow:
        await quick.subscribe(crowd.topic)
        await crowd.follow(slow)
        await crowd.until_somebody_is_behind(realtime)

        await until(lambda: realtime.metrics.value("muster_closed_total", {"code": "4408"}))
        await crowd.record(50)
        told = [(await quick.get("event"))["seq"] for _ in range(crowd.head)]

        assert told == list(range(1, crowd.head + 1))
        assert await slow.code() == 4408
        await until(lambda: realtime.gateway.connection_count == 1)
    assert realtime.metrics.value("muster_closed_total", {"code": "4408"}) == 1


async def test_a_client_that_reads_on_in_time_catches_up_without_a_gap(
    served: Served, realtime: Realtime, crowd: Crowd
) -> None:
    async with narrow_line(served, realtime, "teacher") as slow:
        await crowd.follow(slow)
        await crowd.until_somebody_is_behind(realtime)
        connection = connection_of(realtime, served.klass.teachers[0])
        await crowd.record(500)
        assert unread_bytes(connection) < HIGH_WATER + 2 * WRITE_AT_ONCE

        at = 0
        while at < crowd.head:
            frame = (await slow.read_until(TEXT)).document
            if frame["type"] == "event":
                assert frame.get("from", frame["seq"]) == at + 1
                at = frame["seq"]
        assert connection.slow_since is None
        await crowd.record(1)
        assert (await next_event(slow))["seq"] == crowd.head


async def test_a_client_that_missed_too_much_is_told_where_it_stands_and_goes_on_from_there(
    served: Served, realtime: Realtime, crowd: Crowd
) -> None:
    async with narrow_line(served, realtime, "teacher") as slow:
        await crowd.follow(slow)
        await crowd.until_somebody_is_behind(realtime)
        await crowd.record(RING + 200)

        at, anew = 0, list[Frame]()
        while at < crowd.head:
            frame = (await slow.read_until(TEXT)).document
            if frame["type"] == "event":
                assert frame.get("from", frame["seq"]) == at + 1
                at = frame["seq"]
            elif frame["type"] == "subscribed":
                anew.append(frame)
                at = frame["seq"]
        assert [(frame["id"], frame["snapshot"]["seq"] == frame["seq"]) for frame in anew] == [(None, True)]
        await crowd.record(1)
        assert (await next_event(slow))["seq"] == crowd.head


async def next_event(raw: Line) -> Frame:
    while (frame := (await raw.read_until(TEXT)).document)["type"] != "event":
        pass
    return frame


#: A frame whose answer is twice as long as itself: so many errors.
NOWHERE = {"type": "subscribe", "id": 1, "topics": {f"{n:080}": None for n in range(500)}}
ANSWER = 500 * 256


@pytest.mark.parametrize(
    "limits", [Limits(frames_per_s=1e6, frame_burst=1_000_000, slow_s=1e9)], indirect=True
)
async def test_a_client_that_asks_without_reading_the_answers_is_heard_no_more_until_it_does(
    served: Served, realtime: Realtime
) -> None:
    async with narrow_line(served, realtime, "teacher") as greedy:
        connection = connection_of(realtime, served.klass.teachers[0])
        for _ in range(100):
            greedy.write(TEXT, NOWHERE)
        await until(lambda: connection.wire.is_full)
        for _ in range(300):
            await asyncio.sleep(0)
            assert unread_bytes(connection) < HIGH_WATER + ANSWER

        answers = [(await greedy.read_until(TEXT)).document["type"] for _ in range(100 * 500)]
        assert answers.count("error") > 100 * 500 - 100  # the others are heartbeats


@pytest.mark.parametrize(
    "limits", [Limits(frames_per_s=1e6, frame_burst=1_000_000, slow_s=0.2)], indirect=True
)
async def test_a_client_that_asks_without_reading_the_answers_is_cut_off(
    served: Served, realtime: Realtime
) -> None:
    async with narrow_line(served, realtime, "teacher") as greedy:
        for _ in range(100):
            greedy.write(TEXT, NOWHERE)

        await until(lambda: realtime.metrics.value("muster_closed_total", {"code": "4408"}))
        await until(lambda: realtime.gateway.connection_count == 0)
    assert realtime.metrics.value("muster_closed_total", {"code": "4408"}) == 1


async def test_pings_of_the_websocket_kind_are_not_answered_into_memory_either(
    served: Served, realtime: Realtime
) -> None:
    async with narrow_line(served, realtime, "teacher") as greedy:
        connection = connection_of(realtime, served.klass.teachers[0])
        while not connection.wire.is_full:
            greedy.writer.write(masked(PING, b"x" * 125) * 1000)
            await asyncio.sleep(0)
        for _ in range(50):
            greedy.writer.write(masked(PING, b"x" * 125) * 1000)
            await asyncio.sleep(0)
            assert unread_bytes(connection) < HIGH_WATER + READ_AT_ONCE
