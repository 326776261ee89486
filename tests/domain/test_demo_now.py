"""What goes on in the demo school right now: a meeting to open, and a class in which students arrive."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from domain import people, register
from domain.access import Author
from domain.clock import ManualClock, local_date
from domain.demo import RunningClass, ensure_today, seed
from domain.demo_now import AT_MOST, BELL_AFTER, plan_arrivals
from domain.demo_school import FIRST_SECTION, RUNNING_SECTION, ZONE, person_id
from domain.model import Kind, Meeting, MeetingState, OperationRow, RecordRow, Role, table
from domain.muster import Muster
from domain.operations import make
from domain.proofs import code
from domain.record import Submission, record_batch
from domain.schedule import add_meeting
from domain.store import Store
from tests.factories import NOW

_RECORDS, _MEETINGS, _OPERATIONS = table(RecordRow), table(Meeting), table(OperationRow)


def seeded(store: Store, *, now: datetime = NOW) -> None:
    seed(store, ManualClock(now), students=60, weeks=0, seed=7, progress=lambda _text: None)


def rows(store: Store, model: Any, where: Any = None) -> list[Any]:
    query = select(table(model)) if where is None else select(table(model)).where(where)
    return list(store.read_now(lambda conn: conn.execute(query).mappings().all()))


# -- a meeting around now ---------------------------------------------------------------------


def around_now(store: Store) -> list[Any]:
    return [
        row
        for row in rows(store, Meeting, _MEETINGS.c.section_id == FIRST_SECTION)
        if row["series_id"] is None
    ]


def ensure(store: Store, clock: ManualClock) -> list[str]:
    return [event.name for event in store.write_now(lambda conn: ensure_today(conn, clock.now()))]


def record(store: Store, clock: ManualClock, author: str, kind: Kind, **fields: Any) -> Any:
    now = clock.now()
    operation = make(kind, captured_at=now, **fields)
    submission = Submission(operation, Author(author), now)
    (outcome,) = store.write_now(lambda conn: record_batch(conn, [submission], now=now)).outcomes
    return outcome


def test_a_newcomer_opens_the_meeting_around_now_and_a_check_in_is_present(
    store: Store, clock: ManualClock
) -> None:
    clock.advance(seconds=44)
    seeded(store, now=clock.now())
    (meeting,) = around_now(store)
    assert meeting["scheduled_start"] == NOW
    assert meeting["scheduled_end"] - meeting["scheduled_start"] == timedelta(minutes=50)
    assert meeting["opened_at"] is None

    clock.advance(minutes=1)
    teacher, student = person_id(Role.TEACHER, 1), person_id(Role.STUDENT, 1)
    assert record(store, clock, teacher, Kind.OPEN_MEETING, meeting_id=meeting["id"]).outcome == "accepted"
    digits = code(bytes.fromhex(meeting["secret"]), clock.now())
    outcome = record(store, clock, student, Kind.CHECK_IN, meeting_id=meeting["id"], via="code", proof=digits)

    assert outcome.record["status"] == "present"


def test_asking_again_changes_nothing_while_the_meeting_is_comfortable(
    store: Store, clock: ManualClock
) -> None:
    seeded(store)

    clock.advance(minutes=2)

    assert ensure(store, clock) == []
    assert len(around_now(store)) == 1


def test_a_meeting_that_nobody_opened_moves_along_with_the_clock(store: Store, clock: ManualClock) -> None:
    seeded(store)
    (before,) = around_now(store)

    for _ in range(3):
        clock.advance(days=1, minutes=4)
        assert "meeting.changed" in ensure(store, clock)

    (after,) = around_now(store)
    assert after["id"] == before["id"]
    assert after["scheduled_start"] == clock.now()


@pytest.mark.parametrize("is_closed", [True, False])
def test_after_a_meeting_was_used_the_next_newcomer_finds_a_fresh_one(
    store: Store, clock: ManualClock, is_closed: bool
) -> None:
    seeded(store)
    (first,) = around_now(store)
    teacher = person_id(Role.TEACHER, 2)
    record(store, clock, teacher, Kind.OPEN_MEETING, meeting_id=first["id"])
    clock.advance(minutes=1)
    if is_closed:
        record(store, clock, teacher, Kind.CLOSE_MEETING, meeting_id=first["id"])
    else:
        clock.advance(minutes=6)

    assert ensure(store, clock) == ["meeting.scheduled"]

    fresh = [row for row in around_now(store) if row["id"] != first["id"]]
    assert [row["scheduled_start"] for row in fresh] == [clock.now()]
    assert ensure(store, clock) == []


def test_a_meeting_that_somebody_laid_out_is_never_moved(store: Store, clock: ManualClock) -> None:
    seeded(store)
    clock.advance(minutes=30)
    ensure(store, clock)
    own = {row["id"] for row in around_now(store)}
    added = store.write_now(
        lambda conn: add_by_hand(conn, FIRST_SECTION, clock.now() - timedelta(minutes=5), clock.now())
    )
    clock.advance(minutes=30)

    ensure(store, clock)

    assert {row["id"]: row for row in around_now(store)}[added]["scheduled_start"] == NOW + timedelta(
        minutes=25
    )
    assert {row["id"] for row in around_now(store)} == own | {added}


def add_by_hand(conn: Connection, section_id: str, start: datetime, now: datetime) -> str:
    teacher = people.load_standing(conn, person_id(Role.TEACHER, 1), section_id, now)
    identifier, _events = add_meeting(
        conn, teacher, section_id=section_id, start=start, end=start + timedelta(hours=1), now=now
    )
    return identifier


def test_without_a_demo_school_nothing_is_laid_out(store: Store, clock: ManualClock) -> None:
    assert ensure(store, clock) == []


# -- the class that is running ----------------------------------------------------------------


async def test_at_midnight_the_meeting_around_now_becomes_one_of_the_new_day(
    muster: Muster, store: Store, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 11, 23, 22, 58, 30, tzinfo=UTC))  # a minute and a half to midnight in Berlin
    seeded(store, now=clock.now())
    running = RunningClass(muster)

    while clock.now() < datetime(2026, 11, 23, 23, 3, tzinfo=UTC):
        wait_s = await running.step()
        (meeting,) = around_now(store)
        assert local_date(meeting["scheduled_start"], ZONE) == local_date(clock.now(), ZONE)
        clock.advance(seconds=max(wait_s, 0.001))


async def play(muster: Muster, running: RunningClass, minutes: float) -> None:
    """Step through the play, moving the clock from one thing to the next."""
    clock = muster.clock
    assert isinstance(clock, ManualClock)
    end = clock.now() + timedelta(minutes=minutes)
    while clock.now() < end:
        wait_s = await running.step()
        clock.advance(seconds=min(max(wait_s, 0.001), (end - clock.now()).total_seconds()))


def running_meetings(store: Store) -> list[Any]:
    query = (_MEETINGS.c.section_id == RUNNING_SECTION) & _MEETINGS.c.series_id.is_(None)
    return sorted(rows(store, Meeting, query), key=lambda row: row["opened_at"])


async def test_teacher3_has_a_class_in_which_students_arrive(muster: Muster, store: Store) -> None:
    seeded(store)
    heard: list[str] = []
    muster.on_commit(lambda told: heard.extend(e.name for e in told if e.topic.startswith("meeting:")))

    await play(muster, RunningClass(muster), 7)

    (meeting,) = running_meetings(store)
    view = store.read_now(lambda conn: register.read_meeting(conn, meeting["id"], muster.clock.now()))
    assert view is not None
    assert view.state is MeetingState.OPEN
    assert view.opened_by == person_id(Role.TEACHER, 3)
    there = [row for row in view.roster if row.status is not None]
    assert len(there) > 15
    assert {row.source for row in there} <= {"qr", "code"}
    assert heard.count("record.changed") == len(there)
    assert "check_in.failed" in heard
    on_students = rows(store, OperationRow, _OPERATIONS.c.kind == Kind.CHECK_IN)
    assert all(row["author_id"] == row["student_id"] and row["is_verified"] for row in on_students)


async def test_when_all_are_in_the_register_is_closed_and_the_next_class_begins(
    muster: Muster, store: Store
) -> None:
    seeded(store)

    await play(muster, RunningClass(muster), 32)

    first, *_others, last = running_meetings(store)
    assert first["closed_at"] - first["opened_at"] <= AT_MOST + timedelta(seconds=1)
    assert first["closed_by"] == person_id(Role.TEACHER, 3)
    assert last["closed_at"] is None
    records = rows(store, RecordRow, _RECORDS.c.meeting_id == first["id"])
    assert len(records) == 30


async def test_a_restart_goes_on_with_the_class_that_was_running(muster: Muster, store: Store) -> None:
    seeded(store)
    await play(muster, RunningClass(muster), 1)

    await play(muster, RunningClass(muster), 6)

    (meeting,) = running_meetings(store)
    assert len(rows(store, RecordRow, _RECORDS.c.meeting_id == meeting["id"])) > 15


async def test_a_class_left_from_yesterday_is_closed_before_a_new_one_begins(
    muster: Muster, store: Store, clock: ManualClock
) -> None:
    seeded(store)
    await play(muster, RunningClass(muster), 1)
    clock.advance(days=1)

    await play(muster, RunningClass(muster), 1)

    old, new = running_meetings(store)
    assert old["closed_at"] is not None
    assert new["closed_at"] is None


async def test_when_somebody_closes_the_class_a_new_one_begins(
    muster: Muster, store: Store, clock: ManualClock
) -> None:
    seeded(store)
    running = RunningClass(muster)
    await play(muster, running, 1)
    (meeting,) = running_meetings(store)
    clock.advance(seconds=1)
    record(store, clock, person_id(Role.TEACHER, 3), Kind.CLOSE_MEETING, meeting_id=meeting["id"])
    clock.advance(seconds=30)

    await play(muster, running, 2)

    assert [row["closed_at"] is None for row in running_meetings(store)] == [False, True]


def test_seven_in_ten_arrive_before_the_bell_and_nobody_after_twenty_minutes() -> None:
    arrivals = [
        arrival
        for number in range(40)
        for arrival in plan_arrivals(f"meeting {number}", NOW, [f"student {n}" for n in range(30)])
        if not arrival.failure
    ]
    bell = NOW + BELL_AFTER

    assert 0.6 < sum(1 for a in arrivals if a.at <= bell) / len(arrivals) < 0.78
    assert max(a.at for a in arrivals) < bell + timedelta(minutes=21)
    assert plan_arrivals("m", NOW, ["b", "a"]) == plan_arrivals("m", NOW, ["a", "b"])


async def test_the_running_class_starts_and_stops_with_its_owner(muster: Muster, store: Store) -> None:
    seeded(store)
    opened = asyncio.Event()
    muster.on_commit(lambda told: opened.set() if any(e.name == "meeting.opened" for e in told) else None)
    running = RunningClass(muster)

    await running.start()
    await asyncio.wait_for(opened.wait(), 10)
    await running.stop()

    assert [task for task in asyncio.all_tasks() if task.get_name() == "muster-demo"] == []
    assert len(running_meetings(store)) == 1


async def test_without_a_demo_school_the_running_class_rests(muster: Muster) -> None:
    assert await RunningClass(muster).step() > 10


async def test_a_failure_does_not_end_the_play(
    muster: Muster, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seeded(store)
    failed = asyncio.Event()

    async def fail() -> float:
        failed.set()
        raise RuntimeError("a scene failed")

    running = RunningClass(muster)
    monkeypatch.setattr(running, "step", fail)
    await running.start()
    await asyncio.wait_for(failed.wait(), 5)
    await asyncio.sleep(0)

    assert [task.get_name() for task in asyncio.all_tasks()].count("muster-demo") == 1
    await running.stop()
    assert "a scene failed" in caplog.text
