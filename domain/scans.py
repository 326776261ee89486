"""The moment at which a QR code was scanned or a link opened, kept so that logging in costs nothing.

A token proves the slot of time it was shown in, and it ages while its holder types a password. So the
first look at /j/<proof> is stamped: the stamp is the id of the check-in that may follow (a UUIDv7,
whose time is the moment of the scan) under a MAC of the meeting's secret, over the proof and over the
holder once known. It cannot be made or moved to another token; and since an id is accepted for one
student only, a stamp that is passed on is worth one check-in and no more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select

from domain import proofs
from domain.ids import made_at, new_id, parse_id
from domain.model import Meeting, Section, Via, table
from domain.policies import load_policies, opens_at, policy_at

#: How long after the scan the tap may come.
STAMP_LIFE = timedelta(minutes=5)
#: How long a stamp of nobody yet waits for its holder to log in: a password typed on a phone, twice.
#: Short, because until then it could be passed on.
LOG_IN_LIFE = timedelta(minutes=2)
_MEETINGS, _SECTIONS = table(Meeting), table(Section)


@dataclass(frozen=True, slots=True)
class ScannedMeeting:
    """What a genuine token may tell its holder of its meeting. ``secret`` stays inside."""

    id: str
    secret: bytes
    section_code: str
    section_title: str
    room: str
    zone: str
    scheduled_start: datetime
    scheduled_end: datetime
    opens_at: datetime  # from when a check-in is taken


def meeting_id_of(proof: str) -> str | None:
    """The meeting that a /j/ token claims to be of."""
    return parse_id(proofs.meeting_of(proof))


def via_of(proof: str) -> Via:
    """Whether a /j/ address came from the link or from the QR code."""
    return Via.LINK if proofs.is_link(proof) else Via.QR


def find_meeting(conn: Connection, proof: str) -> ScannedMeeting | None:
    """The meeting that a /j/ token is of, however old it is; None for a token that Muster did not make."""
    meeting_id = meeting_id_of(proof)
    if meeting_id is None:
        return None
    row = conn.execute(
        select(
            _MEETINGS,
            _SECTIONS.c.code.label("section_code"),
            _SECTIONS.c.title.label("section_title"),
            _SECTIONS.c.room.label("section_room"),
            _SECTIONS.c.zone,
        )
        .join(_SECTIONS, _SECTIONS.c.id == _MEETINGS.c.section_id)
        .where(_MEETINGS.c.id == meeting_id)
    ).one_or_none()
    if row is None or not _is_genuine(proof, bytes.fromhex(row.secret), meeting_id, row.link_token):
        return None
    return ScannedMeeting(
        id=meeting_id,
        secret=bytes.fromhex(row.secret),
        section_code=row.section_code,
        section_title=row.section_title,
        room=row.room or row.section_room,
        zone=row.zone,
        scheduled_start=row.scheduled_start,
        scheduled_end=row.scheduled_end,
        opens_at=opens_at(
            row, policy_at(load_policies(conn, [row.section_id]), row.section_id, row.scheduled_start)
        ),
    )


def make_stamp(
    secret: bytes, proof: str, at: datetime, *, holder_id: str = "", identifier: str | None = None
) -> str:
    """``<id>.<mac>`` for a token first seen at ``at``; ``holder_id`` is empty while nobody is logged in.

    With the ``identifier`` of an earlier stamp it is the same scan, now of this holder.
    """
    identifier = identifier or new_id(at)
    return f"{identifier}.{_mac(secret, proof, identifier, holder_id)}"


def read_stamp(
    secret: bytes, proof: str, stamp: str, *, holder_id: str, now: datetime
) -> tuple[str, datetime] | None:
    """The check-in's id and the moment of the scan; None for a stamp that is forged, foreign or too old."""
    identifier, _, mac = stamp.partition(".")
    at = made_at(identifier) if parse_id(identifier) == identifier else None
    if at is None:
        return None
    if _same(mac, _mac(secret, proof, identifier, "")):
        life = LOG_IN_LIFE
    elif _same(mac, _mac(secret, proof, identifier, holder_id)):
        life = STAMP_LIFE
    else:
        return None
    return (identifier, at) if timedelta(0) <= now - at <= life else None


def _is_genuine(proof: str, secret: bytes, meeting_id: str, link_token: str) -> bool:
    if proofs.is_link(proof):
        return _same(proof, proofs.link_proof(meeting_id, link_token))
    step = proof.split(".")[1]
    if not (step.isascii() and step.isdigit() and len(step) <= 12):
        return False
    try:
        shown_at = datetime.fromtimestamp(int(step) * proofs.QR_STEP_S, UTC)
    except (OverflowError, ValueError, OSError):
        return False
    return _same(proof, proofs.qr_token(secret, meeting_id, shown_at))


def _mac(secret: bytes, proof: str, identifier: str, holder_id: str) -> str:
    words = f"muster/scan/1|{proof}|{identifier}|{holder_id}".encode()
    digest = hmac.digest(secret, words, hashlib.sha256)[:16]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
