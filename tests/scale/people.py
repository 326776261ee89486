"""Whoever follows a meeting and whoever marks, through everything that happens to the servers."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from realtime.client import Event, MusterClient, Snapshot
from tests.scale.conftest import Cluster, Meeting
from tests.waiting import until


class Follower:
    """A client that follows a meeting and writes down what it was told."""

    def __init__(self, cluster: Cluster, meeting: Meeting, url: str, who: str = "teacher1") -> None:
        self.client = MusterClient(url, cluster.token(who))
        self.snapshots: list[Snapshot] = []
        self.events: list[Event] = []
        self._topic = meeting.topic
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        self._task = asyncio.create_task(self._follow())
        await until(lambda: self.snapshots)
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.client.__aexit__(*error)

    async def _follow(self) -> None:
        async with self.client.subscribe(self._topic) as topic:
            async for update in topic:
                if isinstance(update, Snapshot):
                    self.snapshots.append(update)
                elif isinstance(update, Event):
                    self.events.append(update)

    @property
    def seq(self) -> int:
        """Up to where it was told."""
        return max([s.seq for s in self.snapshots] + [e.seq for e in self.events], default=0)

    async def reaches(self, seq: int) -> None:
        """Wait until it was told as much."""
        await until(lambda: self.seq >= seq)

    def missed(self) -> list[int]:
        """Numbers after the first snapshot that neither an event nor a later snapshot stands for, or that came twice."""
        expected, wrong = self.snapshots[0].seq + 1, []
        later = {snapshot.seq for snapshot in self.snapshots[1:]}
        for event in self.events:
            if event.first_seq != expected and not any(expected <= seq < event.first_seq for seq in later):
                wrong.append(event.first_seq)
            expected = event.seq + 1
        return wrong


class Marker:
    """A client that marks without a pause, a few students at a time, and insists on an answer."""

    def __init__(self, cluster: Cluster, meeting: Meeting, url: str, who: str = "teacher1") -> None:
        self.client = MusterClient(url, cluster.token(who))
        self.acknowledged: list[str] = []
        self.refused: set[str | None] = set()
        self._meeting = meeting
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        self._task = asyncio.create_task(self._mark())
        await until(lambda: len(self.acknowledged) > 20)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.finish()
        await self.client.__aexit__(*error)

    async def finish(self) -> None:
        """Mark no more, once everything under way was answered."""
        self._is_over = True
        if self._task is not None:
            await asyncio.wait_for(self._task, 60)

    async def goes_on(self, count: int = 40) -> None:
        """Wait until so many more were acknowledged."""
        enough = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= enough, patience_s=60)

    async def _mark(self) -> None:
        number = 0
        while not self._is_over:
            waiting = [self._meeting.marking(number + n) for n in range(4)]
            number += 4
            while waiting:
                outcomes = await self.client.send(waiting)
                settled = {o["id"] for o in outcomes if o["outcome"] in ("accepted", "duplicate")}
                self.refused |= {o["code"] for o in outcomes if o["id"] not in settled}
                self.acknowledged += settled
                waiting = [operation for operation in waiting if operation["id"] not in settled]


def recorded(meeting: Meeting) -> set[str]:
    """The id of every operation on the meeting's students that is in the log."""
    found: set[str] = set()
    for student_id in meeting.students:
        answer = meeting.cluster.call("GET", f"/meetings/{meeting.id}/records/{student_id}")
        found |= {entry["id"] for entry in answer["history"] if entry["kind"] == "mark"}
    return found


class Lines:
    """Whether clients have lost their connection, and have one again."""

    def __init__(self, *clients: MusterClient) -> None:
        self._clients = clients
        self._lost = 0
        for client in clients:
            client.on_state(self._on_state)

    def _on_state(self, state: str) -> None:
        self._lost += state == "reconnecting"

    async def are_back(self) -> None:
        """Wait until at least one was lost and all are live."""
        await until(lambda: self._lost and all(client.state == "live" for client in self._clients))


async def all_agree(meeting: Meeting, marker: Marker, *followers: Follower) -> None:
    """Everything acknowledged is in the log, and everybody was told all of it, once and in order."""
    await marker.finish()
    log = await asyncio.to_thread(meeting.log)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    assert set(marker.acknowledged) <= await asyncio.to_thread(recorded, meeting)
    for follower in followers:
        await follower.reaches(len(log))
        assert follower.missed() == []
        assert all(event.data == log[event.seq - 1].data for event in follower.events)
