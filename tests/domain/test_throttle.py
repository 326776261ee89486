"""The throttle: its laws, and that it slows guessing without locking a school out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.clock import ManualClock
from domain.throttle import (
    CHECK_INS,
    LOGIN_FAILURES,
    LOGIN_FAILURES_FROM_ADDRESS,
    LOGIN_FAILURES_OF_ACCOUNT,
    WRONG_CODES,
    WRONG_CODES_FROM_ADDRESS,
    Rule,
    Throttle,
    address_key,
)
from tests.factories import NOW

RULES = st.builds(
    Rule,
    name=st.just("rule"),
    capacity=st.integers(1, 50).map(float),
    refill_per_s=st.floats(0.001, 20, allow_nan=False),
)
PAUSES = st.lists(st.floats(0, 30, allow_nan=False), max_size=80)


@given(rule=RULES, pauses=PAUSES)
def test_no_more_than_capacity_and_refill_is_ever_let_through(rule: Rule, pauses: list[float]) -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)
    allowed_at: list[float] = []

    for pause in pauses:
        clock.advance(seconds=pause)
        if throttle.take(rule, "key") is None:
            allowed_at.append((clock.now() - NOW).total_seconds())

    for first, begin in enumerate(allowed_at):  # in every window, not only from the start
        for last in range(first, len(allowed_at)):
            let_through = last - first + 1
            assert let_through <= rule.capacity + rule.refill_per_s * (allowed_at[last] - begin) + 1e-6


@given(rule=RULES, pauses=PAUSES)
def test_whoever_waits_as_long_as_told_is_let_through(rule: Rule, pauses: list[float]) -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)

    for pause in pauses:
        clock.advance(seconds=pause)
        retry_after = throttle.take(rule, "key")
        if retry_after is not None:
            assert retry_after > 0
            clock.advance(seconds=retry_after)
            assert throttle.take(rule, "key") is None


@given(rule=RULES, pauses=PAUSES)
def test_peeking_says_what_taking_would_say_and_takes_nothing(rule: Rule, pauses: list[float]) -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)

    for pause in pauses:
        clock.advance(seconds=pause)
        assert throttle.peek(rule, "key") == throttle.peek(rule, "key") == throttle.take(rule, "key")


@given(rule=RULES, count=st.integers(1, 60))
def test_what_is_given_back_was_never_taken(rule: Rule, count: int) -> None:
    throttle = Throttle(ManualClock(NOW))

    for _ in range(count):
        assert throttle.take(rule, "key") is None
        throttle.give_back(rule, "key")

    assert len(throttle) == 0


@given(keys=st.lists(st.text(max_size=5), max_size=200))
def test_memory_is_bounded_whatever_keys_come(keys: list[str]) -> None:
    throttle = Throttle(ManualClock(NOW), max_buckets=10)

    for key in keys:
        throttle.take(WRONG_CODES, key)

    assert len(throttle) <= 10


def test_buckets_that_are_full_again_are_dropped() -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)
    for number in range(100):
        throttle.take(CHECK_INS, str(number))

    clock.advance(minutes=5)
    for number in range(100):
        throttle.take(CHECK_INS, f"later {number}")

    assert len(throttle) <= 101


def test_one_key_does_not_count_for_another_nor_one_rule_for_another() -> None:
    throttle = Throttle(ManualClock(NOW))
    while throttle.take(WRONG_CODES, "ada") is None:
        pass

    assert throttle.take(WRONG_CODES, "bob") is None
    assert throttle.take(CHECK_INS, "ada") is None


def test_taking_from_several_buckets_takes_from_all_or_from_none() -> None:
    throttle = Throttle(ManualClock(NOW))
    narrow, wide = Rule("narrow", 1, 1), Rule("wide", 3, 1)
    throttle.take(narrow, "key")

    refused = throttle.take_all([(wide, "key"), (narrow, "key")])

    assert refused == 1.0
    assert throttle.take(wide, "key", cost=3) is None


def test_a_clock_set_back_neither_gives_tokens_nor_makes_anybody_wait_for_it() -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)
    rule = Rule("rule", 1, 1)
    throttle.take(rule, "key")

    clock.set(NOW - timedelta(hours=1))
    assert throttle.take(rule, "key") == 1.0
    clock.advance(seconds=1)
    assert throttle.take(rule, "key") is None


def test_a_cost_no_bucket_can_hold_is_a_mistake_in_the_program() -> None:
    with pytest.raises(ValueError, match="capacity"):
        Throttle(ManualClock(NOW)).take(WRONG_CODES, "key", cost=6)


def test_many_threads_together_take_no_more_than_there_is() -> None:
    throttle = Throttle(ManualClock(NOW))
    rule = Rule("rule", 100, 0.001)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: throttle.take(rule, "key"), range(1000)))

    assert answers.count(None) == 100


def test_the_wait_grows_with_the_failures_to_log_in() -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)
    claims = [(rule, "ada|address") for rule in LOGIN_FAILURES]
    waits: list[float] = []

    for _ in range(80):
        retry_after = throttle.take_all(claims)
        waits.append(retry_after or 0)
        if retry_after:
            clock.advance(seconds=retry_after)
            assert throttle.take_all(claims) is None

    assert waits[:5] == [0] * 5
    assert 0 < waits[5] <= 10
    assert 10 < waits[30] <= 60
    assert 60 < waits[79] <= 300


@given(seconds=st.integers(0, 3 * 24 * 3600))
def test_one_address_alone_can_never_use_up_an_account_from_anywhere(seconds: int) -> None:
    from_one_address = min(rule.capacity + rule.refill_per_s * seconds for rule in LOGIN_FAILURES)
    anywhere = LOGIN_FAILURES_OF_ACCOUNT.capacity + LOGIN_FAILURES_OF_ACCOUNT.refill_per_s * seconds

    assert from_one_address < anywhere


@given(mistypes=st.integers(0, 400))
def test_a_school_behind_one_address_may_mistype_at_once(mistypes: int) -> None:
    throttle = Throttle(ManualClock(NOW))

    refused = [
        pupil
        for pupil in range(mistypes)
        if throttle.take_all(
            [*((rule, f"{pupil}|school") for rule in LOGIN_FAILURES), (LOGIN_FAILURES_FROM_ADDRESS, "school")]
        )
    ]

    assert refused == []


def test_forty_students_behind_one_address_may_each_try_a_wrong_code() -> None:
    throttle = Throttle(ManualClock(NOW))

    for student in range(40):
        assert throttle.take(WRONG_CODES, f"student {student}") is None
        assert throttle.take(WRONG_CODES_FROM_ADDRESS, "school") is None
    for student in range(40):
        assert throttle.peek(WRONG_CODES, f"student {student}") is None
        assert throttle.peek(WRONG_CODES_FROM_ADDRESS, "school") is None


def test_the_sixth_wrong_code_within_a_minute_has_to_wait() -> None:
    clock = ManualClock(NOW)
    throttle = Throttle(clock)
    for _ in range(5):
        assert throttle.take(WRONG_CODES, "ada") is None

    retry_after = throttle.peek(WRONG_CODES, "ada")

    assert retry_after == 12.0
    clock.advance(seconds=12)
    assert throttle.peek(WRONG_CODES, "ada") is None


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_address_stands_for_its_customer(address: str, key: str) -> None:
    assert address_key(address) == key
