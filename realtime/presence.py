"""Who has a topic open right now, in all processes together: live, never stored, never replayed.

Each process announces its own people to the others and repeats that every few seconds, which is their
lease: a process that was killed falls silent, and its people are gone when the lease has run out. One
that comes back under the same name takes its former people with it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from domain.clock import Clock, format_instant

#: How often a process repeats who is there, and how long that is believed.
ANNOUNCE_EVERY_S, LEASE_S = 8.0, 25.0
#: Somebody whose line breaks is still there for a moment: most come back.
GRACE_S = 3.0
#: Of a topic that more have open only those who were there first are told: whole classes of students, but
#: not a hundred admins, each of whom would be told of each other.
MOST_STUDENTS, MOST_OTHERS = 1000, 50
#: Comings and goings are told together, at most so often.
TELL_EVERY_S = 0.25

Key = tuple[str, str]  # person id, role
Changed = Callable[[list["Here"], list["Here"]], None]


class Line(Protocol):
    """Carries small messages to all other processes."""

    def send(self, message: bytes) -> None:
        """Send if possible. Never blocks, never raises."""
        ...

    async def start(self, receive: Callable[[bytes], None], resumed: Callable[[], None]) -> None:
        """Receive what others send; ``resumed`` after each (re)connect."""
        ...

    async def stop(self) -> None:
        """End."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """Somebody who has a topic open, as ``role``, with ``unsent`` operations waiting on the device."""

    person_id: str
    role: str
    since: datetime
    unsent: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As it is told (protocol §5)."""
        return {
            "person_id": self.person_id,
            "role": self.role,
            "since": format_instant(self.since),
            "unsent": self.unsent,
        }


@dataclass(slots=True)
class _Own:
    here: Here
    unsent: dict[Hashable, int] = field(default_factory=dict)  # by connection
    gone_at: float | None = None  # when the last connection left


@dataclass(slots=True)
class _Node:
    heard_at: float
    topics: dict[str, dict[Key, Here]] = field(default_factory=dict)


class Presence:
    """The people of this process and, through ``line``, of the others. Belongs to the event loop."""

    def __init__(self, clock: Clock, *, node: str = "main", line: Line | None = None) -> None:
        self._clock = clock
        self._line = line
        self._name = node
        self._node = f"{node}.{secrets.token_hex(4)}"
        self._own: dict[str, dict[Key, _Own]] = {}
        self._nodes: dict[str, _Node] = {}
        self._watchers: dict[str, list[Changed]] = {}
        self._told: dict[str, dict[Key, Here]] = {}
        self._stale: set[str] = set()  # topics in which something changed since it was told here
        self._unshared: set[str] = set()  # … and here, since it was told to the others
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._on_change: Callable[[int], None] = lambda count: None

    @property
    def nodes(self) -> dict[str, float]:
        """Other processes that are heard of, and how many seconds ago."""
        now = time.monotonic()
        return {name.rpartition(".")[0]: now - node.heard_at for name, node in self._nodes.items()}

    def on_change(self, tell: Callable[[int], None]) -> None:
        """Have counted how many came or left."""
        self._on_change = tell

    async def start(self) -> None:
        """Begin to announce and to listen. The task is owned here until ``stop``."""
        if self._line is not None:
            await self._line.start(self._receive, self._resumed)
        self._task = asyncio.create_task(self._run(), name="muster-presence")

    async def stop(self) -> None:
        """Take one's people along and be silent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._line is not None:
            self._send({"kind": "bye"})
            await self._line.stop()

    def join(self, topic: str, person_id: str, role: str, connection: Hashable, *, unsent: int = 0) -> None:
        """Somebody has a topic open on a connection. Doing it again changes what waits on the device."""
        people = self._own.setdefault(topic, {})
        own = people.get((person_id, role))
        if own is None:
            own = people[person_id, role] = _Own(Here(person_id, role, self._clock.now()))
        if own.unsent.get(connection) == unsent and own.gone_at is None:
            return
        own.unsent[connection] = unsent
        own.gone_at = None
        self._count_unsent(own)
        self._changed(topic)

    def leave(
        self, topic: str, person_id: str, role: str, connection: Hashable, *, at_once: bool = False
    ) -> None:
        """The connection has it open no longer. A line that broke is forgiven for a moment."""
        own = self._own.get(topic, {}).get((person_id, role))
        if own is None or own.unsent.pop(connection, None) is None:
            return
        self._count_unsent(own)
        if not own.unsent:
            own.gone_at = time.monotonic() - (GRACE_S if at_once else 0.0)
        self._changed(topic)

    def here(self, topic: str) -> list[Here]:
        """Everybody who has a topic open, by person."""
        return [entry for _, entry in sorted(self._merged(topic).items())]

    def told(self, topic: str) -> list[Here]:
        """Who those who watch a topic have been told of, by person."""
        return [entry for _, entry in sorted(self._told.get(topic, {}).items())]

    def watch(self, topic: str, changed: Changed) -> Callable[[], None]:
        """Have told who came (or changed) and who left; returns how to stop that."""
        if topic not in self._watchers:
            self._told[topic] = self._merged(topic)
        self._watchers.setdefault(topic, []).append(changed)

        def end() -> None:
            watchers = self._watchers.get(topic, [])
            if changed in watchers:
                watchers.remove(changed)
            if not watchers:
                self._watchers.pop(topic, None)
                self._told.pop(topic, None)

        return end

    @staticmethod
    def _count_unsent(own: _Own) -> None:
        if (count := sum(own.unsent.values())) != own.here.unsent:
            own.here = replace(own.here, unsent=count)

    def _changed(self, topic: str) -> None:
        self._stale.add(topic)
        self._unshared.add(topic)
        self._wake.set()

    def _merged(self, topic: str) -> dict[Key, Here]:
        merged: dict[Key, Here] = {}
        for entry in (*self._own_entries(topic), *self._others(topic)):
            key = (entry.person_id, entry.role)
            known = merged.get(key)
            if known is not None:
                entry = Here(*key, min(known.since, entry.since), known.unsent + entry.unsent)
            merged[key] = entry
        return merged if len(merged) <= MOST_OTHERS else _first(merged)

    def _own_entries(self, topic: str) -> Iterable[Here]:
        for own in self._own.get(topic, {}).values():
            yield own.here

    def _others(self, topic: str) -> Iterable[Here]:
        for node in self._nodes.values():
            yield from node.topics.get(topic, {}).values()

    # -- telling, announcing, forgetting

    async def _run(self) -> None:
        announced_at = 0.0
        while True:
            if time.monotonic() - announced_at >= ANNOUNCE_EVERY_S:
                announced_at = time.monotonic()
                self._announce()
            self._forget_the_silent()
            leaving = self._let_go()
            self._tell()
            wait = TELL_EVERY_S if leaving or self._stale else 1.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)
            self._wake.clear()
            await asyncio.sleep(TELL_EVERY_S)  # what happens meanwhile is told together

    def _let_go(self) -> bool:
        """Forget those whose grace is over; whether somebody is still in it."""
        now, is_anybody_leaving = time.monotonic(), False
        for topic, people in tuple(self._own.items()):
            for key, own in tuple(people.items()):
                if own.gone_at is None:
                    continue
                if now - own.gone_at >= GRACE_S:
                    del people[key]
                    self._changed(topic)
                else:
                    is_anybody_leaving = True
            if not people:
                del self._own[topic]
        return is_anybody_leaving

    def _forget_the_silent(self) -> None:
        now = time.monotonic()
        for name, node in tuple(self._nodes.items()):
            if now - node.heard_at > LEASE_S:
                self._forget(name)

    def _forget(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        if node is not None:
            self._stale |= node.topics.keys()

    def _tell(self) -> None:
        unshared, self._unshared = self._unshared, set()
        for topic in unshared:
            self._send({"kind": "topic", "topic": topic, "people": self._written(topic)})
        stale, self._stale = self._stale, set()
        for topic in stale & self._watchers.keys():
            before, now = self._told.get(topic, {}), self._merged(topic)
            joined = [entry for key, entry in now.items() if before.get(key) != entry]
            left = [entry for key, entry in before.items() if key not in now]
            self._told[topic] = now
            if joined or left:
                self._on_change(len(joined) + len(left))
                for watcher in tuple(self._watchers.get(topic, ())):
                    watcher(joined, left)

    def _written(self, topic: str) -> list[list[Any]]:
        return [[e.person_id, e.role, e.since.timestamp(), e.unsent] for e in self._own_entries(topic)]

    def _announce(self) -> None:
        self._send({"kind": "all", "topics": {topic: self._written(topic) for topic in self._own}})

    def _send(self, message: dict[str, Any]) -> None:
        if self._line is not None:
            self._line.send(orjson.dumps(message | {"node": self._node}))

    def _resumed(self) -> None:
        """Others may have missed us, and we them."""
        self._announce()
        self._send({"kind": "ask"})

    def _receive(self, message: bytes) -> None:
        try:
            self._hear(orjson.loads(message))
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # of another version: its people are not shown

    def _hear(self, told: dict[str, Any]) -> None:
        name = str(told["node"])
        for known in tuple(self._nodes):
            if known != name and known.rpartition(".")[0] == name.rpartition(".")[0]:
                self._forget(known)  # the same one, started anew
        if told["kind"] == "bye":
            self._forget(name)
        else:
            node = self._nodes.setdefault(name, _Node(0.0))
            node.heard_at = time.monotonic()
            if told["kind"] == "all":
                before, node.topics = node.topics, {t: _read(people) for t, people in told["topics"].items()}
                self._stale |= {t for t in {*before, *node.topics} if before.get(t) != node.topics.get(t)}
            elif told["kind"] == "topic":
                people = _read(told["people"])
                if people != node.topics.get(told["topic"], {}):
                    node.topics[told["topic"]] = people
                    self._stale.add(told["topic"])
                if not people:
                    node.topics.pop(told["topic"], None)
            elif told["kind"] == "ask":
                self._announce()
        self._wake.set()


def _first(people: dict[Key, Here]) -> dict[Key, Here]:
    kept, room = {}, {"student": MOST_STUDENTS, "": MOST_OTHERS}
    for key, entry in sorted(people.items(), key=lambda item: (item[1].since, item[0])):
        kind = "student" if entry.role == "student" else ""
        if room[kind]:
            room[kind] -= 1
            kept[key] = entry
    return kept


def _read(people: list[list[Any]]) -> dict[Key, Here]:
    return {
        (person_id, role): Here(person_id, role, datetime.fromtimestamp(since, UTC), int(unsent))
        for person_id, role, since, unsent in people
    }
