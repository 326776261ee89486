"""Whatever a client sends is answered with a frame of the protocol or ends its own connection, and nothing else."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.ids import new_id
from realtime.protocol import MAX_FRAME, BadFrame, ErrorFrame, read_frame
from realtime.realtime import Realtime
from tests.realtime.lines import TEXT, line
from tests.realtime.sockets import Frame, Served, Socket
from tests.waiting import until


@pytest.fixture(autouse=True)
def no_errors_are_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client sends is never the server's error."""
    yield
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR
    ] == []


async def answer_to(socket: Socket, frame: object) -> Frame:
    """The next frame that is an answer."""
    await socket.send(frame)
    while (answer := await socket.next())["type"] in ("heartbeat", "presence", "event"):
        pass
    return answer


async def is_answered(socket: Socket) -> bool:
    """Whether the connection still serves."""
    await socket.send({"type": "ping", "id": 4711})
    return bool((await socket.get("pong", lambda frame: frame["id"] == 4711))["server_time"])


def a_ping(size: int) -> bytes:
    """A good frame of so many bytes."""
    head, tail = b'{"type":"ping","id":1,"filling":"', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


NOT_JSON = [
    "",
    " ",
    "not JSON",
    "{",
    '{"type"',
    "NaN",
    '{"type":"ping","id":NaN}',
    "[1,]",
    "\x00",
    "'",
    "undefined",
]
NOT_JSON += [
    '{"type":"ping","id":1}{"type":"ping","id":2}',
    '{"type":"ping","id":Infinity}',
    "\ufeff{}",
    '"\\ud800"',
]
NOT_JSON += [
    '{"type":"ping","id":1,"a":"\\udfff"}',
    '{"type":"ping","id":01}',
    "{'type':'ping'}",
    "[" * 60_000,
]
NOT_JSON += ['{"a":' * 13_000, "[" * 5000 + "]" * 5000, '{"type":"ping","id":1' + " " * 60_000]


@pytest.mark.parametrize("text", NOT_JSON, ids=lambda text: repr(text[:24]))
async def test_what_is_not_json_is_told_so(served: Served, text: str) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, text)

        assert (answer["type"], answer["id"], answer["code"]) == ("error", None, "bad_message")
        assert len(answer["message"]) <= 200
        assert await is_answered(socket)


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "ping", [], [{"type": "ping", "id": 1}], "é" * 30_000]
)
async def test_what_is_no_object_is_told_so(served: Served, value: Any) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, orjson.dumps(value).decode())

        assert (answer["type"], answer["code"]) == ("error", "bad_message")
        assert await is_answered(socket)


async def test_a_binary_frame_is_told_so(served: Served) -> None:
    async with served.socket("teacher") as socket:
        for data in (b"", b'{"type":"ping","id":1}', bytes(range(256))):
            assert (await answer_to(socket, data))["code"] == "bad_message"

        assert await is_answered(socket)


@pytest.mark.parametrize(
    "kind", [None, 7, "dance", "Ping", "", ["ping"], {"a": 1}, "x" * 50_000, "hello", "event"]
)
async def test_a_type_that_is_not_known_is_told_so_with_the_number(served: Served, kind: Any) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, {"type": kind, "id": 12})

        assert (answer["code"], answer["id"]) == ("unknown_type", 12)
        assert len(answer["message"]) < 300
        assert (await answer_to(socket, {"id": 13}))["code"] == "unknown_type"


WRONG: list[Frame] = [
    {"type": "ping"},
    {"type": "ping", "id": -1},
    {"type": "ping", "id": "1"},
    {"type": "ping", "id": 1.0},
    {"type": "ping", "id": True},
    {"type": "ping", "id": 2**53 + 1},
    {"type": "subscribe", "id": 1},
    {"type": "subscribe", "id": 1, "topics": {}},
    {"type": "subscribe", "id": 1, "topics": ["wall"]},
    {"type": "subscribe", "id": 1, "topics": {"": None}},
    {"type": "subscribe", "id": 1, "topics": {"x" * 81: None}},
    {"type": "subscribe", "id": 1, "topics": {"wall": 5}},
    {"type": "subscribe", "id": 1, "topics": {"wall": {}}},
    {"type": "subscribe", "id": 1, "topics": {"wall": {"seq": -1}}},
    {"type": "subscribe", "id": 1, "topics": {"wall": {"seq": "1"}}},
    {"type": "subscribe", "id": 1, "topics": {"wall": {"seq": 1, "epoch": 5}}},
    {"type": "subscribe", "id": 1, "topics": {"wall": {"seq": 1, "epoch": "x" * 65}}},
    {"type": "subscribe", "id": 1, "topics": {"wall": {"seq": 1, "digest": "ABCDEF12"}}},
    {"type": "subscribe", "id": 1, "topics": {f"t{n}": None for n in range(1001)}},
    {"type": "unsubscribe", "id": 1},
    {"type": "unsubscribe", "id": 1, "topic": None},
    {"type": "operations", "id": 1},
    {"type": "operations", "id": 1, "operations": {}},
    {"type": "operations", "operations": []},
    {"type": "seen", "topics": {"wall": "1"}},
    {"type": "seen", "topics": {f"t{n}": 1 for n in range(1001)}},
    {"type": "seen", "unsent": -1},
    {"type": "seen", "unsent": 10**7},
    {"type": "auth"},
]


@pytest.mark.parametrize("frame", WRONG, ids=lambda frame: str(frame)[:60])
async def test_a_field_that_cannot_be_taken_is_told_by_its_name(served: Served, frame: Frame) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, frame)

        assert (answer["type"], answer["code"]) == ("error", "bad_message")
        assert answer["message"].startswith(frame["type"] + ": ")
        assert await is_answered(socket)


async def test_what_a_newer_client_sends_besides_is_ignored(served: Served) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, {"type": "ping", "id": 3, "mood": "sunny", "nested": [{"a": [1]}]})

        assert (answer["type"], answer["id"]) == ("pong", 3)


async def test_of_a_key_that_is_there_twice_the_last_one_counts(served: Served) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, '{"type":"subscribe","id":1,"type":"ping","id":2}')

        assert (answer["type"], answer["id"]) == ("pong", 2)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400, "1" + "0" * 60_000, "9223372036854775808"])
async def test_a_number_beyond_all_bounds_is_told_so(served: Served, number: str) -> None:
    async with served.socket("teacher") as socket:
        answer = await answer_to(socket, f'{{"type":"ping","id":{number}}}')

        assert (answer["type"], answer["code"]) == ("error", "bad_message")
        assert await is_answered(socket)


# -- operations that are none


STRANGE: list[Any] = [
    None,
    5,
    "x",
    [],
    {},
    {"id": 5},
    {"id": "x" * 1000, "kind": "mark"},
    {"id": None, "kind": None},
    {"id": {"a": 1}, "kind": ["mark"]},
    {"id": new_id(), "kind": "fly"},
    {"id": new_id(), "kind": "mark"},
    {"id": new_id(), "kind": "mark", "meeting_id": 5, "student_id": 5, "status": 5},
    {"id": new_id(), "kind": "mark", "meeting_id": "x", "student_id": new_id(), "status": "present"},
    {"id": new_id(), "kind": "check_in", "proof": {"a": [[[]]]}},
    {"id": new_id(), "kind": "open_meeting", "meeting_id": new_id(), "captured_at": "0000-00-00"},
    {"id": new_id(), "kind": "open_meeting", "meeting_id": new_id(), "captured_at": 1e300},
    {"id": new_id(), "kind": "mark", "minutes_late": 2**64 - 1},
    {"id": new_id(), "kind": "revert", "target": []},
]


async def test_operations_that_are_none_are_rejected_one_by_one(served: Served) -> None:
    async with served.socket("teacher") as socket:
        good = served.opening()
        answer = await answer_to(socket, {"type": "operations", "id": 1, "operations": [*STRANGE, good]})

        assert [outcome["outcome"] for outcome in answer["outcomes"]] == ["rejected"] * len(STRANGE) + [
            "accepted"
        ]
        assert answer["outcomes"][-1]["id"] == good["id"]
        assert await is_answered(socket)


async def test_no_operations_are_answered_with_no_outcomes(served: Served) -> None:
    async with served.socket("teacher") as socket:
        assert (await answer_to(socket, {"type": "operations", "id": 1, "operations": []}))["outcomes"] == []


# -- too large, and not WebSocket at all


async def test_the_largest_frame_is_taken_and_one_byte_more_closes_the_connection(served: Served) -> None:
    async with served.socket("teacher") as socket, served.socket("co-teacher") as other:
        assert (await answer_to(socket, a_ping(MAX_FRAME).decode()))["type"] == "pong"
        await socket.send(a_ping(MAX_FRAME + 1).decode())

        assert await socket.ended() == 1009
        assert await is_answered(other)


@pytest.mark.parametrize("size", [100_000, 1_000_000, 20_000_000])
async def test_a_client_learns_that_its_frame_was_too_large_however_large_it_was(
    served: Served, size: int
) -> None:
    async with line(served.base, await served.token("teacher")) as raw:
        raw.write(TEXT, a_ping(size))

        assert await raw.code() == 1009


async def test_a_frame_that_is_too_large_in_all_its_parts_closes_the_connection(served: Served) -> None:
    async with line(served.base, await served.token("teacher")) as raw:
        raw.write(TEXT, b"[" * 40_000, is_final=False)
        raw.write(0, b"[" * 40_000)

        assert await raw.code() == 1009


async def test_a_frame_that_is_large_only_when_inflated_closes_the_connection(served: Served) -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(a_ping(50_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    async with line(served.base, await served.token("teacher"), extensions="permessage-deflate") as raw:
        raw.write(TEXT, bomb[:-4], is_compressed=True)

        assert len(bomb) < MAX_FRAME
        assert await raw.code() == 1009


BROKEN = {
    "text that is not UTF-8": [(TEXT, b"\xff\xfe{}", {})],
    "half a character": [(TEXT, '{"é'.encode()[:-1], {})],
    "a kind of frame that does not exist": [(3, b"", {})],
    "a part without a beginning": [(0, b"x", {})],
    "a beginning within a frame": [(TEXT, b"x", {"is_final": False}), (TEXT, b"y", {})],
    "a ping in parts": [(9, b"", {"is_final": False})],
    "a ping that is too long": [(9, b"x" * 126, {})],
    "compressed though nobody agreed": [(TEXT, b"x", {"is_compressed": True})],
    "a close of one byte": [(8, b"\x03", {})],
    "a close with a code that does not exist": [(8, b"\x00\x01", {})],
}


@pytest.mark.parametrize("frames", BROKEN.values(), ids=BROKEN.keys())
async def test_what_breaks_the_websocket_protocol_ends_that_connection(
    served: Served, realtime: Realtime, frames: list[tuple[int, bytes, dict[str, bool]]]
) -> None:
    async with served.socket("co-teacher") as other:
        async with line(served.base, await served.token("teacher")) as raw:
            await raw.read_until(TEXT)
            for opcode, payload, how in frames:
                raw.write(opcode, payload, **how)

            assert await raw.code() in (1002, 1007, 1006)
        await until(lambda: realtime.gateway.connection_count == 1)
        assert await is_answered(other)


async def test_garbage_in_place_of_compressed_text_ends_that_connection(
    served: Served, realtime: Realtime
) -> None:
    async with line(served.base, await served.token("teacher"), extensions="permessage-deflate") as raw:
        raw.write(TEXT, b"\xff" * 100, is_compressed=True)

        assert await raw.code() in (1002, 1007)
    await until(lambda: realtime.gateway.connection_count == 0)


async def test_a_client_that_vanishes_in_the_middle_of_a_frame_leaves_nothing(
    served: Served, realtime: Realtime
) -> None:
    async with line(served.base, await served.token("teacher")) as raw:
        await raw.read_until(TEXT)
        raw.writer.write(b"\x81\xfe\xff")

    await until(lambda: realtime.gateway.connection_count == 0)


# -- a lot of it


async def test_whoever_sends_garbage_on_and_on_is_closed(served: Served, realtime: Realtime) -> None:
    async with served.socket("co-teacher") as other, served.socket("teacher") as socket:
        for number in range(10_000):
            try:
                await socket.send(f"garbage {number}")
            except Exception:
                break

        assert await socket.ended() == 4429
        assert socket.unread[-1]["type"] == "bye"
        errors = [frame for frame in socket.unread if frame["type"] == "error"]
        assert {frame["code"] for frame in errors} <= {"bad_message", "rate_limited"}
        assert await is_answered(other)
    await until(lambda: realtime.gateway.connection_count == 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
TYPES = st.sampled_from(["auth", "subscribe", "unsubscribe", "operations", "ping", "seen"])
NUMBER = st.integers(0, 2**53)
OPERATION = st.fixed_dictionaries(
    {},
    optional={
        "id": st.builds(new_id) | JSON,
        "kind": st.sampled_from(["mark", "check_in", "open_meeting", "close_meeting", "revert", "resolve"])
        | JSON,
        "meeting_id": st.builds(new_id) | JSON,
        "student_id": st.builds(new_id) | JSON,
        "status": st.sampled_from(["present", "late", "absent"]) | JSON,
        "captured_at": st.datetimes().map(lambda at: at.isoformat() + "Z") | JSON,
        "proof": JSON,
        "minutes_late": JSON,
        "remark": JSON,
        "reverts": JSON,
    },
)
FRAME = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "id": NUMBER | JSON,
        "topics": st.dictionaries(st.sampled_from(["wall", "inbox", "nowhere", "meeting:" + new_id()]), JSON)
        | JSON,
        "topic": JSON,
        "operations": st.lists(OPERATION | JSON, max_size=4) | JSON,
        "unsent": JSON,
        "token": JSON,
    },
)


@given(FRAME | JSON)
def test_a_frame_is_taken_or_refused_with_a_code(document: Any) -> None:
    try:
        frame = read_frame(document)
    except BadFrame as bad:
        told = ErrorFrame(type="error", id=bad.request_id, code=bad.code, message=bad.message)
        orjson.dumps(told.model_dump())
    else:
        assert frame.type == document["type"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FRAME.map(orjson.dumps) | JSON.map(orjson.dumps) | st.binary(max_size=30), max_size=6))
async def test_whatever_comes_is_answered_by_the_protocol_and_the_connection_serves_on(
    served: Served, frames: list[bytes]
) -> None:
    async with served.socket("teacher") as socket:
        for frame in frames:
            try:
                await socket.send(frame.decode())
            except UnicodeDecodeError:
                await socket.send(frame)

        assert await is_answered(socket)
