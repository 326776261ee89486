"""A subscribed topic: the view of it, and what waits for its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from realtime.client.backoff import Backoff
from realtime.client.errors import ClientError
from realtime.client.view import (
    Event,
    Frame,
    Position,
    Snapshot,
    Update,
    View,
    by_person,
    changed,
    parse_event,
)

#: Updates that may wait for a slow reader; with more, they are dropped and asked for again.
MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class Head:
    """What a heartbeat said of a topic: its last seq, and the digest of its records where it has any."""

    seq: int
    digest: str | None


class Topic:
    """What ``MusterClient.subscribe`` gives: iterate over it for updates, the first snapshot included.

    ``epoch`` and ``seq`` say what its reader has been given; keep them to go on from there another time.
    """

    def __init__(
        self, name: str, *, since: Position | None, random: Callable[[], float], need: Callable[[], None]
    ) -> None:
        self.name = name
        #: The last snapshot given to the reader; before any was, the one that came with the subscription.
        self.snapshot: dict[str, Any] | None = None
        #: The topic's end as of the last heartbeat.
        self.head: Head | None = None
        self._view = View(since)
        self._present: dict[Hashable, Any] = {}
        self._read = self._first = since
        self._waiting: deque[Update] = deque()
        self._news = asyncio.Event()
        self._has_joined = False
        self._error: ClientError | None = None
        self._need = need
        self._backoff = Backoff(random)
        self._has_overflowed = False
        self._behind: int | None = None
        # The question that waits for its answer, for the connection.
        self.request: int | None = None
        self.asked_at = 0.0
        self.not_before = 0.0
        self.is_asked_alone = False

    @property
    def epoch(self) -> str | None:
        """The name of the log that ``seq`` belongs to."""
        position = self._read or self._first
        return position.epoch if position else None

    @property
    def seq(self) -> int:
        """The number up to which the reader knows the topic."""
        position = self._read or self._first
        return position.seq if position else 0

    @property
    def presence(self) -> list[Any]:
        """Who has the topic open now, as far as was heard."""
        return list(self._present.values())

    def refresh(self) -> None:
        """Ask for the whole state again; a Snapshot follows. For views whose digest is not the server's."""
        self._view.go_back(None)
        self.request = None
        self._need()

    def __aiter__(self) -> Topic:
        return self

    async def __anext__(self) -> Update:
        """The next update. Raises LoginEnded, RoleLost, Closed, or Refused when it may not be seen any more."""
        while not self._waiting:
            if self._error:
                raise self._error
            if self._has_overflowed:
                self._has_overflowed = False
                self._need()
            self._news.clear()
            await self._news.wait()
        update = self._waiting.popleft()
        if isinstance(update, Snapshot):
            self.snapshot = update.data
            self._read = Position(update.epoch, update.seq)
        elif isinstance(update, Event):
            assert self._read is not None, "no event comes before the reader knows the epoch"
            self._read = Position(self._read.epoch, update.seq)
        return update

    # What follows is for the connection.

    async def joined(self) -> None:
        """Wait for the first answer. Raises what the subscription failed with."""
        while not self._has_joined:
            if self._error:
                raise self._error
            self._news.clear()
            await self._news.wait()

    @property
    def position(self) -> Position | None:
        """Where the next answer should begin; None for the whole state."""
        return self._view.position

    @property
    def wants_asking(self) -> bool:
        """Whether a subscription has to be sent; not while a slow reader has not come back."""
        return not self._view.is_in_step and self.request is None and not self._has_overflowed

    def disconnect(self) -> None:
        """The connection is gone."""
        self._view.leave()
        self.request, self.not_before, self._behind = None, 0.0, None
        self.is_asked_alone = False

    def fail(self, error: ClientError) -> None:
        """Nothing more will come; the reader still gets what waits."""
        self._error = self._error or error
        self._news.set()

    def take_answer(self, frame: Frame, now: float) -> None:
        """A ``subscribed`` frame; without an id the server began anew, since we had fallen behind.

        Answers to a question that is not open any more are dropped.
        """
        answered = frame.get("id")
        if answered != self.request or (answered is None and not self._view.is_in_step):
            return
        present = by_person(frame.get("presence") or ())
        updates = self._view.join(frame)
        self.request, self.is_asked_alone = None, False
        if not self._has_joined:
            self._begin(updates)
        self._put(updates)
        self._meet(present)
        self._has_joined = True
        self._settle(now)
        self._news.set()

    def take_event(self, frame: Frame, now: float) -> None:
        """An ``event`` frame."""
        updates = self._view.take(parse_event(frame))
        if updates:
            self._backoff.reset()
        self._put(updates)
        self._settle(now)

    def take_presence(self, frame: Frame) -> None:
        """A ``presence`` frame."""
        if not self._view.is_in_step:
            return
        left = by_person(frame.get("left") or ())
        stay = {person: entry for person, entry in self._present.items() if person not in left}
        self._meet(stay | by_person(frame.get("joined") or ()))

    def take_head(self, head: Head, now: float) -> None:
        """What a heartbeat says: behind at two of them in a row means that something was lost on the way."""
        self.head = head
        position = self._view.position
        if not self._view.is_in_step or position is None:
            self._behind = None
        elif self._behind is not None and position.seq < self._behind:
            self._behind = None
            self._view.leave()
            self._settle(now)
        else:
            self._behind = head.seq if position.seq < head.seq else None

    def _begin(self, updates: list[Update]) -> None:
        """What the reader knows before reading."""
        first = updates[0] if updates else None
        if isinstance(first, Snapshot):
            self.snapshot = first.data
            self._first = Position(first.epoch, first.seq)
        elif self._read is None and self._view.position is not None:
            seq = first.first_seq - 1 if isinstance(first, Event) else self._view.position.seq
            self._read = self._first = Position(self._view.position.epoch, seq)

    def _meet(self, present: dict[Hashable, Any]) -> None:
        before, self._present = self._present, present
        if self._has_joined and (difference := changed(before, present)):
            self._put([difference])

    def _put(self, updates: list[Update]) -> None:
        if not updates:
            return
        if len(self._waiting) + len(updates) > MAX_WAITING:
            self._waiting.clear()
            self._view.go_back(self._read)
            self._has_overflowed = True
        else:
            self._waiting.extend(updates)
        self._news.set()

    def _settle(self, now: float) -> None:
        """Ask again if out of step: soon the first time, later if that did not help."""
        if self._view.is_in_step or self.request is not None:
            return
        self.not_before = now + self._backoff.next_s()
        self._need()
