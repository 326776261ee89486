"""The fold's laws and rules (protocol §2), without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.access import Authority
from domain.model import AfterCutoff, Kind, Status, Via
from domain.resolve import Entry, Resolved, Timing, resolve, resolve_meeting
from tests.factories import NOW

STUDENT = "student"
TIMING = Timing(NOW)


def at(minutes: float) -> Any:
    return NOW + timedelta(minutes=minutes)


def a_check_in(id: str = "c1", minutes: float = 1, *, proven: bool = True, **values: Any) -> Entry:
    authority = Authority.PROVEN if proven else Authority.UNPROVEN
    return Entry(
        id=id, kind=Kind.CHECK_IN, authority=authority, effective_at=at(minutes),
        **(dict[str, Any](author_id=STUDENT, student_id=STUDENT, via=Via.QR, seq=1) | values),
    )  # fmt: skip


def a_mark(id: str, minutes: float, status: Status, by: str = "t1", **values: Any) -> Entry:
    return Entry(
        id=id, kind=Kind.MARK, effective_at=at(minutes), status=status,
        **(dict[str, Any](authority=Authority.STAFF, author_id=by, student_id=STUDENT, code=status[0].upper(), seq=2) | values),
    )  # fmt: skip


def a_revert(id: str, minutes: float, of: str, by: str = "t1") -> Entry:
    return Entry(
        id=id, kind=Kind.REVERT, authority=Authority.STAFF, effective_at=at(minutes), author_id=by,
        student_id=STUDENT, reverts=of, seq=3,
    )  # fmt: skip


def a_close(id: str = "close", minutes: float = 50, *, final: bool = True) -> Entry:
    return Entry(
        id=id, kind=Kind.CLOSE_MEETING, authority=Authority.STAFF, effective_at=at(minutes), author_id="t1",
        is_final=final, roster=frozenset({STUDENT}), seq=4,
    )  # fmt: skip


def folded(*entries: Entry, timing: Timing = TIMING) -> Resolved:
    record = resolve(STUDENT, entries, timing)
    assert record is not None
    return record


def test_nothing_said_is_unmarked_and_no_row() -> None:
    assert resolve(STUDENT, [], TIMING) is None


@pytest.mark.parametrize(
    ("milliseconds", "status", "minutes"),
    [
        (0, Status.PRESENT, None),
        (300_000, Status.PRESENT, None),
        (300_001, Status.LATE, 6),
        (600_000, Status.LATE, 10),
    ],
)
def test_the_grace_is_inclusive_and_lateness_is_rounded_up(
    milliseconds: int, status: Status, minutes: int | None
) -> None:
    record = folded(replace(a_check_in(), effective_at=NOW + timedelta(milliseconds=milliseconds)))

    assert (record.status, record.minutes_late) == (status, minutes)


def test_after_the_cutoff_a_check_in_is_absent_when_the_policy_says_so() -> None:
    assert folded(a_check_in(minutes=31)).status is Status.ABSENT
    assert (
        folded(a_check_in(minutes=31), timing=replace(TIMING, after_cutoff=AfterCutoff.REFUSE)).status
        is Status.LATE
    )
    assert folded(a_check_in(minutes=31), timing=replace(TIMING, cutoff_min=None)).status is Status.LATE


def test_of_several_check_ins_the_first_stands() -> None:
    record = folded(a_check_in("c2", 9), a_check_in("c1", 2))

    assert (record.status, record.operation_id, record.version) == (Status.PRESENT, "c1", 2)


def test_a_check_in_without_valid_proof_is_kept_but_does_not_count() -> None:
    record = folded(a_check_in(proven=False))

    assert (record.status, record.is_unverified) == (None, True)


def test_a_valid_check_in_replaces_an_unverified_one() -> None:
    record = folded(a_check_in("c1", 1, proven=False), a_check_in("c2", 3))

    assert (record.status, record.operation_id, record.is_unverified) == (Status.PRESENT, "c2", False)


def test_closing_makes_the_unmarked_absent_and_asks_about_the_unverified() -> None:
    record = folded(a_check_in(proven=False), a_close())

    assert (record.status, record.source, record.is_unverified) == (Status.ABSENT, "system", True)


def test_closing_changes_nothing_for_whoever_has_a_record_or_is_not_on_the_roster() -> None:
    assert folded(a_check_in(), a_close()).status is Status.PRESENT
    assert resolve("somebody else", [a_close()], TIMING) is None
    assert resolve(STUDENT, [a_close(final=False)], TIMING) is None


def test_a_check_in_captured_before_the_close_wins_over_the_automatic_absence_whenever_it_arrives() -> None:
    assert folded(a_close(minutes=0.5), a_check_in(minutes=2)).status is Status.PRESENT


def test_reopening_takes_the_automatic_absence_back_until_the_next_close() -> None:
    reopen = Entry(
        id="r", kind=Kind.REOPEN_MEETING, authority=Authority.STAFF, effective_at=at(51), author_id="t1"
    )

    assert resolve(STUDENT, [a_close(), reopen], TIMING) is None
    assert folded(a_close(), reopen, a_close("again", 60)).status is Status.ABSENT


def test_a_mark_stands_over_a_check_in_and_an_admin_over_a_teacher() -> None:
    admin = a_mark("m1", 5, Status.EXCUSED, by="admin", authority=Authority.ADMIN)

    record = folded(a_check_in(), admin, a_mark("m2", 10, Status.ABSENT))

    assert (record.status, record.source) == (Status.EXCUSED, "admin")


def test_an_unseen_check_in_that_disagrees_makes_the_mark_contested_and_is_proposed() -> None:
    record = folded(a_mark("m1", 20, Status.ABSENT), a_check_in(minutes=1, seq=9))

    assert (record.status, record.is_contested) == (Status.ABSENT, True)
    assert record.proposal is not None
    assert (record.proposal["status"], record.proposal["operation_id"]) == ("present", "c1")


def test_a_check_in_after_an_absent_mark_contests_it_as_came_in_late() -> None:
    record = folded(a_mark("m1", 2, Status.ABSENT), a_check_in(minutes=10, seq=9))

    assert record.is_contested
    assert record.proposal is not None
    assert (record.proposal["status"], record.proposal["minutes_late"]) == ("late", 10)


def test_a_later_check_in_adds_nothing_to_a_student_marked_present() -> None:
    assert not folded(a_mark("m1", 2, Status.PRESENT), a_check_in(minutes=10, seq=9)).is_contested


def test_a_mark_that_has_seen_the_check_in_settles_it() -> None:
    assert not folded(a_check_in(seq=7), a_mark("m1", 20, Status.ABSENT, seen_seq=7)).is_contested


def test_two_staff_who_had_not_seen_each_other_leave_the_later_mark_contested() -> None:
    record = folded(
        a_mark("m1", 1, Status.ABSENT, by="t1"), a_mark("m2", 2, Status.LATE, by="t2", minutes_late=4)
    )

    assert (record.status, record.minutes_late, record.is_contested) == (Status.LATE, 4, True)


def test_two_staff_who_agree_contest_nothing() -> None:
    assert not folded(
        a_mark("m1", 1, Status.ABSENT, by="t1"), a_mark("m2", 2, Status.ABSENT, by="t2")
    ).is_contested


def test_a_mark_that_has_seen_both_settles_them() -> None:
    dispute = [a_mark("m1", 1, Status.ABSENT, by="t1", seq=3), a_mark("m2", 2, Status.LATE, by="t2", seq=4)]

    assert not folded(*dispute, a_mark("m3", 3, Status.EXCUSED, by="t1", seen_seq=4)).is_contested


def test_a_revert_gives_back_what_was_before_and_can_itself_be_reverted() -> None:
    said = [a_check_in(), a_mark("m1", 5, Status.ABSENT)]

    assert folded(*said, a_revert("r1", 6, of="m1")).status is Status.PRESENT
    assert folded(*said, a_revert("r1", 6, of="m1"), a_revert("r2", 7, of="r1")).status is Status.ABSENT


def test_undo_leaves_a_row_that_a_colleague_has_changed_since() -> None:
    record = folded(
        a_mark("m1", 1, Status.PRESENT),
        a_mark("m2", 2, Status.EXCUSED, by="t2", seen_seq=9),
        a_revert("r1", 3, of="m1"),
    )

    assert record.status is Status.EXCUSED


def test_a_chain_of_reverts_that_bites_its_own_tail_still_gives_a_record() -> None:
    assert (
        resolve(STUDENT, [a_revert("r1", 1, of="r2"), a_revert("r2", 2, of="r1"), a_check_in()], TIMING)
        is not None
    )


def test_no_device_goes_back_behind_its_own_earlier_operation() -> None:
    first = a_mark("m1", 10, Status.ABSENT, device_id="d", device_seq=1)
    second = a_mark("m2", 5, Status.PRESENT, device_id="d", device_seq=2)  # the clock was put back in between

    assert folded(first, second).status is Status.PRESENT


def test_a_meeting_is_open_from_its_first_opening_to_its_first_close() -> None:
    opened = [
        Entry(id=i, kind=Kind.OPEN_MEETING, authority=Authority.STAFF, effective_at=at(m), author_id="t1")
        for i, m in (("o2", 3), ("o1", 1))
    ]

    facts = resolve_meeting([*opened, a_close("x2", 60), a_close("x1", 50)])

    assert (facts.opened_at, facts.closed_at) == (at(1), at(50))
    assert facts.taken_by is not None and facts.taken_by.id == "x1"


def test_a_close_that_is_taken_back_leaves_the_meeting_open() -> None:
    undo = Entry(
        id="u",
        kind=Kind.REVERT,
        authority=Authority.STAFF,
        effective_at=at(51),
        author_id="t1",
        reverts="close",
    )

    facts = resolve_meeting([a_close(), undo])

    assert facts.closed_at is None and facts.taken_by is None


def test_a_system_close_does_not_take_the_register() -> None:
    assert resolve_meeting([replace(a_close(), authority=Authority.SYSTEM, author_id=None)]).taken_by is None


# -- laws -------------------------------------------------------------------------------------

_ids = st.integers(1, 30).map(lambda n: f"op{n:02d}")
_moments = st.integers(-10, 40).map(lambda m: at(m))
_devices = st.sampled_from([(None, None), ("d1", 1), ("d1", 2), ("d2", 1), ("d2", 5)])


@st.composite
def _entries(draw: st.DrawFn) -> Entry:
    identifier, kind = (
        draw(_ids),
        draw(
            st.sampled_from([Kind.CHECK_IN, Kind.MARK, Kind.REVERT, Kind.CLOSE_MEETING, Kind.REOPEN_MEETING])
        ),
    )
    device_id, device_seq = draw(_devices)
    common: dict[str, Any] = {
        "id": identifier, "kind": kind, "effective_at": draw(_moments), "seq": int(identifier[2:]),
        "seen_seq": draw(st.none() | st.integers(0, 30)), "device_id": device_id, "device_seq": device_seq,
    }  # fmt: skip
    if kind is Kind.CHECK_IN:
        authority = draw(st.sampled_from([Authority.PROVEN, Authority.UNPROVEN]))
        return Entry(**common, authority=authority, author_id=STUDENT, student_id=STUDENT, via=Via.CODE)
    author = draw(st.sampled_from(["t1", "t2", "admin"]))
    authority = Authority.ADMIN if author == "admin" else Authority.STAFF
    if kind is Kind.MARK:
        return Entry(
            **common,
            authority=authority,
            author_id=author,
            student_id=STUDENT,
            status=draw(st.sampled_from(list(Status))),
        )
    if kind is Kind.REVERT:
        return Entry(**common, authority=authority, author_id=author, student_id=STUDENT, reverts=draw(_ids))
    return Entry(**common, authority=authority, author_id=author, is_final=True, roster=frozenset({STUDENT}))


_sets = st.lists(_entries(), max_size=12, unique_by=lambda e: e.id)


@given(_sets, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_record(entries: list[Entry], random: Any) -> None:
    shuffled = entries[:]
    random.shuffle(shuffled)

    assert resolve(STUDENT, shuffled, TIMING) == resolve(STUDENT, entries, TIMING)
    assert resolve_meeting(shuffled) == resolve_meeting(entries)


@given(_sets)
def test_a_staff_mark_is_never_overruled_by_a_check_in(entries: list[Entry]) -> None:
    record = resolve(STUDENT, entries, TIMING)
    without = resolve(STUDENT, [e for e in entries if e.kind is not Kind.CHECK_IN], TIMING)

    if without is not None and without.source in ("teacher", "admin") and record is not None:
        reverted_check_ins = {e.id for e in entries if e.kind is Kind.CHECK_IN}
        if not any(e.reverts in reverted_check_ins for e in entries):
            assert record.status == without.status or any(e.device_id for e in entries)


@given(_sets)
def test_taking_every_operation_back_leaves_nothing(entries: list[Entry]) -> None:
    undo = [a_revert(f"z{n}", 50, of=e.id) for n, e in enumerate(entries) if e.kind is not Kind.REVERT]
    plain = [e for e in entries if e.kind is not Kind.REVERT]

    assert resolve(STUDENT, [*plain, *undo], TIMING) is None
