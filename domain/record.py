"""record(): THE write path of attendance. Everybody who changes attendance comes through here.

Callers are many, the writer is one: while one transaction is being written the next callers gather,
and then go together (group commit). An answer is given only after the commit. If a batch fails, its
operations are redone one by one, so a bad one does not hurt its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from domain.access import Author
from domain.clock import Clock
from domain.decide import decide
from domain.events import Event
from domain.known import Submission
from domain.ledger import Ledger
from domain.operations import InvalidOperation, Operation
from domain.outcomes import Outcome, Verdict, rejected
from domain.store import Store, StoreUnavailable
from domain.throttle import Throttle

__all__ = ["Outcome", "Recorded", "Recorder", "RecorderBusy", "Submission", "Verdict", "record_batch"]

log = logging.getLogger("muster.record")

#: Operations in one transaction: larger ones gain little and make the first caller wait (docs/bench.md).
BATCH = 512
#: Callers answered in one turn of the event loop; each then does a fraction of a millisecond's work.
ANSWERS_A_TURN = 8
#: Operations that may wait; beyond it callers are told to come back. At 5,000/s this is four seconds' work.
MAX_WAITING = 20_000
#: How long a group is tried again while the database cannot be reached, before its authors are told.
INSIST_FOR_S = 15.0


class RecorderBusy(RuntimeError):
    """Too much is waiting to be written; nothing was recorded, try again after ``retry_after`` seconds."""

    code = "busy"
    retry_after = 1.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one transaction answered and told."""

    outcomes: list[Outcome]
    events: list[Event]


def record_batch(
    conn: Connection, submissions: Sequence[Submission], *, now: datetime, throttle: Throttle | None = None
) -> Recorded:
    """Decide and write a batch inside the write transaction ``conn``; one outcome for each, in order."""
    ledger = Ledger(conn, submissions, now)
    outcomes = [decide(ledger, submission, throttle) for submission in submissions]
    ledger.flush()
    return Recorded(outcomes, ledger.drafts)


@dataclass(slots=True)
class _Job:
    submissions: list[Submission]
    answer: asyncio.Future[list[Outcome]]


class Recorder:
    """Gathers operations from all callers of this process and writes them in groups."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        throttle: Throttle | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._throttle = throttle
        self._on_written: Callable[[int, float], None] = lambda count, seconds: None
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def is_running(self) -> bool:
        """Whether operations are being written."""
        return self._task is not None and not self._task.done()

    @property
    def waiting_count(self) -> int:
        """Operations that wait to be written."""
        return self._waiting

    def on_written(self, tell: Callable[[int, float], None]) -> None:
        """Have each committed group measured: how many operations, and seconds from start to commit."""
        self._on_written = tell

    async def start(self) -> None:
        """Begin to write. The recorder owns its task until ``stop``."""
        self._is_stopping = False
        self._task = asyncio.create_task(self._run(), name="muster-recorder")

    async def stop(self) -> None:
        """Write what is waiting, then end."""
        self._is_stopping = True
        self._arrived.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def record(
        self, operations: Sequence[Operation | InvalidOperation], author: Author, *, address: str = ""
    ) -> list[Outcome]:
        """Record operations of one author; one outcome for each, in order, after they are durable.

        ``address`` is the client's, for the limits on wrong codes. Raises RecorderBusy when too much
        waits or the recorder is stopping. Cancelling the caller does not undo what is under way.
        """
        if not operations:
            return []
        if self._is_stopping or self._waiting + len(operations) > MAX_WAITING:
            raise RecorderBusy(f"{self._waiting} operations are waiting to be written")
        received_at = self._clock.now()
        job = _Job(
            [Submission(operation, author, received_at, address) for operation in operations],
            asyncio.get_running_loop().create_future(),
        )
        self._jobs.append(job)
        self._waiting += len(operations)
        self._arrived.set()
        return await job.answer

    async def _run(self) -> None:
        answering: asyncio.Task[None] | None = None
        while self._jobs or not self._is_stopping:
            if not self._jobs:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            jobs = self._gather()
            submissions = [s for job in jobs for s in job.submissions]
            outcomes = await self._written(submissions)
            self._waiting -= len(submissions)
            if answering is not None:
                await answering  # one batch after the other, while the next is being written
            answering = asyncio.create_task(self._answer(jobs, outcomes))
        if answering is not None:
            await answering

    async def _answer(self, jobs: Sequence[_Job], outcomes: Sequence[Outcome]) -> None:
        """Answer a few at a time: all callers of a large batch at once would keep the loop from all others."""
        start = 0
        for place, job in enumerate(jobs, 1):
            end = start + len(job.submissions)
            if not job.answer.done():
                job.answer.set_result(list(outcomes[start:end]))
            start = end
            if place % ANSWERS_A_TURN == 0:
                await asyncio.sleep(0)

    def _gather(self) -> list[_Job]:
        jobs, count = [self._jobs.popleft()], 0
        count = len(jobs[0].submissions)
        while self._jobs and count + len(self._jobs[0].submissions) <= BATCH:
            jobs.append(self._jobs.popleft())
            count += len(jobs[-1].submissions)
        return jobs

    async def _written(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """One outcome for each, whatever happens. While the database cannot be reached the batch is tried
        again, which is safe even if it was committed unseen: each operation is known by its id."""
        give_up_at = time.monotonic() + INSIST_FOR_S
        while True:
            try:
                return await self._write(submissions)
            except StoreUnavailable as error:
                if time.monotonic() < give_up_at and not (self._is_stopping and not error.is_unknown):
                    await asyncio.sleep(error.retry_after / 4)
                    continue
                log.error("%d operations were not recorded: %s", len(submissions), error)
                return [rejected(submission.operation.id, "busy") for submission in submissions]
            except Exception:  # the rim of the task: told, and gone on with
                log.exception("a batch of %d failed: its operations are redone one by one", len(submissions))
                return await self._redo(submissions)

    async def _write(self, submissions: Sequence[Submission]) -> list[Outcome]:
        now, began = self._clock.now(), time.perf_counter()
        recorded = await self._store.write(
            lambda conn: record_batch(conn, submissions, now=now, throttle=self._throttle)
        )
        self._on_written(len(submissions), time.perf_counter() - began)
        return recorded.outcomes

    async def _redo(self, submissions: Sequence[Submission]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for submission in submissions:
            try:
                outcomes += await self._write([submission])
            except Exception as error:  # the rim of the task: this one's author is told
                number = getattr(submission.operation, "id", None)
                log.exception("operation %s could not be recorded", number, extra={"operation_id": number})
                code = "busy" if isinstance(error, SQLAlchemyError | StoreUnavailable) else "internal"
                outcomes.append(rejected(submission.operation.id, code))
        return outcomes
