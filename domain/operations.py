"""Operations: immutable statements about a meeting or one student in it (protocol §1).

``parse`` is the boundary for whatever comes from outside; ``make`` is for callers inside the house.
Both give the same frozen Operation or say what is wrong with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from domain.clock import format_instant, parse_instant
from domain.ids import new_id, parse_id
from domain.model import Kind, Status, Via

MAX_REMARK = 500
MAX_PROOF = 200
MAX_MINUTES_LATE = 600
MAX_LATE_AFTER_MIN = 240
MAX_MEETING_HOURS = 24
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)
_MAX_INT = 2**53


class InvalidOperation(ValueError):
    """An operation that cannot be read. ``id`` is its id, when at least that could be read."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation as its author made it. Fields that its kind does not use are None."""

    id: str
    kind: Kind
    meeting_id: str | None = None
    student_id: str | None = None
    captured_at: datetime | None = None  # None: the moment of receipt
    clock_offset_ms: int | None = None
    device_id: str | None = None
    device_seq: int | None = None
    seen_seq: int | None = None
    section_id: str | None = None
    scheduled_start: datetime | None = None
    scheduled_end: datetime | None = None
    late_after_min: int | None = None
    via: Via | None = None
    proof: str | None = None
    status: Status | None = None
    code: str | None = None  # an attendance code's symbol; None: the default code of the status
    minutes_late: int | None = None
    remark: str | None = None
    reverts: str | None = None
    final: bool | None = None

    @property
    def content_hash(self) -> str:
        """32 hex digits that differ whenever anything the author said differs."""
        return hashlib.blake2b(
            orjson.dumps(self.as_dict(), option=orjson.OPT_SORT_KEYS), digest_size=16
        ).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The operation as JSON-ready values, without the fields that are None; ``parse`` reads it back."""
        values: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if value is not None:
                values[name] = format_instant(value) if isinstance(value, datetime) else value
        return values


_FIELDS = tuple(Operation.__dataclass_fields__)


def make(
    kind: Kind | str, *, id: str | None = None, captured_at: datetime | None = None, **fields: Any
) -> Operation:
    """An operation of our own making, with a fresh id unless given. Raises InvalidOperation."""
    raw: dict[str, Any] = {"id": id or new_id(captured_at), "kind": str(kind)}
    if captured_at is not None:
        raw["captured_at"] = format_instant(captured_at)
    for name, value in fields.items():
        raw[name] = format_instant(value) if isinstance(value, datetime) else value
    return parse(raw)


def parse(raw: object) -> Operation:
    """Read one operation. Unknown fields are let be, so that newer clients can speak to us.

    Raises InvalidOperation naming the field, what was expected and what came.
    """
    if not isinstance(raw, dict):
        raise InvalidOperation(f"an operation must be an object, got {_shown(raw)}")
    identifier = parse_id(raw.get("id"))
    if identifier is None:
        raise InvalidOperation(f"id must be a UUID, got {_shown(raw.get('id'))}")
    try:
        return _parse(raw, identifier)
    except InvalidOperation as error:
        error.id = identifier
        raise


def _parse(raw: dict[str, Any], identifier: str) -> Operation:
    try:
        kind = Kind(raw.get("kind"))  # type: ignore[arg-type]  # anything may have come: ValueError if not a kind
    except ValueError:
        raise InvalidOperation(
            f"kind must be one of {', '.join(Kind)}, got {_shown(raw.get('kind'))}"
        ) from None
    operation = Operation(
        id=identifier,
        kind=kind,
        meeting_id=_id(raw, "meeting_id"),
        captured_at=_instant(raw, "captured_at"),
        clock_offset_ms=_integer(raw, "clock_offset_ms", -_MAX_INT, _MAX_INT),
        device_id=_id(raw, "device_id"),
        device_seq=_integer(raw, "device_seq", 0, _MAX_INT),
        seen_seq=_integer(raw, "seen_seq", 0, _MAX_INT),
        **_OWN_FIELDS[kind](raw),
    )
    if operation.meeting_id is None and not (kind is Kind.CHECK_IN and operation.via is Via.CODE):
        raise InvalidOperation(f"meeting_id is required for {kind}; only a check_in by code may leave it out")
    return operation


def _open_meeting(raw: dict[str, Any]) -> dict[str, Any]:
    start, end = _instant(raw, "scheduled_start"), _instant(raw, "scheduled_end")
    if (start is None) != (end is None):
        raise InvalidOperation("scheduled_start and scheduled_end are given together or not at all")
    if start is not None and end is not None:
        if end <= start:
            raise InvalidOperation("scheduled_end must be after scheduled_start")
        if (end - start).total_seconds() > MAX_MEETING_HOURS * 3600:
            raise InvalidOperation(f"a meeting lasts at most {MAX_MEETING_HOURS} hours")
    return {
        "section_id": _id(raw, "section_id"),
        "scheduled_start": start,
        "scheduled_end": end,
        "late_after_min": _integer(raw, "late_after_min", 0, MAX_LATE_AFTER_MIN),
    }


def _check_in(raw: dict[str, Any]) -> dict[str, Any]:
    try:
        via = Via(raw.get("via"))  # type: ignore[arg-type]  # as above
    except ValueError:
        raise InvalidOperation(f"via must be one of {', '.join(Via)}, got {_shown(raw.get('via'))}") from None
    proof = _text(raw, "proof", MAX_PROOF)
    if via is not Via.TAP and not proof:
        raise InvalidOperation(f"proof is required for a check_in by {via}")
    return {"student_id": _id(raw, "student_id"), "via": via, "proof": proof}


def _mark(raw: dict[str, Any]) -> dict[str, Any]:
    try:
        status = Status(raw.get("status"))  # type: ignore[arg-type]  # as above
    except ValueError:
        raise InvalidOperation(
            f"status must be one of {', '.join(Status)}, got {_shown(raw.get('status'))}"
        ) from None
    student = _id(raw, "student_id")
    if student is None:
        raise InvalidOperation("student_id is required for mark")
    minutes = _integer(raw, "minutes_late", 0, MAX_MINUTES_LATE)
    if minutes and status is not Status.LATE:
        raise InvalidOperation(f"minutes_late goes with status late, got status {status}")
    return {
        "student_id": student,
        "status": status,
        "code": _text(raw, "code", 8) or None,
        "minutes_late": minutes if status is Status.LATE else None,
        "remark": _text(raw, "remark", MAX_REMARK) or None,
    }


def _revert(raw: dict[str, Any]) -> dict[str, Any]:
    reverts = _id(raw, "reverts")
    if reverts is None:
        raise InvalidOperation("reverts must be the id of the operation to take back")
    return {"reverts": reverts}


def _close_meeting(raw: dict[str, Any]) -> dict[str, Any]:
    final = raw.get("final", True)
    if final is None:
        final = True
    if not isinstance(final, bool):
        raise InvalidOperation(f"final must be true or false, got {_shown(final)}")
    return {"final": final}


def _reopen_meeting(raw: dict[str, Any]) -> dict[str, Any]:
    remark = _text(raw, "remark", MAX_REMARK)
    if not remark:
        raise InvalidOperation("remark is required for reopen_meeting: say why it is reopened")
    return {"remark": remark}


_OWN_FIELDS = {
    Kind.OPEN_MEETING: _open_meeting,
    Kind.CHECK_IN: _check_in,
    Kind.MARK: _mark,
    Kind.REVERT: _revert,
    Kind.CLOSE_MEETING: _close_meeting,
    Kind.REOPEN_MEETING: _reopen_meeting,
}


def _id(raw: dict[str, Any], name: str) -> str | None:
    value = raw.get(name)
    if value is None:
        return None
    identifier = parse_id(value)
    if identifier is None:
        raise InvalidOperation(f"{name} must be a UUID, got {_shown(value)}")
    return identifier


def _integer(raw: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidOperation(f"{name} must be {least}-{most}, got {_shown(value)}")
    return value


def _instant(raw: dict[str, Any], name: str) -> datetime | None:
    value = raw.get(name)
    if value is None:
        return None
    try:
        at = parse_instant(value)
    except (ValueError, TypeError):
        raise InvalidOperation(
            f"{name} must be RFC 3339 such as 2026-11-23T09:01:02.345Z, got {_shown(value)}"
        ) from None
    if not _EARLIEST <= at < _LATEST:
        raise InvalidOperation(f"{name} must lie between 2020 and 2100, got {_shown(value)}")
    return at


def _text(raw: dict[str, Any], name: str, longest: int) -> str:
    value = raw.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidOperation(f"{name} must be text of at most {longest} characters, got {_shown(value)}")
    value = value.strip()
    if any((ord(c) < 32 and c not in "\n\t") or 0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise InvalidOperation(f"{name} must not hold control characters")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
