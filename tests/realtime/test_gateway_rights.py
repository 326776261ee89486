"""Who may follow what over a socket, and how that ends while it is being followed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from domain import people, sections
from domain.access import Author
from domain.clock import ManualClock
from domain.events import student_topic
from domain.ids import new_id
from domain.model import Enrolment, table
from domain.watching import grants
from realtime.realtime import Realtime
from tests.realtime.conftest import SUBSTITUTE_BEGINS, SUBSTITUTE_ENDS
from tests.realtime.sockets import PATIENCE_S, Frame, Served, Socket
from tests.waiting import until

STAFF = ("teacher", "co-teacher", "admin")
EVERYBODY = (
    *STAFF,
    "substitute",
    "student",
    "other student",
    "guardian",
    "stranger",
    "foreign student",
    "foreign guardian",
)
REFUSAL = "there is no such topic, or it is not yours to see"


def without_topic(frame: Frame) -> Frame:
    return {key: value for key, value in frame.items() if key != "topic"}


async def end_enrolment(served: Served, person_id: str) -> None:
    """As the admin, end somebody's enrolment now."""
    column, now = table(Enrolment).c, served.muster.clock.now()

    def work(conn: Connection) -> None:
        enrolment_id = conn.execute(select(column.id).where(column.person_id == person_id)).scalar_one()
        sections.end_enrolment(conn, Author(served.klass.admin), enrolment_id, now=now)

    await served.muster.store.write(work)


async def lost(socket: Socket, topic: str) -> None:
    """Wait until the server says that a topic is over for this client."""
    over = await socket.get("unsubscribed")
    assert over == {"type": "unsubscribed", "id": None, "topic": topic, "code": "forbidden"}


async def hears_nothing_of(socket: Socket, topic: str) -> bool:
    """Whether nothing of a topic comes before the answer to a ping, though something is under way."""
    await socket.send({"type": "ping", "id": 99})
    await socket.get("pong", lambda frame: frame["id"] == 99)
    return not any(frame.get("topic") == topic for frame in socket.unread if frame["type"] == "event")


@pytest.mark.parametrize("who", EVERYBODY)
async def test_a_meeting_is_for_its_staff_and_admins(served: Served, who: str) -> None:
    async with served.socket(who) as socket:
        answer = await socket.subscribe(served.topic)

    if who in STAFF:
        assert (answer["type"], len(answer["snapshot"]["roster"])) == ("subscribed", 3)
    else:
        assert (answer["type"], answer["code"], answer["message"]) == ("error", "forbidden", REFUSAL)


@pytest.mark.parametrize("who", [who for who in EVERYBODY if who not in STAFF])
async def test_what_is_not_yours_looks_like_what_is_not_there(served: Served, who: str) -> None:
    async with served.socket(who) as socket:
        theirs = await socket.subscribe(served.topic)
        nowhere = await socket.subscribe(f"meeting:{new_id()}")
        of_nobody = await socket.subscribe(student_topic(new_id()))

    assert without_topic(theirs) == without_topic(nowhere) == without_topic(of_nobody)
    assert set(theirs) == {"type", "id", "code", "message", "topic"}


@pytest.mark.parametrize("who", EVERYBODY)
async def test_a_students_topic_is_for_the_student_the_guardian_teachers_and_admins(
    served: Served, who: str
) -> None:
    topic = student_topic(served.klass.students[0])
    async with served.socket(who) as socket:
        answer = await socket.subscribe(topic)

    if who in (*STAFF, "student", "guardian"):
        assert answer["type"] == "subscribed"
        assert answer["snapshot"]["student_id"] == served.klass.students[0]
    else:
        assert (answer["type"], answer["code"]) == ("error", "forbidden")


@pytest.mark.parametrize("who", EVERYBODY)
async def test_the_wall_is_for_admins_and_the_inbox_for_everybody(served: Served, who: str) -> None:
    async with served.socket(who) as socket:
        wall, inbox = await socket.subscribe("wall"), await socket.subscribe("inbox", number=2)

    assert wall["type"] == ("subscribed" if who == "admin" else "error")
    if who == "admin":
        assert served.klass.meeting_id in [line["id"] for line in wall["snapshot"]["meetings"]]
    assert (inbox["topic"], inbox["snapshot"]) == ("inbox", {"notices": []})


@pytest.mark.parametrize(
    "topic",
    [
        "rights",
        "inbox:me",
        "wall:1",
        "meeting",
        "meeting:",
        "meeting:*",
        "meeting:not-an-id",
        "student:' OR 1=1 --",
        "Meeting:x",
        " wall",
        "\x00",
        "💣",
        "records",
    ],
)
async def test_a_name_that_is_no_topic_is_told_so_and_the_connection_goes_on(
    served: Served, topic: str
) -> None:
    async with served.socket("admin") as socket:
        answer = await socket.subscribe(topic)

        assert (answer["type"], answer["code"], answer["topic"]) == ("error", "unknown_topic", topic)
        assert (await socket.subscribe("wall"))["type"] == "subscribed"


async def test_somebody_elses_inbox_has_no_name(served: Served) -> None:
    async with served.socket("admin") as socket:
        answer = await socket.subscribe(f"inbox:{served.klass.teachers[0]}")

    assert answer["code"] == "unknown_topic"


async def test_an_id_may_be_written_in_capitals_and_followed_and_left_so(
    served: Served, realtime: Realtime
) -> None:
    shouted = f"meeting:{served.klass.meeting_id.upper()}"
    async with served.socket("teacher") as socket:
        answer = await socket.subscribe(shouted)
        await socket.send({"type": "unsubscribe", "id": 2, "topic": shouted})
        left = await socket.get("unsubscribed")

        assert (answer["type"], answer["topic"]) == ("subscribed", served.topic)
        assert (left["id"], left["topic"]) == (2, served.topic)
        assert realtime.gateway._fanout.channels() == ()


async def test_leaving_a_topic_ends_its_events_and_can_be_said_twice(served: Served) -> None:
    async with served.socket("teacher") as socket:
        await socket.subscribe(served.topic)
        for number in (2, 3):
            await socket.send({"type": "unsubscribe", "id": number, "topic": served.topic})
            assert (await socket.get("unsubscribed"))["id"] == number
        await served.record(served.opening())

        assert await hears_nothing_of(socket, served.topic)


async def test_a_substitute_follows_only_in_the_granted_time(served: Served, clock: ManualClock) -> None:
    async with served.socket("substitute") as socket:
        before = await socket.subscribe(served.topic)
        clock.set(SUBSTITUTE_BEGINS)
        during = await socket.subscribe(served.topic)
        clock.set(SUBSTITUTE_ENDS)
        await lost(socket, served.topic)
        after = await socket.subscribe(served.topic)

        await served.record(served.opening())
        assert await hears_nothing_of(socket, served.topic)
    assert [answer["type"] for answer in (before, during, after)] == ["error", "subscribed", "error"]
    assert without_topic(before) == without_topic(after)


async def test_a_substitutes_time_that_is_prolonged_goes_on(served: Served, clock: ManualClock) -> None:
    column = table(Enrolment).c
    clock.set(SUBSTITUTE_BEGINS)

    def prolong(conn: Connection) -> None:
        wanted = select(column.id).where(column.person_id == served.klass.extra["substitute"])
        sections.change_enrolment(
            conn,
            Author(served.klass.admin),
            conn.execute(wanted).scalar_one(),
            now=clock.now(),
            begins_at=SUBSTITUTE_BEGINS,
            ends_at=SUBSTITUTE_ENDS + timedelta(hours=1),
        )

    async with served.socket("substitute") as socket:
        await socket.subscribe(served.topic)
        await served.muster.store.write(prolong)
        clock.set(SUBSTITUTE_ENDS)
        for _ in range(3):
            await socket.get("heartbeat")
        await served.record(served.opening())

        assert (await socket.get("event"))["name"] == "meeting.opened"
        clock.set(SUBSTITUTE_ENDS + timedelta(hours=1))
        await lost(socket, served.topic)


async def test_a_teacher_who_leaves_the_class_sees_nothing_more_of_it(served: Served) -> None:
    mine, theirs = student_topic(served.klass.students[0]), served.topic
    async with served.socket("co-teacher") as leaving, served.socket("teacher") as staying:
        for socket in (leaving, staying):
            await socket.subscribe(theirs)
            await socket.subscribe(mine)

        await end_enrolment(served, served.klass.teachers[1])
        over = {(await leaving.get("unsubscribed"))["topic"] for _ in range(2)}
        await served.record(served.opening(), served.marking())

        assert over == {theirs, mine}
        assert [(await staying.get("event"))["seq"] for _ in range(3)]
        assert await hears_nothing_of(leaving, theirs) and await hears_nothing_of(leaving, mine)


async def test_a_teacher_of_another_class_is_not_asked_again(served: Served) -> None:
    async with served.socket("teacher") as socket:
        await socket.subscribe(served.topic)
        await end_enrolment(served, served.klass.students[2])  # the class changes, not the teacher's right
        await served.record(served.opening())

        assert (await socket.get("event"))["seq"] == 1
        assert [frame for frame in socket.unread if frame["type"] == "unsubscribed"] == []


async def test_a_student_who_leaves_the_class_is_out_of_the_teachers_sight(served: Served) -> None:
    topic = student_topic(served.klass.students[1])
    async with served.socket("teacher") as teacher, served.socket("other student") as student:
        for socket in (teacher, student):
            await socket.subscribe(topic)

        await end_enrolment(served, served.klass.students[1])
        await lost(teacher, topic)

        assert (await student.subscribe(topic))["type"] == "subscribed"


async def test_a_guardian_who_is_one_no_longer_sees_nothing_more(served: Served) -> None:
    child, klass = served.klass.students[0], served.klass
    async with served.socket("guardian") as guardian, served.socket("student") as student:
        for socket in (guardian, student):
            await socket.subscribe(student_topic(child))

        await served.muster.store.write(
            lambda conn: people.remove_guardian(
                conn, Author(klass.admin), guardian_id=klass.guardian, student_id=child, now=klass.start
            )
        )
        await lost(guardian, student_topic(child))
        await served.record(served.opening(), served.marking())

        assert (await student.get("event"))["name"] == "record.changed"
        assert await hears_nothing_of(guardian, student_topic(child))


async def test_what_staff_remark_on_is_not_told_on_a_students_topic(served: Served) -> None:
    child = student_topic(served.klass.students[0])
    async with served.socket("teacher") as teacher, served.socket("guardian") as guardian:
        await teacher.subscribe(served.topic)
        await guardian.subscribe(child)

        await served.record(served.opening(), served.marking(remark="smells of smoke"))
        told = await teacher.get("event", lambda frame: frame["name"] == "record.changed")
        heard = await guardian.get("event")
        begun = await guardian.subscribe(child)
        missed = await guardian.subscribe(child, {"seq": 0, "epoch": begun["epoch"]})

    assert told["data"]["remark"] == "smells of smoke"
    assert heard["data"]["remark"] == ""
    assert "smoke" not in str((heard, begun, missed))


async def test_rights_that_cannot_be_looked_up_show_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    async with served.socket("teacher") as socket:
        await socket.subscribe(served.topic)
        monkeypatch.setattr("realtime.rights.grants", fail)
        await end_enrolment(served, served.klass.students[2])
        await lost(socket, served.topic)

    assert "rights could not be looked up" in caplog.text


async def test_a_right_that_ends_while_one_joins_is_not_granted(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The join has read that the teacher may, then the enrolment ends, then the join is answered."""
    loop, real, has_ended = asyncio.get_running_loop(), grants, False

    def granted_just_before(*args: Any, **how: Any) -> Any:  # in the store's thread
        nonlocal has_ended
        found = real(*args, **how)
        if not has_ended:
            ending = end_enrolment(served, served.klass.teachers[1])
            asyncio.run_coroutine_threadsafe(ending, loop).result(PATIENCE_S)
            has_ended = True
        return found

    monkeypatch.setattr("realtime.joins.grants", granted_just_before)
    async with served.socket("co-teacher") as socket:
        await socket.send({"type": "subscribe", "id": 5, "topics": {served.topic: None}})
        await until(lambda: has_ended)
        await lost(socket, served.topic)
        await served.record(served.opening())

        assert await hears_nothing_of(socket, served.topic)
        assert [frame for frame in socket.unread if frame["type"] == "subscribed"] == []
