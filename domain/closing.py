"""Which meetings were left open and are due to be closed by Muster itself."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from domain.ids import derived_id
from domain.model import Kind, Meeting, OperationRow, table
from domain.operations import Operation, make
from domain.policies import load_policies, policy_at

_MEETINGS, _OPERATIONS = table(Meeting), table(OperationRow)


def due_closes(conn: Connection, now: datetime) -> list[Operation]:
    """The final close of each meeting that was left open ``auto_close_after_min`` past its end.

    A meeting opened or reopened after its end is given the same time from then. The operations are
    the system's; id and content follow from what happened in the meeting, so that asking twice, or in
    two processes, gives the same operations, while one reopened afterwards is closed anew.
    """
    query = select(_MEETINGS).where(
        _MEETINGS.c.opened_at.is_not(None),
        _MEETINGS.c.closed_at.is_(None),
        _MEETINGS.c.cancelled_at.is_(None),
    )
    open_now = [Meeting(**row) for row in conn.execute(query).mappings()]
    policies = load_policies(conn, {meeting.section_id for meeting in open_now})
    due: list[Operation] = []
    for meeting in open_now:
        policy = policy_at(policies, meeting.section_id, meeting.scheduled_start)
        after = timedelta(minutes=policy.auto_close_after_min)
        if meeting.scheduled_end + after > now:
            continue
        last_id, last_opened_at = _last_opening(conn, meeting)
        closes_at = max(meeting.scheduled_end, last_opened_at) + after
        if closes_at <= now:
            due.append(
                make(
                    Kind.CLOSE_MEETING,
                    id=derived_id("auto-close", meeting.id, last_id),
                    meeting_id=meeting.id,
                    captured_at=closes_at,
                    final=True,
                )
            )
    return due


def _last_opening(conn: Connection, meeting: Meeting) -> tuple[str, datetime]:
    """The last operation about the meeting itself, and the latest instant at which one let it be open."""
    rows = conn.execute(
        select(_OPERATIONS.c.id, _OPERATIONS.c.kind, _OPERATIONS.c.effective_at)
        .where(_OPERATIONS.c.meeting_id == meeting.id, _OPERATIONS.c.student_id.is_(None))
        .order_by(_OPERATIONS.c.seq)
    ).all()
    opened = [row.effective_at for row in rows if row.kind != Kind.CLOSE_MEETING]
    assert meeting.opened_at is not None
    return (rows[-1].id if rows else ""), max([meeting.opened_at, *opened])
