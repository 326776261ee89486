"""One client's connection, from its log-in to its end, and what it follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from domain.clock import Clock, format_instant
from domain.login_rows import LoginView
from domain.watching import INBOX, Grant, inbox_topic
from realtime.fanout import Channel
from realtime.frames import DEFLATE_FROM, deflated_frame, text_frame
from realtime.limits import Bucket, Limits
from realtime.metrics import Metrics
from realtime.presence import Presence
from realtime.protocol import Code
from realtime.wire import Wire


class Following:
    """A topic that a connection follows: the follower that fan-out sees (fanout.Follower)."""

    __slots__ = (
        "_begin_anew",
        "_wire",
        "channel",
        "connection",
        "end_presence",
        "grant",
        "is_joined",
        "sent",
    )

    def __init__(
        self, connection: Connection, channel: Channel, begin_anew: Callable[[Following], None]
    ) -> None:
        self.connection, self.channel = connection, channel
        self._wire = connection.wire
        self._begin_anew = begin_anew
        self.sent = 0
        self.is_joined = False  # its beginning was sent, so events may follow
        self.grant: Grant | None = None

    @property
    def is_full(self) -> bool:
        """The client does not read at the moment."""
        if self._wire.is_full:
            self.connection.is_behind()
            return True
        return False

    def write(self, frames: bytes) -> None:
        """Write whole frames."""
        self._wire.write(frames)

    def begin_anew(self) -> None:
        """It has missed more than the ring holds."""
        self._begin_anew(self)


class Connection:
    """A client that has logged in. Belongs to the gateway, which ends it."""

    __slots__ = (
        "_clock",
        "_metrics",
        "address",
        "bad_count",
        "followings",
        "found_at",
        "frames",
        "id",
        "login",
        "operation_frames",
        "operations",
        "seen",
        "slow_since",
        "token",
        "unsent",
        "wire",
    )

    def __init__(
        self,
        identifier: int,
        wire: Wire,
        login: LoginView,
        token: str,
        address: str,
        *,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        now = time.monotonic()
        self.id, self.wire, self.address = identifier, wire, address
        self.login, self.token, self.found_at = login, token, now
        self.followings: dict[str, Following] = {}  # by the name that the client gives the topic
        self.frames = Bucket(limits.frames_per_s, limits.frame_burst, now)
        self.operations = Bucket(limits.operations_per_s, limits.operation_burst, now)
        self.operation_frames = 0
        self.bad_count = 0
        self.unsent = 0
        self.seen: dict[str, str | None] = {}  # topics told of by "seen", and as what
        self.slow_since: float | None = None
        self._clock, self._metrics = clock, metrics

    # -- sending

    def send(self, frame: dict[str, Any]) -> None:
        """Send one frame; a large one compressed, if the client can read that."""
        self.send_payload(orjson.dumps(frame))

    def send_payload(self, payload: bytes) -> None:
        """As ``send``, already written out."""
        if len(payload) >= DEFLATE_FROM and self.wire.takes_deflate:
            self.wire.write(deflated_frame(payload))
        else:
            self.wire.write(text_frame(payload))
        self._metrics.written(1)

    def refuse(
        self,
        code: Code,
        message: str,
        *,
        request_id: int | None = None,
        topic: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Send an error frame; the connection goes on."""
        frame: dict[str, Any] = {"type": "error", "id": request_id, "code": code.value, "message": message}
        if topic is not None:
            frame["topic"] = topic
        if retry_after is not None:
            frame["retry_after"] = round(max(retry_after, 0.05), 3)
        self._metrics.error(code.value)
        self.send(frame)

    def server_time(self) -> str:
        """The clock that clients set theirs by."""
        return format_instant(self._clock.now())

    # -- reading slowly

    def is_behind(self) -> None:
        """Something was not written, since the client does not read."""
        if self.slow_since is None:
            self.slow_since = time.monotonic()

    def drained(self) -> None:
        """The client reads again: give it what it missed."""
        self.slow_since = None
        for following in tuple(self.followings.values()):
            if following.is_joined:
                following.channel.catch_up(following)

    # -- presence

    def be_here(self, presence: Presence, topic: str, role: str) -> None:
        """Be shown to whoever has the topic open."""
        presence.join(topic, self.login.person_id, role, self.id, unsent=self.unsent)

    def topic_of(self, name: str) -> str:
        """A topic as the log calls it: one's own inbox has the person's id."""
        return inbox_topic(self.login.person_id) if name == INBOX[:-1] else name
