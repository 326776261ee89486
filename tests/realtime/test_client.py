"""The client keeps a topic without gaps and loses no operation, whatever the line does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from realtime.client import (
    ClientError,
    Closed,
    Event,
    LoginEnded,
    MusterClient,
    Position,
    Presence,
    Refused,
    RoleLost,
    Snapshot,
    Topic,
    Update,
)
from realtime.client import conversation as conversation_module
from realtime.client import outbox as outbox_module
from realtime.client import topic as topic_module
from realtime.client.backoff import Backoff
from tests.realtime.fake_gateway import NOW, PATIENCE_S, FakeGateway, FakeTopic

TOPIC = "meeting:m"


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with FakeGateway().running() as running:
        yield running


def a_client(gateway: FakeGateway, **members: Any) -> MusterClient:
    """One that comes back at once."""
    return MusterClient(gateway.base_url, "a-token", **{"random": lambda: 0.0, **members})


@asynccontextmanager
async def a_topic(gateway: FakeGateway, name: str = TOPIC) -> AsyncIterator[tuple[MusterClient, Topic]]:
    async with a_client(gateway) as client, asyncio.timeout(PATIENCE_S), client.subscribe(name) as topic:
        yield client, topic


async def read(topic: Topic, count: int) -> list[Update]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(topic) for _ in range(count)]


async def beat(gateway: FakeGateway) -> None:
    """A heartbeat, and the answer to it."""
    seen_count = len(gateway.of_type("seen"))
    await gateway.beat()
    await gateway.until(lambda: len(gateway.of_type("seen")) > seen_count)


def values_of(updates: list[Update]) -> list[str]:
    return [value for update in updates if isinstance(update, Event) for value in update.data["values"]]


def a_mark(**members: Any) -> dict[str, Any]:
    return {"kind": "mark", "meeting_id": "m", "student_id": "s", "status": "present", **members}


# Connecting


async def test_it_connects_with_its_token_and_tells_who_is_logged_in(gateway: FakeGateway) -> None:
    states: list[str] = []
    client = a_client(gateway)
    client.on_state(states.append)
    assert (client.state, client.user, client.hello) == ("connecting", None, None)

    async with client:
        await client.until_live()
        await client.until_live()
        assert client.user == {"id": "u", "name": "Teacher"}
        assert client.hello is not None
        assert client.hello["heartbeat_s"] == 25

    assert states == ["live", "ended"]
    assert gateway.requests[0].path == "/ws"
    assert gateway.requests[0].headers["Authorization"] == "Bearer a-token"
    assert gateway.requests[0].headers["Sec-WebSocket-Protocol"] == "muster.v1"


@pytest.mark.parametrize("base_url", ["ftp://host", "127.0.0.1:8080", "http://", ""])
def test_an_address_that_is_none_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url must be"):
        MusterClient(base_url, "token")


def test_waits_grow_up_to_twenty_seconds_and_start_anew_after_success() -> None:
    longest = Backoff(lambda: 1.0)

    waits = [longest.next_s() for _ in range(2000)]
    longest.reset()

    assert waits[:8] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0]
    assert set(waits[8:]) == {20.0}
    assert longest.next_s() == 0.2
    assert Backoff(lambda: 0.5).next_s() == 0.1


async def test_it_comes_back_after_a_cut_and_after_refusals(gateway: FakeGateway) -> None:
    states: list[str] = []
    async with a_client(gateway) as client:
        await client.until_live()
        client.on_state(states.append)
        gateway.statuses.extend([503, 500])

        gateway.cut()
        await gateway.until(lambda: len(gateway.connected_at) == 2)
        await client.until_live()

    assert states == ["reconnecting", "live", "ended"]
    assert len(gateway.requests) == 4


async def test_a_failing_listener_hurts_nobody_and_one_that_ended_hears_nothing(gateway: FakeGateway) -> None:
    heard: list[str] = []

    def fail(_state: str) -> None:
        raise RuntimeError("broken")

    client = a_client(gateway)
    client.on_state(fail)
    end = client.on_state(heard.append)
    async with client:
        await client.until_live()
        end()
        end()

    assert heard == ["live"]


async def test_it_stays_away_for_as_long_as_the_bye_says(gateway: FakeGateway) -> None:
    async with a_client(gateway) as client:
        await client.until_live()

        await gateway.say({"type": "bye", "retry_ms": 150})
        said_at = asyncio.get_running_loop().time()
        await gateway.close(1012)
        await gateway.until(lambda: len(gateway.connected_at) == 2)

    assert gateway.connected_at[1] - said_at >= 0.14


async def test_it_stays_away_for_as_long_as_an_error_says(gateway: FakeGateway) -> None:
    async with a_client(gateway) as client:
        await client.until_live()

        await gateway.say({"type": "error", "id": None, "code": "rate_limited", "retry_after": 0.15})
        said_at = asyncio.get_running_loop().time()
        await gateway.close(4429)
        await gateway.until(lambda: len(gateway.connected_at) == 2)

    assert gateway.connected_at[1] - said_at >= 0.14


async def test_a_server_that_falls_silent_is_left(gateway: FakeGateway) -> None:
    gateway.hello["heartbeat_s"] = 0.02

    async with a_client(gateway):
        await gateway.until(lambda: len(gateway.connected_at) >= 2)


@pytest.mark.parametrize(("code", "error"), [(4401, LoginEnded), (4403, RoleLost)])
async def test_the_end_of_the_login_is_told_to_everybody_who_waits(
    gateway: FakeGateway, code: int, error: type[ClientError]
) -> None:
    gateway.topic()
    gateway.refusals.append(None)
    async with a_topic(gateway) as (client, topic):
        await read(topic, 1)
        sending = asyncio.create_task(client.send([a_mark()]))
        reading = asyncio.create_task(anext(topic))
        await gateway.until(lambda: gateway.of_type("operations"))

        await gateway.close(code)

        for waiting in (sending, reading):
            with pytest.raises(error):
                await waiting
        with pytest.raises(error):
            await client.until_live()
        with pytest.raises(error):
            await client.send([a_mark()])
        with pytest.raises(error):
            async with client.subscribe("wall"):
                pass
        assert client.state == "ended"
    assert len(gateway.requests) == 1


async def test_a_login_that_does_not_hold_ends_the_client_before_it_was_live(gateway: FakeGateway) -> None:
    gateway.statuses.append(401)

    async with a_client(gateway) as client:
        with pytest.raises(LoginEnded):
            await client.until_live()


async def test_leaving_the_block_ends_every_task_and_whoever_still_waits(gateway: FakeGateway) -> None:
    gateway.refusals.append(None)
    async with a_client(gateway) as client:
        sending = asyncio.create_task(client.send([a_mark()]))
        await gateway.until(lambda: gateway.of_type("operations"))
    with pytest.raises(Closed):
        await sending

    assert client.state == "ended"
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "muster-client"]
    with pytest.raises(Closed):
        await client.send([a_mark()])
    with pytest.raises(RuntimeError, match="entered once"):
        async with client:
            pass


# Subscriptions


async def test_a_topic_begins_with_its_state_and_goes_on_with_its_events(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a", "b"])
    async with a_topic(gateway) as (_client, topic):
        assert (topic.epoch, topic.seq, topic.snapshot) == ("epoch-1", 2, {"values": ["a", "b"]})

        await gateway.append(fake, "c", "d")
        first, *events = await read(topic, 3)

        assert first == Snapshot(2, "epoch-1", {"values": ["a", "b"]})
        assert events[0] == Event(
            3, 3, "record.changed", datetime(2026, 11, 23, 9, tzinfo=UTC), {"values": ["c"]}
        )
        assert values_of(events) == ["c", "d"]
        assert topic.seq == 4


async def test_a_topic_can_go_on_from_where_it_was_left_another_time(gateway: FakeGateway) -> None:
    gateway.topic(values=["a", "b", "c"])
    async with a_client(gateway) as client:
        async with client.subscribe(TOPIC, since=Position("epoch-1", 1)) as topic:
            assert (topic.seq, topic.snapshot) == (1, None)
            assert values_of(await read(topic, 2)) == ["b", "c"]
            assert topic.seq == 3
        await gateway.until(lambda: gateway.of_type("unsubscribe"))
        async with client.subscribe(TOPIC, since=Position("another", 1)) as topic:
            assert await read(topic, 1) == [Snapshot(3, "epoch-1", {"values": ["a", "b", "c"]})]


async def test_a_topic_without_a_state_begins_with_its_events(gateway: FakeGateway) -> None:
    fake = gateway.topic("inbox", values=["a"], has_snapshot=False)
    async with a_topic(gateway, "inbox") as (_client, topic):
        assert (topic.epoch, topic.seq, topic.snapshot) == ("epoch-1", 1, None)

        await gateway.append(fake, "b")
        assert values_of(await read(topic, 1)) == ["b"]

        fake.epoch, fake.values = "epoch-2", ["x"]
        gateway.cut()
        assert await read(topic, 1) == [Snapshot(1, "epoch-2", {})]
        await gateway.append(fake, "y")
        assert values_of(await read(topic, 1)) == ["y"]


async def test_events_that_come_twice_are_given_once(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        await gateway.append(fake, "b")
        await gateway.tell(fake, fake.event(2))
        await gateway.tell(fake, fake.event(1))
        await gateway.append(fake, "c")

        assert values_of(await read(topic, 3)) == ["b", "c"]
    assert len(gateway.of_type("subscribe")) == 1


async def test_a_gap_is_asked_for_from_the_last_event_that_came(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        fake.values += ["b", "c"]
        await gateway.tell(fake, fake.event(3))

        assert values_of(await read(topic, 3)) == ["b", "c"]
    asked = gateway.of_type("subscribe")
    assert asked[1]["topics"] == {TOPIC: {"epoch": "epoch-1", "seq": 1}}


async def test_conflated_events_are_no_gap(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        fake.values += ["b", "c", "d"]
        await gateway.tell(fake, fake.event(3, first_seq=2))
        await gateway.tell(fake, fake.event(4, first_seq=4))

        _, conflated, event = await read(topic, 3)
        assert isinstance(conflated, Event)
        assert (conflated.first_seq, conflated.seq) == (2, 3)
        assert values_of([conflated, event]) == ["b", "c", "d"]
    assert len(gateway.of_type("subscribe")) == 1


async def test_all_topics_are_asked_for_in_one_frame_after_a_cut(gateway: FakeGateway) -> None:
    first, second = gateway.topic("meeting:1", values=["a"]), gateway.topic("meeting:2", values=["b"])
    async with (
        a_client(gateway) as client,
        client.subscribe("meeting:1") as one,
        client.subscribe("meeting:2") as two,
    ):
        await gateway.append(first, "c")
        assert values_of(await read(one, 2)) == ["c"]
        asked_before = len(gateway.of_type("subscribe"))

        gateway.cut()
        first.values.append("d")
        second.values.append("e")

        assert values_of(await read(one, 1)) == ["d"]
        assert values_of(await read(two, 2)) == ["e"]
    asked = gateway.of_type("subscribe")[asked_before:]
    assert [frame["topics"] for frame in asked] == [
        {"meeting:1": {"epoch": "epoch-1", "seq": 2}, "meeting:2": {"epoch": "epoch-1", "seq": 1}}
    ]


async def test_more_topics_than_one_frame_holds_are_asked_for_in_several(gateway: FakeGateway) -> None:
    names = [f"meeting:{n:0800}" for n in range(100)]
    for name in names:
        gateway.topic(name)
    async with a_client(gateway) as client, asyncio.TaskGroup() as tasks:
        done = asyncio.Event()

        async def watch(name: str) -> None:
            async with client.subscribe(name):
                await done.wait()

        for name in names:
            tasks.create_task(watch(name))
        await gateway.until(lambda: all(topic.watchers for topic in gateway.topics.values()))
        done.set()

    assert len(gateway.of_type("subscribe")) > 1
    assert max(len(raw) for raw in gateway.raw) <= 64 * 1024


@pytest.mark.parametrize("is_restored", [True, False])
async def test_another_epoch_or_too_long_an_absence_replaces_the_state(
    gateway: FakeGateway, is_restored: bool
) -> None:
    fake = gateway.topic(values=["a", "b"], replays=2)
    async with a_topic(gateway) as (_client, topic):
        await read(topic, 1)

        gateway.cut()
        if is_restored:
            fake.epoch, fake.values = "epoch-2", ["x"]
        else:
            fake.values += ["c", "d", "e"]

        assert await read(topic, 1) == [Snapshot(fake.seq, fake.epoch, {"values": fake.values})]
        assert (topic.epoch, topic.seq, topic.snapshot) == (fake.epoch, fake.seq, {"values": fake.values})


async def test_a_server_that_has_lost_what_it_told_is_asked_for_everything(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a", "b"])
    async with a_topic(gateway) as (_client, topic):
        await read(topic, 1)

        gateway.cut()
        fake.values = ["a"]

        assert await read(topic, 1) == [Snapshot(1, "epoch-1", {"values": ["a"]})]


async def test_two_heartbeats_that_show_more_than_came_lead_to_a_question(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        fake.values.append("b")

        await beat(gateway)
        assert len(gateway.of_type("subscribe")) == 1
        assert topic.head == topic_module.Head(2, "00000000")
        await gateway.beat()

        assert values_of(await read(topic, 2)) == ["b"]
        assert len(gateway.of_type("subscribe")) == 2


async def test_heartbeats_in_agreement_lead_to_no_question(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        fake.values.append("b")
        await beat(gateway)
        await gateway.tell(fake, fake.event(2))
        assert values_of(await read(topic, 2)) == ["b"]
        await beat(gateway)
        await beat(gateway)
    assert len(gateway.of_type("subscribe")) == 1
    assert gateway.of_type("seen")[-1] == {"type": "seen", "topics": {TOPIC: 2}, "unsent": 0}


async def test_a_view_that_is_wrong_can_be_asked_for_anew(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        await read(topic, 1)
        fake.values = ["b"]

        topic.refresh()

        assert await read(topic, 1) == [Snapshot(1, "epoch-1", {"values": ["b"]})]


def somebody(person_id: str, unsent: int = 0) -> dict[str, Any]:
    return {"person_id": person_id, "role": "teacher", "since": NOW, "unsent": unsent}


async def test_who_is_there_is_told_as_they_come_change_and_go(gateway: FakeGateway) -> None:
    p, q, r, s = (somebody(name) for name in "pqrs")
    fake = gateway.topic(presence=[p, q])
    async with a_topic(gateway) as (_client, topic):
        await read(topic, 1)
        assert topic.presence == [p, q]

        await gateway.tell(fake, {"joined": [r, p], "left": [somebody("q", 7)]}, "presence")
        await gateway.tell(fake, {"joined": [r], "left": [s]}, "presence")
        await gateway.tell(fake, {"joined": [somebody("p", 3)], "left": []}, "presence")
        assert await read(topic, 2) == [Presence([r], [q]), Presence([somebody("p", 3)], [])]
        assert topic.presence == [somebody("p", 3), r]

        fake.presence = [r, s]
        gateway.cut()
        assert await read(topic, 1) == [Presence([s], [somebody("p", 3)])]


async def test_unknown_and_broken_frames_are_let_be(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        broken: list[dict[str, Any] | bytes] = [
            b"{not json",
            b"[1, 2]",
            b"17",
            {"no": "type"},
            {"type": "from_the_future", "topic": TOPIC},
            {"type": ["event"]},
            {"type": "event"},
            {"type": "event", "topic": TOPIC},
            {"type": "event", "topic": TOPIC, "seq": "2", "name": "n", "at": NOW, "data": {}},
            {"type": "event", "topic": TOPIC, "seq": True, "name": "n", "at": NOW, "data": {}},
            {"type": "event", "topic": TOPIC, "seq": 2, "name": "n", "at": "yesterday", "data": {}},
            {"type": "event", "topic": TOPIC, "seq": 2, "name": "n", "at": "2026-11-23T09:00", "data": {}},
            {"type": "event", "topic": TOPIC, "seq": 2, "name": "n", "at": NOW, "data": [1]},
            {"type": "event", "topic": TOPIC, "seq": 2, "from": 3, "name": "n", "at": NOW, "data": {}},
            {"type": "event", "topic": "meeting:other", "seq": 2, "name": "n", "at": NOW, "data": {}},
            {"type": "subscribed", "id": 99, "topic": TOPIC, "epoch": "e", "seq": 1, "snapshot": {}},
            {"type": "outcomes", "id": 99, "outcomes": []},
            {"type": "outcomes", "id": None, "outcomes": []},
            {"type": "heartbeat", "heads": [1]},
            {"type": "heartbeat", "server_time": "late"},
            {"type": "heartbeat", "heads": {TOPIC: 1}},
            {"type": "bye", "retry_ms": None},
            {"type": "error", "id": 99, "code": "forbidden"},
            {"type": "error"},
        ]
        for frame in broken:
            await gateway.say(frame)
        await gateway.append(fake, "b")

        assert values_of(await read(topic, 2)) == ["b"]
    assert len(gateway.connected_at) == 1


async def test_a_slow_reader_loses_what_waits_and_gets_it_again(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_module, "MAX_WAITING", 5)
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (client, topic):
        await read(topic, 1)
        await gateway.append(fake, "b", "c")
        assert values_of(await read(topic, 1)) == ["b"]

        await gateway.append(fake, *"defghijkl")
        await client.send([a_mark()])  # answered after all of them came
        assert len(gateway.of_type("subscribe")) == 1
        fake.values = fake.values[:6]  # what is left fits

        assert values_of(await read(topic, 4)) == ["c", "d", "e", "f"]
    assert gateway.of_type("subscribe")[1]["topics"] == {TOPIC: {"epoch": "epoch-1", "seq": 2}}


async def test_a_slow_reader_that_has_read_nothing_gets_the_state_again(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_module, "MAX_WAITING", 3)
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (client, topic):
        await gateway.append(fake, *"bcdef")
        await client.send([a_mark()])

        assert await read(topic, 1) == [Snapshot(6, "epoch-1", {"values": list("abcdef")})]


async def test_a_refused_topic_says_so_and_hurts_no_other(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (client, topic):
        with pytest.raises(Refused) as caught:
            async with client.subscribe("meeting:unknown"):
                pass
        assert caught.value.code == "unknown_topic"

        await gateway.append(fake, "b")
        assert values_of(await read(topic, 2)) == ["b"]


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_topic_that_may_not_be_seen_any_more_ends_alone(gateway: FakeGateway, is_named: bool) -> None:
    taken, kept = gateway.topic("meeting:taken"), gateway.topic("meeting:kept", values=["a"])
    async with (
        a_client(gateway) as client,
        client.subscribe("meeting:taken") as one,
        client.subscribe("meeting:kept") as two,
    ):
        await read(one, 1)
        name = {"topic": "meeting:taken"} if is_named else {}
        taken.refusal = {"code": "unknown_topic", "message": "no such topic", **name}

        gateway.cut()
        with pytest.raises(Refused, match="no such topic"):
            await read(one, 1)

        kept.values.append("b")
        gateway.cut()
        assert values_of(await read(two, 2)) == ["b"]
    assert set(gateway.of_type("subscribe")[-1]["topics"]) == {"meeting:kept"}


async def test_a_topic_that_is_taken_away_ends_alone(gateway: FakeGateway) -> None:
    taken, kept = gateway.topic("meeting:taken"), gateway.topic("meeting:kept", values=["a"])
    async with (
        a_client(gateway) as client,
        client.subscribe("meeting:taken") as one,
        client.subscribe("meeting:kept") as two,
    ):
        await gateway.append(taken, "last")
        await gateway.tell(taken, {"id": None, "code": "forbidden"}, "unsubscribed")
        await gateway.append(kept, "b")

        assert values_of(await read(two, 2)) == ["b"]
        assert values_of(await read(one, 2)) == ["last"]
        with pytest.raises(Refused) as caught:
            await read(one, 1)
        assert caught.value.code == "forbidden"


@pytest.mark.parametrize("is_far_behind", [True, False])
async def test_the_server_may_begin_a_topic_anew_by_itself(gateway: FakeGateway, is_far_behind: bool) -> None:
    fake = gateway.topic(values=["a"])
    async with a_topic(gateway) as (_client, topic):
        await read(topic, 1)
        fake.values += ["b", "c"]

        since = None if is_far_behind else {"epoch": "epoch-1", "seq": 1}
        await gateway.tell(fake, {"id": None, **fake.answer(since)}, "subscribed")
        await gateway.append(fake, "d")

        if is_far_behind:
            assert await read(topic, 1) == [Snapshot(3, "epoch-1", {"values": ["a", "b", "c"]})]
            assert values_of(await read(topic, 1)) == ["d"]
        else:
            assert values_of(await read(topic, 3)) == ["b", "c", "d"]
    assert len(gateway.of_type("subscribe")) == 1


@pytest.mark.parametrize("code", ["rate_limited", "unavailable"])
async def test_a_subscription_that_came_too_soon_is_sent_again(gateway: FakeGateway, code: str) -> None:
    fake = gateway.topic(refusal={"code": code, "retry_after": 0.01})
    async with a_client(gateway) as client, asyncio.TaskGroup() as tasks:

        async def watch() -> None:
            async with client.subscribe(TOPIC):
                pass

        tasks.create_task(watch())
        await gateway.until(lambda: len(gateway.of_type("subscribe")) >= 2)
        fake.refusal = None


async def test_a_frame_that_nobody_says_was_too_many_is_sent_again(gateway: FakeGateway) -> None:
    fake = gateway.topic(refusal={"id": None, "code": "rate_limited", "retry_after": 0.01})
    async with a_client(gateway) as client, asyncio.TaskGroup() as tasks:

        async def watch() -> None:
            async with client.subscribe(TOPIC.upper()):
                pass

        tasks.create_task(watch())
        await gateway.until(lambda: len(gateway.of_type("subscribe")) >= 2)
        fake.refusal = None
    assert len(gateway.connected_at) == 1


async def test_a_topic_is_subscribed_once_at_a_time(gateway: FakeGateway) -> None:
    gateway.topic()
    async with a_topic(gateway) as (client, _topic):
        with pytest.raises(ValueError, match="subscribed already"):
            async with client.subscribe(TOPIC):
                pass


async def test_a_topic_that_was_left_is_unsubscribed_and_can_be_had_again(gateway: FakeGateway) -> None:
    fake = gateway.topic(values=["a"])
    async with a_client(gateway) as client:
        async with client.subscribe(TOPIC) as topic:
            await read(topic, 1)
        with pytest.raises(Closed):
            await read(topic, 1)
        await gateway.until(lambda: not fake.watchers)

        async with client.subscribe(TOPIC) as topic:
            assert len(await read(topic, 1)) == 1


# Operations


async def test_operations_are_completed_and_answered_one_by_one(gateway: FakeGateway) -> None:
    device_now = datetime(2026, 11, 23, 8, 59, 57, 500_000, tzinfo=UTC)  # 2.5 s behind
    async with a_client(gateway, device_id="d", last_device_seq=4, clock=lambda: device_now) as client:
        outcomes = await client.send([a_mark(), a_mark(id="own", device_id="other", captured_at=NOW)])
        assert await client.send([]) == []

        assert client.clock_offset_s == 2.5
        assert (client.device_id, client.device_seq) == ("d", 5)
    made, own = gateway.log.values()
    assert made == a_mark(id=made["id"], captured_at=NOW, clock_offset_ms=2500, device_id="d", device_seq=5)
    assert made["id"][14] == "7"
    assert made["id"][19] in "89ab"
    assert own == a_mark(id="own", device_id="other", captured_at=NOW)
    assert outcomes == [{"id": made["id"], "outcome": "accepted"}, {"id": "own", "outcome": "accepted"}]


async def test_what_was_captured_before_the_first_hello_is_corrected_all_the_same(
    gateway: FakeGateway,
) -> None:
    behind = datetime(2026, 11, 23, 8, tzinfo=UTC)
    gateway.statuses.extend([503] * 2)
    async with a_client(gateway, clock=lambda: behind) as client:
        await client.send([a_mark()])

    (operation,) = gateway.log.values()
    assert operation["captured_at"] == NOW
    assert operation["clock_offset_ms"] == timedelta(hours=1) / timedelta(milliseconds=1)


async def test_operations_go_in_order_in_batches_that_a_frame_holds(gateway: FakeGateway) -> None:
    remarks = [str(n) * (300 if n % 7 else 1) for n in range(1200)]
    async with a_client(gateway) as client:
        outcomes = await client.send([a_mark(remark=remark) for remark in remarks])

    assert [operation["remark"] for operation in gateway.log.values()] == remarks
    assert [outcome["id"] for outcome in outcomes] == list(gateway.log)
    assert [operation["device_seq"] for operation in gateway.log.values()] == list(range(1, 1201))
    assert max(len(frame["operations"]) for frame in gateway.of_type("operations")) <= 500
    assert max(len(raw) for raw in gateway.raw) <= 64 * 1024


async def test_small_operations_go_by_five_hundred(gateway: FakeGateway) -> None:
    async with a_client(gateway) as client:
        await client.send([{"id": str(n), "captured_at": NOW, "device_id": "d"} for n in range(1001)])

    assert [len(frame["operations"]) for frame in gateway.of_type("operations")] == [500, 500, 1]


async def test_an_answer_that_was_lost_is_asked_for_with_the_same_operations(gateway: FakeGateway) -> None:
    gateway.cuts_before_answer = 2
    async with a_client(gateway) as client:
        first, second = await asyncio.gather(client.send([a_mark()]), client.send([a_mark()]))

    assert [outcome["outcome"] for outcome in first] == ["duplicate"]
    assert second[0]["outcome"] in ("accepted", "duplicate")
    assert len(gateway.log) == 2


async def test_an_answer_that_never_comes_is_asked_for_on_another_connection(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_module, "ANSWER_TIMEOUT_S", 0.05)
    gateway.refusals.append(None)
    async with a_client(gateway) as client:
        assert [outcome["outcome"] for outcome in await client.send([a_mark()])] == ["accepted"]

    assert len(gateway.connected_at) == 2


async def test_operations_wait_out_a_rate_limit_and_keep_their_order(gateway: FakeGateway) -> None:
    limit = {"code": "rate_limited", "retry_after": 0.01}
    gateway.refusals.extend([limit, {**limit, "id": None}, limit])
    async with a_client(gateway) as client:
        sendings = [asyncio.create_task(client.send([a_mark(remark=str(n))])) for n in range(3)]
        await asyncio.gather(*sendings)

    assert [operation["remark"] for operation in gateway.log.values()] == ["0", "1", "2"]
    assert len(gateway.connected_at) == 1


async def test_a_frame_that_is_refused_as_a_whole_is_halved_until_the_bad_one_is_found(
    gateway: FakeGateway,
) -> None:
    gateway.refusals.extend([{"code": "bad_message"}] * 3)  # of 4, of 2, of 1
    async with a_client(gateway) as client:
        await client.until_live()
        sendings = [asyncio.create_task(client.send([a_mark(remark=str(n))])) for n in range(4)]
        bad, *good = await asyncio.gather(*sendings, return_exceptions=True)

    assert isinstance(bad, Refused)
    assert bad.code == "bad_message"
    assert [outcomes[0]["outcome"] for outcomes in good if isinstance(outcomes, list)] == ["accepted"] * 3
    assert [len(frame["operations"]) for frame in gateway.of_type("operations")[:3]] == [4, 2, 1]


async def test_one_answer_for_another_number_of_operations_is_an_error(gateway: FakeGateway) -> None:
    gateway.refusals.append({"type": "outcomes", "outcomes": []})
    async with a_client(gateway) as client:
        with pytest.raises(ClientError, match="Expected 1 outcomes, got 0"):
            await client.send([a_mark()])


async def test_what_no_frame_can_hold_is_refused_at_once(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_WAITING", 2)
    async with a_client(gateway) as client:
        with pytest.raises(ClientError) as caught:
            await client.send([a_mark(remark="x" * 65_536)])
        assert caught.value.code == "too_large"
        with pytest.raises(ClientError) as caught:
            await client.send([a_mark()] * 3)
        assert caught.value.code == "outbox_full"
    assert not gateway.log


async def test_a_sender_that_gives_up_withdraws_what_was_not_sent(gateway: FakeGateway) -> None:
    gateway.refusals.append(None)
    async with a_client(gateway) as client:
        stuck = asyncio.create_task(client.send([a_mark(remark="stuck")]))
        await gateway.until(lambda: gateway.of_type("operations"))
        with pytest.raises(TimeoutError):
            await client.send([a_mark(remark="given up")], timeout=0.01)

        gateway.cut()
        await stuck

    assert [operation["remark"] for operation in gateway.log.values()] == ["stuck"]


def test_the_fake_and_the_client_agree_on_what_a_log_is() -> None:
    fake = FakeTopic(values=["a", "b", "c"])

    assert fake.event(3, first_seq=2)["data"] == {"values": ["b", "c"]}
