"""Whatever the line does, a client's view is exactly the log, and the log has every operation once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from realtime.client import Event, MusterClient, Snapshot, Topic
from tests.realtime.fake_gateway import PATIENCE_S, FakeGateway, FakeTopic

#: What may happen to a topic and to the line that it is watched over.
DEEDS = (
    "happen",
    "happen twice over",
    "be lost",
    "be conflated",
    "come late",
    "send",
    "send, and lose the answer",
    "send, but be cut off before",
    "cut",
    "cut at the next subscription",
    "say bye",
    "restore an older log",
    "beat",
    "settle",
)


class Story:
    """One run: a gateway that does what it is told, and a reader who keeps what it is given."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway
        self.fake: FakeTopic = gateway.topic(replays=4)
        self.view: list[str] = []
        self.sent: list[str] = []
        self.sendings: list[asyncio.Task[list[dict[str, object]]]] = []

    async def do(self, deed: str, client: MusterClient) -> None:
        gateway, fake = self.gateway, self.fake
        value = f"value {len(fake.values)} of {fake.epoch}"
        match deed:
            case "happen":
                await gateway.append(fake, value)
            case "happen twice over":
                await gateway.append(fake, value)
                await gateway.tell(fake, fake.event(fake.seq))
            case "be lost":
                fake.values.append(value)
            case "be conflated":
                fake.values += [value, f"{value} again"]
                await gateway.tell(fake, fake.event(fake.seq, first_seq=fake.seq - 1))
            case "come late":
                for seq in range(max(1, fake.seq - 2), fake.seq + 1):
                    await gateway.tell(fake, fake.event(seq))
            case "send" | "send, and lose the answer" | "send, but be cut off before":
                gateway.cuts_before_answer += deed == "send, and lose the answer"
                gateway.cuts_before_record += deed == "send, but be cut off before"
                operations = [{"id": f"{len(self.sent)}.{n}", "kind": "mark"} for n in range(3)]
                self.sent += [operation["id"] for operation in operations]
                self.sendings.append(asyncio.create_task(client.send(operations)))
            case "cut":
                gateway.cut()
            case "cut at the next subscription":
                gateway.cuts_at_subscribe = 1
            case "say bye":
                await gateway.say({"type": "bye", "retry_ms": 1})
                await gateway.close(1012)
            case "restore an older log":
                fake.epoch = f"epoch-{int(fake.epoch.partition('-')[2]) + 1}"
                del fake.values[-2:]
                gateway.cut()
            case "beat":
                await gateway.beat()
            case "settle":
                await client.until_live()
                await asyncio.sleep(0)

    async def read(self, topic: Topic) -> None:
        async for update in topic:
            if isinstance(update, Snapshot):
                self.view = list(update.data["values"])
            elif isinstance(update, Event):
                assert update.first_seq <= len(self.view) + 1 <= update.seq, "each event once, in order"
                already = len(self.view) + 1 - update.first_seq
                self.view += update.data["values"][already:]
            assert len(self.view) == topic.seq

    async def catch_up(self, topic: Topic) -> None:
        """Beat until the reader knows all that happened."""
        while (topic.epoch, topic.seq) != (self.fake.epoch, self.fake.seq):
            await self.beat()

    async def beat(self) -> None:
        """A heartbeat, and the answer to it or the end of the line."""
        gateway = self.gateway
        await gateway.until(lambda: gateway.connections)
        connections, seen_count = list(gateway.connections), len(gateway.of_type("seen"))
        await gateway.beat()
        await gateway.until(
            lambda: gateway.connections != connections or len(gateway.of_type("seen")) > seen_count
        )


async def play(deeds: Sequence[str]) -> None:
    async with FakeGateway().running() as gateway:
        story = Story(gateway)
        client = MusterClient(gateway.base_url, "token", random=lambda: 0.0)
        async with (
            asyncio.timeout(PATIENCE_S),
            client,
            client.subscribe("meeting:m") as topic,
            asyncio.TaskGroup() as tasks,
        ):
            reading = tasks.create_task(story.read(topic))
            for deed in deeds:
                await story.do(deed, client)
            await story.catch_up(topic)
            answers = await asyncio.gather(*story.sendings)
            reading.cancel()

        assert story.view == story.fake.values
        assert list(gateway.log) == story.sent
        assert [outcome["id"] for outcomes in answers for outcome in outcomes] == story.sent
        assert client.state == "ended"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(DEEDS), min_size=5, max_size=40))
@example(["be lost"])
@example(["happen", "cut", "be lost", "restore an older log"])
@example(["send, but be cut off before", "send", "settle"])
def test_the_view_is_the_log_and_the_log_has_every_operation_once_in_order(deeds: list[str]) -> None:
    asyncio.run(play(deeds))
