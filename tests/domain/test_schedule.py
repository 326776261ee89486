"""Series are laid out ahead, meetings are moved and cancelled, and everybody who watches is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from domain.access import NOBODY, SYSTEM, Author, Denied, Standing
from domain.closing import due_closes
from domain.events import WALL, Event, head, meeting_topic, read_after
from domain.ids import new_id
from domain.inputs import InvalidInput
from domain.model import EnrolmentRole, Kind, Meeting, Section, Series, table
from domain.operations import Operation, make
from domain.record import Submission, record_batch
from domain.schedule import (
    add_meeting,
    add_series,
    cancel_meeting,
    end_series,
    except_date,
    materialise,
    move_meeting,
    restore_meeting,
    series_of,
)
from domain.store import Store
from tests.factories import AClass, a_class, a_policy, a_school, a_section

pytestmark = pytest.mark.both_databases

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)  # a Monday
TEACHER = Standing(person_id="teacher", is_active=True, staff_role=EnrolmentRole.TEACHER)
SUBSTITUTE = Standing(person_id="substitute", is_active=True, staff_role=EnrolmentRole.SUBSTITUTE)
STUDENT = Standing(person_id="student", is_active=True, is_student=True)
MEETINGS = table(Meeting)


@pytest.fixture
def section_id(store: Store) -> str:
    def make_section(conn: Any) -> str:
        a_school(conn)
        return a_section(conn, room="R12")

    return store.write_now(make_section)


def a_series(store: Store, section_id: str, *, now: datetime = NOW, **values: Any) -> tuple[str, list[Event]]:
    """Mondays at ten in Berlin, from 23 November 2026."""
    wanted: dict[str, Any] = {
        "starts_on": date(2026, 11, 23),
        "local_time": "10:00",
        "duration_min": 50,
        "rrule": "FREQ=WEEKLY;BYDAY=MO",
    }
    series, told = store.write_now(
        lambda conn: add_series(conn, TEACHER, section_id=section_id, now=now, **wanted | values)
    )
    return series.id, told


def meetings(store: Store) -> list[Any]:
    query = select(MEETINGS).order_by(MEETINGS.c.scheduled_start, MEETINGS.c.id)
    return list(store.read_now(lambda conn: conn.execute(query).all()))


def dates(store: Store, *, cancelled: bool = False) -> list[str]:
    return [f"{m.occurs_on:%m-%d}" for m in meetings(store) if (m.cancelled_at is not None) == cancelled]


def change(store: Store, what: Any, *args: Any, now: datetime = NOW, **values: Any) -> list[Event]:
    return store.write_now(lambda conn: what(conn, TEACHER, *args, now=now, **values))


def mark_opened(store: Store, meeting_id: str, **values: Any) -> None:
    statement = update(MEETINGS).where(MEETINGS.c.id == meeting_id).values({"opened_at": NOW} | values)
    store.write_now(lambda conn: conn.execute(statement))


# -- laying out -------------------------------------------------------------------------------


def test_a_new_series_is_laid_out_four_weeks_ahead_at_once(store: Store, section_id: str) -> None:
    series_id, told = a_series(store, section_id)

    found = meetings(store)
    assert dates(store) == ["11-23", "11-30", "12-07", "12-14", "12-21"]
    assert {m.series_id for m in found} == {series_id}
    assert {m.room for m in found} == {"R12"}, "the section's room"
    assert [e.data["meeting_id"] for e in told] == [m.id for m in found]
    assert {(e.topic, e.name) for e in told} == {(WALL, "meeting.scheduled")}


def test_every_meeting_has_a_secret_and_a_link_of_its_own(store: Store, section_id: str) -> None:
    a_series(store, section_id)

    found = meetings(store)

    assert len({m.secret for m in found}) == len({m.link_token for m in found}) == len(found)
    assert {len(bytes.fromhex(m.secret)) for m in found} == {32}
    assert {len(m.link_token) for m in found} == {22}


def test_laying_out_twice_is_laying_out_once(store: Store, section_id: str) -> None:
    a_series(store, section_id)
    before = meetings(store)

    told = store.write_now(lambda conn: materialise(conn, NOW))

    assert told == []
    assert meetings(store) == before


def test_two_processes_lay_out_the_same_ids(store: Store, section_id: str) -> None:
    a_series(store, section_id)
    before = [m.id for m in meetings(store)]
    store.write_now(lambda conn: conn.execute(MEETINGS.delete()))

    store.write_now(lambda conn: materialise(conn, NOW))

    assert [m.id for m in meetings(store)] == before


def test_time_passing_adds_what_comes_into_view_and_touches_nothing_else(
    store: Store, section_id: str
) -> None:
    a_series(store, section_id)
    before = meetings(store)

    told = store.write_now(lambda conn: materialise(conn, NOW + timedelta(days=14)))

    assert meetings(store)[: len(before)] == before
    assert [e.data["scheduled_start"] for e in told] == [
        "2026-12-28T09:00:00.000Z",
        "2027-01-04T09:00:00.000Z",
    ]


def test_a_series_that_began_weeks_ago_is_laid_out_from_the_meeting_now_running(
    store: Store, section_id: str
) -> None:
    a_series(store, section_id, starts_on=date(2026, 11, 2), now=NOW + timedelta(minutes=49))

    assert dates(store)[0] == "11-23"


def test_a_meeting_of_today_that_is_over_is_not_invented(store: Store, section_id: str) -> None:
    a_series(store, section_id, starts_on=date(2026, 11, 2), now=NOW + timedelta(minutes=50))

    assert dates(store)[0] == "11-30"


def test_a_meeting_over_midnight_is_still_laid_out_after_midnight(store: Store, section_id: str) -> None:
    after_midnight = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)  # 0:30 on the 24th in Berlin

    a_series(store, section_id, local_time="23:30", duration_min=90, now=after_midnight)

    assert dates(store)[0] == "11-23"


@pytest.mark.parametrize(("zone", "first"), [("America/Los_Angeles", "11-23"), ("Pacific/Auckland", "11-24")])
def test_today_is_the_sections_day_and_not_the_servers(
    store: Store, section_id: str, zone: str, first: str
) -> None:
    now = datetime(
        2026, 11, 24, 2, 30, tzinfo=UTC
    )  # the 23rd, 18:30, in Los Angeles; the 24th, 15:30, in Auckland

    a_series(store, section_id, zone=zone, rrule="FREQ=DAILY", local_time="20:00", now=now)

    last = date(2026, 11, int(first[-2:])) + timedelta(weeks=4)
    assert (dates(store)[0], dates(store)[-1]) == (first, f"{last:%m-%d}")


def test_a_series_of_a_closed_section_is_not_laid_out_further(store: Store, section_id: str) -> None:
    a_series(store, section_id)
    store.write_now(lambda conn: conn.execute(update(table(Section)).values(is_active=False)))

    assert store.write_now(lambda conn: materialise(conn, NOW + timedelta(days=70))) == []


def test_a_series_that_cannot_be_read_does_not_keep_the_others_from_being_laid_out(
    store: Store, section_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, _ = a_series(store, section_id)
    a_series(store, section_id, local_time="14:00")
    spoil = update(table(Series)).where(table(Series).c.id == broken).values(rrule="FREQ=NEVER")
    store.write_now(lambda conn: conn.execute(spoil))

    told = store.write_now(lambda conn: materialise(conn, NOW + timedelta(days=7)))

    assert [e.data["scheduled_start"] for e in told] == ["2026-12-28T13:00:00.000Z"]
    assert f"series {broken} cannot be read" in caplog.text


def test_a_weekly_lesson_in_new_york_is_at_nine_on_both_sides_of_1_november_2026(
    store: Store, section_id: str
) -> None:
    values = {"zone": "America/New_York", "local_time": "09:00", "starts_on": date(2026, 10, 19)}

    a_series(store, section_id, now=datetime(2026, 10, 12, 12, tzinfo=UTC), **values)

    found = meetings(store)
    assert [f"{m.scheduled_start:%m-%d %H}" for m in found] == [
        "10-19 13",
        "10-26 13",
        "11-02 14",
        "11-09 14",
    ]
    assert {f"{m.scheduled_start.astimezone(ZoneInfo('America/New_York')):%H:%M}" for m in found} == {"09:00"}
    assert {m.scheduled_end - m.scheduled_start for m in found} == {timedelta(minutes=50)}


def test_a_lesson_at_a_time_that_the_clocks_skip_is_refused_and_leaves_no_trace(
    store: Store, section_id: str
) -> None:
    values = {
        "zone": "America/New_York",
        "local_time": "02:30",
        "rrule": "FREQ=WEEKLY;BYDAY=SU;UNTIL=20260401",
    }

    with pytest.raises(
        InvalidInput, match="02:30 does not exist on 2026-03-08 in America/New_York: the clocks go"
    ):
        a_series(
            store, section_id, starts_on=date(2026, 2, 1), now=datetime(2026, 1, 20, tzinfo=UTC), **values
        )

    assert store.read_now(lambda conn: series_of(conn, section_id)) == []
    assert meetings(store) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=st.lists(st.integers(0, 24 * 40), min_size=1, max_size=6))
def test_however_often_and_when_it_runs_a_date_is_laid_out_once(
    store: Store, section_id: str, hours: list[int]
) -> None:
    store.write_now(lambda conn: (conn.execute(MEETINGS.delete()), conn.execute(table(Series).delete())))
    a_series(store, section_id, rrule="FREQ=DAILY")

    for hour in hours:
        store.write_now(lambda conn, at=NOW + timedelta(hours=hour): materialise(conn, at))  # type: ignore[misc]

    found = [m.occurs_on for m in meetings(store)]
    assert len(found) == len(set(found))
    assert (min(found), max(found)) == (NOW.date(), (NOW + timedelta(hours=max(hours) + 1, weeks=4)).date())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rrule": "FREQ=SECONDLY"}, "FREQ must be one of"),
        ({"local_time": "9am"}, "local_time must look like"),
        ({"zone": "Mars/Olympus"}, "Time zone must be one such as"),
        ({"duration_min": 0}, "duration_min must be 1-1440"),
        ({"room": "R\x00"}, "must not hold control characters"),
        ({"section_id": "nowhere"}, "There is no such class"),
    ],
)
def test_a_series_that_makes_no_sense_is_refused(
    store: Store, section_id: str, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        a_series(store, **{"section_id": section_id} | values)


# -- changing a series ------------------------------------------------------------------------


def test_a_date_left_out_cancels_its_meeting_with_the_reason_and_tells(store: Store, section_id: str) -> None:
    series_id, _ = a_series(store, section_id)

    told = change(store, except_date, series_id, on=date(2026, 12, 7), reason="Teacher training")

    [cancelled] = [m for m in meetings(store) if m.cancelled_at]
    assert (cancelled.occurs_on, cancelled.cancel_reason) == (date(2026, 12, 7), "Teacher training")
    assert [(e.topic, e.name) for e in told] == [
        (meeting_topic(cancelled.id), "meeting.cancelled"),
        (WALL, "meeting.cancelled"),
    ]


def test_a_date_left_out_before_it_is_laid_out_never_appears(store: Store, section_id: str) -> None:
    series_id, _ = a_series(store, section_id)

    assert change(store, except_date, series_id, on=date(2026, 12, 28), reason="Holiday") == []
    store.write_now(lambda conn: materialise(conn, NOW + timedelta(days=14)))

    assert dates(store)[-2:] == ["12-21", "01-04"]


def test_a_date_left_out_does_not_touch_a_meeting_that_has_begun(store: Store, section_id: str) -> None:
    series_id, _ = a_series(store, section_id)
    mark_opened(store, meetings(store)[0].id)

    assert change(store, except_date, series_id, on=date(2026, 11, 23), reason="Too late") == []
    assert dates(store, cancelled=True) == []


def test_ending_a_series_cancels_what_follows_and_lays_out_no_more(store: Store, section_id: str) -> None:
    series_id, _ = a_series(store, section_id, extra_on=[date(2026, 12, 9)])

    told = change(store, end_series, series_id, last_on=date(2026, 12, 8))
    store.write_now(lambda conn: materialise(conn, NOW + timedelta(days=28)))

    assert dates(store) == ["11-23", "11-30", "12-07"]
    assert dates(store, cancelled=True) == ["12-09", "12-14", "12-21"]
    assert [e.name for e in told] == ["meeting.cancelled"] * 6
    [series] = store.read_now(lambda conn: series_of(conn, section_id))
    assert (series.rrule, series.extra_on) == ("FREQ=WEEKLY;BYDAY=MO;UNTIL=20261207", "")


def test_ending_a_series_never_makes_it_longer(store: Store, section_id: str) -> None:
    counted, _ = a_series(store, section_id, rrule="FREQ=WEEKLY;BYDAY=MO;COUNT=2")

    change(store, end_series, counted, last_on=date(2027, 6, 1))
    store.write_now(lambda conn: materialise(conn, NOW + timedelta(days=14)))

    assert dates(store) == ["11-23", "11-30"]


def test_a_series_ended_before_it_began_is_switched_off(store: Store, section_id: str) -> None:
    series_id, _ = a_series(store, section_id)

    change(store, end_series, series_id, last_on=date(2026, 11, 1))

    assert dates(store) == []
    assert not store.read_now(lambda conn: series_of(conn, section_id))[0].is_active


def test_ending_a_series_leaves_the_meeting_that_is_running(store: Store, section_id: str) -> None:
    series_id, _ = a_series(store, section_id)
    mark_opened(store, meetings(store)[0].id)

    change(store, end_series, series_id, last_on=date(2026, 11, 1))

    assert dates(store) == ["11-23"]


# -- single meetings --------------------------------------------------------------------------


def test_a_single_meeting_is_added_and_told_on_the_wall(store: Store, section_id: str) -> None:
    start = NOW + timedelta(days=1)

    meeting_id, told = store.write_now(
        lambda conn: add_meeting(
            conn, TEACHER, section_id=section_id, start=start, end=start + timedelta(hours=1), now=NOW
        )
    )

    [meeting] = meetings(store)
    assert (meeting.id, meeting.scheduled_start, meeting.room, meeting.series_id) == (
        meeting_id,
        start,
        "R12",
        None,
    )
    assert [(e.topic, e.name, e.data["meeting_id"]) for e in told] == [
        (WALL, "meeting.scheduled", meeting_id)
    ]


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (NOW, NOW, "end must be after"),
        (NOW, NOW + timedelta(hours=25), "at most 24 hours"),
        (NOW - timedelta(hours=2), NOW, "end must not lie in the past"),
        (datetime(2026, 12, 1, 9), NOW, "start needs a time zone"),
    ],
)
def test_a_meeting_at_an_impossible_time_is_refused(
    store: Store, section_id: str, start: datetime, end: datetime, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        store.write_now(
            lambda conn: add_meeting(conn, TEACHER, section_id=section_id, start=start, end=end, now=NOW)
        )

    assert meetings(store) == []


def test_a_moved_meeting_keeps_its_length_its_place_in_the_series_and_is_told(
    store: Store, section_id: str
) -> None:
    a_series(store, section_id)
    meeting = meetings(store)[1]
    later = meeting.scheduled_start + timedelta(hours=3)

    told = change(store, move_meeting, meeting.id, start=later, room="Gym")
    store.write_now(lambda conn: materialise(conn, NOW))

    moved = meetings(store)[1]
    assert (moved.id, moved.occurs_on, moved.scheduled_start, moved.room) == (
        meeting.id,
        date(2026, 11, 30),
        later,
        "Gym",
    )
    assert moved.scheduled_end - moved.scheduled_start == timedelta(minutes=50)
    assert [(e.topic, e.name) for e in told] == [
        (meeting_topic(meeting.id), "meeting.changed"),
        (WALL, "meeting.changed"),
    ]
    assert told[0].data["scheduled_start"] == "2026-11-30T12:00:00.000Z"


def test_moving_a_meeting_to_where_it_is_tells_nobody(store: Store, section_id: str) -> None:
    a_series(store, section_id)
    meeting = meetings(store)[1]

    assert change(store, move_meeting, meeting.id, start=meeting.scheduled_start, room=meeting.room) == []


def test_a_meeting_that_was_opened_or_is_over_or_cancelled_is_not_moved(
    store: Store, section_id: str
) -> None:
    a_series(store, section_id)
    opened, over, cancelled = (m.id for m in meetings(store)[:3])
    mark_opened(store, opened)
    change(store, cancel_meeting, cancelled, reason="Ill")

    for meeting_id, now in ((opened, NOW), (over, NOW + timedelta(days=8)), (cancelled, NOW)):
        with pytest.raises(InvalidInput, match="not ahead any more"):
            change(store, move_meeting, meeting_id, start=NOW + timedelta(days=20), now=now)


def test_a_meeting_is_not_moved_into_the_past(store: Store, section_id: str) -> None:
    a_series(store, section_id)

    with pytest.raises(InvalidInput, match="start must not lie in the past"):
        change(store, move_meeting, meetings(store)[1].id, start=NOW - timedelta(minutes=1))


def test_a_cancelled_meeting_can_be_restored_and_its_date_is_taught_again(
    store: Store, section_id: str
) -> None:
    series_id, _ = a_series(store, section_id)
    meeting_id = meetings(store)[2].id
    change(store, except_date, series_id, on=date(2026, 12, 7), reason="Strike")

    told = change(store, restore_meeting, meeting_id)

    assert dates(store, cancelled=True) == []
    assert [(e.name, e.data["is_cancelled"]) for e in told] == [("meeting.changed", False)] * 2
    assert store.read_now(lambda conn: series_of(conn, section_id))[0].except_on == ""
    assert change(store, restore_meeting, meeting_id) == []


def test_cancelling_twice_tells_once(store: Store, section_id: str) -> None:
    a_series(store, section_id)
    meeting_id = meetings(store)[0].id

    first = change(store, cancel_meeting, meeting_id, reason="Ill")
    second = change(store, cancel_meeting, meeting_id, reason="Still ill")

    assert (len(first), second) == (2, [])
    assert store.read_now(lambda conn: read_after(conn, meeting_topic(meeting_id), 0)) == first[:1]
    assert meetings(store)[0].cancel_reason == "Ill"


def test_a_cancellation_needs_a_reason_and_a_meeting_that_did_not_take_place(
    store: Store, section_id: str
) -> None:
    a_series(store, section_id)
    meeting_id = meetings(store)[0].id

    with pytest.raises(InvalidInput, match="Reason is required"):
        change(store, cancel_meeting, meeting_id, reason="  ")
    mark_opened(store, meeting_id, closed_at=NOW)
    with pytest.raises(InvalidInput, match="took place"):
        change(store, cancel_meeting, meeting_id, reason="Ill")
    with pytest.raises(InvalidInput, match="no such meeting"):
        change(store, cancel_meeting, new_id(), reason="Ill")


@pytest.mark.parametrize(
    "standing",
    [NOBODY, STUDENT, SUBSTITUTE, Standing(staff_role=EnrolmentRole.TEACHER), Standing(is_admin=True)],
)
def test_only_teachers_of_the_section_and_admins_change_its_timetable(
    store: Store, section_id: str, standing: Standing
) -> None:
    series_id, _ = a_series(store, section_id)
    before, told = meetings(store), store.read_now(lambda conn: head(conn, WALL))
    meeting_id = before[0].id
    attempts: list[Any] = [
        lambda conn: add_series(
            conn,
            standing,
            section_id=section_id,
            starts_on=NOW.date(),
            local_time="10:00",
            duration_min=50,
            rrule="FREQ=DAILY",
            now=NOW,
        ),
        lambda conn: end_series(conn, standing, series_id, last_on=NOW.date(), now=NOW),
        lambda conn: except_date(conn, standing, series_id, on=NOW.date(), reason="x", now=NOW),
        lambda conn: add_meeting(
            conn, standing, section_id=section_id, start=NOW, end=NOW + timedelta(hours=1), now=NOW
        ),
        lambda conn: move_meeting(conn, standing, meeting_id, now=NOW, room="x"),
        lambda conn: cancel_meeting(conn, standing, meeting_id, reason="x", now=NOW),
        lambda conn: restore_meeting(conn, standing, meeting_id, now=NOW),
    ]

    for attempt in attempts:
        with pytest.raises(Denied):
            store.write_now(attempt)

    assert meetings(store) == before
    assert store.read_now(lambda conn: head(conn, WALL)) == told


# -- meetings left open -----------------------------------------------------------------------


def said(
    store: Store, klass: AClass, kind: Kind, at: datetime, author: Author | None = None, **values: Any
) -> None:
    operation = make(kind, meeting_id=klass.meeting_id, captured_at=at, **values)
    recorded(store, operation, at, author or klass.teacher)


def recorded(store: Store, operation: Operation, at: datetime, author: Author = SYSTEM) -> str:
    batch = [Submission(operation, author, at)]
    [outcome] = store.write_now(lambda conn: record_batch(conn, batch, now=at)).outcomes
    assert outcome.outcome in ("accepted", "duplicate"), outcome
    return outcome.outcome


def due(store: Store, at: datetime) -> list[Operation]:
    return store.read_now(lambda conn: due_closes(conn, at))


END = NOW + timedelta(minutes=50)
DUE = END + timedelta(minutes=15)


def test_a_meeting_left_open_is_closed_a_quarter_of_an_hour_after_its_end(store: Store) -> None:
    klass = a_class(store, start=NOW)
    said(store, klass, Kind.OPEN_MEETING, NOW)

    assert due(store, DUE - timedelta(milliseconds=1)) == []
    [close] = due(store, DUE)

    assert (close.kind, close.meeting_id, close.final, close.captured_at) == (
        Kind.CLOSE_MEETING,
        klass.meeting_id,
        True,
        DUE,
    )


def test_whoever_asks_and_whenever_the_close_is_the_same_operation_and_counts_once(store: Store) -> None:
    klass = a_class(store, start=NOW)
    said(store, klass, Kind.OPEN_MEETING, NOW)

    [one], [two] = due(store, DUE), due(store, DUE + timedelta(hours=3))

    assert (one, one.content_hash) == (two, two.content_hash)
    assert [recorded(store, one, DUE), recorded(store, two, DUE + timedelta(hours=3))] == [
        "accepted",
        "duplicate",
    ]
    assert due(store, DUE + timedelta(days=1)) == []


def test_a_meeting_that_is_scheduled_closed_or_cancelled_is_not_due(store: Store) -> None:
    scheduled, closed, cancelled = (a_class(store, start=NOW, code=code) for code in ("A", "B", "C"))
    for klass in (closed, cancelled):
        said(store, klass, Kind.OPEN_MEETING, NOW)
    said(store, closed, Kind.CLOSE_MEETING, END)
    change(store, cancel_meeting, cancelled.meeting_id, reason="Fire alarm")

    assert due(store, DUE + timedelta(days=1)) == []
    assert scheduled.meeting_id


def test_a_meeting_reopened_after_its_end_is_given_its_time_and_then_closed_anew(store: Store) -> None:
    klass = a_class(store, start=NOW)
    said(store, klass, Kind.OPEN_MEETING, NOW)
    [first] = due(store, DUE)
    recorded(store, first, DUE)
    reopened_at = DUE + timedelta(hours=1)
    said(store, klass, Kind.REOPEN_MEETING, reopened_at, remark="Two came late")

    assert due(store, reopened_at + timedelta(minutes=14)) == []
    [second] = due(store, reopened_at + timedelta(minutes=15))

    assert second.id != first.id
    assert recorded(store, second, reopened_at + timedelta(minutes=15)) == "accepted"
    assert due(store, reopened_at + timedelta(days=1)) == []


def test_a_close_that_was_taken_back_is_made_anew_and_not_taken_for_the_first(store: Store) -> None:
    klass = a_class(store, start=NOW)
    said(store, klass, Kind.OPEN_MEETING, NOW)
    [first] = due(store, DUE)
    recorded(store, first, DUE)
    undone_at = DUE + timedelta(minutes=1)
    said(store, klass, Kind.REVERT, undone_at, reverts=first.id)

    [second] = due(store, undone_at + timedelta(minutes=15))

    assert recorded(store, second, undone_at + timedelta(minutes=15)) == "accepted"
    assert due(store, undone_at + timedelta(days=1)) == []


def test_the_policy_of_its_start_says_how_long_a_meeting_may_stay_open(store: Store) -> None:
    klass = a_class(store, start=NOW)
    store.write_now(lambda conn: a_policy(conn, auto_close_after_min=60))
    said(store, klass, Kind.OPEN_MEETING, NOW)

    assert due(store, END + timedelta(minutes=59)) == []
    assert len(due(store, END + timedelta(minutes=60))) == 1
