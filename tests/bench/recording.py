"""record() alone: 1,000 students of one class, ten meetings, everybody at once, durable on each database."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from domain.access import Author
from domain.clock import ManualClock
from domain.ids import new_id
from domain.muster import Muster
from domain.operations import Operation, make
from domain.proofs import qr_token
from domain.settings import Settings
from domain.store import open_store
from main import tame_collector
from tests.bench.machine import spread
from tests.factories import NOW, a_class, a_meeting
from tests.servers import Postgres

STUDENTS, MEETINGS = 1000, 10


async def measure() -> list[tuple[str, str]]:
    """Operations a second, and how long each waits when all come at once, on SQLite and on PostgreSQL."""
    tame_collector()  # as the server does
    with tempfile.TemporaryDirectory() as folder:
        rows = await _measure(Settings(data=Path(folder)), "SQLite, synchronous=FULL")
        with Postgres(fsync=True) as postgres:
            settings = Settings(data=Path(folder), database_url=postgres.create_database())
            return rows + await _measure(settings, "PostgreSQL, fsync on, on the same two cores")


async def _measure(settings: Settings, where: str) -> list[tuple[str, str]]:
    with contextlib.closing(open_store(settings)) as store:
        store.migrate()
        klass = a_class(store, students=STUDENTS)
        meetings = [klass.meeting_id]
        meetings += [
            store.write_now(lambda conn: a_meeting(conn, klass.section_id)).id for _ in range(MEETINGS - 1)
        ]
        muster = Muster(settings, clock=ManualClock(NOW), store=store)
        await muster.start()
        opened = [make("open_meeting", id=new_id(), meeting_id=m, captured_at=NOW) for m in meetings]
        await muster.recorder.record(opened, klass.teacher)
        work = [
            (student, _check_in(klass.secret, meeting_id))
            for meeting_id in meetings
            for student in klass.students
        ]
        await _all_at_once(muster, work[:STUDENTS])  # to warm up
        waits = await _all_at_once(muster, work[STUDENTS : 2 * STUDENTS])
        rest = work[2 * STUDENTS :]
        half = len(rest) // 2
        single = half / (max(await _all_at_once(muster, rest[:half])) / 1000)
        batched = half / await _in_batches(muster, rest[half:])
        await muster.stop()
    return [
        (f"record() alone, {where}: each caller four operations", f"{batched:,.0f} operations/s"),
        (f"… {half:,} callers at once, each one operation", f"{single:,.0f} operations/s"),
        (f"… {STUDENTS:,} callers at once, each answered after", spread(waits)),
    ]


def _check_in(secret: bytes, meeting_id: str) -> Operation:
    proof = qr_token(secret, meeting_id, NOW)
    return make("check_in", meeting_id=meeting_id, via="qr", proof=proof, captured_at=NOW, clock_offset_ms=0)


async def _in_batches(muster: Muster, work: list[tuple[str, Operation]]) -> float:
    """As devices send what they kept: each caller with operations of its own student, MEETINGS apart. Seconds."""
    by_student: dict[str, list[Operation]] = {}
    for student, operation in work:
        by_student.setdefault(student, []).append(operation)
    started = time.perf_counter()
    answers = await asyncio.gather(*(muster.recorder.record(ops, Author(s)) for s, ops in by_student.items()))
    assert all(outcome.outcome == "accepted" for outcomes in answers for outcome in outcomes)
    return time.perf_counter() - started


async def _all_at_once(muster: Muster, work: list[tuple[str, Operation]]) -> list[float]:
    """Everybody calls record() in one turn of the loop; when each was answered, in ms from then."""
    waits: list[float] = []
    started = time.perf_counter()

    async def one(student: str, operation: Operation) -> None:
        (outcome,) = await muster.recorder.record([operation], Author(student))
        assert outcome.outcome == "accepted", outcome
        waits.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(one(student, operation) for student, operation in work))
    return waits
