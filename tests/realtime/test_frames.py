"""Frames that are written once for all: what another WebSocket implementation reads in them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from realtime.frames import deflated_frame, text_frame
from realtime.wire import texts

LENGTHS = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000]


def read(frames: bytes, extensions: Sequence[Extension] = ()) -> list[Frame]:
    """What websockets' own parser finds, which must be whole frames and nothing else."""
    reader, found = StreamReader(), []
    reader.feed_data(frames)
    reader.feed_eof()
    while not _is_at_end(reader):
        parser = Frame.parse(reader.read_exact, mask=False, max_size=None, extensions=extensions)
        try:
            next(parser)
        except StopIteration as end:
            found.append(end.value)
        else:
            raise AssertionError("half a frame")
    return found


def _is_at_end(reader: StreamReader) -> bool:
    try:
        next(reader.at_eof())
    except StopIteration as end:
        return bool(end.value)
    raise AssertionError("neither at the end nor not")


def deflate() -> PerMessageDeflate:
    """The client's side of what we negotiate."""
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_a_text_frame_of_any_length_is_read_whole(length: int) -> None:
    payload = b"x" * length

    [frame] = read(text_frame(payload))

    assert (frame.opcode, frame.fin, frame.rsv1, bytes(frame.data)) == (Opcode.TEXT, True, False, payload)
    assert texts(text_frame(payload)) == [payload.decode()]


@given(st.lists(st.text(max_size=400)))
def test_a_run_of_text_frames_is_read_one_by_one(messages: list[str]) -> None:
    run = b"".join(text_frame(message.encode()) for message in messages)

    assert [bytes(frame.data).decode() for frame in read(run)] == messages == texts(run)


@given(st.text(), st.integers(0, 70_000))
def test_a_deflated_frame_says_the_same(message: str, filling: int) -> None:
    payload = message.encode() + b"x" * filling

    [frame] = read(deflated_frame(payload), [deflate()])

    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, payload)


def test_deflated_frames_know_nothing_of_each_other() -> None:
    client, payloads = deflate(), [b"the same " * 500, b"the same " * 500, b"another " * 500]

    frames = read(b"".join(deflated_frame(payload) for payload in payloads), [client])

    assert [bytes(frame.data) for frame in frames] == payloads
