"""Operations over the socket: the same door as HTTP, answered when they are durable, in order, once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from domain import events
from domain.ids import new_id
from realtime.realtime import Realtime
from tests.realtime.sockets import Frame, Served, Socket
from tests.waiting import until

Post = Callable[..., Awaitable[list[Frame]]]


async def operate(socket: Socket, *operations: Any, number: int = 1) -> list[Frame]:
    """Send operations in one frame; their outcomes."""
    await socket.send({"type": "operations", "id": number, "operations": list(operations)})
    answer = await socket.get("outcomes", lambda frame: frame["id"] == number)
    outcomes: list[Frame] = answer["outcomes"]
    return outcomes


async def post(served: Served, who: str, *operations: Any) -> list[Frame]:
    """The same over HTTP."""
    headers = {"Authorization": f"Bearer {await served.token(who)}"}
    async with httpx.AsyncClient(base_url=served.base) as client:
        answer = await client.post(
            "/api/v1/operations", json={"operations": list(operations)}, headers=headers
        )
    outcomes: list[Frame] = answer.json()["outcomes"]
    return outcomes


async def log_of(served: Served) -> list[tuple[int, str, str | None]]:
    """What the meeting's log holds: seq, name, operation."""
    found = await served.muster.store.read(lambda conn: events.read_after(conn, served.topic, 0, 1000))
    return [(event.seq, event.name, event.operation_id) for event in found]


def verdicts(outcomes: list[Frame]) -> list[str]:
    return [outcome["outcome"] for outcome in outcomes]


async def test_an_operation_is_taken_once_however_often_and_on_whichever_way_it_comes(served: Served) -> None:
    opening, marking = served.opening(), served.marking()
    async with served.socket("teacher") as one, served.socket("teacher") as another:
        first = await operate(one, opening, marking, marking)
        again = await operate(one, marking)
        elsewhere = await operate(another, opening, marking)
        over_http = await post(served, "teacher", marking)
        new_over_http = await post(served, "teacher", later := served.marking(1))
        then_here = await operate(one, later, number=2)

    assert verdicts(first) == ["accepted", "accepted", "duplicate"]
    assert verdicts(again + elsewhere + over_http) == ["duplicate"] * 4
    assert (verdicts(new_over_http), verdicts(then_here)) == (["accepted"], ["duplicate"])
    assert again[0] == over_http[0] == elsewhere[1]
    assert again[0]["record"] == first[1]["record"]
    assert [name for _, name, _ in await log_of(served)] == ["meeting.opened"] + ["record.changed"] * 2


async def test_an_id_that_says_something_else_now_is_not_taken_for_the_same(served: Served) -> None:
    marking = served.marking()
    async with served.socket("teacher") as socket:
        await operate(socket, served.opening(), marking)
        [other] = await operate(socket, marking | {"status": "absent"})

    assert other["outcome"] == "rejected" and other["code"] and other["hint"]
    assert len(await log_of(served)) == 2


async def test_one_bad_operation_spoils_none_of_its_neighbours_and_all_are_answered_in_order(
    served: Served,
) -> None:
    opening, first, second = served.opening(), served.marking(0), served.marking(1)
    stranger = served.marking(student_id=new_id())
    async with served.socket("teacher") as socket:
        outcomes = await operate(socket, opening, {"id": "x"}, first, stranger, None, second)

    assert verdicts(outcomes) == ["accepted", "rejected", "accepted", "rejected", "rejected", "accepted"]
    assert [outcome["id"] for outcome in outcomes] == [
        opening["id"],
        None,
        first["id"],
        stranger["id"],
        None,
        second["id"],
    ]
    assert all(
        outcome["code"] and outcome["hint"] for outcome in outcomes if outcome["outcome"] == "rejected"
    )


async def test_frames_of_operations_are_recorded_and_answered_in_the_order_in_which_they_came(
    served: Served,
) -> None:
    async with served.socket("teacher") as socket:
        sent = [[served.marking(n % 3), served.marking((n + 1) % 3)] for n in range(8)]
        for number, operations in enumerate(sent):
            await socket.send({"type": "operations", "id": number, "operations": operations})
        answers = [await socket.get("outcomes") for _ in sent]

    assert [answer["id"] for answer in answers] == list(range(8))
    seqs = [outcome["seq"] for answer in answers for outcome in answer["outcomes"]]
    assert seqs == list(range(1, 17))
    in_order = [operation["id"] for operations in sent for operation in operations]
    assert [operation for _, _, operation in await log_of(served)] == in_order


async def test_what_is_acknowledged_is_in_the_log(served: Served) -> None:
    async with served.socket("teacher") as socket:
        for number in range(10):
            marking = served.marking(number % 3)
            [outcome] = await operate(socket, marking, number=number)

            assert (outcome["seq"], "record.changed", marking["id"]) in await log_of(served)


@pytest.mark.parametrize("who", ["student", "other student", "guardian", "stranger", "substitute"])
async def test_whoever_may_not_is_told_so_and_nothing_is_recorded(served: Served, who: str) -> None:
    async with served.socket(who) as socket:
        outcomes = await operate(socket, served.opening(), served.marking())

    assert [(outcome["outcome"], outcome["code"]) for outcome in outcomes] == [("rejected", "forbidden")] * 2
    assert await log_of(served) == []


async def test_a_student_checks_in_over_the_socket_and_the_teacher_sees_it(served: Served) -> None:
    async with served.socket("teacher") as teacher, served.socket("student") as student:
        await teacher.subscribe(served.topic)
        await operate(teacher, served.opening())
        await student.subscribe(f"student:{served.klass.students[0]}")
        check_in = {
            "id": new_id(),
            "kind": "check_in",
            "via": "qr",
            "proof": served.klass.qr(served.muster.clock.now()),
            "meeting_id": served.klass.meeting_id,
        }
        [outcome] = await operate(student, check_in)
        seen = await teacher.get("event", lambda frame: frame["name"] == "record.changed")
        own = await student.get("event")

    assert (outcome["outcome"], outcome["record"]["status"]) == ("accepted", "present")
    assert seen["data"]["student_id"] == own["data"]["student_id"] == served.klass.students[0]
    assert seen["data"]["status"] == own["data"]["status"] == "present"


async def test_what_was_handed_on_is_written_though_the_client_is_gone(
    served: Served, realtime: Realtime, caplog: pytest.LogCaptureFixture
) -> None:
    marking = served.marking()
    async with served.socket("teacher") as socket:
        await socket.send({"type": "operations", "id": 1, "operations": [served.opening(), marking]})
        await socket.send({"type": "ping", "id": 2})
        await socket.get("pong")  # so the frame before it was taken
        socket.ws.transport.abort()

    async def is_written() -> bool:
        return marking["id"] in [operation for _, _, operation in await log_of(served)]

    await until(is_written)
    async with served.socket("teacher") as socket:
        assert verdicts(await operate(socket, marking)) == ["duplicate"]
    await until(lambda: not realtime.gateway._operations._tasks)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_login_that_has_ended_records_nothing_more(served: Served) -> None:
    async with served.socket("co-teacher") as socket, served.socket("teacher") as other:
        await other.subscribe(served.topic)
        login = await served.muster.logins.find(await served.token("co-teacher"))
        assert login is not None
        await served.muster.logins.revoke(login.login_id, login.author)
        assert await socket.ended() == 4401

    assert await log_of(served) == []
