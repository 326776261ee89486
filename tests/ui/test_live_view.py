"""The shared view model of a meeting: whatever comes while it reads, it ends up with what the record says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from nicegui import core
from sqlalchemy import Connection

from domain import events, operations, register
from domain.events import Draft
from domain.model import Kind
from domain.muster import Muster
from realtime.bus import MemoryBus
from realtime.hub import Hub
from tests.factories import AClass, a_class
from ui.live import LiveMeetings, Viewer

Patches = list[dict[str, Any]]


@pytest_asyncio.fixture(autouse=True)
async def _loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What NiceGUI keeps of its loop when it starts: its background tasks run there."""
    monkeypatch.setattr(core, "loop", asyncio.get_running_loop())


@pytest.fixture
def hub(muster: Muster) -> Hub:
    bus = MemoryBus()
    muster.on_commit(bus.publish)
    return Hub(bus)


@pytest.fixture
def klass(muster: Muster) -> AClass:
    return a_class(muster.store, students=4)


@pytest.fixture
def lives(muster: Muster, hub: Hub) -> LiveMeetings:
    return LiveMeetings(muster, hub)


def mark(klass: AClass, number: int, status: str) -> operations.Operation:
    return operations.make(
        Kind.MARK, meeting_id=klass.meeting_id, student_id=klass.students[number], status=status
    )


async def tell_of_roster(muster: Muster, klass: AClass) -> None:
    draft = Draft(events.WALL, events.ROSTER_CHANGED, muster.clock.now(), {"section_id": klass.section_id})
    await muster.store.write(lambda conn: events.append(conn, [draft]))


def statuses(muster: Muster, klass: AClass) -> dict[str, str | None]:
    view = muster.store.read_now(
        lambda conn: register.read_meeting(conn, klass.meeting_id, muster.clock.now())
    )
    assert view is not None
    return {row.student_id: row.status for row in view.roster}


def shown(snapshot: dict[str, Any]) -> dict[str, str | None]:
    return {row["id"]: row["status"] for row in snapshot["rows"]}


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until something has come about."""
    async with asyncio.timeout(30):  # ends only a wait in vain
        while not is_so():  # noqa: ASYNC110  # what is waited for tells nobody when it is there
            await asyncio.sleep(0)


async def test_a_view_lives_as_long_as_somebody_looks(
    muster: Muster, hub: Hub, klass: AClass, lives: LiveMeetings
) -> None:
    topic = events.meeting_topic(klass.meeting_id)
    first, second = Viewer(), Viewer()

    live = await lives.join(klass.meeting_id, first)
    assert await lives.join(klass.meeting_id, second) is live
    assert hub.watcher_count(topic) == 1
    lives.leave(live, first)
    assert hub.watcher_count(topic) == 1
    lives.leave(live, second)

    assert (hub.watcher_count(topic), hub.watcher_count(events.WALL), lives.open_ids) == (0, 0, ())


async def test_a_meeting_that_is_not_there_leaves_nothing_behind(hub: Hub, lives: LiveMeetings) -> None:
    with pytest.raises(LookupError):
        await lives.join("01900000-0000-7000-8000-000000000000", Viewer())

    assert (hub.topic_count, lives.open_ids) == (0, ())


async def test_a_batch_comes_as_one_patch_that_follows_on_the_snapshot(
    muster: Muster, klass: AClass, lives: LiveMeetings
) -> None:
    patches: Patches = []
    live = await lives.join(klass.meeting_id, Viewer(patches.append))
    before = live.seq

    await muster.recorder.record([mark(klass, n, "present") for n in range(4)], klass.teacher)
    await until(lambda: bool(patches))

    assert [(p["from"], p["seq"], len(p["rows"])) for p in patches] == [(before + 1, before + 4, 4)]
    assert shown(live.snapshot()) == statuses(muster, klass)


async def test_marks_that_come_while_it_reads_again_are_not_lost(
    muster: Muster, klass: AClass, lives: LiveMeetings
) -> None:
    patches: Patches = []
    live = await lives.join(klass.meeting_id, Viewer(patches.append))

    for number, status in enumerate(("present", "absent", "late", "excused")):
        await tell_of_roster(muster, klass)
        await muster.recorder.record([mark(klass, number, status)], klass.teacher)
        await tell_of_roster(muster, klass)
    await until(lambda: shown(live.snapshot()) == statuses(muster, klass))

    seen = [patch["snapshot"]["seq"] for patch in patches if "snapshot" in patch]
    assert seen and seen == sorted(seen)
    patches.clear()
    await muster.recorder.record([mark(klass, 0, "remote")], klass.teacher)
    await until(lambda: any("rows" in patch for patch in patches))
    await until(lambda: shown(live.snapshot()) == statuses(muster, klass))


async def test_the_older_of_two_readings_never_comes_last(
    muster: Muster, klass: AClass, lives: LiveMeetings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await lives.join(klass.meeting_id, Viewer())
    read, has_read, go_on, begun, ended = muster.store.read, asyncio.Event(), asyncio.Event(), 0, 0

    async def read_the_first_slowly(work: Callable[[Connection], Any]) -> Any:
        nonlocal begun, ended
        begun += 1
        is_first = begun == 1
        found = await read(work)
        if is_first:
            has_read.set()
            await go_on.wait()
        ended += 1
        return found

    with monkeypatch.context() as patched:
        patched.setattr(muster.store, "read", read_the_first_slowly)
        await tell_of_roster(muster, klass)
        await has_read.wait()
        await muster.recorder.record([mark(klass, 0, "late")], klass.teacher)
        await tell_of_roster(muster, klass)
        await until(lambda: ended == 1 or live._is_stale)  # the second has overtaken, or waits its turn
        go_on.set()
        await until(lambda: ended == 2 and live._reloading is not None and live._reloading.done())

    assert shown(live.snapshot()) == statuses(muster, klass)
    assert live.seq == live.view.seq


async def test_a_reading_that_fails_is_made_up_for_with_the_next_event(
    muster: Muster, klass: AClass, lives: LiveMeetings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await lives.join(klass.meeting_id, Viewer())

    def broken(*_: object) -> None:
        raise OSError("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(register, "read_meeting", broken)
        await tell_of_roster(muster, klass)
        await muster.recorder.record([mark(klass, 1, "absent")], klass.teacher)
        await until(lambda: live._reloading is not None and live._reloading.done())
    await muster.recorder.record([mark(klass, 2, "late")], klass.teacher)

    await until(lambda: shown(live.snapshot()) == statuses(muster, klass))


async def test_one_page_that_fails_does_not_keep_the_others_from_being_told(
    muster: Muster, klass: AClass, lives: LiveMeetings
) -> None:
    def fail(patch: dict[str, Any]) -> None:
        raise RuntimeError("this page is gone")

    patches: Patches = []
    await lives.join(klass.meeting_id, Viewer(fail))
    await lives.join(klass.meeting_id, Viewer(patches.append))

    await muster.recorder.record([mark(klass, 0, "present")], klass.teacher)

    await until(lambda: bool(patches))
