"""Coming back: nothing is lost or doubled, whatever was missed, and what cannot be made up for comes as a snapshot."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable
from functools import partial
from typing import Any

import httpx
import orjson
import pytest

from domain import events
from domain.access import Author
from domain.events import meeting_topic
from domain.operations import parse
from realtime.protocol import MAX_MISSED
from realtime.realtime import Realtime
from realtime.snapshots import digest
from tests.factories import AClass, a_class
from tests.realtime.sockets import Frame, Served, Socket
from tests.waiting import until


async def record_events(served: Served, count: int, klass: AClass | None = None) -> None:
    """Let a meeting's log grow by so many events, in groups that a transaction takes."""
    klass = klass or served.klass
    students, chance = itertools.cycle(klass.students), random.Random(count)
    for start in range(0, count, 500):
        operations = [
            parse(served.marking(meeting_id=klass.meeting_id, student_id=next(students), status=status))
            for status in chance.choices(("present", "absent", "excused"), k=min(500, count - start))
        ]
        outcomes = await served.muster.recorder.record(operations, Author(klass.teachers[0]))
        assert {outcome.outcome for outcome in outcomes} == {"accepted"}


async def log_of(served: Served, topic: str | None = None) -> list[Frame]:
    """A topic as it stands in the log, as frames."""
    found = await served.muster.store.read(
        lambda conn: events.read_after(conn, topic or served.topic, 0, 10**6)
    )
    return [{"seq": event.seq, "name": event.name, "data": event.data} for event in found]


async def digest_of(served: Served, socket: Socket) -> tuple[int, str]:
    """Where the meeting stands by the next heartbeat that tells of it, and the digest there."""
    beat = await socket.get("heartbeat", lambda frame: served.topic in frame["heads"])
    seq, told = beat["heads"][served.topic]
    return seq, told


def as_logged(frames: Iterable[Frame]) -> list[Frame]:
    return [{key: frame[key] for key in ("seq", "name", "data")} for frame in frames]


@pytest.mark.parametrize("missed", [0, 1, MAX_MISSED - 1, MAX_MISSED, MAX_MISSED + 1])
async def test_one_gets_the_events_missed_up_to_a_thousand_and_else_a_snapshot(
    served: Served, missed: int
) -> None:
    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        begun = await socket.subscribe(served.topic)
        await socket.send({"type": "unsubscribe", "id": 2, "topic": served.topic})
        await socket.get("unsubscribed")
        await record_events(served, missed)

        again = await socket.subscribe(served.topic, {"seq": begun["seq"], "epoch": begun["epoch"]})
        await served.record(served.marking(2, "excused"))
        following = await socket.get("event")

    log = await log_of(served)
    assert (begun["seq"], again["seq"], again["epoch"]) == (1, 1 + missed, begun["epoch"])
    assert following["seq"] == again["seq"] + 1
    if missed <= MAX_MISSED:
        assert "snapshot" not in again
        assert as_logged(again["events"]) == log[1 : 1 + missed]
        assert all(event["topic"] == served.topic for event in again["events"])
    else:
        assert "events" not in again
        assert again["snapshot"]["seq"] == again["seq"]
        assert len(again["snapshot"]["roster"]) == 3


async def test_in_another_log_one_begins_with_a_snapshot(served: Served) -> None:
    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        other = await socket.subscribe(served.topic, {"seq": 1, "epoch": "another"})
        unknown = await socket.subscribe(served.topic, {"seq": 1})
        null = await socket.subscribe(served.topic, {"seq": 1, "epoch": None})

    assert "snapshot" in other and "events" not in other
    assert unknown["events"] == null["events"] == []


@pytest.mark.parametrize("seq", [2, 1000, 2**53])
async def test_one_who_has_seen_what_has_not_happened_begins_with_a_snapshot(
    served: Served, seq: int
) -> None:
    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        begun = await socket.subscribe(served.topic)
        again = await socket.subscribe(served.topic, {"seq": seq, "epoch": begun["epoch"]})

    assert (again["seq"], again["snapshot"]["seq"]) == (1, 1)


async def test_a_view_that_has_drifted_is_replaced_and_counted(
    served: Served, realtime: Realtime, caplog: pytest.LogCaptureFixture
) -> None:
    await served.record(served.opening(), served.marking(0), served.marking(1, "late", minutes_late=7))
    async with served.socket("teacher") as socket:
        begun = await socket.subscribe(served.topic)
        seq, told = await digest_of(served, socket)
        cursor = {"seq": seq, "epoch": begun["epoch"]}
        same = await socket.subscribe(served.topic, cursor | {"digest": told})
        drifts = realtime.metrics.value("muster_digest_mismatches_total")
        other = await socket.subscribe(served.topic, cursor | {"digest": "00000000"})
        behind = await socket.subscribe(
            served.topic, {"seq": 1, "epoch": begun["epoch"], "digest": "00000000"}
        )

    rows = [
        (row["student_id"], row["status"], row["minutes_late"], row["contested"])
        for row in begun["snapshot"]["roster"]
        if row["status"] is not None
    ]
    assert (seq, told) == (3, digest(rows))
    assert (same["events"], drifts) == ([], 0)
    assert len(other["snapshot"]["roster"]) == 3
    assert len(behind["events"]) == 2  # of an earlier seq nothing can be said
    assert realtime.metrics.value("muster_digest_mismatches_total") == 1
    assert "begins anew" in caplog.text


async def test_everything_is_taken_up_again_by_one_frame(served: Served) -> None:
    await served.record(served.opening())
    async with served.socket("admin") as socket:
        topics = {
            served.topic: None,
            "inbox": None,
            "wall": None,
            f"student:{served.klass.students[0]}": None,
        }
        await socket.send({"type": "subscribe", "id": 1, "topics": topics})
        begun = {frame["topic"]: frame for frame in [await socket.get("subscribed") for _ in topics]}
    await served.record(served.marking(0), served.marking(1))

    async with served.socket("admin") as socket:
        cursors = {topic: {"seq": frame["seq"], "epoch": frame["epoch"]} for topic, frame in begun.items()}
        await socket.send({"type": "subscribe", "id": 7, "topics": cursors | {"meeting:nothing": None}})
        answers = {frame["topic"]: frame for frame in [await socket.get("subscribed") for _ in topics]}
        refused = await socket.get("error")

    assert set(begun) == set(answers) == set(topics)
    assert all("snapshot" in frame for frame in begun.values())
    assert {frame["id"] for frame in answers.values()} == {7}
    assert [event["seq"] for event in answers[served.topic]["events"]] == [2, 3]
    assert [event["seq"] for event in answers[f"student:{served.klass.students[0]}"]["events"]] == [1]
    assert (refused["id"], refused["code"], refused["topic"]) == (7, "unknown_topic", "meeting:nothing")


async def test_asking_again_for_a_topic_begins_it_again_and_doubles_nothing(served: Served) -> None:
    async with served.socket("teacher") as socket:
        for number in range(5):
            await socket.send({"type": "subscribe", "id": number, "topics": {served.topic: None}})
        await socket.get("subscribed", lambda frame: frame["id"] == 4)
        await served.record(served.opening(), served.marking())

        seqs = [(await socket.get("event"))["seq"] for _ in range(2)]
        await socket.send({"type": "ping", "id": 1})
        await socket.get("pong")
    assert seqs == [1, 2]
    assert [frame for frame in socket.unread if frame["type"] == "event"] == []


async def test_heartbeats_tell_where_each_topic_stands_though_nothing_happens(served: Served) -> None:
    await served.record(served.opening(), served.marking())
    async with served.socket("admin") as socket:
        for topic in (served.topic, "wall", "inbox"):
            await socket.subscribe(topic)
        beat = await socket.get("heartbeat", lambda frame: len(frame["heads"]) == 3)

    wall = await log_of(served, "wall")
    assert beat["heads"][served.topic][0] == 2
    assert beat["heads"]["wall"] == [len(wall), ""]
    assert beat["heads"]["inbox"] == [0, ""]


async def test_the_long_poll_gives_the_very_same_events(served: Served) -> None:
    await served.record(
        served.opening(), served.marking(0, remark="ü"), served.marking(1, "late", minutes_late=3)
    )
    token = await served.token("teacher")
    async with served.socket("teacher") as socket, httpx.AsyncClient(base_url=served.base) as client:
        begun = await socket.subscribe(served.topic, {"seq": 0})
        await served.record(served.marking(2, "absent"))
        live = await socket.get("event")
        polled = await client.get(
            f"/api/v1/meetings/{served.klass.meeting_id}/events?after=0",
            headers={"Authorization": f"Bearer {token}"},
        )

    told = [*begun["events"], live]
    answer = polled.json()
    assert (answer["epoch"], answer["seq"]) == (begun["epoch"], 4)
    assert [orjson.dumps(event) for event in answer["events"]] == [orjson.dumps(event) for event in told]


class Witness:
    """An admin's client that is cut off and comes back, and keeps what it was told, in order."""

    def __init__(self, served: Served, topic: str, chance: random.Random) -> None:
        self._served, self._topic, self._chance = served, topic, chance
        self.seq, self.epoch = 0, ""
        self.frames: list[Frame] = []
        self.returns = 0

    async def watch(self, is_over: asyncio.Event) -> None:
        """Until it is over and everything was told."""
        while not (is_over.is_set() and self.seq == await self._head()):
            await self._once(is_over)
            self.returns += 1

    async def _once(self, is_over: asyncio.Event) -> None:
        async with self._served.socket("admin") as socket:
            begun = await socket.subscribe(self._topic, {"seq": self.seq, "epoch": self.epoch or None})
            assert "snapshot" not in begun, "the log is shorter than what may be missed"
            self.epoch = begun["epoch"]
            for event in begun["events"]:
                self._take(event)
            assert self.seq == begun["seq"]
            left = self._chance.randint(0, 300)
            while left and not (is_over.is_set() and self.seq == await self._head()):
                frame = await socket.next()
                if frame["type"] == "event":
                    self._take(frame)
                    left -= 1
            socket.ws.transport.abort()  # as when the network is gone

    async def _head(self) -> int:
        return await self._served.muster.store.read(lambda conn: events.head(conn, self._topic))

    def _take(self, frame: Frame) -> None:
        assert frame.get("from", frame["seq"]) == self.seq + 1, (self.seq, frame)
        self.seq = frame["seq"]
        self.frames.append(frame)


async def test_clients_that_are_cut_off_again_and_again_see_the_whole_log_once(served: Served) -> None:
    chance, is_over = random.Random(20261123), asyncio.Event()
    crowd = a_class(served.muster.store, students=100, code="crowd")
    topic = meeting_topic(crowd.meeting_id)
    witnesses = [Witness(served, topic, random.Random(number)) for number in range(8)]
    watching = [asyncio.create_task(witness.watch(is_over)) for witness in witnesses]

    def are_close_to(head: int) -> bool:  # so that the log suffices, and pages of it are not all there is
        return head - min(w.seq for w in witnesses) < 900 or any(task.done() for task in watching)

    written = 0
    while written < 5_000:
        count = min(chance.choice((1, 1, 5, 40, 300)), 5_000 - written)
        await record_events(served, count, crowd)
        written += count
        await until(partial(are_close_to, written))
    is_over.set()
    await asyncio.gather(*watching)

    log = {entry["seq"]: entry for entry in await log_of(served, topic)}
    assert len(log) == 5_000
    async with served.socket("admin") as socket:
        fresh = (await socket.subscribe(topic))["snapshot"]["roster"]
    for witness in witnesses:
        assert witness.seq == 5_000
        assert as_logged(witness.frames) == [log[frame["seq"]] for frame in witness.frames]
        assert_superseded_only(witness.frames, log)
        assert state_after(witness.frames) == {row["student_id"]: row["status"] for row in fresh}
    assert sum(witness.returns for witness in witnesses) > 50


def assert_superseded_only(frames: list[Frame], log: dict[int, Frame]) -> None:
    """What a frame stands for, besides itself, is records that a later one of the same student superseded."""
    newest = {frame["data"].get("student_id"): frame["seq"] for frame in frames}
    for frame in frames:
        last: int = frame["seq"]
        for seq in range(frame.get("from", last), last):
            assert log[seq]["name"] == "record.changed"
            assert newest[log[seq]["data"]["student_id"]] > seq


def state_after(frames: list[Frame]) -> dict[str, Any]:
    """The status of each student after all of these."""
    return {f["data"]["student_id"]: f["data"]["status"] for f in frames if f["name"] == "record.changed"}


async def test_under_pressure_frames_stand_for_runs_and_the_newest_record_of_each_arrives(
    served: Served, realtime: Realtime
) -> None:
    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        begun = await socket.subscribe(served.topic)
        await record_events(served, 450)  # one transaction: all come at once
        told: list[Frame] = []
        while not told or told[-1]["seq"] < 451:
            told.append(await socket.get("event"))

    at = begun["seq"]
    for frame in told:
        assert frame.get("from", frame["seq"]) == at + 1
        at = frame["seq"]
    log = await log_of(served)
    assert len(told) < 450 and realtime.metrics.value("muster_conflated_total") == 450 - len(told)
    assert state_after(told) == state_after(log)


async def test_what_happens_while_one_joins_comes_once(served: Served) -> None:
    await served.record(served.opening())
    for _ in range(20):
        async with served.socket("teacher") as socket:
            writing = asyncio.gather(*(served.record(served.marking(n % 3)) for n in range(10)))
            begun = await socket.subscribe(served.topic)
            await writing
            head = (await log_of(served))[-1]["seq"]
            at = begun["seq"]
            while at < head:
                frame = await socket.get("event")
                assert frame.get("from", frame["seq"]) == at + 1
                at = frame["seq"]
