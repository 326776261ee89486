"""Buckets and doors: how much is granted, however it is asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realtime.limits import Bucket, Doors, Limits

RATES, BURSTS = st.floats(0.1, 1000), st.integers(1, 1000)
STEPS = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1000)), max_size=40)


@given(RATES, BURSTS, STEPS)
def test_never_more_is_granted_than_the_burst_and_what_comes_back_meanwhile(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now, granted = Bucket(rate, burst, 0.0), 0.0, 0

    for passed, count in steps:
        now += passed
        if bucket.take(count, now) == 0.0:
            granted += count

        assert granted <= (burst + rate * now) * (1 + 1e-9)


@given(RATES, BURSTS, STEPS)
def test_whoever_waits_as_long_as_told_is_granted_what_was_asked_for(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now = Bucket(rate, burst, 0.0), 0.0

    for passed, count in steps:
        now += passed
        if count <= burst and (wait := bucket.take(count, now)):
            now += wait + 1e-6
            assert bucket.take(count, now) == 0.0


def test_refusing_takes_nothing() -> None:
    bucket = Bucket(1.0, 10, 0.0)

    assert bucket.take(8, 0.0) == 0.0
    assert [bucket.take(5, 0.0) for _ in range(3)] == [3.0, 3.0, 3.0]
    assert bucket.take(2, 0.0) == 0.0


def test_more_than_ever_fits_is_never_granted() -> None:
    bucket = Bucket(1.0, 10, 0.0)

    assert bucket.take(11, 0.0) > 0
    assert bucket.take(11, 1e6) > 0


@given(st.lists(st.integers(0, 3), max_size=60))
def test_the_doors_count_everybody_out_again(moves: list[int]) -> None:
    doors = Doors(Limits(connections=10, connections_per_address=4))
    inside: list[str] = []
    for move in moves:
        address = f"10.0.0.{move}"
        if len(inside) % 3 == 2:
            doors.leave(inside.pop(0))
        elif doors.enter(address, 0.0) == 0.0:
            inside.append(address)

        assert doors.count == len(inside) <= 10
        assert all(inside.count(a) <= 4 for a in inside)
    for address in inside:
        doors.leave(address)
    assert doors.count == 0 and not doors._by_address


def test_addresses_that_were_seen_once_do_not_pile_up() -> None:
    doors = Doors(Limits(connections=10**9))

    for number in range(25_000):
        address = f"{number}"
        doors.enter(address, 0.0)
        doors.leave(address)

    assert len(doors._arrivals) <= Doors._KEPT_BUCKETS
    assert not doors._by_address
