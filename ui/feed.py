"""A meeting's events in words: rows of the roster and lines of the feed, as the page's component takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from domain.clock import format_instant, parse_instant
from domain.events import Event
from domain.hints import HINTS
from domain.register import MeetingView, RosterRow
from ui.theme import STATUS_WORDS

NameOf = Callable[[str | None], str]

SOURCES = {
    "qr": "QR code",
    "code": "code",
    "link": "link",
    "tap": "app",
    "teacher": "by hand",
    "admin": "office",
    "system": "at close",
}
#: What a failed check-in was, for the teacher: what happened, and what helps.
FAILURES = {
    "bad_proof": ("wrong code", "Have them scan again, or mark by hand."),
    "proof_expired": ("code no longer valid", "Have them use the code that is on the board now."),
    "not_enrolled": ("not on this class's list", "Wrong class, or ask an admin to add them."),
    "too_early": ("too early", "Check-in opens shortly before the start."),
    "too_late": ("after the cut-off", "Mark by hand if you let them in."),
    "not_open": ("class not open yet", "Open the class."),
    "meeting_closed": ("class already closed", "Reopen it, or mark by hand."),
    "meeting_cancelled": ("class is cancelled", ""),
    "meeting_locked": ("register is locked", "An admin can correct it."),
    "rate_limited": ("too many tries", "They have to wait a minute; mark by hand."),
}
_MEETING_LINES = {
    "meeting.opened": "Class opened",
    "meeting.closed": "Class closed",
    "meeting.reopened": "Class reopened",
    "meeting.cancelled": "Class cancelled",
}


def facts(view: MeetingView) -> dict[str, Any]:
    """The meeting itself."""
    zone = ZoneInfo(view.zone)
    start, end = view.scheduled_start.astimezone(zone), view.scheduled_end.astimezone(zone)
    return {
        "id": view.id,
        "code": view.section_code,
        "title": view.section_title,
        "room": view.room,
        "state": view.state.value,
        "when": f"{start:%H:%M}–{end:%H:%M}",
        "day": f"{start:%A, %-d %B}",
        "startMs": int(view.scheduled_start.timestamp() * 1000),
        "closed": None if view.closed_at is None else f"{view.closed_at.astimezone(zone):%H:%M}",
        "taken": view.is_register_taken,
        "lateAfter": view.late_after_min,
        "staff": [member.name for member in view.staff],
        "cancelReason": view.cancel_reason,
    }


def row(row_: RosterRow, name_of: NameOf) -> dict[str, Any]:
    """One student as the component shows it."""
    data = {
        "status": row_.status,
        "minutes_late": row_.minutes_late,
        "source": row_.source,
        "contested": row_.contested,
        "unverified": row_.unverified,
        "remark": row_.remark,
        "author_id": row_.author_id,
        "operation_id": row_.operation_id,
        "effective_at": None if row_.effective_at is None else format_instant(row_.effective_at),
        "proposal": row_.proposal,
    }
    return {"id": row_.student_id, "name": row_.name} | row_changes(data, name_of)


def row_changes(data: dict[str, Any], name_of: NameOf) -> dict[str, Any]:
    """What a record event changes in a row."""
    at = data["effective_at"]
    by = name_of(data["author_id"]) if data["source"] in ("teacher", "admin") else ""
    return {
        "status": data["status"],
        "minutes": data["minutes_late"],
        "via": SOURCES.get(data["source"], ""),
        "by": by,
        "atMs": None if at is None else int(parse_instant(at).timestamp() * 1000),
        "contested": data["contested"],
        "unverified": data["unverified"],
        "remark": data["remark"],
        "proposal": _proposal(data["proposal"], name_of),
    }


def _proposal(proposal: dict[str, Any] | None, name_of: NameOf) -> dict[str, Any] | None:
    if proposal is None:
        return None
    at = proposal["effective_at"]
    return {
        "status": proposal["status"],
        "minutes": proposal["minutes_late"],
        "via": SOURCES.get(proposal["source"], ""),
        "by": name_of(proposal["author_id"]) if proposal["kind"] == "mark" else "",
        "atMs": int((at if isinstance(at, datetime) else parse_instant(at)).timestamp() * 1000),
    }


def people_in(events: Iterable[Event]) -> set[str]:
    """Everybody an event speaks of, by id."""
    keys = ("student_id", "author_id", "opened_by", "closed_by")
    return {event.data[key] for event in events for key in keys if event.data.get(key)}


def lines(event: Event, name_of: NameOf, view: MeetingView) -> Iterator[dict[str, Any]]:
    """What the feed says of an event: nothing, or one line. ``id`` is the event's number."""
    data = event.data
    line = {"id": event.seq, "atMs": int(event.at.timestamp() * 1000), "name": "", "hint": ""}
    if event.name in _MEETING_LINES:
        who = name_of(data.get("closed_by") if event.name == "meeting.closed" else data.get("opened_by"))
        text = _MEETING_LINES[event.name]
        yield line | {
            "kind": "meeting",
            "text": f"{text} by {who}" if who and event.name != "meeting.reopened" else text,
        }
        return
    if event.name == "check_in.failed":
        what, remedy = FAILURES.get(data["code"], (HINTS.get(data["code"], data["code"]), ""))
        yield line | {
            "kind": "failure",
            "name": name_of(data["student_id"]) or "Somebody",
            "text": what,
            "hint": remedy,
            "code": data["code"],
        }
        return
    if not event.name.startswith("record."):
        return
    name = name_of(data["student_id"]) or "Somebody"
    via = SOURCES.get(data["source"], "")
    if event.name == "record.contested":
        yield line | {
            "kind": "contested",
            "name": name,
            "text": "contested: two entries disagree",
            "hint": "Decide in the row.",
        }
    elif data["unverified"] and data["status"] is None:
        yield line | {
            "kind": "failure",
            "name": name,
            "text": "checked in without proof",
            "hint": "Mark if they are here.",
            "code": "unverified",
        }
    elif data["source"] == "system":
        return  # the line of the close says it for all
    elif data["status"] is None:
        yield line | {"kind": "mark", "name": name, "text": "taken back"}
    else:
        word = STATUS_WORDS[data["status"]][1].lower()
        minutes = f" {data['minutes_late']} min" if data["minutes_late"] and data["status"] == "late" else ""
        is_arrival = data["source"] in ("qr", "code", "link", "tap")
        how = (
            f"by {via}"
            if is_arrival and data["source"] != "tap"
            else (f"by {name_of(data['author_id'])}" if name_of(data["author_id"]) else via)
        )
        yield line | {
            "kind": "arrival" if is_arrival else "mark",
            "name": name,
            "status": data["status"],
            "text": f"{word}{minutes}, {how}",
        }
