"""What a person can do now, for each code an outcome can have. One sentence of fact, one of remedy."""

from __future__ import annotations

HINTS: dict[str, str] = {
    "invalid": "This could not be understood. Reload the page and try again.",
    "forbidden": "You may not do this here. Ask the class's teacher or an admin if you should.",
    "not_enrolled": "You are not on the list of this class. Check that it is the right class, or ask the teacher to add you.",
    "bad_proof": "This is not the code of this class. Check the digits, or scan the QR code on the board again.",
    "proof_expired": "This code is no longer valid. Scan the QR code, or type the code, that is on the board right now.",
    "not_open": "The teacher has not opened this class yet. Try again when the code is on the board.",
    "too_early": "It is too early to check in. Try again shortly before the class begins.",
    "too_late": "It is too late to check in. Tell the teacher, who can still mark you.",
    "meeting_closed": "This class has been closed. If you were there, tell the teacher, who can still mark you.",
    "meeting_locked": "This register is locked. Ask an admin to correct it.",
    "meeting_cancelled": "This class was cancelled. There is nothing to record.",
    "unknown_meeting": "There is no such class for you. Check the link, or open your list of today's classes.",
    "unknown_operation": "There is nothing to take back: that entry does not exist here.",
    "unknown_code": "There is no such attendance code for this status. Choose one from the list.",
    "already_checked_in": "You are already checked in. There is nothing more to do.",
    "unverified": "Noted, but not yet counted: the teacher is asked to confirm that you are here.",
    "rate_limited": "Too many tries. Wait a moment, then try again, or ask the teacher to mark you.",
    "clock_skew": "Your device's clock is wrong. Set it to automatic time, then try again.",
    "id_reused": "This entry was sent before with other contents. Make a new one.",
    "busy": "The server is busy. Nothing is lost: try again in a moment.",
    "internal": "Something went wrong on our side. Nothing was recorded: try again.",
}


def hint_for(code: str | None) -> str | None:
    """The sentence for a code; None for success."""
    return None if code is None else HINTS.get(code, HINTS["internal"])
