"""From the hub to a thousand connections: each event is encoded once and written to all.

A topic that is followed has a Channel: a ring of its last events, already framed, and its followers,
each with the seq that it was sent last. News goes out at once. What comes while it is being written goes
out together, after a rest of half as long as the writing took: the more there is to do, the more is done
in one write, and fan-out never takes more than two thirds of the loop. A follower that does not read is passed over; when it reads again it gets what
it missed from the ring, or is asked to begin anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from domain.events import Event
from realtime.frames import event_payload, text_frame
from realtime.hub import Hub
from realtime.metrics import Metrics

#: Events that a ring holds: a client that missed more gets a snapshot anyway.
RING = 1000
#: Connections written to before the loop gets its turn: some 2 ms.
WRITES_A_TURN = 200
#: Bytes written to a connection at once, so that one that does not read is noticed.
WRITE_AT_ONCE = 48 * 1024
#: The rest between two rounds of a topic that is behind, in lengths of the round before.
REST = 0.5
#: More events than this waiting at once are pressure: of each student only the newest record is sent.
PRESSURE = 100


class Framed:
    """An event with its frame. ``record``: the (meeting, student) of one that a newer one of it supersedes."""

    __slots__ = ("came_at", "event", "frame", "record")

    def __init__(self, event: Event, topic: str, came_at: float) -> None:
        self.event = event
        self.frame = text_frame(event_payload(event, topic))
        self.record: tuple[str, str] | None = None
        if event.name == "record.changed" and event.data.get("student_id"):
            self.record = (event.data.get("meeting_id", ""), event.data["student_id"])
        self.came_at = came_at


class Follower(Protocol):
    """A connection that follows a channel, as fan-out sees it."""

    sent: int  # the seq up to which it was sent everything

    @property
    def is_full(self) -> bool:
        """It does not read at the moment."""
        ...

    def write(self, frames: bytes) -> None:
        """Write whole frames."""
        ...

    def begin_anew(self) -> None:
        """It has missed more than the ring holds: give it a snapshot."""
        ...


class Channel:
    """One topic that is followed. ``topic``: in the log; ``name``: as its followers call it."""

    def __init__(self, hub: Hub, topic: str, name: str, metrics: Metrics) -> None:
        self.topic, self.name = topic, name
        self._metrics = metrics
        self._ring: deque[Framed] = deque(maxlen=RING)
        self._followers: set[Follower] = set()
        self._sent = 0  # the seq up to which it was written to all
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._end = hub.watch(topic, self._on_event)

    @property
    def follower_count(self) -> int:
        """How many are sent events."""
        return len(self._followers)

    @property
    def head(self) -> int:
        """The seq of the last event that came while somebody followed; 0 for none."""
        return self._ring[-1].event.seq if self._ring else 0

    @property
    def waiting_count(self) -> int:
        """Events that wait to be written."""
        return max(0, self.head - self._sent) if self._ring else 0

    def close(self) -> None:
        """Leave the hub."""
        self._end()
        if self._timer is not None:
            self._timer.cancel()

    def add(self, follower: Follower) -> None:
        """Send to it from ``follower.sent`` on: what came meanwhile at once, then with all others."""
        self._followers.add(follower)
        self.catch_up(follower)

    def remove(self, follower: Follower) -> None:
        """Send it nothing more."""
        self._followers.discard(follower)

    def catch_up(self, follower: Follower) -> None:
        """Send a follower what it has missed, as far as it reads. Under pressure, so with less."""
        while self._ring and follower.sent < self._sent and not follower.is_full:
            if self._ring[0].event.seq > follower.sent + 1:
                follower.begin_anew()
                return
            behind = self._ring[-1].event.seq - follower.sent
            missed = [framed for framed in list(self._ring)[-behind:] if framed.event.seq <= self._sent]
            part, last = self._joined(missed, is_pressed=len(missed) > PRESSURE)
            follower.write(part)
            follower.sent = last

    def _on_event(self, event: Event) -> None:
        if self._ring and event.seq != self.head + 1:
            if event.seq <= self.head:
                return
            self._ring.clear()  # the bus goes by the log, so this does not happen; if it does, all begin anew
        self._ring.append(Framed(event, self.name, time.perf_counter()))
        if not self._is_busy:
            self._is_busy = True
            self._sent = max(self._sent, self._ring[0].event.seq - 1)
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        waiting = [framed for framed in self._tail() if framed.event.seq > self._sent]
        if not waiting:
            self._is_busy = False
            return
        part, last = self._joined(waiting, is_pressed=len(waiting) > PRESSURE)
        first, self._sent = waiting[0].event.seq, last
        self._write(
            iter(tuple(self._followers)), part, first, last, waiting[0].came_at, time.perf_counter(), 0.0
        )

    def _tail(self) -> Iterable[Framed]:
        behind = self.head - self._sent
        return list(self._ring)[-behind:] if 0 < behind < len(self._ring) else tuple(self._ring)

    def _write(
        self,
        followers: Iterable[Follower],
        part: bytes,
        first: int,
        last: int,
        came_at: float,
        began: float,
        spent: float,
    ) -> None:
        """Write to all, so many in one turn of the loop; then rest for half as long, if more waits."""
        written, loop = 0, asyncio.get_running_loop()
        for count, follower in enumerate(followers, 1):
            if follower not in self._followers:
                pass  # it has left since this round began
            elif follower.sent == first - 1:
                if not follower.is_full:
                    follower.write(part)
                    follower.sent = last
                    written += 1
            elif follower.sent < last:
                self.catch_up(follower)
            if count == WRITES_A_TURN:
                self._metrics.written(written)
                spent += time.perf_counter() - began
                loop.call_soon(self._write, followers, part, first, last, came_at, time.perf_counter(), spent)
                return
        now = time.perf_counter()
        spent += now - began
        self._metrics.written(written)
        self._metrics.fanned_out(now - came_at)
        if self.waiting_count:
            self._timer = loop.call_later(spent * REST, self._flush)
        else:
            self._is_busy = False

    def _joined(self, waiting: Sequence[Framed], *, is_pressed: bool) -> tuple[bytes, int]:
        """Frames to be written together, not too many at once, and the seq that they lead to."""
        if is_pressed:
            return self._conflated(waiting)
        size, count = 0, 0
        for framed in waiting:
            size += len(framed.frame)
            count += 1
            if size >= WRITE_AT_ONCE:
                break
        chosen = waiting[:count]
        return b"".join([framed.frame for framed in chosen]), chosen[-1].event.seq

    def _conflated(self, waiting: Sequence[Framed]) -> tuple[bytes, int]:
        """Of each record the newest state only; a frame says from which seq on it stands for all."""
        newest = {framed.record: framed.event.seq for framed in waiting if framed.record is not None}
        frames: list[bytes] = []
        size, dropped, first = 0, 0, waiting[0].event.seq
        last = first - 1
        for framed in waiting:
            seq = framed.event.seq
            if framed.record is not None and newest[framed.record] != seq:
                dropped += 1
                continue
            frame = framed.frame
            if first < seq:
                frame = text_frame(event_payload(framed.event, self.name, first=first))
            frames.append(frame)
            size += len(frame)
            last, first = seq, seq + 1
            if size >= WRITE_AT_ONCE:
                break
        self._metrics.conflated(dropped)
        return b"".join(frames), last


class Fanout:
    """The channels of this process, each for as long as somebody follows it."""

    def __init__(self, hub: Hub, metrics: Metrics) -> None:
        self._hub, self._metrics = hub, metrics
        self._channels: dict[str, Channel] = {}
        self._users: dict[str, int] = {}

    def open(self, topic: str, name: str) -> Channel:
        """The channel of a topic; pair with ``leave``."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = Channel(self._hub, topic, name, self._metrics)
        self._users[topic] = self._users.get(topic, 0) + 1
        return channel

    def leave(self, channel: Channel) -> None:
        """One less has it open; with the last one it goes."""
        topic = channel.topic
        self._users[topic] -= 1
        if not self._users[topic]:
            del self._users[topic], self._channels[topic]
            channel.close()

    def channels(self) -> tuple[Channel, ...]:
        """All that are open."""
        return tuple(self._channels.values())

    def close(self) -> None:
        """Leave the hub."""
        for channel in self.channels():
            channel.close()
        self._channels.clear()
        self._users.clear()
