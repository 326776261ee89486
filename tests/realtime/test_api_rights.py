"""Who gets what: every role at every address, and a substitute before, inside and after the time granted."""

from __future__ import annotations

from typing import Any

import pytest

from domain.clock import ManualClock
from domain.ids import new_id
from domain.muster import Muster
from tests.factories import AClass
from tests.realtime.conftest import SUBSTITUTE_BEGINS, SUBSTITUTE_ENDS, As, problem

EVERYBODY = (
    "admin",
    "teacher",
    "co-teacher",
    "substitute",
    "stranger",
    "student",
    "other student",
    "guardian",
    "foreign student",
    "foreign guardian",
)
STAFF = {"admin", "teacher", "co-teacher"}
IN_CLASS = {"student", "other student"}
OF_STUDENT = {"student", "guardian"}
NOBODY: set[str] = set()

#: Address: who is let in, and how the others are answered. A substitute inside the time counts as staff.
READ = {
    "/me": (set(EVERYBODY), 0),
    "/sections": (set(EVERYBODY), 0),
    "/meetings": (set(EVERYBODY), 0),
    "/sections/{section}/meetings": (STAFF | IN_CLASS, 404),
    "/sections/{unknown}/meetings": (NOBODY, 404),
    "/meetings/{meeting}": (STAFF | IN_CLASS | {"guardian"}, 404),
    "/meetings/{unknown}": (NOBODY, 404),
    "/meetings/{meeting}/codes": (STAFF, 404),
    "/meetings/{unknown}/codes": (NOBODY, 404),
    "/meetings/{meeting}/events": (STAFF, 404),
    "/meetings/{unknown}/events": (NOBODY, 404),
    "/meetings/{meeting}/records/{student}": (STAFF | OF_STUDENT, 404),
    "/meetings/{meeting}/records/{unknown}": (NOBODY, 404),
    "/meetings/{unknown}/records/{student}": (NOBODY, 404),
    "/me/record?student_id={student}": (STAFF | OF_STUDENT, 404),
    "/me/record?student_id={unknown}": ({"admin"}, 404),
    "/export/attendance.csv?begin_on=2026-11-01&end_on=2026-11-30&student_id={student}": (
        STAFF | OF_STUDENT,
        403,
    ),
}


async def operate(client: Any, **operation: Any) -> tuple[str, str | None]:
    """Send one operation; outcome and code."""
    body = {"operations": [{"id": new_id(), **operation}]}
    [outcome] = (await client.post("/api/v1/operations", json=body)).json()["outcomes"]
    return outcome["outcome"], outcome["code"]


@pytest.mark.parametrize("path", READ)
async def test_each_role_reads_what_it_may_and_nothing_else(
    client_as: As, klass: AClass, clock: ManualClock, path: str
) -> None:
    let_in, otherwise = READ[path]
    address = "/api/v1" + path.format(
        section=klass.section_id, meeting=klass.meeting_id, student=klass.students[0], unknown=new_id()
    )
    clients = {who: await client_as(who) for who in EVERYBODY}
    opened = await operate(clients["teacher"], kind="open_meeting", meeting_id=klass.meeting_id)
    assert opened == ("accepted", None)
    moments = (clock.now(), SUBSTITUTE_BEGINS, SUBSTITUTE_ENDS)

    for moment in moments:
        clock.set(moment)
        also = {"substitute"} if moment == SUBSTITUTE_BEGINS and let_in >= STAFF else set()
        for who, client in clients.items():
            answer = await client.get(address)
            if who in let_in | also:
                assert answer.status_code == 200, (who, moment, answer.text)
            else:
                assert problem(answer)[0] == otherwise, (who, moment)
    assert problem(await (await client_as(None)).get(address)) == (401, "unauthenticated")


async def test_what_one_may_not_see_is_answered_like_what_does_not_exist(
    client_as: As, klass: AClass
) -> None:
    stranger = await client_as("stranger")

    hidden = (await stranger.get(f"/api/v1/meetings/{klass.meeting_id}")).json()
    unknown = (await stranger.get(f"/api/v1/meetings/{new_id()}")).json()

    hidden.pop("instance"), unknown.pop("instance")
    assert hidden == unknown


@pytest.mark.parametrize("who", EVERYBODY)
async def test_each_role_changes_what_it_may_and_nothing_else(
    client_as: As, klass: AClass, clock: ManualClock, muster: Muster, who: str
) -> None:
    client = await client_as(who)
    await operate(await client_as("teacher"), kind="open_meeting", meeting_id=klass.meeting_id)
    here, student = {"meeting_id": klass.meeting_id}, klass.students[2]
    mark = {"kind": "mark", **here, "student_id": student, "status": "excused"}
    forbidden = ("rejected", "forbidden")
    is_staff = who in STAFF

    assert await operate(client, **mark) == (("accepted", None) if is_staff else forbidden)
    assert (
        await operate(client, kind="check_in", **here, via="qr", proof="x", student_id=student) == forbidden
    )
    if who == "substitute":
        clock.set(SUBSTITUTE_BEGINS)
        assert await operate(client, **mark) == ("accepted", None)
        clock.set(SUBSTITUTE_ENDS)
        assert await operate(client, **mark) == forbidden
    closed = await operate(client, kind="close_meeting", **here)
    assert closed == (("accepted", None) if is_staff else forbidden)
    reopened = await operate(client, kind="reopen_meeting", **here, remark="by mistake")
    assert reopened == (("accepted", None) if is_staff else forbidden)


@pytest.mark.parametrize("address", ["/import/roster", "/import/oneroster"])
async def test_rosters_are_imported_by_admins_alone(client_as: As, address: str) -> None:
    for who in EVERYBODY:
        answer = await (await client_as(who)).post("/api/v1" + address, content=b"role,given_name\n")
        if who == "admin":
            assert answer.status_code == 200, answer.text
        else:
            assert problem(answer) == (403, "forbidden"), who


async def test_nobody_may_act_without_a_log_in(client_as: As) -> None:
    client = await client_as(None)

    for path in ("/operations", "/logout", "/import/roster", "/me/password"):
        answer = await client.post("/api/v1" + path, json={"old": "a", "new": "b", "operations": []})
        assert problem(answer) == (401, "unauthenticated"), path
    for token in ("", "x", "é", "x" * 5000):
        headers = {b"Authorization": f"Bearer {token}".encode("latin-1")}
        assert problem(await client.get("/api/v1/me", headers=headers)) == (401, "unauthenticated")


async def test_a_student_sees_the_own_row_and_a_guardian_the_childs_without_remarks(
    client_as: As, klass: AClass
) -> None:
    teacher = await client_as("teacher")
    path = f"/api/v1/meetings/{klass.meeting_id}"
    mark = {"kind": "mark", "meeting_id": klass.meeting_id, "status": "excused", "remark": "A word to staff"}
    await operate(teacher, kind="open_meeting", meeting_id=klass.meeting_id)
    for student in klass.students:
        assert await operate(teacher, **mark, student_id=student) == ("accepted", None)

    assert len((await teacher.get(path)).json()["roster"]) == 3
    for who in ("student", "guardian"):
        client = await client_as(who)
        seen, record = await client.get(path), await client.get(f"{path}/records/{klass.students[0]}")
        [row] = seen.json()["roster"]
        assert (row["student_id"], row["status"]) == (klass.students[0], "excused")
        assert [entry["kind"] for entry in record.json()["history"]] == ["mark"]
        for text in (seen.text, record.text):
            assert "A word to staff" not in text
            assert klass.students[1] not in text
    staff_record = await teacher.get(f"{path}/records/{klass.students[0]}")
    assert staff_record.json()["history"][0]["details"]["remark"] == "A word to staff"


async def test_lists_hold_what_is_ones_own(client_as: As, klass: AClass) -> None:
    seen = {}
    for who in EVERYBODY:
        client = await client_as(who)
        sections = {s["code"]: s["role"] for s in (await client.get("/api/v1/sections")).json()["sections"]}
        meetings = (await client.get("/api/v1/meetings")).json()["meetings"]
        seen[who] = (sections, {m["section"]["code"] for m in meetings})

    mine, other = "10B-MA", "other"
    assert seen["admin"] == ({mine: "admin", other: "admin"}, {mine, other})
    assert seen["teacher"] == ({mine: "teacher"}, {mine})
    assert seen["co-teacher"] == ({mine: "co_teacher"}, {mine})
    assert seen["student"] == seen["other student"] == ({mine: "student"}, {mine})
    assert seen["stranger"] == ({other: "teacher"}, {other})
    assert seen["foreign student"] == ({other: "student"}, {other})
    assert seen["substitute"] == seen["guardian"] == seen["foreign guardian"] == ({}, set())
