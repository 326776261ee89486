"""The door's rules: what becomes of one operation, given the ledger. Decides, then lets the ledger do.

Nothing here depends on the order in which operations arrive, except what says so: what speaks of
something that has not come yet is parked, and decided by itself when it has.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta
from typing import Any

from domain import access, proofs
from domain.access import Author, Authority
from domain.events import Draft, meeting_topic
from domain.known import MEETING_KINDS, MeetingCase, Submission
from domain.ledger import Ledger
from domain.model import AfterCutoff, Kind, MeetingState, Status, Via
from domain.operations import InvalidOperation, Operation
from domain.outcomes import Outcome, Verdict, rejected
from domain.policies import opens_at, state_of
from domain.resolve import Entry
from domain.throttle import CHECK_INS, WRONG_CODES, WRONG_CODES_FROM_ADDRESS, Throttle, address_key

#: How far ahead of the server a captured_at may be before the device's clock is called wrong.
AHEAD_TOLERANCE = timedelta(seconds=proofs.SKEW_TOLERANCE_S)
DEFAULT_MEETING = timedelta(hours=1)


class _Refused(Exception):
    """This operation is not taken; carried from where it is found out to the answer."""

    def __init__(self, code: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.code, self.hint, self.retry_after = code, hint, retry_after


class _Parked(Exception):
    """This operation waits for something that may still arrive."""

    def __init__(self, awaits: str) -> None:
        super().__init__(awaits)
        self.awaits = awaits


def decide(ledger: Ledger, submission: Submission, throttle: Throttle | None) -> Outcome:
    """Answer one operation and, if it is accepted, put it into the ledger, with whatever waited for it."""
    outcome = _answer(ledger, submission, throttle)
    operation = submission.operation
    if outcome.outcome is Verdict.ACCEPTED and isinstance(operation, Operation):
        arrived = [operation.id]
        if operation.kind is Kind.OPEN_MEETING and operation.meeting_id:
            arrived.append(operation.meeting_id)
        for waiting in ledger.take_waiting(*arrived):
            decide(ledger, waiting, None)
    return outcome


def _answer(ledger: Ledger, submission: Submission, throttle: Throttle | None) -> Outcome:
    operation, author = submission.operation, submission.author
    if isinstance(operation, InvalidOperation):
        return rejected(operation.id, "invalid", hint=str(operation))
    if not ledger.is_login_valid(author):
        return rejected(operation.id, "forbidden")
    if (repeated := _repeated(ledger, operation, author)) is not None:
        return repeated
    try:
        return _HANDLERS[operation.kind](ledger, submission, operation, throttle)
    except _Refused as refused:
        return rejected(operation.id, refused.code, hint=refused.hint, retry_after=refused.retry_after)
    except _Parked as parked:
        if author.person_id is None or not ledger.may_park(author):
            return rejected(operation.id, "rate_limited")
        ledger.park(submission, parked.awaits)
        return Outcome(operation.id, Verdict.PARKED)


def _repeated(ledger: Ledger, operation: Operation, author: Author) -> Outcome | None:
    if operation.id in ledger.known:
        digest, entry, meeting_id = ledger.known[operation.id]
        if digest != operation.content_hash or entry.author_id != author.person_id:
            return rejected(operation.id, "id_reused")
        assert meeting_id is not None
        return _told(ledger, ledger.meetings[meeting_id], entry, Verdict.DUPLICATE)
    if operation.id in ledger.parked:
        if ledger.parked[operation.id] != operation.content_hash:
            return rejected(operation.id, "id_reused")
        return Outcome(operation.id, Verdict.PARKED)
    return None


def _told(
    ledger: Ledger, meeting: MeetingCase, entry: Entry, verdict: Verdict, code: str | None = None
) -> Outcome:
    record: dict[str, Any] | None = None
    is_contested = False
    if entry.student_id is not None:
        resolved = meeting.record(entry.student_id)
        is_contested = resolved is not None and resolved.is_contested
        record = meeting.data(entry.student_id)
    hint = None if code is None else rejected(None, code).hint
    return Outcome(entry.id, verdict, code, hint, record, entry.seq, is_contested)


# -- meetings ---------------------------------------------------------------------------------


def _open_meeting(ledger: Ledger, s: Submission, operation: Operation, _throttle: Throttle | None) -> Outcome:
    assert operation.meeting_id is not None
    meeting = ledger.meetings.get(operation.meeting_id)
    at, is_skewed = _effective(operation, s.received_at)
    if meeting is None:
        meeting = _new_meeting(ledger, s, operation, at)
    authority = _authority(ledger, s, operation.kind, meeting.section_id)
    if operation.section_id is not None and operation.section_id != meeting.section_id:
        raise _Refused(
            "invalid", hint="section_id is not that of this meeting: it is already known with another class"
        )
    if meeting.cancelled_at is not None:
        raise _Refused("meeting_cancelled")
    if meeting.closed_at is not None and at >= meeting.closed_at:
        raise _Refused(
            "meeting_closed", hint="This class has been closed. Reopen it, with a reason, to go on."
        )
    entry = _entry(s, operation, authority, at, is_skewed, late_after_min=operation.late_after_min)
    entry = ledger.accept(s, meeting, entry, _body(late_after_min=operation.late_after_min))
    return _told(ledger, meeting, entry, Verdict.ACCEPTED)


def _new_meeting(ledger: Ledger, s: Submission, operation: Operation, at: datetime) -> MeetingCase:
    section_id = operation.section_id
    if section_id is None:
        raise _Refused(
            "unknown_meeting",
            hint="There is no such meeting. To open a new one, say which section_id it is of.",
        )
    if not ledger.has_section(section_id) or not access.may_run_meeting(
        ledger.standing(s.author, section_id)
    ):
        raise _Refused("forbidden")
    start = operation.scheduled_start or at
    end = operation.scheduled_end or start + DEFAULT_MEETING
    keys = secrets.token_hex(32), base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    return ledger.add_meeting(operation, section_id, start, end, keys)


def _close_meeting(
    ledger: Ledger, s: Submission, operation: Operation, _throttle: Throttle | None
) -> Outcome:
    meeting, authority = _meeting_for_staff(ledger, s, operation)
    at, is_skewed = _effective(operation, s.received_at)
    is_final = bool(operation.final)
    roster = ledger.roster(meeting) if is_final else []
    entry = _entry(s, operation, authority, at, is_skewed, is_final=is_final, roster=frozenset(roster))
    entry = ledger.accept(s, meeting, entry, _body(final=is_final, roster=roster))
    return _told(ledger, meeting, entry, Verdict.ACCEPTED)


def _reopen_meeting(
    ledger: Ledger, s: Submission, operation: Operation, _throttle: Throttle | None
) -> Outcome:
    meeting, authority = _meeting_for_staff(ledger, s, operation)
    at, is_skewed = _effective(operation, s.received_at)
    entry = _entry(s, operation, authority, at, is_skewed, remark=operation.remark)
    entry = ledger.accept(s, meeting, entry, _body(remark=operation.remark))
    return _told(ledger, meeting, entry, Verdict.ACCEPTED)


# -- students ---------------------------------------------------------------------------------


def _mark(ledger: Ledger, s: Submission, operation: Operation, _throttle: Throttle | None) -> Outcome:
    meeting, authority = _meeting_for_staff(ledger, s, operation)
    assert operation.student_id is not None and operation.status is not None
    if not ledger.is_enrolled(meeting, operation.student_id):
        raise _Refused("not_enrolled", hint="This student is not on the list of this class at that time.")
    setter = access.setter_of(ledger.standing(s.author, meeting.section_id))
    code = _attendance_code(ledger, operation.status, operation.code, setter)
    at, is_skewed = _effective(operation, s.received_at)
    said = {
        "status": operation.status,
        "code": code,
        "minutes_late": operation.minutes_late,
        "remark": operation.remark,
    }
    entry = _entry(s, operation, authority, at, is_skewed, student_id=operation.student_id, **said)
    entry = ledger.accept(s, meeting, entry, _body(**said))
    return _told(ledger, meeting, entry, Verdict.ACCEPTED)


def _attendance_code(ledger: Ledger, status: Status, symbol: str | None, setter: str) -> str:
    if symbol is not None:
        code = ledger.codes.get(symbol)
        if code is None or code.status != status:
            raise _Refused("unknown_code")
        if setter not in code.set_by.split(","):
            raise _Refused(
                "forbidden", hint=f"Only {code.set_by.replace(',', ', ')} may set the code {symbol}."
            )
        return symbol
    for code in ledger.codes.values():
        if code.is_default and code.status == status:
            if setter not in code.set_by.split(","):
                raise _Refused("forbidden")
            return code.symbol
    raise _Refused("unknown_code")


def _revert(ledger: Ledger, s: Submission, operation: Operation, _throttle: Throttle | None) -> Outcome:
    meeting, authority = _meeting_for_staff(ledger, s, operation)
    assert operation.reverts is not None
    if operation.reverts not in ledger.known:
        if ledger.may_arrive(operation.reverts):
            raise _Parked(operation.reverts)
        raise _Refused("unknown_operation")
    _digest, target, meeting_id = ledger.known[operation.reverts]
    if meeting_id != meeting.id:
        raise _Refused("unknown_operation")
    if not access.may_revert(own=authority, target=target.authority):
        raise _Refused("forbidden")
    at, is_skewed = _effective(operation, s.received_at)
    entry = _entry(s, operation, authority, at, is_skewed, student_id=target.student_id, reverts=target.id)
    entry = ledger.accept(s, meeting, entry, {})
    return _told(ledger, meeting, entry, Verdict.ACCEPTED)


def _check_in(ledger: Ledger, s: Submission, operation: Operation, throttle: Throttle | None) -> Outcome:
    student_id = operation.student_id or s.author.person_id
    if student_id is None or student_id != s.author.person_id:
        raise _Refused("forbidden", hint="A check-in is the student's own. Staff mark a student instead.")
    _spare(throttle, s, student_id)
    meetings = _meetings_meant(ledger, s, operation, student_id)
    last: tuple[MeetingCase, proofs.Judgement] | None = None
    for meeting in meetings:
        judgement = _judge(meeting, operation, s.received_at)
        if judgement.verdict in (proofs.Verdict.VERIFIED, proofs.Verdict.UNVERIFIED):
            try:
                return _take_check_in(ledger, s, operation, meeting, student_id, judgement)
            except _Refused as refused:
                _tell_failure(ledger, meeting, s, student_id, refused.code, operation.via)
                raise
        if last is None or judgement.verdict is proofs.Verdict.EXPIRED:
            last = (meeting, judgement)
    assert last is not None
    _charge(throttle, s, student_id)
    code = last[1].verdict.value
    for meeting in meetings:
        _tell_failure(ledger, meeting, s, student_id, code, operation.via)
    raise _Refused(code)


def _meetings_meant(
    ledger: Ledger, s: Submission, operation: Operation, student_id: str
) -> list[MeetingCase]:
    """The meetings a check-in can be of: the one it names, or for a code alone the student's own open ones."""
    at, _is_skewed = _effective(operation, s.received_at)
    if operation.meeting_id is None:
        meetings = ledger.meetings_for_code(student_id, at)
        if not meetings:
            raise _Refused(
                "not_open", hint="None of your classes is open right now. Check the time, or ask the teacher."
            )
        return meetings
    meeting = ledger.meetings.get(operation.meeting_id)
    if meeting is None:
        if ledger.may_arrive(operation.meeting_id):
            raise _Parked(operation.meeting_id)
        raise _Refused("unknown_meeting")
    refusal = None
    if not ledger.standing(s.author, meeting.section_id).is_active:
        raise _Refused("forbidden")
    if not ledger.is_enrolled(meeting, student_id):
        refusal = "not_enrolled"
    elif meeting.cancelled_at is not None:
        refusal = "meeting_cancelled"
    if refusal is not None:
        _tell_failure(ledger, meeting, s, student_id, refusal, operation.via)
        raise _Refused(refusal)
    return [meeting]


def _judge(meeting: MeetingCase, operation: Operation, received_at: datetime) -> proofs.Judgement:
    assert operation.via is not None
    return proofs.judge(
        via=operation.via,
        proof=operation.proof,
        meeting_id=meeting.id,
        secret=meeting.secret,
        link_token=meeting.link_token,
        captured_at=operation.captured_at or received_at,
        received_at=received_at,
        is_clock_known=operation.clock_offset_ms is not None,
    )


def _take_check_in(
    ledger: Ledger,
    s: Submission,
    operation: Operation,
    meeting: MeetingCase,
    student_id: str,
    judgement: proofs.Judgement,
) -> Outcome:
    at = judgement.effective_at
    is_verified = judgement.verdict is proofs.Verdict.VERIFIED
    if at < opens_at(meeting, meeting.policy):
        raise _Refused("too_early")
    if meeting.opened_at is None:
        if is_verified and operation.via in (Via.QR, Via.CODE):
            raise _Parked(
                meeting.id
            )  # somebody showed it: the opening is on its way from the teacher's device
        raise _Refused("not_open")
    state = state_of(meeting, meeting.policy, ledger.now)
    if state is MeetingState.LOCKED:
        raise _Refused("meeting_locked", hint="This register is locked. If you were there, tell the teacher.")
    grace = timedelta(seconds=meeting.policy.closing_grace_s)
    if meeting.closed_at is not None and at > meeting.closed_at + grace:
        raise _Refused("meeting_closed")
    cutoff = meeting.policy.cutoff_min
    if (
        cutoff is not None
        and meeting.policy.after_cutoff == AfterCutoff.REFUSE
        and at > meeting.scheduled_start + timedelta(minutes=cutoff)
    ):
        raise _Refused("too_late")
    before = meeting.record(student_id)
    authority = Authority.PROVEN if is_verified else Authority.UNPROVEN
    entry = _entry(s, operation, authority, at, judgement.is_skewed, student_id=student_id, via=operation.via)
    step = operation.proof.split(".")[1] if operation.via is Via.QR and operation.proof else None
    entry = ledger.accept(s, meeting, entry, _body(via=operation.via, slot=step))
    code: str | None = None
    if before is not None and before.status is not None and before.source in list(Via):
        code = "already_checked_in"
    elif not is_verified:
        code = "unverified"
    return _told(ledger, meeting, entry, Verdict.ACCEPTED, code)


def _spare(throttle: Throttle | None, s: Submission, student_id: str) -> None:
    """Let go only who has not tried too often: right answers wait too, else guessing goes on."""
    if throttle is None:
        return
    retry_after = throttle.peek(WRONG_CODES, student_id)
    if retry_after is None and s.address:
        retry_after = throttle.peek(WRONG_CODES_FROM_ADDRESS, address_key(s.address))
    if retry_after is None:
        retry_after = throttle.take(CHECK_INS, student_id)
    if retry_after is not None:
        raise _Refused("rate_limited", retry_after=retry_after)


def _charge(throttle: Throttle | None, s: Submission, student_id: str) -> None:
    if throttle is not None:
        throttle.take(WRONG_CODES, student_id)
        if s.address:
            throttle.take(WRONG_CODES_FROM_ADDRESS, address_key(s.address))


def _tell_failure(
    ledger: Ledger, meeting: MeetingCase, s: Submission, student_id: str, code: str, via: Via | None
) -> None:
    data = {
        "meeting_id": meeting.id,
        "student_id": student_id,
        "code": code,
        "via": None if via is None else via.value,
    }
    ledger.tell(Draft(meeting_topic(meeting.id), "check_in.failed", s.received_at, data))


# -- common -----------------------------------------------------------------------------------


def _meeting_for_staff(ledger: Ledger, s: Submission, operation: Operation) -> tuple[MeetingCase, Authority]:
    """The meeting, and the authority of an author who may act on it now."""
    assert operation.meeting_id is not None
    meeting = ledger.meetings.get(operation.meeting_id)
    if meeting is None:
        if ledger.may_arrive(operation.meeting_id):
            raise _Parked(operation.meeting_id)
        raise _Refused("unknown_meeting")
    authority = _authority(ledger, s, operation.kind, meeting.section_id)
    if meeting.cancelled_at is not None:
        raise _Refused("meeting_cancelled")
    is_locked = state_of(meeting, meeting.policy, ledger.now) is MeetingState.LOCKED
    if is_locked and (authority < Authority.ADMIN or operation.kind in MEETING_KINDS - {Kind.REOPEN_MEETING}):
        raise _Refused("meeting_locked")
    return meeting, authority


def _authority(ledger: Ledger, s: Submission, kind: Kind, section_id: str) -> Authority:
    standing = ledger.standing(s.author, section_id)
    authority = access.authority_for(kind, standing, is_system=s.author.is_system, is_own=False)
    if authority is None:
        raise _Refused("forbidden")
    return authority


def _effective(operation: Operation, received_at: datetime) -> tuple[datetime, bool]:
    """captured_at, never later than the first receipt; and whether the clock was provably ahead."""
    captured = operation.captured_at or received_at
    return min(captured, received_at), captured > received_at + AHEAD_TOLERANCE


def _entry(
    s: Submission, operation: Operation, authority: Authority, at: datetime, is_skewed: bool, **said: Any
) -> Entry:
    return Entry(
        id=operation.id,
        kind=operation.kind,
        authority=authority,
        effective_at=at,
        author_id=s.author.person_id,
        device_id=operation.device_id,
        device_seq=operation.device_seq,
        seen_seq=operation.seen_seq,
        is_skewed=is_skewed,
        **said,
    )


def _body(**said: Any) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


_HANDLERS = {
    Kind.OPEN_MEETING: _open_meeting,
    Kind.CHECK_IN: _check_in,
    Kind.MARK: _mark,
    Kind.REVERT: _revert,
    Kind.CLOSE_MEETING: _close_meeting,
    Kind.REOPEN_MEETING: _reopen_meeting,
}
