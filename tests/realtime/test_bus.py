"""The bus: everybody's commits, in the order of the log, once, whatever brings the news."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from domain import events
from domain.clock import ManualClock
from domain.events import Draft, Event
from domain.muster import Muster
from domain.operations import make
from domain.settings import Settings
from domain.store import Store, open_store
from realtime.bus import Bus, LogBus, MemoryBus, Receiver
from realtime.streams import RedisEvents, packed, unpacked
from tests.factories import NOW, a_class
from tests.servers import Redis
from tests.waiting import until

TOPIC = "meeting:m"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


class Process:
    """One process on a database: its store, its bus, and what arrived on it."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self.store, self.bus = store, bus
        self.arrived: list[Event] = []
        store.on_appended(bus.publish)
        bus.subscribe(self.arrived.extend)

    @property
    def has_fast_path(self) -> bool:
        """Whether Redis brings the others' news."""
        return isinstance(self.bus, LogBus) and self.bus.has_fast_path

    async def append(self, *numbers: int, topic: str = TOPIC) -> None:
        """Commit events as any write does."""
        drafts = [Draft(topic, "record.changed", NOW, {"number": number}) for number in numbers]
        await self.store.write(lambda conn: events.append(conn, drafts))

    @property
    def numbers(self) -> list[int]:
        """What arrived."""
        return [event.data["number"] for event in self.arrived]


Make = Callable[[bool], Awaitable[Process]]


@pytest_asyncio.fixture
async def processes(settings: Settings, redis: Redis) -> AsyncIterator[Make]:
    """Makes processes on one PostgreSQL: ``await processes(True)`` is connected to Redis as well."""
    made: list[Process] = []
    epoch = settings.database_url[-8:]  # schools that share a Redis are kept apart by it

    async def make(has_redis: bool) -> Process:
        store = open_store(settings)
        fast_path = RedisEvents(redis.url, epoch) if has_redis else None
        process = Process(store, LogBus(store, fast_path))
        await process.bus.start()
        if has_redis:
            await until(lambda: process.has_fast_path)
        made.append(process)
        return process

    yield make
    for process in made:
        await process.bus.stop()
        process.store.close()


only_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


async def test_in_one_process_news_arrive_at_once(store: Store) -> None:
    process = Process(store, MemoryBus())

    await process.append(1, 2)
    await process.append(3)

    assert process.numbers == [1, 2, 3]


async def test_a_receiver_that_fails_does_not_keep_the_others_from_theirs(store: Store) -> None:
    process = Process(store, MemoryBus())

    def fail(_events: Sequence[Event]) -> None:
        raise RuntimeError

    end = process.bus.subscribe(fail)
    heard: list[Event] = []
    process.bus.subscribe(heard.extend)
    await process.append(1)
    end()

    assert [event.data["number"] for event in heard] == process.numbers == [1]


@only_postgresql
@pytest.mark.parametrize("has_redis", [True, False], ids=["with Redis", "without Redis"])
async def test_all_processes_are_told_everything_in_the_order_of_the_log(
    processes: Make, has_redis: bool
) -> None:
    one, two, three = [await processes(has_redis) for _ in range(3)]

    for number in range(0, 60, 3):
        await asyncio.gather(one.append(number), two.append(number + 1), three.append(number + 2))
    await until(lambda: len(one.arrived) == len(two.arrived) == len(three.arrived) == 60)

    assert one.numbers == two.numbers == three.numbers
    assert sorted(one.numbers) == list(range(60))
    assert [event.position for event in one.arrived] == list(range(1, 61))
    assert [event.seq for event in two.arrived] == list(range(1, 61))


@only_postgresql
async def test_who_starts_later_is_told_what_comes_after(processes: Make) -> None:
    one = await processes(True)
    await one.append(1, 2)

    two = await processes(True)
    await one.append(3)
    await until(lambda: two.numbers)

    assert two.numbers == [3]


@only_postgresql
async def test_redis_comes_and_goes_and_nothing_is_lost_or_doubled(processes: Make, redis: Redis) -> None:
    one, two = await processes(True), await processes(True)
    await one.append(1)
    await until(lambda: two.numbers == [1])

    redis.kill9()
    await one.append(2)
    await until(lambda: two.numbers == [1, 2])
    await two.append(3)
    await until(lambda: one.numbers == [1, 2, 3])
    assert one.bus.is_healthy
    redis.start(keep_data=False)
    await until(lambda: one.has_fast_path and two.has_fast_path)
    await one.append(4)

    await until(lambda: one.numbers == two.numbers == [1, 2, 3, 4])


class Scripted:
    """A fast path that brings what a test says."""

    is_up = True
    receive: Receiver

    def send(self, events: Sequence[Event]) -> None:
        """Nobody is there."""

    async def start(self, receive: Receiver, resumed: Callable[[], None]) -> None:
        """Ready."""
        self.receive = receive

    async def stop(self) -> None:
        """Nothing to end."""


async def test_doubled_late_and_missing_news_are_put_right_from_the_log(store: Store) -> None:
    fast_path = Scripted()
    process = Process(store, LogBus(store, fast_path))
    store.on_appended(lambda told: None)  # everything comes from elsewhere
    await process.bus.start()
    drafts = [Draft(TOPIC, "record.changed", NOW, {"number": number}) for number in range(1, 6)]
    one, two, three, four, five = store.write_now(lambda conn: events.append(conn, drafts))

    fast_path.receive([one])
    fast_path.receive([one])
    fast_path.receive([three])  # before the second, which never comes: the log has it
    fast_path.receive([two, three])
    fast_path.receive([four, five])
    fast_path.receive([three, four])
    await until(lambda: len(process.arrived) == 5)
    await process.bus.stop()

    assert process.numbers == [1, 2, 3, 4, 5]


def test_a_batch_survives_its_journey() -> None:
    batch = [Event(TOPIC, 3, "record.changed", NOW, {"student_id": "s", "n": None}, "op", 17)]
    odd = replace(batch[0], at=NOW.replace(microsecond=123457))

    assert unpacked(packed([*batch, odd])) == [*batch, odd]
    with pytest.raises(ValueError, match="unpack"):
        unpacked(b"[[1]]")


async def test_the_recorders_and_other_writes_events_come_in_the_order_of_the_commits(
    muster: Muster, clock: ManualClock
) -> None:
    klass = a_class(muster.store)
    told: list[int] = []
    muster.on_commit(lambda batch: told.extend(event.position for event in batch))

    async def note(number: int) -> None:
        draft = Draft(TOPIC, "record.changed", NOW, {"number": number})
        await muster.store.write(lambda conn: events.append(conn, [draft]))

    await muster.recorder.record([make("open_meeting", meeting_id=klass.meeting_id)], klass.teacher)
    await asyncio.gather(
        *(note(number) for number in range(20)),
        *(
            muster.recorder.record(
                [make("mark", meeting_id=klass.meeting_id, student_id=student, status="present")],
                klass.teacher,
            )
            for student in klass.students
        ),
    )

    assert told == sorted(told)
    assert len(told) >= 23
