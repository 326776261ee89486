"""The event log: what was committed, numbered on each topic from 1 without gaps.

Everything that watches (pages, sockets, notices) is a view of this log: a snapshot at some seq and
the events after it. Publishing an event is only a hint that the log has grown. The log as a whole is
numbered too, by ``position``, likewise from 1 without gaps: what a process has not seen yet is
whatever stands after the last position that it saw. Both hold because writes come one after the
other, however many processes there are (store.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, func, insert, select, text

from domain.model import EventRow, School, TopicHead, table

WALL = "wall"
#: On WALL: who is in a class has changed; data {section_id}, None for several at once (an import).
ROSTER_CHANGED = "roster.changed"
#: Rights that were taken away: for every process to end what hangs on them. Nobody outside may watch it.
RIGHTS = "rights"
#: On RIGHTS: data {login_ids, why}.
LOGINS_ENDED = "logins.ended"
#: On RIGHTS: who may see a student has changed; data {student_id}.
GUARDIANS_CHANGED = "guardians.changed"
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
    position: int = 0  # in the log as a whole


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


def last_position(conn: Connection) -> int:
    """How long the whole log is."""
    found: int | None = conn.execute(select(func.max(_EVENTS.c.id))).scalar_one()
    return found or 0


def read_log(conn: Connection, after: int, limit: int = 1000) -> list[Event]:
    """The events of all topics with a position above ``after``, in order, at most ``limit``."""
    rows = conn.execute(select(_EVENTS).where(_EVENTS.c.id > after).order_by(_EVENTS.c.id).limit(limit))
    return [
        Event(row.topic, row.seq, row.name, row.at, orjson.loads(row.data), row.operation_id, row.id)
        for row in rows
    ]


def append(conn: Connection, drafts: Sequence[Draft]) -> list[Event]:
    """Number and store events, in order, inside the write transaction; told by the store after its commit.

    Attendance's own events go through record.py.
    """
    known = heads(conn, (draft.topic for draft in drafts))
    numbered: list[Event] = []
    for position, draft in enumerate(drafts, last_position(conn) + 1):
        known[draft.topic] += 1
        numbered.append(
            Event(
                draft.topic,
                known[draft.topic],
                draft.name,
                draft.at,
                draft.data,
                draft.operation_id,
                position,
            )
        )
    store(conn, numbered, known)
    return numbered


def tell_logins_ended(
    conn: Connection, login_ids: Sequence[str], now: datetime, *, why: str = "ended"
) -> None:
    """Have every process end what hangs on these log-ins; ``why`` as in people.end_logins."""
    if login_ids:
        append(conn, [Draft(RIGHTS, LOGINS_ENDED, now, {"login_ids": list(login_ids), "why": why})])


def take_appended(conn: Connection) -> list[Event]:
    """What was appended on this connection since it was last asked: for the store, to tell after the commit."""
    found: list[Event] = conn.info.pop(_APPENDED, [])
    return found


def store(conn: Connection, events: Sequence[Event], known: dict[str, int]) -> None:
    """Write numbered events and the heads they lead to; the database's store tells of them after the commit."""
    if not events:
        return
    conn.info.setdefault(_APPENDED, []).extend(events)
    written: dict[int, str] = {}  # one news is told on several topics: its data are written out once
    rows = []
    for e in events:
        data = written.get(id(e.data))
        if data is None:
            data = written[id(e.data)] = orjson.dumps(e.data).decode()
        rows.append(
            {
                "id": e.position,
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
        select(_EVENTS)
        .where(_EVENTS.c.topic == topic, _EVENTS.c.seq > after)
        .order_by(_EVENTS.c.seq)
        .limit(limit)
    )
    return [
        Event(topic, row.seq, row.name, row.at, orjson.loads(row.data), row.operation_id, row.id)
        for row in rows
    ]


def epoch(conn: Connection) -> str:
    """The name of this log. It changes only when the database was restored: then old numbers mean nothing."""
    found: str = conn.execute(select(table(School).c.epoch)).scalar_one()
    return found
