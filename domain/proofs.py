"""Proof that a check-in was made in the room: rotating QR tokens, six-digit codes, the link (protocol §3).

A meeting has a secret; everything shown is computed from it and the server's clock, so that a token
proves the slot of time in which it was shown. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from domain.model import Via

QR_STEP_S = 15
CODE_STEP_S = 60
#: How far a device's clock and the way to the server may differ before the clock is called wrong.
SKEW_TOLERANCE_S = 60
#: A link proves the meeting but no time: it counts only when it arrives this soon after it was captured.
LINK_TOLERANCE_S = 120
_MAC_BYTES = 16


class Verdict(StrEnum):
    """What a proof is worth."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"  # kept, does not count, the teacher is asked
    BAD = "bad_proof"
    EXPIRED = "proof_expired"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, the instant that is proven (or believed), and whether the device's clock is provably wrong."""

    verdict: Verdict
    effective_at: datetime
    is_skewed: bool = False


@dataclass(frozen=True, slots=True)
class Codes:
    """What is shown to a class right now."""

    qr_url: str
    code: str
    link: str | None
    expires_at: datetime  # when the QR turns; the code turns at code_expires_at
    code_expires_at: datetime
    step_s: int = QR_STEP_S


def qr_token(secret: bytes, meeting_id: str, at: datetime) -> str:
    """``<meeting id>.<step>.<mac>``: what the QR of this instant ends in."""
    return _qr_token(secret, meeting_id, _step(at, QR_STEP_S))


def code(secret: bytes, at: datetime) -> str:
    """The six digits of this instant (dynamic truncation, RFC 4226 §5.3)."""
    return _code(secret, _step(at, CODE_STEP_S))


def link_proof(meeting_id: str, link_token: str) -> str:
    """What the shareable link ends in: it names its meeting, and its token is of this meeting alone."""
    return f"{meeting_id}.l.{link_token}"


def current_codes(
    secret: bytes, meeting_id: str, link_token: str | None, at: datetime, base_url: str
) -> Codes:
    """Everything a projector shows at this instant. ``base_url`` has no slash at its end."""
    return Codes(
        qr_url=f"{base_url}/j/{qr_token(secret, meeting_id, at)}",
        code=code(secret, at),
        link=None if link_token is None else f"{base_url}/j/{link_proof(meeting_id, link_token)}",
        expires_at=_slot(_step(at, QR_STEP_S) + 1, QR_STEP_S),
        code_expires_at=_slot(_step(at, CODE_STEP_S) + 1, CODE_STEP_S),
    )


def meeting_of(proof: str) -> str | None:
    """The meeting id that a token or a link names; None for anything else."""
    parts = proof.split(".")
    return parts[0] if len(parts) == 3 and len(parts[0]) == 36 else None


def is_link(proof: str) -> bool:
    """Whether a /j/ token is the shareable link's, not a QR's."""
    parts = proof.split(".")
    return len(parts) == 3 and parts[1] == "l"


def judge(
    *,
    via: Via,
    proof: str | None,
    meeting_id: str,
    secret: bytes,
    link_token: str | None,
    captured_at: datetime,
    received_at: datetime,
    is_clock_known: bool,
) -> Judgement:
    """What a check-in's proof is worth, and when the student was in the room.

    ``link_token`` is None when the link is switched off. ``is_clock_known`` is False for a device
    that never learned its clock's offset from the server.
    """
    if via is Via.TAP:
        return Judgement(Verdict.UNVERIFIED, min(captured_at, received_at))
    given = (proof or "").strip()
    if via is Via.LINK:
        return _judge_link(given, meeting_id, link_token, captured_at, received_at)
    step_s = QR_STEP_S if via is Via.QR else CODE_STEP_S
    moments = [(captured_at, False)]
    if captured_at > received_at + timedelta(seconds=SKEW_TOLERANCE_S):
        moments = [(received_at, True)]  # ahead of the server: provably wrong, so the arrival decides
    elif captured_at > received_at:
        moments = [(received_at, False)]
    elif received_at - captured_at > timedelta(seconds=SKEW_TOLERANCE_S) or not is_clock_known:
        moments.append((received_at, received_at - captured_at > timedelta(seconds=SKEW_TOLERANCE_S)))
    step = _matching_step(via, given, meeting_id, secret, [at for at, _ in moments])
    if step is None:
        return Judgement(Verdict.BAD, moments[0][0])
    captured, is_skewed = moments[0]
    is_live = received_at - captured <= timedelta(seconds=LINK_TOLERANCE_S)
    if abs(_step(captured, step_s) - step) <= 1:
        if is_clock_known or is_live:
            return Judgement(Verdict.VERIFIED, _within(captured, step, step_s), is_skewed)
        return Judgement(Verdict.UNVERIFIED, _slot(step, step_s))  # old, and nothing vouches for its time
    if step > _step(received_at, step_s) + 1:
        return Judgement(Verdict.BAD, captured)  # nobody could have seen it yet
    is_slow = _step(captured, step_s) + 1 < step  # the token had not been shown at the claimed time
    if is_slow or not is_clock_known:
        if step >= _step(received_at, step_s) - 1:  # shown just now: the arrival decides
            return Judgement(Verdict.VERIFIED, _within(received_at, step, step_s), is_slow)
        if is_slow or not is_live:
            return Judgement(Verdict.UNVERIFIED, _slot(step, step_s), is_slow)
    return Judgement(Verdict.EXPIRED, captured, is_skewed)


def _judge_link(
    given: str, meeting_id: str, link_token: str | None, captured_at: datetime, received_at: datetime
) -> Judgement:
    at = min(captured_at, received_at)
    wanted = None if link_token is None else link_proof(meeting_id, link_token)
    bare = link_token or ""
    if wanted is None or not (_same(given, wanted) or _same(given, bare)):
        return Judgement(Verdict.BAD, at)
    if captured_at > received_at + timedelta(seconds=SKEW_TOLERANCE_S):
        return Judgement(Verdict.VERIFIED, received_at, True)
    if received_at - captured_at > timedelta(seconds=LINK_TOLERANCE_S):
        return Judgement(Verdict.UNVERIFIED, at)
    return Judgement(Verdict.VERIFIED, at)


def _matching_step(
    via: Via, given: str, meeting_id: str, secret: bytes, moments: list[datetime]
) -> int | None:
    """The step in which what was given was shown; None if never. The step of a code is looked for
    around the moments; it has six digits only, so looking further would be guessing for the guesser."""
    if via is Via.QR:
        parts = given.split(".")
        if (
            len(parts) != 3
            or parts[0].lower() != meeting_id
            or not (parts[1].isascii() and parts[1].isdigit())
        ):
            return None
        step = int(parts[1][:15])
        return (
            step
            if _same(f"{meeting_id}.{parts[1]}.{parts[2]}", _qr_token(secret, meeting_id, step))
            else None
        )
    digits = given.replace(" ", "").replace("-", "")
    if len(digits) != 6 or not (digits.isascii() and digits.isdigit()):
        return None
    near: list[int] = [_step(at, CODE_STEP_S) for at in moments]
    # own step, then the ones beside it; up to ten old ones only to be able to say "expired"
    for offset in [0, -1, 1, *range(-2, -11, -1)]:
        for base in near:
            candidate: int = base + offset
            if _same(digits, _code(secret, candidate)):
                return candidate
    return None


def _qr_token(secret: bytes, meeting_id: str, step: int) -> str:
    mac = hmac.digest(secret, f"muster/qr/1|{meeting_id}|{step}".encode(), hashlib.sha256)[:_MAC_BYTES]
    return f"{meeting_id}.{step}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _code(secret: bytes, step: int) -> str:
    mac = hmac.digest(secret, f"muster/code/1|{step}".encode(), hashlib.sha256)
    offset = mac[-1] & 0x0F
    number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def _step(at: datetime, step_s: int) -> int:
    return int(at.timestamp() // step_s)


def _slot(step: int, step_s: int) -> datetime:
    return datetime.fromtimestamp(step * step_s, UTC)


def _within(at: datetime, step: int, step_s: int) -> datetime:
    """``at``, but never before the slot began nor after the one beside it ended."""
    return min(max(at, _slot(step, step_s)), _slot(step + 2, step_s))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
