"""A meeting over HTTP: opened, watched, followed by long poll, read back."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from domain.clock import ManualClock
from domain.events import Event
from domain.ids import new_id
from domain.muster import Muster
from realtime.api import meetings
from realtime.app import create_app
from realtime.bus import MemoryBus
from realtime.hub import QUEUE, Follower, Hub
from realtime.realtime import Realtime
from tests.factories import NOW, AClass
from tests.realtime.conftest import As, log_in, problem


async def operate(client: httpx.AsyncClient, *operations: dict[str, Any]) -> list[dict[str, Any]]:
    """Send operations, each with a fresh id unless it has one; their outcomes."""
    body = {"operations": [{"id": new_id(), **operation} for operation in operations]}
    answer = await client.post("/api/v1/operations", json=body)
    assert answer.status_code == 200, answer.text
    outcomes: list[dict[str, Any]] = answer.json()["outcomes"]
    return outcomes


def opening(klass: AClass) -> dict[str, Any]:
    return {"kind": "open_meeting", "meeting_id": klass.meeting_id}


def marking(klass: AClass, student: int = 0, status: str = "present") -> dict[str, Any]:
    return {
        "kind": "mark",
        "meeting_id": klass.meeting_id,
        "student_id": klass.students[student],
        "status": status,
    }


@pytest.fixture
def path(klass: AClass) -> str:
    return f"/api/v1/meetings/{klass.meeting_id}"


# --- A class, from outside ---


async def test_a_stranger_with_the_protocol_takes_a_class(client_as: As, klass: AClass, path: str) -> None:
    teacher, student = await client_as("teacher"), await client_as("student")

    [opened] = await operate(teacher, opening(klass))
    codes = (await teacher.get(f"{path}/codes")).json()
    proof = codes["qr_url"].rpartition("/")[2]
    check_in = {
        "id": new_id(),
        "kind": "check_in",
        "meeting_id": klass.meeting_id,
        "captured_at": "2026-11-23T09:00:00.000Z",
        "clock_offset_ms": 0,
        "via": "qr",
        "proof": proof,
    }
    [first], [again] = await operate(student, check_in), await operate(student, check_in)
    [closed] = await operate(
        teacher, {"kind": "close_meeting", "meeting_id": klass.meeting_id, "final": True}
    )
    view = (await teacher.get(path)).json()

    assert [o["outcome"] for o in (opened, first, again, closed)] == [
        "accepted",
        "accepted",
        "duplicate",
        "accepted",
    ]
    assert (first["record"]["status"], first["record"]["source"]) == ("present", "qr")
    assert again["record"] == first["record"]
    assert codes["qr_url"].startswith("http://muster.test/j/")
    assert codes["step_s"] == 15 and len(codes["code"]) == 6
    assert view["meeting"]["state"] in ("closing", "closed")
    assert {row["status"] for row in view["roster"] if row["student_id"] == klass.students[0]} == {"present"}


async def test_a_snapshot_is_true_at_its_seq(client_as: As, klass: AClass, path: str) -> None:
    teacher = await client_as("teacher")
    before = (await teacher.get(path)).json()
    await operate(teacher, opening(klass), marking(klass, 0, "late"))

    after = (await teacher.get(path)).json()
    events = (await teacher.get(f"{path}/events", params={"after": before["seq"]})).json()

    assert [row["status"] for row in before["roster"]] == [None, None, None]
    assert after["epoch"] == before["epoch"] == events["epoch"]
    assert after["seq"] == events["seq"] == events["events"][-1]["seq"]
    row = next(row for row in after["roster"] if row["student_id"] == klass.students[0])
    told = events["events"][-1]["data"]
    assert {name: row[name] for name in row if name != "name"} == {
        name: told[name] for name in row if name != "name"
    }


async def test_codes_are_there_while_the_meeting_is_open(client_as: As, klass: AClass, path: str) -> None:
    teacher = await client_as("teacher")

    assert problem(await teacher.get(f"{path}/codes")) == (409, "not_open")
    await operate(teacher, opening(klass))
    assert (await teacher.get(f"{path}/codes")).json()["expires_at"] == "2026-11-23T09:00:15.000Z"


async def test_meetings_are_listed_by_day_and_by_section(client_as: As, klass: AClass) -> None:
    teacher = await client_as("teacher")

    today = (await teacher.get("/api/v1/meetings")).json()
    same = (await teacher.get("/api/v1/meetings", params={"on": "2026-11-23"})).json()
    tomorrow = (await teacher.get("/api/v1/meetings", params={"on": "2026-11-24"})).json()
    listed = f"/api/v1/sections/{klass.section_id}/meetings"
    of_section = (await teacher.get(listed, params={"begin_on": "2026-11-20", "days": 7})).json()

    assert today == same
    assert (
        [m["id"] for m in today["meetings"]]
        == [klass.meeting_id]
        == [m["id"] for m in of_section["meetings"]]
    )
    assert today["meetings"][0]["enrolled"] == 3
    assert tomorrow == {"on": "2026-11-24", "meetings": []}
    for wrong in ({"days": 0}, {"days": 1000}, {"begin_on": "x"}):
        assert problem(await teacher.get(listed, params=wrong)) == (422, "invalid")


@pytest.mark.parametrize("on", ["0001-01-01", "1969-12-31", "2201-01-01", "9999-12-31"])
async def test_days_at_the_ends_of_the_calendar_are_refused_with_a_reason(
    client_as: As, klass: AClass, on: str
) -> None:
    teacher = await client_as("teacher")

    for answer in (
        await teacher.get("/api/v1/meetings", params={"on": on}),
        await teacher.get(f"/api/v1/sections/{klass.section_id}/meetings", params={"begin_on": on}),
        await teacher.get("/api/v1/export/attendance.csv", params={"begin_on": on, "end_on": on}),
    ):
        assert problem(answer) == (422, "invalid")


@pytest.mark.parametrize("on", ["1970-01-01", "2200-12-31"])
async def test_the_last_days_that_can_be_asked_for_are_answered(
    client_as: As, klass: AClass, on: str
) -> None:
    teacher = await client_as("teacher")

    day = await teacher.get("/api/v1/meetings", params={"on": on})
    year = await teacher.get(
        f"/api/v1/sections/{klass.section_id}/meetings", params={"begin_on": on, "days": 366}
    )

    assert day.json() == {"on": on, "meetings": []}
    assert year.json() == {"meetings": []}


# --- Long poll ---


async def test_events_that_are_there_are_given_at_once(client_as: As, klass: AClass, path: str) -> None:
    teacher = await client_as("teacher")
    await operate(teacher, opening(klass), marking(klass, 0), marking(klass, 1))

    answer = (await teacher.get(f"{path}/events", params={"after": 1, "wait": 60})).json()

    assert [event["seq"] for event in answer["events"]] == [2, 3]
    assert {event["topic"] for event in answer["events"]} == {answer["topic"]}


async def test_waiting_ends_without_news_when_its_time_is_up(client_as: As, path: str) -> None:
    teacher = await client_as("teacher")

    answer = (await teacher.get(f"{path}/events", params={"wait": 0.01})).json()

    assert (answer["seq"], answer["events"]) == (0, [])
    assert problem(await teacher.get(f"{path}/events", params={"wait": 61})) == (422, "invalid")


@pytest.fixture
def poll_waits(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set as soon as a long poll has read the log and waits for news."""
    waits, grows = asyncio.Event(), meetings._grows

    async def noting(follower: Follower, after: int, wait_s: float) -> bool:
        waits.set()
        return await grows(follower, after, wait_s)

    monkeypatch.setattr(meetings, "_grows", noting)
    return waits


async def test_whoever_waits_hears_of_a_change_at_once(
    client_as: As, hub: Hub, klass: AClass, poll_waits: asyncio.Event, path: str
) -> None:
    teacher, other = await client_as("teacher"), await client_as("co-teacher")
    topic = f"meeting:{klass.meeting_id}"

    waiting = asyncio.create_task(other.get(f"{path}/events", params={"wait": 60}))
    await poll_waits.wait()
    await operate(teacher, opening(klass))
    async with asyncio.timeout(5):
        answer = (await waiting).json()

    assert [event["name"] for event in answer["events"]] == ["meeting.opened"]
    assert hub.watcher_count(topic) == 0


async def test_no_event_is_lost_or_doubled_however_polls_and_writes_meet(
    client_as: As, klass: AClass, path: str
) -> None:
    teacher, other = await client_as("teacher"), await client_as("co-teacher")
    statuses = ["present", "absent"] * 30
    last = 1 + len(statuses)
    heard: list[int] = []

    async def follow() -> None:
        after = 0
        while after < last:
            answer = await other.get(f"{path}/events", params={"after": after, "wait": 5})
            heard.extend(event["seq"] for event in answer.json()["events"])
            after = heard[-1] if heard else 0

    async def write() -> None:
        await operate(teacher, opening(klass))
        for status in statuses:
            await operate(teacher, marking(klass, 0, status))

    async with asyncio.timeout(30):
        await asyncio.gather(follow(), write())

    assert heard == list(range(1, last + 1))


async def test_an_event_that_was_read_already_does_not_end_the_waiting(
    client_as: As, muster: Muster, klass: AClass, poll_waits: asyncio.Event, path: str
) -> None:
    teacher = await client_as("teacher")
    await operate(teacher, opening(klass))
    told: list[Event] = []
    muster.on_commit(told.extend)
    await operate(teacher, marking(klass))

    waiting = asyncio.create_task(teacher.get(f"{path}/events", params={"after": 2, "wait": 60}))
    await poll_waits.wait()
    muster.tell(tuple(told))  # as late as a bus may be: the log was read with it
    await operate(teacher, marking(klass, 1))
    async with asyncio.timeout(5):
        answer = (await waiting).json()

    assert [event["seq"] for event in answer["events"]] == [3]


async def test_another_epoch_or_too_much_missed_gives_a_snapshot(
    client_as: As, klass: AClass, path: str
) -> None:
    teacher = await client_as("teacher")
    await operate(teacher, opening(klass))

    other_log = (await teacher.get(f"{path}/events", params={"after": 1, "epoch": new_id()})).json()
    from_the_future = (await teacher.get(f"{path}/events", params={"after": 99})).json()
    for number in range(0, 1000, 250):
        await operate(
            teacher, *(marking(klass, 0, ("present", "absent")[(number + n) % 2]) for n in range(250))
        )
    far_behind = (await teacher.get(f"{path}/events")).json()
    just_in_reach = (await teacher.get(f"{path}/events", params={"after": 1})).json()

    for answer in (other_log, from_the_future, far_behind):
        assert "events" not in answer
        assert answer["snapshot"]["seq"] == answer["seq"]
        assert len(answer["snapshot"]["roster"]) == 3
    assert [event["seq"] for event in just_in_reach["events"]] == list(range(2, 1002))


async def test_a_poll_whose_queue_overflowed_reads_the_log(
    muster: Muster, realtime: Realtime, klass: AClass, poll_waits: asyncio.Event, path: str
) -> None:
    bus, committed = MemoryBus(), list[Event]()  # what is told on this bus, the test decides
    muster.on_commit(committed.extend)
    realtime.hub = Hub(bus)
    transport = httpx.ASGITransport(app=create_app(muster, realtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://muster.test") as teacher:
        teacher.headers["Authorization"] = f"Bearer {(await log_in(teacher, 'teacher'))['token']}"
        teacher.cookies.clear()
        await operate(teacher, opening(klass))
        waiting = asyncio.create_task(teacher.get(f"{path}/events", params={"after": 1, "wait": 60}))
        await poll_waits.wait()

        await operate(teacher, marking(klass))
        old, new = (event for event in committed if event.topic == f"meeting:{klass.meeting_id}")
        bus.publish([old] * QUEUE + [new])  # the new one finds no place
        async with asyncio.timeout(5):
            answer = (await waiting).json()

    assert [event["seq"] for event in answer["events"]] == [2]


@pytest.mark.parametrize("what_ends", ["login", "standing"])
async def test_whoever_loses_the_right_while_waiting_is_told_nothing(
    client_as: As, klass: AClass, clock: ManualClock, poll_waits: asyncio.Event, path: str, what_ends: str
) -> None:
    teacher, substitute = await client_as("teacher"), await client_as("substitute")
    clock.set(NOW.replace(hour=10, minute=30))
    waiting = asyncio.create_task(substitute.get(f"{path}/events", params={"wait": 60}))
    await poll_waits.wait()

    if what_ends == "login":
        assert (await substitute.post("/api/v1/logout")).status_code == 204
    else:
        clock.set(NOW.replace(hour=11, minute=30))
    await operate(teacher, opening(klass))

    expected = (401, "unauthenticated") if what_ends == "login" else (404, "not_found")
    assert problem(await waiting) == expected


# --- The hot path ---


async def test_thirty_students_at_once_are_each_answered_and_each_recorded_once(
    client_as: As, klass: AClass, path: str
) -> None:
    teacher, student = await client_as("teacher"), await client_as("student")
    await operate(teacher, opening(klass))
    code = (await teacher.get(f"{path}/codes")).json()["code"]
    check_in = {"kind": "check_in", "meeting_id": klass.meeting_id, "via": "code", "proof": code}
    retried = {"id": new_id(), **check_in}

    answers = await asyncio.gather(*(operate(student, retried) for _ in range(30)))

    outcomes = sorted(answer[0]["outcome"] for answer in answers)
    assert outcomes == ["accepted"] + ["duplicate"] * 29
    history = (await teacher.get(f"{path}/records/{klass.students[0]}")).json()["history"]
    assert len(history) == 1


async def test_reading_by_cookie_needs_no_origin(client_as: As) -> None:
    client = await client_as(None)
    await log_in(client, "teacher")

    assert (await client.get("/api/v1/meetings")).status_code == 200
