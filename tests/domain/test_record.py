"""The one write path, on a real database: what is answered, what is kept, what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from domain import events, operations, register
from domain.access import SYSTEM, Author
from domain.clock import ManualClock
from domain.events import meeting_topic
from domain.ids import new_id
from domain.model import EnrolmentRole, EventRow, Kind, OperationRow, RecordRow, table
from domain.muster import Muster
from domain.operations import Operation
from domain.outcomes import Outcome
from domain.proofs import code, link_proof
from domain.record import Submission, record_batch
from domain.settings import Settings
from domain.store import Store, open_store
from tests.factories import NOW, AClass, a_class, a_meeting, a_person, a_policy, an_enrolment, make_class

pytestmark = pytest.mark.both_databases

make = operations.make


def record(
    store: Store, author: Author, *ops: Operation, at: Any = NOW, throttle: Any = None
) -> list[Outcome]:
    submissions = [Submission(op, author, at) for op in ops]
    return store.write_now(lambda conn: record_batch(conn, submissions, now=at, throttle=throttle)).outcomes


def opened(store: Store, **values: Any) -> AClass:
    klass = a_class(store, **values)
    (outcome,) = record(store, klass.teacher, make("open_meeting", meeting_id=klass.meeting_id))
    assert outcome.outcome == "accepted"
    return klass


def check_in(klass: AClass, at: Any = NOW, **values: Any) -> Operation:
    return make(
        "check_in",
        meeting_id=klass.meeting_id,
        captured_at=at,
        clock_offset_ms=0,
        **({"via": "qr", "proof": klass.qr(at)} | values),
    )


def mark(klass: AClass, number: int, status: str, at: Any = NOW, **values: Any) -> Operation:
    return make(
        "mark",
        meeting_id=klass.meeting_id,
        student_id=klass.students[number],
        status=status,
        captured_at=at,
        **values,
    )


def statuses(store: Store, klass: AClass, at: Any = NOW) -> list[str | None]:
    view = store.read_now(lambda conn: register.read_meeting(conn, klass.meeting_id, at))
    assert view is not None
    by_id = {row.student_id: row.status for row in view.roster}
    return [by_id[student] for student in klass.students]


def told(store: Store, klass: AClass) -> list[str]:
    return [
        e.name
        for e in store.read_now(lambda conn: events.read_after(conn, meeting_topic(klass.meeting_id), 0))
    ]


def count(store: Store, model: Any) -> int:
    return len(store.read_now(lambda conn: conn.execute(select(table(model))).all()))


def test_a_student_checks_in_with_what_is_on_the_board(store: Store) -> None:
    klass = opened(store)

    (outcome,) = record(store, klass.student(), check_in(klass))

    assert (outcome.outcome, outcome.code, outcome.seq) == ("accepted", None, 2)
    assert outcome.record is not None and outcome.record["status"] == "present"
    assert statuses(store, klass) == ["present", None, None]
    assert told(store, klass) == ["meeting.opened", "record.changed"]


def test_a_code_alone_finds_the_meeting(store: Store) -> None:
    klass = opened(store)
    opened(store, code="another class")

    (outcome,) = record(store, klass.student(), make("check_in", via="code", proof=code(klass.secret, NOW)))

    assert outcome.record is not None and outcome.record["meeting_id"] == klass.meeting_id


def test_the_same_operation_again_is_a_duplicate_with_the_first_answer(store: Store) -> None:
    klass = opened(store)
    operation = check_in(klass)

    first, same_batch = record(store, klass.student(), operation, operation)
    (again,) = record(store, klass.student(), operation)

    assert [o.outcome for o in (first, same_batch, again)] == ["accepted", "duplicate", "duplicate"]
    assert first.seq == same_batch.seq == again.seq and first.record == again.record
    assert count(store, OperationRow) == 2


def test_the_same_id_with_other_content_or_by_somebody_else_is_refused(store: Store) -> None:
    klass = opened(store)
    operation = mark(klass, 0, "present")
    record(store, klass.teacher, operation)

    (other_content,) = record(store, klass.teacher, mark(klass, 0, "absent", id=operation.id))
    (other_author,) = record(store, klass.co_teacher, operation)

    assert [other_content.code, other_author.code] == ["id_reused", "id_reused"]
    assert statuses(store, klass)[0] == "present"


def test_a_second_check_in_is_kept_and_says_that_there_is_nothing_to_do(store: Store) -> None:
    klass = opened(store)
    record(store, klass.student(), check_in(klass))

    (outcome,) = record(
        store, klass.student(), check_in(klass, NOW + timedelta(minutes=9)), at=NOW + timedelta(minutes=9)
    )

    assert (outcome.outcome, outcome.code) == ("accepted", "already_checked_in")
    assert outcome.record is not None and outcome.record["status"] == "present"


@pytest.mark.parametrize(
    ("change", "code_"),
    [
        ({"proof": "123"}, "bad_proof"),
        ({"via": "code", "proof": "000000"}, "bad_proof"),
        ({"via": "link", "proof": "nonsense"}, "bad_proof"),
        ({"at": NOW + timedelta(minutes=3), "shown": NOW}, "proof_expired"),
        ({"at": NOW - timedelta(minutes=11)}, "too_early"),
        ({"via": "tap", "proof": None}, "unverified"),
    ],
)
def test_each_failure_has_a_code_of_its_own_and_a_line_in_the_feed(
    store: Store, change: dict[str, Any], code_: str
) -> None:
    klass = opened(store)
    change = dict(change)
    at, shown = change.pop("at", NOW), change.pop("shown", None)
    if shown is not None:
        change["proof"] = klass.qr(shown)

    (outcome,) = record(store, klass.student(), check_in(klass, at, **change), at=at)

    assert (outcome.code, bool(outcome.hint)) == (code_, True)
    assert told(store, klass)[-1] == ("record.changed" if code_ == "unverified" else "check_in.failed")


def test_who_is_not_enrolled_at_the_time_of_the_meeting_cannot_check_in(store: Store) -> None:
    klass, other = opened(store), a_class(store, code="other")
    late = store.write_now(lambda conn: a_person(conn, name="Joins tomorrow"))
    store.write_now(
        lambda conn: an_enrolment(conn, klass.section_id, late, begins_at=NOW + timedelta(days=1))
    )
    gone = store.write_now(lambda conn: a_person(conn, name="Left yesterday"))
    store.write_now(lambda conn: an_enrolment(conn, klass.section_id, gone, ends_at=NOW - timedelta(days=1)))

    codes = [record(store, Author(p), check_in(klass))[0].code for p in (other.students[0], late, gone)]

    assert codes == ["not_enrolled"] * 3
    assert told(store, klass).count("check_in.failed") == 3


def test_a_meeting_that_is_not_open_closed_or_cancelled_takes_no_check_in(store: Store) -> None:
    klass = a_class(store)
    link = check_in(klass, via="link", proof=link_proof(klass.meeting_id, klass.link_token))

    not_open = record(store, klass.student(), link)[0].code
    record(store, klass.teacher, make("open_meeting", meeting_id=klass.meeting_id, captured_at=NOW))
    record(store, klass.teacher, make("close_meeting", meeting_id=klass.meeting_id, captured_at=NOW))
    later = NOW + timedelta(minutes=1)
    closed = record(store, klass.student(1), check_in(klass, later), at=later)[0].code
    store.write_now(
        lambda conn: conn.execute(text("UPDATE meetings SET cancelled_at = '2026-11-23 08:00:00.000000'"))
    )
    cancelled = record(store, klass.student(1), check_in(klass, later), at=later)[0].code

    assert [not_open, closed, cancelled] == ["not_open", "meeting_closed", "meeting_cancelled"]


def test_after_the_cutoff_a_policy_may_refuse(store: Store) -> None:
    store.write_now(lambda conn: a_policy(conn, after_cutoff="refuse"))
    klass = opened(store)
    at = NOW + timedelta(minutes=31)

    assert record(store, klass.student(), check_in(klass, at), at=at)[0].code == "too_late"


def test_a_token_of_one_meeting_is_worth_nothing_in_another(store: Store) -> None:
    klass = opened(store)
    second = store.write_now(lambda conn: a_meeting(conn, klass.section_id, start=NOW + timedelta(minutes=5)))
    record(store, klass.teacher, make("open_meeting", meeting_id=second.id))

    (outcome,) = record(
        store,
        klass.student(),
        make("check_in", meeting_id=second.id, via="qr", proof=klass.qr(NOW), captured_at=NOW),
    )

    assert outcome.code == "bad_proof"


def test_closing_makes_exactly_the_enrolled_and_unmarked_absent_once(store: Store) -> None:
    klass = opened(store, students=4)
    gone = store.write_now(lambda conn: a_person(conn, name="Left"))
    store.write_now(lambda conn: an_enrolment(conn, klass.section_id, gone, ends_at=NOW - timedelta(days=1)))
    record(store, klass.student(0), check_in(klass))
    record(store, klass.teacher, mark(klass, 1, "excused"))

    for author in (klass.teacher, klass.co_teacher, SYSTEM):
        record(store, author, make("close_meeting", meeting_id=klass.meeting_id))

    assert statuses(store, klass) == ["present", "excused", "absent", "absent"]
    assert count(store, RecordRow) == 4
    assert told(store, klass).count("meeting.closed") == 1


def test_an_offline_check_in_that_arrives_after_the_close_still_wins(store: Store) -> None:
    klass = opened(store)
    record(
        store,
        klass.teacher,
        make("close_meeting", meeting_id=klass.meeting_id),
        at=NOW + timedelta(minutes=50),
    )

    (outcome,) = record(store, klass.student(), check_in(klass), at=NOW + timedelta(hours=5))

    assert outcome.record is not None and outcome.record["status"] == "present"


def test_a_manual_absence_stands_against_a_late_capture_and_one_tap_accepts_it(store: Store) -> None:
    klass = opened(store)
    record(
        store,
        klass.teacher,
        mark(klass, 0, "absent", NOW + timedelta(minutes=20)),
        at=NOW + timedelta(minutes=20),
    )

    (arrived,) = record(store, klass.student(), check_in(klass), at=NOW + timedelta(hours=2))
    (settled,) = record(
        store,
        klass.teacher,
        mark(klass, 0, "present", NOW + timedelta(hours=2), seen_seq=arrived.seq),
        at=NOW + timedelta(hours=2),
    )

    assert arrived.contested and arrived.record is not None
    assert arrived.record["status"] == "absent" and arrived.record["proposal"]["status"] == "present"
    assert not settled.contested and "record.contested" in told(store, klass)


def test_register_taken_is_a_fact_of_its_own(store: Store) -> None:
    by_hand, by_itself = opened(store), opened(store, code="left open")
    record(store, by_hand.teacher, make("close_meeting", meeting_id=by_hand.meeting_id))
    record(store, SYSTEM, make("close_meeting", meeting_id=by_itself.meeting_id))

    def is_taken(klass: AClass) -> bool:
        view = store.read_now(lambda conn: register.read_meeting(conn, klass.meeting_id, NOW))
        return view is not None and view.is_register_taken

    assert [is_taken(by_hand), is_taken(by_itself)] == [True, False]


def test_undo_of_a_bulk_leaves_what_a_colleague_has_changed(store: Store) -> None:
    klass = opened(store, students=4)
    bulk = [mark(klass, n, "present") for n in range(4)]
    record(store, klass.teacher, *bulk)
    record(
        store, klass.co_teacher, mark(klass, 1, "late", seen_seq=99), mark(klass, 2, "excused", seen_seq=99)
    )

    record(store, klass.teacher, *(make("revert", meeting_id=klass.meeting_id, reverts=op.id) for op in bulk))

    assert statuses(store, klass) == [None, "late", "excused", None]
    assert count(store, RecordRow) == 2


def test_a_colleague_cannot_take_back_what_an_admin_said(store: Store) -> None:
    klass = opened(store)
    operation = mark(klass, 0, "excused")
    record(store, Author(klass.admin), operation)

    assert (
        record(store, klass.teacher, make("revert", meeting_id=klass.meeting_id, reverts=operation.id))[
            0
        ].code
        == "forbidden"
    )


def test_reopening_needs_a_reason_and_lets_the_class_go_on(store: Store) -> None:
    klass = opened(store)
    record(store, klass.teacher, make("close_meeting", meeting_id=klass.meeting_id))
    later = NOW + timedelta(minutes=2)

    with pytest.raises(operations.InvalidOperation, match="say why"):
        make("reopen_meeting", meeting_id=klass.meeting_id)
    record(
        store,
        klass.teacher,
        make("reopen_meeting", meeting_id=klass.meeting_id, remark="closed by mistake"),
        at=later,
    )
    (outcome,) = record(store, klass.student(), check_in(klass, later), at=later)

    assert outcome.outcome == "accepted"
    assert statuses(store, klass) == ["present", None, None]


def test_what_speaks_of_a_meeting_that_has_not_come_yet_waits_for_it(store: Store) -> None:
    klass = a_class(store)
    meeting_id = new_id(NOW)
    waiting = make(
        "mark",
        meeting_id=meeting_id,
        student_id=klass.students[0],
        status="late",
        minutes_late=3,
        captured_at=NOW,
    )
    undo = make("revert", meeting_id=meeting_id, reverts=waiting.id, captured_at=NOW)

    parked = record(store, klass.teacher, undo, waiting, waiting)
    (outcome,) = record(
        store, klass.teacher, make("open_meeting", meeting_id=meeting_id, section_id=klass.section_id)
    )
    (answer,) = record(store, klass.teacher, waiting)

    assert [o.outcome for o in parked] == ["parked"] * 3
    assert (outcome.outcome, answer.outcome) == ("accepted", "duplicate")
    assert answer.record is not None and answer.record["status"] is None
    assert (
        store.read_now(lambda conn: conn.execute(text("SELECT count(*) FROM parked_operations")).scalar_one())
        == 0
    )


def test_unknown_ids_leave_no_trace(store: Store) -> None:
    klass, nobody = opened(store), "00000000-0000-4000-8000-000000000000"
    before = [count(store, model) for model in (OperationRow, EventRow, RecordRow)]

    answers = record(
        store,
        klass.teacher,
        make("mark", meeting_id=nobody, student_id=klass.students[0], status="present"),
        make("mark", meeting_id=klass.meeting_id, student_id=nobody, status="present"),
        make("revert", meeting_id=klass.meeting_id, reverts=nobody),
        make("open_meeting", meeting_id=new_id(), section_id=nobody),
        make("open_meeting", meeting_id=new_id()),
        make("mark", meeting_id=klass.meeting_id, student_id=klass.students[0], status="present", code="ZZ"),
    )

    assert [a.code for a in answers] == [
        "unknown_meeting",
        "not_enrolled",
        "unknown_operation",
        "forbidden",
        "unknown_meeting",
        "unknown_code",
    ]
    assert [count(store, model) for model in (OperationRow, EventRow, RecordRow)] == before


@pytest.mark.parametrize(
    "who", ["student", "guardian", "other teacher", "nobody", "ended substitute", "inactive teacher"]
)
def test_who_does_not_teach_the_class_may_not_run_it(store: Store, who: str) -> None:
    klass, other = opened(store), a_class(store, code="other")
    substitute = store.write_now(lambda conn: a_person(conn, role="teacher", name="Substitute"))  # type: ignore[arg-type]
    store.write_now(
        lambda conn: an_enrolment(
            conn,
            klass.section_id,
            substitute,
            EnrolmentRole.SUBSTITUTE,
            begins_at=NOW - timedelta(hours=4),
            ends_at=NOW,
        )
    )
    if who == "inactive teacher":
        store.write_now(
            lambda conn: conn.execute(
                text("UPDATE people SET is_active = :no WHERE id = :id"),
                {"no": False, "id": klass.teachers[1]},
            )
        )
    author = {
        "student": klass.student(),
        "guardian": Author(klass.guardian),
        "other teacher": other.teacher,
        "nobody": Author(new_id()),
        "ended substitute": Author(substitute),
        "inactive teacher": klass.co_teacher,
    }[who]

    answers = record(
        store,
        author,
        mark(klass, 0, "present"),
        make("close_meeting", meeting_id=klass.meeting_id),
        make("reopen_meeting", meeting_id=klass.meeting_id, remark="x"),
        make("open_meeting", meeting_id=klass.meeting_id),
        make(
            "check_in",
            meeting_id=klass.meeting_id,
            student_id=klass.students[1],
            via="qr",
            proof=klass.qr(NOW),
        ),
    )

    assert {a.code for a in answers} == {"forbidden"}
    assert count(store, OperationRow) == 1


def test_a_substitute_runs_the_class_inside_the_granted_time(store: Store) -> None:
    klass = a_class(store)
    substitute = store.write_now(lambda conn: a_person(conn, role="teacher", name="Substitute"))  # type: ignore[arg-type]
    store.write_now(
        lambda conn: an_enrolment(
            conn,
            klass.section_id,
            substitute,
            EnrolmentRole.SUBSTITUTE,
            begins_at=NOW,
            ends_at=NOW + timedelta(hours=4),
        )
    )

    inside = record(store, Author(substitute), make("open_meeting", meeting_id=klass.meeting_id))[0]
    outside = record(store, Author(substitute), mark(klass, 0, "present"), at=NOW + timedelta(hours=4))[0]

    assert (inside.outcome, outside.code) == ("accepted", "forbidden")


def test_after_the_lock_only_an_admin_corrects(store: Store) -> None:
    klass = opened(store)
    record(store, klass.teacher, make("close_meeting", meeting_id=klass.meeting_id))
    later = NOW + timedelta(days=15)

    (teacher,) = record(store, klass.teacher, mark(klass, 0, "present"), at=later)
    (admin,) = record(store, Author(klass.admin), mark(klass, 0, "present"), at=later)

    assert (teacher.code, admin.outcome) == ("meeting_locked", "accepted")


def test_an_attendance_code_says_who_may_set_it(store: Store) -> None:
    klass = opened(store)

    (teacher,) = record(store, klass.teacher, mark(klass, 0, "excused", code="N"))
    (admin,) = record(store, Author(klass.admin), mark(klass, 0, "excused", code="N"))

    assert teacher.code == "forbidden"
    assert admin.record is not None and admin.record["code"] == "N"


@pytest.mark.parametrize("table_", ["operations", "events"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {} SET seq = 7", "DELETE FROM {}", "INSERT OR REPLACE INTO {0} SELECT * FROM {0} LIMIT 1"],
)
def test_history_cannot_be_changed_even_by_hand(
    store: Store, database: str, table_: str, statement: str
) -> None:
    opened(store)
    if database == "postgresql":  # which knows no REPLACE, but empties tables
        statement = statement.replace("INSERT OR REPLACE INTO {0} SELECT * FROM {0} LIMIT 1", "TRUNCATE {}")

    with pytest.raises(IntegrityError, match=r"append-only|without gaps"):
        store.write_now(lambda conn: conn.execute(text(statement.format(table_))))


def test_an_event_number_cannot_be_left_out_even_by_hand(store: Store) -> None:
    klass = opened(store)

    with pytest.raises(IntegrityError, match="without gaps"):
        store.write_now(
            lambda conn: conn.execute(
                text(
                    "INSERT INTO events (id, topic, seq, name, at, data) "
                    "VALUES (999, :t, 9, 'x', '2026-01-01 00:00:00', '{}')"
                ),
                {"t": meeting_topic(klass.meeting_id)},
            )
        )


async def test_thirty_students_at_once_some_twice_some_retried_make_thirty_records(muster: Muster) -> None:
    klass = a_class(muster.store, students=30)
    await muster.recorder.record([make("open_meeting", meeting_id=klass.meeting_id)], klass.teacher)
    heard: list[int] = []
    muster.on_commit(
        lambda committed: heard.extend(e.seq for e in committed if e.topic == meeting_topic(klass.meeting_id))
    )
    attempts: list[tuple[Author, Operation]] = []
    for number in range(30):
        operation = check_in(klass)
        attempts.append((klass.student(number), operation))
        if number < 5:
            attempts.append((klass.student(number), check_in(klass)))  # a double tap
        if 5 <= number < 8:
            attempts.append((klass.student(number), operation))  # a retry with the same id

    answers = await asyncio.gather(*(muster.recorder.record([op], author) for author, op in attempts))

    assert [a[0].outcome.value for a in answers].count("duplicate") == 3
    assert all(a[0].outcome in ("accepted", "duplicate") for a in answers)
    assert statuses(muster.store, klass) == ["present"] * 30
    assert count(muster.store, RecordRow) == 30
    assert heard == list(range(2, 2 + 35))


async def test_a_bad_item_does_not_hurt_its_neighbours(
    muster: Muster, monkeypatch: pytest.MonkeyPatch
) -> None:
    klass = a_class(muster.store)
    await muster.recorder.record([make("open_meeting", meeting_id=klass.meeting_id)], klass.teacher)
    bad = mark(klass, 1, "present")
    original = record_batch

    def failing(conn: Any, submissions: Sequence[Submission], **values: Any) -> Any:
        recorded = original(conn, submissions, **values)
        if any(s.operation is bad for s in submissions):
            raise IntegrityError("a constraint", None, Exception("was broken"))
        return recorded

    monkeypatch.setattr("domain.record.record_batch", failing)

    outcomes = await muster.recorder.record(
        [mark(klass, 0, "late"), bad, mark(klass, 2, "remote")], klass.teacher
    )

    assert [o.outcome.value for o in outcomes] == ["accepted", "rejected", "accepted"]
    assert outcomes[1].code == "busy"
    assert statuses(muster.store, klass) == ["late", None, "remote"]


async def test_an_ended_login_records_nothing_more(muster: Muster) -> None:
    klass = a_class(muster.store)

    (outcome,) = await muster.recorder.record(
        [make("open_meeting", meeting_id=klass.meeting_id)], Author(klass.teachers[0], login_id=new_id())
    )

    assert outcome.code == "forbidden"


async def test_guessing_codes_is_slowed_down_for_the_guesser_and_nobody_else(
    muster: Muster, clock: ManualClock
) -> None:
    klass = a_class(muster.store, students=41)
    await muster.recorder.record([make("open_meeting", meeting_id=klass.meeting_id)], klass.teacher)
    wrong = [make("check_in", meeting_id=klass.meeting_id, via="code", proof="000000") for _ in range(8)]

    guesses = await muster.recorder.record(wrong, klass.student(), address="192.0.2.1")
    (right,) = await muster.recorder.record([check_in(klass)], klass.student(), address="192.0.2.1")
    others = [
        (
            await muster.recorder.record(
                [make("check_in", meeting_id=klass.meeting_id, via="code", proof="000000")],
                klass.student(n),
                address="192.0.2.1",
            )
        )[0].code
        for n in range(1, 41)
    ]
    clock.advance(minutes=1)
    (later,) = await muster.recorder.record(
        [check_in(klass, clock.now())], klass.student(), address="192.0.2.1"
    )

    assert [g.code for g in guesses] == ["bad_proof"] * 5 + ["rate_limited"] * 3
    assert right.code == "rate_limited" and right.retry_after is not None
    assert others == ["bad_proof"] * 40
    assert later.outcome == "accepted"


# -- the law: order, duplication and batching do not matter ------------------------------------


@st.composite
def _histories(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """What two teachers, an admin, two students and the system say of one meeting, as (author, fields)."""
    said: list[tuple[str, dict[str, Any]]] = []
    for n in range(draw(st.integers(1, 10))):
        minute = draw(st.integers(0, 45))
        kind = draw(st.sampled_from(["mark", "check_in", "revert", "close"]))
        device = draw(st.sampled_from([None, 1, 2]))
        common: dict[str, Any] = {"minute": minute, "device": device, "device_seq": n}
        if kind == "mark":
            status = draw(st.sampled_from(["present", "late", "absent", "excused", "remote", "left_early"]))
            said.append(
                (
                    draw(st.sampled_from(["t0", "t1", "admin"])),
                    {"kind": "mark", "student": draw(st.integers(0, 1)), "status": status} | common,
                )
            )
        elif kind == "check_in":
            student = draw(st.integers(0, 1))
            said.append((f"s{student}", {"kind": "check_in", "proven": draw(st.booleans())} | common))
        elif kind == "revert" and said:
            said.append(
                (
                    draw(st.sampled_from(["t0", "admin"])),
                    {"kind": "revert", "of": draw(st.integers(0, len(said) - 1))} | common,
                )
            )
        elif kind == "close":
            said.append(
                (draw(st.sampled_from(["t0", "system"])), {"kind": "close_meeting"} | common | {"minute": 46})
            )
    return said


def _operations(
    klass: AClass, meeting_id: str, secret: bytes, said: list[tuple[str, dict[str, Any]]]
) -> list[tuple[Author, Operation]]:
    from domain.proofs import qr_token

    devices = {None: None, 1: klass.section_id, 2: klass.admin}  # any two UUIDs
    made: list[tuple[Author, Operation]] = []
    authors = {
        "t0": klass.teacher,
        "t1": klass.co_teacher,
        "admin": Author(klass.admin),
        "s0": klass.student(0),
        "s1": klass.student(1),
        "system": SYSTEM,
    }
    for author, fields in said:
        at = NOW + timedelta(minutes=fields["minute"])
        common: dict[str, Any] = {
            "id": new_id(at),
            "meeting_id": meeting_id,
            "captured_at": at,
            "clock_offset_ms": 0,
        }
        if fields["device"] is not None:
            common |= {"device_id": devices[fields["device"]], "device_seq": fields["device_seq"]}
        if fields["kind"] == "mark":
            operation = make(
                "mark", student_id=klass.students[fields["student"]], status=fields["status"], **common
            )
        elif fields["kind"] == "check_in":
            how = (
                {"via": "qr", "proof": qr_token(secret, meeting_id, at)}
                if fields["proven"]
                else {"via": "tap"}
            )
            operation = make("check_in", **(common | how))
        elif fields["kind"] == "revert":
            operation = make("revert", reverts=made[fields["of"]][1].id, **common)
        else:
            operation = make("close_meeting", **common)
        made.append((authors[author], operation))
    return made


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Any:
    settings_ = Settings(data=tmp_path_factory.mktemp("laws"))
    settings_.sqlite_path.write_bytes(migrated_database.read_bytes())
    store = open_store(settings_)
    yield store
    store.close()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(said=_histories(), data=st.data())
def test_any_order_duplication_and_batching_give_byte_equal_records(
    shared_store: Store, said: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    received = NOW + timedelta(hours=2)

    def run(order: Sequence[int], cuts: set[int]) -> list[Any]:
        """Record the operations in this order, cut into these batches, in a database state that is then undone."""

        class Undo(Exception):
            pass

        found: list[Any] = []

        def work(conn: Any) -> None:
            batch: list[Submission] = []
            for place, index in enumerate(order):
                author, operation = ops[index]
                batch.append(Submission(operation, author, received))
                if place in cuts or place == len(order) - 1:
                    record_batch(conn, batch, now=received)
                    batch = []
            rows = conn.execute(
                select(table(RecordRow))
                .where(table(RecordRow).c.meeting_id == klass.meeting_id)
                .order_by(table(RecordRow).c.student_id)
            )
            found.extend(tuple(row) for row in rows)
            log = events.read_after(conn, meeting_topic(klass.meeting_id), 0)
            assert [event.seq for event in log] == list(range(1, len(log) + 1))
            raise Undo

        with pytest.raises(Undo):
            shared_store.write_now(work)
        return found

    klass = shared_store.write_now(lambda conn: make_class(conn, students=2))
    ops = [
        (
            klass.teacher,
            make("open_meeting", meeting_id=klass.meeting_id, captured_at=NOW - timedelta(minutes=1)),
        )
    ]
    ops += _operations(klass, klass.meeting_id, klass.secret, said)
    everything = list(range(len(ops)))
    shuffled = [0, *data.draw(st.permutations(everything[1:]))]
    repeated = shuffled + data.draw(st.lists(st.sampled_from(everything), max_size=4))
    cuts = data.draw(st.sets(st.integers(0, len(repeated))))

    assert run(repeated, cuts) == run(everything, set())


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(raw=st.lists(st.fixed_dictionaries({"kind": st.sampled_from([*Kind, "nonsense"])}, optional={
    name: st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40) | st.uuids().map(str) | st.sampled_from(["2026-11-23T09:00:00Z", "present", "qr", "code", "tap"])
    for name in Operation.__dataclass_fields__ if name != "kind"
}), max_size=8))  # fmt: skip
def test_no_sequence_of_inputs_raises_or_breaks_a_constraint(
    shared_store: Store, raw: list[dict[str, Any]]
) -> None:
    klass = shared_store.write_now(lambda conn: make_class(conn, students=1))
    parsed: list[Any] = []
    for number, item in enumerate(raw):
        item = {"id": new_id(), "meeting_id": klass.meeting_id} | item
        if number % 2:
            item |= {"student_id": klass.students[0]}
        try:
            parsed.append(operations.parse(item))
        except operations.InvalidOperation as error:
            parsed.append(error)

    for author in (klass.teacher, klass.student()):
        assert len(record(shared_store, author, *parsed)) == len(parsed)
