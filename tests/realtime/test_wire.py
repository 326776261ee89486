"""How frames reach a client: compressed where it helps, and the same on every kind of line."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import uvicorn
from fastapi import FastAPI

from domain.access import Author
from realtime.frames import DEFLATE_FROM, text_frame
from realtime.server import listen
from realtime.wire import PlainWire
from tests.realtime.lines import PING, PONG, TEXT, Line, line
from tests.realtime.sockets import PATIENCE_S, Frame, Served, Socket
from tests.waiting import until


async def inflated(raw: Line, window_bits: int = 12) -> tuple[bool, Frame]:
    """The next text frame: whether it came compressed, and what it says."""
    frame = await raw.read_until(TEXT)
    if not frame.is_compressed:
        return False, frame.document
    data = zlib.decompressobj(wbits=-window_bits).decompress(frame.payload + b"\x00\x00\xff\xff")
    return True, orjson.loads(data)


async def test_large_frames_are_compressed_for_those_who_can_read_that_and_small_ones_are_not(
    served: Served,
) -> None:
    await served.record(served.opening(), *(served.marking(n % 3, remark="x" * 400) for n in range(6)))
    async with line(served.base, await served.token("teacher"), extensions="permessage-deflate") as raw:
        hello = await inflated(raw)
        raw.write(TEXT, {"type": "subscribe", "id": 1, "topics": {served.topic: None}})
        begun = await inflated(raw)
        await served.record(served.marking(0))
        event = await inflated(raw)
        raw.write(TEXT, {"type": "subscribe", "id": 2, "topics": {served.topic: {"seq": 0}}})
        again = await inflated(raw)

    assert "permessage-deflate" in raw.head
    assert (hello[0], begun[0], event[0], again[0]) == (False, True, False, True)
    assert (begun[1]["seq"], len(again[1]["events"])) == (7, 8)


async def test_nothing_is_compressed_for_those_who_did_not_ask(served: Served) -> None:
    await served.record(served.opening(), *(served.marking(n, remark="x" * 400) for n in range(3)))
    async with line(served.base, await served.token("teacher")) as raw:
        raw.write(TEXT, {"type": "subscribe", "id": 1, "topics": {served.topic: None}})
        await inflated(raw)
        is_compressed, begun = await inflated(raw)

    assert "extensions" not in raw.head.lower()
    assert (is_compressed, begun["seq"]) == (False, 4)
    assert len(orjson.dumps(begun)) > DEFLATE_FROM


@pytest.mark.parametrize("bits", [9, 12, 15])
async def test_a_client_that_can_only_look_back_a_little_is_sent_what_it_can_read(
    served: Served, bits: int
) -> None:
    extensions = f"permessage-deflate; server_max_window_bits={bits}"
    await served.record(served.opening(), *(served.marking(n % 3, remark=f"{n}" * 250) for n in range(40)))
    async with line(served.base, await served.token("teacher"), extensions=extensions) as raw:
        raw.write(TEXT, {"type": "subscribe", "id": 1, "topics": {served.topic: {"seq": 0}}})
        await inflated(raw, bits)
        _, begun = await inflated(raw, bits)

    assert len(begun["events"]) == 41


async def test_what_a_client_sends_compressed_is_read(served: Served) -> None:
    async with line(served.base, await served.token("teacher"), extensions="permessage-deflate") as raw:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(b'{"type":"ping","id":5}') + packer.flush(zlib.Z_SYNC_FLUSH)
        raw.write(TEXT, packed[:-4], is_compressed=True)
        await inflated(raw)

        assert (await inflated(raw))[1]["id"] == 5


async def test_a_websocket_ping_is_answered(served: Served) -> None:
    async with line(served.base, await served.token("teacher")) as raw:
        raw.write(PING, b"are you there")

        assert (await raw.read_until(PONG)).payload == b"are you there"


async def test_a_frame_in_parts_is_read_whole(served: Served) -> None:
    async with line(served.base, await served.token("teacher")) as raw:
        await raw.read_until(TEXT)
        raw.write(TEXT, b'{"type":"pi', is_final=False)
        raw.write(PING, b"")  # control frames may come in between
        raw.write(0, b'ng","id":6', is_final=False)
        raw.write(0, b"}")

        assert (await raw.read_until(TEXT)).document["id"] == 6


# -- two kinds of line


@asynccontextmanager
async def plainly_serving(app: FastAPI) -> AsyncIterator[str]:
    """The same application on uvicorn's own WebSocket protocol, where everything goes through ASGI."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_config=None))
    task = asyncio.create_task(server._serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def answer_to(socket: Socket, frame: object) -> Frame:
    """What is answered to a frame."""
    await socket.send(frame)
    while (answer := await socket.next())["type"] in ("heartbeat", "presence", "event"):
        pass
    return {key: value for key, value in answer.items() if key != "presence"}


async def test_both_kinds_of_line_say_the_same(served: Served, app: FastAPI) -> None:
    recorded = [served.opening(), served.marking(0), served.marking(1, remark="ü💣" * 250)]
    await served.record(*recorded)
    script: list[object] = [
        {"type": "ping", "id": 1},
        {"type": "subscribe", "id": 2, "topics": {served.topic: None}},
        {"type": "subscribe", "id": 3, "topics": {served.topic: {"seq": 1}}},
        {"type": "subscribe", "id": 4, "topics": {"inbox": None}},
        {"type": "subscribe", "id": 5, "topics": {"wall": None}},
        {"type": "subscribe", "id": 6, "topics": {"nowhere": None}},
        {"type": "operations", "id": 7, "operations": [*recorded, {"id": "x"}]},
        {"type": "unsubscribe", "id": 8, "topic": "inbox"},
        "not JSON",
        b"binary",
        "[]",
        {"type": "dance"},
        {"type": "subscribe", "id": 9, "topics": {}},
    ]

    async with plainly_serving(app) as base:
        token = await served.token("teacher")
        async with Socket(served.base, token) as raw, Socket(base, token) as plain:
            assert (await raw.greeted()).hello == (await plain.greeted()).hello
            for frame in script:
                assert await answer_to(raw, frame) == await answer_to(plain, frame), frame
            await served.record(*(served.marking(n % 3) for n in range(20)))
            for _ in range(20):
                assert await raw.get("event") == await plain.get("event")
            assert set(await raw.get("heartbeat")) == set(await plain.get("heartbeat"))
            await served.muster.logins.revoke_all(
                served.klass.teachers[0], by=Author(served.klass.teachers[0])
            )
            assert (await raw.ended(), await plain.ended()) == (4401, 4401)


async def test_a_plain_line_without_headers_is_let_in_and_sent_away_the_same(
    served: Served, app: FastAPI
) -> None:
    async with plainly_serving(app) as base:
        async with Socket(base) as socket:
            await socket.send({"type": "auth", "token": await served.token("teacher")})
            assert (await socket.greeted()).hello["user"]["role"] == "teacher"
        async with Socket(base, "nobody's") as socket:
            assert await socket.ended() == 4401


class Client:
    """The far end of a plain line: takes messages only while it is let to."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.may_go_on = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.may_go_on.wait()
        self.got.append(message)


async def test_a_plain_line_that_is_not_read_is_full_and_says_when_it_can_be_written_to_again() -> None:
    client, drained = Client(), list[bool]()
    wire = PlainWire(client.send, most_bytes=1000)
    wire.on_drained = lambda: drained.append(wire.is_full)
    sending = asyncio.create_task(wire.run())

    for _ in range(11):
        wire.write(text_frame(b"x" * 98))
    was_full = wire.is_full
    client.may_go_on.set()
    await until(lambda: drained)
    wire.close(4408, "too slow")
    wire.write(text_frame(b"too late"))
    await sending

    assert (was_full, drained) == (True, [False])
    assert [message.get("text") for message in client.got] == ["x" * 98] * 11 + [None]
    assert client.got[-1] == {"type": "websocket.close", "code": 4408, "reason": "too slow"}


async def test_a_plain_line_whose_client_has_gone_ends_quietly() -> None:
    async def send(_message: Any) -> None:
        raise OSError("gone")

    wire = PlainWire(send, most_bytes=1000)
    wire.write(text_frame(b"x"))

    await asyncio.wait_for(wire.run(), PATIENCE_S)
