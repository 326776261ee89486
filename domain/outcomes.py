"""What is answered for one operation, and how a record is told: the same in outcomes, events and the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from domain.clock import format_instant
from domain.hints import hint_for
from domain.resolve import Resolved


class Verdict(StrEnum):
    """What became of an operation (protocol §1)."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    PARKED = "parked"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one operation. ``accepted``: durable and part of the log, whether or not it won."""

    id: str | None
    outcome: Verdict
    code: str | None = None
    hint: str | None = None
    record: dict[str, Any] | None = None
    seq: int | None = None
    contested: bool = False
    retry_after: float | None = None  # seconds, with rate_limited

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON-ready values."""
        answer: dict[str, Any] = {
            "id": self.id,
            "outcome": self.outcome.value,
            "code": self.code,
            "hint": self.hint,
            "record": self.record,
            "seq": self.seq,
            "contested": self.contested,
        }
        if self.retry_after is not None:
            answer["retry_after"] = round(self.retry_after, 3)
        return answer


def rejected(
    identifier: str | None, code: str, *, hint: str | None = None, retry_after: float | None = None
) -> Outcome:
    """Not in the log, and why."""
    return Outcome(identifier, Verdict.REJECTED, code, hint or hint_for(code), retry_after=retry_after)


def record_data(
    meeting_id: str, student_id: str, record: Resolved | None, version: int = 0
) -> dict[str, Any]:
    """A record as it stands in events and outcomes: ids and facts, no names. None: unmarked."""
    if record is None:
        record = Resolved(status=None, version=version)
    proposal = record.proposal
    if proposal is not None:
        proposal = proposal | {"effective_at": format_instant(proposal["effective_at"])}
    return {
        "meeting_id": meeting_id,
        "student_id": student_id,
        "status": None if record.status is None else record.status.value,
        "code": record.code,
        "minutes_late": record.minutes_late,
        "remark": record.remark,
        "source": record.source,
        "contested": record.is_contested,
        "unverified": record.is_unverified,
        "skewed": record.is_skewed,
        "version": record.version,
        "operation_id": record.operation_id,
        "author_id": record.author_id,
        "effective_at": None if record.effective_at is None else format_instant(record.effective_at),
        "proposal": proposal,
    }
