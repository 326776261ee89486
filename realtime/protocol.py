"""The WebSocket protocol muster.v1 as types: every frame, error code and close code (docs/realtime.md).

What comes in is checked against these models before it is believed; what goes out is written by the
code that knows it, and the tests hold every frame they receive to the models here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

SUBPROTOCOL = "muster.v1"
PROTOCOL = 1
#: The largest frame that is taken, in bytes; a larger one closes the connection with 1009.
MAX_FRAME = 64 * 1024
#: Seconds within which a connection without cookie or bearer token must send its auth frame.
AUTH_WITHIN_S = 5.0
HEARTBEAT_S = 25
#: A client that missed more events than this gets a snapshot instead.
MAX_MISSED = 1000
MAX_OPERATIONS = 500


class Close(IntEnum):
    """Why a connection was closed."""

    TOO_BIG = 1009  # a frame above 64 KiB
    RESTARTING = 1012  # this process goes away: come back, after the bye frame's retry_ms
    UNAUTHENTICATED = 4401  # not logged in, or the login has ended: do not come back without a new one
    FORBIDDEN = 4403  # the person's role has changed: log in anew
    TOO_SLOW = 4408  # the client does not read what it is sent: come back and resume
    REPLACED = 4409  # the same person has opened too many connections since: this was the oldest
    TOO_MANY = 4429  # too many connections or frames: come back after the bye frame's retry_ms


class Code(StrEnum):
    """What is wrong with a frame."""

    BAD_MESSAGE = "bad_message"  # not JSON, not an object, or a field that cannot be taken
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_TOPIC = "unknown_topic"  # no such kind of topic
    FORBIDDEN = "forbidden"  # a topic that is not there or not for the asker
    RATE_LIMITED = "rate_limited"  # too many frames or operations: again after retry_after seconds
    TOO_MANY_TOPICS = "too_many_topics"
    TOO_LARGE = "too_large"  # more operations than fit into one frame
    UNAVAILABLE = "unavailable"  # the database cannot be reached: again after retry_after seconds


class _In(BaseModel):
    """What a client sends. Fields that are not known are ignored: newer clients may send more."""

    model_config = ConfigDict(extra="ignore", strict=True)


#: A client's number for its request; the answer carries it.
RequestId = Annotated[int, Field(ge=0, le=2**53)]
TopicName = Annotated[str, StringConstraints(min_length=1, max_length=80)]


class Cursor(_In):
    """Where a client stands in a topic: the last seq it has seen, and in which log. ``digest`` of its view,
    if it has computed one: when the server's is another, a snapshot comes instead of events."""

    seq: Annotated[int, Field(ge=0, le=2**53)]
    epoch: Annotated[str, StringConstraints(max_length=64)] | None = None
    digest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{8}$")] | None = None


class Auth(_In):
    """The first frame of a client that can send neither cookie nor header."""

    type: Literal["auth"]
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Subscribe(_In):
    """Follow topics from a cursor on, or, with null, from a snapshot on."""

    type: Literal["subscribe"]
    id: RequestId
    topics: Annotated[dict[TopicName, Cursor | None], Field(min_length=1, max_length=1000)]


class Unsubscribe(_In):
    """Follow a topic no longer."""

    type: Literal["unsubscribe"]
    id: RequestId
    topic: TopicName


class Operations(_In):
    """Record operations; each is answered by itself, when it is durable."""

    type: Literal["operations"]
    id: RequestId
    operations: list[Any]


class Ping(_In):
    """Asks for a pong: to measure, to keep a line open, to learn the server's time."""

    type: Literal["ping"]
    id: RequestId


class Seen(_In):
    """Now and then: the last seq seen of topics, and how many operations wait on the device."""

    type: Literal["seen"]
    topics: Annotated[dict[TopicName, Annotated[int, Field(ge=0, le=2**53)]], Field(max_length=1000)] = Field(
        default_factory=dict
    )
    unsent: Annotated[int, Field(ge=0, le=1_000_000)] = 0


Incoming = Auth | Subscribe | Unsubscribe | Operations | Ping | Seen
_BY_TYPE: dict[str, type[Incoming]] = {
    "auth": Auth,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "operations": Operations,
    "ping": Ping,
    "seen": Seen,
}


class BadFrame(Exception):
    """A frame that cannot be taken; ``request_id`` where one could be read."""

    def __init__(
        self,
        code: Code,
        message: str,
        request_id: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.request_id = code, message, request_id
        self.retry_after = retry_after  # seconds


def read_message(message: Mapping[str, Any]) -> Incoming:
    """What an ASGI "websocket.receive" message holds. Raises BadFrame."""
    text = message.get("text")
    if text is None:
        raise BadFrame(Code.BAD_MESSAGE, "a frame must be text, got a binary one")
    if len(text) > MAX_FRAME:
        raise BadFrame(Code.TOO_LARGE, f"a frame is at most {MAX_FRAME // 1024} KiB")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadFrame(Code.BAD_MESSAGE, f"a frame must be JSON: {error}"[:200]) from None
    return read_frame(document)


def read_frame(document: object) -> Incoming:
    """One frame of a client. Raises BadFrame."""
    if not isinstance(document, dict):
        raise BadFrame(Code.BAD_MESSAGE, f"a frame must be a JSON object, got {_kind(document)}")
    given = document.get("id")
    request_id = given if isinstance(given, int) and not isinstance(given, bool) else None
    wanted = document.get("type")
    model = _BY_TYPE.get(wanted) if isinstance(wanted, str) else None
    if model is None:
        shown = repr(wanted)[:60]
        raise BadFrame(
            Code.UNKNOWN_TYPE, f"type must be one of {', '.join(_BY_TYPE)}, got {shown}", request_id
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part)[:40] for part in first["loc"]) or "frame"
        raise BadFrame(Code.BAD_MESSAGE, f"{wanted}: {where}: {first['msg']}", request_id) from None


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
    return names.get(type(value), "null")


class _Out(BaseModel):
    """What the server sends."""

    model_config = ConfigDict(extra="forbid")


class Who(_Out):
    """Somebody logged in."""

    id: str
    name: str
    role: str
    language: str


class LimitsTold(_Out):
    """What a client must keep to (docs/realtime.md#limits)."""

    frame_bytes: int
    topics: int
    operations_per_frame: int
    operations_per_s: float
    frames_per_s: float
    connections_per_person: int


class Hello(_Out):
    """The first frame after the log-in was found good."""

    type: Literal["hello"]
    protocol: Literal[1]
    user: Who
    server_time: datetime
    heartbeat_s: int
    limits: LimitsTold


class Present(_Out):
    """Somebody who has a topic open: ``unsent`` operations wait on the device."""

    person_id: str
    role: str
    since: datetime
    unsent: int


class EventFrame(_Out):
    """Something that was committed. With ``from_`` it stands for every event from that seq on."""

    type: Literal["event"]
    topic: str
    seq: int
    from_: Annotated[int | None, Field(alias="from")] = None
    name: str
    at: datetime
    data: dict[str, Any]


class Subscribed(_Out):
    """A topic is followed from seq on; the next event is seq + 1. ``id`` null: the server began it anew."""

    type: Literal["subscribed"]
    id: int | None
    topic: str
    epoch: str
    seq: int
    events: list[EventFrame] | None = None
    snapshot: dict[str, Any] | None = None
    presence: list[Present]


class Unsubscribed(_Out):
    """A topic is followed no longer. ``id`` null, with topic and code: the right to it has ended."""

    type: Literal["unsubscribed"]
    id: int | None
    topic: str
    code: Literal["forbidden"] | None = None


class Heartbeat(_Out):
    """Every heartbeat_s: where each followed topic stands, and the digest of a meeting's records there."""

    type: Literal["heartbeat"]
    server_time: datetime
    heads: dict[str, tuple[int, str]]


class PresenceFrame(_Out):
    """Who came and who left; not numbered, not replayed."""

    type: Literal["presence"]
    topic: str
    joined: list[Present]
    left: list[Present]


class OutcomesFrame(_Out):
    """The answers to an operations frame, in its order, when they are durable."""

    type: Literal["outcomes"]
    id: int
    outcomes: list[dict[str, Any]]
    server_time: datetime


class Pong(_Out):
    """The answer to a ping."""

    type: Literal["pong"]
    id: int
    server_time: datetime


class ErrorFrame(_Out):
    """Something was wrong with a frame; the connection goes on."""

    type: Literal["error"]
    id: int | None
    code: Code
    message: str
    topic: str | None = None
    retry_after: float | None = None


class Bye(_Out):
    """The connection is about to be closed with 1012 or 4429: come back after so many milliseconds."""

    type: Literal["bye"]
    retry_ms: int


Outgoing = Annotated[
    Hello
    | Subscribed
    | Unsubscribed
    | Heartbeat
    | EventFrame
    | PresenceFrame
    | OutcomesFrame
    | Pong
    | ErrorFrame
    | Bye,
    Field(discriminator="type"),
]
outgoing: TypeAdapter[Outgoing] = TypeAdapter(Outgoing)
