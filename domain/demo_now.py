"""What goes on in the demo school right now: a meeting to open, and a class that is running.

``ensure_today`` lays out a meeting of teacher1's section around the present moment, again and again,
so that a newcomer always finds one that can be opened and in which a check-in is present.
``RunningClass`` plays teacher3's section: students arrive one by one, through the one write path.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from sqlalchemy import Connection, insert, select, update

from domain import events, proofs
from domain.access import Author
from domain.clock import day_bounds, format_instant, local_date
from domain.demo_school import FIRST_SECTION, RUNNING_SECTION, ZONE, person_id
from domain.events import Draft, Event
from domain.ids import derived_id
from domain.model import Enrolment, EnrolmentRole, Kind, Meeting, Person, RecordRow, Role, Section, Via, table
from domain.muster import Muster
from domain.operations import Operation, make
from domain.policies import late_after_min, load_policies, opens_at, policy_at
from domain.record import RecorderBusy
from domain.schedule import new_keys

log = logging.getLogger("muster.demo")

_MEETINGS, _SECTIONS, _PEOPLE = table(Meeting), table(Section), table(Person)
_ENROLMENTS, _RECORDS = table(Enrolment), table(RecordRow)

LASTS = timedelta(minutes=50)
#: Less time than this for a check-in to be present is no longer comfortable.
COMFORT = timedelta(minutes=2)


# -- teacher1's meeting -----------------------------------------------------------------------


def ensure_today(conn: Connection, now: datetime) -> list[Event]:
    """See to it that teacher1's section has a meeting around now that can be opened and checked into.

    One that was laid out here and never opened is moved to now; otherwise one is added. Changes
    nothing while there is a comfortable one of today, or where there is no demo school. Returns what
    was appended to the log.
    """
    section = conn.execute(
        select(_SECTIONS).where(_SECTIONS.c.id == FIRST_SECTION, _SECTIONS.c.is_active)
    ).first()
    if section is None:
        return []
    query = select(_MEETINGS).where(
        _MEETINGS.c.section_id == FIRST_SECTION,
        _MEETINGS.c.closed_at.is_(None),
        _MEETINGS.c.cancelled_at.is_(None),
    )
    waiting = [Meeting(**row) for row in conn.execute(query).mappings()]
    policies = load_policies(conn, [FIRST_SECTION])
    today = local_date(now, section.zone)
    for meeting in waiting:
        if local_date(meeting.scheduled_start, section.zone) != today:
            continue  # just after midnight: lists of today would not have it
        policy = policy_at(policies, FIRST_SECTION, meeting.scheduled_start)
        grace = timedelta(minutes=late_after_min(meeting, policy))
        # a grace shorter than the comfort gives at least the minute in which the meeting begins
        last = meeting.scheduled_start + max(grace - COMFORT, timedelta(minutes=1))
        if opens_at(meeting, policy) <= now < last:
            return []
    start = now.replace(second=0, microsecond=0)
    unopened = [m for m in waiting if m.opened_at is None and m.id == _own_id(m.created_at)]
    if unopened:
        values = {"scheduled_start": start, "scheduled_end": start + LASTS}
        conn.execute(update(_MEETINGS).where(_MEETINGS.c.id == unopened[0].id).values(**values))
        return _told(conn, "meeting.changed", unopened[0].id, start, section.room, now)
    row = {
        "id": _own_id(now),
        "section_id": FIRST_SECTION,
        "scheduled_start": start,
        "scheduled_end": start + LASTS,
        "room": section.room,
        "is_link_on": True,
        "cancel_reason": "",
        "created_at": now,
        **new_keys(),
    }
    conn.execute(insert(_MEETINGS), [row])
    return _told(conn, "meeting.scheduled", str(row["id"]), start, section.room, now)


def _own_id(created_at: datetime) -> str:
    """The id of the meeting laid out here at that instant: tells ours from what people lay out."""
    return derived_id("demo", "meeting", FIRST_SECTION, format_instant(created_at))


def _told(
    conn: Connection, name: str, meeting_id: str, start: datetime, room: str, now: datetime
) -> list[Event]:
    data = {
        "meeting_id": meeting_id,
        "section_id": FIRST_SECTION,
        "scheduled_start": format_instant(start),
        "scheduled_end": format_instant(start + LASTS),
        "room": room,
        "is_cancelled": False,
        "reason": "",
    }
    topics = [events.WALL] if name == "meeting.scheduled" else [events.meeting_topic(meeting_id), events.WALL]
    return events.append(conn, [Draft(topic, name, now, data) for topic in topics])


# -- teacher3's class -------------------------------------------------------------------------

BELL_AFTER = timedelta(seconds=150)  # the class is opened this long before it begins
RUNS = timedelta(minutes=25)
AT_MOST = timedelta(minutes=30)
LINGERS = timedelta(minutes=1)  # after the last arrival, before the register is closed
TAIL = timedelta(minutes=20)  # nobody arrives later than this after the bell
ABSENT_SHARE = 0.07
FAILURE_SHARE = 0.12
ENSURE_EVERY = timedelta(seconds=15)
RETRY_S = 60.0
#: Refusals that say that the meeting is no longer the play's.
_OVER = frozenset({"meeting_closed", "meeting_cancelled", "meeting_locked", "not_open"})
#: Arrivals are log-normal, 70 % of them before the bell: exp(mu + 0.5244 sigma) is the bell.
_SIGMA = 1.0
_MU = math.log(BELL_AFTER.total_seconds()) - 0.5244 * _SIGMA


@dataclass(frozen=True, slots=True)
class Arrival:
    """One check-in to come; ``failure`` is how it goes wrong, empty for one that does not."""

    at: datetime
    student_id: str
    via: Via
    failure: str = ""  # "" | "proof_expired" | "bad_proof"


@dataclass(frozen=True, slots=True)
class _Open:
    """The meeting that is running."""

    id: str
    secret: bytes


def plan_arrivals(meeting_id: str, opened_at: datetime, student_ids: list[str]) -> list[Arrival]:
    """Who arrives when and how, in order; the same for the same meeting."""
    random = Random(meeting_id)  # noqa: S311  # a play, not a secret
    arrivals: list[Arrival] = []
    for student_id in sorted(student_ids):
        after_s = min(random.lognormvariate(_MU, _SIGMA), (BELL_AFTER + TAIL).total_seconds())
        via = random.choices([Via.QR, Via.CODE], [0.85, 0.15])[0]
        fails, how = random.random() < FAILURE_SHARE, random.choice(["proof_expired", "bad_proof"])
        if random.random() < ABSENT_SHARE:
            continue
        at = opened_at + timedelta(seconds=round(1 + after_s, 3))
        if fails:
            arrivals.append(Arrival(at, student_id, Via.QR if how == "proof_expired" else Via.CODE, how))
            at += timedelta(seconds=random.randint(4, 15))  # and tries again
        arrivals.append(Arrival(at, student_id, via))
    return sorted(arrivals, key=lambda a: (a.at, a.student_id))


class RunningClass:
    """Keeps teacher3's class running and teacher1's meeting fresh while the server runs.

    Owns one task, from ``start`` to ``stop``. Start it after the recorder and stop it before.
    """

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._task: asyncio.Task[None] | None = None
        self._open: _Open | None = None
        self._arrivals: list[Arrival] = []
        self._closes_at: datetime | None = None
        self._ensure_at: datetime | None = None

    async def start(self) -> None:
        """Open the class, or go on with the one that was running."""
        self._task = asyncio.create_task(self._run(), name="muster-demo")

    async def stop(self) -> None:
        """Let the class rest; the next start goes on with it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def step(self) -> float:
        """Do everything that is due by the clock; returns the seconds until there is more to do."""
        now = self._muster.clock.now()
        if self._ensure_at is None or now >= self._ensure_at:
            await self._muster.store.write(lambda conn: ensure_today(conn, now))
            midnight = day_bounds(local_date(now, ZONE), ZONE)[1]
            self._ensure_at = min(now + ENSURE_EVERY, midnight)
        if self._open is None:
            await self._resume_or_open(now)
        while self._open is not None and self._arrivals and self._arrivals[0].at <= now:
            await self._submit(self._open, self._arrivals.pop(0), now)
        upcoming = [self._ensure_at, *(arrival.at for arrival in self._arrivals[:1])]
        if self._open is not None and self._closes_at is not None:
            if now >= self._closes_at:
                await self._close(self._open.id, now)
                return 0.0
            upcoming.append(self._closes_at)
        return max(0.0, (min(upcoming) - self._muster.clock.now()).total_seconds())

    async def _run(self) -> None:
        while True:
            try:
                if self._muster.leadership.is_leader:
                    wait_s = await self.step()
                else:  # another process plays it
                    self._forget()
                    wait_s = 1.0
            except RecorderBusy as busy:
                wait_s = busy.retry_after
            except Exception:  # the rim of the task: the play must not end because one scene failed
                log.exception("the demo's running class failed; it goes on in a minute")
                self._forget()
                wait_s = RETRY_S
            await asyncio.sleep(max(0.02, wait_s))

    async def _resume_or_open(self, now: datetime) -> None:
        teacher = Author(person_id(Role.TEACHER, 3))
        found = await self._muster.store.read(lambda conn: _still_open(conn, RUNNING_SECTION))
        for meeting_id, opened_at in found:
            if now - opened_at >= AT_MOST or self._open is not None:
                await self._close(meeting_id, now)
            else:
                await self._begin(meeting_id, opened_at, now)
        if self._open is not None or not await self._muster.store.read(_can_run):
            return
        start = now + BELL_AFTER
        operation = make(
            Kind.OPEN_MEETING,
            captured_at=now,
            meeting_id=derived_id("demo", "meeting", RUNNING_SECTION, format_instant(now)),
            section_id=RUNNING_SECTION,
            scheduled_start=start,
            scheduled_end=start + RUNS,
        )
        if await self._record(operation, teacher) is None:
            assert operation.meeting_id is not None
            await self._begin(operation.meeting_id, now, now)

    async def _begin(self, meeting_id: str, opened_at: datetime, now: datetime) -> None:
        secret, students, there = await self._muster.store.read(lambda conn: _cast(conn, meeting_id))
        planned = plan_arrivals(meeting_id, opened_at, students)
        coming = [a for a in planned if a.student_id not in there]
        missed = sum(1 for a in coming if a.at < now)  # while the server was down: they come one by one
        self._arrivals = [
            replace(a, at=now + timedelta(seconds=2 * (n + 1))) if n < missed else a
            for n, a in enumerate(coming)
        ]
        self._arrivals.sort(key=lambda a: a.at)
        self._open = _Open(meeting_id, secret)
        last = max((a.at for a in self._arrivals), default=now)
        self._closes_at = min(last + LINGERS, opened_at + AT_MOST)

    async def _submit(self, running: _Open, arrival: Arrival, now: datetime) -> None:
        shown_at = now - timedelta(minutes=2) if arrival.failure == "proof_expired" else now
        if arrival.via is Via.QR:
            proof = proofs.qr_token(running.secret, running.id, shown_at)
        else:
            proof = proofs.code(running.secret, shown_at)
            if arrival.failure:
                proof = proof[1:] + proof[0] if len(set(proof)) > 1 else "123456"  # digits in the wrong order
        operation = make(
            Kind.CHECK_IN,
            captured_at=now,
            clock_offset_ms=0,
            meeting_id=running.id,
            student_id=arrival.student_id,
            via=arrival.via,
            proof=proof,
        )
        if await self._record(operation, Author(arrival.student_id)) in _OVER:
            self._forget()  # somebody else closed or cancelled it: a new one begins

    async def _close(self, meeting_id: str, now: datetime) -> None:
        operation = make(Kind.CLOSE_MEETING, captured_at=now, meeting_id=meeting_id, final=True)
        await self._record(operation, Author(person_id(Role.TEACHER, 3)))
        if self._open is not None and self._open.id == meeting_id:
            self._forget()

    def _forget(self) -> None:
        self._open, self._arrivals, self._closes_at = None, [], None

    async def _record(self, operation: Operation, author: Author) -> str | None:
        """The code with which it was refused; None when it was taken."""
        (outcome,) = await self._muster.recorder.record([operation], author)
        return outcome.code if outcome.outcome == "rejected" else None


def _can_run(conn: Connection) -> bool:
    """Whether there is the section, and its teacher may still open it."""
    query = (
        select(_ENROLMENTS.c.id)
        .join(_PEOPLE, _PEOPLE.c.id == _ENROLMENTS.c.person_id)
        .where(
            _ENROLMENTS.c.section_id == RUNNING_SECTION,
            _ENROLMENTS.c.person_id == person_id(Role.TEACHER, 3),
            _PEOPLE.c.is_active,
        )
    )
    return conn.execute(query).first() is not None


def _still_open(conn: Connection, section_id: str) -> list[tuple[str, datetime]]:
    """The section's meetings that were opened here and not closed, the newest first."""
    rows = conn.execute(
        select(_MEETINGS.c.id, _MEETINGS.c.opened_at)
        .where(
            _MEETINGS.c.section_id == section_id,
            _MEETINGS.c.series_id.is_(None),
            _MEETINGS.c.opened_at.is_not(None),
            _MEETINGS.c.closed_at.is_(None),
            _MEETINGS.c.cancelled_at.is_(None),
        )
        .order_by(_MEETINGS.c.opened_at.desc())
    )
    return [
        (row.id, row.opened_at)
        for row in rows
        if row.id == derived_id("demo", "meeting", section_id, format_instant(row.opened_at))
    ]


def _cast(conn: Connection, meeting_id: str) -> tuple[bytes, list[str], set[str]]:
    """The meeting's secret, its students, and who of them has a record already."""
    meeting = conn.execute(select(_MEETINGS).where(_MEETINGS.c.id == meeting_id)).one()
    at = meeting.scheduled_start
    enrolled = conn.execute(
        select(_ENROLMENTS.c.person_id).where(
            _ENROLMENTS.c.section_id == meeting.section_id,
            _ENROLMENTS.c.role == EnrolmentRole.STUDENT,
            _ENROLMENTS.c.begins_at <= at,
            _ENROLMENTS.c.ends_at.is_(None) | (_ENROLMENTS.c.ends_at > at),
        )
    )
    there = conn.execute(select(_RECORDS.c.student_id).where(_RECORDS.c.meeting_id == meeting_id))
    return (
        bytes.fromhex(meeting.secret),
        [row.person_id for row in enrolled],
        {row.student_id for row in there},
    )
