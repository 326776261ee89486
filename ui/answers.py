"""What a student is told after a check-in: a title, a sentence of what was recorded, what to do now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from domain.clock import parse_instant
from domain.model import Status
from domain.outcomes import Outcome, Verdict

_TITLES = {
    "not_enrolled": "Not your class",
    "bad_proof": "That is not the code",
    "proof_expired": "That code has expired",
    "not_open": "Not open yet",
    "too_early": "Too early",
    "too_late": "Too late",
    "meeting_closed": "Already closed",
    "meeting_locked": "Register locked",
    "meeting_cancelled": "Class cancelled",
    "unknown_meeting": "No such class",
    "already_checked_in": "Already checked in",
    "unverified": "Waiting for the teacher",
    "rate_limited": "Please wait a moment",
    "clock_skew": "The clock is wrong",
    "forbidden": "Not for you",
}
_DONE = {
    Status.PRESENT: "You are present",
    Status.LATE: "You are late",
    Status.ABSENT: "Recorded as absent",
    Status.EXCUSED: "You are excused",
    Status.REMOTE: "You are present, remotely",
    Status.LEFT_EARLY: "You left early",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the screen shows. ``tone``: good, warn or bad; never told by colour alone, ``sign`` goes with it."""

    tone: str
    title: str
    text: str
    outcome: str
    code: str | None = None
    status: str | None = None

    @property
    def sign(self) -> str:
        """One character that says the tone without colour."""
        return {"good": "✓", "warn": "!", "bad": "✕"}[self.tone]


def answer_for(outcome: Outcome, zone: str, *, opens_at: datetime | None = None) -> Answer:
    """The answer to a check-in, with times in the class's zone; ``opens_at``: from when one is taken."""
    code, record = outcome.code, outcome.record or {}
    status = record.get("status")
    if code == "already_checked_in":
        return Answer(
            "good", _TITLES[code], _recorded(record, zone) or outcome.hint or "", *_facts(outcome, status)
        )
    if outcome.outcome is Verdict.REJECTED:
        title, text = _TITLES.get(code or "", "Not recorded"), outcome.hint or ""
        if code == "rate_limited":
            text = rate_limited(outcome.retry_after, outcome.hint)
        elif code == "too_early" and opens_at is not None:
            text = f"Check-in opens at {clock_time(opens_at, zone)}. Try again then."
        return Answer("bad", title, text, *_facts(outcome, status))
    if outcome.outcome is Verdict.PARKED:
        text = outcome.hint or "Kept, and counted as soon as the class it belongs to has arrived here."
        return Answer("warn", "Kept for later", text, *_facts(outcome, status))
    if code == "unverified" or record.get("unverified"):
        return Answer("warn", _TITLES["unverified"], outcome.hint or "", *_facts(outcome, status))
    if record.get("contested"):
        text = (
            f"Your check-in is noted. The teacher had marked you {word_of(status)} and is asked to decide: "
            "speak to the teacher if that is wrong."
        )
        return Answer("warn", "Noted, to be decided", text, *_facts(outcome, status))
    tone = (
        {Status.PRESENT: "good", Status.REMOTE: "good", Status.LATE: "warn"}.get(Status(status), "bad")
        if status
        else "good"
    )
    title = _DONE[Status(status)] if status else "Checked in"
    return Answer(tone, title, _recorded(record, zone), *_facts(outcome, status))


def rate_limited(retry_after_s: float | None, hint: str | None = None) -> str:
    """The sentence for too many tries, with how long to wait."""
    if retry_after_s is None:
        return hint or "Too many tries. Wait a moment, then try again."
    seconds = max(1, round(retry_after_s))
    wait = f"{seconds} second{'' if seconds == 1 else 's'}"
    if seconds > 90:
        wait = f"{round(seconds / 60)} minutes"
    return f"Too many tries. Wait {wait}, then try again."


def word_of(status: str | None) -> str:
    """A status as a word on the screen."""
    return "unmarked" if status is None else status.replace("_", " ")


def clock_time(at: datetime | str, zone: str) -> str:
    """The local wall-clock time of an instant: ``9:01``."""
    if isinstance(at, str):
        at = parse_instant(at)
    local = at.astimezone(ZoneInfo(zone))
    return f"{local.hour}:{local.minute:02d}"


def _facts(outcome: Outcome, status: Any) -> tuple[str, str | None, str | None]:
    return outcome.outcome.value, outcome.code, status


def _recorded(record: dict[str, Any], zone: str) -> str:
    """What stands in the record, in a sentence."""
    if not record.get("status") or not record.get("effective_at"):
        return ""
    at, status = clock_time(record["effective_at"], zone), Status(record["status"])
    by_staff = record.get("source") in ("teacher", "admin", "substitute")
    if by_staff:
        return f"The teacher marked you {word_of(status)} at {at}. That stands."
    if status is Status.PRESENT:
        return f"Checked in at {at}, on time."
    if status is Status.LATE:
        minutes = record.get("minutes_late") or 0
        return f"Checked in at {at}, {minutes} minute{'' if minutes == 1 else 's'} late."
    if status is Status.ABSENT and record.get("source") != "system":
        return f"Checked in at {at}: that is after the cut-off and counts as absent. Tell the teacher if there was a reason."
    return f"Recorded as {word_of(status)} at {at}."
