"""From the hub to many followers: nothing lost, nothing doubled, in order, however slowly they read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import Event
from realtime.bus import MemoryBus
from realtime.fanout import PRESSURE, RING, WRITE_AT_ONCE, WRITES_A_TURN, Channel, Fanout
from realtime.hub import Hub
from realtime.metrics import Metrics
from realtime.wire import texts
from tests.factories import NOW
from tests.waiting import until

TOPIC = "meeting:m"


class Reader:
    """A follower that keeps what it was sent, and reads ``room`` writes before it is full."""

    def __init__(self, sent: int = 0, room: float = float("inf")) -> None:
        self.sent, self.room = sent, room
        self.frames: list[dict[str, Any]] = []
        self.writes: list[int] = []
        self.begun_anew = 0

    @property
    def is_full(self) -> bool:
        return self.room <= 0

    def write(self, frames: bytes) -> None:
        self.room -= 1
        self.writes.append(len(frames))
        self.frames += [orjson.loads(text) for text in texts(frames)]

    def begin_anew(self) -> None:
        self.begun_anew += 1

    @property
    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames]


class Room:
    """A bus, and one topic of it that is followed."""

    def __init__(self) -> None:
        self.bus, self.metrics = MemoryBus(), Metrics()
        self.fanout = Fanout(Hub(self.bus), self.metrics)
        self.channel = self.fanout.open(TOPIC, TOPIC)

    def follow(self, *readers: Reader) -> None:
        for reader in readers:
            self.channel.add(reader)

    def publish(self, seqs: Iterable[int], *, students: int = 0, size: int = 0) -> None:
        self.bus.publish([an_event(seq, students=students, size=size) for seq in seqs])

    async def settled(self) -> None:
        """Until everything that came was written."""
        await until(lambda: not self.channel._is_busy)


def an_event(seq: int, *, students: int = 0, size: int = 0) -> Event:
    """A mark of one of so many students, or something that is not superseded."""
    if not students:
        return Event(TOPIC, seq, "check_in.failed", NOW, {"number": seq, "filling": "x" * size})
    data = {"student_id": f"s{seq % students}", "number": seq, "filling": "x" * size}
    return Event(TOPIC, seq, "record.changed", NOW, data)


def spans(frames: Iterable[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """What each frame stands for: from seq, to seq."""
    for frame in frames:
        yield frame.get("from", frame["seq"]), frame["seq"]


def assert_whole(frames: list[dict[str, Any]], after: int, head: int) -> None:
    """The frames stand for each seq after one up to another, once and in order."""
    for first, last in spans(frames):
        assert (first, last >= first) == (after + 1, True)
        after = last
    assert after == head


async def test_each_event_is_written_once_to_each_follower() -> None:
    room, readers = Room(), [Reader() for _ in range(3)]
    room.follow(*readers)

    for seq in range(1, 6):
        room.publish([seq])
        await room.settled()
    room.publish(range(6, 9))
    await room.settled()

    assert [reader.seqs for reader in readers] == [list(range(1, 9))] * 3
    assert room.metrics.value("muster_fan_out_seconds_count") == 6


async def test_what_comes_while_it_is_written_goes_out_together() -> None:
    room, readers = Room(), [Reader() for _ in range(WRITES_A_TURN + 50)]
    room.follow(*readers)

    room.publish([1])
    await asyncio.sleep(0)
    room.publish([2])
    room.publish([3])
    await room.settled()

    assert {tuple(reader.seqs) for reader in readers} == {(1, 2, 3)}
    assert {len(reader.writes) for reader in readers} == {2}


async def test_one_who_leaves_while_it_is_written_gets_nothing_more() -> None:
    room, readers = Room(), [Reader() for _ in range(3 * WRITES_A_TURN)]
    room.follow(*readers)

    room.publish([1])
    await asyncio.sleep(0)  # the first so many are written to
    left = [reader for reader in readers if not reader.frames]
    for reader in left:
        room.channel.remove(reader)
    await room.settled()

    assert len(left) == 2 * WRITES_A_TURN
    assert [reader for reader in left if reader.frames or reader.begun_anew] == []


async def test_one_who_reads_slowly_gets_the_rest_when_it_reads_again_and_keeps_nobody_waiting() -> None:
    room, slow, quick = Room(), Reader(room=2), Reader()
    room.follow(slow, quick)

    for seq in range(1, 11):
        room.publish([seq])
        await room.settled()
    before = slow.seqs
    slow.room = 100
    room.channel.catch_up(slow)
    room.publish([11])
    await room.settled()

    assert before == [1, 2]
    assert slow.seqs == quick.seqs == list(range(1, 12))


async def test_one_who_missed_more_than_the_ring_holds_begins_anew() -> None:
    room, slow = Room(), Reader(room=0)
    room.follow(slow)

    room.publish(range(1, RING + 1))
    await room.settled()
    slow.room = 1
    room.channel.catch_up(slow)
    assert (slow.begun_anew, bool(slow.frames)) == (0, True)  # the ring holds just that many

    slow.room = 0
    room.publish(range(RING + 1, 3 * RING))
    await room.settled()
    slow.room = 1
    room.channel.catch_up(slow)
    assert slow.begun_anew == 1


async def test_more_than_the_ring_holds_at_once_lets_all_begin_anew() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    room.publish(range(1, 3 * RING))
    await room.settled()

    assert (reader.begun_anew > 0, reader.frames) == (True, [])


async def test_under_pressure_only_the_newest_record_of_each_student_is_sent() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    room.publish(range(1, 5 * PRESSURE), students=7)
    await room.settled()

    assert_whole(reader.frames, 0, 5 * PRESSURE - 1)
    assert [frame["data"]["number"] for frame in reader.frames] == list(range(5 * PRESSURE - 7, 5 * PRESSURE))
    assert room.metrics.value("muster_conflated_total") == 5 * PRESSURE - 1 - 7


async def test_what_is_no_record_is_never_left_out() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    mixed = [an_event(seq, students=0 if seq % 5 == 0 else 3) for seq in range(1, 301)]
    room.bus.publish(mixed)
    await room.settled()

    assert_whole(reader.frames, 0, 300)
    kept = {frame["seq"] for frame in reader.frames if frame["name"] == "check_in.failed"}
    assert kept == set(range(5, 301, 5))


async def test_without_pressure_nothing_is_left_out() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    room.publish(range(1, PRESSURE + 1), students=1)
    await room.settled()

    assert reader.seqs == list(range(1, PRESSURE + 1))
    assert all("from" not in frame for frame in reader.frames)


async def test_not_too_much_is_written_at_once() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    room.publish(range(1, 61), size=5_000)
    await room.settled()

    assert_whole(reader.frames, 0, 60)
    assert max(reader.writes) < WRITE_AT_ONCE + 6_000


async def test_an_event_that_comes_twice_is_written_once() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    room.publish([1, 2])
    room.publish([2, 1, 3])
    await room.settled()

    assert reader.seqs == [1, 2, 3]


async def test_a_gap_in_what_comes_is_not_passed_on_but_read_from_the_log() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)

    room.publish([1, 2])
    await room.settled()
    room.publish([5, 6])
    await room.settled()

    assert (reader.seqs, reader.begun_anew > 0) == ([1, 2], True)


async def test_a_follower_that_has_read_further_than_what_is_on_its_way_gets_nothing_twice() -> None:
    room, early, late = Room(), Reader(), Reader(sent=2)
    room.follow(early)

    room.publish([1, 2])  # committed, and read by the late one's transaction, but not yet written here
    room.follow(late)
    room.publish([3])
    await room.settled()

    assert (early.seqs, late.seqs) == ([1, 2, 3], [3])


async def test_a_topic_that_nobody_follows_any_more_costs_nothing() -> None:
    room = Room()
    hub = room.fanout._hub
    again = room.fanout.open(TOPIC, TOPIC)

    assert again is room.channel
    room.fanout.leave(again)
    assert hub.watcher_count(TOPIC) == 1
    room.fanout.leave(again)

    assert (hub.topic_count, room.fanout.channels()) == (0, ())


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_joins_leaves_or_stops_reading_misses_and_doubles_nothing(seed: int) -> None:
    chance, room, head = random.Random(seed), Room(), 0
    readers: list[tuple[Reader, int]] = []
    for _ in range(300):
        match chance.randrange(6):
            case 0 | 1:
                count = chance.choice((1, 2, 5, 150))
                room.publish(range(head + 1, head + count + 1), students=chance.choice((0, 4)))
                head += count
            case 2:
                reader = Reader(sent=head, room=chance.choice((0, 1, 3, float("inf"))))
                readers.append((reader, head))
                room.follow(reader)
            case 3 if readers:
                chance.choice(readers)[0].room = chance.choice((0, 1, 1000))
            case 4 if readers:
                reader, _ = chance.choice(readers)
                if reader in room.channel._followers:
                    room.channel.catch_up(reader)
            case _:
                await asyncio.sleep(0)
    await room.settled()

    for reader, began in readers:
        reader.room = float("inf")
        room.channel.catch_up(reader)
        if reader.begun_anew:
            assert_whole(reader.frames, began, reader.sent)
        else:
            assert_whole(reader.frames, began, head)


@given(st.lists(st.integers(0, 5), max_size=250), st.integers(0, 40_000))
def test_what_is_left_out_is_always_superseded_by_what_is_sent(students: list[int], size: int) -> None:
    """0 stands for an event that is no record."""
    bus = MemoryBus()
    channel = Channel(Hub(bus), TOPIC, TOPIC, Metrics())
    events = [
        an_event(seq)
        if student == 0
        else Event(TOPIC, seq, "record.changed", NOW, {"student_id": student, "filling": "x" * (size // 10)})
        for seq, student in enumerate(students, 1)
    ]
    channel._is_busy = True  # without a loop nothing is written
    bus.publish(events)

    frames: list[dict[str, Any]] = []
    while channel.waiting_count:
        part, channel._sent = channel._conflated([f for f in channel._ring if f.event.seq > channel._sent])
        frames += [orjson.loads(text) for text in texts(part)]

    assert_whole(frames, 0, len(events))
    for first, last in spans(frames):
        for left_out in events[first - 1 : last - 1]:
            assert left_out.name == "record.changed"
            assert any(
                e.data.get("student_id") == left_out.data["student_id"] for e in events[left_out.seq :]
            )


async def test_under_pressure_a_record_of_one_meeting_does_not_stand_for_that_of_another() -> None:
    room, reader = Room(), Reader()
    room.follow(reader)
    count = PRESSURE + 20
    room.bus.publish(
        [
            Event(TOPIC, seq, "record.changed", NOW, {"meeting_id": f"m{seq // 2}", "student_id": "s"})
            for seq in range(1, count + 1)
        ]
    )
    await room.settled()

    told = [frame["data"]["meeting_id"] for frame in reader.frames]
    assert sorted(set(told)) == sorted({f"m{seq // 2}" for seq in range(1, count + 1)})
    assert len(told) == len(set(told)) < count
