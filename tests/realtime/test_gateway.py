"""The gateway from outside: following topics, operations, presence, heartbeats, and the end."""

from __future__ import annotations

from tests.realtime.sockets import Served


async def test_a_teacher_follows_a_meeting_live(served: Served) -> None:
    async with served.socket("teacher") as teacher:
        begun = await teacher.subscribe(served.topic)
        await teacher.send(
            {"type": "operations", "id": 9, "operations": [served.opening(), served.marking()]}
        )
        outcomes = await teacher.get("outcomes")
        events = [await teacher.get("event") for _ in range(2)]

    assert (begun["seq"], len(begun["snapshot"]["roster"])) == (0, 3)
    assert [o["outcome"] for o in outcomes["outcomes"]] == ["accepted", "accepted"]
    assert [(e["seq"], e["name"]) for e in events] == [(1, "meeting.opened"), (2, "record.changed")]
