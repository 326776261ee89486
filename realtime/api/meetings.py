"""Sections and meetings as the asker may see them: lists, rosters, codes, events, records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy import Connection

from domain import events, people, proofs, register, school, sections, standings
from domain.access import Standing, may_run_meeting, may_see_meeting
from domain.clock import FIRST_DAY, LAST_DAY, local_date
from domain.events import Event, meeting_topic
from domain.hints import HINTS
from domain.ids import parse_id
from domain.login_rows import LoginView
from domain.model import MeetingState, Role
from domain.muster import Muster
from domain.people import PersonView
from domain.register import MeetingKey
from realtime.api import shapes, wire
from realtime.auth import TheHub, TheMuster, Visitor, visitor_of
from realtime.hub import Follower, TooSlow
from realtime.problems import Problem, not_found
from realtime.protocol import MAX_MISSED
from realtime.snapshots import meeting_snapshot

router = APIRouter(prefix=wire.PREFIX, tags=["meetings"])
MAX_WAIT_S = 60
#: A day that can be asked for.
Day = Annotated[date, Field(ge=FIRST_DAY, le=LAST_DAY)]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A meeting that the asker may see something of, and whose rows that is (None: all)."""

    key: MeetingKey
    standing: Standing
    own: frozenset[str] | None


def _look(conn: Connection, meeting_id: str, visitor: LoginView, muster: Muster) -> _Seen:
    """Find the meeting for this asker. Raises Problem 404 for what is not there or not theirs."""
    now = muster.clock.now()
    identifier = parse_id(meeting_id)
    key = register.find_meeting(conn, identifier, now) if identifier else None
    if key is None:
        raise not_found()
    standing = standings.load_standing(conn, visitor.person_id, key.section_id, now)
    if may_see_meeting(standing):
        return _Seen(key, standing, None)
    candidates = {visitor.person_id} | {p.id for p in _children(conn, visitor)}
    own = frozenset(c for c in candidates if register.is_on_roster(conn, key, c))
    if not own:
        raise not_found()
    return _Seen(key, standing, own)


def _children(conn: Connection, visitor: LoginView) -> list[PersonView]:
    return people.students_of(conn, visitor.person_id) if visitor.role is Role.GUARDIAN else []


@router.get(
    "/sections",
    summary="The classes I teach or attend; for admins all",
    responses={200: {"model": shapes.Sections}},
)
async def list_sections(visitor: Visitor, muster: TheMuster) -> Response:
    """Each with my role in it; admins see every class with role ``admin``."""

    def work(conn: Connection) -> list[dict[str, Any]]:
        now = muster.clock.now()
        if visitor.role is Role.ADMIN:
            page = sections.list_sections(conn, visitor.author, now=now, limit=1000)
            return [wire.plain(line.section) | {"role": "admin"} for line in page.items]
        found = sections.sections_of(conn, visitor.person_id, now)
        return [wire.plain(section) | {"role": role.value} for section, role in found]

    return wire.Json({"sections": await muster.store.read(work)})


@router.get(
    "/sections/{section_id}/meetings",
    summary="The meetings of a class",
    responses={200: {"model": shapes.Meetings}, 404: {}},
)
async def meetings_of_section(
    section_id: str,
    visitor: Visitor,
    muster: TheMuster,
    begin_on: Annotated[Day | None, Query(description="local date, today if left out")] = None,
    days: Annotated[int, Query(ge=1, le=366)] = 14,
) -> Response:
    """From ``begin_on`` on, for so many days, by time."""

    def work(conn: Connection) -> list[Any]:
        now = muster.clock.now()
        identifier = parse_id(section_id)
        section = sections.find_section(conn, identifier) if identifier else None
        if section is None:
            raise not_found()
        standing = standings.load_standing(conn, visitor.person_id, section.id, now)
        if not (may_run_meeting(standing) or standing.is_student):
            raise not_found()
        first = begin_on or local_date(now, section.zone)
        person = None if may_run_meeting(standing) else visitor.person_id
        return register.meetings_on(
            conn, person, first, now, zone=section.zone, section_id=section.id, days=days
        )

    return wire.Json({"meetings": [wire.summary(line) for line in await muster.store.read(work)]})


@router.get(
    "/meetings",
    summary="My meetings of a day; for admins all",
    responses={200: {"model": shapes.MeetingsOfDay}},
)
async def meetings_of_day(
    visitor: Visitor,
    muster: TheMuster,
    on: Annotated[
        Day | None, Query(description="local date of the school, today if left out", examples=["2026-11-23"])
    ] = None,
) -> Response:
    """Those I teach or attend, by time, with counters."""

    def work(conn: Connection) -> tuple[date, list[Any]]:
        now = muster.clock.now()
        found = school.read_school(conn)
        zone = found.zone if found is not None else "UTC"
        day = on or local_date(now, zone)
        person = None if visitor.role is Role.ADMIN else visitor.person_id
        return day, register.meetings_on(conn, person, day, now, zone=zone)

    day, lines = await muster.store.read(work)
    return wire.Json({"on": day, "meetings": [wire.summary(line) for line in lines]})


@router.get(
    "/meetings/{meeting_id}",
    summary="A meeting with its roster: a snapshot at seq",
    responses={200: {"model": shapes.Snapshot}, 404: {}},
)
async def read_meeting(meeting_id: str, visitor: Visitor, muster: TheMuster) -> Response:
    """Staff get every row; a student the own one; a guardian the children's. Remarks are for staff."""

    def work(conn: Connection) -> dict[str, Any]:
        seen = _look(conn, meeting_id, visitor, muster)
        view = register.read_meeting(conn, seen.key.id, muster.clock.now())
        assert view is not None  # one transaction: it was there a moment ago
        return meeting_snapshot(view, seen.own)

    return wire.Json(await muster.store.read(work))


@router.get(
    "/meetings/{meeting_id}/codes",
    summary="What to show to the class right now: QR address, six digits, link",
    responses={200: {"model": shapes.Codes}, 404: {}, 409: {}},
)
async def codes(meeting_id: str, request: Request, visitor: Visitor, muster: TheMuster) -> Response:
    """For staff of the class, while the meeting is open; ``expires_at`` is when the QR turns."""
    seen = await muster.store.read(lambda conn: _look(conn, meeting_id, visitor, muster))
    if seen.own is not None:
        raise not_found()
    if seen.key.state is not MeetingState.OPEN:
        raise Problem(
            409, f"The meeting is {seen.key.state}, so there are no codes to show.", code="not_open",
            hint="Open the meeting first."
        )  # fmt: skip
    base = muster.settings.public_url or str(request.base_url).rstrip("/")
    shown = proofs.current_codes(seen.key.secret, seen.key.id, seen.key.link_token, muster.clock.now(), base)
    return wire.Json(wire.plain(shown) | {"server_time": wire.plain(muster.clock.now())})


@router.get(
    "/meetings/{meeting_id}/events",
    summary="The meeting's events after a seq, by long poll",
    responses={200: {"model": shapes.Events}, 404: {}},
)
async def read_events(
    meeting_id: str,
    request: Request,
    visitor: Visitor,
    muster: TheMuster,
    hub: TheHub,
    after: Annotated[int, Query(ge=0, description="the last seq that was seen")] = 0,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for news")] = 0,
    epoch: Annotated[str | None, Query(description="of the log that `after` is a number in")] = None,
) -> Response:
    """At once what is there, else the next within ``wait`` seconds, else none. With another epoch, or
    more than 1,000 events behind, a ``snapshot`` comes instead of ``events``."""

    def missed(conn: Connection) -> dict[str, Any]:
        seen = _look(conn, meeting_id, visitor, muster)
        if seen.own is not None:
            raise not_found()
        return _missed(conn, seen, after, epoch, muster)

    topic = meeting_topic(parse_id(meeting_id) or "")
    async with hub.follow(topic) as follower:  # first this, then the log: nothing falls in between
        answer = await muster.store.read(missed)
        if wait and answer.get("events") == [] and await _grows(follower, after, wait):
            visitor = await visitor_of(request)  # much may have changed meanwhile, also who may see this
            answer = await muster.store.read(missed)
    return wire.Json(answer)


async def _grows(follower: Follower, after: int, wait_s: float) -> bool:
    """Wait until a topic is beyond ``after``; False when it is not in time."""
    try:
        async with asyncio.timeout(wait_s):
            while (await follower.next()).seq <= after:
                pass  # committed just before the log was read, told just after
    except TimeoutError:
        return False
    except TooSlow:
        return True
    return True


def _missed(conn: Connection, seen: _Seen, after: int, epoch: str | None, muster: Muster) -> dict[str, Any]:
    topic, own_epoch = meeting_topic(seen.key.id), events.epoch(conn)
    head = events.head(conn, topic)
    if (epoch is not None and epoch != own_epoch) or after > head or head - after > MAX_MISSED:
        view = register.read_meeting(conn, seen.key.id, muster.clock.now())
        assert view is not None
        return {"topic": topic, "epoch": own_epoch, "seq": head, "snapshot": meeting_snapshot(view, seen.own)}
    missed: list[Event] = events.read_after(conn, topic, after, MAX_MISSED)
    return {"topic": topic, "epoch": own_epoch, "seq": head, "events": [wire.event(e) for e in missed]}


@router.get(
    "/meetings/{meeting_id}/records/{student_id}",
    summary="One student's record with its whole history",
    responses={200: {"model": shapes.RecordWithHistory}, 404: {}},
)
async def read_record(meeting_id: str, student_id: str, visitor: Visitor, muster: TheMuster) -> Response:
    """For staff of the class, the student, a guardian, an admin. Remarks are for staff."""

    def work(conn: Connection) -> dict[str, Any]:
        seen = _look(conn, meeting_id, visitor, muster)
        student = parse_id(student_id)
        if student is None or (seen.own is not None and student not in seen.own):
            raise not_found()
        row = register.read_row(conn, seen.key.id, student)
        if row is None:
            raise not_found()
        is_staff = seen.own is None
        entries = register.history(conn, seen.key.id, student)
        return {
            "record": wire.roster_row(row, is_staff=is_staff),
            "history": [wire.history_entry(entry, is_staff=is_staff) for entry in entries],
        }

    return wire.Json(await muster.store.read(work))


@router.get(
    "/me/record",
    summary="My own attendance, newest first",
    responses={200: {"model": shapes.OwnRecord}, 404: {}},
)
async def own_record(
    visitor: Visitor,
    muster: TheMuster,
    student_id: Annotated[str | None, Query(description="a child of mine; I myself if left out")] = None,
    days: Annotated[int, Query(ge=1, le=400)] = 60,
) -> Response:
    """Meetings with what is recorded, and attended over possible: excluded and unmarked ones do not count."""

    def work(conn: Connection) -> dict[str, Any]:
        now = muster.clock.now()
        student = parse_id(student_id) if student_id else visitor.person_id
        if student is None or not standings.may_see_student(conn, visitor.person_id, student, now):
            raise Problem(404, "There is no such student here, or not for you.", hint=HINTS["forbidden"])
        found = register.record_of_student(conn, student, now, begin=now - timedelta(days=days))
        rate = register.rate_of(found)
        return {
            "student_id": student,
            "meetings": wire.plain(found),
            "attended": rate.attended,
            "possible": rate.possible,
        }

    return wire.Json(await muster.store.read(work))
