"""JSON shapes of the API: what the domain gives, as snake_case values with RFC 3339 instants."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any

import orjson
from fastapi.responses import Response

from domain.clock import format_instant
from domain.events import Event
from domain.login_rows import LoginView
from domain.register import HistoryEntry, MeetingSummary, MeetingView, RosterRow

#: Of each router itself, so that log lines name whole addresses.
PREFIX = "/api/v1"


class Json(Response):
    """An answer written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return orjson.dumps(plain(content))


def plain(value: Any) -> Any:
    """Any of our values as JSON-ready ones."""
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return value


def user(visitor: LoginView) -> dict[str, Any]:
    """Somebody logged in."""
    return {
        "id": visitor.person_id,
        "name": visitor.name,
        "role": visitor.role.value,
        "language": visitor.language,
    }


def meeting(view: MeetingView) -> dict[str, Any]:
    """A meeting's facts, without its roster."""
    names = ("roster", "staff", "seq", "epoch", "section_code", "section_title")
    facts = {name: getattr(view, name) for name in view.__dataclass_fields__ if name not in names}
    section = {"id": view.section_id, "code": view.section_code, "title": view.section_title}
    return {**plain(facts), "section": section, "staff": plain(view.staff)}


def roster_row(row: RosterRow, *, is_staff: bool) -> dict[str, Any]:
    """One student's row; what staff remark on is for staff, as in the export."""
    shaped: dict[str, Any] = plain(row)
    return shaped if is_staff else shaped | {"remark": ""}


def summary(line: MeetingSummary) -> dict[str, Any]:
    """One line of a list of meetings."""
    names = ("section_code", "section_title")
    facts = {name: getattr(line, name) for name in line.__dataclass_fields__ if name not in names}
    section = {"id": line.section_id, "code": line.section_code, "title": line.section_title}
    return {**plain(facts), "section": section}


def history_entry(entry: HistoryEntry, *, is_staff: bool) -> dict[str, Any]:
    """One operation of a record's history."""
    shaped: dict[str, Any] = plain(entry)
    if not is_staff:
        shaped["details"].pop("remark", None)
    return shaped


def event(committed: Event) -> dict[str, Any]:
    """A committed event, as it is on /ws (protocol §5)."""
    return {
        "type": "event",
        "topic": committed.topic,
        "seq": committed.seq,
        "name": committed.name,
        "at": format_instant(committed.at),
        "data": committed.data,
    }
