"""The event log: what was committed, numbered on each topic from 1 without gaps.

Everything that watches (pages, sockets, notices) is a view of this log: a snapshot at some seq and
the events after it. Publishing an event is only a hint that the log has grown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, text

from domain.model import EventRow, School, TopicHead, table

WALL = "wall"
#: On WALL: who is in a class has changed; data {section_id}, None for several at once (an import).
ROSTER_CHANGED = "roster.changed"
_APPENDED = "muster.appended"
_EVENTS, _HEADS = table(EventRow), table(TopicHead)
_INSERT = insert(_EVENTS)
_RAISE_HEAD = text(
    "INSERT INTO topics (topic, seq) VALUES (:topic, :seq) ON CONFLICT (topic) DO UPDATE SET seq = excluded.seq"
)


def meeting_topic(meeting_id: str) -> str:
    """Everything that happens in one meeting: for its staff."""
    return f"meeting:{meeting_id}"


def student_topic(student_id: str) -> str:
    """What happens to one student's own records: for the student and the guardians."""
    return f"student:{student_id}"


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no number yet."""

    topic: str
    name: str
    at: datetime
    data: dict[str, Any]
    operation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A committed event. ``data`` carries ids, never names."""

    topic: str
    seq: int
    name: str
    at: datetime
    data: dict[str, Any]
    operation_id: str | None = None


def heads(conn: Connection, topics: Iterable[str]) -> dict[str, int]:
    """The last number given on each topic; a topic without events is at 0."""
    wanted = list(dict.fromkeys(topics))
    found = dict.fromkeys(wanted, 0)
    if wanted:
        rows = conn.execute(select(_HEADS.c.topic, _HEADS.c.seq).where(_HEADS.c.topic.in_(wanted)))
        found |= {row.topic: row.seq for row in rows}
    return found


def head(conn: Connection, topic: str) -> int:
    """The last number given on a topic; 0 for none."""
    return heads(conn, [topic])[topic]


def append(conn: Connection, drafts: Sequence[Draft]) -> list[Event]:
    """Number and store events, in order, inside the write transaction; told by the store after its commit.

    Attendance's own events go through record.py.
    """
    known = heads(conn, (draft.topic for draft in drafts))
    numbered: list[Event] = []
    for draft in drafts:
        known[draft.topic] += 1
        numbered.append(
            Event(draft.topic, known[draft.topic], draft.name, draft.at, draft.data, draft.operation_id)
        )
    store(conn, numbered, known)
    conn.info.setdefault(_APPENDED, []).extend(numbered)
    return numbered


def take_appended(conn: Connection) -> list[Event]:
    """What was appended on this connection since it was last asked: for the store, to tell after the commit."""
    found: list[Event] = conn.info.pop(_APPENDED, [])
    return found


def store(conn: Connection, events: Sequence[Event], known: dict[str, int]) -> None:
    """Write numbered events and the heads they lead to."""
    if not events:
        return
    written: dict[int, str] = {}  # one news is told on several topics: its data are written out once
    rows = []
    for e in events:
        data = written.get(id(e.data))
        if data is None:
            data = written[id(e.data)] = orjson.dumps(e.data).decode()
        rows.append(
            {
                "topic": e.topic,
                "seq": e.seq,
                "name": e.name,
                "at": e.at,
                "operation_id": e.operation_id,
                "data": data,
            }
        )
    conn.execute(_INSERT, rows)
    touched = {e.topic for e in events}
    conn.execute(_RAISE_HEAD, [{"topic": topic, "seq": known[topic]} for topic in touched])


def read_after(conn: Connection, topic: str, after: int, limit: int = 1000) -> list[Event]:
    """The events of a topic with a number above ``after``, in order, at most ``limit``."""
    rows = conn.execute(
        select(_EVENTS.c.seq, _EVENTS.c.name, _EVENTS.c.at, _EVENTS.c.data, _EVENTS.c.operation_id)
        .where(_EVENTS.c.topic == topic, _EVENTS.c.seq > after)
        .order_by(_EVENTS.c.seq)
        .limit(limit)
    )
    return [Event(topic, row.seq, row.name, row.at, orjson.loads(row.data), row.operation_id) for row in rows]


def epoch(conn: Connection) -> str:
    """The name of this log. It changes only when the database was restored: then old numbers mean nothing."""
    found: str = conn.execute(select(table(School).c.epoch)).scalar_one()
    return found
