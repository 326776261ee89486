"""One topic as the frames tell it: a snapshot at some seq and every event after it, each once, in order.

Pure: frames go in, updates come out. When a frame does not continue what was seen, the view is out of
step, takes nothing more and says from where to ask again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from realtime.client.device import parse_instant

Frame: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state at ``seq``: it replaces what was known. Empty for topics that have no state."""

    seq: int
    epoch: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. A conflated one stands for all from ``first_seq`` on; else that is ``seq``."""

    seq: int
    first_seq: int
    name: str
    at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Presence:
    """Who came (or has changed) and who went; neither numbered nor replayed."""

    joined: list[Any]
    left: list[Any]


Update: TypeAlias = Snapshot | Event | Presence


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic's log. Seqs of different epochs have nothing to do with each other."""

    epoch: str
    seq: int


def parse_event(frame: Frame) -> Event:
    """The event of a frame. Raises KeyError, TypeError or ValueError if it is none."""
    seq = _seq(frame["seq"])
    first_seq = _seq(frame.get("from", seq))
    if not 1 <= first_seq <= seq:
        raise ValueError(f"an event stands for from 1 ≤ from ≤ seq, got {first_seq} to {seq}")
    data = frame.get("data") or {}
    if not isinstance(data, dict):
        raise TypeError(f"an event's data are an object, got {type(data).__name__}")
    return Event(seq, first_seq, str(frame["name"]), parse_instant(frame["at"]), data)


class View:
    """Where one reader of a topic is."""

    def __init__(self, since: Position | None = None) -> None:
        self.position = since
        #: Whether the next frame is expected to continue: not before an answer, nor after a gap.
        self.is_in_step = False
        self._has_told = since is not None

    def leave(self) -> None:
        """The connection is gone, or something was missed: only an answer brings it into step again."""
        self.is_in_step = False

    def go_back(self, position: Position | None) -> None:
        """Take up from an earlier position: what came after it has to come again."""
        self.position = position
        self.is_in_step = False

    def join(self, frame: Frame) -> list[Update]:
        """Take the answer to a subscription; out of step afterwards if it does not fit what was seen."""
        epoch, head, snapshot = str(frame["epoch"]), _seq(frame["seq"]), frame.get("snapshot")
        events = [parse_event(event) for event in frame.get("events") or ()]
        updates: list[Update] = []
        if isinstance(snapshot, dict):
            self.position = Position(epoch, head)
            updates.append(Snapshot(head, epoch, snapshot))
        elif self.position is None or self.position.epoch != epoch:
            # The topic has no state: its log begins with what is told of it.
            self.position = Position(epoch, events[0].first_seq - 1 if events else head)
            if self._has_told:
                updates.append(Snapshot(self.position.seq, epoch, {}))
        self._has_told = self.is_in_step = True
        for event in events:
            updates += self.take(event)
        if self.position.seq != head:
            self.go_back(None)  # the same question would get the same answer
        return updates

    def take(self, event: Event) -> list[Update]:
        """The event, if it is the next one. One that was seen is dropped; a gap leads out of step."""
        position = self.position
        if not self.is_in_step or position is None or event.seq <= position.seq:
            return []
        if event.first_seq > position.seq + 1:
            self.is_in_step = False
            return []
        self.position = Position(position.epoch, event.seq)
        return [event]


def by_person(entries: Iterable[Any]) -> dict[Hashable, Any]:
    """Who is there by person and role: what else is said of them may change."""
    return {
        (entry.get("person_id"), entry.get("role")) if isinstance(entry, dict) else str(entry): entry
        for entry in entries
    }


def changed(before: Mapping[Hashable, Any], after: Mapping[Hashable, Any]) -> Presence | None:
    """Who came (or is there otherwise than before) and who went; None for nobody."""
    joined = [entry for person, entry in after.items() if before.get(person) != entry]
    left = [entry for person, entry in before.items() if person not in after]
    return Presence(joined, left) if joined or left else None


def _seq(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a seq is a whole number, got {value!r}")
    return value
