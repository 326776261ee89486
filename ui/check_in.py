"""/j/<token>: where the QR code and the link lead. One tap checks the student in and says what was recorded."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from domain import operations, scans
from domain.logins import LoginView
from domain.model import Kind, Role
from domain.muster import Muster
from domain.operations import MAX_PROOF
from domain.outcomes import Outcome, rejected
from domain.record import RecorderBusy
from domain.scans import STAMP_LIFE, ScannedMeeting
from realtime.auth import is_https
from realtime.security import address_of
from ui import plain
from ui.answers import Answer, answer_for, clock_time
from ui.login import find_visitor

SCAN_COOKIE = "muster_scan"
#: After these a second tap on the same page can help; after the others only a new scan or a person can.
_WORTH_A_RETRY = frozenset({"busy", "internal", "rate_limited", "not_open", "too_early"})


def install(app: FastAPI, muster: Muster) -> None:
    """Register the check-in page."""

    @app.get("/j/{proof}", include_in_schema=False)
    async def show(request: Request, proof: str) -> Response:
        meeting = await _find_meeting(muster, proof)
        visitor = await find_visitor(request, muster)
        if visitor is None:
            response: Response = RedirectResponse(f"/login?next={quote(_address(proof), safe='')}", 303)
        elif visitor.role != Role.STUDENT:
            response = _explain(visitor, meeting)
        elif scans.meeting_id_of(proof) is None:
            response = _page(visitor, proof, None, _answer(rejected(None, "bad_proof"), None))
        else:  # whether the token is good is said after the tap, so that the teacher hears of it too
            response = _page(visitor, proof, meeting, None)
        if meeting is not None and (visitor is None or visitor.role == Role.STUDENT):
            holder = visitor.person_id if visitor else ""
            now = muster.clock.now()
            identifier, scanned_at = _stamp_of(request, meeting, proof, holder, now) or (None, now)
            _remember(
                muster,
                request,
                response,
                scans.make_stamp(meeting.secret, proof, scanned_at, holder_id=holder, identifier=identifier),
            )
        return response

    @app.post("/j/{proof}", include_in_schema=False)
    async def check_in(request: Request, proof: str) -> Response:
        visitor = await find_visitor(request, muster)
        if visitor is None:
            return RedirectResponse(f"/login?next={quote(_address(proof), safe='')}&notice=ended", 303)
        meeting = await _find_meeting(muster, proof)
        if visitor.role != Role.STUDENT:
            return _explain(visitor, meeting)
        outcome = await _record(request, visitor, proof, meeting)
        response = _page(visitor, proof, meeting, _answer(outcome, meeting))
        response.delete_cookie(SCAN_COOKIE, path="/j")  # whatever comes next is a look of its own
        return response

    async def _record(
        request: Request, visitor: LoginView, proof: str, meeting: ScannedMeeting | None
    ) -> Outcome:
        now = muster.clock.now()
        stamp = meeting and _stamp_of(request, meeting, proof, visitor.person_id, now)
        identifier, scanned_at = stamp or (None, now)
        try:
            operation = operations.make(
                Kind.CHECK_IN,
                id=identifier,
                captured_at=scanned_at,
                clock_offset_ms=0,  # the moment is our own clock's
                meeting_id=scans.meeting_id_of(proof),
                student_id=visitor.person_id,
                via=scans.via_of(proof).value,
                proof=proof,
            )
        except operations.InvalidOperation:
            return rejected(None, "bad_proof")
        try:
            (outcome,) = await muster.recorder.record(
                [operation], visitor.author, address=address_of(request)
            )
        except RecorderBusy:
            return rejected(operation.id, "busy")
        return outcome


async def _find_meeting(muster: Muster, proof: str) -> ScannedMeeting | None:
    if len(proof) > MAX_PROOF:
        return None
    return await muster.store.read(lambda conn: scans.find_meeting(conn, proof))


def _stamp_of(
    request: Request, meeting: ScannedMeeting, proof: str, holder: str, now: datetime
) -> tuple[str, datetime] | None:
    stamp = request.cookies.get(SCAN_COOKIE, "")
    return scans.read_stamp(meeting.secret, proof, stamp, holder_id=holder, now=now)


def _remember(muster: Muster, request: Request, response: Response, stamp: str) -> None:
    response.set_cookie(
        SCAN_COOKIE,
        stamp,
        max_age=int(STAMP_LIFE.total_seconds()),
        path="/j",
        httponly=True,
        samesite="lax",
        secure=is_https(request, muster),
    )


def _address(proof: str) -> str:
    return f"/j/{quote(proof[:MAX_PROOF], safe='.-_')}"


def _answer(outcome: Outcome, meeting: ScannedMeeting | None) -> Answer:
    if meeting is None:
        return answer_for(outcome, "UTC")
    return answer_for(outcome, meeting.zone, opens_at=meeting.opens_at)


def _page(visitor: LoginView, proof: str, meeting: ScannedMeeting | None, answer: Answer | None) -> Response:
    may_tap = answer is None or answer.code in _WORTH_A_RETRY
    links = []
    if answer is not None:
        links.append(
            {
                "href": "/student",
                "text": "My classes today" if answer.tone == "good" else "Type the code instead",
            }
        )
    response = plain.page(
        "check_in.html",
        title="Check in" if answer is None else answer.title,
        person_name=visitor.name,
        meeting=meeting,
        when=_when(meeting),
        result=answer,
        can_check_in=may_tap,
        action=_address(proof),
        links=links,
        status_code=429 if answer is not None and answer.code == "rate_limited" else 200,
    )
    return response


def _explain(visitor: LoginView, meeting: ScannedMeeting | None) -> Response:
    """Staff and guardians scan too, out of curiosity or by mistake."""
    if visitor.role in (Role.TEACHER, Role.ADMIN):
        text = (
            "This is where your students check in: they scan the code with their own phone, log in and tap once. "
            "You are logged in as staff, so there is nothing for you to record here."
        )
        target = (
            {"href": f"/meeting/{meeting.id}", "text": "Open the meeting"}
            if meeting
            else {"href": "/", "text": "My classes"}
        )
    else:
        text = "Only students check in, each with their own log-in. What your child's teachers record is on your page."
        target = {"href": "/guardian", "text": "My children"}
    return plain.page(
        "check_in.html",
        title="For students",
        person_name=visitor.name,
        meeting=meeting,
        when=_when(meeting),
        result=Answer("warn", "This page is for students", text, "none", "not_a_student"),
        can_check_in=False,
        action="",
        links=[target],
    )


def _when(meeting: ScannedMeeting | None) -> str:
    if meeting is None:
        return ""
    day = meeting.scheduled_start.astimezone(ZoneInfo(meeting.zone))
    start, end = (
        clock_time(meeting.scheduled_start, meeting.zone),
        clock_time(meeting.scheduled_end, meeting.zone),
    )
    return f"{day:%A} {start}–{end}"
