"""Committed events reach whoever watches, in order, and nobody hurts anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from domain.events import Event
from realtime.bus import MemoryBus
from realtime.hub import QUEUE, Hub, TooSlow
from tests.factories import NOW


def an_event(seq: int, topic: str = "meeting:m") -> Event:
    return Event(topic, seq, "record.changed", NOW, {"student_id": "s"})


def test_a_watcher_hears_its_topic_in_order_until_it_ends() -> None:
    bus = MemoryBus()
    hub, heard = Hub(bus), []
    end = hub.watch("meeting:m", lambda event: heard.append(event.seq))

    bus.publish([an_event(1), an_event(1, "meeting:other"), an_event(2)])
    end()
    end()
    bus.publish([an_event(3)])

    assert heard == [1, 2]
    assert hub.topic_count == 0


def test_a_failing_watcher_does_not_keep_others_from_their_events() -> None:
    bus = MemoryBus()
    hub, heard = Hub(bus), []

    def fail(_event: Event) -> None:
        raise RuntimeError("broken")

    hub.watch("meeting:m", fail)
    hub.watch("meeting:m", lambda event: heard.append(event.seq))

    bus.publish([an_event(1), an_event(2)])

    assert heard == [1, 2]


def test_a_watcher_may_end_itself_while_it_is_told() -> None:
    bus = MemoryBus()
    hub, heard = Hub(bus), []

    def once(event: Event) -> None:
        heard.append(event.seq)
        end()

    end = hub.watch("meeting:m", once)
    bus.publish([an_event(1), an_event(2)])

    assert heard == [1]


async def test_a_follower_reads_at_its_own_pace_and_is_told_when_it_was_too_slow() -> None:
    bus = MemoryBus()
    hub = Hub(bus)
    async with hub.follow("meeting:m") as follower:
        bus.publish([an_event(1)])
        assert (await follower.next()).seq == 1

        bus.publish([an_event(n) for n in range(2, QUEUE + 10)])
        with pytest.raises(TooSlow):
            await follower.next()
        bus.publish([an_event(QUEUE + 10)])
        assert (await follower.next()).seq == QUEUE + 10
    assert hub.watcher_count("meeting:m") == 0


def test_a_failing_receiver_does_not_keep_others_from_what_is_published() -> None:
    bus, heard = MemoryBus(), list[Event]()

    def fail(_events: Sequence[Event]) -> None:
        raise RuntimeError("broken")

    bus.subscribe(fail)
    end = bus.subscribe(heard.extend)

    bus.publish([an_event(1)])
    end()
    end()
    bus.publish([an_event(2)])

    assert [event.seq for event in heard] == [1]


async def test_a_follower_ends_with_its_owner_however_that_ends() -> None:
    hub = Hub(MemoryBus())

    async def fail() -> None:
        async with hub.follow("meeting:m"):
            raise RuntimeError("broken")

    async def wait() -> None:
        async with hub.follow("meeting:m") as follower:
            await follower.next()

    with pytest.raises(RuntimeError):
        await fail()
    waiting = asyncio.create_task(wait())
    await asyncio.wait([waiting], timeout=0.01)
    assert hub.watcher_count("meeting:m") == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert hub.topic_count == 0


def test_a_hub_that_is_closed_hears_nothing_more() -> None:
    bus, heard = MemoryBus(), list[Event]()
    hub = Hub(bus)
    hub.watch("meeting:m", heard.append)

    hub.close()
    bus.publish([an_event(1)])

    assert heard == []
