"""Which version of the policy governs a meeting, and what it says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from domain.access import NOBODY, Denied, Standing
from domain.inputs import InvalidInput
from domain.model import EnrolmentRole, Meeting, MeetingState, Policy, table
from domain.policies import (
    BOUNDS,
    DEFAULTS,
    add_policy,
    late_after_min,
    load_policies,
    opens_at,
    policy_at,
    state_of,
)
from domain.store import Store
from tests.factories import a_class

pytestmark = pytest.mark.both_databases

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
END = START + timedelta(minutes=50)
ADMIN = Standing(person_id="admin", is_active=True, is_admin=True)
TEACHER = Standing(person_id="teacher", is_active=True, staff_role=EnrolmentRole.TEACHER)


def a_meeting(**values: Any) -> Meeting:
    facts: dict[str, Any] = {
        "id": "meeting",
        "section_id": "section",
        "scheduled_start": START,
        "scheduled_end": END,
        "secret": "",
        "link_token": "",
        "created_at": START,
    }
    return Meeting(**facts | values)


def a_version(
    version: int = 1, *, valid_from: datetime = START, section_id: str | None = None, **rules: Any
) -> Policy:
    scope = section_id or "school"
    return Policy(
        id=f"{scope}-{version}",
        version=version,
        section_id=section_id,
        valid_from=valid_from,
        created_at=valid_from,
        **rules,
    )


def days(count: int) -> timedelta:
    return timedelta(days=count)


# -- which version ----------------------------------------------------------------------------


def test_without_any_policy_the_defaults_hold() -> None:
    assert policy_at([], "section", START) is DEFAULTS
    assert (DEFAULTS.opens_before_min, DEFAULTS.late_after_min, DEFAULTS.cutoff_min) == (10, 5, 30)


def test_the_newest_version_that_was_valid_at_the_start_governs() -> None:
    policies = [a_version(1, valid_from=START - days(2)), a_version(2, valid_from=START - days(1))]

    assert policy_at(policies, "section", START).version == 2
    assert policy_at(policies, "section", START - days(2)).version == 1
    assert policy_at(policies, "section", START - days(3)) is DEFAULTS


def test_a_version_made_four_minutes_into_a_meeting_does_not_govern_it() -> None:
    policies = [
        a_version(1, valid_from=START - days(1)),
        a_version(2, valid_from=START + timedelta(minutes=4)),
    ]

    assert policy_at(policies, "section", START).version == 1


def test_a_version_governs_the_meeting_that_starts_at_the_very_instant_it_becomes_valid() -> None:
    assert policy_at([a_version(1, valid_from=START)], "section", START).version == 1


def test_of_two_versions_valid_from_the_same_instant_the_higher_governs() -> None:
    policies = [a_version(2), a_version(3), a_version(1)]

    assert policy_at(policies, "section", START).version == 3


def test_a_sections_own_policy_beats_the_schools_even_an_older_one() -> None:
    policies = [
        a_version(1, valid_from=START - days(9), section_id="section"),
        a_version(7, valid_from=START),
    ]

    assert policy_at(policies, "section", START).section_id == "section"
    assert policy_at(policies, "other", START).version == 7


def test_a_sections_policy_of_tomorrow_leaves_todays_to_the_school() -> None:
    policies = [a_version(1, valid_from=START + days(1), section_id="section"), a_version(7)]

    assert policy_at(policies, "section", START).version == 7


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([None, "section", "other"])), max_size=8),
    st.integers(0, 20),
    st.randoms(),
)
def test_a_later_version_never_changes_what_governs_an_earlier_meeting(
    versions: list[tuple[int, str | None]], start: int, random: Any
) -> None:
    policies = [
        a_version(n, valid_from=START + days(day), section_id=section)
        for n, (day, section) in enumerate(versions)
    ]
    meeting_start = START + days(start)
    before = policy_at(policies, "section", meeting_start)
    added = a_version(99, valid_from=meeting_start + timedelta(milliseconds=1), section_id="section")
    later = [*policies, added]
    random.shuffle(later)

    assert policy_at(later, "section", meeting_start) is before


# -- what it says -----------------------------------------------------------------------------


def test_a_meeting_goes_from_scheduled_through_open_closing_and_closed_to_locked() -> None:
    policy = a_version(closing_grace_s=10, lock_after_days=14)
    closed = a_meeting(opened_at=START, closed_at=END)

    def at(instant: datetime, meeting: Meeting = closed) -> MeetingState:
        return state_of(meeting, policy, instant)

    assert at(START, a_meeting()) is MeetingState.SCHEDULED
    assert at(END + days(99), a_meeting()) is MeetingState.SCHEDULED, "nobody took it"
    assert at(END + days(99), a_meeting(opened_at=START)) is MeetingState.OPEN
    assert at(END) is MeetingState.CLOSING
    assert at(END + timedelta(seconds=9.999)) is MeetingState.CLOSING
    assert at(END + timedelta(seconds=10)) is MeetingState.CLOSED
    assert at(END + days(14) - timedelta(milliseconds=1)) is MeetingState.CLOSED
    assert at(END + days(14)) is MeetingState.LOCKED


def test_a_meeting_closed_without_having_been_opened_is_closed() -> None:
    assert state_of(a_meeting(closed_at=END), DEFAULTS, END + timedelta(minutes=1)) is MeetingState.CLOSED


def test_a_cancelled_meeting_is_cancelled_whatever_else_happened() -> None:
    meeting = a_meeting(opened_at=START, closed_at=END, cancelled_at=START)

    assert state_of(meeting, DEFAULTS, END + days(99)) is MeetingState.CANCELLED


def test_check_ins_are_taken_from_ten_minutes_before_the_start() -> None:
    assert opens_at(a_meeting(), DEFAULTS) == START - timedelta(minutes=10)


def test_the_grace_given_at_opening_beats_the_policys_also_when_it_is_none_at_all() -> None:
    assert late_after_min(a_meeting(), DEFAULTS) == 5
    assert late_after_min(a_meeting(late_after_min=12), DEFAULTS) == 12
    assert late_after_min(a_meeting(late_after_min=0), DEFAULTS) == 0


# -- adding a version -------------------------------------------------------------------------


def added(store: Store, *, now: datetime = START, standing: Standing = ADMIN, **values: Any) -> Policy:
    given_values = {"section_id": None, "valid_from": now} | values
    return store.write_now(lambda conn: add_policy(conn, standing, now=now, **given_values))


def governing(store: Store, section_id: str, start: datetime) -> Policy:
    return policy_at(store.read_now(lambda conn: load_policies(conn, [section_id])), section_id, start)


def test_an_added_version_governs_what_starts_from_then_on_and_nothing_before(store: Store) -> None:
    section_id = a_class(store).section_id

    added(store, now=START, valid_from=START + days(1), late_after_min=8)

    assert governing(store, section_id, START + days(1)).late_after_min == 8
    assert governing(store, section_id, START + days(1) - timedelta(milliseconds=1)).late_after_min == 5


def test_versions_count_up_for_the_school_and_for_each_section(store: Store) -> None:
    one, two = a_class(store).section_id, a_class(store, code="11C").section_id

    versions = [added(store, section_id=s).version for s in (None, one, None, one, two)]

    assert versions == [1, 1, 2, 2, 1]


def test_rules_left_out_stay_as_they_were(store: Store) -> None:
    section_id = a_class(store).section_id
    added(store, late_after_min=8, cutoff_min=None)

    version = added(store, section_id=section_id, lock_after_days=30)

    assert (version.late_after_min, version.cutoff_min, version.lock_after_days) == (8, None, 30)


def test_earlier_versions_are_kept_as_they_were(store: Store) -> None:
    first = added(store, late_after_min=8)
    added(store, late_after_min=9)

    kept = store.read_now(lambda conn: load_policies(conn))

    assert [(p.version, p.late_after_min) for p in kept] == [(1, 8), (2, 9)]
    assert kept[0] == first


def test_a_policy_that_would_reach_into_the_past_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="forward only"):
        added(store, now=START, valid_from=START - timedelta(milliseconds=1))


def test_a_policy_that_would_reach_a_meeting_opened_before_its_start_is_refused(store: Store) -> None:
    klass, other = a_class(store, start=START), a_class(store, start=START, code="11C")
    just_before = START - timedelta(minutes=5)
    opened = (
        update(table(Meeting)).where(table(Meeting).c.id == klass.meeting_id).values(opened_at=just_before)
    )
    store.write_now(lambda conn: conn.execute(opened))

    for section_id in (None, klass.section_id):
        with pytest.raises(InvalidInput, match=r"must be after 2026-11-23T09:00:00\.000Z"):
            added(store, now=just_before, section_id=section_id)
    assert added(store, now=just_before, section_id=other.section_id).version == 1
    assert added(store, now=just_before, valid_from=START + timedelta(milliseconds=1)).version == 1


@pytest.mark.parametrize("standing", [NOBODY, TEACHER, Standing(person_id="gone", is_admin=True)])
def test_nobody_but_an_admin_changes_the_policy(store: Store, standing: Standing) -> None:
    with pytest.raises(Denied):
        added(store, standing=standing, late_after_min=8)

    assert store.read_now(lambda conn: load_policies(conn)) == []


def test_a_value_out_of_bounds_is_refused_with_the_bounds_and_the_value(store: Store) -> None:
    with pytest.raises(InvalidInput, match="late_after_min must be 0-240, got 900"):
        added(store, late_after_min=900)


@pytest.mark.parametrize("name", BOUNDS)
def test_each_rule_takes_its_least_and_its_most_and_nothing_beyond(store: Store, name: str) -> None:
    least, most = BOUNDS[name]
    base: dict[str, Any] = {"late_after_min": 0, "cutoff_min": None}

    for value in (least, most):
        assert getattr(added(store, **base | {name: value}), name) == value
    for wrong in (least - 1, most + 1, "5", 5.0, True):
        with pytest.raises(InvalidInput, match=f"{name} must be {least}-{most}"):
            added(store, **base | {name: wrong})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"late_after_min": None}, "late_after_min must be 0-240, got None"),
        ({"after_cutoff": "shrug"}, "after_cutoff must be absent or refuse, got 'shrug'"),
        ({"after_cutoff": ["absent"]}, "after_cutoff must be"),
        ({"colour": 3}, "a policy's rules are .*, got colour"),
        (
            {"late_after_min": 20, "cutoff_min": 10},
            r"cutoff_min must not be less than late_after_min \(20\), got 10",
        ),
        ({"section_id": "nowhere"}, "section_id must be one of this school"),
        ({"valid_from": datetime(2030, 1, 1)}, "valid_from needs a time zone"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_trace(
    store: Store, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        added(store, **values)

    assert store.read_now(lambda conn: load_policies(conn)) == []
