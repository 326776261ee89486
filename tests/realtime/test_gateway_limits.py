"""What is too much is refused with a reason, and never at somebody else's cost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from domain.ids import new_id
from realtime.limits import Limits
from realtime.protocol import MAX_OPERATIONS
from realtime.realtime import Realtime
from tests.realtime.sockets import Frame, Served, Socket
from tests.waiting import until


def limited(**values: Any) -> pytest.MarkDecorator:
    """The gateway keeps to these limits."""
    return pytest.mark.parametrize("limits", [Limits(**values)], indirect=True, ids=[""])


async def is_answered(socket: Socket) -> bool:
    await socket.send({"type": "ping", "id": 77})
    return bool((await socket.get("pong", lambda frame: frame["id"] == 77))["server_time"])


def operations(number: int, *found: Frame) -> Frame:
    return {"type": "operations", "id": number, "operations": list(found)}


async def refused(base: str, token: str) -> tuple[int, list[Frame]]:
    """How a connection ends that is not let in, and what it was told."""
    async with Socket(base, token) as socket:
        return await socket.ended(), socket.unread


# -- frames


@limited(frames_per_s=0.001, frame_burst=3)
async def test_too_many_frames_are_refused_one_by_one_by_their_number(
    served: Served, realtime: Realtime
) -> None:
    async with served.socket("teacher") as socket, served.socket("co-teacher") as other:
        for number in range(5):
            await socket.send({"type": "ping", "id": number})
        pongs = [(await socket.get("pong"))["id"] for _ in range(3)]
        errors = [await socket.get("error") for _ in range(2)]

        assert pongs == [0, 1, 2]
        assert [(error["id"], error["code"]) for error in errors] == [
            (3, "rate_limited"),
            (4, "rate_limited"),
        ]
        assert all(900 < error["retry_after"] <= 1000 for error in errors)
        assert await is_answered(other)
    assert realtime.metrics.value("muster_rate_limited_total", {"what": "frame"}) == 2


@limited(frames_per_s=0.001, frame_burst=1)
async def test_a_frame_that_is_refused_is_not_carried_out(served: Served) -> None:
    async with served.socket("teacher") as socket:
        await socket.send({"type": "ping", "id": 1})
        refused = await socket.subscribe(served.topic, number=2)
        await socket.send(operations(3, served.opening()))
        also = await socket.get("error", lambda frame: frame["id"] == 3)

    assert (refused["code"], also["code"]) == ("rate_limited", "rate_limited")
    login = await served.muster.logins.find(await served.token("teacher"))
    assert login is not None and (await served.record(served.opening()))[0].seq == 1


@limited(frames_per_s=20.0, frame_burst=1)
async def test_whoever_waits_a_little_is_heard_again(served: Served) -> None:
    async with served.socket("teacher") as socket:
        await socket.send({"type": "ping", "id": 0})
        await socket.get("pong")

        async def is_heard() -> bool:
            await socket.send({"type": "ping", "id": 1})
            return bool((await socket.next())["type"] == "pong")

        await until(is_heard)


@limited(bad_frames=5)
async def test_whoever_is_wrong_too_often_is_sent_away_for_a_while(served: Served) -> None:
    async with served.socket("teacher") as socket:
        for _ in range(6):
            await socket.send("nonsense")

        assert await socket.ended() == 4429
        assert [frame["type"] for frame in socket.unread] == ["error"] * 4 + ["bye"]


# -- operations


async def test_more_operations_than_fit_into_a_frame_are_refused_as_a_whole(served: Served) -> None:
    async with served.socket("teacher") as socket:
        many: list[Any] = [{"id": new_id()} for _ in range(MAX_OPERATIONS + 1)]
        await socket.send(operations(4, *many))
        refused = await socket.get("error")
        await socket.send(operations(5, *many[1:]))
        taken = await socket.get("outcomes")

    assert (refused["id"], refused["code"]) == (4, "too_large")
    assert str(MAX_OPERATIONS) in refused["message"]
    assert (taken["id"], len(taken["outcomes"])) == (5, MAX_OPERATIONS)


@limited(operations_per_s=0.001, operation_burst=3)
async def test_too_many_operations_at_once_are_refused_and_not_recorded(
    served: Served, realtime: Realtime
) -> None:
    async with served.socket("teacher") as socket, served.socket("co-teacher") as other:
        for socket_, number in ((socket, 1), (socket, 2), (other, 3)):
            await socket_.send(operations(number, served.marking(0), served.marking(1)))
        taken, refused, others = (
            await socket.get("outcomes"),
            await socket.get("error"),
            await other.get("outcomes"),
        )

    assert (taken["id"], refused["id"], refused["code"]) == (1, 2, "rate_limited")
    assert 900 < refused["retry_after"] <= 1000
    assert [outcome["seq"] for outcome in others["outcomes"]] == [3, 4]
    assert realtime.metrics.value("muster_rate_limited_total", {"what": "operation"}) == 1


@limited(operation_frames=2)
async def test_only_so_many_frames_of_operations_wait_for_their_commit(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, record = asyncio.Event(), served.muster.recorder.record

    async def record_later(*args: Any, **how: Any) -> Any:
        await may_go_on.wait()
        return await record(*args, **how)

    monkeypatch.setattr(served.muster.recorder, "record", record_later)
    async with served.socket("teacher") as socket:
        for number in range(4):
            await socket.send(operations(number, served.marking()))
        refused = [await socket.get("error") for _ in range(2)]
        may_go_on.set()
        taken = [await socket.get("outcomes") for _ in range(2)]
        await socket.send(operations(9, served.marking()))

        assert [(frame["id"], frame["code"]) for frame in refused] == [
            (2, "rate_limited"),
            (3, "rate_limited"),
        ]
        assert all(frame["retry_after"] > 0 for frame in refused)
        assert [frame["id"] for frame in taken] == [0, 1]
        assert (await socket.get("outcomes"))["id"] == 9


async def test_when_too_much_waits_to_be_written_one_is_asked_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served.socket("teacher") as socket:
        monkeypatch.setattr("domain.record.MAX_WAITING", 0)
        await socket.send(operations(1, served.marking()))
        refused = await socket.get("error")

    assert (refused["id"], refused["code"], refused["retry_after"]) == (1, "rate_limited", 1.0)


async def test_when_writing_fails_altogether_one_is_asked_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    async with served.socket("teacher") as socket:
        monkeypatch.setattr(served.muster.recorder, "record", fail)
        await socket.send(operations(1, served.marking()))
        refused = await socket.get("error")
        monkeypatch.undo()
        await socket.send(operations(2, served.marking()))

        assert (refused["id"], refused["code"], refused["retry_after"]) == (1, "unavailable", 1.0)
        assert (await socket.get("outcomes"))["id"] == 2
    assert "operations could not be recorded" in caplog.text


# -- topics


@limited(topics=2)
async def test_only_so_many_topics_are_followed_and_each_that_is_left_makes_room(
    served: Served, realtime: Realtime
) -> None:
    async with served.socket("admin") as socket:
        forbidden = await socket.subscribe(f"meeting:{new_id()}", number=1)
        first, second = await socket.subscribe("wall", number=2), await socket.subscribe("inbox", number=3)
        refused = await socket.subscribe(served.topic, number=4)
        again = await socket.subscribe("wall", number=5)
        await socket.send({"type": "unsubscribe", "id": 6, "topic": "inbox"})
        third = await socket.subscribe(served.topic, number=7)

    assert forbidden["code"] == "forbidden"
    assert [frame["type"] for frame in (first, second, again, third)] == ["subscribed"] * 4
    assert (refused["code"], refused["id"], refused["topic"]) == ("too_many_topics", 4, served.topic)
    assert realtime.metrics.value("muster_rate_limited_total", {"what": "topic"}) == 1


@limited(topics=3)
async def test_of_too_many_topics_in_one_frame_the_first_are_followed(served: Served) -> None:
    async with served.socket("admin") as socket:
        topics: dict[str, None] = dict.fromkeys(
            ["wall", "inbox", served.topic, *(f"student:{new_id()}" for _ in "ab")]
        )
        await socket.send({"type": "subscribe", "id": 1, "topics": topics})
        begun = {(await socket.get("subscribed"))["topic"] for _ in range(3)}
        codes = [(await socket.get("error"))["code"] for _ in range(2)]

    assert begun == {"wall", "inbox", served.topic}
    assert codes == ["too_many_topics"] * 2


# -- connections


@limited(connections_per_person=2)
async def test_of_too_many_connections_of_one_person_the_oldest_makes_room(served: Served) -> None:
    async with (
        served.socket("teacher") as first,
        served.socket("teacher") as second,
        served.socket("co-teacher") as other,
        served.socket("teacher") as third,
    ):
        assert await first.ended() == 4409
        assert first.unread == []  # no bye: it is not to come back
        for socket in (second, third, other):
            assert await is_answered(socket)


@limited(connections_per_person=3)
async def test_many_connections_of_one_person_at_once_leave_the_newest(
    served: Served, realtime: Realtime
) -> None:
    sockets = [Socket(served.base, await served.token("teacher")) for _ in range(30)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(socket) for socket in sockets))
        await until(lambda: realtime.gateway.connection_count == 3)

        assert realtime.metrics.value("muster_closed_total", {"code": "4409"}) == 27


@pytest.mark.parametrize("limits", [Limits(connections=2), Limits(connections_per_address=2)], indirect=True)
async def test_when_there_is_no_room_one_is_told_when_to_come_back(
    served: Served, realtime: Realtime
) -> None:
    token = await served.token("admin")
    async with served.socket("teacher") as first:
        async with served.socket("co-teacher") as second:
            code, told = await refused(served.base, token)
            assert await is_answered(first) and await is_answered(second)
        await until(lambda: realtime.gateway.connection_count == 1)
        async with served.socket("admin") as third:
            assert await is_answered(third)

    assert (code, [frame["type"] for frame in told]) == (4429, ["bye"])
    assert 10_000 <= told[0]["retry_ms"] <= 20_000
    assert realtime.metrics.value("muster_rate_limited_total", {"what": "connection"}) == 1


@limited(connects_per_s=0.001, connect_burst=3)
async def test_whoever_connects_too_quickly_is_told_when_to_come_back(served: Served) -> None:
    for _ in range(3):
        async with served.socket("teacher") as socket:
            assert await is_answered(socket)

    code, told = await refused(served.base, await served.token("teacher"))

    assert (code, [frame["type"] for frame in told]) == (4429, ["bye"])
    assert told[0]["retry_ms"] > 500_000


@limited(waiting_for_auth=2)
async def test_many_who_do_not_say_who_they_are_keep_nobody_else_out(served: Served) -> None:
    async with Socket(served.base), Socket(served.base), Socket(served.base) as third:
        assert await third.ended() == 4429
        async with served.socket("teacher") as known:
            assert await is_answered(known)


@limited(connections_per_person=1000)
async def test_three_hundred_who_come_at_once_are_served_and_a_follower_still_gets_every_event(
    served: Served, realtime: Realtime
) -> None:
    await served.record(served.opening())
    token = await served.token("teacher")

    async def come() -> tuple[Frame, list[int]]:
        async with Socket(served.base, token) as socket:
            await socket.greeted()
            begun = await socket.subscribe(served.topic)
            await everybody.wait()
            seqs, at = list[int](), int(begun["seq"])
            while at < 21:
                frame = await socket.get("event")
                seqs += range(frame.get("from", frame["seq"]), frame["seq"] + 1)  # type: ignore[arg-type]
                at = frame["seq"]
            return begun, seqs

    everybody = asyncio.Barrier(301)
    async with served.socket("co-teacher") as follower:
        await follower.subscribe(served.topic)
        coming = [asyncio.create_task(come()) for _ in range(300)]
        for number in range(10):
            await served.record(served.marking(number % 3))
        first = [(await follower.get("event"))["seq"] for _ in range(10)]
        await everybody.wait()
        for number in range(10):
            await served.record(served.marking(number % 3))
        arrived = await asyncio.gather(*coming)
        second = [(await follower.get("event"))["seq"] for _ in range(10)]

    assert first + second == list(range(2, 22))
    for begun, seqs in arrived:
        assert begun["snapshot"]["seq"] == begun["seq"]
        assert seqs == list(range(begun["seq"] + 1, 22))
    await until(lambda: realtime.gateway.connection_count == 0)
