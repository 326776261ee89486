"""The short version of `python -m tests.bench.soak`: who comes and goes leaves nothing behind."""

from __future__ import annotations

from tests.bench.soak import soak


def test_connections_that_come_and_go_leave_no_task_no_file_and_no_topic_behind() -> None:
    seen = soak(150, minutes=0, rounds=4, is_pinned=False)

    assert (seen.connections, seen.received, seen.flaws) == (600, 18_000, 0)
    _fresh, warm, *later = seen.held
    assert {held.topics for held in later} == {0}
    assert all(held.tasks <= warm.tasks + 2 for held in later)  # a timer more or less
    assert all(held.files <= warm.files + 2 for held in later)
    assert later[-1].memory_mib < warm.memory_mib + 10
