"""The jobs that run by the clock, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from domain.access import Standing
from domain.clock import ManualClock
from domain.events import WALL, Event
from domain.model import EnrolmentRole, Kind, Meeting, RecordRow, Series, table
from domain.muster import Muster
from domain.operations import make
from domain.schedule import add_series
from notifications.schedule import Jobs
from tests.factories import AClass, a_class

pytestmark = pytest.mark.asyncio

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
OVERDUE = START + timedelta(minutes=50 + 15)
TEACHER = Standing(person_id="teacher", is_active=True, staff_role=EnrolmentRole.TEACHER)


async def an_open_class(muster: Muster) -> AClass:
    klass = a_class(muster.store, students=3, start=START)
    await muster.recorder.record([make(Kind.OPEN_MEETING, meeting_id=klass.meeting_id)], klass.teacher)
    return klass


async def statuses(muster: Muster, meeting_id: str) -> list[str]:
    query = select(table(RecordRow).c.status).where(table(RecordRow).c.meeting_id == meeting_id)
    return list(await muster.store.read(lambda conn: conn.execute(query).scalars().all()))


def watch(muster: Muster) -> list[Event]:
    seen: list[Event] = []

    def see(events: Sequence[Event]) -> None:
        seen.extend(events)

    muster.on_commit(see)
    return seen


async def test_a_meeting_left_open_is_closed_its_unmarked_are_absent_and_watchers_are_told(
    muster: Muster, clock: ManualClock
) -> None:
    klass = await an_open_class(muster)
    seen = watch(muster)
    clock.set(OVERDUE)

    assert await Jobs(muster).close_overdue() == 1

    assert await statuses(muster, klass.meeting_id) == ["absent"] * 3
    assert "meeting.closed" in {event.name for event in seen if event.topic == WALL}


async def test_a_meeting_that_may_still_be_open_is_let_be(muster: Muster, clock: ManualClock) -> None:
    klass = await an_open_class(muster)
    clock.set(OVERDUE - timedelta(milliseconds=1))

    assert await Jobs(muster).close_overdue() == 0

    assert await statuses(muster, klass.meeting_id) == []


async def test_running_again_or_twice_at_once_changes_nothing(muster: Muster, clock: ManualClock) -> None:
    klass = await an_open_class(muster)
    clock.set(OVERDUE)
    one, two = Jobs(muster), Jobs(muster)

    closed = await asyncio.gather(one.close_overdue(), two.close_overdue())
    seen = watch(muster)
    clock.advance(minutes=1)

    assert sum(closed) == 1
    assert await one.close_overdue() == 0
    assert await statuses(muster, klass.meeting_id) == ["absent"] * 3
    assert seen == []


async def a_series(muster: Muster) -> None:
    klass = a_class(muster.store, start=START)
    series = Series(
        id="series",
        section_id=klass.section_id,
        starts_on=date(2026, 11, 24),
        local_time="09:00",
        duration_min=50,
        zone="Europe/Berlin",
        rrule="FREQ=WEEKLY;BYDAY=TU",
    )
    await muster.store.write(lambda conn: conn.execute(table(Series).insert(), [series.model_dump()]))


async def meeting_count(muster: Muster) -> int:
    query = select(func.count()).select_from(table(Meeting)).where(table(Meeting).c.series_id.is_not(None))
    return int(await muster.store.read(lambda conn: conn.execute(query).scalar_one()))


async def test_starting_lays_out_the_timetable_and_tells_of_it(muster: Muster) -> None:
    await a_series(muster)
    seen = watch(muster)
    jobs = Jobs(muster)

    await jobs.start()
    await jobs.stop()

    assert await meeting_count(muster) == 4
    assert [event.name for event in seen] == ["meeting.scheduled"] * 4


async def test_laying_out_again_tells_of_nothing_until_another_week_comes_into_view(
    muster: Muster, clock: ManualClock
) -> None:
    await a_series(muster)
    jobs = Jobs(muster)

    added = [await jobs.lay_out(), await jobs.lay_out()]
    clock.advance(days=7)
    added.append(await jobs.lay_out())

    assert added == [4, 0, 1]


async def test_a_series_added_meanwhile_needs_no_job(muster: Muster, clock: ManualClock) -> None:
    klass = a_class(muster.store, start=START)

    await muster.store.write(
        lambda conn: add_series(
            conn,
            TEACHER,
            section_id=klass.section_id,
            starts_on=START.date(),
            local_time="12:00",
            duration_min=50,
            rrule="FREQ=WEEKLY",
            now=clock.now(),
        )
    )

    assert await Jobs(muster).lay_out() == 0


async def test_the_jobs_have_fixed_ids_run_once_at_a_time_and_however_late(muster: Muster) -> None:
    jobs = Jobs(muster)

    await jobs.start()
    scheduled = jobs._scheduler.get_jobs()

    assert jobs.job_ids == ["auto-close", "lay-out", "purge-logins"]
    assert all(
        job.max_instances == 1 and job.coalesce and job.misfire_grace_time is None for job in scheduled
    )
    await jobs.stop()
    await jobs.stop()


async def test_a_job_that_fails_is_logged_with_its_traceback_and_the_others_go_on(
    muster: Muster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the timetable is on fire")

    monkeypatch.setattr("notifications.schedule.materialise", broken)
    jobs = Jobs(muster)

    with caplog.at_level(logging.ERROR, logger="muster.schedule"):
        await jobs.start()

    assert "the job lay-out failed" in caplog.text and "the timetable is on fire" in caplog.text
    assert jobs.job_ids == ["auto-close", "lay-out", "purge-logins"]
    await jobs.stop()


async def test_stopping_waits_for_the_job_that_runs(muster: Muster) -> None:
    jobs = Jobs(muster)
    await jobs.start()
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    job = asyncio.create_task(jobs._watched("slow", slow))
    await begun.wait()
    stopping = asyncio.create_task(jobs.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    may_end.set()
    await stopping

    assert ended.is_set() and job.done()


async def test_log_ins_that_are_over_are_cleared_away(muster: Muster) -> None:
    assert await Jobs(muster).purge_logins() == 0
