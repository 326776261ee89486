"""A term of history for the demo school, written through the one write path as if it were happening.

What the model says becomes operations: registers opened, check-ins with the tokens of their moment,
marks, final closes, corrections days later, check-ins that a phone sent hours late. They are recorded
in the order of their arrival, each batch at its own time, so that every rule holds as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from domain import demo_model, demo_school, proofs
from domain.access import SYSTEM, Author
from domain.clock import local_instant, to_millisecond
from domain.demo_model import Figures, Held, Turn
from domain.demo_school import ZONE
from domain.ids import derived_id
from domain.model import EnrolmentRole, Kind, Meeting, Status, Via, table
from domain.operations import make
from domain.policies import DEFAULTS
from domain.record import Submission, Verdict, record_batch
from domain.store import Store

#: Operations in one transaction: as many as the recorder takes at most, and one period's of a small school.
BATCH = 400
_VIAS, _VIA_SHARES = (Via.QR, Via.CODE, Via.LINK), (0.8, 0.15, 0.05)


class HistoryRefused(RuntimeError):
    """The write path refused what the demo school made up: a fault in the demo."""


@dataclass(slots=True)
class _Past:
    """A meeting of the past, with what its operations need to be made."""

    held: Held
    id: str
    start: datetime
    end: datetime
    secret: bytes
    link_token: str
    runs_it: Author
    last_seq: int = 0  # the newest event of it that its staff have seen


@dataclass(slots=True)
class _Said:
    """One operation to come. It is made when its turn has come, for a correction has seen what was before."""

    received_at: datetime
    past: _Past
    kind: Kind
    author: Author
    captured_at: datetime
    fields: dict[str, Any]
    identifier: str = ""
    has_seen: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """How much came into the database."""

    meetings: int  # held, registers opened
    operations: int
    figures: Figures


def write_term(
    store: Store, random: Random, term: Iterable[Held], *, now: datetime, progress: Callable[[str], None]
) -> Written:
    """Record the meetings that have ended by ``now``. The people, sections and series must be there."""
    pasts = [past for past in (_past(random, held) for held in term) if past.end <= now]
    for at in range(0, len(pasts), 1000):
        rows = [_meeting_row(past) for past in pasts[at : at + 1000]]
        store.write_now(lambda conn, rows=rows: conn.execute(insert(table(Meeting)), rows))  # type: ignore[misc]
    told_week = None
    count = 0
    by_day = _by_day(random, pasts, now)
    for on, said in by_day:
        week = on.isocalendar().week
        if week != told_week:
            progress(f"week of {on.isoformat()}: {count:,} operations so far")
            told_week = week
        for at in range(0, len(said), BATCH):
            count += _write(store, random, said[at : at + BATCH])
    held = [past.held for past in pasts if past.held.is_opened]
    return Written(len(held), count, demo_model.figures(held))


def _write(store: Store, random: Random, batch: list[_Said]) -> int:
    submissions = [_submission(random, said) for said in batch]
    at = batch[-1].received_at
    recorded = store.write_now(lambda conn: record_batch(conn, submissions, now=at))
    for said, outcome in zip(batch, recorded.outcomes, strict=True):
        if outcome.outcome is not Verdict.ACCEPTED:
            raise HistoryRefused(f"{said.kind} of {said.past.id} at {said.captured_at}: {outcome}")
        said.past.last_seq = max(said.past.last_seq, outcome.seq or 0)
    return len(batch)


def _submission(random: Random, said: _Said) -> Submission:
    operation = make(
        said.kind,
        id=said.identifier or _id_at(random, said.captured_at),
        meeting_id=said.past.id,
        captured_at=said.captured_at,
        seen_seq=said.past.last_seq if said.has_seen else None,
        **said.fields,
    )
    return Submission(operation, said.author, said.received_at)


def _by_day(random: Random, pasts: list[_Past], now: datetime) -> Iterator[tuple[date, list[_Said]]]:
    """What arrives on each day, in the order of arrival; what arrives after ``now`` does not."""
    by_day: dict[date, list[_Said]] = {}
    for past in pasts:
        for said in _operations(random, past) if past.held.is_opened else ():
            if said.received_at <= now:
                by_day.setdefault(said.received_at.date(), []).append(said)
    for on in sorted(by_day):
        yield on, sorted(by_day[on], key=lambda said: said.received_at)


# -- what a meeting consists of ---------------------------------------------------------------


def _past(random: Random, held: Held) -> _Past:
    section = held.section
    start = local_instant(held.on, demo_school.PERIODS[section.period], ZONE)
    staff = [section.teacher_on(held.on)]
    if random.random() < 0.2:  # now and then the co-teacher does it
        helpers = [s for s in section.stays if s.role is EnrolmentRole.CO_TEACHER and s.covers(held.on)]
        staff = [helper.person_id for helper in helpers] or staff
    return _Past(
        held=held,
        # the id that laying out the series gives it, so that it is never laid out a second time
        id=derived_id("meeting", section.series_id, held.on.isoformat()),
        start=start,
        end=start + timedelta(minutes=demo_school.PERIOD_MIN),
        secret=random.randbytes(32),
        link_token=random.randbytes(16).hex(),
        runs_it=Author(staff[0]),
    )


def _meeting_row(past: _Past) -> dict[str, Any]:
    is_cancelled = past.held.is_cancelled
    return {
        "id": past.id,
        "section_id": past.held.section.id,
        "series_id": past.held.section.series_id,
        "occurs_on": past.held.on,
        "scheduled_start": past.start,
        "scheduled_end": past.end,
        "room": past.held.section.room,
        "secret": past.secret.hex(),
        "link_token": past.link_token,
        "is_link_on": True,
        "cancelled_at": past.start - timedelta(hours=2) if is_cancelled else None,
        "cancel_reason": "School closed: the heating failed" if is_cancelled else "",
        "created_at": past.start - timedelta(weeks=4),
    }


def _operations(random: Random, past: _Past) -> Iterator[_Said]:
    opened_at = past.start - timedelta(seconds=random.randint(300, 420))
    opening = _said(random, past, Kind.OPEN_MEETING, opened_at)
    opening.identifier = _id_at(random, opened_at)
    yield opening
    for turn in past.held.turns:
        yield from _turn(random, past, turn)
    if past.held.is_closed_by_staff:
        yield _said(
            random,
            past,
            Kind.CLOSE_MEETING,
            past.start + timedelta(minutes=random.uniform(30, 44)),
            final=True,
        )
    else:  # forgotten: Muster closes it, with the very operation that closing.py makes
        closes_at = past.end + timedelta(minutes=DEFAULTS.auto_close_after_min)
        identifier = derived_id("auto-close", past.id, opening.identifier)
        yield _Said(
            closes_at, past, Kind.CLOSE_MEETING, SYSTEM, closes_at, {"final": True}, identifier=identifier
        )


def _turn(random: Random, past: _Past, turn: Turn) -> Iterator[_Said]:
    if turn.status in (Status.PRESENT, Status.LATE):
        yield _check_in(random, past, turn)
    if turn.is_marked:
        status, code = turn.status, turn.code
        if turn.is_offline:  # not seen in the register, though the phone has the check-in
            status, code = Status.ABSENT, None
        at = past.start + timedelta(minutes=random.uniform(6, 14))
        yield _mark(random, past, turn, at, status=status, code=code)
    if turn.correction is not None:
        on = past.held.on + timedelta(days=turn.correction.days_later)
        at = local_instant(on, time(14, random.randrange(60)), ZONE)
        if turn.correction.status is Status.LEFT_EARLY:
            at = past.start + timedelta(minutes=25)
        said = _mark(
            random,
            past,
            turn,
            at,
            status=turn.correction.status,
            code=turn.correction.code,
            remark=turn.correction.remark,
        )
        said.author, said.has_seen = Author(past.held.section.teacher_id), True
        yield said


def _check_in(random: Random, past: _Past, turn: Turn) -> _Said:
    at = to_millisecond(past.start + timedelta(minutes=turn.arrives_min))
    via = Via.QR if turn.is_offline else random.choices(_VIAS, _VIA_SHARES)[0]
    if via is Via.QR:
        proof = proofs.qr_token(past.secret, past.id, at)
    elif via is Via.CODE:
        proof = proofs.code(past.secret, at)
    else:
        proof = proofs.link_proof(past.id, past.link_token)
    fields: dict[str, Any] = {
        "student_id": turn.student_id,
        "via": via,
        "proof": proof,
        "clock_offset_ms": round(random.gauss(0, 180)),
    }
    said = _said(random, past, Kind.CHECK_IN, at, **fields)
    said.author = Author(turn.student_id)
    if turn.is_offline:
        said.received_at = to_millisecond(at + timedelta(hours=random.uniform(1, 9)))
        said.fields |= {
            "device_id": derived_id("demo", "device", turn.student_id),
            "device_seq": int(at.timestamp()),
        }
    return said


def _mark(
    random: Random,
    past: _Past,
    turn: Turn,
    at: datetime,
    *,
    status: Status,
    code: str | None,
    remark: str | None = None,
) -> _Said:
    return _said(
        random, past, Kind.MARK, at, student_id=turn.student_id, status=status, code=code, remark=remark
    )


def _said(random: Random, past: _Past, kind: Kind, at: datetime, **fields: Any) -> _Said:
    """Something said live: it arrives within a second."""
    at = to_millisecond(at)
    received_at = at + timedelta(milliseconds=random.randint(40, 900))
    return _Said(received_at, past, kind, past.runs_it, at, fields)


def _id_at(random: Random, at: datetime) -> str:
    """A UUIDv7 of that time (ids.new_id) whose other bits follow from the seed."""
    value = int(at.timestamp() * 1000) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
