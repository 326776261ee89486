"""Beginning to follow topics, many clients at once: rights, heads, events and snapshots in one transaction.

The follower is registered first, then (epoch, seq) and what was missed are read in one read transaction,
then what came meanwhile is sent from the ring: nothing is lost or doubled at the join. While one
transaction runs the next joins gather, so a thousand clients that come back cost a few transactions, and
what several ask for is read and written out once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson
from sqlalchemy import Connection as Database

from domain import events, register
from domain.clock import Clock
from domain.events import WALL
from domain.store import Store, StoreError
from domain.watching import MEETING, Grant, grants
from realtime.connection import Connection, Following
from realtime.frames import event_payload
from realtime.metrics import Metrics
from realtime.presence_frames import PresenceFrames
from realtime.protocol import MAX_MISSED, Code, Cursor
from realtime.snapshots import digest, snapshot_of

log = logging.getLogger("muster.gateway")

#: Joins in one transaction: some 20 ms, mostly in another thread.
AT_ONCE = 100
#: How long a snapshot is kept for others who come at the same time, and how many are.
KEPT_FOR, MOST_KEPT = timedelta(seconds=1), 100


@dataclass(frozen=True, slots=True)
class Join:
    """A connection that wants to follow a topic from a cursor on. ``request_id`` None: the server's wish."""

    following: Following
    name: str
    cursor: Cursor | None
    request_id: int | None


@dataclass(slots=True)
class _Read:
    """What one transaction found."""

    epoch: str = ""
    rights: dict[tuple[str, str], Grant | None] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    missed: dict[tuple[str, int], bytes] = field(default_factory=dict)  # events after a seq
    snapshots: dict[str, bytes] = field(default_factory=dict)


class Joins:
    """The joins of one process. Belongs to the event loop; its task is owned here until ``stop``."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        presence: PresenceFrames,
        metrics: Metrics,
        *,
        forget: Callable[[Connection, str], None],
    ) -> None:
        self._store, self._clock = store, clock
        self._presence, self._metrics = presence, metrics
        self._forget = forget
        self._waiting: deque[Join] = deque()
        self._kept: dict[str, tuple[tuple[int, int], datetime, bytes]] = {}  # topic: (seqs, when, snapshot)
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting_count(self) -> int:
        """Joins that wait for their transaction."""
        return len(self._waiting)

    def add(self, join: Join) -> None:
        """Have it answered soon, by a ``subscribed`` or an ``error`` frame."""
        self._waiting.append(join)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="muster-joins")

    async def stop(self) -> None:
        """Answer nobody any more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await asyncio.sleep(0)  # the other topics of a frame, and whoever comes in the same turn
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            batch = [join for join in batch if _is_wanted(join)]
            try:
                found = await self._store.read(lambda conn, batch=batch: self._read(conn, batch))  # type: ignore[misc]
            except StoreError as error:
                self._refuse(batch, str(error))
                continue
            except Exception:  # the rim of the task: these are told, the next ones are tried
                log.exception("%d topics could not be read", len(batch))
                self._refuse(batch, "the topic could not be read")
                continue
            for place, join in enumerate(batch, 1):
                if _is_wanted(join):
                    self._answer(join, found)
                if place % 10 == 0:
                    await asyncio.sleep(0)  # those who are connected already get their turn

    def _read(self, conn: Database, batch: list[Join]) -> _Read:
        now = self._clock.now()
        found = _Read(epoch=events.epoch(conn))
        found.rights = grants(conn, [_pair(join) for join in batch], now)
        allowed = [join for join in batch if found.rights[_pair(join)] is not None]
        found.heads = events.heads(conn, {WALL, *(join.following.channel.topic for join in allowed)})
        self._read_digests(conn, allowed, found)
        for join in allowed:
            topic = join.following.channel.topic
            after = _events_after(join, found)
            if after is None:
                if topic not in found.snapshots:
                    seqs = found.heads[topic], found.heads[WALL]  # other rosters are told on the wall
                    found.snapshots[topic] = self._snapshot(conn, topic, seqs, now)
            elif (topic, after) not in found.missed:
                rows = events.read_after(conn, topic, after, MAX_MISSED) if after < found.heads[topic] else []
                found.missed[topic, after] = b"[%s]" % b",".join(event_payload(e, join.name) for e in rows)
        return found

    def _snapshot(self, conn: Database, topic: str, seqs: tuple[int, int], now: datetime) -> bytes:
        """A snapshot, written out; in a storm one that is a moment old and of the same seqs does for others too."""
        kept = self._kept.get(topic)
        if kept is not None and kept[0] == seqs and timedelta() <= now - kept[1] < KEPT_FOR:
            return kept[2]
        written = orjson.dumps(snapshot_of(conn, topic, now))
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[topic] = (seqs, now, written)
        return written

    def _read_digests(self, conn: Database, allowed: list[Join], found: _Read) -> None:
        claimed = {
            join.following.channel.topic.removeprefix(MEETING)
            for join in allowed
            if join.cursor is not None and join.cursor.digest and join.name.startswith(MEETING)
        }
        states = register.record_states(conn, sorted(claimed))
        found.digests = {f"{MEETING}{meeting_id}": digest(records) for meeting_id, records in states.items()}

    def _answer(self, join: Join, found: _Read) -> None:
        following = join.following
        connection, topic = following.connection, following.channel.topic
        grant = found.rights[_pair(join)]
        if grant is None:
            self._forget(connection, join.name)
            connection.refuse(
                Code.FORBIDDEN,
                "there is no such topic, or it is not yours to see",
                request_id=join.request_id,
                topic=join.name,
            )
            return
        after = _events_after(join, found)
        if _is_drifted(join, found):
            self._metrics.drifted()
            log.error(
                "a client's view of a meeting differs from ours at the same seq: it begins anew",
                extra={"connection": connection.id},
            )
        self._metrics.joined("events" if after is not None else "snapshot")
        following.grant, following.sent, following.is_joined = grant, found.heads[topic], True
        here = b"[]"
        if topic.startswith(MEETING):
            here = self._presence.follow(connection, topic, join.name, grant.role)
        what = (
            b'"events":' + found.missed[topic, after]
            if after is not None
            else b'"snapshot":' + found.snapshots[topic]
        )
        head = orjson.dumps(
            {
                "type": "subscribed",
                "id": join.request_id,
                "topic": join.name,
                "epoch": found.epoch,
                "seq": found.heads[topic],
            }
        )
        connection.send_payload(head[:-1] + b"," + what + b',"presence":' + here + b"}")
        following.channel.add(following)

    def _refuse(self, batch: list[Join], message: str) -> None:
        for join in batch:
            if not _is_wanted(join):
                continue
            self._forget(join.following.connection, join.name)
            join.following.connection.refuse(
                Code.UNAVAILABLE, message, request_id=join.request_id, topic=join.name, retry_after=1.0
            )


def _pair(join: Join) -> tuple[str, str]:
    return join.following.connection.login.person_id, join.following.channel.topic


def _is_wanted(join: Join) -> bool:
    """The connection is still there and still wants this, and not something newer."""
    return join.following.connection.followings.get(join.name) is join.following


def _events_after(join: Join, found: _Read) -> int | None:
    """The seq after which events are to be sent; None: a snapshot."""
    cursor, head = join.cursor, found.heads[join.following.channel.topic]
    if cursor is None or (cursor.epoch is not None and cursor.epoch != found.epoch):
        return None
    if cursor.seq > head or head - cursor.seq > MAX_MISSED or _is_drifted(join, found):
        return None
    return cursor.seq


def _is_drifted(join: Join, found: _Read) -> bool:
    """At the same seq the client has computed another digest."""
    topic, cursor = join.following.channel.topic, join.cursor
    if cursor is None or cursor.digest is None or cursor.seq != found.heads[topic]:
        return False
    return topic in found.digests and cursor.epoch == found.epoch and cursor.digest != found.digests[topic]
